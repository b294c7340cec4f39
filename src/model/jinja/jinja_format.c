/* jinja_format: "..." % values and "...".format(values), as Python has them; see jinja_impl.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/jinja/jinja_impl.h"

enum { WIDTH_MAX = 1000, NUMBER_MAX = 512 };

struct spec {
    char fill[5]; /* one character */
    char align;   /* < > = ^ or 0 */
    bool plus, space, alternate, zero, group;
    int64_t width, precision; /* precision -1: none */
    char type;                /* 0: none */
};

static int64_t read_number(const struct jstr *s, size_t *at)
{
    int64_t n = 0;
    while (*at < s->len && s->data[*at] >= '0' && s->data[*at] <= '9' && n <= WIDTH_MAX)
        n = n * 10 + (s->data[(*at)++] - '0');
    return n;
}

static void pad(struct jinja_run *r, struct jout *o, const char *fill, int64_t n)
{
    for (; n > 0 && !r->code; n--)
        jout_puts(r, o, fill, JINJA_OWN);
}

/* A text between as much fill as its width asks for. `sign`: bytes that stay in front of zeros. */
static void put_padded(struct jinja_run *r, struct jout *o, const struct spec *f,
                       const struct jstr *s, size_t sign, char align)
{
    int64_t n = f->width - (int64_t)jtext_count(s);
    if (n < 0) n = 0;
    int64_t left = align == '>' ? n : align == '^' ? n / 2 : 0;
    pad(r, o, f->fill, left);
    jout_sub(r, o, s, 0, sign);
    if (align == '=') pad(r, o, f->fill, n);
    jout_sub(r, o, s, sign, s->len);
    if (align == '<' || align == '^') pad(r, o, f->fill, n - left);
}

static void group_thousands(char *text, size_t room)
{
    size_t digits = strspn(text, "0123456789"), n = strlen(text);
    for (size_t at = digits; at > 3 && n + 1 < room; n++) {
        at -= 3;
        memmove(text + at + 1, text + at, n - at + 1);
        text[at] = ',';
    }
}

/* Digits of |v| by type d, x, X, o, b, e, f, g, ...; false: not a number, or no such type. */
static bool print_number(struct jinja_value v, const struct spec *f, char type, char *out)
{
    char format[8] = "%.*f";
    int precision = f->precision < 0 ? 6 : (int)f->precision;
    double d = fabs(jnumber(v));
    int64_t i = jinteger(v);
    unsigned long long size = i < 0 ? 0ull - (unsigned long long)i : (unsigned long long)i;
    if (precision > 400 || !jis_number(v)) return false;
    if (strchr("eEfFgG%", type)) {
        if (type == '%') d *= 100.0;
        format[3] = type == '%' ? 'f' : type;
        if ((type == 'g' || type == 'G') && precision == 0) precision = 1;
        snprintf(out, NUMBER_MAX, format, precision, d);
        if (type == '%') snprintf(out + strlen(out), 2, "%%");
    } else if (v.type == J_FLOAT) {
        return false;
    } else if (type == 'b') {
        int n = 0;
        for (int bit = 63; bit >= 0; bit--)
            if (size >> bit & 1 || n || bit == 0) out[n++] = size >> bit & 1 ? '1' : '0';
        out[n] = 0;
    } else {
        snprintf(out, NUMBER_MAX,
                 type == 'x'   ? "%llx"
                 : type == 'X' ? "%llX"
                 : type == 'o' ? "%llo"
                               : "%llu",
                 size);
    }
    return true;
}

static void put_number(struct jinja_run *r, struct jout *o, const struct spec *f,
                       struct jinja_value v, char type)
{
    char digits[NUMBER_MAX + 64], text[NUMBER_MAX + 80];
    if (!print_number(v, f, type, digits) || strlen(digits) > 400) {
        jfail(r, "the format %c does not fit a value of type %s", type, jtype_name(v));
        return;
    }
    if (f->group) group_thousands(digits, sizeof digits);
    bool negative = v.type == J_FLOAT ? signbit(v.as.real) && v.as.real == v.as.real
                                      : v.type == J_INT && v.as.integer < 0;
    const char *sign = negative ? "-" : f->plus ? "+" : f->space ? " " : "";
    const char *prefix = !f->alternate ? ""
                         : type == 'x' ? "0x"
                         : type == 'X' ? "0X"
                         : type == 'o' ? "0o"
                         : type == 'b' ? "0b"
                                       : "";
    int n = snprintf(text, sizeof text, "%s%s%s", sign, prefix, digits);
    struct jstr s = {.data = text, .len = (size_t)n};
    s.mark = v.foreign ? JINJA_FOREIGN : JINJA_OWN;
    char align = f->align ? f->align : '>';
    put_padded(r, o, f, &s, strlen(sign) + strlen(prefix), align);
}

static void put_text(struct jinja_run *r, struct jout *o, const struct spec *f,
                     const struct jstr *s)
{
    struct jstr cut = *s;
    if (f->precision >= 0) cut.len = jtext_offset(s, (size_t)f->precision);
    put_padded(r, o, f, &cut, 0, f->align ? f->align : '<');
}

/* ---- % ---- */

struct percent {
    struct jinja_run *r;
    const struct jstr *s;
    struct jinja_value args;
    uint32_t used;
    struct jout out;
};

static struct jinja_value next_value(struct percent *p)
{
    if (p->args.type == J_TUPLE) {
        if (p->used < jlist_of(p->args)->n) return jlist_of(p->args)->items[p->used++];
    } else if (p->used == 0) {
        p->used = 1;
        return p->args;
    }
    return jfail(p->r, "a format has more directives than values");
}

static struct jinja_value named_value(struct percent *p, size_t *at)
{
    size_t from = ++*at;
    while (*at < p->s->len && p->s->data[*at] != ')')
        ++*at;
    if (*at >= p->s->len || p->args.type != J_DICT)
        return jfail(p->r, "a format names a value, and there is no dict");
    struct jinja_value *v = jdict_find_text(jdict_of(p->args), p->s->data + from, *at - from);
    ++*at;
    p->used = 1;
    return v ? *v : jfail(p->r, "a format names a value that is not there");
}

static void put_directive(struct percent *p, const struct spec *f, struct jinja_value v, char type)
{
    struct jout repr;
    struct jinja_value text;
    char code[4];
    switch (type) {
    case 's':
        put_text(p->r, &p->out, f, jto_str(p->r, v));
        return;
    case 'r':
        jout_init(&repr);
        jout_repr(p->r, &repr, v);
        text = jout_take(p->r, &repr);
        if (!p->r->code) put_text(p->r, &p->out, f, jstr_of(text));
        return;
    case 'c':
        if (v.type == J_INT && v.as.integer >= 0 && v.as.integer < 128) {
            code[0] = (char)v.as.integer;
            jout_bytes(p->r, &p->out, code, 1, v.foreign ? JINJA_FOREIGN : JINJA_OWN);
        } else if (v.type == J_STR && jtext_count(jstr_of(v)) == 1) {
            put_text(p->r, &p->out, f, jstr_of(v));
        } else {
            jfail(p->r, "%%c needs one character");
        }
        return;
    case 'i':
    case 'u':
    case 'd':
        if (v.type == J_FLOAT && fabs(v.as.real) < 9e18) {
            bool foreign = v.foreign;
            v = jint((int64_t)v.as.real);
            v.foreign = foreign;
        }
        type = 'd';
        break;
    default:
        break;
    }
    if (strchr("dxXoeEfFgG", type))
        put_number(p->r, &p->out, f, v, type);
    else
        jfail(p->r, "%%%c is no directive of a format", type);
}

static void read_directive(struct percent *p, size_t *at)
{
    struct spec f = {.fill = " ", .precision = -1};
    struct jinja_value v = jinja_none();
    bool named = *at < p->s->len && p->s->data[*at] == '(';
    if (named) v = named_value(p, at);
    for (; *at < p->s->len && strchr("-+ 0#", p->s->data[*at]) && p->s->data[*at]; ++*at) {
        char c = p->s->data[*at];
        if (c == '-') f.align = '<';
        if (c == '+') f.plus = true;
        if (c == ' ') f.space = true;
        if (c == '0') f.zero = true;
        if (c == '#') f.alternate = true;
    }
    f.width = read_number(p->s, at);
    if (*at < p->s->len && p->s->data[*at] == '.') {
        ++*at;
        f.precision = read_number(p->s, at);
    }
    char type = *at < p->s->len ? p->s->data[(*at)++] : 0;
    if (!type || f.width > WIDTH_MAX || f.precision > WIDTH_MAX) {
        jfail(p->r, "a format has a directive that is not supported");
        return;
    }
    if (type == '%') {
        jout_puts(p->r, &p->out, "%", JINJA_OWN);
        return;
    }
    if (!named) v = next_value(p);
    bool number = type != 's' && type != 'r' && type != 'c';
    if (!f.align) f.align = f.zero && number ? '=' : '>';
    if (f.align == '=') f.fill[0] = '0';
    if (!p->r->code) put_directive(p, &f, v, type);
}

/* What could be a dict for Python need not be used up. */
static bool has_items(struct jinja_value v)
{
    return v.type == J_DICT || v.type == J_LIST || v.type == J_RANGE || v.type == J_UNDEFINED;
}

struct jinja_value jformat_percent(struct jinja_run *r, const struct jstr *s,
                                   struct jinja_value args)
{
    struct percent p = {.r = r, .s = s, .args = args};
    jout_init(&p.out);
    for (size_t at = 0; at < s->len && !r->code;) {
        const char *sign = memchr(s->data + at, '%', s->len - at);
        size_t to = sign ? (size_t)(sign - s->data) : s->len;
        jout_sub(r, &p.out, s, at, to);
        at = to + 1;
        if (sign) read_directive(&p, &at);
    }
    bool all = args.type == J_TUPLE ? p.used == jlist_of(args)->n : p.used == 1 || has_items(args);
    if (!all && !r->code) jfail(r, "a format has fewer directives than values");
    return jout_take(r, &p.out);
}

/* ---- str.format ---- */

static void read_spec(struct jinja_run *r, const struct jstr *s, struct spec *f)
{
    size_t at = 0, n = s->len ? jtext_char_len(s->data, s->len) : 0;
    *f = (struct spec){.fill = " ", .precision = -1};
    if (n && n < s->len && strchr("<>=^", s->data[n])) {
        memcpy(f->fill, s->data, n);
        f->fill[n] = 0;
        f->align = s->data[n];
        at = n + 1;
    } else if (s->len && strchr("<>=^", s->data[0]) && s->data[0]) {
        f->align = s->data[at++];
    }
    for (; at < s->len && strchr("+- #0", s->data[at]) && s->data[at]; at++) {
        f->plus = f->plus || s->data[at] == '+';
        f->space = f->space || s->data[at] == ' ';
        f->alternate = f->alternate || s->data[at] == '#';
        if (s->data[at] == '0') {
            if (!f->align) {
                f->align = '=';
                f->fill[0] = '0';
            }
            f->zero = true;
        }
    }
    f->width = read_number(s, &at);
    if (at < s->len && s->data[at] == ',') {
        f->group = true;
        at++;
    }
    if (at < s->len && s->data[at] == '.') {
        at++;
        f->precision = read_number(s, &at);
    }
    if (at < s->len) f->type = s->data[at++];
    if (at < s->len || f->width > WIDTH_MAX || f->precision > WIDTH_MAX)
        jfail(r, "a format has a field that is not supported");
}

static void put_field(struct jinja_run *r, struct jout *o, struct jinja_value v,
                      const struct jstr *spec)
{
    struct spec f;
    if (spec->len == 0) {
        jout_value(r, o, v);
        return;
    }
    read_spec(r, spec, &f);
    if (r->code) return;
    bool number = jis_number(v) && v.type != J_BOOL;
    if (v.type == J_STR && (!f.type || f.type == 's') && f.align != '=' && !f.group && !f.plus)
        put_text(r, o, &f, jstr_of(v));
    else if (number && (f.type || v.type == J_INT) && strchr("dxXobeEfFgG%", f.type ? f.type : 'd'))
        put_number(r, o, &f, v, f.type ? f.type : 'd');
    else
        jfail(r, "a format has a field that is not supported for a value of type %s",
              jtype_name(v));
}

/* The value of "0", "name", "" with ".attribute" and "[item]" after it. */
static struct jinja_value field_value(struct jinja_run *r, const struct jstr *name,
                                      struct jargs *args, int64_t *next)
{
    size_t end = 0, at;
    while (end < name->len && name->data[end] != '.' && name->data[end] != '[')
        end++;
    struct jinja_value v = jinja_none();
    size_t digits = 0;
    int64_t index = read_number(name, &digits);
    if (end == 0 || digits == end) {
        if (end == 0 ? *next < 0 : *next > 0)
            return jfail(r, "format: fields with and without numbers");
        if (end == 0)
            index = (*next)++;
        else
            *next = -1;
        if (index >= args->n) return jfail(r, "format: there is no value %lld", (long long)index);
        v = args->v[index];
    } else {
        uint32_t i = 0;
        while (i < args->n_named &&
               (args->named[i].len != end || memcmp(args->named[i].name, name->data, end) != 0))
            i++;
        if (i == args->n_named) return jfail(r, "format: a field names a value that is not there");
        v = args->named[i].value;
    }
    for (at = end; at < name->len && !r->code; at = end) {
        bool item = name->data[at] == '[';
        end = at + 1;
        while (end < name->len &&
               (item ? name->data[end] != ']' : name->data[end] != '.' && name->data[end] != '['))
            end++;
        size_t from = at + 1;
        int64_t number = read_number(name, &from);
        bool is_index = item && from == end && end > at + 1;
        struct jinja_value key = is_index ? jint(number) : jtext_sub(r, name, at + 1, end);
        if (!r->code)
            v = item ? jeval_item(r, v, key)
                     : jeval_attribute(r, v, name->data + at + 1, end - at - 1);
        if (!r->code && v.type == J_UNDEFINED) jfail(r, "format: a field has no such part");
        if (item) end++;
    }
    return v;
}

static size_t put_braces(struct jinja_run *r, struct jout *o, const struct jstr *s, size_t at,
                         struct jargs *args, int64_t *next)
{
    size_t end = at, colon;
    while (end < s->len && s->data[end] != '}' && s->data[end] != '{')
        end++;
    if (end >= s->len || s->data[end] == '{') {
        jfail(r, "format: a field that is not closed, or has another in it");
        return s->len;
    }
    colon = at;
    while (colon < end && s->data[colon] != ':' && s->data[colon] != '!')
        colon++;
    if (colon < end && s->data[colon] == '!') jfail(r, "format: conversions are not supported");
    struct jstr name = {.data = s->data + at, .len = colon - at};
    struct jstr spec = {.data = s->data + colon + 1, .len = colon < end ? end - colon - 1 : 0};
    struct jinja_value v = r->code ? jinja_none() : field_value(r, &name, args, next);
    if (!r->code) put_field(r, o, v, &spec);
    return end + 1;
}

struct jinja_value jformat_braces(struct jinja_run *r, const struct jstr *s, struct jargs *args)
{
    struct jout o;
    int64_t next = 0;
    jout_init(&o);
    for (size_t at = 0; at < s->len && !r->code;) {
        char c = s->data[at];
        bool twice = at + 1 < s->len && s->data[at + 1] == c;
        if (c == '{' && !twice) {
            at = put_braces(r, &o, s, at + 1, args, &next);
        } else if (c == '}' && !twice) {
            jfail(r, "format: a brace closes what was not opened");
        } else {
            jout_sub(r, &o, s, at, at + 1);
            at += c == '{' || c == '}' ? 2 : 1;
        }
    }
    return jout_take(r, &o);
}
