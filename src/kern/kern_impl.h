/*
 * kern_impl: constants and offsets that the levels share. Only files of kern/ include it. Pure.
 *
 * exp in float32 (the same steps in every level): n = round(x * log2 e) by adding and subtracting
 * 1.5 * 2^23; r = x - n ln 2 in two fma; a polynomial of degree 6 in Horner form by fma; times 2^n
 * by adding n to the exponent. Below EXP_LOW the result is 0, above EXP_HIGH that of EXP_HIGH.
 *
 * A capped value is cap * tanh(x / cap) with tanh(y) = 1 - 2 / (1 + e^(2 y)).
 * GELU in its tanh form is x / (1 + e^(-2 u)) with
 * u = sqrt(2 / pi) (x + 0.044715 x^3), computed as t = x * x, u2 = x * fma(t, GELU_CUBE,
 * GELU_LINE), where the constants hold the factor 2: the same as SiLU with u2 for x.
 */
#ifndef PDD_KERN_KERN_IMPL_H
#define PDD_KERN_KERN_IMPL_H

#include <string.h>

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
#define GELU_LINE 1.59576912f   /* 2 sqrt(2 / pi) */
#define GELU_CUBE 0.0713548163f /* 0.044715 times that */

extern const struct kern kern_scalar;
extern const struct kern kern_avx2;
extern const struct kern kern_avxvnni;
extern const struct kern kern_avx512;
extern const struct kern kern_amx;
extern const struct kern kern_neon;
extern const struct kern kern_neondot;

/* How a scale or a min of a sub-block is made. */
enum kern_part {
    KERN_NONE,
    KERN_HALF,  /* the unit's float16; a min is added */
    KERN_E8M0,  /* the unit's byte e: 2^(e - 128); not for mins */
    KERN_BYTE,  /* float16 times a signed byte; a min is subtracted */
    KERN_NIBBLE /* likewise; the low nibble of a byte is the scale's, the high one the min's */
};

/* What the bits of a weight mean: the weight plus the offset, or the number of an entry of
 * kern_values, whose entries stand without the offset. */
enum kern_values_of { KERN_LINEAR, KERN_IQ4, KERN_E2M1, KERN_VALUES };

/* What makes a quantised type; kern_types.h says what the fields mean. */
struct kern_form {
    uint8_t low, high;  /* bits of the planes */
    uint8_t values;     /* enum kern_values_of */
    uint8_t offset;     /* a power of two, or 0 */
    uint8_t sub;        /* columns that share a scale: 32 or 16 */
    uint8_t scale, min; /* enum kern_part; a min only with offset 0 */
    uint8_t blocks;     /* blocks of 32 in a unit: 1 or 8 */
};

/* In the header so that code for one type sees constants. */
#define KERN_FORM(name, number, file, block, bytes, low, high, values, offset, sub, scale, min)    \
    [KERN_##name] = {low, high,         KERN_##values, offset,                                     \
                     sub, KERN_##scale, KERN_##min,    block / KERN_BLOCK},
static const struct kern_form kern_forms[KERN_TYPES] = {KERN_QUANTS(KERN_FORM)};
#undef KERN_FORM

/* Tables that define formats. Those of E2M1 are doubled, hence the 128 of KERN_E8M0. */
static const int8_t kern_values[KERN_VALUES][16] = {
    [KERN_IQ4] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113},
    [KERN_E2M1] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12},
};

/* Bytes of 32 columns in the planes of a strip. */
static inline size_t kern_block_bytes(enum kern_type type)
{
    return (size_t)(kern_forms[type].low + kern_forms[type].high) * 64;
}

/* Where a unit's scales of sub-blocks begin, and its mins. */
static inline size_t kern_subs_at(enum kern_type type)
{
    return kern_block_bytes(type) * kern_forms[type].blocks;
}

static inline size_t kern_sub_bytes(enum kern_type type)
{
    const struct kern_form *f = &kern_forms[type];
    return (size_t)f->blocks * KERN_BLOCK / f->sub * KERN_LANES;
}

static inline size_t kern_mins_at(enum kern_type type)
{
    return kern_subs_at(type) + kern_sub_bytes(type);
}

static inline size_t kern_unit_bytes(enum kern_type type)
{
    const struct kern_form *f = &kern_forms[type];
    return kern_subs_at(type) + (f->scale < KERN_BYTE ? 0 : kern_sub_bytes(type)) +
           (f->min == KERN_BYTE ? kern_sub_bytes(type) : 0);
}

/* Bytes of a unit's scales: float16, or E8M0. */
static inline size_t kern_half_bytes(enum kern_type type)
{
    if (kern_forms[type].scale == KERN_E8M0) return KERN_LANES;
    return KERN_LANES * 2 * (kern_forms[type].min == KERN_NONE ? 1 : 2);
}

/* 2^(e - 128) as the bits of 2^(e - 127), halved: the least of those, a subnormal, has other bits
 * than the rest. Infinite for 255, which is no number. */
#define KERN_E8M0_LEAST 0x00400000u
static inline float kern_e8m0(uint8_t e)
{
    uint32_t bits = e ? (uint32_t)e << 23 : KERN_E8M0_LEAST;
    float x;
    memcpy(&x, &bits, sizeof x);
    return 0.5f * x;
}

/* Offset of the units' scales in a quantised strip. */
static inline size_t kern_halves_at(const struct kern_mat *m)
{
    return m->cols / KERN_BLOCK / kern_forms[m->type].blocks * kern_unit_bytes(m->type);
}

/* One block of a file, unpacked (kern_block.c). */
struct kern_opened {
    uint8_t q[KERN_UNIT_MAX]; /* unsigned values in order of columns */
    int8_t scale[16];         /* of the sub-blocks, where the type has them */
    int8_t min[16];
    uint16_t d, m; /* half floats: scale, and scale of mins or min; KERN_E8M0: d is the byte */
};
void kern_block_open(enum kern_type type, const uint8_t *raw, struct kern_opened *ret_block);

/* What a quantised block of 32 values (`at`: its place in the rows) gives besides the values: the
 * same few operations at every level. */
static inline void kern_act_sums(const struct kern_act *a, size_t at, float scale, int32_t first,
                                 int32_t second)
{
    a->scale[at] = scale;
    a->minus[at] = -KERN_Q8_OFFSET * (first + second);
    a->sum[at] = (float)(first + second) * scale;
    a->half_minus[2 * at] = -KERN_Q8_OFFSET * first;
    a->half_minus[2 * at + 1] = -KERN_Q8_OFFSET * second;
    a->half_sum[2 * at] = (float)first * scale;
    a->half_sum[2 * at + 1] = (float)second * scale;
}

/* quantize of every level: row by row, n blocks from block `at` of the rows on (a constant after
 * inlining). */
typedef void kern_quantize_blocks_fn(const struct kern_act *a, const float *x, size_t at,
                                     uint32_t n);
static inline __attribute__((always_inline)) void
kern_quantize_rows(const struct kern_act *a, const float *x, uint32_t row, uint32_t rows,
                   uint32_t block, uint32_t blocks, kern_quantize_blocks_fn *quantize_blocks)
{
    const size_t row_blocks = a->cols / KERN_BLOCK;
    for (size_t at = row * row_blocks + block; rows > 0; rows--, at += row_blocks) {
        quantize_blocks(a, x, at, blocks);
        x += (size_t)blocks * KERN_BLOCK;
    }
}

/* The reference's product of any quantised type, and its attention. */
kern_mul_fn kern_ref_mul_quant;
void kern_ref_attend(const struct kern_attend *a);
void kern_ref_weigh(const struct kern_weigh *g);

/* Values of attention in int16 are at most KERN_I16_MAX, so that KERN_I16_TERMS products sum up
 * within an int32. Where all weights of a tile are below KERN_I16_LOW, it adds nothing. */
enum { KERN_I16_TERMS = 64 };
#define KERN_I16_MAX 5792.0f /* the square root of 2^31 / 64 */
#define KERN_I16_INVERSE (1.0f / KERN_I16_MAX)
#define KERN_I16_LOW 1e-30f

/* The scales of a tile of int16, [KERN_TILE], and where they begin. */
static inline size_t kern_i16_scales_at(uint32_t head_dim)
{
    return (size_t)head_dim * KERN_TILE * sizeof(int16_t);
}
static inline const float *kern_i16_scales(const void *tile, uint32_t head_dim)
{
    return (const float *)(const void *)((const uint8_t *)tile + kern_i16_scales_at(head_dim));
}

/* The reference's i16_row; and one value: x to the nearest even, within the limit; NaN: minus it.
 */
float kern_ref_i16_row(const float *x, uint32_t n, int16_t *q);
int16_t kern_ref_i16_of(float x);

/* A level's multiplies: three functions for float weights, one for all quantised types. */
#define KERN_MULS(f32, f16, bf16, quant)                                                           \
    {                                                                                              \
        [KERN_F32] = f32, [KERN_F16] = f16, [KERN_BF16] = bf16,                                    \
        [KERN_BF16 + 1 ... KERN_TYPES - 1] = quant                                                 \
    }

static inline const uint8_t *kern_strip(const struct kern_mat *m, uint32_t strip)
{
    return m->data + m->strip_bytes * strip;
}

/* How many rows of a strip are not padding. */
static inline uint32_t kern_lanes_of(const struct kern_mat *m, uint32_t strip)
{
    uint32_t left = m->rows - strip * KERN_LANES;
    return left < KERN_LANES ? left : KERN_LANES;
}

#endif
