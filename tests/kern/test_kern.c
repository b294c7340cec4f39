/*
 * test_kern: every kernel of every level against the reference, bit for bit, and the reference
 * against double precision. Catches: a level that rounds, sums or masks differently; a matrix
 * kernel that depends on the number of rows or the split into strips; overflow of 16-bit sums.
 *
 * Plain C with a main of its own, so that it also runs cross-built under qemu, without cmocka.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "support/block_definition.h"

static int passed, failed;

static void expect(int ok, const char *what, const char *level, unsigned a, unsigned b)
{
    if (ok) {
        passed++;
    } else {
        failed++;
        fprintf(stderr, "FAILED: %s (%s, %u, %u)\n", what, level, a, b);
    }
}

static struct rng rng;

static float *random_floats(size_t n, float scale)
{
    float *x = mem_alloc_aligned(64, n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        x[i] = rng_next_normal(&rng) * scale;
        if (rng_below(&rng, 50) == 0) /* the odd huge, tiny or zero value */
            x[i] *= (float[]){0.0f, 1e-38f, 1000.0f, 1e-6f}[rng_below(&rng, 4)];
    }
    return x;
}

static int all_bytes(const void *data, size_t n, uint8_t byte)
{
    for (size_t i = 0; i < n; i++)
        if (((const uint8_t *)data)[i] != byte) return 0;
    return 1;
}

static int quantised(enum kern_type type)
{
    return kern_type_info(type)->quantised;
}

/* A tensor in the file's format: arbitrary bytes, but scales that stay finite. */
static uint8_t *random_raw(enum kern_type type, uint32_t rows, uint32_t cols)
{
    size_t row_bytes = kern_row_bytes(type, cols), block = kern_type_info(type)->block_bytes;
    uint8_t *raw = mem_alloc(row_bytes * rows);
    for (size_t i = 0; i < row_bytes * rows; i++)
        raw[i] = rng_below(&rng, 20) == 0 ? 0x80 : (uint8_t)rng_next(&rng);
    for (size_t i = 0; i + block <= row_bytes * rows; i += block) {
        float d = rng_next_normal(&rng) * 0.01f, min = rng_next_normal(&rng) * 0.01f;
        uint16_t h = kern_f32_to_f16(d), m = kern_f32_to_f16(min);
        uint32_t bits;
        memcpy(&bits, &d, 4);
        if (type == KERN_F32)
            memcpy(raw + i, &d, 4);
        else if (type == KERN_BF16)
            memcpy(raw + i, (uint8_t *)&bits + 2, 2);
        else if (type == KERN_F16)
            memcpy(raw + i, &h, 2);
        else
            defined_put_halves(type, raw + i, h, m);
    }
    return raw;
}

struct rows {
    struct kern_act act;
    void *memory;
};

static void rows_init(struct rows *r, const struct kern *k, uint32_t n, uint32_t cols,
                      const float *x)
{
    r->memory = mem_alloc_aligned(64, kern_act_bytes(n, cols));
    kern_act_init(&r->act, x, n, cols, r->memory);
    if (cols % 32 == 0) k->quantize(&r->act, x, 0, n, 0, cols / 32);
}

static void rows_release(struct rows *r)
{
    mem_free(r->memory);
}

/* Weights of a row in double, and the size of their parts, [cols]. */
static void defined_row(enum kern_type type, const uint8_t *raw, uint32_t cols, double *w,
                        double *size)
{
    const struct kern_type_info *t = kern_type_info(type);
    float *plain = mem_alloc(cols * sizeof *plain);
    if (!t->quantised) kern_dequant_row(type, raw, cols, plain);
    for (uint32_t k = 0; k < cols; k++) {
        struct defined_weight d = {t->quantised ? 0.0 : (double)plain[k], 0.0};
        if (t->quantised)
            d = defined_weight(type, raw + k / t->block * t->block_bytes, k % t->block);
        w[k] = d.product - d.min;
        size[k] = fabs(d.product) + fabs(d.min);
    }
    mem_free(plain);
}

/* Every step of the chain rounds a partial sum, which is at most the sum of the sizes; scales are
 * rounded once. Blocks of 32 have at most four steps, so the error is below (cols / 8 + 2) 2^-24 of
 * that sum (float weights: a step for each column); what is seen is far below. */
static void check_accuracy(enum kern_type type, const uint8_t *raw, const struct kern_act *x,
                           const float *out, uint32_t rows, uint32_t cols, uint32_t n)
{
    double *w = mem_alloc(cols * sizeof *w), *sizes = mem_alloc(cols * sizeof *sizes);
    double worst = 0.0;
    for (uint32_t o = 0; o < rows; o++) {
        defined_row(type, raw + kern_row_bytes(type, cols) * o, cols, w, sizes);
        for (uint32_t r = 0; r < n; r++) {
            double sum = 0.0, size = 1e-30;
            for (uint32_t k = 0; k < cols; k++) {
                double v = quantised(type) ? (double)x->q[r * cols + k] *
                                                 (double)x->scale[r * (cols / 32) + k / 32]
                                           : (double)x->f32[r * cols + k];
                sum += v * w[k];
                size += fabs(v) * sizes[k];
            }
            worst = fmax(worst, fabs(sum - (double)out[r * rows + o]) / size);
        }
    }
    double bound = (quantised(type) ? cols / 8.0 + 2.0 : cols) * 0x1p-24;
    expect(worst < fmin(bound, 2e-6), "product within float rounding of double precision",
           kern_type_info(type)->name, rows, cols);
    mem_free(w);
    mem_free(sizes);
}

/* Catches: a bit of a block read from the wrong place, a sign, a scale of the wrong sub-block. */
static void test_definition(enum kern_type type)
{
    enum { COLS = 512 };
    uint8_t *raw = random_raw(type, 20, COLS);
    float got[COLS];
    int wrong = 0;
    for (uint32_t row = 0; row < 20; row++) {
        const struct kern_type_info *t = kern_type_info(type);
        const uint8_t *at = raw + row * kern_row_bytes(type, COLS);
        kern_dequant_row(type, at, COLS, got);
        for (uint32_t k = 0; k < COLS; k++) {
            struct defined_weight d =
                defined_weight(type, at + k / t->block * t->block_bytes, k % t->block);
            wrong += got[k] != (float)(d.product - d.min);
        }
    }
    expect(wrong == 0, "weights as the format defines them", kern_type_info(type)->name, 0, 0);
    mem_free(raw);
}

/* Into memory with arbitrary content, which must not matter. */
static void pack(struct kern_mat *m, const uint8_t *raw)
{
    m->data = mem_alloc_aligned(64, kern_mat_bytes(m));
    memset(m->data, 0xA5, kern_mat_bytes(m));
    bool finite = true;
    for (uint32_t s = 0; s < m->strips; s++)
        finite = kern_mat_pack_strip(m, raw, s) && finite;
    expect(finite, "finite scales", kern_type_info(m->type)->name, m->rows, m->cols);
}

static void test_mul(enum kern_type type, uint32_t rows, uint32_t cols, uint32_t n)
{
    struct kern_mat m;
    struct err e;
    uint32_t block = kern_type_info(type)->block;
    cols = (cols + block - 1) / block * block;
    expect(kern_mat_init(&m, type, rows, cols, &e) == 0, "matrix sizes", "", rows, cols);
    uint8_t *raw = random_raw(type, rows, cols);
    pack(&m, raw);
    expect((double)m.strip_bytes / 16 <= 1.15 * (double)kern_row_bytes(type, cols) + 8.0,
           "packed rows hardly larger than the file's", kern_type_info(type)->name, cols, 0);
    float *x = random_floats((size_t)n * cols, 1.0f);
    struct rows in;
    rows_init(&in, kern_at(0), n, cols, x);
    size_t bytes = (size_t)n * rows * sizeof(float);
    float *want = mem_alloc(bytes), *got = mem_alloc(bytes);
    kern_at(0)->mul[type](&m, 0, m.strips, &in.act, 0, n, want, rows);
    check_accuracy(type, raw, &in.act, want, rows, cols, n);
    for (uint32_t i = 0; kern_at(i); i++) {
        const struct kern *k = kern_at(i);
        memset(got, 0xFF, bytes);
        k->mul[type](&m, 0, m.strips, &in.act, 0, n, got, rows);
        expect(memcmp(want, got, bytes) == 0, "product, all rows at once", k->name, rows, cols);
        memset(got, 0xFF, bytes);
        for (uint32_t r = 0; r < n; r++)
            for (uint32_t s = 0; s < m.strips; s++)
                k->mul[type](&m, s, 1, &in.act, r, 1, got, rows);
        expect(memcmp(want, got, bytes) == 0, "product, strip by strip and row by row", k->name,
               rows, cols);
        memset(got, 0xFF, bytes);
        for (uint32_t s = 0, c = 1; s < m.strips; s += c, c = c % 3 + 1)
            for (uint32_t r = 0, h = 7; r < n; r += h, h = h * 2 + 3)
                k->mul[type](&m, s, c < m.strips - s ? c : m.strips - s, &in.act, r,
                             h < n - r ? h : n - r, got, rows);
        expect(memcmp(want, got, bytes) == 0, "product, odd pieces", k->name, rows, cols);
        memset(got, 0xFF, bytes);
        k->mul[type](&m, 0, m.strips, &in.act, 0, 0, got, rows);
        k->mul[type](&m, 0, 0, &in.act, 0, n, got, rows);
        expect(all_bytes(got, bytes, 0xFF), "product of nothing writes nothing", k->name, rows,
               cols);
    }
    rows_release(&in);
    mem_free(x);
    mem_free(want);
    mem_free(got);
    mem_free(raw);
    mem_free(m.data);
}

/* Every weight the lowest value, every activation a full block of one sign, scales huge or
 * subnormal. Catches: int16 or int32 saturation, -128 negated in 8 bits, a lost offset. */
static void test_extremes(enum kern_type type)
{
    enum { ROWS = 20, COLS = 256, N = 19 };
    static const uint8_t fills[] = {0x80, 0x7f, 0x81, 0x00, 0xff, 0x88, 0x0f, 0xf0};
    static const uint16_t scales[] = {0x7bff, 0x0001, 0x8001, 0x0000, 0xfbff};
    struct kern_mat m;
    size_t bytes = kern_row_bytes(type, COLS) * ROWS, block = kern_type_info(type)->block_bytes;
    uint8_t *raw = mem_alloc(bytes);
    float *want = mem_alloc(N * ROWS * 4), *got = mem_alloc(N * ROWS * 4);
    float *x = mem_alloc_aligned(64, N * COLS * 4);
    expect(kern_mat_init(&m, type, ROWS, COLS, NULL) == 0, "matrix sizes", "", ROWS, COLS);
    for (unsigned f = 0; f < sizeof fills; f++) {
        for (size_t i = 0; i < bytes; i += block) {
            memset(raw + i, fills[f], block);
            defined_put_halves(type, raw + i, scales[i / block % 5], scales[i / block % 3]);
        }
        pack(&m, raw);
        for (size_t i = 0; i < N * COLS; i++)
            x[i] = (f % 2 ? 1.0f : -1.0f) * (float)(1 + i / 32 % 3) * (i % 7 == 3 ? -1.0f : 1.0f);
        struct rows in;
        rows_init(&in, kern_at(0), N, COLS, x);
        kern_at(0)->mul[type](&m, 0, m.strips, &in.act, 0, N, want, ROWS);
        check_accuracy(type, raw, &in.act, want, ROWS, COLS, N);
        for (uint32_t l = 1; kern_at(l); l++) {
            kern_at(l)->mul[type](&m, 0, m.strips, &in.act, 0, N, got, ROWS);
            expect(memcmp(want, got, N * ROWS * 4) == 0, "extreme product", kern_at(l)->name, f,
                   type);
        }
        rows_release(&in);
        mem_free(m.data);
    }
    mem_free(raw);
    mem_free(want);
    mem_free(got);
    mem_free(x);
}

/* Every scale of MXFP4 with every value, alone and in products that float32 holds. Catches: a
 * scale whose bits are not those of its neighbours (subnormal), 255 taken for a number. */
static void test_e8m0(void)
{
    enum { ROWS = 255, COLS = 32, N = 13, PRODUCTS = 240 };
    uint8_t raw[ROWS * 17];
    int wrong = 0;
    for (uint32_t e = 0; e < ROWS; e++) {
        uint8_t *block = raw + (size_t)e * 17;
        float got[COLS];
        block[0] = (uint8_t)e;
        for (unsigned i = 0; i < 16; i++)
            block[1 + i] = (uint8_t)(i * 17);
        kern_dequant_row(KERN_MXFP4, block, COLS, got);
        for (unsigned k = 0; k < COLS; k++)
            wrong += got[k] != (float)defined_weight(KERN_MXFP4, block, k).product;
    }
    expect(wrong == 0, "all weights of MXFP4", "", (unsigned)wrong, 0);
    struct kern_mat m;
    expect(kern_mat_init(&m, KERN_MXFP4, PRODUCTS, COLS, NULL) == 0, "matrix sizes", "", 0, 0);
    pack(&m, raw);
    float x[N * COLS], want[N * PRODUCTS], got[N * PRODUCTS];
    for (unsigned i = 0; i < N * COLS; i++)
        x[i] = (float)(i % 7) - 2.5f;
    struct rows in;
    rows_init(&in, kern_at(0), N, COLS, x);
    kern_at(0)->mul[KERN_MXFP4](&m, 0, m.strips, &in.act, 0, N, want, PRODUCTS);
    for (uint32_t l = 1; kern_at(l); l++) {
        for (uint32_t n = 1; n <= N; n += N - 1) {
            kern_at(l)->mul[KERN_MXFP4](&m, 0, m.strips, &in.act, 0, n, got, PRODUCTS);
            expect(memcmp(want, got, (size_t)n * PRODUCTS * 4) == 0, "products of all scales",
                   kern_at(l)->name, n, 0);
        }
    }
    rows_release(&in);
    mem_free(m.data);
}

static void test_rows(uint32_t n)
{
    float *x = random_floats(n, 3.0f), *w = random_floats(n, 1.0f);
    float *want = mem_alloc(n * 4 * 4), *got = mem_alloc(n * 4 * 4);
    for (uint32_t i = 1; kern_at(i); i++) {
        const struct kern *k = kern_at(i);
        kern_at(0)->rms_norm(x, w, n, 1e-5f, want);
        k->rms_norm(x, w, n, 1e-5f, got);
        expect(memcmp(want, got, n * 4) == 0, "rms_norm", k->name, n, 0);
        kern_at(0)->silu_mul(x, w, n, want);
        k->silu_mul(x, w, n, got);
        expect(memcmp(want, got, n * 4) == 0, "silu_mul", k->name, n, 0);
        kern_at(0)->gelu_mul(x, w, n, want);
        k->gelu_mul(x, w, n, got);
        expect(memcmp(want, got, n * 4) == 0, "gelu_mul", k->name, n, 0);
        memcpy(want, x, n * 4);
        memcpy(got, x, n * 4);
        kern_at(0)->cap_row(want, n, 1.7f);
        k->cap_row(got, n, 1.7f);
        expect(memcmp(want, got, n * 4) == 0, "cap_row", k->name, n, 0);
        kern_at(0)->add_scaled(want, w, 0.37f, n);
        k->add_scaled(got, w, 0.37f, n);
        expect(memcmp(want, got, n * 4) == 0, "add_scaled", k->name, n, 0);
        memcpy(want, x, n * 4);
        memcpy(got, x, n * 4);
        kern_at(0)->exp_row(want, n);
        k->exp_row(got, n);
        expect(memcmp(want, got, n * 4) == 0, "exp_row", k->name, n, 0);
    }
    mem_free(x);
    mem_free(w);
    mem_free(want);
    mem_free(got);
}

/* Catches: a rotation with fma, with its pairs mixed up, or past the rotated part of a head; a
 * store into the wrong column of a tile; a conversion that rounds otherwise. */
static void test_heads(uint32_t head_dim, uint32_t pairs)
{
    enum { HEADS = 3 };
    uint32_t n = HEADS * head_dim;
    size_t tile_bytes = (size_t)head_dim * KERN_TILE * 2;
    float *x = random_floats(n, 3.0f), *table = random_floats(2 * pairs + 1, 1.0f);
    float *want = mem_alloc(n * 4), *got = mem_alloc(n * 4);
    uint16_t *tile = mem_alloc(tile_bytes), *other = mem_alloc(tile_bytes);
    for (uint32_t i = 1; kern_at(i); i++) {
        const struct kern *k = kern_at(i);
        memcpy(want, x, n * 4);
        memcpy(got, x, n * 4);
        kern_rope_pairs(want, HEADS, head_dim, pairs, table);
        k->rope_pairs(got, HEADS, head_dim, pairs, table);
        expect(memcmp(want, got, n * 4) == 0, "rope_pairs", k->name, head_dim, pairs);
        kern_rope_halves(want, HEADS, head_dim, pairs, table);
        k->rope_halves(got, HEADS, head_dim, pairs, table);
        expect(memcmp(want, got, n * 4) == 0, "rope_halves", k->name, head_dim, pairs);
        kern_add(want, x, n);
        k->add(got, x, n);
        expect(memcmp(want, got, n * 4) == 0, "add", k->name, n, 0);
        for (uint32_t slot = 0; slot < KERN_TILE; slot += 21) {
            memset(tile, 0x55, tile_bytes);
            memset(other, 0x55, tile_bytes);
            kern_put_k(x, head_dim, slot, tile);
            k->put_k(x, head_dim, slot, other);
            expect(memcmp(tile, other, tile_bytes) == 0, "put_k", k->name, head_dim, slot);
            kern_put_v(x, head_dim, slot, tile);
            k->put_v(x, head_dim, slot, other);
            expect(memcmp(tile, other, tile_bytes) == 0, "put_v", k->name, head_dim, slot);
        }
    }
    mem_free(x);
    mem_free(table);
    mem_free(want);
    mem_free(got);
    mem_free(tile);
    mem_free(other);
}

/* Catches: a part of some rows written beside its place, or made other than in the whole. */
static void test_quantize_parts(uint32_t blocks, uint32_t from)
{
    enum { ROWS = 3 };
    const uint32_t cols = blocks * KERN_BLOCK, ends[] = {0, from, blocks};
    const size_t bytes = kern_act_bytes(ROWS, cols);
    float *x = random_floats(ROWS * cols, 3.0f), *part = mem_alloc((size_t)ROWS * cols * 4);
    uint8_t *want = mem_alloc_aligned(64, bytes), *got = mem_alloc_aligned(64, bytes);
    for (uint32_t l = 0; kern_at(l); l++) {
        struct kern_act a;
        memset(want, 0x55, bytes);
        memset(got, 0x55, bytes);
        kern_act_init(&a, x, ROWS, cols, want);
        kern_at(0)->quantize(&a, x, 0, ROWS, 0, blocks);
        kern_act_init(&a, x, ROWS, cols, got);
        for (int i = 0; i < 2; i++) {
            uint32_t n = (ends[i + 1] - ends[i]) * KERN_BLOCK;
            for (uint32_t r = 0; r < ROWS; r++)
                memcpy(part + r * n, x + r * cols + ends[i] * KERN_BLOCK, n * 4);
            kern_at(l)->quantize(&a, part, 0, 1, ends[i], n / KERN_BLOCK);
            kern_at(l)->quantize(&a, part + n, 1, ROWS - 1, ends[i], n / KERN_BLOCK);
        }
        expect(memcmp(want, got, bytes) == 0, "quantize parts", kern_at(l)->name, blocks, from);
    }
    mem_free(x);
    mem_free(part);
    mem_free(want);
    mem_free(got);
}

static void test_quantize(void)
{
    enum { COLS = 64, ROWS = 2 };
    float x[ROWS * COLS];
    for (int round = 0; round < 200; round++) {
        float size = (float[]){1.0f, 1e-40f, 1e30f, 0.0f, 1e-44f}[round % 5];
        for (int i = 0; i < ROWS * COLS; i++)
            x[i] =
                round % 7 == 0 ? (float)(i % 64 - 32) * 0.5f * size : rng_next_normal(&rng) * size;
        struct rows want, got;
        rows_init(&want, kern_at(0), ROWS, COLS, x);
        for (uint32_t i = 1; kern_at(i); i++) {
            rows_init(&got, kern_at(i), ROWS, COLS, x);
            expect(memcmp(want.act.q, got.act.q, ROWS * COLS) == 0 &&
                       memcmp(want.act.scale, got.act.scale, ROWS * 2 * 4) == 0 &&
                       memcmp(want.act.minus, got.act.minus, ROWS * 2 * 4) == 0 &&
                       memcmp(want.act.sum, got.act.sum, ROWS * 2 * 4) == 0 &&
                       memcmp(want.act.half_minus, got.act.half_minus, ROWS * 4 * 4) == 0 &&
                       memcmp(want.act.half_sum, got.act.half_sum, ROWS * 4 * 4) == 0,
                   "quantize", kern_at(i)->name, (unsigned)round, 0);
            rows_release(&got);
        }
        for (int b = 0; b < ROWS * 2; b++) {
            int32_t sums[2] = {0, 0};
            for (int k = 0; k < 32; k++)
                sums[k / 16] += want.act.q[b * 32 + k];
            float d = want.act.scale[b];
            expect(want.act.minus[b] == -128 * (sums[0] + sums[1]) &&
                       want.act.half_minus[2 * b + 1] == -128 * sums[1] &&
                       want.act.sum[b] == (float)(sums[0] + sums[1]) * d &&
                       want.act.half_sum[2 * b] == (float)sums[0] * d,
                   "sums of quantised values", "", (unsigned)round, (unsigned)b);
        }
        rows_release(&want);
    }
}

/* Tiles of int16 hold each value to half a step, in the place that their definition says. */
static void test_tiles_i16(uint32_t head_dim)
{
    size_t n = (size_t)head_dim * KERN_TILE;
    int16_t *kt = mem_calloc(1, kern_tile_bytes(KERN_KV_I16, head_dim)),
            *vt = mem_calloc(1, kern_tile_bytes(KERN_KV_I16, head_dim));
    const float *k_step = (const float *)(const void *)(kt + n),
                *v_step = (const float *)(const void *)(vt + n);
    float *x = random_floats(n, 2.0f);
    int near = 1, within = 1;
    memset(x, 0, head_dim * sizeof *x); /* a row of zeros has no scale */
    for (uint32_t s = 0; s < KERN_TILE; s++) {
        kern_store_k(kern_at(0), KERN_KV_I16, x + (size_t)s * head_dim, head_dim, s, kt);
        kern_store_v(kern_at(0), KERN_KV_I16, x + (size_t)s * head_dim, head_dim, s, vt);
    }
    for (uint32_t s = 0; s < KERN_TILE; s++) {
        for (uint32_t d = 0; d < head_dim; d++) {
            float want = x[(size_t)s * head_dim + d];
            int16_t k = kt[(d / 2 * KERN_TILE + s) * 2 + d % 2],
                    v = vt[(s / 2 * head_dim + d) * 2 + s % 2];
            near &= fabsf((float)k * k_step[s] - want) <= 0.501f * k_step[s];
            near &= fabsf((float)v * v_step[s] - want) <= 0.501f * v_step[s];
            within &= abs(k) <= 5792 && abs(v) <= 5792;
        }
    }
    for (uint32_t l = 0; kern_at(l); l++) {
        int16_t q[KERN_HEAD_MAX], want[KERN_HEAD_MAX];
        int same = 1;
        for (uint32_t s = 0; s < KERN_TILE; s++) {
            const float *row = x + (size_t)s * head_dim;
            float step = kern_at(l)->i16_row(row, head_dim, q);
            same &= step == kern_at(0)->i16_row(row, head_dim, want) && step == k_step[s];
            same &= memcmp(q, want, head_dim * sizeof *q) == 0;
        }
        expect(same, "rows as int16", kern_at(l)->name, head_dim, 0);
    }
    expect(near, "tiles of int16, distance", "", head_dim, 0);
    expect(within, "tiles of int16, limits", "", head_dim, 0);
    mem_free(kt);
    mem_free(vt);
    mem_free(x);
}

/* Tiles of 8 bits hold each value to half a step of its block's scale, and open to exactly what the
 * definition says. */
static void test_tiles_q8(uint32_t head_dim)
{
    size_t bytes = kern_tile_bytes(KERN_KV_Q8, head_dim), n = (size_t)head_dim * KERN_TILE;
    uint8_t *kt = mem_calloc(1, bytes), *vt = mem_calloc(1, bytes);
    float *x = random_floats(n, 2.0f), *keys = mem_alloc(n * 4), *values = mem_alloc(n * 4);
    int same = 1, near = 1;
    memset(x, 0, head_dim * sizeof *x); /* a row of zeros has no scale */
    for (uint32_t s = 0; s < KERN_TILE; s++) {
        kern_put_k_q8(x + (size_t)s * head_dim, head_dim, s, kt);
        kern_put_v_q8(x + (size_t)s * head_dim, head_dim, s, vt);
    }
    kern_open_k_q8(kt, head_dim, keys);
    kern_open_v_q8(vt, head_dim, values);
    for (uint32_t s = 0; s < KERN_TILE; s++) {
        for (uint32_t d = 0; d < head_dim; d++) {
            float value = values[(size_t)s * head_dim + d], want = x[(size_t)s * head_dim + d];
            float scale = kern_tile_scale_q8(vt, head_dim, d / 32, s);
            same &= keys[(size_t)d * KERN_TILE + s] == value;
            same &= value == (float)(int8_t)vt[(size_t)s * head_dim + d] * scale;
            near &=
                fabsf(value - want) <= 0.57f * scale; /* half a step, and the scale's rounding */
        }
    }
    expect(same, "tiles of 8 bits, keys and values", "", head_dim, 0);
    expect(near, "tiles of 8 bits, distance", "", head_dim, 0);
    mem_free(kt);
    mem_free(vt);
    mem_free(x);
    mem_free(keys);
    mem_free(values);
}

static void test_attend(uint32_t head_dim, uint32_t positions, uint32_t queries, uint32_t window,
                        float softcap, enum kern_kv kv)
{
    uint32_t tiles = (positions + 63) / 64;
    const void *k[32], *v[32];
    for (uint32_t t = 0; t < tiles; t++) {
        size_t bytes = kern_tile_bytes(kv, head_dim);
        void *kt = mem_alloc(bytes), *vt = mem_alloc(bytes);
        memset(kt, 0xFF, bytes); /* slots never written hold NaN */
        memset(vt, 0xFF, bytes);
        for (uint32_t s = 0; s < 64 && t * 64 + s < positions; s++) {
            float *row = random_floats(head_dim, 1.0f);
            kern_store_k(kern_at(0), kv, row, head_dim, s, kt);
            kern_store_v(kern_at(0), kv, row, head_dim, s, vt);
            mem_free(row);
        }
        k[t] = kt;
        v[t] = vt;
    }
    float *q = random_floats((size_t)queries * head_dim, 0.5f);
    float *want = mem_alloc((size_t)queries * head_dim * 4),
          *got = mem_alloc((size_t)queries * head_dim * 4);
    const float *qs[KERN_QUERIES_MAX];
    float *outs[KERN_QUERIES_MAX];
    uint32_t first[KERN_QUERIES_MAX], n[KERN_QUERIES_MAX];
    struct kern_attend a = {queries, head_dim, softcap, qs, outs, first, n, k, v, kv};
    for (uint32_t i = 0; i < queries; i++) {
        qs[i] = q + (size_t)i * head_dim;
        n[i] = positions - rng_below(&rng, queries < positions ? queries : positions);
        first[i] = window && n[i] > window ? n[i] - window : 0;
        outs[i] = want + (size_t)i * head_dim;
    }
    uint32_t lowest = UINT32_MAX; /* tiles that no query sees may not exist */
    for (uint32_t i = 0; i < queries; i++)
        lowest = first[i] / 64 < lowest ? first[i] / 64 : lowest;
    const void *hidden_k[32], *hidden_v[32];
    for (uint32_t t = 0; t < lowest; t++) {
        hidden_k[t] = k[t];
        hidden_v[t] = v[t];
        k[t] = v[t] = NULL;
    }
    kern_at(0)->attend(&a);
    for (uint32_t l = 0; kern_at(l); l++) {
        for (uint32_t i = 0; i < queries; i++)
            outs[i] = got + (size_t)i * head_dim;
        kern_at(l)->attend(&a);
        expect(memcmp(want, got, (size_t)queries * head_dim * 4) == 0, "attention",
               kern_at(l)->name, head_dim, positions);
        memset(got, 0, (size_t)queries * head_dim * 4);
        for (uint32_t i = 0; i < queries; i++) {
            struct kern_attend one = {1,         head_dim, softcap, qs + i, outs + i,
                                      first + i, n + i,    k,       v,      kv};
            kern_at(l)->attend(&one);
        }
        expect(memcmp(want, got, (size_t)queries * head_dim * 4) == 0, "attention, one by one",
               kern_at(l)->name, head_dim, positions);
    }
    for (uint32_t t = 0; t < lowest; t++) {
        k[t] = hidden_k[t];
        v[t] = hidden_v[t];
    }
    for (uint32_t t = 0; t < tiles; t++) {
        mem_free((void *)(uintptr_t)k[t]);
        mem_free((void *)(uintptr_t)v[t]);
    }
    mem_free(q);
    mem_free(want);
    mem_free(got);
}

static float *normal_floats(size_t n, float scale)
{
    float *x = mem_alloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = rng_next_normal(&rng) * scale;
    return x;
}

/* Few and many positions and queries, windows, and soft caps. */
static void test_attends(uint32_t head_dim, enum kern_kv kv)
{
    test_attend(head_dim, 1, 1, 0, 0.0f, kv);
    test_attend(head_dim, 64, 4, 0, 0.0f, kv);
    test_attend(head_dim, 200, 9, 0, 0.0f, kv);
    test_attend(head_dim, 330, 13, 100, 0.0f, kv);
    test_attend(head_dim, 700, 24, 64, 0.0f, kv);
    test_attend(head_dim, 130, 40, 3, 0.0f, kv);
    test_attend(head_dim, 330, KERN_QUERIES_MAX, 0, 0.5f, kv);
    test_attend(head_dim, 200, 7, 90, 50.0f, kv);
}

/* One query over `positions` of random keys and values, kept as `kv`. */
static void attend_random(enum kern_kv kv, uint32_t head_dim, uint32_t positions, const float *rows,
                          const float *q, float *out)
{
    const uint32_t tiles = (positions + KERN_TILE - 1) / KERN_TILE, first = 0;
    const size_t bytes = kern_tile_bytes(kv, head_dim);
    uint8_t *pages = mem_calloc(tiles * 2, bytes);
    const void *k[8], *v[8];
    for (uint32_t p = 0; p < positions; p++, rows += 2 * head_dim) {
        uint8_t *tile = pages + p / KERN_TILE * 2 * bytes;
        kern_store_k(kern_at(0), kv, rows, head_dim, p % KERN_TILE, tile);
        kern_store_v(kern_at(0), kv, rows + head_dim, head_dim, p % KERN_TILE, tile + bytes);
        k[p / KERN_TILE] = tile;
        v[p / KERN_TILE] = tile + bytes;
    }
    const struct kern_attend a = {1, head_dim, 0.0f, &q, &out, &first, &positions, k, v, kv};
    kern_at(0)->attend(&a);
    mem_free(pages);
}

/* The same in double, from the rows themselves. */
static void attend_double(uint32_t head_dim, uint32_t positions, const float *rows, const float *q,
                          double *out)
{
    double total = 0.0;
    memset(out, 0, head_dim * sizeof *out);
    for (uint32_t p = 0; p < positions; p++, rows += 2 * head_dim) {
        double score = 0.0;
        for (uint32_t d = 0; d < head_dim; d++)
            score += (double)q[d] * (double)rows[d];
        double weight = exp(score);
        total += weight;
        for (uint32_t d = 0; d < head_dim; d++)
            out[d] += weight * (double)rows[head_dim + d];
    }
    for (uint32_t d = 0; d < head_dim; d++)
        out[d] /= total;
}

/* Attention in int16 is about as near to the true one as that in float16; keys have an outlier, one
 * value is small where its weight is large. */
static void test_near(uint32_t head_dim)
{
    enum { POSITIONS = 300 };
    double off[3] = {0}, *want = mem_alloc(head_dim * sizeof *want);
    float *out = mem_alloc(head_dim * sizeof *out);
    for (int round = 0; round < 8; round++) {
        float *rows = normal_floats((size_t)POSITIONS * 2 * head_dim, 1.0f);
        float *q = normal_floats(head_dim, 2.0f / sqrtf((float)head_dim));
        for (uint32_t p = 0; p < POSITIONS; p++)
            rows[(size_t)p * 2 * head_dim + 1] *= 8.0f;
        for (uint32_t d = 0; d < head_dim; d++) {
            rows[d] = q[d] * 2.0f;
            rows[head_dim + d] *= 0.01f;
        }
        attend_double(head_dim, POSITIONS, rows, q, want);
        static const enum kern_kv kinds[] = {KERN_KV_F16, KERN_KV_I16};
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            attend_random(kinds[k], head_dim, POSITIONS, rows, q, out);
            for (uint32_t d = 0; d < head_dim; d++)
                off[kinds[k]] += ((double)out[d] - want[d]) * ((double)out[d] - want[d]);
        }
        mem_free(rows);
        mem_free(q);
    }
    printf("heads of %u: float16 off by %.2e, int16 by %.2e\n", head_dim,
           sqrt(off[KERN_KV_F16] / head_dim / 8), sqrt(off[KERN_KV_I16] / head_dim / 8));
    expect(off[KERN_KV_I16] <= 9.0 * off[KERN_KV_F16], "int16 as near as float16", "", head_dim, 0);
    mem_free(want);
    mem_free(out);
}

/* The largest sums that there can be: nothing passes an int32, and equal values come back. */
static void test_equal_rows(uint32_t head_dim)
{
    enum { POSITIONS = 128 };
    float *rows = mem_alloc((size_t)POSITIONS * 2 * head_dim * sizeof *rows);
    float *q = mem_alloc(head_dim * sizeof *q), *out = mem_alloc(head_dim * sizeof *out);
    int near = 1;
    for (size_t i = 0; i < (size_t)POSITIONS * 2 * head_dim; i++)
        rows[i] = -3.0f;
    for (uint32_t d = 0; d < head_dim; d++)
        q[d] = 1.5f;
    attend_random(KERN_KV_I16, head_dim, POSITIONS, rows, q, out);
    for (uint32_t d = 0; d < head_dim; d++)
        near &= fabsf(out[d] + 3.0f) < 1e-5f;
    expect(near, "attention over equal rows", "", head_dim, 0);
    mem_free(rows);
    mem_free(q);
    mem_free(out);
}

static void test_math(void)
{
    double worst = 0.0;
    for (int i = 0; i < 100000; i++) {
        double x = (double)rng_next_uniform(&rng) * 131072.0, s, c;
        kern_sincos(x, &s, &c);
        worst = fmax(worst, fmax(fabs(s - sin(x)), fabs(c - cos(x))));
        double y = (double)rng_next_uniform(&rng) * 100.0 - 50.0;
        worst = fmax(worst, fabs(kern_exp(y) / exp(y) - 1.0));
        double z = (double)rng_next_uniform(&rng) * 1e6 + 1e-9;
        worst = fmax(worst, fabs(kern_log(z) - log(z)) / fmax(1.0, fabs(log(z))));
    }
    expect(worst < 1e-15, "sin, cos, exp, log near libm", "", 0, 0);
    float x = -80.0f, bad = 0.0f;
    for (; x < 80.0f; x += 0.37f) {
        float y = x;
        kern_at(0)->exp_row(&y, 1);
        bad = fmaxf(bad, fabsf(y / expf(x) - 1.0f));
    }
    expect(bad < 3e-7f, "float exp near libm", "", 0, 0);
    bad = 0.0f;
    for (x = -120.0f; x < 120.0f; x += 0.0317f) {
        double wide = (double)x,
               y = sqrt(2.0 / 3.14159265358979) * (wide + 0.044715 * wide * wide * wide);
        float one = 1.0f, gelu, capped = x;
        kern_at(0)->gelu_mul(&x, &one, 1, &gelu);
        kern_at(0)->cap_row(&capped, 1, 30.0f);
        double want = 0.5 * wide * (1.0 + tanh(y)), cap = 30.0 * tanh(wide / 30.0);
        bad = fmaxf(bad, (float)(fabs((double)gelu - want) / fmax(1.0, fabs(want))));
        bad = fmaxf(bad, (float)fabs((double)capped - cap) / 30.0f);
    }
    expect(bad < 4e-7f, "GELU and soft cap near libm", "", 0, 0);
    int wrong = 0;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = kern_f16_to_f32((uint16_t)h);
        wrong += !isnan(f) && kern_f32_to_f16(f) != h;
    }
    expect(wrong == 0, "every half float survives the round trip", "", 0, 0);
    expect(kern_f32_to_f16(65519.9f) == 0x7BFF && kern_f32_to_f16(65520.0f) == 0x7C00 &&
               kern_f32_to_f16(0x1.002p0f) == 0x3C00 && kern_f32_to_f16(0x1.006p0f) == 0x3C02 &&
               kern_f32_to_f16(0x1p-25f) == 0 && kern_f32_to_f16(0x1.8p-25f) == 1,
           "half floats round to nearest even", "", 0, 0);
}

/* NaN and infinity in weights, scales and activations: bits may differ, but nothing may trap, loop
 * or read elsewhere (the sanitizers watch). */
static void test_not_finite(enum kern_type type)
{
    enum { ROWS = 17, COLS = 256, N = 18 };
    static const float odd[] = {1.0f, INFINITY, -INFINITY, NAN, 3.0e38f, -1e-44f};
    struct kern_mat m;
    size_t bytes = kern_row_bytes(type, COLS) * ROWS;
    uint8_t *raw = mem_alloc(bytes);
    float *x = mem_alloc_aligned(64, N * COLS * 4), *out = mem_calloc(N, ROWS * 4);
    expect(kern_mat_init(&m, type, ROWS, COLS, NULL) == 0, "matrix sizes", "", ROWS, COLS);
    m.data = mem_alloc_aligned(64, kern_mat_bytes(&m));
    memset(raw, 0xFF, bytes);
    for (uint32_t s = 0; s < m.strips; s++)
        expect(kern_mat_pack_strip(&m, raw, s) == !quantised(type), "scales that are no numbers",
               kern_type_info(type)->name, s, 0);
    for (uint32_t l = 0; kern_at(l); l++) {
        struct rows in;
        for (size_t i = 0; i < N * COLS; i++)
            x[i] = odd[(i / 5 + i / 64) % 6];
        rows_init(&in, kern_at(l), N, COLS, x);
        kern_at(l)->mul[type](&m, 0, m.strips, &in.act, 0, N, out, ROWS);
        kern_at(l)->silu_mul(x, x, N * COLS, x);
        kern_at(l)->rms_norm(x, x, COLS, 1e-5f, x);
        kern_at(l)->exp_row(x, N * COLS);
        expect(kern_argmax(out, N * ROWS) < N * ROWS, "not finite", kern_at(l)->name, type, 0);
        rows_release(&in);
    }
    mem_free(raw);
    mem_free(x);
    mem_free(out);
    mem_free(m.data);
}

static void test_choice(void)
{
    const struct kern *k = NULL;
    struct err e = ERR_INIT;
    uint32_t levels = 0;
    for (; kern_at(levels); levels++) {
        expect(kern_select(kern_at(levels)->name, &k, &e) == 0 && k == kern_at(levels),
               "a level by its name", kern_at(levels)->name, 0, 0);
        for (int t = 0; t < KERN_TYPES; t++)
            expect(k->mul[t] != NULL, "a multiply for every type", k->name, (unsigned)t, 0);
    }
    expect(kern_select(NULL, &k, &e) == 0 && k == kern_at(levels - 1), "the best level", "", 0, 0);
    expect(strcmp(kern_at(0)->name, "scalar") == 0, "the reference comes first", "", 0, 0);
    k = NULL;
    expect(kern_select("sse9", &k, &e) == ERR_NOT_FOUND && k == NULL && strstr(e.text, "sse9"),
           "an unknown level is named", "", 0, 0);
    float x[] = {1.0f, 3.0f, -2.0f, 3.0f, 2.0f};
    expect(kern_argmax(x, 5) == 1 && kern_argmax(x, 1) == 0, "lowest index on a tie", "", 0, 0);
    struct kern_mat m;
    expect(kern_mat_init(&m, KERN_Q8_0, 4, 33, &e) < 0 &&
               kern_mat_init(&m, KERN_F32, 0, 8, &e) < 0 &&
               kern_mat_init(&m, KERN_F32, 8, KERN_COLS_MAX + 1, &e) < 0,
           "shapes that do not suit the type", "", 0, 0);
}

int main(void)
{
    rng_init(&rng, 7, 0);
    test_choice();
    test_math();
    test_quantize();
    test_e8m0();
    static const uint32_t sizes[] = {1, 7, 8, 16, 17, 31, 33, 64, 256, 577};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        test_rows(sizes[i]);
    /* About as many sums as a strip in order may have, fewer and more. */
    static const uint32_t few[][3] = {{19, 1536, 2}, {33, 1536, 2}, {17, 1568, 2}, {17, 5376, 2},
                                      {16, 5120, 1}, {16, 5152, 1}, {33, 1536, 4}, {17, 1568, 4},
                                      {16, 5120, 4}, {16, 5152, 4}};
    for (int t = 0; t < KERN_TYPES; t++) {
        test_mul((enum kern_type)t, 16, 32, 1);
        test_mul((enum kern_type)t, 5, 64, 3);
        test_mul((enum kern_type)t, 33, 96, 4);
        test_mul((enum kern_type)t, 48, 256, 29);
        test_not_finite((enum kern_type)t);
        test_mul((enum kern_type)t, 37, 1600, 35); /* more columns than a chunk of any level */
        if (quantised((enum kern_type)t)) {
            test_definition((enum kern_type)t);
            for (size_t i = 0; i < sizeof few / sizeof *few; i++)
                test_mul((enum kern_type)t, few[i][0], few[i][1], few[i][2]);
            test_extremes((enum kern_type)t);
        } else {
            test_mul((enum kern_type)t, 19, 45, 9);
        }
    }
    static const uint32_t rotated[][2] = {{2, 1},   {8, 4},   {10, 5},  {20, 6},   {32, 16},
                                          {64, 32}, {80, 16}, {96, 48}, {128, 64}, {256, 128}};
    for (size_t i = 0; i < sizeof rotated / sizeof *rotated; i++)
        test_heads(rotated[i][0], rotated[i][1]);
    static const uint32_t heads[] = {2, 8, 10, 32, 48, 64, 80, 128, 256};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        test_attends(heads[i], KERN_KV_F16);
        if (heads[i] % KERN_LANES != 0) continue;
        test_tiles_i16(heads[i]);
        test_near(heads[i]);
        test_equal_rows(heads[i]);
        test_attends(heads[i], KERN_KV_I16);
        if (heads[i] % KERN_BLOCK != 0) continue;
        test_tiles_q8(heads[i]);
        test_attend(heads[i], 64, 4, 0, 0.0f, KERN_KV_Q8);
        test_attend(heads[i], 330, 13, 100, 0.0f, KERN_KV_Q8);
        test_attend(heads[i], 130, 40, 0, 30.0f, KERN_KV_Q8);
    }
    for (uint32_t blocks = 1; blocks < 12; blocks++)
        test_quantize_parts(blocks, blocks / 3);
    printf("kernels: %d checks passed, %d failed\n", passed, failed);
    return failed != 0;
}
