/* request_work: see request_work.h. */
#include "cloud/api/request_work.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

/* Bodies up to this many bytes are worked on at once: the worst of them takes the loop a few
 * milliseconds, and most requests save a thread's wake-up. */
enum { AT_ONCE_BYTES = 16 * 1024 };

static void release(struct request_work *w)
{
    w->ops->release(w);
    http_body_release(&w->body);
    mem_free(w);
}

/* The work is done; its key is asked for again, since the file may have been read meanwhile. */
static void complete(struct request_work *w)
{
    struct http_request *r = w->ctx.http;
    http_body_free_bytes(&w->body);
    if (r && w->large) http_request_on_close(r, NULL, NULL);
    if (r && (!w->large || request_authorised(&w->ctx, w->ctx.server, r))) w->ops->finish(w);
    release(w);
}

static void work(struct offload_task *t)
{
    struct request_work *w = (struct request_work *)t;
    w->ops->work(w);
}

static void done(struct offload_task *t)
{
    complete((struct request_work *)t);
}

/* The server ends; its requests are cut later. */
static void drop(struct offload_task *t)
{
    struct request_work *w = (struct request_work *)t;
    if (w->ctx.http) http_request_on_close(w->ctx.http, NULL, NULL);
    release(w);
}

static void client_gone(void *arg)
{
    struct request_work *w = arg;
    w->ctx.http = NULL;
    if (offload_cancel(w->ctx.server->offload, &w->task)) release(w);
}

void *request_work_new(struct server *s, struct http_request *r, const struct request_work_ops *ops)
{
    struct request_ctx c;
    if (!request_authorised(&c, s, r)) return NULL;
    struct request_work *w = mem_calloc(1, ops->size);
    if (!w) {
        struct err e = ERR_INIT;
        err_set(&e, ERR_NO_MEMORY, "no memory for the request");
        request_refuse(&c, &e, NULL);
        return NULL;
    }
    w->task = (struct offload_task){.work = work, .done = done, .drop = drop};
    w->ctx = c;
    w->ops = ops;
    w->arrived = clock_us();
    http_request_take_body(r, &w->body);
    prompt_rules_of(s->backend, &w->rules);
    return w;
}

void request_work_name(struct request_work *w, const char *param)
{
    snprintf(w->param, sizeof w->param, "%s", param);
}

/* On whose behalf: a key, or without one a client's address. */
static uint64_t owner_of(const struct request_ctx *c)
{
    return c->key ? c->key->tenant : http_request_peer_id(c->http);
}

void request_work_run(struct request_work *w)
{
    w->large = w->body.bytes.len > AT_ONCE_BYTES;
    if (!w->large) {
        w->ops->work(w);
        complete(w);
        return;
    }
    w->task.size = w->body.bytes.len;
    w->task.owner = owner_of(&w->ctx);
    if (offload_submit(w->ctx.server->offload, &w->task, &w->e) == 0) {
        http_request_on_close(w->ctx.http, client_gone, w);
        return;
    }
    request_refuse(&w->ctx, &w->e, NULL);
    release(w);
}
