/*
 * kern_mul_neon: quantised multiplies for aarch64, for the levels with and without dot product
 * instructions. A file that includes it has defined
 *
 *   DOT(sum, w, x, lane)    sum + in each lane the dot product of 4 bytes of w with the 4 bytes of
 *                           x in its 32-bit lane `lane` (a constant)
 *
 * A chunk of a strip of any type is unpacked to signed bytes with float scales once, in L1. Then
 * all activation rows pass it, four at a time by half a strip: 8 float and 8 integer sums, the
 * rows' values and two registers of weights fit into 32 registers. Between chunks the sums are in
 * `out`, as exact float32, so chunks change no bit.
 */
#ifndef PDD_KERN_KERN_MUL_NEON_H
#define PDD_KERN_KERN_MUL_NEON_H

enum {
    TILE_ROWS = 4,
    CHUNK_BLOCKS = 16, /* 16 x 16 x 32 weights = 8 KiB; a multiple of the 8 blocks of a unit */
    BLOCK_BYTES = 512  /* 32 columns of 16 rows, a byte each */
};

/* A chunk of a strip, laid open. */
struct chunk {
    int8_t w[CHUNK_BLOCKS * BLOCK_BYTES];      /* [blocks][8 groups][16 rows][4 columns] */
    float scale[CHUNK_BLOCKS * 2][KERN_LANES]; /* [blocks][1 or 2] */
    float min[CHUNK_BLOCKS * 2][KERN_LANES];
};

/* Everything that opens a chunk is inlined with a constant type: with shifts and parts read from a
 * table, opening took ten times the instructions that one row's products take. */

/* 16 bytes of bits [shift, shift + bits) of a plane. */
INLINE uint8x16_t plane_bits(const uint8_t *plane, uint32_t group, uint32_t bits)
{
    uint8x16_t v = vld1q_u8(plane + group % bits * 64);
    int8_t shift = (int8_t)(group / bits * bits);
    v = vshlq_u8(v, vdupq_n_s8((int8_t)-shift));
    return vandq_u8(v, vdupq_n_u8((uint8_t)((1u << bits) - 1)));
}

INLINE void open_weights(enum kern_type type, const uint8_t *block, int8_t *out)
{
    const struct kern_form f = kern_forms[type];
    const int8x16_t values = vld1q_s8(kern_values[f.values]);
    UNROLL
    for (uint32_t g = 0; g < 8; g++) {
        for (uint32_t at = 0; at < 64; at += 16, out += 16) {
            uint8x16_t q = plane_bits(block + at, g, f.low);
            if (f.high) {
                uint8x16_t high = plane_bits(block + f.low * 64 + at, g, f.high);
                q = vorrq_u8(q, vshlq_u8(high, vdupq_n_s8((int8_t)f.low)));
            }
            if (f.values)
                vst1q_s8(out, vqtbl1q_s8(values, q));
            else
                vst1q_s8(out, vreinterpretq_s8_u8(vsubq_u8(q, vdupq_n_u8(f.offset))));
        }
    }
}

/* kern_e8m0 of 16 bytes. */
INLINE void open_e8m0(const uint8_t *from, float32x4_t out[4])
{
    const uint32x4_t least = vdupq_n_u32(KERN_E8M0_LEAST);
    const uint16x8_t low = vmovl_u8(vld1_u8(from)), high = vmovl_u8(vld1_u8(from + 8));
    const uint16x4_t e[4] = {vget_low_u16(low), vget_high_u16(low), vget_low_u16(high),
                             vget_high_u16(high)};
    UNROLL
    for (int i = 0; i < 4; i++) {
        uint32x4_t bits = vmaxq_u32(vshlq_n_u32(vmovl_u16(e[i]), 23), least);
        out[i] = vmulq_n_f32(vreinterpretq_f32_u32(bits), 0.5f);
    }
}

/* 16 half floats, or 16 signed bytes, as floats. */
INLINE void open_halves(const uint8_t *from, float32x4_t out[4])
{
    UNROLL
    for (int i = 0; i < 4; i++)
        out[i] = load_half(from + 8 * i);
}

INLINE void open_bytes(uint8x16_t bytes, float32x4_t out[4])
{
    int16x8_t low = vmovl_s8(vreinterpret_s8_u8(vget_low_u8(bytes)));
    int16x8_t high = vmovl_s8(vreinterpret_s8_u8(vget_high_u8(bytes)));
    out[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
    out[1] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(low)));
    out[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
    out[3] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)));
}

/* Scales and mins of a unit's sub-blocks; see the reference's open_scale. */
INLINE void open_scales(enum kern_type type, const uint8_t *unit, const uint8_t *halves,
                        float (*scale)[KERN_LANES], float (*min)[KERN_LANES])
{
    const struct kern_form f = kern_forms[type];
    const uint8_t *subs = unit + kern_subs_at(type), *mins = unit + kern_mins_at(type);
    const uint32_t n = (uint32_t)f.blocks * KERN_BLOCK / f.sub;
    float32x4_t d[4], m[4], by[4], times[4];
    if (f.scale == KERN_E8M0)
        open_e8m0(halves, d);
    else
        open_halves(halves, d);
    if (f.min) open_halves(halves + KERN_LANES * 2, m);
    for (uint32_t s = 0; s < n; s++) {
        uint8x16_t bytes = vdupq_n_u8(0);
        if (f.scale >= KERN_BYTE) bytes = vld1q_u8(subs + s * KERN_LANES);
        open_bytes(f.scale == KERN_NIBBLE ? vandq_u8(bytes, vdupq_n_u8(15)) : bytes, by);
        if (f.min == KERN_NIBBLE) open_bytes(vshrq_n_u8(bytes, 4), times);
        if (f.min == KERN_BYTE) open_bytes(vld1q_u8(mins + s * KERN_LANES), times);
        UNROLL
        for (int i = 0; i < 4; i++) {
            vst1q_f32(scale[s] + 4 * i, f.scale < KERN_BYTE ? d[i] : vmulq_f32(d[i], by[i]));
            if (f.min == KERN_HALF)
                vst1q_f32(min[s] + 4 * i, m[i]);
            else if (f.min)
                vst1q_f32(min[s] + 4 * i, vmulq_f32(m[i], vnegq_f32(times[i])));
        }
    }
}

/* Blocks [block, block + blocks) of a strip: whole units. */
INLINE void open_chunk(const struct kern_mat *m, enum kern_type type, uint32_t strip,
                       uint32_t block, uint32_t blocks, struct chunk *ret_chunk)
{
    const struct kern_form f = kern_forms[type];
    const uint8_t *base = kern_strip(m, strip), *halves = base + kern_halves_at(m);
    const uint32_t subs = KERN_BLOCK / f.sub;
    for (uint32_t b = 0; b < blocks; b += f.blocks) {
        uint32_t u = (block + b) / f.blocks;
        const uint8_t *unit = base + u * kern_unit_bytes(type);
        open_scales(type, unit, halves + u * kern_half_bytes(type),
                    ret_chunk->scale + (size_t)b * subs, ret_chunk->min + (size_t)b * subs);
        for (uint32_t i = 0; i < f.blocks; i++)
            open_weights(type, unit + i * kern_block_bytes(type),
                         ret_chunk->w + (size_t)(b + i) * BLOCK_BYTES);
    }
}

typedef void open_fn(const struct kern_mat *m, uint32_t strip, uint32_t block, uint32_t blocks,
                     struct chunk *ret_chunk);

#define OPEN(name, ...)                                                                            \
    static void open_##name(const struct kern_mat *m, uint32_t strip, uint32_t block,              \
                            uint32_t blocks, struct chunk *ret_chunk)                              \
    {                                                                                              \
        open_chunk(m, KERN_##name, strip, block, blocks, ret_chunk);                               \
    }
KERN_QUANTS(OPEN)
#undef OPEN

#define OPEN(name, ...) [KERN_##name] = open_##name,
static open_fn *const open_fns[KERN_TYPES] = {KERN_QUANTS(OPEN)};
#undef OPEN

/* Rows and columns that the register tiles walk over. */
struct mul_args {
    const struct chunk *c;
    const struct kern_act *x;
    uint32_t row, block, blocks; /* first activation row; first block and blocks of the chunk */
    uint32_t lanes;
    float *out; /* of that row, first lane of the strip */
    size_t stride;
    int resume; /* out holds the sums of earlier chunks */
};

typedef int32x4_t tile_sums[TILE_ROWS][2];
typedef float32x4_t tile_outputs[TILE_ROWS][2];

/* n rows' values of columns [16 * half, 16 * half + 16) of a block (`at`: its place in the rows).
 */
INLINE void load_values(const struct mul_args *t, size_t at, uint32_t half, int n, int8x16_t x[])
{
    const size_t per_row = t->x->cols / KERN_BLOCK;
    UNROLL
    for (int r = 0; r < n; r++)
        x[r] = vld1q_s8(t->x->q + (at + (size_t)r * per_row) * KERN_BLOCK + 16 * half);
}

INLINE void clear_sums(tile_sums sum, int n)
{
    UNROLL
    for (int r = 0; r < n; r++)
        sum[r][0] = sum[r][1] = vdupq_n_s32(0);
}

/* Four groups of 4 columns of a block: a half. The lane's number is part of the instruction. */
INLINE void add_half(tile_sums sum, const int8_t *w, const int8x16_t x[], int n){
#define STEP(g)                                                                                    \
    {                                                                                              \
        int8x16_t first = vld1q_s8(w + (g)*64), second = vld1q_s8(w + (g)*64 + 16);                \
        UNROLL                                                                                     \
        for (int r = 0; r < n; r++) {                                                              \
            sum[r][0] = DOT(sum[r][0], first, x[r], g);                                            \
            sum[r][1] = DOT(sum[r][1], second, x[r], g);                                           \
        }                                                                                          \
    }
    STEP(0) STEP(1) STEP(2) STEP(3)
#undef STEP
}

/* The terms of one scale: acc = fma(isum, dw * dx, acc), and the min's with the sums of values
 * xsum[at], xsum[at + step], ... */
INLINE void add_terms(const struct mul_args *t, tile_outputs acc, tile_sums sum, size_t at,
                      const float *scale, const float *min, const float *xsum, size_t step, int n,
                      int mins)
{
    const size_t per_row = t->x->cols / KERN_BLOCK;
    UNROLL
    for (int r = 0; r < n; r++) {
        float32x4_t dx = vdupq_n_f32(t->x->scale[at + (size_t)r * per_row]);
        UNROLL
        for (int h = 0; h < 2; h++) {
            float32x4_t d = vmulq_f32(vld1q_f32(scale + 4 * h), dx);
            acc[r][h] = vfmaq_f32(acc[r][h], vcvtq_f32_s32(sum[r][h]), d);
            if (!mins) continue;
            float32x4_t by = vdupq_n_f32(xsum[(size_t)r * step]);
            acc[r][h] = vfmaq_f32(acc[r][h], vld1q_f32(min + 4 * h), by);
        }
    }
}

/* Block b of the chunk. */
INLINE void add_block(const struct mul_args *t, tile_outputs acc, uint32_t b, uint32_t lane, int n,
                      int sub, int mins)
{
    const size_t per_row = t->x->cols / KERN_BLOCK, at = t->row * per_row + t->block + b;
    const int8_t *w = t->c->w + (size_t)b * BLOCK_BYTES + lane * 4;
    const uint32_t s = sub == 16 ? 2 * b : b;
    const float *scale = t->c->scale[s] + lane, *min = t->c->min[s] + lane;
    tile_sums sum;
    int8x16_t x[TILE_ROWS];
    clear_sums(sum, n);
    load_values(t, at, 0, n, x);
    add_half(sum, w, x, n);
    if (sub == 16) {
        add_terms(t, acc, sum, at, scale, min, t->x->half_sum + 2 * at, 2 * per_row, n, mins);
        scale += KERN_LANES;
        min += KERN_LANES;
        clear_sums(sum, n);
    }
    load_values(t, at, 1, n, x);
    add_half(sum, w + BLOCK_BYTES / 2, x, n);
    if (sub == 16)
        add_terms(t, acc, sum, at, scale, min, t->x->half_sum + 2 * at + 1, 2 * per_row, n, mins);
    else
        add_terms(t, acc, sum, at, scale, min, t->x->sum + at, per_row, n, mins);
}

/* n rows by 8 outputs from lane `lane` on over one chunk; n, sub and mins are constants after
 * inlining. */
INLINE void tile(const struct mul_args *t, uint32_t lane, int n, int sub, int mins)
{
    const uint32_t left[2] = {t->lanes > lane ? t->lanes - lane : 0,
                              t->lanes > lane + 4 ? t->lanes - lane - 4 : 0};
    tile_outputs acc;
    UNROLL
    for (int r = 0; r < n; r++) {
        const float *from = t->out + (size_t)r * t->stride + lane;
        UNROLL
        for (int h = 0; h < 2; h++)
            acc[r][h] = t->resume ? load_some(from + 4 * h, left[h]) : vdupq_n_f32(0.0f);
    }
    for (uint32_t b = 0; b < t->blocks; b++)
        add_block(t, acc, b, lane, n, sub, mins);
    UNROLL
    for (int r = 0; r < n; r++) {
        UNROLL
        for (int h = 0; h < 2; h++)
            store_some(t->out + (size_t)r * t->stride + lane + 4 * h, acc[r][h], left[h]);
    }
}

INLINE void all_rows(struct mul_args t, uint32_t rows, int sub, int mins)
{
    for (; rows >= TILE_ROWS; rows -= TILE_ROWS) {
        tile(&t, 0, TILE_ROWS, sub, mins);
        tile(&t, 8, TILE_ROWS, sub, mins);
        t.row += TILE_ROWS;
        t.out += t.stride * TILE_ROWS;
    }
    for (; rows > 0; rows--) {
        tile(&t, 0, 1, sub, mins);
        tile(&t, 8, 1, sub, mins);
        t.row++;
        t.out += t.stride;
    }
}

static void rows_32(const struct mul_args *t, uint32_t rows)
{
    all_rows(*t, rows, 32, 0);
}

static void rows_32_min(const struct mul_args *t, uint32_t rows)
{
    all_rows(*t, rows, 32, 1);
}

static void rows_16(const struct mul_args *t, uint32_t rows)
{
    all_rows(*t, rows, 16, 0);
}

static void rows_16_min(const struct mul_args *t, uint32_t rows)
{
    all_rows(*t, rows, 16, 1);
}

static void mul_quant(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                      const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                      size_t stride)
{
    const struct kern_form *f = &kern_forms[m->type];
    const uint32_t blocks = m->cols / KERN_BLOCK;
    void (*all)(const struct mul_args *, uint32_t) = f->sub == 16 ? f->min ? rows_16_min : rows_16
                                                     : f->min     ? rows_32_min
                                                                  : rows_32;
    struct chunk chunk;
    struct mul_args t = {.c = &chunk, .x = x, .row = row, .stride = stride};
    for (uint32_t s = strip; s < strip + strips; s++) {
        t.lanes = kern_lanes_of(m, s);
        t.out = out + (size_t)row * stride + (size_t)s * KERN_LANES;
        for (t.block = 0; t.block < blocks; t.block += CHUNK_BLOCKS) {
            t.blocks = blocks - t.block < CHUNK_BLOCKS ? blocks - t.block : CHUNK_BLOCKS;
            t.resume = t.block > 0;
            open_fns[m->type](m, s, t.block, t.blocks, &chunk);
            all(&t, rows);
        }
    }
}

#endif
