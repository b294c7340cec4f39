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

void kern_avx2_attend(const struct kern_attend *a)
{
    attend_lanes(a);
}
