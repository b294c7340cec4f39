/*
 * kern_avx512: the reference's steps with 16 lanes: rows of activations, and the table of the
 * level. The multiplies are in kern_mul_avx512.c, the attention in kern_attend_avx512.c.
 *
 * Functions only: nothing here runs unless kern_select.c found the instructions.
 */
#include "kern/kern_avx512.h"

static void exp_row(float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 m = tail_mask(n - i);
        _mm512_mask_storeu_ps(x + i, m, exp_lanes(_mm512_maskz_loadu_ps(m, x + i)));
    }
}

static void rms_norm(const float *x, const float *weight, uint32_t n, float eps, float *out)
{
    __m512 lanes = _mm512_setzero_ps();
    for (uint32_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(tail_mask(n - i), x + i);
        lanes = _mm512_fmadd_ps(v, v, lanes);
    }
    float mean = fold(lanes) / (float)n + eps;
    float root = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean)));
    __m512 scale = _mm512_set1_ps(1.0f / root);
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 m = tail_mask(n - i);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), scale);
        _mm512_mask_storeu_ps(out + i, m, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, weight + i)));
    }
}

static void silu_mul(const float *gate, const float *up, uint32_t n, float *out)
{
    __m512 one = _mm512_set1_ps(1.0f);
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 m = tail_mask(n - i);
        __m512 g = _mm512_maskz_loadu_ps(m, gate + i);
        __m512 minus = _mm512_castsi512_ps(
            _mm512_xor_si512(_mm512_castps_si512(g), _mm512_set1_epi32((int)0x80000000u)));
        __m512 s = _mm512_div_ps(g, _mm512_add_ps(one, exp_lanes(minus)));
        _mm512_mask_storeu_ps(out + i, m, _mm512_mul_ps(s, _mm512_maskz_loadu_ps(m, up + i)));
    }
}

static void quantize(const float *x, uint32_t cols, int8_t *q, float *scale, int32_t *minus)
{
    for (uint32_t b = 0; b < cols / KERN_BLOCK; b++, x += KERN_BLOCK, q += KERN_BLOCK) {
        __m512 low = _mm512_loadu_ps(x), high = _mm512_loadu_ps(x + 16);
        float max = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
        float inverse = max > 0.0f ? 127.0f / max : 0.0f;
        if (!(inverse <= 3.0e38f)) inverse = 0.0f;
        __m512 by = _mm512_set1_ps(inverse), magic = _mm512_set1_ps(EXP_MAGIC);
        __m512i a = _mm512_castps_si512(_mm512_add_ps(_mm512_mul_ps(low, by), magic));
        __m512i c = _mm512_castps_si512(_mm512_add_ps(_mm512_mul_ps(high, by), magic));
        __m128i qa = _mm512_cvtepi32_epi8(a), qc = _mm512_cvtepi32_epi8(c);
        _mm_storeu_si128((__m128i *)(void *)q, qa);
        _mm_storeu_si128((__m128i *)(void *)(q + 16), qc);
        __m512i sum = _mm512_add_epi32(_mm512_cvtepi8_epi32(qa), _mm512_cvtepi8_epi32(qc));
        scale[b] = max / 127.0f;
        minus[b] = -KERN_Q8_OFFSET * _mm512_reduce_add_epi32(sum);
    }
}

const struct kern kern_avx512 = {
    .name = "avx512",
    .quantize = quantize,
    .mul = {[KERN_F32] = kern_avx512_mul_f32,
            [KERN_F16] = kern_avx512_mul_f16,
            [KERN_BF16] = kern_avx512_mul_bf16,
            [KERN_Q8_0] = kern_avx512_mul_q8_0,
            [KERN_Q4_0] = kern_avx512_mul_q4_0},
    .rms_norm = rms_norm,
    .silu_mul = silu_mul,
    .exp_row = exp_row,
    .attend = kern_avx512_attend,
};
