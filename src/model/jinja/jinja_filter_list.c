/* jinja_filter_list: filters of lists; see jinja_impl.h. */
#include <string.h>

#include "model/jinja/jinja_impl.h"

/* A generator over the items of a list. */
static struct jinja_value generator(struct jinja_run *r, struct jlist *l, const char *name)
{
    struct jinja_value v = jlist_of_items(r, J_ITER, l->items, l->n);
    if (!r->code) jlist_of(v)->name = name;
    return v;
}

static struct jinja_value filter_length(struct jinja_run *r, struct jinja_value v,
                                        struct jargs *args)
{
    struct jinja_value n = jint(0);
    if (!jargs_check(r, args, 0, 0)) return v;
    if (v.type == J_STR) {
        jwork(r, jstr_of(v)->len / 16);
        n = jint((int64_t)jtext_count(jstr_of(v)));
        n.foreign = jtext_is_foreign(jstr_of(v));
    } else if (v.type == J_DICT) {
        n = jint(jdict_of(v)->n);
    } else if (jis_sequence(v) || v.type == J_VIEW) {
        n = jint(jlist_of(v)->n);
    } else if (v.type == J_LOOP) {
        n = jint(((struct jloop *)v.as.object)->n);
    } else if (v.type != J_UNDEFINED) {
        return jfail(r, "length: a value of type %s has none", jtype_name(v));
    }
    return n;
}

static struct jinja_value filter_first(struct jinja_run *r, struct jinja_value v,
                                       struct jargs *args)
{
    (void)args;
    if (v.type == J_ITER) {
        struct jlist *l = jlist_of(v);
        return l->at < l->n ? l->items[l->at++] : jundefined("the first item of nothing");
    }
    if (v.type == J_STR && jstr_of(v)->len)
        return jtext_sub(r, jstr_of(v), 0, jtext_char_len(jstr_of(v)->data, jstr_of(v)->len));
    struct jlist *l = jiterate(r, v);
    return l && l->n ? l->items[0] : jundefined("the first item of nothing");
}

static struct jinja_value filter_last(struct jinja_run *r, struct jinja_value v, struct jargs *args)
{
    (void)args;
    if (v.type == J_ITER)
        return jfail(r, "last: a value of type %s cannot be read backwards", jtype_name(v));
    struct jlist *l = jiterate(r, v);
    return l && l->n ? l->items[l->n - 1] : jundefined("the last item of nothing");
}

static struct jinja_value filter_list(struct jinja_run *r, struct jinja_value v, struct jargs *args)
{
    (void)args;
    if (v.type == J_LIST) return v;
    struct jlist *l = jiterate(r, v);
    return l ? jlist_of_items(r, J_LIST, l->items, l->n) : v;
}

static struct jinja_value filter_reverse(struct jinja_run *r, struct jinja_value v,
                                         struct jargs *args)
{
    struct jlist *l = jiterate(r, v);
    struct jout o;
    (void)args;
    if (!l) return v;
    if (v.type == J_STR) {
        jout_init(&o);
        for (uint32_t i = l->n; i-- > 0 && !r->code;)
            jout_str(r, &o, jstr_of(l->items[i]));
        struct jinja_value back = jout_take(r, &o);
        if (!r->code) jstr_of(back)->markup = jstr_of(v)->markup;
        return back;
    }
    struct jinja_value copy = jlist_new(r, J_ITER, l->n);
    for (uint32_t i = 0; i < l->n && !r->code; i++)
        jlist_of(copy)->items[i] = l->items[l->n - 1 - i];
    jwork(r, l->n);
    if (!r->code) jlist_of(copy)->name = "reversed";
    return copy;
}

static struct jinja_value filter_items(struct jinja_run *r, struct jinja_value v,
                                       struct jargs *args)
{
    (void)args;
    if (v.type == J_UNDEFINED) return jlist_new(r, J_ITER, 0);
    if (v.type != J_DICT) return jfail(r, "items: a dict is needed, not %s", jtype_name(v));
    v = jdict_view(r, jdict_of(v), 'i');
    return r->code ? v : generator(r, jlist_of(v), "items");
}

/* ---- attributes of items ---- */

/* What `path` ("a.b.0", or a number) names in v. */
static struct jinja_value follow(struct jinja_run *r, struct jinja_value v,
                                 const struct jinja_value *path)
{
    if (path->type == J_INT) return jeval_item(r, v, *path);
    if (path->type != J_STR) return jfail(r, "an attribute must be named by a string");
    const struct jstr *s = jstr_of(*path);
    for (size_t from = 0; from <= s->len && !r->code;) {
        size_t to = from;
        int64_t index = 0;
        bool number = true;
        for (; to < s->len && s->data[to] != '.'; to++) {
            number = number && s->data[to] >= '0' && s->data[to] <= '9' && to - from < 9;
            index = number ? index * 10 + (s->data[to] - '0') : 0;
        }
        struct jinja_value key = number && to > from ? jint(index) : jtext_sub(r, s, from, to);
        v = jeval_item(r, v, key);
        from = to + 1;
    }
    return v;
}

/* The key that orders an item: its attribute, small letters for all. */
static struct jinja_value key_of(struct jinja_run *r, struct jinja_value item,
                                 const struct jinja_value *attribute, bool exact)
{
    if (attribute && attribute->type != J_NONE) item = follow(r, item, attribute);
    if (!exact && item.type == J_STR && !r->code) item = jstring_case(r, jstr_of(item), 'l');
    return item;
}

static struct jinja_value filter_join(struct jinja_run *r, struct jinja_value v, struct jargs *args)
{
    struct jinja_value *by = jarg(args, 0, "d"), *attribute = jarg(args, 1, "attribute");
    struct jlist *l = jargs_check(r, args, 0, 2) ? jiterate(r, v) : NULL;
    if (!l) return v;
    if (attribute && attribute->type != J_NONE) {
        struct jinja_value of = jlist_new(r, J_LIST, l->n);
        for (uint32_t i = 0; i < l->n && !r->code; i++)
            jlist_of(of)->items[i] = follow(r, l->items[i], attribute);
        if (r->code) return v;
        l = jlist_of(of);
    }
    struct jinja_value between = by ? *by : jtext_c(r, "");
    return r->code ? v : jstring_join(r, jto_str(r, between), l, true);
}

static struct jargs rest_of(const struct jargs *args, uint32_t from)
{
    struct jargs rest = *args;
    uint32_t taken = from < args->n ? from : args->n;
    if (taken) rest.v += taken;
    rest.n -= taken;
    return rest;
}

static struct jinja_value filter_map(struct jinja_run *r, struct jinja_value v, struct jargs *args)
{
    struct jinja_value *attribute = args->n ? NULL : jarg(args, 0, "attribute");
    struct jinja_value *otherwise = jarg(args, 9, "default");
    struct jlist *out = jlist_empty(r), *l = jtruth(v) ? jiterate(r, v) : out;
    uint32_t cap = 0;
    if (!l || !out) return v;
    if (l == out) return generator(r, out, "map");
    if (!attribute && (!args->n || args->v[0].type != J_STR))
        return jfail(r, "map: the name of a filter, or attribute=, is needed");
    for (uint32_t i = 0; i < l->n && !r->code; i++) {
        struct jinja_value item;
        if (attribute) {
            item = follow(r, l->items[i], attribute);
            if (item.type == J_UNDEFINED && otherwise) item = *otherwise;
        } else {
            struct jargs rest = rest_of(args, 1);
            const struct jstr *name = jstr_of(args->v[0]);
            item = jfilter_call(r, name->data, name->len, l->items[i], &rest);
        }
        jwork(r, 1);
        jlist_push(r, out, &cap, item);
    }
    return generator(r, out, "map");
}

/* select, reject and, with an attribute in front, selectattr and rejectattr. */
static struct jinja_value choose(struct jinja_run *r, struct jinja_value v, struct jargs *args,
                                 bool by_attribute, bool wanted)
{
    uint32_t test = by_attribute ? 1 : 0, cap = 0;
    struct jlist *out = jlist_empty(r), *l = jtruth(v) ? jiterate(r, v) : out;
    if (!l || !out) return v;
    if (l == out) return generator(r, out, "select_or_reject");
    if (args->n < test) return jfail(r, "%s: an attribute is needed", args->of);
    if (args->n > test && args->v[test].type != J_STR)
        return jfail(r, "%s: the name of a test must be a string", args->of);
    for (uint32_t i = 0; i < l->n && !r->code; i++) {
        struct jinja_value item = by_attribute ? follow(r, l->items[i], &args->v[0]) : l->items[i];
        struct jargs rest = rest_of(args, test + 1);
        bool good = args->n > test ? jtest_call(r, jstr_of(args->v[test])->data,
                                                jstr_of(args->v[test])->len, item, &rest)
                                   : jtruth(item);
        jwork(r, 1);
        if (good == wanted) jlist_push(r, out, &cap, l->items[i]);
    }
    return generator(r, out, "select_or_reject");
}

static struct jinja_value filter_select(struct jinja_run *r, struct jinja_value v,
                                        struct jargs *args)
{
    return choose(r, v, args, false, true);
}

static struct jinja_value filter_reject(struct jinja_run *r, struct jinja_value v,
                                        struct jargs *args)
{
    return choose(r, v, args, false, false);
}

static struct jinja_value filter_selectattr(struct jinja_run *r, struct jinja_value v,
                                            struct jargs *args)
{
    return choose(r, v, args, true, true);
}

static struct jinja_value filter_rejectattr(struct jinja_run *r, struct jinja_value v,
                                            struct jargs *args)
{
    return choose(r, v, args, true, false);
}

/* ---- order ---- */

static struct jinja_value sorted(struct jinja_run *r, struct jlist *l, struct jlist *keys,
                                 bool backwards)
{
    struct jpair *all = jalloc(r, (l->n + (size_t)1) * sizeof *all);
    struct jinja_value v = jlist_new(r, J_LIST, l->n);
    if (!all || r->code) return v;
    for (uint32_t i = 0; i < l->n; i++)
        all[i] = (struct jpair){.key = keys->items[i], .value = l->items[i]};
    all = jsort_pairs(r, all, l->n, backwards);
    for (uint32_t i = 0; i < l->n && !r->code; i++)
        jlist_of(v)->items[i] = all[i].value;
    return v;
}

static struct jlist *keys_of(struct jinja_run *r, struct jlist *l,
                             const struct jinja_value *attribute, bool exact)
{
    struct jinja_value v = jlist_new(r, J_LIST, l->n);
    if (r->code) return NULL;
    for (uint32_t i = 0; i < l->n && !r->code; i++)
        jlist_of(v)->items[i] = key_of(r, l->items[i], attribute, exact);
    return r->code ? NULL : jlist_of(v);
}

/* The keys of an item by all attributes ("a.b,c"), as a list: where two are equal, whatever they
 * are, nothing needs an order between them. */
static struct jinja_value keys_of_item(struct jinja_run *r, struct jinja_value item,
                                       const struct jinja_value *attribute, bool exact)
{
    struct jlist *keys = jlist_empty(r);
    uint32_t cap = 0;
    if (!attribute || attribute->type != J_STR) {
        if (keys) jlist_push(r, keys, &cap, key_of(r, item, attribute, exact));
        return keys ? jlist_of_items(r, J_LIST, keys->items, keys->n) : item;
    }
    const struct jstr *all = jstr_of(*attribute);
    for (size_t from = 0; keys && from <= all->len && !r->code;) {
        const char *comma = memchr(all->data + from, ',', all->len - from);
        size_t to = comma ? (size_t)(comma - all->data) : all->len;
        struct jinja_value one = jtext_sub(r, all, from, to);
        if (!r->code) jlist_push(r, keys, &cap, key_of(r, item, &one, exact));
        from = to + 1;
    }
    return keys && !r->code ? jlist_of_items(r, J_LIST, keys->items, keys->n) : item;
}

static struct jinja_value filter_sort(struct jinja_run *r, struct jinja_value v, struct jargs *args)
{
    struct jinja_value *attribute = jarg(args, 2, "attribute");
    struct jlist *l = jargs_check(r, args, 0, 3) ? jiterate(r, v) : NULL;
    if (!l) return v;
    bool exact = jarg_bool(args, 1, "case_sensitive", false);
    struct jinja_value keys = jlist_new(r, J_LIST, l->n);
    for (uint32_t i = 0; i < l->n && !r->code; i++)
        jlist_of(keys)->items[i] = keys_of_item(r, l->items[i], attribute, exact);
    if (r->code) return v;
    return sorted(r, l, jlist_of(keys), jarg_bool(args, 0, "reverse", false));
}

static struct jinja_value filter_dictsort(struct jinja_run *r, struct jinja_value v,
                                          struct jargs *args)
{
    struct jinja_value *by = jarg(args, 1, "by");
    bool value = by && by->type == J_STR && jtext_is(jstr_of(*by), "value");
    if (!jargs_check(r, args, 0, 3)) return v;
    if (v.type != J_DICT) return jfail(r, "dictsort: a dict is needed, not %s", jtype_name(v));
    struct jinja_value pairs = jdict_view(r, jdict_of(v), 'i');
    struct jinja_value at = jint(value);
    if (r->code) return v;
    struct jlist *keys =
        keys_of(r, jlist_of(pairs), &at, jarg_bool(args, 0, "case_sensitive", false));
    return keys ? sorted(r, jlist_of(pairs), keys, jarg_bool(args, 2, "reverse", false)) : v;
}

static struct jinja_value filter_unique(struct jinja_run *r, struct jinja_value v,
                                        struct jargs *args)
{
    struct jlist *l = jargs_check(r, args, 0, 2) ? jiterate(r, v) : NULL, *out = jlist_empty(r);
    struct jlist *keys =
        l ? keys_of(r, l, jarg(args, 1, "attribute"), jarg_bool(args, 0, "case_sensitive", false))
          : NULL;
    struct jinja_value seen = jinja_dict(r);
    uint32_t cap = 0;
    if (!keys || !out || r->code) return v;
    for (uint32_t i = 0; i < l->n && !r->code; i++) {
        if (jdict_find(r, jdict_of(seen), keys->items[i])) continue;
        jdict_set(r, jdict_of(seen), keys->items[i], jinja_none());
        jlist_push(r, out, &cap, l->items[i]);
    }
    return generator(r, out, "do_unique");
}

static struct jinja_value extreme(struct jinja_run *r, struct jinja_value v, struct jargs *args,
                                  int wanted)
{
    struct jlist *l = jargs_check(r, args, 0, 2) ? jiterate(r, v) : NULL;
    struct jlist *keys =
        l ? keys_of(r, l, jarg(args, 1, "attribute"), jarg_bool(args, 0, "case_sensitive", false))
          : NULL;
    uint32_t best = 0;
    if (!keys) return v;
    if (l->n == 0) return jundefined("the extreme of nothing");
    for (uint32_t i = 1; i < l->n && !r->code; i++)
        if (jorder(r, keys->items[i], keys->items[best]) == wanted) best = i;
    return l->items[best];
}

static struct jinja_value filter_min(struct jinja_run *r, struct jinja_value v, struct jargs *args)
{
    return extreme(r, v, args, -1);
}

static struct jinja_value filter_max(struct jinja_run *r, struct jinja_value v, struct jargs *args)
{
    return extreme(r, v, args, 1);
}

static struct jinja_value filter_sum(struct jinja_run *r, struct jinja_value v, struct jargs *args)
{
    struct jinja_value *attribute = jarg(args, 0, "attribute"), *start = jarg(args, 1, "start");
    struct jlist *l = jargs_check(r, args, 0, 2) ? jiterate(r, v) : NULL;
    struct jinja_value total = start ? *start : jint(0);
    if (total.type == J_STR) return jfail(r, "sum: strings are not summed; use join");
    for (uint32_t i = 0; l && i < l->n && !r->code; i++)
        total = jeval_binary(r, OP_ADD, total, key_of(r, l->items[i], attribute, true));
    return total;
}

/* ---- groups ---- */

static struct jinja_value filter_batch(struct jinja_run *r, struct jinja_value v,
                                       struct jargs *args)
{
    int64_t size;
    struct jinja_value *with = jarg(args, 1, "fill_with");
    struct jlist *l = jargs_check(r, args, 1, 2) ? jiterate(r, v) : NULL, *out = jlist_empty(r);
    uint32_t cap = 0;
    if (!l || !out || !jarg_int(r, args, 0, "linecount", 0, &size)) return v;
    if (size < 1 || size > JINJA_RANGE_MAX) return jfail(r, "batch: the size is out of range");
    for (uint32_t i = 0; i < l->n && !r->code; i += (uint32_t)size) {
        uint32_t n = l->n - i < size ? l->n - i : (uint32_t)size;
        bool filled = with && with->type != J_NONE && n < size;
        struct jinja_value row = jlist_new(r, J_LIST, filled ? (uint32_t)size : n);
        for (uint32_t k = 0; !r->code && k < jlist_of(row)->n; k++)
            jlist_of(row)->items[k] = k < n ? l->items[i + k] : *with;
        jlist_push(r, out, &cap, row);
    }
    return generator(r, out, "do_batch");
}

static struct jinja_value filter_slice(struct jinja_run *r, struct jinja_value v,
                                       struct jargs *args)
{
    int64_t n;
    struct jinja_value *with = jarg(args, 1, "fill_with");
    struct jlist *l = jargs_check(r, args, 1, 2) ? jiterate(r, v) : NULL, *out = jlist_empty(r);
    uint32_t cap = 0, at = 0;
    if (!l || !out || !jarg_int(r, args, 0, "slices", 0, &n)) return v;
    if (n < 1 || n > JINJA_RANGE_MAX) return jfail(r, "slice: the number is out of range");
    uint32_t size = l->n / (uint32_t)n, longer = l->n % (uint32_t)n;
    for (uint32_t i = 0; i < n && !r->code; i++) {
        uint32_t len = size + (i < longer);
        bool filled = with && with->type != J_NONE && i >= longer;
        struct jinja_value row = jlist_new(r, J_LIST, len + filled);
        for (uint32_t k = 0; !r->code && k < len; k++)
            jlist_of(row)->items[k] = l->items[at++];
        if (filled && !r->code) jlist_of(row)->items[len] = *with;
        jlist_push(r, out, &cap, row);
    }
    return generator(r, out, "do_slice");
}

static struct jinja_value filter_groupby(struct jinja_run *r, struct jinja_value v,
                                         struct jargs *args)
{
    struct jinja_value *attribute = jarg(args, 0, "attribute");
    struct jlist *l = jargs_check(r, args, 1, 1) ? jiterate(r, v) : NULL, *out = jlist_empty(r);
    struct jlist *keys = l && attribute ? keys_of(r, l, attribute, false) : NULL;
    uint32_t cap = 0;
    if (!keys || !out) return v;
    struct jinja_value order = sorted(r, l, keys, false), by = sorted(r, keys, keys, false);
    for (uint32_t i = 0, end; !r->code && i < l->n; i = end) {
        for (end = i + 1; end < l->n; end++)
            if (!jequal(r, jlist_of(by)->items[i], jlist_of(by)->items[end])) break;
        struct jinja_value group = jlist_new(r, J_TUPLE, 2);
        if (r->code) break;
        jlist_of(group)->items[0] = key_of(r, jlist_of(order)->items[i], attribute, true);
        jlist_of(group)->items[1] = jlist_of_items(r, J_LIST, jlist_of(order)->items + i, end - i);
        jlist_push(r, out, &cap, group);
    }
    return jobject(J_LIST, out);
}

static const struct jfilter filters[] = {
    {"batch", filter_batch},     {"count", filter_length},    {"dictsort", filter_dictsort},
    {"first", filter_first},     {"groupby", filter_groupby}, {"items", filter_items},
    {"join", filter_join},       {"last", filter_last},       {"length", filter_length},
    {"list", filter_list},       {"map", filter_map},         {"max", filter_max},
    {"min", filter_min},         {"reject", filter_reject},   {"rejectattr", filter_rejectattr},
    {"reverse", filter_reverse}, {"select", filter_select},   {"selectattr", filter_selectattr},
    {"slice", filter_slice},     {"sort", filter_sort},       {"sum", filter_sum},
    {"unique", filter_unique},
};

jfilter_fn *jfilter_of_lists(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (jname_is(name, len, filters[i].name)) return filters[i].fn;
    return NULL;
}
