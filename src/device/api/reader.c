/* reader: an HTTP request that follows an answer; see serve_impl.h. */
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

struct reader {
    struct ask *ask;
    struct reader *next;
    struct http_request *http;
    bool stream, now, begun;
    uint32_t at;                  /* the next token */
    uint32_t text_at, thought_at; /* told of the answer and its thought, in bytes */
    enum ask_state told;
    struct ask_progress progress[2]; /* as told */
    bool told_trouble;
    uint64_t spoke, told_at; /* clock_us() */
};

static void detach(struct reader *r)
{
    struct reader **link = &r->ask->readers;
    while (*link != r)
        link = &(*link)->next;
    *link = r->next;
    mem_free(r);
}

static void on_close(void *arg)
{
    struct reader *r = arg;
    struct ask *a = r->ask;
    detach(r);
    if (!a->readers) ask_nobody_reads(a);
}

/* ---- a stream ---- */

static void send_scratch(struct reader *r)
{
    struct buf *out = &r->ask->serve->bytes;
    r->spoke = clock_us();
    /* One that does not read is cut off: on_close follows. */
    if (!out->error) (void)http_stream_send(r->http, out->data, out->len);
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

static void begin(struct reader *r)
{
    struct ask *a = r->ask;
    r->begun = true;
    http_request_reply_header(r->http, "X-PDD-Answer", a->id);
    http_request_reply_header(r->http, "Cache-Control", "no-store");
    http_stream_begin(r->http, "text/event-stream");
    if (!a->q.chat || r->at > 0) return;
    struct openai_head h = ask_head(a, NULL);
    openai_put_role(scratch(r), &h, 0, a->q.include_usage);
    send_scratch(r);
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

/* As llama-server tells it: of the machine that is further. */
static void tell_prompt_progress(struct reader *r)
{
    const struct ask *a = r->ask;
    const struct ask_progress *p = &a->progress[TURN_DEVICE], *cloud = &a->progress[TURN_CLOUD];
    if (cloud->total > 0 && cloud->done >= p->done) p = cloud;
    struct openai_progress progress = {p->total, 0, p->done, clock_us() - a->began};
    struct openai_head h = ask_head(a, NULL);
    h.progress = &progress;
    openai_put_chunk(scratch(r), &h, &(struct openai_choice){.text = ""}, a->q.include_usage);
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

/* One chunk: `n` tokens from r->at on, and a text of theirs. */
static void tell_tokens(struct reader *r, uint32_t n, struct openai_choice *c)
{
    struct ask *a = r->ask;
    const struct ask_token *of = ask_token_at(a, r->at < a->n_tokens ? r->at : a->n_tokens - 1);
    struct buf pdd;
    buf_init(&pdd, NOTE_MAX);
    buf_printf(&pdd, "{\"index\":%u,\"n\":%u,\"source\":\"%s\"}", r->at, n,
               turn_source_name(of->source));
    struct openai_head h = ask_head(a, pdd.data);
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
    if (thinks) tell_tokens(r, n, &thought);
    if (!thinks || text.text_len > 0) tell_tokens(r, thinks ? 0 : n, &text);
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

static void tell_end(struct reader *r)
{
    struct ask *a = r->ask;
    const char *report = a->report.len ? a->report.data : NULL;
    tell_rest(r);
    struct openai_head h = ask_head(a, report);
    struct openai_timings timings = ask_timings(a);
    struct buf *out = scratch(r);
    if (a->q.timings) h.timings = &timings;
    if (a->failure.code) {
        if (report) openai_put_note(out, &h, a->q.include_usage);
        openai_put_error(out, http_err_status(a->failure.code), err_code_name(a->failure.code),
                         a->failure.text);
    } else {
        struct openai_choice c = {.text = "", .finish_reason = a->finish};
        openai_put_chunk(out, &h, &c, a->q.include_usage);
        struct openai_head bare = ask_head(a, NULL);
        if (a->q.include_usage) openai_put_usage(out, &bare, &a->usage);
    }
    openai_put_end(out);
    send_scratch(r);
    struct http_request *http = r->http;
    detach(r);
    http_stream_end(http);
}

static bool has_begun(const struct reader *r)
{
    const struct ask *a = r->ask;
    if (r->now || a->pdd.progress || a->n_clear > 0) return true;
    return a->progress[0].total + a->progress[1].total > 0;
}

static void refuse(struct reader *r)
{
    struct ask *a = r->ask;
    struct http_request *http = r->http;
    detach(r);
    serve_refuse(a->serve, http, &a->failure, NULL);
}

static void tell_stream(struct reader *r)
{
    struct ask *a = r->ask;
    if (!r->begun && a->state == ASK_OVER && a->failure.code && !r->now) {
        refuse(r);
        return;
    }
    if (!r->begun && a->state != ASK_OVER && !has_begun(r)) return;
    if (!r->begun) begin(r);
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
            if (!r->stream || now - r->spoke < s->c.quiet_us) continue;
            if (!r->begun) begin(r);
            buf_puts(scratch(r), ": keep-alive\n\n");
            send_scratch(r);
        }
    }
    loop_timer_set(s->quiet_timer, now + s->c.quiet_us / QUIET_CHECKS);
}

/* ---- a whole response ---- */

static void tell_whole(struct reader *r)
{
    struct ask *a = r->ask;
    struct http_request *http = r->http;
    if (a->state != ASK_OVER) return;
    if (a->failure.code) {
        refuse(r);
        return;
    }
    struct openai_head h = ask_head(a, a->report.len ? a->report.data : NULL);
    struct openai_timings timings = ask_timings(a);
    if (a->q.timings) h.timings = &timings;
    struct openai_choice c = {.text = a->text.data,
                              .text_len = a->text.len,
                              .thought = a->thought.data,
                              .thought_len = a->thought.len,
                              .finish_reason = a->finish};
    struct buf out;
    buf_init(&out, DEVICE_TEXT_MAX * 8ull);
    openai_put_answer(&out, &h, &c, 1, &a->usage);
    http_request_reply_header(http, "X-PDD-Answer", a->id);
    if (a->brief.len) http_request_reply_header(http, "X-PDD-Report", a->brief.data);
    detach(r);
    serve_reply(http, &out);
}

void reader_tell(struct ask *a)
{
    for (struct reader *r = a->readers, *next; r; r = next) {
        next = r->next;
        if (r->stream)
            tell_stream(r);
        else
            tell_whole(r);
    }
}

int reader_add(struct ask *a, struct http_request *http, bool stream, bool now, uint32_t from)
{
    struct reader *r = mem_calloc(1, sizeof *r);
    struct err e = ERR_INIT;
    if (!r) {
        err_set(&e, ERR_NO_MEMORY, "no memory for another reader");
        serve_refuse(a->serve, http, &e, NULL);
        return ERR_NO_MEMORY;
    }
    *r = (struct reader){.ask = a,
                         .next = a->readers,
                         .http = http,
                         .stream = stream,
                         .now = now,
                         .at = from,
                         .told = ASK_OVER,
                         .spoke = clock_us()};
    if (from > 0) {
        const struct ask_token *before = ask_token_at(a, from - 1);
        r->text_at = before->at + before->len;
        r->thought_at = before->thought_at + before->thought_len;
    }
    a->readers = r;
    a->unread_since = 0;
    http_request_on_close(http, on_close, r);
    reader_tell(a);
    return 0;
}
