/* upstream_request: one job at the upstream servers; see upstream_impl.h. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "cloud/upstream/upstream_impl.h"

/* Most progress events of a prefill: a server that sends more must not fill the memory. */
enum { PROGRESS_STEPS = 1024 };

/* How long a connection may take to end after its answer. */
enum { LINGER_US = 1000000 };

enum { STATUS_NONE = 503, STATUS_BAD_GATEWAY = 502, STATUS_GATEWAY_TIMEOUT = 504 };

/* Why a server did not answer. */
struct failure {
    enum upstream_fault fault;
    struct err e;
    int status; /* for the client */
    uint32_t retry_after_s;
    bool ours; /* the request is at fault, not the server: do not try another */
};

static void next_server(struct upstream_request *o, const struct failure *last);
static void extend_if_wished(struct upstream_request *o);

/* ---- events ---- */

static struct upstream_event *new_event(size_t text)
{
    return mem_calloc(1, sizeof(struct upstream_event) + text);
}

static void leave_route(struct upstream_request *o)
{
    if (!o->server) return;
    o->u->routes[o->server->index].outstanding--;
    o->server = NULL;
}

static void leave_server(struct upstream_request *o)
{
    http_call_cancel(o->call);
    http_call_cancel(o->patch);
    o->call = o->patch = NULL;
    leave_route(o);
}

static void leave_job(struct upstream_request *o)
{
    struct job *job = o->job;
    if (!job) return;
    job->backend_data = NULL;
    o->job = NULL;
    slots_leave(&o->u->taken, job->tenant);
}

static void close_stream(struct upstream_request *o)
{
    if (!o->open) return;
    sse_parser_release(&o->sse);
    dialect_stream_release(&o->stream);
    o->open = false;
}

void upstream_request_free(struct upstream_request *o)
{
    leave_server(o);
    close_stream(o);
    leave_job(o);
    if (o->lingers) o->u->lingering--;
    *o->link = o->next;
    if (o->next) o->next->link = o->link;
    loop_timer_free(o->stall);
    mem_free(o->end);
    mem_free(o);
}

/* The job's last event is on its way; the request goes when no callback of it runs any more. */
static void tell_end(struct upstream_request *o)
{
    o->over = true;
    leave_job(o);
    upstream_push(o->u, o->end);
    o->end = NULL;
}

static void end(struct upstream_request *o)
{
    if (o->server && o->call) o->server->closed++;
    leave_server(o);
    tell_end(o);
    if (!o->inside) upstream_request_free(o);
}

static void fill_end(struct upstream_request *o, enum wire_reason reason)
{
    o->end->ev.reason = reason;
    o->end->ev.produced = o->sent;
    if (o->open) o->end->ev.prompt_tokens = o->stream.prompt_tokens;
}

static void finish(struct upstream_request *o, enum wire_reason reason)
{
    fill_end(o, reason);
    end(o);
}

/* The answer is whole. The connection is left to end by itself, so that it can be used again, but
 * not for long, and not more of them than there are slots. */
static void finish_whole(struct upstream_request *o)
{
    struct upstream *u = o->u;
    fill_end(o, o->stream.reason);
    tell_end(o);
    leave_route(o);
    http_call_cancel(o->patch);
    o->patch = NULL;
    if (u->lingering >= u->c.streams_max) {
        http_call_cancel(o->call);
        o->call = NULL;
        return; /* always inside a callback, which frees it */
    }
    o->lingers = true;
    u->lingering++;
    loop_timer_set(o->stall, clock_us() + LINGER_US);
}

static void fail(struct upstream_request *o, const struct failure *f)
{
    o->job->failure = (struct job_failure){f->e, f->status, f->retry_after_s};
    o->end->ev.failure = &o->job->failure;
    o->end->ev.produced = o->sent;
    end(o);
}

static bool push(struct upstream_request *o, struct job_event ev, const char *text, size_t n)
{
    struct upstream_event *x = new_event(n);
    if (!x) {
        struct failure f = {.status = STATUS_NONE};
        err_set(&f.e, ERR_NO_MEMORY, "no memory for an answer");
        fail(o, &f);
        return false;
    }
    x->ev = ev;
    x->ev.job = o->job;
    if (text) {
        if (n) memcpy(x + 1, text, n);
        x->ev.text = (const char *)(x + 1);
        x->ev.text_len = n;
    }
    upstream_push(o->u, x);
    return true;
}

static bool admit(struct upstream_request *o)
{
    if (o->admitted) return true;
    o->admitted = true;
    return push(o,
                (struct job_event){.kind = JOB_ADMITTED,
                                   .cached = o->stream.cached_tokens,
                                   .prompt_tokens = o->stream.prompt_tokens,
                                   .match = o->stream.match},
                NULL, 0);
}

/* ---- a server's failure ---- */

/* Until the first token another server may answer; after it none can continue the same text. */
static void server_failed(struct upstream_request *o, struct failure *f)
{
    struct upstream_server *s = o->server;
    char why[ERR_TEXT_MAX];
    s->faults[f->fault]++;
    memcpy(why, f->e.text, sizeof why);
    if (f->fault == UPSTREAM_CONNECT)
        probe_failed(s, &f->e);
    else if (f->fault != UPSTREAM_REFUSED && !f->ours)
        probe_soon(s);
    if (!f->ours) err_set(&f->e, f->e.code, "upstream server %.200s: %s", s->url, why);
    leave_server(o);
    close_stream(o);
    if (o->sent == 0 && !f->ours)
        next_server(o, f);
    else
        fail(o, f);
}

/* As a pdd and OpenAI call it, and llama-server. */
static bool is_too_long(const struct http_result *r)
{
    return r->status == 400 && (wire_error_is(r->body, r->body_len, WIRE_CODE_TOO_LONG) ||
                                wire_error_is(r->body, r->body_len, "exceed_context_size_error"));
}

static void judge_status(const struct upstream_request *o, const struct http_result *r,
                         struct failure *f)
{
    int status = r->status;
    http_result_error(r, o->server->url, wire_error_text, &f->e);
    f->fault = UPSTREAM_STATUS;
    f->status = STATUS_BAD_GATEWAY;
    if (status == 429 || status == 503) {
        f->fault = UPSTREAM_REFUSED;
        f->status = status;
        f->retry_after_s = r->retry_after_s;
        route_busy(&o->u->routes[o->server->index], clock_us(), r->retry_after_s);
    } else if (status == 400 || status == 413 || status == 422) {
        f->ours = true;
        f->status = status;
        if (is_too_long(r)) f->e.code = ERR_LIMIT;
    }
}

/* ---- progress ---- */

/* Comments, empty events, a head or an error that comes byte by byte: bytes alone keep no slot. */
static void note_progress(struct upstream_request *o)
{
    o->progressed = clock_us();
}

static uint64_t stall_due(const struct upstream_request *o)
{
    return o->progressed + (o->sent ? o->u->c.timeout_us : o->u->c.prefill_us);
}

static void on_stall(void *arg)
{
    struct upstream_request *o = arg;
    struct failure f = {.fault = UPSTREAM_TIMEOUT, .status = STATUS_GATEWAY_TIMEOUT};
    uint64_t due = stall_due(o), now = clock_us();
    if (o->over) { /* its connection has not ended */
        upstream_request_free(o);
        return;
    }
    if (now < due) {
        loop_timer_set(o->stall, due);
        return;
    }
    o->inside++;
    if (o->stream.finished) {
        finish(o, o->stream.reason);
    } else {
        err_set(&f.e, ERR_TIMEOUT, "nothing of the answer came for %.1f s",
                (double)(now - o->progressed) / 1e6);
        server_failed(o, &f);
    }
    o->inside--;
    if (o->over) upstream_request_free(o);
}

/* ---- the stream ---- */

static bool tell_progress(struct upstream_request *o)
{
    const struct dialect_stream *d = &o->stream;
    if (!d->progress || o->sent) return true;
    if (d->done > o->prefilled) {
        o->prefilled = d->done;
        if (clock_us() - o->asked < UPSTREAM_PREFILL_TIMES * o->u->c.prefill_us) note_progress(o);
    }
    if (d->done <= o->done || d->done - o->done <= d->total / PROGRESS_STEPS) return true;
    o->done = d->done;
    return push(o, (struct job_event){.kind = JOB_PROGRESS, .done = d->done, .total = d->total},
                NULL, 0);
}

static bool tell_token(struct upstream_request *o, int32_t id, const char *text, size_t n)
{
    if (o->sent >= atomic_load(&o->job->tokens_max)) {
        finish(o, WIRE_BUDGET);
        return false;
    }
    struct job_event ev = {.kind = JOB_TOKEN, .index = o->job->n_have + o->sent, .token = id};
    o->server->tokens++;
    o->sent++;
    note_progress(o);
    if (o->sent == 1) loop_timer_set(o->stall, stall_due(o)); /* sooner than a prefill's */
    return push(o, ev, text, n);
}

/* Of another pdd id and text come together; else the id is all, or the text. */
static bool tell_tokens(struct upstream_request *o)
{
    const struct dialect_stream *d = &o->stream;
    bool text = d->dialect == DIALECT_PDD || !d->by_ids;
    if (!d->by_ids) return d->text.len == 0 || tell_token(o, -1, d->text.data, d->text.len);
    for (uint32_t i = 0; i < d->ids.len; i++)
        if (!tell_token(o, d->ids.ids[i], text ? d->text.data : NULL, text ? d->text.len : 0))
            return false;
    return true;
}

static int on_event(void *arg, const char *name, const char *data, size_t n)
{
    struct upstream_request *o = arg;
    if (o->over) return ERR_CANCELLED;
    int code = dialect_decode(&o->stream, name, data, n, &o->trouble);
    if (code) {
        if (code == ERR_UNSUPPORTED) o->server->no_ids = true;
        return code;
    }
    bool first = o->stream.granted || o->stream.dialect != DIALECT_PDD;
    if (first && !admit(o)) return ERR_CANCELLED;
    extend_if_wished(o);
    if (!tell_progress(o) || !tell_tokens(o)) return ERR_CANCELLED;
    if (o->stream.over) finish_whole(o);
    return o->over ? ERR_CANCELLED : 0;
}

/* llama-server tells with its first event what was cached; of the others the head is enough. */
static void on_head(void *arg, int status)
{
    struct upstream_request *o = arg;
    enum dialect d = o->stream.dialect;
    if (o->over || status >= 300 || d == DIALECT_PDD || d == DIALECT_LLAMA) return;
    o->inside++;
    admit(o);
    o->inside--;
    if (o->over) upstream_request_free(o);
}

static void on_body(void *arg, const char *data, size_t n)
{
    struct upstream_request *o = arg;
    struct failure f = {.fault = UPSTREAM_GARBAGE, .status = STATUS_BAD_GATEWAY};
    if (o->over) { /* it continues after its end */
        upstream_request_free(o);
        return;
    }
    o->inside++;
    o->trouble.code = 0;
    int code = sse_parser_feed(&o->sse, data, n, &f.e);
    if (code && !o->over) {
        if (o->trouble.code) f.e = o->trouble;
        server_failed(o, &f);
    }
    o->inside--;
    if (o->over && !o->call) upstream_request_free(o);
}

static void judge_end(struct upstream_request *o, const struct http_result *r, struct failure *f)
{
    f->status = STATUS_BAD_GATEWAY;
    if (r->err.code == ERR_TIMEOUT) {
        f->fault = UPSTREAM_TIMEOUT;
        f->status = STATUS_GATEWAY_TIMEOUT;
        f->e = r->err;
    } else if (r->err.code) {
        f->fault = r->status ? UPSTREAM_CUT : UPSTREAM_CONNECT;
        f->e = r->err;
    } else if (r->status >= 300) {
        judge_status(o, r, f);
    } else {
        f->fault = UPSTREAM_CUT;
        err_set(&f->e, ERR_NET, "its stream ended earlier than the answer");
    }
}

static void on_done(void *arg, const struct http_result *r)
{
    struct upstream_request *o = arg;
    struct failure f = {.fault = UPSTREAM_CUT};
    o->call = NULL;
    if (o->over) {
        upstream_request_free(o);
        return;
    }
    o->inside++;
    if (o->stream.finished) { /* only counts were still to come */
        finish_whole(o);
    } else if (r->err.code == ERR_TIMEOUT && clock_us() >= o->job->deadline) {
        finish(o, WIRE_DEADLINE);
    } else {
        judge_end(o, r, &f);
        server_failed(o, &f);
    }
    o->inside--;
    if (o->over) upstream_request_free(o);
}

/* ---- asking ---- */

static void describe(const struct upstream_request *o, const struct upstream_server *s,
                     struct dialect_request *q)
{
    const struct job *j = o->job;
    uint64_t now = clock_us();
    *q = (struct dialect_request){.model = &s->model,
                                  .tokens = j->tokens,
                                  .n_tokens = j->n_tokens,
                                  .n_have = j->n_have,
                                  .asked = &j->asked,
                                  .sampling = j->sampling,
                                  .tokens_max = atomic_load(&j->tokens_max)};
    if (s->no_ids) { /* with messages, then; a pdd never comes here */
        q->tokens = NULL;
        q->n_tokens = 0;
    }
    if (j->deadline != UINT64_MAX)
        q->deadline_ms = j->deadline > now + 1000 ? (uint32_t)((j->deadline - now) / 1000) : 1;
}

static int start_call(struct upstream_request *o, struct upstream_server *s, const char *path,
                      struct buf *body, struct err *e)
{
    struct http_call_spec spec = {.method = "POST",
                                  .path = path,
                                  .accept = "text/event-stream",
                                  .body_taken = body,
                                  .deadline_us =
                                      o->job->deadline == UINT64_MAX ? 0 : o->job->deadline,
                                  .on_head = on_head,
                                  .on_body = on_body,
                                  .on_done = on_done,
                                  .arg = o};
    return http_call_start(s->client, &spec, &o->call, e);
}

static int ask(struct upstream_request *o, struct upstream_server *s, struct err *e)
{
    struct dialect_request q;
    struct buf body;
    const char *path = NULL;
    buf_init(&body, WIRE_BODY_MAX);
    describe(o, s, &q);
    int code = dialect_encode(&q, &path, &body, e);
    if (!code) code = start_call(o, s, path, &body, e);
    buf_release(&body);
    if (code) return code;
    dialect_stream_init(&o->stream, &q, o->u->vocab);
    sse_parser_init(&o->sse, on_event, o);
    o->open = true;
    o->server = s;
    o->u->routes[s->index].outstanding++;
    s->requests++;
    o->prefilled = 0;
    note_progress(o);
    o->asked = o->progressed;
    loop_timer_set(o->stall, stall_due(o));
    return 0;
}

static void nobody_left(struct upstream_request *o, const struct failure *last)
{
    struct failure f = {.status = STATUS_NONE, .retry_after_s = UPSTREAM_RETRY_AFTER_S};
    const struct upstream *u = o->u;
    bool any = false;
    if (last) {
        fail(o, last);
        return;
    }
    for (uint32_t i = 0; i < u->c.n_servers; i++)
        any = any || u->routes[i].up;
    if (any) {
        f.status = 429;
        err_set(&f.e, ERR_BUSY, "all upstream servers are full; try again later");
    } else {
        err_set(&f.e, ERR_NET, "no upstream server is up");
    }
    fail(o, &f);
}

/* Ask the best server that was not asked yet; `last`: why the one before did not do, or NULL. */
static void next_server(struct upstream_request *o, const struct failure *last)
{
    struct upstream *u = o->u;
    struct failure f = {.status = 400};
    for (;;) {
        int i = route_choose(u->routes, u->c.n_servers, o->prompt, o->tried, clock_us());
        if (i < 0) break;
        o->tried |= 1ull << i;
        if (last && last != &f) u->retries++;
        int code = ask(o, &u->servers[i], &f.e);
        if (code == 0) return;
        f.status = code == ERR_BAD_INPUT ? 400 : STATUS_NONE;
        if (!last) last = &f; /* a server that cannot be asked this: another kind may */
    }
    nobody_left(o, last);
}

/* ---- changes of the job ---- */

static void patch_done(void *arg, const struct http_result *result)
{
    struct upstream_request *o = arg;
    (void)result; /* a refusal means: the stream ends with its old budget */
    o->patch = NULL;
    extend_if_wished(o);
}

static void extend(struct upstream_request *o, uint32_t tokens_max)
{
    char path[WIRE_ID_MAX + 16];
    struct buf body;
    struct err e = ERR_INIT;
    if (o->patch || !o->stream.id[0] ||
        strspn(o->stream.id, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(o->stream.id))
        return;
    buf_init(&body, sizeof path * 2);
    snprintf(path, sizeof path, "/v1/assist/%s", o->stream.id);
    if (!wire_patch_encode(tokens_max, &body, &e)) {
        struct http_call_spec spec = {.method = "PATCH",
                                      .path = path,
                                      .body = body.data,
                                      .body_len = body.len,
                                      .collect = true,
                                      .on_done = patch_done,
                                      .arg = o};
        if (http_call_start(o->server->client, &spec, &o->patch, &e)) o->patch = NULL;
    }
    buf_release(&body);
    o->stream.asked = tokens_max;
}

/* A change that came ahead of the server's grant, or while another was on its way, waits in the
 * job. */
static void extend_if_wished(struct upstream_request *o)
{
    if (o->over || !o->server || o->stream.dialect != DIALECT_PDD) return;
    uint32_t tokens_max = atomic_load(&o->job->tokens_max);
    if (tokens_max > o->stream.asked) extend(o, tokens_max);
}

void upstream_request_changed(struct upstream_request *o)
{
    uint32_t tokens_max = atomic_load(&o->job->tokens_max);
    if (atomic_load(&o->job->cancelled))
        finish(o, WIRE_CANCEL);
    else if (atomic_load(&o->job->drained))
        finish(o, WIRE_DRAIN);
    else if (o->sent > 0 && o->sent >= tokens_max)
        finish(o, WIRE_BUDGET);
    else
        extend_if_wished(o);
}

/* ---- the start ---- */

static uint64_t hash_ids(const int32_t *ids, uint32_t n)
{
    if (n > UPSTREAM_AFFINITY_TOKENS) n = UPSTREAM_AFFINITY_TOKENS;
    return fnv_bytes(FNV_BEGIN, ids, n * sizeof *ids);
}

/* A conversation grows at its end: up to the first question it stays the same. */
static uint64_t hash_messages(const struct wire_request *q)
{
    uint64_t hash = FNV_BEGIN;
    size_t left = UPSTREAM_AFFINITY_BYTES;
    for (uint32_t i = 0; i < q->n_messages && left > 0; i++) {
        const struct wire_message *m = &q->messages[i];
        size_t n = m->content_len < left ? m->content_len : left;
        hash = fnv_bytes(fnv_bytes(hash, m->role, strlen(m->role) + 1), m->content, n);
        left -= n;
        if (strcmp(m->role, "user") == 0) break;
    }
    return hash;
}

int upstream_request_new(struct upstream *u, struct job *job, struct err *e)
{
    struct upstream_request *o = mem_calloc(1, sizeof *o);
    if (o) o->end = new_event(0);
    if (!o || !o->end || loop_timer_new(u->loop, on_stall, o, &o->stall, NULL)) {
        if (o) mem_free(o->end);
        mem_free(o);
        return err_set(e, ERR_NO_MEMORY, "no memory for another stream");
    }
    o->u = u;
    o->job = job;
    o->end->ev = (struct job_event){.kind = JOB_DONE, .job = job};
    job->backend_data = o;
    if (job->asked.n_messages)
        o->prompt = hash_messages(&job->asked);
    else
        o->prompt = job->tokens ? hash_ids(job->tokens, job->n_tokens)
                                : hash_ids(job->asked.prompt, job->asked.n_prompt);
    o->next = u->requests;
    o->link = &u->requests;
    if (o->next) o->next->link = &o->next;
    u->requests = o;
    next_server(o, NULL);
    return 0;
}
