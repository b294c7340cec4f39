/*
 * kern_avx2: the reference's steps with 8 lanes (two registers are the 16 virtual lanes): rows of
 * activations, and the tables of the 256-bit levels. The multiplies are in kern_mul_avx2.c and
 * kern_mul_avxvnni.c, the attention in kern_attend_avx2.c.
 *
 * Functions only: nothing here runs unless kern_select.c found the instructions.
 */
#include "kern/kern_avx2.h"

static void exp_row(float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 8) {
        __m256i m = tail_mask(n - i);
        _mm256_maskstore_ps(x + i, m, exp_lanes(_mm256_maskload_ps(x + i, m)));
    }
}

static void rms_norm(const float *x, const float *weight, uint32_t n, float eps, float *out)
{
    __m256 lanes[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (uint32_t i = 0; i < n; i += 8) {
        __m256 v = _mm256_maskload_ps(x + i, tail_mask(n - i));
        lanes[i / 8 % 2] = _mm256_fmadd_ps(v, v, lanes[i / 8 % 2]);
    }
    float mean = fold(lanes[0], lanes[1]) / (float)n + eps;
    float root = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean)));
    __m256 scale = _mm256_set1_ps(1.0f / root);
    for (uint32_t i = 0; i < n; i += 8) {
        __m256i m = tail_mask(n - i);
        __m256 v = _mm256_mul_ps(_mm256_maskload_ps(x + i, m), scale);
        _mm256_maskstore_ps(out + i, m, _mm256_mul_ps(v, _mm256_maskload_ps(weight + i, m)));
    }
}

static void silu_mul(const float *gate, const float *up, uint32_t n, float *out)
{
    __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    for (uint32_t i = 0; i < n; i += 8) {
        __m256i m = tail_mask(n - i);
        __m256 g = _mm256_maskload_ps(gate + i, m);
        __m256 s = _mm256_div_ps(g, _mm256_add_ps(one, exp_lanes(_mm256_xor_ps(g, sign))));
        _mm256_maskstore_ps(out + i, m, _mm256_mul_ps(s, _mm256_maskload_ps(up + i, m)));
    }
}

static void quantize(const float *x, uint32_t cols, int8_t *q, float *scale, int32_t *minus)
{
    __m256 clear = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    for (uint32_t b = 0; b < cols / KERN_BLOCK; b++, x += KERN_BLOCK, q += KERN_BLOCK) {
        __m256 v[4], best = _mm256_setzero_ps();
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            best = _mm256_max_ps(best, _mm256_and_ps(v[i], clear));
        }
        float max = max_lanes(best), inverse = max > 0.0f ? 127.0f / max : 0.0f;
        if (!(inverse <= 3.0e38f)) inverse = 0.0f;
        int32_t sum = 0, value[8];
        for (int i = 0; i < 4; i++) {
            __m256 y = _mm256_add_ps(_mm256_mul_ps(v[i], _mm256_set1_ps(inverse)),
                                     _mm256_set1_ps(EXP_MAGIC));
            _mm256_storeu_si256((__m256i *)(void *)value, _mm256_castps_si256(y));
            for (int k = 0; k < 8; k++) {
                q[8 * i + k] = (int8_t)(uint8_t)value[k];
                sum += q[8 * i + k];
            }
        }
        scale[b] = max / 127.0f;
        minus[b] = -KERN_Q8_OFFSET * sum;
    }
}

const struct kern kern_avx2 = {
    .name = "avx2",
    .quantize = quantize,
    .mul = {[KERN_F32] = kern_avx2_mul_f32,
            [KERN_F16] = kern_avx2_mul_f16,
            [KERN_BF16] = kern_avx2_mul_bf16,
            [KERN_Q8_0] = kern_avx2_mul_q8_0,
            [KERN_Q4_0] = kern_avx2_mul_q4_0},
    .rms_norm = rms_norm,
    .silu_mul = silu_mul,
    .exp_row = exp_row,
    .attend = kern_avx2_attend,
};

const struct kern kern_avxvnni = {
    .name = "avxvnni",
    .quantize = quantize,
    .mul = {[KERN_F32] = kern_avx2_mul_f32,
            [KERN_F16] = kern_avx2_mul_f16,
            [KERN_BF16] = kern_avx2_mul_bf16,
            [KERN_Q8_0] = kern_avxvnni_mul_q8_0,
            [KERN_Q4_0] = kern_avxvnni_mul_q4_0},
    .rms_norm = rms_norm,
    .silu_mul = silu_mul,
    .exp_row = exp_row,
    .attend = kern_avx2_attend,
};
