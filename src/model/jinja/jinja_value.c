/* jinja_value: values, lists and dicts as Python has them; see jinja_impl.h. */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "model/jinja/jinja_impl.h"

enum { PLAIN_PAIRS = 8, ALIGN = 16 };

struct jinja_value jint(int64_t i)
{
    return (struct jinja_value){.type = J_INT, .as.integer = i};
}

struct jinja_value jfloat(double f)
{
    return (struct jinja_value){.type = J_FLOAT, .as.real = f};
}

struct jinja_value jobject(enum jinja_type type, const void *object)
{
    return (struct jinja_value){.type = (uint8_t)type, .as.object = (void *)(uintptr_t)object};
}

struct jinja_value jundefined(const char *name)
{
    return jobject(J_UNDEFINED, name);
}

struct jinja_value jinja_none(void)
{
    return (struct jinja_value){.type = J_NONE};
}

struct jinja_value jinja_bool(bool truth)
{
    return (struct jinja_value){.type = J_BOOL, .as.truth = truth};
}

struct jstr *jstr_of(struct jinja_value v)
{
    return v.as.object;
}

struct jlist *jlist_of(struct jinja_value v)
{
    return v.as.object;
}

struct jdict *jdict_of(struct jinja_value v)
{
    return v.as.object;
}

bool jis_number(struct jinja_value v)
{
    return v.type == J_INT || v.type == J_FLOAT || v.type == J_BOOL;
}

double jnumber(struct jinja_value v)
{
    if (v.type == J_FLOAT) return v.as.real;
    return (double)jinteger(v);
}

int64_t jinteger(struct jinja_value v)
{
    return v.type == J_BOOL ? v.as.truth : v.as.integer;
}

bool jis_sequence(struct jinja_value v)
{
    return v.type == J_LIST || v.type == J_TUPLE || v.type == J_RANGE;
}

bool jtruth(struct jinja_value v)
{
    switch (v.type) {
    case J_UNDEFINED:
    case J_NONE:
        return false;
    case J_BOOL:
        return v.as.truth;
    case J_INT:
        return v.as.integer != 0;
    case J_FLOAT:
        return v.as.real < 0.0 || v.as.real > 0.0 || v.as.real != v.as.real;
    case J_STR:
        return jstr_of(v)->len > 0;
    case J_LIST:
    case J_TUPLE:
    case J_RANGE:
    case J_VIEW:
        return jlist_of(v)->n > 0;
    case J_DICT:
        return jdict_of(v)->n > 0;
    default:
        return true;
    }
}

const char *jtype_name(struct jinja_value v)
{
    static const char *const names[] = {"undefined", "None", "bool",      "int",   "float",
                                        "str",       "list", "tuple",     "range", "view",
                                        "generator", "dict", "namespace", "macro", "method",
                                        "function",  "loop", "cycler",    "joiner"};
    return names[v.type];
}

/* ---- lists ---- */

struct jinja_value jlist_of_items(struct jinja_run *r, enum jinja_type type,
                                  struct jinja_value *items, uint32_t n)
{
    struct jlist *l = jalloc(r, sizeof *l);
    if (!l) return jundefined(NULL);
    *l = (struct jlist){.items = items, .n = n};
    return jobject(type, l);
}

struct jinja_value jlist_new(struct jinja_run *r, enum jinja_type type, uint32_t n)
{
    struct jinja_value *items = jalloc(r, (n ? n : 1) * sizeof *items);
    if (!items) return jundefined(NULL);
    for (uint32_t i = 0; i < n; i++)
        items[i] = jinja_none();
    return jlist_of_items(r, type, items, n);
}

struct jinja_value jinja_list(struct jinja_run *r, uint32_t n)
{
    return jlist_new(r, J_LIST, n);
}

void jinja_list_set(struct jinja_value list, uint32_t at, struct jinja_value v)
{
    if (list.type == J_LIST) jlist_of(list)->items[at] = v;
}

struct jlist *jlist_empty(struct jinja_run *r)
{
    struct jlist *l = jalloc(r, sizeof *l);
    if (l) *l = (struct jlist){.n = 0};
    return l;
}

void jlist_push(struct jinja_run *r, struct jlist *l, uint32_t *cap, struct jinja_value v)
{
    if (r->code) return;
    if (l->n == *cap) {
        uint32_t more = *cap ? *cap * 2 : 8;
        struct jinja_value *grown = jalloc(r, more * sizeof *grown);
        if (!grown) return;
        if (l->n) memcpy(grown, l->items, l->n * sizeof *grown);
        l->items = grown;
        *cap = more;
    }
    l->items[l->n++] = v;
}

/* Those of markup are no markup, as Python's iterator has it. */
static struct jlist *characters(struct jinja_run *r, const struct jstr *s)
{
    struct jlist *l = jlist_empty(r);
    struct jstr plain = *s;
    uint32_t cap = 0;
    if (!l) return NULL;
    plain.markup = false;
    s = &plain;
    for (size_t at = 0; at < s->len && !r->code;) {
        size_t n = jtext_char_len(s->data + at, s->len - at);
        jlist_push(r, l, &cap, jtext_sub(r, s, at, at + n));
        at += n;
    }
    jwork(r, s->len);
    return l;
}

struct jlist *jiterate(struct jinja_run *r, struct jinja_value v)
{
    struct jlist *l;
    switch (v.type) {
    case J_LIST:
    case J_TUPLE:
    case J_RANGE:
    case J_VIEW:
        return jlist_of(v);
    case J_ITER:
        l = jalloc(r, sizeof *l);
        if (!l) return NULL;
        *l = (struct jlist){.items = jlist_of(v)->items};
        l->n = jlist_of(v)->n - jlist_of(v)->at;
        if (jlist_of(v)->at) l->items += jlist_of(v)->at; /* of nothing there are no items */
        jlist_of(v)->at = jlist_of(v)->n;
        return l;
    case J_STR:
        return characters(r, jstr_of(v));
    case J_DICT:
        v = jdict_view(r, jdict_of(v), 'k');
        return r->code ? NULL : jlist_of(v);
    case J_UNDEFINED:
        v = jlist_new(r, J_LIST, 0);
        return r->code ? NULL : jlist_of(v);
    default:
        jfail(r, "a value of type %s is not iterable", jtype_name(v));
        return NULL;
    }
}

/* ---- dicts ---- */

static uint64_t hash_bytes(const void *p, size_t n)
{
    uint64_t h = fnv_bytes(FNV_BEGIN, p, n);
    return h ^ h >> 29;
}

/* Equal values have equal hashes: 1, 1.0 and true are one key. false: v can be no key. */
static bool hash_value(struct jinja_value v, int depth, uint64_t *ret_hash)
{
    uint64_t h = 1;
    switch (v.type) {
    case J_STR:
        *ret_hash = hash_bytes(jstr_of(v)->data, jstr_of(v)->len);
        return true;
    case J_NONE:
        *ret_hash = 7;
        return true;
    case J_BOOL:
    case J_INT:
    case J_FLOAT: {
        double d = jnumber(v) + 0.0; /* -0.0 as 0.0 */
        *ret_hash = hash_bytes(&d, sizeof d);
        return true;
    }
    case J_TUPLE:
        if (depth > 8) return false;
        for (uint32_t i = 0; i < jlist_of(v)->n; i++) {
            uint64_t part;
            if (!hash_value(jlist_of(v)->items[i], depth + 1, &part)) return false;
            h = h * 31 + part;
        }
        *ret_hash = h;
        return true;
    default:
        return false;
    }
}

static bool is_key(struct jinja_run *r, const struct jpair *p, struct jinja_value key,
                   uint64_t hash)
{
    if (p->hash != hash) return false;
    if (p->key.type == J_STR && key.type == J_STR)
        return jstr_of(p->key)->len == jstr_of(key)->len &&
               memcmp(jstr_of(p->key)->data, jstr_of(key)->data, jstr_of(key)->len) == 0;
    return jequal(r, p->key, key);
}

static struct jpair *find_pair(struct jinja_run *r, const struct jdict *d, struct jinja_value key,
                               uint64_t hash)
{
    if (!d->slots) {
        for (uint32_t i = 0; i < d->n; i++)
            if (is_key(r, &d->pairs[i], key, hash)) return &d->pairs[i];
        return NULL;
    }
    for (uint32_t at = (uint32_t)hash & d->mask; d->slots[at]; at = (at + 1) & d->mask) {
        struct jpair *p = &d->pairs[d->slots[at] - 1];
        if (is_key(r, p, key, hash)) return p;
    }
    return NULL;
}

struct jinja_value *jdict_find(struct jinja_run *r, const struct jdict *d, struct jinja_value key)
{
    uint64_t hash;
    if (!hash_value(key, 0, &hash)) {
        jfail(r, "a value of type %s cannot be a key", jtype_name(key));
        return NULL;
    }
    struct jpair *p = find_pair(r, d, key, hash);
    return p ? &p->value : NULL;
}

struct jinja_value *jdict_find_text(const struct jdict *d, const char *key, size_t n)
{
    struct jstr s = {.data = key, .len = n};
    struct jpair *p = find_pair(NULL, d, jobject(J_STR, &s), hash_bytes(key, n));
    return p ? &p->value : NULL;
}

static void index_pair(struct jdict *d, uint32_t i)
{
    uint32_t at = (uint32_t)d->pairs[i].hash & d->mask;
    while (d->slots[at])
        at = (at + 1) & d->mask;
    d->slots[at] = i + 1;
}

static bool grow_dict(struct jinja_run *r, struct jdict *d)
{
    uint32_t cap = d->cap ? d->cap * 2 : 4;
    struct jpair *pairs = jalloc(r, cap * sizeof *pairs);
    if (!pairs) return false;
    if (d->n) memcpy(pairs, d->pairs, d->n * sizeof *pairs);
    d->pairs = pairs;
    d->cap = cap;
    if (cap <= PLAIN_PAIRS) return true;
    uint32_t *slots = jalloc(r, 2 * cap * sizeof *slots);
    if (!slots) return false;
    memset(slots, 0, 2 * cap * sizeof *slots);
    d->slots = slots;
    d->mask = 2 * cap - 1;
    for (uint32_t i = 0; i < d->n; i++)
        index_pair(d, i);
    return true;
}

void jdict_set(struct jinja_run *r, struct jdict *d, struct jinja_value key, struct jinja_value v)
{
    uint64_t hash;
    if (r->code) return;
    if (!hash_value(key, 0, &hash)) {
        jfail(r, "a value of type %s cannot be a key", jtype_name(key));
        return;
    }
    struct jpair *p = find_pair(r, d, key, hash);
    if (p) {
        p->value = v;
        return;
    }
    if (d->n == d->cap && !grow_dict(r, d)) return;
    d->pairs[d->n++] = (struct jpair){key, v, hash};
    if (d->slots) index_pair(d, d->n - 1);
}

struct jinja_value jinja_dict(struct jinja_run *r)
{
    struct jdict *d = jalloc(r, sizeof *d);
    if (!d) return jundefined(NULL);
    *d = (struct jdict){.n = 0};
    return jobject(J_DICT, d);
}

void jinja_dict_put(struct jinja_run *r, struct jinja_value dict, const char *key,
                    struct jinja_value v)
{
    if (dict.type == J_DICT) jdict_set(r, jdict_of(dict), jtext_c(r, key), v);
}

void jinja_dict_merge(struct jinja_run *r, struct jinja_value to, struct jinja_value from)
{
    for (uint32_t i = 0; to.type == J_DICT && from.type == J_DICT && i < jdict_of(from)->n; i++) {
        const struct jpair *p = &jdict_of(from)->pairs[i];
        if (!jdict_find(r, jdict_of(to), p->key)) jdict_set(r, jdict_of(to), p->key, p->value);
    }
}

struct jinja_value jdict_view(struct jinja_run *r, const struct jdict *d, char which)
{
    struct jinja_value v = jlist_new(r, J_VIEW, d->n);
    if (r->code) return v;
    struct jlist *l = jlist_of(v);
    l->name = which == 'k' ? "dict_keys" : which == 'v' ? "dict_values" : "dict_items";
    for (uint32_t i = 0; i < d->n && !r->code; i++) {
        l->items[i] = which == 'v' ? d->pairs[i].value : d->pairs[i].key;
        if (which != 'i') continue;
        struct jinja_value pair = jlist_new(r, J_TUPLE, 2);
        if (r->code) break;
        jlist_of(pair)->items[0] = d->pairs[i].key;
        jlist_of(pair)->items[1] = d->pairs[i].value;
        l->items[i] = pair;
    }
    jwork(r, d->n);
    return v;
}

/* ---- comparison ---- */

static bool equal_numbers(struct jinja_value a, struct jinja_value b)
{
    if (a.type == J_FLOAT || b.type == J_FLOAT)
        return jnumber(a) >= jnumber(b) && jnumber(a) <= jnumber(b);
    return jinteger(a) == jinteger(b);
}

static bool equal_lists(struct jinja_run *r, const struct jlist *a, const struct jlist *b)
{
    bool same = a->n == b->n;
    jwork(r, a->n);
    for (uint32_t i = 0; i < a->n && same && !r->code; i++)
        same = jequal(r, a->items[i], b->items[i]);
    return same;
}

static bool equal_dicts(struct jinja_run *r, const struct jdict *a, const struct jdict *b)
{
    bool same = a->n == b->n;
    jwork(r, a->n);
    for (uint32_t i = 0; i < a->n && same && !r->code; i++) {
        struct jinja_value *other = jdict_find(r, b, a->pairs[i].key);
        same = other && jequal(r, a->pairs[i].value, *other);
    }
    return same;
}

static bool equal_strings(struct jinja_run *r, const struct jstr *a, const struct jstr *b)
{
    if (a->len != b->len) return false;
    if (r) jwork(r, a->len / 16);
    return memcmp(a->data, b->data, a->len) == 0;
}

bool jequal(struct jinja_run *r, struct jinja_value a, struct jinja_value b)
{
    if (jis_number(a) && jis_number(b)) return equal_numbers(a, b);
    if (a.type != b.type) return false;
    if (a.type == J_NONE || a.type == J_UNDEFINED) return true;
    if (a.type == J_STR) return equal_strings(r, jstr_of(a), jstr_of(b));
    if (a.as.object == b.as.object) return true;
    if (a.type != J_LIST && a.type != J_TUPLE && a.type != J_RANGE && a.type != J_DICT)
        return false;
    if (!r || !jdeeper(r)) return false;
    bool same = a.type == J_DICT ? equal_dicts(r, jdict_of(a), jdict_of(b))
                                 : equal_lists(r, jlist_of(a), jlist_of(b));
    r->depth--;
    return same;
}

static int sign(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

int jorder(struct jinja_run *r, struct jinja_value a, struct jinja_value b)
{
    int order = 0;
    if (jis_number(a) && jis_number(b)) {
        if (a.type != J_FLOAT && b.type != J_FLOAT) return sign(jinteger(a), jinteger(b));
        return (jnumber(a) > jnumber(b)) - (jnumber(a) < jnumber(b));
    }
    if (a.type == J_STR && b.type == J_STR) { /* the order of code points is that of bytes */
        const struct jstr *x = jstr_of(a), *y = jstr_of(b);
        size_t n = x->len < y->len ? x->len : y->len;
        jwork(r, n / 16);
        order = n ? memcmp(x->data, y->data, n) : 0;
        if (order == 0) return (x->len > y->len) - (x->len < y->len);
        return order < 0 ? -1 : 1;
    }
    if (a.type != b.type || (a.type != J_LIST && a.type != J_TUPLE)) {
        jfail(r, "a value of type %s has no order with one of type %s", jtype_name(a),
              jtype_name(b));
        return 0;
    }
    if (!jdeeper(r)) return 0;
    const struct jlist *x = jlist_of(a), *y = jlist_of(b);
    bool decided = false;
    for (uint32_t i = 0; i < x->n && i < y->n && !decided && !r->code; i++) {
        decided = !jequal(r, x->items[i], y->items[i]);
        if (decided) order = jorder(r, x->items[i], y->items[i]);
    }
    r->depth--;
    return decided ? order : sign(x->n, y->n);
}

struct jpair *jsort_pairs(struct jinja_run *r, struct jpair *from, uint32_t n, bool backwards)
{
    struct jpair *to = jalloc(r, (n + (size_t)1) * sizeof *to);
    if (!to) return from;
    for (uint32_t size = 1; size < n && !r->code; size *= 2) {
        for (uint32_t low = 0; low < n && !r->code; low += 2 * size) {
            uint32_t middle = low + size < n ? low + size : n;
            uint32_t high = low + 2 * size < n ? low + 2 * size : n, i = low, j = middle;
            for (uint32_t k = low; k < high; k++) {
                bool left = j >= high;
                if (i < middle && j < high) {
                    int order = jorder(r, from[i].key, from[j].key);
                    left = backwards ? order >= 0 : order <= 0;
                }
                to[k] = left ? from[i++] : from[j++];
                jwork(r, 1);
            }
        }
        struct jpair *other = from;
        from = to;
        to = other;
    }
    return from;
}
