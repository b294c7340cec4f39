/*
 * kern_mul_avx2: GEMM and GEMV without VNNI.
 *
 * Values of up to 6 bits: maddubs adds two products of an unsigned value and an activation in 16
 * bits, at most 127 x 2 x (2^bits - 1), so that eight (4 bits: 30480), four (5 bits: 31496) or two
 * (6 bits: 32004) of them add up there before they are widened; the offset is taken back at the
 * end.
 *
 * 8 bits, many rows: madd of weights and activations in 16 bits, both widened once for many
 * products. Few rows: maddubs of |w| and x with w's sign, which stays exact, because |w| <= 128 and
 * |x| <= 127 give pair sums of at most 32512; that takes no wider copy, but the sign is a third
 * instruction on the two ports of the multiplies (Zen 4).
 */
#include "kern/kern_quant_256.h"

enum { WIDE_BYTES = 1024, MANY_ROWS = 12 };

/* Unsigned values are below it. */
INLINE int unsigned_most(const struct kern_form *f)
{
    return f->offset ? 2 * f->offset : 1 << (f->low + f->high);
}

/* Groups that add up in 16 bits; 0: bytes of either sign. */
INLINE int depth(enum kern_type type)
{
    const int most = unsigned_most(&kern_forms[type]);
    return most > 64 ? 0 : most > 32 ? 2 : most > 16 ? 4 : 8;
}

/* Columns 0 and 2 of each group of 4 signed bytes in 16 bits, and columns 1 and 3. */
INLINE __m256i even_words(__m256i v)
{
    return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
}

INLINE __m256i odd_words(__m256i v)
{
    return _mm256_srai_epi16(v, 8);
}

INLINE void wide_store(uint8_t *out, enum kern_type type, int g, int half, __m256i v)
{
    if (depth(type) > 0) {
        _mm256_store_si256((__m256i *)(void *)(out + g * 64 + half * 32), v);
        return;
    }
    v = _mm256_xor_si256(v, _mm256_set1_epi8(-128));
    out += g * 128 + half * 32;
    _mm256_store_si256((__m256i *)(void *)out, even_words(v));
    _mm256_store_si256((__m256i *)(void *)(out + 64), odd_words(v));
}

/* The first type with the same unsigned values, scales and mins to a block. Apart from the loops of
 * rows_wide, whose registers it would take. */
static __attribute__((noinline)) enum kern_type like(enum kern_type type)
{
    const struct kern_form *f = &kern_forms[type], *g;
    for (int t = KERN_BF16 + 1; t < (int)type; t++) {
        g = &kern_forms[t];
        if (g->offset == f->offset && unsigned_most(g) == unsigned_most(f) && g->sub == f->sub &&
            !g->min == !f->min)
            return (enum kern_type)t;
    }
    return type;
}

struct values;
struct mul_args;
INLINE void rows_wide(const struct mul_args *first, enum kern_type type, uint32_t rows);
INLINE void sum_groups(const uint8_t *w, enum kern_type type, int wide, int half, int from,
                       int groups, const struct values *x, int n, __m256i *sum);

#include "kern/kern_mul_256.h"

/* ---- few rows, and many of 6 bits ---- */

/* Bytes of either sign: products of sizes, the sign on the activation. */
INLINE void sum_signed(const uint8_t *w, enum kern_type type, int half, int from, int groups,
                       const struct values *x, int n, __m256i *sum)
{
    const __m256i ones = _mm256_set1_epi16(1);
    UNROLL
    for (int g = from; g < from + groups; g++) {
        __m256i sign = _mm256_xor_si256(unpack_group(w, type, half, g), _mm256_set1_epi8(-128));
        __m256i size = _mm256_abs_epi8(sign);
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
    const int deep = depth(type), offset = kern_forms[type].offset;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i pairs[TILE_ROWS];
    if (deep == 0) {
        sum_signed(w, type, half, from, groups, x, n, sum);
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

/* ---- many rows ---- */

/* Three rows by both halves: five loads serve six multiplies, and sums of both kinds have room. */
enum { WIDE_ROWS = 3, ROW_WORDS = CHUNK_BLOCKS * KERN_BLOCK };

/* Fixes a value at this point: gcc would gather a block's loads first and spill half of them. */
#define KEEP(v) __asm__ volatile("" : "+x"(v))

/* A chunk of n rows in 16 bits, a block as the even columns, then the odd ones. */
INLINE void widen_rows(const struct mul_args *t, int n, int16_t *wide_x)
{
    for (int r = 0; r < n; r++) {
        const int8_t *q = t->q + (size_t)r * t->cols;
        __m256i *to = (__m256i *)(void *)(wide_x + (size_t)r * ROW_WORDS);
        for (size_t b = 0; b < t->chunk; b++) {
            __m256i v = load256(q + b * KERN_BLOCK);
            _mm256_store_si256(to + 2 * b, even_words(v));
            _mm256_store_si256(to + 2 * b + 1, odd_words(v));
        }
    }
}

/* A block of weights in 16 bits. */
INLINE void sum_words(const uint8_t *w, const int16_t *x, int n, __m256i sum[2][WIDE_ROWS])
{
    UNROLL
    for (int g = 0; g < 16; g++) {
        __m256i v[2] = {load256(w + g * 64), load256(w + g * 64 + 32)};
        UNROLL
        for (int r = 0; r < n; r++) {
            const int16_t *at = x + (size_t)r * ROW_WORDS + g % 2 * 16 + g / 2 * 2;
            __m256i two = broadcast4((const int8_t *)at);
            UNROLL
            for (int half = 0; half < 2; half++) {
                __m256i p = _mm256_madd_epi16(v[half], two);
                sum[half][r] = g == 0 ? p : _mm256_add_epi32(sum[half][r], p);
                KEEP(sum[half][r]);
            }
        }
    }
}

/* Groups [from, from + groups) of a block of unsigned weights. */
INLINE void sum_bytes(const uint8_t *w, enum kern_type type, int from, int groups,
                      const struct values *x, int n, __m256i sum[2][WIDE_ROWS])
{
    const int deep = depth(type), offset = kern_forms[type].offset;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i pairs[2][WIDE_ROWS];
    UNROLL
    for (int i = 0; i < groups; i++) {
        const uint8_t *at = w + (from + i) * 64;
        __m256i v[2] = {load256(at), load256(at + 32)};
        UNROLL
        for (int r = 0; r < n; r++) {
            __m256i four = broadcast4(x->q + (size_t)r * x->cols + 4 * (from + i));
            UNROLL
            for (int half = 0; half < 2; half++) {
                __m256i *pair = &pairs[half][r], two = _mm256_maddubs_epi16(v[half], four);
                *pair = i % deep == 0 ? two : _mm256_add_epi16(*pair, two);
                KEEP(*pair);
                if (i % deep < deep - 1 && i < groups - 1) continue;
                __m256i fours = _mm256_madd_epi16(*pair, ones);
                sum[half][r] = i < deep ? fours : _mm256_add_epi32(sum[half][r], fours);
            }
        }
    }
    if (!offset) return;
    UNROLL
    for (int r = 0; r < n; r++) {
        __m256i start = offset_sum(x->minus[(size_t)r * x->subs], offset);
        sum[0][r] = _mm256_add_epi32(sum[0][r], start);
        sum[1][r] = _mm256_add_epi32(sum[1][r], start);
    }
}

/* Sub-block h of block b. */
INLINE void add_wide(const struct mul_args *t, enum kern_type type, size_t b, int h, int n,
                     const int16_t *wide_x, __m256 acc[2][TILE_ROWS])
{
    const struct kern_form f = kern_forms[type];
    const int subs = KERN_BLOCK / f.sub, groups = 8 / subs;
    const size_t at = b * (size_t)subs + (size_t)h, row_subs = t->blocks * (size_t)subs;
    const struct values x = {t->q + b * KERN_BLOCK, t->minus + at, t->cols, row_subs};
    const uint8_t *w = t->w + b * WIDE_BYTES;
    __m256i sum[2][WIDE_ROWS];
    if (depth(type) == 0)
        sum_words(w, wide_x + b * KERN_BLOCK, n, sum);
    else
        sum_bytes(w, type, groups * h, groups, &x, n, sum);
    UNROLL
    for (int r = 0; r < n; r++) {
        const __m256 dx = _mm256_set1_ps(t->dx[(size_t)r * t->blocks + b]);
        UNROLL
        for (int half = 0; half < 2; half++) {
            const size_t lane = at * KERN_LANES + 8 * (size_t)half;
            __m256 d = _mm256_mul_ps(_mm256_load_ps(t->scale + lane), dx), *a = &acc[half][r];
            *a = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[half][r]), d, *a);
            if (!f.min) continue;
            __m256 total = _mm256_set1_ps(t->sum[(size_t)r * row_subs + at]);
            *a = _mm256_fmadd_ps(_mm256_load_ps(t->min + lane), total, *a);
        }
    }
}

/* n rows by both halves over a chunk in the wide form. */
INLINE void tile_wide(const struct mul_args *t, enum kern_type type, int n, int16_t *wide_x)
{
    const int subs = KERN_BLOCK / kern_forms[type].sub;
    __m256 acc[2][TILE_ROWS];
    if (depth(type) == 0) widen_rows(t, n, wide_x);
    load_sums(t, n, 0, acc[0]);
    load_sums(t, n, 1, acc[1]);
    for (size_t b = 0; b < t->chunk; b++) {
        UNROLL
        for (int h = 0; h < subs; h++)
            add_wide(t, type, b, h, n, wide_x, acc);
    }
    store_sums(t, n, 0, acc[0]);
    store_sums(t, n, 1, acc[1]);
}

INLINE void rows_wide(const struct mul_args *first, enum kern_type type, uint32_t rows)
{
    _Alignas(64) int16_t wide_x[WIDE_ROWS * ROW_WORDS];
    const size_t subs = KERN_BLOCK / kern_forms[type].sub;
    struct mul_args t = *first;
    if (depth(type) == 2) { /* two kinds of integer sums leave no room for both halves */
        rows_by_half(t, type, rows);
        return;
    }
    for (; rows >= WIDE_ROWS; rows -= WIDE_ROWS) {
        tile_wide(&t, type, WIDE_ROWS, wide_x);
        args_next(&t, WIDE_ROWS, subs);
    }
    if (rows == 2) tile_wide(&t, type, 2, wide_x);
    if (rows == 1) tile_wide(&t, type, 1, wide_x);
}

void kern_avx2_mul_quant(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                         const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                         size_t stride)
{
    mul_quant(m, strip, strips, x, row, rows, out, stride);
}

/* ---- float weights --------------------------------------------------------------------------- */

enum { PLAIN_ROWS = 6, PLAIN_CHUNK = 384 /* 16 x 384 x 4 bytes = 24 KiB */ };

struct plain_args {
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

INLINE void tile_plain(const struct plain_args *t, int n, enum kern_type type)
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

INLINE void rows_plain(struct plain_args t, uint32_t rows, enum kern_type type)
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
    struct plain_args t = {.cols = m->cols, .stride = stride};
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
