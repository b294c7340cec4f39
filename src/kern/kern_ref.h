/*
 * kern_ref: elementary steps of the reference. Only its two files include it.
 */
#ifndef PDD_KERN_KERN_REF_H
#define PDD_KERN_KERN_REF_H

#include <math.h>
#include <string.h>

#include "kern/kern_impl.h"

static inline float bits_to_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static inline uint32_t float_to_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static inline float ref_exp(float x)
{
    if (!(x >= EXP_LOW)) return 0.0f;
    if (x > EXP_HIGH) x = EXP_HIGH;
    float shifted = fmaf(x, EXP_LOG2E, EXP_MAGIC), n = shifted - EXP_MAGIC;
    float r = fmaf(-n, EXP_LN2_LOW, fmaf(-n, EXP_LN2_HIGH, x));
    float p = EXP_C6;
    p = fmaf(p, r, EXP_C5);
    p = fmaf(p, r, EXP_C4);
    p = fmaf(p, r, EXP_C3);
    p = fmaf(p, r, EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    return bits_to_float(float_to_bits(p) + (float_to_bits(shifted) << 23));
}

/* cap * tanh(x / cap) */
static inline float ref_cap(float x, float cap)
{
    return cap * (1.0f - 2.0f / (1.0f + ref_exp(2.0f * (x / cap))));
}

/* 16 lanes folded as 8, 4, 2, 1. */
static inline float ref_fold(float lanes[16])
{
    for (uint32_t width = 8; width > 0; width /= 2)
        for (uint32_t i = 0; i < width; i++)
            lanes[i] += lanes[i + width];
    return lanes[0];
}

#endif
