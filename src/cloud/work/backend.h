/*
 * backend: who computes the answers. The endpoints (cloud/api/server_impl.h) know only this: a
 * backend takes jobs (cloud/work/job.h) and reports their events, whether it is the engine thread
 * (cloud/work/worker.h) or servers behind this one (cloud/upstream/upstream.h).
 *
 * The fields of struct backend say what is served and what the backend can do. A backend that takes
 * ids has prompts tokenised and answers detokenised by the endpoints (job.tokens, job_event.token).
 * One that does not takes the request as it was asked (job.asked) and answers with text
 * (job_event.text), with ids where it knows them.
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

/* What a backend did since its start and does now; what it does not know is 0. */
struct backend_stats {
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

/* What a kind of backend implements; the functions below say what each is for. */
struct backend_ops {
    int (*submit)(struct backend *b, struct job *job, struct err *e);
    void (*wish)(struct backend *b, struct job *job); /* NULL: it looks by itself */
    bool (*take_event)(struct backend *b, struct job_event *ret_event);
    const char *(*not_ready)(struct backend *b);
    void (*stats)(struct backend *b, struct backend_stats *ret_stats);
    int (*metrics)(const struct backend *b, struct buf *out); /* NULL: none of its own */
    void (*free)(struct backend *b);
};

/* Only a backend whose servers come and go changes its fields after it was made. */
struct backend {
    const struct backend_ops *ops;
    const struct engine_info *info; /* hashes are "" and numbers 0 while they are not known */
    const struct vocab *vocab;      /* NULL: none */
    const struct chat_template *chat_template; /* NULL: none */
    uint32_t positions_max; /* tokens of prompt and answer in one job; UINT32_MAX: not known */
    bool takes_ids;         /* job.tokens; it has a vocabulary then */
    bool takes_request;     /* job.asked */
    bool gives_logprobs;    /* job_want_logprobs is heard */
};

void backend_free(struct backend *b); /* jobs in work stay the loop's, to free; NULL is fine */

/* ERR_BUSY: all slots are taken, or all of the key's. Events come later, never from inside. */
int backend_submit(struct backend *b, struct job *job, struct err *e);
/* A job's wishes (job.h) have changed. */
void backend_wish(struct backend *b, struct job *job);
/* The next event; false: there is none. Asked after every wake-up (the `wake` of a backend's
 * configuration). What it points to stays until the next call. */
bool backend_take_event(struct backend *b, struct job_event *ret_event);

/* NULL, or a word that says why new jobs would be refused ("busy"). */
const char *backend_not_ready(struct backend *b);
void backend_stats_of(struct backend *b, struct backend_stats *ret_stats); /* any thread */
/* Lines of its own for /metrics. */
int backend_metrics(const struct backend *b, struct buf *out);

#endif
