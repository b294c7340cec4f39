/* jinja_parse: statements; see jinja_impl.h. What is read is bounded in nesting and in nodes. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "model/jinja/jinja_impl.h"

enum { USES_VARARGS = 1, USES_KWARGS = 2, USES_CALLER = 4, ARENA_STEP = 16 };

int jparse_fail(struct jparser *p, const char *format, ...)
{
    char text[ERR_TEXT_MAX];
    va_list args;
    if (p->code) return p->code;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    p->code = err_set(p->e, ERR_BAD_INPUT, "chat template, line %u: %s", p->now.line, text);
    return p->code;
}

static void no_memory(struct jparser *p)
{
    if (!p->code) p->code = err_set(p->e, ERR_NO_MEMORY, "no memory for a chat template");
}

void jparse_advance(struct jparser *p)
{
    p->now = p->next;
    if (p->code || p->now.kind == T_END) return;
    p->code = jlex_next(&p->lexer, &p->next);
    if (p->code) p->now = p->next = (struct jtoken){.kind = T_END, .line = p->lexer.line};
}

static void *allocate(struct jparser *p, size_t size)
{
    void *memory = arena_alloc(&p->t->arena, size, ARENA_STEP);
    if (!memory) no_memory(p);
    return memory;
}

struct jnode *jparse_node(struct jparser *p, enum jnode_kind kind)
{
    struct jnode *n = NULL;
    if (!p->code && ++p->nodes > JINJA_NODES_MAX)
        jparse_fail(p, "the template has more than %d parts", JINJA_NODES_MAX);
    if (!p->code) n = allocate(p, sizeof *n);
    if (!n) n = &p->lost;
    *n = (struct jnode){.kind = (uint8_t)kind, .line = p->now.line, .depth = 1};
    return n;
}

void jparse_deepen(struct jparser *p, struct jnode *n, const struct jnode *child)
{
    if (!child || p->code) return;
    if (child->depth >= n->depth) n->depth = (uint16_t)(child->depth + 1);
    if (n->depth > 2 * JINJA_NESTING_MAX) jparse_fail(p, "an expression is nested too deeply");
}

void jparse_push(struct jparser *p, struct jnodes *list, struct jnode *n)
{
    if (p->code) return;
    if (list->n == list->cap) {
        uint32_t cap = list->cap ? list->cap * 2 : 4;
        struct jnode **grown = allocate(p, cap * sizeof(struct jnode *));
        if (!grown) return;
        if (list->n) memcpy(grown, list->v, list->n * sizeof(struct jnode *));
        list->v = grown;
        list->cap = cap;
    }
    list->v[list->n++] = n;
}

bool jparse_is_op(const struct jparser *p, const char *op)
{
    return p->now.kind == T_OP && p->now.op[0] == op[0] && p->now.op[1] == op[1];
}

static bool is_name(const struct jtoken *t, const char *name)
{
    return t->kind == T_NAME && jname_is(t->text, t->len, name);
}

bool jparse_is_name(const struct jparser *p, const char *name)
{
    return is_name(&p->now, name);
}

bool jparse_take_op(struct jparser *p, const char *op)
{
    if (!jparse_is_op(p, op)) return false;
    jparse_advance(p);
    return true;
}

bool jparse_take_name(struct jparser *p, const char *name)
{
    if (!jparse_is_name(p, name)) return false;
    jparse_advance(p);
    return true;
}

static void describe(const struct jtoken *t, char out[64])
{
    static const char *const names[] = {[T_END] = "the end of the template",
                                        [T_DATA] = "text",
                                        [T_PRINT_BEGIN] = "{{",
                                        [T_PRINT_END] = "}}",
                                        [T_BLOCK_BEGIN] = "{%",
                                        [T_BLOCK_END] = "%}",
                                        [T_STRING] = "a string"};
    if (t->kind == T_OP)
        snprintf(out, 64, "\"%.2s\"", t->op);
    else if (t->kind == T_NAME || t->kind == T_INT || t->kind == T_FLOAT)
        snprintf(out, 64, "\"%.*s\"", (int)(t->len < 40 ? t->len : 40), t->text);
    else
        snprintf(out, 64, "%s", names[t->kind]);
}

static void unexpected(struct jparser *p, const char *wanted)
{
    char what[64];
    describe(&p->now, what);
    jparse_fail(p, "%s stands where %s must", what, wanted);
}

void jparse_expect_op(struct jparser *p, const char *op)
{
    char wanted[8];
    snprintf(wanted, sizeof wanted, "\"%s\"", op);
    if (!jparse_take_op(p, op)) unexpected(p, wanted);
}

static uint32_t bucket_of(const char *text, size_t n)
{
    return (uint32_t)(fnv_bytes(FNV_BEGIN, text, n) % NAME_BUCKETS);
}

struct jname *jname_find(const struct jinja_template *t, const char *text, size_t n)
{
    for (struct jname *name = t->names[bucket_of(text, n)]; name; name = name->next)
        if (name->len == n && memcmp(name->text, text, n) == 0) return name;
    return NULL;
}

struct jname *jparse_intern(struct jparser *p, const char *text, size_t n)
{
    struct jname **bucket = &p->t->names[bucket_of(text, n)];
    struct jname *name = jname_find(p->t, text, n);
    if (name) return name;
    name = allocate(p, sizeof *name);
    if (!name) return NULL;
    *name = (struct jname){text, n, *bucket};
    *bucket = name;
    return name;
}

struct jname *jparse_name(struct jparser *p)
{
    if (p->now.kind != T_NAME) {
        unexpected(p, "a name");
        return NULL;
    }
    struct jname *name = jparse_intern(p, p->now.text, p->now.len);
    jparse_advance(p);
    return name;
}

bool jparse_enter(struct jparser *p)
{
    if (p->code) return false;
    if (p->depth >= JINJA_NESTING_MAX) {
        jparse_fail(p, "nested deeper than %d levels", JINJA_NESTING_MAX);
        return false;
    }
    p->depth++;
    return true;
}

void jparse_leave(struct jparser *p)
{
    p->depth--;
}

/* ---- statements ---- */

static struct jnode *parse_body(struct jparser *p, const char *const *ends, const char *of);

static void expect_block_end(struct jparser *p)
{
    if (p->now.kind == T_BLOCK_END)
        jparse_advance(p);
    else
        unexpected(p, "%}");
}

static bool ends_with(const struct jparser *p, const char *const *ends)
{
    for (; *ends; ends++)
        if (jparse_is_name(p, *ends)) return true;
    return false;
}

/* The body of a block up to its end tag, whose name is read too. */
static struct jnode *parse_block(struct jparser *p, const char *end, const char *of)
{
    const char *const ends[] = {end, NULL};
    expect_block_end(p);
    struct jnode *body = parse_body(p, ends, of);
    jparse_advance(p);
    return body;
}

static struct jnode *parse_if(struct jparser *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    static const char *const last[] = {"endif", NULL};
    struct jnode *n = jparse_node(p, N_IF);
    bool more = true;
    while (more && !p->code) {
        jparse_advance(p); /* if or elif */
        struct jnode *condition = jexpr_parse_tuple(p, false);
        expect_block_end(p);
        struct jnode *body = parse_body(p, ends, "if");
        jparse_push(p, &n->list, condition);
        jparse_push(p, &n->list, body);
        jparse_deepen(p, n, condition);
        jparse_deepen(p, n, body);
        more = jparse_is_name(p, "elif");
    }
    if (jparse_take_name(p, "else")) {
        expect_block_end(p);
        n->b = parse_body(p, last, "if");
        jparse_deepen(p, n, n->b);
    }
    jparse_advance(p); /* endif */
    return n;
}

static struct jnode *parse_for(struct jparser *p)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    static const char *const last[] = {"endfor", NULL};
    struct jnode *n = jparse_node(p, N_FOR);
    jparse_advance(p);
    n->a = jexpr_parse_target(p, false);
    if (!jparse_take_name(p, "in")) unexpected(p, "\"in\"");
    n->b = jexpr_parse_tuple(p, false);
    if (jparse_take_name(p, "if")) n->c = jexpr_parse(p);
    n->flag = jparse_take_name(p, "recursive");
    expect_block_end(p);
    p->loops++;
    n->d = parse_body(p, ends, "for");
    p->loops--;
    jparse_deepen(p, n, n->b);
    jparse_deepen(p, n, n->c);
    jparse_deepen(p, n, n->d);
    if (jparse_take_name(p, "else")) {
        expect_block_end(p);
        struct jnode *otherwise = parse_body(p, last, "for");
        jparse_push(p, &n->list, otherwise);
        jparse_deepen(p, n, otherwise);
    }
    jparse_advance(p); /* endfor */
    return n;
}

static struct jnode *captured(struct jparser *p)
{
    return jparse_node(p, N_CAPTURED);
}

static struct jnode *parse_set(struct jparser *p)
{
    struct jnode *n = jparse_node(p, N_SET);
    jparse_advance(p);
    n->a = jexpr_parse_target(p, true);
    if (jparse_take_op(p, "=")) {
        n->b = jexpr_parse_tuple(p, true);
        jparse_deepen(p, n, n->b);
        return n;
    }
    n->kind = N_SET_BLOCK;
    n->c = jexpr_parse_filters(p, captured(p), false);
    n->b = parse_block(p, "endset", "set");
    jparse_deepen(p, n, n->c);
    jparse_deepen(p, n, n->b);
    return n;
}

static void parse_signature(struct jparser *p, struct jnode *macro)
{
    jparse_expect_op(p, "(");
    while (!p->code && !jparse_is_op(p, ")")) {
        if (macro->list.n) jparse_expect_op(p, ",");
        if (jparse_is_op(p, ")")) break;
        struct jnode *parameter = jparse_node(p, N_NAME);
        parameter->name = jparse_name(p);
        jparse_push(p, &macro->list, parameter);
        if (jparse_take_op(p, "=")) {
            struct jnode *value = jexpr_parse(p);
            jparse_push(p, &macro->list2, value);
            jparse_deepen(p, macro, value);
        } else if (macro->list2.n) {
            jparse_fail(p, "a parameter without a default follows one with a default");
        }
    }
    jparse_expect_op(p, ")");
}

/* The body of a macro; which of varargs, kwargs and caller it reads, its call must know. */
static void parse_macro_body(struct jparser *p, struct jnode *macro, const char *end)
{
    uint32_t outside = p->macro_uses, loops = p->loops;
    p->macro_uses = 0;
    p->loops = 0;
    macro->b = parse_block(p, end, end + 3);
    macro->uses_varargs = p->macro_uses & USES_VARARGS;
    macro->uses_kwargs = p->macro_uses & USES_KWARGS;
    macro->uses_caller = p->macro_uses & USES_CALLER;
    p->macro_uses |= outside; /* a macro knows what those inside it read, too */
    p->loops = loops;
    jparse_deepen(p, macro, macro->b);
}

static struct jnode *parse_macro(struct jparser *p)
{
    struct jnode *n = jparse_node(p, N_MACRO);
    jparse_advance(p);
    n->name = jparse_name(p);
    parse_signature(p, n);
    parse_macro_body(p, n, "endmacro");
    return n;
}

static struct jnode *parse_call(struct jparser *p)
{
    struct jnode *n = jparse_node(p, N_CALL_BLOCK);
    struct jnode *macro = jparse_node(p, N_MACRO);
    jparse_advance(p);
    macro->name = jparse_intern(p, "caller", 6);
    if (jparse_is_op(p, "(")) parse_signature(p, macro);
    n->a = jexpr_parse_call(p);
    if (!p->code && n->a->kind != N_CALL) jparse_fail(p, "{%% call %%} needs a call");
    parse_macro_body(p, macro, "endcall");
    n->c = macro;
    jparse_deepen(p, n, n->a);
    jparse_deepen(p, n, macro);
    return n;
}

static struct jnode *parse_filter(struct jparser *p)
{
    struct jnode *n = jparse_node(p, N_FILTER_BLOCK);
    jparse_advance(p);
    n->a = jexpr_parse_filters(p, captured(p), true);
    n->b = parse_block(p, "endfilter", "filter");
    jparse_deepen(p, n, n->a);
    jparse_deepen(p, n, n->b);
    return n;
}

static struct jnode *parse_with(struct jparser *p)
{
    struct jnode *n = jparse_node(p, N_WITH);
    jparse_advance(p);
    while (!p->code && p->now.kind != T_BLOCK_END) {
        if (n->list.n) jparse_expect_op(p, ",");
        jparse_push(p, &n->list, jexpr_parse_target(p, false));
        jparse_expect_op(p, "=");
        struct jnode *value = jexpr_parse(p);
        jparse_push(p, &n->list2, value);
        jparse_deepen(p, n, value);
    }
    n->b = parse_block(p, "endwith", "with");
    jparse_deepen(p, n, n->b);
    return n;
}

static struct jnode *parse_generation(struct jparser *p)
{
    struct jnode *n = jparse_node(p, N_SCOPE);
    jparse_advance(p);
    n->b = parse_block(p, "endgeneration", "generation");
    jparse_deepen(p, n, n->b);
    return n;
}

static struct jnode *parse_print(struct jparser *p)
{
    struct jnode *n = jparse_node(p, N_PRINT);
    jparse_advance(p);
    n->a = jexpr_parse_tuple(p, true);
    jparse_deepen(p, n, n->a);
    return n;
}

static struct jnode *parse_jump(struct jparser *p)
{
    bool breaks = jparse_is_name(p, "break");
    struct jnode *n = jparse_node(p, breaks ? N_BREAK : N_CONTINUE);
    if (!p->loops) jparse_fail(p, "{%% %s %%} outside of a loop", breaks ? "break" : "continue");
    jparse_advance(p);
    return n;
}

static const struct {
    const char *tag;
    struct jnode *(*parse)(struct jparser *p);
} statements[] = {
    {"if", parse_if},         {"for", parse_for},
    {"set", parse_set},       {"macro", parse_macro},
    {"call", parse_call},     {"filter", parse_filter},
    {"with", parse_with},     {"generation", parse_generation},
    {"print", parse_print},   {"break", parse_jump},
    {"continue", parse_jump},
};

static struct jnode *parse_statement(struct jparser *p)
{
    static const char *const files[] = {"extends", "include", "import", "from", "block"};
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (!jparse_is_name(p, statements[i].tag) || !jparse_enter(p)) continue;
        struct jnode *n = statements[i].parse(p);
        jparse_leave(p);
        expect_block_end(p);
        return n;
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (jparse_is_name(p, files[i]))
            jparse_fail(p, "{%% %s %%} is not supported: a chat template is one file", files[i]);
    unexpected(p, "a statement");
    return jparse_node(p, N_BLOCK);
}

static struct jnode *parse_data(struct jparser *p)
{
    struct jnode *n = jparse_node(p, N_TEXT);
    struct jstr *s = allocate(p, sizeof *s);
    if (s) {
        *s = (struct jstr){.data = p->now.text, .len = p->now.len, .mark = JINJA_OWN};
        n->value = jobject(J_STR, s);
    }
    jparse_advance(p);
    return n;
}

/* Statements up to a tag with one of the names (which stays), or with none to the end. */
static struct jnode *parse_body(struct jparser *p, const char *const *ends, const char *of)
{
    struct jnode *block = jparse_node(p, N_BLOCK);
    while (!p->code) {
        struct jnode *n;
        if (p->now.kind == T_END) {
            if (*ends) jparse_fail(p, "{%% %s %%} has no end", of);
            return block;
        }
        if (p->now.kind == T_DATA) {
            n = parse_data(p);
        } else if (p->now.kind == T_PRINT_BEGIN) {
            n = parse_print(p);
            if (p->now.kind != T_PRINT_END) unexpected(p, "}}");
            jparse_advance(p);
        } else {
            jparse_advance(p); /* {% */
            if (ends_with(p, ends)) return block;
            n = parse_statement(p);
        }
        jparse_push(p, &block->list, n);
        jparse_deepen(p, block, n);
    }
    return block;
}

/* ---- the whole ---- */

/* Line breaks become "\n", and one at the end goes, as in Jinja. */
static int copy_source(struct jinja_template *t, const char *text, size_t n, struct err *e)
{
    t->source = arena_alloc(&t->arena, n + 1, 1);
    if (!t->source) return err_set(e, ERR_NO_MEMORY, "no memory for a chat template");
    for (size_t i = 0; i < n; i++) {
        bool pair = text[i] == '\r' && i + 1 < n && text[i + 1] == '\n';
        i += pair;
        t->source[t->len++] = text[i] == '\r' ? '\n' : text[i];
    }
    if (t->len && t->source[t->len - 1] == '\n') t->len--;
    t->source[t->len] = 0;
    return 0;
}

int jinja_compile(const char *text, size_t n, struct jinja_template **ret_template, struct err *e)
{
    static const char *const none[] = {NULL};
    if (n > JINJA_SOURCE_MAX)
        return err_set(e, ERR_LIMIT, "the chat template has %zu bytes, limit %d", n,
                       JINJA_SOURCE_MAX);
    struct jinja_template *t = mem_calloc(1, sizeof *t);
    if (!t) return err_set(e, ERR_NO_MEMORY, "no memory for a chat template");
    arena_init(&t->arena, JINJA_MEMORY_MAX);
    struct jparser p = {.t = t, .e = e};
    p.code = copy_source(t, text, n, e);
    p.lexer =
        (struct jlexer){.source = t->source, .len = t->len, .line = 1, .line_starts = true, .e = e};
    if (!p.code) p.code = jlex_next(&p.lexer, &p.next);
    if (!p.code) jparse_advance(&p);
    if (!p.code) t->body = parse_body(&p, none, "");
    if (!p.code) jscope_analyse(&p, t->body);
    if (p.code) {
        jinja_free(t);
        return p.code;
    }
    *ret_template = t;
    return 0;
}

void jinja_free(struct jinja_template *t)
{
    if (!t) return;
    arena_release(&t->arena);
    mem_free(t);
}

bool jinja_mentions(const struct jinja_template *t, const char *name)
{
    return jname_find(t, name, strlen(name)) != NULL;
}
