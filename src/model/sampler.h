/*
 * sampler: samples the next token from logits, as base/sampling.h says. Threads: a sampler each.
 *
 * A draw is a pure function of the logits, the history and the sampling parameters: the random
 * number comes from (seed, position of the token that is drawn), sums are taken in a fixed order
 * and exponentials are the kernels' own, so device and cloud draw the same token.
 *
 * Details that base/sampling.h leaves open: the repetition penalty counts a token of the history
 * once, divides a positive logit and multiplies another. A token that is in the answer c times
 * loses c * frequency_penalty + presence_penalty, as OpenAI's formula says. A token that is held
 * back or forbidden gets SAMPLER_NEVER for its logit. Top-p keeps the smallest set of the most
 * likely tokens whose weight reaches p of what top-k left. Min-p keeps tokens at least min_p times
 * as likely as the most likely one. The log-probability is that of the plain logits at
 * temperature 1, without bias and penalties.
 */
#ifndef PDD_MODEL_SAMPLER_H
#define PDD_MODEL_SAMPLER_H

#include <stdint.h>

#include "base/err.h"
#include "base/sampling.h"
#include "kern/kern.h"

/* Below every logit, and finite: differences of two of it are 0. */
#define SAMPLER_NEVER -1e30f

enum { SAMPLER_ENDS_MAX = 32 };

/* Scratch memory of one thread. */
struct sampler {
    const struct kern *kern;
    uint32_t vocab;
    int32_t ends[SAMPLER_ENDS_MAX]; /* [n_ends] tokens that end an answer */
    uint32_t n_ends;
    float *logits;    /* [vocab] with bias and penalties */
    uint32_t *counts; /* [vocab] how often a token is in a history; zeros between draws */
    float *weights;   /* [vocab] e^((logit - max) / temperature) */
    uint32_t *heap;   /* [vocab] ids, the best at the top */
};

struct sampler_draw {
    int32_t id;
    float logprob;
};

int sampler_init(struct sampler *s, const struct kern *kern, uint32_t vocab, struct err *e);
void sampler_add_end(struct sampler *s, int32_t id); /* of at most SAMPLER_ENDS_MAX end tokens */
void sampler_release(struct sampler *s);             /* also for a zeroed struct */

/* Check the ranges of base/sampling.h; the error names the field. */
int sampling_check(const struct sampling *p, struct err *e);
/* The same for the ids of its biases. */
int sampling_check_ids(const struct sampling *p, uint32_t vocab, struct err *e);

/* Draw the token that follows history[n] (ids < vocab). */
struct sampler_draw sampler_draw(struct sampler *s, const struct sampling *p, const float *logits,
                                 const int32_t *history, uint32_t n);

/* The ids of the `max` highest logits, highest first, lowest id first on a tie; returns their
 * number. For small `max`: O(vocab), and O(max) for each id that enters. */
uint32_t sampler_best(const float *logits, uint32_t vocab, uint32_t max, int32_t *ret_ids);

#endif
