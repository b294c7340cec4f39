/*
 * kern_attend_avx2: attention with 8 lanes; three queries by four registers are 12 of the 16.
 */
#include "kern/kern_avx2.h"

#define LANES 8
#define QUERIES 3
#define WIDTH 4
#define HOLD_TILE 0

typedef __m256 vec;
#define vec_set _mm256_set1_ps
#define vec_load _mm256_loadu_ps
#define vec_store _mm256_storeu_ps
#define vec_half load_half
#define vec_bytes(p) _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p))))
#define vec_add _mm256_add_ps
#define vec_sub _mm256_sub_ps
#define vec_mul _mm256_mul_ps
#define vec_div _mm256_div_ps
#define vec_max _mm256_max_ps
#define vec_fma _mm256_fmadd_ps
#define fold_lanes(sum) fold((sum)[0], (sum)[1])

#include "kern/kern_attend_lanes.h"

#define SUMS 4

typedef __m256i pairs;
typedef __m256i sums;
#define sums_zero _mm256_setzero_si256
#define sums_float _mm256_cvtepi32_ps

INLINE __m256i pairs_set(const int16_t *two)
{
    int32_t both;
    memcpy(&both, two, 4);
    return _mm256_set1_epi32(both);
}

/* By name and as one, because gcc 12 makes all products before the sums and has no registers left
 * for them. */
INLINE __m256i sums_add_at(__m256i sum, __m256i a, const int16_t *p)
{
    __m256i products;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0"
            : "+x"(sum), "=&x"(products)
            : "x"(a), "m"(*(const __m256i_u *)p));
    return sum;
}

INLINE void store_i16(int16_t *p, __m256 v)
{
    __m256i wide = _mm256_cvtps_epi32(v);
    __m128i low = _mm256_castsi256_si128(wide), high = _mm256_extracti128_si256(wide, 1);
    _mm_storeu_si128((__m128i *)(void *)p, _mm_packs_epi32(low, high));
}

#include "kern/kern_attend_i16_lanes.h"
#include "kern/kern_weigh_lanes.h"

void kern_avx2_attend(const struct kern_attend *a)
{
    if (a->kv == KERN_KV_I16)
        attend_i16(a);
    else
        attend_lanes(a);
}

void kern_avx2_weigh(const struct kern_weigh *g)
{
    weigh_lanes(g);
}

float kern_avx2_i16_row(const float *x, uint32_t n, int16_t *q)
{
    return row_i16(x, n, q);
}
