/*
 * cloud: the cloud of a simulation. Engines take the times of sim/hardware.h; everything that is
 * decided is decided by the code of policy/: quotas (quota), which engine (route), admission,
 * memory and grants (admit), the content of a step (sched) and its size (stepcost). The prefix
 * cache follows sim/blocks.h. The order of work between two steps is that of cloud/work/worker.h.
 *
 * Two kinds: engines that do both phases, or pools. In pools a prompt is computed by an engine of
 * the first kind, its KV cache travels, and an engine of the second decodes. Engines are grouped in
 * cells of at most CLOUD_CELL_MAX; a job keeps to the cell that its `cell` names.
 *
 * The owner pops events from the heap and passes those with a kind from CLOUD_EVENT on to
 * cloud_event. What jobs send comes out through `send`, which must not call the cloud. Pure but for
 * memory.
 */
#ifndef PDD_SIM_CLOUD_H
#define PDD_SIM_CLOUD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "policy/quota.h"
#include "policy/route.h"
#include "sim/hardware.h"
#include "sim/heap.h"

enum { CLOUD_EVENT = 16 /* kinds of events from here on are the cloud's */ };
enum { CLOUD_CELL_MAX = ROUTE_SERVERS_MAX, CLOUD_ENGINES_MAX = 4096, CLOUD_TENANTS_MAX = 1 << 22 };

struct cloud_config {
    const struct hardware_engine *engine;
    uint32_t engines;          /* of both phases, or of prefill where there are pools */
    uint32_t decode_engines;   /* 0: no pools */
    uint32_t slots;            /* of an engine that decodes; 0: the hardware's */
    uint32_t queue_max;        /* requests that may wait, for each engine */
    uint32_t step_us;          /* target time of a step; 0: 100 ms */
    uint32_t cache_percent;    /* of KV memory, for idle blocks */
    double transfer_bytes_s;   /* of a KV cache between pools */
    struct quota_limits quota; /* of each device */
    uint32_t tenants;          /* devices that have a key: 0 to tenants - 1 */
};

enum cloud_message { CLOUD_GRANT, CLOUD_PROGRESS, CLOUD_TOKEN, CLOUD_DONE, CLOUD_REFUSED };
enum cloud_end { CLOUD_END_BUDGET, CLOUD_END_STOP, CLOUD_END_LENGTH, CLOUD_END_GONE };

/* A request for tokens [have, have + tokens_max) of an answer that has `length` tokens. */
struct cloud_request {
    uint32_t device; /* whose quota it uses; for `send` */
    uint32_t tenant; /* below SCHED_TENANTS_MAX; 0: it has no key */
    uint32_t stream; /* of the device; for `send` */
    void *owner;     /* for `send` and `ended` */
    uint32_t prompt, have, tokens_max, length;
    const uint32_t *hashes; /* of the prompt's blocks */
    uint32_t n_hashes;
    uint64_t own;  /* number of the answer, for blocks without a hash */
    uint64_t salt; /* blocks are shared between requests of one salt */
    uint32_t cell;
    uint64_t every_us; /* a token at most that often; 0: at each step */
};

/* What a job cost, told once, when it has ended or was refused. */
struct cloud_cost {
    uint32_t prefilled, cached, produced, granted, asked;
    bool refused;
    double engine_us, kv_byte_s;
    double slot_us, decode_slot_us; /* from its start; from its first token */
    uint64_t queued_us;
    double first_us; /* from its start to its first token */
};

struct cloud_calls {
    /* value: what was granted; prompt tokens done; the token's index; an enum cloud_end; seconds to
     * wait. cached: prompt tokens that a grant finds in the cache. */
    void (*send)(void *arg, const struct cloud_request *r, enum cloud_message kind, uint32_t value,
                 uint32_t cached, uint64_t now);
    void (*ended)(void *arg, const struct cloud_request *r, const struct cloud_cost *c);
    void *arg;
};

struct cloud_job { /* names a job for ever */
    uint32_t at;
    uint32_t serial;
};

struct cloud;

int cloud_new(const struct cloud_config *config, struct heap *heap, const struct cloud_calls *calls,
              struct cloud **ret_cloud, struct err *e);
void cloud_free(struct cloud *c);

/* A request has arrived. ERR_NO_MEMORY, or 0, also when it is refused. */
int cloud_ask(struct cloud *c, const struct cloud_request *r, uint64_t now,
              struct cloud_job *ret_job);
/* Of a job that has ended already: nothing happens. */
void cloud_extend(struct cloud *c, struct cloud_job job, uint32_t tokens_max);
void cloud_cancel(struct cloud *c, struct cloud_job job, uint64_t now);
void cloud_event(struct cloud *c, const struct heap_event *ev);

struct cloud_stats {
    uint64_t prefill_tokens, cached_tokens, decode_tokens, steps, refused, grants_cut;
    double busy_us, decode_busy_us; /* of all engines; of those of the decode pool */
    uint32_t running, waiting;      /* now */
};
void cloud_stats_of(const struct cloud *c, struct cloud_stats *ret_stats);
uint32_t cloud_decoding(const struct cloud *c); /* jobs between their first token and their end */
/* Expected time to the first token of a prompt without queue: what an idle engine takes. */
double cloud_prefill_us(const struct hardware_engine *h, uint32_t tokens);

#endif
