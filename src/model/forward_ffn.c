/*
 * forward_ffn: the feed-forward block of a layer, one for all rows or a mixture of experts. What is
 * as wide as a feed-forward goes from product to quantised value inside a task.
 */
#include <string.h>

#include "model/forward_impl.h"

enum { INNER_GRAIN = 8 /* strips of a task inside, of many rows: four blocks to quantise */ };

/* ---- mixtures of experts ---- */

/* Softmax of the router's scores, and the best `used` experts; on a tie the lowest id. */
static void route_row(struct forward *f, const struct block *b, uint32_t row)
{
    (void)b;
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

static bool slots_quantised(const struct layer *w)
{
    return forward_quantised(&w->experts[0].gate) || forward_quantised(&w->experts[0].up);
}

static void gather_slot(struct forward *f, const struct block *b, uint32_t slot)
{
    size_t dim = f->h->dim;
    const float *from = forward_input(f, b) + f->mixture.row_of[slot] * dim;
    memcpy(f->mixture.in + slot * dim, from, dim * sizeof *from);
    if (slots_quantised(b->w)) forward_quantise_row(f, f->mixture.in, f->h->dim, slot);
}

/* All chosen experts' last products, with their slots. */
struct expert_products {
    const struct forward *f;
    const struct layer *w;
    uint32_t grain, chunks; /* strips of a task, tasks of an expert */
    struct kern_act act;
};

static void expert_task(void *arg, uint32_t task, uint32_t worker)
{
    const struct expert_products *p = arg;
    const struct mixture *x = &p->f->mixture;
    uint32_t expert = x->active[task / p->chunks], strip = task % p->chunks * p->grain;
    const struct kern_mat *m = &p->w->experts[expert].down;
    uint32_t left = m->strips - strip, first = x->starts[expert];
    (void)worker;
    p->f->kern->mul[m->type](m, strip, left < p->grain ? left : p->grain, &p->act, first,
                             x->starts[expert + 1] - first, x->out, m->rows);
}

static void multiply_down(struct forward *f, const struct layer *w)
{
    struct expert_products p = {.f = f, .w = w, .act = forward_hidden_act(f)};
    const struct kern_mat *m = &w->experts[0].down;
    p.grain = forward_strips_of_task(f, m->strips, f->mixture.n_active, TASKS_PER_THREAD);
    p.chunks = (m->strips + p.grain - 1) / p.grain;
    pool_run(f->pool, f->mixture.n_active * p.chunks, expert_task, &p);
}

/* The weighted sum of what a row's experts made, the best first. */
static void mix_row(struct forward *f, const struct block *b, uint32_t row)
{
    (void)b;
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
    const struct forward *f;
    const struct layer *w;
    bool quantise;          /* down reads quantised rows */
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
    const struct forward *f = p->f;
    const uint32_t from = at->strip * KERN_LANES, cols = at->cols;
    const float *gate_bias = p->w->gate_bias, *up_bias = p->w->up_bias;
    void (*activate)(const float *, const float *, uint32_t, float *) =
        f->h->arch->gelu ? f->kern->gelu_mul : f->kern->silu_mul;
    for (uint32_t i = 0; gate_bias && i < at->rows; i++)
        f->kern->add(gate + (size_t)i * cols, gate_bias + from, cols);
    for (uint32_t i = 0; up_bias && i < at->rows; i++)
        f->kern->add(up + (size_t)i * cols, up_bias + from, cols);
    if (p->quantise) {
        activate(gate, up, at->rows * cols, gate);
        f->kern->quantize(&p->out, gate, at->row, at->rows, from / KERN_BLOCK, cols / KERN_BLOCK);
        return;
    }
    for (size_t i = 0; i < at->rows; i++)
        activate(gate + i * cols, up + i * cols, cols, f->hidden + (at->row + i) * f->h->ff + from);
}

/* The rows and matrices of a layer, or of one of its chosen experts. */
static struct inner_part inner_part_of(const struct inner *p, uint32_t i)
{
    const struct forward *f = p->f;
    const struct mixture *x = &f->mixture;
    if (!f->h->experts) return (struct inner_part){&p->w->gate, &p->w->up, .rows = f->n_rows};
    const struct expert *e = &p->w->experts[x->active[i]];
    uint32_t first = x->starts[x->active[i]];
    return (struct inner_part){&e->gate, &e->up, .row = first,
                               .rows = x->starts[x->active[i] + 1] - first};
}

static void inner_task(void *arg, uint32_t task, uint32_t worker)
{
    const struct inner *p = arg;
    const struct forward *f = p->f;
    struct inner_part at = inner_part_of(p, task / p->chunks);
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
static void run_inner(struct forward *f, const struct layer *w, const float *in,
                      const struct kern_mat *down)
{
    struct inner p = {.f = f,
                      .w = w,
                      .quantise = forward_quantised(down),
                      .in = forward_act(f, in, f->h->dim),
                      .out = forward_hidden_act(f)};
    uint32_t n = f->h->experts ? f->mixture.n_active : 1,
             strips = (f->h->ff + KERN_LANES - 1) / KERN_LANES;
    bool few = !f->h->experts && f->n_rows <= FEW_ROWS;
    p.grain = forward_strips_of_task(f, strips, n, few ? 1 : TASKS_PER_THREAD);
    if (pool_threads(f->pool) > 1 && f->n_rows >= MANY_ROWS && p.grain > INNER_GRAIN)
        p.grain = INNER_GRAIN;
    p.chunks = (strips + p.grain - 1) / p.grain;
    pool_run(f->pool, n * p.chunks, inner_task, &p);
}

/* ---- the two kinds ---- */

struct made forward_ffn(struct forward *f, uint32_t layer, struct made made)
{
    const struct layer *w = &f->model->weights.layers[layer];
    const struct block b = {.w = w,
                            .layer = layer,
                            .norm = w->ffn_norm,
                            .quantise = forward_quantised(&w->gate) || forward_quantised(&w->up),
                            .made = made};
    forward_rows(f, &b, f->n_rows, forward_begin_row);
    run_inner(f, w, forward_input(f, &b), &w->down);
    forward_multiply(f, forward_hidden_act(f), f->n_rows, 1,
                     &(struct product){&w->down, f->projected});
    return (struct made){f->projected, w->down_bias, w->ffn_post_norm};
}

struct made forward_experts(struct forward *f, uint32_t layer, struct made made)
{
    const struct layer *w = &f->model->weights.layers[layer];
    const struct block b = {.w = w,
                            .layer = layer,
                            .norm = w->ffn_norm,
                            .quantise = forward_quantised(&w->router),
                            .made = made};
    forward_rows(f, &b, f->n_rows, forward_begin_row);
    forward_multiply(f, forward_act(f, forward_input(f, &b), f->h->dim), f->n_rows, 1,
                     &(struct product){&w->router, f->mixture.router});
    forward_rows(f, &b, f->n_rows, route_row);
    group_slots(f);
    forward_rows(f, &b, f->n_rows * f->h->experts_used, gather_slot);
    run_inner(f, w, f->mixture.in, &w->experts[0].down);
    multiply_down(f, w);
    forward_rows(f, &b, f->n_rows, mix_row);
    return (struct made){f->projected, NULL, w->ffn_post_norm};
}
