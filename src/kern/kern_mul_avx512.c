/*
 * kern_mul_avx512: matrix times activation rows, 16 outputs a register.
 *
 * Quantised weights: they are unsigned (w + 128) in registers, activations signed, broadcast four
 * at a time to VNNI; the offset is taken back by starting each sum from -128 * sum(x), which is
 * exact. Four rows by two strips share the 16 weight registers of a block, so that a broadcast
 * serves two multiplies and the loads do not bound the loop (measured: 12 rows by one strip, with
 * a load for every multiply, is slower).
 *
 * Columns go in chunks whose weights stay in the first-level cache while all rows pass; between
 * chunks the sums rest in `out`, as exact float32, so chunks change no bit. 4-bit weights are
 * widened to the 8-bit form once per chunk when there are rows enough to pay for it.
 */
#include "kern/kern_avx512.h"

enum {
    Q4_OFFSET = 8,
    TILE_ROWS = 4,     /* activation rows in registers, quantised */
    TILE_STRIPS = 2,   /* strips side by side */
    CHUNK_BLOCKS = 24, /* 32 x 24 x 32 weights = 24 KiB */
    PLAIN_ROWS = 8,    /* activation rows in registers, float weights */
    PLAIN_CHUNK = 192, /* 192 x 32 x 4 bytes = 24 KiB */
    WIDEN_ROWS = 8,    /* widen 4-bit weights from so many rows on */
    AHEAD = 4096,      /* bytes that the one-row loops prefetch ahead */
    FEW_ROWS = 32      /* up to so many rows the weights' way from memory is what takes time */
};

/* Rows, strips and columns that the register tiles walk over. */
struct job {
    const uint8_t *w[TILE_STRIPS]; /* weights of the chunk, 512 bytes a block */
    const uint8_t *d[TILE_STRIPS]; /* their scales, 16 f16 a block */
    __mmask16 lanes[TILE_STRIPS];
    const int8_t *q; /* activations from the chunk's first block and the tile's first row on */
    const float *scale;
    const int32_t *minus;
    uint32_t cols, blocks; /* of a whole activation row: the strides */
    uint32_t chunk;        /* blocks in this chunk */
    float *out;            /* first row, first strip */
    size_t stride;
    int resume;   /* out holds the sums of earlier chunks */
    size_t ahead; /* few rows: fetch the weights so many bytes further on meanwhile; or 0 */
};

INLINE __m512i broadcast4(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, 4);
    return _mm512_set1_epi32(four);
}

/* The same place of the next strips, into the second-level cache. */
INLINE void fetch_ahead(const struct job *t, uint32_t b, int c)
{
    UNROLL
    for (int s = 0; s < c; s++) {
        const char *at = (const char *)t->w[s] + t->ahead + (size_t)b * 512;
        UNROLL
        for (int j = 0; j < 8; j++)
            _mm_prefetch(at + j * 64, _MM_HINT_T1);
    }
}

/* n rows by c strips over one chunk; n, c and fetch are constants after inlining. */
INLINE void tile_q8(const struct job *t, int n, int c, int fetch)
{
    __m512 acc[TILE_ROWS][TILE_STRIPS];
    UNROLL for (int r = 0; r < n; r++) UNROLL for (int s = 0; s < c; s++) acc[r][s] =
        t->resume ? _mm512_maskz_loadu_ps(t->lanes[s], t->out + (size_t)r * t->stride + 16 * s)
                  : _mm512_setzero_ps();
    const int8_t *q = t->q;
    const float *scale = t->scale;
    const int32_t *minus = t->minus;
    const size_t cols = t->cols, blocks = t->blocks;
    for (uint32_t b = 0; b < t->chunk; b++) {
        __m512i w[TILE_STRIPS][8];
        __m512 dw[TILE_STRIPS];
        UNROLL for (int s = 0; s < c; s++)
        {
            UNROLL for (int j = 0; j < 8; j++) w[s][j] =
                _mm512_loadu_si512(t->w[s] + (size_t)b * 512 + j * 64);
            dw[s] = load_half(t->d[s] + (size_t)b * 32);
        }
        if (fetch) fetch_ahead(t, b, c);
        UNROLL for (int r = 0; r < n; r++)
        {
            const int8_t *x = q + (size_t)r * cols + (size_t)b * KERN_BLOCK;
            __m512i sum[TILE_STRIPS];
            UNROLL for (int s = 0; s < c; s++) sum[s] =
                _mm512_set1_epi32(minus[(size_t)r * blocks + b]);
            UNROLL for (int j = 0; j < 8; j++)
            {
                __m512i four = broadcast4(x + 4 * j);
                UNROLL for (int s = 0; s < c; s++) sum[s] =
                    _mm512_dpbusd_epi32(sum[s], w[s][j], four);
            }
            __m512 dx = _mm512_set1_ps(scale[(size_t)r * blocks + b]);
            UNROLL for (int s = 0; s < c; s++) acc[r][s] =
                _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[s]), _mm512_mul_ps(dw[s], dx), acc[r][s]);
        }
    }
    UNROLL for (int r = 0; r < n; r++) UNROLL for (int s = 0; s < c; s++)
        _mm512_mask_storeu_ps(t->out + (size_t)r * t->stride + 16 * s, t->lanes[s], acc[r][s]);
}

INLINE void next_rows(struct job *t)
{
    t->q += (size_t)t->cols * TILE_ROWS;
    t->scale += (size_t)t->blocks * TILE_ROWS;
    t->minus += (size_t)t->blocks * TILE_ROWS;
    t->out += t->stride * TILE_ROWS;
}

/* All rows of a job, four at a time. */
INLINE void rows_q8(struct job t, uint32_t rows, int c)
{
    if (t.ahead && rows >= TILE_ROWS) {
        tile_q8(&t, TILE_ROWS, c, 1);
        next_rows(&t);
        rows -= TILE_ROWS;
    }
    for (; rows >= TILE_ROWS; rows -= TILE_ROWS) {
        tile_q8(&t, TILE_ROWS, c, 0);
        next_rows(&t);
    }
    if (rows == 3) tile_q8(&t, 3, c, 1);
    if (rows == 2) tile_q8(&t, 2, c, 1);
    if (rows == 1) tile_q8(&t, 1, c, 1);
}

/* 4-bit weights in the 8-bit form: w + 8 becomes w + 128. */
static void widen_q4(const uint8_t *w, uint32_t blocks, uint8_t *out)
{
    const __m512i low = _mm512_set1_epi8(15), up = _mm512_set1_epi8(KERN_Q8_OFFSET - Q4_OFFSET);
    for (uint32_t b = 0; b < blocks; b++, out += 512) {
        UNROLL for (int j = 0; j < 4; j++, w += 64)
        {
            __m512i pair = _mm512_loadu_si512(w);
            __m512i high = _mm512_and_si512(_mm512_srli_epi16(pair, 4), low);
            _mm512_store_si512(out + j * 64, _mm512_add_epi8(_mm512_and_si512(pair, low), up));
            _mm512_store_si512(out + j * 64 + 256, _mm512_add_epi8(high, up));
        }
    }
}

/* Strips [strip, strip + c), c = 1 or 2, chunk after chunk. */
static void strips_q(const struct kern_mat *m, uint32_t strip, uint32_t c, const struct kern_act *x,
                     uint32_t row, uint32_t rows, float *out, size_t stride)
{
    _Alignas(64) uint8_t wide[TILE_STRIPS][CHUNK_BLOCKS * 512];
    uint32_t blocks = m->cols / KERN_BLOCK;
    struct job t = {.cols = m->cols, .blocks = blocks, .stride = stride};
    t.out = out + (size_t)row * stride + (size_t)strip * KERN_LANES;
    for (uint32_t b = 0; b < blocks; b += CHUNK_BLOCKS) {
        t.chunk = blocks - b < CHUNK_BLOCKS ? blocks - b : CHUNK_BLOCKS;
        t.resume = b > 0;
        for (uint32_t s = 0; s < c; s++) {
            const uint8_t *base = kern_strip(m, strip + s);
            t.d[s] = base + kern_halves_at(m) + (size_t)b * 32;
            t.w[s] = base + (size_t)b * (m->type == KERN_Q4_0 ? 256 : 512);
            t.lanes[s] = tail_mask(kern_lanes_of(m, strip + s));
            t.ahead = rows <= FEW_ROWS ? c * m->strip_bytes : 0;
            if (m->type == KERN_Q4_0) {
                t.ahead = 0;
                widen_q4(t.w[s], t.chunk, wide[s]);
                t.w[s] = wide[s];
            }
        }
        t.q = x->q + (size_t)row * m->cols + (size_t)b * KERN_BLOCK;
        t.scale = x->scale + (size_t)row * blocks + b;
        t.minus = x->minus + (size_t)row * blocks + b;
        if (c == 2)
            rows_q8(t, rows, 2);
        else
            rows_q8(t, rows, 1);
    }
}

static void mul_quant(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                      const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                      size_t stride)
{
    uint32_t end = strip + strips;
    for (; strip + 2 <= end; strip += 2)
        strips_q(m, strip, 2, x, row, rows, out, stride);
    if (strip < end) strips_q(m, strip, 1, x, row, rows, out, stride);
}

/* One row by one strip: bound by memory, so one stream, read ahead of need. */
INLINE void vector_q(const struct kern_mat *m, uint32_t strip, const struct kern_act *x,
                     uint32_t row, float *out, int four_bit)
{
    const uint8_t *w = kern_strip(m, strip), *d = w + kern_halves_at(m);
    const uint32_t blocks = m->cols / KERN_BLOCK;
    const int8_t *q = x->q + (size_t)row * m->cols;
    const float *scale = x->scale + (size_t)row * blocks;
    const int32_t *minus = x->minus + (size_t)row * blocks;
    const __m512i low = _mm512_set1_epi8(15);
    __m512 acc = _mm512_setzero_ps();
    for (uint32_t b = 0; b < blocks; b++, q += KERN_BLOCK, w += four_bit ? 256 : 512) {
        __m512i first = _mm512_set1_epi32(four_bit ? minus[b] / 16 : minus[b]);
        __m512i second = _mm512_setzero_si512();
        UNROLL
        for (int j = 0; j < 4; j++) {
            __m512i v = _mm512_loadu_si512(w + j * 64), u;
            _mm_prefetch((const char *)w + AHEAD + j * 64, _MM_HINT_T0);
            if (four_bit) {
                u = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
                v = _mm512_and_si512(v, low);
            } else {
                u = _mm512_loadu_si512(w + j * 64 + 256);
                _mm_prefetch((const char *)w + AHEAD + j * 64 + 256, _MM_HINT_T0);
            }
            first = _mm512_dpbusd_epi32(first, v, broadcast4(q + 4 * j));
            second = _mm512_dpbusd_epi32(second, u, broadcast4(q + 16 + 4 * j));
        }
        __m512 sum = _mm512_cvtepi32_ps(_mm512_add_epi32(first, second));
        __m512 dd = _mm512_mul_ps(load_half(d + (size_t)b * 32), _mm512_set1_ps(scale[b]));
        acc = _mm512_fmadd_ps(sum, dd, acc);
    }
    _mm512_mask_storeu_ps(out + (size_t)strip * KERN_LANES, tail_mask(kern_lanes_of(m, strip)),
                          acc);
}

static void mul_q8_0(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                     const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                     size_t stride)
{
    if (rows > 1)
        mul_quant(m, strip, strips, x, row, rows, out, stride);
    else if (rows == 1)
        for (uint32_t s = strip; s < strip + strips; s++)
            vector_q(m, s, x, row, out + (size_t)row * stride, 0);
}

static void mul_q4_0(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                     const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                     size_t stride)
{
    if (rows >= WIDEN_ROWS) {
        mul_quant(m, strip, strips, x, row, rows, out, stride);
        return;
    }
    for (uint32_t s = strip; s < strip + strips; s++)
        for (uint32_t r = row; r < row + rows; r++)
            vector_q(m, s, x, r, out + (size_t)r * stride, 1);
}

void kern_avx512_mul_quant(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                           const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                           size_t stride)
{
    kern_mul_fn *mul = m->type == KERN_Q8_0   ? mul_q8_0
                       : m->type == KERN_Q4_0 ? mul_q4_0
                                              : kern_ref_mul_quant;
    mul(m, strip, strips, x, row, rows, out, stride);
}

/* ---- float weights --------------------------------------------------------------------------- */

struct plain_job {
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

INLINE void tile_plain(const struct plain_job *t, int n, int c, enum kern_type type)
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

INLINE void rows_plain(struct plain_job t, uint32_t rows, int c, enum kern_type type)
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
        struct plain_job t = {.cols = m->cols, .stride = stride};
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
