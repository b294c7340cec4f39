/* openai_reply: see openai_reply.h. */
#include "cloud/api/openai_reply.h"

#include <stddef.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "model/text/thought.h"
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

/* An answer. */
struct choice {
    struct exchange x; /* first */
    struct openai_reply *reply;
    uint32_t index;
    struct thought parts; /* tells thought and answer apart */
    struct buf text;      /* of the answer, but for what a stream has sent */
    struct buf thought;   /* the same */
    size_t showable;      /* bytes at its beginning in which no stop string can begin */
    struct mark so_far;   /* all text that has come */
    uint32_t sent;        /* bytes of the answer before `text` */
    uint32_t n_tokens, rows_sent;
    uint32_t read;      /* tokens of the prompt, as told; UINT32_MAX: none */
    uint32_t n_thought; /* of the tokens, the first ones */
    struct buf marks;   /* struct mark of each token; empty without log-probabilities */
    bool ended;         /* it is complete; ignore further events */
    /* of a whole response */
    struct openai_rows rows;
    const char *reason;
};

struct openai_reply {
    struct server *server;
    struct openai_request q;
    struct choice **choices; /* [n] */
    uint32_t n;
    uint32_t n_alive, n_ended;
    uint32_t n_over;   /* whose job is over, or never ran */
    struct buf pieces; /* scratch of fill_row */
    struct buf piece;  /* and of on_token */
    uint64_t created;
    char fingerprint[OPENAI_FINGERPRINT_MAX];
    bool begun;   /* the head of the stream is sent */
    bool ended;   /* the response is complete; ignore further events */
    bool writing; /* `whole` is the helper thread's */
    struct whole {
        struct offload_task task; /* where it is written by a helper thread */
        struct openai_usage usage;
        struct openai_timings timings;
        struct buf out;
    } whole;
};

_Static_assert((int)OPENAI_TOP_CHAT_MAX <= (int)JOB_LOGPROBS_TOP_MAX,
               "a job can bring what may be asked");

static void reply_free(struct openai_reply *r)
{
    openai_request_release(&r->q);
    buf_release(&r->pieces);
    buf_release(&r->piece);
    buf_release(&r->whole.out);
    mem_free(r->choices);
    mem_free(r);
}

static void release(struct exchange *x)
{
    struct choice *a = (struct choice *)x;
    thought_release(&a->parts);
    buf_release(&a->text);
    buf_release(&a->thought);
    buf_release(&a->marks);
    if (--a->reply->n_alive == 0) reply_free(a->reply);
}

/* When all jobs are over and the response is written. The first goes last: it has the tokens. */
static void free_when_over(struct openai_reply *r)
{
    if (r->n_over < r->n || r->writing) return;
    for (uint32_t i = r->n; i-- > 0;)
        exchange_free(&r->choices[i]->x);
}

static struct exchange *lead_of(struct openai_reply *r)
{
    return &r->choices[0]->x;
}

static void cancel_all(struct openai_reply *r)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (r->choices[i]->x.running) exchange_cancel(&r->choices[i]->x);
}

static void gone(struct exchange *x)
{
    cancel_all(((struct choice *)x)->reply);
}

static const struct mark *mark_of(const struct choice *a, uint32_t i)
{
    return (const struct mark *)a->marks.data + i;
}

static struct openai_head head_of(const struct openai_reply *r)
{
    const struct exchange *lead = &r->choices[0]->x;
    return (struct openai_head){.chat = r->q.chat,
                                .id = lead->id,
                                .model = r->server->model_name,
                                .fingerprint =
                                    r->fingerprint[0] ? r->fingerprint : lead->job->fingerprint,
                                .created = r->created};
}

/* Of choices [from, to), from the first one's prompt on. */
static struct openai_timings timings_of(const struct openai_reply *r, uint32_t from, uint32_t to)
{
    const struct exchange *lead = &r->choices[from]->x;
    uint64_t first = 0, last = 0;
    struct openai_timings t = {.cached = lead->cached};
    for (uint32_t i = from; i < to; i++) {
        const struct exchange *x = &r->choices[i]->x;
        if (x->first_token && (!first || x->first_token < first)) first = x->first_token;
        if (x->last_token > last) last = x->last_token;
        t.predicted += x->n_tokens;
    }
    t.prompt = lead->n_prompt > lead->cached ? lead->n_prompt - lead->cached : 0;
    if (lead->admitted) t.prompt_us = (first ? first : clock_us()) - lead->admitted;
    t.predicted_us = last - first;
    return t;
}

/* One token of the answer with the likeliest ones in its place. */
static void fill_row(void *arg, uint32_t i, struct openai_row *ret_row)
{
    struct choice *a = arg;
    const struct vocab *v = a->x.server->backend->vocab;
    const struct job_logprob *row = job_logprobs_of(a->x.job, i);
    size_t ends[1 + OPENAI_TOP_CHAT_MAX];
    uint32_t n = 0;
    buf_clear(&a->reply->pieces);
    for (; n <= a->reply->q.top_logprobs && row[n].id >= 0; n++) {
        (void)vocab_piece(v, row[n].id, true,
                          &a->reply->pieces); /* an id of ours; no memory: no bytes */
        ends[n] = a->reply->pieces.len;
    }
    for (uint32_t k = 0; k < n; k++) {
        size_t begin = k ? ends[k - 1] : 0;
        struct openai_piece p = {a->reply->pieces.data + begin, ends[k] - begin, row[k].logprob};
        *(k ? &ret_row->top[k - 1] : &ret_row->token) = p;
    }
    ret_row->n_top = n - 1;
    ret_row->text_offset = mark_of(a, i)->chars;
}

/* The rows that go with the text up to `end`, a byte of the answer; UINT32_MAX: all. */
static struct openai_rows rows_until(struct choice *a, uint32_t end)
{
    uint32_t to = a->rows_sent;
    while (a->reply->q.logprobs && to < a->n_tokens &&
           (end == UINT32_MAX || mark_of(a, to)->bytes < end))
        to++;
    return (struct openai_rows){fill_row, a, a->rows_sent, to};
}

static void send_chunk(struct choice *a, struct openai_choice *c)
{
    struct openai_reply *r = a->reply;
    struct openai_head h = head_of(r);
    struct openai_timings timings;
    if (r->q.timings) {
        timings = timings_of(r, a->index, a->index + 1);
        h.timings = &timings;
    }
    c->index = a->index;
    buf_clear(&r->server->bytes);
    exchange_send_scratch(lead_of(r),
                          openai_put_chunk(&r->server->bytes, &h, c, r->q.include_usage));
}

/* What can be shown goes to the stream. */
static void let_go(struct choice *a, bool all_rows)
{
    uint32_t end = a->sent + (uint32_t)a->showable;
    struct openai_rows rows = rows_until(a, all_rows ? UINT32_MAX : end);
    if (a->showable == 0 && rows.from == rows.to) return;
    send_chunk(a, &(struct openai_choice){.text = a->text.data,
                                          .text_len = a->showable,
                                          .rows = a->reply->q.logprobs ? &rows : NULL});
    a->rows_sent = rows.to;
    a->sent = end;
    buf_consume(&a->text, a->showable);
    a->showable = 0;
}

/* Of all answers; a prompt counts once. */
static struct openai_usage usage_of(const struct openai_reply *r)
{
    struct openai_usage u = {.prompt_tokens = 0};
    for (uint32_t i = 0; i < r->n; i++) {
        const struct choice *a = r->choices[i];
        if (!a->x.shares_prompt) {
            u.prompt_tokens += a->x.n_prompt;
            u.cached_tokens += a->x.cached;
        }
        u.completion_tokens += a->n_tokens + a->x.n_thoughts;
        u.reasoning_tokens += a->x.n_thoughts + a->n_thought;
    }
    return u;
}

/* After the last chunk of the last choice. */
static void finish_stream(struct openai_reply *r)
{
    struct openai_head h = head_of(r);
    struct openai_usage usage = usage_of(r);
    struct buf *out = &r->server->bytes;
    buf_clear(out);
    int code = r->q.include_usage ? openai_put_usage(out, &h, &usage) : 0;
    if (!code) code = openai_put_end(out);
    exchange_send_scratch(lead_of(r), code);
    exchange_end_stream(lead_of(r));
}

/* Write the whole response. Any thread: what it reads changes no more, as the answers are complete,
 * and rows are written before their tokens are reported. */
static void write_whole(struct openai_reply *r)
{
    struct openai_head h = head_of(r);
    struct openai_choice choices[OPENAI_CHOICES_MAX];
    if (r->q.timings) h.timings = &r->whole.timings;
    for (uint32_t i = 0; i < r->n; i++) {
        const struct choice *a = r->choices[i];
        choices[i] = (struct openai_choice){.index = i,
                                            .text = a->text.data,
                                            .text_len = a->showable,
                                            .thought = a->thought.data,
                                            .thought_len = a->thought.len,
                                            .rows = r->q.logprobs ? &a->rows : NULL,
                                            .finish_reason = a->reason};
    }
    (void)openai_put_answer(&r->whole.out, &h, choices, r->n, &r->whole.usage);
}

static void reply_whole(struct openai_reply *r)
{
    struct http_request *http = exchange_detach(lead_of(r));
    if (http && r->whole.out.error)
        http_reply_error(http, 503, "no_memory", NULL, "no memory for the answer");
    else if (http)
        http_reply_take(http, 200, "application/json", &r->whole.out);
}

static struct openai_reply *of_task(struct offload_task *t)
{
    return (struct openai_reply *)(void *)((char *)t - offsetof(struct openai_reply, whole.task));
}

static void write_in_helper(struct offload_task *t)
{
    write_whole(of_task(t));
}

static void written(struct offload_task *t)
{
    struct openai_reply *r = of_task(t);
    r->writing = false;
    reply_whole(r);
    free_when_over(r);
}

static void write_dropped(struct offload_task *t)
{
    (void)t; /* the server ends, and the exchanges with it */
}

/* Thousands of log-probabilities are written by a helper thread. */
static void finish_whole(struct openai_reply *r)
{
    struct whole *w = &r->whole;
    struct exchange *lead = lead_of(r);
    size_t entries = 0;
    for (uint32_t i = 0; i < r->n && r->q.logprobs; i++)
        entries +=
            (size_t)(r->choices[i]->rows.to - r->choices[i]->rows.from) * (1 + r->q.top_logprobs);
    w->usage = usage_of(r);
    w->timings = timings_of(r, 0, r->n);
    w->task = (struct offload_task){.work = write_in_helper,
                                    .done = written,
                                    .drop = write_dropped,
                                    .size = entries * ENTRY_BYTES,
                                    .owner = lead->key ? lead->key->tenant : 0,
                                    .unlimited = true};
    if (!lead->request) return;
    r->writing =
        entries > ENTRIES_AT_ONCE && offload_submit(r->server->offload, &w->task, NULL) == 0;
    if (r->writing) return;
    write_whole(r);
    reply_whole(r);
}

/* There are no answers, or no more of them. */
static void fail(struct openai_reply *r, const struct job_failure *f)
{
    r->ended = true;
    cancel_all(r);
    exchange_fail(lead_of(r), r->begun, f);
}

static void no_memory(struct openai_reply *r)
{
    struct job_failure failed = {.e = ERR_INIT};
    err_set(&failed.e, ERR_NO_MEMORY, "no memory for the answer");
    fail(r, &failed);
}

/* A thought goes to the stream as it comes. */
static void let_thought_go(struct choice *a)
{
    if (!a->reply->q.stream || a->thought.len == 0) return;
    send_chunk(a,
               &(struct openai_choice){.thought = a->thought.data, .thought_len = a->thought.len});
    buf_clear(&a->thought);
}

/* The answer is complete. `stopped`: by a stop string, before a->showable. */
static void finish(struct choice *a, const char *reason, bool stopped)
{
    struct openai_reply *r = a->reply;
    if (!stopped && thought_finish(&a->parts, &a->thought, &a->text)) {
        no_memory(r);
        return;
    }
    a->ended = true;
    r->ended = ++r->n_ended == r->n;
    let_thought_go(a);
    if (!stopped) a->showable = a->text.len;
    if (r->q.stream) {
        let_go(a, !stopped);
        send_chunk(a, &(struct openai_choice){.text = "", .finish_reason = reason});
        if (r->ended) finish_stream(r);
        return;
    }
    a->rows = rows_until(a, stopped ? (uint32_t)a->showable : UINT32_MAX);
    a->reason = reason;
    if (r->ended) finish_whole(r);
}

static bool open_stream(struct exchange *x)
{
    struct openai_reply *r = ((struct choice *)x)->reply;
    if (!r->q.stream || r->ended) return false;
    if (!r->begun) http_stream_begin(lead_of(r)->request, "text/event-stream");
    r->begun = true;
    return true;
}

/* How far the prompt is read, in a chunk without text. Of several answers to it the first tells. */
static void tell_progress(struct choice *a, uint32_t done, uint32_t total)
{
    struct openai_reply *r = a->reply;
    if (!r->q.progress || !r->begun || a->x.shares_prompt || total == 0 || done == a->read) return;
    struct openai_head h = head_of(r);
    struct openai_progress progress = {total, a->x.cached, done, clock_us() - a->x.admitted};
    a->read = done;
    h.progress = &progress;
    buf_clear(&r->server->bytes);
    exchange_send_scratch(lead_of(r),
                          openai_put_chunk(&r->server->bytes, &h,
                                           &(struct openai_choice){.index = a->index, .text = ""},
                                           r->q.include_usage));
}

static void on_admitted(struct choice *a)
{
    struct openai_reply *r = a->reply;
    if (!lead_of(r)->request || !open_stream(&a->x)) return;
    if (r->q.chat) {
        struct openai_head h = head_of(r);
        buf_clear(&r->server->bytes);
        exchange_send_scratch(lead_of(r),
                              openai_put_role(&r->server->bytes, &h, a->index, r->q.include_usage));
    } else {
        let_go(a, false); /* an echo */
    }
    tell_progress(a, a->x.cached, a->x.n_prompt);
}

/* Whatever its name was, it is sent as reasoning_content, apart from the answer; no stop string
 * ends it. */
static void on_thought(struct choice *a, const struct job_event *ev)
{
    if (!a->reply->q.chat) return;
    if (buf_append(&a->thought, ev->text, ev->text_len))
        no_memory(a->reply);
    else
        let_thought_go(a);
}

static uint32_t count_chars(const char *text, size_t n)
{
    uint32_t chars = 0;
    for (size_t i = 0; i < n; i++)
        chars += ((unsigned char)text[i] & 0xc0) != 0x80;
    return chars;
}

/* The text of a token, to the thought or to the answer. */
static int take_text(struct choice *a, const struct job_event *ev)
{
    struct buf *piece = &a->reply->piece;
    if (a->parts.state == THOUGHT_OVER) return exchange_text(&a->x, ev, &a->text);
    buf_clear(piece);
    int code = exchange_text(&a->x, ev, piece);
    return code ? code
                : thought_push(&a->parts, a->reply->server->backend->vocab, ev->token, piece->data,
                               piece->len, &a->thought, &a->text);
}

/* Its tokens have no log-probabilities in the response, as they are not of its text. */
static void count_thought(struct choice *a)
{
    if (a->parts.state != THOUGHT_GOES_ON && a->parts.state != THOUGHT_ENDED) return;
    a->n_thought = a->rows_sent = a->n_tokens;
}

static void on_token(struct choice *a, const struct job_event *ev)
{
    const struct openai_request *q = &a->reply->q;
    size_t before = a->text.len, clear;
    int code = q->logprobs ? buf_append(&a->marks, &a->so_far, sizeof a->so_far) : 0;
    if (!code) code = take_text(a, ev);
    a->n_tokens++;
    count_thought(a);
    let_thought_go(a);
    if (code) {
        no_memory(a->reply);
        return;
    }
    a->so_far.bytes += (uint32_t)(a->text.len - before);
    a->so_far.chars += count_chars(a->text.data + before, a->text.len - before);
    bool stopped = stop_scan(q->stops, q->n_stops, a->text.data + a->showable,
                             a->text.len - a->showable, &clear);
    a->showable += clear;
    if (stopped) {
        finish(a, "stop", true);
        exchange_complete(&a->x);
    } else if (q->stream) {
        let_go(a, false);
    }
}

/* An upstream server may have had another reason. */
static const char *reason_name(const struct choice *a, enum wire_reason reason)
{
    const char *other = a->x.job->finish;
    return other[0] ? other : reason == WIRE_STOP ? "stop" : "length";
}

static void on_done(struct choice *a, const struct job_event *ev)
{
    struct job_failure cut_off = {.e = ERR_INIT};
    if (ev->failure)
        fail(a->reply, ev->failure);
    else if (exchange_check_reason(ev->reason, &cut_off.e))
        fail(a->reply, &cut_off);
    else
        finish(a, reason_name(a, ev->reason), false);
}

static void on_event(void *owner, const struct job_event *ev)
{
    struct choice *a = owner;
    struct openai_reply *r = a->reply;
    bool ended = a->ended || r->ended;
    if (ev->kind == JOB_ADMITTED && !ended) on_admitted(a);
    if (ev->kind == JOB_PROGRESS && !ended) tell_progress(a, ev->done, ev->total);
    if (ev->kind == JOB_THOUGHT && !ended) on_thought(a, ev);
    if (ev->kind == JOB_TOKEN && !ended) {
        if (a->n_tokens == 0) tell_progress(a, a->x.n_prompt, a->x.n_prompt);
        on_token(a, ev);
    }
    if (ev->kind != JOB_DONE) return;
    if (!ended) on_done(a, ev);
    r->n_over++;
    free_when_over(r);
}

/* ---- the beginning ---- */

static struct choice *choice_new(const struct request_ctx *c, struct openai_reply *r)
{
    const struct openai_request *q = &r->q;
    struct choice *a = exchange_new(c, q->chat ? METRICS_CHAT : METRICS_COMPLETION, sizeof *a);
    if (!a) return NULL;
    a->reply = r;
    a->index = r->n_alive;
    a->read = UINT32_MAX;
    a->x.shares_request = a->index > 0;
    a->x.release = release;
    a->x.open_stream = open_stream;
    a->x.gone = gone;
    a->x.logprobs = q->logprobs;
    a->x.logprobs_top = q->top_logprobs;
    buf_init(&a->text, TEXT_MAX);
    buf_init(&a->thought, TEXT_MAX);
    buf_init(&a->marks, WIRE_TOKENS_MAX * sizeof(struct mark));
    detok_init(&a->x.detok, q->chat); /* a completion goes on with the prompt's text */
    r->choices[r->n_alive++] = a;
    return a;
}

/* A reply of `n` choices that has taken `q`. NULL: no memory. */
static struct openai_reply *reply_new(const struct request_ctx *c, struct openai_request *q)
{
    const struct engine_info *info = c->server->backend->info;
    struct openai_reply *r = mem_calloc(1, sizeof *r);
    uint32_t n = openai_request_choices(q);
    uint64_t seed;
    if (r) r->choices = mem_calloc(n, sizeof *r->choices);
    if (!r || !r->choices) {
        mem_free(r);
        return NULL;
    }
    r->server = c->server;
    r->q = *q;
    *q = (struct openai_request){.chat = r->q.chat};
    r->created = (uint64_t)time(NULL);
    buf_init(&r->pieces, PIECES_MAX);
    buf_init(&r->piece, PIECES_MAX);
    buf_init(&r->whole.out, ANSWER_MAX);
    openai_fingerprint(info->weights_hash, info->numerics, r->fingerprint);
    if (!r->q.seeded && getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed)
        r->q.ask.sampling.seed = seed & INT64_MAX;
    while (r->n < n && choice_new(c, r))
        r->n++;
    if (r->n == n) return r;
    r->n_over = r->n;
    if (r->n)
        free_when_over(r);
    else
        reply_free(r);
    return NULL;
}

/* Where ids come from, so does the text with its marks; other servers part it themselves. */
static void part_thoughts(struct choice *a, const struct token_list *prompt)
{
    const struct openai_request *q = &a->reply->q;
    const struct backend *b = a->reply->server->backend;
    bool apart = q->chat && !q->thoughts_in_text && b->takes_ids;
    const struct thought_marks *marks = apart ? thought_marks_of(b->chat_template, b->vocab) : NULL;
    thought_init(&a->parts, marks, thought_opened(marks, b->vocab, prompt->ids, prompt->len));
}

/* The job of choice i, which answers prompt i / n. */
static int prepare(struct openai_reply *r, uint32_t i, const struct openai_reply_prompt *prompts,
                   struct err *e)
{
    struct choice *a = r->choices[i];
    uint32_t n = r->q.n;
    uint64_t seed = (r->q.ask.sampling.seed + i % n) & INT64_MAX;
    const struct openai_reply_prompt *prompt = &prompts[i / n];
    a->x.began = lead_of(r)->began;
    if (buf_append(&a->text, prompt->echo.data, prompt->echo.len))
        return err_set(e, ERR_NO_MEMORY, "no memory for the answer");
    a->showable = a->text.len;
    part_thoughts(a, &prompt->tokens);
    if (i % n) return exchange_prepare_choice(&a->x, &r->choices[i - i % n]->x, seed, e);
    return exchange_prepare(&a->x, r->q.chat ? "chatcmpl-" : "cmpl-", &prompt->tokens, &r->q.ask,
                            on_event, e);
}

static int start(struct openai_reply *r, struct request_ctx *c,
                 const struct openai_reply_prompt *prompts, struct err *e)
{
    struct exchange *all[OPENAI_CHOICES_MAX];
    int code = 0;
    for (uint32_t i = 0; i < r->n && !code; i++) {
        all[i] = &r->choices[i]->x;
        code = prepare(r, i, prompts, e);
    }
    return code ? code : exchange_start(all, r->n, c, e);
}

void openai_reply_begin(struct request_ctx *c, struct openai_request *q, struct http_body *body,
                        uint64_t arrived, const struct openai_reply_prompt *prompts)
{
    struct err e = ERR_INIT;
    struct openai_reply *r = reply_new(c, q);
    if (!r) {
        err_set(&e, ERR_NO_MEMORY, "no memory for another answer");
        request_refuse(c, &e, NULL);
        return;
    }
    lead_of(r)->began = arrived;
    exchange_take_body(lead_of(r), body);
    if (start(r, c, prompts, &e) == 0) {
        openai_request_free_prompt(&r->q); /* the jobs have it */
        exchange_attach(lead_of(r), c->http);
        return;
    }
    request_refuse(c, &e, NULL);
    r->ended = true;
    for (uint32_t i = 0; i < r->n; i++)
        r->n_over += !r->choices[i]->x.running;
    free_when_over(r);
}
