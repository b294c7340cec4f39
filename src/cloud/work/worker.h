/*
 * worker: the engine thread of `pdd cloud`. It owns the engine, batches all jobs into steps and
 * reports what happens through a bounded queue.
 *
 * It works on jobs (cloud/work/job.h). What it does with them is decided elsewhere: who begins
 * next, and with how many tokens, by policy/admit; what a step holds by policy/sched; how long a
 * step may take by policy/stepcost, from the speeds that it measures; what need not be computed
 * again by cloud/prefix.
 *
 * Promises. A job begins when all KV pages that it may come to need are set aside, so no step fails
 * for memory. Where they are not to be had, fewer tokens are granted (job.tokens_least), else the
 * job waits. A step with running answers takes about step_us (more, where the answers alone take
 * that), and one without about three times that, so a job whose wish is to leave does so within
 * this time, in prefill too. The answer to a job depends on none of this.
 */
#ifndef PDD_CLOUD_WORK_WORKER_H
#define PDD_CLOUD_WORK_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cloud/work/job.h"
#include "engine/engine.h"

struct worker;

struct worker_config {
    uint32_t streams_max;    /* jobs in work at once */
    uint32_t queue_max;      /* jobs that may wait besides */
    uint32_t step_tokens;    /* 0: the engine's */
    uint32_t step_us;        /* aim for a step that also decodes; 0: WORKER_STEP_US */
    uint32_t prefill_beside; /* prefill tokens in such a step; 0: as many as its time allows */
    uint32_t cache_pages;    /* KV pages kept for their prefixes when idle; 0: none */
    bool cache_by_tenant;    /* whether hits stay within the tenant whose prompt it was */
    void (*wake)(void *arg); /* called from the worker when events wait */
    void *wake_arg;
};

enum { WORKER_STREAMS_MAX = 8192, WORKER_STEP_US = 100000 };

/* Takes the engine (on success), starts the thread. */
int worker_new(struct engine *engine, const struct worker_config *config,
               struct worker **ret_worker, struct err *e);
/* Cancels what runs, joins the thread, frees the engine. Events still queued are dropped with their
 * jobs' memory left to the loop. */
void worker_free(struct worker *w);

/* ERR_BUSY when as many wait as may, or as many of job.tenant (admit_share): come back in
 * worker_stats.retry_after_s. */
int worker_submit(struct worker *w, struct job *job, struct err *e);
/* After changing a job's wishes: they are read at the next step at the latest; nothing to call. */
struct job_event *worker_take_event(struct worker *w); /* NULL: none; free with mem_free */
bool worker_full(struct worker *w);                    /* worker_submit would refuse everybody */

/* For reports and tests; any thread. */
struct worker_stats {
    uint64_t steps, step_us; /* and the time they took in all */
    uint64_t prefill_tokens, decode_tokens;
    uint64_t spans;                    /* sessions in steps, summed up */
    uint64_t cached_tokens;            /* taken from the prefix cache instead of computed */
    uint64_t cache_hits, cache_misses; /* jobs that found something there, or not */
    uint64_t cache_evictions;          /* pages */
    uint64_t grants_cut;               /* jobs that were granted less than they wished */
    uint32_t running, waiting;
    uint32_t kv_pages_free, kv_pages_cached; /* the latter: held by the prefix cache alone */
    uint32_t step_tokens;                    /* the most a step may hold */
    uint32_t prefill_tps;                    /* measured lately */
    uint32_t retry_after_s;                  /* when about half of those who wait will have begun */
};
void worker_stats_of(struct worker *w, struct worker_stats *ret_stats);
/* Tokens of prompt and answer that one job may have: the context, or what all KV memory holds. */
uint32_t worker_positions_max(const struct worker *w);
const struct engine_info *worker_engine_info(const struct worker *w);
const struct vocab *worker_vocab(const struct worker *w);
const struct chat_template *worker_template(const struct worker *w);

#endif
