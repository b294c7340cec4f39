/*
 * backend: computes the answers. The endpoints (cloud/api/server_impl.h) know only this interface:
 * a backend takes jobs (cloud/work/job.h) and reports their events. It is the engine thread
 * (cloud/work/worker.h) or upstream servers (cloud/upstream/upstream.h).
 *
 * The fields of struct backend say what is served and what the backend can do. For a backend that
 * takes ids, the endpoints tokenise prompts and detokenise answers (job.tokens, job_event.token).
 * Another backend takes the request itself (job.asked) and returns text (job_event.text), with ids
 * where it knows them.
 *
 * Threads: all functions and fields belong to the loop thread, but for backend_stats_of.
 */
#ifndef PDD_CLOUD_WORK_BACKEND_H
#define PDD_CLOUD_WORK_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "cloud/work/job.h"
#include "engine/engine.h"

struct backend;

/* What a backend did since its start and does now; unknown values are 0. */
struct backend_stats {
    uint64_t steps, step_us; /* steps of the engine, and the time they took in all */
    uint64_t prefill_tokens, decode_tokens;
    uint64_t spans;                        /* sessions in steps, summed up */
    uint64_t cached_tokens;                /* taken from the prefix cache instead of computed */
    uint64_t cache_hits, cache_misses;     /* jobs with and without a cached prefix */
    uint64_t cache_evictions;              /* pages */
    uint64_t grants_cut;                   /* jobs that were granted less than they asked for */
    uint64_t refined, refine_refused;      /* prompts */
    uint64_t refined_tokens, refined_kept; /* of refined prompts; of these, kept for the device */
    uint64_t refine_us;                    /* the time of the choices, without the scores */
    uint32_t running, waiting;
    uint32_t kv_pages_free, kv_pages_cached; /* the latter: held by the prefix cache alone */
    uint32_t step_tokens;                    /* the most a step may hold */
    uint32_t prefill_tps;                    /* measured lately */
    uint32_t retry_after_s;                  /* until about half of the queue has begun */
};

/* What a kind of backend implements; the functions below document each. */
struct backend_ops {
    int (*submit)(struct backend *b, struct job *job, struct err *e);
    void (*changed)(struct backend *b, struct job *job); /* NULL: it reads the job by itself */
    bool (*take_event)(struct backend *b, struct job_event *ret_event);
    const char *(*not_ready)(struct backend *b);
    void (*stats)(struct backend *b, struct backend_stats *ret_stats);
    int (*metrics)(const struct backend *b, struct buf *out); /* NULL: none of its own */
    void (*free)(struct backend *b);
};

/* Fields are constant, except where upstream servers come and go. */
struct backend {
    const struct backend_ops *ops;
    const struct engine_info *info; /* hashes are "" and numbers 0 while they are not known */
    const struct vocab *vocab;      /* NULL: none */
    const struct chat_template *chat_template; /* NULL: none */
    uint32_t positions_max; /* tokens of prompt and answer in one job; UINT32_MAX: not known */
    uint32_t jobs_max;      /* of one key at once, in work and waiting; UINT32_MAX: not known */
    bool takes_ids;         /* job.tokens; it has a vocabulary then */
    bool takes_request;     /* job.asked */
    bool refines;           /* honours job.refine */
    bool gives_logprobs;    /* honours job_want_logprobs */
    bool gives_choices;     /* honours job.next */
};

void backend_free(struct backend *b); /* the loop frees jobs that run; NULL is fine */

/* The job and those in job.next, or none of them. ERR_BUSY: all slots are taken, or all of the
 * key's. Events never come from inside the call. */
int backend_submit(struct backend *b, struct job *job, struct err *e);
/* Call it after a change of the job's atomics (job.h). */
void backend_changed(struct backend *b, struct job *job);
/* The next event; false: none. Call it after every wake-up (the `wake` of a backend's
 * configuration). What it points to stays until the next call. */
bool backend_take_event(struct backend *b, struct job_event *ret_event);

/* NULL, or in a word why new jobs would be refused ("busy"). */
const char *backend_not_ready(struct backend *b);
void backend_stats_of(struct backend *b, struct backend_stats *ret_stats); /* any thread */
/* Lines of its own for /metrics. */
int backend_metrics(const struct backend *b, struct buf *out);

#endif
