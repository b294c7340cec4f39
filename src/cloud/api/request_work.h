/*
 * request_work: a request from its whole body to its response or its exchange. What grows with the
 * body (JSON, templates, tokenisation) is `work`; for a large body a helper thread does it
 * (net/offload), so that the loop serves its sockets. What needs the server follows in `finish`.
 *
 * Life: request_work_new takes the body; the endpoint fills in what it knows; request_work_run. A
 * disconnect meanwhile ends it: `finish` is called only while the client is there.
 */
#ifndef PDD_CLOUD_API_REQUEST_WORK_H
#define PDD_CLOUD_API_REQUEST_WORK_H

#include "cloud/api/prompt.h"
#include "cloud/api/server_impl.h"
#include "net/offload.h"
#include "proto/openai.h"

struct request_work;

struct request_work_ops {
    size_t size; /* of the endpoint's struct, zeroed beyond the request_work */
    /* Any thread: reads body and rules, sets `e` and `param` on an error. */
    void (*work)(struct request_work *w);
    /* Loop thread: responds to w->ctx, or gives it to an exchange, which takes the body's place in
     * the budget (exchange_take_body). The bytes are gone. */
    void (*finish)(struct request_work *w);
    void (*release)(struct request_work *w); /* what else the endpoint holds */
};

struct request_work {
    struct offload_task task; /* first */
    struct request_ctx ctx;   /* its http is NULL once the client has gone */
    struct http_body body;
    struct prompt_rules rules;
    const struct request_work_ops *ops;
    uint64_t arrived; /* clock_us() */
    bool large;       /* its work is done by a helper thread */
    struct err e;
    char param[OPENAI_PARAM_MAX]; /* the field that is wrong, or "" */
};

/* NULL: the error was sent (its key is not valid any more, no memory). */
void *request_work_new(struct server *s, struct http_request *r,
                       const struct request_work_ops *ops);
void request_work_run(struct request_work *w);
void request_work_name(struct request_work *w, const char *param); /* the field that is wrong */

#endif
