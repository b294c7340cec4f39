/*
 * endpoint_pass: requests of /v1/chat/completions and /v1/completions that upstream servers compute
 * with options of theirs (proto/openai_pass.h): the answer goes to the client as it comes, but for
 * its head. endpoint_openai.c decides which requests these are.
 *
 * A stream's head waits until a server has accepted the request, so that what fails before has its
 * status. What fails later ends the stream with an error object, which clients raise as an error.
 */
#include <time.h>

#include "base/clock.h"
#include "cloud/api/request_work.h"
#include "proto/json.h"
#include "proto/openai.h"
#include "proto/openai_pass.h"

enum { PASS_ANSWER_MAX = 64 << 20 };

struct pass_exchange {
    struct exchange x; /* first */
    bool chat, stream, include_usage, progress;
    bool begun; /* the head of the stream is sent */
    bool ended; /* the response is complete; ignore further events */
    uint32_t choices;
    uint64_t created;
    struct buf whole; /* unless it is a stream */
};

static void release(struct exchange *x)
{
    buf_release(&((struct pass_exchange *)x)->whole);
}

static void put_head(const struct pass_exchange *a, struct buf *out)
{
    const char *object = !a->chat    ? "text_completion"
                         : a->stream ? "chat.completion.chunk"
                                     : "chat.completion";
    buf_printf(out, "%s{\"id\":\"%s\",\"object\":\"%s\",\"created\":", a->stream ? "data: " : "",
               a->x.id, object);
    json_put_u64(out, a->created);
    buf_printf(out, ",\"model\":\"%s\",", a->x.server->model_name);
}

static int put_tail(const struct pass_exchange *a, struct buf *out)
{
    return buf_puts(out, a->stream ? "}\n\n" : "}");
}

static bool open_stream(struct exchange *x)
{
    struct pass_exchange *a = (struct pass_exchange *)x;
    if (!a->stream || a->ended) return false;
    if (!a->begun) http_stream_begin(x->request, "text/event-stream");
    a->begun = true;
    return true;
}

static void fail(struct pass_exchange *a, const struct job_failure *f)
{
    a->ended = true;
    exchange_fail(&a->x, a->begun, f);
}

static void on_chunk(struct pass_exchange *a, const struct job_event *ev)
{
    struct buf *out = a->stream ? &a->x.server->bytes : &a->whole;
    buf_clear(out);
    put_head(a, out);
    buf_append(out, ev->text, ev->text_len);
    int code = put_tail(a, out);
    if (a->stream) {
        exchange_send_scratch(&a->x, code);
    } else if (code) {
        struct job_failure failed = {.e = ERR_INIT};
        err_set(&failed.e, ERR_NO_MEMORY, "no memory for the answer");
        fail(a, &failed);
        exchange_cancel(&a->x);
    }
}

/* How far the prompt is read there, in a chunk without text. */
static void on_progress(struct pass_exchange *a, const struct job_event *ev)
{
    struct buf *out = &a->x.server->bytes;
    const struct openai_progress progress = {ev->total, a->x.cached, ev->done,
                                             clock_us() - a->x.admitted};
    const struct openai_head h = {.chat = a->chat,
                                  .id = a->x.id,
                                  .model = a->x.server->model_name,
                                  .fingerprint = "",
                                  .created = a->created,
                                  .progress = &progress};
    const struct openai_choice empty = {.text = ""};
    buf_clear(out);
    exchange_send_scratch(&a->x, openai_put_chunk(out, &h, &empty, a->include_usage));
}

/* As the server counts; else as we do, by pieces. */
static void put_usage(const struct pass_exchange *a, struct buf *out)
{
    const struct exchange *x = &a->x;
    put_head(a, out);
    if (x->job->usage)
        buf_printf(out, "\"choices\":[],\"usage\":%s", x->job->usage);
    else
        buf_printf(out,
                   "\"choices\":[],\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,"
                   "\"total_tokens\":%u}",
                   x->n_prompt, x->n_tokens, x->n_prompt + x->n_tokens);
    (void)put_tail(a, out); /* an error stays in `out` */
}

/* The server was stopped: it had more to say than is allowed here. */
static void put_cut(const struct pass_exchange *a, struct buf *out)
{
    put_head(a, out);
    buf_puts(out, "\"choices\":[");
    for (uint32_t i = 0; i < a->choices; i++)
        buf_printf(out, "%s{\"index\":%u,%s,\"finish_reason\":\"length\"}", i ? "," : "", i,
                   a->chat ? "\"delta\":{}" : "\"text\":\"\"");
    buf_putc(out, ']');
    (void)put_tail(a, out);
}

static void finish(struct pass_exchange *a, enum wire_reason reason)
{
    struct buf *out = &a->x.server->bytes;
    a->ended = true;
    if (!a->stream) {
        struct http_request *r = exchange_detach(&a->x);
        if (r) http_reply_take(r, 200, "application/json", &a->whole);
        return;
    }
    buf_clear(out);
    if (reason == WIRE_BUDGET) put_cut(a, out);
    if (a->include_usage) put_usage(a, out);
    exchange_send_scratch(&a->x, openai_put_end(out));
    exchange_end_stream(&a->x);
}

static void on_done(struct pass_exchange *a, const struct job_event *ev)
{
    struct job_failure cut_off = {.e = ERR_INIT};
    if (ev->failure)
        fail(a, ev->failure);
    else if (exchange_check_reason(ev->reason, &cut_off.e))
        fail(a, &cut_off);
    else
        finish(a, ev->reason);
}

static void on_event(void *owner, const struct job_event *ev)
{
    struct pass_exchange *a = owner;
    if (ev->kind == JOB_ADMITTED && a->x.request) (void)open_stream(&a->x);
    if (ev->kind == JOB_PROGRESS && a->begun && a->progress && !a->ended) on_progress(a, ev);
    if (ev->kind == JOB_CHUNK && !a->ended) on_chunk(a, ev);
    if (ev->kind != JOB_DONE) return;
    if (!a->ended) on_done(a, ev);
    exchange_free(&a->x);
}

/* Each choice counts as a stream of its key, as those that our own engine computes. */
static int check_choices(const struct request_ctx *c, const struct openai_request *q,
                         const char **ret_param, struct err *e)
{
    uint32_t most = c->key ? c->key->line.limits.streams_max : 0;
    uint32_t n = q->ask.passed->computed;
    if (!most || n <= most) return 0;
    *ret_param = n > q->ask.passed->choices ? "best_of" : "n";
    return err_set(e, ERR_UNSUPPORTED,
                   "%s: %u answers in one request, and %u at once are allowed here", *ret_param, n,
                   most);
}

void pass_begin(struct request_work *w, struct openai_request *q)
{
    struct request_ctx *c = &w->ctx;
    struct err e = ERR_INIT;
    const char *param;
    if (check_choices(c, q, &param, &e)) {
        request_refuse(c, &e, param);
        return;
    }
    struct token_list none;
    struct pass_exchange *a =
        exchange_new(c, q->chat ? METRICS_CHAT : METRICS_COMPLETION, sizeof *a);
    int code = a ? 0 : err_set(&e, ERR_NO_MEMORY, "no memory for another answer");
    token_list_init(&none, 1);
    if (a) {
        a->x.release = release;
        a->x.open_stream = open_stream;
        a->chat = q->chat;
        a->stream = q->stream;
        a->include_usage = q->include_usage;
        a->progress = q->progress;
        a->choices = q->ask.passed->choices;
        a->x.streams = q->ask.passed->computed;
        a->created = (uint64_t)time(NULL);
        a->x.began = w->arrived;
        buf_init(&a->whole, PASS_ANSWER_MAX);
        exchange_take_body(&a->x, &w->body);
        struct exchange *x = &a->x;
        code = exchange_prepare(x, q->chat ? "chatcmpl-" : "cmpl-", &none, &q->ask, on_event, &e);
        if (!code) code = exchange_start(&x, 1, c, &e);
    }
    if (code == 0) {
        exchange_attach(&a->x, c->http);
        return;
    }
    if (a) exchange_free(&a->x);
    request_refuse(c, &e, NULL);
}
