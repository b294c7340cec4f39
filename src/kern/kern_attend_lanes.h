/*
 * kern_attend_lanes: attention of many queries over tiles of 64 keys, for any width of registers.
 * For the scores lanes hold keys, for the values head dimensions; each lane repeats the reference's
 * chain, so what queries walk together changes no bit.
 *
 * All queries pass a tile before the next one is touched, QUERIES at a time; with WIDTH registers
 * for each of them the sums fill the register file. Where many pass, the tile is converted from
 * float16 once for all, because each conversion takes the place of a multiply (a tile of 8 bits
 * always is). Where few do, they wait for memory, so the next tile is fetched meanwhile. Where
 * queries see different parts of a tile, the part that a group sees is done together and the rest
 * one by one, in the order of positions.
 *
 * A file that includes it has defined
 *
 *   LANES, QUERIES, WIDTH                      16 % LANES == 0, QUERIES one of 3 and 6
 *   HOLD_TILE                                  1: registers hold WIDTH parts of the tile and take
 *                                              one query after the other; 0: the other way round
 *   vec                                        LANES floats, and on them:
 *   vec_set, vec_load, vec_store, vec_half     vec_half: from float16
 *   vec_bytes                                  from int8
 *   vec_add, vec_sub, vec_mul, vec_div, vec_max
 *   vec_fma(a, b, c)                           a * b + c
 *   exp_below(x), cap_lanes(x, cap)            exp_below: e^x for x that are 0 or less
 *   max_lanes(v)                               the largest lane
 *   fold_lanes(v)                              16 lanes in [16 / LANES] vecs, folded as 8, 4, 2, 1
 */
#ifndef PDD_KERN_KERN_ATTEND_LANES_H
#define PDD_KERN_KERN_ATTEND_LANES_H

enum {
    KEYS = LANES * WIDTH, /* keys whose scores are summed at once */
    FOLDED = 16 / LANES,
    WIDE_QUERIES = 12, /* from this many queries on a tile is converted once */
    SMALL_HEAD = 64,   /* two float32 tiles take 32 KiB */
    LINE = 64
};

/* X(n) for each size that a group of queries may have. */
#if QUERIES == 6
#define EACH_GROUP(X) X(1) X(2) X(3) X(4) X(5) X(6)
#else
#define EACH_GROUP(X) X(1) X(2) X(3)
#endif

/* The state of all queries of a call; what they see of the current tile, and their weights in it.
 */
struct walk {
    const struct kern_attend *a;
    size_t value_bytes; /* of a value in a tile */
    uint32_t batch;     /* the query whose weights stand first */
    float max[KERN_QUERIES_MAX], total[KERN_QUERIES_MAX], keep[KERN_QUERIES_MAX];
    uint32_t from[KERN_QUERIES_MAX], to[KERN_QUERIES_MAX]; /* from == to: nothing */
    _Alignas(64) float score[KERN_QUERIES_MAX][KERN_TILE];
};

/* A tile of keys and one of values: float32 when `wide`, else float16; `next` tiles to fetch. */
struct tiles {
    const void *k, *v, *next_k, *next_v;
};

INLINE vec load_tile(const void *tile, size_t at, int wide)
{
    return wide ? vec_load((const float *)tile + at) : vec_half((const uint16_t *)tile + at);
}

/* Step i of `steps` through a tile of as many rows: fetch that part of another one. */
INLINE void fetch(const void *tile, size_t i, size_t row_bytes)
{
    for (size_t at = 0; tile && at < row_bytes; at += LINE)
        __builtin_prefetch((const char *)tile + i * row_bytes + at, 0, 2);
}

/* acc[i][j] += x[i][at] times the j-th register of the tile from `place` on; i < n, j < c. */
INLINE void add_products(vec acc[QUERIES][WIDTH], const float *const *x, size_t at, int n, int c,
                         const void *tile, size_t place, int wide)
{
    vec held[QUERIES > WIDTH ? QUERIES : WIDTH];
    if (HOLD_TILE) {
        UNROLL
        for (int j = 0; j < c; j++)
            held[j] = load_tile(tile, place + (size_t)(j * LANES), wide);
        UNROLL
        for (int i = 0; i < n; i++) {
            vec factor = vec_set(x[i][at]);
            UNROLL
            for (int j = 0; j < c; j++)
                acc[i][j] = vec_fma(factor, held[j], acc[i][j]);
        }
        return;
    }
    UNROLL
    for (int i = 0; i < n; i++)
        held[i] = vec_set(x[i][at]);
    UNROLL
    for (int j = 0; j < c; j++) {
        vec from_tile = load_tile(tile, place + (size_t)(j * LANES), wide);
        UNROLL
        for (int i = 0; i < n; i++)
            acc[i][j] = vec_fma(held[i], from_tile, acc[i][j]);
    }
}

/* The weights, at first scores, of the queries from i0 on. */
INLINE float *weights_of(struct walk *w, uint32_t i0)
{
    return w->score[i0 - w->batch];
}

/* Scores of all 64 keys for n queries from i0 on (n, wide: constants after inlining). */
INLINE void group_scores(struct walk *w, uint32_t i0, int n, const struct tiles *t, int wide)
{
    const uint32_t head_dim = w->a->head_dim;
    const float *q[QUERIES];
    float *score = weights_of(w, i0);
    UNROLL
    for (int i = 0; i < n; i++)
        q[i] = w->a->q[i0 + (uint32_t)i];
    for (uint32_t base = 0; base < KERN_TILE; base += KEYS) {
        vec acc[QUERIES][WIDTH];
        UNROLL
        for (int i = 0; i < n; i++) {
            UNROLL
            for (int j = 0; j < WIDTH; j++)
                acc[i][j] = vec_set(0.0f);
        }
        for (size_t d = 0; d < head_dim; d++) {
            if (base == 0) fetch(t->next_k, d, KERN_TILE * w->value_bytes);
            add_products(acc, q, d, n, WIDTH, t->k, d * KERN_TILE + base, wide);
        }
        UNROLL
        for (int i = 0; i < n; i++) {
            UNROLL
            for (int j = 0; j < WIDTH; j++)
                vec_store(score + i * KERN_TILE + base + j * LANES, acc[i][j]);
        }
    }
}

/* What a query does not see of its 64 scores becomes -infinity, whose weight is 0. */
INLINE void hide_unseen(const struct walk *w, uint32_t at, float *score)
{
    for (uint32_t t = 0; t < w->from[at]; t++)
        score[t] = -__builtin_inff();
    for (uint32_t t = w->to[at]; t < KERN_TILE; t++)
        score[t] = -__builtin_inff();
}

INLINE void cap_scores(float *score, float cap)
{
    for (int j = 0; j < KERN_TILE; j += LANES)
        vec_store(score + j, cap_lanes(vec_load(score + j), vec_set(cap)));
}

/* The maxima with this tile, and `keep`, the factors for the earlier sums: one exp for all. */
INLINE void group_maxima(struct walk *w, uint32_t i0, int n)
{
    _Alignas(64) float change[16] = {0};
    UNROLL
    for (int i = 0; i < n; i++) {
        uint32_t at = i0 + (uint32_t)i;
        if (w->from[at] == w->to[at]) continue;
        float *score = weights_of(w, i0) + i * KERN_TILE;
        hide_unseen(w, at, score);
        vec best = vec_load(score);
        for (int j = LANES; j < KERN_TILE; j += LANES)
            best = vec_max(best, vec_load(score + j));
        float tile_max = max_lanes(best);
        float max = tile_max > w->max[at] ? tile_max : w->max[at];
        change[i] = w->max[at] - max;
        w->max[at] = max;
    }
    UNROLL
    for (int i = 0; i < n; i += LANES)
        vec_store(change + i, exp_below(vec_load(change + i)));
    UNROLL
    for (int i = 0; i < n; i++)
        w->keep[i0 + (uint32_t)i] = change[i];
}

/* Scores of one query become weights. */
INLINE void query_weights(struct walk *w, uint32_t at, float *score)
{
    vec sum[FOLDED], max = vec_set(w->max[at]);
    UNROLL
    for (int j = 0; j < KERN_TILE / LANES; j++) {
        vec p = exp_below(vec_sub(vec_load(score + j * LANES), max));
        vec_store(score + j * LANES, p);
        sum[j % FOLDED] = j < FOLDED ? p : vec_add(sum[j % FOLDED], p);
    }
    w->total[at] = w->total[at] * w->keep[at] + fold_lanes(sum);
}

/* A part of the values' work: queries from i0 on, positions [from, to) of the tile; `scale`:
 * first multiply the earlier sums by keep. */
struct part {
    uint32_t i0, from, to;
    int scale;
};

/* n queries, c registers of head dimensions from `base` on. */
INLINE void part_values(struct walk *w, const struct part *p, const struct tiles *t, int n, int c,
                        uint32_t base, int wide)
{
    const size_t head_dim = w->a->head_dim;
    vec acc[QUERIES][WIDTH];
    float *out[QUERIES];
    const float *score[QUERIES];
    UNROLL
    for (int i = 0; i < n; i++) {
        out[i] = w->a->out[p->i0 + (uint32_t)i] + base;
        score[i] = weights_of(w, p->i0) + i * KERN_TILE;
        UNROLL
        for (int j = 0; j < c; j++) {
            acc[i][j] = vec_load(out[i] + j * LANES);
            if (p->scale) acc[i][j] = vec_mul(acc[i][j], vec_set(w->keep[p->i0 + (uint32_t)i]));
        }
    }
    for (size_t at = p->from; at < p->to; at++) {
        if (base == 0) fetch(t->next_v, at, head_dim * w->value_bytes);
        add_products(acc, score, at, n, c, t->v, at * head_dim + base, wide);
    }
    UNROLL
    for (int i = 0; i < n; i++) {
        UNROLL
        for (int j = 0; j < c; j++)
            vec_store(out[i] + j * LANES, acc[i][j]);
    }
}

/* The last dimensions of a head size that is no multiple of LANES, one by one. */
static void part_tail(struct walk *w, const struct part *p, const struct tiles *t, int n,
                      uint32_t base, int wide)
{
    const size_t head_dim = w->a->head_dim;
    for (int i = 0; i < n; i++) {
        uint32_t query = p->i0 + (uint32_t)i;
        for (size_t d = base; d < head_dim; d++) {
            float acc = w->a->out[query][d];
            if (p->scale) acc *= w->keep[query];
            for (size_t at = p->from; at < p->to; at++) {
                size_t place = at * head_dim + d;
                float value = wide ? ((const float *)t->v)[place]
                                   : kern_f16_to_f32(((const uint16_t *)t->v)[place]);
                acc = __builtin_fmaf(weights_of(w, query)[at], value, acc);
            }
            w->a->out[query][d] = acc;
        }
    }
}

INLINE void tile_values(struct walk *w, const struct part *p, const struct tiles *t, int n,
                        int wide)
{
    uint32_t base = 0, head_dim = w->a->head_dim;
    for (; base + WIDTH * LANES <= head_dim; base += WIDTH * LANES)
        part_values(w, p, t, n, WIDTH, base, wide);
    for (; base + 2 * LANES <= head_dim; base += 2 * LANES)
        part_values(w, p, t, n, 2, base, wide);
    for (; base + LANES <= head_dim; base += LANES)
        part_values(w, p, t, n, 1, base, wide);
    if (base < head_dim) part_tail(w, p, t, n, base, wide);
}

/* Positions [from, to) for one query alone; none: only the scaling. */
static void own_values(struct walk *w, const struct tiles *t, uint32_t i, uint32_t from,
                       uint32_t to, int scale, int wide)
{
    const struct part p = {i, from, to, scale};
    if (wide)
        tile_values(w, &p, t, 1, 1);
    else
        tile_values(w, &p, t, 1, 0);
}

/* The positions that all n see, together; before and after them each query's own. */
INLINE void group_values(struct walk *w, uint32_t i0, int n, const struct tiles *t, int wide)
{
    const uint32_t *from = w->from, *to = w->to, end = i0 + (uint32_t)n;
    struct part p = {i0, 0, KERN_TILE, 1};
    for (uint32_t i = i0; i < end; i++) {
        p.from = from[i] > p.from ? from[i] : p.from;
        p.to = to[i] < p.to ? to[i] : p.to;
    }
    if (p.from >= p.to) { /* nothing in common */
        for (uint32_t i = i0; i < end; i++)
            if (from[i] < to[i]) own_values(w, t, i, from[i], to[i], 1, wide);
        return;
    }
    for (uint32_t i = i0; i < end; i++)
        p.scale &= from[i] == p.from;
    for (uint32_t i = i0; !p.scale && i < end; i++)
        own_values(w, t, i, from[i], p.from, 1, wide);
    tile_values(w, &p, t, n, wide);
    for (uint32_t i = i0; i < end; i++)
        if (to[i] > p.to) own_values(w, t, i, p.to, to[i], 0, wide);
}

/* Keys of a tile to weights, for n queries from i0 on. */
INLINE void group_weights(struct walk *w, uint32_t i0, int n, const struct tiles *t, int wide)
{
    group_scores(w, i0, n, t, wide);
    for (uint32_t i = i0; w->a->softcap > 0.0f && i < i0 + (uint32_t)n; i++)
        cap_scores(weights_of(w, i), w->a->softcap);
    group_maxima(w, i0, n);
    UNROLL
    for (int i = 0; i < n; i++)
        if (w->from[i0 + (uint32_t)i] < w->to[i0 + (uint32_t)i])
            query_weights(w, i0 + (uint32_t)i, weights_of(w, i0) + i * KERN_TILE);
}

typedef void group_fn(struct walk *w, uint32_t i0, const struct tiles *t, int wide);

#define GROUP(N)                                                                                   \
    static void weights_##N(struct walk *w, uint32_t i0, const struct tiles *t, int wide)          \
    {                                                                                              \
        if (wide)                                                                                  \
            group_weights(w, i0, N, t, 1);                                                         \
        else                                                                                       \
            group_weights(w, i0, N, t, 0);                                                         \
    }                                                                                              \
    static void values_##N(struct walk *w, uint32_t i0, const struct tiles *t, int wide)           \
    {                                                                                              \
        if (wide)                                                                                  \
            group_values(w, i0, N, t, 1);                                                          \
        else                                                                                       \
            group_values(w, i0, N, t, 0);                                                          \
    }
EACH_GROUP(GROUP)

/* By number of queries: from keys to weights, and values. */
#define GROUP_ROW(N) {weights_##N, values_##N},
static group_fn *const groups[][2] = {{NULL, NULL}, EACH_GROUP(GROUP_ROW)};

/* What each query sees of a tile; returns how many see some. None: the tile may not exist. */
static uint32_t walk_visible(struct walk *w, uint32_t tile)
{
    const struct kern_attend *a = w->a;
    uint32_t start = tile * KERN_TILE, end = start + KERN_TILE, seeing = 0;
    for (uint32_t i = 0; i < a->queries; i++) {
        uint32_t from = a->first[i] > start ? a->first[i] : start;
        uint32_t to = a->n[i] < end ? a->n[i] : end;
        w->from[i] = from < to ? from - start : 0;
        w->to[i] = from < to ? to - start : 0;
        seeing += from < to;
    }
    return seeing;
}

/* One phase of a tile for queries [i, end) by groups; a group that sees nothing is left out. */
static void walk_groups(struct walk *w, uint32_t i, uint32_t end, int phase, struct tiles t,
                        int wide)
{
    for (uint32_t n; i < end; i += n) {
        uint32_t seeing = 0;
        n = end - i < QUERIES ? end - i : QUERIES;
        for (uint32_t k = i; k < i + n; k++)
            seeing |= w->to[k];
        if (!seeing) continue;
        groups[n][phase](w, i, &t, wide);
        t.next_k = t.next_v = NULL; /* once is enough */
    }
}

/* A tile of 8 bits as float32. The scales of 64 positions stand together for each 32 dimensions. */
static void widen_k_q8(const int8_t *tile, uint32_t head_dim, float *wide)
{
    const uint16_t *scales = (const uint16_t *)(const void *)(tile + (size_t)head_dim * KERN_TILE);
    for (size_t d = 0; d < head_dim; d++, tile += KERN_TILE, wide += KERN_TILE) {
        const uint16_t *of_block = scales + d / KERN_BLOCK * KERN_TILE;
        for (int t = 0; t < KERN_TILE; t += LANES)
            vec_store(wide + t, vec_mul(vec_bytes(tile + t), vec_half(of_block + t)));
    }
}

static void widen_v_q8(const int8_t *tile, uint32_t head_dim, float *wide)
{
    const void *scales = tile + (size_t)head_dim * KERN_TILE;
    for (uint32_t b = 0; b < head_dim / KERN_BLOCK; b++) {
        float scale[KERN_TILE];
        for (int t = 0; t < KERN_TILE; t += LANES)
            vec_store(scale + t, vec_half((const uint16_t *)scales + b * KERN_TILE + t));
        for (size_t t = 0; t < KERN_TILE; t++) {
            const size_t at = t * head_dim + b * KERN_BLOCK;
            for (int i = 0; i < KERN_BLOCK; i += LANES)
                vec_store(wide + at + i, vec_mul(vec_bytes(tile + at + i), vec_set(scale[t])));
        }
    }
}

/* The tile as float32 in `wide`. */
static void widen(const struct walk *w, const void *tile, int values, float *wide)
{
    const uint32_t head_dim = w->a->head_dim;
    if (w->a->kv == KERN_KV_Q8)
        (values ? widen_v_q8 : widen_k_q8)(tile, head_dim, wide);
    else
        for (size_t i = 0; i < (size_t)head_dim * KERN_TILE; i += LANES)
            vec_store(wide + i, vec_half((const uint16_t *)tile + i));
}

/* All queries through a tile that many see. Where keys and values as float32 fit into L1
 * together, a group passes both and then the next one does, so that its weights stay there; else
 * all pass the keys, then all the values. */
static void walk_wide(struct walk *w, struct tiles t)
{
    const uint32_t all = w->a->queries;
    _Alignas(64) float memory[KERN_HEAD_MAX * KERN_TILE];
    float *k = memory, *v = memory + (size_t)SMALL_HEAD * KERN_TILE;
    struct tiles wide = {k, v, t.next_k, t.next_v};
    widen(w, t.k, 0, k);
    if (w->a->head_dim > SMALL_HEAD) {
        w->batch = 0;
        walk_groups(w, 0, all, 0, wide, 1);
        wide.v = k;
        widen(w, t.v, 1, k);
        walk_groups(w, 0, all, 1, wide, 1);
        return;
    }
    widen(w, t.v, 1, v);
    for (uint32_t i = 0; i < all; i += QUERIES) {
        uint32_t end = all - i < QUERIES ? all : i + QUERIES;
        w->batch = i;
        walk_groups(w, i, end, 0, wide, 1);
        walk_groups(w, i, end, 1, wide, 1);
        wide.next_k = wide.next_v = NULL; /* once is enough */
    }
}

static void walk_half(struct walk *w, struct tiles t)
{
    w->batch = 0;
    walk_groups(w, 0, w->a->queries, 0, t, 0);
    walk_groups(w, 0, w->a->queries, 1, t, 0);
}

/* A tile, and the next one to be fetched: seen or not, to fetch is no access. */
INLINE struct tiles tiles_at(const struct kern_attend *a, uint32_t tile, uint32_t end)
{
    struct tiles t = {a->k_tiles[tile], a->v_tiles[tile], NULL, NULL};
    if ((tile + 1) * KERN_TILE < end) {
        t.next_k = a->k_tiles[tile + 1];
        t.next_v = a->v_tiles[tile + 1];
    }
    return t;
}

/* Every tile that a query sees, in order; tiles that no query sees may not exist. */
static void walk_all(struct walk *w, uint32_t begin, uint32_t end)
{
    for (uint32_t tile = begin; tile * KERN_TILE < end; tile++) {
        uint32_t seeing = walk_visible(w, tile);
        if (seeing == 0) continue;
        if (seeing >= WIDE_QUERIES || w->a->kv == KERN_KV_Q8)
            walk_wide(w, tiles_at(w->a, tile, end));
        else
            walk_half(w, tiles_at(w->a, tile, end));
    }
}

/* Nothing seen yet; returns the first tile that a query sees, and where positions end. */
static uint32_t walk_begin(struct walk *w, const struct kern_attend *a, uint32_t *ret_end)
{
    uint32_t begin = UINT32_MAX, end = 0;
    w->a = a;
    w->value_bytes = a->kv == KERN_KV_Q8 ? 1 : 2;
    for (uint32_t i = 0; i < a->queries; i++) {
        w->max[i] = -__builtin_inff();
        w->total[i] = 0.0f;
        memset(a->out[i], 0, a->head_dim * sizeof(float));
        begin = a->first[i] / KERN_TILE < begin ? a->first[i] / KERN_TILE : begin;
        end = a->n[i] > end ? a->n[i] : end;
    }
    *ret_end = end;
    return begin;
}

/* Sums of weighted values become means. */
static void walk_end(const struct walk *w)
{
    const struct kern_attend *a = w->a;
    for (uint32_t i = 0; i < a->queries; i++) {
        uint32_t d = 0;
        for (; d + LANES <= a->head_dim; d += LANES)
            vec_store(a->out[i] + d, vec_div(vec_load(a->out[i] + d), vec_set(w->total[i])));
        for (; d < a->head_dim; d++)
            a->out[i][d] /= w->total[i];
    }
}

/* The level's function for floats and 8 bits. */
INLINE void attend_lanes(const struct kern_attend *a)
{
    struct walk w; /* the weights need no beginning */
    uint32_t end = 0, begin = walk_begin(&w, a, &end);
    walk_all(&w, begin, end);
    walk_end(&w);
}

#endif
