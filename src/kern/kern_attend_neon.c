/*
 * kern_attend_neon: attention over tiles of 64 keys, up to four queries together. For the scores
 * lanes hold keys, for the values head dimensions; each lane repeats the reference's chain.
 *
 * A tile is converted from float16 once for all queries of a call. Four queries by four registers
 * use 16 sums. Where queries see different parts of a tile, the part that all four see is done
 * together and the rest one by one, in the order of positions.
 */
#include "kern/kern_neon.h"

enum { QUERIES = 4, WIDTH = 4 /* registers of keys or of head dimensions at once */ };

/* The state of all queries of a call, and what they see of the tile at hand. */
struct walk {
    const struct kern_attend *a;
    float max[KERN_QUERIES_MAX], total[KERN_QUERIES_MAX], keep[KERN_QUERIES_MAX];
    uint32_t from[KERN_QUERIES_MAX], to[KERN_QUERIES_MAX]; /* from == to: nothing */
    float score[KERN_QUERIES_MAX][KERN_TILE];
    float tile[KERN_HEAD_MAX * KERN_TILE];
};

static void widen(struct walk *w, const uint16_t *tile)
{
    for (size_t i = 0; i < (size_t)w->a->head_dim * KERN_TILE; i += 4)
        vst1q_f32(w->tile + i, load_half(tile + i));
}

/* Scores of all 64 keys for queries [i, i + n); n is a constant after inlining. */
INLINE void tile_scores(struct walk *w, uint32_t i, int n)
{
    for (uint32_t t = 0; t < KERN_TILE; t += 4 * WIDTH) {
        float32x4_t acc[QUERIES][WIDTH];
        UNROLL
        for (int k = 0; k < n; k++) {
            UNROLL
            for (int j = 0; j < WIDTH; j++)
                acc[k][j] = vdupq_n_f32(0.0f);
        }
        for (uint32_t d = 0; d < w->a->head_dim; d++) {
            float32x4_t key[WIDTH];
            UNROLL
            for (uint32_t j = 0; j < WIDTH; j++)
                key[j] = vld1q_f32(w->tile + (size_t)d * KERN_TILE + t + 4 * j);
            UNROLL
            for (int k = 0; k < n; k++) {
                UNROLL
                for (int j = 0; j < WIDTH; j++)
                    acc[k][j] = vfmaq_n_f32(acc[k][j], key[j], w->a->q[i + (uint32_t)k][d]);
            }
        }
        UNROLL
        for (int k = 0; k < n; k++) {
            UNROLL
            for (uint32_t j = 0; j < WIDTH; j++)
                vst1q_f32(w->score[i + (uint32_t)k] + t + 4 * j, acc[k][j]);
        }
    }
}

/* Scores of query i, which sees some of the tile, become weights; keep is the factor for the
 * earlier sums. */
static void tile_weights(struct walk *w, uint32_t i)
{
    float *score = w->score[i], cap = w->a->softcap, max = w->max[i];
    for (uint32_t t = 0; t < KERN_TILE && cap > 0.0f; t += 4)
        vst1q_f32(score + t, cap_lanes(vld1q_f32(score + t), vdupq_n_f32(cap)));
    for (uint32_t t = w->from[i]; t < w->to[i]; t++)
        max = score[t] > max ? score[t] : max;
    float keep = vgetq_lane_f32(exp_lanes(vdupq_n_f32(w->max[i] - max)), 0);
    float32x4_t lanes[4];
    for (uint32_t t = 0; t < KERN_TILE; t += 4) {
        const uint32_t offsets[4] = {t, t + 1, t + 2, t + 3};
        uint32x4_t at = vld1q_u32(offsets);
        uint32x4_t seen =
            vandq_u32(vcgeq_u32(at, vdupq_n_u32(w->from[i])), vcltq_u32(at, vdupq_n_u32(w->to[i])));
        float32x4_t p = exp_lanes(vsubq_f32(vld1q_f32(score + t), vdupq_n_f32(max)));
        p = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(p), seen));
        vst1q_f32(score + t, p);
        lanes[t / 4 % 4] = t < 16 ? p : vaddq_f32(lanes[t / 4 % 4], p);
    }
    w->total[i] = w->total[i] * keep + fold(lanes);
    w->max[i] = max;
    w->keep[i] = keep;
}

/* out += the weighted values [from, to) of queries [i, i + n), after multiplying by keep when
 * `scale`. Head dimensions go by 16, and the last ones by 4 or fewer. */
INLINE void tile_values(struct walk *w, uint32_t i, int n, uint32_t from, uint32_t to, int scale)
{
    const uint32_t head_dim = w->a->head_dim;
    for (uint32_t base = 0; base < head_dim;) {
        const uint32_t width = head_dim - base >= 4 * WIDTH ? WIDTH : 1, left = head_dim - base;
        float32x4_t acc[QUERIES][WIDTH];
        UNROLL
        for (int k = 0; k < n; k++) {
            const uint32_t at = i + (uint32_t)k;
            for (uint32_t j = 0; j < width; j++) {
                acc[k][j] = load_some(w->a->out[at] + base + 4 * j, left - 4 * j);
                if (scale) acc[k][j] = vmulq_n_f32(acc[k][j], w->keep[at]);
            }
        }
        for (uint32_t t = from; t < to; t++) {
            const float *row = w->tile + (size_t)t * head_dim + base;
            if (width == 1) {
                float32x4_t value = load_some(row, left);
                UNROLL
                for (int k = 0; k < n; k++)
                    acc[k][0] = vfmaq_n_f32(acc[k][0], value, w->score[i + (uint32_t)k][t]);
                continue;
            }
            UNROLL
            for (uint32_t j = 0; j < WIDTH; j++) {
                float32x4_t value = vld1q_f32(row + 4 * j);
                UNROLL
                for (int k = 0; k < n; k++)
                    acc[k][j] = vfmaq_n_f32(acc[k][j], value, w->score[i + (uint32_t)k][t]);
            }
        }
        UNROLL
        for (int k = 0; k < n; k++)
            for (uint32_t j = 0; j < width; j++)
                store_some(w->a->out[i + (uint32_t)k] + base + 4 * j, acc[k][j], left - 4 * j);
        base += 4 * width;
    }
}

static void values_one(struct walk *w, uint32_t i, uint32_t from, uint32_t to, int scale)
{
    if (from < to) tile_values(w, i, 1, from, to, scale);
}

/* Queries [i, i + QUERIES): what all see together, before and after it each query's own part. */
static void values_group(struct walk *w, uint32_t i)
{
    uint32_t from = 0, to = KERN_TILE;
    int apart = 0;
    for (uint32_t k = i; k < i + QUERIES; k++) {
        from = w->from[k] > from ? w->from[k] : from;
        to = w->to[k] < to ? w->to[k] : to;
    }
    if (from >= to) { /* nothing in common */
        for (uint32_t k = i; k < i + QUERIES; k++)
            values_one(w, k, w->from[k], w->to[k], 1);
        return;
    }
    for (uint32_t k = i; k < i + QUERIES; k++)
        apart |= w->from[k] < from;
    /* Once one query begins earlier, all take their factor before the common part. */
    for (uint32_t k = i; apart && k < i + QUERIES; k++)
        tile_values(w, k, 1, w->from[k], from, 1);
    tile_values(w, i, QUERIES, from, to, !apart);
    for (uint32_t k = i; k < i + QUERIES; k++)
        values_one(w, k, to, w->to[k], 0);
}

/* What each query sees of a tile; whether any sees some. If not, the tile may not exist. */
static int walk_visible(struct walk *w, uint32_t tile)
{
    const struct kern_attend *a = w->a;
    uint32_t start = tile * KERN_TILE, end = start + KERN_TILE;
    int seen = 0;
    for (uint32_t i = 0; i < a->queries; i++) {
        uint32_t from = a->first[i] > start ? a->first[i] : start;
        uint32_t to = a->n[i] < end ? a->n[i] : end;
        w->from[i] = from < to ? from - start : 0;
        w->to[i] = from < to ? to - start : 0;
        seen |= from < to;
    }
    return seen;
}

static void walk_tile(struct walk *w, uint32_t tile)
{
    const struct kern_attend *a = w->a;
    uint32_t i = 0;
    widen(w, a->k_tiles[tile]);
    for (; i + QUERIES <= a->queries; i += QUERIES)
        tile_scores(w, i, QUERIES);
    for (; i < a->queries; i++)
        tile_scores(w, i, 1);
    for (i = 0; i < a->queries; i++)
        if (w->from[i] < w->to[i]) tile_weights(w, i);
    widen(w, a->v_tiles[tile]);
    for (i = 0; i + QUERIES <= a->queries; i += QUERIES)
        values_group(w, i);
    for (; i < a->queries; i++)
        values_one(w, i, w->from[i], w->to[i], 1);
}

void kern_neon_attend(const struct kern_attend *a)
{
    struct walk w;
    uint32_t begin = UINT32_MAX, end = 0;
    w.a = a;
    for (uint32_t i = 0; i < a->queries; i++) {
        w.max[i] = -__builtin_inff();
        w.total[i] = 0.0f;
        memset(a->out[i], 0, a->head_dim * sizeof(float));
        begin = a->first[i] / KERN_TILE < begin ? a->first[i] / KERN_TILE : begin;
        end = a->n[i] > end ? a->n[i] : end;
    }
    for (uint32_t tile = begin; tile * KERN_TILE < end; tile++)
        if (walk_visible(&w, tile)) walk_tile(&w, tile);
    for (uint32_t i = 0; i < a->queries; i++)
        for (uint32_t d = 0; d < a->head_dim; d++)
            a->out[i][d] /= w.total[i];
}
