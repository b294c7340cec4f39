/*
 * kern_attend_neon: attention with 4 lanes; six queries by four registers are 24 of the 32.
 */
#include "kern/kern_neon.h"

#define LANES 4
#define QUERIES 6
#define WIDTH 4
#define HOLD_TILE 1

typedef float32x4_t vec;
#define vec_set vdupq_n_f32
#define vec_load vld1q_f32
#define vec_store vst1q_f32
#define vec_half load_half
#define vec_add vaddq_f32
#define vec_sub vsubq_f32
#define vec_mul vmulq_f32
#define vec_div vdivq_f32
#define vec_max vmaxq_f32
#define vec_fma(a, b, c) vfmaq_f32(c, a, b)
#define exp_below exp_lanes
#define max_lanes vmaxvq_f32
#define fold_lanes fold

INLINE float32x4_t vec_bytes(const int8_t *p)
{
    int8x8_t bytes = vreinterpret_s8_s32(vdup_n_s32(0));
    memcpy(&bytes, p, 4);
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
}

#include "kern/kern_attend_lanes.h"

#define SUMS 2 /* of two registers each */

typedef int16x8_t pairs;
typedef struct {
    int32x4_t low, high;
} sums;
#define pairs_load vld1q_s16
#define store_i16(p, v) vst1_s16(p, vqmovn_s32(vcvtnq_s32_f32(v)))

INLINE int16x8_t pairs_set(const int16_t *two)
{
    int32_t both;
    memcpy(&both, two, 4);
    return vreinterpretq_s16_s32(vdupq_n_s32(both));
}

INLINE sums sums_zero(void)
{
    return (sums){vdupq_n_s32(0), vdupq_n_s32(0)};
}

INLINE sums sums_add(sums s, int16x8_t a, int16x8_t b)
{
    s.low = vmlal_s16(s.low, vget_low_s16(a), vget_low_s16(b));
    s.high = vmlal_high_s16(s.high, a, b);
    return s;
}

INLINE float32x4_t sums_float(sums s)
{
    return vcvtq_f32_s32(vpaddq_s32(s.low, s.high));
}

#include "kern/kern_attend_i16_lanes.h"
#include "kern/kern_weigh_lanes.h"

void kern_neon_attend(const struct kern_attend *a)
{
    if (a->kv == KERN_KV_I16)
        attend_i16(a);
    else
        attend_lanes(a);
}

void kern_neon_weigh(const struct kern_weigh *g)
{
    weigh_lanes(g);
}

float kern_neon_i16_row(const float *x, uint32_t n, int16_t *q)
{
    return row_i16(x, n, q);
}
