/* exchange: one request that a job answers; see server_impl.h. */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cloud/server_impl.h"

void *exchange_new(struct server *s, size_t size)
{
    struct exchange *x = mem_calloc(1, size);
    if (!x) return NULL;
    x->server = s;
    x->next = s->exchanges;
    x->link = &s->exchanges;
    if (x->next) x->next->link = &x->next;
    s->exchanges = x;
    detok_init(&x->detok, true);
    return x;
}

void exchange_free(struct exchange *x)
{
    if (!x) return;
    *x->link = x->next;
    if (x->next) x->next->link = x->link;
    job_free(x->job);
    mem_free(x);
}

struct exchange *exchange_find(struct server *s, const char *id)
{
    for (struct exchange *x = s->exchanges; x; x = x->next)
        if (x->request && strcmp(x->id, id) == 0) return x;
    return NULL;
}

static int make_id(const char *prefix, char id[WIRE_ID_MAX])
{
    uint64_t x[2];
    if (getrandom(x, sizeof x, 0) != (ssize_t)sizeof x) return ERR_INTERNAL;
    snprintf(id, WIRE_ID_MAX, "%s%016llx%016llx", prefix, (unsigned long long)x[0],
             (unsigned long long)x[1]);
    return 0;
}

uint32_t exchange_tokens_max(const struct exchange *x, uint32_t wish)
{
    uint32_t room = worker_positions_max(x->server->worker) - x->job->n_tokens;
    if (wish > x->server->c.tokens_max) wish = x->server->c.tokens_max;
    return wish < room ? wish : room;
}

/* What the client has already must be in the detokenizer: half a character may be open. */
static int skip_have(struct exchange *x, const struct wire_request *q, struct err *e)
{
    struct buf *text = &x->server->bytes;
    for (uint32_t i = 0; i < q->n_have; i++) {
        buf_clear(text);
        int code = detok_push(&x->detok, worker_vocab(x->server->worker), q->have[i], text);
        if (code) return err_set(e, code, "have[%u]: token %d has no text", i, q->have[i]);
    }
    return 0;
}

int exchange_submit(struct exchange *x, const char *prefix, const struct token_list *prompt,
                    const struct wire_request *q,
                    void (*on_event)(void *, const struct job_event *), struct err *e)
{
    int code = job_new(prompt->ids, prompt->len, q->have, q->n_have, &x->job, e);
    if (code) return code;
    atomic_store(&x->job->tokens_max, exchange_tokens_max(x, q->tokens_max));
    x->job->owner = x;
    x->job->on_event = on_event;
    x->job->sampling = q->sampling;
    x->n_prompt = prompt->len;
    x->began = clock_us();
    if (q->deadline_ms) x->job->deadline = x->began + q->deadline_ms * 1000ull;
    code = skip_have(x, q, e);
    if (code == 0 && make_id(prefix, x->id))
        code = err_set(e, ERR_INTERNAL, "no random numbers from the system");
    if (code == 0 && worker_submit(x->server->worker, x->job))
        code = err_set(e, ERR_BUSY, "all streams are taken and the queue is full; try again later");
    return code;
}

/* The client has gone: whatever is still computed for it is wasted. */
static void client_gone(void *arg)
{
    struct exchange *x = arg;
    x->request = NULL;
    atomic_store(&x->job->cancelled, true);
}

void exchange_attach(struct exchange *x, struct http_request *r)
{
    x->request = r;
    http_request_on_close(r, client_gone, x);
}

struct http_request *exchange_detach(struct exchange *x)
{
    struct http_request *r = x->request;
    x->request = NULL;
    if (r) http_request_on_close(r, NULL, NULL);
    return r;
}

void exchange_send(struct exchange *x, const void *data, size_t n)
{
    if (x->request) http_stream_send(x->request, data, n); /* on failure client_gone follows */
}

void exchange_cut_off(struct exchange *x)
{
    if (!x->request) return;
    http_request_abort(x->request);
    client_gone(x);
}

void exchange_refuse(struct http_request *r, const struct err *e, const char *param)
{
    if (e->code == ERR_BUSY) http_request_reply_header(r, "Retry-After", "1");
    if (e->code == ERR_LIMIT)
        http_reply_error(r, 400, "context_length_exceeded", param, "%s", e->text);
    else
        http_reply_err(r, e, param);
}

void exchange_log(const struct exchange *x, const char *what, const struct job_event *done)
{
    log_line(LOG_INFO, "cloud",
             "%s %s prompt=%u have=%u cached=%u tokens=%u end=%s first_ms=%.1f ms=%.1f", what,
             x->id, x->n_prompt, x->job->n_have, x->cached, done->produced,
             done->error.code ? err_code_name(done->error.code) : wire_reason_name(done->reason),
             x->first_token ? (double)(x->first_token - x->began) / 1e3 : 0.0,
             (double)(clock_us() - x->began) / 1e3);
}
