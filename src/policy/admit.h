/*
 * admit: admission control: whether a request may enter, which waiting request starts next, how
 * many tokens it is granted, and the Retry-After of a refusal. Pure.
 *
 * Memory is counted in pages of KV memory before work: a request starts only when every page that
 * it may need is free, or idle in the cache, and not reserved for another. So no step fails for
 * memory. If N tokens do not fit, fewer are granted, down to the least that is useful. If not even
 * those fit, the request waits, and the requests after it wait too, so that small ones cannot
 * overtake a large one for ever.
 *
 * Slots can be short, too. Then requests wait for running answers to end, and two rules keep the
 * most answers within their limits (the evidence: docs/design/plan.md). A request that continues an
 * answer goes first, for a shown text that stalls is worse than a wait: it counts a step of
 * priority higher, and within its tenant it passes those that begin one, at most ADMIT_PASSES_MAX
 * times before one of these starts. And while others wait, a grant that may be cut is cut to what
 * lets them start in time (`fair`), but not below half of N: the device is told, plans again, and
 * asks for the rest when it needs it.
 *
 * The line has one queue for each tenant. Next is the tenant with the fewest running requests for
 * its priority (each step up counts them half), on a tie the request that arrived first. The next
 * request stays next until it starts or leaves.
 */
#ifndef PDD_POLICY_ADMIT_H
#define PDD_POLICY_ADMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "policy/sched.h"

enum {
    ADMIT_PAGE = 64,         /* positions of a page */
    ADMIT_TOKENS_LEAST = 16, /* a grant is not cut below this, */
    ADMIT_CUT_MOST = 8,      /* nor below an eighth of N, unless the request has a least */
    ADMIT_TENANTS_MAX = SCHED_TENANTS_MAX,
    ADMIT_RETRY_S_MAX = 60,
    ADMIT_START_US = 1000000, /* for those who wait */
    ADMIT_PASSES_MAX = 8
};

/* ---- entering ---- */

/* Requests, running and waiting, that one tenant with a key may have: half of the line is left to
 * the others. At least 1. */
uint32_t admit_share(uint32_t slots, uint32_t queue_max);

/* While memory is short, slots are fewer than slots_max, and a tenant may still hold more than its
 * share. So that this does not lock others out, a keyed tenant below its share may enter up to
 * slots_max + queue_max in all. */
struct admit_state {
    uint32_t slots, queue_max;   /* that may run now, and that may wait */
    uint32_t slots_max;          /* that may run with enough memory; at least slots */
    uint32_t inside, inside_own; /* requests in all, and of this tenant */
    bool keyed;                  /* it has a key; else its tenant is not known */
};

enum admit_entry { ADMIT_ENTERS, ADMIT_FULL, ADMIT_SHARE_TAKEN };

enum admit_entry admit_enter(const struct admit_state *s);

/* ---- memory ---- */

struct admit_memory {
    uint32_t free;     /* pages that are not held */
    uint32_t idle;     /* pages that only the cache holds */
    uint32_t promised; /* pages reserved by running requests and not taken yet */
};

struct admit_request {
    uint32_t tokens;        /* of the prompt and of its answer so far */
    uint32_t shared;        /* of their pages, cached ones that are not idle */
    uint32_t most, least;   /* tokens wanted; least 0: as above */
    uint32_t positions_max; /* of one request; more than `tokens` */
    uint32_t fair; /* admit_fair: tokens to grant at most, or half of `most`; 0: no limit */
};

/* Requests that wait for a slot. */
struct admit_pressure {
    uint32_t waiting, slots;
    double token_us; /* of a running answer; 0: not known */
};
/* So many tokens for each that all who wait start within about ADMIT_START_US; 0: none waits. */
uint32_t admit_fair(const struct admit_pressure *p);

/* Pages for that many positions. */
uint32_t admit_pages(uint32_t positions);
/* Positions of a request after `more` tokens. */
uint32_t admit_positions(const struct admit_request *w, uint32_t more);
/* Tokens to grant: w->most, or fewer if memory is short; 0: not now. */
uint32_t admit_grant(const struct admit_memory *m, const struct admit_request *w);

/* ---- the line ---- */

struct admit_line;

int admit_line_new(uint32_t capacity, struct admit_line **ret_line, struct err *e);
void admit_line_free(struct admit_line *l); /* NULL is fine; the caller owns the jobs */
/* The line must have room. tenant < ADMIT_TENANTS_MAX. */
void admit_join(struct admit_line *l, void *job, uint32_t tenant, int32_t priority);
/* The same for a job that continues an answer. */
void admit_rejoin(struct admit_line *l, void *job, uint32_t tenant, int32_t priority);
void *admit_next(struct admit_line *l);  /* NULL: the line is empty */
void admit_begin(struct admit_line *l);  /* the next one leaves the line and runs */
void admit_refuse(struct admit_line *l); /* the next one leaves the line and does not */
void admit_ended(struct admit_line *l, uint32_t tenant); /* a running one has ended */
/* Removes the jobs for which `leaves` returns true; calls it once for each. */
void admit_sweep(struct admit_line *l, bool (*leaves)(void *arg, void *job), void *arg);
uint32_t admit_waiting(const struct admit_line *l);

/* ---- Retry-After ---- */

struct admit_load {
    uint32_t waiting;        /* requests that wait */
    uint64_t waiting_tokens; /* of their prompts, and of those that are being prefilled */
    double prefill_us;       /* of a token; 0: not known */
    double between_ends_us;  /* mean time from one request's end to the next one's; 0: not known */
};

/* Seconds until about half of the line has started: from 1 to ADMIT_RETRY_S_MAX. */
uint32_t admit_retry_s(const struct admit_load *l);

#endif
