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

void kern_avx512_attend(const struct kern_attend *a)
{
    attend_lanes(a);
}
