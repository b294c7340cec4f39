/*
 * kern_mul_avx2: matrix times activation rows without VNNI.
 *
 * 8-bit weights: maddubs of |w| and x with w's sign stays exact, because |w| <= 128 and |x| <= 127
 * give pair sums of at most 32512. 4-bit weights: pair sums of nibbles are at most 3810, so eight
 * of them add up in 16 bits (30480); the offset of 8 is taken back at the end of the block.
 */
#include "kern/kern_avx2.h"

enum { Q4_OFFSET = 8 };

struct weights {
    __m256i size, sign;
};

INLINE struct weights weights_load(__m256i bytes, int four_bit)
{
    if (four_bit) return (struct weights){bytes, bytes};
    __m256i w = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
    return (struct weights){_mm256_abs_epi8(w), w};
}

INLINE __m256i sum_begin(int32_t minus, int four_bit)
{
    (void)minus, (void)four_bit;
    return _mm256_setzero_si256();
}

INLINE __m256i sum_step(__m256i sum, struct weights w, __m256i x, int four_bit)
{
    if (four_bit) return _mm256_add_epi16(sum, _mm256_maddubs_epi16(w.size, x));
    __m256i pairs = _mm256_maddubs_epi16(w.size, _mm256_sign_epi8(x, w.sign));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

INLINE __m256i sum_end(__m256i sum, int32_t minus, int four_bit)
{
    if (!four_bit) return sum;
    __m256i wide = _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
    return _mm256_add_epi32(wide, _mm256_set1_epi32(minus / (KERN_Q8_OFFSET / Q4_OFFSET)));
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

void kern_avx2_mul_quant(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                         const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                         size_t stride)
{
    kern_mul_fn *mul = m->type == KERN_Q8_0   ? mul_q8_0
                       : m->type == KERN_Q4_0 ? mul_q4_0
                                              : kern_ref_mul_quant;
    mul(m, strip, strips, x, row, rows, out, stride);
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
