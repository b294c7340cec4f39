/*
 * kern_mul_256: quantised multiplies with 8 outputs a register, for the levels with and without
 * VNNI. A file that includes it has defined how a block of 32 columns is summed:
 *
 *   struct weights                              4 bytes of 8 rows, prepared for all activation rows
 *   weights_load(bytes, four_bit)               from unsigned bytes: w + 128, or a nibble w + 8
 *   sum_begin(minus, four_bit)                  the sum's start
 *   sum_step(sum, weights, x, four_bit)         add 4 products in each lane
 *   sum_end(sum, minus, four_bit)               the exact sum
 *
 * Four activation rows share a load of the weights; a strip has two halves of 8 outputs. Columns go
 * in chunks that stay in the first-level cache; between chunks sums rest in `out` unchanged.
 */
#ifndef PDD_KERN_KERN_MUL_256_H
#define PDD_KERN_KERN_MUL_256_H

enum {
    TILE_ROWS = 4,
    CHUNK_BLOCKS = 48, /* 16 x 48 x 32 weights = 24 KiB */
    AHEAD = 2048       /* bytes that the one-row loop prefetches ahead */
};

struct job {
    const uint8_t *w, *d; /* weights and scales of the chunk */
    const int8_t *q;      /* activations from the chunk's first block and the tile's first row on */
    const float *scale;
    const int32_t *minus;
    uint32_t cols, blocks, chunk; /* of a whole row, and blocks in the chunk */
    float *out;
    size_t stride;
    uint32_t lanes;
    int resume; /* out holds the sums of earlier chunks */
};

/* n rows by `halves` halves from `half` on (constants after inlining) over one chunk. */
INLINE void tile_q(const struct job *t, int n, int half, int halves, int four_bit)
{
    __m256 acc[TILE_ROWS][2];
    __m256i mask[2] = {tail_mask(t->lanes), tail_mask(t->lanes > 8 ? t->lanes - 8 : 0)};
    UNROLL
    for (int r = 0; r < n; r++) {
        UNROLL
        for (int h = half; h < half + halves; h++)
            acc[r][h] = t->resume
                            ? _mm256_maskload_ps(t->out + (size_t)r * t->stride + 8 * h, mask[h])
                            : _mm256_setzero_ps();
    }
    const size_t cols = t->cols, blocks = t->blocks;
    const uint8_t *w = t->w;
    for (size_t b = 0; b < t->chunk; b++, w += four_bit ? 256 : 512) {
        UNROLL
        for (int h = half; h < half + halves; h++) {
            __m256i sum[TILE_ROWS];
            UNROLL
            for (int r = 0; r < n; r++)
                sum[r] = sum_begin(t->minus[(size_t)r * blocks + b], four_bit);
            UNROLL
            for (int j = 0; j < 4; j++) {
                __m256i low = load256(w + j * 64 + h * 32), high;
                if (n == 1) _mm_prefetch((const char *)w + j * 64 + AHEAD, _MM_HINT_T0);
                if (four_bit) {
                    high = _mm256_and_si256(_mm256_srli_epi16(low, 4), _mm256_set1_epi8(15));
                    low = _mm256_and_si256(low, _mm256_set1_epi8(15));
                } else {
                    high = load256(w + j * 64 + 256 + h * 32);
                    if (n == 1) _mm_prefetch((const char *)w + j * 64 + 256 + AHEAD, _MM_HINT_T0);
                }
                struct weights first = weights_load(low, four_bit),
                               second = weights_load(high, four_bit);
                UNROLL
                for (int r = 0; r < n; r++) {
                    const int8_t *x = t->q + (size_t)r * cols + b * KERN_BLOCK + 4 * j;
                    sum[r] = sum_step(sum[r], first, broadcast4(x), four_bit);
                    sum[r] = sum_step(sum[r], second, broadcast4(x + 16), four_bit);
                }
            }
            __m256 dw = load_half(t->d + b * 32 + h * 16);
            UNROLL
            for (int r = 0; r < n; r++) {
                __m256 d = _mm256_mul_ps(dw, _mm256_set1_ps(t->scale[(size_t)r * blocks + b]));
                __m256i s = sum_end(sum[r], t->minus[(size_t)r * blocks + b], four_bit);
                acc[r][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(s), d, acc[r][h]);
            }
        }
    }
    UNROLL
    for (int r = 0; r < n; r++) {
        UNROLL
        for (int h = half; h < half + halves; h++)
            _mm256_maskstore_ps(t->out + (size_t)r * t->stride + 8 * h, mask[h], acc[r][h]);
    }
}

INLINE void rows_q(struct job t, uint32_t rows, int four_bit)
{
    for (; rows >= TILE_ROWS; rows -= TILE_ROWS) {
        tile_q(&t, TILE_ROWS, 0, 1, four_bit);
        tile_q(&t, TILE_ROWS, 1, 1, four_bit);
        t.q += (size_t)t.cols * TILE_ROWS;
        t.scale += (size_t)t.blocks * TILE_ROWS;
        t.minus += (size_t)t.blocks * TILE_ROWS;
        t.out += t.stride * TILE_ROWS;
    }
    if (rows >= 2) {
        tile_q(&t, 2, 0, 2, four_bit);
        t.q += (size_t)t.cols * 2;
        t.scale += (size_t)t.blocks * 2;
        t.minus += (size_t)t.blocks * 2;
        t.out += t.stride * 2;
        rows -= 2;
    }
    if (rows == 1) tile_q(&t, 1, 0, 2, four_bit);
}

INLINE void mul_q(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                  const struct kern_act *x, uint32_t row, uint32_t rows, float *out, size_t stride,
                  int four_bit)
{
    struct job t = {.cols = m->cols, .blocks = m->cols / KERN_BLOCK, .stride = stride};
    const uint32_t step = rows > 1 ? CHUNK_BLOCKS : t.blocks;
    for (uint32_t s = strip; s < strip + strips; s++) {
        const uint8_t *base = kern_strip(m, s);
        t.lanes = kern_lanes_of(m, s);
        t.out = out + (size_t)row * stride + (size_t)s * KERN_LANES;
        for (uint32_t b = 0; b < t.blocks; b += step) {
            t.chunk = t.blocks - b < step ? t.blocks - b : step;
            t.resume = b > 0;
            t.w = base + (size_t)b * (four_bit ? 256 : 512);
            t.d = base + kern_halves_at(m) + (size_t)b * 32;
            t.q = x->q + (size_t)row * m->cols + (size_t)b * KERN_BLOCK;
            t.scale = x->scale + (size_t)row * t.blocks + b;
            t.minus = x->minus + (size_t)row * t.blocks + b;
            rows_q(t, rows, four_bit);
        }
    }
}

#endif
