/*
 * jinja_scope: which names a scope hides from its beginning; see jinja_impl.h.
 *
 * Jinja decides when it compiles. A name that a scope sets in any case belongs to that scope,
 * unless the scope reads it first, or a scope around it has it: read before it is set (by a block
 * or a macro within), it is undefined, even if there is an argument of that name. What only some
 * branches of an if set is not hidden.
 */
#include <string.h>

#include "model/jinja/jinja_impl.h"

enum load { LOAD_PARAMETER, LOAD_OUTER, LOAD_UNDEFINED };

struct symbol {
    struct jname *name;
    enum load load;
    bool stored;
};

/* Symbols of a scope, or of a branch in it. */
struct symbols {
    struct symbol *v;
    uint32_t n, cap;
};

struct frame {
    struct symbols all;
    const struct frame *outer;
    struct jnodes inner; /* statements with scopes of their own */
};

struct analysis {
    struct jparser *p;
    uint64_t work;
};

enum { WORK_MAX = 20000000 };

static void *room(struct analysis *a, size_t size)
{
    void *memory = a->p->code ? NULL : arena_alloc(&a->p->t->arena, size, 16);
    if (!memory && !a->p->code)
        a->p->code = err_set(a->p->e, ERR_NO_MEMORY, "no memory for a chat template");
    return memory;
}

static struct symbol *find(struct analysis *a, const struct symbols *s, const struct jname *name)
{
    a->work += s->n;
    for (uint32_t i = 0; i < s->n; i++)
        if (s->v[i].name == name) return &s->v[i];
    return NULL;
}

static struct symbol *add(struct analysis *a, struct symbols *s, struct jname *name, enum load load)
{
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 8;
        struct symbol *grown = room(a, cap * sizeof *grown);
        if (!grown) return NULL;
        if (s->n) memcpy(grown, s->v, s->n * sizeof *grown);
        s->v = grown;
        s->cap = cap;
    }
    s->v[s->n] = (struct symbol){name, load, false};
    return &s->v[s->n++];
}

static bool is_outer(struct analysis *a, const struct frame *f, const struct jname *name)
{
    for (f = f->outer; f; f = f->outer)
        if (find(a, &f->all, name)) return true;
    return false;
}

static void load(struct analysis *a, struct symbols *s, struct jname *name)
{
    if (name && !find(a, s, name)) add(a, s, name, LOAD_OUTER);
}

static void store(struct analysis *a, const struct frame *f, struct symbols *s, struct jname *name)
{
    struct symbol *known = name ? find(a, s, name) : NULL;
    if (!known && name) known = add(a, s, name, is_outer(a, f, name) ? LOAD_OUTER : LOAD_UNDEFINED);
    if (known) known->stored = true;
}

/* ---- expressions ---- */

static void read_names(struct analysis *a, struct symbols *s, const struct jnode *n)
{
    if (!n || a->p->code) return;
    a->work++;
    if (n->kind == N_NAME) load(a, s, n->name);
    read_names(a, s, n->a);
    read_names(a, s, n->b);
    read_names(a, s, n->c);
    read_names(a, s, n->d);
    read_names(a, s, n->star);
    read_names(a, s, n->star2);
    for (uint32_t i = 0; i < n->list.n; i++)
        read_names(a, s, n->list.v[i]);
    for (uint32_t i = 0; i < n->list2.n; i++)
        read_names(a, s, n->list2.v[i]);
}

static void store_target(struct analysis *a, const struct frame *f, struct symbols *s,
                         const struct jnode *target)
{
    if (target->kind == N_NAME) store(a, f, s, target->name);
    if (target->kind == N_ATTRIBUTE) read_names(a, s, target->a);
    for (uint32_t i = 0; i < target->list.n; i++)
        store_target(a, f, s, target->list.v[i]);
}

static void declare(struct analysis *a, struct symbols *s, const struct jnode *target)
{
    if (target->kind == N_NAME && !find(a, s, target->name))
        add(a, s, target->name, LOAD_PARAMETER);
    for (uint32_t i = 0; i < target->list.n; i++)
        declare(a, s, target->list.v[i]);
}

/* ---- statements of one scope ---- */

static void walk(struct analysis *a, struct frame *f, struct symbols *s, const struct jnode *body);

static struct symbols copy(struct analysis *a, const struct symbols *s)
{
    struct symbols c = {.n = s->n, .cap = s->n};
    a->work += s->n;
    c.v = s->n ? room(a, s->n * sizeof *c.v) : NULL;
    if (s->n && c.v) memcpy(c.v, s->v, s->n * sizeof *c.v);
    if (!c.v) c.n = c.cap = 0;
    return c;
}

/* What the branches have becomes the scope's; what not all of them set comes from outside. */
static void merge(struct analysis *a, struct symbols *s, const struct symbols *branches, uint32_t n)
{
    struct symbols before = copy(a, s);
    for (uint32_t b = 0; b < n && !a->p->code; b++)
        for (uint32_t i = 0; i < branches[b].n; i++) {
            const struct symbol *from = &branches[b].v[i];
            struct symbol *to = find(a, s, from->name);
            if (!to) to = add(a, s, from->name, from->load);
            if (!to) return;
            to->load = from->load;
            to->stored = to->stored || from->stored;
        }
    for (uint32_t i = 0; i < s->n && !a->p->code; i++) {
        const struct symbol *was = find(a, &before, s->v[i].name);
        uint32_t count = 0;
        for (uint32_t b = 0; b < n; b++) {
            const struct symbol *in = find(a, &branches[b], s->v[i].name);
            count += in && in->stored;
        }
        bool some = s->v[i].stored && !(was && was->stored) && count != n;
        if (some && s->v[i].load != LOAD_PARAMETER) s->v[i].load = LOAD_OUTER;
    }
}

static void walk_if(struct analysis *a, struct frame *f, struct symbols *s, const struct jnode *n)
{
    uint32_t count = n->list.n / 2 + 1;
    struct symbols *branches = room(a, count * sizeof *branches);
    read_names(a, s, n->list.v[0]);
    for (uint32_t i = 0; i < count && !a->p->code; i++) {
        branches[i] = copy(a, s);
        if (i + 1 == count) {
            if (n->b) walk(a, f, &branches[i], n->b);
            continue;
        }
        if (i) read_names(a, &branches[i], n->list.v[2 * i]);
        walk(a, f, &branches[i], n->list.v[2 * i + 1]);
    }
    if (!a->p->code) merge(a, s, branches, count);
}

static void walk_statement(struct analysis *a, struct frame *f, struct symbols *s, struct jnode *n)
{
    switch ((enum jnode_kind)n->kind) {
    case N_IF:
        walk_if(a, f, s, n);
        return;
    case N_SET:
        read_names(a, s, n->b);
        store_target(a, f, s, n->a);
        return;
    case N_SET_BLOCK:
        store_target(a, f, s, n->a);
        break;
    case N_FOR:
        read_names(a, s, n->b);
        break;
    case N_MACRO:
        store(a, f, s, n->name);
        break;
    case N_CALL_BLOCK:
    case N_FILTER_BLOCK:
        read_names(a, s, n->a);
        break;
    case N_WITH:
        for (uint32_t i = 0; i < n->list2.n; i++)
            read_names(a, s, n->list2.v[i]);
        break;
    case N_SCOPE:
        break;
    default:
        read_names(a, s, n);
        return;
    }
    jparse_push(a->p, &f->inner, n);
}

static void walk(struct analysis *a, struct frame *f, struct symbols *s, const struct jnode *body)
{
    for (uint32_t i = 0; i < body->list.n && !a->p->code && a->work < WORK_MAX; i++)
        walk_statement(a, f, s, body->list.v[i]);
}

/* ---- scopes in one another ---- */

static void scope(struct analysis *a, struct frame *f, struct jnode *body);

static void inner_scope(struct analysis *a, const struct frame *outer, const struct jnode *owner,
                        struct jnode *body)
{
    struct frame f = {.outer = outer};
    struct jnode loop = {.kind = N_NAME, .name = jparse_intern(a->p, "loop", 4)};
    if (!body || a->p->code) return;
    if (owner->kind == N_FOR) {
        declare(a, &f.all, owner->a);
        declare(a, &f.all, &loop);
    }
    if (owner->kind == N_WITH || owner->kind == N_MACRO)
        for (uint32_t i = 0; i < owner->list.n; i++)
            declare(a, &f.all, owner->list.v[i]);
    if (owner->kind == N_MACRO)
        for (uint32_t i = 0; i < owner->list2.n; i++)
            read_names(a, &f.all, owner->list2.v[i]);
    scope(a, &f, body);
}

static void scope(struct analysis *a, struct frame *f, struct jnode *body)
{
    walk(a, f, &f->all, body);
    for (uint32_t i = 0; i < f->all.n && !a->p->code && a->work < WORK_MAX; i++)
        if (f->all.v[i].load == LOAD_UNDEFINED) {
            struct jnode *hidden = jparse_node(a->p, N_NAME);
            hidden->name = f->all.v[i].name;
            jparse_push(a->p, &body->list2, hidden);
        }
    for (uint32_t i = 0; i < f->inner.n && !a->p->code && a->work < WORK_MAX; i++) {
        struct jnode *n = f->inner.v[i];
        if (n->kind == N_CALL_BLOCK)
            inner_scope(a, f, n->c, n->c->b);
        else
            inner_scope(a, f, n, n->kind == N_FOR ? n->d : n->b);
        if (n->kind == N_FOR && n->list.n) {
            struct jnode plain = {.kind = N_SCOPE};
            inner_scope(a, f, &plain, n->list.v[0]);
        }
    }
}

void jscope_analyse(struct jparser *p, struct jnode *root)
{
    struct analysis a = {.p = p};
    struct frame f = {.outer = NULL};
    scope(&a, &f, root);
}
