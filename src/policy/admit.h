/*
 * admit: who may come in, who of those who wait begins next, with how many tokens, and when to come
 * back for who is refused. Pure.
 *
 * Memory is counted in pages of KV memory before work starts: a request begins only when every page
 * that it may come to need is free, or would be given up by the cache, and promised to nobody else.
 * So no step ever fails for memory. When the wish does not fit, fewer tokens are granted, down to
 * the least that is of use; when not even those fit, the request waits, and those behind it as
 * well, so that a large one is not overtaken for ever.
 *
 * The line has one queue for each tenant. Next is the tenant with the fewest running requests for
 * its priority (each step up counts them half), then who came first. Who has been named next stays
 * next until it begins or leaves.
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
    ADMIT_CUT_MOST = 8,      /* nor to less than an eighth of the wish, when nobody says what is
                                the least that is of use */
    ADMIT_TENANTS_MAX = SCHED_TENANTS_MAX,
    ADMIT_RETRY_S_MAX = 60
};

/* ---- at the door ---- */

/* Requests, running and waiting, that one tenant with a key may have: half of the line stays for
 * the others, however many one sends. At least 1. */
uint32_t admit_share(uint32_t slots, uint32_t queue_max);

/* While memory is short slots are fewer than slots_max, and a tenant may hold more than its share,
 * from before. So that this alone keeps nobody out, one with a key that is below its share comes in
 * up to slots_max + queue_max of all. */
struct admit_door {
    uint32_t slots, queue_max;   /* that may run now, and wait besides */
    uint32_t slots_max;          /* that may run with memory enough; at least slots */
    uint32_t inside, inside_own; /* requests of all, and of who comes */
    bool keyed;                  /* it has a key; else nobody knows whose it is */
};

enum admit_entry { ADMIT_ENTERS, ADMIT_FULL, ADMIT_SHARE_TAKEN };

enum admit_entry admit_enter(const struct admit_door *d);

/* ---- memory ---- */

struct admit_memory {
    uint32_t free;     /* pages that nobody holds */
    uint32_t idle;     /* pages that the cache alone holds */
    uint32_t promised; /* pages that running requests may still take */
};

struct admit_wish {
    uint32_t tokens;        /* of the prompt and of its answer so far */
    uint32_t shared;        /* pages of theirs that are there already and not idle */
    uint32_t most, least;   /* tokens wanted; least 0: as admit.h says */
    uint32_t positions_max; /* of one request; more than `tokens` */
};

/* Pages that hold so many positions. */
uint32_t admit_pages(uint32_t positions);
/* Positions that a request fills when `more` tokens come. */
uint32_t admit_end(const struct admit_wish *w, uint32_t more);
/* Tokens to grant: w->most, or fewer, as memory allows; 0: not now. */
uint32_t admit_grant(const struct admit_memory *m, const struct admit_wish *w);

/* ---- the line ---- */

struct admit_line;

int admit_line_new(uint32_t capacity, struct admit_line **ret_line, struct err *e);
void admit_line_free(struct admit_line *l); /* NULL is fine; the jobs are the caller's */
/* There must be room. tenant < ADMIT_TENANTS_MAX. */
void admit_join(struct admit_line *l, void *job, uint32_t tenant, int32_t priority);
void *admit_next(struct admit_line *l);  /* NULL: nobody waits */
void admit_begin(struct admit_line *l);  /* the next one leaves the line and runs */
void admit_refuse(struct admit_line *l); /* the next one leaves the line and does not */
void admit_end_run(struct admit_line *l, uint32_t tenant); /* one that ran has ended */
/* Takes out whom `leaves` names; it is asked about each once. */
void admit_sweep(struct admit_line *l, bool (*leaves)(void *arg, void *job), void *arg);
uint32_t admit_waiting(const struct admit_line *l);

/* ---- when to come back ---- */

struct admit_load {
    uint32_t waiting;        /* requests in line */
    uint64_t waiting_tokens; /* of their prompts, and of those that are being prefilled */
    double prefill_us;       /* of a token; 0: not known */
    double between_ends_us;  /* mean time from one request's end to the next one's; 0: not known */
};

/* Seconds until about half of the line will have begun: from 1 to ADMIT_RETRY_S_MAX. */
uint32_t admit_retry_s(const struct admit_load *l);

#endif
