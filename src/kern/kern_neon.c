/*
 * kern_neon: the reference's steps with 4 lanes (four registers are the 16 virtual lanes): rows of
 * activations, and the tables of the two levels for aarch64. The multiplies are in kern_mul_neon.c
 * and kern_mul_neondot.c, the attention in kern_attend_neon.c.
 *
 * Every aarch64 CPU runs what is here.
 */
#include "kern/kern_neon.h"

static void exp_row(float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 4)
        store_some(x + i, exp_lanes(load_some(x + i, n - i)), n - i);
}

static void rms_norm(const float *x, const float *weight, uint32_t n, float eps, float *out)
{
    float32x4_t lanes[4];
    for (int i = 0; i < 4; i++)
        lanes[i] = vdupq_n_f32(0.0f);
    for (uint32_t i = 0; i < n; i += 4) {
        float32x4_t v = load_some(x + i, n - i);
        lanes[i / 4 % 4] = vfmaq_f32(lanes[i / 4 % 4], v, v);
    }
    float32x2_t mean = vdup_n_f32(fold(lanes) / (float)n + eps);
    float scale = 1.0f / vget_lane_f32(vsqrt_f32(mean), 0);
    for (uint32_t i = 0; i < n; i += 4) {
        float32x4_t v = vmulq_f32(load_some(x + i, n - i), vdupq_n_f32(scale));
        store_some(out + i, vmulq_f32(v, load_some(weight + i, n - i)), n - i);
    }
}

/* x / (1 + e^-s) * up */
INLINE float32x4_t gated(float32x4_t x, float32x4_t s, float32x4_t up)
{
    float32x4_t below = vaddq_f32(vdupq_n_f32(1.0f), exp_lanes(vnegq_f32(s)));
    return vmulq_f32(vdivq_f32(x, below), up);
}

static void silu_mul(const float *gate, const float *up, uint32_t n, float *out)
{
    for (uint32_t i = 0; i < n; i += 4) {
        float32x4_t x = load_some(gate + i, n - i);
        store_some(out + i, gated(x, x, load_some(up + i, n - i)), n - i);
    }
}

static void gelu_mul(const float *gate, const float *up, uint32_t n, float *out)
{
    const float32x4_t cube = vdupq_n_f32(GELU_CUBE), line = vdupq_n_f32(GELU_LINE);
    for (uint32_t i = 0; i < n; i += 4) {
        float32x4_t x = load_some(gate + i, n - i);
        float32x4_t u2 = vmulq_f32(x, vfmaq_f32(line, vmulq_f32(x, x), cube));
        store_some(out + i, gated(x, u2, load_some(up + i, n - i)), n - i);
    }
}

static void cap_row(float *x, uint32_t n, float cap)
{
    for (uint32_t i = 0; i < n; i += 4)
        store_some(x + i, cap_lanes(load_some(x + i, n - i), vdupq_n_f32(cap)), n - i);
}

static void add(float *x, const float *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 4)
        store_some(x + i, vaddq_f32(load_some(x + i, n - i), load_some(y + i, n - i)), n - i);
}

static void add_scaled(float *x, const float *y, float by, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 4) {
        float32x4_t v = load_some(x + i, n - i);
        store_some(x + i, vfmaq_f32(v, load_some(y + i, n - i), vdupq_n_f32(by)), n - i);
    }
}

/* The lowest bytes of 16 lanes. */
INLINE int8x16_t low_bytes(const uint32x4_t v[4])
{
    uint16x8_t low = vcombine_u16(vmovn_u32(v[0]), vmovn_u32(v[1]));
    uint16x8_t high = vcombine_u16(vmovn_u32(v[2]), vmovn_u32(v[3]));
    return vreinterpretq_s8_u8(vcombine_u8(vmovn_u16(low), vmovn_u16(high)));
}

/* n blocks from `at` on, side by side. */
static void quantize_blocks(const struct kern_act *a, const float *x, size_t at, uint32_t n)
{
    int8_t *q = a->q + at * KERN_BLOCK;
    for (; n > 0; n--, at++, x += KERN_BLOCK, q += KERN_BLOCK) {
        float32x4_t v[8], best = vdupq_n_f32(0.0f);
        UNROLL
        for (int i = 0; i < 8; i++) {
            v[i] = vld1q_f32(x + 4 * i);
            best = vmaxq_f32(best, vabsq_f32(v[i]));
        }
        float max = vmaxvq_f32(best), inverse = max > 0.0f ? 127.0f / max : 0.0f;
        if (!(inverse <= 3.0e38f)) inverse = 0.0f;
        uint32x4_t y[8];
        UNROLL
        for (int i = 0; i < 8; i++) {
            float32x4_t scaled = vmulq_f32(v[i], vdupq_n_f32(inverse));
            y[i] = vreinterpretq_u32_f32(vaddq_f32(scaled, vdupq_n_f32(EXP_MAGIC)));
        }
        int8x16_t first = low_bytes(y), second = low_bytes(y + 4);
        vst1q_s8(q, first);
        vst1q_s8(q + 16, second);
        kern_act_sums(a, at, max / 127.0f, vaddlvq_s8(first), vaddlvq_s8(second));
    }
}

static void quantize(const struct kern_act *a, const float *x, uint32_t row, uint32_t rows,
                     uint32_t block, uint32_t blocks)
{
    kern_quantize_rows(a, x, row, rows, block, blocks, quantize_blocks);
}

/* The reference rounds both products, so there is no fma in a turn. */
static void rope_pairs(float *x, uint32_t heads, uint32_t head_dim, uint32_t pairs,
                       const float *table)
{
    for (uint32_t h = 0; h < heads; h++, x += head_dim) {
        uint32_t i = 0;
        for (; i + 4 <= pairs; i += 4) {
            float32x4x2_t v = vld2q_f32(x + 2 * i), t = vld2q_f32(table + 2 * i), turned;
            turned.val[0] = vsubq_f32(vmulq_f32(v.val[0], t.val[0]), vmulq_f32(v.val[1], t.val[1]));
            turned.val[1] = vaddq_f32(vmulq_f32(v.val[0], t.val[1]), vmulq_f32(v.val[1], t.val[0]));
            vst2q_f32(x + 2 * i, turned);
        }
        if (i < pairs) kern_rope_pairs(x + 2 * i, 1, head_dim, pairs - i, table + 2 * i);
    }
}

static void rope_halves(float *x, uint32_t heads, uint32_t head_dim, uint32_t pairs,
                        const float *table)
{
    for (uint32_t h = 0; h < heads; h++, x += head_dim) {
        uint32_t i = 0;
        for (; i + 4 <= pairs; i += 4) {
            float32x4_t a = vld1q_f32(x + i), b = vld1q_f32(x + pairs + i);
            float32x4x2_t t = vld2q_f32(table + 2 * i);
            vst1q_f32(x + i, vsubq_f32(vmulq_f32(a, t.val[0]), vmulq_f32(b, t.val[1])));
            vst1q_f32(x + pairs + i, vaddq_f32(vmulq_f32(a, t.val[1]), vmulq_f32(b, t.val[0])));
        }
        for (; i < pairs; i++) {
            float a = x[i], b = x[pairs + i], c = table[2 * i], s = table[2 * i + 1];
            x[i] = a * c - b * s;
            x[pairs + i] = a * s + b * c;
        }
    }
}

static void put_v(const float *v, uint32_t head_dim, uint32_t slot, uint16_t *tile)
{
    uint16_t *row = tile + (size_t)slot * head_dim;
    uint32_t d = 0;
    for (; d + 4 <= head_dim; d += 4)
        vst1_u16(row + d, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(v + d))));
    for (; d < head_dim; d++)
        row[d] = kern_f32_to_f16(v[d]);
}

static void put_k(const float *k, uint32_t head_dim, uint32_t slot, uint16_t *tile)
{
    uint16_t half[KERN_HEAD_MAX];
    put_v(k, head_dim, 0, half);
    for (uint32_t d = 0; d < head_dim; d++)
        tile[(size_t)d * KERN_TILE + slot] = half[d];
}

/* The two levels differ in how a block of quantised weights is summed. */
#define LEVEL(title, mul_quant)                                                                    \
    {                                                                                              \
        .name = title, .quantize = quantize,                                                       \
        .mul = KERN_MULS(kern_neon_mul_f32, kern_neon_mul_f16, kern_neon_mul_bf16, mul_quant),     \
        .rms_norm = rms_norm, .silu_mul = silu_mul, .gelu_mul = gelu_mul, .cap_row = cap_row,      \
        .exp_row = exp_row, .attend = kern_neon_attend, .weigh = kern_neon_weigh, .add = add,      \
        .add_scaled = add_scaled, .rope_pairs = rope_pairs, .rope_halves = rope_halves,            \
        .put_k = put_k, .put_v = put_v, .i16_row = kern_neon_i16_row,                              \
    }
const struct kern kern_neon = LEVEL("neon", kern_neon_mul_quant);
const struct kern kern_neondot = LEVEL("neondot", kern_neondot_mul_quant);
