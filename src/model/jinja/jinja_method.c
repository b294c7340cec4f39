/* jinja_method: methods of dicts, lists, loops and cyclers; see jinja_impl.h. Methods that would
 * change a value in place are refused, as in Jinja's immutable sandbox. */

#include "model/jinja/jinja_impl.h"

enum which { /* after the methods of strings, which begin at 0 */
             M_STRINGS = 100,
             M_GET,
             M_KEYS,
             M_VALUES,
             M_ITEMS,
             M_COPY,
             M_COUNT,
             M_INDEX,
             M_CYCLE,
             M_CHANGED,
             M_NEXT,
             M_RESET,
             M_CURRENT,
             M_REFUSED
};

static const struct {
    uint8_t type, which;
    const char *name;
} methods[] = {
    {J_DICT, M_GET, "get"},           {J_DICT, M_KEYS, "keys"},
    {J_DICT, M_VALUES, "values"},     {J_DICT, M_ITEMS, "items"},
    {J_DICT, M_COPY, "copy"},         {J_DICT, M_REFUSED, "clear"},
    {J_DICT, M_REFUSED, "pop"},       {J_DICT, M_REFUSED, "popitem"},
    {J_DICT, M_REFUSED, "update"},    {J_DICT, M_REFUSED, "setdefault"},
    {J_DICT, M_REFUSED, "fromkeys"},  {J_LIST, M_COPY, "copy"},
    {J_LIST, M_COUNT, "count"},       {J_LIST, M_INDEX, "index"},
    {J_LIST, M_REFUSED, "append"},    {J_LIST, M_REFUSED, "extend"},
    {J_LIST, M_REFUSED, "insert"},    {J_LIST, M_REFUSED, "pop"},
    {J_LIST, M_REFUSED, "remove"},    {J_LIST, M_REFUSED, "clear"},
    {J_LIST, M_REFUSED, "sort"},      {J_LIST, M_REFUSED, "reverse"},
    {J_TUPLE, M_COUNT, "count"},      {J_TUPLE, M_INDEX, "index"},
    {J_RANGE, M_COUNT, "count"},      {J_RANGE, M_INDEX, "index"},
    {J_LOOP, M_CYCLE, "cycle"},       {J_LOOP, M_CHANGED, "changed"},
    {J_CYCLER, M_NEXT, "next"},       {J_CYCLER, M_RESET, "reset"},
    {J_CYCLER, M_CURRENT, "current"},
};

struct jinja_value jmethod_bind(struct jinja_run *r, struct jinja_value of, const char *name,
                                size_t len, bool *ret_found)
{
    const char *known = NULL;
    int index = of.type == J_STR ? jstring_method(name, len, &known) : -1;
    for (size_t i = 0; i < sizeof methods / sizeof *methods && index < 0; i++) {
        if (methods[i].type != of.type || !jname_is(name, len, methods[i].name)) continue;
        index = methods[i].which;
        known = methods[i].name;
    }
    *ret_found = index >= 0;
    if (index < 0) return jundefined(NULL);
    if (index == M_CURRENT) {
        struct jcycler *c = of.as.object;
        return c->items->items[c->at];
    }
    struct jmethod *m = jalloc(r, sizeof *m);
    if (!m) return jundefined(NULL);
    *m = (struct jmethod){of, known, (uint8_t)index};
    return index == M_REFUSED ? jundefined("a method that changes its object")
                              : jobject(J_METHOD, m);
}

static struct jinja_value get(struct jinja_run *r, const struct jdict *d, struct jargs *args)
{
    if (!jargs_check(r, args, 1, 2) || args->n < 1) return jinja_none();
    struct jinja_value *found = jdict_find(r, d, args->v[0]);
    if (found) return *found;
    struct jinja_value *otherwise = jarg(args, 1, "");
    return otherwise ? *otherwise : jinja_none();
}

static struct jinja_value copy(struct jinja_run *r, struct jinja_value of)
{
    if (of.type == J_LIST) return of; /* lists never change */
    struct jinja_value v = jinja_dict(r);
    jinja_dict_merge(r, v, of);
    return v;
}

static struct jinja_value count_or_index(struct jinja_run *r, const struct jlist *l, bool counts,
                                         struct jargs *args)
{
    int64_t n = 0;
    if (!jargs_check(r, args, 1, 1)) return jundefined(NULL);
    for (uint32_t i = 0; i < l->n && !r->code; i++) {
        jwork(r, 1);
        bool same = jequal(r, l->items[i], args->v[0]);
        if (same && !counts) return jint(i);
        n += same;
    }
    return counts ? jint(n) : jfail(r, "index: the value is not in the list");
}

static struct jinja_value changed(struct jinja_run *r, struct jloop *l, struct jargs *args)
{
    struct jinja_value now = jlist_of_items(r, J_TUPLE, args->v, args->n);
    bool same = !r->code && l->any_changed && jequal(r, l->last_changed, now);
    l->last_changed = now;
    l->any_changed = true;
    return jinja_bool(!same);
}

static struct jinja_value next(struct jcycler *c)
{
    struct jinja_value v = c->items->items[c->at];
    c->at = (c->at + 1) % c->items->n;
    return v;
}

struct jinja_value jmethod_call(struct jinja_run *r, const struct jmethod *m, struct jargs *args)
{
    struct jinja_value of = m->of;
    args->of = m->name;
    if (m->index < M_STRINGS) return jstring_call(r, of, m->index, args);
    switch ((enum which)m->index) {
    case M_GET:
        return get(r, jdict_of(of), args);
    case M_KEYS:
        return jdict_view(r, jdict_of(of), 'k');
    case M_VALUES:
        return jdict_view(r, jdict_of(of), 'v');
    case M_ITEMS:
        return jdict_view(r, jdict_of(of), 'i');
    case M_COPY:
        return copy(r, of);
    case M_COUNT:
    case M_INDEX:
        return count_or_index(r, jlist_of(of), m->index == M_COUNT, args);
    case M_CYCLE:
        if (args->n == 0) return jfail(r, "loop.cycle needs values");
        return args->v[((struct jloop *)of.as.object)->at % args->n];
    case M_CHANGED:
        return changed(r, of.as.object, args);
    case M_NEXT:
        return next(of.as.object);
    case M_RESET:
        ((struct jcycler *)of.as.object)->at = 0;
        return jinja_none();
    default:
        return jfail(r, "%s cannot be called", m->name);
    }
}
