/* jinja_string: the methods of Python's str; see jinja_impl.h. Each byte keeps its mark. */
#include <string.h>

#include "model/jinja/jinja_impl.h"

/* ---- parts that filters use too ---- */

static bool is_stripped(const struct jstr *of, const char *text, size_t n, size_t *ret_len)
{
    uint32_t c = jtext_code(text, n, ret_len);
    if (!of) return junicode_is_space(c);
    for (size_t at = 0, len; at < of->len; at += len)
        if (jtext_code(of->data + at, of->len - at, &len) == c) return true;
    return false;
}

struct jinja_value jstring_strip(struct jinja_run *r, const struct jstr *s, const struct jstr *of,
                                 int sides)
{
    size_t from = 0, to = s->len, n;
    while ((sides & JSTRIP_LEFT) && from < to && is_stripped(of, s->data + from, to - from, &n))
        from += n;
    while ((sides & JSTRIP_RIGHT) && to > from) {
        size_t back = 1;
        while (back < 4 && to - back > from && ((uint8_t)s->data[to - back] & 0xC0) == 0x80)
            back++;
        if (jtext_char_len(s->data + to - back, back) != back) back = 1;
        if (!is_stripped(of, s->data + to - back, back, &n)) break;
        to -= back;
    }
    jwork(r, (s->len - (to - from)) / 4);
    return jtext_sub(r, s, from, to);
}

static void put_cased(struct jinja_run *r, struct jout *o, uint32_t c, char how, uint8_t mark)
{
    uint32_t many[3], n = c < 128 ? 0 : junicode_special(c, how, many);
    for (uint32_t i = 0; i < n; i++)
        jout_code(r, o, many[i], mark);
    if (n) return;
    jout_code(r, o,
              how == 'l'   ? junicode_lower(c)
              : how == 'u' ? junicode_upper(c)
                           : junicode_title(c),
              mark);
}

/* A capital sigma that ends a word has a small form of its own. */
static bool is_final_sigma(const struct jstr *s, size_t at, size_t next)
{
    bool before = false;
    size_t n;
    for (size_t i = 0; i < at; i += n) {
        uint32_t c = jtext_code(s->data + i, s->len - i, &n);
        if (!junicode_is_ignorable(c)) before = junicode_is_cased(c);
    }
    for (size_t i = next; i < s->len && before; i += n) {
        uint32_t c = jtext_code(s->data + i, s->len - i, &n);
        if (!junicode_is_ignorable(c)) return !junicode_is_cased(c);
    }
    return before;
}

static void put_lower(struct jinja_run *r, struct jout *o, const struct jstr *s, size_t at,
                      size_t n)
{
    enum { CAPITAL_SIGMA = 0x3A3, FINAL_SIGMA = 0x3C2 };
    uint32_t c = jtext_code(s->data + at, s->len - at, &n);
    if (c == CAPITAL_SIGMA) jwork(r, s->len / 4);
    if (c == CAPITAL_SIGMA && is_final_sigma(s, at, at + n))
        jout_code(r, o, FINAL_SIGMA, jmark_at(s, at));
    else
        put_cased(r, o, c, 'l', jmark_at(s, at));
}

static void put_swapped(struct jinja_run *r, struct jout *o, const struct jstr *s, size_t at,
                        uint32_t c, size_t n)
{
    if (junicode_is_upper(c))
        put_lower(r, o, s, at, n);
    else
        put_cased(r, o, c, junicode_is_lower(c) ? 'u' : 0, jmark_at(s, at));
}

/* how: u(pper), l(ower), c(apitalize), t(itle), s(wapcase). */
struct jinja_value jstring_case(struct jinja_run *r, const struct jstr *s, char how)
{
    struct jout o;
    bool inside = false;
    jout_init(&o);
    for (size_t at = 0, n; at < s->len && !r->code; at += n) {
        uint32_t c = jtext_code(s->data + at, s->len - at, &n);
        bool title = how == 't' ? !inside : how == 'c' && at == 0;
        if (how == 's')
            put_swapped(r, &o, s, at, c, n);
        else if (how == 'u' || title)
            put_cased(r, &o, c, how == 'u' ? 'u' : 't', jmark_at(s, at));
        else
            put_lower(r, &o, s, at, n);
        inside = junicode_is_cased(c);
        jwork(r, 1);
    }
    struct jinja_value v = jout_take(r, &o);
    if (!r->code) jstr_of(v)->markup = s->markup;
    return v;
}

/* In front of every character and at the end. */
static void replace_nothing(struct jinja_run *r, struct jout *o, const struct jstr *s,
                            const struct jstr *to, int64_t max)
{
    size_t at = 0;
    for (; max != 0 && !r->code; max--) {
        jout_str(r, o, to);
        if (at >= s->len) break;
        size_t n = jtext_char_len(s->data + at, s->len - at);
        jout_sub(r, o, s, at, at + n);
        at += n;
        jwork(r, 1);
    }
    jout_sub(r, o, s, at, s->len);
}

struct jinja_value jstring_replace(struct jinja_run *r, const struct jstr *s,
                                   const struct jstr *from, const struct jstr *to, int64_t max)
{
    struct jout o;
    size_t start = 0, at;
    jwork(r, s->len / 16);
    if (from->len && jtext_find(s, from, 0, s->len) == (size_t)JNOWHERE)
        return jtext_sub(r, s, 0, s->len);
    jout_init(&o);
    if (from->len == 0) replace_nothing(r, &o, s, to, max);
    for (; from->len && max != 0 && !r->code; max--) {
        at = jtext_find(s, from, start, s->len);
        if (at == (size_t)JNOWHERE) break;
        jout_sub(r, &o, s, start, at);
        jout_str(r, &o, to);
        start = at + from->len;
        jwork(r, 1);
    }
    if (from->len) jout_sub(r, &o, s, start, s->len);
    return jout_take(r, &o);
}

struct jinja_value jstring_join(struct jinja_run *r, const struct jstr *between,
                                const struct jlist *l, bool any)
{
    struct jout o;
    jout_init(&o);
    for (uint32_t i = 0; i < l->n && !r->code; i++) {
        if (i) jout_str(r, &o, between);
        if (!any && l->items[i].type != J_STR)
            jfail(r, "join: item %u must be a string, not %s", i, jtype_name(l->items[i]));
        else
            jout_value(r, &o, l->items[i]);
        jwork(r, 1);
    }
    return jout_take(r, &o);
}

struct jinja_value jstring_splitlines(struct jinja_run *r, const struct jstr *s, bool keep)
{
    struct jlist *l = jlist_empty(r);
    uint32_t cap = 0;
    size_t start = 0;
    if (!l) return jundefined(NULL);
    for (size_t at = 0, n; at < s->len && !r->code; at += n) {
        uint32_t c = jtext_code(s->data + at, s->len - at, &n);
        if (!junicode_is_line_end(c)) continue;
        if (c == '\r' && at + 1 < s->len && s->data[at + 1] == '\n') n = 2;
        jlist_push(r, l, &cap, jtext_sub(r, s, start, keep ? at + n : at));
        start = at + n;
    }
    jwork(r, s->len / 4);
    if (start < s->len) jlist_push(r, l, &cap, jtext_sub(r, s, start, s->len));
    return jobject(J_LIST, l);
}

static bool is_identifier(const struct jstr *s)
{
    for (size_t at = 0, n; at < s->len; at += n) {
        uint32_t c = jtext_code(s->data + at, s->len - at, &n);
        if (c != '_' && !junicode_is_alpha(c) && !(at > 0 && junicode_is_decimal(c))) return false;
    }
    return s->len > 0;
}

static bool is_title(const struct jstr *s)
{
    bool inside = false, any = false;
    for (size_t at = 0, n; at < s->len; at += n) {
        uint32_t c = jtext_code(s->data + at, s->len - at, &n);
        bool lower = junicode_is_lower(c), upper = !lower && junicode_is_cased(c);
        if ((upper && inside) || (lower && !inside)) return false;
        inside = upper || lower;
        any = any || inside;
    }
    return any;
}

static bool is_character(uint32_t c, char what)
{
    switch (what) {
    case 'a':
        return junicode_is_alpha(c);
    case 'n':
        return junicode_is_alpha(c) || junicode_is_decimal(c) || junicode_is_digit(c) ||
               junicode_is_numeric(c);
    case 'd':
        return junicode_is_digit(c);
    case 'D':
        return junicode_is_decimal(c);
    case 'N':
        return junicode_is_numeric(c);
    case 's':
        return junicode_is_space(c);
    case 'p':
        return junicode_is_printable(c);
    default:
        return c < 128;
    }
}

/* a(lpha), n: alnum, d(igit), D(ecimal), N(umeric), s(pace), p(rintable), A(scii), u(pper),
 * l(ower), t(itle), i(dentifier). */
bool jstring_is(const struct jstr *s, char what)
{
    bool cased = false;
    if (what == 't') return is_title(s);
    if (what == 'i') return is_identifier(s);
    if (s->len == 0) return what == 'p' || what == 'A';
    for (size_t at = 0, n; at < s->len; at += n) {
        uint32_t c = jtext_code(s->data + at, s->len - at, &n);
        if (what == 'u' || what == 'l') {
            bool good = what == 'u' ? junicode_is_upper(c) : junicode_is_lower(c);
            if (!good && junicode_is_cased(c)) return false; /* title case is neither */
            cased = cased || good;
        } else if (!is_character(c, what)) {
            return false;
        }
    }
    return cased || (what != 'u' && what != 'l');
}

/* ---- splitting ---- */

static size_t skip_space(const struct jstr *s, size_t at, bool space)
{
    size_t n;
    while (at < s->len && junicode_is_space(jtext_code(s->data + at, s->len - at, &n)) == space)
        at += n;
    return at;
}

static void split_words(struct jinja_run *r, const struct jstr *s, int64_t max, struct jlist *l)
{
    uint32_t cap = 0;
    for (size_t at = skip_space(s, 0, true); at < s->len && !r->code;) {
        size_t end = max == 0 ? s->len : skip_space(s, at, false);
        jlist_push(r, l, &cap, jtext_sub(r, s, at, end));
        at = skip_space(s, end, true);
        max--; /* the rest keeps the white space at its end */
        jwork(r, 1);
    }
}

static void split_at(struct jinja_run *r, const struct jstr *s, const struct jstr *by, int64_t max,
                     struct jlist *l)
{
    uint32_t cap = 0;
    size_t start = 0, at;
    for (; max != 0 && !r->code; max--) {
        at = jtext_find(s, by, start, s->len);
        if (at == (size_t)JNOWHERE) break;
        jlist_push(r, l, &cap, jtext_sub(r, s, start, at));
        start = at + by->len;
    }
    jlist_push(r, l, &cap, jtext_sub(r, s, start, s->len));
}

static void turn_around(struct jlist *l)
{
    for (uint32_t i = 0; i < l->n / 2; i++) {
        struct jinja_value v = l->items[i];
        l->items[i] = l->items[l->n - 1 - i];
        l->items[l->n - 1 - i] = v;
    }
}

static void split_at_last(struct jinja_run *r, const struct jstr *s, const struct jstr *by,
                          int64_t max, struct jlist *l)
{
    uint32_t cap = 0;
    size_t end = s->len, at;
    for (; max != 0 && !r->code; max--) {
        at = jtext_find_last(s, by, 0, end);
        if (at == (size_t)JNOWHERE) break;
        jlist_push(r, l, &cap, jtext_sub(r, s, at + by->len, end));
        end = at;
    }
    jlist_push(r, l, &cap, jtext_sub(r, s, 0, end));
    turn_around(l);
}

/* Where the last word before `to` begins. */
static size_t word_start(const struct jstr *s, size_t to)
{
    size_t start = 0;
    for (size_t at = 0, n; at < to; at += n)
        if (junicode_is_space(jtext_code(s->data + at, s->len - at, &n))) start = at + n;
    return start;
}

static void split_last_words(struct jinja_run *r, const struct jstr *s, int64_t max,
                             struct jlist *l)
{
    uint32_t cap = 0;
    struct jinja_value rest = jstring_strip(r, s, NULL, JSTRIP_RIGHT);
    for (; max != 0 && !r->code && jstr_of(rest)->len; max--) {
        const struct jstr *now = jstr_of(rest);
        size_t start = word_start(now, now->len);
        jwork(r, now->len);
        jlist_push(r, l, &cap, jtext_sub(r, now, start, now->len));
        rest = jtext_sub(r, now, 0, start);
        if (!r->code) rest = jstring_strip(r, jstr_of(rest), NULL, JSTRIP_RIGHT);
    }
    if (!r->code && jstr_of(rest)->len) jlist_push(r, l, &cap, rest);
    turn_around(l);
}

static struct jinja_value split(struct jinja_run *r, const struct jstr *s, struct jargs *args,
                                bool last)
{
    struct jinja_value *by = jarg(args, 0, "sep");
    int64_t max;
    struct jlist *l = jlist_empty(r);
    if (!l || !jargs_check(r, args, 0, 2) || !jarg_int(r, args, 1, "maxsplit", -1, &max))
        return jundefined(NULL);
    jwork(r, s->len / 16);
    bool words = !by || by->type == J_NONE;
    if (!words && (by->type != J_STR || jstr_of(*by)->len == 0))
        return jfail(r, "split: the separator must be a string that is not empty");
    if (words && last && max >= 0)
        split_last_words(r, s, max, l);
    else if (words)
        split_words(r, s, max, l);
    else if (last)
        split_at_last(r, s, jstr_of(*by), max, l);
    else
        split_at(r, s, jstr_of(*by), max, l);
    return jobject(J_LIST, l);
}

static struct jinja_value partition(struct jinja_run *r, const struct jstr *s, struct jargs *args,
                                    bool last)
{
    const struct jstr *by = jargs_check(r, args, 1, 1) ? jarg_str(r, args, 0, "sep") : NULL;
    struct jinja_value v = jlist_new(r, J_TUPLE, 3);
    if (!by || r->code) return v;
    if (by->len == 0) return jfail(r, "partition: the separator is empty");
    size_t at = last ? jtext_find_last(s, by, 0, s->len) : jtext_find(s, by, 0, s->len);
    bool none = at == (size_t)JNOWHERE;
    size_t from = none ? (last ? 0 : s->len) : at, to = none ? from : at + by->len;
    jwork(r, s->len / 16);
    jlist_of(v)->items[0] = jtext_sub(r, s, 0, from);
    jlist_of(v)->items[1] = jtext_sub(r, s, from, to);
    jlist_of(v)->items[2] = jtext_sub(r, s, to, s->len);
    return v;
}

/* ---- searching ---- */

/* Bytes [from, to) that the arguments `at` and `at` + 1 name in characters. */
static bool window(struct jinja_run *r, const struct jstr *s, struct jargs *args, uint32_t at,
                   size_t *ret_from, size_t *ret_to)
{
    int64_t from, to, n;
    *ret_from = 0;
    *ret_to = s->len;
    if (args->n <= at) return true;
    n = (int64_t)jtext_count(s);
    jwork(r, s->len / 4);
    if (!jarg_int(r, args, at, "", 0, &from) || !jarg_int(r, args, at + 1, "", n, &to))
        return false;
    from = from < 0 ? (from + n < 0 ? 0 : from + n) : from;
    to = to < 0 ? (to + n < 0 ? 0 : to + n) : to > n ? n : to;
    *ret_to = jtext_offset(s, (size_t)to);
    *ret_from = from > n ? s->len + 1 : jtext_offset(s, (size_t)from);
    return true;
}

static struct jinja_value find(struct jinja_run *r, const struct jstr *s, struct jargs *args,
                               bool last, bool must)
{
    const struct jstr *what = jargs_check(r, args, 1, 3) ? jarg_str(r, args, 0, "sub") : NULL;
    size_t from, to;
    if (!what || !window(r, s, args, 1, &from, &to)) return jundefined(NULL);
    jwork(r, s->len / 4);
    size_t at = last ? jtext_find_last(s, what, from, to) : jtext_find(s, what, from, to);
    if (at == (size_t)JNOWHERE && must) return jfail(r, "%s: the text is not there", args->of);
    struct jstr before = *s;
    before.len = at;
    struct jinja_value v = jint(at == (size_t)JNOWHERE ? -1 : (int64_t)jtext_count(&before));
    v.foreign = jtext_is_foreign(s);
    return v;
}

static struct jinja_value count(struct jinja_run *r, const struct jstr *s, struct jargs *args)
{
    const struct jstr *what = jargs_check(r, args, 1, 3) ? jarg_str(r, args, 0, "sub") : NULL;
    size_t from, to, at;
    int64_t n = 0;
    if (!what || !window(r, s, args, 1, &from, &to)) return jundefined(NULL);
    jwork(r, s->len / 4);
    if (what->len == 0) {
        struct jstr part = *s;
        if (from > to) return jint(0);
        part.data += from;
        part.len = to - from;
        n = (int64_t)jtext_count(&part) + 1;
    }
    while (what->len && (at = jtext_find(s, what, from, to)) != (size_t)JNOWHERE) {
        from = at + what->len;
        n++;
    }
    struct jinja_value v = jint(n);
    v.foreign = jtext_is_foreign(s);
    return v;
}

static bool has_end(const struct jstr *s, const struct jstr *what, size_t from, size_t to,
                    bool begins)
{
    if (from > to || what->len > to - from) return false;
    return memcmp(s->data + (begins ? from : to - what->len), what->data, what->len) == 0;
}

static struct jinja_value starts_or_ends(struct jinja_run *r, const struct jstr *s,
                                         struct jargs *args, bool begins)
{
    size_t from, to;
    if (!jargs_check(r, args, 1, 3) || !window(r, s, args, 1, &from, &to)) return jundefined(NULL);
    struct jinja_value what = *jarg(args, 0, "prefix");
    if (what.type == J_STR) return jinja_bool(has_end(s, jstr_of(what), from, to, begins));
    if (what.type != J_TUPLE)
        return jfail(r, "%s: a string or a tuple of strings is needed, not %s", args->of,
                     jtype_name(what));
    for (uint32_t i = 0; i < jlist_of(what)->n; i++) {
        struct jinja_value v = jlist_of(what)->items[i];
        if (v.type == J_STR && has_end(s, jstr_of(v), from, to, begins)) return jinja_bool(true);
    }
    return jinja_bool(false);
}

static struct jinja_value remove_end(struct jinja_run *r, const struct jstr *s, struct jargs *args,
                                     bool begins)
{
    const struct jstr *what = jargs_check(r, args, 1, 1) ? jarg_str(r, args, 0, "") : NULL;
    if (!what) return jundefined(NULL);
    bool there = has_end(s, what, 0, s->len, begins);
    return jtext_sub(r, s, there && begins ? what->len : 0,
                     there && !begins ? s->len - what->len : s->len);
}

/* ---- padding ---- */

static void fill(struct jinja_run *r, struct jout *o, const struct jstr *with, int64_t n)
{
    if (n > JINJA_OUTPUT_MAX) {
        jfail_code(r, ERR_LIMIT, "a string grows too long");
        return;
    }
    for (; n > 0 && !r->code; n--) {
        jwork(r, 1);
        if (with)
            jout_str(r, o, with);
        else
            jout_puts(r, o, " ", JINJA_OWN);
    }
}

/* how: l(just), r(just), c(enter). */
static struct jinja_value justify(struct jinja_run *r, const struct jstr *s, struct jargs *args,
                                  char how)
{
    struct jinja_value *with = jarg(args, 1, "");
    int64_t width, n = (int64_t)jtext_count(s);
    struct jout o;
    if (!jargs_check(r, args, 1, 2) || !jarg_int(r, args, 0, "width", 0, &width))
        return jundefined(NULL);
    if (with && (with->type != J_STR || jtext_count(jstr_of(*with)) != 1))
        return jfail(r, "%s: the fill must be one character", args->of);
    const struct jstr *space = with ? jstr_of(*with) : NULL;
    int64_t pad = width > n ? width - n : 0;
    int64_t left = how == 'l' ? 0 : how == 'r' ? pad : pad / 2 + (pad & width & 1);
    jout_init(&o);
    fill(r, &o, space, left);
    jout_str(r, &o, s);
    fill(r, &o, space, pad - left);
    return jout_take(r, &o);
}

static struct jinja_value zfill(struct jinja_run *r, const struct jstr *s, struct jargs *args)
{
    static const struct jstr zero = {.data = "0", .len = 1};
    int64_t width, n = (int64_t)jtext_count(s);
    struct jout o;
    if (!jargs_check(r, args, 1, 1) || !jarg_int(r, args, 0, "width", 0, &width))
        return jundefined(NULL);
    size_t sign = s->len && (s->data[0] == '-' || s->data[0] == '+');
    jout_init(&o);
    jout_sub(r, &o, s, 0, sign);
    fill(r, &o, &zero, width - n);
    jout_sub(r, &o, s, sign, s->len);
    return jout_take(r, &o);
}

static struct jinja_value expand_tabs(struct jinja_run *r, const struct jstr *s, struct jargs *args)
{
    int64_t size, column = 0;
    struct jout o;
    if (!jargs_check(r, args, 0, 1) || !jarg_int(r, args, 0, "tabsize", 8, &size))
        return jundefined(NULL);
    jout_init(&o);
    for (size_t at = 0, n; at < s->len && !r->code; at += n) {
        n = jtext_char_len(s->data + at, s->len - at);
        char c = s->data[at];
        if (c == '\t') {
            int64_t pad = size > 0 ? size - column % size : 0;
            fill(r, &o, NULL, pad);
            column += pad;
            continue;
        }
        jout_sub(r, &o, s, at, at + n);
        column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
    return jout_take(r, &o);
}

/* ---- the table ---- */

enum which {
    S_CASE,
    S_IS,
    S_STRIP,
    S_SPLIT,
    S_RSPLIT,
    S_SPLITLINES,
    S_PARTITION,
    S_RPARTITION,
    S_FIND,
    S_RFIND,
    S_INDEX,
    S_RINDEX,
    S_COUNT,
    S_STARTS,
    S_ENDS,
    S_REMOVE_PREFIX,
    S_REMOVE_SUFFIX,
    S_REPLACE,
    S_JOIN,
    S_JUSTIFY,
    S_ZFILL,
    S_TABS,
    S_FORMAT
};

static const struct {
    const char *name;
    uint8_t which;
    char how;
} methods[] = {
    {"upper", S_CASE, 'u'},
    {"lower", S_CASE, 'l'},
    {"casefold", S_CASE, 'f'},
    {"capitalize", S_CASE, 'c'},
    {"title", S_CASE, 't'},
    {"swapcase", S_CASE, 's'},
    {"isalpha", S_IS, 'a'},
    {"isalnum", S_IS, 'n'},
    {"isdigit", S_IS, 'd'},
    {"isdecimal", S_IS, 'D'},
    {"isnumeric", S_IS, 'N'},
    {"isspace", S_IS, 's'},
    {"isprintable", S_IS, 'p'},
    {"isascii", S_IS, 'A'},
    {"isupper", S_IS, 'u'},
    {"islower", S_IS, 'l'},
    {"istitle", S_IS, 't'},
    {"isidentifier", S_IS, 'i'},
    {"strip", S_STRIP, 3},
    {"lstrip", S_STRIP, JSTRIP_LEFT},
    {"rstrip", S_STRIP, JSTRIP_RIGHT},
    {"split", S_SPLIT, 0},
    {"rsplit", S_RSPLIT, 0},
    {"splitlines", S_SPLITLINES, 0},
    {"partition", S_PARTITION, 0},
    {"rpartition", S_RPARTITION, 0},
    {"find", S_FIND, 0},
    {"rfind", S_RFIND, 0},
    {"index", S_INDEX, 0},
    {"rindex", S_RINDEX, 0},
    {"count", S_COUNT, 0},
    {"startswith", S_STARTS, 0},
    {"endswith", S_ENDS, 0},
    {"removeprefix", S_REMOVE_PREFIX, 0},
    {"removesuffix", S_REMOVE_SUFFIX, 0},
    {"replace", S_REPLACE, 0},
    {"join", S_JOIN, 0},
    {"ljust", S_JUSTIFY, 'l'},
    {"rjust", S_JUSTIFY, 'r'},
    {"center", S_JUSTIFY, 'c'},
    {"zfill", S_ZFILL, 0},
    {"expandtabs", S_TABS, 0},
    {"format", S_FORMAT, 0},
};

int jstring_method(const char *name, size_t len, const char **ret_name)
{
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        if (!jname_is(name, len, methods[i].name)) continue;
        *ret_name = methods[i].name;
        return (int)i;
    }
    return -1;
}

static struct jinja_value strip(struct jinja_run *r, const struct jstr *s, struct jargs *args,
                                int sides)
{
    struct jinja_value *of = jarg(args, 0, "");
    if (!jargs_check(r, args, 0, 1)) return jundefined(NULL);
    if (of && of->type != J_STR && of->type != J_NONE)
        return jfail(r, "%s: the characters must be a string", args->of);
    return jstring_strip(r, s, of && of->type == J_STR ? jstr_of(*of) : NULL, sides);
}

static struct jinja_value replace(struct jinja_run *r, const struct jstr *s, struct jargs *args)
{
    int64_t max;
    if (!jargs_check(r, args, 2, 3) || !jarg_int(r, args, 2, "count", -1, &max))
        return jundefined(NULL);
    const struct jstr *from = jarg_str(r, args, 0, ""), *to = jarg_str(r, args, 1, "");
    if (s->markup && from && to) { /* what joins markup is escaped, and so is what leaves it */
        if (!from->markup) from = jstr_of(jtext_escaped(r, from));
        if (!to->markup && !r->code) to = jstr_of(jtext_escaped(r, to));
        if (r->code) return jundefined(NULL);
    }
    return from && to ? jstring_replace(r, s, from, to, max) : jundefined(NULL);
}

static struct jinja_value join(struct jinja_run *r, const struct jstr *s, struct jargs *args)
{
    if (!jargs_check(r, args, 1, 1) || args->n != 1) return jundefined(NULL);
    const struct jlist *l = jiterate(r, args->v[0]);
    return l ? jstring_join(r, s, l, false) : jundefined(NULL);
}

static struct jinja_value fold(struct jinja_run *r, const struct jstr *s)
{
    for (size_t i = 0; i < s->len; i++)
        if ((uint8_t)s->data[i] >= 128)
            return jfail(r, "casefold of letters beyond ASCII is not supported");
    return jstring_case(r, s, 'l');
}

/* Those whose result is markup where their text is, and which are told here. */
static bool keeps_markup(enum which which)
{
    return which == S_REPLACE || which == S_JUSTIFY || which == S_ZFILL || which == S_TABS;
}

static struct jinja_value call(struct jinja_run *r, struct jinja_value of, enum which which,
                               char how, struct jargs *args)
{
    const struct jstr *s = jstr_of(of);
    switch (which) {
    case S_CASE:
        if (!jargs_check(r, args, 0, 0)) return of;
        return how == 'f' ? fold(r, s) : jstring_case(r, s, how);
    case S_IS:
        jwork(r, s->len / 4);
        return jargs_check(r, args, 0, 0) ? jinja_bool(jstring_is(s, how)) : of;
    case S_STRIP:
        return strip(r, s, args, how);
    case S_SPLIT:
    case S_RSPLIT:
        return split(r, s, args, which == S_RSPLIT);
    case S_SPLITLINES:
        return jstring_splitlines(r, s, jarg_bool(args, 0, "keepends", false));
    case S_PARTITION:
    case S_RPARTITION:
        return partition(r, s, args, which == S_RPARTITION);
    case S_FIND:
    case S_RFIND:
    case S_INDEX:
    case S_RINDEX:
        return find(r, s, args, which == S_RFIND || which == S_RINDEX,
                    which == S_INDEX || which == S_RINDEX);
    case S_COUNT:
        return count(r, s, args);
    case S_STARTS:
    case S_ENDS:
        return starts_or_ends(r, s, args, which == S_STARTS);
    case S_REMOVE_PREFIX:
    case S_REMOVE_SUFFIX:
        return remove_end(r, s, args, which == S_REMOVE_PREFIX);
    case S_REPLACE:
        return replace(r, s, args);
    case S_JOIN:
        return join(r, s, args);
    case S_JUSTIFY:
        return justify(r, s, args, how);
    case S_ZFILL:
        return zfill(r, s, args);
    case S_TABS:
        return expand_tabs(r, s, args);
    case S_FORMAT:
        return jformat_braces(r, s, args);
    }
    return of;
}

struct jinja_value jstring_call(struct jinja_run *r, struct jinja_value of, uint8_t index,
                                struct jargs *args)
{
    enum which which = (enum which)methods[index].which;
    bool markup = jstr_of(of)->markup;
    if (markup && (which == S_FORMAT || which == S_JOIN))
        return jfail(r, "%s of markup is not supported", methods[index].name);
    struct jinja_value v = call(r, of, which, methods[index].how, args);
    if (markup && keeps_markup(which) && !r->code) jstr_of(v)->markup = true;
    return v;
}
