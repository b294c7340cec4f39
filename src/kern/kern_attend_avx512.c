/*
 * kern_attend_avx512: attention of up to six queries at a time over tiles of 64 keys. For the
 * scores lanes hold keys, for the values head dimensions; each lane repeats the reference's chain,
 * so what queries walk together changes no bit.
 *
 * Six queries by four registers use 24 sums; a key or value is converted from float16 once for all
 * six. Where queries see different parts of a tile, the part that all see is done together and the
 * rest one by one, in the order of positions.
 */
#include "kern/kern_avx512.h"

enum { QUERIES = 6, WIDTH = 4 /* registers of head dimensions at once */ };

/* The state of queries that walk the tiles together. */
struct walk {
    const float *q[QUERIES];
    float *out[QUERIES];
    float max[QUERIES], total[QUERIES], keep[QUERIES];
    uint32_t from[QUERIES], to[QUERIES]; /* what they see of this tile; from == to: nothing */
    float score[QUERIES][KERN_TILE];
};

/* Scores of all 64 keys of a tile for n queries (a constant after inlining). */
INLINE void tile_scores(struct walk *w, int n, uint32_t head_dim, const uint16_t *k)
{
    __m512 acc[QUERIES][4];
    UNROLL
    for (int i = 0; i < n; i++) {
        UNROLL
        for (int j = 0; j < 4; j++)
            acc[i][j] = _mm512_setzero_ps();
    }
    for (uint32_t d = 0; d < head_dim; d++, k += KERN_TILE) {
        __m512 key[4];
        UNROLL
        for (int j = 0; j < 4; j++)
            key[j] = load_half(k + 16 * j);
        UNROLL
        for (int i = 0; i < n; i++) {
            __m512 q = _mm512_set1_ps(w->q[i][d]);
            UNROLL
            for (int j = 0; j < 4; j++)
                acc[i][j] = _mm512_fmadd_ps(q, key[j], acc[i][j]);
        }
    }
    UNROLL
    for (int i = 0; i < n; i++) {
        UNROLL
        for (int j = 0; j < 4; j++)
            _mm512_storeu_ps(w->score[i] + 16 * j, acc[i][j]);
    }
}

static void cap_scores(float *score, float cap)
{
    for (int j = 0; j < KERN_TILE; j += 16)
        _mm512_storeu_ps(score + j, cap_lanes(_mm512_loadu_ps(score + j), _mm512_set1_ps(cap)));
}

/* Scores of one query become weights; keep is the factor for the earlier sums. */
INLINE void tile_weights(struct walk *w, int i)
{
    w->keep[i] = 1.0f;
    if (w->from[i] == w->to[i]) return;
    __m512 score[4], low = _mm512_set1_ps(-__builtin_inff()), best = low;
    uint64_t seen = (w->to[i] == 64 ? ~0ull : (1ull << w->to[i]) - 1) & ~((1ull << w->from[i]) - 1);
    UNROLL
    for (int j = 0; j < 4; j++) {
        score[j] = _mm512_mask_loadu_ps(low, (__mmask16)(seen >> 16 * j), w->score[i] + 16 * j);
        best = _mm512_max_ps(best, score[j]);
    }
    float tile_max = _mm512_reduce_max_ps(best);
    float max = tile_max > w->max[i] ? tile_max : w->max[i];
    float keep = _mm512_cvtss_f32(exp_lanes(_mm512_set1_ps(w->max[i] - max)));
    __m512 sum = _mm512_setzero_ps();
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512 p = exp_lanes(_mm512_sub_ps(score[j], _mm512_set1_ps(max)));
        p = _mm512_maskz_mov_ps((__mmask16)(seen >> 16 * j), p);
        _mm512_storeu_ps(w->score[i] + 16 * j, p);
        sum = j == 0 ? p : _mm512_add_ps(sum, p);
    }
    w->total[i] = w->total[i] * keep + fold(sum);
    w->max[i] = max;
    w->keep[i] = keep;
}

/* out += the weighted values [from, to) for c registers of head dimensions from base on, after
 * multiplying out by keep when `scale`. Queries are i0 .. i0 + n. */
INLINE void values_part(struct walk *w, int i0, int n, int c, uint32_t base, uint32_t head_dim,
                        const uint16_t *v, uint32_t from, uint32_t to, int scale, __mmask16 mask)
{
    __m512 acc[QUERIES][WIDTH];
    UNROLL
    for (int i = 0; i < n; i++) {
        UNROLL
        for (int j = 0; j < c; j++) {
            acc[i][j] = _mm512_maskz_loadu_ps(mask, w->out[i0 + i] + base + 16 * j);
            if (scale) acc[i][j] = _mm512_mul_ps(acc[i][j], _mm512_set1_ps(w->keep[i0 + i]));
        }
    }
    const uint16_t *row = v + (size_t)from * head_dim + base;
    for (uint32_t t = from; t < to; t++, row += head_dim) {
        __m512 value[WIDTH];
        UNROLL
        for (int j = 0; j < c; j++) {
            value[j] = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, row + 16 * j));
        }
        UNROLL
        for (int i = 0; i < n; i++) {
            __m512 p = _mm512_set1_ps(w->score[i0 + i][t]);
            UNROLL
            for (int j = 0; j < c; j++)
                acc[i][j] = _mm512_fmadd_ps(p, value[j], acc[i][j]);
        }
    }
    UNROLL
    for (int i = 0; i < n; i++) {
        UNROLL
        for (int j = 0; j < c; j++) {
            _mm512_mask_storeu_ps(w->out[i0 + i] + base + 16 * j, mask, acc[i][j]);
        }
    }
}

INLINE void tile_values(struct walk *w, int i0, int n, uint32_t head_dim, const uint16_t *v,
                        uint32_t from, uint32_t to, int scale)
{
    const __mmask16 whole = 0xFFFF;
    uint32_t base = 0;
    for (; base + 64 <= head_dim; base += 64)
        values_part(w, i0, n, 4, base, head_dim, v, from, to, scale, whole);
    for (; base + 32 <= head_dim; base += 32)
        values_part(w, i0, n, 2, base, head_dim, v, from, to, scale, whole);
    for (; base < head_dim; base += 16)
        values_part(w, i0, n, 1, base, head_dim, v, from, to, scale, tail_mask(head_dim - base));
}

static void values_one(struct walk *w, int i, uint32_t head_dim, const uint16_t *v, uint32_t from,
                       uint32_t to, int scale)
{
    tile_values(w, i, 1, head_dim, v, from, to, scale);
}

/* The part of a tile that all see, together; before and after it each query's own part. */
INLINE void all_values(struct walk *w, int n, uint32_t head_dim, const uint16_t *v)
{
    uint32_t from = 0, to = KERN_TILE;
    for (int i = 0; i < n; i++) {
        from = w->from[i] > from ? w->from[i] : from;
        to = w->to[i] < to ? w->to[i] : to;
    }
    if (from >= to) { /* nothing in common */
        for (int i = 0; i < n; i++)
            if (w->from[i] < w->to[i]) values_one(w, i, head_dim, v, w->from[i], w->to[i], 1);
        return;
    }
    int scaled = 0;
    for (int i = 0; i < n; i++)
        scaled |= w->from[i] < from;
    for (int i = 0; scaled && i < n; i++)
        values_one(w, i, head_dim, v, w->from[i], from, 1);
    if (scaled)
        tile_values(w, 0, n, head_dim, v, from, to, 0);
    else
        tile_values(w, 0, n, head_dim, v, from, to, 1);
    for (int i = 0; i < n; i++)
        if (w->to[i] > to) values_one(w, i, head_dim, v, to, w->to[i], 0);
}

static void walk_begin(struct walk *w, int n, const struct kern_attend *a, uint32_t i)
{
    for (int k = 0; k < n; k++) {
        w->q[k] = a->q[i + (uint32_t)k];
        w->out[k] = a->out[i + (uint32_t)k];
        w->max[k] = -__builtin_inff();
        w->total[k] = 0.0f;
        memset(w->out[k], 0, a->head_dim * sizeof(float));
    }
}

/* What each query sees of a tile; 0 when none sees anything, and then the tile may not exist. */
static int walk_visible(struct walk *w, int n, const struct kern_attend *a, uint32_t i,
                        uint32_t tile)
{
    uint32_t start = tile * KERN_TILE, end = start + KERN_TILE;
    int seen = 0;
    for (int k = 0; k < n; k++) {
        uint32_t from = a->first[i + (uint32_t)k], to = a->n[i + (uint32_t)k];
        from = from > start ? from : start;
        to = to < end ? to : end;
        w->from[k] = from < to ? from - start : 0;
        w->to[k] = from < to ? to - start : 0;
        seen |= from < to;
    }
    return seen;
}

static void walk_end(struct walk *w, int n, uint32_t head_dim)
{
    for (int k = 0; k < n; k++) {
        __m512 by = _mm512_set1_ps(w->total[k]);
        for (uint32_t d = 0; d < head_dim; d += 16) {
            __mmask16 m = tail_mask(head_dim - d);
            __m512 v = _mm512_maskz_loadu_ps(m, w->out[k] + d);
            _mm512_mask_storeu_ps(w->out[k] + d, m, _mm512_div_ps(v, by));
        }
    }
}

/* Queries [i, i + n) through all tiles that any of them sees. */
INLINE void attend_group(const struct kern_attend *a, uint32_t i, int n)
{
    struct walk w;
    uint32_t begin = UINT32_MAX, end = 0;
    walk_begin(&w, n, a, i);
    for (uint32_t k = i; k < i + (uint32_t)n; k++) {
        begin = a->first[k] / KERN_TILE < begin ? a->first[k] / KERN_TILE : begin;
        end = a->n[k] > end ? a->n[k] : end;
    }
    for (uint32_t tile = begin; tile * KERN_TILE < end; tile++) {
        if (!walk_visible(&w, n, a, i, tile)) continue;
        tile_scores(&w, n, a->head_dim, a->k_tiles[tile]);
        for (int k = 0; k < n && a->softcap > 0.0f; k++)
            cap_scores(w.score[k], a->softcap);
        for (int k = 0; k < n; k++)
            tile_weights(&w, k);
        all_values(&w, n, a->head_dim, a->v_tiles[tile]);
    }
    walk_end(&w, n, a->head_dim);
}

static void attend_6(const struct kern_attend *a, uint32_t i)
{
    attend_group(a, i, 6);
}

static void attend_4(const struct kern_attend *a, uint32_t i)
{
    attend_group(a, i, 4);
}

static void attend_3(const struct kern_attend *a, uint32_t i)
{
    attend_group(a, i, 3);
}

static void attend_2(const struct kern_attend *a, uint32_t i)
{
    attend_group(a, i, 2);
}

static void attend_1(const struct kern_attend *a, uint32_t i)
{
    attend_group(a, i, 1);
}

void kern_avx512_attend(const struct kern_attend *a)
{
    uint32_t i = 0;
    for (; i + 6 <= a->queries; i += 6)
        attend_6(a, i);
    for (; i + 4 <= a->queries; i += 4)
        attend_4(a, i);
    for (; i + 3 <= a->queries; i += 3)
        attend_3(a, i);
    for (; i + 2 <= a->queries; i += 2)
        attend_2(a, i);
    for (; i < a->queries; i++)
        attend_1(a, i);
}
