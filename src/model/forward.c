/* forward: memory, rows and the order of blocks; see forward.h and forward_impl.h. */
#include "model/forward_impl.h"

#include <stddef.h>
#include <string.h>

#include "base/check.h"

enum {
    ROWS_PER_TASK = 8,       /* fewer rows are not worth waking a thread for */
    SCRATCH_FLOATS = 1 << 16 /* of gate and of up: 512 rows by 8 strips, half a megabyte in all */
};

/* Products of the same rows of activations. */
struct products {
    const struct forward *f;
    struct product list[PRODUCTS_MAX];
    uint32_t n, rows, grain;
    struct kern_act act;
};

struct kv_shape forward_kv_shape(const struct model *m)
{
    uint32_t head_dim = m->hparams.head_dim;
    return (struct kv_shape){.layers = m->hparams.layers,
                             .kv_heads = m->hparams.kv_heads,
                             .head_dim = head_dim,
                             .kv = head_dim % kern_kv_multiple(KERN_KV_I16) ? KERN_KV_F16
                                                                            : KERN_KV_I16};
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Memory of [count] things of `size`; the first failure leaves `ok` false. */
static void *take(struct forward *f, size_t count, size_t size, bool *ok)
{
    void *memory = arena_alloc(&f->memory, count * size, 64);
    *ok = *ok && memory;
    return memory;
}

static bool take_mixture(struct forward *f)
{
    const struct hparams *h = f->h;
    struct mixture *x = &f->mixture;
    size_t n = f->limits.tokens, slots = n * h->experts_used;
    bool ok = true;
    if (h->experts == 0) return true;
    x->router = take(f, n * h->experts, sizeof(float), &ok);
    x->chosen = take(f, slots, sizeof *x->chosen, &ok);
    x->weights = take(f, slots, sizeof *x->weights, &ok);
    x->slot_of = take(f, slots, sizeof *x->slot_of, &ok);
    x->row_of = take(f, slots, sizeof *x->row_of, &ok);
    x->starts = take(f, h->experts + 1u, sizeof *x->starts, &ok);
    x->active = take(f, h->experts, sizeof *x->active, &ok);
    x->in = take(f, slots * h->dim, sizeof(float), &ok);
    x->out = take(f, slots * h->dim, sizeof(float), &ok);
    return ok;
}

static bool take_all(struct forward *f)
{
    const struct hparams *h = f->h;
    size_t n = f->limits.tokens, q_dim = hparams_q_dim(h), kv_dim = hparams_kv_dim(h);
    size_t widest = max_u32(h->dim, hparams_q_dim(h));
    size_t slots = h->experts ? n * h->experts_used : n;
    bool ok = take_mixture(f);
    f->rows = take(f, n, sizeof *f->rows, &ok);
    f->x = take(f, n * h->dim, sizeof(float), &ok);
    f->normed = take(f, n * h->dim, sizeof(float), &ok);
    f->projected = take(f, n * h->dim, sizeof(float), &ok);
    f->q = take(f, n * q_dim, sizeof(float), &ok);
    f->heads = take(f, n * q_dim, sizeof(float), &ok);
    f->k = take(f, n * kv_dim, sizeof(float), &ok);
    f->v = take(f, n * kv_dim, sizeof(float), &ok);
    f->hidden = take(f, slots * h->ff, sizeof(float), &ok);
    f->rope = take(f, n * f->rope_tables * h->rope_dims, sizeof(float), &ok);
    f->quant_rows = (uint32_t)slots;
    f->quants = take(f, 1, kern_act_bytes(f->quant_rows, (uint32_t)widest), &ok);
    f->hidden_quants = take(f, 1, kern_act_bytes(f->quant_rows, h->ff), &ok);
    f->scratch_floats = max_u32(SCRATCH_FLOATS, f->limits.tokens * STRIPS_GRAIN * KERN_LANES);
    f->scratch = take(f, pool_threads(f->pool) * 2 * f->scratch_floats, sizeof(float), &ok);
    f->logits = take(f, (size_t)f->limits.spans * h->vocab, sizeof(float), &ok);
    f->wanted = take(f, f->limits.spans, sizeof *f->wanted, &ok);
    f->scored = take(f, f->limits.spans, sizeof *f->scored, &ok);
    f->query_blocks = take(f, n, sizeof *f->query_blocks, &ok);
    f->tiles = take(f, (size_t)pool_threads(f->pool) * 2 * f->pages, sizeof *f->tiles, &ok);
    return ok;
}

int forward_open(const struct model *m, const struct kern *kern, struct pool *pool,
                 const struct forward_limits *limits, struct forward **ret_forward, struct err *e)
{
    if (limits->tokens == 0 || limits->tokens > FORWARD_TOKENS_MAX)
        return err_set(e, ERR_LIMIT, "a step of %u tokens: it must be between 1 and %d",
                       limits->tokens, FORWARD_TOKENS_MAX);
    struct forward *f = mem_calloc(1, sizeof *f);
    if (!f) return err_set(e, ERR_NO_MEMORY, "no memory for the forward pass");
    f->model = m;
    f->h = &m->hparams;
    f->kern = kern;
    f->pool = pool;
    f->limits = *limits;
    f->pages = limits->positions / KERN_TILE + 1;
    f->score_layer = forward_score_layer(f->h);
    f->rope_tables = f->h->window > 0 ? 2 : 1;
    arena_init(&f->memory, SIZE_MAX / 4);
    uint32_t group = f->h->heads / f->h->kv_heads;
    f->query_block_tokens = group < KERN_QUERIES_MAX ? KERN_QUERIES_MAX / group : 1;
    if (!take_all(f)) {
        forward_close(f);
        return err_set(e, ERR_NO_MEMORY, "no memory for steps of %u tokens: ask for fewer",
                       limits->tokens);
    }
    *ret_forward = f;
    return 0;
}

void forward_close(struct forward *f)
{
    if (!f) return;
    forward_score_close(f);
    arena_release(&f->memory);
    mem_free(f);
}

/* ---- phases over rows ---- */

struct row_phase {
    struct forward *f;
    const struct block *block;
    row_fn *fn;
    uint32_t n;
};

static void row_task(void *arg, uint32_t task, uint32_t worker)
{
    const struct row_phase *p = arg;
    uint32_t from = task * ROWS_PER_TASK, left = p->n - from;
    (void)worker;
    for (uint32_t i = 0; i < left && i < ROWS_PER_TASK; i++)
        p->fn(p->f, p->block, from + i);
}

void forward_rows(struct forward *f, const struct block *b, uint32_t n, row_fn *fn)
{
    struct row_phase p = {f, b, fn, n};
    pool_run(f->pool, (n + ROWS_PER_TASK - 1) / ROWS_PER_TASK, row_task, &p);
}

struct kern_act forward_act(const struct forward *f, const float *x, uint32_t cols)
{
    struct kern_act a;
    kern_act_init(&a, x, f->quant_rows, cols, f->quants);
    return a;
}

struct kern_act forward_hidden_act(const struct forward *f)
{
    struct kern_act a;
    kern_act_init(&a, f->hidden, f->quant_rows, f->h->ff, f->hidden_quants);
    return a;
}

void forward_quantise_row(struct forward *f, const float *x, uint32_t cols, uint32_t row)
{
    struct kern_act a = forward_act(f, x, cols);
    f->kern->quantize(&a, x + (size_t)row * cols, row, 1, 0, cols / KERN_BLOCK);
}

float *forward_rope_table(const struct forward *f, uint32_t row, uint32_t kind)
{
    return f->rope + ((size_t)row * f->rope_tables + kind) * f->h->rope_dims;
}

static void embed_row(struct forward *f, const struct block *b, uint32_t row)
{
    (void)b;
    const struct hparams *h = f->h;
    const struct token_row *r = &f->rows[row];
    const struct weights *w = &f->model->weights;
    float *x = f->x + (size_t)row * h->dim;
    weights_embed(w, h, r->token, x);
    if (h->embed_scale != 1.0f) kern_scale(x, h->embed_scale, h->dim);
    for (uint32_t kind = 0; kind < f->rope_tables; kind++) {
        float *table = forward_rope_table(f, row, kind);
        kern_rope_table(r->position, w->rope[kind].inverse, h->rope_dims / 2, table);
        if (w->rope[kind].magnitude != 1.0f)
            kern_scale(table, w->rope[kind].magnitude, h->rope_dims);
    }
}

/* x += what the last block made. */
static void add_made(const struct forward *f, const struct made *m, uint32_t row)
{
    const struct hparams *h = f->h;
    if (!m->rows) return;
    float *x = f->x + (size_t)row * h->dim, *made = m->rows + (size_t)row * h->dim;
    if (m->bias) f->kern->add(made, m->bias, h->dim);
    if (m->post_norm) f->kern->rms_norm(made, m->post_norm, h->dim, h->norm_eps, made);
    if (h->residual_scale == 1.0f)
        f->kern->add(x, made, h->dim);
    else
        f->kern->add_scaled(x, made, h->residual_scale, h->dim);
}

const float *forward_input(const struct forward *f, const struct block *b)
{
    return b->norm ? f->normed : f->x;
}

void forward_begin_row(struct forward *f, const struct block *b, uint32_t row)
{
    uint32_t dim = f->h->dim;
    float *x = f->x + (size_t)row * dim, *normed = f->normed + (size_t)row * dim;
    add_made(f, &b->made, row);
    if (b->norm) f->kern->rms_norm(x, b->norm, dim, f->h->norm_eps, normed);
    if (b->quantise) forward_quantise_row(f, forward_input(f, b), dim, row);
}

/* The same for the i-th row whose logits are wanted; the results stand close together. */
static void begin_wanted(struct forward *f, const struct block *b, uint32_t i)
{
    uint32_t dim = f->h->dim, row = f->wanted[i];
    float *x = f->x + (size_t)row * dim, *normed = f->normed + (size_t)i * dim;
    add_made(f, &b->made, row);
    f->kern->rms_norm(x, b->norm, dim, f->h->norm_eps, normed);
    if (b->quantise) forward_quantise_row(f, f->normed, dim, i);
}

static void finish_logits(struct forward *f, const struct block *b, uint32_t i)
{
    (void)b;
    const struct hparams *h = f->h;
    const float *bias = f->model->weights.output_bias;
    float *logits = f->logits + (size_t)i * h->vocab;
    if (bias) f->kern->add(logits, bias, h->vocab);
    if (h->logit_scale != 1.0f) kern_scale(logits, h->logit_scale, h->vocab);
    if (h->logit_cap > 0.0f) f->kern->cap_row(logits, h->vocab, h->logit_cap);
}

/* ---- products ---- */

static uint32_t tasks_of(const struct products *p, uint32_t i)
{
    return (p->list[i].m->strips + p->grain - 1) / p->grain;
}

static void product_task(void *arg, uint32_t task, uint32_t worker)
{
    const struct products *p = arg;
    uint32_t i = 0;
    (void)worker;
    for (uint32_t n; task >= (n = tasks_of(p, i)); i++)
        task -= n;
    const struct kern_mat *m = p->list[i].m;
    uint32_t strip = task * p->grain, left = m->strips - strip;
    p->f->kern->mul[m->type](m, strip, left < p->grain ? left : p->grain, &p->act, 0, p->rows,
                             p->list[i].out, m->rows);
}

uint32_t forward_strips_of_task(const struct forward *f, uint32_t strips, uint32_t sets,
                                uint32_t per_thread)
{
    uint32_t threads = pool_threads(f->pool), parts = threads * per_thread * STRIPS_GRAIN;
    if (threads == 1) return strips;
    uint32_t even = (strips * sets + parts - 1) / parts * STRIPS_GRAIN;
    return even < strips ? even : strips;
}

void forward_multiply(struct forward *f, struct kern_act in, uint32_t rows, uint32_t n,
                      const struct product *list)
{
    struct products p = {.f = f, .n = n, .rows = rows, .act = in};
    uint32_t strips = 0, tasks = 0;
    for (uint32_t i = 0; i < n; i++) {
        p.list[i] = list[i];
        strips += list[i].m->strips;
    }
    p.grain = forward_strips_of_task(f, strips, 1, rows <= FEW_ROWS ? 1 : TASKS_PER_THREAD);
    if (rows >= MANY_ROWS && p.grain < strips) p.grain = STRIPS_GRAIN;
    for (uint32_t i = 0; i < n; i++)
        tasks += tasks_of(&p, i);
    pool_run(f->pool, tasks, product_task, &p);
}

/* ---- the pass ---- */

static void list_rows(struct forward *f, const struct forward_span *spans, uint32_t n)
{
    CHECK(n <= f->limits.spans);
    f->n_rows = f->n_wanted = f->n_query_blocks = f->n_scored = 0;
    for (uint32_t s = 0; s < n; s++) {
        const struct forward_span *span = &spans[s];
        CHECK(span->n >= 1 && span->n <= f->limits.tokens - f->n_rows);
        CHECK(span->n <= span->kv->pages_used * KERN_TILE - span->kv->len);
        for (uint32_t i = 0; i < span->n; i += f->query_block_tokens) {
            uint32_t left = span->n - i;
            f->query_blocks[f->n_query_blocks++] = (struct query_block){
                f->n_rows + i, left < f->query_block_tokens ? left : f->query_block_tokens};
        }
        forward_score_list(f, span, f->n_rows);
        for (uint32_t i = 0; i < span->n; i++)
            f->rows[f->n_rows++] = (struct token_row){span->kv, span->tokens[i], span->kv->len + i};
        CHECK(span->want <= span->n && span->want <= f->limits.spans - f->n_wanted);
        for (uint32_t i = span->want; i > 0; i--)
            f->wanted[f->n_wanted++] = f->n_rows - i;
    }
}

/* In the last layer, once keys and values of all rows are stored, only rows whose logits are wanted
 * go on: they move to the front, each a block of its own. */
void forward_keep_wanted(struct forward *f)
{
    size_t dim = f->h->dim, q_dim = hparams_q_dim(f->h);
    if (f->n_wanted == f->n_rows) return;
    for (uint32_t i = 0; i < f->n_wanted; i++) {
        uint32_t row = f->wanted[i]; /* >= i, as rows are wanted in order */
        memmove(f->x + i * dim, f->x + row * dim, dim * sizeof *f->x);
        memmove(f->q + i * q_dim, f->q + row * q_dim, q_dim * sizeof *f->q);
        f->rows[i] = f->rows[row];
        f->query_blocks[i] = (struct query_block){i, 1};
        f->wanted[i] = i;
    }
    f->n_rows = f->n_query_blocks = f->n_wanted;
}

static void run_head(struct forward *f, struct made made)
{
    const struct hparams *h = f->h;
    const struct weights *w = &f->model->weights;
    const struct block b = {
        .norm = w->output_norm, .quantise = forward_quantised(&w->output), .made = made};
    if (f->n_wanted == 0) return;
    forward_rows(f, &b, f->n_wanted, begin_wanted);
    forward_multiply(f, forward_act(f, f->normed, h->dim), f->n_wanted, 1,
                     &(struct product){&w->output, f->logits});
    if (w->output_bias || h->logit_scale != 1.0f || h->logit_cap > 0.0f)
        forward_rows(f, &b, f->n_wanted, finish_logits);
}

void forward_run(struct forward *f, struct forward_span *spans, uint32_t n)
{
    struct made made = {0};
    list_rows(f, spans, n);
    forward_rows(f, NULL, f->n_rows, embed_row);
    for (uint32_t layer = 0; layer < f->h->layers; layer++) {
        made = forward_attention(f, layer, made);
        if (f->n_rows > 0) made = (f->h->experts ? forward_experts : forward_ffn)(f, layer, made);
    }
    run_head(f, made);
    uint32_t logits = 0;
    for (uint32_t s = 0; s < n; s++) {
        kv_seq_advance(spans[s].kv, spans[s].n);
        logits += spans[s].want;
        spans[s].logits = spans[s].want ? f->logits + (size_t)(logits - 1) * f->h->vocab : NULL;
    }
}
