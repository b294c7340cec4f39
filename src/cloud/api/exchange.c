/* exchange: one request that a job answers; see server_impl.h. */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cloud/api/server_impl.h"
#include "proto/openai.h"

enum { QUIET_CHECKS = 4 }; /* within quiet_us */

void *exchange_new(const struct request_ctx *c, enum metrics_endpoint endpoint, size_t size)
{
    struct exchange *x = mem_calloc(1, size);
    if (!x) return NULL;
    x->server = c->server;
    x->endpoint = endpoint;
    x->key = c->key;
    snprintf(x->tag, sizeof x->tag, "%s", http_request_tag(c->http));
    x->next = c->server->exchanges;
    x->link = &c->server->exchanges;
    if (x->next) x->next->link = &x->next;
    c->server->exchanges = x;
    detok_init(&x->detok, true);
    return x;
}

void exchange_free(struct exchange *x)
{
    if (!x) return;
    CHECK(!x->running && !x->request);
    *x->link = x->next;
    if (x->next) x->next->link = x->link;
    job_free(x->job);
    refine_free(x->refine);
    if (x->release) x->release(x);
    http_body_release(&x->body);
    mem_free(x);
}

void exchange_take_body(struct exchange *x, struct http_body *b)
{
    CHECK(!x->body.server);
    x->body = *b;
    *b = (struct http_body){.server = NULL};
    buf_init(&b->bytes, 0);
    http_body_shrink(&x->body, x->body.held); /* a small one does not count any more */
}

/* No more than the job's tokens is kept of the request. */
static void keep_tokens_only(struct exchange *x)
{
    http_body_shrink(&x->body, x->job->tokens ? x->job->n_tokens * sizeof *x->job->tokens : 0);
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

/* The most tokens that this one may bring when `wanted` are requested. */
static uint32_t clip_tokens(const struct exchange *x, uint32_t wanted)
{
    uint32_t room = x->server->backend->positions_max - x->job->n_tokens;
    if (wanted > x->server->c.tokens_max) wanted = x->server->c.tokens_max;
    return wanted < room ? wanted : room;
}

uint32_t exchange_extend(struct exchange *x, uint32_t wanted)
{
    uint32_t tokens_max = clip_tokens(x, wanted);
    atomic_store(&x->job->tokens_max, tokens_max);
    backend_changed(x->server->backend, x->job);
    return tokens_max;
}

void exchange_cancel(struct exchange *x)
{
    atomic_store(&x->job->cancelled, true);
    backend_changed(x->server->backend, x->job);
}

void exchange_complete(struct exchange *x)
{
    x->complete = true;
    exchange_cancel(x);
}

int exchange_text(struct exchange *x, const struct job_event *ev, struct buf *out)
{
    if (ev->text) return buf_append(out, ev->text, ev->text_len);
    return detok_push(&x->detok, x->server->backend->vocab, ev->token, out);
}

/* What every job has, whose prompt it knows. */
static void fill_job(struct exchange *x, uint32_t tokens_max, const struct sampling *sampling,
                     uint64_t deadline, void (*on_event)(void *, const struct job_event *))
{
    struct job *job = x->job;
    atomic_store(&job->tokens_max, clip_tokens(x, tokens_max));
    job->owner = x;
    job->on_event = on_event;
    job->sampling = *sampling;
    job->deadline = deadline;
    if (!x->adjustable) job->tokens_least = atomic_load(&job->tokens_max);
    if (x->logprobs) job_want_logprobs(job, x->logprobs_top);
}

int exchange_prepare(struct exchange *x, const char *prefix, const struct token_list *prompt,
                     struct wire_request *q, void (*on_event)(void *, const struct job_event *),
                     struct err *e)
{
    struct backend *b = x->server->backend;
    uint32_t tokens_max = q->tokens_max, deadline_ms = q->deadline_ms;
    struct sampling sampling = q->sampling;
    sampling.answer_from = prompt->len > q->answered ? prompt->len - q->answered : 0;
    int code = b->takes_ids && !q->passed
                   ? job_new(prompt->ids, prompt->len, q->have, q->n_have, &x->job, e)
                   : job_new_asked(&x->job, e);
    if (code) return code;
    if (b->takes_request) job_take_asked(x->job, q);
    if (!x->began) x->began = clock_us();
    fill_job(x, tokens_max, &sampling, deadline_ms ? x->began + deadline_ms * 1000ull : UINT64_MAX,
             on_event);
    x->job->refine = x->refine;
    x->refine = NULL;
    x->n_prompt = prompt->len;
    if (make_id(prefix, x->id))
        return err_set(e, ERR_INTERNAL, "no random numbers from the system");
    return 0;
}

int exchange_prepare_choice(struct exchange *x, const struct exchange *first, uint64_t seed,
                            struct err *e)
{
    const struct job *job = first->job;
    struct sampling sampling = job->sampling;
    int code = job_new_choice(job, &x->job, e);
    if (code) return code;
    sampling.seed = seed;
    fill_job(x, atomic_load(&job->tokens_max), &sampling, job->deadline, job->on_event);
    x->shares_prompt = x->shares_request = true;
    x->began = first->began;
    x->n_prompt = first->n_prompt;
    memcpy(x->id, first->id, sizeof x->id);
    return 0;
}

/* How many exchanges share the prompt of the first of x[n], and it. */
static uint32_t count_sharing(struct exchange *const *x, uint32_t n)
{
    uint32_t k = 1;
    while (k < n && x[k]->shares_prompt)
        k++;
    return k;
}

/* Submit x[n], which share a prompt. */
static int start_sharing(struct exchange *const *x, uint32_t n, struct request_ctx *c,
                         struct err *e)
{
    struct backend *b = x[0]->server->backend;
    uint32_t taken = 0;
    int code = 0;
    while (taken < n && (code = quota_use_begin(x[taken], &c->quota, e)) == 0)
        taken++;
    for (uint32_t i = 0; i + 1 < n; i++)
        x[i]->job->next = x[i + 1]->job;
    if (!code) code = backend_submit(b, x[0]->job, e);
    for (uint32_t i = 0; code && i < taken; i++)
        quota_use_undo(x[i]);
    if (!b->takes_request) keep_tokens_only(x[0]);
    for (uint32_t i = 0; i < n; i++)
        x[i]->running = code == 0;
    return code;
}

int exchange_start(struct exchange *const *x, uint32_t n, struct request_ctx *c, struct err *e)
{
    int code = 0;
    for (uint32_t at = 0, k; at < n && !code; at += k) {
        k = count_sharing(x + at, n - at);
        code = start_sharing(x + at, k, c, e);
    }
    for (uint32_t i = 0; code && i < n; i++)
        if (x[i]->running) exchange_cancel(x[i]);
    return code;
}

int exchange_submit(struct exchange *x, struct request_ctx *c, const char *prefix,
                    const struct token_list *prompt, struct wire_request *q,
                    void (*on_event)(void *, const struct job_event *), struct err *e)
{
    int code = exchange_prepare(x, prefix, prompt, q, on_event, e);
    return code ? code : exchange_start(&x, 1, c, e);
}

/* For load tests: when, on the machine's monotonic clock, it was noticed. */
static void log_gone(const struct exchange *x)
{
    char now[24];
    snprintf(now, sizeof now, "%llu", (unsigned long long)clock_us());
    const struct log_field fields[] = {{"id", .text = x->id}, {"clock_us", .text = now}};
    log_fields(LOG_DEBUG, "cloud", "gone", fields, sizeof fields / sizeof *fields);
}

/* The client has gone: whatever is still computed for it is wasted. */
static void client_gone(void *arg)
{
    struct exchange *x = arg;
    x->request = NULL;
    log_gone(x);
    if (x->gone)
        x->gone(x);
    else
        exchange_cancel(x);
}

void exchange_attach(struct exchange *x, struct http_request *r)
{
    CHECK(x->running && !x->request);
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
    x->spoke = clock_us();
    if (x->request) http_stream_send(x->request, data, n); /* on failure client_gone follows */
}

void exchange_break_silence(void *server)
{
    static const char sign[] = ": keep-alive\n\n";
    struct server *s = server;
    uint64_t now = clock_us();
    for (struct exchange *x = s->exchanges; x; x = x->next) {
        uint64_t since = x->spoke ? x->spoke : x->began;
        if (!x->request || !x->open_stream || now - since < s->c.quiet_us) continue;
        if (x->open_stream(x)) exchange_send(x, sign, sizeof sign - 1);
    }
    loop_timer_set(s->quiet_timer, now + s->c.quiet_us / QUIET_CHECKS);
}

void exchange_cut_off(struct exchange *x)
{
    if (!x->request) return;
    http_request_abort(x->request);
    client_gone(x);
}

void exchange_send_scratch(struct exchange *x, int code)
{
    const struct buf *out = &x->server->bytes;
    if (code)
        exchange_cut_off(x);
    else
        exchange_send(x, out->data, out->len);
}

void exchange_end_stream(struct exchange *x)
{
    struct http_request *r = exchange_detach(x);
    if (r) http_stream_end(r);
}

int exchange_check_reason(enum wire_reason reason, struct err *e)
{
    switch (reason) {
    case WIRE_STOP:
    case WIRE_LENGTH:
    case WIRE_BUDGET:
        return 0;
    case WIRE_DRAIN:
        return err_set(e, ERR_CANCELLED, "the server is shutting down: try again");
    case WIRE_CANCEL:
    case WIRE_DEADLINE:
        break;
    }
    return err_set(e, ERR_CANCELLED, "the answer was cut off: %s", wire_reason_name(reason));
}

void exchange_fail(struct exchange *x, bool begun, const struct job_failure *f)
{
    struct buf *out = &x->server->bytes;
    if (!begun) {
        struct http_request *r = exchange_detach(x);
        if (r) request_refuse_job(x->server, r, f);
        return;
    }
    buf_clear(out);
    int code = openai_put_error(out, 500, err_code_name(f->e.code), f->e.text);
    if (!code) code = openai_put_end(out);
    exchange_send_scratch(x, code);
    exchange_end_stream(x);
}

static void note_admitted(struct exchange *x, const struct job_event *ev, struct metrics *m)
{
    x->admitted = clock_us();
    x->cached = ev->cached;
    if (!x->job->tokens) x->n_prompt = ev->prompt_tokens;
    if (x->shares_prompt) return;
    m->prompt_tokens += x->n_prompt;
    m->cached_tokens += ev->cached;
    histogram_note_seconds(&m->queue, x->admitted - x->began);
    histogram_note_tokens(&m->prompt_length, x->n_prompt);
}

static void note_tokens(struct exchange *x, const struct job_event *ev, uint32_t n,
                        struct metrics *m)
{
    x->last_token = clock_us();
    x->n_tokens += n;
    m->generated_tokens += n;
    if (ev->at) histogram_note_seconds(&m->delivery, x->last_token - ev->at);
    if (x->first_token) return;
    x->first_token = x->last_token;
    keep_tokens_only(x); /* no other server can be asked: see job.h */
    histogram_note_seconds(&m->first_token, x->first_token - x->began);
}

static void log_done(const struct exchange *x, const char *end, uint32_t tokens)
{
    double first = x->first_token ? (double)(x->first_token - x->began) / 1e3 : 0;
    const struct log_field fields[] = {
        {"id", .text = x->id},
        {"request", .text = x->tag},
        {"key", .text = x->key ? x->key->line.name : "-"},
        {"prompt", .number = x->n_prompt},
        {"have", .number = x->job->n_have},
        {"cached", .number = x->cached},
        {"tokens", .number = tokens},
        {"end", .text = end},
        {"first_ms", .number = first},
        {"ms", .number = (double)(clock_us() - x->began) / 1e3},
    };
    log_fields(LOG_INFO, "cloud", metrics_endpoint_name(x->endpoint), fields,
               sizeof fields / sizeof *fields);
}

void exchange_log_stopped(const struct exchange *x)
{
    log_done(x, "stopped", x->n_tokens);
}

/* Others have computed part of the prompt while it waited for its steps, or an upstream server
 * tells it later than with its head. */
static void note_cached(struct exchange *x, const struct job_event *ev, struct metrics *m)
{
    if (ev->cached <= x->cached || x->shares_prompt) return;
    m->cached_tokens += ev->cached - x->cached;
    x->cached = ev->cached;
}

static void note_done(struct exchange *x, const struct job_event *ev, struct metrics *m)
{
    bool failed = ev->failure != NULL;
    note_cached(x, ev, m);
    if (ev->produced > x->n_tokens) { /* as an upstream server counts them */
        m->generated_tokens += ev->produced - x->n_tokens;
        quota_use_more(x, ev->produced - x->n_tokens);
        x->n_tokens = ev->produced;
    }
    if (!x->n_prompt && ev->prompt_tokens) { /* told only now */
        x->n_prompt = ev->prompt_tokens;
        m->prompt_tokens += x->n_prompt;
        quota_use_more(x, x->n_prompt);
    }
    enum wire_reason reason = x->complete ? WIRE_STOP : ev->reason;
    enum metrics_end end = failed ? METRICS_ERROR : (enum metrics_end)reason;
    if (!x->shares_request) m->requests[x->endpoint][end]++;
    if (end == METRICS_CANCEL && !x->shares_request)
        m->cancelled[x->first_token ? METRICS_DECODE
                     : x->admitted  ? METRICS_PREFILL
                                    : METRICS_WAITING]++;
    if (ev->produced > 1)
        histogram_note_seconds(&m->per_token,
                               (x->last_token - x->first_token) / (ev->produced - 1));
    if (!failed) histogram_note_seconds(&m->whole, clock_us() - x->began);
    histogram_note_tokens(&m->answer_length, ev->produced);
    log_done(x, failed ? err_code_name(ev->failure->e.code) : wire_reason_name(reason),
             ev->produced);
}

void exchange_deliver(const struct job_event *ev)
{
    struct exchange *x = ev->job->owner;
    struct metrics *m = &x->server->metrics;
    CHECK(x->running && ev->job == x->job);
    CHECK(ev->kind != JOB_ADMITTED || !x->admitted);
    CHECK(ev->kind != JOB_TOKEN || (x->admitted && ev->index == x->job->n_have + x->n_tokens));
    CHECK((ev->kind != JOB_THOUGHT && ev->kind != JOB_CHUNK) || x->admitted);
    CHECK(ev->kind == JOB_DONE || !ev->failure);
    x->running = ev->kind != JOB_DONE;
    if (ev->kind == JOB_ADMITTED)
        note_admitted(x, ev, m);
    else if (ev->kind == JOB_PROGRESS)
        note_cached(x, ev, m);
    else if (ev->kind == JOB_THOUGHT)
        x->n_thoughts++;
    else if (ev->kind == JOB_TOKEN)
        note_tokens(x, ev, 1, m);
    else if (ev->kind == JOB_CHUNK)
        note_tokens(x, ev, ev->produced, m);
    else if (ev->kind == JOB_DONE)
        note_done(x, ev, m);
    quota_use_event(x, ev);
    ev->job->on_event(x, ev);
}
