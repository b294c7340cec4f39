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
 * The tile unit multiplies signed by signed here, so a chunk of weights of any type is widened to
 * signed bytes first; that pays from 16 rows on, and fewer go to the AVX-512 functions. So do types
 * with a scale for 16 columns: they would need two tile products and stores a block, and stores are
 * what this loop waits for. Tiles are configured and released within a call. Functions only:
 * nothing here runs unless kern_select.c got permission.
 */
#include "kern/kern_avx512.h"

enum {
    TILE_ROWS = 16,
    CHUNK_BLOCKS = 48, /* 16 x 48 x 32 weights = 24 KiB */
    BLOCK_BYTES = 512,
    FEW_ROWS = 32 /* up to so many the weights' way from memory takes time: fetch them ahead */
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
    const uint8_t *w;         /* signed weights of the chunk, 512 bytes a block */
    const float *scale, *min; /* [blocks][16] */
    __mmask16 lanes;
    const int8_t *q;
    const float *dx, *sum;
    uint32_t cols, blocks, chunk;
    float *out;
    size_t stride;
    int resume;
    struct kern_fetch *fetch; /* few rows: the same chunk of the next strip; or NULL */
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

INLINE void add_block(const struct job *t, uint32_t b, block_sums sum, int with_min,
                      __m512 acc[TILE_ROWS])
{
    const float *dx = t->dx + b, *xsum = t->sum + b;
    const size_t blocks = t->blocks;
    __m512 dw = _mm512_load_ps(t->scale + (size_t)b * KERN_LANES), min = dw;
    if (with_min) min = _mm512_load_ps(t->min + (size_t)b * KERN_LANES);
    UNROLL
    for (int r = 0; r < TILE_ROWS; r++) {
        __m512 d = _mm512_mul_ps(dw, _mm512_set1_ps(dx[(size_t)r * blocks]));
        acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sum[r])), d, acc[r]);
        if (with_min)
            acc[r] = _mm512_fmadd_ps(min, _mm512_set1_ps(xsum[(size_t)r * blocks]), acc[r]);
    }
    if (t->fetch) fetch_step(t->fetch);
}

/* 16 rows by one strip over one chunk. */
INLINE void tile_rows(const struct job *t, int with_min)
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
        add_block(t, b, even, with_min, acc);
        if (b + 1 == t->chunk) break;
        if (b + 2 < t->chunk) even_sums(t, b + 2, even);
        add_block(t, b + 1, odd, with_min, acc);
    }
    UNROLL
    for (int r = 0; r < TILE_ROWS; r++)
        _mm512_mask_storeu_ps(t->out + (size_t)r * t->stride, t->lanes, acc[r]);
}

static void tile_rows_plain(const struct job *t)
{
    tile_rows(t, 0);
}

static void tile_rows_min(const struct job *t)
{
    tile_rows(t, 1);
}

static void mul_strip(const struct kern_mat *m, uint32_t strip, const struct kern_act *x,
                      uint32_t row, uint32_t rows, float *out, size_t stride)
{
    _Alignas(64) uint8_t wide[CHUNK_BLOCKS * BLOCK_BYTES];
    _Alignas(64) float scale[CHUNK_BLOCKS * KERN_LANES], min[CHUNK_BLOCKS * KERN_LANES];
    const struct kern_form *f = &kern_forms[m->type];
    const struct kern_wide to = {wide, scale, min, 1};
    const uint32_t blocks = m->cols / KERN_BLOCK;
    struct job t = {.w = wide, .cols = m->cols, .blocks = blocks, .stride = stride};
    t.scale = scale;
    t.min = min;
    t.lanes = tail_mask(kern_lanes_of(m, strip));
    for (uint32_t b = 0; b < blocks; b += CHUNK_BLOCKS) {
        t.chunk = blocks - b < CHUNK_BLOCKS ? blocks - b : CHUNK_BLOCKS;
        t.resume = b > 0;
        kern_avx512_widen(m, strip, b, t.chunk, &to);
        struct kern_fetch fetch = fetch_start(
            kern_strip(m, strip + 1) + b / f->blocks * kern_unit_bytes(m->type),
            t.chunk / f->blocks * kern_unit_bytes(m->type), (size_t)t.chunk * (rows / TILE_ROWS));
        t.fetch = rows <= FEW_ROWS ? &fetch : NULL;
        for (uint32_t r = row; r < row + rows; r += TILE_ROWS) {
            const size_t at = (size_t)r * blocks + b;
            t.q = x->q + at * KERN_BLOCK;
            t.dx = x->scale + at;
            t.sum = x->sum + at;
            t.out = out + (size_t)r * stride + (size_t)strip * KERN_LANES;
            if (f->min)
                tile_rows_min(&t);
            else
                tile_rows_plain(&t);
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

void kern_amx_mul_quant(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                        const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                        size_t stride)
{
    uint32_t done = 0;
    if (kern_forms[m->type].sub == KERN_BLOCK)
        done = mul_tiles(m, strip, strips, x, row, rows, out, stride);
    if (done < rows)
        kern_avx512_mul_quant(m, strip, strips, x, row + done, rows - done, out, stride);
}
