/*
 * kern_mul_avxvnni: quantised multiplies for CPUs with VNNI in 256 bits but no AVX-512 (laptops of
 * the last years). All else of that level is AVX2's. The offset of the unsigned weights is taken
 * back by the sum's start, which is exact.
 */
#include "kern/kern_quant_256.h"

enum { WIDE_BYTES = 512, MANY_ROWS = 8 };

/* The wide form is w + 128, or w for types with mins. */
INLINE int wide_offset(enum kern_type type)
{
    return kern_forms[type].min ? 0 : KERN_Q8_OFFSET;
}

INLINE void wide_store(uint8_t *out, enum kern_type type, int g, int half, __m256i v)
{
    int bias = wide_offset(type) - kern_forms[type].offset;
    if (bias) v = _mm256_add_epi8(v, _mm256_set1_epi8((char)bias));
    _mm256_store_si256((__m256i *)(void *)(out + g * 64 + half * 32), v);
}

/* Only the number of scales and mins matter in the wide form. */
INLINE enum kern_type like(enum kern_type type)
{
    const struct kern_form *f = &kern_forms[type];
    if (f->sub == 16) return f->min ? KERN_Q2_K : KERN_Q6_K;
    return f->min ? KERN_Q4_1 : KERN_Q8_0;
}

struct values;
struct mul_args;
INLINE void rows_wide(const struct mul_args *t, enum kern_type type, uint32_t rows);
INLINE void sum_groups(const uint8_t *w, enum kern_type type, int wide, int half, int from,
                       int groups, const struct values *x, int n, __m256i *sum);

#include "kern/kern_mul_256.h"

INLINE void sum_groups(const uint8_t *w, enum kern_type type, int wide, int half, int from,
                       int groups, const struct values *x, int n, __m256i *sum)
{
    const int offset = wide ? wide_offset(type) : kern_forms[type].offset;
    UNROLL
    for (int r = 0; r < n; r++)
        sum[r] =
            offset ? offset_sum(x->minus[(size_t)r * x->subs], offset) : _mm256_setzero_si256();
    UNROLL
    for (int g = from; g < from + groups; g++) {
        __m256i v = wide ? load256(w + g * 64 + half * 32) : unpack_group(w, type, half, g);
        UNROLL
        for (int r = 0; r < n; r++)
            sum[r] =
                _mm256_dpbusd_avx_epi32(sum[r], v, broadcast4(x->q + (size_t)r * x->cols + 4 * g));
    }
}

INLINE void rows_wide(const struct mul_args *t, enum kern_type type, uint32_t rows)
{
    rows_by_half(*t, type, rows);
}

void kern_avxvnni_mul_quant(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                            const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                            size_t stride)
{
    mul_quant(m, strip, strips, x, row, rows, out, stride);
}
