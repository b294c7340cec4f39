/*
 * endpoint_assist: the endpoint of /v1/assist, the protocol of proto/wire.h: requests in, events
 * out. See server.h for what it promises, server_impl.h for the life of an exchange.
 */
#include <stdio.h>
#include <string.h>

#include "cloud/api/request_work.h"

struct assist_exchange {
    struct exchange x; /* first */
    enum wire_match match;
    bool begun; /* the head of the stream is sent: with its first bytes */
};

static bool open_stream(struct exchange *x)
{
    struct assist_exchange *a = (struct assist_exchange *)x;
    if (!a->begun) http_stream_begin(x->request, "text/event-stream");
    a->begun = true;
    return true;
}

/* Out of memory ends the stream: one with a hole would be worse than none. */
static void send_event(struct assist_exchange *a)
{
    struct server *s = a->x.server;
    struct err e;
    buf_clear(&s->bytes);
    if (!a->x.request) return;
    (void)open_stream(&a->x);
    exchange_send_scratch(&a->x, wire_event_encode(&s->event, &s->bytes, &e));
}

static uint32_t estimate_first_ms(const struct assist_exchange *a)
{
    struct backend_stats stats;
    backend_stats_of(a->x.server->backend, &stats);
    uint64_t all = a->x.n_prompt + a->x.job->n_have;
    uint64_t tokens = all > a->x.cached ? all - a->x.cached : 0;
    return stats.prefill_tps ? (uint32_t)(tokens * 1000 / stats.prefill_tps) : 0;
}

static void on_admitted(struct assist_exchange *a, const struct job_event *ev)
{
    struct wire_event *out = &a->x.server->event;
    out->kind = WIRE_GRANT;
    snprintf(out->id, sizeof out->id, "%s", a->x.id);
    /* The less close of what the request allows and what the backend gives. */
    out->match = a->match > ev->match ? a->match : ev->match;
    out->tokens_max = atomic_load(&a->x.job->tokens_max);
    out->prompt_tokens = a->x.n_prompt;
    out->cached_tokens = ev->cached;
    out->first_token_ms = estimate_first_ms(a);
    out->refine = a->x.job->refine != NULL;
    send_event(a);
}

static void on_progress(struct assist_exchange *a, const struct job_event *ev)
{
    struct wire_event *out = &a->x.server->event;
    out->kind = WIRE_PROGRESS;
    out->done = ev->done;
    out->total = ev->total;
    send_event(a);
}

static void on_refined(struct assist_exchange *a, const struct refined *v)
{
    struct wire_event *out = &a->x.server->event;
    bool refused = v->choice.refusal != KEEP_OK;
    out->kind = WIRE_REFINED;
    out->version = v->version;
    out->final = v->final;
    out->chunk = 1;
    out->ratio = refused ? 1.0f : v->choice.ratio;
    out->coverage = refused ? 1.0f : v->choice.coverage;
    snprintf(out->refused, sizeof out->refused, "%s", keep_refusal_name(v->choice.refusal));
    buf_clear(&out->kept);
    if (!refused && buf_append(&out->kept, v->bits, v->n_bits))
        exchange_cut_off(&a->x);
    else
        send_event(a);
}

static void on_token(struct assist_exchange *a, const struct job_event *ev)
{
    struct server *s = a->x.server;
    s->event.kind = WIRE_TOKEN;
    s->event.index = ev->index;
    s->event.token = ev->token;
    buf_clear(&s->event.text);
    if (exchange_text(&a->x, ev, &s->event.text) == 0)
        send_event(a);
    else
        exchange_cut_off(&a->x);
}

/* The wire has no place for thoughts: a device would take them for the answer. */
static bool only_thought(const struct assist_exchange *a, const struct job_event *ev)
{
    return a->x.n_thoughts > 0 && a->x.n_tokens == 0 &&
           (ev->reason == WIRE_STOP || ev->reason == WIRE_LENGTH || ev->reason == WIRE_BUDGET);
}

static void on_done(struct assist_exchange *a, const struct job_event *ev)
{
    struct wire_event *out = &a->x.server->event;
    if (ev->failure && !a->begun) {
        struct http_request *refused = exchange_detach(&a->x);
        if (refused) request_refuse_job(a->x.server, refused, ev->failure);
        exchange_free(&a->x);
        return;
    }
    if (ev->failure) {
        out->kind = WIRE_ERROR;
        snprintf(out->code, sizeof out->code, "%s", err_code_name(ev->failure->e.code));
        snprintf(out->message, sizeof out->message, "%s", ev->failure->e.text);
    } else if (only_thought(a, ev)) {
        out->kind = WIRE_ERROR;
        snprintf(out->code, sizeof out->code, "%s", err_code_name(ERR_LIMIT));
        snprintf(out->message, sizeof out->message,
                 "the model spent all tokens on its thought and gave no answer: allow more tokens "
                 "(--max-tokens)");
    } else {
        out->kind = WIRE_DONE;
        out->reason = ev->reason;
        out->prompt_tokens = a->x.n_prompt;
        out->cached_tokens = a->x.cached;
        out->completion_tokens = ev->produced;
    }
    send_event(a);
    exchange_end_stream(&a->x);
    exchange_free(&a->x);
}

/* send_event may end with the client cut off later, never at once: `a` stays good throughout. */
static void on_event(void *owner, const struct job_event *ev)
{
    struct assist_exchange *a = owner;
    switch (ev->kind) {
    case JOB_ADMITTED:
        on_admitted(a, ev);
        break;
    case JOB_PROGRESS:
        on_progress(a, ev);
        break;
    case JOB_REFINED:
        on_refined(a, ev->refined);
        break;
    case JOB_CHUNK: /* of OpenAI's API only */
    case JOB_THOUGHT:
        break;
    case JOB_TOKEN:
        on_token(a, ev);
        break;
    case JOB_DONE:
        on_done(a, ev);
        break;
    }
}

struct assist_work {
    struct request_work w; /* first */
    struct wire_request q;
    struct token_list prompt;
    struct refine *refine; /* NULL: not asked for, or not here */
    struct detok detok;
    enum wire_match match;
    bool decoded;
};

static void work(struct request_work *w)
{
    struct assist_work *a = (struct assist_work *)w;
    const char *param = NULL;
    token_list_init(&a->prompt, WIRE_PROMPT_MAX);
    detok_init(&a->detok, true);
    wire_request_init(&a->q);
    if (wire_request_decode(w->body.bytes.data, w->body.bytes.len, &a->q, &w->e)) return;
    a->decoded = true;
    a->match = prompt_match(&w->rules, &a->q);
    if (prompt_check_sampling(&w->rules, &a->q.sampling, &w->e)) {
        request_work_name(w, "sampling.logit_bias");
        return;
    }
    int code = prompt_make(&w->rules, &a->q, a->match != WIRE_TEXT, &a->prompt, &param, &w->e);
    if (code) request_work_name(w, param);
    if (!code) code = prompt_skip_have(&w->rules, &a->q, &a->detok, &w->e);
    /* A bitmap of tokens is of use only where tokens mean the same. */
    if (!code && w->rules.refines && a->match != WIRE_TEXT && a->q.refine.ratio > 0)
        code = refine_new(w->rules.vocab, a->prompt.ids, a->prompt.len, &a->q.refine, &a->refine,
                          &w->e);
    if (!code && w->large) (void)prompt_prepare(&w->rules, &a->q, &a->prompt, &w->e);
}

static void begin(struct assist_work *from)
{
    struct request_ctx *c = &from->w.ctx;
    struct err e = ERR_INIT;
    struct assist_exchange *a = exchange_new(c, METRICS_ASSIST, sizeof *a);
    int code = a ? 0 : err_set(&e, ERR_NO_MEMORY, "no memory for another stream");
    if (code == 0) {
        a->match = from->match;
        a->x.detok = from->detok;
        a->x.began = from->w.arrived;
        a->x.adjustable = true;
        a->x.open_stream = open_stream;
        a->x.refine = from->refine;
        from->refine = NULL;
        exchange_take_body(&a->x, &from->w.body);
        code = exchange_submit(&a->x, c, "as-", &from->prompt, &from->q, on_event, &e);
    }
    if (code == 0) {
        exchange_attach(&a->x, c->http);
        return;
    }
    if (a) exchange_free(&a->x);
    request_refuse(c, &e, NULL);
}

static void finish_work(struct request_work *w)
{
    struct assist_work *a = (struct assist_work *)w;
    if (!a->decoded)
        request_refuse(&w->ctx, &w->e, NULL);
    else if (!request_accepts(&w->ctx, a->q.model))
        return;
    else if (w->e.code)
        request_refuse(&w->ctx, &w->e, w->param[0] ? w->param : NULL);
    else
        begin(a);
}

static void release_work(struct request_work *w)
{
    struct assist_work *a = (struct assist_work *)w;
    wire_request_release(&a->q);
    refine_free(a->refine);
    token_list_release(&a->prompt);
}

void assist_post(struct http_request *r, void *server)
{
    static const struct request_work_ops ops = {sizeof(struct assist_work), work, finish_work,
                                                release_work};
    struct request_work *w = request_work_new(server, r, &ops);
    if (w) request_work_run(w);
}

static struct exchange *named_assist(struct request_ctx *c)
{
    const char *id = http_request_id(c->http);
    struct exchange *x = exchange_find(c->server, id);
    if (x && !x->adjustable) x = NULL;
    if (x && x->key != c->key) x = NULL; /* another key's: it does not exist for this one */
    if (x) return x;
    if (!quota_use_request(c)) return NULL;
    request_log_refusal(c, 404, "assist_not_found");
    http_reply_error(c->http, 404, "assist_not_found", NULL,
                     "no running assist %s: it may have ended", id);
    return NULL;
}

void assist_patch(struct http_request *r, void *server)
{
    struct request_ctx c;
    struct err e = ERR_INIT;
    uint32_t tokens_max = 0;
    size_t n;
    if (!request_authorised(&c, server, r)) return;
    const char *body = http_request_body(r, &n);
    struct exchange *x = named_assist(&c);
    if (!x) return;
    if (wire_patch_decode(body, n, &tokens_max, &e)) {
        if (quota_use_request(&c)) request_refuse(&c, &e, "tokens_max");
        return;
    }
    tokens_max = exchange_extend(x, tokens_max);
    char reply[64];
    int len = snprintf(reply, sizeof reply, "{\"tokens_max\":%u}", tokens_max);
    http_reply_json(r, 200, reply, (size_t)len);
}

void assist_delete(struct http_request *r, void *server)
{
    struct request_ctx c;
    if (!request_authorised(&c, server, r)) return;
    struct exchange *x = named_assist(&c);
    if (!x) return;
    exchange_cancel(x);
    static const char reply[] = "{\"cancelled\":true}";
    http_reply_json(r, 200, reply, sizeof reply - 1);
}
