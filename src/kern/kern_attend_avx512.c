/*
 * kern_attend_avx512: attention of up to 64 queries over tiles of 64 keys. For the scores lanes
 * hold keys, for the values head dimensions; each lane repeats the reference's chain, so what
 * queries walk together changes no bit.
 *
 * All queries pass a tile before the next tile is touched, six at a time: six queries by four
 * registers use 24 sums. Where many pass, keys and values are converted from float16 once for all
 * of them, because each conversion takes the place of a multiply. Where queries see different parts
 * of a tile, the part that all six see is done together and the rest one by one, in the order of
 * positions.
 */
#include "kern/kern_avx512.h"

enum {
    QUERIES = 6,      /* that go together */
    WIDTH = 4,        /* registers of head dimensions at once */
    WIDE_QUERIES = 12 /* convert a tile once from so many queries on */
};

/* The state of all queries of a call, and what they see of the tile at hand. */
struct walk {
    const float *const *q;
    float *const *out;
    float softcap;
    float max[KERN_QUERIES_MAX], total[KERN_QUERIES_MAX], keep[KERN_QUERIES_MAX];
    uint32_t from[KERN_QUERIES_MAX], to[KERN_QUERIES_MAX]; /* from == to: nothing */
    float score[KERN_QUERIES_MAX][KERN_TILE];
};

/* 16 keys or values of a tile, which is float32 when `wide`, else float16. */
INLINE __m512 load_lanes(const void *tile, size_t at, int wide)
{
    return wide ? _mm512_loadu_ps((const float *)tile + at)
                : load_half((const uint16_t *)tile + at);
}

/* Scores of all 64 keys of a tile for n queries from i0 on (n, wide: constants after inlining). */
INLINE void tile_scores(struct walk *w, uint32_t i0, int n, uint32_t head_dim, const void *k,
                        int wide)
{
    __m512 acc[QUERIES][4];
    const float *q[QUERIES];
    UNROLL
    for (int i = 0; i < n; i++) {
        q[i] = w->q[i0 + (uint32_t)i];
        UNROLL
        for (int j = 0; j < 4; j++)
            acc[i][j] = _mm512_setzero_ps();
    }
    for (size_t d = 0; d < head_dim; d++) {
        __m512 key[4];
        UNROLL
        for (int j = 0; j < 4; j++)
            key[j] = load_lanes(k, d * KERN_TILE + 16u * (size_t)j, wide);
        UNROLL
        for (int i = 0; i < n; i++) {
            __m512 x = _mm512_set1_ps(q[i][d]);
            UNROLL
            for (int j = 0; j < 4; j++)
                acc[i][j] = _mm512_fmadd_ps(x, key[j], acc[i][j]);
        }
    }
    UNROLL
    for (int i = 0; i < n; i++) {
        UNROLL
        for (int j = 0; j < 4; j++)
            _mm512_storeu_ps(w->score[i0 + (uint32_t)i] + 16 * j, acc[i][j]);
    }
}

static void cap_scores(float *score, float cap)
{
    for (int j = 0; j < KERN_TILE; j += 16)
        _mm512_storeu_ps(score + j, cap_lanes(_mm512_loadu_ps(score + j), _mm512_set1_ps(cap)));
}

/* The positions of a tile that query i sees, one bit each; it sees some. */
INLINE uint64_t seen_by(const struct walk *w, uint32_t i)
{
    uint64_t before_end = w->to[i] == 64 ? ~0ull : (1ull << w->to[i]) - 1;
    return before_end & ~((1ull << w->from[i]) - 1);
}

/* The maxima with this tile, and the factors for the earlier sums: one exp for all n. */
INLINE void tile_maxima(struct walk *w, uint32_t i0, int n)
{
    const __m512 low = _mm512_set1_ps(-__builtin_inff());
    _Alignas(64) float change[16] = {0};
    UNROLL
    for (int k = 0; k < n; k++) {
        uint32_t i = i0 + (uint32_t)k;
        if (w->from[i] == w->to[i]) continue;
        uint64_t seen = seen_by(w, i);
        __m512 best = low;
        UNROLL
        for (int j = 0; j < 4; j++)
            best = _mm512_mask_max_ps(best, (__mmask16)(seen >> 16 * j), best,
                                      _mm512_loadu_ps(w->score[i] + 16 * j));
        float tile_max = _mm512_reduce_max_ps(best);
        float max = tile_max > w->max[i] ? tile_max : w->max[i];
        change[k] = w->max[i] - max;
        w->max[i] = max;
    }
    __m512 keep = exp_lanes(_mm512_load_ps(change));
    _mm512_mask_storeu_ps(w->keep + i0, tail_mask((uint32_t)n), keep);
}

/* Scores of one query become weights. */
INLINE void tile_weights(struct walk *w, uint32_t i)
{
    if (w->from[i] == w->to[i]) return;
    const __m512 max = _mm512_set1_ps(w->max[i]);
    uint64_t seen = seen_by(w, i);
    __m512 sum = _mm512_setzero_ps();
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512 p = exp_lanes(_mm512_sub_ps(_mm512_loadu_ps(w->score[i] + 16 * j), max));
        p = _mm512_maskz_mov_ps((__mmask16)(seen >> 16 * j), p);
        _mm512_storeu_ps(w->score[i] + 16 * j, p);
        sum = j == 0 ? p : _mm512_add_ps(sum, p);
    }
    w->total[i] = w->total[i] * w->keep[i] + fold(sum);
}

/* A part of the values' work: n queries from i0 on, positions [from, to), registers of head
 * dimensions from `base` on; `scale`: multiply the earlier sums by keep first. */
struct part {
    uint32_t i0, from, to, base, head_dim;
    const void *v;
    int scale;
    __mmask16 mask;
};

INLINE void values_part(struct walk *w, const struct part *p, int n, int c, int wide)
{
    __m512 acc[QUERIES][WIDTH];
    const float *score[QUERIES];
    UNROLL
    for (int i = 0; i < n; i++) {
        uint32_t at = p->i0 + (uint32_t)i;
        score[i] = w->score[at];
        UNROLL
        for (int j = 0; j < c; j++) {
            acc[i][j] = _mm512_maskz_loadu_ps(p->mask, w->out[at] + p->base + 16 * j);
            if (p->scale) acc[i][j] = _mm512_mul_ps(acc[i][j], _mm512_set1_ps(w->keep[at]));
        }
    }
    for (size_t t = p->from; t < p->to; t++) {
        __m512 value[WIDTH];
        size_t row = t * p->head_dim + p->base;
        UNROLL
        for (int j = 0; j < c; j++) {
            if (wide)
                value[j] = _mm512_maskz_loadu_ps(p->mask, (const float *)p->v + row + 16 * j);
            else
                value[j] = _mm512_cvtph_ps(
                    _mm256_maskz_loadu_epi16(p->mask, (const uint16_t *)p->v + row + 16 * j));
        }
        UNROLL
        for (int i = 0; i < n; i++) {
            __m512 x = _mm512_set1_ps(score[i][t]);
            UNROLL
            for (int j = 0; j < c; j++)
                acc[i][j] = _mm512_fmadd_ps(x, value[j], acc[i][j]);
        }
    }
    UNROLL
    for (int i = 0; i < n; i++) {
        UNROLL
        for (int j = 0; j < c; j++) {
            _mm512_mask_storeu_ps(w->out[p->i0 + (uint32_t)i] + p->base + 16 * j, p->mask,
                                  acc[i][j]);
        }
    }
}

INLINE void tile_values(struct walk *w, struct part p, int n, int wide)
{
    p.mask = 0xFFFF;
    for (p.base = 0; p.base + 64 <= p.head_dim; p.base += 64)
        values_part(w, &p, n, 4, wide);
    for (; p.base + 32 <= p.head_dim; p.base += 32)
        values_part(w, &p, n, 2, wide);
    for (; p.base < p.head_dim; p.base += 16) {
        p.mask = tail_mask(p.head_dim - p.base);
        values_part(w, &p, n, 1, wide);
    }
}

/* One query's own positions, which the others of its group do not see. */
static void values_one(struct walk *w, struct part p, uint32_t i, uint32_t from, uint32_t to,
                       int wide)
{
    p.i0 = i;
    p.from = from;
    p.to = to;
    if (wide)
        tile_values(w, p, 1, 1);
    else
        tile_values(w, p, 1, 0);
}

/* The part of a tile that all n see, together; before and after it each query's own part. */
INLINE void all_values(struct walk *w, struct part p, int n, int wide)
{
    uint32_t end = p.i0 + (uint32_t)n;
    p.from = 0;
    p.to = KERN_TILE;
    p.scale = 1;
    for (uint32_t i = p.i0; i < end; i++) {
        p.from = w->from[i] > p.from ? w->from[i] : p.from;
        p.to = w->to[i] < p.to ? w->to[i] : p.to;
    }
    if (p.from >= p.to) { /* nothing in common */
        for (uint32_t i = p.i0; i < end; i++)
            if (w->from[i] < w->to[i]) values_one(w, p, i, w->from[i], w->to[i], wide);
        return;
    }
    int scaled = 0;
    for (uint32_t i = p.i0; i < end; i++)
        scaled |= w->from[i] < p.from;
    for (uint32_t i = p.i0; scaled && i < end; i++)
        values_one(w, p, i, w->from[i], p.from, wide);
    p.scale = !scaled;
    tile_values(w, p, n, wide);
    p.scale = 0;
    for (uint32_t i = p.i0; i < end; i++)
        if (w->to[i] > p.to) values_one(w, p, i, p.to, w->to[i], wide);
}

/* What each query sees of a tile; returns how many see some. None: the tile may not exist. */
static uint32_t walk_visible(struct walk *w, const struct kern_attend *a, uint32_t tile)
{
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

/* Keys of a tile to the weights of n queries. */
INLINE void group_keys(struct walk *w, uint32_t i0, int n, uint32_t head_dim, const void *k,
                       int wide)
{
    tile_scores(w, i0, n, head_dim, k, wide);
    for (int i = 0; i < n && w->softcap > 0.0f; i++)
        cap_scores(w->score[i0 + (uint32_t)i], w->softcap);
    tile_maxima(w, i0, n);
    for (int i = 0; i < n; i++)
        tile_weights(w, i0 + (uint32_t)i);
}

#define GROUP(N)                                                                                   \
    static void keys_##N(struct walk *w, uint32_t i0, uint32_t head_dim, const void *k, int wide)  \
    {                                                                                              \
        if (wide)                                                                                  \
            group_keys(w, i0, N, head_dim, k, 1);                                                  \
        else                                                                                       \
            group_keys(w, i0, N, head_dim, k, 0);                                                  \
    }                                                                                              \
    static void values_##N(struct walk *w, uint32_t i0, uint32_t head_dim, const void *v,          \
                           int wide)                                                               \
    {                                                                                              \
        struct part p = {.i0 = i0, .head_dim = head_dim, .v = v};                                  \
        if (wide)                                                                                  \
            all_values(w, p, N, 1);                                                                \
        else                                                                                       \
            all_values(w, p, N, 0);                                                                \
    }
GROUP(1)
GROUP(2)
GROUP(3)
GROUP(4)
GROUP(6)

/* Functions for groups of so many queries, largest first. */
typedef void group_fn(struct walk *w, uint32_t i0, uint32_t head_dim, const void *tile, int wide);
static const struct {
    uint32_t n;
    group_fn *keys, *values;
} groups[] = {{6, keys_6, values_6},
              {4, keys_4, values_4},
              {3, keys_3, values_3},
              {2, keys_2, values_2},
              {1, keys_1, values_1}};

/* All queries by groups, keys or values; groups that see nothing of the tile are left out. */
static void walk_tile(struct walk *w, const struct kern_attend *a, const void *tile, int values,
                      int wide)
{
    for (uint32_t i = 0, g = 0; i < a->queries; i += groups[g].n) {
        while (groups[g].n > a->queries - i)
            g++;
        uint32_t seeing = 0;
        for (uint32_t k = i; k < i + groups[g].n; k++)
            seeing |= w->to[k];
        if (seeing) (values ? groups[g].values : groups[g].keys)(w, i, a->head_dim, tile, wide);
    }
}

/* The tile as float32 in `wide`, where that pays; else the tile itself. */
static const void *widen(const uint16_t *tile, uint32_t head_dim, float *wide, int on)
{
    if (!on) return tile;
    for (size_t i = 0; i < (size_t)head_dim * KERN_TILE; i += 16)
        _mm512_storeu_ps(wide + i, load_half(tile + i));
    return wide;
}

static void walk_end(const struct walk *w, const struct kern_attend *a)
{
    for (uint32_t i = 0; i < a->queries; i++) {
        __m512 by = _mm512_set1_ps(w->total[i]);
        for (uint32_t d = 0; d < a->head_dim; d += 16) {
            __mmask16 m = tail_mask(a->head_dim - d);
            __m512 v = _mm512_maskz_loadu_ps(m, w->out[i] + d);
            _mm512_mask_storeu_ps(w->out[i] + d, m, _mm512_div_ps(v, by));
        }
    }
}

void kern_avx512_attend(const struct kern_attend *a)
{
    struct walk w = {.q = a->q, .out = a->out, .softcap = a->softcap};
    _Alignas(64) float wide[KERN_HEAD_MAX * KERN_TILE];
    uint32_t begin = UINT32_MAX, end = 0;
    for (uint32_t i = 0; i < a->queries; i++) {
        w.max[i] = -__builtin_inff();
        memset(a->out[i], 0, a->head_dim * sizeof(float));
        begin = a->first[i] / KERN_TILE < begin ? a->first[i] / KERN_TILE : begin;
        end = a->n[i] > end ? a->n[i] : end;
    }
    for (uint32_t tile = begin; tile * KERN_TILE < end; tile++) {
        uint32_t seeing = walk_visible(&w, a, tile);
        if (seeing == 0) continue;
        int on = seeing >= WIDE_QUERIES;
        walk_tile(&w, a, widen(a->k_tiles[tile], a->head_dim, wide, on), 0, on);
        walk_tile(&w, a, widen(a->v_tiles[tile], a->head_dim, wide, on), 1, on);
    }
    walk_end(&w, a);
}
