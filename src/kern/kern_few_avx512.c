/*
 * kern_few_avx512: GEMV and small GEMM of quantised weights (decoding, alone or in batches).
 *
 * Memory bandwidth bounds it. One or two rows read a strip in the order of memory, which the
 * hardware prefetchers follow: first all integer sums of the strip, then the scales at its end.
 * More rows, and strips with too many sums to keep, read scales and weights together and prefetch
 * both; a block is unpacked once in registers and multiplied with up to eight rows. Other numbers
 * of rows pass in groups over a chunk of columns that stays in L1; between chunks the sums are in
 * `out`, as exact float32.
 */
#include "kern/kern_fetch.h"
#include "kern/kern_quant_avx512.h"

enum {
    ROWS_MAX = 8,
    CHUNK_BYTES = 16384, /* of packed weights, where rows take turns */
    ORDERED_ROWS = 2,    /* read in order */
    ORDERED_AHEAD = 512,
    SUMS_MAX = 160 /* of a strip read in order: while they are scaled nothing is fetched */
};

/* How many bytes ahead to fetch where reading is not in order. Zen 4 and 5 want 6 to 16 KiB (memory
 * in a guest is 110 ns away), an Intel Xeon 1 to 2 KiB, as 4 KiB lose a quarter there. */
static size_t fetch_distance(void)
{
    return __builtin_cpu_is("amd") ? 8192 : 1536;
}

/* Rows of activations against units of one strip. */
struct few {
    const uint8_t *units, *halves;
    const int8_t *q; /* of the first row and the first unit, as those below */
    const float *scale, *sum;
    const int32_t *minus;
    size_t cols, blocks; /* of a whole row */
    uint32_t n_units;
    __mmask16 lanes;
    float *out;
    size_t stride;
    int resume;         /* out holds the sums of earlier units */
    size_t ahead;       /* bytes to fetch ahead; 0: not */
    size_t strip_bytes; /* so far ahead are the next strip's halves */
};

INLINE __m512i broadcast4(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, 4);
    return _mm512_set1_epi32(four);
}

/* With what a sum of unsigned bytes begins to end as the sum of weights. */
INLINE __m512i sum_start(int32_t minus, enum kern_type type)
{
    const struct kern_form f = kern_forms[type];
    if (f.min) return _mm512_setzero_si512();
    __m512i start = _mm512_set1_epi32(minus);
    if (f.offset == KERN_Q8_OFFSET) return start;
    return _mm512_srai_epi32(start, f.offset == 4 ? 5 : f.offset == 8 ? 4 : f.offset == 16 ? 3 : 2);
}

/* Groups [from, from + groups) of a block; two chains hide the latency where rows are few. */
INLINE __m512i block_sum(const __m512i w[8], int from, int groups, const int8_t *q, __m512i sum)
{
    __m512i second = _mm512_setzero_si512();
    UNROLL
    for (int g = from; g < from + groups; g += 2) {
        sum = _mm512_dpbusd_epi32(sum, w[g], broadcast4(q + 4 * g));
        second = _mm512_dpbusd_epi32(second, w[g + 1], broadcast4(q + 4 * g + 4));
    }
    return _mm512_add_epi32(sum, second);
}

/* The sum of row r and sub-block h of block `at`. */
INLINE __m512i sub_sum(const struct few *t, size_t at, int r, int h, enum kern_type type,
                       const __m512i w[8])
{
    const int subs = KERN_BLOCK / kern_forms[type].sub;
    const size_t sub = ((size_t)r * t->blocks + at) * (size_t)subs + (size_t)h;
    const int8_t *q = t->q + (size_t)r * t->cols + at * KERN_BLOCK;
    return block_sum(w, 8 / subs * h, 8 / subs, q, sum_start(t->minus[sub], type));
}

/* That sum, scaled, added to acc. */
INLINE __m512 add_sum(const struct few *t, size_t at, int r, int h, enum kern_type type,
                      __m512i sum, __m512 scale, __m512 min, __m512 acc)
{
    const int subs = KERN_BLOCK / kern_forms[type].sub;
    const size_t place = (size_t)r * t->blocks + at;
    const __m512 dx = _mm512_set1_ps(t->scale[place]);
    acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(scale, dx), acc);
    if (!kern_forms[type].min) return acc;
    return _mm512_fmadd_ps(min, _mm512_set1_ps(t->sum[place * (size_t)subs + (size_t)h]), acc);
}

INLINE void start_rows(const struct few *t, int n, __m512 acc[ROWS_MAX])
{
    UNROLL
    for (int r = 0; r < n; r++)
        acc[r] = t->resume ? _mm512_maskz_loadu_ps(t->lanes, t->out + (size_t)r * t->stride)
                           : _mm512_setzero_ps();
}

INLINE void end_rows(const struct few *t, int n, const __m512 acc[ROWS_MAX])
{
    UNROLL
    for (int r = 0; r < n; r++)
        _mm512_mask_storeu_ps(t->out + (size_t)r * t->stride, t->lanes, acc[r]);
}

/* n rows, scales beside weights. */
INLINE void few_rows(const struct few *t, enum kern_type type, int n)
{
    const struct kern_form f = kern_forms[type];
    const uint32_t subs = KERN_BLOCK / f.sub;
    __m512 acc[ROWS_MAX];
    start_rows(t, n, acc);
    const uint8_t *unit = t->units, *halves = t->halves;
    for (size_t u = 0; u < t->n_units; u++) {
        const __m512 d = unit_scale(halves, type), m = unit_min(halves, type);
        if (t->ahead) fetch_lines(halves + t->ahead, kern_half_bytes(type));
        if (t->ahead) fetch_lines(halves + t->strip_bytes, kern_half_bytes(type));
        for (uint32_t b = 0; b < f.blocks; b++) {
            __m512i w[8];
            __m512 scale[2], min[2];
            if (t->ahead) fetch_block(unit + t->ahead, b, type);
            unpack_block(unit + b * kern_block_bytes(type), type, w);
            UNROLL
            for (uint32_t h = 0; h < subs; h++) {
                scale[h] = scale_of(unit, type, b * subs + h, d);
                min[h] = min_of(unit, type, b * subs + h, m);
            }
            UNROLL
            for (int r = 0; r < n; r++) {
                UNROLL
                for (int h = 0; h < (int)subs; h++)
                    acc[r] = add_sum(t, u * f.blocks + b, r, h, type,
                                     sub_sum(t, u * f.blocks + b, r, h, type, w), scale[h], min[h],
                                     acc[r]);
            }
        }
        unit += kern_unit_bytes(type);
        halves += kern_half_bytes(type);
    }
    end_rows(t, n, acc);
}

/* Integer sums of a strip: [block][row][sub-block]. */
INLINE void sum_strip(const struct few *t, enum kern_type type, int n, __m512i *sums)
{
    const struct kern_form f = kern_forms[type];
    const uint8_t *unit = t->units;
    for (size_t u = 0; u < t->n_units; u++, unit += kern_unit_bytes(type)) {
        for (uint32_t b = 0; b < f.blocks; b++) {
            __m512i w[8];
            fetch_block(unit + t->ahead, b, type);
            unpack_block(unit + b * kern_block_bytes(type), type, w);
            UNROLL
            for (int r = 0; r < n; r++) {
                UNROLL
                for (int h = 0; h < KERN_BLOCK / f.sub; h++)
                    *sums++ = sub_sum(t, u * f.blocks + b, r, h, type, w);
            }
        }
    }
}

/* The same sums, scaled and added in order. */
INLINE void scale_strip(const struct few *t, enum kern_type type, int n, const __m512i *sums)
{
    const struct kern_form f = kern_forms[type];
    const uint32_t subs = KERN_BLOCK / f.sub;
    const uint8_t *unit = t->units, *halves = t->halves;
    __m512 acc[ROWS_MAX];
    start_rows(t, n, acc);
    for (size_t u = 0; u < t->n_units; u++) {
        const __m512 d = unit_scale(halves, type), m = unit_min(halves, type);
        fetch_lines(halves + t->ahead, kern_half_bytes(type));
        for (uint32_t b = 0; b < f.blocks; b++) {
            UNROLL
            for (int r = 0; r < n; r++) {
                UNROLL
                for (uint32_t h = 0; h < subs; h++)
                    acc[r] = add_sum(t, u * f.blocks + b, r, (int)h, type, *sums++,
                                     scale_of(unit, type, b * subs + h, d),
                                     min_of(unit, type, b * subs + h, m), acc[r]);
            }
        }
        unit += kern_unit_bytes(type);
        halves += kern_half_bytes(type);
    }
    end_rows(t, n, acc);
}

INLINE void ordered_rows(const struct few *t, enum kern_type type, int n)
{
    __m512i sums[SUMS_MAX];
    sum_strip(t, type, n, sums);
    scale_strip(t, type, n, sums);
}

/* Whether the sums of a strip are few enough to be kept: they take a while to be scaled, in which
 * memory rests; less of a strip's time where weights are wide. */
INLINE int ordered(const struct kern_mat *m, uint32_t rows, enum kern_type type)
{
    const uint32_t sums = m->cols / kern_forms[type].sub * rows;
    const uint32_t most = rows == 1 && type == KERN_Q8_0 ? SUMS_MAX : SUMS_MAX * 3 / 5;
    return rows >= 1 && rows <= ORDERED_ROWS && sums <= most;
}

/* All rows over one chunk: eight, four, two, one at a time. The first pass reads ahead. */
INLINE void all_rows(struct few t, enum kern_type type, uint32_t rows)
{
    const size_t subs = kern_forms[type].sub == 16 ? 2 : 1;
    while (rows > 0) {
        uint32_t n = rows >= 8 ? 8 : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
        if (n == 8)
            few_rows(&t, type, 8);
        else if (n == 4)
            few_rows(&t, type, 4);
        else if (n == 2)
            few_rows(&t, type, 2);
        else
            few_rows(&t, type, 1);
        rows -= n;
        t.q += n * t.cols;
        t.scale += n * t.blocks;
        t.sum += n * t.blocks * subs;
        t.minus += n * t.blocks * subs;
        t.out += n * t.stride;
        t.ahead = 0;
    }
}

INLINE void mul_few(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                    const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                    size_t stride, enum kern_type type)
{
    const struct kern_form f = kern_forms[type];
    const size_t subs = KERN_BLOCK / f.sub, blocks = m->cols / KERN_BLOCK;
    const uint32_t units = m->cols / KERN_BLOCK / f.blocks;
    const int one_pass = rows == 1 || rows == 2 || rows == 4 || rows == 8;
    const int in_order = ordered(m, rows, type);
    const uint32_t step = one_pass ? units : (uint32_t)(CHUNK_BYTES / kern_unit_bytes(type));
    for (uint32_t s = strip; s < strip + strips; s++) {
        const uint8_t *base = kern_strip(m, s);
        struct few t = {.cols = m->cols, .blocks = blocks, .stride = stride};
        t.strip_bytes = m->strip_bytes;
        t.lanes = tail_mask(kern_lanes_of(m, s));
        t.out = out + (size_t)row * stride + (size_t)s * KERN_LANES;
        for (uint32_t u = 0; u < units; u += step) {
            const size_t at = (size_t)row * blocks + (size_t)u * f.blocks;
            t.units = base + u * kern_unit_bytes(type);
            t.halves = base + kern_halves_at(m) + u * kern_half_bytes(type);
            t.n_units = units - u < step ? units - u : step;
            t.q = x->q + at * KERN_BLOCK;
            t.scale = x->scale + at;
            t.sum = (subs == 2 ? x->half_sum : x->sum) + at * subs;
            t.minus = (subs == 2 ? x->half_minus : x->minus) + at * subs;
            t.resume = u > 0;
            t.ahead = in_order ? ORDERED_AHEAD : fetch_distance();
            if (!in_order)
                all_rows(t, type, rows);
            else if (rows == 1)
                ordered_rows(&t, type, 1);
            else
                ordered_rows(&t, type, 2);
        }
    }
}

/* A function for each type, which the compiler sees alone: all in one, a new type changed the
 * others' registers and speed. */
#define EACH(name, ...)                                                                            \
    static void mul_few_##name(const struct kern_mat *m, uint32_t strip, uint32_t strips,          \
                               const struct kern_act *x, uint32_t row, uint32_t rows, float *out,  \
                               size_t stride)                                                      \
    {                                                                                              \
        mul_few(m, strip, strips, x, row, rows, out, stride, KERN_##name);                         \
    }
KERN_QUANTS(EACH)
#undef EACH

#define EACH(name, ...) [KERN_##name] = mul_few_##name,
static kern_mul_fn *const few_fns[KERN_TYPES] = {KERN_QUANTS(EACH)};
#undef EACH

void kern_avx512_mul_few(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                         const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                         size_t stride)
{
    few_fns[m->type](m, strip, strips, x, row, rows, out, stride);
}
