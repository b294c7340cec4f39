/*
 * kern_mul_avxvnni: quantised multiplies for CPUs with VNNI in 256 bits but no AVX-512 (laptops of
 * the last years). All else of that level is AVX2's. The offset of the unsigned weights is taken
 * back by the sum's start, which is exact.
 */
#include "kern/kern_avx2.h"

enum { Q4_OFFSET = 8 };

struct weights {
    __m256i bytes;
};

INLINE struct weights weights_load(__m256i bytes, int four_bit)
{
    (void)four_bit;
    return (struct weights){bytes};
}

INLINE __m256i sum_begin(int32_t minus, int four_bit)
{
    return _mm256_set1_epi32(four_bit ? minus / (KERN_Q8_OFFSET / Q4_OFFSET) : minus);
}

INLINE __m256i sum_step(__m256i sum, struct weights w, __m256i x, int four_bit)
{
    (void)four_bit;
    return _mm256_dpbusd_avx_epi32(sum, w.bytes, x);
}

INLINE __m256i sum_end(__m256i sum, int32_t minus, int four_bit)
{
    (void)minus, (void)four_bit;
    return sum;
}

#include "kern/kern_mul_256.h"

static void mul_q8_0(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                     const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                     size_t stride)
{
    mul_q(m, strip, strips, x, row, rows, out, stride, 0);
}

static void mul_q4_0(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                     const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                     size_t stride)
{
    mul_q(m, strip, strips, x, row, rows, out, stride, 1);
}

void kern_avxvnni_mul_quant(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                            const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                            size_t stride)
{
    kern_mul_fn *mul = m->type == KERN_Q8_0   ? mul_q8_0
                       : m->type == KERN_Q4_0 ? mul_q4_0
                                              : kern_ref_mul_quant;
    mul(m, strip, strips, x, row, rows, out, stride);
}
