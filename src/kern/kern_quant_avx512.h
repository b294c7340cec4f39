/*
 * kern_quant_avx512: packed quantised weights into registers, for the files with AVX-512. Only
 * inline functions whose type is a constant after inlining.
 */
#ifndef PDD_KERN_KERN_QUANT_AVX512_H
#define PDD_KERN_KERN_QUANT_AVX512_H

#include "kern/kern_avx512.h"

typedef uint16_t words __attribute__((vector_size(64)));

/* Bits [from, from + bits) of each byte at bit `to`, the others zero. */
INLINE __m512i move_bits(__m512i v, int bits, int from, int to)
{
    if (to > from) v = (__m512i)((words)v << (uint16_t)(to - from));
    if (to < from) v = (__m512i)((words)v >> (uint16_t)(from - to));
    return _mm512_and_si512(v, _mm512_set1_epi8((char)(((1 << bits) - 1) << to)));
}

/* What is added to those to make weights of the 8-bit form, w + 128 (types with mins: w). */
INLINE int wide_bias(enum kern_type type)
{
    return kern_forms[type].min ? 0 : KERN_Q8_OFFSET - kern_forms[type].offset;
}

/* Loads stay in the order in which memory is read: left alone, gcc mixes those of a block, which
 * took 6 % of Q8_0's one row on Zen 4. */
#define IN_ORDER(v) __asm__ volatile("" : "+v"(v) : : "memory")

/* The 8 groups of a block of 32 columns as unsigned bytes: weights plus their offset. */
INLINE void unpack_block(const uint8_t *p, enum kern_type type, __m512i w[8])
{
    const struct kern_form f = kern_forms[type];
    __m512i low[8], high[2];
    UNROLL
    for (int v = 0; v < f.low; v++) {
        low[v] = _mm512_loadu_si512(p + v * 64);
        IN_ORDER(low[v]);
    }
    UNROLL
    for (int v = 0; v < f.high; v++)
        high[v] = _mm512_loadu_si512(p + (f.low + v) * 64);
    UNROLL
    for (int g = 0; g < 8; g++) {
        w[g] = f.low == 8 ? low[g] : move_bits(low[g % f.low], f.low, g / f.low * f.low, 0);
        if (f.high)
            w[g] = _mm512_or_si512(w[g],
                                   move_bits(high[g % f.high], f.high, g / f.high * f.high, f.low));
    }
    if (!f.values) return;
    __m128i values = _mm_loadu_si128((const __m128i *)(const void *)kern_values[f.values]);
    values = _mm_add_epi8(values, _mm_set1_epi8((char)f.offset));
    UNROLL
    for (int g = 0; g < 8; g++)
        w[g] = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), w[g]);
}

INLINE __m512 sub_scale(const uint8_t *bytes)
{
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)bytes);
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(v));
}

INLINE __m512 sub_nibble(const uint8_t *bytes, int high)
{
    __m512i v = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)bytes));
    if (high) v = _mm512_srli_epi32(v, 4);
    return _mm512_cvtepi32_ps(_mm512_and_si512(v, _mm512_set1_epi32(15)));
}

/* kern_e8m0 of 16 bytes. */
INLINE __m512 load_e8m0(const uint8_t *p)
{
    __m512i bits = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    bits = _mm512_max_epi32(_mm512_slli_epi32(bits, 23), _mm512_set1_epi32(KERN_E8M0_LEAST));
    return _mm512_mul_ps(_mm512_castsi512_ps(bits), _mm512_set1_ps(0.5f));
}

/* A unit's half floats; the min's with the sign it is added with. */
INLINE __m512 unit_scale(const uint8_t *halves, enum kern_type type)
{
    return kern_forms[type].scale == KERN_E8M0 ? load_e8m0(halves) : load_half(halves);
}

INLINE __m512 unit_min(const uint8_t *halves, enum kern_type type)
{
    const __m512i sign = _mm512_set1_epi32((int)0x80000000u);
    if (kern_forms[type].min == KERN_NONE) return _mm512_setzero_ps();
    __m512 m = load_half(halves + 32);
    if (kern_forms[type].min == KERN_HALF) return m;
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(m), sign));
}

/* Scale and min of sub-block s of a unit, from its half floats. */
INLINE __m512 scale_of(const uint8_t *unit, enum kern_type type, uint32_t s, __m512 d)
{
    const uint8_t *subs = unit + kern_subs_at(type) + (size_t)s * KERN_LANES;
    if (kern_forms[type].scale < KERN_BYTE) return d;
    return _mm512_mul_ps(d, kern_forms[type].scale == KERN_BYTE ? sub_scale(subs)
                                                                : sub_nibble(subs, 0));
}

INLINE __m512 min_of(const uint8_t *unit, enum kern_type type, uint32_t s, __m512 m)
{
    size_t at = kern_forms[type].min == KERN_BYTE ? kern_mins_at(type) : kern_subs_at(type);
    const uint8_t *mins = unit + at + (size_t)s * KERN_LANES;
    if (kern_forms[type].min <= KERN_HALF) return m;
    return _mm512_mul_ps(m,
                         kern_forms[type].min == KERN_BYTE ? sub_scale(mins) : sub_nibble(mins, 1));
}

#endif
