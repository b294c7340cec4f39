/* jinja_eval: expressions; see jinja_impl.h. */
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/jinja/jinja_impl.h"

enum { ALIGN = 16, STEP_BYTES = 16 };

struct jinja_value jfail_code(struct jinja_run *r, int code, const char *format, ...)
{
    char text[ERR_TEXT_MAX];
    va_list args;
    if (r->code) return jundefined(NULL);
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->code = r->raised ? err_set(&r->err, code, "%s (chat template, line %u)", text, r->line)
                        : err_set(&r->err, code, "chat template, line %u: %s", r->line, text);
    return jundefined(NULL);
}

struct jinja_value jfail(struct jinja_run *r, const char *format, ...)
{
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return jfail_code(r, ERR_BAD_INPUT, "%s", text);
}

struct jinja_value jfail_undefined(struct jinja_run *r, struct jinja_value v)
{
    return jfail(r, "%.80s is undefined", v.as.object ? (char *)v.as.object : "a value");
}

void *jalloc(struct jinja_run *r, size_t size)
{
    if (r->code) return NULL;
    void *memory = arena_alloc(&r->arena, size, ALIGN);
    if (memory) return memory;
    if (size > r->arena.max - r->arena.used)
        jfail_code(r, ERR_LIMIT, "it needs more than %d MiB", JINJA_MEMORY_MAX >> 20);
    else
        jfail_code(r, ERR_NO_MEMORY, "no memory to render a chat template");
    return NULL;
}

void jwork(struct jinja_run *r, size_t amount)
{
    r->steps += amount;
    if (r->steps > JINJA_STEPS_MAX)
        jfail_code(r, ERR_LIMIT, "it takes more than %d steps", JINJA_STEPS_MAX);
}

bool jdeeper(struct jinja_run *r)
{
    if (r->code) return false;
    if (r->depth >= JINJA_DEPTH_MAX) {
        jfail_code(r, ERR_LIMIT, "evaluation is nested deeper than %d levels", JINJA_DEPTH_MAX);
        return false;
    }
    r->depth++;
    return true;
}

/* ---- arithmetic ---- */

static struct jinja_value too_large(struct jinja_run *r)
{
    return jfail(r, "a number does not fit 64 bits");
}

static struct jinja_value zero_division(struct jinja_run *r)
{
    return jfail(r, "a number is divided by zero");
}

static struct jinja_value power_of_integers(struct jinja_run *r, int64_t a, int64_t b)
{
    int64_t result = 1;
    if (b < 0) return a == 0 ? zero_division(r) : jfloat(pow((double)a, (double)b));
    if (a == 0 || a == 1) return jint(b == 0 ? 1 : a);
    if (a == -1) return jint(b % 2 ? -1 : 1);
    for (; b > 0; b--)
        if (__builtin_mul_overflow(result, a, &result)) return too_large(r);
    return jint(result);
}

static struct jinja_value integers(struct jinja_run *r, enum jop op, int64_t a, int64_t b)
{
    int64_t result = 0;
    bool over = false;
    switch (op) {
    case OP_ADD:
        over = __builtin_add_overflow(a, b, &result);
        break;
    case OP_SUB:
        over = __builtin_sub_overflow(a, b, &result);
        break;
    case OP_MUL:
        over = __builtin_mul_overflow(a, b, &result);
        break;
    case OP_DIV:
        return b ? jfloat((double)a / (double)b) : zero_division(r);
    case OP_POW:
        return power_of_integers(r, a, b);
    default:
        if (b == 0) return zero_division(r);
        if (b == -1) { /* INT64_MIN / -1 */
            over = op == OP_FLOORDIV && __builtin_sub_overflow(0, a, &result);
            break;
        }
        result = op == OP_FLOORDIV ? a / b - (a % b != 0 && (a % b < 0) != (b < 0))
                                   : a % b + (a % b != 0 && (a % b < 0) != (b < 0) ? b : 0);
    }
    return over ? too_large(r) : jint(result);
}

static struct jinja_value floats(struct jinja_run *r, enum jop op, double a, double b)
{
    double m;
    bool zero = b >= 0.0 && b <= 0.0;
    switch (op) {
    case OP_ADD:
        return jfloat(a + b);
    case OP_SUB:
        return jfloat(a - b);
    case OP_MUL:
        return jfloat(a * b);
    case OP_DIV:
        return zero ? zero_division(r) : jfloat(a / b);
    case OP_POW:
        if (a < 0.0 && floor(b) < b) return jfail(r, "a power is no real number");
        if (a >= 0.0 && a <= 0.0 && b < 0.0) return zero_division(r);
        return jfloat(pow(a, b));
    default:
        if (zero) return zero_division(r);
        m = fmod(a, b);
        if ((m < 0.0 || m > 0.0) && (m < 0.0) != (b < 0.0)) m += b;
        if (!(m < 0.0 || m > 0.0)) m = copysign(0.0, b);
        if (op == OP_MOD) return jfloat(m);
        return jfloat(round((a - m) / b)); /* whole, but for rounding */
    }
}

static struct jinja_value repeat(struct jinja_run *r, struct jinja_value of, int64_t times)
{
    uint64_t n = times > 0 ? (uint64_t)times : 0;
    if (of.type == J_STR) {
        const struct jstr *s = jstr_of(of);
        struct jout o;
        if (s->len && n > JINJA_OUTPUT_MAX / s->len)
            return jfail_code(r, ERR_LIMIT, "a string grows too long");
        jout_init(&o);
        for (uint64_t i = 0; s->len && i < n && !r->code; i++, jwork(r, 1))
            jout_str(r, &o, s);
        return jout_take(r, &o);
    }
    const struct jlist *l = jlist_of(of);
    if (l->n && n > JINJA_STEPS_MAX / l->n)
        return jfail_code(r, ERR_LIMIT, "a list grows too long");
    jwork(r, l->n * n);
    if (l->n == 0) n = 0;
    struct jinja_value v = jlist_new(r, of.type, (uint32_t)(l->n * n));
    for (uint64_t i = 0; i < l->n * n && !r->code; i++)
        jlist_of(v)->items[i] = l->items[i % l->n];
    return v;
}

static struct jinja_value join_lists(struct jinja_run *r, struct jinja_value a,
                                     struct jinja_value b)
{
    const struct jlist *x = jlist_of(a), *y = jlist_of(b);
    jwork(r, (size_t)x->n + y->n);
    struct jinja_value v = jlist_new(r, a.type, x->n + y->n);
    if (r->code) return v;
    if (x->n) memcpy(jlist_of(v)->items, x->items, x->n * sizeof *x->items);
    if (y->n) memcpy(jlist_of(v)->items + x->n, y->items, y->n * sizeof *y->items);
    return v;
}

static const char *op_text(enum jop op)
{
    static const char *const texts[] = {"",   "+",  "-", "*",  "/", "//", "%",  "**",
                                        "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
    return texts[op];
}

static struct jinja_value no_operands(struct jinja_run *r, enum jop op, struct jinja_value a,
                                      struct jinja_value b)
{
    struct jinja_value u = a.type == J_UNDEFINED ? a : b;
    if (u.type == J_UNDEFINED) return jfail_undefined(r, u);
    return jfail(r, "%s has no meaning for %s and %s", op_text(op), jtype_name(a), jtype_name(b));
}

struct jinja_value jeval_binary(struct jinja_run *r, enum jop op, struct jinja_value a,
                                struct jinja_value b)
{
    struct jinja_value v;
    if (r->code) return jundefined(NULL);
    if (jis_number(a) && jis_number(b)) {
        if (a.type == J_FLOAT || b.type == J_FLOAT)
            v = floats(r, op, jnumber(a), jnumber(b));
        else
            v = integers(r, op, jinteger(a), jinteger(b));
        v.foreign = a.foreign || b.foreign;
        return v;
    }
    if (op == OP_ADD && a.type == J_STR && b.type == J_STR)
        return jtext_concat(r, jstr_of(a), jstr_of(b));
    if (op == OP_MOD && a.type == J_STR) return jformat_percent(r, jstr_of(a), b);
    if (op == OP_ADD && a.type == b.type && (a.type == J_LIST || a.type == J_TUPLE))
        return join_lists(r, a, b);
    bool left = a.type == J_STR || a.type == J_LIST || a.type == J_TUPLE;
    bool right = b.type == J_STR || b.type == J_LIST || b.type == J_TUPLE;
    if (op == OP_MUL && left && (b.type == J_INT || b.type == J_BOOL))
        return repeat(r, a, jinteger(b));
    if (op == OP_MUL && right && (a.type == J_INT || a.type == J_BOOL))
        return repeat(r, b, jinteger(a));
    return no_operands(r, op, a, b);
}

/* ---- comparison ---- */

static bool contains(struct jinja_run *r, struct jinja_value of, struct jinja_value what)
{
    if (of.type == J_STR) {
        if (what.type != J_STR) {
            jfail(r, "\"in\" a string needs a string, not %s", jtype_name(what));
            return false;
        }
        jwork(r, jstr_of(of)->len / 16);
        return jtext_find(jstr_of(of), jstr_of(what), 0, jstr_of(of)->len) != (size_t)JNOWHERE;
    }
    if (of.type == J_DICT) return jdict_find(r, jdict_of(of), what) != NULL;
    struct jlist *l = jiterate(r, of);
    for (uint32_t i = 0; l && i < l->n && !r->code; i++) {
        jwork(r, 1);
        if (jequal(r, l->items[i], what)) return true;
    }
    return false;
}

bool jeval_compare(struct jinja_run *r, enum jop op, struct jinja_value a, struct jinja_value b)
{
    if (r->code) return false;
    switch (op) {
    case OP_EQ:
        return jequal(r, a, b);
    case OP_NE:
        return !jequal(r, a, b);
    case OP_IN:
        return contains(r, b, a);
    case OP_NOT_IN:
        return !contains(r, b, a);
    default:
        break;
    }
    if (a.type == J_UNDEFINED || b.type == J_UNDEFINED) {
        no_operands(r, op, a, b);
        return false;
    }
    bool unordered = (a.type == J_FLOAT && a.as.real != a.as.real) ||
                     (b.type == J_FLOAT && b.as.real != b.as.real);
    int order = jorder(r, a, b);
    if (r->code || unordered) return false;
    return op == OP_LT   ? order < 0
           : op == OP_LE ? order <= 0
           : op == OP_GT ? order > 0
                         : order >= 0;
}

/* ---- attributes, items, slices ---- */

static struct jinja_value undefined_attribute(struct jinja_run *r, const char *name, size_t len)
{
    char *copy = jalloc(r, len + 1);
    if (!copy) return jundefined(NULL);
    memcpy(copy, name, len);
    copy[len] = 0;
    return jundefined(copy);
}

static struct jinja_value loop_attribute(struct jinja_run *r, const struct jloop *l,
                                         const char *name, size_t len, bool *ret_found)
{
    const int64_t n = l->n, at = l->at;
    const struct {
        const char *name;
        struct jinja_value value;
    } known[] = {
        {"index", jint(at + 1)},
        {"index0", jint(at)},
        {"revindex", jint(n - at)},
        {"revindex0", jint(n - at - 1)},
        {"first", jinja_bool(at == 0)},
        {"last", jinja_bool(at + 1 == n)},
        {"length", jint(n)},
        {"depth", jint((int64_t)l->depth + 1)},
        {"depth0", jint(l->depth)},
        {"previtem", at > 0 ? l->items[at - 1] : jundefined("there is no previous item; it")},
        {"nextitem", at + 1 < n ? l->items[at + 1] : jundefined("there is no next item; it")},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!jname_is(name, len, known[i].name)) continue;
        *ret_found = true;
        return known[i].value;
    }
    return jmethod_bind(r, jobject(J_LOOP, l), name, len, ret_found);
}

/* What getattr() finds. */
static struct jinja_value attribute(struct jinja_run *r, struct jinja_value of, const char *name,
                                    size_t len, bool *ret_found)
{
    *ret_found = false;
    if (of.type == J_LOOP) return loop_attribute(r, of.as.object, name, len, ret_found);
    if (of.type == J_NAMESPACE) {
        struct jinja_value *found = jdict_find_text(jdict_of(of), name, len);
        *ret_found = found != NULL;
        return found ? *found : jundefined(NULL);
    }
    if (of.type == J_MACRO && jname_is(name, len, "name")) {
        const struct jname *n = ((struct jmacro *)of.as.object)->node->name;
        *ret_found = true;
        return jtext(r, n->text, n->len, JINJA_OWN);
    }
    if (len && name[0] == '_') return jundefined(NULL);
    return jmethod_bind(r, of, name, len, ret_found);
}

static bool index_of(const struct jlist *l, struct jinja_value key, uint32_t *ret_at)
{
    int64_t at = jinteger(key);
    if (at < 0) at += l->n;
    if (at < 0 || at >= l->n) return false;
    *ret_at = (uint32_t)at;
    return true;
}

static struct jinja_value character(struct jinja_run *r, const struct jstr *s, int64_t at,
                                    bool *ret_found)
{
    jwork(r, s->len / 16);
    if (at < 0) at += (int64_t)jtext_count(s);
    size_t from = at < 0 ? s->len : jtext_offset(s, (size_t)at);
    *ret_found = from < s->len;
    if (!*ret_found) return jundefined(NULL);
    return jtext_sub(r, s, from, from + jtext_char_len(s->data + from, s->len - from));
}

/* What [] finds, without falling back on attributes. */
static struct jinja_value item(struct jinja_run *r, struct jinja_value of, struct jinja_value key,
                               bool *ret_found)
{
    uint32_t at;
    *ret_found = false;
    if (of.type == J_DICT) {
        struct jinja_value *found = NULL;
        if (key.type == J_STR || jis_number(key) || key.type == J_NONE || key.type == J_TUPLE)
            found = jdict_find(r, jdict_of(of), key);
        *ret_found = found != NULL;
        return found ? *found : jundefined(NULL);
    }
    if (key.type != J_INT && key.type != J_BOOL) return jundefined(NULL);
    if (jis_sequence(of) && index_of(jlist_of(of), key, &at)) {
        *ret_found = true;
        return jlist_of(of)->items[at];
    }
    return of.type == J_STR ? character(r, jstr_of(of), jinteger(key), ret_found)
                            : jundefined(NULL);
}

/* A template that asks a text for its type or text takes it for a list of parts. */
static void note_parts(struct jinja_run *r, struct jinja_value of, const char *name, size_t len)
{
    if (of.type == J_STR && (jname_is(name, len, "type") || jname_is(name, len, "text")))
        r->parts_wanted = r->parts_wanted || jtext_is_foreign(jstr_of(of));
}

struct jinja_value jeval_attribute(struct jinja_run *r, struct jinja_value of, const char *name,
                                   size_t len)
{
    bool found;
    if (r->code) return jundefined(NULL);
    if (of.type == J_UNDEFINED) return jfail_undefined(r, of);
    note_parts(r, of, name, len);
    struct jinja_value v = attribute(r, of, name, len, &found);
    if (found || r->code) return v;
    if (of.type == J_DICT) {
        struct jinja_value *value = jdict_find_text(jdict_of(of), name, len);
        if (value) return *value;
    }
    return undefined_attribute(r, name, len);
}

struct jinja_value jeval_item(struct jinja_run *r, struct jinja_value of, struct jinja_value key)
{
    bool found;
    if (r->code) return jundefined(NULL);
    if (of.type == J_UNDEFINED) return jfail_undefined(r, of);
    struct jinja_value v = item(r, of, key, &found);
    if (found || r->code) return v;
    if (key.type != J_STR) return jundefined("an item that is not there");
    const struct jstr *s = jstr_of(key);
    note_parts(r, of, s->data, s->len);
    v = attribute(r, of, s->data, s->len, &found);
    return found || r->code ? v : undefined_attribute(r, s->data, s->len);
}

static bool bound(struct jinja_run *r, const struct jnode *n, bool *ret_given, int64_t *ret_value)
{
    struct jinja_value v = n ? jeval(r, n) : jinja_none();
    if (r->code) return false;
    *ret_given = v.type != J_NONE;
    if (v.type == J_INT || v.type == J_BOOL)
        *ret_value = jinteger(v);
    else if (v.type != J_NONE)
        jfail(r, "a slice has a bound of type %s", jtype_name(v));
    return !r->code;
}

static int64_t clamp(int64_t at, int64_t n, int64_t low, int64_t high)
{
    if (at < 0) at = at < -n ? low : at + n;
    return at < low ? low : at > high ? high : at;
}

static struct jinja_value slice_list(struct jinja_run *r, struct jinja_value of, int64_t start,
                                     int64_t count, int64_t step)
{
    enum jinja_type type = (enum jinja_type)of.type;
    if (count == 0) return jlist_new(r, type, 0);
    if (step == 1) return jlist_of_items(r, type, jlist_of(of)->items + start, (uint32_t)count);
    jwork(r, (size_t)count);
    struct jinja_value v = jlist_new(r, type, (uint32_t)count);
    for (int64_t i = 0; i < count && !r->code; i++)
        jlist_of(v)->items[i] = jlist_of(of)->items[start + i * step];
    return v;
}

/* What the numbers of a part of a range are, for its repr. */
static struct jinja_value name_range(struct jinja_run *r, const struct jlist *of,
                                     struct jinja_value v, int64_t start, int64_t stop,
                                     int64_t step)
{
    if (r->code || v.type != J_RANGE) return v;
    jlist_of(v)->start = of->start + start * of->step;
    jlist_of(v)->stop = of->start + stop * of->step;
    jlist_of(v)->step = of->step * step;
    return v;
}

static struct jinja_value slice_text(struct jinja_run *r, const struct jstr *s, int64_t start,
                                     int64_t count, int64_t step)
{
    struct jout o;
    jwork(r, s->len / 8);
    if (step == 1) {
        struct jstr rest = *s;
        size_t from = jtext_offset(s, (size_t)start);
        rest.data += from;
        rest.len -= from;
        return jtext_sub(r, s, from, from + jtext_offset(&rest, (size_t)count));
    }
    struct jlist *all = jiterate(r, jobject(J_STR, s));
    if (!all) return jundefined(NULL);
    jout_init(&o);
    for (int64_t i = 0; i < count && !r->code; i++)
        jout_str(r, &o, jstr_of(all->items[start + i * step]));
    struct jinja_value v = jout_take(r, &o);
    if (!r->code) jstr_of(v)->markup = s->markup;
    return v;
}

static struct jinja_value eval_slice(struct jinja_run *r, const struct jnode *n)
{
    struct jinja_value of = jeval(r, n->a);
    int64_t start = 0, stop = 0, step = 1;
    bool has_start, has_stop, has_step;
    if (r->code) return of;
    if (of.type == J_UNDEFINED) return jfail_undefined(r, of);
    if (!bound(r, n->b, &has_start, &start) || !bound(r, n->c, &has_stop, &stop) ||
        !bound(r, n->d, &has_step, &step))
        return jundefined(NULL);
    if (!has_step) step = 1;
    if (of.type != J_STR && !jis_sequence(of)) /* Jinja has undefined, but for constants only */
        return jfail(r, "a value of type %s has no slices", jtype_name(of));
    if (step == 0) return jfail(r, "a slice has a step of 0");
    if (step == INT64_MIN) step++;
    int64_t len = of.type == J_STR ? (int64_t)jtext_count(jstr_of(of)) : jlist_of(of)->n;
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? len - 1 : len;
    start = has_start ? clamp(start, len, low, high) : step < 0 ? high : low;
    stop = has_stop ? clamp(stop, len, low, high) : step < 0 ? low : high;
    int64_t count = step > 0 ? (stop > start ? (stop - start - 1) / step + 1 : 0)
                             : (start > stop ? (start - stop - 1) / -step + 1 : 0);
    if (of.type == J_STR) return slice_text(r, jstr_of(of), start, count, step);
    if (step > JINJA_RANGE_MAX || step < -JINJA_RANGE_MAX)
        step = step < 0 ? -JINJA_RANGE_MAX : JINJA_RANGE_MAX;
    return name_range(r, jlist_of(of), slice_list(r, of, start, count, step), start, stop, step);
}

/* ---- calls ---- */

static void spread_list(struct jinja_run *r, const struct jnode *n, struct jargs *args)
{
    if (!n) return;
    struct jlist *l = jiterate(r, jeval(r, n));
    if (!l) return;
    struct jinja_value *v = jalloc(r, (args->n + (size_t)l->n + 1) * sizeof *v);
    if (!v) return;
    if (args->n) memcpy(v, args->v, args->n * sizeof *v);
    if (l->n) memcpy(v + args->n, l->items, l->n * sizeof *v);
    args->v = v;
    args->n += l->n;
}

static void spread_dict(struct jinja_run *r, const struct jnode *n, struct jargs *args)
{
    if (!n) return;
    struct jinja_value from = jeval(r, n);
    if (r->code) return;
    if (from.type != J_DICT) {
        jfail(r, "** needs a dict, not %s", jtype_name(from));
        return;
    }
    const struct jdict *d = jdict_of(from);
    struct jarg *named = jalloc(r, (args->n_named + (size_t)d->n + 1) * sizeof *named);
    if (!named) return;
    if (args->n_named) memcpy(named, args->named, args->n_named * sizeof *named);
    for (uint32_t i = 0; i < d->n && !r->code; i++) {
        const struct jstr *key = jto_str(r, d->pairs[i].key);
        named[args->n_named++] = (struct jarg){key->data, key->len, d->pairs[i].value};
    }
    args->named = named;
}

void jeval_arguments(struct jinja_run *r, const struct jnode *n, struct jargs *args)
{
    *args = (struct jargs){.n = n->list.n, .n_named = n->list2.n, .of = "it"};
    if (args->n) args->v = jalloc(r, args->n * sizeof *args->v);
    if (args->n_named) args->named = jalloc(r, args->n_named * sizeof *args->named);
    for (uint32_t i = 0; i < args->n && !r->code; i++)
        args->v[i] = jeval(r, n->list.v[i]);
    for (uint32_t i = 0; i < args->n_named && !r->code; i++)
        args->named[i] = (struct jarg){n->keys[i]->text, n->keys[i]->len, jeval(r, n->list2.v[i])};
    if (!r->code) spread_list(r, n->star, args);
    if (!r->code) spread_dict(r, n->star2, args);
}

struct jinja_value jeval_call(struct jinja_run *r, struct jinja_value f, struct jargs *args)
{
    struct jcycler *c = f.as.object;
    struct jinja_value v = jundefined(NULL);
    if (r->code) return v;
    if (!jdeeper(r)) return v;
    switch (f.type) {
    case J_MACRO:
        v = jrun_macro(r, f.as.object, args);
        break;
    case J_METHOD:
        v = jmethod_call(r, f.as.object, args);
        break;
    case J_FUNCTION:
        v = jglobal_call(r, (int)f.as.integer, args);
        break;
    case J_JOINER: /* at: whether it was called */
        v = c->at++ ? c->items->items[0] : jtext_c(r, "");
        break;
    case J_LOOP: {
        struct jloop *l = f.as.object;
        if (!l->node->flag)
            jfail(r, "loop() needs a loop that is recursive");
        else if (jargs_check(r, args, 1, 1))
            v = jrun_loop(r, l->node, args->v[0], l->depth + 1, l->scope);
        break;
    }
    case J_UNDEFINED:
        jfail_undefined(r, f);
        break;
    default:
        jfail(r, "a value of type %s is no function", jtype_name(f));
    }
    r->depth--;
    return v;
}

static struct jinja_value eval_call(struct jinja_run *r, const struct jnode *n)
{
    struct jargs args;
    struct jinja_value f = jeval(r, n->a);
    if (r->code) return f;
    jeval_arguments(r, n, &args);
    r->line = n->line;
    return jeval_call(r, f, &args);
}

static struct jinja_value eval_filter(struct jinja_run *r, const struct jnode *n)
{
    struct jargs args;
    struct jinja_value v = jeval(r, n->a);
    if (r->code) return v;
    jeval_arguments(r, n, &args);
    r->line = n->line;
    return r->code ? v : jfilter_call(r, n->name->text, n->name->len, v, &args);
}

static struct jinja_value eval_test(struct jinja_run *r, const struct jnode *n)
{
    struct jargs args;
    struct jinja_value v = jeval(r, n->a);
    if (r->code) return v;
    jeval_arguments(r, n, &args);
    r->line = n->line;
    if (r->code) return v;
    return jinja_bool(jtest_call(r, n->name->text, n->name->len, v, &args) != n->flag);
}

/* ---- the rest ---- */

static struct jinja_value eval_name(struct jinja_run *r, const struct jnode *n)
{
    struct jinja_value *found = jrun_find(r, n->name);
    if (found) return *found;
    struct jinja_value v = jglobal_find(r, n->name->text, n->name->len);
    if (v.type == J_FUNCTION) return v;
    return undefined_attribute(r, n->name->text, n->name->len);
}

static struct jinja_value eval_items(struct jinja_run *r, const struct jnode *n)
{
    struct jinja_value v = jlist_new(r, n->kind == N_LIST ? J_LIST : J_TUPLE, n->list.n);
    for (uint32_t i = 0; i < n->list.n && !r->code; i++)
        jlist_of(v)->items[i] = jeval(r, n->list.v[i]);
    return v;
}

static struct jinja_value eval_dict(struct jinja_run *r, const struct jnode *n)
{
    struct jinja_value v = jinja_dict(r);
    for (uint32_t i = 0; i + 1 < n->list.n && !r->code; i += 2) {
        struct jinja_value key = jeval(r, n->list.v[i]), value = jeval(r, n->list.v[i + 1]);
        if (!r->code) jdict_set(r, jdict_of(v), key, value);
    }
    return v;
}

static struct jinja_value eval_logic(struct jinja_run *r, const struct jnode *n)
{
    struct jinja_value v = jundefined(NULL);
    for (uint32_t i = 0; i < n->list.n && !r->code; i++) {
        v = jeval(r, n->list.v[i]);
        if (jtruth(v) == (n->kind == N_OR)) break;
    }
    return v;
}

static struct jinja_value eval_comparison(struct jinja_run *r, const struct jnode *n)
{
    struct jinja_value left = jeval(r, n->list.v[0]);
    for (uint32_t i = 1; i < n->list.n && !r->code; i++) {
        const struct jnode *operand = n->list.v[i];
        struct jinja_value right = jeval(r, operand->a);
        if (!jeval_compare(r, (enum jop)operand->op, left, right)) return jinja_bool(false);
        left = right;
    }
    return jinja_bool(true);
}

static struct jinja_value eval_binary(struct jinja_run *r, const struct jnode *n)
{
    if (n->list.n == 0) {
        struct jinja_value a = jeval(r, n->a), b = jeval(r, n->b);
        return jeval_binary(r, (enum jop)n->op, a, b);
    }
    struct jinja_value sum = jeval(r, n->list.v[0]);
    for (uint32_t i = 1; i < n->list.n && !r->code; i++) {
        struct jinja_value part = jeval(r, n->list.v[i]->a);
        sum = jeval_binary(r, (enum jop)n->list.v[i]->op, sum, part);
    }
    return sum;
}

/* Joins the texts as they are: only "+" escapes what joins markup. */
static struct jinja_value eval_concat(struct jinja_run *r, const struct jnode *n)
{
    struct jinja_value all = jtext_c(r, "");
    for (uint32_t i = 0; i < n->list.n && !r->code; i++) {
        struct jinja_value part = jobject(J_STR, jto_str(r, jeval(r, n->list.v[i])));
        if (jstr_of(part)->markup) {
            part = jtext_sub(r, jstr_of(part), 0, jstr_of(part)->len);
            if (!r->code) jstr_of(part)->markup = false;
        }
        if (!r->code) all = jtext_concat(r, jstr_of(all), jstr_of(part));
    }
    return all;
}

static struct jinja_value eval_sign(struct jinja_run *r, const struct jnode *n)
{
    struct jinja_value v = jeval(r, n->a);
    if (r->code) return v;
    if (v.type == J_UNDEFINED) return jfail_undefined(r, v);
    if (!jis_number(v)) return jfail(r, "a sign in front of a value of type %s", jtype_name(v));
    bool foreign = v.foreign;
    if (v.type == J_FLOAT)
        v = jfloat(n->kind == N_NEGATE ? -v.as.real : v.as.real);
    else
        v = n->kind == N_NEGATE ? integers(r, OP_SUB, 0, jinteger(v)) : jint(jinteger(v));
    v.foreign = foreign;
    return v;
}

static struct jinja_value eval_node(struct jinja_run *r, const struct jnode *n)
{
    switch ((enum jnode_kind)n->kind) {
    case N_CONST:
        return n->value;
    case N_NAME:
        return eval_name(r, n);
    case N_TUPLE:
    case N_LIST:
        return eval_items(r, n);
    case N_DICT:
        return eval_dict(r, n);
    case N_COND:
        if (jtruth(jeval(r, n->a))) return jeval(r, n->b);
        return n->c ? jeval(r, n->c) : jundefined("the value of an if without else");
    case N_AND:
    case N_OR:
        return eval_logic(r, n);
    case N_NOT:
        return jinja_bool(!jtruth(jeval(r, n->a)));
    case N_COMPARE:
        return eval_comparison(r, n);
    case N_BINARY:
        return eval_binary(r, n);
    case N_CONCAT:
        return eval_concat(r, n);
    case N_NEGATE:
    case N_PLUS:
        return eval_sign(r, n);
    case N_ATTRIBUTE:
        return jeval_attribute(r, jeval(r, n->a), n->name->text, n->name->len);
    case N_ITEM: {
        struct jinja_value of = jeval(r, n->a), key = jeval(r, n->b);
        return jeval_item(r, of, key);
    }
    case N_SLICE:
        return eval_slice(r, n);
    case N_CALL:
        return eval_call(r, n);
    case N_FILTER:
        return eval_filter(r, n);
    case N_TEST:
        return eval_test(r, n);
    case N_CAPTURED:
        return r->captured;
    default:
        return jundefined(NULL);
    }
}

struct jinja_value jeval(struct jinja_run *r, const struct jnode *n)
{
    jwork(r, 1);
    if (!jdeeper(r)) return jundefined(NULL);
    r->line = n->line;
    struct jinja_value v = eval_node(r, n);
    r->depth--;
    return r->code ? jundefined(NULL) : v;
}
