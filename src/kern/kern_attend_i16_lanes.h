/*
 * kern_attend_i16_lanes: attention with keys, values, queries and weights in int16, for any width
 * of registers: twice as many products an instruction as floats have. Sums of integers are exact in
 * any order; what floats there are take the reference's steps (kern_attend_ref.c).
 *
 * A tile is passed by QUERIES at a time, from keys to values, so that their weights stay in
 * L1. What a query does not see has weight 0, whatever the memory holds.
 *
 * A file that includes it has included kern_attend_lanes.h and defined
 *
 *   SUMS                       how many `sums` a query takes: with QUERIES they fill the registers
 *   pairs                      LANES pairs of int16
 *   pairs_load, pairs_set      pairs_set: one pair in all lanes, from two int16
 *   sums                       LANES sums of products of pairs
 *   sums_zero()
 *   sums_add(s, a, b)          s + a[0] b[0] + a[1] b[1] for each pair; with HOLD_TILE 0 instead
 *   sums_add_at(s, a, p)       the same with b in memory
 *   sums_float(s)              vec
 *   store_i16(p, v)            LANES floats to the nearest even, at most 32767
 */
#ifndef PDD_KERN_KERN_ATTEND_I16_LANES_H
#define PDD_KERN_KERN_ATTEND_I16_LANES_H

enum {
    NARROW = 16 / LANES < SUMS ? 16 / LANES : SUMS /* registers of 16 lanes, or all there are */
};

/* What the walk has besides: queries as integers, weights of the current group. */
struct walk_i16 {
    struct walk w;
    uint32_t from, to; /* what the current group sees of the tile, one query or another */
    float q_scale[KERN_QUERIES_MAX];
    _Alignas(64) float largest[16], inverse[16]; /* of the group's weights */
    _Alignas(64) int16_t weights[QUERIES][KERN_TILE];
    _Alignas(64) int16_t q[KERN_QUERIES_MAX * KERN_HEAD_MAX]; /* [queries][head_dim] */
};

/* The products of a group: row i of x, [steps] pairs, with a part of a tile, [steps] rows of c
 * registers of pairs, `row` int16 apart; a part of `next` is fetched each step. */
struct products_i16 {
    const int16_t *x, *tile;
    size_t x_row, row, steps;
    const void *next;
    size_t next_row; /* bytes */
    float *out;      /* n rows of c * LANES, out_row apart */
    size_t out_row;
    int add; /* to what stands there */
};

#if HOLD_TILE
/* acc[i][j] += x[i]'s pair number `at` times the j-th register of the tile's row. */
INLINE void add_pairs(sums acc[QUERIES][SUMS], const int16_t *const *x, size_t at, int n, int c,
                      const int16_t *tile)
{
    pairs held[SUMS];
    UNROLL
    for (int j = 0; j < c; j++)
        held[j] = pairs_load(tile + j * LANES * 2);
    UNROLL
    for (int i = 0; i < n; i++) {
        pairs factor = pairs_set(x[i] + 2 * at);
        UNROLL
        for (int j = 0; j < c; j++)
            acc[i][j] = sums_add(acc[i][j], factor, held[j]);
    }
}
#else
INLINE void add_pairs(sums acc[QUERIES][SUMS], const int16_t *const *x, size_t at, int n, int c,
                      const int16_t *tile)
{
    pairs held[QUERIES];
    UNROLL
    for (int i = 0; i < n; i++)
        held[i] = pairs_set(x[i] + 2 * at);
    UNROLL
    for (int j = 0; j < c; j++) {
        UNROLL
        for (int i = 0; i < n; i++)
            acc[i][j] = sums_add_at(acc[i][j], held[i], tile + j * LANES * 2);
    }
}
#endif

/* n, c: constants after inlining. */
INLINE void multiply_i16(struct products_i16 *p, int n, int c)
{
    const int16_t *x[QUERIES], *tile = p->tile;
    const size_t steps = p->steps, row = p->row;
    sums acc[QUERIES][SUMS];
    UNROLL
    for (int i = 0; i < n; i++) {
        x[i] = p->x + (size_t)i * p->x_row;
        UNROLL
        for (int j = 0; j < c; j++)
            acc[i][j] = sums_zero();
    }
    for (size_t at = 0; at < steps; at++, tile += row) {
        fetch(p->next, at, p->next_row);
        add_pairs(acc, x, at, n, c, tile);
    }
    UNROLL
    for (int i = 0; i < n; i++) {
        UNROLL
        for (int j = 0; j < c; j++) {
            float *out = p->out + (size_t)i * p->out_row + j * LANES;
            vec sum = sums_float(acc[i][j]);
            vec_store(out, p->add ? vec_add(vec_load(out), sum) : sum);
        }
    }
}

typedef void products_i16_fn(struct products_i16 *p);

#define PRODUCTS_I16(N)                                                                            \
    static __attribute__((noinline)) void wide_i16_##N(struct products_i16 *p)                     \
    {                                                                                              \
        multiply_i16(p, N, SUMS);                                                                  \
    }                                                                                              \
    static __attribute__((noinline)) void narrow_i16_##N(struct products_i16 *p)                   \
    {                                                                                              \
        multiply_i16(p, N, NARROW);                                                                \
    }
EACH_GROUP(PRODUCTS_I16)

/* By number of queries: as many registers as there are sums, or NARROW. */
#define PRODUCTS_I16_ROW(N) {wide_i16_##N, narrow_i16_##N},
static products_i16_fn *const products_i16[][2] = {{NULL, NULL}, EACH_GROUP(PRODUCTS_I16_ROW)};

/* Sums of keys times queries for n queries from i0 on, KERN_I16_TERMS dimensions at a time. */
static void scores_i16(struct walk_i16 *s, uint32_t i0, int n, const struct tiles *t)
{
    const uint32_t head_dim = s->w.a->head_dim;
    struct products_i16 p = {.x_row = head_dim,
                             .row = (size_t)KERN_TILE * 2,
                             .next_row = (size_t)KERN_TILE * 4,
                             .out_row = KERN_TILE};
    const int narrow = s->to - s->from <= KERN_TILE - NARROW * LANES;
    const uint32_t keys = (narrow ? NARROW : SUMS) * LANES, first = s->from / keys * keys;
    for (uint32_t d = 0; d < head_dim; d += KERN_I16_TERMS) {
        p.x = s->q + (size_t)i0 * head_dim + d;
        p.steps = (head_dim - d < KERN_I16_TERMS ? head_dim - d : KERN_I16_TERMS) / 2;
        p.add = d > 0;
        for (uint32_t base = first; base < s->to; base += keys) {
            size_t at = (size_t)d * KERN_TILE + base * 2;
            p.tile = (const int16_t *)t->k + at;
            p.next = base == first && t->next_k ? (const int16_t *)t->next_k + at : NULL;
            p.out = weights_of(&s->w, i0) + base;
            products_i16[n][narrow](&p);
        }
    }
}

/* Sums times the scales of their integers. */
INLINE void scale_scores(struct walk_i16 *s, uint32_t i0, int n, const float *scale)
{
    UNROLL
    for (int i = 0; i < n; i++) {
        float *score = weights_of(&s->w, i0) + i * KERN_TILE;
        vec q_scale = vec_set(s->q_scale[i0 + (uint32_t)i]);
        UNROLL
        for (int j = 0; j < KERN_TILE; j += LANES)
            vec_store(score + j,
                      vec_mul(vec_mul(vec_load(score + j), vec_load(scale + j)), q_scale));
    }
}

/* Weights of a query, the i-th of a group, times the scales of their values; and the largest. */
INLINE void scale_weights(struct walk_i16 *s, uint32_t i0, int i, const float *scale)
{
    float *weight = weights_of(&s->w, i0) + i * KERN_TILE;
    uint32_t from = s->w.from[i0 + (uint32_t)i], to = s->w.to[i0 + (uint32_t)i];
    vec best = vec_set(0.0f);
    UNROLL
    for (int j = 0; j < KERN_TILE; j += LANES) {
        vec scaled = vec_mul(vec_load(weight + j), vec_load(scale + j));
        vec_store(weight + j, scaled);
        best = vec_max(best, scaled);
    }
    if (from > 0 || to < KERN_TILE) { /* scales of positions never written may be anything */
        memset(weight, 0, from * sizeof *weight);
        memset(weight + to, 0, (KERN_TILE - to) * sizeof *weight);
        best = vec_set(0.0f);
        for (int j = 0; j < KERN_TILE; j += LANES)
            best = vec_max(best, vec_load(weight + j));
    }
    s->largest[i] = max_lanes(best);
}

/* Weights of n queries as integers. */
INLINE void weights_i16(struct walk_i16 *s, uint32_t i0, int n, const float *scale)
{
    UNROLL
    for (int i = 0; i < n; i++) {
        s->largest[i] = 0.0f;
        if (s->w.from[i0 + (uint32_t)i] == s->w.to[i0 + (uint32_t)i]) continue;
        query_weights(&s->w, i0 + (uint32_t)i, weights_of(&s->w, i0) + i * KERN_TILE);
        scale_weights(s, i0, i, scale);
    }
    UNROLL
    for (int i = 0; i < n; i += LANES)
        vec_store(s->inverse + i, vec_div(vec_set(KERN_I16_MAX), vec_load(s->largest + i)));
    UNROLL
    for (int i = 0; i < n; i++) {
        float inverse = s->largest[i] >= KERN_I16_LOW ? s->inverse[i] : 0.0f;
        const float *weight = weights_of(&s->w, i0) + i * KERN_TILE;
        UNROLL
        for (int j = 0; j < KERN_TILE; j += LANES)
            store_i16(s->weights[i] + j, vec_mul(vec_load(weight + j), vec_set(inverse)));
    }
}

/* Weighted values of c registers of head dimensions from `base` on: wide or narrow. */
static void part_values_i16(struct walk_i16 *s, uint32_t i0, const struct tiles *t, int n,
                            uint32_t base, int narrow)
{
    const size_t head_dim = s->w.a->head_dim;
    _Alignas(64) float sum[QUERIES][SUMS * LANES];
    const size_t first = s->from / 2;
    struct products_i16 p = {.x = s->weights[0] + first * 2,
                             .x_row = KERN_TILE,
                             .tile = (const int16_t *)t->v + (first * head_dim + base) * 2,
                             .row = head_dim * 2,
                             .steps = (s->to + 1) / 2 - first,
                             .next = base == 0 ? t->next_v : NULL,
                             .next_row = head_dim * 4,
                             .out = sum[0],
                             .out_row = SUMS * LANES};
    products_i16[n][narrow](&p);
    for (int i = 0; i < n; i++) {
        uint32_t query = i0 + (uint32_t)i;
        if (s->w.from[query] == s->w.to[query]) continue;
        float *out = s->w.a->out[query] + base;
        vec keep = vec_set(s->w.keep[query]);
        vec scale = vec_set(s->largest[i] * KERN_I16_INVERSE);
        for (int j = 0; j < (narrow ? NARROW : SUMS) * LANES; j += LANES)
            vec_store(out + j,
                      vec_fma(vec_load(sum[i] + j), scale, vec_mul(vec_load(out + j), keep)));
    }
}

/* A tile for n queries from i0 on. */
INLINE void group_i16(struct walk_i16 *s, uint32_t i0, int n, const struct tiles *t)
{
    uint32_t base = 0, head_dim = s->w.a->head_dim;
    s->w.batch = i0;
    if (t->next_k) { /* the scales; the rest comes with the products */
        fetch(kern_i16_scales(t->next_k, head_dim), 0, KERN_TILE * sizeof(float));
        fetch(kern_i16_scales(t->next_v, head_dim), 0, KERN_TILE * sizeof(float));
    }
    scores_i16(s, i0, n, t);
    scale_scores(s, i0, n, kern_i16_scales(t->k, head_dim));
    for (int i = 0; s->w.a->softcap > 0.0f && i < n; i++)
        cap_scores(weights_of(&s->w, i0 + (uint32_t)i), s->w.a->softcap);
    group_maxima(&s->w, i0, n);
    weights_i16(s, i0, n, kern_i16_scales(t->v, head_dim));
    for (; base + SUMS * LANES <= head_dim; base += SUMS * LANES)
        part_values_i16(s, i0, t, n, base, 0);
    for (; base < head_dim; base += NARROW * LANES)
        part_values_i16(s, i0, t, n, base, 1);
}

typedef void group_i16_fn(struct walk_i16 *s, uint32_t i0, const struct tiles *t);

#define GROUP_I16(N)                                                                               \
    static void group_i16_##N(struct walk_i16 *s, uint32_t i0, const struct tiles *t)              \
    {                                                                                              \
        group_i16(s, i0, N, t);                                                                    \
    }
EACH_GROUP(GROUP_I16)

#define GROUP_I16_ROW(N) group_i16_##N,
static group_i16_fn *const groups_i16[] = {NULL, EACH_GROUP(GROUP_I16_ROW)};

/* All queries through a tile, in groups as even as can be. */
static void walk_tile_i16(struct walk_i16 *s, struct tiles t)
{
    const uint32_t all = s->w.a->queries;
    for (uint32_t i = 0, n; i < all; i += n) {
        const uint32_t parts = (all - i + QUERIES - 1) / QUERIES;
        n = (all - i + parts - 1) / parts;
        s->from = KERN_TILE;
        s->to = 0;
        for (uint32_t k = i; k < i + n; k++) {
            if (s->w.from[k] == s->w.to[k]) continue;
            s->from = s->w.from[k] < s->from ? s->w.from[k] : s->from;
            s->to = s->w.to[k] > s->to ? s->w.to[k] : s->to;
        }
        if (s->to == 0) continue;
        groups_i16[n](s, i, &t);
        t.next_k = t.next_v = NULL; /* once is enough */
    }
}

/* The level's i16_row. */
INLINE float row_i16(const float *x, uint32_t n, int16_t *q)
{
    vec best = vec_set(0.0f), zero = vec_set(0.0f);
    for (uint32_t d = 0; d < n; d += LANES)
        best = vec_max(best, vec_max(vec_load(x + d), vec_sub(zero, vec_load(x + d))));
    float max = max_lanes(best), inverse = max > 0.0f ? KERN_I16_MAX / max : 0.0f;
    if (!(inverse <= 3.0e38f)) inverse = 0.0f; /* denormals, as kern_ref_i16_row has it */
    for (uint32_t d = 0; d < n; d += LANES)
        store_i16(q + d, vec_mul(vec_load(x + d), vec_set(inverse)));
    return max / KERN_I16_MAX;
}

/* The level's function for KERN_KV_I16. */
INLINE void attend_i16(const struct kern_attend *a)
{
    struct walk_i16 s; /* weights need no beginning */
    uint32_t end = 0;
    uint32_t begin = walk_begin(&s.w, a, &end);
    for (uint32_t i = 0; i < a->queries; i++)
        s.q_scale[i] = row_i16(a->q[i], a->head_dim, s.q + (size_t)i * a->head_dim);
    for (uint32_t tile = begin; tile * KERN_TILE < end; tile++)
        if (walk_visible(&s.w, tile) > 0) walk_tile_i16(&s, tiles_at(a, tile, end));
    walk_end(&s.w);
}

#endif
