/* jinja_args: arguments of a call by place or name; see jinja_impl.h. */
#include "model/jinja/jinja_impl.h"

struct jinja_value *jarg(const struct jargs *a, uint32_t at, const char *name)
{
    if (at < a->n) return &a->v[at];
    for (uint32_t i = 0; *name && i < a->n_named; i++)
        if (jname_is(a->named[i].name, a->named[i].len, name)) return &a->named[i].value;
    return NULL;
}

void jargs_named(struct jinja_run *r, const struct jargs *a, struct jinja_value dict)
{
    for (uint32_t i = 0; i < a->n_named && !r->code; i++)
        jdict_set(r, jdict_of(dict), jtext(r, a->named[i].name, a->named[i].len, JINJA_OWN),
                  a->named[i].value);
}

bool jargs_check(struct jinja_run *r, const struct jargs *a, uint32_t min, uint32_t max)
{
    uint32_t n = a->n + a->n_named;
    if (n >= min && n <= max) return true;
    if (min == max)
        jfail(r, "%s takes %u arguments, not %u", a->of, max, n);
    else
        jfail(r, "%s takes %u to %u arguments, not %u", a->of, min, max, n);
    return false;
}

bool jarg_int(struct jinja_run *r, const struct jargs *a, uint32_t at, const char *name,
              int64_t otherwise, int64_t *ret_value)
{
    struct jinja_value *v = jarg(a, at, name);
    *ret_value = otherwise;
    if (!v || v->type == J_NONE) return true;
    if (v->type != J_INT && v->type != J_BOOL) {
        jfail(r, "%s: an argument must be a whole number, not %s", a->of, jtype_name(*v));
        return false;
    }
    *ret_value = jinteger(*v);
    return true;
}

bool jarg_bool(const struct jargs *a, uint32_t at, const char *name, bool otherwise)
{
    struct jinja_value *v = jarg(a, at, name);
    return v ? jtruth(*v) : otherwise;
}

struct jstr *jarg_str(struct jinja_run *r, const struct jargs *a, uint32_t at, const char *name)
{
    struct jinja_value *v = jarg(a, at, name);
    if (v && v->type == J_STR) return jstr_of(*v);
    jfail(r, "%s: an argument must be a string, not %s", a->of, v ? jtype_name(*v) : "missing");
    return NULL;
}
