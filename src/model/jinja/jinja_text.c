/*
 * jinja_text: strings with marks, and what str() and repr() write; see jinja_impl.h.
 *
 * A part of a string shares the bytes of the whole. Concatenation to the end of a string that was
 * made by concatenation appends in place, so that a template may build its prompt piece by piece in
 * linear time.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/jinja/jinja_impl.h"

enum { GROW_FROM = 256 };

struct jinja_value jtext(struct jinja_run *r, const char *text, size_t n, uint8_t mark)
{
    struct jstr *s = jalloc(r, sizeof *s);
    if (!s) return jundefined(NULL);
    *s = (struct jstr){.data = text, .len = n, .mark = mark};
    return jobject(J_STR, s);
}

struct jinja_value jtext_c(struct jinja_run *r, const char *text)
{
    return jtext(r, text, strlen(text), JINJA_OWN);
}

struct jinja_value jinja_text(struct jinja_run *r, const char *text, size_t n, enum jinja_mark mark)
{
    return jtext(r, text, n, (uint8_t)mark);
}

struct jinja_value jtext_sub(struct jinja_run *r, const struct jstr *s, size_t from, size_t to)
{
    struct jinja_value v = jtext(r, s->data + from, to - from, s->mark);
    if (!r->code && s->marks) jstr_of(v)->marks = s->marks + from;
    if (!r->code) jstr_of(v)->markup = s->markup;
    return v;
}

uint8_t jmark_at(const struct jstr *s, size_t at)
{
    return s->marks ? s->marks[at] : s->mark;
}

bool jtext_is_foreign(const struct jstr *s)
{
    if (s->marks) return s->len > 0 && memchr(s->marks, JINJA_FOREIGN, s->len) != NULL;
    return s->mark == JINJA_FOREIGN;
}

bool jname_is(const char *name, size_t len, const char *text)
{
    return strlen(text) == len && memcmp(name, text, len) == 0;
}

bool jtext_is(const struct jstr *s, const char *text)
{
    return jname_is(s->data, s->len, text);
}

uint32_t jtext_code(const char *text, size_t n, size_t *ret_len)
{
    uint32_t code;
    size_t len = utf8_decode(text, n, &code);
    *ret_len = len ? len : 1;
    return len ? code : 0xDC00u + (uint8_t)text[0];
}

size_t jtext_char_len(const char *text, size_t n)
{
    size_t len;
    if ((uint8_t)text[0] < 0x80) return 1;
    jtext_code(text, n, &len);
    return len;
}

size_t jtext_count(const struct jstr *s)
{
    size_t count = 0;
    for (size_t at = 0; at < s->len; count++)
        at += jtext_char_len(s->data + at, s->len - at);
    return count;
}

size_t jtext_offset(const struct jstr *s, size_t i)
{
    size_t at = 0;
    for (; i > 0 && at < s->len; i--)
        at += jtext_char_len(s->data + at, s->len - at);
    return at;
}

size_t jtext_find(const struct jstr *s, const struct jstr *what, size_t from, size_t to)
{
    if (from > to || what->len > to - from) return (size_t)JNOWHERE;
    if (what->len == 0) return from;
    const char *at = memmem(s->data + from, to - from, what->data, what->len);
    return at ? (size_t)(at - s->data) : (size_t)JNOWHERE;
}

size_t jtext_find_last(const struct jstr *s, const struct jstr *what, size_t from, size_t to)
{
    if (from > to || what->len > to - from) return (size_t)JNOWHERE;
    for (size_t at = to - what->len;; at--) {
        if (memcmp(s->data + at, what->data, what->len) == 0) return at;
        if (at == from) return (size_t)JNOWHERE;
    }
}

/* ---- concatenation ---- */

static void copy_marks(uint8_t *to, const struct jstr *s)
{
    if (s->marks)
        memcpy(to, s->marks, s->len);
    else
        memset(to, s->mark, s->len);
}

/* Room for a and b, with a in it; NULL: no memory. */
static struct jgrow *grow_for(struct jinja_run *r, const struct jstr *a, size_t len)
{
    size_t cap = len < GROW_FROM ? len : 2 * len;
    struct jgrow *g = jalloc(r, sizeof *g);
    char *data = jalloc(r, cap + 1);
    uint8_t *marks = jalloc(r, cap + 1);
    if (!g || !data || !marks) return NULL;
    *g = (struct jgrow){data, marks, a->len, cap};
    if (a->len) memcpy(data, a->data, a->len);
    copy_marks(marks, a);
    return g;
}

struct jinja_value jtext_escaped(struct jinja_run *r, const struct jstr *s)
{
    static const char from[] = "&<>'\"";
    static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    struct jout o;
    size_t start = 0;
    jout_init(&o);
    for (size_t i = 0; i < s->len && !r->code; i++) {
        const char *at = s->data[i] ? strchr(from, s->data[i]) : NULL;
        if (!at) continue;
        jout_sub(r, &o, s, start, i);
        jout_puts(r, &o, to[at - from], jmark_at(s, i));
        start = i + 1;
    }
    jout_sub(r, &o, s, start, s->len);
    struct jinja_value v = jout_take(r, &o);
    if (!r->code) jstr_of(v)->markup = true;
    return v;
}

struct jinja_value jtext_concat(struct jinja_run *r, struct jstr *a, struct jstr *b)
{
    bool markup = a->markup || b->markup;
    if (a->markup != b->markup) {
        struct jinja_value v = jtext_escaped(r, a->markup ? b : a);
        if (r->code) return v;
        *(a->markup ? &b : &a) = jstr_of(v);
    }
    if (!markup && b->len == 0) return jobject(J_STR, a);
    if (!markup && a->len == 0) return jobject(J_STR, b);
    size_t len = a->len + b->len;
    if (len > JINJA_OUTPUT_MAX) return jfail_code(r, ERR_LIMIT, "a string grows too long");
    struct jgrow *g = a->grow;
    bool fits = g && a->data + a->len == g->data + g->used && g->cap - g->used >= b->len;
    jwork(r, (fits ? b->len : len) / 16);
    if (!fits) g = grow_for(r, a, len);
    struct jstr *s = jalloc(r, sizeof *s);
    if (!g || !s) return jundefined(NULL);
    size_t from = fits ? (size_t)(a->data - g->data) : 0;
    if (b->len) memcpy(g->data + g->used, b->data, b->len);
    copy_marks(g->marks + g->used, b);
    g->used += b->len;
    *s = (struct jstr){
        .data = g->data + from, .marks = g->marks + from, .len = len, .grow = g, .markup = markup};
    return jobject(J_STR, s);
}

/* ---- text under construction ---- */

void jout_init(struct jout *o)
{
    buf_init(&o->text, JINJA_OUTPUT_MAX);
    buf_init(&o->marks, JINJA_OUTPUT_MAX);
}

void jout_release(struct jout *o)
{
    buf_release(&o->text);
    buf_release(&o->marks);
}

/* Whether n bytes have room in both. */
static bool has_room(struct jinja_run *r, struct jout *o, size_t n)
{
    if (r->code) return false;
    int code = buf_reserve(&o->text, n);
    if (!code) code = buf_reserve(&o->marks, n);
    if (code == ERR_LIMIT)
        jfail_code(r, code, "the messages are longer than %d bytes", JINJA_OUTPUT_MAX);
    else if (code)
        jfail_code(r, code, "no memory for a prompt of %zu bytes", o->text.len + n);
    return !code;
}

void jout_bytes(struct jinja_run *r, struct jout *o, const char *text, size_t n, uint8_t mark)
{
    if (n == 0 || !has_room(r, o, n)) return;
    buf_append(&o->text, text, n);
    memset(o->marks.data + o->marks.len, mark, n);
    o->marks.len += n;
    jwork(r, n / 16);
}

void jout_puts(struct jinja_run *r, struct jout *o, const char *text, uint8_t mark)
{
    jout_bytes(r, o, text, strlen(text), mark);
}

void jout_sub(struct jinja_run *r, struct jout *o, const struct jstr *s, size_t from, size_t to)
{
    if (!s->marks) {
        jout_bytes(r, o, s->data + from, to - from, s->mark);
        return;
    }
    if (to == from || !has_room(r, o, to - from)) return;
    buf_append(&o->text, s->data + from, to - from);
    buf_append(&o->marks, s->marks + from, to - from);
    jwork(r, (to - from) / 16);
}

void jout_str(struct jinja_run *r, struct jout *o, const struct jstr *s)
{
    jout_sub(r, o, s, 0, s->len);
}

void jout_code(struct jinja_run *r, struct jout *o, uint32_t code, uint8_t mark)
{
    char text[4];
    bool bad = code >= 0xDC80 && code <= 0xDCFF; /* a byte that is no character stays */
    if (bad) text[0] = (char)(code - 0xDC00);
    jout_bytes(r, o, text, bad ? 1 : utf8_put(code, text), mark);
}

struct jinja_value jout_take(struct jinja_run *r, struct jout *o)
{
    size_t n = o->text.len;
    struct jinja_value v = jundefined(NULL);
    char *data = jalloc(r, n + 1);
    if (data && !r->code) {
        memcpy(data, o->text.data, n);
        v = jtext(r, data, n, n ? (uint8_t)o->marks.data[0] : JINJA_OWN);
        bool mixed = n && memchr(o->marks.data, !o->marks.data[0], n) != NULL;
        uint8_t *marks = mixed ? jalloc(r, n) : NULL;
        if (marks) memcpy(marks, o->marks.data, n);
        if (!r->code) jstr_of(v)->marks = marks;
    }
    jout_release(o);
    return r->code ? jundefined(NULL) : v;
}

/* ---- str() and repr() ---- */

/* Python writes the shortest digits that read back the same, with an exponent below 1e-4 and from
 * 1e16. */
void jfloat_print(double f, char out[JFLOAT_TEXT])
{
    char digits[JFLOAT_TEXT];
    if (f != f || f - f != 0.0) {
        snprintf(out, JFLOAT_TEXT, "%s", f != f ? "nan" : f > 0.0 ? "inf" : "-inf");
        return;
    }
    int precision = 0;
    do
        snprintf(digits, sizeof digits, "%.*e", precision, f);
    while (strtod(digits, NULL) != f && ++precision < 17);
    int exponent = (int)strtol(strchr(digits, 'e') + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16) { /* 1.5e-07: as C writes it */
        snprintf(out, JFLOAT_TEXT, "%s", digits);
        return;
    }
    int decimals = precision - exponent;
    snprintf(out, JFLOAT_TEXT, "%.*f", decimals > 1 ? decimals : 1, f);
}

static bool needs_escape(uint32_t c, char quote)
{
    return c == (uint8_t)quote || c == '\\' || c < 32 || c == 127 ||
           (c > 127 && !junicode_is_printable(c));
}

static void put_escape(struct jinja_run *r, struct jout *o, uint32_t c, uint8_t mark)
{
    char text[16];
    const char *at = c && c < 128 ? strchr("\n\r\t", (int)c) : NULL;
    if (at)
        snprintf(text, sizeof text, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
    else if (c == '\\' || c == '\'' || c == '"')
        snprintf(text, sizeof text, "\\%c", (char)c);
    else if (c < 256)
        snprintf(text, sizeof text, "\\x%02x", c);
    else
        snprintf(text, sizeof text, c < 65536 ? "\\u%04x" : "\\U%08x", c);
    jout_puts(r, o, text, mark);
}

static void repr_string(struct jinja_run *r, struct jout *o, const struct jstr *s)
{
    bool single = s->len && memchr(s->data, '\'', s->len) != NULL;
    bool twice = s->len && memchr(s->data, '"', s->len) != NULL;
    char quote = single && !twice ? '"' : '\'';
    size_t start = 0;
    if (s->markup) jout_puts(r, o, "Markup(", JINJA_OWN);
    jout_bytes(r, o, &quote, 1, JINJA_OWN);
    for (size_t i = 0, n; i < s->len && !r->code; i += n) {
        uint32_t c = jtext_code(s->data + i, s->len - i, &n);
        if (!needs_escape(c, quote)) continue;
        jout_sub(r, o, s, start, i);
        put_escape(r, o, c, jmark_at(s, i));
        start = i + n;
    }
    jout_sub(r, o, s, start, s->len);
    jout_bytes(r, o, &quote, 1, JINJA_OWN);
    if (s->markup) jout_puts(r, o, ")", JINJA_OWN);
}

static void repr_items(struct jinja_run *r, struct jout *o, const struct jlist *l, const char *open,
                       const char *close)
{
    jout_puts(r, o, open, JINJA_OWN);
    for (uint32_t i = 0; i < l->n && !r->code; i++) {
        if (i) jout_puts(r, o, ", ", JINJA_OWN);
        jout_repr(r, o, l->items[i]);
    }
    jout_puts(r, o, close, JINJA_OWN);
}

static void repr_dict(struct jinja_run *r, struct jout *o, const struct jdict *d)
{
    jout_puts(r, o, "{", JINJA_OWN);
    for (uint32_t i = 0; i < d->n && !r->code; i++) {
        if (i) jout_puts(r, o, ", ", JINJA_OWN);
        jout_repr(r, o, d->pairs[i].key);
        jout_puts(r, o, ": ", JINJA_OWN);
        jout_repr(r, o, d->pairs[i].value);
    }
    jout_puts(r, o, "}", JINJA_OWN);
}

static void repr_range(struct jinja_run *r, struct jout *o, const struct jlist *l)
{
    char text[96];
    int n =
        snprintf(text, sizeof text, "range(%lld, %lld", (long long)l->start, (long long)l->stop);
    if (l->step != 1) snprintf(text + n, sizeof text - (size_t)n, ", %lld", (long long)l->step);
    jout_puts(r, o, text, JINJA_OWN);
    jout_puts(r, o, ")", JINJA_OWN);
}

static void repr_number(struct jinja_run *r, struct jout *o, struct jinja_value v)
{
    char text[JFLOAT_TEXT];
    if (v.type == J_BOOL)
        snprintf(text, sizeof text, "%s", v.as.truth ? "True" : "False");
    else if (v.type == J_INT)
        snprintf(text, sizeof text, "%lld", (long long)v.as.integer);
    else
        jfloat_print(v.as.real, text);
    jout_puts(r, o, text, v.foreign ? JINJA_FOREIGN : JINJA_OWN);
}

static void repr_nested(struct jinja_run *r, struct jout *o, struct jinja_value v)
{
    const struct jlist *l = jlist_of(v);
    switch (v.type) {
    case J_LIST:
        repr_items(r, o, l, "[", "]");
        break;
    case J_TUPLE:
        repr_items(r, o, l, "(", l->n == 1 ? ",)" : ")");
        break;
    case J_VIEW:
        jout_puts(r, o, l->name, JINJA_OWN);
        repr_items(r, o, l, "([", "])");
        break;
    case J_NAMESPACE:
        jout_puts(r, o, "<Namespace ", JINJA_OWN);
        repr_dict(r, o, jdict_of(v));
        jout_puts(r, o, ">", JINJA_OWN);
        break;
    default:
        repr_dict(r, o, jdict_of(v));
    }
}

static void repr_loop(struct jinja_run *r, struct jout *o, const struct jloop *l)
{
    char text[64];
    snprintf(text, sizeof text, "<LoopContext %u/%u>", l->at + 1, l->n);
    jout_puts(r, o, text, JINJA_OWN);
}

static void repr_macro(struct jinja_run *r, struct jout *o, const struct jmacro *m)
{
    jout_puts(r, o, "<Macro '", JINJA_OWN);
    jout_bytes(r, o, m->node->name->text, m->node->name->len, JINJA_OWN);
    jout_puts(r, o, "'>", JINJA_OWN);
}

void jout_repr(struct jinja_run *r, struct jout *o, struct jinja_value v)
{
    switch (v.type) {
    case J_UNDEFINED:
        jout_puts(r, o, "Undefined", JINJA_OWN);
        return;
    case J_NONE:
        jout_puts(r, o, "None", JINJA_OWN);
        return;
    case J_BOOL:
    case J_INT:
    case J_FLOAT:
        repr_number(r, o, v);
        return;
    case J_STR:
        repr_string(r, o, jstr_of(v));
        return;
    case J_RANGE:
        repr_range(r, o, jlist_of(v));
        return;
    case J_LOOP:
        repr_loop(r, o, v.as.object);
        return;
    case J_MACRO:
        repr_macro(r, o, v.as.object);
        return;
    case J_LIST:
    case J_TUPLE:
    case J_VIEW:
    case J_DICT:
    case J_NAMESPACE:
        if (!jdeeper(r)) return;
        repr_nested(r, o, v);
        r->depth--;
        return;
    default:
        jfail(r, "a value of type %s has no text", jtype_name(v));
    }
}

void jout_value(struct jinja_run *r, struct jout *o, struct jinja_value v)
{
    if (v.type == J_STR)
        jout_str(r, o, jstr_of(v));
    else if (v.type != J_UNDEFINED)
        jout_repr(r, o, v);
}

struct jstr *jto_str(struct jinja_run *r, struct jinja_value v)
{
    static const struct jstr nothing = {.data = ""};
    if (v.type == J_STR) return jstr_of(v);
    if (v.type == J_UNDEFINED) return (struct jstr *)(uintptr_t)&nothing;
    struct jout o;
    jout_init(&o);
    jout_value(r, &o, v);
    v = jout_take(r, &o);
    return v.type == J_STR ? jstr_of(v) : (struct jstr *)(uintptr_t)&nothing;
}
