/*
 * kern_attend_avx512: attention of a few queries at a time over tiles of 64 keys. For the scores
 * lanes hold keys, for the values head dimensions; each lane repeats the reference's chain.
 */
#include "kern/kern_avx512.h"

/* The state of up to QUERIES queries that walk the tiles together. */
enum { QUERIES = 4 };
struct walk {
    const float *q[QUERIES];
    float *out[QUERIES];
    float max[QUERIES], total[QUERIES];
    float score[QUERIES][KERN_TILE];
};

/* Scores of all 64 keys of a tile for n queries. */
INLINE void tile_scores(struct walk *w, int n, uint32_t head_dim, const uint16_t *k)
{
    __m512 acc[QUERIES][4];
    for (int i = 0; i < n; i++)
        for (int j = 0; j < 4; j++)
            acc[i][j] = _mm512_setzero_ps();
    for (uint32_t d = 0; d < head_dim; d++, k += KERN_TILE) {
        __m512 key[4];
        for (int j = 0; j < 4; j++)
            key[j] = load_half(k + 16 * j);
        for (int i = 0; i < n; i++) {
            __m512 q = _mm512_set1_ps(w->q[i][d]);
            for (int j = 0; j < 4; j++)
                acc[i][j] = _mm512_fmadd_ps(q, key[j], acc[i][j]);
        }
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < 4; j++)
            _mm512_storeu_ps(w->score[i] + 16 * j, acc[i][j]);
}

/* Scores of one query become weights; returns the factor that the earlier sums keep. */
INLINE float tile_weights(struct walk *w, int i, uint32_t from, uint32_t to)
{
    __m512 score[4], low = _mm512_set1_ps(-__builtin_inff());
    uint64_t seen = (to == 64 ? ~0ull : (1ull << to) - 1) & ~((1ull << from) - 1);
    __m512 best = low;
    for (int j = 0; j < 4; j++) {
        score[j] = _mm512_mask_loadu_ps(low, (__mmask16)(seen >> 16 * j), w->score[i] + 16 * j);
        best = _mm512_max_ps(best, score[j]);
    }
    float tile_max = _mm512_reduce_max_ps(best);
    float max = tile_max > w->max[i] ? tile_max : w->max[i];
    __m512 keep = exp_lanes(_mm512_set1_ps(w->max[i] - max)), sum = _mm512_setzero_ps();
    for (int j = 0; j < 4; j++) {
        __m512 p = exp_lanes(_mm512_sub_ps(score[j], _mm512_set1_ps(max)));
        p = _mm512_maskz_mov_ps((__mmask16)(seen >> 16 * j), p);
        _mm512_storeu_ps(w->score[i] + 16 * j, p);
        sum = j == 0 ? p : _mm512_add_ps(sum, p);
    }
    float kept = _mm512_cvtss_f32(keep);
    w->total[i] = w->total[i] * kept + fold(sum);
    w->max[i] = max;
    return kept;
}

/* out = out * keep + the weighted values [from, to) of a tile, 64 head dimensions at a time. */
INLINE void tile_values(struct walk *w, int n, const float *keep, uint32_t head_dim,
                        const uint16_t *v, uint32_t from, uint32_t to)
{
    for (uint32_t base = 0; base < head_dim; base += 16) {
        __mmask16 m = tail_mask(head_dim - base);
        __m512 acc[QUERIES];
        for (int i = 0; i < n; i++)
            acc[i] =
                _mm512_mul_ps(_mm512_maskz_loadu_ps(m, w->out[i] + base), _mm512_set1_ps(keep[i]));
        const uint16_t *row = v + (size_t)from * head_dim + base;
        for (uint32_t t = from; t < to; t++, row += head_dim) {
            __m512 value = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, row));
            for (int i = 0; i < n; i++)
                acc[i] = _mm512_fmadd_ps(_mm512_set1_ps(w->score[i][t]), value, acc[i]);
        }
        for (int i = 0; i < n; i++)
            _mm512_mask_storeu_ps(w->out[i] + base, m, acc[i]);
    }
}

/* The same, two groups of 16 dimensions at once, when the head has them: twice the chains in
 * flight. */
INLINE void tile_values_wide(struct walk *w, int n, const float *keep, uint32_t head_dim,
                             const uint16_t *v, uint32_t from, uint32_t to)
{
    for (uint32_t base = 0; base < head_dim; base += 32) {
        __m512 acc[QUERIES][2];
        for (int i = 0; i < n; i++)
            for (int j = 0; j < 2; j++)
                acc[i][j] = _mm512_mul_ps(_mm512_loadu_ps(w->out[i] + base + 16 * j),
                                          _mm512_set1_ps(keep[i]));
        const uint16_t *row = v + (size_t)from * head_dim + base;
        for (uint32_t t = from; t < to; t++, row += head_dim) {
            __m512 low = load_half(row), high = load_half(row + 16);
            for (int i = 0; i < n; i++) {
                __m512 p = _mm512_set1_ps(w->score[i][t]);
                acc[i][0] = _mm512_fmadd_ps(p, low, acc[i][0]);
                acc[i][1] = _mm512_fmadd_ps(p, high, acc[i][1]);
            }
        }
        for (int i = 0; i < n; i++)
            for (int j = 0; j < 2; j++)
                _mm512_storeu_ps(w->out[i] + base + 16 * j, acc[i][j]);
    }
}

INLINE void walk_tile(struct walk *w, int n, const struct kern_attend *a, uint32_t tile,
                      uint32_t from, uint32_t to)
{
    float keep[QUERIES];
    tile_scores(w, n, a->head_dim, a->k_tiles[tile]);
    for (int i = 0; i < n; i++)
        keep[i] = tile_weights(w, i, from, to);
    if (a->head_dim % 32 == 0)
        tile_values_wide(w, n, keep, a->head_dim, a->v_tiles[tile], from, to);
    else
        tile_values(w, n, keep, a->head_dim, a->v_tiles[tile], from, to);
}

/* What query i sees of a tile, as [*from, *to). */
INLINE void visible(const struct kern_attend *a, uint32_t i, uint32_t tile, uint32_t *from,
                    uint32_t *to)
{
    uint32_t start = tile * KERN_TILE, left = a->n[i] - start;
    *from = a->first[i] > start ? a->first[i] - start : 0;
    *to = left < KERN_TILE ? left : KERN_TILE;
}

INLINE void walk_begin(struct walk *w, int n, const struct kern_attend *a, uint32_t i)
{
    for (int k = 0; k < n; k++) {
        w->q[k] = a->q[i + (uint32_t)k];
        w->out[k] = a->out[i + (uint32_t)k];
        w->max[k] = -__builtin_inff();
        w->total[k] = 0.0f;
        memset(w->out[k], 0, a->head_dim * sizeof(float));
    }
}

INLINE void walk_end(struct walk *w, int n, uint32_t head_dim)
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

/* One query of a group, alone in a tile that it sees in part or not at all. */
static void walk_alone(struct walk *w, int k, const struct kern_attend *a, uint32_t i,
                       uint32_t tile)
{
    if (tile < a->first[i] / KERN_TILE || tile * KERN_TILE >= a->n[i]) return;
    uint32_t from, to;
    visible(a, i, tile, &from, &to);
    struct walk one;
    one.q[0] = w->q[k];
    one.out[0] = w->out[k];
    one.max[0] = w->max[k];
    one.total[0] = w->total[k];
    walk_tile(&one, 1, a, tile, from, to);
    w->max[k] = one.max[0];
    w->total[k] = one.total[0];
}

/* Four queries: together where all see the same part of a tile, else one by one. */
static void attend_four(const struct kern_attend *a, uint32_t i)
{
    struct walk w;
    uint32_t begin = UINT32_MAX, end = 0;
    walk_begin(&w, QUERIES, a, i);
    for (uint32_t k = i; k < i + QUERIES; k++) {
        begin = a->first[k] / KERN_TILE < begin ? a->first[k] / KERN_TILE : begin;
        end = a->n[k] > end ? a->n[k] : end;
    }
    for (uint32_t tile = begin; tile * KERN_TILE < end; tile++) {
        uint32_t from = 0, to = 0, same = 0;
        for (uint32_t k = i; k < i + QUERIES; k++) {
            uint32_t f, t;
            if (tile < a->first[k] / KERN_TILE || tile * KERN_TILE >= a->n[k]) continue;
            visible(a, k, tile, &f, &t);
            same += k == i || (f == from && t == to);
            from = k == i ? f : from;
            to = k == i ? t : to;
        }
        if (same == QUERIES)
            walk_tile(&w, QUERIES, a, tile, from, to);
        else
            for (int k = 0; k < QUERIES; k++)
                walk_alone(&w, k, a, i + (uint32_t)k, tile);
    }
    walk_end(&w, QUERIES, a->head_dim);
}

static void attend_one(const struct kern_attend *a, uint32_t i)
{
    struct walk w;
    walk_begin(&w, 1, a, i);
    for (uint32_t tile = a->first[i] / KERN_TILE; tile * KERN_TILE < a->n[i]; tile++) {
        uint32_t from, to;
        visible(a, i, tile, &from, &to);
        walk_tile(&w, 1, a, tile, from, to);
    }
    walk_end(&w, 1, a->head_dim);
}

void kern_avx512_attend(const struct kern_attend *a)
{
    uint32_t i = 0;
    for (; i + QUERIES <= a->queries; i += QUERIES)
        attend_four(a, i);
    for (; i < a->queries; i++)
        attend_one(a, i);
}
