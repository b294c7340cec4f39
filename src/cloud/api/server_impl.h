/*
 * server_impl: what the files of the HTTP server share: the server's parts, and the life of an
 * *exchange*, one request that a job answers. Each endpoint of the server (endpoint_assist.c, ...)
 * begins its own struct with a `struct exchange`, decodes its request, and writes the job's events
 * in its format. Only the server's own files include this.
 *
 * Life of an exchange: exchange_new; a job is made and submitted (exchange_submit); the endpoint
 * attaches the HTTP request (exchange_attach); events arrive at the job's on_event, until JOB_DONE,
 * where the endpoint ends the response (exchange_detach) and frees the exchange. A disconnect
 * cancels the job; the exchange lives on, without a request, until JOB_DONE.
 */
#ifndef PDD_CLOUD_API_SERVER_IMPL_H
#define PDD_CLOUD_API_SERVER_IMPL_H

#include "base/buf.h"
#include "cloud/api/keys.h"
#include "cloud/api/metrics.h"
#include "cloud/api/request_ctx.h"
#include "cloud/api/server.h"
#include "cloud/work/backend.h"
#include "cloud/work/job.h"
#include "model/text/vocab.h"
#include "net/offload.h"
#include "proto/wire.h"

struct exchange {
    struct server *server;
    struct http_request *request; /* NULL after a disconnect or the end of the response */
    struct job *job;
    struct key *key;                /* NULL: the server needs no key */
    struct exchange *next, **link;  /* all exchanges of the server */
    struct detok detok;             /* with the tokens that the client has already */
    enum metrics_endpoint endpoint; /* for counters and logs */
    /* Set by the endpoint before it submits: its client takes a part of an answer and changes the
     * budget on the way (PATCH, DELETE). Else the grant is all or nothing. */
    bool adjustable;
    /* clock_us(); 0: not yet. All set by exchange_deliver, but for `began`: by the endpoint, when
     * the request arrived, or by exchange_submit. */
    uint64_t began, admitted, first_token, last_token;
    uint32_t n_prompt, cached, n_tokens; /* n_tokens: of the answer, so far */
    uint32_t n_thoughts;                 /* pieces of a thought, so far */
    /* Set by the endpoint before it submits: whether it wants log-probabilities, and of how many of
     * the likeliest tokens. */
    bool logprobs;
    uint32_t logprobs_top;
    /* The same: how many streams of its key it takes, where its job is several answers; 0: one. */
    uint32_t streams;
    struct refine *refine;               /* becomes the job's; NULL: not asked for */
    bool complete;                       /* see exchange_complete */
    bool running;                        /* its job is submitted, and JOB_DONE has not come */
    struct http_body body;               /* the place in the budget of what the job keeps of it */
    void (*release)(struct exchange *x); /* what else the endpoint holds; NULL: nothing */
    void (*gone)(struct exchange *x);    /* a disconnect; NULL: its job is cancelled */
    /* A further answer to the prompt of another exchange, or to another prompt of its request: what
     * they share is counted there. */
    bool shares_prompt, shares_request;
    /* Send the head of the stream unless it is sent; false: the response is none. */
    bool (*open_stream)(struct exchange *x);
    uint64_t spoke; /* clock_us() of the last bytes sent; 0: none yet */
    uint32_t quota_tokens,
        unfed; /* quota_use.c: prompt tokens taken from the key, and not computed yet */
    char id[WIRE_ID_MAX], tag[HTTP_TAG_MAX + 1]; /* its own; its request's, for the log */
};

struct server {
    struct loop *loop;
    struct http_server *http;
    struct backend *backend;
    struct offload *offload; /* for large bodies (request_work.h) */
    struct loop_wake *wake;
    struct loop_timer *drain_timer, *quiet_timer;
    struct keys *keys;
    struct tls *tls;                  /* NULL: plain HTTP */
    struct http_server *metrics_http; /* NULL: /metrics is on the main port */
    struct metrics metrics;
    uint64_t started;       /* seconds since 1970 */
    double process_started; /* the same, of the process */
    struct server_config c;
    char model_name[WIRE_NAME_MAX];
    struct exchange *exchanges;
    bool draining;
    struct wire_event event; /* scratch of endpoint_assist.c */
    struct buf bytes;        /* scratch of the encoders */
};

/* `size`: of the endpoint's struct, zeroed beyond the exchange, which takes the request's key.
 * NULL: no memory. */
void *exchange_new(const struct request_ctx *c, enum metrics_endpoint endpoint, size_t size);
void exchange_free(struct exchange *x); /* with its job; NULL is fine */
/* Before exchange_submit: what the job keeps of the request counts in the budget of bodies. */
void exchange_take_body(struct exchange *x, struct http_body *b);
struct exchange *exchange_find(struct server *s, const char *id);
/* Make the job of prompt and `have`, give it an id that begins with `prefix`, clip tokens_max to
 * what the server allows, and submit it. A backend without a vocabulary gets the request itself:
 * the job takes what `q` holds. ERR_BUSY: the queue is full, or c->quota says why not. */
int exchange_submit(struct exchange *x, struct request_ctx *c, const char *prefix,
                    const struct token_list *prompt, struct wire_request *q,
                    void (*on_event)(void *, const struct job_event *), struct err *e);
/* The same in two steps, for a request of several answers: make the job of each; then submit all
 * x[n], those that share the prompt of the exchange before them together with it. On an error those
 * that run are cancelled. */
int exchange_prepare(struct exchange *x, const char *prefix, const struct token_list *prompt,
                     struct wire_request *q, void (*on_event)(void *, const struct job_event *),
                     struct err *e);
/* Another answer to the prompt of `first`, which is prepared. */
int exchange_prepare_choice(struct exchange *x, const struct exchange *first, uint64_t seed,
                            struct err *e);
int exchange_start(struct exchange *const *x, uint32_t n, struct request_ctx *c, struct err *e);
/* Changes of a running one. Extending returns how many tokens it may bring now, at most `wanted`.
 */
uint32_t exchange_extend(struct exchange *x, uint32_t wanted);
void exchange_cancel(struct exchange *x);
/* A stop string ended the answer: cancel what is still computed. */
void exchange_complete(struct exchange *x);
/* Append the text of a token event, as whole characters. */
int exchange_text(struct exchange *x, const struct job_event *ev, struct buf *out);
void exchange_attach(struct exchange *x, struct http_request *r); /* a disconnect cancels */
struct http_request *exchange_detach(struct exchange *x);         /* NULL: the client has gone */
void exchange_send(struct exchange *x, const void *data,
                   size_t n);              /* to the stream, if the client is there */
void exchange_cut_off(struct exchange *x); /* end it: a stream with a hole is worse than none */
/* Send what was written to the server's scratch (`bytes`); a `code` cuts the stream off. */
void exchange_send_scratch(struct exchange *x, int code);
void exchange_end_stream(struct exchange *x); /* all is sent: the response ends, its request goes */
/* A comment to each stream that is silent for too long; the timer of `server` calls it. */
void exchange_break_silence(void *server);
/* For OpenAI's API: the error that a job's end without an answer is; else 0. */
int exchange_check_reason(enum wire_reason reason, struct err *e);
/* For OpenAI's API: end the response with an error: as its status, or in a stream that has `begun`
 * as its last object. */
void exchange_fail(struct exchange *x, bool begun, const struct job_failure *f);
/* The log line of one that ends with the process. */
void exchange_log_stopped(const struct exchange *x);
/* Every event of a job passes through this on its way to the endpoint: times, counters, log. */
void exchange_deliver(const struct job_event *ev);

/* quota_use.c. Take one request of the request's key; false: none is left, and the 429 was sent. */
bool quota_use_request(struct request_ctx *c);
/* Take an exchange's tokens and stream from its key's quotas (ERR_BUSY: see `refusal`), undo that,
 * and follow its events. */
int quota_use_begin(struct exchange *x, struct quota_refusal *refusal, struct err *e);
void quota_use_undo(struct exchange *x);
void quota_use_event(struct exchange *x, const struct job_event *ev);
/* Tokens that only the end of an answer tells. */
void quota_use_more(struct exchange *x, uint32_t n);

/* endpoint_pass.c: respond to a request that is passed on (q->ask.passed). */
struct request_work;
struct openai_request;
void pass_begin(struct request_work *w, struct openai_request *q);

/* The endpoints: handlers of server.c's routes. */
void assist_post(struct http_request *r, void *server);
void assist_patch(struct http_request *r, void *server);
void assist_delete(struct http_request *r, void *server);
void openai_post_chat(struct http_request *r, void *server);
void openai_post_completion(struct http_request *r, void *server);
void tokenize_post(struct http_request *r, void *server);
void detokenize_post(struct http_request *r, void *server);
void models_list(struct http_request *r, void *server);
void models_one(struct http_request *r, void *server);
void status_health(struct http_request *r, void *server);
void status_ready(struct http_request *r, void *server);
void status_metrics(struct http_request *r, void *server);
void status_metrics_open(struct http_request *r, void *server); /* needs no key */

#endif
