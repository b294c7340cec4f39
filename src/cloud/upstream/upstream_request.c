/* upstream_request: one job at the upstream servers; see upstream_impl.h. */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "cloud/upstream/upstream_impl.h"
#include "proto/openai_pass.h"

/* Most progress events of a prefill: a server that sends more must not fill the memory. */
enum { PROGRESS_STEPS = 1024 };

enum { PATCH_MAX = 64 };

/* Pieces that a passed answer may have beside its tokens, for each choice: a server that heeds no
 * max_tokens must not go on for ever. */
enum { PIECES_BESIDE = 64 };

enum { STATUS_NONE = 503, STATUS_BAD_GATEWAY = 502, STATUS_GATEWAY_TIMEOUT = 504 };

/* Why a server did not answer. */
struct failure {
    enum upstream_fault fault;
    struct err e;
    int status; /* for the client */
    uint32_t retry_after_s;
    bool ours; /* the request is at fault, not the server: do not try another */
    struct dialect_fault words;
};

static void next_server(struct upstream_request *req, const struct failure *last);
static void extend_if_wished(struct upstream_request *req);
static int ask(struct upstream_request *req, struct upstream_server *s, struct failure *f);

/* ---- events ---- */

static struct upstream_event *new_event(size_t text)
{
    return mem_calloc(1, sizeof(struct upstream_event) + text);
}

static void leave_route(struct upstream_request *req)
{
    if (!req->server) return;
    CHECK(req->u->routes[req->server->index].outstanding > 0);
    req->u->routes[req->server->index].outstanding--;
    req->server = NULL;
}

static void leave_server(struct upstream_request *req)
{
    event_stream_close(req->events);
    req->events = NULL;
    leave_route(req);
}

static void leave_job(struct upstream_request *req)
{
    struct job *job = req->job;
    if (!job) return;
    job->backend_data = NULL;
    req->job = NULL;
    slots_leave(&req->u->inside, job->tenant);
}

/* A callback that may end the request runs between these two. */
static void enter(struct upstream_request *req)
{
    req->inside++;
}

static void leave(struct upstream_request *req)
{
    CHECK(req->inside > 0);
    if (--req->inside == 0 && req->over) upstream_request_free(req);
}

static void close_stream(struct upstream_request *req)
{
    if (!req->open) return;
    dialect_stream_release(&req->stream);
    req->open = false;
}

void upstream_request_free(struct upstream_request *req)
{
    CHECK(req->inside == 0);
    leave_server(req);
    close_stream(req);
    leave_job(req);
    *req->link = req->next;
    if (req->next) req->next->link = req->link;
    loop_timer_free(req->stall);
    mem_free(req->end);
    mem_free(req);
}

/* The job's last event is on its way; the request goes when no callback of it runs any more. */
static void tell_end(struct upstream_request *req)
{
    CHECK(!req->over && req->job && req->end);
    req->over = true;
    leave_job(req);
    upstream_push(req->u, req->end);
    req->end = NULL;
}

static void end(struct upstream_request *req)
{
    if (req->server && req->events) req->server->closed++;
    leave_server(req);
    tell_end(req);
    if (!req->inside) upstream_request_free(req);
}

static void fill_end(struct upstream_request *req, enum wire_reason reason)
{
    req->end->ev.reason = reason;
    req->end->ev.produced = req->sent;
    if (!req->open) return;
    const struct dialect_stream *d = &req->stream;
    struct job *job = req->job;
    req->end->ev.prompt_tokens = d->prompt_tokens;
    req->end->ev.cached = d->cached_tokens;
    if (d->passes && d->completion_tokens > req->sent) req->end->ev.produced = d->completion_tokens;
    if (d->usage.len) job->usage = mem_strdup(d->usage.data); /* NULL: it is not told */
    snprintf(job->finish, sizeof job->finish, "%s", d->finish_word);
}

static void finish(struct upstream_request *req, enum wire_reason reason)
{
    fill_end(req, reason);
    end(req);
}

/* The answer is whole: its connection may end by itself and be used again. Always inside. */
static void finish_whole(struct upstream_request *req)
{
    CHECK(req->inside > 0);
    fill_end(req, req->stream.reason);
    if (req->events) event_stream_finish(req->events);
    leave_server(req);
    tell_end(req);
}

static void fail(struct upstream_request *req, const struct failure *f)
{
    struct job_failure *told = &req->job->failure;
    *told = (struct job_failure){.e = f->e, .status = f->status, .retry_after_s = f->retry_after_s};
    snprintf(told->code, sizeof told->code, "%s", f->words.code);
    snprintf(told->param, sizeof told->param, "%s", f->words.param);
    req->end->ev.failure = &req->job->failure;
    req->end->ev.produced = req->sent;
    end(req);
}

static bool push(struct upstream_request *req, struct job_event ev, const char *text, size_t n)
{
    struct upstream_event *x = new_event(n);
    if (!x) {
        struct failure f = {.status = STATUS_NONE};
        err_set(&f.e, ERR_NO_MEMORY, "no memory for an answer");
        fail(req, &f);
        return false;
    }
    x->ev = ev;
    x->ev.job = req->job;
    if (text) {
        if (n) memcpy(x + 1, text, n);
        x->ev.text = (const char *)(x + 1);
        x->ev.text_len = n;
    }
    upstream_push(req->u, x);
    return true;
}

static bool admit(struct upstream_request *req)
{
    if (req->admitted) return true;
    req->admitted = true;
    return push(req,
                (struct job_event){.kind = JOB_ADMITTED,
                                   .cached = req->stream.cached_tokens,
                                   .prompt_tokens = req->stream.prompt_tokens,
                                   .match = req->stream.match},
                NULL, 0);
}

/* ---- a server's failure ---- */

/* Until the first token another server may answer; after it none can continue the same text. */
static void server_failed(struct upstream_request *req, struct failure *f)
{
    struct upstream_server *s = req->server;
    char why[ERR_TEXT_MAX];
    s->faults[f->fault]++;
    memcpy(why, f->e.text, sizeof why);
    if (f->fault == UPSTREAM_CONNECT)
        upstream_probe_lost(s, &f->e);
    else if (f->fault != UPSTREAM_REFUSED && !f->ours)
        upstream_probe_soon(s);
    if (!f->ours) err_set(&f->e, f->e.code, "upstream server %.200s: %s", s->url, why);
    leave_server(req);
    close_stream(req);
    if (req->sent == 0 && !req->told && !f->ours)
        next_server(req, f);
    else
        fail(req, f);
}

/* As a pdd and OpenAI call it, and llama-server. */
static bool is_too_long(const struct http_result *r)
{
    return r->status == 400 && (wire_error_is(r->body, r->body_len, WIRE_CODE_TOO_LONG) ||
                                wire_error_is(r->body, r->body_len, "exceed_context_size_error"));
}

static void judge_status(const struct upstream_request *req, const struct http_result *r,
                         struct failure *f)
{
    int status = r->status;
    http_result_error(r, req->server->url, wire_error_text, &f->e);
    f->fault = UPSTREAM_STATUS;
    f->status = STATUS_BAD_GATEWAY;
    if (status == 429 || status == 503) {
        f->fault = UPSTREAM_REFUSED;
        f->status = status;
        f->retry_after_s = r->retry_after_s;
        route_busy(&req->u->routes[req->server->index], clock_us(), r->retry_after_s);
    } else if (status == 400 || status == 413 || status == 422) {
        f->ours = true;
        f->status = status;
        dialect_read_fault(r->body, r->body_len, req->job->asked.passed, &f->words);
        if (is_too_long(r)) {
            f->e.code = ERR_LIMIT;
            f->words.code[0] = 0;
        }
    }
}

/* ---- progress ---- */

/* Comments, empty events, a head or an error that comes byte by byte: bytes alone keep no slot. */
static void note_progress(struct upstream_request *req)
{
    req->progressed = clock_us();
}

static uint64_t stall_due(const struct upstream_request *req)
{
    return req->progressed + (req->sent || req->told ? req->u->c.timeout_us : req->u->c.prefill_us);
}

static void on_stall(void *arg)
{
    struct upstream_request *req = arg;
    struct failure f = {.fault = UPSTREAM_TIMEOUT, .status = STATUS_GATEWAY_TIMEOUT};
    uint64_t due = stall_due(req), now = clock_us();
    if (now < due) {
        loop_timer_set(req->stall, due);
        return;
    }
    enter(req);
    if (req->stream.finished) {
        finish(req, req->stream.reason);
    } else {
        err_set(&f.e, ERR_TIMEOUT, "nothing of the answer came for %.1f s",
                (double)(now - req->progressed) / 1e6);
        server_failed(req, &f);
    }
    leave(req);
}

/* ---- the stream ---- */

static bool tell_progress(struct upstream_request *req)
{
    const struct dialect_stream *d = &req->stream;
    if (!d->progress || req->sent) return true;
    if (d->done > req->prefilled) {
        req->prefilled = d->done;
        if (clock_us() - req->asked < UPSTREAM_PREFILL_TIMES * req->u->c.prefill_us)
            note_progress(req);
    }
    if (d->done <= req->done || d->done - req->done <= d->total / PROGRESS_STEPS) return true;
    req->done = d->done;
    return push(
        req,
        (struct job_event){
            .kind = JOB_PROGRESS, .done = d->done, .total = d->total, .cached = d->cached_tokens},
        NULL, 0);
}

static bool tell_token(struct upstream_request *req, int32_t id, const char *text, size_t n)
{
    if (req->sent >= atomic_load(&req->job->tokens_max)) {
        finish(req, WIRE_BUDGET);
        return false;
    }
    struct job_event ev = {.kind = JOB_TOKEN, .index = req->job->n_have + req->sent, .token = id};
    req->server->tokens++;
    req->sent++;
    note_progress(req);
    if (req->sent == 1) {
        wire_request_release(&req->job->asked);     /* no other server can be asked */
        loop_timer_set(req->stall, stall_due(req)); /* sooner than a prefill's */
    }
    return push(req, ev, text, n);
}

/* From its first thought on no other server can answer, as from the first token. */
static bool tell_thought(struct upstream_request *req)
{
    const struct buf *thought = &req->stream.thought;
    if (thought->len == 0) return true;
    note_progress(req);
    if (!req->told) loop_timer_set(req->stall, stall_due(req));
    req->told = true;
    return push(req, (struct job_event){.kind = JOB_THOUGHT}, thought->data, thought->len);
}

/* Tokens that so many choices can have. */
static uint64_t most_of(const struct upstream_request *req, uint32_t choices)
{
    return choices * ((uint64_t)atomic_load(&req->job->tokens_max) + PIECES_BESIDE);
}

/* A part of an answer that is passed on, or all of it. */
static bool tell_chunk(struct upstream_request *req)
{
    struct dialect_stream *d = &req->stream;
    uint64_t most = most_of(req, d->choices_asked);
    if (d->chunk.len == 0) return true;
    if (d->produced > most && !d->limited) {
        finish(req, WIRE_BUDGET);
        return false;
    }
    if (d->produced > most) {
        struct failure f = {.fault = UPSTREAM_GARBAGE, .status = STATUS_BAD_GATEWAY};
        err_set(&f.e, ERR_PROTOCOL, "it goes on beyond max_tokens");
        server_failed(req, &f);
        return false;
    }
    struct job_event ev = {.kind = JOB_CHUNK, .produced = d->produced - req->sent};
    req->server->tokens += ev.produced;
    req->sent = d->produced;
    note_progress(req);
    if (!req->told) {
        wire_request_release(&req->job->asked); /* no other server can be asked */
        loop_timer_set(req->stall, stall_due(req));
    }
    req->told = true;
    return push(req, ev, d->chunk.data, d->chunk.len);
}

/* Of another pdd id and text come together; else the id is all, or the text. */
static bool tell_tokens(struct upstream_request *req)
{
    const struct dialect_stream *d = &req->stream;
    bool text = d->dialect == DIALECT_PDD || !d->by_ids;
    if (!d->by_ids) return d->text.len == 0 || tell_token(req, -1, d->text.data, d->text.len);
    for (uint32_t i = 0; i < d->ids.len; i++)
        if (!tell_token(req, d->ids.ids[i], text ? d->text.data : NULL, text ? d->text.len : 0))
            return false;
    return true;
}

/* What a server counts, as far as it can be: a count that is wrong must not use up a key's tokens.
 */
static void clip_counts(struct upstream_request *req)
{
    struct dialect_stream *d = &req->stream;
    uint32_t context = req->server ? req->server->model.context : 0;
    uint64_t prompt = (uint64_t)(context ? context : WIRE_PROMPT_MAX) * d->choices_asked;
    uint64_t answer = most_of(req, d->choices_computed);
    if (d->prompt_tokens > prompt) d->prompt_tokens = (uint32_t)prompt;
    if (d->completion_tokens > answer) d->completion_tokens = (uint32_t)answer;
    if (d->prompt_tokens && d->cached_tokens > d->prompt_tokens)
        d->cached_tokens = d->prompt_tokens;
}

/* What the decoder found in the last event; `code` is its own. */
static int take_decoded(struct upstream_request *req, int code)
{
    const struct dialect_stream *d = &req->stream;
    if (code) {
        if (code == ERR_UNSUPPORTED) req->server->no_ids = true;
        return code;
    }
    clip_counts(req);
    bool first = d->granted || d->dialect != DIALECT_PDD;
    memcpy(req->job->fingerprint, d->fingerprint, sizeof d->fingerprint);
    if (first && !admit(req)) return 0;
    extend_if_wished(req);
    if (tell_progress(req) && tell_thought(req) && tell_chunk(req) && tell_tokens(req) && d->over)
        finish_whole(req);
    return 0;
}

static int on_event(void *arg, const char *name, const char *data, size_t n, struct err *e)
{
    struct upstream_request *req = arg;
    enter(req);
    int code = take_decoded(req, dialect_decode(&req->stream, name, data, n, e));
    leave(req);
    return code;
}

static int on_whole(void *arg, const char *data, size_t n, struct err *e)
{
    struct upstream_request *req = arg;
    enter(req);
    int code = take_decoded(req, dialect_decode_whole(&req->stream, data, n, e));
    leave(req);
    return code;
}

/* No further server can be asked: the request itself is needed no more, once the last one cannot
 * refuse a field of it. Until then a job holds it twice, in the form that is sent too. */
static bool all_tried(const struct upstream_request *req)
{
    uint32_t n = req->u->c.n_servers;
    uint64_t all = n < 64 ? (1ull << n) - 1 : UINT64_MAX;
    return (req->tried & all) == all;
}

/* llama-server tells with its first event what was cached; of the others the head is enough. */
static void on_head(void *arg, int status)
{
    struct upstream_request *req = arg;
    enum dialect d = req->stream.dialect;
    if (status >= 300) return;
    if (all_tried(req)) wire_request_release(&req->job->asked);
    if (d == DIALECT_PDD || d == DIALECT_LLAMA) return;
    enter(req);
    admit(req);
    leave(req);
}

static void judge_end(struct upstream_request *req, const struct http_result *r, struct failure *f)
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
        judge_status(req, r, f);
    } else {
        f->fault = UPSTREAM_CUT;
        err_set(&f->e, ERR_NET, "its stream ended earlier than the answer");
    }
}

static void ask_again(struct upstream_request *req, struct upstream_server *s)
{
    struct failure f = {.status = 400};
    leave_server(req);
    close_stream(req);
    if (ask(req, s, &f)) fail(req, &f);
}

/* A server that knows a field by another name, or not at all, is asked once more without it, and
 * from then on always. Each time it is one field fewer, so that this ends. */
static bool ask_without(struct upstream_request *req, const struct http_result *r)
{
    struct upstream_server *s = req->server;
    uint32_t bit = 0;
    if (!r || r->err.code || (r->status != 400 && r->status != 422) || req->stream.by_ids)
        return false;
    bit = dialect_refused_field(r->body, r->body_len, s->without);
    if (!bit) return false;
    s->without |= bit;
    log_line(LOG_WARN, "upstream", "%s refuses %s: it is asked %s from now on", s->url,
             dialect_field_name(bit),
             bit == DIALECT_NO_MAX_TOKENS ? "by max_completion_tokens" : "without it");
    ask_again(req, s);
    return true;
}

/* A limit that is ours, not the client's, and that leaves the prompt no room: without it the answer
 * is shorter than the limit. */
static bool ask_unlimited(struct upstream_request *req, const struct http_result *r)
{
    const struct openai_pass *p = req->job->asked.passed;
    bool refused = r && !r->err.code && (r->status == 400 || r->status == 422);
    if (!refused || !p || p->limited || p->stream || req->unlimited ||
        !dialect_limit_refused(r->body, r->body_len))
        return false;
    req->unlimited = true;
    ask_again(req, req->server);
    return true;
}

static void on_end(void *arg, const struct http_result *r, const struct err *malformed)
{
    struct upstream_request *req = arg;
    struct failure f = {.fault = UPSTREAM_GARBAGE, .status = STATUS_BAD_GATEWAY};
    enter(req);
    event_stream_close(req->events);
    req->events = NULL;
    bool clean = r && !r->err.code && r->status < 300;
    if (req->stream.finished || (clean && dialect_stream_settled(&req->stream))) {
        finish_whole(req); /* only counts were still to come, if anything */
    } else if (ask_without(req, r) || ask_unlimited(req, r)) {
        /* once more */
    } else if (!r) {
        f.e = *malformed;
        server_failed(req, &f);
    } else if (r->err.code == ERR_TIMEOUT && clock_us() >= req->job->deadline) {
        finish(req, WIRE_DEADLINE);
    } else {
        judge_end(req, r, &f);
        server_failed(req, &f);
    }
    leave(req);
}

static void on_patched(void *arg)
{
    extend_if_wished(arg);
}

/* ---- asking ---- */

static void describe(const struct upstream_request *req, const struct upstream_server *s,
                     struct dialect_request *q)
{
    const struct job *j = req->job;
    uint64_t now = clock_us();
    *q = (struct dialect_request){.model = &s->model,
                                  .tokens = j->tokens,
                                  .n_tokens = j->n_tokens,
                                  .n_have = j->n_have,
                                  .asked = &j->asked,
                                  .sampling = j->sampling,
                                  .tokens_max = atomic_load(&j->tokens_max)};
    q->without = s->without;
    q->unlimited = req->unlimited;
    if (s->no_ids) { /* with messages, then; a pdd never comes here */
        q->tokens = NULL;
        q->n_tokens = 0;
    }
    if (j->deadline != UINT64_MAX)
        q->deadline_ms = j->deadline > now + 1000 ? (uint32_t)((j->deadline - now) / 1000) : 1;
}

static int start_call(struct upstream_request *req, struct upstream_server *s, const char *path,
                      struct buf *body, struct err *e)
{
    const struct openai_pass *p = req->job->asked.passed;
    bool whole = p && !p->stream; /* its first byte comes with the last token */
    struct event_stream_spec spec = {.path = path,
                                     .body = body,
                                     .deadline_us =
                                         req->job->deadline == UINT64_MAX ? 0 : req->job->deadline,
                                     .accept = whole ? "application/json" : NULL,
                                     .first_byte_timeout_us = whole ? req->u->c.prefill_us : 0,
                                     .on_head = on_head,
                                     .on_event = on_event,
                                     .on_whole = on_whole,
                                     .on_end = on_end,
                                     .on_patched = on_patched,
                                     .arg = req};
    return event_stream_open(s->client, &spec, &req->events, e);
}

static int ask(struct upstream_request *req, struct upstream_server *s, struct failure *f)
{
    struct dialect_request q;
    struct buf body;
    const char *path = NULL;
    body = req->job->asked.room; /* none: an empty one */
    buf_init(&req->job->asked.room, WIRE_BODY_MAX);
    if (!body.cap) buf_init(&body, WIRE_BODY_MAX);
    describe(req, s, &q);
    int code = dialect_encode(&q, &path, &body, &f->e);
    if (!code) code = start_call(req, s, path, &body, &f->e);
    buf_release(&body);
    f->status = code == ERR_BAD_INPUT ? 400 : STATUS_NONE;
    if (code && q.refused) snprintf(f->words.param, sizeof f->words.param, "%s", q.refused);
    if (code) return code;
    dialect_stream_init(&req->stream, &q, req->u->vocab);
    req->open = true;
    if (all_tried(req) && req->stream.by_ids) wire_request_release(&req->job->asked);
    req->server = s;
    req->u->routes[s->index].outstanding++;
    s->requests++;
    req->prefilled = 0;
    note_progress(req);
    req->asked = req->progressed;
    loop_timer_set(req->stall, stall_due(req));
    return 0;
}

static void no_server_left(struct upstream_request *req, const struct failure *last)
{
    struct failure f = {.status = STATUS_NONE, .retry_after_s = UPSTREAM_RETRY_AFTER_S};
    const struct upstream *u = req->u;
    bool any = false;
    if (last) {
        fail(req, last);
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
    fail(req, &f);
}

/* Ask the best server that was not asked yet; `last`: why the one before did not do, or NULL. */
static void next_server(struct upstream_request *req, const struct failure *last)
{
    struct upstream *u = req->u;
    struct failure f = {.status = 400};
    for (;;) {
        int i = route_choose(u->routes, u->c.n_servers, req->prompt, req->tried, clock_us());
        if (i < 0) break;
        req->tried |= 1ull << i;
        if (last && last != &f) u->retries++;
        req->unlimited = false; /* its context may be another one */
        if (ask(req, &u->servers[i], &f) == 0) return;
        if (!last) last = &f; /* a server that cannot be asked this: another kind may */
    }
    no_server_left(req, last);
}

/* ---- changes of the job ---- */

static void extend(struct upstream_request *req, uint32_t tokens_max)
{
    struct buf body;
    struct err ignored = ERR_INIT;
    if (event_stream_patching(req->events) || !event_stream_id_good(req->stream.id)) return;
    buf_init(&body, PATCH_MAX);
    if (!wire_patch_encode(tokens_max, &body, &ignored))
        (void)event_stream_patch(req->events, req->stream.id, body.data, body.len, &ignored);
    buf_release(&body);
    req->stream.asked = tokens_max;
}

/* A change that came before the server's grant, or while another was on its way, waits in the
 * job. */
static void extend_if_wished(struct upstream_request *req)
{
    if (req->over || !req->events || req->stream.dialect != DIALECT_PDD) return;
    uint32_t tokens_max = atomic_load(&req->job->tokens_max);
    if (tokens_max > req->stream.asked) extend(req, tokens_max);
}

void upstream_request_changed(struct upstream_request *req)
{
    uint32_t tokens_max = atomic_load(&req->job->tokens_max);
    if (atomic_load(&req->job->cancelled))
        finish(req, WIRE_CANCEL);
    else if (atomic_load(&req->job->drained))
        finish(req, WIRE_DRAIN);
    else if (req->sent > 0 && req->sent >= tokens_max)
        finish(req, WIRE_BUDGET);
    else
        extend_if_wished(req);
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
    struct upstream_request *req = mem_calloc(1, sizeof *req);
    if (req) req->end = new_event(0);
    if (!req || !req->end || loop_timer_new(u->loop, on_stall, req, &req->stall, NULL)) {
        if (req) mem_free(req->end);
        mem_free(req);
        return err_set(e, ERR_NO_MEMORY, "no memory for another stream");
    }
    req->u = u;
    req->job = job;
    req->end->ev = (struct job_event){.kind = JOB_DONE, .job = job};
    job->backend_data = req;
    const struct openai_pass *p = job->asked.passed;
    if (p)
        req->prompt = fnv_bytes(FNV_BEGIN, p->begin, p->begin_len);
    else if (job->asked.n_messages)
        req->prompt = hash_messages(&job->asked);
    else
        req->prompt = job->tokens ? hash_ids(job->tokens, job->n_tokens)
                                  : hash_ids(job->asked.prompt, job->asked.n_prompt);
    wire_request_free_texts(&job->asked);
    req->next = u->requests;
    req->link = &u->requests;
    if (req->next) req->next->link = &req->next;
    u->requests = req;
    next_server(req, NULL);
    return 0;
}
