/*
 * stepcost: the time of an engine step, learned from past steps, and how many prompt tokens fit
 * into a step next to the running answers so that it stays below a target time. Pure: times are
 * arguments.
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
    STEPCOST_TOKENS_LEAST = 16, /* a step with fewer prompt tokens says nothing of their cost */
    STEPCOST_TOKENS_FIRST = 64, /* prompt tokens of a step until something is measured */
    STEPCOST_ALONE = 3,         /* a step without answers may take this many times the target */
    STEPCOST_SHARE = 3          /* where decodes alone exceed the target, prompts get a third of
                                   their time on top */
};

struct stepcost {
    double n, decodes, squares, us, products; /* sums over the steps that only decode */
    double prefill_us;                        /* of a token; 0: not known yet */
};

void stepcost_note(struct stepcost *c, uint32_t decodes, uint32_t prefill_tokens, double us);
/* Time of a step with that many decodes; 0: not known. */
double stepcost_decode_us(const struct stepcost *c, uint32_t decodes);
/* Sets prefill_beside and prefill_alone, each at least 1 and within step_tokens and `beside_max`,
 * for a step with `decodes` decodes and a target of aim_us. */
void stepcost_limit(const struct stepcost *c, uint32_t decodes, double aim_us, uint32_t beside_max,
                    struct sched_limits *limits);

#endif
