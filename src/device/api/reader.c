/*
 * reader: an HTTP request that follows an answer, or all answers of a request for several; see
 * serve_impl.h. A reader belongs to one ask and one response. The readers of a response stay until
 * it is complete. An answer that fails ends the response, and the other answers.
 */
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "device/api/serve_impl.h"
#include "proto/json.h"

enum {
    NOTE_MAX = 256,
    TROUBLE_MAX = 8 * ERR_TEXT_MAX,
    RUN_MAX = 1024,   /* tokens in one chunk, for a reader that is far behind */
    QUIET_CHECKS = 4, /* within quiet_us */
    PROGRESS_EVERY_US = 100000
};

struct response {
    struct http_request *http;
    bool stream, now, begun;
    uint64_t spoke; /* clock_us() */
    uint32_t n, n_ended;
    struct reader *readers[]; /* [n] */
};

struct reader {
    struct ask *ask;
    struct reader *next; /* of the ask */
    struct response *of;
    bool ended;                   /* its answer is over and told */
    uint32_t at;                  /* the next token */
    uint32_t text_at, thought_at; /* told of the answer and its thought, in bytes */
    enum ask_state told;
    struct ask_progress progress[2]; /* as told */
    bool told_trouble;
    uint64_t told_at; /* clock_us() */
};

static void detach(struct reader *r)
{
    struct reader **link = &r->ask->readers;
    while (*link != r)
        link = &(*link)->next;
    *link = r->next;
    mem_free(r);
}

/* The response is complete, or its client has gone. */
static struct http_request *leave(struct response *p)
{
    struct http_request *http = p->http;
    for (uint32_t i = 0; i < p->n; i++)
        detach(p->readers[i]);
    mem_free(p);
    return http;
}

/* Only asks that are over may be freed meanwhile, and none of those follows here. */
static void on_close(void *arg)
{
    struct response *p = arg;
    struct ask *unread[OPENAI_CHOICES_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        struct ask *a = p->readers[i]->ask;
        bool last = a->readers == p->readers[i] && !a->readers->next;
        if (last && a->state == ASK_OVER)
            ask_nobody_reads(a);
        else if (last)
            unread[n++] = a;
    }
    (void)leave(p);
    for (uint32_t i = 0; i < n; i++)
        ask_nobody_reads(unread[i]);
}

/* ---- a stream ---- */

static void send_scratch(struct reader *r)
{
    struct buf *out = &r->ask->serve->bytes;
    r->of->spoke = clock_us();
    /* One that does not read is cut off: on_close follows. */
    if (!out->error) (void)http_stream_send(r->of->http, out->data, out->len);
}

static struct buf *scratch(struct reader *r)
{
    struct buf *out = &r->ask->serve->bytes;
    buf_clear(out);
    return out;
}

/* A note whose "pdd" is what was written to `pdd`, if there was memory for it; releases that. */
static void send_note(struct reader *r, struct buf *pdd)
{
    struct openai_head h = ask_head(r->ask, pdd->data);
    if (!pdd->error) {
        openai_put_note(scratch(r), &h, r->ask->q.include_usage);
        send_scratch(r);
    }
    buf_release(pdd);
}

/* What precedes the answer: the role, or an echo of the prompt. */
static void open_choice(struct reader *r)
{
    struct ask *a = r->ask;
    struct openai_head h = ask_head(a, NULL);
    struct openai_choice echo = {.index = a->choice, .text = a->echo.data, .text_len = a->echo.len};
    if (r->at > 0 || (!a->q.chat && a->echo.len == 0)) return;
    if (a->q.chat)
        openai_put_role(scratch(r), &h, a->choice, a->q.include_usage);
    else
        openai_put_chunk(scratch(r), &h, &echo, a->q.include_usage);
    send_scratch(r);
}

static void begin(struct response *p)
{
    p->begun = true;
    http_request_reply_header(p->http, "X-PDD-Answer", p->readers[0]->ask->id);
    http_stream_begin(p->http, "text/event-stream");
    for (uint32_t i = 0; i < p->n; i++)
        open_choice(p->readers[i]);
}

static void tell_state(struct reader *r)
{
    struct ask *a = r->ask;
    struct buf b;
    if (!a->pdd.progress || r->told == a->state || a->state == ASK_OVER) return;
    r->told = a->state;
    buf_init(&b, NOTE_MAX);
    buf_printf(&b, "{\"state\":\"%s\"", ask_state_name(a));
    if (a->state == ASK_WAITING) buf_printf(&b, ",\"waiting\":%u", ask_waiting(a->serve));
    buf_puts(&b, "}");
    send_note(r, &b);
}

/* Worth telling: the first, the last, and those between at intervals. */
static bool has_progress(const struct reader *r)
{
    const struct ask_progress *is = r->ask->progress, *told = r->progress;
    uint64_t now = clock_us();
    if (memcmp(told, is, sizeof r->progress) == 0) return false;
    for (int i = 0; i < 2; i++)
        if (is[i].done != told[i].done && (told[i].total == 0 || is[i].done == is[i].total))
            return true;
    return now - r->told_at >= PROGRESS_EVERY_US;
}

/* As llama-server tells it: of the machine that is further. Of several answers to a prompt the
 * first tells. */
static void tell_prompt_progress(struct reader *r)
{
    const struct ask *a = r->ask;
    const struct ask_progress *p = &a->progress[TURN_DEVICE], *cloud = &a->progress[TURN_CLOUD];
    if (a->choice % a->q.n) return;
    if (cloud->total > 0 && cloud->done >= p->done) p = cloud;
    struct openai_progress progress = {p->total, 0, p->done, clock_us() - a->began};
    struct openai_head h = ask_head(a, NULL);
    h.progress = &progress;
    openai_put_chunk(scratch(r), &h, &(struct openai_choice){.index = a->choice, .text = ""},
                     a->q.include_usage);
    send_scratch(r);
}

static void tell_progress(struct reader *r)
{
    struct ask *a = r->ask;
    struct buf b;
    if (a->state != ASK_RUNNING || !(a->pdd.progress || a->q.progress) || !has_progress(r)) return;
    memcpy(r->progress, a->progress, sizeof r->progress);
    r->told_at = clock_us();
    if (a->q.progress) tell_prompt_progress(r);
    if (!a->pdd.progress) return;
    buf_init(&b, NOTE_MAX);
    buf_puts(&b, "{\"progress\":{");
    for (int i = 0, n = 0; i < 2; i++)
        if (a->progress[i].total > 0)
            buf_printf(&b, "%s\"%s\":[%u,%u]", n++ ? "," : "",
                       turn_source_name((enum turn_source)i), a->progress[i].done,
                       a->progress[i].total);
    buf_puts(&b, "}}");
    send_note(r, &b);
}

static void tell_trouble(struct reader *r)
{
    struct ask *a = r->ask;
    struct buf b;
    if (!a->pdd.progress || !a->trouble[0] || r->told_trouble || a->state != ASK_RUNNING) return;
    r->told_trouble = true;
    buf_init(&b, TROUBLE_MAX);
    buf_puts(&b, "{\"trouble\":");
    json_put_text(&b, a->trouble);
    buf_putc(&b, '}');
    send_note(r, &b);
}

/* One chunk: `n` tokens from `from` on, and a text of theirs or, without tokens, of the one before.
 */
static void tell_tokens(struct reader *r, uint32_t from, uint32_t n, struct openai_choice *c)
{
    struct ask *a = r->ask;
    const struct ask_token *of = ask_token_at(a, n ? from : from - 1);
    struct buf pdd;
    buf_init(&pdd, NOTE_MAX);
    buf_printf(&pdd, "{\"index\":%u,\"n\":%u,\"source\":\"%s\"}", from, n,
               turn_source_name(of->source));
    struct openai_head h = ask_head(a, pdd.data);
    c->index = a->choice;
    openai_put_chunk(scratch(r), &h, c, a->q.include_usage);
    send_scratch(r);
    buf_release(&pdd);
}

/* Thought and text of `n` tokens from r->at on, as far as these bytes. */
static void tell_parts(struct reader *r, uint32_t n, bool thinks, uint32_t text_end,
                       uint32_t thought_end)
{
    struct ask *a = r->ask;
    struct openai_choice thought = {.thought = a->thought.data + r->thought_at,
                                    .thought_len = thought_end - r->thought_at};
    struct openai_choice text = {.text = a->text.data + r->text_at,
                                 .text_len = text_end - r->text_at};
    if (thinks) tell_tokens(r, r->at, n, &thought);
    if (!thinks)
        tell_tokens(r, r->at, n, &text);
    else if (text.text_len > 0) /* its last token has both */
        tell_tokens(r, r->at + n, 0, &text);
    r->text_at = text_end;
    r->thought_at = thought_end;
}

/* Clear tokens of one source, as one chunk: of thought or of text; of both where a token has both.
 */
static void tell_run(struct reader *r)
{
    struct ask *a = r->ask;
    const struct ask_token *first = ask_token_at(a, r->at);
    bool thinks = first->thought_len > 0;
    uint32_t to = r->at;
    while (to < a->n_clear && to - r->at < RUN_MAX &&
           ask_token_at(a, to)->source == first->source &&
           (ask_token_at(a, to)->thought_len > 0) == thinks)
        to++;
    const struct ask_token *last = ask_token_at(a, to - 1);
    tell_parts(r, to - r->at, thinks, last->at + last->len, last->thought_at + last->thought_len);
    r->at = to;
}

/* What the end added to the last token: an open character, what might have become a mark. */
static void tell_rest(struct reader *r)
{
    struct ask *a = r->ask;
    bool thinks = a->thought.len > r->thought_at;
    if (a->n_tokens > 0 && (thinks || a->text.len > r->text_at))
        tell_parts(r, 0, thinks, (uint32_t)a->text.len, (uint32_t)a->thought.len);
}

/* Of all answers of the response; a prompt counts once. */
static struct openai_usage usage_of(const struct response *p)
{
    struct openai_usage u = p->readers[0]->ask->usage;
    for (uint32_t i = 1; i < p->n; i++) {
        const struct ask *a = p->readers[i]->ask;
        if (a->choice % a->q.n == 0) {
            u.prompt_tokens += a->usage.prompt_tokens;
            u.cached_tokens += a->usage.cached_tokens;
        }
        u.completion_tokens += a->usage.completion_tokens;
        u.reasoning_tokens += a->usage.reasoning_tokens;
    }
    return u;
}

static void end_stream(struct response *p)
{
    struct reader *r = p->readers[0];
    openai_put_end(scratch(r));
    send_scratch(r);
    http_stream_end(leave(p));
}

/* The others of a response are of no use any more. They end on a timer: this may be called while
 * one of them ends. */
static void drop_others(struct response *p, const struct ask *failed)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (p->readers[i]->ask != failed) ask_drop(p->readers[i]->ask);
}

static void tell_failure(struct reader *r)
{
    struct ask *a = r->ask;
    struct openai_head h = ask_head(a, a->report.len ? a->report.data : NULL);
    struct buf *out = scratch(r);
    if (h.pdd) openai_put_note(out, &h, a->q.include_usage);
    openai_put_error(out, http_err_status(a->failure.code), err_code_name(a->failure.code),
                     a->failure.text);
    send_scratch(r);
    drop_others(r->of, a);
    end_stream(r->of);
}

static void tell_end(struct reader *r)
{
    struct ask *a = r->ask;
    struct response *p = r->of;
    tell_rest(r);
    if (a->failure.code) {
        tell_failure(r);
        return;
    }
    struct openai_head h = ask_head(a, a->report.len ? a->report.data : NULL);
    struct openai_timings timings = ask_timings(a);
    struct openai_choice c = {.index = a->choice, .text = "", .finish_reason = a->finish};
    if (a->q.timings) h.timings = &timings;
    openai_put_chunk(scratch(r), &h, &c, a->q.include_usage);
    send_scratch(r);
    r->ended = true;
    if (++p->n_ended < p->n) return;
    struct openai_usage usage = usage_of(p);
    h.pdd = NULL;
    h.timings = NULL;
    if (a->q.include_usage) {
        openai_put_usage(scratch(r), &h, &usage);
        send_scratch(r);
    }
    end_stream(p);
}

static bool has_begun(const struct reader *r)
{
    const struct ask *a = r->ask;
    if (r->of->now || a->pdd.progress || a->n_clear > 0) return true;
    return a->progress[0].total + a->progress[1].total > 0;
}

static void refuse(struct reader *r)
{
    struct ask *a = r->ask;
    drop_others(r->of, a);
    serve_refuse(a->serve, leave(r->of), &a->failure, NULL);
}

static void tell_stream(struct reader *r)
{
    struct ask *a = r->ask;
    struct response *p = r->of;
    if (!p->begun && a->state == ASK_OVER && a->failure.code && !p->now) {
        refuse(r);
        return;
    }
    if (!p->begun && a->state != ASK_OVER && !has_begun(r)) return;
    if (!p->begun) begin(p);
    tell_state(r);
    tell_progress(r);
    tell_trouble(r);
    while (r->at < a->n_clear)
        tell_run(r);
    if (a->state == ASK_OVER) tell_end(r);
}

void reader_break_silence(void *serve)
{
    struct serve *s = serve;
    uint64_t now = clock_us();
    for (struct ask *a = s->asks; a; a = a->next) {
        for (struct reader *r = a->readers; r; r = r->next) {
            if (!r->of->stream || now - r->of->spoke < s->c.quiet_us) continue;
            if (!r->of->begun) begin(r->of);
            buf_puts(scratch(r), ": keep-alive\n\n");
            send_scratch(r);
        }
    }
    loop_timer_set(s->quiet_timer, now + s->c.quiet_us / QUIET_CHECKS);
}

/* ---- a whole response ---- */

/* An answer's text with the echo of its prompt in front; `joined` is memory for it. */
static void fill_choice(const struct ask *a, struct buf *joined, struct openai_choice *c)
{
    *c = (struct openai_choice){.index = a->choice,
                                .text = a->text.data,
                                .text_len = a->text.len,
                                .thought = a->thought.data,
                                .thought_len = a->thought.len,
                                .finish_reason = a->finish};
    if (a->echo.len == 0) return;
    if (buf_append(joined, a->echo.data, a->echo.len) == 0)
        buf_append(joined, a->text.data, a->text.len);
    c->text = joined->data;
    c->text_len = joined->len;
}

static void put_whole(const struct response *p, struct buf *out)
{
    struct openai_choice choices[OPENAI_CHOICES_MAX];
    struct buf joined[OPENAI_CHOICES_MAX];
    const struct ask *first = p->readers[0]->ask;
    struct openai_head h = ask_head(first, first->report.len ? first->report.data : NULL);
    struct openai_timings timings = ask_timings(first);
    struct openai_usage usage = usage_of(p);
    int code = 0;
    if (first->q.timings) h.timings = &timings;
    for (uint32_t i = 0; i < p->n; i++) {
        buf_init(&joined[i], DEVICE_TEXT_MAX * 2ull);
        fill_choice(p->readers[i]->ask, &joined[i], &choices[i]);
        if (joined[i].error) code = joined[i].error;
    }
    openai_put_answer(out, &h, choices, p->n, &usage);
    if (code) buf_fail(out, code);
    for (uint32_t i = 0; i < p->n; i++)
        buf_release(&joined[i]);
}

static void tell_whole(struct reader *r)
{
    struct ask *a = r->ask, *first = r->of->readers[0]->ask;
    struct response *p = r->of;
    if (a->state != ASK_OVER) return;
    if (a->failure.code) {
        refuse(r);
        return;
    }
    r->ended = true;
    if (++p->n_ended < p->n) return;
    struct buf out;
    buf_init(&out, DEVICE_TEXT_MAX * 8ull);
    put_whole(p, &out);
    http_request_reply_header(p->http, "X-PDD-Answer", first->id);
    if (first->brief.len) http_request_reply_header(p->http, "X-PDD-Report", first->brief.data);
    serve_reply(leave(p), &out);
}

void reader_tell(struct ask *a)
{
    for (struct reader *r = a->readers, *next; r; r = next) {
        next = r->next;
        if (r->ended) continue;
        if (r->of->stream)
            tell_stream(r);
        else
            tell_whole(r);
    }
}

static void init_reader(struct reader *r, struct ask *a, struct response *p, uint32_t from)
{
    *r = (struct reader){.ask = a, .next = a->readers, .of = p, .at = from, .told = ASK_OVER};
    if (from > 0) {
        const struct ask_token *before = ask_token_at(a, from - 1);
        r->text_at = before->at + before->len;
        r->thought_at = before->thought_at + before->thought_len;
    }
    a->readers = r;
    a->unread_since = 0;
}

static struct response *response_new(struct ask *const *asks, uint32_t n, uint32_t from)
{
    struct response *p = mem_calloc(1, sizeof *p + n * sizeof *p->readers);
    for (uint32_t i = 0; p && i < n; i++) {
        struct reader *r = mem_calloc(1, sizeof *r);
        if (!r) {
            (void)leave(p);
            return NULL;
        }
        init_reader(r, asks[i], p, from);
        p->readers[p->n++] = r;
    }
    return p;
}

int reader_add_all(struct ask *const *asks, uint32_t n, struct http_request *http, bool stream,
                   bool now, uint32_t from)
{
    struct serve *s = asks[0]->serve;
    struct response *p = response_new(asks, n, from);
    struct err e = ERR_INIT;
    if (!p) {
        err_set(&e, ERR_NO_MEMORY, "no memory for another reader");
        serve_refuse(s, http, &e, NULL);
        return ERR_NO_MEMORY;
    }
    p->http = http;
    p->stream = stream;
    p->now = now;
    p->spoke = clock_us();
    http_request_on_close(http, on_close, p);
    for (uint32_t i = 0; i < n; i++) /* asks stay, though the response may be complete */
        reader_tell(asks[i]);
    return 0;
}

int reader_add(struct ask *a, struct http_request *http, bool stream, bool now, uint32_t from)
{
    return reader_add_all(&a, 1, http, stream, now, from);
}
