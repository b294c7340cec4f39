/*
 * kern_mul_avx512: GEMM, 16 outputs a register.
 *
 * Quantised weights: they are unsigned in registers (w + 128, or w for types with mins),
 * activations signed, broadcast four at a time to VNNI; the offset is taken back by starting each
 * sum from -128 * sum(x), which is exact. Six rows by two strips have their sums in registers: two
 * loads of weights and six broadcasts serve twelve multiplies, so that loads do not bound the loop
 * (measured slower: 12 rows by one strip, a load for every multiply; four rows by two strips with
 * the 16 registers of a block's weights held, which no compiler keeps there).
 *
 * Columns are taken in chunks that are widened to bytes once (kern_widen_avx512.c) and stay in L1
 * while all rows pass. Between chunks the sums are in `out`, as exact float32, so chunks change no
 * bit. GEMV and small batches are in kern_few_avx512.c.
 */
#include "kern/kern_avx512.h"

enum {
    TILE_ROWS = 6,     /* activation rows in registers, quantised */
    TILE_STRIPS = 2,   /* strips side by side */
    CHUNK_BLOCKS = 24, /* 32 x 24 x 32 weights = 24 KiB */
    CHUNK_SUBS = CHUNK_BLOCKS * 2 * KERN_LANES,
    PLAIN_ROWS = 8,    /* activation rows in registers, float weights */
    PLAIN_CHUNK = 192, /* 192 x 32 x 4 bytes = 24 KiB */
    MANY_ROWS = 12,    /* from this many rows on widening pays */
    FEW_ROWS = 32      /* up to this many rows memory bounds the time */
};

/* Rows, strips and columns that the register tiles walk over. */
struct mul_args {
    const uint8_t *w[TILE_STRIPS]; /* weights of the chunk, 512 bytes a block */
    const float *scale[TILE_STRIPS], *min[TILE_STRIPS]; /* [sub-blocks][16] */
    __mmask16 lanes[TILE_STRIPS];
    const int8_t *q; /* activations from the chunk's first block and the tile's first row on */
    const float *dx, *sum;
    const int32_t *minus;
    size_t cols, blocks; /* of a whole activation row: the strides */
    uint32_t chunk;      /* blocks in this chunk */
    float *out;          /* first row, first strip */
    size_t stride;
    int resume;               /* out holds the sums of earlier chunks */
    struct kern_fetch *fetch; /* few rows: [TILE_STRIPS], the same chunk of the next strips */
};

INLINE __m512i broadcast4(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, 4);
    return _mm512_set1_epi32(four);
}

/* n rows by c strips over sub-block h of block b; `subs` scales a block, with mins or without. */
INLINE void add_sub(const struct mul_args *t, uint32_t b, int n, int c, int subs, int h,
                    int with_min, __m512 acc[TILE_ROWS][TILE_STRIPS])
{
    const int groups = subs == 2 ? 4 : 8, first = h ? groups : 0;
    const size_t sub = (size_t)b * (size_t)subs + (size_t)h, at = sub * KERN_LANES;
    const size_t row_subs = t->blocks * (size_t)subs;
    __m512i sum[TILE_ROWS][TILE_STRIPS];
    __m512 scale[TILE_STRIPS];
    UNROLL
    for (int r = 0; r < n; r++)
        sum[r][0] = sum[r][1] = with_min ? _mm512_setzero_si512()
                                         : _mm512_set1_epi32(t->minus[(size_t)r * row_subs + sub]);
    UNROLL
    for (int g = first; g < first + groups; g++) {
        __m512i w[TILE_STRIPS];
        UNROLL
        for (int s = 0; s < c; s++)
            w[s] = _mm512_load_si512(t->w[s] + (size_t)b * 512 + g * 64);
        UNROLL
        for (int r = 0; r < n; r++) {
            __m512i four = broadcast4(t->q + (size_t)r * t->cols + (size_t)b * KERN_BLOCK + 4 * g);
            UNROLL
            for (int s = 0; s < c; s++)
                sum[r][s] = _mm512_dpbusd_epi32(sum[r][s], w[s], four);
        }
    }
    UNROLL
    for (int s = 0; s < c; s++)
        scale[s] = _mm512_load_ps(t->scale[s] + at);
    UNROLL
    for (int r = 0; r < n; r++) {
        const __m512 dx = _mm512_set1_ps(t->dx[(size_t)r * t->blocks + b]);
        UNROLL
        for (int s = 0; s < c; s++)
            acc[r][s] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][s]), _mm512_mul_ps(scale[s], dx),
                                        acc[r][s]);
    }
    if (!with_min) return;
    UNROLL
    for (int r = 0; r < n; r++) {
        const __m512 x = _mm512_set1_ps(t->sum[(size_t)r * row_subs + sub]);
        UNROLL
        for (int s = 0; s < c; s++)
            acc[r][s] = _mm512_fmadd_ps(_mm512_load_ps(t->min[s] + at), x, acc[r][s]);
    }
}

/* n rows by c strips over one chunk; all but the arguments are constants after inlining. */
INLINE void tile(const struct mul_args *t, int n, int c, int subs, int with_min, int fetch)
{
    __m512 acc[TILE_ROWS][TILE_STRIPS];
    UNROLL for (int r = 0; r < n; r++) UNROLL for (int s = 0; s < c; s++) acc[r][s] =
        t->resume ? _mm512_maskz_loadu_ps(t->lanes[s], t->out + (size_t)r * t->stride + 16 * s)
                  : _mm512_setzero_ps();
    for (uint32_t b = 0; b < t->chunk; b++) {
        UNROLL for (int s = 0; s < c; s++) if (fetch) fetch_step(&t->fetch[s]);
        add_sub(t, b, n, c, subs, 0, with_min, acc);
        if (subs == 2) add_sub(t, b, n, c, subs, 1, with_min, acc);
    }
    UNROLL for (int r = 0; r < n; r++) UNROLL for (int s = 0; s < c; s++)
        _mm512_mask_storeu_ps(t->out + (size_t)r * t->stride + 16 * s, t->lanes[s], acc[r][s]);
}

/* The next n rows. */
INLINE void some_rows(struct mul_args *t, int n, int c, int subs, int with_min)
{
    if (t->fetch)
        tile(t, n, c, subs, with_min, 1);
    else
        tile(t, n, c, subs, with_min, 0);
    const size_t rows = (size_t)n, row_subs = t->blocks * (size_t)subs;
    t->q += t->cols * rows;
    t->dx += t->blocks * rows;
    t->sum += row_subs * rows;
    t->minus += row_subs * rows;
    t->out += t->stride * rows;
}

/* All rows of a call, six at a time; what is left by fours. */
INLINE void all_rows(struct mul_args t, uint32_t rows, int c, int subs, int with_min)
{
    for (; rows >= TILE_ROWS && rows != 8; rows -= TILE_ROWS)
        some_rows(&t, TILE_ROWS, c, subs, with_min);
    for (; rows >= 4; rows -= 4)
        some_rows(&t, 4, c, subs, with_min);
    if (rows == 3) some_rows(&t, 3, c, subs, with_min);
    if (rows == 2) some_rows(&t, 2, c, subs, with_min);
    if (rows == 1) some_rows(&t, 1, c, subs, with_min);
}

static void all_rows_of(const struct mul_args *t, uint32_t rows, uint32_t c,
                        const struct kern_form *f)
{
    if (f->sub == 32 && f->min)
        c == 2 ? all_rows(*t, rows, 2, 1, 1) : all_rows(*t, rows, 1, 1, 1);
    else if (f->sub == 32)
        c == 2 ? all_rows(*t, rows, 2, 1, 0) : all_rows(*t, rows, 1, 1, 0);
    else if (f->min)
        c == 2 ? all_rows(*t, rows, 2, 2, 1) : all_rows(*t, rows, 1, 2, 1);
    else
        c == 2 ? all_rows(*t, rows, 2, 2, 0) : all_rows(*t, rows, 1, 2, 0);
}

/* Strips [strip, strip + c), c = 1 or 2, chunk after chunk. */
static void mul_strips(const struct kern_mat *m, uint32_t strip, uint32_t c,
                       const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                       size_t stride)
{
    _Alignas(64) uint8_t wide[TILE_STRIPS][CHUNK_BLOCKS * 512];
    _Alignas(64) float scale[TILE_STRIPS][CHUNK_SUBS], min[TILE_STRIPS][CHUNK_SUBS];
    const struct kern_form *f = &kern_forms[m->type];
    const size_t blocks = m->cols / KERN_BLOCK, subs = KERN_BLOCK / f->sub;
    struct mul_args t = {.cols = m->cols, .blocks = blocks, .stride = stride};
    t.out = out + (size_t)row * stride + (size_t)strip * KERN_LANES;
    struct kern_fetch fetch[TILE_STRIPS];
    if (rows <= FEW_ROWS) t.fetch = fetch;
    for (uint32_t b = 0; b < blocks; b += CHUNK_BLOCKS) {
        t.chunk = (uint32_t)blocks - b < CHUNK_BLOCKS ? (uint32_t)blocks - b : CHUNK_BLOCKS;
        t.resume = b > 0;
        for (uint32_t s = 0; s < c; s++) {
            const struct kern_wide to = {wide[s], scale[s], min[s], 0};
            const uint8_t *packed =
                kern_strip(m, strip + s) + b / f->blocks * kern_unit_bytes(m->type);
            kern_avx512_widen(m, strip + s, b, t.chunk, &to);
            t.w[s] = m->type == KERN_Q8_0 ? packed : wide[s];
            t.scale[s] = scale[s];
            t.min[s] = min[s];
            t.lanes[s] = tail_mask(kern_lanes_of(m, strip + s));
            fetch[s] = fetch_start(packed + c * m->strip_bytes,
                                   t.chunk / f->blocks * kern_unit_bytes(m->type),
                                   (size_t)t.chunk * (rows / TILE_ROWS));
        }
        const size_t at = (size_t)row * blocks + b;
        t.q = x->q + at * KERN_BLOCK;
        t.dx = x->scale + at;
        t.sum = (subs == 2 ? x->half_sum : x->sum) + at * subs;
        t.minus = (subs == 2 ? x->half_minus : x->minus) + at * subs;
        all_rows_of(&t, rows, c, f);
    }
}

void kern_avx512_mul_quant(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                           const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                           size_t stride)
{
    const uint32_t end = strip + strips;
    if (rows < MANY_ROWS) {
        kern_avx512_mul_few(m, strip, strips, x, row, rows, out, stride);
        return;
    }
    for (; strip + 2 <= end; strip += 2)
        mul_strips(m, strip, 2, x, row, rows, out, stride);
    if (strip < end) mul_strips(m, strip, 1, x, row, rows, out, stride);
}

/* ---- float weights --------------------------------------------------------------------------- */

struct plain_args {
    const uint8_t *w[TILE_STRIPS];
    __mmask16 lanes[TILE_STRIPS];
    const float *x;
    uint32_t cols, chunk;
    float *out;
    size_t stride;
    int resume;
};

INLINE __m512 load_plain(const uint8_t *w, size_t k, enum kern_type type)
{
    if (type == KERN_F32) return _mm512_loadu_ps(w + k * 64);
    if (type == KERN_F16) return load_half(w + k * 32);
    __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)(w + k * 32));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

INLINE void tile_plain(const struct plain_args *t, int n, int c, enum kern_type type)
{
    __m512 acc[PLAIN_ROWS][TILE_STRIPS];
    UNROLL for (int r = 0; r < n; r++) UNROLL for (int s = 0; s < c; s++) acc[r][s] =
        t->resume ? _mm512_maskz_loadu_ps(t->lanes[s], t->out + (size_t)r * t->stride + 16 * s)
                  : _mm512_setzero_ps();
    const float *x = t->x;
    const size_t cols = t->cols;
    for (size_t k = 0; k < t->chunk; k++) {
        __m512 w[TILE_STRIPS];
        UNROLL for (int s = 0; s < c; s++) w[s] = load_plain(t->w[s], k, type);
        UNROLL for (int r = 0; r < n; r++)
        {
            __m512 v = _mm512_set1_ps(x[(size_t)r * cols + k]);
            UNROLL for (int s = 0; s < c; s++) acc[r][s] = _mm512_fmadd_ps(w[s], v, acc[r][s]);
        }
    }
    UNROLL for (int r = 0; r < n; r++) UNROLL for (int s = 0; s < c; s++)
        _mm512_mask_storeu_ps(t->out + (size_t)r * t->stride + 16 * s, t->lanes[s], acc[r][s]);
}

INLINE void rows_plain(struct plain_args t, uint32_t rows, int c, enum kern_type type)
{
    for (; rows >= PLAIN_ROWS; rows -= PLAIN_ROWS) {
        tile_plain(&t, PLAIN_ROWS, c, type);
        t.x += (size_t)t.cols * PLAIN_ROWS;
        t.out += t.stride * PLAIN_ROWS;
    }
    for (; rows >= 4; rows -= 4) {
        tile_plain(&t, 4, c, type);
        t.x += (size_t)t.cols * 4;
        t.out += t.stride * 4;
    }
    if (rows == 3) tile_plain(&t, 3, c, type);
    if (rows == 2) tile_plain(&t, 2, c, type);
    if (rows == 1) tile_plain(&t, 1, c, type);
}

INLINE void mul_plain(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                      const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                      size_t stride, enum kern_type type)
{
    const size_t size = type == KERN_F32 ? 64 : 32;
    for (uint32_t s = strip; s < strip + strips; s += 2) {
        uint32_t c = strip + strips - s < 2 ? 1 : 2;
        struct plain_args t = {.cols = m->cols, .stride = stride};
        t.out = out + (size_t)row * stride + (size_t)s * KERN_LANES;
        for (uint32_t i = 0; i < c; i++)
            t.lanes[i] = tail_mask(kern_lanes_of(m, s + i));
        uint32_t step = rows > 1 ? PLAIN_CHUNK : m->cols;
        for (uint32_t k = 0; k < m->cols; k += step) {
            t.chunk = m->cols - k < step ? m->cols - k : step;
            t.resume = k > 0;
            for (uint32_t i = 0; i < c; i++)
                t.w[i] = kern_strip(m, s + i) + k * size;
            t.x = x->f32 + (size_t)row * m->cols + k;
            if (c == 2)
                rows_plain(t, rows, 2, type);
            else
                rows_plain(t, rows, 1, type);
        }
    }
}

void kern_avx512_mul_f32(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                         const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                         size_t stride)
{
    mul_plain(m, strip, strips, x, row, rows, out, stride, KERN_F32);
}

void kern_avx512_mul_f16(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                         const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                         size_t stride)
{
    mul_plain(m, strip, strips, x, row, rows, out, stride, KERN_F16);
}

void kern_avx512_mul_bf16(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                          const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                          size_t stride)
{
    mul_plain(m, strip, strips, x, row, rows, out, stride, KERN_BF16);
}
