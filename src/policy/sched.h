/*
 * sched: the content of the next step of a batching engine. Pure and deterministic: the same calls
 * give the same steps. A step of 8,192 items is planned in a fraction of a millisecond.
 *
 * A step has a budget of tokens. Running answers come first, one token each. The rest goes to
 * prefills: all prefills together get at most `prefill_beside` while answers run, else
 * `prefill_alone`. That bounds how long streams and cancellations wait for a step;
 * policy/stepcost.h chooses both numbers. A waiting prompt gets one span and a share of the tokens
 * (in steps of two or more) however many answers run, so no prompt starves.
 *
 * Fairness is among tenants, by the tokens that they get: each has an account, and the tenant
 * that has used least is next. Each step up of an item's priority halves what its tokens are
 * charged, so the tenant gets twice the share. Within a tenant prompts go in order of arrival, and
 * answers, where they do not all fit, least recently served first. A tenant that got all it asked
 * for earns no credit: it starts again at the level of those that still wait (start-time fair
 * queueing, Goyal et al. 1996; the level is the least that a waiting tenant has used). The accounts
 * of two tenants that always wait differ by at most one step's budget, not counting answers where
 * all of them fit: those are served in every step.
 */
#ifndef PDD_POLICY_SCHED_H
#define PDD_POLICY_SCHED_H

#include <stdint.h>

#include "base/err.h"

enum {
    SCHED_ITEMS_MAX = 8192,
    SCHED_TENANTS_MAX = 8192,
    SCHED_PRIORITY_MAX = 8,  /* and -8 the least; values beyond are clipped */
    SCHED_PREFILL_SHARE = 4, /* at least every fourth token of a step while a prompt waits */
    SCHED_CHARGE = 1 << 16   /* for a token at priority 0 */
};

struct sched_limits {
    uint32_t step_tokens;    /* budget of a step */
    uint32_t prefill_beside; /* prefill tokens of a step that also decodes */
    uint32_t prefill_alone;  /* and of one that does not */
    uint32_t spans;          /* sessions in a step */
};

struct sched_item {
    uint32_t waiting; /* prompt tokens to prefill; 0: the item decodes */
    uint32_t tenant;  /* < SCHED_TENANTS_MAX */
    int32_t priority;
    uint32_t given;   /* out: tokens of this step; 0: not in it */
    uint64_t arrived; /* order among prefills */
    uint64_t served;  /* number of the step that served it last; order among decodes */
};

struct sched;

int sched_new(struct sched **ret_sched, struct err *e);
void sched_free(struct sched *s); /* NULL is fine */

/* Fills `given` and charges the accounts; returns the tokens of the step. Ties go to the lower
 * index. n <= SCHED_ITEMS_MAX. */
uint32_t sched_step(struct sched *s, struct sched_item *items, uint32_t n,
                    const struct sched_limits *limits);
/* Total charge of a tenant. */
uint64_t sched_used(const struct sched *s, uint32_t tenant);

#endif
