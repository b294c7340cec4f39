/*
 * job: one answer to compute: the seam between the endpoints (cloud/api/server_impl.h) and a
 * backend (cloud/work/backend.h).
 *
 * Life: the loop thread makes a job, submits it and from then on touches only its atomics. The
 * backend reports events, the last of which is JOB_DONE; they reach `on_event` on the loop thread.
 * After JOB_DONE the loop frees the job. After changing an atomic, call backend_changed.
 */
#ifndef PDD_CLOUD_WORK_JOB_H
#define PDD_CLOUD_WORK_JOB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sampling.h"
#include "proto/wire.h"
#include "refine/refine.h"

struct job_event;

/* A token and the natural log of its probability at temperature 1; id -1: there is none. */
struct job_logprob {
    int32_t id;
    float logprob;
};

enum { JOB_LOGPROBS_TOP_MAX = 20, JOB_WORD_MAX = 64 };

/* Why the backend failed. */
struct job_failure {
    struct err e;
    int status;             /* HTTP status; 0: by e.code */
    uint32_t retry_after_s; /* 0: not said */
    /* An upstream server's own words for a fault of the request; "": none */
    char code[JOB_WORD_MAX], param[JOB_WORD_MAX];
};

struct job {
    void (*on_event)(void *owner, const struct job_event *ev);
    void *owner;     /* of on_event */
    int32_t *tokens; /* [n_tokens] prompt, then the tokens the device has; NULL: see asked */
    uint32_t n_tokens, n_have;
    bool borrows; /* its tokens are another job's: see job_new_choice */
    /* Further answers to the same prompt, submitted with this one. They begin when the prompt is
     * computed, or this job over. The backend's from then on; NULL: none. */
    struct job *next;
    struct wire_request asked; /* for a backend that takes the request; else empty. The backend
                                  frees it as soon as it can, at the latest with the first token:
                                  until then it counts in the budget of bodies */
    struct sampling sampling;
    uint64_t deadline;     /* clock_us(); UINT64_MAX: none */
    void *backend_data;    /* private to the backend */
    uint32_t tenant;       /* for fairness: index of the key; 0: no key */
    int32_t priority;      /* each step up doubles the tenant's share; 0: the usual */
    uint32_t tokens_least; /* when memory is short, tokens_max may be cut to this; 0: to what
                              the server chooses; tokens_max: all or wait */
    /* [n_logprobs, 1 + logprobs_top] of each token of the answer: itself, then the likeliest ones
     * in order; NULL: not requested, or the job waits, which takes no memory for it. A row is
     * complete when its token is reported. */
    struct job_logprob *logprobs;
    uint32_t n_logprobs, logprobs_top;
    bool wants_logprobs;
    struct refine *refine;      /* the job's; NULL: its prompt is not refined */
    struct job_failure failure; /* the backend's, until it is reported */
    /* Of an upstream server with OpenAI's API; the first two are complete at DONE: */
    char finish[JOB_WORD_MAX];      /* a finish_reason that is neither stop nor length; or "" */
    char *usage;                    /* of an answer that is passed on, JSON; NULL: not told */
    char fingerprint[JOB_WORD_MAX]; /* as far as it is known */
    /* atomics, set by the loop */
    atomic_uint tokens_max; /* may grow while there is KV memory; less than sent: the end. The
                               backend lowers it once, before ADMITTED, to what it grants */
    atomic_bool cancelled, drained;
};

int job_new(const int32_t *prompt, uint32_t n_prompt, const int32_t *have, uint32_t n_have,
            struct job **ret_job, struct err *e);
/* Another answer to the prompt of `first`, which has no `have` and outlives it. */
int job_new_choice(const struct job *first, struct job **ret_job, struct err *e);
/* A job without tokens of ours; job_take_asked follows. */
int job_new_asked(struct job **ret_job, struct err *e);
/* Move the content of `q` into the job; `q` is empty then (wire_request_init). */
void job_take_asked(struct job *j, struct wire_request *q);
void job_free(struct job *j);

/* Ask for the probabilities of the answer's tokens, each with the `top` likeliest ones (at most
 * JOB_LOGPROBS_TOP_MAX). Call it before submitting the job. */
void job_want_logprobs(struct job *j, uint32_t top);
/* For the backend, before ADMITTED: memory for those of the first n tokens, if they were
 * requested. ERR_NO_MEMORY. */
int job_make_logprobs(struct job *j, uint32_t n, struct err *e);
/* For the backend: fill row i, if requested. The token was drawn from `logits` [vocab_size]; NULL:
 * only the token itself is known. */
void job_note_logprobs(struct job *j, uint32_t i, struct job_logprob token, const float *logits,
                       uint32_t vocab_size);
/* NULL: none. [1 + logprobs_top] */
const struct job_logprob *job_logprobs_of(const struct job *j, uint32_t i);

/* JOB_THOUGHT: a piece of text that the model thinks before it answers, from a server that parts
 * the two. JOB_CHUNK: of a request that is passed on (asked.passed), instead of tokens and
 * thoughts: members of a chunk of OpenAI's API or, where the client wants no stream, of the whole
 * answer. */
enum job_event_kind {
    JOB_ADMITTED,
    JOB_PROGRESS,
    JOB_REFINED,
    JOB_THOUGHT,
    JOB_TOKEN,
    JOB_CHUNK,
    JOB_DONE
};

struct job_event {
    enum job_event_kind kind;
    struct job *job;
    uint64_t at;            /* clock_us() of the report; 0: not known */
    uint32_t cached;        /* ADMITTED: tokens whose KV was cached; PROGRESS, DONE: the same, where
                               it was found later */
    uint32_t prompt_tokens; /* ADMITTED, DONE, without job.tokens; 0: not known */
    enum wire_match match;  /* ADMITTED: the best match that is possible */
    uint32_t done, total;   /* PROGRESS */
    const struct refined *refined; /* REFINED: of job.refine */
    uint32_t index;                /* TOKEN: absolute index in the answer */
    int32_t token;                 /* TOKEN; -1: only its text is known */
    const char
        *text; /* TOKEN, THOUGHT, CHUNK: UTF-8, until the next event is taken; NULL: see token */
    size_t text_len;
    enum wire_reason reason;           /* DONE */
    uint32_t produced;                 /* DONE: tokens sent; CHUNK: in it */
    const struct job_failure *failure; /* DONE: the job's; NULL: it did not fail */
};

_Static_assert(sizeof(struct job_event) <= 128, "an event for each token: keep it small");

#endif
