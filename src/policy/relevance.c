/* relevance: see relevance.h. */
#include "policy/relevance.h"

#include <stddef.h>

float relevance_peak(const float *scores, uint32_t from, uint32_t to)
{
    float peak = 0.0f;
    for (uint32_t i = from; i < to; i++)
        if (scores[i] > peak) peak = scores[i];
    return peak;
}

static float block_best(const float *attention, uint32_t n, uint32_t block)
{
    uint32_t from = block * RELEVANCE_BLOCK;
    return relevance_peak(attention, from, n - from > RELEVANCE_BLOCK ? from + RELEVANCE_BLOCK : n);
}

/* A of relevance.h. It looks at each token seven times and needs no memory. */
static float spread(const float *attention, uint32_t n, uint32_t block)
{
    const uint32_t blocks = (n + RELEVANCE_BLOCK - 1) / RELEVANCE_BLOCK;
    float sum = 0.0f;
    for (uint32_t away = 0; away < RELEVANCE_BLOCKS; away++) {
        float near = 1.0f - (float)away / (float)RELEVANCE_BLOCKS;
        if (away <= block) sum += near * block_best(attention, n, block - away);
        if (away > 0 && block + away < blocks) sum += near * block_best(attention, n, block + away);
    }
    return sum;
}

void relevance_score(const float *attention, const float *bm25, uint32_t n, float *ret_scores)
{
    float a = 1.0f;
    for (uint32_t i = 0; i < n; i++) {
        float words = 1.0f + (bm25 ? bm25[i] : 0.0f);
        if (!attention) a = RELEVANCE_WORDS * words;
        if (attention && i % RELEVANCE_BLOCK == 0) a = spread(attention, n, i / RELEVANCE_BLOCK);
        ret_scores[i] = a * words;
    }
}
