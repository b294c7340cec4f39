/*
 * job: one answer on its way: the seam between the endpoints, which want it
 * (cloud/api/server_impl.h), and whoever computes it (cloud/work/backend.h).
 *
 * Life: the loop thread makes a job, submits it and from then on touches only its atomic wishes.
 * Whoever computes reports events, the last of which is JOB_DONE; they reach `on_event` on the loop
 * thread. After JOB_DONE the job is the loop's again, to free. Who changes a wish says so with
 * backend_wish.
 */
#ifndef PDD_CLOUD_WORK_JOB_H
#define PDD_CLOUD_WORK_JOB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sampling.h"
#include "proto/wire.h"

struct job_event;

/* A token and the natural log of its probability at temperature 1; id -1: there is none. */
struct job_logprob {
    int32_t id;
    float logprob;
};

enum { JOB_LOGPROBS_TOP_MAX = 20 };

/* Why whoever computes gave up. */
struct job_failure {
    struct err e;
    int status;             /* HTTP status that tells it best; 0: by e.code */
    uint32_t retry_after_s; /* 0: not said */
};

struct job {
    void (*on_event)(void *owner, const struct job_event *ev);
    void *owner;     /* the loop's, like on_event */
    int32_t *tokens; /* [n_tokens] prompt, then the tokens the device has already; NULL: as asked */
    uint32_t n_tokens, n_have;
    struct wire_request asked; /* for a backend that is not the engine; else empty */
    struct sampling sampling;
    uint64_t deadline;     /* clock_us(); UINT64_MAX: none */
    void *backend_data;    /* the backend's own; nobody else looks at it */
    uint32_t tenant;       /* whose work it is, for fairness: index of the key; 0: nobody's */
    int32_t priority;      /* each step up doubles the tenant's share; 0: as everybody */
    uint32_t tokens_least; /* when memory is short, tokens_max may be cut down to this; 0: to
                              what the server thinks fit. tokens_max: all or wait */
    /* [n_logprobs, 1 + logprobs_top] of each token of the answer: itself, then the likeliest ones
     * in order; NULL: not asked for, or the job has not begun: those that wait hold no memory for
     * it. A row is written before its token is reported, never after. */
    struct job_logprob *logprobs;
    uint32_t n_logprobs, logprobs_top;
    bool wants_logprobs;
    struct job_failure failure; /* of whoever computes, until the event that tells it */
    /* wishes of the loop */
    atomic_uint tokens_max; /* may grow, as far as there is KV memory; less than sent: the end.
                               Who computes lowers it once, before ADMITTED, to what it grants */
    atomic_bool cancelled, drained;
};

int job_new(const int32_t *prompt, uint32_t n_prompt, const int32_t *have, uint32_t n_have,
            struct job **ret_job, struct err *e);
/* A job without tokens of ours; job_take_asked follows. */
int job_new_asked(struct job **ret_job, struct err *e);
/* The job takes what `q` holds and leaves it empty (wire_request_init). */
void job_take_asked(struct job *j, struct wire_request *q);
void job_free(struct job *j);

/* Ask for the probabilities of the answer's tokens, each with the `top` likeliest ones (at most
 * JOB_LOGPROBS_TOP_MAX), before the job is submitted. */
void job_want_logprobs(struct job *j, uint32_t top);
/* For whoever computes, before ADMITTED: memory for those of the first n tokens, if they are
 * wanted. ERR_NO_MEMORY. */
int job_make_logprobs(struct job *j, uint32_t n, struct err *e);
/* For whoever computes: fill row i, when it was asked for. `logits` [vocab_size] are those that the
 * token was drawn from, `logprob` what its draw gave; NULL: only the token itself is known. */
void job_note_logprobs(struct job *j, uint32_t i, struct job_logprob token, const float *logits,
                       uint32_t vocab_size);
/* NULL: none. [1 + logprobs_top] */
const struct job_logprob *job_logprobs_of(const struct job *j, uint32_t i);

enum job_event_kind { JOB_ADMITTED, JOB_PROGRESS, JOB_TOKEN, JOB_DONE };

struct job_event {
    enum job_event_kind kind;
    struct job *job;
    uint64_t at;            /* clock_us() of the report; 0: not known */
    uint32_t cached;        /* ADMITTED: tokens whose KV was there; DONE: and those found later */
    uint32_t prompt_tokens; /* ADMITTED, DONE, without job.tokens; 0: not told */
    enum wire_match match;  /* ADMITTED: no closer to the device's model than this */
    uint32_t done, total;   /* PROGRESS */
    uint32_t index;         /* TOKEN: absolute index in the answer */
    int32_t token;          /* TOKEN; -1: only its text is known */
    const char *text;       /* TOKEN: UTF-8, until the next event is taken; NULL: look at token */
    size_t text_len;
    enum wire_reason reason;           /* DONE */
    uint32_t produced;                 /* DONE: tokens sent */
    const struct job_failure *failure; /* DONE: the job's; NULL: it did not fail */
};

_Static_assert(sizeof(struct job_event) <= 128, "an event for each token: keep it small");

#endif
