/* jinja_run: statements, scopes and macros; see jinja_impl.h. */
#include <stdio.h>
#include <string.h>

#include "model/jinja/jinja_impl.h"

/* ---- scopes ---- */

static struct jvar *find_var(struct jscope *s, const struct jname *name)
{
    for (uint32_t i = s->n; i-- > 0;)
        if (s->vars[i].name == name) return &s->vars[i];
    return NULL;
}

struct jinja_value *jrun_find(struct jinja_run *r, const struct jname *name)
{
    for (struct jscope *s = r->scope; s; s = s->parent) {
        struct jvar *v = find_var(s, name);
        if (v) return &v->value;
    }
    return NULL;
}

static void put_var(struct jinja_run *r, struct jscope *s, const struct jname *name,
                    struct jinja_value value)
{
    struct jvar *v = find_var(s, name);
    if (r->code) return;
    if (v) {
        v->value = value;
        return;
    }
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 4;
        struct jvar *grown = jalloc(r, cap * sizeof *grown);
        if (!grown) return;
        if (s->n) memcpy(grown, s->vars, s->n * sizeof *grown);
        s->vars = grown;
        s->cap = cap;
    }
    s->vars[s->n++] = (struct jvar){name, value};
}

/* A new scope within `parent`, which becomes the run's; NULL: no memory. */
static struct jscope *open_scope(struct jinja_run *r, struct jscope *parent)
{
    struct jscope *s = jalloc(r, sizeof *s);
    if (!s) return NULL;
    *s = (struct jscope){.parent = parent};
    r->scope = s;
    return s;
}

/* A scope for the next item of a loop: the last one again, where nothing refers to it. */
static bool next_scope(struct jinja_run *r, struct jscope **scope, struct jscope *parent)
{
    if (!*scope || (*scope)->kept) *scope = open_scope(r, parent);
    if (!*scope) return false;
    (*scope)->n = 0;
    r->scope = *scope;
    return true;
}

static void put_known(struct jinja_run *r, struct jscope *s, const char *name, struct jinja_value v)
{
    const struct jname *known = jname_find(r->t, name, strlen(name));
    if (known) put_var(r, s, known, v);
}

/* ---- assignment ---- */

static void assign(struct jinja_run *r, const struct jnode *target, struct jinja_value v)
{
    if (r->code) return;
    if (target->kind == N_NAME) {
        put_var(r, r->scope, target->name, v);
        return;
    }
    if (target->kind == N_ATTRIBUTE) {
        struct jinja_value of = jeval(r, target->a);
        if (r->code) return;
        if (of.type != J_NAMESPACE)
            jfail(r, "cannot assign to an attribute of %s: only to one of a namespace",
                  jtype_name(of));
        else
            jdict_set(r, jdict_of(of), jtext(r, target->name->text, target->name->len, JINJA_OWN),
                      v);
        return;
    }
    const struct jlist *l = jiterate(r, v);
    if (!l || !jdeeper(r)) return;
    if (l->n != target->list.n)
        jfail(r, "%u values are assigned to %u names", l->n, target->list.n);
    for (uint32_t i = 0; i < target->list.n && !r->code; i++)
        assign(r, target->list.v[i], l->items[i]);
    r->depth--;
}

/* ---- output ---- */

/* The text that a block writes. */
static struct jinja_value capture(struct jinja_run *r, const struct jnode *body)
{
    struct jout outside = r->out;
    jout_init(&r->out);
    jrun_block(r, body);
    struct jinja_value v = jout_take(r, &r->out);
    r->out = outside;
    return v;
}

static struct jinja_value filtered(struct jinja_run *r, const struct jnode *filters,
                                   struct jinja_value text)
{
    struct jinja_value outside = r->captured;
    r->captured = text;
    text = jeval(r, filters);
    r->captured = outside;
    return text;
}

/* ---- loops ---- */

/* The items for which the condition of the loop holds. */
static struct jlist *select_items(struct jinja_run *r, const struct jnode *n, struct jlist *l,
                                  struct jscope *outer)
{
    struct jlist *kept = jlist_empty(r);
    uint32_t cap = 0;
    if (!kept) return l;
    struct jscope *scope = NULL;
    for (uint32_t i = 0; i < l->n && !r->code; i++) {
        if (!next_scope(r, &scope, outer)) break;
        assign(r, n->a, l->items[i]);
        if (jtruth(jeval(r, n->c))) jlist_push(r, kept, &cap, l->items[i]);
    }
    return kept;
}

/* Whether the body came to its end for any item: only a break or continue in all of them, or no
 * item, leads to the else of the loop. */
static bool run_items(struct jinja_run *r, const struct jnode *n, struct jloop *loop,
                      struct jscope *outer)
{
    bool any = false;
    struct jscope *scope = NULL;
    for (loop->at = 0; loop->at < loop->n && !r->code; loop->at++) {
        if (!next_scope(r, &scope, outer)) break;
        jwork(r, 1);
        put_known(r, r->scope, "loop", jobject(J_LOOP, loop));
        assign(r, n->a, loop->items[loop->at]);
        jrun_block(r, n->d);
        enum jflow flow = r->flow;
        r->flow = FLOW_ON;
        any = any || flow == FLOW_ON;
        if (flow == FLOW_BREAK) break;
    }
    return any;
}

static void run_for(struct jinja_run *r, const struct jnode *n, struct jinja_value what,
                    uint32_t depth)
{
    struct jscope *outer = r->scope;
    struct jlist *l = jiterate(r, what);
    if (l && n->c) l = select_items(r, n, l, outer);
    r->scope = outer;
    struct jloop *loop = l ? jalloc(r, sizeof *loop) : NULL;
    if (!loop) return;
    *loop = (struct jloop){l->items, l->n, 0, depth, n, outer, jundefined(NULL), false};
    if (!run_items(r, n, loop, outer) && n->list.n && open_scope(r, outer))
        jrun_block(r, n->list.v[0]);
    r->scope = outer;
}

struct jinja_value jrun_loop(struct jinja_run *r, const struct jnode *n, struct jinja_value what,
                             uint32_t depth, struct jscope *scope)
{
    struct jscope *outside = r->scope;
    struct jout out = r->out;
    r->scope = scope;
    jout_init(&r->out);
    run_for(r, n, what, depth);
    struct jinja_value v = jout_take(r, &r->out);
    r->out = out;
    r->scope = outside;
    return v;
}

/* ---- macros ---- */

static struct jinja_value make_macro(struct jinja_run *r, const struct jnode *n)
{
    struct jmacro *m = jalloc(r, sizeof *m);
    if (!m) return jundefined(NULL);
    *m = (struct jmacro){n, r->scope};
    for (struct jscope *s = r->scope; s && !s->kept; s = s->parent)
        s->kept = true;
    return jobject(J_MACRO, m);
}

static bool is_text(const struct jname *name, const char *text, size_t n)
{
    return name->len == n && memcmp(name->text, text, n) == 0;
}

/* The value of a parameter, by place or name; else its default. */
static struct jinja_value argument(struct jinja_run *r, const struct jmacro *m, struct jargs *args,
                                   uint32_t i)
{
    const struct jnode *n = m->node;
    const struct jname *name = n->list.v[i]->name;
    uint32_t first = n->list.n - n->list2.n;
    if (i < args->n) return args->v[i];
    for (uint32_t k = 0; k < args->n_named; k++)
        if (is_text(name, args->named[k].name, args->named[k].len)) return args->named[k].value;
    if (i >= first) return jeval(r, n->list2.v[i - first]);
    return jundefined(name->text);
}

static void put_rest(struct jinja_run *r, const struct jmacro *m, struct jargs *args)
{
    const struct jnode *n = m->node;
    uint32_t n_rest = args->n > n->list.n ? args->n - n->list.n : 0;
    if (n->uses_varargs)
        put_known(r, r->scope, "varargs",
                  jlist_of_items(r, J_TUPLE, n_rest ? args->v + n->list.n : NULL, n_rest));
    else if (n_rest)
        jfail(r, "macro %.*s takes %u arguments, not %u", (int)n->name->len, n->name->text,
              n->list.n, args->n);
    struct jinja_value rest = jinja_dict(r);
    for (uint32_t k = 0; k < args->n_named && !r->code; k++) {
        const struct jarg *a = &args->named[k];
        bool known = false;
        for (uint32_t i = 0; i < n->list.n; i++)
            known = known || is_text(n->list.v[i]->name, a->name, a->len);
        if (known) continue;
        if (jname_is(a->name, a->len, "caller") && n->uses_caller)
            put_known(r, r->scope, "caller", a->value);
        else if (n->uses_kwargs)
            jdict_set(r, jdict_of(rest), jtext(r, a->name, a->len, JINJA_OWN), a->value);
        else
            jfail(r, "macro %.*s has no parameter %.*s", (int)n->name->len, n->name->text,
                  (int)a->len, a->name);
    }
    if (n->uses_kwargs) put_known(r, r->scope, "kwargs", rest);
}

struct jinja_value jrun_macro(struct jinja_run *r, const struct jmacro *m, struct jargs *args)
{
    struct jscope *outside = r->scope;
    enum jflow flow = r->flow;
    struct jinja_value v = jundefined(NULL);
    if (!open_scope(r, m->scope)) return v;
    if (m->node->uses_caller) put_known(r, r->scope, "caller", jundefined("caller"));
    put_rest(r, m, args);
    for (uint32_t i = 0; i < m->node->list.n; i++) /* what a default sees of them */
        put_var(r, r->scope, m->node->list.v[i]->name, jundefined(m->node->list.v[i]->name->text));
    for (uint32_t i = 0; i < m->node->list.n && !r->code; i++)
        put_var(r, r->scope, m->node->list.v[i]->name, argument(r, m, args, i));
    r->flow = FLOW_ON;
    if (!r->code) v = capture(r, m->node->b);
    r->flow = flow;
    r->scope = outside;
    return v;
}

static void run_call_block(struct jinja_run *r, const struct jnode *n)
{
    struct jinja_value caller = make_macro(r, n->c), f = jeval(r, n->a->a);
    struct jargs args;
    if (r->code) return;
    jeval_arguments(r, n->a, &args);
    struct jarg *named = jalloc(r, (args.n_named + (size_t)1) * sizeof *named);
    if (!named) return;
    if (args.n_named) memcpy(named, args.named, args.n_named * sizeof *named);
    named[args.n_named++] = (struct jarg){"caller", 6, caller};
    args.named = named;
    args.of = "call";
    jout_value(r, &r->out, jeval_call(r, f, &args));
}

/* ---- statements ---- */

static void run_if(struct jinja_run *r, const struct jnode *n)
{
    for (uint32_t i = 0; i + 1 < n->list.n && !r->code; i += 2)
        if (jtruth(jeval(r, n->list.v[i]))) {
            if (!r->code) jrun_block(r, n->list.v[i + 1]);
            return;
        }
    if (n->b && !r->code) jrun_block(r, n->b);
}

static void run_with(struct jinja_run *r, const struct jnode *n)
{
    struct jscope *outside = r->scope;
    struct jinja_value *values = jalloc(r, (n->list.n + 1) * sizeof *values);
    for (uint32_t i = 0; i < n->list2.n && !r->code; i++)
        values[i] = jeval(r, n->list2.v[i]);
    if (r->code || !open_scope(r, outside)) return;
    for (uint32_t i = 0; i < n->list.n && !r->code; i++)
        assign(r, n->list.v[i], values[i]);
    jrun_block(r, n->b);
    r->scope = outside;
}

/* The text of a block in a scope of its own. */
static struct jinja_value capture_scope(struct jinja_run *r, const struct jnode *body)
{
    struct jscope *outside = r->scope;
    struct jinja_value v = jundefined(NULL);
    if (open_scope(r, outside)) v = capture(r, body);
    r->scope = outside;
    return v;
}

static void run_scope(struct jinja_run *r, const struct jnode *body)
{
    struct jscope *outside = r->scope;
    if (open_scope(r, outside)) jrun_block(r, body);
    r->scope = outside;
}

static void run_statement(struct jinja_run *r, const struct jnode *n)
{
    switch ((enum jnode_kind)n->kind) {
    case N_TEXT:
        jout_str(r, &r->out, jstr_of(n->value));
        break;
    case N_PRINT:
        jout_value(r, &r->out, jeval(r, n->a));
        break;
    case N_IF:
        run_if(r, n);
        break;
    case N_FOR:
        run_for(r, n, jeval(r, n->b), 0);
        break;
    case N_SET:
        assign(r, n->a, jeval(r, n->b));
        break;
    case N_SET_BLOCK:
        assign(r, n->a, filtered(r, n->c, capture_scope(r, n->b)));
        break;
    case N_MACRO:
        put_var(r, r->scope, n->name, make_macro(r, n));
        break;
    case N_CALL_BLOCK:
        run_call_block(r, n);
        break;
    case N_FILTER_BLOCK:
        jout_value(r, &r->out, filtered(r, n->a, capture_scope(r, n->b)));
        break;
    case N_WITH:
        run_with(r, n);
        break;
    case N_SCOPE:
        run_scope(r, n->b);
        break;
    case N_BLOCK:
        jrun_block(r, n);
        break;
    case N_BREAK:
        r->flow = FLOW_BREAK;
        break;
    case N_CONTINUE:
        r->flow = FLOW_CONTINUE;
        break;
    default:
        break;
    }
}

void jrun_block(struct jinja_run *r, const struct jnode *body)
{
    if (!jdeeper(r)) return;
    for (uint32_t i = 0; i < body->list2.n && !r->code; i++) {
        const struct jname *name = body->list2.v[i]->name;
        if (!find_var(r->scope, name)) put_var(r, r->scope, name, jundefined(name->text));
    }
    for (uint32_t i = 0; i < body->list.n && !r->code && r->flow == FLOW_ON; i++) {
        r->line = body->list.v[i]->line;
        jwork(r, 1);
        run_statement(r, body->list.v[i]);
    }
    r->depth--;
}

/* ---- a run as its caller sees it ---- */

int jinja_run_new(const struct jinja_template *t, struct jinja_run **ret_run, struct err *e)
{
    struct jinja_run *r = mem_calloc(1, sizeof *r);
    if (!r) return err_set(e, ERR_NO_MEMORY, "no memory to render a chat template");
    r->t = t;
    r->line = 1;
    arena_init(&r->arena, JINJA_MEMORY_MAX);
    jout_init(&r->out);
    *ret_run = r;
    return 0;
}

void jinja_run_free(struct jinja_run *r)
{
    if (!r) return;
    jout_release(&r->out);
    arena_release(&r->arena);
    mem_free(r);
}

void jinja_run_set_time(struct jinja_run *r, int64_t seconds)
{
    r->has_now = true;
    r->now = seconds;
}

void jinja_set(struct jinja_run *r, const char *name, struct jinja_value v)
{
    put_known(r, &r->globals, name, v);
}

int jinja_render(struct jinja_run *r, struct jinja_output *ret_output, bool *ret_raised,
                 struct err *e)
{
    *ret_raised = false;
    if (!r->code && open_scope(r, &r->globals)) jrun_block(r, r->t->body);
    *ret_raised = r->raised;
    if (r->code) return err_set(e, r->code, "%s", r->err.text);
    *ret_output = (struct jinja_output){r->out.text.data, (const uint8_t *)r->out.marks.data,
                                        r->out.text.len};
    return 0;
}

uint64_t jinja_steps(const struct jinja_run *r)
{
    return r->steps;
}

bool jinja_wants_parts(const struct jinja_run *r)
{
    return r->parts_wanted;
}

bool jinja_set_all(struct jinja_run *r, struct jinja_value dict, const char *const *except,
                   size_t n, char ret_unknown[JINJA_NAME_MAX])
{
    for (uint32_t i = 0; dict.type == J_DICT && i < jdict_of(dict)->n; i++) {
        const struct jpair *p = &jdict_of(dict)->pairs[i];
        const struct jstr *key = jto_str(r, p->key);
        bool skipped = false;
        snprintf(ret_unknown, JINJA_NAME_MAX, "%.*s", (int)(key->len < 200 ? key->len : 200),
                 key->data);
        for (size_t k = 0; k < n; k++)
            skipped = skipped || jtext_is(key, except[k]);
        if (skipped) continue;
        bool known = strlen(ret_unknown) == key->len && jname_find(r->t, key->data, key->len);
        bool neutral = p->value.type == J_BOOL && p->value.as.truth;
        if (!known && !neutral) return false;
        if (known) jinja_set(r, ret_unknown, p->value);
    }
    return true;
}
