/*
 * request_ctx: one HTTP request while its handler runs: whose it is, and why its key's quota
 * refuses it. It lives on the handler's stack, or with a request_work; an exchange takes the key
 * and outlives it. On the loop thread.
 */
#ifndef PDD_CLOUD_API_REQUEST_CTX_H
#define PDD_CLOUD_API_REQUEST_CTX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cloud/api/keys.h"
#include "cloud/work/job.h"
#include "net/http_server.h"

struct server;

/* Why a quota refused, besides the sentence. */
struct quota_refusal {
    const char *code; /* OpenAI's name of the error; NULL: no quota refused */
    uint32_t retry_s; /* 0: not known */
    bool never;       /* waiting cannot help */
};

struct request_ctx {
    struct server *server;
    struct http_request *http;
    struct key *key; /* NULL: the server needs no key, or it has no valid one */
    struct quota_refusal quota;
};

/* The http_gate of paths that need a key: it checks the key before reading the body. */
bool request_gate(struct http_request *r, void *server);
/* The same for POST: it also takes one request from the key's bucket, whatever becomes of it.
 * PATCH, DELETE and GET take one with quota_use_request, and only when they are refused. */
bool request_gate_work(struct http_request *r, void *server);
/* The server refused a body: the log line. */
void request_body_refused(struct http_request *r, int status, const char *reason, void *server);

/* Fill `c`. False: the key is not valid, or not any more now that the body has come; the error
 * response was sent. */
bool request_authorised(struct request_ctx *c, struct server *s, struct http_request *r);
/* False: the server drains, or does not serve this model ("" it does); the error response was sent.
 */
bool request_accepts(struct request_ctx *c, const char *model);
/* Refuse it before any work: count and log it, and send the error with its status. */
void request_refuse(struct request_ctx *c, const struct err *e, const char *param);
/* The log line of a request that its handler refuses by itself. Call it before the response. */
void request_log_refusal(const struct request_ctx *c, int status, const char *reason);

/* For a job that failed while nothing of its answer was sent: `f` is of its JOB_DONE, which has its
 * own log line. */
void request_refuse_job(struct server *s, struct http_request *r, const struct job_failure *f);

#endif
