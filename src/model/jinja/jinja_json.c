/* jinja_json: JSON to values, and values to JSON as Python's json.dumps writes it; see
 * jinja_impl.h. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "model/jinja/jinja_impl.h"

/* ---- reading ---- */

static struct jinja_value from_json(struct jinja_run *r, const json_t *j, int depth);

static struct jinja_value text_of(struct jinja_run *r, const char *text, size_t n)
{
    char *copy = jalloc(r, n + 1);
    if (!copy) return jundefined(NULL);
    memcpy(copy, text, n);
    return jtext(r, copy, n, JINJA_FOREIGN);
}

static struct jinja_value from_object(struct jinja_run *r, const json_t *j, int depth)
{
    struct jinja_value v = jinja_dict(r);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)j, key, value)
    {
        if (r->code) break;
        struct jinja_value name = text_of(r, key, strlen(key));
        struct jinja_value inner = from_json(r, value, depth + 1);
        if (!r->code) jdict_set(r, jdict_of(v), name, inner);
    }
    return v;
}

static struct jinja_value from_json(struct jinja_run *r, const json_t *j, int depth)
{
    struct jinja_value v = jinja_none();
    if (depth > JINJA_NESTING_MAX)
        return jfail(r, "JSON is nested deeper than %d levels", JINJA_NESTING_MAX);
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        return from_object(r, j, depth);
    case JSON_ARRAY:
        v = jlist_new(r, J_LIST, (uint32_t)json_array_size(j));
        for (size_t i = 0; i < json_array_size(j) && !r->code; i++)
            jlist_of(v)->items[i] = from_json(r, json_array_get(j, i), depth + 1);
        return v;
    case JSON_STRING:
        return text_of(r, json_string_value(j), json_string_length(j));
    case JSON_INTEGER:
        v = jint(json_integer_value(j));
        break;
    case JSON_REAL:
        v = jfloat(json_real_value(j));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        v = jinja_bool(json_is_true(j));
        break;
    case JSON_NULL:
        return v;
    }
    v.foreign = true;
    return v;
}

int jinja_json(struct jinja_run *r, const char *json, size_t n, const char *what,
               struct jinja_value *ret_value, struct err *e)
{
    json_error_t error;
    json_t *j = json_loadb(json, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!j) return err_set(e, ERR_BAD_INPUT, "%s: %s", what, error.text);
    *ret_value = from_json(r, j, 0);
    json_decref(j);
    return r->code ? err_set(e, r->code, "%s: %s", what, r->err.text) : 0;
}

static struct jinja_value *member(struct jinja_value v, const char *key)
{
    return v.type == J_DICT ? jdict_find_text(jdict_of(v), key, strlen(key)) : NULL;
}

void jinja_dict_expand(struct jinja_run *r, struct jinja_value v, const char *list,
                       const char *inner, const char *key)
{
    struct jinja_value *items = member(v, list);
    for (uint32_t i = 0; items && items->type == J_LIST && i < jlist_of(*items)->n; i++) {
        struct jinja_value *of = member(jlist_of(*items)->items[i], inner);
        struct jinja_value *text = of ? member(*of, key) : NULL;
        if (!text || text->type != J_STR) continue;
        const struct jstr *s = jstr_of(*text);
        json_t *j = json_loadb(s->data, s->len, JSON_ALLOW_NUL, NULL);
        if (json_is_object(j)) *text = from_json(r, j, 0);
        json_decref(j);
    }
}

/* ---- writing ---- */

struct dump {
    struct jinja_run *r;
    struct jout out;
    const struct jstr *indent; /* NULL: on one line */
    const struct jstr *between, *after_key;
    bool ascii, sorted;
};

static void put(struct dump *d, const char *text, uint8_t mark)
{
    jout_puts(d->r, &d->out, text, mark);
}

static void put_escape(struct dump *d, uint32_t c, uint8_t mark)
{
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    char text[16];
    const char *at = c && c < 128 ? strchr(from, (int)c) : NULL;
    if (at)
        snprintf(text, sizeof text, "\\%c", to[at - from]);
    else if (c < 0x10000)
        snprintf(text, sizeof text, "\\u%04x", c);
    else
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10),
                 0xDC00 + ((c - 0x10000) & 0x3FF));
    put(d, text, mark);
}

static void dump_string(struct dump *d, const struct jstr *s)
{
    size_t start = 0, n;
    put(d, "\"", JINJA_OWN);
    for (size_t i = 0; i < s->len && !d->r->code; i += n) {
        uint32_t c = (uint8_t)s->data[i];
        n = 1;
        if (c >= 128) c = jtext_code(s->data + i, s->len - i, &n);
        if (c >= 32 && c != '"' && c != '\\' && !(d->ascii && c > 126)) continue;
        if (c == 127) continue;
        jout_sub(d->r, &d->out, s, start, i);
        put_escape(d, c, jmark_at(s, i));
        start = i + n;
    }
    jout_sub(d->r, &d->out, s, start, s->len);
    put(d, "\"", JINJA_OWN);
}

static void dump_line(struct dump *d, uint32_t depth)
{
    if (!d->indent) return;
    put(d, "\n", JINJA_OWN);
    for (uint32_t i = 0; i < depth; i++)
        jout_str(d->r, &d->out, d->indent);
}

static void dump_value(struct dump *d, struct jinja_value v, uint32_t depth);

static void dump_float(struct dump *d, struct jinja_value v)
{
    char text[JFLOAT_TEXT];
    jfloat_print(v.as.real, text);
    const char *spelt = strcmp(text, "nan") == 0    ? "NaN"
                        : strcmp(text, "inf") == 0  ? "Infinity"
                        : strcmp(text, "-inf") == 0 ? "-Infinity"
                                                    : text;
    put(d, spelt, v.foreign ? JINJA_FOREIGN : JINJA_OWN);
}

static void dump_key(struct dump *d, struct jinja_value key)
{
    if (key.type == J_STR) {
        dump_string(d, jstr_of(key));
        return;
    }
    if (key.type != J_NONE && !jis_number(key)) {
        jfail(d->r, "tojson: a key of type %s", jtype_name(key));
        return;
    }
    put(d, "\"", JINJA_OWN);
    dump_value(d, key, 0);
    put(d, "\"", JINJA_OWN);
}

/* A copy in the order of the keys. */
static const struct jpair *sort_pairs(struct jinja_run *r, const struct jdict *d)
{
    struct jpair *copy = jalloc(r, (d->n + (size_t)1) * sizeof *copy);
    if (!copy) return d->pairs;
    if (d->n) memcpy(copy, d->pairs, d->n * sizeof *copy);
    return jsort_pairs(r, copy, d->n, false);
}

static void dump_dict(struct dump *d, const struct jdict *dict, uint32_t depth)
{
    const struct jpair *pairs = d->sorted ? sort_pairs(d->r, dict) : dict->pairs;
    put(d, "{", JINJA_OWN);
    for (uint32_t i = 0; i < dict->n && !d->r->code; i++) {
        if (i) jout_str(d->r, &d->out, d->between);
        dump_line(d, depth + 1);
        dump_key(d, pairs[i].key);
        jout_str(d->r, &d->out, d->after_key);
        dump_value(d, pairs[i].value, depth + 1);
        jwork(d->r, 1);
    }
    if (dict->n) dump_line(d, depth);
    put(d, "}", JINJA_OWN);
}

static void dump_list(struct dump *d, const struct jlist *l, uint32_t depth)
{
    put(d, "[", JINJA_OWN);
    for (uint32_t i = 0; i < l->n && !d->r->code; i++) {
        if (i) jout_str(d->r, &d->out, d->between);
        dump_line(d, depth + 1);
        dump_value(d, l->items[i], depth + 1);
        jwork(d->r, 1);
    }
    if (l->n) dump_line(d, depth);
    put(d, "]", JINJA_OWN);
}

static void dump_value(struct dump *d, struct jinja_value v, uint32_t depth)
{
    switch (v.type) {
    case J_NONE:
        put(d, "null", JINJA_OWN);
        return;
    case J_BOOL:
        put(d, v.as.truth ? "true" : "false", v.foreign ? JINJA_FOREIGN : JINJA_OWN);
        return;
    case J_INT:
        jout_value(d->r, &d->out, v);
        return;
    case J_FLOAT:
        dump_float(d, v);
        return;
    case J_STR:
        dump_string(d, jstr_of(v));
        return;
    case J_LIST:
    case J_TUPLE:
    case J_DICT:
        if (!jdeeper(d->r)) return;
        if (v.type == J_DICT)
            dump_dict(d, jdict_of(v), depth);
        else
            dump_list(d, jlist_of(v), depth);
        d->r->depth--;
        return;
    default:
        jfail(d->r, "tojson: a value of type %s is no JSON", jtype_name(v));
    }
}

static const struct jstr comma = {.data = ",", .len = 1};
static const struct jstr comma_space = {.data = ", ", .len = 2};
static const struct jstr colon_space = {.data = ": ", .len = 2};

static void take_separators(struct dump *d, struct jinja_value *v)
{
    if (!v || v->type == J_NONE) return;
    if ((v->type != J_TUPLE && v->type != J_LIST) || jlist_of(*v)->n != 2 ||
        jlist_of(*v)->items[0].type != J_STR || jlist_of(*v)->items[1].type != J_STR) {
        jfail(d->r, "tojson: separators must be two strings");
        return;
    }
    d->between = jstr_of(jlist_of(*v)->items[0]);
    d->after_key = jstr_of(jlist_of(*v)->items[1]);
}

/* As chat templates have it: tojson(ensure_ascii=false, indent, separators, sort_keys). */
struct jinja_value jjson_dump(struct jinja_run *r, struct jinja_value v, struct jargs *args)
{
    enum { INDENT_MAX = 64 };
    struct dump d = {.r = r, .between = &comma_space, .after_key = &colon_space};
    struct jinja_value *indent = jarg(args, 1, "indent");
    if (!jargs_check(r, args, 0, 4)) return jundefined(NULL);
    d.ascii = jarg_bool(args, 0, "ensure_ascii", false);
    d.sorted = jarg_bool(args, 3, "sort_keys", false);
    if (indent && indent->type != J_NONE) {
        int64_t n = indent->type == J_INT ? indent->as.integer : indent->type == J_BOOL;
        if (indent->type != J_INT && indent->type != J_STR && indent->type != J_BOOL)
            return jfail(r, "tojson: an indent of type %s", jtype_name(*indent));
        if (n > INDENT_MAX) return jfail(r, "tojson: an indent above %d", INDENT_MAX);
        d.indent = indent->type == J_STR
                       ? jstr_of(*indent)
                       : jto_str(r, jeval_binary(r, OP_MUL, jtext_c(r, " "), jint(n)));
        d.between = &comma;
    }
    take_separators(&d, jarg(args, 2, "separators"));
    jout_init(&d.out);
    dump_value(&d, v, 0);
    return jout_take(r, &d.out);
}
