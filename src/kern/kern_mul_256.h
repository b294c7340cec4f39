/*
 * kern_mul_256: quantised multiplies with 8 outputs a register, for the levels with and without
 * VNNI. A file that includes it has defined
 *
 *   WIDE_BYTES             a block of 32 columns in the wide form takes at most
 *   MANY_ROWS              number of rows from which the wide form pays
 *   wide_store(out, type, g, half, v)
 *                          a group, as unpack_group gives it, into the wide form
 *   rows_wide(args, type, rows)
 *                          all rows over a chunk in the wide form; rows_by_half does it
 *   sum_groups(w, type, wide, half, from, groups, x, n, sum)
 *                          exact sums of groups [from, from + groups) for n rows
 *   like(type)             a type whose wide form and sums are the same
 *
 * GEMM: a chunk of columns is brought into the wide form once and stays in L1, with its scales as
 * floats, while all rows pass, a few at a time. GEMV and a few rows: blocks are unpacked in
 * registers from one stream of weights; a strip that is not too long is read in the order of
 * memory, first its weights, then its scales. Between chunks the sums are in `out` unchanged.
 */
#ifndef PDD_KERN_KERN_MUL_256_H
#define PDD_KERN_KERN_MUL_256_H

#include "kern/kern_fetch.h"

enum {
    TILE_ROWS = 4,
    CHUNK_BLOCKS = 24,   /* 24 x 1024 bytes at most */
    CHUNK_BYTES = 16384, /* of packed weights, where few rows take turns */
    AHEAD = 1536,        /* bytes that few rows fetch ahead, scales beside weights */
    ORDERED_AHEAD = 512, /* the same, where a strip is read in order */
    SUMS_MAX = 640       /* integer sums of half a strip that is read in order */
};

/* Rows of activations against blocks of one strip. */
struct mul_args {
    const uint8_t *w, *halves; /* wide: its weights; few rows: units and their half floats */
    const float *scale, *min;  /* wide: [sub-blocks][16] */
    const int8_t *q;           /* of the first row and the first block, as those below */
    const float *dx, *sum;
    const int32_t *minus;
    size_t cols, blocks; /* of a whole row */
    size_t chunk;        /* current blocks */
    float *out;
    size_t stride;
    uint32_t lanes;
    int resume; /* out holds the sums of earlier chunks */
    int fetch;  /* read ahead */
};

/* The rows of a block. */
struct values {
    const int8_t *q;
    const int32_t *minus; /* of the first sub-block */
    size_t cols, subs;    /* strides */
};

INLINE void args_rows(struct mul_args *t, const struct kern_act *x, size_t row, size_t block,
                      size_t subs)
{
    const size_t at = row * t->blocks + block;
    t->q = x->q + at * KERN_BLOCK;
    t->dx = x->scale + at;
    t->sum = (subs == 2 ? x->half_sum : x->sum) + at * subs;
    t->minus = (subs == 2 ? x->half_minus : x->minus) + at * subs;
}

INLINE void args_next(struct mul_args *t, size_t n, size_t subs)
{
    t->q += n * t->cols;
    t->dx += n * t->blocks;
    t->sum += n * t->blocks * subs;
    t->minus += n * t->blocks * subs;
    t->out += n * t->stride;
}

INLINE void load_sums(const struct mul_args *t, int n, int half, __m256 acc[TILE_ROWS])
{
    __m256i mask = tail_mask(t->lanes > 8u * (uint32_t)half ? t->lanes - 8 * (uint32_t)half : 0);
    UNROLL
    for (int r = 0; r < n; r++)
        acc[r] = t->resume ? _mm256_maskload_ps(t->out + (size_t)r * t->stride + 8 * half, mask)
                           : _mm256_setzero_ps();
}

INLINE void store_sums(const struct mul_args *t, int n, int half, const __m256 acc[TILE_ROWS])
{
    __m256i mask = tail_mask(t->lanes > 8u * (uint32_t)half ? t->lanes - 8 * (uint32_t)half : 0);
    UNROLL
    for (int r = 0; r < n; r++)
        _mm256_maskstore_ps(t->out + (size_t)r * t->stride + 8 * half, mask, acc[r]);
}

/* Integer sums of sub-block h of block b, n rows, one half. */
INLINE void sub_sums(const struct mul_args *t, const uint8_t *w, enum kern_type type, int wide,
                     size_t b, int h, int n, int half, __m256i sum[TILE_ROWS])
{
    const int subs = KERN_BLOCK / kern_forms[type].sub, groups = 8 / subs;
    const size_t at = b * (size_t)subs + (size_t)h;
    const struct values x = {t->q + b * KERN_BLOCK, t->minus + at, t->cols,
                             t->blocks * (size_t)subs};
    sum_groups(w, type, wide, half, groups * h, groups, &x, n, sum);
}

/* Those sums, scaled, added to acc. */
INLINE void add_sums(const struct mul_args *t, enum kern_type type, size_t b, int h, int n,
                     __m256 scale, __m256 min, const __m256i *sum, __m256 acc[TILE_ROWS])
{
    const struct kern_form f = kern_forms[type];
    const size_t subs = KERN_BLOCK / f.sub, at = b * subs + (size_t)h;
    UNROLL
    for (int r = 0; r < n; r++) {
        __m256 d = _mm256_mul_ps(scale, _mm256_set1_ps(t->dx[(size_t)r * t->blocks + b]));
        acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r]), d, acc[r]);
        if (!f.min) continue;
        __m256 total = _mm256_set1_ps(t->sum[(size_t)r * t->blocks * subs + at]);
        acc[r] = _mm256_fmadd_ps(min, total, acc[r]);
    }
}

/* Both. */
INLINE void add_sub(const struct mul_args *t, const uint8_t *w, enum kern_type type, int wide,
                    size_t b, int h, int n, int half, __m256 scale, __m256 min,
                    __m256 acc[TILE_ROWS])
{
    __m256i sum[TILE_ROWS];
    sub_sums(t, w, type, wide, b, h, n, half, sum);
    add_sums(t, type, b, h, n, scale, min, sum, acc);
}

/* ---- many rows (GEMM) ---- */

/* n rows by one half over a chunk in the wide form. */
INLINE void tile_half(const struct mul_args *t, enum kern_type type, int n, int half)
{
    const int subs = KERN_BLOCK / kern_forms[type].sub;
    __m256 acc[TILE_ROWS];
    load_sums(t, n, half, acc);
    for (size_t b = 0; b < t->chunk; b++) {
        UNROLL
        for (int h = 0; h < subs; h++) {
            const size_t at = (b * (size_t)subs + (size_t)h) * KERN_LANES + 8 * (size_t)half;
            __m256 scale = _mm256_load_ps(t->scale + at), min = _mm256_load_ps(t->min + at);
            add_sub(t, t->w + b * WIDE_BYTES, type, 1, b, h, n, half, scale, min, acc);
        }
    }
    store_sums(t, n, half, acc);
}

/* Four rows by one half at a time. */
INLINE void rows_by_half(struct mul_args t, enum kern_type type, uint32_t rows)
{
    const size_t subs = KERN_BLOCK / kern_forms[type].sub;
    for (; rows >= TILE_ROWS; rows -= TILE_ROWS) {
        tile_half(&t, type, TILE_ROWS, 0);
        tile_half(&t, type, TILE_ROWS, 1);
        args_next(&t, TILE_ROWS, subs);
    }
    for (; rows > 0; rows--) {
        tile_half(&t, type, 1, 0);
        tile_half(&t, type, 1, 1);
        args_next(&t, 1, subs);
    }
}

static void rows_wide_of(const struct mul_args *t, enum kern_type type, uint32_t rows)
{
#define CASE(type)                                                                                 \
    case type:                                                                                     \
        rows_wide(t, type, rows);                                                                  \
        return
    switch (like(type)) {
        CASE(KERN_Q8_0);
        CASE(KERN_Q4_0);
        CASE(KERN_Q4_1);
        CASE(KERN_Q5_0);
        CASE(KERN_Q5_1);
        CASE(KERN_Q2_K);
        CASE(KERN_Q3_K);
        CASE(KERN_Q6_K);
    default:
        return;
    }
#undef CASE
}

/* A chunk's weights and scales in the wide form. */
INLINE void widen(const uint8_t *unit, const uint8_t *halves, size_t units, enum kern_type type,
                  uint8_t *w, float *scale, float *min)
{
    const struct kern_form f = kern_forms[type];
    const size_t subs = (size_t)f.blocks * KERN_BLOCK / f.sub;
    for (size_t u = 0; u < units; u++) {
        for (int half = 0; half < 2; half++) {
            const __m256 d = unit_scale(halves, type, half), m = unit_min(halves, type, half);
            for (size_t s = 0; s < subs; s++) {
                _mm256_store_ps(scale + s * KERN_LANES + 8 * half,
                                scale_of(unit, type, s, half, d));
                if (f.min)
                    _mm256_store_ps(min + s * KERN_LANES + 8 * half,
                                    min_of(unit, type, s, half, m));
            }
        }
        for (size_t b = 0; b < f.blocks; b++, w += WIDE_BYTES) {
            const uint8_t *block = unit + b * kern_block_bytes(type);
            for (int half = 0; half < 2; half++) {
                UNROLL
                for (int g = 0; g < 8; g++)
                    wide_store(w, type, g, half, unpack_group(block, type, half, g));
            }
        }
        scale += subs * KERN_LANES;
        min += subs * KERN_LANES;
        unit += kern_unit_bytes(type);
        halves += kern_half_bytes(type);
    }
}

INLINE void mul_wide(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                     const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                     size_t stride, enum kern_type type)
{
    _Alignas(64) uint8_t w[CHUNK_BLOCKS * WIDE_BYTES];
    _Alignas(64) float scale[CHUNK_BLOCKS * 2 * KERN_LANES], min[CHUNK_BLOCKS * 2 * KERN_LANES];
    const struct kern_form f = kern_forms[type];
    struct mul_args t = {.w = w, .scale = scale, .min = min, .cols = m->cols, .stride = stride};
    t.blocks = m->cols / KERN_BLOCK;
    for (uint32_t s = strip; s < strip + strips; s++) {
        const uint8_t *base = kern_strip(m, s);
        t.lanes = kern_lanes_of(m, s);
        t.out = out + (size_t)row * stride + (size_t)s * KERN_LANES;
        for (size_t b = 0; b < t.blocks; b += CHUNK_BLOCKS) {
            const size_t u = b / f.blocks;
            t.chunk = t.blocks - b < CHUNK_BLOCKS ? t.blocks - b : CHUNK_BLOCKS;
            t.resume = b > 0;
            widen(base + u * kern_unit_bytes(type),
                  base + kern_halves_at(m) + u * kern_half_bytes(type), t.chunk / f.blocks, type, w,
                  scale, min);
            args_rows(&t, x, row, b, KERN_BLOCK / f.sub);
            rows_wide_of(&t, type, rows);
        }
    }
}

/* ---- few rows ---- */

/* n rows by both halves over packed units, scales beside weights. */
INLINE void tile_few(const struct mul_args *t, enum kern_type type, int n)
{
    const struct kern_form f = kern_forms[type];
    const int subs = KERN_BLOCK / f.sub;
    const uint8_t *unit = t->w, *halves = t->halves;
    __m256 acc[2][TILE_ROWS];
    load_sums(t, n, 0, acc[0]);
    load_sums(t, n, 1, acc[1]);
    for (size_t first = 0; first < t->chunk; first += f.blocks) {
        for (size_t b = 0; b < f.blocks; b++) {
            const uint8_t *block = unit + b * kern_block_bytes(type);
            if (t->fetch) fetch_block(unit + AHEAD, b, type);
            UNROLL
            for (int half = 0; half < 2; half++) {
                const __m256 d = unit_scale(halves, type, half), m = unit_min(halves, type, half);
                UNROLL
                for (int h = 0; h < subs; h++) {
                    const size_t s = b * (size_t)subs + (size_t)h;
                    add_sub(t, block, type, 0, first + b, h, n, half,
                            scale_of(unit, type, s, half, d), min_of(unit, type, s, half, m),
                            acc[half]);
                }
            }
        }
        unit += kern_unit_bytes(type);
        halves += kern_half_bytes(type);
    }
    store_sums(t, n, 0, acc[0]);
    store_sums(t, n, 1, acc[1]);
}

/* Integer sums of a strip: [block][half][sub-block][row]. */
INLINE void sum_strip(const struct mul_args *t, enum kern_type type, int n, __m256i *sums)
{
    const struct kern_form f = kern_forms[type];
    const int subs = KERN_BLOCK / f.sub;
    const uint8_t *unit = t->w;
    for (size_t first = 0; first < t->chunk; first += f.blocks, unit += kern_unit_bytes(type)) {
        for (size_t b = 0; b < f.blocks; b++) {
            if (t->fetch) fetch_block(unit + ORDERED_AHEAD, b, type);
            UNROLL
            for (int i = 0; i < 2 * subs; i++, sums += n)
                sub_sums(t, unit + b * kern_block_bytes(type), type, 0, first + b, i % subs, n,
                         i / subs, sums);
        }
    }
}

/* The same sums, scaled and added in order. */
INLINE void scale_strip(const struct mul_args *t, enum kern_type type, int n, const __m256i *sums)
{
    const struct kern_form f = kern_forms[type];
    const int subs = KERN_BLOCK / f.sub;
    const uint8_t *unit = t->w, *halves = t->halves;
    __m256 acc[2][TILE_ROWS];
    load_sums(t, n, 0, acc[0]);
    load_sums(t, n, 1, acc[1]);
    for (size_t first = 0; first < t->chunk; first += f.blocks) {
        if (t->fetch) fetch_lines(halves + ORDERED_AHEAD, kern_half_bytes(type));
        for (size_t b = 0; b < f.blocks; b++) {
            UNROLL
            for (int i = 0; i < 2 * subs; i++, sums += n) {
                const int half = i / subs, h = i % subs;
                const size_t s = b * (size_t)subs + (size_t)h;
                const __m256 d = unit_scale(halves, type, half), m = unit_min(halves, type, half);
                add_sums(t, type, first + b, h, n, scale_of(unit, type, s, half, d),
                         min_of(unit, type, s, half, m), sums, acc[half]);
            }
        }
        unit += kern_unit_bytes(type);
        halves += kern_half_bytes(type);
    }
    store_sums(t, n, 0, acc[0]);
    store_sums(t, n, 1, acc[1]);
}

/* A whole strip in the order in which it lies: all its weights, then its scales. */
INLINE void strip_few(const struct mul_args *t, enum kern_type type, int n)
{
    __m256i sums[2 * SUMS_MAX];
    sum_strip(t, type, n, sums);
    scale_strip(t, type, n, sums);
}

/* All rows over the current blocks, four, two, one at a time; the first pass reads ahead. */
INLINE void rows_few(struct mul_args t, enum kern_type type, uint32_t rows, int in_order)
{
    const size_t subs = KERN_BLOCK / kern_forms[type].sub;
    for (uint32_t n; rows > 0; rows -= n, t.fetch = 0) {
        n = rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
        if (in_order && n == 4)
            strip_few(&t, type, 4);
        else if (in_order && n == 2)
            strip_few(&t, type, 2);
        else if (in_order)
            strip_few(&t, type, 1);
        else if (n == 4)
            tile_few(&t, type, 4);
        else if (n == 2)
            tile_few(&t, type, 2);
        else
            tile_few(&t, type, 1);
        args_next(&t, n, subs);
    }
}

INLINE void mul_few(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                    const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                    size_t stride, enum kern_type type)
{
    const struct kern_form f = kern_forms[type];
    const size_t subs = KERN_BLOCK / f.sub, blocks = m->cols / KERN_BLOCK;
    const int one_pass = rows == 1 || rows == 2 || rows == 4;
    const int in_order = blocks * subs * (rows < 4 ? rows : 4) <= SUMS_MAX;
    const size_t step =
        one_pass || in_order ? blocks : CHUNK_BYTES / kern_unit_bytes(type) * f.blocks;
    struct mul_args t = {.cols = m->cols, .blocks = blocks, .stride = stride};
    for (uint32_t s = strip; s < strip + strips; s++) {
        const uint8_t *base = kern_strip(m, s);
        t.lanes = kern_lanes_of(m, s);
        for (size_t b = 0; b < blocks; b += step) {
            const size_t u = b / f.blocks;
            t.w = base + u * kern_unit_bytes(type);
            t.halves = base + kern_halves_at(m) + u * kern_half_bytes(type);
            t.out = out + (size_t)row * stride + (size_t)s * KERN_LANES;
            t.chunk = blocks - b < step ? blocks - b : step;
            t.resume = b > 0;
            t.fetch = 1;
            args_rows(&t, x, row, b, subs);
            rows_few(t, type, rows, in_order);
        }
    }
}

INLINE void mul_type(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                     const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                     size_t stride, enum kern_type type)
{
    if (rows < MANY_ROWS)
        mul_few(m, strip, strips, x, row, rows, out, stride, type);
    else
        mul_wide(m, strip, strips, x, row, rows, out, stride, type);
}

/* A function for each type, which the compiler sees alone: all in one, a new type changed the
 * others' registers and speed. */
#define EACH(name, ...)                                                                            \
    static void mul_type_##name(const struct kern_mat *m, uint32_t strip, uint32_t strips,         \
                                const struct kern_act *x, uint32_t row, uint32_t rows, float *out, \
                                size_t stride)                                                     \
    {                                                                                              \
        mul_type(m, strip, strips, x, row, rows, out, stride, KERN_##name);                        \
    }
KERN_QUANTS(EACH)
#undef EACH

#define EACH(name, ...) [KERN_##name] = mul_type_##name,
static kern_mul_fn *const mul_fns[KERN_TYPES] = {KERN_QUANTS(EACH)};
#undef EACH

static void mul_quant(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                      const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                      size_t stride)
{
    mul_fns[m->type](m, strip, strips, x, row, rows, out, stride);
}

#endif
