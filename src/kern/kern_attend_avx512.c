/*
 * kern_attend_avx512: attention with 16 lanes; six queries by four registers are 24 of the 32.
 */
#include "kern/kern_avx512.h"

#define LANES 16
#define QUERIES 6
#define WIDTH 4
#define HOLD_TILE 1

typedef __m512 vec;
#define vec_set _mm512_set1_ps
#define vec_load _mm512_loadu_ps
#define vec_store _mm512_storeu_ps
#define vec_half load_half
#define vec_bytes(p) _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p))))
#define vec_add _mm512_add_ps
#define vec_sub _mm512_sub_ps
#define vec_mul _mm512_mul_ps
#define vec_div _mm512_div_ps
#define vec_max _mm512_max_ps
#define vec_fma _mm512_fmadd_ps
#define max_lanes _mm512_reduce_max_ps
#define fold_lanes(sum) fold((sum)[0])

#include "kern/kern_attend_lanes.h"

#define SUMS 4

typedef __m512i pairs;
typedef __m512i sums;
#define pairs_load _mm512_loadu_si512
#define sums_zero _mm512_setzero_si512
#define sums_float _mm512_cvtepi32_ps

INLINE __m512i pairs_set(const int16_t *two)
{
    int32_t both;
    memcpy(&both, two, 4);
    return _mm512_set1_epi32(both);
}

/* The instruction by name: through the intrinsic gcc 12 copies every sum that a loop carries, and
 * has no registers left for that. */
INLINE __m512i sums_add(__m512i sum, __m512i a, __m512i b)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}

INLINE void store_i16(int16_t *p, __m512 v)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(v)));
}

#include "kern/kern_attend_i16_lanes.h"
#include "kern/kern_weigh_lanes.h"

void kern_avx512_attend(const struct kern_attend *a)
{
    if (a->kv == KERN_KV_I16)
        attend_i16(a);
    else
        attend_lanes(a);
}

void kern_avx512_weigh(const struct kern_weigh *g)
{
    weigh_lanes(g);
}

float kern_avx512_i16_row(const float *x, uint32_t n, int16_t *q)
{
    return row_i16(x, n, q);
}
