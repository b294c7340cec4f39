/*
 * kern_impl: constants and offsets that the levels share. Only files of kern/ include it.
 *
 * exp in float32 (the same steps in every level): n = round(x * log2 e) by adding and subtracting
 * 1.5 * 2^23; r = x - n ln 2 in two fma; a polynomial of degree 6 in Horner form by fma; times 2^n
 * by adding n to the exponent. Below EXP_LOW the result is 0, above EXP_HIGH that of EXP_HIGH.
 */
#ifndef PDD_KERN_KERN_IMPL_H
#define PDD_KERN_KERN_IMPL_H

#include "kern/kern.h"

#define EXP_LOW -87.0f
#define EXP_HIGH 88.0f
#define EXP_LOG2E 1.44269504f
#define EXP_LN2_HIGH 0.693359375f
#define EXP_LN2_LOW -2.12194440e-4f
#define EXP_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer, ties to even */
#define EXP_C6 1.3888889e-3f
#define EXP_C5 8.3333333e-3f
#define EXP_C4 4.1666667e-2f
#define EXP_C3 0.16666667f
#define EXP_C2 0.5f

extern const struct kern kern_scalar;
extern const struct kern kern_avx2;
extern const struct kern kern_avxvnni;
extern const struct kern kern_avx512;
extern const struct kern kern_amx;

/* Where the scales of a quantised strip begin. */
static inline size_t kern_scales_at(const struct kern_mat *m)
{
    return (size_t)m->cols * KERN_LANES / (m->type == KERN_Q4_0 ? 2 : 1);
}

static inline const uint8_t *kern_strip(const struct kern_mat *m, uint32_t strip)
{
    return m->data + m->strip_bytes * strip;
}

/* How many lanes of a strip are real outputs. */
static inline uint32_t kern_lanes_of(const struct kern_mat *m, uint32_t strip)
{
    uint32_t left = m->rows - strip * KERN_LANES;
    return left < KERN_LANES ? left : KERN_LANES;
}

#endif
