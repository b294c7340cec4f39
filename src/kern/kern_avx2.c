/*
 * kern_avx2: the reference's steps with 8 outputs a register (two registers make a strip).
 *
 * Integer sums: maddubs of |w| and x with w's sign stays exact, because |w| <= 128 and |x| <= 127
 * give pair sums of at most 32512. Functions only: nothing here runs unless kern_select.c found
 * AVX2.
 */
#include <immintrin.h>
#include <string.h>

#include "kern/kern_impl.h"

#define INLINE static inline __attribute__((always_inline))

enum { ROWS = 4 }; /* activation rows that share one load of the weights */

INLINE __m256 exp_lanes(__m256 x)
{
    __m256 normal = _mm256_cmp_ps(x, _mm256_set1_ps(EXP_LOW), _CMP_GE_OQ);
    x = _mm256_min_ps(x, _mm256_set1_ps(EXP_HIGH));
    __m256 shifted = _mm256_fmadd_ps(x, _mm256_set1_ps(EXP_LOG2E), _mm256_set1_ps(EXP_MAGIC));
    __m256 n = _mm256_sub_ps(shifted, _mm256_set1_ps(EXP_MAGIC));
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(EXP_LN2_HIGH), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(EXP_LN2_LOW), r);
    __m256 p = _mm256_set1_ps(EXP_C6), one = _mm256_set1_ps(1.0f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C2));
    p = _mm256_fmadd_ps(p, r, one);
    p = _mm256_fmadd_ps(p, r, one);
    __m256i power = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    __m256i bits = _mm256_add_epi32(_mm256_castps_si256(p), power);
    return _mm256_and_ps(_mm256_castsi256_ps(bits), normal);
}

/* 16 lanes in two registers, folded as 8, 4, 2, 1. */
INLINE float fold(__m256 low, __m256 high)
{
    __m256 a = _mm256_add_ps(low, high);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}

INLINE float max_lanes(__m256 a)
{
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
}

INLINE __m256i tail_mask(uint32_t left)
{
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(left < 8 ? (int)left : 8), lane);
}

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

INLINE __m256i broadcast4(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}

INLINE __m256i load256(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

INLINE void store_lanes(float *out, const __m256 v[2], uint32_t lanes)
{
    _mm256_maskstore_ps(out, tail_mask(lanes), v[0]);
    if (lanes > 8) _mm256_maskstore_ps(out + 8, tail_mask(lanes - 8), v[1]);
}

/* Eight k-groups of signed weights for 8 of the 16 rows. */
INLINE void load_block(const uint8_t *w, int half, int four_bit, __m256i block[8])
{
    __m256i low = _mm256_set1_epi8(15), eight = _mm256_set1_epi8(KERN_Q4_OFFSET);
    for (int j = 0; j < 8; j++) {
        if (four_bit) {
            __m256i pair = load256(w + (j % 4) * 64 + half * 32);
            __m256i nibble = _mm256_and_si256(j < 4 ? pair : _mm256_srli_epi16(pair, 4), low);
            block[j] = _mm256_sub_epi8(nibble, eight);
        } else {
            block[j] = _mm256_xor_si256(load256(w + j * 64 + half * 32), _mm256_set1_epi8(-128));
        }
    }
}

INLINE __m256i dot_block(const __m256i block[8], const int8_t *x)
{
    __m256i sum = _mm256_setzero_si256(), ones = _mm256_set1_epi16(1);
    for (int j = 0; j < 8; j++) {
        __m256i signed_x = _mm256_sign_epi8(broadcast4(x + j * 4), block[j]);
        __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(block[j]), signed_x);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
    }
    return sum;
}

INLINE void quant_rows(const struct kern_mat *m, uint32_t s, const struct kern_act *x, uint32_t row,
                       float *out, size_t stride, int n, int four_bit)
{
    uint32_t blocks = m->cols / KERN_BLOCK;
    const uint8_t *w = kern_strip(m, s), *scales = w + kern_scales_at(m);
    __m256 acc[ROWS][2];
    for (int r = 0; r < n; r++)
        acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    for (uint32_t b = 0; b < blocks; b++) {
        for (int half = 0; half < 2; half++) {
            __m256i block[8];
            load_block(w + (size_t)b * (four_bit ? 256 : 512), half, four_bit, block);
            __m256 dw = _mm256_cvtph_ps(
                _mm_loadu_si128((const __m128i *)(const void *)(scales + b * 32 + half * 16)));
            for (int r = 0; r < n; r++) {
                size_t at = row + (size_t)r;
                __m256i sum = dot_block(block, x->q + at * m->cols + b * KERN_BLOCK);
                __m256 d = _mm256_mul_ps(dw, _mm256_set1_ps(x->scale[at * blocks + b]));
                acc[r][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), d, acc[r][half]);
            }
        }
    }
    for (int r = 0; r < n; r++)
        store_lanes(out + (row + (size_t)r) * stride + (size_t)s * KERN_LANES, acc[r],
                    kern_lanes_of(m, s));
}

INLINE void mul_quant(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                      const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                      size_t stride, int four_bit)
{
    for (uint32_t s = strip; s < strip + strips; s++) {
        uint32_t r = 0;
        for (; r + ROWS <= rows; r += ROWS)
            quant_rows(m, s, x, row + r, out, stride, ROWS, four_bit);
        for (; r < rows; r++)
            quant_rows(m, s, x, row + r, out, stride, 1, four_bit);
    }
}

static void mul_q8_0(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                     const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                     size_t stride)
{
    mul_quant(m, strip, strips, x, row, rows, out, stride, 0);
}

static void mul_q4_0(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                     const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                     size_t stride)
{
    mul_quant(m, strip, strips, x, row, rows, out, stride, 1);
}

INLINE __m256 load_plain(const uint8_t *w, uint32_t k, int half, enum kern_type type)
{
    if (type == KERN_F32)
        return _mm256_loadu_ps(
            (const float *)(const void *)(w + (size_t)k * 64 + (size_t)half * 32));
    const uint8_t *p = w + (size_t)k * 32 + (size_t)half * 16;
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    if (type == KERN_F16) return _mm256_cvtph_ps(v);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

INLINE void plain_rows(const struct kern_mat *m, uint32_t s, const struct kern_act *x, uint32_t row,
                       float *out, size_t stride, int n, enum kern_type type)
{
    const uint8_t *w = kern_strip(m, s);
    const float *in = x->f32 + (size_t)row * m->cols;
    __m256 acc[ROWS][2];
    for (int r = 0; r < n; r++)
        acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    for (uint32_t k = 0; k < m->cols; k++) {
        __m256 low = load_plain(w, k, 0, type), high = load_plain(w, k, 1, type);
        for (int r = 0; r < n; r++) {
            __m256 v = _mm256_set1_ps(in[(size_t)r * m->cols + k]);
            acc[r][0] = _mm256_fmadd_ps(low, v, acc[r][0]);
            acc[r][1] = _mm256_fmadd_ps(high, v, acc[r][1]);
        }
    }
    for (int r = 0; r < n; r++)
        store_lanes(out + (row + (size_t)r) * stride + (size_t)s * KERN_LANES, acc[r],
                    kern_lanes_of(m, s));
}

INLINE void mul_plain(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                      const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                      size_t stride, enum kern_type type)
{
    for (uint32_t s = strip; s < strip + strips; s++) {
        uint32_t r = 0;
        for (; r + ROWS <= rows; r += ROWS)
            plain_rows(m, s, x, row + r, out, stride, ROWS, type);
        for (; r < rows; r++)
            plain_rows(m, s, x, row + r, out, stride, 1, type);
    }
}

static void mul_f32(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                    const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                    size_t stride)
{
    mul_plain(m, strip, strips, x, row, rows, out, stride, KERN_F32);
}

static void mul_f16(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                    const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                    size_t stride)
{
    mul_plain(m, strip, strips, x, row, rows, out, stride, KERN_F16);
}

static void mul_bf16(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                     const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                     size_t stride)
{
    mul_plain(m, strip, strips, x, row, rows, out, stride, KERN_BF16);
}

INLINE __m256 load_half(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/* Scores of all 64 keys of a tile. */
INLINE void tile_scores(const float *q, uint32_t head_dim, const uint16_t *k, float *score)
{
    __m256 acc[8];
    for (int j = 0; j < 8; j++)
        acc[j] = _mm256_setzero_ps();
    for (uint32_t d = 0; d < head_dim; d++, k += KERN_TILE)
        for (int j = 0; j < 8; j++)
            acc[j] = _mm256_fmadd_ps(_mm256_set1_ps(q[d]), load_half(k + 8 * j), acc[j]);
    for (int j = 0; j < 8; j++)
        _mm256_storeu_ps(score + 8 * j, acc[j]);
}

/* Scores become weights; returns the factor that the earlier sums keep. */
INLINE float tile_weights(float *score, uint32_t from, uint32_t to, float *max, float *total)
{
    float low = -__builtin_inff();
    for (uint32_t t = 0; t < KERN_TILE; t++)
        if (t < from || t >= to) score[t] = low;
    __m256 best = _mm256_set1_ps(low), p[8];
    for (int j = 0; j < 8; j++)
        best = _mm256_max_ps(best, _mm256_loadu_ps(score + 8 * j));
    float tile_max = max_lanes(best), new_max = tile_max > *max ? tile_max : *max;
    for (int j = 0; j < 8; j++) {
        p[j] = exp_lanes(_mm256_sub_ps(_mm256_loadu_ps(score + 8 * j), _mm256_set1_ps(new_max)));
        _mm256_storeu_ps(score + 8 * j, p[j]);
    }
    __m256 sum[2];
    for (int h = 0; h < 2; h++)
        sum[h] = _mm256_add_ps(_mm256_add_ps(_mm256_add_ps(p[h], p[2 + h]), p[4 + h]), p[6 + h]);
    float keep = _mm256_cvtss_f32(exp_lanes(_mm256_set1_ps(*max - new_max)));
    *total = *total * keep + fold(sum[0], sum[1]);
    *max = new_max;
    return keep;
}

/* out = out * keep + weighted values [from, to) of a tile. */
INLINE void tile_values(float *out, float keep, const float *score, uint32_t head_dim,
                        const uint16_t *v, uint32_t from, uint32_t to)
{
    uint32_t base = 0;
    for (; base + 8 <= head_dim; base += 8) {
        __m256 acc = _mm256_mul_ps(_mm256_loadu_ps(out + base), _mm256_set1_ps(keep));
        for (uint32_t t = from; t < to; t++)
            acc = _mm256_fmadd_ps(_mm256_set1_ps(score[t]),
                                  load_half(v + (size_t)t * head_dim + base), acc);
        _mm256_storeu_ps(out + base, acc);
    }
    for (; base < head_dim; base++) {
        __m128 acc = _mm_set_ss(out[base] * keep);
        for (uint32_t t = from; t < to; t++) {
            float value = _cvtsh_ss(v[(size_t)t * head_dim + base]);
            acc = _mm_fmadd_ss(_mm_set_ss(score[t]), _mm_set_ss(value), acc);
        }
        out[base] = _mm_cvtss_f32(acc);
    }
}

static void attend_one(const struct kern_attend *a, uint32_t i)
{
    float *out = a->out[i], score[KERN_TILE], max = -__builtin_inff(), total = 0.0f;
    memset(out, 0, a->head_dim * sizeof *out);
    for (uint32_t tile = a->first[i] / KERN_TILE; tile * KERN_TILE < a->n[i]; tile++) {
        uint32_t start = tile * KERN_TILE, left = a->n[i] - start;
        uint32_t from = a->first[i] > start ? a->first[i] - start : 0;
        uint32_t to = left < KERN_TILE ? left : KERN_TILE;
        tile_scores(a->q[i], a->head_dim, a->k_tiles[tile], score);
        float keep = tile_weights(score, from, to, &max, &total);
        tile_values(out, keep, score, a->head_dim, a->v_tiles[tile], from, to);
    }
    for (uint32_t d = 0; d < a->head_dim; d++)
        out[d] /= total;
}

static void attend(const struct kern_attend *a)
{
    for (uint32_t i = 0; i < a->queries; i++)
        attend_one(a, i);
}

const struct kern kern_avx2 = {
    .name = "avx2",
    .quantize = quantize,
    .mul = {[KERN_F32] = mul_f32,
            [KERN_F16] = mul_f16,
            [KERN_BF16] = mul_bf16,
            [KERN_Q8_0] = mul_q8_0,
            [KERN_Q4_0] = mul_q4_0},
    .rms_norm = rms_norm,
    .silu_mul = silu_mul,
    .exp_row = exp_row,
    .attend = attend,
};
