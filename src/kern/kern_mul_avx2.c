/*
 * kern_mul_avx2: matrix times activation rows without VNNI.
 *
 * Values of up to 6 bits: maddubs adds two products of an unsigned value and an activation in 16
 * bits, at most 127 x 2 x (2^bits - 1), so that eight (4 bits: 30480), four (5 bits: 31496) or two
 * (6 bits: 32004) of them add up there before they are widened; the offset is taken back at the
 * end.
 *
 * 8 bits: maddubs of |w| and x with w's sign stays exact, because |w| <= 128 and |x| <= 127 give
 * pair sums of at most 32512. The wide form holds |w| and w, so that neither is made for each four
 * rows. (What else was weighed: 16-bit weights and activations take as many multiplies and
 * additions; splitting w into nibbles takes more.)
 */
#include "kern/kern_quant_256.h"

enum { WIDE_BYTES = 1024 };

/* Groups that add up in 16 bits; 0: bytes of either sign. */
INLINE int depth(enum kern_type type)
{
    const struct kern_form f = kern_forms[type];
    if (f.low == 8 || f.table) return 0;
    return f.low + f.high <= 4 ? 8 : f.low + f.high == 5 ? 4 : 2;
}

INLINE void wide_store(uint8_t *out, enum kern_type type, int g, int half, __m256i v)
{
    if (depth(type) == 0) {
        __m256i w = _mm256_xor_si256(v, _mm256_set1_epi8(-128));
        v = _mm256_abs_epi8(w);
        _mm256_store_si256((__m256i *)(void *)(out + 512 + g * 64 + half * 32), w);
    }
    _mm256_store_si256((__m256i *)(void *)(out + g * 64 + half * 32), v);
}

INLINE enum kern_type like(enum kern_type type)
{
    switch (type) {
    case KERN_IQ4_NL:
    case KERN_IQ4_XS:
        return KERN_Q8_0;
    case KERN_Q4_K:
        return KERN_Q4_1;
    case KERN_Q5_K:
        return KERN_Q5_1;
    default:
        return type;
    }
}

struct values;
INLINE void sum_groups(const uint8_t *w, enum kern_type type, int wide, int half, int from,
                       int groups, const struct values *x, int n, __m256i *sum);

#include "kern/kern_mul_256.h"

/* Bytes of either sign: products of sizes, the sign on the activation. */
INLINE void sum_signed(const uint8_t *w, enum kern_type type, int wide, int half, int from,
                       int groups, const struct values *x, int n, __m256i *sum)
{
    const __m256i ones = _mm256_set1_epi16(1);
    UNROLL
    for (int g = from; g < from + groups; g++) {
        __m256i sign =
            wide ? load256(w + 512 + g * 64 + half * 32)
                 : _mm256_xor_si256(unpack_group(w, type, half, g), _mm256_set1_epi8(-128));
        __m256i size = wide ? load256(w + g * 64 + half * 32) : _mm256_abs_epi8(sign);
        UNROLL
        for (int r = 0; r < n; r++) {
            __m256i v = broadcast4(x->q + (size_t)r * x->cols + 4 * g);
            __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(v, sign));
            __m256i fours = _mm256_madd_epi16(pairs, ones);
            sum[r] = g == from ? fours : _mm256_add_epi32(sum[r], fours);
        }
    }
}

INLINE void sum_groups(const uint8_t *w, enum kern_type type, int wide, int half, int from,
                       int groups, const struct values *x, int n, __m256i *sum)
{
    const int deep = depth(type), offset = unpacked_offset(type);
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i pairs[TILE_ROWS];
    if (deep == 0) {
        sum_signed(w, type, wide, half, from, groups, x, n, sum);
        return;
    }
    UNROLL
    for (int r = 0; r < n; r++)
        sum[r] =
            offset ? offset_sum(x->minus[(size_t)r * x->subs], offset) : _mm256_setzero_si256();
    UNROLL
    for (int g = from; g < from + groups; g++) {
        __m256i v = wide ? load256(w + g * 64 + half * 32) : unpack_group(w, type, half, g);
        UNROLL
        for (int r = 0; r < n; r++) {
            __m256i two = _mm256_maddubs_epi16(v, broadcast4(x->q + (size_t)r * x->cols + 4 * g));
            pairs[r] = g % deep == 0 || g == from ? two : _mm256_add_epi16(pairs[r], two);
            if (g % deep == deep - 1 || g == from + groups - 1)
                sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(pairs[r], ones));
        }
    }
}

void kern_avx2_mul_quant(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                         const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                         size_t stride)
{
    mul_quant(m, strip, strips, x, row, rows, out, stride);
}

/* ---- float weights --------------------------------------------------------------------------- */

enum { PLAIN_ROWS = 6, PLAIN_CHUNK = 384 /* 16 x 384 x 4 bytes = 24 KiB */ };

struct plain_job {
    const uint8_t *w;
    const float *x;
    uint32_t cols, chunk, lanes;
    float *out;
    size_t stride;
    int resume;
};

INLINE __m256 load_plain(const uint8_t *w, size_t k, int half, enum kern_type type)
{
    if (type == KERN_F32) return _mm256_castsi256_ps(load256(w + k * 64 + (size_t)half * 32));
    const uint8_t *p = w + k * 32 + (size_t)half * 16;
    if (type == KERN_F16) return load_half(p);
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

INLINE void tile_plain(const struct plain_job *t, int n, enum kern_type type)
{
    __m256 acc[PLAIN_ROWS][2];
    __m256i mask[2] = {tail_mask(t->lanes), tail_mask(t->lanes > 8 ? t->lanes - 8 : 0)};
    UNROLL
    for (int r = 0; r < n; r++) {
        UNROLL
        for (int h = 0; h < 2; h++)
            acc[r][h] = t->resume
                            ? _mm256_maskload_ps(t->out + (size_t)r * t->stride + 8 * h, mask[h])
                            : _mm256_setzero_ps();
    }
    const float *x = t->x;
    const size_t cols = t->cols;
    for (size_t k = 0; k < t->chunk; k++) {
        __m256 low = load_plain(t->w, k, 0, type), high = load_plain(t->w, k, 1, type);
        UNROLL
        for (int r = 0; r < n; r++) {
            __m256 v = _mm256_set1_ps(x[(size_t)r * cols + k]);
            acc[r][0] = _mm256_fmadd_ps(low, v, acc[r][0]);
            acc[r][1] = _mm256_fmadd_ps(high, v, acc[r][1]);
        }
    }
    UNROLL
    for (int r = 0; r < n; r++) {
        UNROLL
        for (int h = 0; h < 2; h++)
            _mm256_maskstore_ps(t->out + (size_t)r * t->stride + 8 * h, mask[h], acc[r][h]);
    }
}

INLINE void rows_plain(struct plain_job t, uint32_t rows, enum kern_type type)
{
    for (; rows >= PLAIN_ROWS; rows -= PLAIN_ROWS) {
        tile_plain(&t, PLAIN_ROWS, type);
        t.x += (size_t)t.cols * PLAIN_ROWS;
        t.out += t.stride * PLAIN_ROWS;
    }
    for (; rows >= 2; rows -= 2) {
        tile_plain(&t, 2, type);
        t.x += (size_t)t.cols * 2;
        t.out += t.stride * 2;
    }
    if (rows == 1) tile_plain(&t, 1, type);
}

INLINE void mul_plain(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                      const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                      size_t stride, enum kern_type type)
{
    const size_t size = type == KERN_F32 ? 64 : 32;
    const uint32_t step = rows > 1 ? PLAIN_CHUNK : m->cols;
    struct plain_job t = {.cols = m->cols, .stride = stride};
    for (uint32_t s = strip; s < strip + strips; s++) {
        t.lanes = kern_lanes_of(m, s);
        t.out = out + (size_t)row * stride + (size_t)s * KERN_LANES;
        for (uint32_t k = 0; k < m->cols; k += step) {
            t.chunk = m->cols - k < step ? m->cols - k : step;
            t.resume = k > 0;
            t.w = kern_strip(m, s) + k * size;
            t.x = x->f32 + (size_t)row * m->cols + k;
            rows_plain(t, rows, type);
        }
    }
}

void kern_avx2_mul_f32(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                       const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                       size_t stride)
{
    mul_plain(m, strip, strips, x, row, rows, out, stride, KERN_F32);
}

void kern_avx2_mul_f16(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                       const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                       size_t stride)
{
    mul_plain(m, strip, strips, x, row, rows, out, stride, KERN_F16);
}

void kern_avx2_mul_bf16(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                        const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                        size_t stride)
{
    mul_plain(m, strip, strips, x, row, rows, out, stride, KERN_BF16);
}
