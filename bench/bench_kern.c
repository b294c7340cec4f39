/*
 * bench_kern: how fast the kernels are, as fractions of what this machine can do at all.
 *
 *   bench_kern [level [seconds [type]]]      all levels of this CPU when none is named;
 *                                            type "rows": attention and rows alone
 *
 * Per level: first the roofs, measured (kern_peak.h), then the multiplies at the shapes of a 135 M
 * llama model (prefill of 512 rows, batches of 16, 8, 4 and 1), the attention of a prefill chunk,
 * and the row kernels. The fastest of many repetitions counts, because other programs only ever
 * make a run slower.
 *
 * One thread. It is no test: it checks nothing and never fails on a slow machine.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "kern/kern_peak.h"

enum { PREFILL = 512, STREAM_BYTES = 512 << 20, REPEATS_MIN = 3 };

static double seconds_each = 0.2;

typedef void work_fn(void *arg);

/* Seconds of the fastest call. */
static double best_of(work_fn *fn, void *arg)
{
    double best = 1e9;
    uint64_t start = clock_us();
    for (int i = 0; i < REPEATS_MIN || (double)(clock_us() - start) < seconds_each * 1e6; i++) {
        uint64_t t0 = clock_us();
        fn(arg);
        double t = (double)(clock_us() - t0) * 1e-6;
        best = t < best ? t : best;
    }
    return best > 1e-7 ? best : 1e-7;
}

/* ---- multiplies ------------------------------------------------------------------------------ */

struct mul_case {
    const struct kern *k;
    struct kern_mat *mats; /* copies enough to leave the caches when few rows share them */
    uint32_t copies, next, rows;
    struct kern_act act;
    float *out;
};

static void run_mul(void *arg)
{
    struct mul_case *c = arg;
    for (uint32_t i = 0; i < c->copies; i++) {
        const struct kern_mat *m = &c->mats[i];
        c->k->mul[m->type](m, 0, m->strips, &c->act, 0, c->rows, c->out, m->rows);
    }
}

static void run_quantize(void *arg)
{
    struct mul_case *c = arg;
    c->k->quantize(&c->act, c->act.f32, 0, c->rows, 0, c->act.cols / KERN_BLOCK);
}

static void fill(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((i * 2654435761u >> 7) % 2001) * 0.001f - 1.0f;
}

static void fill_packed(struct kern_mat *m)
{
    struct rng r;
    size_t row = kern_row_bytes(m->type, m->cols), n = row * m->rows;
    uint8_t *raw = mem_alloc(n);
    rng_init(&r, 1, 0);
    for (size_t i = 0; i < n; i++) /* no byte that makes a half float or a float infinite */
        raw[i] = (uint8_t)rng_next(&r) & 0xBB;
    for (uint32_t s = 0; s < m->strips; s++)
        kern_mat_pack_strip(m, raw, s);
    mem_free(raw);
}

static void bench_mul(const struct kern *k, enum kern_type type, uint32_t rows, uint32_t cols,
                      uint32_t batch, double gops_peak, double gbs_peak)
{
    struct mul_case c = {.k = k, .rows = batch, .copies = 1};
    struct kern_mat m;
    if (kern_mat_init(&m, type, rows, cols, NULL) < 0) return;
    size_t bytes = kern_mat_bytes(&m);
    if (batch < PREFILL) c.copies = (uint32_t)(STREAM_BYTES / 2 / bytes);
    if (c.copies < 1) c.copies = 1;
    if (k == kern_at(0)) c.copies = 1;
    c.mats = mem_calloc(c.copies, sizeof *c.mats);
    uint8_t *memory = mem_alloc_huge(bytes * c.copies);
    for (uint32_t i = 0; i < c.copies; i++) {
        c.mats[i] = m;
        c.mats[i].data = memory + bytes * i;
        if (i == 0)
            fill_packed(&c.mats[0]);
        else
            memcpy(c.mats[i].data, memory, bytes);
    }
    float *x = mem_alloc_aligned(64, (size_t)batch * cols * 4);
    fill(x, (size_t)batch * cols);
    void *quants = mem_alloc_aligned(64, kern_act_bytes(batch, cols));
    kern_act_init(&c.act, x, batch, cols, quants);
    c.out = mem_alloc_aligned(64, (size_t)batch * rows * 4);
    run_quantize(&c);
    double t = best_of(run_mul, &c) / c.copies;
    double gops = 2.0 * rows * cols * batch / t * 1e-9, gbs = (double)bytes / t * 1e-9;
    printf("  %-6s %6u x %-5u rows %-4u %9.1f GOPS %5.1f %%   %7.2f GB/s %5.1f %%\n",
           kern_type_info(type)->name, rows, cols, batch, gops,
           gops_peak > 0 ? gops / gops_peak * 100 : 0.0, gbs, gbs / gbs_peak * 100);
    fflush(stdout);
    mem_free(x);
    mem_free(quants);
    mem_free(c.out);
    mem_free(c.mats);
    mem_free(memory);
}

/* ---- attention ------------------------------------------------------------------------------- */

enum { HEAD = 64, GROUP = 3, CONTEXT = 2048 };

struct attend_case {
    const struct kern *k;
    struct kern_attend a;
};

static void run_attend(void *arg)
{
    struct attend_case *c = arg;
    c->k->attend(&c->a);
}

/* Queries that end at position CONTEXT - 1, as the last ones of a long prompt. */
static void bench_attend(const struct kern *k, uint32_t rows, enum kern_kv kv)
{
    static float q[KERN_QUERIES_MAX * HEAD], out[KERN_QUERIES_MAX * HEAD], row[HEAD];
    const float *qs[KERN_QUERIES_MAX];
    float *outs[KERN_QUERIES_MAX];
    uint32_t first[KERN_QUERIES_MAX], n[KERN_QUERIES_MAX], queries = rows * GROUP;
    const void *kt[CONTEXT / KERN_TILE], *vt[CONTEXT / KERN_TILE];
    size_t tile = kern_tile_bytes(kv, HEAD);
    uint8_t *pages = mem_alloc_aligned(64, CONTEXT / KERN_TILE * 2 * tile);
    fill(row, HEAD);
    fill(q, KERN_QUERIES_MAX * HEAD);
    for (uint32_t p = 0; p < CONTEXT; p++) {
        uint8_t *page = pages + p / KERN_TILE * 2 * tile;
        kt[p / KERN_TILE] = page;
        vt[p / KERN_TILE] = page + tile;
        kern_store_k(k, kv, row, HEAD, p % KERN_TILE, page);
        kern_store_v(k, kv, row, HEAD, p % KERN_TILE, page + tile);
    }
    for (uint32_t i = 0; i < queries; i++) {
        qs[i] = q + i * HEAD;
        outs[i] = out + i * HEAD;
        first[i] = 0;
        n[i] = CONTEXT - rows + 1 + i / GROUP;
    }
    struct attend_case c = {k, {queries, HEAD, 0.0f, qs, outs, first, n, kt, vt, kv}};
    double t = best_of(run_attend, &c);
    printf("  attend, %s, %2u rows x %d heads of %d, %d keys: %7.1f us, %6.1f GOPS\n",
           kv == KERN_KV_I16 ? "int16" : "float16", rows, GROUP, HEAD, CONTEXT, t * 1e6,
           4.0 * queries * HEAD * CONTEXT / t * 1e-9);
    mem_free(pages);
}

/* ---- rows ------------------------------------------------------------------------------------ */

enum { ROW = 1536, ROW_REPEATS = 2000 };

struct row_case {
    const struct kern *k;
    int what;
    float *x, *y, *out;
    struct kern_act act;
};

static void run_row(void *arg)
{
    struct row_case *c = arg;
    for (int i = 0; i < ROW_REPEATS; i++) {
        if (c->what == 0) c->k->quantize(&c->act, c->x, 0, 1, 0, ROW / KERN_BLOCK);
        if (c->what == 1) c->k->rms_norm(c->x, c->y, ROW, 1e-5f, c->out);
        if (c->what == 2) c->k->silu_mul(c->x, c->y, ROW, c->out);
    }
}

static void bench_rows(const struct kern *k)
{
    static const char *const names[] = {"quantize", "rms_norm", "silu_mul"};
    struct row_case c = {.k = k,
                         .x = mem_alloc_aligned(64, ROW * 4),
                         .y = mem_alloc_aligned(64, ROW * 4),
                         .out = mem_alloc_aligned(64, ROW * 4)};
    void *quants = mem_alloc_aligned(64, kern_act_bytes(1, ROW));
    kern_act_init(&c.act, c.x, 1, ROW, quants);
    fill(c.x, ROW);
    fill(c.y, ROW);
    for (c.what = 0; c.what < 3; c.what++)
        printf("  %-8s %d values: %7.3f us\n", names[c.what], ROW,
               best_of(run_row, &c) / ROW_REPEATS * 1e6);
    mem_free(c.x);
    mem_free(c.y);
    mem_free(c.out);
    mem_free(quants);
}

static void bench_type(const struct kern *k, enum kern_type type, double gops, double gbs)
{
    static const uint32_t shapes[][2] = {
        {576, 576}, {1536, 576}, {576, 1536}, {49152, 576}, {16384, 2048}};
    static const uint32_t batches[] = {PREFILL, 16, 8, 4, 1};
    int slow = k == kern_at(0);
    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            if ((!slow || (s == 2 && batches[b] < 8)) && (s < 3) == (batches[b] == PREFILL))
                bench_mul(k, type, shapes[s][0], shapes[s][1], batches[b], gops, gbs);
}

static void bench_level(const struct kern *k, const char *type, double gops, double gbs)
{
    printf("%s\n", k->name);
    for (int t = 0; t < KERN_TYPES; t++)
        if (!type || strcmp(type, kern_type_info((enum kern_type)t)->name) == 0)
            bench_type(k, (enum kern_type)t, gops, gbs);
    if (type && strcmp(type, "rows") != 0) return;
    bench_attend(k, 40, KERN_KV_F16);
    bench_attend(k, 1, KERN_KV_F16);
    bench_attend(k, 40, KERN_KV_I16);
    bench_attend(k, 1, KERN_KV_I16);
    bench_rows(k);
}

int main(int argc, char **argv)
{
    struct pool *pool;
    struct kern_peak_memory memory;
    if (argc > 2) seconds_each = strtod(argv[2], NULL);
    if (pool_new(1, &pool, NULL) < 0 ||
        kern_peak_memory_open(&memory, STREAM_BYTES, pool, NULL) < 0)
        return 1;
    double gbs = kern_peak_read_gbs(&memory, pool, REPEATS_MIN);
    kern_peak_memory_close(&memory);
    for (uint32_t i = 0; kern_at(i); i++) {
        const struct kern *k = kern_at(i);
        if (argc > 1 && strcmp(argv[1], "all") != 0 && strcmp(argv[1], k->name) != 0) continue;
        double gops = kern_peak_gops(k, pool, (uint32_t)(seconds_each * 1e3));
        printf("roofs of %s, one thread: %.0f GOPS int8, %.2f GB/s read\n", k->name, gops, gbs);
        bench_level(k, argc > 3 ? argv[3] : NULL, gops, gbs);
    }
    pool_free(pool);
    return 0;
}
