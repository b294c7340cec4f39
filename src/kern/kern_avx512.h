/*
 * kern_avx512: small parts that the AVX-512 files share. Only files that are compiled with those
 * instructions include it.
 */
#ifndef PDD_KERN_KERN_AVX512_H
#define PDD_KERN_KERN_AVX512_H

#include <immintrin.h>
#include <string.h>

#include "kern/kern_impl.h"

#define INLINE static inline __attribute__((always_inline))
/* Before a loop over registers: it must vanish, or the registers become memory. */
#define UNROLL _Pragma("GCC unroll 16")

INLINE __mmask16 tail_mask(uint32_t left)
{
    return (__mmask16)(left >= 16 ? 0xFFFFu : (1u << left) - 1);
}

/* The next 16 floats or, near the end, as many as are left. Whole vectors go without a mask: what a
 * masked store wrote is not handed on to the loads that follow, which wait for the cache then. */
INLINE __m512 load_left(const float *p, uint32_t left)
{
    return left >= 16 ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(tail_mask(left), p);
}

INLINE void store_left(float *p, uint32_t left, __m512 v)
{
    if (left >= 16)
        _mm512_storeu_ps(p, v);
    else
        _mm512_mask_storeu_ps(p, tail_mask(left), v);
}

/* 16 lanes folded as 8, 4, 2, 1. */
INLINE float fold(__m512 v)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}

INLINE __m512 load_half(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* e^x for x that are not above EXP_HIGH */
INLINE __m512 exp_below(__m512 x)
{
    __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(EXP_LOW), _CMP_GE_OQ);
    __m512 magic = _mm512_set1_ps(EXP_MAGIC);
    __m512 shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(EXP_LOG2E), magic);
    __m512 n = _mm512_sub_ps(shifted, magic);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EXP_LN2_HIGH), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EXP_LN2_LOW), r);
    __m512 p = _mm512_set1_ps(EXP_C6), one = _mm512_set1_ps(1.0f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C2));
    p = _mm512_fmadd_ps(p, r, one);
    p = _mm512_fmadd_ps(p, r, one);
    __m512i power = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_maskz_add_epi32(normal, _mm512_castps_si512(p), power));
}

INLINE __m512 exp_lanes(__m512 x)
{
    return exp_below(_mm512_min_ps(_mm512_set1_ps(EXP_HIGH), x));
}

/* cap * tanh(x / cap) */
INLINE __m512 cap_lanes(__m512 x, __m512 cap)
{
    __m512 one = _mm512_set1_ps(1.0f), two = _mm512_set1_ps(2.0f);
    __m512 e = exp_lanes(_mm512_mul_ps(two, _mm512_div_ps(x, cap)));
    return _mm512_mul_ps(cap, _mm512_sub_ps(one, _mm512_div_ps(two, _mm512_add_ps(one, e))));
}

/* Where a chunk of a strip goes as bytes, 512 a block of 32 columns: [8 groups][16 rows][4]; w +
 * 128, or w for types with mins and where `as_signed` says so. Scales and mins (if any) are floats
 * [sub-blocks][16 rows]. Unsigned Q8_0 is in this form already and not copied. */
struct kern_wide {
    uint8_t *w;
    float *scale, *min;
    int as_signed;
};

/* Weights of later strips, to be fetched into L2 while this chunk's rows are
 * multiplied: evenly over all its blocks and tiles of rows, because the memory's rate is what
 * bounds few rows, and lines asked for faster than they come hold up the loads of the loop. */
struct kern_fetch {
    const uint8_t *at;
    size_t bytes, next; /* in all; of the next line */
    size_t due, step;   /* bytes that should be on their way, and how many more each step */
};

INLINE struct kern_fetch fetch_start(const uint8_t *at, size_t bytes, size_t steps)
{
    return (struct kern_fetch){.at = at, .bytes = bytes, .step = bytes / steps + 1};
}

INLINE void fetch_step(struct kern_fetch *f)
{
    f->due = f->due + f->step < f->bytes ? f->due + f->step : f->bytes;
    for (; f->next < f->due; f->next += 64)
        _mm_prefetch((const char *)f->at + f->next, _MM_HINT_T1);
}

/* kern_widen_avx512.c; block and blocks suit the type's units */
void kern_avx512_widen(const struct kern_mat *m, uint32_t strip, uint32_t block, uint32_t blocks,
                       const struct kern_wide *to);

/* kern_mul_avx512.c, kern_few_avx512.c, kern_mul_amx.c and kern_attend_avx512.c */
kern_mul_fn kern_avx512_mul_quant, kern_avx512_mul_few, kern_avx512_mul_f32, kern_avx512_mul_f16,
    kern_avx512_mul_bf16, kern_amx_mul_quant;
void kern_avx512_attend(const struct kern_attend *a);
void kern_avx512_weigh(const struct kern_weigh *g);
float kern_avx512_i16_row(const float *x, uint32_t n, int16_t *q);

#endif
