/*
 * kern_avx512: the reference's steps with 16 outputs a register and VNNI for the integer sums.
 *
 * Integer sums: weights are unsigned (w + 128, or w + 8) in registers, activations signed,
 * broadcast four at a time; the offset is taken back by starting from offset * -sum(x), which is
 * exact. Functions only: nothing here runs unless kern_select.c found the instructions.
 */
#include <immintrin.h>
#include <string.h>

#include "kern/kern_impl.h"

#define INLINE static inline __attribute__((always_inline))

enum { ROWS_QUANT = 12, ROWS_PLAIN = 8 }; /* activation rows that share one load of the weights */

INLINE __m512 exp_lanes(__m512 x)
{
    __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(EXP_LOW), _CMP_GE_OQ);
    x = _mm512_min_ps(x, _mm512_set1_ps(EXP_HIGH));
    __m512 magic = _mm512_set1_ps(EXP_MAGIC);
    __m512 shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(EXP_LOG2E), magic);
    __m512 n = _mm512_sub_ps(shifted, magic);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EXP_LN2_HIGH), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EXP_LN2_LOW), r);
    __m512 p = _mm512_set1_ps(EXP_C6), one = _mm512_set1_ps(1.0f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C2));
    p = _mm512_fmadd_ps(p, r, one);
    p = _mm512_fmadd_ps(p, r, one);
    __m512i power = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_maskz_mov_ps(
        normal, _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), power)));
}

INLINE __mmask16 tail_mask(uint32_t left)
{
    return left >= 16 ? (__mmask16)0xFFFF : (__mmask16)((1u << left) - 1);
}

/* 16 lanes folded as 8, 4, 2, 1. */
INLINE float fold(__m512 v)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}

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
        minus[b] = -_mm512_reduce_add_epi32(sum);
    }
}

INLINE __m512i broadcast4(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, 4);
    return _mm512_set1_epi32(four);
}

INLINE void store_lanes(float *out, __m512 v, uint32_t lanes)
{
    _mm512_mask_storeu_ps(out, tail_mask(lanes), v);
}

/* One block of weights as 8 registers of [16 rows][4 bytes]. */
INLINE void load_q8(const uint8_t *w, __m512i block[8])
{
    for (int j = 0; j < 8; j++)
        block[j] = _mm512_loadu_si512(w + j * 64);
}

INLINE void load_q4(const uint8_t *w, __m512i block[8])
{
    __m512i low = _mm512_set1_epi8(15);
    for (int j = 0; j < 4; j++) {
        __m512i pair = _mm512_loadu_si512(w + j * 64);
        block[j] = _mm512_and_si512(pair, low);
        block[j + 4] = _mm512_and_si512(_mm512_srli_epi16(pair, 4), low);
    }
}

/* `n` rows (a constant after inlining) times one strip. */
INLINE void quant_rows(const struct kern_mat *m, uint32_t s, const struct kern_act *x, uint32_t row,
                       float *out, size_t stride, int n, int four_bit)
{
    uint32_t blocks = m->cols / KERN_BLOCK, lanes = kern_lanes_of(m, s);
    const uint8_t *w = kern_strip(m, s), *scales = w + kern_scales_at(m);
    const int8_t *q = x->q + (size_t)row * m->cols;
    const float *dx = x->scale + (size_t)row * blocks;
    const int32_t *minus = x->minus + (size_t)row * blocks;
    __m512 acc[ROWS_QUANT];
    for (int r = 0; r < n; r++)
        acc[r] = _mm512_setzero_ps();
    for (uint32_t b = 0; b < blocks; b++) {
        __m512i block[8];
        if (four_bit)
            load_q4(w + (size_t)b * 256, block);
        else
            load_q8(w + (size_t)b * 512, block);
        __m512 dw =
            _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(scales + b * 32)));
        for (int r = 0; r < n; r++) {
            const int8_t *xr = q + (size_t)r * m->cols + b * KERN_BLOCK;
            int32_t start =
                minus[(size_t)r * blocks + b] * (four_bit ? KERN_Q4_OFFSET : KERN_Q8_OFFSET);
            __m512i sum = _mm512_set1_epi32(start);
            for (int j = 0; j < 8; j++)
                sum = _mm512_dpbusd_epi32(sum, block[j], broadcast4(xr + j * 4));
            __m512 d = _mm512_mul_ps(dw, _mm512_set1_ps(dx[(size_t)r * blocks + b]));
            acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), d, acc[r]);
        }
    }
    for (int r = 0; r < n; r++)
        store_lanes(out + (row + (size_t)r) * stride + (size_t)s * KERN_LANES, acc[r], lanes);
}

INLINE void mul_quant(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                      const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                      size_t stride, int four_bit)
{
    for (uint32_t s = strip; s < strip + strips; s++) {
        uint32_t r = 0;
        for (; r + ROWS_QUANT <= rows; r += ROWS_QUANT)
            quant_rows(m, s, x, row + r, out, stride, ROWS_QUANT, four_bit);
        for (; r + 4 <= rows; r += 4)
            quant_rows(m, s, x, row + r, out, stride, 4, four_bit);
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

INLINE __m512 load_plain(const uint8_t *w, uint32_t k, enum kern_type type)
{
    if (type == KERN_F32) return _mm512_loadu_ps(w + (size_t)k * 64);
    __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)(w + (size_t)k * 32));
    if (type == KERN_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

INLINE void plain_rows(const struct kern_mat *m, uint32_t s, const struct kern_act *x, uint32_t row,
                       float *out, size_t stride, int n, enum kern_type type)
{
    const uint8_t *w = kern_strip(m, s);
    const float *in = x->f32 + (size_t)row * m->cols;
    __m512 acc[ROWS_PLAIN];
    for (int r = 0; r < n; r++)
        acc[r] = _mm512_setzero_ps();
    for (uint32_t k = 0; k < m->cols; k++) {
        __m512 v = load_plain(w, k, type);
        for (int r = 0; r < n; r++)
            acc[r] = _mm512_fmadd_ps(v, _mm512_set1_ps(in[(size_t)r * m->cols + k]), acc[r]);
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
        for (; r + ROWS_PLAIN <= rows; r += ROWS_PLAIN)
            plain_rows(m, s, x, row + r, out, stride, ROWS_PLAIN, type);
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

/* The state of up to QUERIES queries that walk the tiles together. */
enum { QUERIES = 4 };
struct walk {
    const float *q[QUERIES];
    float *out[QUERIES];
    float max[QUERIES], total[QUERIES];
    float score[QUERIES][KERN_TILE];
};

INLINE __m512 load_half(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

/* Scores of all 64 keys of a tile for n queries. */
INLINE void tile_scores(struct walk *w, int n, uint32_t head_dim, const uint16_t *k)
{
    __m512 acc[QUERIES][4];
    for (int i = 0; i < n; i++)
        for (int j = 0; j < 4; j++)
            acc[i][j] = _mm512_setzero_ps();
    for (uint32_t d = 0; d < head_dim; d++, k += KERN_TILE) {
        __m512 key[4];
        for (int j = 0; j < 4; j++)
            key[j] = load_half(k + 16 * j);
        for (int i = 0; i < n; i++) {
            __m512 q = _mm512_set1_ps(w->q[i][d]);
            for (int j = 0; j < 4; j++)
                acc[i][j] = _mm512_fmadd_ps(q, key[j], acc[i][j]);
        }
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < 4; j++)
            _mm512_storeu_ps(w->score[i] + 16 * j, acc[i][j]);
}

/* Scores of one query become weights; returns the factor that the earlier sums keep. */
INLINE float tile_weights(struct walk *w, int i, uint32_t from, uint32_t to)
{
    __m512 score[4], low = _mm512_set1_ps(-__builtin_inff());
    uint64_t seen = (to == 64 ? ~0ull : (1ull << to) - 1) & ~((1ull << from) - 1);
    __m512 best = low;
    for (int j = 0; j < 4; j++) {
        score[j] = _mm512_mask_loadu_ps(low, (__mmask16)(seen >> 16 * j), w->score[i] + 16 * j);
        best = _mm512_max_ps(best, score[j]);
    }
    float tile_max = _mm512_reduce_max_ps(best);
    float max = tile_max > w->max[i] ? tile_max : w->max[i];
    __m512 keep = exp_lanes(_mm512_set1_ps(w->max[i] - max)), sum = _mm512_setzero_ps();
    for (int j = 0; j < 4; j++) {
        __m512 p = exp_lanes(_mm512_sub_ps(score[j], _mm512_set1_ps(max)));
        p = _mm512_maskz_mov_ps((__mmask16)(seen >> 16 * j), p);
        _mm512_storeu_ps(w->score[i] + 16 * j, p);
        sum = j == 0 ? p : _mm512_add_ps(sum, p);
    }
    float kept = _mm512_cvtss_f32(keep);
    w->total[i] = w->total[i] * kept + fold(sum);
    w->max[i] = max;
    return kept;
}

/* out = out * keep + the weighted values [from, to) of a tile, 64 head dimensions at a time. */
INLINE void tile_values(struct walk *w, int n, const float *keep, uint32_t head_dim,
                        const uint16_t *v, uint32_t from, uint32_t to)
{
    for (uint32_t base = 0; base < head_dim; base += 16) {
        __mmask16 m = tail_mask(head_dim - base);
        __m512 acc[QUERIES];
        for (int i = 0; i < n; i++)
            acc[i] =
                _mm512_mul_ps(_mm512_maskz_loadu_ps(m, w->out[i] + base), _mm512_set1_ps(keep[i]));
        const uint16_t *row = v + (size_t)from * head_dim + base;
        for (uint32_t t = from; t < to; t++, row += head_dim) {
            __m512 value = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, row));
            for (int i = 0; i < n; i++)
                acc[i] = _mm512_fmadd_ps(_mm512_set1_ps(w->score[i][t]), value, acc[i]);
        }
        for (int i = 0; i < n; i++)
            _mm512_mask_storeu_ps(w->out[i] + base, m, acc[i]);
    }
}

/* The same, two groups of 16 dimensions at once, when the head has them: twice the chains in
 * flight. */
INLINE void tile_values_wide(struct walk *w, int n, const float *keep, uint32_t head_dim,
                             const uint16_t *v, uint32_t from, uint32_t to)
{
    for (uint32_t base = 0; base < head_dim; base += 32) {
        __m512 acc[QUERIES][2];
        for (int i = 0; i < n; i++)
            for (int j = 0; j < 2; j++)
                acc[i][j] = _mm512_mul_ps(_mm512_loadu_ps(w->out[i] + base + 16 * j),
                                          _mm512_set1_ps(keep[i]));
        const uint16_t *row = v + (size_t)from * head_dim + base;
        for (uint32_t t = from; t < to; t++, row += head_dim) {
            __m512 low = load_half(row), high = load_half(row + 16);
            for (int i = 0; i < n; i++) {
                __m512 p = _mm512_set1_ps(w->score[i][t]);
                acc[i][0] = _mm512_fmadd_ps(p, low, acc[i][0]);
                acc[i][1] = _mm512_fmadd_ps(p, high, acc[i][1]);
            }
        }
        for (int i = 0; i < n; i++)
            for (int j = 0; j < 2; j++)
                _mm512_storeu_ps(w->out[i] + base + 16 * j, acc[i][j]);
    }
}

INLINE void walk_tile(struct walk *w, int n, const struct kern_attend *a, uint32_t tile,
                      uint32_t from, uint32_t to)
{
    float keep[QUERIES];
    tile_scores(w, n, a->head_dim, a->k_tiles[tile]);
    for (int i = 0; i < n; i++)
        keep[i] = tile_weights(w, i, from, to);
    if (a->head_dim % 32 == 0)
        tile_values_wide(w, n, keep, a->head_dim, a->v_tiles[tile], from, to);
    else
        tile_values(w, n, keep, a->head_dim, a->v_tiles[tile], from, to);
}

/* What query i sees of a tile, as [*from, *to). */
INLINE void visible(const struct kern_attend *a, uint32_t i, uint32_t tile, uint32_t *from,
                    uint32_t *to)
{
    uint32_t start = tile * KERN_TILE, left = a->n[i] - start;
    *from = a->first[i] > start ? a->first[i] - start : 0;
    *to = left < KERN_TILE ? left : KERN_TILE;
}

INLINE void walk_begin(struct walk *w, int n, const struct kern_attend *a, uint32_t i)
{
    for (int k = 0; k < n; k++) {
        w->q[k] = a->q[i + (uint32_t)k];
        w->out[k] = a->out[i + (uint32_t)k];
        w->max[k] = -__builtin_inff();
        w->total[k] = 0.0f;
        memset(w->out[k], 0, a->head_dim * sizeof(float));
    }
}

INLINE void walk_end(struct walk *w, int n, uint32_t head_dim)
{
    for (int k = 0; k < n; k++) {
        __m512 by = _mm512_set1_ps(w->total[k]);
        for (uint32_t d = 0; d < head_dim; d += 16) {
            __mmask16 m = tail_mask(head_dim - d);
            __m512 v = _mm512_maskz_loadu_ps(m, w->out[k] + d);
            _mm512_mask_storeu_ps(w->out[k] + d, m, _mm512_div_ps(v, by));
        }
    }
}

/* One query of a group, alone in a tile that it sees in part or not at all. */
static void walk_alone(struct walk *w, int k, const struct kern_attend *a, uint32_t i,
                       uint32_t tile)
{
    if (tile < a->first[i] / KERN_TILE || tile * KERN_TILE >= a->n[i]) return;
    uint32_t from, to;
    visible(a, i, tile, &from, &to);
    struct walk one;
    one.q[0] = w->q[k];
    one.out[0] = w->out[k];
    one.max[0] = w->max[k];
    one.total[0] = w->total[k];
    walk_tile(&one, 1, a, tile, from, to);
    w->max[k] = one.max[0];
    w->total[k] = one.total[0];
}

/* Four queries: together where all see the same part of a tile, else one by one. */
static void attend_four(const struct kern_attend *a, uint32_t i)
{
    struct walk w;
    uint32_t begin = UINT32_MAX, end = 0;
    walk_begin(&w, QUERIES, a, i);
    for (uint32_t k = i; k < i + QUERIES; k++) {
        begin = a->first[k] / KERN_TILE < begin ? a->first[k] / KERN_TILE : begin;
        end = a->n[k] > end ? a->n[k] : end;
    }
    for (uint32_t tile = begin; tile * KERN_TILE < end; tile++) {
        uint32_t from = 0, to = 0, same = 0;
        for (uint32_t k = i; k < i + QUERIES; k++) {
            uint32_t f, t;
            if (tile < a->first[k] / KERN_TILE || tile * KERN_TILE >= a->n[k]) continue;
            visible(a, k, tile, &f, &t);
            same += k == i || (f == from && t == to);
            from = k == i ? f : from;
            to = k == i ? t : to;
        }
        if (same == QUERIES)
            walk_tile(&w, QUERIES, a, tile, from, to);
        else
            for (int k = 0; k < QUERIES; k++)
                walk_alone(&w, k, a, i + (uint32_t)k, tile);
    }
    walk_end(&w, QUERIES, a->head_dim);
}

static void attend_one(const struct kern_attend *a, uint32_t i)
{
    struct walk w;
    walk_begin(&w, 1, a, i);
    for (uint32_t tile = a->first[i] / KERN_TILE; tile * KERN_TILE < a->n[i]; tile++) {
        uint32_t from, to;
        visible(a, i, tile, &from, &to);
        walk_tile(&w, 1, a, tile, from, to);
    }
    walk_end(&w, 1, a->head_dim);
}

static void attend(const struct kern_attend *a)
{
    uint32_t i = 0;
    for (; i + QUERIES <= a->queries; i += QUERIES)
        attend_four(a, i);
    for (; i < a->queries; i++)
        attend_one(a, i);
}

const struct kern kern_avx512 = {
    .name = "avx512",
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
