/*
 * kern_mul_neon: GEMM and GEMV with what every aarch64 CPU has. A dot product of four bytes goes
 * through 16 bits, which hold each product exactly: 128 * 127 is the largest.
 */
#include "kern/kern_neon.h"

INLINE int32x4_t dot_bytes(int32x4_t sum, int8x16_t w, int8x16_t x)
{
    int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)));
    int32x4_t high = vpaddlq_s16(vmull_high_s8(w, x));
    return vaddq_s32(sum, vpaddq_s32(low, high));
}

#define DOT(sum, w, x, lane)                                                                       \
    dot_bytes(sum, w, vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x), lane)))

#include "kern/kern_mul_neon.h"

void kern_neon_mul_quant(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                         const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                         size_t stride)
{
    mul_quant(m, strip, strips, x, row, rows, out, stride);
}

/* ---- float weights --------------------------------------------------------------------------- */

INLINE float32x4_t load_plain(const uint8_t *w, size_t k, uint32_t quarter, enum kern_type type)
{
    size_t at = k * KERN_LANES + 4 * quarter;
    if (type == KERN_F32) return vld1q_f32((const float *)(const void *)w + at);
    const uint16_t *half = (const uint16_t *)(const void *)w + at;
    if (type == KERN_F16) return load_half(half);
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(half), 16));
}

/* n rows (x: the first; a constant after inlining) by the strip's 16 outputs. */
INLINE void tile_plain(const uint8_t *w, uint32_t lanes, const float *x, size_t cols, float *out,
                       size_t stride, int n, enum kern_type type)
{
    float32x4_t acc[TILE_ROWS][4];
    UNROLL
    for (int r = 0; r < n; r++) {
        UNROLL
        for (int j = 0; j < 4; j++)
            acc[r][j] = vdupq_n_f32(0.0f);
    }
    for (size_t k = 0; k < cols; k++) {
        float32x4_t v[4];
        UNROLL
        for (uint32_t j = 0; j < 4; j++)
            v[j] = load_plain(w, k, j, type);
        UNROLL
        for (int r = 0; r < n; r++) {
            UNROLL
            for (int j = 0; j < 4; j++)
                acc[r][j] = vfmaq_n_f32(acc[r][j], v[j], x[(size_t)r * cols + k]);
        }
    }
    UNROLL
    for (int r = 0; r < n; r++) {
        UNROLL
        for (uint32_t j = 0; j < 4; j++)
            store_some(out + (size_t)r * stride + 4 * j, acc[r][j],
                       lanes > 4 * j ? lanes - 4 * j : 0);
    }
}

INLINE void mul_plain(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                      const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                      size_t stride, enum kern_type type)
{
    for (uint32_t s = strip; s < strip + strips; s++) {
        const uint8_t *w = kern_strip(m, s);
        const float *in = x->f32 + (size_t)row * m->cols;
        float *to = out + (size_t)row * stride + (size_t)s * KERN_LANES;
        uint32_t lanes = kern_lanes_of(m, s), r = 0;
        for (; r + TILE_ROWS <= rows; r += TILE_ROWS)
            tile_plain(w, lanes, in + (size_t)r * m->cols, m->cols, to + r * stride, stride,
                       TILE_ROWS, type);
        for (; r < rows; r++)
            tile_plain(w, lanes, in + (size_t)r * m->cols, m->cols, to + r * stride, stride, 1,
                       type);
    }
}

void kern_neon_mul_f32(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                       const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                       size_t stride)
{
    mul_plain(m, strip, strips, x, row, rows, out, stride, KERN_F32);
}

void kern_neon_mul_f16(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                       const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                       size_t stride)
{
    mul_plain(m, strip, strips, x, row, rows, out, stride, KERN_F16);
}

void kern_neon_mul_bf16(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                        const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                        size_t stride)
{
    mul_plain(m, strip, strips, x, row, rows, out, stride, KERN_BF16);
}
