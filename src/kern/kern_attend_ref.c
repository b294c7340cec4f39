/*
 * kern_attend_ref: attention of the reference, query by query and tile by tile.
 *
 * Keys and values in float16 or 8 bits are opened to float32; scores and sums are chains of fma.
 *
 * In int16 a query, a key and a value are x = q * scale, scale = largest magnitude / KERN_I16_MAX
 * and q = x * (KERN_I16_MAX / largest magnitude) to the nearest even; a position's scale of a key
 * or a value stands in its tile. A score is the sum of q k, exact for each 64 dimensions
 * (KERN_I16_TERMS) and then as float in their order, times the key's scale, times the query's.
 * Weights times their value's scale become integers too, the largest in the tile being
 * KERN_I16_MAX, so that a tile adds to the output
 *
 *     out = fma((float)isum, scale of the tile, out * keep)    isum: the exact sum of weight * v
 *
 * Rows and tiles differ in two points, and both are part of the contract:
 *
 *     scale     row: largest / KERN_I16_MAX     tile: largest * KERN_I16_INVERSE, another rounding
 *     q = 0     row: KERN_I16_MAX / largest is above 3e38    tile: largest is below KERN_I16_LOW
 *
 * A row keeps its scale then. NaN becomes -KERN_I16_MAX (kern_ref_i16_of). No sum passes an int32.
 * The sum of weights is that of the weights as floats.
 *
 * Weights by themselves (kern_weigh) are not online: all scores of a query, their maximum, e^(score
 * - maximum), their sum tile by tile, and factor / sum times each.
 */
#include "kern/kern_ref.h"

int16_t kern_ref_i16_of(float x)
{
    x = x > -KERN_I16_MAX ? x : -KERN_I16_MAX;
    float shifted = (x < KERN_I16_MAX ? x : KERN_I16_MAX) + EXP_MAGIC;
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    return (int16_t)(uint16_t)bits;
}

float kern_ref_i16_row(const float *x, uint32_t n, int16_t *q)
{
    float max = 0.0f;
    for (uint32_t k = 0; k < n; k++)
        max = fabsf(x[k]) > max ? fabsf(x[k]) : max;
    float inverse = max > 0.0f ? KERN_I16_MAX / max : 0.0f;
    if (!(inverse <= 3.0e38f)) /* near the denormals: q is 0, as in quantize */
        inverse = 0.0f;
    for (uint32_t k = 0; k < n; k++)
        q[k] = kern_ref_i16_of(x[k] * inverse);
    return max / KERN_I16_MAX;
}

/* Positions of a tile that the query sees. */
struct seen {
    uint32_t from, to;
};

/* Scores of visible keys. */
static void tile_scores(const float *q, uint32_t head_dim, const float *k, struct seen see,
                        float *score)
{
    for (uint32_t t = see.from; t < see.to; t++) {
        float acc = 0.0f;
        for (uint32_t d = 0; d < head_dim; d++)
            acc = fmaf(q[d], k[d * KERN_TILE + t], acc);
        score[t] = acc;
    }
}

static float cap_and_max(float *score, float softcap, struct seen see)
{
    float max = -INFINITY;
    for (uint32_t t = see.from; t < see.to; t++) {
        if (softcap > 0.0f) score[t] = ref_cap(score[t], softcap);
        max = score[t] > max ? score[t] : max;
    }
    return max;
}

/* Turn scores into weights e^(score - max) and return their sum: lane i takes i, i+16, i+32, i+48.
 */
static float tile_weights(float *score, struct seen see, float max)
{
    float lanes[16];
    for (uint32_t t = 0; t < KERN_TILE; t++)
        score[t] = t >= see.from && t < see.to ? ref_exp(score[t] - max) : 0.0f;
    for (uint32_t i = 0; i < 16; i++)
        lanes[i] = ((score[i] + score[16 + i]) + score[32 + i]) + score[48 + i];
    return ref_fold(lanes);
}

/* A tile as floats. */
static void open_tile(const struct kern_attend *a, const void *tile, int values, float *out)
{
    if (a->kv == KERN_KV_Q8 && values)
        kern_open_v_q8(tile, a->head_dim, out);
    else if (a->kv == KERN_KV_Q8)
        kern_open_k_q8(tile, a->head_dim, out);
    else
        for (size_t k = 0; k < (size_t)a->head_dim * KERN_TILE; k++)
            out[k] = kern_f16_to_f32(((const uint16_t *)tile)[k]);
}

static void scores_i16(const struct kern_attend *a, const int16_t *q, float q_scale,
                       const int16_t *k, struct seen see, float *score)
{
    const float *scale = kern_i16_scales(k, a->head_dim);
    for (uint32_t t = see.from; t < see.to; t++) {
        float score_sum = 0.0f;
        for (uint32_t d = 0; d < a->head_dim;) {
            const uint32_t end = d + KERN_I16_TERMS;
            int32_t sum = 0;
            for (; d < end && d < a->head_dim; d++)
                sum += q[d] * k[(d / 2 * KERN_TILE + t) * 2 + d % 2];
            score_sum += (float)sum;
        }
        score[t] = score_sum * scale[t] * q_scale;
    }
}

/* out += weights * values of a tile, after out *= keep. */
static void add_values(const struct kern_attend *a, const float *weight, const void *tile,
                       struct seen see, float keep, float *out)
{
    float open[KERN_HEAD_MAX * KERN_TILE];
    open_tile(a, tile, 1, open);
    for (uint32_t d = 0; d < a->head_dim; d++) {
        out[d] *= keep;
        for (uint32_t t = see.from; t < see.to; t++)
            out[d] = fmaf(weight[t], open[t * a->head_dim + d], out[d]);
    }
}

static void add_values_i16(const struct kern_attend *a, const float *weight, const int16_t *v,
                           struct seen see, float keep, float *out)
{
    const float *scale = kern_i16_scales(v, a->head_dim);
    float scaled[KERN_TILE] = {0}, max = 0.0f;
    int16_t q[KERN_TILE];
    for (uint32_t t = see.from; t < see.to; t++) {
        scaled[t] = weight[t] * scale[t];
        max = scaled[t] > max ? scaled[t] : max;
    }
    float inverse = max >= KERN_I16_LOW ? KERN_I16_MAX / max : 0.0f;
    for (uint32_t t = 0; t < KERN_TILE; t++)
        q[t] = kern_ref_i16_of(scaled[t] * inverse);
    for (uint32_t d = 0; d < a->head_dim; d++) {
        int32_t sum = 0;
        for (uint32_t t = 0; t < KERN_TILE; t++)
            sum += q[t] * v[(t / 2 * a->head_dim + d) * 2 + t % 2];
        out[d] = fmaf((float)sum, max * KERN_I16_INVERSE, out[d] * keep);
    }
}

/* One query; `q` are its integers where keys are. */
static void attend_one(const struct kern_attend *a, uint32_t i)
{
    float open[KERN_HEAD_MAX * KERN_TILE], q_scale = 0.0f;
    float *out = a->out[i], score[KERN_TILE] = {0}, max = -INFINITY, total = 0.0f;
    int16_t q[KERN_HEAD_MAX];
    int integers = a->kv == KERN_KV_I16;
    memset(out, 0, a->head_dim * sizeof *out);
    if (integers) q_scale = kern_ref_i16_row(a->q[i], a->head_dim, q);
    for (uint32_t tile = a->first[i] / KERN_TILE; tile * KERN_TILE < a->n[i]; tile++) {
        uint32_t start = tile * KERN_TILE, left = a->n[i] - start;
        struct seen see = {a->first[i] > start ? a->first[i] - start : 0,
                           left < KERN_TILE ? left : KERN_TILE};
        if (integers) {
            scores_i16(a, q, q_scale, a->k_tiles[tile], see, score);
        } else {
            open_tile(a, a->k_tiles[tile], 0, open);
            tile_scores(a->q[i], a->head_dim, open, see, score);
        }
        float tile_max = cap_and_max(score, a->softcap, see);
        float new_max = tile_max > max ? tile_max : max, keep = ref_exp(max - new_max);
        total = total * keep + tile_weights(score, see, new_max);
        if (integers)
            add_values_i16(a, score, a->v_tiles[tile], see, keep, out);
        else
            add_values(a, score, a->v_tiles[tile], see, keep, out);
        max = new_max;
    }
    for (uint32_t d = 0; d < a->head_dim; d++)
        out[d] /= total;
}

void kern_ref_attend(const struct kern_attend *a)
{
    for (uint32_t i = 0; i < a->queries; i++)
        attend_one(a, i);
}

/* Scores of a tile, as attention has them; what is not seen is -infinity. Returns the largest. */
static float weigh_tile(const struct kern_weigh *g, const float *query, const int16_t *q,
                        float q_scale, const void *tile, struct seen see, float *score)
{
    const struct kern_attend a = {.head_dim = g->head_dim, .kv = g->kv};
    float open[KERN_HEAD_MAX * KERN_TILE];
    for (uint32_t t = 0; t < KERN_TILE; t++)
        score[t] = -INFINITY;
    if (g->kv == KERN_KV_I16) {
        scores_i16(&a, q, q_scale, tile, see, score);
    } else {
        open_tile(&a, tile, 0, open);
        tile_scores(query, g->head_dim, open, see, score);
    }
    return cap_and_max(score, g->softcap, see);
}

static void weigh_one(const struct kern_weigh *g, uint32_t i)
{
    float *row = g->rows, max = -INFINITY, total = 0.0f, q_scale = 0.0f;
    int16_t q[KERN_HEAD_MAX];
    const uint32_t n = g->n[i];
    if (g->kv == KERN_KV_I16) q_scale = kern_ref_i16_row(g->q[i], g->head_dim, q);
    for (uint32_t at = 0; at < n; at += KERN_TILE) {
        struct seen see = {0, n - at < KERN_TILE ? n - at : KERN_TILE};
        const float tile_max =
            weigh_tile(g, g->q[i], q, q_scale, g->k_tiles[at / KERN_TILE], see, row + at);
        max = tile_max > max ? tile_max : max;
    }
    for (uint32_t at = 0; at < n; at += KERN_TILE) {
        struct seen see = {0, n - at < KERN_TILE ? n - at : KERN_TILE};
        total += tile_weights(row + at, see, max);
    }
    const float by = g->factor[i] / total;
    for (uint32_t t = 0; t < n && t < g->best_tiles * KERN_TILE; t++)
        g->best[t] = row[t] * by > g->best[t] ? row[t] * by : g->best[t];
}

void kern_ref_weigh(const struct kern_weigh *g)
{
    for (uint32_t i = 0; i < g->queries; i++)
        weigh_one(g, i);
}
