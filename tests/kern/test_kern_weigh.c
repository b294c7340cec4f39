/*
 * test_kern_weigh: the softmax weights of queries (kern_weigh), every level against the reference,
 * bit for bit, and the reference against double.
 *
 * Catches: weights that depend on which queries share a call, on what a tile holds past the
 * positions, or on the level; a record written past its end.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "kern/kern.h"

static struct rng rng;
static int passed, failed;

static void expect(int ok, const char *what, const char *level, uint32_t head_dim,
                   uint32_t positions)
{
    passed += ok != 0;
    failed += ok == 0;
    if (!ok) printf("FAILED: %s (%s, %u, %u)\n", what, level, head_dim, positions);
}

static float *normal_floats(size_t n, float scale)
{
    float *x = mem_alloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = rng_next_normal(&rng) * scale;
    return x;
}

/* Every level against the reference, in one call
 * and query by query, into a record that is shorter than what is seen; and against double. What
 * tiles hold past the positions is NaN. */
static void test_weigh(uint32_t head_dim, uint32_t positions, uint32_t queries, float softcap,
                       enum kern_kv kv)
{
    const uint32_t tiles = (positions + KERN_TILE - 1) / KERN_TILE, best_tiles = tiles / 2 + 1;
    const size_t bytes = kern_tile_bytes(kv, head_dim), n_best = (size_t)best_tiles * KERN_TILE;
    uint8_t *pages = mem_alloc(tiles * bytes);
    float *keys = normal_floats((size_t)positions * head_dim, 1.0f);
    float *q = normal_floats((size_t)queries * head_dim, 2.0f / sqrtf((float)head_dim));
    float *rows = mem_calloc((size_t)KERN_WEIGH_ROWS * tiles * KERN_TILE, sizeof *rows);
    float *want = mem_calloc(n_best, sizeof *want), *got = mem_calloc(n_best, sizeof *got);
    const float *qs[KERN_QUERIES_MAX];
    float factor[KERN_QUERIES_MAX];
    uint32_t n[KERN_QUERIES_MAX];
    const void *k[64];
    memset(pages, 0xFF, tiles * bytes);
    for (uint32_t t = 0; t < tiles; t++)
        k[t] = pages + t * bytes;
    for (uint32_t p = 0; p < positions; p++)
        kern_store_k(kern_at(0), kv, keys + (size_t)p * head_dim, head_dim, p % KERN_TILE,
                     pages + p / KERN_TILE * bytes);
    for (uint32_t i = 0; i < queries; i++) {
        qs[i] = q + (size_t)i * head_dim;
        n[i] = positions > queries ? positions - queries + i + 1 : positions;
        factor[i] = (float)(i + 1) / (float)queries;
    }
    struct kern_weigh g = {queries, head_dim,  softcap, qs,   n,
                           factor,  k,         kv,      rows, (size_t)tiles * KERN_TILE,
                           want,    best_tiles};
    kern_at(0)->weigh(&g);
    for (uint32_t l = 0; kern_at(l); l++) {
        memset(got, 0, n_best * sizeof *got);
        g.best = got;
        kern_at(l)->weigh(&g);
        expect(memcmp(want, got, n_best * sizeof *got) == 0, "weights", kern_at(l)->name, head_dim,
               positions);
        memset(got, 0, n_best * sizeof *got);
        for (uint32_t i = queries; i-- > 0;) {
            struct kern_weigh one = g;
            one.queries = 1;
            one.q = qs + i;
            one.n = n + i;
            one.factor = factor + i;
            kern_at(l)->weigh(&one);
        }
        expect(memcmp(want, got, n_best * sizeof *got) == 0, "weights, one by one",
               kern_at(l)->name, head_dim, positions);
    }
    int near = 1;
    for (uint32_t t = 0; t < positions && t < n_best; t++) {
        double best = 0.0;
        for (uint32_t i = 0; i < queries; i++) {
            double total = 0.0, mine = 0.0;
            for (uint32_t p = 0; p < n[i]; p++) {
                double score = 0.0;
                for (uint32_t d = 0; d < head_dim; d++)
                    score += (double)qs[i][d] * (double)keys[(size_t)p * head_dim + d];
                if (softcap > 0.0f) score = (double)softcap * tanh(score / (double)softcap);
                total += exp(score);
                if (p == t) mine = exp(score);
            }
            best = fmax(best, mine / total * (double)factor[i]);
        }
        near &= fabs((double)want[t] - best) < 0.05 * best + 1e-4;
    }
    expect(near, "weights near those in double", "", head_dim, positions);
    mem_free(pages);
    mem_free(keys);
    mem_free(q);
    mem_free(rows);
    mem_free(want);
    mem_free(got);
}

static void test_weights(uint32_t head_dim, enum kern_kv kv)
{
    test_weigh(head_dim, 1, 1, 0.0f, kv);
    test_weigh(head_dim, 64, 5, 0.0f, kv);
    test_weigh(head_dim, 70, 13, 0.0f, kv);
    test_weigh(head_dim, 200, 12, 5.0f, kv);
    test_weigh(head_dim, 330, 40, 0.0f, kv);
}

int main(void)
{
    static const uint32_t heads[] = {2, 8, 10, 32, 48, 64, 80, 128, 256};
    rng_init(&rng, 20, 3);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        test_weights(heads[i], KERN_KV_F16);
        if (heads[i] % KERN_LANES == 0) test_weights(heads[i], KERN_KV_I16);
        if (heads[i] % KERN_BLOCK == 0) test_weights(heads[i], KERN_KV_Q8);
    }
    printf("weights: %d checks passed, %d failed\n", passed, failed);
    return failed != 0;
}
