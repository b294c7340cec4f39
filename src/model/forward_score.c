/*
 * forward_score: how much the last queries of a prompt attend to its positions (forward.h). A phase
 * of the attention block of layers that see everything, from the first quarter of all layers on,
 * once the keys of all rows are stored.
 *
 * A score is a maximum, which needs no order: each thread has its own record, and a second phase
 * merges them. So chunks, threads and other spans change no bit.
 */
#include "model/forward_impl.h"

enum { MERGED_AT_ONCE = 4096 /* positions of a task */ };

struct score_tasks {
    const struct forward *f;
    const struct scored *s;
    uint32_t layer, rows_per_task, parts;
};

static bool sees_all(const struct hparams *h, uint32_t layer)
{
    return h->window == 0 || !h->windowed[layer];
}

/* Early layers attend to places more than to meaning. */
uint32_t forward_score_layer(const struct hparams *h)
{
    uint32_t from = h->layers / 4;
    for (uint32_t layer = from; layer < h->layers; layer++)
        if (sees_all(h, layer)) return from;
    for (uint32_t layer = 0; layer < from; layer++)
        if (sees_all(h, layer)) return layer;
    return h->layers;
}

int forward_score_open(struct forward *f, struct err *e)
{
    size_t threads = pool_threads(f->pool), row = (size_t)f->pages * KERN_TILE;
    if (f->score_layer == f->h->layers)
        return err_set(e, ERR_UNSUPPORTED, "no layer of the model sees the whole prompt");
    if (f->score_best) return 0;
    f->score_best = mem_calloc(threads * row, sizeof *f->score_best);
    f->score_rows = mem_alloc(threads * KERN_WEIGH_ROWS * row * sizeof *f->score_rows);
    if (f->score_best && f->score_rows) return 0;
    forward_score_close(f);
    return err_set(e, ERR_NO_MEMORY, "no memory to score a prompt");
}

void forward_score_close(struct forward *f)
{
    mem_free(f->score_best);
    mem_free(f->score_rows);
    f->score_best = f->score_rows = NULL;
}

void forward_score_list(struct forward *f, const struct forward_span *span, uint32_t row)
{
    const struct forward_score *s = span->score;
    if (!s || span->kv->len + span->n <= s->first) return;
    uint32_t skip = span->kv->len < s->first ? s->first - span->kv->len : 0;
    CHECK(f->score_best && s->first < s->n && s->n <= f->limits.positions);
    f->scored[f->n_scored++] = (struct scored){s, row + skip, span->n - skip};
}

static float ramp(const struct forward_score *s, uint32_t position)
{
    uint32_t at = position - s->first + 1;
    return at < s->ramp ? (float)at / (float)s->ramp : 1.0f;
}

/* Some rows with the heads of one KV head. */
static void score_task(void *arg, uint32_t task, uint32_t worker)
{
    const struct score_tasks *t = arg;
    const struct forward *f = t->f;
    const struct hparams *h = f->h;
    const uint32_t head = task / t->parts, begin = task % t->parts * t->rows_per_task;
    const uint32_t group = h->heads / h->kv_heads, left = t->s->n - begin;
    const uint32_t rows = left < t->rows_per_task ? left : t->rows_per_task;
    const struct token_row *first = &f->rows[t->s->row + begin], *last = first + rows - 1;
    const size_t row_floats = (size_t)f->pages * KERN_TILE;
    const void **k = f->tiles + (size_t)worker * 2 * f->pages;
    const float *q[KERN_WEIGH_ROWS];
    float factor[KERN_WEIGH_ROWS];
    uint32_t n[KERN_WEIGH_ROWS];
    for (uint32_t page = 0; page <= last->position / KERN_TILE; page++)
        k[page] = kv_k_tile(last->kv, page, t->layer, head);
    struct kern_weigh g = {.head_dim = h->head_dim,
                           .softcap = h->attention_cap,
                           .q = q,
                           .n = n,
                           .factor = factor,
                           .k_tiles = k,
                           .kv = kv_kind(last->kv),
                           .rows = f->score_rows + worker * KERN_WEIGH_ROWS * row_floats,
                           .row_floats = row_floats,
                           .best = f->score_best + worker * row_floats,
                           .best_tiles = (t->s->score->n + KERN_TILE - 1) / KERN_TILE};
    for (uint32_t i = 0; i < rows * group; i++) {
        const uint32_t row = i / group;
        q[g.queries] = f->q + (t->s->row + begin + row) * (size_t)hparams_q_dim(h) +
                       (size_t)(head * group + i % group) * h->head_dim;
        factor[g.queries] = ramp(t->s->score, first[row].position);
        n[g.queries++] = first[row].position + 1;
        if (g.queries < KERN_WEIGH_ROWS && i + 1 < rows * group) continue;
        f->kern->weigh(&g);
        g.queries = 0;
    }
}

/* The records of all threads into the span's; they are empty again. */
static void merge_task(void *arg, uint32_t task, uint32_t worker)
{
    const struct score_tasks *t = arg;
    const struct forward_score *s = t->s->score;
    const uint32_t from = task * MERGED_AT_ONCE, end = (s->n + KERN_TILE - 1) & ~(KERN_TILE - 1u);
    const uint32_t n = end - from < MERGED_AT_ONCE ? end - from : MERGED_AT_ONCE;
    (void)worker;
    for (uint32_t thread = 0; thread < pool_threads(t->f->pool); thread++) {
        float *mine = t->f->score_best + (size_t)thread * t->f->pages * KERN_TILE + from;
        for (uint32_t i = 0; i < n; i++)
            s->best[from + i] = mine[i] > s->best[from + i] ? mine[i] : s->best[from + i];
        memset(mine, 0, n * sizeof *mine);
    }
}

void forward_score(struct forward *f, uint32_t layer)
{
    const uint32_t group = f->h->heads / f->h->kv_heads;
    if (layer < f->score_layer || !sees_all(f->h, layer)) return;
    for (uint32_t i = 0; i < f->n_scored; i++) {
        struct score_tasks t = {.f = f, .s = &f->scored[i], .layer = layer};
        t.rows_per_task = group < KERN_WEIGH_ROWS ? KERN_WEIGH_ROWS / group : 1;
        t.parts = (t.s->n + t.rows_per_task - 1) / t.rows_per_task;
        pool_run(f->pool, t.parts * f->h->kv_heads, score_task, &t);
        pool_run(f->pool, (t.s->score->n + MERGED_AT_ONCE - 1) / MERGED_AT_ONCE, merge_task, &t);
    }
}
