/*
 * cloud_impl: what the files of the cloud share: cloud.c (the door, jobs, routing, pools) and
 * cloud_machine.c (one engine: memory, steps, results). One thread.
 */
#ifndef PDD_SIM_CLOUD_IMPL_H
#define PDD_SIM_CLOUD_IMPL_H

#include "policy/admit.h"
#include "policy/sched.h"
#include "policy/stepcost.h"
#include "sim/blocks.h"
#include "sim/cloud.h"

enum { BLOCK_PAGES = 8 }; /* pages of a block of TRACE_BLOCK tokens */

enum { CLOUD_STEP_ENDS = CLOUD_EVENT, CLOUD_MOVES /* a KV cache has arrived in the decode pool */ };

struct work {
    struct cloud_request r;
    struct cloud_cost cost;
    uint32_t serial;
    uint32_t next_free;
    uint32_t machine;
    uint32_t n_tokens;   /* prompt and the tokens that the asker has */
    uint32_t tokens_max; /* as asked last */
    uint32_t fed, produced, granted, promise, n_path;
    bool used, cancelled, running, decodes; /* decodes: in the decode pool */
    uint64_t asked_at, began_at, first_at, next_at;
    uint64_t arrived, served;
    double weight; /* its share of the step's time */
};

struct machine {
    struct cloud *cloud;
    uint32_t index, cell;
    bool only_prefill, only_decode, any_cancelled;
    bool busy, rests; /* a step runs; nothing runs until the first job may have its next token */
    uint64_t step_number;
    uint32_t slots, slots_now, pages_total, pages_own, promised;
    struct work **running; /* [slots] */
    uint32_t n_running, inside;
    uint32_t *inside_of;      /* [SCHED_TENANTS_MAX] */
    struct sched_item *items; /* [slots] of this step */
    uint32_t step_decodes, step_prompts;
    uint64_t step_began;
    struct admit_line *line;
    uint64_t line_tokens, prefill_left, arrivals, last_end;
    double between_ends_us;
    const struct work *blocked;
    uint32_t blocked_at;
    struct blocks *blocks;
    struct sched *sched;
    struct stepcost cost;
    struct cloud_stats stats;
};

struct cloud {
    struct cloud_config c;
    struct cloud_calls calls;
    struct heap *heap;
    struct machine *machines; /* [n_machines]: first those of c.engines, then the decode pool */
    uint32_t n_machines, n_cells, cell_machines;
    struct work **works; /* [room]: chunks of WORKS */
    uint32_t n_works, room, unused, serials, decoding;
    struct quota *quotas; /* [c.tenants], or NULL without limits */
    struct cloud_stats refused;
};

/* cloud_machine.c */
int machine_open(struct machine *n, struct err *e);
void machine_close(struct machine *n);
enum admit_entry machine_enter(struct machine *n, struct work *w, uint64_t now);
uint32_t machine_retry_s(const struct machine *n);
void machine_begin_step(struct machine *n, uint64_t now);
void machine_end_step(struct machine *n, uint64_t now);

/* cloud.c */
void work_end(struct cloud *c, struct work *w, uint64_t now);
void work_move(struct cloud *c, struct work *w, uint64_t now); /* to the decode pool */

#endif
