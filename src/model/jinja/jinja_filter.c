/* jinja_filter: filters of one value; see jinja_impl.h. Those of lists are in
 * jinja_filter_list.c. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/jinja/jinja_impl.h"

static struct jinja_value filter_abs(struct jinja_run *r, struct jinja_value v, struct jargs *args)
{
    if (!jargs_check(r, args, 0, 0)) return v;
    if (v.type == J_FLOAT) {
        v.as.real = fabs(v.as.real);
        return v;
    }
    if (!jis_number(v)) return jfail(r, "abs: a number is needed, not %s", jtype_name(v));
    return jinteger(v) < 0 ? jeval_binary(r, OP_SUB, jint(0), v)
                           : jeval_binary(r, OP_ADD, jint(0), v);
}

static struct jinja_value filter_attr(struct jinja_run *r, struct jinja_value v, struct jargs *args)
{
    const struct jstr *s = jargs_check(r, args, 1, 1) ? jarg_str(r, args, 0, "name") : NULL;
    if (!s) return v;
    if (v.type == J_DICT) { /* an attribute only, never a key */
        bool found;
        v = jmethod_bind(r, v, s->data, s->len, &found);
        return found ? v : jundefined("an attribute");
    }
    return jeval_attribute(r, v, s->data, s->len);
}

static struct jinja_value filter_case(struct jinja_run *r, struct jinja_value v, char how)
{
    return jstring_case(r, jto_str(r, v), how);
}

static struct jinja_value filter_capitalize(struct jinja_run *r, struct jinja_value v,
                                            struct jargs *args)
{
    (void)args;
    return filter_case(r, v, 'c');
}

static struct jinja_value filter_lower(struct jinja_run *r, struct jinja_value v,
                                       struct jargs *args)
{
    (void)args;
    return filter_case(r, v, 'l');
}

static struct jinja_value filter_upper(struct jinja_run *r, struct jinja_value v,
                                       struct jargs *args)
{
    (void)args;
    return filter_case(r, v, 'u');
}

static bool begins_word(uint32_t c)
{
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || junicode_is_space(c);
}

/* Every word, as cut at white space, hyphens and opening brackets. */
static struct jinja_value filter_title(struct jinja_run *r, struct jinja_value v,
                                       struct jargs *args)
{
    const struct jstr *s = jto_str(r, v);
    struct jout o;
    (void)args;
    jout_init(&o);
    for (size_t at = 0, n; at < s->len && !r->code;) {
        bool between = begins_word(jtext_code(s->data + at, s->len - at, &n));
        size_t first = at + n, end = first;
        while (end < s->len && begins_word(jtext_code(s->data + end, s->len - end, &n)) == between)
            end += n;
        struct jinja_value head = jtext_sub(r, s, at, first), tail = jtext_sub(r, s, first, end);
        if (!r->code) head = jstring_case(r, jstr_of(head), 'u');
        if (!r->code) tail = jstring_case(r, jstr_of(tail), 'l');
        if (!r->code) jout_str(r, &o, jstr_of(head));
        if (!r->code) jout_str(r, &o, jstr_of(tail));
        at = end;
    }
    return jout_take(r, &o);
}

static struct jinja_value filter_default(struct jinja_run *r, struct jinja_value v,
                                         struct jargs *args)
{
    struct jinja_value *otherwise = jarg(args, 0, "default_value");
    if (!jargs_check(r, args, 0, 2)) return v;
    bool missing = v.type == J_UNDEFINED || (jarg_bool(args, 1, "boolean", false) && !jtruth(v));
    if (!missing) return v;
    return otherwise ? *otherwise : jtext_c(r, "");
}

static struct jinja_value filter_escape(struct jinja_run *r, struct jinja_value v,
                                        struct jargs *args)
{
    const struct jstr *s = jto_str(r, v);
    (void)args;
    return s->markup ? v : jtext_escaped(r, s);
}

static struct jinja_value filter_forceescape(struct jinja_run *r, struct jinja_value v,
                                             struct jargs *args)
{
    (void)args;
    return jtext_escaped(r, jto_str(r, v));
}

static struct jinja_value filter_safe(struct jinja_run *r, struct jinja_value v, struct jargs *args)
{
    const struct jstr *s = jto_str(r, v);
    (void)args;
    v = jtext_sub(r, s, 0, s->len);
    if (!r->code) jstr_of(v)->markup = true;
    return v;
}

static struct jinja_value filter_string(struct jinja_run *r, struct jinja_value v,
                                        struct jargs *args)
{
    (void)args;
    if (v.type == J_STR) return v;
    const struct jstr *s = jto_str(r, v);
    return jtext_sub(r, s, 0, s->len);
}

/* The text of a number without white space around it, or NULL. */
static const char *number_text(struct jinja_run *r, struct jinja_value v, char out[64])
{
    struct jinja_value stripped = jstring_strip(r, jstr_of(v), NULL, 3);
    if (r->code) return NULL;
    const struct jstr *s = jstr_of(stripped);
    size_t n = 0;
    for (size_t i = 0; i < s->len; i++) {
        char c = s->data[i];
        bool between = i > 0 && i + 1 < s->len && s->data[i - 1] != '_' && s->data[i + 1] != '_';
        if (n >= 63 || !c || (c == '_' && !between)) return NULL;
        if (c != '_') out[n++] = c;
    }
    out[n] = 0;
    return n && out[strspn(out, "+-0123456789.eEinfatyINFATY")] == 0 ? out : NULL;
}

static bool to_float(struct jinja_run *r, struct jinja_value v, double *ret_value)
{
    char text[64], *end;
    if (jis_number(v)) {
        *ret_value = jnumber(v);
        return true;
    }
    const char *at = v.type == J_STR ? number_text(r, v, text) : NULL;
    if (!at) return false;
    *ret_value = strtod(at, &end);
    return *end == 0 && end != at;
}

static bool to_int(struct jinja_run *r, struct jinja_value v, int base, int64_t *ret_value)
{
    char text[64], *end;
    double d;
    if (v.type == J_INT || v.type == J_BOOL) {
        *ret_value = jinteger(v);
        return true;
    }
    if (v.type == J_STR) {
        struct jinja_value stripped = jstring_strip(r, jstr_of(v), NULL, 3);
        const struct jstr *s = r->code ? NULL : jstr_of(stripped);
        if (s && s->len && s->len < sizeof text) {
            memcpy(text, s->data, s->len);
            text[s->len] = 0;
            errno = 0;
            long long i = strtoll(text, &end, base);
            *ret_value = i;
            if (*end == 0 && end == text + s->len && !errno) return true;
            if (errno == ERANGE && *end == 0) jfail(r, "a number does not fit 64 bits");
        }
    }
    if (!to_float(r, v, &d) || d != d || d - d != 0.0) return false;
    if (fabs(d) >= 9.2e18) {
        jfail(r, "a number does not fit 64 bits");
        return false;
    }
    *ret_value = (int64_t)d;
    return true;
}

static bool is_foreign(struct jinja_value v)
{
    return v.type == J_STR ? jtext_is_foreign(jstr_of(v)) : v.foreign;
}

static struct jinja_value filter_int(struct jinja_run *r, struct jinja_value v, struct jargs *args)
{
    int64_t base, i;
    struct jinja_value *otherwise = jarg(args, 0, "default");
    if (!jargs_check(r, args, 0, 2) || !jarg_int(r, args, 1, "base", 10, &base)) return v;
    if (base < 0 || base == 1 || base > 36) return jfail(r, "int: a base of %lld", (long long)base);
    if (v.type == J_UNDEFINED) return jfail_undefined(r, v);
    bool good = to_int(r, v, (int)base, &i);
    if (!good) return otherwise ? *otherwise : jint(0);
    struct jinja_value result = jint(i);
    result.foreign = is_foreign(v);
    return result;
}

static struct jinja_value filter_float(struct jinja_run *r, struct jinja_value v,
                                       struct jargs *args)
{
    double d;
    struct jinja_value *otherwise = jarg(args, 0, "default");
    if (!jargs_check(r, args, 0, 1)) return v;
    if (v.type == J_UNDEFINED) return jfail_undefined(r, v);
    if (!to_float(r, v, &d)) return otherwise ? *otherwise : jfloat(0.0);
    struct jinja_value result = jfloat(d);
    result.foreign = is_foreign(v);
    return result;
}

/* The nearest decimal of `places` digits; ties are decided by the exact digits, as printf does. */
static double round_common(double d, int64_t places)
{
    char text[512];
    if (places < 0) {
        double scale = pow(10.0, (double)-places);
        return nearbyint(d / scale) * scale;
    }
    if (places > 300 || d - d != 0.0 || d != d) return d;
    snprintf(text, sizeof text, "%.*f", (int)places, d);
    return strtod(text, NULL);
}

static struct jinja_value filter_round(struct jinja_run *r, struct jinja_value v,
                                       struct jargs *args)
{
    int64_t places;
    struct jinja_value *method = jarg(args, 1, "method");
    if (!jargs_check(r, args, 0, 2) || !jarg_int(r, args, 0, "precision", 0, &places)) return v;
    if (!jis_number(v)) return jfail(r, "round: a number is needed, not %s", jtype_name(v));
    bool common = !method || (method->type == J_STR && jtext_is(jstr_of(*method), "common"));
    bool up = !common && method->type == J_STR && jtext_is(jstr_of(*method), "ceil");
    bool down = !common && method->type == J_STR && jtext_is(jstr_of(*method), "floor");
    if (!common && !up && !down) return jfail(r, "round: the method is common, ceil or floor");
    if (places > 300 || places < -300) return jfail(r, "round: that precision is not supported");
    if (common && v.type != J_FLOAT) {
        if (places < 0) return jfail(r, "round: whole numbers are not rounded to tens here");
        return jeval_binary(r, OP_ADD, jint(0), v);
    }
    double d = jnumber(v), scale = pow(10.0, (double)places);
    struct jinja_value result = jfloat(common ? round_common(d, places)
                                       : up   ? ceil(d * scale) / scale
                                              : floor(d * scale) / scale);
    result.foreign = v.foreign;
    return result;
}

static struct jinja_value filter_format(struct jinja_run *r, struct jinja_value v,
                                        struct jargs *args)
{
    struct jinja_value values;
    if (args->n && args->n_named) return jfail(r, "format: values by place or by name, not both");
    if (args->n_named) {
        values = jinja_dict(r);
        jargs_named(r, args, values);
    } else {
        values = jlist_of_items(r, J_TUPLE, args->v, args->n);
    }
    return r->code ? v : jformat_percent(r, jto_str(r, v), values);
}

static struct jinja_value filter_trim(struct jinja_run *r, struct jinja_value v, struct jargs *args)
{
    struct jinja_value *of = jarg(args, 0, "chars");
    if (!jargs_check(r, args, 0, 1)) return v;
    return jstring_strip(r, jto_str(r, v), of && of->type == J_STR ? jstr_of(*of) : NULL, 3);
}

static struct jinja_value filter_replace(struct jinja_run *r, struct jinja_value v,
                                         struct jargs *args)
{
    int64_t max;
    if (!jargs_check(r, args, 2, 3) || !jarg_int(r, args, 2, "count", -1, &max)) return v;
    struct jinja_value *from = jarg(args, 0, "old"), *to = jarg(args, 1, "new");
    if (!from || !to) return jfail(r, "replace: an argument is missing");
    return jstring_replace(r, jto_str(r, v), jto_str(r, *from), jto_str(r, *to), max);
}

static struct jinja_value filter_center(struct jinja_run *r, struct jinja_value v,
                                        struct jargs *args)
{
    struct jinja_value width = jint(80);
    struct jinja_value *given = jarg(args, 0, "width");
    const char *name;
    int center = jstring_method("center", 6, &name);
    struct jargs inner = {.v = &width, .n = 1, .of = "center"};
    if (!jargs_check(r, args, 0, 1)) return v;
    if (given) width = *given;
    return jstring_call(r, jobject(J_STR, jto_str(r, v)), (uint8_t)center, &inner);
}

static struct jinja_value filter_indent(struct jinja_run *r, struct jinja_value v,
                                        struct jargs *args)
{
    enum { INDENT_MAX = 1000 };
    struct jinja_value *width = jarg(args, 0, "width");
    struct jinja_value space = jtext_c(r, "    ");
    bool first = jarg_bool(args, 1, "first", false), blank = jarg_bool(args, 2, "blank", false);
    struct jout o;
    if (!jargs_check(r, args, 0, 3) || r->code) return v;
    if (width && width->type == J_STR) space = *width;
    if (width && width->type == J_INT && width->as.integer > INDENT_MAX)
        return jfail(r, "indent: a width above %d", INDENT_MAX);
    if (width && width->type != J_STR) space = jeval_binary(r, OP_MUL, jtext_c(r, " "), *width);
    if (v.type != J_STR) return jfail(r, "indent: a string is needed, not %s", jtype_name(v));
    const struct jstr *s = jstr_of(v);
    jout_init(&o); /* Jinja ends the text with a line break, and cuts it there again */
    jout_str(r, &o, s);
    jout_puts(r, &o, "\n", JINJA_OWN);
    struct jinja_value ended = jout_take(r, &o);
    struct jinja_value all = r->code ? ended : jstring_splitlines(r, jstr_of(ended), false);
    if (r->code) return v;
    const struct jlist *lines = jlist_of(all);
    jout_init(&o);
    for (uint32_t i = 0; i < lines->n && !r->code; i++) {
        const struct jstr *line = jstr_of(lines->items[i]);
        if (i) jout_puts(r, &o, "\n", JINJA_OWN);
        if (i ? blank || line->len : first) jout_str(r, &o, jstr_of(space));
        jout_str(r, &o, line);
    }
    return jout_take(r, &o);
}

static bool is_word(uint32_t c)
{
    return c == '_' || junicode_is_alpha(c) || junicode_is_numeric(c) || junicode_is_decimal(c);
}

static struct jinja_value filter_wordcount(struct jinja_run *r, struct jinja_value v,
                                           struct jargs *args)
{
    const struct jstr *s = jto_str(r, v);
    int64_t count = 0;
    bool inside = false;
    (void)args;
    for (size_t at = 0, n; at < s->len; at += n) {
        bool word = is_word(jtext_code(s->data + at, s->len - at, &n));
        count += word && !inside;
        inside = word;
    }
    jwork(r, s->len / 4);
    struct jinja_value result = jint(count);
    result.foreign = jtext_is_foreign(s);
    return result;
}

static struct jinja_value filter_truncate(struct jinja_run *r, struct jinja_value v,
                                          struct jargs *args)
{
    static const struct jstr dots = {.data = "...", .len = 3};
    int64_t length, leeway;
    if (!jargs_check(r, args, 0, 4) || !jarg_int(r, args, 0, "length", 255, &length) ||
        !jarg_int(r, args, 3, "leeway", 5, &leeway))
        return v;
    if (v.type == J_UNDEFINED || (jis_sequence(v) && jlist_of(v)->n <= length + leeway)) return v;
    if (v.type != J_STR) return jfail(r, "truncate: a string is needed, not %s", jtype_name(v));
    struct jinja_value *end = jarg(args, 2, "end");
    const struct jstr *s = jto_str(r, v), *tail = end ? jto_str(r, *end) : &dots;
    int64_t n = (int64_t)jtext_count(s), n_tail = (int64_t)jtext_count(tail);
    if (length < n_tail || leeway < 0) return jfail(r, "truncate: the length is too small");
    if (n <= length + leeway) return jtext_sub(r, s, 0, s->len);
    size_t cut = jtext_offset(s, (size_t)(length - n_tail));
    static const struct jstr space = {.data = " ", .len = 1};
    size_t word = jtext_find_last(s, &space, 0, cut);
    if (!jarg_bool(args, 1, "killwords", false) && word != (size_t)JNOWHERE) cut = word;
    struct jout o;
    jout_init(&o);
    jout_sub(r, &o, s, 0, cut);
    jout_str(r, &o, tail);
    return jout_take(r, &o);
}

static struct jinja_value filter_urlencode(struct jinja_run *r, struct jinja_value v,
                                           struct jargs *args)
{
    static const char plain[] = "_.-~/";
    struct jout o;
    (void)args;
    if (v.type == J_UNDEFINED) return jtext_c(r, "");
    if (v.type != J_STR && !jis_number(v))
        return jfail(r, "urlencode: a string is needed, not %s", jtype_name(v));
    const struct jstr *s = jto_str(r, v);
    jout_init(&o);
    for (size_t i = 0; i < s->len && !r->code; i++) {
        char c = s->data[i], text[4];
        bool kept = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                    (c && strchr(plain, c));
        snprintf(text, sizeof text, kept ? "%c" : "%%%02X", (uint8_t)c);
        jout_puts(r, &o, text, jmark_at(s, i));
    }
    return jout_take(r, &o);
}

static const struct jfilter filters[] = {
    {"abs", filter_abs},
    {"attr", filter_attr},
    {"capitalize", filter_capitalize},
    {"center", filter_center},
    {"d", filter_default},
    {"default", filter_default},
    {"e", filter_escape},
    {"escape", filter_escape},
    {"float", filter_float},
    {"forceescape", filter_forceescape},
    {"format", filter_format},
    {"indent", filter_indent},
    {"int", filter_int},
    {"lower", filter_lower},
    {"replace", filter_replace},
    {"round", filter_round},
    {"safe", filter_safe},
    {"string", filter_string},
    {"title", filter_title},
    {"tojson", jjson_dump},
    {"trim", filter_trim},
    {"truncate", filter_truncate},
    {"upper", filter_upper},
    {"urlencode", filter_urlencode},
    {"wordcount", filter_wordcount},
};

struct jinja_value jfilter_call(struct jinja_run *r, const char *name, size_t len,
                                struct jinja_value v, struct jargs *args)
{
    jfilter_fn *fn = jfilter_of_lists(name, len);
    char *copy = jalloc(r, len + 1);
    for (size_t i = 0; i < sizeof filters / sizeof *filters && !fn; i++)
        if (jname_is(name, len, filters[i].name)) fn = filters[i].fn;
    if (!copy) return v;
    if (!fn) return jfail(r, "there is no filter %.*s", (int)(len < 80 ? len : 80), name);
    memcpy(copy, name, len);
    copy[len] = 0;
    args->of = copy;
    if (!jdeeper(r)) return v;
    v = fn(r, v, args);
    r->depth--;
    return r->code ? jundefined(NULL) : v;
}
