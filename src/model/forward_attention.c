/*
 * forward_attention: the attention block of a layer. Queries, keys and values of all rows; keys and
 * values into the pages; then each query block with each KV head is a task.
 */
#include "model/forward_impl.h"

/* Bias, norm and rotation of a row of queries or keys. */
static void finish_heads(const struct forward *f, const struct block *b, float *x, uint32_t heads,
                         const float *bias, const float *norm, const float *table)
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
    if (h->arch->no_rope_every && (b->layer + 1) % h->arch->no_rope_every == 0) return;
    switch (h->arch->rope) {
    case ROPE_PAIRS:
        f->kern->rope_pairs(x, heads, h->head_dim, h->rope_dims / 2, table);
        break;
    case ROPE_HALVES:
        f->kern->rope_halves(x, heads, h->head_dim, h->rope_dims / 2, table);
        break;
    }
}

static bool windowed(const struct forward *f, const struct block *b)
{
    return f->h->window > 0 && f->h->windowed[b->layer];
}

/* Finish queries, keys and values; put keys and values into the row's page. */
static void store_row(struct forward *f, const struct block *b, uint32_t row)
{
    const struct hparams *h = f->h;
    const struct token_row *r = &f->rows[row];
    const struct layer *w = b->w;
    const float *table = forward_rope_table(f, row, windowed(f, b));
    uint32_t q_dim = hparams_q_dim(h), kv_dim = hparams_kv_dim(h);
    float *q = f->q + (size_t)row * q_dim, *k = f->k + (size_t)row * kv_dim;
    float *v = f->v + (size_t)row * kv_dim;
    finish_heads(f, b, q, h->heads, w->q_bias, w->q_norm, table);
    finish_heads(f, b, k, h->kv_heads, w->k_bias, w->k_norm, table);
    if (w->v_bias) f->kern->add(v, w->v_bias, kv_dim);
    kern_scale(q, h->attention_scale, q_dim);
    uint32_t page = r->position / KERN_TILE, slot = r->position % KERN_TILE;
    for (uint32_t head = 0; head < h->kv_heads; head++) {
        size_t at = (size_t)head * h->head_dim;
        void *k_tile = kv_k_tile(r->kv, page, b->layer, head);
        void *v_tile = kv_v_tile(r->kv, page, b->layer, head);
        kern_store_k(f->kern, kv_kind(r->kv), k + at, h->head_dim, slot, k_tile);
        kern_store_v(f->kern, kv_kind(r->kv), v + at, h->head_dim, slot, v_tile);
    }
}

static void quantise_heads(struct forward *f, const struct block *b, uint32_t row)
{
    (void)b;
    forward_quantise_row(f, f->heads, hparams_q_dim(f->h), row);
}

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

struct attend_tasks {
    const struct forward *f;
    const struct block *block;
};

static void attend_task(void *arg, uint32_t task, uint32_t worker)
{
    const struct attend_tasks *t = arg;
    const struct forward *f = t->f;
    const struct hparams *h = f->h;
    /* Head by head, whose keys stay in the cache; the last blocks, which see the most, first, so
     * that none of them is left over at the end. */
    const struct query_block *b =
        &f->query_blocks[f->n_query_blocks - 1 - task % f->n_query_blocks];
    uint32_t head = task / f->n_query_blocks, group = h->heads / h->kv_heads;
    const struct token_row *last = &f->rows[b->row + b->n - 1];
    const void **k = f->tiles + (size_t)worker * 2 * f->pages, **v = k + f->pages;
    uint32_t window = windowed(f, t->block) ? h->window : UINT32_MAX;
    for (uint32_t page = first_seen(window, f->rows[b->row].position) / KERN_TILE;
         page <= last->position / KERN_TILE; page++) {
        k[page] = kv_k_tile(last->kv, page, t->block->layer, head);
        v[page] = kv_v_tile(last->kv, page, t->block->layer, head);
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

struct made forward_attention(struct forward *f, uint32_t layer, struct made made)
{
    const struct layer *w = &f->model->weights.layers[layer];
    const struct block b = {.w = w,
                            .layer = layer,
                            .norm = w->attn_norm,
                            .quantise = forward_quantised(&w->q) || forward_quantised(&w->k) ||
                                        forward_quantised(&w->v),
                            .made = made};
    struct attend_tasks tasks = {f, &b};
    forward_rows(f, &b, f->n_rows, forward_begin_row);
    forward_multiply(f, forward_act(f, forward_input(f, &b), f->h->dim), f->n_rows, 3,
                     (struct product[]){{&w->q, f->q}, {&w->k, f->k}, {&w->v, f->v}});
    forward_rows(f, &b, f->n_rows, store_row);
    if (f->n_scored > 0) forward_score(f, layer);
    if (layer + 1 == f->h->layers) forward_keep_wanted(f);
    if (f->n_rows == 0) return (struct made){0};
    pool_run(f->pool, f->n_query_blocks * f->h->kv_heads, attend_task, &tasks);
    if (forward_quantised(&w->o)) forward_rows(f, &b, f->n_rows, quantise_heads);
    forward_multiply(f, forward_act(f, f->heads, hparams_q_dim(f->h)), f->n_rows, 1,
                     &(struct product){&w->o, f->projected});
    return (struct made){f->projected, w->o_bias, w->attn_post_norm};
}
