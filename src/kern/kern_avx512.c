/*
 * kern_avx512: the reference's steps with 16 lanes: rows of activations, and the tables of the
 * levels with AVX-512. The multiplies are in kern_mul_avx512.c and kern_mul_amx.c, the
 * attention in kern_attend_avx512.c.
 *
 * Functions only: nothing here runs unless kern_select.c found the instructions.
 */
#include "kern/kern_avx512.h"

static void exp_row(float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 16)
        store_left(x + i, n - i, exp_lanes(load_left(x + i, n - i)));
}

static void rms_norm(const float *x, const float *weight, uint32_t n, float eps, float *out)
{
    __m512 lanes = _mm512_setzero_ps();
    for (uint32_t i = 0; i < n; i += 16) {
        __m512 v = load_left(x + i, n - i);
        lanes = _mm512_fmadd_ps(v, v, lanes);
    }
    float mean = fold(lanes) / (float)n + eps;
    float root = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean)));
    __m512 scale = _mm512_set1_ps(1.0f / root);
    for (uint32_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_mul_ps(load_left(x + i, n - i), scale);
        store_left(out + i, n - i, _mm512_mul_ps(v, load_left(weight + i, n - i)));
    }
}

static void silu_mul(const float *gate, const float *up, uint32_t n, float *out)
{
    __m512 one = _mm512_set1_ps(1.0f);
    for (uint32_t i = 0; i < n; i += 16) {
        __m512 g = load_left(gate + i, n - i);
        __m512 minus = _mm512_castsi512_ps(
            _mm512_xor_si512(_mm512_castps_si512(g), _mm512_set1_epi32((int)0x80000000u)));
        __m512 s = _mm512_div_ps(g, _mm512_add_ps(one, exp_lanes(minus)));
        store_left(out + i, n - i, _mm512_mul_ps(s, load_left(up + i, n - i)));
    }
}

static void gelu_mul(const float *gate, const float *up, uint32_t n, float *out)
{
    __m512 one = _mm512_set1_ps(1.0f), cube = _mm512_set1_ps(GELU_CUBE),
           line = _mm512_set1_ps(GELU_LINE);
    __m512i sign = _mm512_set1_epi32((int)0x80000000u);
    for (uint32_t i = 0; i < n; i += 16) {
        __m512 x = load_left(gate + i, n - i);
        __m512 u2 = _mm512_mul_ps(x, _mm512_fmadd_ps(_mm512_mul_ps(x, x), cube, line));
        __m512 minus = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(u2), sign));
        __m512 s = _mm512_div_ps(x, _mm512_add_ps(one, exp_lanes(minus)));
        store_left(out + i, n - i, _mm512_mul_ps(s, load_left(up + i, n - i)));
    }
}

static void cap_row(float *x, uint32_t n, float cap)
{
    for (uint32_t i = 0; i < n; i += 16)
        store_left(x + i, n - i, cap_lanes(load_left(x + i, n - i), _mm512_set1_ps(cap)));
}

static void add_scaled(float *x, const float *y, float by, uint32_t n)
{
    __m512 factor = _mm512_set1_ps(by);
    for (uint32_t i = 0; i < n; i += 16) {
        __m512 v = load_left(x + i, n - i);
        store_left(x + i, n - i, _mm512_fmadd_ps(load_left(y + i, n - i), factor, v));
    }
}

/* The largest magnitudes of four blocks. */
INLINE __m128 max_of_four(const __m512 low[4], const __m512 high[4])
{
    __m256 m[4];
    UNROLL
    for (int i = 0; i < 4; i++) {
        __m512 v = _mm512_range_ps(low[i], high[i], 0x0B); /* the larger magnitude */
        m[i] = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    }
    __m256 a = _mm256_max_ps(_mm256_unpacklo_ps(m[0], m[2]), _mm256_unpackhi_ps(m[0], m[2]));
    __m256 b = _mm256_max_ps(_mm256_unpacklo_ps(m[1], m[3]), _mm256_unpackhi_ps(m[1], m[3]));
    a = _mm256_max_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    return _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
}

/* What kern_act_sums does, for n blocks from `at` on. */
INLINE void act_sums(const struct kern_act *a, size_t at, uint32_t n, __m128 scale, __m256i half)
{
    const __mmask8 blocks = (__mmask8)((1u << n) - 1), halves = (__mmask8)((1u << 2 * n) - 1);
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    __m256 half_scale = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(scale), twice);
    __m128i sum = _mm_hadd_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    __m128i minus = _mm_mullo_epi32(sum, _mm_set1_epi32(-KERN_Q8_OFFSET));
    __m256i half_minus = _mm256_mullo_epi32(half, _mm256_set1_epi32(-KERN_Q8_OFFSET));
    _mm_mask_storeu_ps(a->scale + at, blocks, scale);
    _mm_mask_storeu_epi32(a->minus + at, blocks, minus);
    _mm_mask_storeu_ps(a->sum + at, blocks, _mm_mul_ps(_mm_cvtepi32_ps(sum), scale));
    _mm256_mask_storeu_epi32(a->half_minus + 2 * at, halves, half_minus);
    _mm256_mask_storeu_ps(a->half_sum + 2 * at, halves,
                          _mm256_mul_ps(_mm256_cvtepi32_ps(half), half_scale));
}

/* Four blocks side by side, as what is done once for each - two divisions, the search for the
 * maximum - takes longer than rounding its 32 values. */
INLINE void quantize_four(const struct kern_act *a, const float *x, size_t at, uint32_t n)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512 low[4], high[4];
    UNROLL
    for (uint32_t i = 0; i < 4; i++) {
        __mmask16 there = i < n ? 0xFFFF : 0;
        low[i] = _mm512_maskz_loadu_ps(there, x + i * KERN_BLOCK);
        high[i] = _mm512_maskz_loadu_ps(there, x + i * KERN_BLOCK + 16);
    }
    __m128 max = max_of_four(low, high), full = _mm_set1_ps(127.0f);
    __m128 inverse =
        _mm_maskz_div_ps(_mm_cmp_ps_mask(max, _mm_setzero_ps(), _CMP_GT_OQ), full, max);
    inverse = _mm_maskz_mov_ps(_mm_cmp_ps_mask(inverse, _mm_set1_ps(3.0e38f), _CMP_LE_OQ), inverse);
    float by[4];
    _mm_storeu_ps(by, inverse);
    __m128i half[2];
    UNROLL
    for (uint32_t i = 0; i < 4; i += 2) {
        __m512i v[4];
        UNROLL
        for (uint32_t j = 0; j < 4; j++) {
            __m512 y = _mm512_mul_ps(j % 2 ? high[i + j / 2] : low[i + j / 2],
                                     _mm512_set1_ps(by[i + j / 2]));
            v[j] = _mm512_cvtps_epi32(y); /* at most 127: no packing cuts it off */
        }
        /* Register v of 16 values has its l-th four in lane l of 128 bits, v-th from the left. */
        __m512i bytes =
            _mm512_packs_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
        __m512i fours = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), bytes);
        __m256i pair =
            _mm256_add_epi32(_mm512_castsi512_si256(fours), _mm512_extracti64x4_epi64(fours, 1));
        half[i / 2] =
            _mm_add_epi32(_mm256_castsi256_si128(pair), _mm256_extracti128_si256(pair, 1));
        __mmask16 there = n >= i + 2 ? 0xFFFF : n == i + 1 ? 0xFF : 0;
        _mm512_mask_storeu_epi32(a->q + (at + i) * KERN_BLOCK, there,
                                 _mm512_permutexvar_epi32(order, bytes));
    }
    act_sums(a, at, n, _mm_div_ps(max, full), _mm256_set_m128i(half[1], half[0]));
}

/* n blocks from `at` on, side by side. */
INLINE void quantize_blocks(const struct kern_act *a, const float *x, size_t at, uint32_t n)
{
    for (; n >= 4; n -= 4, at += 4, x += (size_t)4 * KERN_BLOCK)
        quantize_four(a, x, at, 4);
    if (n > 0) quantize_four(a, x, at, n);
}

static void quantize(const struct kern_act *a, const float *x, uint32_t row, uint32_t rows,
                     uint32_t block, uint32_t blocks)
{
    kern_quantize_rows(a, x, row, rows, block, blocks, quantize_blocks);
}

static void add(float *x, const float *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 16)
        store_left(x + i, n - i, _mm512_add_ps(load_left(x + i, n - i), load_left(y + i, n - i)));
}

/* Eight pairs a register. The reference rounds both products, so there is no fma here. */
static void rope_pairs(float *x, uint32_t heads, uint32_t head_dim, uint32_t pairs,
                       const float *table)
{
    for (uint32_t i = 0; i < 2 * pairs; i += 16) {
        uint32_t left = 2 * pairs - i;
        __m512 t = load_left(table + i, left);
        __m512 c = _mm512_moveldup_ps(t), s = _mm512_movehdup_ps(t);
        for (uint32_t h = 0; h < heads; h++) {
            float *at = x + (size_t)h * head_dim + i;
            __m512 v = load_left(at, left);
            __m512 straight = _mm512_mul_ps(v, c);
            __m512 crossed = _mm512_mul_ps(_mm512_permute_ps(v, 0xB1), s);
            __m512 sum = _mm512_add_ps(straight, crossed);
            store_left(at, left, _mm512_mask_sub_ps(sum, 0x5555, straight, crossed));
        }
    }
}

static void rope_halves(float *x, uint32_t heads, uint32_t head_dim, uint32_t pairs,
                        const float *table)
{
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (uint32_t i = 0; i < pairs; i += 16) {
        uint32_t left = pairs - i;
        __m512 low = _mm512_maskz_loadu_ps(tail_mask(2 * left), table + 2 * i);
        __m512 high =
            _mm512_maskz_loadu_ps(tail_mask(left > 8 ? 2 * left - 16 : 0), table + 2 * i + 16);
        __m512 c = _mm512_permutex2var_ps(low, even, high),
               s = _mm512_permutex2var_ps(low, odd, high);
        for (uint32_t h = 0; h < heads; h++) {
            float *at = x + (size_t)h * head_dim + i;
            __m512 a = load_left(at, left), b = load_left(at + pairs, left);
            store_left(at, left, _mm512_sub_ps(_mm512_mul_ps(a, c), _mm512_mul_ps(b, s)));
            store_left(at + pairs, left, _mm512_add_ps(_mm512_mul_ps(a, s), _mm512_mul_ps(b, c)));
        }
    }
}

INLINE __m256i to_half(__m512 v)
{
    return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static void put_k(const float *k, uint32_t head_dim, uint32_t slot, uint16_t *tile)
{
    _Alignas(32) uint16_t half[16];
    for (uint32_t d = 0; d < head_dim; d += 16) {
        uint32_t n = head_dim - d < 16 ? head_dim - d : 16;
        _mm256_store_si256((__m256i *)(void *)half,
                           to_half(_mm512_maskz_loadu_ps(tail_mask(n), k + d)));
        for (uint32_t i = 0; i < n; i++)
            tile[(size_t)(d + i) * KERN_TILE + slot] = half[i];
    }
}

static void put_v(const float *v, uint32_t head_dim, uint32_t slot, uint16_t *tile)
{
    for (uint32_t d = 0; d < head_dim; d += 16) {
        __mmask16 m = tail_mask(head_dim - d);
        _mm256_mask_storeu_epi16(tile + (size_t)slot * head_dim + d, m,
                                 to_half(_mm512_maskz_loadu_ps(m, v + d)));
    }
}

const struct kern kern_avx512 = {
    .name = "avx512",
    .quantize = quantize,
    .mul = KERN_MULS(kern_avx512_mul_f32, kern_avx512_mul_f16, kern_avx512_mul_bf16,
                     kern_avx512_mul_quant),
    .rms_norm = rms_norm,
    .silu_mul = silu_mul,
    .gelu_mul = gelu_mul,
    .cap_row = cap_row,
    .exp_row = exp_row,
    .attend = kern_avx512_attend,
    .weigh = kern_avx512_weigh,
    .add = add,
    .add_scaled = add_scaled,
    .rope_pairs = rope_pairs,
    .rope_halves = rope_halves,
    .put_k = put_k,
    .put_v = put_v,
    .i16_row = kern_avx512_i16_row,
};

const struct kern kern_amx = {
    .name = "amx",
    .quantize = quantize,
    .mul = KERN_MULS(kern_avx512_mul_f32, kern_avx512_mul_f16, kern_avx512_mul_bf16,
                     kern_amx_mul_quant),
    .rms_norm = rms_norm,
    .silu_mul = silu_mul,
    .gelu_mul = gelu_mul,
    .cap_row = cap_row,
    .exp_row = exp_row,
    .attend = kern_avx512_attend,
    .weigh = kern_avx512_weigh,
    .add = add,
    .add_scaled = add_scaled,
    .rope_pairs = rope_pairs,
    .rope_halves = rope_halves,
    .put_k = put_k,
    .put_v = put_v,
    .i16_row = kern_avx512_i16_row,
};
