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

static void gelu_mul(const float *gate, const float *up, uint32_t n, float *out)
{
    __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    __m256 cube = _mm256_set1_ps(GELU_CUBE), line = _mm256_set1_ps(GELU_LINE);
    for (uint32_t i = 0; i < n; i += 8) {
        __m256i m = tail_mask(n - i);
        __m256 x = _mm256_maskload_ps(gate + i, m);
        __m256 u2 = _mm256_mul_ps(x, _mm256_fmadd_ps(_mm256_mul_ps(x, x), cube, line));
        __m256 s = _mm256_div_ps(x, _mm256_add_ps(one, exp_lanes(_mm256_xor_ps(u2, sign))));
        _mm256_maskstore_ps(out + i, m, _mm256_mul_ps(s, _mm256_maskload_ps(up + i, m)));
    }
}

static void cap_row(float *x, uint32_t n, float cap)
{
    for (uint32_t i = 0; i < n; i += 8) {
        __m256i m = tail_mask(n - i);
        __m256 v = _mm256_maskload_ps(x + i, m);
        _mm256_maskstore_ps(x + i, m, cap_lanes(v, _mm256_set1_ps(cap)));
    }
}

static void add_scaled(float *x, const float *y, float by, uint32_t n)
{
    __m256 factor = _mm256_set1_ps(by);
    for (uint32_t i = 0; i < n; i += 8) {
        __m256i m = tail_mask(n - i);
        __m256 v = _mm256_maskload_ps(x + i, m);
        _mm256_maskstore_ps(x + i, m, _mm256_fmadd_ps(_mm256_maskload_ps(y + i, m), factor, v));
    }
}

/* n blocks from `at` on, side by side. */
static void quantize_blocks(const struct kern_act *a, const float *x, size_t at, uint32_t n)
{
    const __m256 clear = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    /* Packing goes by halves of 128 bits; this puts the groups of 4 columns in order. */
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    int8_t *q = a->q + at * KERN_BLOCK;
    for (; n > 0; n--, at++, x += KERN_BLOCK, q += KERN_BLOCK) {
        __m256 v[4], best = _mm256_setzero_ps();
        UNROLL
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            best = _mm256_max_ps(best, _mm256_and_ps(v[i], clear));
        }
        float max = max_lanes(best), inverse = max > 0.0f ? 127.0f / max : 0.0f;
        if (!(inverse <= 3.0e38f)) inverse = 0.0f;
        __m256i y[4];
        UNROLL
        for (int i = 0; i < 4; i++) {
            /* At most 127: no packing cuts it off. */
            y[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inverse)));
        }
        __m256i all =
            _mm256_packs_epi16(_mm256_packs_epi32(y[0], y[1]), _mm256_packs_epi32(y[2], y[3]));
        all = _mm256_permutevar8x32_epi32(all, order);
        _mm256_storeu_si256((__m256i *)(void *)q, all);
        __m256i sum =
            _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), all), _mm256_set1_epi16(1));
        sum = _mm256_hadd_epi32(sum, sum);
        sum = _mm256_hadd_epi32(sum, sum);
        kern_act_sums(a, at, max / 127.0f, _mm256_cvtsi256_si32(sum), _mm256_extract_epi32(sum, 4));
    }
}

static void quantize(const struct kern_act *a, const float *x, uint32_t row, uint32_t rows,
                     uint32_t block, uint32_t blocks)
{
    kern_quantize_rows(a, x, row, rows, block, blocks, quantize_blocks);
}

static void add(float *x, const float *y, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(x + i, _mm256_add_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
    for (; i < n; i++)
        x[i] += y[i];
}

/* Four pairs a register. The reference rounds both products, so there is no fma here. */
static void rope_pairs(float *x, uint32_t heads, uint32_t head_dim, uint32_t pairs,
                       const float *table)
{
    for (uint32_t i = 0; i < 2 * pairs; i += 8) {
        __m256i m = tail_mask(2 * pairs - i);
        __m256 t = _mm256_maskload_ps(table + i, m);
        __m256 c = _mm256_moveldup_ps(t), s = _mm256_movehdup_ps(t);
        for (uint32_t h = 0; h < heads; h++) {
            float *at = x + (size_t)h * head_dim + i;
            __m256 v = _mm256_maskload_ps(at, m);
            __m256 crossed = _mm256_mul_ps(_mm256_permute_ps(v, 0xB1), s);
            _mm256_maskstore_ps(at, m, _mm256_addsub_ps(_mm256_mul_ps(v, c), crossed));
        }
    }
}

static void rope_halves(float *x, uint32_t heads, uint32_t head_dim, uint32_t pairs,
                        const float *table)
{
    for (uint32_t i = 0; i < pairs; i += 8) {
        uint32_t left = pairs - i;
        __m256i m = tail_mask(left);
        __m256 low = _mm256_maskload_ps(table + 2 * i, tail_mask(2 * left));
        __m256 high = _mm256_maskload_ps(table + 2 * i + 8, tail_mask(left > 4 ? 2 * left - 8 : 0));
        __m256d c = _mm256_castps_pd(_mm256_shuffle_ps(low, high, 0x88));
        __m256d s = _mm256_castps_pd(_mm256_shuffle_ps(low, high, 0xDD));
        __m256 cosine = _mm256_castpd_ps(_mm256_permute4x64_pd(c, 0xD8));
        __m256 sine = _mm256_castpd_ps(_mm256_permute4x64_pd(s, 0xD8));
        for (uint32_t h = 0; h < heads; h++) {
            float *at = x + (size_t)h * head_dim + i;
            __m256 a = _mm256_maskload_ps(at, m), b = _mm256_maskload_ps(at + pairs, m);
            __m256 first = _mm256_sub_ps(_mm256_mul_ps(a, cosine), _mm256_mul_ps(b, sine));
            __m256 second = _mm256_add_ps(_mm256_mul_ps(a, sine), _mm256_mul_ps(b, cosine));
            _mm256_maskstore_ps(at, m, first);
            _mm256_maskstore_ps(at + pairs, m, second);
        }
    }
}

INLINE __m128i to_half(__m256 v)
{
    return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static void put_k(const float *k, uint32_t head_dim, uint32_t slot, uint16_t *tile)
{
    _Alignas(16) uint16_t half[8];
    for (uint32_t d = 0; d < head_dim; d += 8) {
        uint32_t n = head_dim - d < 8 ? head_dim - d : 8;
        _mm_store_si128((__m128i *)(void *)half, to_half(_mm256_maskload_ps(k + d, tail_mask(n))));
        for (uint32_t i = 0; i < n; i++)
            tile[(size_t)(d + i) * KERN_TILE + slot] = half[i];
    }
}

static void put_v(const float *v, uint32_t head_dim, uint32_t slot, uint16_t *tile)
{
    uint16_t *row = tile + (size_t)slot * head_dim;
    uint32_t d = 0;
    for (; d + 8 <= head_dim; d += 8)
        _mm_storeu_si128((__m128i *)(void *)(row + d), to_half(_mm256_loadu_ps(v + d)));
    for (; d < head_dim; d++)
        row[d] = kern_f32_to_f16(v[d]);
}

const struct kern kern_avx2 = {
    .name = "avx2",
    .quantize = quantize,
    .mul = KERN_MULS(kern_avx2_mul_f32, kern_avx2_mul_f16, kern_avx2_mul_bf16, kern_avx2_mul_quant),
    .rms_norm = rms_norm,
    .silu_mul = silu_mul,
    .gelu_mul = gelu_mul,
    .cap_row = cap_row,
    .exp_row = exp_row,
    .attend = kern_avx2_attend,
    .weigh = kern_avx2_weigh,
    .add = add,
    .add_scaled = add_scaled,
    .rope_pairs = rope_pairs,
    .rope_halves = rope_halves,
    .put_k = put_k,
    .put_v = put_v,
    .i16_row = kern_avx2_i16_row,
};

const struct kern kern_avxvnni = {
    .name = "avxvnni",
    .quantize = quantize,
    .mul =
        KERN_MULS(kern_avx2_mul_f32, kern_avx2_mul_f16, kern_avx2_mul_bf16, kern_avxvnni_mul_quant),
    .rms_norm = rms_norm,
    .silu_mul = silu_mul,
    .gelu_mul = gelu_mul,
    .cap_row = cap_row,
    .exp_row = exp_row,
    .attend = kern_avx2_attend,
    .weigh = kern_avx2_weigh,
    .add = add,
    .add_scaled = add_scaled,
    .rope_pairs = rope_pairs,
    .rope_halves = rope_halves,
    .put_k = put_k,
    .put_v = put_v,
    .i16_row = kern_avx2_i16_row,
};
