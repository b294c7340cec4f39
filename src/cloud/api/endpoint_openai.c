/*
 * endpoint_openai: the endpoint of /v1/chat/completions and /v1/completions, messages of
 * proto/openai.h.
 *
 * A stream's head waits until work on the answer starts, so that what fails before has its status.
 * Text is let go once no stop string can begin in it any more; log-probabilities go with the text
 * of their tokens, and those of a token that a stop string took are not told. When a stop string is
 * found the response ends at once, and then the job is stopped.
 * See server.h for what it promises, server_impl.h for the life of an exchange.
 */
#include <stddef.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "cloud/api/request_work.h"
#include "proto/openai.h"
#include "proto/stop.h"

enum {
    TEXT_MAX = 16 << 20,
    ANSWER_MAX = 64 << 20,
    PIECES_MAX = 1 << 20,
    ENTRIES_AT_ONCE = 2048, /* log-probabilities that the loop writes itself, in a millisecond */
    ENTRY_BYTES = 64        /* about, of one in a response */
};

/* Where a token's text begins in the answer. */
struct mark {
    uint32_t bytes, chars;
};

struct openai_exchange {
    struct exchange x; /* first */
    struct openai_request q;
    struct buf text;    /* of the answer, but for what a stream has sent */
    struct buf thought; /* unless it is streamed */
    size_t showable;    /* bytes at its beginning in which no stop string can begin */
    struct mark so_far; /* all text that has come */
    uint32_t sent;      /* bytes of the answer before `text` */
    uint32_t n_tokens, rows_sent;
    struct buf marks;  /* struct mark of each token; empty without log-probabilities */
    struct buf pieces; /* scratch of fill_row */
    uint64_t created;
    char fingerprint[OPENAI_FINGERPRINT_MAX];
    bool begun;   /* the head of the stream is sent */
    bool ended;   /* the response is complete; ignore further events */
    bool over;    /* the job is; the exchange goes when its response is written */
    bool writing; /* `whole` is the helper thread's */
    struct whole {
        struct offload_task task; /* where it is written by a helper thread */
        struct openai_rows rows;
        struct openai_usage usage;
        const char *reason;
        struct buf out;
    } whole;
};

_Static_assert((int)OPENAI_TOP_CHAT_MAX <= (int)JOB_LOGPROBS_TOP_MAX,
               "a job can bring what may be asked");

static void release(struct exchange *x)
{
    struct openai_exchange *a = (struct openai_exchange *)x;
    openai_request_release(&a->q);
    buf_release(&a->text);
    buf_release(&a->thought);
    buf_release(&a->pieces);
    buf_release(&a->marks);
    buf_release(&a->whole.out);
}

static const struct mark *mark_of(const struct openai_exchange *a, uint32_t i)
{
    return (const struct mark *)a->marks.data + i;
}

static struct openai_head head_of(const struct openai_exchange *a)
{
    return (struct openai_head){a->q.chat,      a->x.id,    a->x.server->model_name,
                                a->fingerprint, a->created, NULL};
}

/* One token of the answer with the likeliest ones in its place. */
static void fill_row(void *arg, uint32_t i, struct openai_row *ret_row)
{
    struct openai_exchange *a = arg;
    const struct vocab *v = a->x.server->backend->vocab;
    const struct job_logprob *row = job_logprobs_of(a->x.job, i);
    size_t ends[1 + OPENAI_TOP_CHAT_MAX];
    uint32_t n = 0;
    buf_clear(&a->pieces);
    for (; n <= a->q.top_logprobs && row[n].id >= 0; n++) {
        (void)vocab_piece(v, row[n].id, true, &a->pieces); /* an id of ours; no memory: no bytes */
        ends[n] = a->pieces.len;
    }
    for (uint32_t k = 0; k < n; k++) {
        size_t begin = k ? ends[k - 1] : 0;
        struct openai_piece p = {a->pieces.data + begin, ends[k] - begin, row[k].logprob};
        *(k ? &ret_row->top[k - 1] : &ret_row->token) = p;
    }
    ret_row->n_top = n - 1;
    ret_row->text_offset = mark_of(a, i)->chars;
}

/* The rows that go with the text up to `end`, a byte of the answer; UINT32_MAX: all. */
static struct openai_rows rows_until(struct openai_exchange *a, uint32_t end)
{
    uint32_t to = a->rows_sent;
    while (a->q.logprobs && to < a->n_tokens && (end == UINT32_MAX || mark_of(a, to)->bytes < end))
        to++;
    return (struct openai_rows){fill_row, a, a->rows_sent, to};
}

/* Send what was written to the server's scratch; out of memory ends the stream. */
static void send_scratch(struct openai_exchange *a, int code)
{
    struct buf *out = &a->x.server->bytes;
    if (code)
        exchange_cut_off(&a->x);
    else
        exchange_send(&a->x, out->data, out->len);
}

static void send_chunk(struct openai_exchange *a, const struct openai_choice *c)
{
    struct openai_head h = head_of(a);
    buf_clear(&a->x.server->bytes);
    send_scratch(a, openai_put_chunk(&a->x.server->bytes, &h, c, a->q.include_usage));
}

/* What can be shown goes to the stream. */
static void let_go(struct openai_exchange *a, bool all_rows)
{
    uint32_t end = a->sent + (uint32_t)a->showable;
    struct openai_rows rows = rows_until(a, all_rows ? UINT32_MAX : end);
    if (a->showable == 0 && rows.from == rows.to) return;
    send_chunk(a, &(struct openai_choice){.text = a->text.data,
                                          .text_len = a->showable,
                                          .rows = a->q.logprobs ? &rows : NULL});
    a->rows_sent = rows.to;
    a->sent = end;
    buf_consume(&a->text, a->showable);
    a->showable = 0;
}

static struct openai_usage usage_of(const struct openai_exchange *a)
{
    return (struct openai_usage){.prompt_tokens = a->x.n_prompt,
                                 .cached_tokens = a->x.cached,
                                 .completion_tokens = a->n_tokens + a->x.n_thoughts,
                                 .reasoning_tokens = a->x.n_thoughts};
}

static void end_stream(struct openai_exchange *a)
{
    struct http_request *r = exchange_detach(&a->x);
    if (r) http_stream_end(r);
}

static void finish_stream(struct openai_exchange *a, const char *reason)
{
    struct openai_head h = head_of(a);
    struct openai_usage usage = usage_of(a);
    struct buf *out = &a->x.server->bytes;
    send_chunk(a, &(struct openai_choice){.text = "", .finish_reason = reason});
    buf_clear(out);
    int code = a->q.include_usage ? openai_put_usage(out, &h, &usage) : 0;
    if (!code) code = openai_put_end(out);
    send_scratch(a, code);
    end_stream(a);
}

/* Write the whole response. Any thread: what it reads changes no more, as the answer is over, and
 * rows are written before their tokens are reported. */
static void write_whole(struct openai_exchange *a)
{
    struct openai_head h = head_of(a);
    struct openai_choice c = {.text = a->text.data,
                              .text_len = a->showable,
                              .thought = a->thought.data,
                              .thought_len = a->thought.len,
                              .rows = a->q.logprobs ? &a->whole.rows : NULL,
                              .finish_reason = a->whole.reason};
    (void)openai_put_answer(&a->whole.out, &h, &c, &a->whole.usage);
}

static void reply_whole(struct openai_exchange *a)
{
    struct http_request *r = exchange_detach(&a->x);
    if (r && a->whole.out.error)
        http_reply_error(r, 503, "no_memory", NULL, "no memory for the answer");
    else if (r)
        http_reply_take(r, 200, "application/json", &a->whole.out);
}

static struct openai_exchange *of_task(struct offload_task *t)
{
    return (struct openai_exchange *)(void *)((char *)t -
                                              offsetof(struct openai_exchange, whole.task));
}

static void write_in_helper(struct offload_task *t)
{
    write_whole(of_task(t));
}

static void written(struct offload_task *t)
{
    struct openai_exchange *a = of_task(t);
    a->writing = false;
    reply_whole(a);
    if (a->over) exchange_free(&a->x);
}

static void write_dropped(struct offload_task *t)
{
    (void)t; /* the server ends, and the exchange with it */
}

/* Thousands of log-probabilities are written by a helper thread. */
static void finish_whole(struct openai_exchange *a, const char *reason,
                         const struct openai_rows *rows)
{
    struct whole *w = &a->whole;
    uint32_t entries = a->q.logprobs ? (rows->to - rows->from) * (1 + a->q.top_logprobs) : 0;
    w->rows = *rows;
    w->usage = usage_of(a);
    w->reason = reason;
    w->task = (struct offload_task){.work = write_in_helper,
                                    .done = written,
                                    .drop = write_dropped,
                                    .size = (size_t)entries * ENTRY_BYTES,
                                    .owner = a->x.key ? a->x.key->tenant : 0,
                                    .unlimited = true};
    if (!a->x.request) return;
    a->writing =
        entries > ENTRIES_AT_ONCE && offload_submit(a->x.server->offload, &w->task, NULL) == 0;
    if (a->writing) return;
    write_whole(a);
    reply_whole(a);
}

/* The answer is over. `stopped`: by a stop string, before a->showable. */
static void finish(struct openai_exchange *a, const char *reason, bool stopped)
{
    a->ended = true;
    if (!stopped) a->showable = a->text.len;
    if (a->q.stream) {
        let_go(a, !stopped);
        finish_stream(a, reason);
        return;
    }
    struct openai_rows rows = rows_until(a, stopped ? (uint32_t)a->showable : UINT32_MAX);
    finish_whole(a, reason, &rows);
}

/* There is no answer, or no more of it. */
static void fail(struct openai_exchange *a, const struct job_failure *f)
{
    a->ended = true;
    if (!a->begun) {
        struct http_request *r = exchange_detach(&a->x);
        if (r) request_refuse_job(a->x.server, r, f);
        return;
    }
    struct buf *out = &a->x.server->bytes;
    buf_clear(out);
    int code = openai_put_error(out, 500, err_code_name(f->e.code), f->e.text);
    if (!code) code = openai_put_end(out);
    send_scratch(a, code);
    end_stream(a);
}

static void no_memory(struct openai_exchange *a)
{
    struct job_failure failed = {.e = ERR_INIT};
    err_set(&failed.e, ERR_NO_MEMORY, "no memory for the answer");
    fail(a, &failed);
    exchange_cancel(&a->x);
}

static bool open_stream(struct exchange *x)
{
    struct openai_exchange *a = (struct openai_exchange *)x;
    if (!a->q.stream || a->ended) return false;
    if (!a->begun) http_stream_begin(x->request, "text/event-stream");
    a->begun = true;
    return true;
}

static void on_admitted(struct openai_exchange *a)
{
    if (!a->x.request || !open_stream(&a->x)) return;
    if (!a->q.chat) return;
    struct openai_head h = head_of(a);
    buf_clear(&a->x.server->bytes);
    send_scratch(a, openai_put_role(&a->x.server->bytes, &h, a->q.include_usage));
}

/* Whatever its name was, it is sent as reasoning_content, apart from the answer; no stop string
 * ends it. */
static void on_thought(struct openai_exchange *a, const struct job_event *ev)
{
    if (!a->q.chat) return;
    if (a->q.stream) {
        send_chunk(a, &(struct openai_choice){.thought = ev->text, .thought_len = ev->text_len});
    } else if (buf_append(&a->thought, ev->text, ev->text_len)) {
        no_memory(a);
    }
}

static uint32_t count_chars(const char *text, size_t n)
{
    uint32_t chars = 0;
    for (size_t i = 0; i < n; i++)
        chars += ((unsigned char)text[i] & 0xc0) != 0x80;
    return chars;
}

static void on_token(struct openai_exchange *a, const struct job_event *ev)
{
    size_t before = a->text.len, clear;
    int code = a->q.logprobs ? buf_append(&a->marks, &a->so_far, sizeof a->so_far) : 0;
    if (!code) code = exchange_text(&a->x, ev, &a->text);
    a->n_tokens++;
    if (code) {
        no_memory(a);
        return;
    }
    a->so_far.bytes += (uint32_t)(a->text.len - before);
    a->so_far.chars += count_chars(a->text.data + before, a->text.len - before);
    bool stopped = stop_scan(a->q.stops, a->q.n_stops, a->text.data + a->showable,
                             a->text.len - a->showable, &clear);
    a->showable += clear;
    if (stopped) {
        finish(a, "stop", true);
        exchange_complete(&a->x);
    } else if (a->q.stream) {
        let_go(a, false);
    }
}

/* What a job's end without an answer means here; else 0. */
static int check_reason(enum wire_reason reason, struct err *e)
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

static void on_done(struct openai_exchange *a, const struct job_event *ev)
{
    struct job_failure cut_off = {.e = ERR_INIT};
    if (ev->failure)
        fail(a, ev->failure);
    else if (check_reason(ev->reason, &cut_off.e))
        fail(a, &cut_off);
    else
        finish(a, ev->reason == WIRE_STOP ? "stop" : "length", false);
}

static void on_event(void *owner, const struct job_event *ev)
{
    struct openai_exchange *a = owner;
    if (ev->kind == JOB_ADMITTED && !a->ended) on_admitted(a);
    if (ev->kind == JOB_THOUGHT && !a->ended) on_thought(a, ev);
    if (ev->kind == JOB_TOKEN && !a->ended) on_token(a, ev);
    if (ev->kind != JOB_DONE) return;
    if (!a->ended) on_done(a, ev);
    a->over = true;
    if (!a->writing) exchange_free(&a->x);
}

struct openai_work {
    struct request_work w; /* first */
    struct openai_request q;
    struct token_list prompt;
    bool chat, decoded;
};

/* The prompt's tokens, of whatever form it came in. */
static int make_prompt(struct openai_work *o, const char **ret_param)
{
    const struct prompt_rules *rules = &o->w.rules;
    *ret_param = "prompt";
    if (!o->q.chat && !rules->takes_ids) return prompt_need_vocab(&o->w.e);
    if (!o->q.text) return prompt_make(rules, &o->q.ask, true, &o->prompt, ret_param, &o->w.e);
    return prompt_make_text(rules, o->q.text, o->q.text_len, &o->prompt, &o->w.e);
}

static void work(struct request_work *w)
{
    struct openai_work *o = (struct openai_work *)w;
    const char *param = "";
    token_list_init(&o->prompt, WIRE_PROMPT_MAX);
    if (openai_request_decode(w->body.bytes.data, w->body.bytes.len, o->chat, &o->q, w->param,
                              &w->e))
        return;
    o->decoded = true;
    if (prompt_check_sampling(&w->rules, &o->q.ask.sampling, &w->e))
        request_work_name(w, "logit_bias");
    else if (make_prompt(o, &param))
        request_work_name(w, param);
    else if (w->large)
        (void)prompt_prepare(&w->rules, &o->q.ask, &o->prompt, &w->e);
}

static int check_backend(const struct server *s, const struct openai_request *q, const char **param,
                         struct err *e)
{
    if (!q->logprobs || s->backend->gives_logprobs) return 0;
    *param = "logprobs";
    return err_set(e, ERR_UNSUPPORTED,
                   "logprobs: upstream servers compute here; their log-probabilities are not "
                   "forwarded");
}

/* An exchange that has taken `q`. NULL: no memory. */
static struct openai_exchange *openai_new(const struct request_ctx *c, struct openai_request *q,
                                          struct err *e)
{
    struct openai_exchange *a =
        exchange_new(c, q->chat ? METRICS_CHAT : METRICS_COMPLETION, sizeof *a);
    uint64_t seed;
    if (!a) {
        err_set(e, ERR_NO_MEMORY, "no memory for another answer");
        return NULL;
    }
    a->x.release = release;
    a->x.open_stream = open_stream;
    a->q = *q;
    *q = (struct openai_request){.chat = a->q.chat};
    a->x.logprobs = a->q.logprobs;
    a->x.logprobs_top = a->q.top_logprobs;
    a->created = (uint64_t)time(NULL);
    buf_init(&a->text, TEXT_MAX);
    buf_init(&a->thought, TEXT_MAX);
    buf_init(&a->marks, WIRE_TOKENS_MAX * sizeof(struct mark));
    buf_init(&a->pieces, PIECES_MAX);
    buf_init(&a->whole.out, ANSWER_MAX);
    detok_init(&a->x.detok, a->q.chat); /* a completion goes on with the prompt's text */
    const struct engine_info *info = c->server->backend->info;
    openai_fingerprint(info->weights_hash, info->numerics, a->fingerprint);
    if (!a->q.seeded && getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed)
        a->q.ask.sampling.seed = seed & INT64_MAX;
    return a;
}

static void begin(struct openai_work *o)
{
    struct request_ctx *c = &o->w.ctx;
    struct err e = ERR_INIT;
    struct openai_exchange *a = openai_new(c, &o->q, &e);
    int code = e.code;
    if (a) {
        a->x.began = o->w.arrived;
        exchange_take_body(&a->x, &o->w.body);
        code = exchange_submit(&a->x, c, a->q.chat ? "chatcmpl-" : "cmpl-", &o->prompt, &a->q.ask,
                               on_event, &e);
    }
    if (code == 0) {
        openai_request_free_prompt(&a->q); /* the job has it */
        exchange_attach(&a->x, c->http);
        return;
    }
    if (a) exchange_free(&a->x);
    request_refuse(c, &e, NULL);
}

static void finish_work(struct request_work *w)
{
    struct openai_work *o = (struct openai_work *)w;
    struct err e = ERR_INIT;
    const char *param = w->param[0] ? w->param : NULL;
    if (!o->decoded)
        request_refuse(&w->ctx, &w->e, param);
    else if (!request_accepts(&w->ctx, o->q.ask.model))
        return;
    else if (check_backend(w->ctx.server, &o->q, &param, &e))
        request_refuse(&w->ctx, &e, param);
    else if (w->e.code)
        request_refuse(&w->ctx, &w->e, param);
    else
        begin(o);
}

static void release_work(struct request_work *w)
{
    struct openai_work *o = (struct openai_work *)w;
    openai_request_release(&o->q);
    token_list_release(&o->prompt);
}

static void post(struct http_request *r, struct server *s, bool chat)
{
    static const struct request_work_ops ops = {sizeof(struct openai_work), work, finish_work,
                                                release_work};
    struct openai_work *o = request_work_new(s, r, &ops);
    if (!o) return;
    o->chat = chat;
    request_work_run(&o->w);
}

void openai_post_chat(struct http_request *r, void *server)
{
    post(r, server, true);
}

void openai_post_completion(struct http_request *r, void *server)
{
    post(r, server, false);
}
