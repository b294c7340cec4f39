/*
 * worker: the engine thread of `pdd cloud`, a backend. It owns the engine, batches all jobs into
 * steps and reports what happens through a bounded queue.
 *
 * It works on jobs (cloud/work/job.h). Decisions are elsewhere: policy/admit chooses the next job
 * and its grant, policy/sched the content of a step, policy/stepcost the time of a step from
 * measured speeds; engine/prefix knows what need not be computed again.
 *
 * Promises. A job starts when all KV pages that it may need are reserved, so no step fails for
 * memory. If there are too few, it is granted fewer tokens (job.tokens_least), else it waits. A
 * step with running answers takes about step_us, or longer if these alone do; one without about
 * three times that. A cancelled job therefore ends within this time, in prefill too. The tokens of
 * an answer depend on none of this.
 */
#ifndef PDD_CLOUD_WORK_WORKER_H
#define PDD_CLOUD_WORK_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cloud/work/backend.h"

struct worker_config {
    uint32_t streams_max;    /* jobs that run at once */
    uint32_t queue_max;      /* jobs that may wait */
    uint32_t step_tokens;    /* 0: the engine's */
    uint32_t step_us;        /* target time of a step that also decodes; 0: WORKER_STEP_US */
    uint32_t prefill_beside; /* prefill tokens in such a step; 0: as many as its time allows */
    uint32_t cache_pages;    /* idle KV pages that the prefix cache may keep; 0: none */
    bool cache_by_tenant;    /* whether hits stay within a tenant */
    bool unfit;              /* the model fails its needle test: refinement is refused */
    void (*wake)(void *arg); /* called from the worker when events wait */
    void *wake_arg;
};

enum { WORKER_STREAMS_MAX = 8192, WORKER_STEP_US = 100000 };

/* The engine thread as a backend: it takes ids and gives log-probabilities. Takes the engine (on
 * success) and starts the thread. backend_free cancels what runs, joins the thread and frees the
 * engine; queued events are dropped, and the loop frees their jobs. A job's atomics are read once a
 * step. */
int worker_new(struct engine *engine, const struct worker_config *config,
               struct backend **ret_backend, struct err *e);

#endif
