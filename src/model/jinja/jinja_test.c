/* jinja_test: what follows "is"; see jinja_impl.h. */
#include <math.h>

#include "model/jinja/jinja_impl.h"

static bool is_integer(struct jinja_value v)
{
    return v.type == J_INT;
}

static bool is_iterable(struct jinja_value v)
{
    return v.type == J_STR || v.type == J_DICT || v.type == J_UNDEFINED || v.type == J_VIEW ||
           v.type == J_ITER || v.type == J_LOOP || jis_sequence(v);
}

static bool is_sequence(struct jinja_value v)
{
    return v.type == J_STR || v.type == J_DICT || v.type == J_UNDEFINED || jis_sequence(v);
}

static bool is_callable(struct jinja_value v)
{
    return v.type == J_MACRO || v.type == J_METHOD || v.type == J_FUNCTION || v.type == J_JOINER ||
           v.type == J_LOOP || v.type == J_UNDEFINED;
}

static bool is_same(struct jinja_value a, struct jinja_value b)
{
    if (a.type != b.type) return false;
    if (a.type == J_NONE) return true;
    if (a.type == J_BOOL) return a.as.truth == b.as.truth;
    if (a.type == J_INT) return a.as.integer == b.as.integer;
    return a.type != J_FLOAT && a.type != J_UNDEFINED && a.as.object == b.as.object;
}

enum which {
    IS_DEFINED,
    IS_UNDEFINED,
    IS_NONE,
    IS_TRUE,
    IS_FALSE,
    IS_BOOLEAN,
    IS_INTEGER,
    IS_FLOAT,
    IS_NUMBER,
    IS_STRING,
    IS_MAPPING,
    IS_SEQUENCE,
    IS_ITERABLE,
    IS_CALLABLE,
    IS_LOWER,
    IS_UPPER,
    IS_ODD,
    IS_EVEN,
    IS_ESCAPED,
    IS_DIVISIBLE,
    IS_SAME,
    IS_IN,
    IS_FILTER,
    IS_TEST,
    IS_EQ,
    IS_NE,
    IS_LT,
    IS_LE,
    IS_GT,
    IS_GE
};

static const struct {
    const char *name;
    uint8_t which, arguments;
} tests[] = {
    {"defined", IS_DEFINED, 0},
    {"undefined", IS_UNDEFINED, 0},
    {"none", IS_NONE, 0},
    {"true", IS_TRUE, 0},
    {"false", IS_FALSE, 0},
    {"boolean", IS_BOOLEAN, 0},
    {"integer", IS_INTEGER, 0},
    {"float", IS_FLOAT, 0},
    {"number", IS_NUMBER, 0},
    {"string", IS_STRING, 0},
    {"mapping", IS_MAPPING, 0},
    {"sequence", IS_SEQUENCE, 0},
    {"iterable", IS_ITERABLE, 0},
    {"callable", IS_CALLABLE, 0},
    {"lower", IS_LOWER, 0},
    {"upper", IS_UPPER, 0},
    {"odd", IS_ODD, 0},
    {"even", IS_EVEN, 0},
    {"escaped", IS_ESCAPED, 0},
    {"divisibleby", IS_DIVISIBLE, 1},
    {"sameas", IS_SAME, 1},
    {"in", IS_IN, 1},
    {"filter", IS_FILTER, 0},
    {"test", IS_TEST, 0},
    {"==", IS_EQ, 1},
    {"eq", IS_EQ, 1},
    {"equalto", IS_EQ, 1},
    {"!=", IS_NE, 1},
    {"ne", IS_NE, 1},
    {"<", IS_LT, 1},
    {"lt", IS_LT, 1},
    {"lessthan", IS_LT, 1},
    {"<=", IS_LE, 1},
    {"le", IS_LE, 1},
    {">", IS_GT, 1},
    {"gt", IS_GT, 1},
    {"greaterthan", IS_GT, 1},
    {">=", IS_GE, 1},
    {"ge", IS_GE, 1},
};

static int find_test(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (jname_is(name, len, tests[i].name)) return (int)i;
    return -1;
}

static bool test_rest(struct jinja_run *r, enum which which, struct jinja_value v,
                      struct jinja_value by)
{
    if (which == IS_DIVISIBLE || which == IS_ODD || which == IS_EVEN) {
        if (which != IS_DIVISIBLE) by = jint(2);
        struct jinja_value rest = jeval_binary(r, OP_MOD, v, by);
        if (r->code || !jis_number(rest)) return false;
        return jequal(r, rest, jint(which == IS_ODD)); /* 2.5 is neither */
    }
    switch (which) {
    case IS_LOWER:
    case IS_UPPER:
        return jstring_is(jto_str(r, v), which == IS_LOWER ? 'l' : 'u');
    case IS_SAME:
        return is_same(v, by);
    case IS_IN:
        return jeval_compare(r, OP_IN, v, by);
    case IS_EQ:
        return jeval_compare(r, OP_EQ, v, by);
    case IS_NE:
        return jeval_compare(r, OP_NE, v, by);
    case IS_LT:
        return jeval_compare(r, OP_LT, v, by);
    case IS_LE:
        return jeval_compare(r, OP_LE, v, by);
    case IS_GT:
        return jeval_compare(r, OP_GT, v, by);
    default:
        return jeval_compare(r, OP_GE, v, by);
    }
}

static bool test_kind(struct jinja_run *r, enum which which, struct jinja_value v,
                      struct jinja_value by)
{
    switch (which) {
    case IS_DEFINED:
        return v.type != J_UNDEFINED;
    case IS_UNDEFINED:
        return v.type == J_UNDEFINED;
    case IS_NONE:
        return v.type == J_NONE;
    case IS_TRUE:
        return v.type == J_BOOL && v.as.truth;
    case IS_FALSE:
        return v.type == J_BOOL && !v.as.truth;
    case IS_BOOLEAN:
        return v.type == J_BOOL;
    case IS_INTEGER:
        return is_integer(v);
    case IS_FLOAT:
        return v.type == J_FLOAT;
    case IS_NUMBER:
        return jis_number(v);
    case IS_STRING:
        return v.type == J_STR;
    case IS_MAPPING:
        return v.type == J_DICT;
    case IS_SEQUENCE:
        return is_sequence(v);
    case IS_ITERABLE:
        return is_iterable(v);
    case IS_CALLABLE:
        return is_callable(v);
    case IS_ESCAPED:
        return v.type == J_STR && jstr_of(v)->markup;
    default:
        return test_rest(r, which, v, by);
    }
}

bool jtest_call(struct jinja_run *r, const char *name, size_t len, struct jinja_value v,
                struct jargs *args)
{
    int at = find_test(name, len);
    if (at < 0) {
        jfail(r, "there is no test %.*s", (int)(len < 80 ? len : 80), name);
        return false;
    }
    args->of = tests[at].name;
    if (tests[at].which == IS_FILTER || tests[at].which == IS_TEST) {
        jfail(r, "the test %s is not supported", tests[at].name);
        return false;
    }
    if (!jargs_check(r, args, tests[at].arguments, tests[at].arguments)) return false;
    struct jinja_value by = args->n         ? args->v[0]
                            : args->n_named ? args->named[0].value
                                            : jinja_none();
    return test_kind(r, (enum which)tests[at].which, v, by);
}
