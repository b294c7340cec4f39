/*
 * kern_mul_amx: quantised GEMM with AMX tiles.
 *
 * A tile product of 16 activation rows by 16 outputs over one block of 32 columns gives the block's
 * exact int32 sums; scaling and adding them stays in 16 AVX-512 registers, in the order of the
 * contract. So the bits are the same, and the integer work is off the vector ports.
 *
 * Measured, and what the code follows from: while tile instructions run, and for about 200 cycles
 * after them, 512-bit multiplies, FMAs and conversions have one port instead of two;
 * additions keep both. So sums begin with EXP_MAGIC's bits and are read as floats of
 * EXP_MAGIC + sum, which a subtraction makes exact floats. The sums travel through memory and come
 * from a long pipeline: a block starts three blocks before it is added, across rows of tiles, and
 * is stored two before. Stores that miss the cache delay those of the sums, so the lines of the
 * next outputs are prefetched during the tile before.
 *
 * The tile unit multiplies signed by signed here, so a chunk of weights of any type is widened to
 * signed bytes first; that pays from 16 rows on, and fewer go to the AVX-512 functions. So do types
 * with a scale for 16 columns: they would need two tile multiplies and stores a block, and this
 * loop waits for stores. Tiles are configured and released within a call. Functions only: nothing
 * here runs unless kern_select.c got permission.
 */
#include "kern/kern_avx512.h"

enum {
    TILE_ROWS = 16,
    CHUNK_BLOCKS = 32, /* 16 x 32 x 32 weights = 16 KiB, a third of L1 */
    BLOCK_BYTES = 512,
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

/* What sums begin with. */
_Alignas(64) static const float magic_row[16] = {
    EXP_MAGIC, EXP_MAGIC, EXP_MAGIC, EXP_MAGIC, EXP_MAGIC, EXP_MAGIC, EXP_MAGIC, EXP_MAGIC,
    EXP_MAGIC, EXP_MAGIC, EXP_MAGIC, EXP_MAGIC, EXP_MAGIC, EXP_MAGIC, EXP_MAGIC, EXP_MAGIC,
};

/* Activation rows, a multiple of TILE_ROWS, by one strip over one chunk of blocks. */
struct mul_args {
    const uint8_t *w;         /* signed weights of the chunk, 512 bytes a block */
    const float *scale, *min; /* [blocks][16] */
    __mmask16 lanes;
    const int8_t *q; /* of the current tile, from the chunk's first block on, as those below */
    const float *dx, *sum;
    uint32_t cols, blocks; /* of a whole row: strides */
    uint32_t chunk, steps; /* blocks in the chunk; the same made even */
    float *out;
    const float *next_out; /* where the next tile's sums will go */
    size_t stride;
    int resume; /* out holds the sums of earlier chunks */
    struct kern_fetch fetch;
};

/* The next block to be started. */
struct tile_cursor {
    const int8_t *q;
    uint32_t b, tiles; /* place in the chunk; tiles that are not started to the end */
};

typedef float block_sums[TILE_ROWS][16];

/* Start the sums of the next block. Tile numbers are part of the instructions, hence two ways;
 * `odd` is a constant. The block after a chunk of odd length is started too and never used: it is
 * read from what follows in memory. */
INLINE void start_sums(const struct mul_args *t, struct tile_cursor *c, int odd)
{
    if (c->tiles == 0) return;
    const int8_t *q = c->q + (size_t)c->b * KERN_BLOCK;
    const uint8_t *w = t->w + (size_t)c->b * BLOCK_BYTES;
    if (odd) {
        _tile_loadd(1, magic_row, 0);
        _tile_loadd(3, q, t->cols);
        _tile_loadd(5, w, 64);
        _tile_dpbssd(1, 3, 5);
    } else {
        _tile_loadd(0, magic_row, 0);
        _tile_loadd(2, q, t->cols);
        _tile_loadd(4, w, 64);
        _tile_dpbssd(0, 2, 4);
    }
    if (++c->b < t->steps) return;
    c->b = 0;
    c->q += (size_t)t->cols * TILE_ROWS;
    c->tiles--;
}

INLINE void store_sums(block_sums ring[2], int odd)
{
    if (odd)
        _tile_stored(1, ring[1], 64);
    else
        _tile_stored(0, ring[0], 64);
}

/* Element `r` of 16 that stand `step` bytes apart. As base, index and factor of an address it takes
 * six registers for all; left alone, the compiler makes 16 pointers and reloads them each time. */
struct column {
    const char *low, *high;
    size_t one, three, five, seven;
};

INLINE struct column column_start(size_t step)
{
    struct column c = {NULL, NULL, step, 3 * step, 5 * step, 7 * step};
    __asm__("" : "+r"(c.one), "+r"(c.three), "+r"(c.five), "+r"(c.seven));
    return c;
}

INLINE void column_at(struct column *c, const float *first)
{
    c->low = (const char *)first;
    c->high = c->low + 8 * c->one;
    __asm__("" : "+r"(c->low), "+r"(c->high));
}

INLINE __m512 column_value(const struct column *c, int r)
{
    const size_t steps[8] = {0,          c->one,  2 * c->one,   c->three,
                             4 * c->one, c->five, 2 * c->three, c->seven};
    const char *at = (r < 8 ? c->low : c->high) + steps[r % 8];
    return _mm512_set1_ps(*(const float *)(const void *)at);
}

INLINE void add_block(const struct mul_args *t, uint32_t b, block_sums sum, int with_min,
                      struct column *x, __m512 acc[TILE_ROWS])
{
    const __m512 magic = _mm512_set1_ps(EXP_MAGIC);
    __m512 dw = _mm512_load_ps(t->scale + (size_t)b * KERN_LANES);
    column_at(x, t->dx + b);
    UNROLL
    for (int r = 0; r < TILE_ROWS; r++) {
        __m512 d = _mm512_mul_ps(dw, column_value(x, r));
        acc[r] = _mm512_fmadd_ps(_mm512_sub_ps(_mm512_load_ps(sum[r]), magic), d, acc[r]);
    }
    if (!with_min) return;
    __m512 min = _mm512_load_ps(t->min + (size_t)b * KERN_LANES);
    column_at(x, t->sum + b);
    UNROLL
    for (int r = 0; r < TILE_ROWS; r++)
        acc[r] = _mm512_fmadd_ps(min, column_value(x, r), acc[r]);
}

/* Add block b, while the sums of the second next go to memory and those of the third begin. */
INLINE void step(struct mul_args *t, uint32_t b, block_sums ring[2], int odd, int with_min,
                 struct tile_cursor *next, struct column *x, __m512 acc[TILE_ROWS])
{
    start_sums(t, next, !odd);
    if (b < TILE_ROWS)
        _mm_prefetch((const char *)(t->next_out + (size_t)b * t->stride), _MM_HINT_ET0);
    if (!odd || b < t->chunk) add_block(t, b, ring[odd], with_min, x, acc);
    store_sums(ring, odd);
}

/* 16 rows. */
INLINE void tile(struct mul_args *t, block_sums ring[2], int with_min, struct tile_cursor *next)
{
    __m512 acc[TILE_ROWS];
    struct column x = column_start(t->blocks * sizeof(float));
    UNROLL
    for (int r = 0; r < TILE_ROWS; r++)
        acc[r] = t->resume ? _mm512_maskz_loadu_ps(t->lanes, t->out + (size_t)r * t->stride)
                           : _mm512_setzero_ps();
    for (uint32_t b = 0; b < t->chunk; b += 2) {
        step(t, b, ring, 0, with_min, next, &x, acc);
        step(t, b + 1, ring, 1, with_min, next, &x, acc);
        fetch_step(&t->fetch);
    }
    UNROLL
    for (int r = 0; r < TILE_ROWS; r++)
        _mm512_mask_storeu_ps(t->out + (size_t)r * t->stride, t->lanes, acc[r]);
}

/* All tiles of a call, as one row of blocks, so that the tile unit never waits. */
INLINE void all_tiles(struct mul_args t, uint32_t tiles, int with_min)
{
    _Alignas(64) block_sums ring[2];
    struct tile_cursor next = {.q = t.q, .tiles = tiles};
    const float *next_strip = t.out + KERN_LANES;
    start_sums(&t, &next, 0);
    start_sums(&t, &next, 1);
    store_sums(ring, 0);
    start_sums(&t, &next, 0);
    store_sums(ring, 1);
    for (; tiles > 0; tiles--) {
        t.next_out = tiles > 1 ? t.out + TILE_ROWS * t.stride : next_strip;
        tile(&t, ring, with_min, &next);
        t.dx += (size_t)t.blocks * TILE_ROWS;
        t.sum += (size_t)t.blocks * TILE_ROWS;
        t.out += t.stride * TILE_ROWS;
    }
}

static void all_tiles_plain(const struct mul_args *t, uint32_t tiles)
{
    all_tiles(*t, tiles, 0);
}

static void all_tiles_min(const struct mul_args *t, uint32_t tiles)
{
    all_tiles(*t, tiles, 1);
}

/* Chunk after chunk, so that the activations of a chunk stay in L2 while all
 * strips pass. */
static void mul_chunk(const struct kern_mat *m, uint32_t strip, uint32_t strips, uint32_t b,
                      const struct kern_act *x, uint32_t row, uint32_t tiles, float *out,
                      size_t stride)
{
    _Alignas(64) uint8_t wide[(CHUNK_BLOCKS + 1) * BLOCK_BYTES];
    _Alignas(64) float scale[CHUNK_BLOCKS * KERN_LANES], min[CHUNK_BLOCKS * KERN_LANES];
    const struct kern_form *f = &kern_forms[m->type];
    const struct kern_wide to = {wide, scale, min, 1};
    struct mul_args t = {.w = wide, .scale = scale, .min = min, .cols = m->cols, .stride = stride};
    t.blocks = m->cols / KERN_BLOCK;
    t.chunk = t.blocks - b < CHUNK_BLOCKS ? t.blocks - b : CHUNK_BLOCKS;
    t.steps = t.chunk + t.chunk % 2;
    t.resume = b > 0;
    const size_t at = (size_t)row * t.blocks + b;
    t.q = x->q + at * KERN_BLOCK;
    t.dx = x->scale + at;
    t.sum = x->sum + at;
    for (uint32_t s = strip; s < strip + strips; s++) {
        kern_avx512_widen(m, s, b, t.chunk, &to);
        t.lanes = tail_mask(kern_lanes_of(m, s));
        t.out = out + (size_t)row * stride + (size_t)s * KERN_LANES;
        t.fetch = fetch_start(kern_strip(m, s + 1) + b / f->blocks * kern_unit_bytes(m->type),
                              t.chunk / f->blocks * kern_unit_bytes(m->type),
                              (size_t)t.steps / 2 * tiles);
        (f->min ? all_tiles_min : all_tiles_plain)(&t, tiles);
    }
}

/* The rows that fill tiles; returns how many. */
static uint32_t mul_tiles(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                          const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                          size_t stride)
{
    const uint32_t tiles = rows / TILE_ROWS;
    if (tiles == 0) return 0;
    _tile_loadconfig(&config);
    for (uint32_t b = 0; b < m->cols / KERN_BLOCK; b += CHUNK_BLOCKS)
        mul_chunk(m, strip, strips, b, x, row, tiles, out, stride);
    _tile_release();
    return tiles * TILE_ROWS;
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
