/*
 * kern_quant_256: packed quantised weights into 256-bit registers. Only inline functions whose type
 * is a constant after inlining. A strip has two halves of 8 rows, a register holds a group of 4
 * columns of one half.
 */
#ifndef PDD_KERN_KERN_QUANT_256_H
#define PDD_KERN_KERN_QUANT_256_H

#include "kern/kern_avx2.h"

typedef uint16_t words __attribute__((vector_size(32)));

/* Bits [from, from + bits) of each byte at bit `to`, the others zero. */
INLINE __m256i move_bits(__m256i v, int bits, int from, int to)
{
    if (to > from) v = (__m256i)((words)v << (uint16_t)(to - from));
    if (to < from) v = (__m256i)((words)v >> (uint16_t)(from - to));
    return _mm256_and_si256(v, _mm256_set1_epi8((char)(((1 << bits) - 1) << to)));
}

/* Group g of a block's half as unsigned bytes: weights plus their offset. */
INLINE __m256i unpack_group(const uint8_t *block, enum kern_type type, int half, int g)
{
    const struct kern_form f = kern_forms[type];
    __m256i v = load256(block + g % f.low * 64 + half * 32);
    if (f.low < 8) v = move_bits(v, f.low, g / f.low * f.low, 0);
    if (f.high) {
        __m256i high = load256(block + (f.low + g % f.high) * 64 + half * 32);
        v = _mm256_or_si256(v, move_bits(high, f.high, g / f.high * f.high, f.low));
    }
    if (!f.values) return v;
    __m128i values = _mm_loadu_si128((const __m128i *)(const void *)kern_values[f.values]);
    values = _mm_add_epi8(values, _mm_set1_epi8((char)f.offset));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), v);
}

/* The sum of values times `offset`, negative, from that times 128. */
INLINE __m256i offset_sum(int32_t minus, int offset)
{
    __m256i v = _mm256_set1_epi32(minus);
    switch (offset) {
    case 4:
        return _mm256_srai_epi32(v, 5);
    case 8:
        return _mm256_srai_epi32(v, 4);
    case 16:
        return _mm256_srai_epi32(v, 3);
    case 32:
        return _mm256_srai_epi32(v, 2);
    default:
        return v;
    }
}

INLINE __m256 sub_scale(const uint8_t *bytes)
{
    __m128i v = _mm_loadl_epi64((const __m128i *)(const void *)bytes);
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v));
}

INLINE __m256 sub_nibble(const uint8_t *bytes, int high)
{
    __m256i v = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)bytes));
    if (high) v = _mm256_srli_epi32(v, 4);
    return _mm256_cvtepi32_ps(_mm256_and_si256(v, _mm256_set1_epi32(15)));
}

/* kern_e8m0 of 8 bytes. */
INLINE __m256 load_e8m0(const uint8_t *p)
{
    __m256i bits = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    bits = _mm256_max_epi32(_mm256_slli_epi32(bits, 23), _mm256_set1_epi32(KERN_E8M0_LEAST));
    return _mm256_mul_ps(_mm256_castsi256_ps(bits), _mm256_set1_ps(0.5f));
}

/* A unit's half floats of 8 rows; the min's with the sign it is added with. */
INLINE __m256 unit_scale(const uint8_t *halves, enum kern_type type, int half)
{
    if (kern_forms[type].scale == KERN_E8M0) return load_e8m0(halves + half * 8);
    return load_half(halves + half * 16);
}

INLINE __m256 unit_min(const uint8_t *halves, enum kern_type type, int half)
{
    if (kern_forms[type].min == KERN_NONE) return _mm256_setzero_ps();
    __m256 m = load_half(halves + 32 + half * 16);
    return kern_forms[type].min == KERN_HALF ? m : _mm256_xor_ps(m, _mm256_set1_ps(-0.0f));
}

/* Scale and min of sub-block s of a unit, from its half floats. */
INLINE __m256 scale_of(const uint8_t *unit, enum kern_type type, size_t s, int half, __m256 d)
{
    const uint8_t *subs = unit + kern_subs_at(type) + s * KERN_LANES + half * 8;
    if (kern_forms[type].scale < KERN_BYTE) return d;
    return _mm256_mul_ps(d, kern_forms[type].scale == KERN_BYTE ? sub_scale(subs)
                                                                : sub_nibble(subs, 0));
}

INLINE __m256 min_of(const uint8_t *unit, enum kern_type type, size_t s, int half, __m256 m)
{
    size_t at = kern_forms[type].min == KERN_BYTE ? kern_mins_at(type) : kern_subs_at(type);
    const uint8_t *mins = unit + at + s * KERN_LANES + half * 8;
    if (kern_forms[type].min <= KERN_HALF) return m;
    return _mm256_mul_ps(m,
                         kern_forms[type].min == KERN_BYTE ? sub_scale(mins) : sub_nibble(mins, 1));
}

#endif
