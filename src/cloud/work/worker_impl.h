/*
 * worker_impl: what the files of the worker share: worker.c (the thread, its queues, the calls of
 * other threads), worker_admit.c (admission and grants), worker_step.c (steps and their
 * results) and worker_refine.c (which tokens a device needs). All but worker.c's public functions
 * run on the worker's thread.
 */
#ifndef PDD_CLOUD_WORK_WORKER_IMPL_H
#define PDD_CLOUD_WORK_WORKER_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/queue.h"
#include "cloud/work/slots.h"
#include "cloud/work/worker.h"
#include "engine/history.h"
#include "policy/admit.h"
#include "policy/sched.h"
#include "policy/stepcost.h"

/* A job that runs. */
struct running {
    struct job *job;
    struct history history;
    uint32_t fed;        /* of job->tokens, in the session */
    uint32_t cached;     /* of those, not computed */
    uint32_t produced;   /* tokens sent */
    uint32_t granted;    /* of job->tokens_max, as far as KV pages are reserved */
    uint32_t promise;    /* reserved pages that it has not taken yet */
    int32_t next;        /* sampled, not yet in the session */
    bool refining;       /* its scores are gathered */
    uint32_t feed_first; /* of job->tokens, fewer than this come from the cache */
    uint64_t arrived, served;
};

struct worker {
    struct backend b; /* first */
    struct engine *engine;
    struct worker_config c;
    struct queue *jobs, *events;
    pthread_t thread;
    atomic_bool quit;
    struct slots inside;   /* of jobs accepted and not yet done */
    atomic_uint slots_now; /* streams_max, or fewer while memory keeps jobs waiting */
    struct running running[WORKER_STREAMS_MAX];
    uint32_t n_running;
    uint32_t promised; /* reserved KV pages of all running jobs */
    struct admit_line *line;
    uint64_t line_tokens,
        prefill_left;  /* tokens of prompts that wait, and of running ones that are not prefilled */
    uint64_t swept;    /* when the queue was last searched for cancelled jobs */
    uint64_t last_end; /* of a job, while others waited; 0: none waited */
    double between_ends_us;
    const struct job *blocked; /* the next job, for which blocked_at spare pages were too few */
    uint32_t blocked_at;
    struct job *released; /* further answers that may join the line, by job.next */
    struct prefix *prefix;
    uint64_t arrivals;
    struct sched *sched;
    struct stepcost cost;
    struct sched_item items[WORKER_STREAMS_MAX];
    struct engine_span *spans; /* [spans_max] */
    uint32_t *span_of;         /* [spans_max] index into running */
    pthread_mutex_t stats_mutex;
    struct backend_stats stats; /* for other threads, */
    struct backend_stats own;   /* and the worker's counts */
};

_Static_assert((int)WORKER_STREAMS_MAX <= (int)SCHED_ITEMS_MAX, "all streams can be planned");
_Static_assert((int)ADMIT_PAGE == (int)ENGINE_PAGE, "pages of the policy are those of the engine");

/* worker.c */
void worker_send(struct worker *w, struct job_event ev);
void worker_finish(struct worker *w, struct job *job, const struct running *r,
                   enum wire_reason reason, const struct err *error); /* r NULL: it never ran */
/* The further answers to a job's prompt join the line when the next step is planned. */
void worker_release_choices(struct worker *w, struct job *job);
uint32_t worker_tenant(const struct job *job);
uint32_t worker_scope(const struct worker *w, const struct job *job);

/* worker_admit.c */
void worker_drop_unwanted(struct worker *w);
void worker_extend_grants(struct worker *w);
void worker_admit(struct worker *w);
void worker_end(struct worker *w, uint32_t i, enum wire_reason reason, const struct err *error);
/* After the session has grown: its pages join the prefix cache, its reservation shrinks. */
void worker_note_growth(struct worker *w, struct running *r);
/* Take from the cache what other jobs have computed meanwhile of a prompt that is not yet fed. */
void worker_catch_up(struct worker *w, struct running *r);

/* worker_refine.c */

/* Before anything of the prompt is in the session. ERR_NO_MEMORY. */
int worker_refine_begin(struct worker *w, struct running *r, struct err *e);
/* What is refused without scores; after JOB_ADMITTED. */
void worker_refine_admitted(struct worker *w, struct running *r);
/* The session has grown, and all of the prompt is in it: report a version that is due. */
void worker_refine(struct worker *w, struct running *r);

/* worker_step.c */
void worker_step(struct worker *w);

#endif
