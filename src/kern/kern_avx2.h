/*
 * kern_avx2: small parts that the files of the 256-bit levels share. Only files that are compiled
 * with AVX2, FMA and F16C include it.
 */
#ifndef PDD_KERN_KERN_AVX2_H
#define PDD_KERN_KERN_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "kern/kern_impl.h"

#define INLINE static inline __attribute__((always_inline))
/* Before a loop over registers: it must vanish, or the registers become memory. */
#define UNROLL _Pragma("GCC unroll 16")

/* e^x for x that are not above EXP_HIGH */
INLINE __m256 exp_below(__m256 x)
{
    __m256 normal = _mm256_cmp_ps(x, _mm256_set1_ps(EXP_LOW), _CMP_GE_OQ);
    __m256 shifted = _mm256_fmadd_ps(x, _mm256_set1_ps(EXP_LOG2E), _mm256_set1_ps(EXP_MAGIC));
    __m256 n = _mm256_sub_ps(shifted, _mm256_set1_ps(EXP_MAGIC));
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(EXP_LN2_HIGH), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(EXP_LN2_LOW), r);
    __m256 p = _mm256_set1_ps(EXP_C6), one = _mm256_set1_ps(1.0f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C2));
    p = _mm256_fmadd_ps(p, r, one);
    p = _mm256_fmadd_ps(p, r, one);
    __m256i power = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    __m256i bits = _mm256_add_epi32(_mm256_castps_si256(p), power);
    return _mm256_and_ps(_mm256_castsi256_ps(bits), normal);
}

INLINE __m256 exp_lanes(__m256 x)
{
    return exp_below(_mm256_min_ps(_mm256_set1_ps(EXP_HIGH), x));
}

/* cap * tanh(x / cap) */
INLINE __m256 cap_lanes(__m256 x, __m256 cap)
{
    __m256 one = _mm256_set1_ps(1.0f), two = _mm256_set1_ps(2.0f);
    __m256 e = exp_lanes(_mm256_mul_ps(two, _mm256_div_ps(x, cap)));
    return _mm256_mul_ps(cap, _mm256_sub_ps(one, _mm256_div_ps(two, _mm256_add_ps(one, e))));
}

/* 16 lanes in two registers, folded as 8, 4, 2, 1. */
INLINE float fold(__m256 low, __m256 high)
{
    __m256 a = _mm256_add_ps(low, high);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}

INLINE float max_lanes(__m256 a)
{
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
}

INLINE __m256i tail_mask(uint32_t left)
{
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(left < 8 ? (int)left : 8), lane);
}

INLINE __m256i load256(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

INLINE __m256 load_half(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

INLINE __m256i broadcast4(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}

/* kern_mul_avx2.c, kern_mul_avxvnni.c and kern_attend_avx2.c */
kern_mul_fn kern_avx2_mul_quant, kern_avx2_mul_f32, kern_avx2_mul_f16, kern_avx2_mul_bf16,
    kern_avxvnni_mul_quant;
void kern_avx2_attend(const struct kern_attend *a);
void kern_avx2_weigh(const struct kern_weigh *g);
float kern_avx2_i16_row(const float *x, uint32_t n, int16_t *q);

#endif
