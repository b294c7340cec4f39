/*
 * block_definition: what each quantised block of a GGUF file means, weight by weight, in double.
 * Written from the definition of the formats and apart from src/kern, so that the tests compare two
 * readings of them. Header only: the kernel tests link no helpers.
 */
#ifndef PDD_TESTS_SUPPORT_BLOCK_DEFINITION_H
#define PDD_TESTS_SUPPORT_BLOCK_DEFINITION_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kern/kern.h"

/* A weight is product - min. */
struct defined_weight {
    double product, min;
};

static double defined_half(const uint8_t *p)
{
    unsigned h = p[0] + 256u * p[1], exponent = h >> 10 & 31, fraction = h & 1023;
    double size = exponent ? ldexp(1024.0 + fraction, (int)exponent - 25) : ldexp(fraction, -24);
    return h & 0x8000 ? -size : size;
}

static unsigned defined_bits(const uint8_t *p, unsigned bit, unsigned n)
{
    unsigned value = 0;
    for (unsigned i = 0; i < n; i++)
        value |= ((unsigned)p[(bit + i) / 8] >> (bit + i) % 8 & 1u) << i;
    return value;
}

/* 6-bit number i of the 12 bytes of Q4_K and Q5_K: scales 0..7, then mins 0..7. */
static unsigned defined_six(const uint8_t *p, unsigned i, int min)
{
    if (i < 4) return p[i + (min ? 4 : 0)] & 63u;
    unsigned low = min ? p[i + 4] >> 4 : p[i + 4] & 15u;
    return low + 16u * (p[i - 4 + (min ? 4 : 0)] >> 6);
}

static int defined_iq4(unsigned index)
{
    static const int values[] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                 1,    13,   25,  38,  53,  69,  89,  113};
    return values[index];
}

/* Sign, two bits of exponent, one of fraction. */
static double defined_e2m1(unsigned code)
{
    unsigned exponent = code >> 1 & 3, fraction = code & 1;
    double size = exponent ? ldexp(2.0 + fraction, (int)exponent - 2) : fraction / 2.0;
    return code & 8 ? -size : size;
}

/* Weight i of a block of 256. */
static struct defined_weight defined_super(enum kern_type type, const uint8_t *b, unsigned i)
{
    unsigned in = i % 128, run = i / 32;
    if (type == KERN_Q2_K) {
        unsigned q = defined_bits(b + 16 + i / 128 * 32 + i % 32, in / 32 * 2, 2);
        unsigned s = b[i / 16];
        return (struct defined_weight){defined_half(b + 80) * (s % 16) * q,
                                       defined_half(b + 82) * (s / 16)};
    }
    if (type == KERN_Q3_K) {
        int q = (int)defined_bits(b + 32 + i / 128 * 32 + i % 32, in / 32 * 2, 2);
        if (!defined_bits(b + i % 32, run, 1)) q -= 4;
        unsigned s = i / 16, low = defined_bits(b + 96 + s % 8, s / 8 * 4, 4);
        unsigned high = defined_bits(b + 104 + s % 4, s / 4 * 2, 2);
        return (struct defined_weight){defined_half(b + 108) * ((int)(low + 16 * high) - 32) * q,
                                       0.0};
    }
    if (type == KERN_Q6_K) {
        unsigned low = defined_bits(b + i / 128 * 64 + in % 64, in / 64 * 4, 4);
        unsigned high = defined_bits(b + 128 + i / 128 * 32 + i % 32, in / 32 * 2, 2);
        int scale = (int8_t)b[192 + i / 16];
        return (struct defined_weight){
            defined_half(b + 208) * scale * ((int)(low + 16 * high) - 32), 0.0};
    }
    if (type == KERN_IQ4_XS) {
        unsigned scale = defined_bits(b + 4, run * 4, 4) + 16 * defined_bits(b + 2, run * 2, 2);
        unsigned q = defined_bits(b + 8 + run * 16 + i % 16, i % 32 / 16 * 4, 4);
        return (struct defined_weight){defined_half(b) * ((int)scale - 32) * defined_iq4(q), 0.0};
    }
    unsigned at = type == KERN_Q5_K ? 48 : 16;
    unsigned q = defined_bits(b + at + i / 64 * 32 + i % 32, run % 2 * 4, 4);
    if (type == KERN_Q5_K) q += 16 * defined_bits(b + 16 + i % 32, run, 1);
    return (struct defined_weight){defined_half(b) * defined_six(b + 4, run, 0) * q,
                                   defined_half(b + 2) * defined_six(b + 4, run, 1)};
}

/* Weight i of a block. */
static inline struct defined_weight defined_weight(enum kern_type type, const uint8_t *b,
                                                   unsigned i)
{
    unsigned nibble = i / 16 * 4, k = i % 16;
    switch (type) {
    case KERN_Q8_0:
        return (struct defined_weight){defined_half(b) * (int8_t)b[2 + i], 0.0};
    case KERN_Q4_0:
        return (struct defined_weight){
            defined_half(b) * ((int)defined_bits(b + 2 + k, nibble, 4) - 8), 0.0};
    case KERN_IQ4_NL:
        return (struct defined_weight){
            defined_half(b) * defined_iq4(defined_bits(b + 2 + k, nibble, 4)), 0.0};
    case KERN_MXFP4:
        return (struct defined_weight){
            ldexp(defined_e2m1(defined_bits(b + 1 + k, nibble, 4)), b[0] - 127), 0.0};
    case KERN_Q4_1:
        return (struct defined_weight){defined_half(b) * defined_bits(b + 4 + k, nibble, 4),
                                       -defined_half(b + 2)};
    case KERN_Q5_0:
        return (struct defined_weight){
            defined_half(b) *
                ((int)(defined_bits(b + 6 + k, nibble, 4) + 16 * defined_bits(b + 2, i, 1)) - 16),
            0.0};
    case KERN_Q5_1:
        return (struct defined_weight){
            defined_half(b) * (defined_bits(b + 8 + k, nibble, 4) + 16 * defined_bits(b + 4, i, 1)),
            -defined_half(b + 2)};
    default:
        return defined_super(type, b, i);
    }
}

/* Give a block the half floats d and m, where it has them: its scale, and the scale of its mins or
 * its min. MXFP4 takes the power of two at or below d. */
static inline void defined_put_halves(enum kern_type type, uint8_t *block, uint16_t d, uint16_t m)
{
    static const int at[KERN_TYPES][2] = {
        [KERN_Q8_0] = {0, -1},   [KERN_Q4_0] = {0, -1},   [KERN_Q4_1] = {0, 2},
        [KERN_Q5_0] = {0, -1},   [KERN_Q5_1] = {0, 2},    [KERN_Q2_K] = {80, 82},
        [KERN_Q3_K] = {108, -1}, [KERN_Q4_K] = {0, 2},    [KERN_Q5_K] = {0, 2},
        [KERN_Q6_K] = {208, -1}, [KERN_IQ4_NL] = {0, -1}, [KERN_IQ4_XS] = {0, -1}};
    if (type == KERN_MXFP4) {
        block[0] = (uint8_t)((d >> 10 & 31) + 127 - 15);
        return;
    }
    memcpy(block + at[type][0], &d, 2);
    if (at[type][1] >= 0) memcpy(block + at[type][1], &m, 2);
}

#endif
