/*
 * stepcost: what a step of the engine takes, learned from the steps that were made, and how many
 * tokens of prompts fit beside the running answers so that a step stays below an aim. Pure: times
 * come in as arguments.
 *
 * Model: time = base + each * decodes + prefill * tokens. Base and each come from the steps that
 * only decode (least squares with exponential forgetting), prefill from steps with prompts, less
 * what their decodes take. Longer contexts make both slower; forgetting follows.
 */
#ifndef PDD_POLICY_STEPCOST_H
#define PDD_POLICY_STEPCOST_H

#include <stdint.h>

#include "policy/sched.h"

enum {
    STEPCOST_TOKENS_LEAST = 16, /* fewer prompt tokens tell nothing about their cost */
    STEPCOST_TOKENS_FIRST = 64, /* of prompts in a step, until something was measured */
    STEPCOST_ALONE = 3,         /* a step without answers may take so many times the aim */
    STEPCOST_SHARE = 3          /* where decodes alone miss the aim, prompts get a third of their
                                   time besides */
};

struct stepcost {
    double n, decodes, squares, us, products; /* sums over the steps that only decode */
    double prefill_us;                        /* of a token; 0: not known yet */
};

void stepcost_note(struct stepcost *c, uint32_t decodes, uint32_t prefill_tokens, double us);
/* Time of a step that decodes so many; 0: nothing is known. */
double stepcost_decode_us(const struct stepcost *c, uint32_t decodes);
/* Sets prefill_beside and prefill_alone, each at least 1 and within step_tokens and `beside_max`,
 * for a step with so many decodes that is to stay below aim_us. */
void stepcost_limit(const struct stepcost *c, uint32_t decodes, double aim_us, uint32_t beside_max,
                    struct sched_limits *limits);

#endif
