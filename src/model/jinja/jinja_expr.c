/* jinja_expr: expressions; see jinja_impl.h. One function for each level of precedence. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hex.h"
#include "base/utf8.h"
#include "model/jinja/jinja_impl.h"

static struct jnode *parse_unary(struct jparser *p, bool with_filter);
static struct jnode *parse_primary(struct jparser *p);
static struct jnode *parse_postfix(struct jparser *p, struct jnode *n);

static void set_child(struct jparser *p, struct jnode *n, struct jnode **place, struct jnode *child)
{
    *place = child;
    jparse_deepen(p, n, child);
}

static void add_child(struct jparser *p, struct jnode *n, struct jnode *child)
{
    jparse_push(p, &n->list, child);
    jparse_deepen(p, n, child);
}

static struct jnode *constant(struct jparser *p, struct jinja_value v)
{
    struct jnode *n = jparse_node(p, N_CONST);
    n->value = v;
    return n;
}

/* ---- literals ---- */

static int hex_digits(const char *text, size_t n, uint32_t *ret_code)
{
    uint32_t code = 0;
    for (size_t i = 0; i < n; i++) {
        int digit = hex_digit(text[i]);
        if (digit < 0) return -1;
        code = code << 4 | (uint32_t)digit;
    }
    *ret_code = code;
    return 0;
}

/* A numeric escape of `digits` hexadecimal digits at s[0]. */
static size_t put_hex(struct jparser *p, const char *s, size_t n, size_t digits, char **to)
{
    uint32_t code = 0;
    if (n < digits || hex_digits(s, digits, &code) || code > 0x10FFFF ||
        (code >= 0xD800 && code < 0xE000)) {
        jparse_fail(p, "a string has an escape that is no character");
        return n;
    }
    *to += utf8_put(code, *to);
    return digits;
}

/* What follows a backslash; the number of its bytes. */
static size_t put_escape(struct jparser *p, const char *s, size_t n, char **to)
{
    static const char from[] = "abfnrtv\\'\"", codes[] = "\a\b\f\n\r\t\v\\'\"";
    const char *at = s[0] ? strchr(from, s[0]) : NULL;
    if (at) {
        *(*to)++ = codes[at - from];
        return 1;
    }
    if (s[0] == '\n') return 1;
    if (s[0] == 'x') return 1 + put_hex(p, s + 1, n - 1, 2, to);
    if (s[0] == 'u') return 1 + put_hex(p, s + 1, n - 1, 4, to);
    if (s[0] == 'U') return 1 + put_hex(p, s + 1, n - 1, 8, to);
    if (s[0] == 'N') jparse_fail(p, "\\N{...} in a string is not supported");
    if (s[0] >= '0' && s[0] <= '7') {
        uint32_t code = 0;
        size_t i = 0;
        while (i < 3 && i < n && s[i] >= '0' && s[i] <= '7')
            code = code * 8 + (uint32_t)(s[i++] - '0');
        *to += utf8_put(code, *to);
        return i;
    }
    *(*to)++ = '\\';
    return 0;
}

static void put_string(struct jparser *p, char **to)
{
    const char *s = p->now.text;
    size_t n = p->now.len;
    for (size_t i = 0; i < n && !p->code;) {
        if (s[i] == '\\' && i + 1 < n)
            i += 1 + put_escape(p, s + i + 1, n - i - 1, to);
        else
            *(*to)++ = s[i++];
    }
}

/* Strings side by side are one. */
static struct jnode *parse_string(struct jparser *p)
{
    size_t room = 0;
    struct jparser ahead = *p;
    struct err ignored;
    ahead.e = ahead.lexer.e = &ignored;
    for (; ahead.now.kind == T_STRING && !ahead.code; jparse_advance(&ahead))
        room += 2 * ahead.now.len; /* two octal digits may become two bytes */
    struct jstr *s = arena_alloc(&p->t->arena, sizeof *s, 16);
    char *data = arena_alloc(&p->t->arena, room + 8, 1), *to = data;
    if (!s || !data) {
        if (!p->code) p->code = err_set(p->e, ERR_NO_MEMORY, "no memory for a chat template");
        return jparse_node(p, N_CONST);
    }
    for (; p->now.kind == T_STRING && !p->code; jparse_advance(p))
        put_string(p, &to);
    *s = (struct jstr){.data = data, .len = (size_t)(to - data), .mark = JINJA_OWN};
    jparse_intern(p, s->data, s->len); /* for jinja_mentions */
    return constant(p, jobject(J_STR, s));
}

static size_t without_underscores(const struct jtoken *t, char out[64])
{
    size_t n = 0;
    for (size_t i = 0; i < t->len; i++) {
        if (t->text[i] == '_') continue;
        if (n == 63) return 64;
        out[n++] = t->text[i];
    }
    out[n] = 0;
    return n;
}

static struct jnode *parse_number(struct jparser *p)
{
    char text[64], *end;
    struct jinja_value v = {0};
    int base = 10, skip = 0;
    if (without_underscores(&p->now, text) > 63) jparse_fail(p, "a number is too long");
    errno = 0;
    if (p->now.kind == T_FLOAT) {
        v = jfloat(p->code ? 0.0 : strtod(text, NULL));
    } else if (!p->code) {
        char letter = text[0] == '0' ? (char)(text[1] | 0x20) : 0;
        base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
        skip = base == 10 ? 0 : 2;
        long long i = strtoll(text + skip, &end, base);
        if (errno || *end || end == text + skip)
            jparse_fail(p, "%.40s is no number that fits 64 bits", text);
        v = jint(i);
    }
    struct jnode *n = constant(p, v);
    jparse_advance(p);
    return n;
}

static struct jnode *parse_list(struct jparser *p)
{
    struct jnode *n = jparse_node(p, N_LIST);
    jparse_advance(p);
    while (!p->code && !jparse_is_op(p, "]")) {
        if (n->list.n) jparse_expect_op(p, ",");
        if (jparse_is_op(p, "]")) break;
        add_child(p, n, jexpr_parse(p));
    }
    jparse_expect_op(p, "]");
    return n;
}

static struct jnode *parse_dict(struct jparser *p)
{
    struct jnode *n = jparse_node(p, N_DICT);
    jparse_advance(p);
    while (!p->code && !jparse_is_op(p, "}")) {
        if (n->list.n) jparse_expect_op(p, ",");
        if (jparse_is_op(p, "}")) break;
        add_child(p, n, jexpr_parse(p));
        jparse_expect_op(p, ":");
        add_child(p, n, jexpr_parse(p));
    }
    jparse_expect_op(p, "}");
    return n;
}

static struct jnode *parse_name(struct jparser *p)
{
    static const char *const words[] = {"true", "True", "false", "False", "none", "None"};
    static const char *const uses[] = {"varargs", "kwargs", "caller"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (jparse_take_name(p, words[i]))
            return constant(p, i < 4 ? jinja_bool(i < 2) : jinja_none());
    for (uint32_t i = 0; i < sizeof uses / sizeof *uses; i++)
        if (jparse_is_name(p, uses[i])) p->macro_uses |= 1u << i;
    struct jnode *n = jparse_node(p, N_NAME);
    n->name = jparse_name(p);
    return n;
}

static bool ends_tuple(const struct jparser *p, bool with_condition)
{
    return p->now.kind == T_PRINT_END || p->now.kind == T_BLOCK_END || p->now.kind == T_END ||
           jparse_is_op(p, ")") || (!with_condition && jparse_is_name(p, "recursive"));
}

static struct jnode *parse_primary(struct jparser *p)
{
    struct jnode *n;
    switch (p->now.kind) {
    case T_NAME:
        return parse_name(p);
    case T_STRING:
        return parse_string(p);
    case T_INT:
    case T_FLOAT:
        return parse_number(p);
    default:
        break;
    }
    if (jparse_is_op(p, "[")) return parse_list(p);
    if (jparse_is_op(p, "{")) return parse_dict(p);
    if (jparse_take_op(p, "(")) {
        n = jparse_is_op(p, ")") ? jparse_node(p, N_TUPLE) : jexpr_parse_tuple(p, true);
        jparse_expect_op(p, ")");
        return n;
    }
    jparse_fail(p, "an expression is missing");
    return jparse_node(p, N_CONST);
}

/* ---- what follows an operand ---- */

static struct jnode *parse_dot(struct jparser *p, struct jnode *of)
{
    struct jnode *n = jparse_node(p, N_ATTRIBUTE);
    set_child(p, n, &n->a, of);
    if (p->now.kind == T_INT) {
        n->kind = N_ITEM;
        set_child(p, n, &n->b, parse_number(p));
    } else {
        n->name = jparse_name(p);
    }
    return n;
}

static struct jnode *parse_bound(struct jparser *p)
{
    return jparse_is_op(p, ":") || jparse_is_op(p, "]") ? NULL : jexpr_parse(p);
}

static struct jnode *parse_subscript(struct jparser *p, struct jnode *of)
{
    struct jnode *n = jparse_node(p, N_ITEM), *first = parse_bound(p);
    set_child(p, n, &n->a, of);
    if (jparse_take_op(p, ":")) {
        n->kind = N_SLICE;
        set_child(p, n, &n->b, first);
        set_child(p, n, &n->c, parse_bound(p));
        if (jparse_take_op(p, ":")) set_child(p, n, &n->d, parse_bound(p));
    } else if (!first) {
        jparse_fail(p, "a subscript is missing");
    } else if (jparse_is_op(p, ",")) {
        jparse_fail(p, "a subscript of several parts is not supported");
    } else {
        set_child(p, n, &n->b, first);
    }
    jparse_expect_op(p, "]");
    return n;
}

static void add_keyword(struct jparser *p, struct jnode *call, struct jname *name)
{
    uint32_t n = call->list2.n;
    if (n % 8 == 0) {
        struct jname **grown = arena_alloc(&p->t->arena, (n + 8) * sizeof(struct jname *), 16);
        if (!grown && !p->code)
            p->code = err_set(p->e, ERR_NO_MEMORY, "no memory for a chat template");
        if (!grown) return;
        if (n) memcpy(grown, call->keys, n * sizeof(struct jname *));
        call->keys = grown;
    }
    for (uint32_t i = 0; i < n; i++)
        if (call->keys[i] == name) jparse_fail(p, "an argument is given twice");
    if (p->code) return;
    call->keys[n] = name;
    struct jnode *value = jexpr_parse(p);
    jparse_push(p, &call->list2, value);
    jparse_deepen(p, call, value);
}

void jexpr_parse_arguments(struct jparser *p, struct jnode *call)
{
    bool first = true;
    jparse_expect_op(p, "(");
    while (!p->code && !jparse_is_op(p, ")")) {
        if (!first) jparse_expect_op(p, ",");
        first = false;
        if (jparse_is_op(p, ")")) break;
        bool keyword = p->now.kind == T_NAME && p->next.kind == T_OP && p->next.op[0] == '=' &&
                       p->next.op[1] == 0;
        if (jparse_take_op(p, "**")) {
            if (call->star2) jparse_fail(p, "more than one ** in a call");
            set_child(p, call, &call->star2, jexpr_parse(p));
        } else if (jparse_take_op(p, "*")) {
            if (call->star || call->star2) jparse_fail(p, "more than one * in a call");
            set_child(p, call, &call->star, jexpr_parse(p));
        } else if (keyword) {
            struct jname *name = jparse_name(p);
            jparse_advance(p);
            add_keyword(p, call, name);
        } else {
            if (call->list2.n || call->star || call->star2)
                jparse_fail(p, "an argument by place follows one by name");
            add_child(p, call, jexpr_parse(p));
        }
    }
    jparse_expect_op(p, ")");
}

static struct jnode *parse_call_of(struct jparser *p, struct jnode *of)
{
    struct jnode *n = jparse_node(p, N_CALL);
    set_child(p, n, &n->a, of);
    jexpr_parse_arguments(p, n);
    return n;
}

static struct jnode *parse_postfix(struct jparser *p, struct jnode *n)
{
    while (!p->code) {
        if (jparse_take_op(p, "."))
            n = parse_dot(p, n);
        else if (jparse_take_op(p, "["))
            n = parse_subscript(p, n);
        else if (jparse_is_op(p, "("))
            n = parse_call_of(p, n);
        else
            break;
    }
    return n;
}

struct jnode *jexpr_parse_call(struct jparser *p)
{
    return parse_postfix(p, parse_primary(p));
}

/* Names with dots between; no filter or test that we know has one. */
static struct jname *parse_dotted(struct jparser *p)
{
    struct jname *name = jparse_name(p);
    if (jparse_is_op(p, ".")) jparse_fail(p, "no filter or test has a dot in its name");
    return name;
}

struct jnode *jexpr_parse_filters(struct jparser *p, struct jnode *of, bool first_named)
{
    while (!p->code && (first_named || jparse_take_op(p, "|"))) {
        struct jnode *n = jparse_node(p, N_FILTER);
        first_named = false;
        set_child(p, n, &n->a, of);
        n->name = parse_dotted(p);
        if (jparse_is_op(p, "(")) jexpr_parse_arguments(p, n);
        of = n;
    }
    return of;
}

static bool begins_argument(const struct jparser *p)
{
    static const char *const words[] = {"else", "or", "and"};
    if (p->now.kind == T_NAME) {
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            if (jparse_is_name(p, words[i])) return false;
        return true;
    }
    return p->now.kind == T_STRING || p->now.kind == T_INT || p->now.kind == T_FLOAT ||
           jparse_is_op(p, "[") || jparse_is_op(p, "{");
}

static struct jnode *parse_test(struct jparser *p, struct jnode *of)
{
    struct jnode *n = jparse_node(p, N_TEST);
    jparse_advance(p); /* is */
    n->flag = jparse_take_name(p, "not");
    set_child(p, n, &n->a, of);
    n->name = parse_dotted(p);
    if (jparse_is_op(p, "(")) {
        jexpr_parse_arguments(p, n);
    } else if (jparse_is_name(p, "is")) {
        jparse_fail(p, "tests cannot follow one another");
    } else if (begins_argument(p)) {
        add_child(p, n, parse_postfix(p, parse_primary(p)));
    }
    return n;
}

static struct jnode *parse_filtered(struct jparser *p, struct jnode *n)
{
    while (!p->code) {
        if (jparse_is_op(p, "|"))
            n = jexpr_parse_filters(p, n, false);
        else if (jparse_is_name(p, "is"))
            n = parse_test(p, n);
        else if (jparse_is_op(p, "("))
            n = parse_call_of(p, n);
        else
            break;
    }
    return n;
}

/* ---- operators ---- */

static struct jnode *parse_unary(struct jparser *p, bool with_filter)
{
    struct jnode *n;
    if (!jparse_enter(p)) return jparse_node(p, N_CONST);
    if (jparse_is_op(p, "-") || jparse_is_op(p, "+")) {
        n = jparse_node(p, jparse_is_op(p, "-") ? N_NEGATE : N_PLUS);
        jparse_advance(p);
        set_child(p, n, &n->a, parse_unary(p, false));
    } else {
        n = parse_primary(p);
    }
    n = parse_postfix(p, n);
    if (with_filter) n = parse_filtered(p, n);
    jparse_leave(p);
    return n;
}

struct level {
    const char *text;
    enum jop op;
};

static enum jop take_operator(struct jparser *p, const struct level *ops)
{
    for (; ops->text; ops++)
        if (jparse_take_op(p, ops->text)) return ops->op;
    return OP_NONE;
}

static struct jnode *parse_binary(struct jparser *p, const struct level *ops,
                                  struct jnode *(*operand)(struct jparser *p))
{
    struct jnode *left = operand(p);
    enum jop op;
    while (!p->code && (op = take_operator(p, ops)) != OP_NONE) {
        struct jnode *n = jparse_node(p, N_BINARY);
        n->op = (uint8_t)op;
        set_child(p, n, &n->a, left);
        set_child(p, n, &n->b, operand(p));
        left = n;
    }
    return left;
}

static struct jnode *parse_operand(struct jparser *p)
{
    return parse_unary(p, true);
}

static struct jnode *parse_power(struct jparser *p)
{
    static const struct level ops[] = {{"**", OP_POW}, {NULL, OP_NONE}};
    return parse_binary(p, ops, parse_operand);
}

static struct jnode *parse_product(struct jparser *p)
{
    static const struct level ops[] = {
        {"*", OP_MUL}, {"//", OP_FLOORDIV}, {"/", OP_DIV}, {"%", OP_MOD}, {NULL, OP_NONE}};
    return parse_binary(p, ops, parse_power);
}

static struct jnode *parse_concat(struct jparser *p)
{
    struct jnode *first = parse_product(p);
    if (!jparse_is_op(p, "~")) return first;
    struct jnode *n = jparse_node(p, N_CONCAT);
    add_child(p, n, first);
    while (!p->code && jparse_take_op(p, "~"))
        add_child(p, n, parse_product(p));
    return n;
}

/* A long sum is one node with many operands, so that it is no deeper than a short one. */
static struct jnode *parse_sum(struct jparser *p)
{
    static const struct level ops[] = {{"+", OP_ADD}, {"-", OP_SUB}, {NULL, OP_NONE}};
    struct jnode *first = parse_concat(p);
    enum jop op;
    struct jnode *n = NULL;
    while (!p->code && (op = take_operator(p, ops)) != OP_NONE) {
        if (!n) {
            n = jparse_node(p, N_BINARY);
            add_child(p, n, first);
        }
        struct jnode *operand = parse_concat(p), *wrapped = jparse_node(p, N_PLUS);
        wrapped->op = (uint8_t)op;
        set_child(p, wrapped, &wrapped->a, operand);
        add_child(p, n, wrapped);
    }
    return n ? n : first;
}

static enum jop take_comparison(struct jparser *p)
{
    static const struct level ops[] = {{"==", OP_EQ}, {"!=", OP_NE}, {"<=", OP_LE},  {"<", OP_LT},
                                       {">=", OP_GE}, {">", OP_GT},  {NULL, OP_NONE}};
    enum jop op = take_operator(p, ops);
    if (op != OP_NONE) return op;
    if (jparse_take_name(p, "in")) return OP_IN;
    bool not_in = jparse_is_name(p, "not") && p->next.kind == T_NAME && p->next.len == 2 &&
                  memcmp(p->next.text, "in", 2) == 0;
    if (!not_in) return OP_NONE;
    jparse_advance(p);
    jparse_advance(p);
    return OP_NOT_IN;
}

static struct jnode *parse_comparison(struct jparser *p)
{
    struct jnode *first = parse_sum(p), *n = NULL;
    enum jop op;
    while (!p->code && (op = take_comparison(p)) != OP_NONE) {
        if (!n) {
            n = jparse_node(p, N_COMPARE);
            add_child(p, n, first);
        }
        struct jnode *operand = jparse_node(p, N_PLUS);
        operand->op = (uint8_t)op;
        set_child(p, operand, &operand->a, parse_sum(p));
        add_child(p, n, operand);
    }
    return n ? n : first;
}

static struct jnode *parse_not(struct jparser *p)
{
    if (!jparse_is_name(p, "not")) return parse_comparison(p);
    struct jnode *n = jparse_node(p, N_NOT);
    if (!jparse_enter(p)) return n;
    jparse_advance(p);
    set_child(p, n, &n->a, parse_not(p));
    jparse_leave(p);
    return n;
}

static struct jnode *parse_logic(struct jparser *p, const char *word, enum jnode_kind kind,
                                 struct jnode *(*operand)(struct jparser *p))
{
    struct jnode *first = operand(p);
    if (!jparse_is_name(p, word)) return first;
    struct jnode *n = jparse_node(p, kind);
    add_child(p, n, first);
    while (!p->code && jparse_take_name(p, word))
        add_child(p, n, operand(p));
    return n;
}

static struct jnode *parse_and(struct jparser *p)
{
    return parse_logic(p, "and", N_AND, parse_not);
}

static struct jnode *parse_or(struct jparser *p)
{
    return parse_logic(p, "or", N_OR, parse_and);
}

struct jnode *jexpr_parse(struct jparser *p)
{
    if (!jparse_enter(p)) return jparse_node(p, N_CONST);
    struct jnode *n = parse_or(p);
    while (!p->code && jparse_take_name(p, "if")) {
        struct jnode *condition = jparse_node(p, N_COND);
        set_child(p, condition, &condition->b, n);
        set_child(p, condition, &condition->a, parse_or(p));
        if (jparse_take_name(p, "else")) set_child(p, condition, &condition->c, jexpr_parse(p));
        n = condition;
    }
    jparse_leave(p);
    return n;
}

struct jnode *jexpr_parse_tuple(struct jparser *p, bool with_condition)
{
    struct jnode *first = NULL, *n = NULL;
    if (!jparse_enter(p)) return jparse_node(p, N_CONST);
    while (!p->code) {
        if (first && ends_tuple(p, with_condition)) break;
        struct jnode *part = with_condition ? jexpr_parse(p) : parse_or(p);
        if (n)
            add_child(p, n, part);
        else
            first = part;
        if (!jparse_is_op(p, ",")) break;
        if (!n) {
            n = jparse_node(p, N_TUPLE);
            add_child(p, n, first);
        }
        jparse_advance(p);
    }
    jparse_leave(p);
    return n ? n : first ? first : jparse_node(p, N_CONST);
}

/* ---- what is assigned to ---- */

static struct jnode *parse_one_target(struct jparser *p, bool attributes)
{
    static const char *const words[] = {"true", "True", "false", "False", "none", "None"};
    struct jnode *n;
    if (jparse_is_op(p, "(") && jparse_enter(p)) {
        jparse_advance(p);
        n = jexpr_parse_target(p, false);
        jparse_expect_op(p, ")");
        jparse_leave(p);
        return n;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (jparse_is_name(p, words[i])) jparse_fail(p, "cannot assign to %s", words[i]);
    n = jparse_node(p, N_NAME);
    n->name = jparse_name(p);
    if (attributes && jparse_take_op(p, ".")) {
        struct jnode *attribute = jparse_node(p, N_ATTRIBUTE);
        attribute->a = n;
        attribute->name = jparse_name(p);
        return attribute;
    }
    return n;
}

struct jnode *jexpr_parse_target(struct jparser *p, bool attributes)
{
    struct jnode *first = parse_one_target(p, attributes), *n = NULL;
    while (!p->code && jparse_take_op(p, ",")) {
        if (!n) {
            n = jparse_node(p, N_TUPLE);
            jparse_push(p, &n->list, first);
        }
        if (p->now.kind != T_NAME || jparse_is_name(p, "in")) {
            if (!jparse_is_op(p, "(")) break;
        }
        jparse_push(p, &n->list, parse_one_target(p, attributes));
    }
    return n ? n : first;
}
