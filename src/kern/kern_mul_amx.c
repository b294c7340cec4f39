/*
 * kern_mul_amx: quantised multiplies of many rows with the tile unit.
 *
 * A tile product of 16 activation rows by 16 outputs over one block of 32 columns gives the block's
 * exact int32 sums; scaling and adding them stays in 16 AVX-512 registers, in the order of the
 * contract. So the bits are the same, and the integer work is off the vector ports, which it fills
 * otherwise. The sums travel through memory; the next block's products are started before this
 * one's sums are read. (Twelve rows by two strips is as fast and more code: a tile store takes as
 * long for 12 rows as for 16.)
 *
 * The tile unit multiplies signed by signed here, so a chunk of weights is brought to signed bytes
 * first; that pays from 16 rows on, and fewer go to the AVX-512 functions. Tiles are configured and
 * released within a call. Functions only: nothing here runs unless kern_select.c got permission.
 */
#include "kern/kern_avx512.h"

enum {
    Q4_OFFSET = 8,
    TILE_ROWS = 16,
    CHUNK_BLOCKS = 48, /* 16 x 48 x 32 weights = 24 KiB */
    BLOCK_BYTES = 512
};

/* Operand of ldtilecfg, palette 1. */
struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* Tiles, of even and odd blocks: sums 0 and 1, activations 2 and 3, weights 4 and 5. */
static const struct tile_config config = {
    .palette = 1,
    .row_bytes = {64, 64, KERN_BLOCK, KERN_BLOCK, 64, 64},
    .rows = {TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS, KERN_BLOCK / 4, KERN_BLOCK / 4},
};

struct job {
    const int8_t *w;  /* signed weights of the chunk, 512 bytes a block */
    const uint8_t *d; /* their scales */
    __mmask16 lanes;
    const int8_t *q;
    const float *scale;
    uint32_t cols, blocks, chunk;
    float *out;
    size_t stride;
    int resume;
};

typedef int32_t block_sums[TILE_ROWS][16];

/* The exact sums of block b. Tile numbers are part of the instructions, hence two functions. */
INLINE void even_sums(const struct job *t, uint32_t b, block_sums sum)
{
    _tile_zero(0);
    _tile_loadd(2, t->q + (size_t)b * KERN_BLOCK, t->cols);
    _tile_loadd(4, t->w + (size_t)b * BLOCK_BYTES, 64);
    _tile_dpbssd(0, 2, 4);
    _tile_stored(0, sum, 64);
}

INLINE void odd_sums(const struct job *t, uint32_t b, block_sums sum)
{
    _tile_zero(1);
    _tile_loadd(3, t->q + (size_t)b * KERN_BLOCK, t->cols);
    _tile_loadd(5, t->w + (size_t)b * BLOCK_BYTES, 64);
    _tile_dpbssd(1, 3, 5);
    _tile_stored(1, sum, 64);
}

INLINE void add_block(const struct job *t, uint32_t b, block_sums sum, __m512 acc[TILE_ROWS])
{
    const float *scale = t->scale + b;
    const size_t blocks = t->blocks;
    __m512 dw = load_half(t->d + (size_t)b * 32);
    UNROLL
    for (int r = 0; r < TILE_ROWS; r++) {
        __m512 d = _mm512_mul_ps(dw, _mm512_set1_ps(scale[(size_t)r * blocks]));
        acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sum[r])), d, acc[r]);
    }
}

/* 16 rows by one strip over one chunk. */
static void tile_rows(const struct job *t)
{
    _Alignas(64) block_sums even, odd;
    __m512 acc[TILE_ROWS];
    UNROLL
    for (int r = 0; r < TILE_ROWS; r++)
        acc[r] = t->resume ? _mm512_maskz_loadu_ps(t->lanes, t->out + (size_t)r * t->stride)
                           : _mm512_setzero_ps();
    even_sums(t, 0, even);
    for (uint32_t b = 0; b < t->chunk; b += 2) {
        if (b + 1 < t->chunk) odd_sums(t, b + 1, odd);
        add_block(t, b, even, acc);
        if (b + 1 == t->chunk) break;
        if (b + 2 < t->chunk) even_sums(t, b + 2, even);
        add_block(t, b + 1, odd, acc);
    }
    UNROLL
    for (int r = 0; r < TILE_ROWS; r++)
        _mm512_mask_storeu_ps(t->out + (size_t)r * t->stride, t->lanes, acc[r]);
}

static void signed_q8(const uint8_t *w, uint32_t blocks, int8_t *out)
{
    for (uint32_t i = 0; i < blocks * (BLOCK_BYTES / 64); i++, w += 64, out += 64)
        _mm512_store_si512(out, _mm512_xor_si512(_mm512_loadu_si512(w), _mm512_set1_epi8(-128)));
}

static void signed_q4(const uint8_t *w, uint32_t blocks, int8_t *out)
{
    const __m512i low = _mm512_set1_epi8(15), eight = _mm512_set1_epi8(Q4_OFFSET);
    for (uint32_t b = 0; b < blocks; b++, out += BLOCK_BYTES) {
        UNROLL
        for (int j = 0; j < 4; j++, w += 64) {
            __m512i pair = _mm512_loadu_si512(w);
            __m512i high = _mm512_and_si512(_mm512_srli_epi16(pair, 4), low);
            _mm512_store_si512(out + j * 64, _mm512_sub_epi8(_mm512_and_si512(pair, low), eight));
            _mm512_store_si512(out + j * 64 + 256, _mm512_sub_epi8(high, eight));
        }
    }
}

static void mul_strip(const struct kern_mat *m, uint32_t strip, const struct kern_act *x,
                      uint32_t row, uint32_t rows, float *out, size_t stride)
{
    _Alignas(64) int8_t wide[CHUNK_BLOCKS * BLOCK_BYTES];
    const uint32_t blocks = m->cols / KERN_BLOCK;
    const uint8_t *base = kern_strip(m, strip);
    struct job t = {.w = wide, .cols = m->cols, .blocks = blocks, .stride = stride};
    t.lanes = tail_mask(kern_lanes_of(m, strip));
    for (uint32_t b = 0; b < blocks; b += CHUNK_BLOCKS) {
        t.chunk = blocks - b < CHUNK_BLOCKS ? blocks - b : CHUNK_BLOCKS;
        t.resume = b > 0;
        t.d = base + kern_halves_at(m) + (size_t)b * 32;
        if (m->type == KERN_Q4_0)
            signed_q4(base + (size_t)b * 256, t.chunk, wide);
        else
            signed_q8(base + (size_t)b * BLOCK_BYTES, t.chunk, wide);
        for (uint32_t r = row; r < row + rows; r += TILE_ROWS) {
            t.q = x->q + (size_t)r * m->cols + (size_t)b * KERN_BLOCK;
            t.scale = x->scale + (size_t)r * blocks + b;
            t.out = out + (size_t)r * stride + (size_t)strip * KERN_LANES;
            tile_rows(&t);
        }
    }
}

/* The rows that fill tiles; returns how many. */
static uint32_t mul_tiles(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                          const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                          size_t stride)
{
    rows -= rows % TILE_ROWS;
    if (rows == 0) return 0;
    _tile_loadconfig(&config);
    for (uint32_t s = strip; s < strip + strips; s++)
        mul_strip(m, s, x, row, rows, out, stride);
    _tile_release();
    return rows;
}

static void mul_q8_0(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                     const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                     size_t stride)
{
    uint32_t done = mul_tiles(m, strip, strips, x, row, rows, out, stride);
    kern_avx512_mul_quant(m, strip, strips, x, row + done, rows - done, out, stride);
}

static void mul_q4_0(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                     const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                     size_t stride)
{
    uint32_t done = mul_tiles(m, strip, strips, x, row, rows, out, stride);
    kern_avx512_mul_quant(m, strip, strips, x, row + done, rows - done, out, stride);
}

void kern_amx_mul_quant(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                        const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                        size_t stride)
{
    kern_mul_fn *mul = m->type == KERN_Q8_0   ? mul_q8_0
                       : m->type == KERN_Q4_0 ? mul_q4_0
                                              : kern_avx512_mul_quant;
    mul(m, strip, strips, x, row, rows, out, stride);
}
