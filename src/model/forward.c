/*
 * forward: see forward.h.
 *
 * A pass is a list of phases, each a parallel-for: over rows (norms, rotation, quantisation), over
 * strips of weights (products) or over blocks of queries and KV heads (attention). A row's
 * activations are quantised where they are made, so that each is read once from the cache; what is
 * as wide as a feed-forward goes from product to quantised value inside a task.
 */
#include "model/forward.h"

#include <stddef.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/pool.h"

enum {
    ROWS_PER_TASK = 8,    /* so few rows are not worth waking a thread for */
    STRIPS_GRAIN = 2,     /* the kernels take strips in pairs */
    TASKS_PER_THREAD = 6, /* enough to even out, few enough to keep the counter cheap */
    FEW_ROWS = 8,         /* up to this many rows a task is a stream from memory: one a thread */
    MANY_ROWS = 64,       /* from this many on a pair of strips is work enough for a task */
    INNER_GRAIN = 8,      /* strips of a task inside a feed-forward then: four blocks to quantise */
    SCRATCH_FLOATS = 1 << 16, /* of gate and of up: 512 rows by 8 strips, half a megabyte in all */
    PRODUCTS_MAX = 3
};

/* One token of the pass. */
struct row {
    const struct kv_seq *kv;
    int32_t token;
    uint32_t position;
};

/* Consecutive tokens of one span whose queries attend together. */
struct query_block {
    uint32_t row, n;
};

struct product {
    const struct kern_mat *m;
    float *out; /* [rows, m->rows] */
};

/* Products of the same rows of activations. */
struct products {
    struct forward *f;
    struct product list[PRODUCTS_MAX];
    uint32_t n, rows, grain;
    struct kern_act act;
};

/* What a block made, to be added to the residual stream. */
struct made {
    float *rows;                   /* [rows, dim], or NULL */
    const float *bias, *post_norm; /* [dim] or NULL */
};

/* Mixtures of experts. A row has a slot for each expert that it chose; the slots of one expert
 * stand together, so that its matrices are read once. */
struct mixture {
    float *router;     /* [rows, experts] */
    uint32_t *chosen;  /* [rows, used] experts, the best first */
    float *weights;    /* [rows, used] */
    uint32_t *slot_of; /* [rows, used] */
    uint32_t *row_of;  /* [slots] */
    uint32_t *starts;  /* [experts + 1] first slots */
    uint32_t *active;  /* [experts] those that were chosen */
    uint32_t n_active;
    float *in, *out; /* [slots, dim] */
};

struct forward {
    const struct model *model;
    const struct hparams *h;
    const struct kern *kern;
    struct pool *pool;
    struct forward_limits limits;
    struct arena memory;
    /* [tokens] rows of the widths named */
    struct row *rows;
    float *x;            /* dim: the residual stream */
    float *normed;       /* dim */
    float *projected;    /* dim: what the last matrix of a block adds to x */
    float *q, *heads;    /* heads * head_dim: queries, and what attention makes of them */
    float *k, *v;        /* kv_heads * head_dim */
    float *hidden;       /* ff, of slots where there are experts: if down reads floats */
    float *rope;         /* rope_tables * rope_dims: cos and sin of each pair */
    void *quants;        /* the widest input of a matrix, quantised (kern_act) */
    void *hidden_quants; /* hidden, quantised */
    uint32_t quant_rows; /* rows or slots that fit into either */
    float *scratch;      /* [threads][2][scratch_floats] */
    size_t scratch_floats;
    float *logits;              /* [spans, vocab] */
    uint32_t *wanted;           /* [spans] rows whose logits are asked for */
    struct query_block *blocks; /* [tokens] */
    const void **tiles;         /* [threads][2][pages of a sequence] */
    uint32_t pages, rope_tables;
    struct mixture mixture;
    /* the current pass */
    uint32_t n_rows, n_wanted, n_blocks, block_tokens;
    uint32_t layer;
    const struct layer *w;
    const float *norm; /* weights of the current norm, or NULL */
    struct made made;  /* added to x before it */
    bool quantise;     /* the products that follow read quantised rows */
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
    f->blocks = take(f, n, sizeof *f->blocks, &ok);
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
    f->rope_tables = f->h->window > 0 ? 2 : 1;
    arena_init(&f->memory, SIZE_MAX / 4);
    uint32_t group = f->h->heads / f->h->kv_heads;
    f->block_tokens = group < KERN_QUERIES_MAX ? KERN_QUERIES_MAX / group : 1;
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
    arena_release(&f->memory);
    mem_free(f);
}

/* ---- phases over rows ---- */

typedef void row_fn(struct forward *f, uint32_t row);

struct row_job {
    struct forward *f;
    row_fn *fn;
    uint32_t n;
};

static void row_task(void *arg, uint32_t task, uint32_t worker)
{
    const struct row_job *job = arg;
    uint32_t from = task * ROWS_PER_TASK, left = job->n - from;
    (void)worker;
    for (uint32_t i = 0; i < left && i < ROWS_PER_TASK; i++)
        job->fn(job->f, from + i);
}

static void for_rows(struct forward *f, uint32_t n, row_fn *fn)
{
    struct row_job job = {f, fn, n};
    pool_run(f->pool, (n + ROWS_PER_TASK - 1) / ROWS_PER_TASK, row_task, &job);
}

/* Rows x [rows, cols] and their quantised form. */
static struct kern_act activations(const struct forward *f, const float *x, uint32_t cols)
{
    struct kern_act a;
    kern_act_init(&a, x, f->quant_rows, cols, f->quants);
    return a;
}

static struct kern_act hidden_activations(const struct forward *f)
{
    struct kern_act a;
    kern_act_init(&a, f->hidden, f->quant_rows, f->h->ff, f->hidden_quants);
    return a;
}

static void quantise_row(struct forward *f, const float *x, uint32_t cols, uint32_t row)
{
    struct kern_act a = activations(f, x, cols);
    if (f->quantise) f->kern->quantize(&a, x + (size_t)row * cols, row, 1, 0, cols / KERN_BLOCK);
}

static float *rope_table(const struct forward *f, uint32_t row, uint32_t kind)
{
    return f->rope + ((size_t)row * f->rope_tables + kind) * f->h->rope_dims;
}

static void row_embed(struct forward *f, uint32_t row)
{
    const struct hparams *h = f->h;
    const struct row *r = &f->rows[row];
    const struct weights *w = &f->model->weights;
    float *x = f->x + (size_t)row * h->dim;
    weights_embed(w, h, r->token, x);
    if (h->embed_scale != 1.0f) kern_scale(x, h->embed_scale, h->dim);
    for (uint32_t kind = 0; kind < f->rope_tables; kind++) {
        float *table = rope_table(f, row, kind);
        kern_rope_table(r->position, w->rope[kind].inverse, h->rope_dims / 2, table);
        if (w->rope[kind].magnitude != 1.0f)
            kern_scale(table, w->rope[kind].magnitude, h->rope_dims);
    }
}

/* x += what the last block made. */
static void add_made(const struct forward *f, uint32_t row)
{
    const struct hparams *h = f->h;
    const struct made *m = &f->made;
    if (!m->rows) return;
    float *x = f->x + (size_t)row * h->dim, *made = m->rows + (size_t)row * h->dim;
    if (m->bias) f->kern->add(made, m->bias, h->dim);
    if (m->post_norm) f->kern->rms_norm(made, m->post_norm, h->dim, h->norm_eps, made);
    if (h->residual_scale == 1.0f)
        f->kern->add(x, made, h->dim);
    else
        f->kern->add_scaled(x, made, h->residual_scale, h->dim);
}

/* What the next products read: normed rows, or the stream itself. */
static const float *block_input(const struct forward *f)
{
    return f->norm ? f->normed : f->x;
}

/* Take in what the last block made; then the norm that the next one starts with, if it does. */
static void row_norm(struct forward *f, uint32_t row)
{
    uint32_t dim = f->h->dim;
    float *x = f->x + (size_t)row * dim, *normed = f->normed + (size_t)row * dim;
    add_made(f, row);
    if (f->norm) f->kern->rms_norm(x, f->norm, dim, f->h->norm_eps, normed);
    quantise_row(f, block_input(f), dim, row);
}

/* The same for the i-th row whose logits are wanted; the results stand close together. */
static void row_norm_wanted(struct forward *f, uint32_t i)
{
    uint32_t dim = f->h->dim, row = f->wanted[i];
    float *x = f->x + (size_t)row * dim, *normed = f->normed + (size_t)i * dim;
    add_made(f, row);
    f->kern->rms_norm(x, f->norm, dim, f->h->norm_eps, normed);
    quantise_row(f, f->normed, dim, i);
}

/* Bias, norm and rotation of a row of queries or keys. */
static void turn(const struct forward *f, float *x, uint32_t heads, const float *bias,
                 const float *norm, const float *table)
{
    const struct hparams *h = f->h;
    uint32_t dim = heads * h->head_dim;
    if (bias) f->kern->add(x, bias, dim);
    switch (h->arch->qk_norm) {
    case QK_NORM_NONE:
        break;
    case QK_NORM_HEAD:
        for (uint32_t at = 0; at < dim; at += h->head_dim)
            f->kern->rms_norm(x + at, norm, h->head_dim, h->norm_eps, x + at);
        break;
    case QK_NORM_ROW:
        f->kern->rms_norm(x, norm, dim, h->norm_eps, x);
        break;
    }
    if (h->arch->no_rope_every && (f->layer + 1) % h->arch->no_rope_every == 0) return;
    switch (h->arch->rope) {
    case ROPE_PAIRS:
        f->kern->rope_pairs(x, heads, h->head_dim, h->rope_dims / 2, table);
        break;
    case ROPE_HALVES:
        f->kern->rope_halves(x, heads, h->head_dim, h->rope_dims / 2, table);
        break;
    }
}

static bool windowed(const struct forward *f)
{
    return f->h->window > 0 && f->h->windowed[f->layer];
}

/* Finish queries, keys and values; put keys and values into the row's page. */
static void row_store(struct forward *f, uint32_t row)
{
    const struct hparams *h = f->h;
    const struct row *r = &f->rows[row];
    const struct layer *w = f->w;
    const float *table = rope_table(f, row, windowed(f));
    uint32_t q_dim = hparams_q_dim(h), kv_dim = hparams_kv_dim(h);
    float *q = f->q + (size_t)row * q_dim, *k = f->k + (size_t)row * kv_dim;
    float *v = f->v + (size_t)row * kv_dim;
    turn(f, q, h->heads, w->q_bias, w->q_norm, table);
    turn(f, k, h->kv_heads, w->k_bias, w->k_norm, table);
    if (w->v_bias) f->kern->add(v, w->v_bias, kv_dim);
    kern_scale(q, h->attention_scale, q_dim);
    uint32_t page = r->position / KERN_TILE, slot = r->position % KERN_TILE;
    for (uint32_t head = 0; head < h->kv_heads; head++) {
        size_t at = (size_t)head * h->head_dim;
        void *k_tile = kv_k_tile(r->kv, page, f->layer, head);
        void *v_tile = kv_v_tile(r->kv, page, f->layer, head);
        kern_store_k(f->kern, kv_kind(r->kv), k + at, h->head_dim, slot, k_tile);
        kern_store_v(f->kern, kv_kind(r->kv), v + at, h->head_dim, slot, v_tile);
    }
}

static void row_quantise_heads(struct forward *f, uint32_t row)
{
    uint32_t q_dim = hparams_q_dim(f->h);
    quantise_row(f, f->heads, q_dim, row);
}

static void row_finish_logits(struct forward *f, uint32_t i)
{
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

/* Strips of a task, where each of `sets` has `strips` that threads share evenly. */
static uint32_t strips_of_task(const struct forward *f, uint32_t strips, uint32_t sets,
                               uint32_t per_thread)
{
    uint32_t threads = pool_threads(f->pool), parts = threads * per_thread * STRIPS_GRAIN;
    if (threads == 1) return strips;
    uint32_t even = (strips * sets + parts - 1) / parts * STRIPS_GRAIN;
    return even < strips ? even : strips;
}

/* out = in * m for each product of rows of the same width, quantised before when a matrix asks. */
static void multiply(struct forward *f, struct kern_act in, uint32_t rows, uint32_t n,
                     const struct product *list)
{
    struct products p = {.f = f, .n = n, .rows = rows, .act = in};
    uint32_t strips = 0, tasks = 0;
    for (uint32_t i = 0; i < n; i++) {
        p.list[i] = list[i];
        strips += list[i].m->strips;
    }
    p.grain = strips_of_task(f, strips, 1, rows <= FEW_ROWS ? 1 : TASKS_PER_THREAD);
    if (rows >= MANY_ROWS && p.grain < strips) p.grain = STRIPS_GRAIN;
    for (uint32_t i = 0; i < n; i++)
        tasks += tasks_of(&p, i);
    pool_run(f->pool, tasks, product_task, &p);
}

static bool quantised(const struct kern_mat *m)
{
    return kern_type_info(m->type)->quantised;
}

/* ---- mixtures of experts ---- */

/* Softmax of the router's scores, and the best `used` experts; on a tie the lowest id. */
static void row_route(struct forward *f, uint32_t row)
{
    const struct hparams *h = f->h;
    struct mixture *x = &f->mixture;
    float *score = x->router + (size_t)row * h->experts;
    uint32_t *chosen = x->chosen + (size_t)row * h->experts_used;
    float *weight = x->weights + (size_t)row * h->experts_used;
    float max = score[kern_argmax(score, h->experts)], total = 0.0f;
    for (uint32_t i = 0; i < h->experts; i++)
        score[i] -= max;
    f->kern->exp_row(score, h->experts);
    for (uint32_t i = 0; h->arch->plain_experts && i < h->experts; i++)
        total += score[i];
    for (uint32_t k = 0; k < h->experts_used; k++) {
        chosen[k] = kern_argmax(score, h->experts);
        weight[k] = score[chosen[k]];
        score[chosen[k]] = -1.0f;
        if (!h->arch->plain_experts) total += weight[k];
    }
    for (uint32_t k = 0; k < h->experts_used; k++)
        weight[k] = weight[k] / total * h->expert_scale;
}

/* Give every choice a slot: expert by expert, in the order of rows. */
static void group_slots(struct forward *f)
{
    struct mixture *x = &f->mixture;
    uint32_t experts = f->h->experts, n = f->n_rows * f->h->experts_used, used = f->h->experts_used;
    memset(x->starts, 0, (experts + 1u) * sizeof *x->starts);
    for (uint32_t i = 0; i < n; i++)
        x->starts[x->chosen[i] + 1]++;
    x->n_active = 0;
    for (uint32_t e = 0; e < experts; e++) {
        if (x->starts[e + 1] > 0) x->active[x->n_active++] = e;
        x->starts[e + 1] += x->starts[e];
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t slot = x->starts[x->chosen[i]]++;
        x->slot_of[i] = slot;
        x->row_of[slot] = i / used;
    }
    memmove(x->starts + 1, x->starts, experts * sizeof *x->starts); /* ends are the next starts */
    x->starts[0] = 0;
}

static void slot_gather(struct forward *f, uint32_t slot)
{
    size_t dim = f->h->dim;
    const float *from = block_input(f) + f->mixture.row_of[slot] * dim;
    memcpy(f->mixture.in + slot * dim, from, dim * sizeof *from);
    quantise_row(f, f->mixture.in, f->h->dim, slot);
}

/* All chosen experts' last products, with their slots. */
struct expert_products {
    struct forward *f;
    uint32_t grain, chunks; /* strips of a task, tasks of an expert */
    struct kern_act act;
};

static void expert_task(void *arg, uint32_t task, uint32_t worker)
{
    const struct expert_products *p = arg;
    const struct mixture *x = &p->f->mixture;
    uint32_t expert = x->active[task / p->chunks], strip = task % p->chunks * p->grain;
    const struct kern_mat *m = &p->f->w->experts[expert].down;
    uint32_t left = m->strips - strip, first = x->starts[expert];
    (void)worker;
    p->f->kern->mul[m->type](m, strip, left < p->grain ? left : p->grain, &p->act, first,
                             x->starts[expert + 1] - first, x->out, m->rows);
}

static void multiply_down(struct forward *f)
{
    struct expert_products p = {.f = f, .act = hidden_activations(f)};
    const struct kern_mat *m = &f->w->experts[0].down;
    p.grain = strips_of_task(f, m->strips, f->mixture.n_active, TASKS_PER_THREAD);
    p.chunks = (m->strips + p.grain - 1) / p.grain;
    pool_run(f->pool, f->mixture.n_active * p.chunks, expert_task, &p);
}

/* The weighted sum of what a row's experts made, the best first. */
static void row_mix(struct forward *f, uint32_t row)
{
    uint32_t dim = f->h->dim, used = f->h->experts_used;
    float *out = f->projected + (size_t)row * dim;
    memset(out, 0, dim * sizeof *out);
    for (uint32_t k = 0; k < used; k++) {
        size_t i = (size_t)row * used + k;
        f->kern->add_scaled(out, f->mixture.out + (size_t)f->mixture.slot_of[i] * dim,
                            f->mixture.weights[i], dim);
    }
}

/* ---- the inside of a feed-forward ----
 *
 * Gate and up products, and what the activation makes of them, by as many strips as a core's L2
 * holds for all rows: floats [rows, ff], three times over, would leave it. */

struct inner {
    struct forward *f;
    uint32_t grain, chunks; /* strips of a task, tasks of an expert */
    struct kern_act in, out;
};

/* Strips of one pair of matrices, and the rows that they multiply. */
struct inner_part {
    const struct kern_mat *gate, *up;
    uint32_t row, rows, strip, strips, cols; /* cols: outputs of the strips */
};

/* out [rows, cols] = in * those strips of m. */
static void multiply_part(const struct inner *p, const struct inner_part *at,
                          const struct kern_mat *m, float *out)
{
    struct kern_mat part = *m;
    part.data += part.strip_bytes * at->strip;
    part.rows -= at->strip * KERN_LANES;
    part.strips -= at->strip;
    struct kern_act in = kern_act_from(&p->in, at->row);
    p->f->kern->mul[m->type](&part, 0, at->strips, &in, 0, at->rows, out, at->cols);
}

static void activate_part(const struct inner *p, const struct inner_part *at, float *gate,
                          float *up)
{
    struct forward *f = p->f;
    const uint32_t from = at->strip * KERN_LANES, cols = at->cols;
    const float *gate_bias = f->w->gate_bias, *up_bias = f->w->up_bias;
    void (*activate)(const float *, const float *, uint32_t, float *) =
        f->h->arch->gelu ? f->kern->gelu_mul : f->kern->silu_mul;
    for (uint32_t i = 0; gate_bias && i < at->rows; i++)
        f->kern->add(gate + (size_t)i * cols, gate_bias + from, cols);
    for (uint32_t i = 0; up_bias && i < at->rows; i++)
        f->kern->add(up + (size_t)i * cols, up_bias + from, cols);
    if (f->quantise) {
        activate(gate, up, at->rows * cols, gate);
        f->kern->quantize(&p->out, gate, at->row, at->rows, from / KERN_BLOCK, cols / KERN_BLOCK);
        return;
    }
    for (size_t i = 0; i < at->rows; i++)
        activate(gate + i * cols, up + i * cols, cols, f->hidden + (at->row + i) * f->h->ff + from);
}

/* The rows and matrices of a layer, or of one of its chosen experts. */
static struct inner_part inner_part_of(const struct forward *f, uint32_t i)
{
    const struct mixture *x = &f->mixture;
    if (!f->h->experts) return (struct inner_part){&f->w->gate, &f->w->up, .rows = f->n_rows};
    const struct expert *e = &f->w->experts[x->active[i]];
    uint32_t first = x->starts[x->active[i]];
    return (struct inner_part){&e->gate, &e->up, .row = first,
                               .rows = x->starts[x->active[i] + 1] - first};
}

static void inner_task(void *arg, uint32_t task, uint32_t worker)
{
    const struct inner *p = arg;
    const struct forward *f = p->f;
    struct inner_part at = inner_part_of(f, task / p->chunks);
    float *gate = f->scratch + (size_t)worker * 2 * f->scratch_floats;
    float *up = gate + f->scratch_floats;
    size_t most = f->scratch_floats / ((size_t)at.rows * STRIPS_GRAIN * KERN_LANES) * STRIPS_GRAIN;
    at.strip = task % p->chunks * p->grain;
    uint32_t left = at.gate->strips - at.strip;
    if (left > p->grain) left = p->grain;
    for (; left > 0; left -= at.strips, at.strip += at.strips) {
        at.strips = left < most ? left : (uint32_t)most;
        at.cols = at.gate->rows - at.strip * KERN_LANES;
        if (at.cols > at.strips * KERN_LANES) at.cols = at.strips * KERN_LANES;
        multiply_part(p, &at, at.gate, gate);
        multiply_part(p, &at, at.up, up);
        activate_part(p, &at, gate, up);
    }
}

/* From rows [rows or slots, dim] to what down reads. */
static void run_inner(struct forward *f, const float *in, const struct kern_mat *down)
{
    struct inner p = {.f = f, .in = activations(f, in, f->h->dim), .out = hidden_activations(f)};
    uint32_t n = f->h->experts ? f->mixture.n_active : 1,
             strips = (f->h->ff + KERN_LANES - 1) / KERN_LANES;
    bool few = !f->h->experts && f->n_rows <= FEW_ROWS;
    f->quantise = quantised(down);
    p.grain = strips_of_task(f, strips, n, few ? 1 : TASKS_PER_THREAD);
    if (pool_threads(f->pool) > 1 && f->n_rows >= MANY_ROWS && p.grain > INNER_GRAIN)
        p.grain = INNER_GRAIN;
    p.chunks = (strips + p.grain - 1) / p.grain;
    pool_run(f->pool, n * p.chunks, inner_task, &p);
}

/* ---- attention ---- */

/* Queries collected for one call of the kernel. */
struct queries {
    struct kern_attend a;
    const float *q[KERN_QUERIES_MAX];
    float *out[KERN_QUERIES_MAX];
    uint32_t first[KERN_QUERIES_MAX], n[KERN_QUERIES_MAX];
};

static void flush_queries(const struct forward *f, struct queries *c)
{
    if (c->a.queries > 0) f->kern->attend(&c->a);
    c->a.queries = 0;
}

static uint32_t first_seen(uint32_t window, uint32_t position)
{
    return position >= window ? position - window + 1 : 0;
}

static void attend_task(void *arg, uint32_t task, uint32_t worker)
{
    struct forward *f = arg;
    const struct hparams *h = f->h;
    /* Head by head, whose keys stay in the cache; the last blocks, which see the most, first, so
     * that none of them is left over at the end. */
    const struct query_block *b = &f->blocks[f->n_blocks - 1 - task % f->n_blocks];
    uint32_t head = task / f->n_blocks, group = h->heads / h->kv_heads;
    const struct row *last = &f->rows[b->row + b->n - 1];
    const void **k = f->tiles + (size_t)worker * 2 * f->pages, **v = k + f->pages;
    uint32_t window = windowed(f) ? h->window : UINT32_MAX;
    for (uint32_t page = first_seen(window, f->rows[b->row].position) / KERN_TILE;
         page <= last->position / KERN_TILE; page++) {
        k[page] = kv_k_tile(last->kv, page, f->layer, head);
        v[page] = kv_v_tile(last->kv, page, f->layer, head);
    }
    struct queries c;
    c.a = (struct kern_attend){.head_dim = h->head_dim,
                               .softcap = h->attention_cap,
                               .q = c.q,
                               .out = c.out,
                               .first = c.first,
                               .n = c.n,
                               .k_tiles = k,
                               .v_tiles = v,
                               .kv = kv_kind(last->kv)};
    for (uint32_t row = b->row; row < b->row + b->n; row++) {
        for (uint32_t g = 0; g < group; g++) {
            size_t at = (size_t)row * hparams_q_dim(h) + (size_t)(head * group + g) * h->head_dim;
            uint32_t i = c.a.queries++;
            c.q[i] = f->q + at;
            c.out[i] = f->heads + at;
            c.first[i] = first_seen(window, f->rows[row].position);
            c.n[i] = f->rows[row].position + 1;
            if (c.a.queries == KERN_QUERIES_MAX) flush_queries(f, &c);
        }
    }
    flush_queries(f, &c);
}

/* ---- the pass ---- */

static void list_rows(struct forward *f, const struct forward_span *spans, uint32_t n)
{
    CHECK(n <= f->limits.spans);
    f->n_rows = f->n_wanted = f->n_blocks = 0;
    for (uint32_t s = 0; s < n; s++) {
        const struct forward_span *span = &spans[s];
        CHECK(span->n >= 1 && span->n <= f->limits.tokens - f->n_rows);
        CHECK(span->n <= span->kv->pages_used * KERN_TILE - span->kv->len);
        for (uint32_t i = 0; i < span->n; i += f->block_tokens) {
            uint32_t left = span->n - i;
            f->blocks[f->n_blocks++] = (struct query_block){
                f->n_rows + i, left < f->block_tokens ? left : f->block_tokens};
        }
        for (uint32_t i = 0; i < span->n; i++)
            f->rows[f->n_rows++] = (struct row){span->kv, span->tokens[i], span->kv->len + i};
        if (span->want) f->wanted[f->n_wanted++] = f->n_rows - 1;
    }
}

/* In the last layer, once keys and values of all rows are stored, only rows whose logits are wanted
 * go on: they move to the front, each a block of its own. */
static void keep_wanted(struct forward *f)
{
    size_t dim = f->h->dim, q_dim = hparams_q_dim(f->h);
    if (f->n_wanted == f->n_rows) return;
    for (uint32_t i = 0; i < f->n_wanted; i++) {
        uint32_t row = f->wanted[i]; /* >= i, as rows are wanted in order */
        memmove(f->x + i * dim, f->x + row * dim, dim * sizeof *f->x);
        memmove(f->q + i * q_dim, f->q + row * q_dim, q_dim * sizeof *f->q);
        f->rows[i] = f->rows[row];
        f->blocks[i] = (struct query_block){i, 1};
        f->wanted[i] = i;
    }
    f->n_rows = f->n_blocks = f->n_wanted;
}

static void run_attention(struct forward *f, const struct layer *w)
{
    f->norm = w->attn_norm;
    f->quantise = quantised(&w->q) || quantised(&w->k) || quantised(&w->v);
    for_rows(f, f->n_rows, row_norm);
    multiply(f, activations(f, block_input(f), f->h->dim), f->n_rows, 3,
             (struct product[]){{&w->q, f->q}, {&w->k, f->k}, {&w->v, f->v}});
    for_rows(f, f->n_rows, row_store);
    if (f->layer + 1 == f->h->layers) keep_wanted(f);
    if (f->n_rows == 0) return;
    pool_run(f->pool, f->n_blocks * f->h->kv_heads, attend_task, f);
    f->quantise = quantised(&w->o);
    if (f->quantise) for_rows(f, f->n_rows, row_quantise_heads);
    multiply(f, activations(f, f->heads, hparams_q_dim(f->h)), f->n_rows, 1,
             &(struct product){&w->o, f->projected});
    f->made = (struct made){f->projected, w->o_bias, w->attn_post_norm};
}

static void run_feed_forward(struct forward *f, const struct layer *w)
{
    f->norm = w->ffn_norm;
    f->quantise = quantised(&w->gate) || quantised(&w->up);
    for_rows(f, f->n_rows, row_norm);
    run_inner(f, block_input(f), &w->down);
    multiply(f, hidden_activations(f), f->n_rows, 1, &(struct product){&w->down, f->projected});
    f->made = (struct made){f->projected, w->down_bias, w->ffn_post_norm};
}

static void run_experts(struct forward *f, const struct layer *w)
{
    const struct expert *e = w->experts;
    uint32_t slots = f->n_rows * f->h->experts_used;
    f->norm = w->ffn_norm;
    f->quantise = quantised(&w->router);
    for_rows(f, f->n_rows, row_norm);
    multiply(f, activations(f, block_input(f), f->h->dim), f->n_rows, 1,
             &(struct product){&w->router, f->mixture.router});
    for_rows(f, f->n_rows, row_route);
    group_slots(f);
    f->quantise = quantised(&e->gate) || quantised(&e->up);
    for_rows(f, slots, slot_gather);
    run_inner(f, f->mixture.in, &e->down);
    multiply_down(f);
    for_rows(f, f->n_rows, row_mix);
    f->made = (struct made){f->projected, NULL, w->ffn_post_norm};
}

static void run_head(struct forward *f)
{
    const struct hparams *h = f->h;
    const struct weights *w = &f->model->weights;
    if (f->n_wanted == 0) return;
    f->norm = w->output_norm;
    f->quantise = quantised(&w->output);
    for_rows(f, f->n_wanted, row_norm_wanted);
    multiply(f, activations(f, f->normed, f->h->dim), f->n_wanted, 1,
             &(struct product){&w->output, f->logits});
    if (w->output_bias || h->logit_scale != 1.0f || h->logit_cap > 0.0f)
        for_rows(f, f->n_wanted, row_finish_logits);
}

void forward_run(struct forward *f, struct forward_span *spans, uint32_t n)
{
    list_rows(f, spans, n);
    for_rows(f, f->n_rows, row_embed);
    f->made = (struct made){0};
    for (f->layer = 0; f->layer < f->h->layers; f->layer++) {
        f->w = &f->model->weights.layers[f->layer];
        run_attention(f, f->w);
        if (f->n_rows > 0) (f->h->experts ? run_experts : run_feed_forward)(f, f->w);
    }
    run_head(f);
    uint32_t logits = 0;
    for (uint32_t s = 0; s < n; s++) {
        kv_seq_advance(spans[s].kv, spans[s].n);
        spans[s].logits = spans[s].want ? f->logits + (size_t)logits++ * f->h->vocab : NULL;
    }
}
