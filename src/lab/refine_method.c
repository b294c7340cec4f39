/* refine_method: see refine_method.h. */
#include "lab/refine_method.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "policy/relevance.h"

enum { RANDOM_UNIT = 16, SPECPC_AROUND = 64, STREAM = 15 };

static void score_window(const struct refine_evidence *x, float *work, float *ret_scores)
{
    (void)work;
    memcpy(ret_scores, x->window, x->n * sizeof *ret_scores);
}

static void score_attention(const struct refine_evidence *x, float *work, float *ret_scores)
{
    (void)work;
    memcpy(ret_scores, x->attention, x->n * sizeof *ret_scores);
}

static void score_words(const struct refine_evidence *x, float *work, float *ret_scores)
{
    (void)work;
    relevance_score(NULL, x->bm25, x->n, ret_scores);
}

static void score_random(const struct refine_evidence *x, float *work, float *ret_scores)
{
    (void)work;
    for (uint32_t i = 0; i < x->n; i++)
        ret_scores[i] = rng_uniform(x->seed, STREAM, i / RANDOM_UNIT);
}

static void score_ends(const struct refine_evidence *x, float *work, float *ret_scores)
{
    (void)work;
    for (uint32_t i = 0; i < x->n; i++)
        ret_scores[i] = (float)(i > x->n - 1 - i ? i : x->n - 1 - i);
}

/* The largest score of all positions at most SPECPC_AROUND / 2 away. */
static void score_specpc(const struct refine_evidence *x, float *work, float *ret_scores)
{
    const uint32_t half = SPECPC_AROUND / 2;
    (void)work;
    for (uint32_t i = 0; i < x->n; i++) {
        uint32_t from = i > half ? i - half : 0, to = x->n - i > half + 1 ? i + half + 1 : x->n;
        float best = 0.0f;
        for (uint32_t k = from; k < to; k++)
            if (x->window[k] > best) best = x->window[k];
        ret_scores[i] = best;
    }
}

static void score_relevance(const struct refine_evidence *x, float *work, float *ret_scores)
{
    (void)work;
    relevance_score(x->window, x->bm25, x->n, ret_scores);
}

static void score_later(const struct refine_evidence *x, float *work, float *ret_scores)
{
    (void)work;
    relevance_score(x->attention, x->bm25, x->n, ret_scores);
}

static void score_spread(const struct refine_evidence *x, float *work, float *ret_scores)
{
    (void)work;
    relevance_score(x->window, NULL, x->n, ret_scores);
}

static int by_value(const void *a, const void *b)
{
    const float *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* How many of sorted[n] are below the value, as a part of n. */
static float rank_in(const float *sorted, uint32_t n, float value)
{
    uint32_t low = 0, high = n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (sorted[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    return (float)low / (float)n;
}

/* `max`: the larger of both ranks, else their sum. */
static void score_ranks(const struct refine_evidence *x, bool max, float *work, float *ret_scores)
{
    const float *kinds[] = {x->window, x->bm25};
    memset(ret_scores, 0, x->n * sizeof *ret_scores);
    for (int k = 0; k < 2; k++) {
        memcpy(work, kinds[k], x->n * sizeof *work);
        qsort(work, x->n, sizeof *work, by_value);
        for (uint32_t i = 0; i < x->n; i++) {
            float rank = rank_in(work, x->n, kinds[k][i]);
            ret_scores[i] = max ? fmaxf(rank, ret_scores[i]) : rank + ret_scores[i];
        }
    }
}

static void score_max(const struct refine_evidence *x, float *work, float *ret_scores)
{
    score_ranks(x, true, work, ret_scores);
}

static void score_sum(const struct refine_evidence *x, float *work, float *ret_scores)
{
    score_ranks(x, false, work, ret_scores);
}

static const float all[] = {0.5f, 0.3f, 0.2f, 0.1f, 0.0f, -1.0f};
static const float few[] = {0.3f, 0.1f, -1.0f};

static const struct refine_method methods[] = {
    {"relevance", score_relevance, false, all},
    {"words", score_words, false, all},
    {"window", score_window, true, few},
    {"attention", score_attention, true, few},
    {"later", score_later, false, few},
    {"spread", score_spread, false, few},
    {"sum", score_sum, true, few},
    {"max", score_max, true, few},
    {"specpc", score_specpc, false, few},
    {"random", score_random, false, few},
    {"ends", score_ends, false, few},
};

const struct refine_method *refine_method_at(uint32_t i)
{
    return i < sizeof methods / sizeof *methods ? &methods[i] : NULL;
}
