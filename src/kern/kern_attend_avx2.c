/*
 * kern_attend_avx2: attention of up to three queries at a time over tiles of 64 keys, the same walk
 * as kern_attend_avx512.c with 8 lanes: three queries by four registers are 12 sums.
 */
#include "kern/kern_avx2.h"

enum { QUERIES = 3, WIDTH = 4 /* registers of keys or head dimensions at once */ };

/* The state of queries that walk the tiles together. */
struct walk {
    const float *q[QUERIES];
    float *out[QUERIES];
    float max[QUERIES], total[QUERIES], keep[QUERIES];
    uint32_t from[QUERIES], to[QUERIES]; /* what they see of this tile; from == to: nothing */
    float score[QUERIES][KERN_TILE];
};

/* Scores of all 64 keys of a tile for n queries (a constant after inlining), 32 at a time. */
INLINE void tile_scores(struct walk *w, int n, uint32_t head_dim, const uint16_t *tile)
{
    for (int base = 0; base < KERN_TILE; base += 8 * WIDTH) {
        const uint16_t *k = tile + base;
        __m256 acc[QUERIES][WIDTH];
        UNROLL
        for (int i = 0; i < n; i++) {
            UNROLL
            for (int j = 0; j < WIDTH; j++)
                acc[i][j] = _mm256_setzero_ps();
        }
        for (uint32_t d = 0; d < head_dim; d++, k += KERN_TILE) {
            __m256 q[QUERIES];
            UNROLL
            for (int i = 0; i < n; i++)
                q[i] = _mm256_set1_ps(w->q[i][d]);
            UNROLL
            for (int j = 0; j < WIDTH; j++) {
                __m256 key = load_half(k + 8 * j);
                UNROLL
                for (int i = 0; i < n; i++)
                    acc[i][j] = _mm256_fmadd_ps(q[i], key, acc[i][j]);
            }
        }
        UNROLL
        for (int i = 0; i < n; i++) {
            UNROLL
            for (int j = 0; j < WIDTH; j++)
                _mm256_storeu_ps(w->score[i] + base + 8 * j, acc[i][j]);
        }
    }
}

static void cap_scores(float *score, float cap)
{
    for (int j = 0; j < KERN_TILE; j += 8)
        _mm256_storeu_ps(score + j, cap_lanes(_mm256_loadu_ps(score + j), _mm256_set1_ps(cap)));
}

/* Scores of one query become weights; keep is the factor for the earlier sums. */
static void tile_weights(struct walk *w, int i)
{
    float *score = w->score[i], low = -__builtin_inff();
    uint32_t from = w->from[i], to = w->to[i];
    w->keep[i] = 1.0f;
    if (from == to) return;
    for (uint32_t t = 0; t < from; t++)
        score[t] = low;
    for (uint32_t t = to; t < KERN_TILE; t++)
        score[t] = low;
    __m256 best = _mm256_set1_ps(low), p[8];
    for (int j = 0; j < 8; j++)
        best = _mm256_max_ps(best, _mm256_loadu_ps(score + 8 * j));
    float tile_max = max_lanes(best), max = tile_max > w->max[i] ? tile_max : w->max[i];
    UNROLL
    for (int j = 0; j < 8; j++) {
        p[j] = exp_lanes(_mm256_sub_ps(_mm256_loadu_ps(score + 8 * j), _mm256_set1_ps(max)));
        _mm256_storeu_ps(score + 8 * j, p[j]);
    }
    __m256 even = _mm256_add_ps(_mm256_add_ps(_mm256_add_ps(p[0], p[2]), p[4]), p[6]);
    __m256 odd = _mm256_add_ps(_mm256_add_ps(_mm256_add_ps(p[1], p[3]), p[5]), p[7]);
    w->keep[i] = _mm256_cvtss_f32(exp_lanes(_mm256_set1_ps(w->max[i] - max)));
    w->total[i] = w->total[i] * w->keep[i] + fold(even, odd);
    w->max[i] = max;
}

/* out += the weighted values [from, to) for c registers of head dimensions from base on, after
 * multiplying out by keep when `scale`. Queries are i0 .. i0 + n. */
INLINE void values_part(struct walk *w, int i0, int n, int c, uint32_t base, uint32_t head_dim,
                        const uint16_t *v, uint32_t from, uint32_t to, int scale)
{
    __m256 acc[QUERIES][WIDTH];
    UNROLL
    for (int i = 0; i < n; i++) {
        UNROLL
        for (int j = 0; j < c; j++) {
            acc[i][j] = _mm256_loadu_ps(w->out[i0 + i] + base + 8 * j);
            if (scale) acc[i][j] = _mm256_mul_ps(acc[i][j], _mm256_set1_ps(w->keep[i0 + i]));
        }
    }
    const uint16_t *row = v + (size_t)from * head_dim + base;
    for (uint32_t t = from; t < to; t++, row += head_dim) {
        __m256 p[QUERIES];
        UNROLL
        for (int i = 0; i < n; i++)
            p[i] = _mm256_set1_ps(w->score[i0 + i][t]);
        UNROLL
        for (int j = 0; j < c; j++) {
            __m256 value = load_half(row + 8 * j);
            UNROLL
            for (int i = 0; i < n; i++)
                acc[i][j] = _mm256_fmadd_ps(p[i], value, acc[i][j]);
        }
    }
    UNROLL
    for (int i = 0; i < n; i++) {
        UNROLL
        for (int j = 0; j < c; j++)
            _mm256_storeu_ps(w->out[i0 + i] + base + 8 * j, acc[i][j]);
    }
}

/* One head dimension of one query: the tail of a head size that is no multiple of 8. */
static void values_tail(float *out, float keep, const float *score, uint32_t head_dim,
                        const uint16_t *v, uint32_t from, uint32_t to)
{
    __m128 acc = _mm_set_ss(*out * keep);
    for (uint32_t t = from; t < to; t++)
        acc =
            _mm_fmadd_ss(_mm_set_ss(score[t]), _mm_set_ss(_cvtsh_ss(v[(size_t)t * head_dim])), acc);
    *out = _mm_cvtss_f32(acc);
}

INLINE void tile_values(struct walk *w, int i0, int n, uint32_t head_dim, const uint16_t *v,
                        uint32_t from, uint32_t to, int scale)
{
    uint32_t base = 0;
    for (; base + 32 <= head_dim; base += 32)
        values_part(w, i0, n, 4, base, head_dim, v, from, to, scale);
    for (; base + 8 <= head_dim; base += 8)
        values_part(w, i0, n, 1, base, head_dim, v, from, to, scale);
    for (; base < head_dim; base++)
        for (int i = i0; i < i0 + n; i++)
            values_tail(w->out[i] + base, scale ? w->keep[i] : 1.0f, w->score[i], head_dim,
                        v + base, from, to);
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
    int scaled = 0;
    for (int i = 0; i < n; i++) {
        from = w->from[i] > from ? w->from[i] : from;
        to = w->to[i] < to ? w->to[i] : to;
    }
    if (from >= to) { /* nothing in common */
        for (int i = 0; i < n; i++)
            if (w->from[i] < w->to[i]) values_one(w, i, head_dim, v, w->from[i], w->to[i], 1);
        return;
    }
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

/* Queries [i, i + n) through all tiles that any of them sees. */
INLINE void attend_group(const struct kern_attend *a, uint32_t i, int n)
{
    struct walk w;
    uint32_t begin = UINT32_MAX, end = 0;
    for (int k = 0; k < n; k++) {
        uint32_t at = i + (uint32_t)k;
        w.q[k] = a->q[at];
        w.out[k] = a->out[at];
        w.max[k] = -__builtin_inff();
        w.total[k] = 0.0f;
        memset(w.out[k], 0, a->head_dim * sizeof(float));
        begin = a->first[at] / KERN_TILE < begin ? a->first[at] / KERN_TILE : begin;
        end = a->n[at] > end ? a->n[at] : end;
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
    for (int k = 0; k < n; k++)
        for (uint32_t d = 0; d < a->head_dim; d++)
            w.out[k][d] /= w.total[k];
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

void kern_avx2_attend(const struct kern_attend *a)
{
    uint32_t i = 0;
    for (; i + 3 <= a->queries; i += 3)
        attend_3(a, i);
    for (; i + 2 <= a->queries; i += 2)
        attend_2(a, i);
    for (; i < a->queries; i++)
        attend_1(a, i);
}
