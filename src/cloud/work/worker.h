/*
 * worker: the engine thread of `pdd cloud`, a backend. It owns the engine, batches all jobs into
 * steps and reports what happens through a bounded queue.
 *
 * It works on jobs (cloud/work/job.h). What it does with them is decided elsewhere: who begins
 * next, and with how many tokens, by policy/admit; what a step holds by policy/sched; how long a
 * step may take by policy/stepcost, from the speeds that it measures; what need not be computed
 * again by cloud/work/prefix.
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
#include "cloud/work/backend.h"

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

/* The engine thread as a backend: it takes ids and gives log-probabilities. Takes the engine (on
 * success), starts the thread. backend_free cancels what runs, joins the thread, frees the engine;
 * events still queued are dropped with their jobs' memory left to the loop. A job's changed wishes
 * are read at the next step at the latest. */
int worker_new(struct engine *engine, const struct worker_config *config,
               struct backend **ret_backend, struct err *e);

#endif
