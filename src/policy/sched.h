/*
 * sched: what goes into the next step of a batching engine. Pure and deterministic.
 *
 * A step has a budget of tokens. Running answers come first, one token each, least recently served
 * first when there are more than the budget. What is left goes to prefills in order of arrival, so
 * that first tokens come in that order; while answers run, prefills together get at most
 * `prefill_beside`, which bounds how long one step keeps the streams waiting. However many answers
 * run, a prompt that waits gets one span and a share of the tokens (in steps of two or more), so
 * nobody starves.
 */
#ifndef PDD_POLICY_SCHED_H
#define PDD_POLICY_SCHED_H

#include <stdbool.h>
#include <stdint.h>

struct sched_limits {
    uint32_t step_tokens;    /* budget of a step */
    uint32_t prefill_beside; /* prefill tokens of a step that also decodes */
    uint32_t spans;          /* sessions in a step */
};

struct sched_item {
    uint32_t waiting; /* prompt tokens still to prefill; 0: the item decodes */
    uint64_t arrived; /* order among prefills */
    uint64_t served;  /* number of the step that served it last; order among decodes */
    uint32_t given;   /* out: tokens of this step; 0: not in it */
};

enum {
    SCHED_ITEMS_MAX = 4096,
    SCHED_PREFILL_SHARE = 4 /* at least every fourth token of a step, when a prompt waits */
};

/* Fills `given`; returns the tokens of the step. Ties go to the lower index. n <= SCHED_ITEMS_MAX.
 */
uint32_t sched_step(struct sched_item *items, uint32_t n, const struct sched_limits *limits);

#endif
