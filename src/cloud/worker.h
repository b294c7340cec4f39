/*
 * worker: the engine thread of `pdd cloud`. It owns the engine, batches all jobs into steps and
 * reports what happens through a bounded queue.
 *
 * It works on jobs (cloud/job.h). A cancelled job leaves within one step, in prefill too.
 */
#ifndef PDD_CLOUD_WORKER_H
#define PDD_CLOUD_WORKER_H

#include <stdint.h>

#include "base/err.h"
#include "cloud/job.h"
#include "engine/engine.h"

struct worker;

struct worker_config {
    uint32_t streams_max; /* jobs in work at once */
    uint32_t queue_max;   /* jobs that may wait besides */
    uint32_t step_tokens; /* 0: the engine's */
    uint32_t
        prefill_beside; /* prefill tokens in a step that also decodes; 0: a quarter of a step */
    uint32_t cache_max; /* finished sessions kept for their prefixes; 0: none */
    void (*wake)(void *arg); /* called from the worker when events wait */
    void *wake_arg;
};

enum { WORKER_STREAMS_MAX = 2048, WORKER_CACHE_MAX = 64 };

/* Takes the engine (on success), starts the thread. */
int worker_new(struct engine *engine, const struct worker_config *config,
               struct worker **ret_worker, struct err *e);
/* Cancels what runs, joins the thread, frees the engine. Events still queued are dropped with their
 * jobs' memory left to the loop. */
void worker_free(struct worker *w);

/* ERR_BUSY when the queue is full. */
int worker_submit(struct worker *w, struct job *job);
/* After changing a job's wishes: they are read at the next step at the latest; nothing to call. */
struct job_event *worker_take_event(struct worker *w); /* NULL: none; free with mem_free */

/* For reports and tests; any thread. */
struct worker_stats {
    uint64_t steps, prefill_tokens, decode_tokens, cached_tokens;
    uint32_t running, waiting, kv_pages_free, kv_pages_cached;
    uint32_t prefill_tps; /* measured lately */
};
void worker_stats_of(struct worker *w, struct worker_stats *ret_stats);
/* Tokens of prompt and answer that one job may have: the context, or what all KV memory holds. */
uint32_t worker_positions_max(const struct worker *w);
const struct engine_info *worker_engine_info(const struct worker *w);
const struct vocab *worker_vocab(const struct worker *w);
const struct chat_template *worker_template(const struct worker *w);

#endif
