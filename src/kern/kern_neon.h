/*
 * kern_neon: small parts that the NEON files share, 4 lanes a register. Only files that are
 * compiled for aarch64 include it.
 */
#ifndef PDD_KERN_KERN_NEON_H
#define PDD_KERN_KERN_NEON_H

#include <arm_neon.h>
#include <string.h>

#include "kern/kern_impl.h"

#define INLINE static inline __attribute__((always_inline))
/* Before a loop over registers: it must vanish, or the registers become memory. */
#define UNROLL _Pragma("GCC unroll 16")

/* Up to four floats; lanes past `left` are 0. */
INLINE float32x4_t load_some(const float *p, uint32_t left)
{
    if (left >= 4) return vld1q_f32(p);
    float lanes[4] = {0};
    memcpy(lanes, p, left * sizeof *lanes);
    return vld1q_f32(lanes);
}

INLINE void store_some(float *p, float32x4_t v, uint32_t left)
{
    if (left >= 4) {
        vst1q_f32(p, v);
        return;
    }
    float lanes[4];
    vst1q_f32(lanes, v);
    memcpy(p, lanes, left * sizeof *lanes);
}

/* Four float16 as float32; the bytes need no alignment. */
INLINE float32x4_t load_half(const void *p)
{
    uint16x4_t bits;
    memcpy(&bits, p, sizeof bits);
    return vcvt_f32_f16(vreinterpret_f16_u16(bits));
}

INLINE float32x4_t exp_lanes(float32x4_t x)
{
    uint32x4_t normal = vcgeq_f32(x, vdupq_n_f32(EXP_LOW));
    x = vminq_f32(x, vdupq_n_f32(EXP_HIGH));
    float32x4_t magic = vdupq_n_f32(EXP_MAGIC), one = vdupq_n_f32(1.0f);
    float32x4_t shifted = vfmaq_f32(magic, x, vdupq_n_f32(EXP_LOG2E));
    float32x4_t n = vsubq_f32(shifted, magic);
    float32x4_t r = vfmsq_f32(x, n, vdupq_n_f32(EXP_LN2_HIGH));
    r = vfmsq_f32(r, n, vdupq_n_f32(EXP_LN2_LOW));
    float32x4_t p = vdupq_n_f32(EXP_C6);
    p = vfmaq_f32(vdupq_n_f32(EXP_C5), p, r);
    p = vfmaq_f32(vdupq_n_f32(EXP_C4), p, r);
    p = vfmaq_f32(vdupq_n_f32(EXP_C3), p, r);
    p = vfmaq_f32(vdupq_n_f32(EXP_C2), p, r);
    p = vfmaq_f32(one, p, r);
    p = vfmaq_f32(one, p, r);
    uint32x4_t power = vshlq_n_u32(vreinterpretq_u32_f32(shifted), 23);
    uint32x4_t bits = vaddq_u32(vreinterpretq_u32_f32(p), power);
    return vreinterpretq_f32_u32(vandq_u32(bits, normal));
}

/* cap * tanh(x / cap) */
INLINE float32x4_t cap_lanes(float32x4_t x, float32x4_t cap)
{
    float32x4_t one = vdupq_n_f32(1.0f), two = vdupq_n_f32(2.0f);
    float32x4_t e = exp_lanes(vmulq_f32(two, vdivq_f32(x, cap)));
    return vmulq_f32(cap, vsubq_f32(one, vdivq_f32(two, vaddq_f32(one, e))));
}

/* 16 lanes in four registers, folded as 8, 4, 2, 1. */
INLINE float fold(const float32x4_t lanes[4])
{
    float32x4_t a = vaddq_f32(vaddq_f32(lanes[0], lanes[2]), vaddq_f32(lanes[1], lanes[3]));
    float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}

/* kern_mul_neon.c, kern_mul_neondot.c and kern_attend_neon.c */
kern_mul_fn kern_neon_mul_f32, kern_neon_mul_f16, kern_neon_mul_bf16, kern_neon_mul_quant,
    kern_neondot_mul_quant;
void kern_neon_attend(const struct kern_attend *a);
void kern_neon_weigh(const struct kern_weigh *g);
float kern_neon_i16_row(const float *x, uint32_t n, int16_t *q);

#endif
