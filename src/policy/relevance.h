/*
 * relevance: one score for each position of a prompt, from attention (session_scores of
 * engine/engine.h) and from the words of its question (policy/bm25.h). Pure; IEEE arithmetic only,
 * so every machine gives the same bits.
 *
 *     relevance = A * (1 + B)
 *     A = sum over blocks b of 16 tokens of
 *         max(0, 1 - |b - own block| / 4) * largest attention in b
 *     B = BM25 score
 *
 * Attention points at single tokens, often just beside the answer; A spreads it over what a reader
 * needs around them, and takes the place of keeping neighbours. The product asks for both: places
 * that the model looks at and that speak of the question. Where no word of the question occurs, A
 * alone decides; where attention is not known, 0.31 * (1 + B) stands for A.
 *
 * The peak tells questions from tasks that need the whole text (summaries, counts): for those no
 * place has both attention and words of the question. How even the scores are spread tells nothing
 * (docs/decisions/0010-relevance.md).
 */
#ifndef PDD_POLICY_RELEVANCE_H
#define PDD_POLICY_RELEVANCE_H

#include <stdint.h>

enum { RELEVANCE_BLOCK = 16, RELEVANCE_BLOCKS = 4 };
#define RELEVANCE_WORDS 0.31f /* of A, where attention is not known: one peak for both */
#define RELEVANCE_PEAK 3.2f   /* a lower peak is a flat task (docs/REFINE.md) */

/* attention [n], or NULL: not known; bm25 [n], or NULL: 0 everywhere. ret_scores [n] may be
 * bm25's array, not attention's. */
void relevance_score(const float *attention, const float *bm25, uint32_t n, float *ret_scores);
/* The largest score of positions [from, to); 0 where there is none. Leave out what is kept in any
 * case: the question looks at itself most. */
float relevance_peak(const float *scores, uint32_t from, uint32_t to);

#endif
