/* jinja_global: the functions that every template has; see jinja_impl.h. */
#include <stdio.h>
#include <time.h>

#include "model/jinja/jinja_impl.h"

static struct jinja_value make_range(struct jinja_run *r, struct jargs *args)
{
    int64_t start, stop, step, n;
    if (args->n_named) return jfail(r, "range takes no arguments by name");
    if (!jargs_check(r, args, 1, 3)) return jundefined(NULL);
    for (uint32_t i = 0; i < args->n; i++)
        if (args->v[i].type != J_INT && args->v[i].type != J_BOOL)
            return jfail(r, "range: a whole number is needed, not %s", jtype_name(args->v[i]));
    if (!jarg_int(r, args, 0, "", 0, &start) || !jarg_int(r, args, 1, "", 0, &stop) ||
        !jarg_int(r, args, 2, "", 1, &step))
        return jundefined(NULL);
    if (args->n == 1) {
        stop = start;
        start = 0;
    }
    if (step == 0) return jfail(r, "range: the step is 0");
    __int128 span = step > 0 ? (__int128)stop - start : (__int128)start - stop;
    __int128 size = step > 0 ? (__int128)step : -(__int128)step;
    span = span > 0 ? (span - 1) / size + 1 : 0;
    if (span > JINJA_RANGE_MAX)
        return jfail_code(r, ERR_LIMIT, "range: more than %d numbers", JINJA_RANGE_MAX);
    n = (int64_t)span;
    jwork(r, (size_t)n);
    struct jinja_value v = jlist_new(r, J_RANGE, (uint32_t)n);
    if (r->code) return v;
    jlist_of(v)->start = start;
    jlist_of(v)->stop = stop;
    jlist_of(v)->step = step;
    for (int64_t i = 0; i < n; i++)
        jlist_of(v)->items[i] = jint(start + i * step);
    return v;
}

/* dict() and namespace(): pairs of one dict, then keyword arguments. */
static struct jinja_value make_dict(struct jinja_run *r, struct jargs *args, bool is_namespace)
{
    struct jinja_value v = jinja_dict(r);
    if (r->code || args->n > 1) return jfail(r, "%s takes one argument by place", args->of);
    if (args->n && args->v[0].type == J_UNDEFINED)
        return jfail(r, "%s: the argument is undefined", args->of);
    if (args->n && args->v[0].type == J_DICT) {
        jinja_dict_merge(r, v, args->v[0]);
    } else if (args->n) {
        struct jlist *l = jiterate(r, args->v[0]);
        for (uint32_t i = 0; l && i < l->n && !r->code; i++) {
            struct jlist *pair = jiterate(r, l->items[i]);
            if (pair && pair->n != 2) jfail(r, "dict: pairs are needed");
            if (pair && !r->code) jdict_set(r, jdict_of(v), pair->items[0], pair->items[1]);
        }
    }
    jargs_named(r, args, v);
    if (is_namespace) v.type = r->code ? J_UNDEFINED : J_NAMESPACE;
    return v;
}

static struct jinja_value raise(struct jinja_run *r, struct jargs *args)
{
    if (!jargs_check(r, args, 1, 1)) return jundefined(NULL);
    const struct jstr *s = jto_str(r, args->n ? args->v[0] : args->named[0].value);
    if (!r->code) r->raised = true;
    return jfail(r, "%.*s", (int)(s->len < 400 ? s->len : 400), s->data);
}

static struct jinja_value make_cycler(struct jinja_run *r, struct jargs *args, bool joiner)
{
    struct jcycler *c = jalloc(r, sizeof *c);
    struct jinja_value items;
    if (joiner) {
        struct jinja_value *between = jarg(args, 0, "sep");
        items = jlist_new(r, J_LIST, 1);
        if (!r->code) jlist_of(items)->items[0] = between ? *between : jtext_c(r, ", ");
    } else {
        if (args->n == 0) return jfail(r, "cycler needs values");
        items = jlist_of_items(r, J_LIST, args->v, args->n);
    }
    if (!c || r->code) return jundefined(NULL);
    *c = (struct jcycler){jlist_of(items), 0};
    return jobject(joiner ? J_JOINER : J_CYCLER, c);
}

/* ---- dates, with English names whatever the locale ---- */

static const char *const days[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                   "Thursday", "Friday", "Saturday"};
static const char *const months[] = {"January",   "February", "March",    "April",
                                     "May",       "June",     "July",     "August",
                                     "September", "October",  "November", "December"};

static int hour_of_12(const struct tm *t)
{
    return t->tm_hour % 12 ? t->tm_hour % 12 : 12;
}

static void format_composed(const struct tm *t, char c, char out[64])
{
    if (c == 'c')
        snprintf(out, 64, "%.3s %.3s %2d %02d:%02d:%02d %d", days[t->tm_wday], months[t->tm_mon],
                 t->tm_mday, t->tm_hour, t->tm_min, t->tm_sec, t->tm_year + 1900);
    else if (c == 'F')
        snprintf(out, 64, "%d-%02d-%02d", t->tm_year + 1900, t->tm_mon + 1, t->tm_mday);
    else if (c == 'T' || c == 'X')
        snprintf(out, 64, "%02d:%02d:%02d", t->tm_hour, t->tm_min, t->tm_sec);
    else if (c == 'R')
        snprintf(out, 64, "%02d:%02d", t->tm_hour, t->tm_min);
    else if (c == 'D' || c == 'x')
        snprintf(out, 64, "%02d/%02d/%02d", t->tm_mon + 1, t->tm_mday, t->tm_year % 100);
}

/* One directive; false: none that we know. `plain`: without zeros in front ("%-d"). */
static bool format_directive(const struct tm *t, char c, bool plain, char out[64])
{
    const struct {
        char c;
        int value, width;
    } numbers[] = {{'d', t->tm_mday, 2},
                   {'m', t->tm_mon + 1, 2},
                   {'y', t->tm_year % 100, 2},
                   {'Y', t->tm_year + 1900, 1},
                   {'H', t->tm_hour, 2},
                   {'I', hour_of_12(t), 2},
                   {'M', t->tm_min, 2},
                   {'S', t->tm_sec, 2},
                   {'j', t->tm_yday + 1, 3},
                   {'w', t->tm_wday, 1},
                   {'u', t->tm_wday ? t->tm_wday : 7, 1},
                   {'U', (t->tm_yday + 7 - t->tm_wday) / 7, 2},
                   {'W', (t->tm_yday + 7 - (t->tm_wday + 6) % 7) / 7, 2}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].c == c) {
            snprintf(out, 64, "%0*d", plain ? 1 : numbers[i].width, numbers[i].value);
            return true;
        }
    out[0] = 0;
    switch (c) {
    case 'e':
        snprintf(out, 64, plain ? "%d" : "%2d", t->tm_mday);
        return true;
    case 'A':
    case 'a':
        snprintf(out, 64, c == 'A' ? "%s" : "%.3s", days[t->tm_wday]);
        return true;
    case 'B':
    case 'b':
    case 'h':
        snprintf(out, 64, c == 'B' ? "%s" : "%.3s", months[t->tm_mon]);
        return true;
    case 'p':
        snprintf(out, 64, "%s", t->tm_hour < 12 ? "AM" : "PM");
        return true;
    case 'Z': /* the time has no zone */
    case 'z':
        return true;
    case '%':
        snprintf(out, 64, "%%");
        return true;
    default:
        format_composed(t, c, out);
        return out[0] != 0;
    }
}

static struct jinja_value format_time(struct jinja_run *r, struct jargs *args)
{
    const struct jstr *s = jargs_check(r, args, 1, 1) ? jarg_str(r, args, 0, "format") : NULL;
    time_t now = (time_t)r->now;
    struct tm t;
    struct jout o;
    char text[64];
    if (!s) return jundefined(NULL);
    if (!gmtime_r(&now, &t)) return jfail(r, "strftime_now: the time is out of range");
    jout_init(&o);
    for (size_t i = 0; i < s->len && !r->code; i++) {
        if (s->data[i] != '%') {
            jout_sub(r, &o, s, i, i + 1);
            continue;
        }
        bool plain = i + 1 < s->len && s->data[i + 1] == '-';
        i += 1 + (size_t)plain;
        if (i >= s->len || !format_directive(&t, s->data[i], plain, text))
            jfail(r, "strftime_now: a directive that is not supported in %.40s", s->data);
        else
            jout_puts(r, &o, text, JINJA_OWN);
    }
    return jout_take(r, &o);
}

static const char *const names[] = {"range",  "dict",   "namespace",   "raise_exception",
                                    "cycler", "joiner", "strftime_now"};
enum { FUNCTIONS = sizeof names / sizeof *names, STRFTIME = FUNCTIONS - 1 };

struct jinja_value jglobal_find(struct jinja_run *r, const char *name, size_t len)
{
    for (int i = 0; i < FUNCTIONS; i++) {
        if (!jname_is(name, len, names[i])) continue;
        if (i == STRFTIME && !r->has_now) break;
        return (struct jinja_value){.type = J_FUNCTION, .as.integer = i};
    }
    return jundefined(NULL);
}

struct jinja_value jglobal_call(struct jinja_run *r, int index, struct jargs *args)
{
    args->of = names[index];
    switch (index) {
    case 0:
        return make_range(r, args);
    case 1:
    case 2:
        return make_dict(r, args, index == 2);
    case 3:
        return raise(r, args);
    case 4:
    case 5:
        return make_cycler(r, args, index == 5);
    default:
        return format_time(r, args);
    }
}
