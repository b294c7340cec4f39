/*
 * cloud_site: a whole `pdd cloud` in a thread of the test, and clients on real sockets that play a
 * device: they post assists, read events, patch, delete, stall and leave. Static functions, so that
 * each test links alone.
 */
#ifndef PDD_TESTS_CLOUD_SITE_H
#define PDD_TESTS_CLOUD_SITE_H

#include <fcntl.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cloud/api/keys.h"
#include "cloud/api/server.h"
#include "engine/fake.h"
#include "engine/native.h"
#include "model/text/vocab.h"
#include "net/sse.h"
#include "proto/wire.h"
#include "support/net_raw.h"
#include "support/tiny_model.h"

enum { SITE_TOKENS = 4096, SITE_WAIT_US = 60000000 };

/* ---- the server ---- */

struct site {
    struct loop_thread thread;
    struct fake_options fake; /* the engine, */
    const char *native_path;  /* unless this is given */
    struct native_options native;
    struct server_config config;
    struct server *server;
    struct loop_wake *drain;
    uint64_t drain_us;
    uint16_t port;
    atomic_uint drained;
};

static inline struct engine *site_engine(const struct site *s)
{
    struct engine *e;
    struct err err;
    if (s->config.upstream.n_servers) return NULL; /* others compute */
    struct native_options native = s->native;
    native.model_path = s->native_path;
    int code = s->native_path ? native_open(&native, &e, &err) : fake_open(&s->fake, &e, &err);
    if (code) fprintf(stderr, "%s\n", err.text);
    CHECK(code == 0);
    return e;
}

static inline void site_drained(void *arg)
{
    atomic_fetch_add(&((struct site *)arg)->drained, 1);
}

static inline void site_drain_fn(void *arg)
{
    struct site *s = arg;
    server_drain(s->server, s->drain_us, site_drained, s);
}

static inline void site_prepare(struct loop *l, void *arg)
{
    struct site *s = arg;
    struct err err;
    if (server_new(l, site_engine(s), &s->config, &s->server, &err)) {
        fprintf(stderr, "%s\n", err.text);
        CHECK(false);
    }
    CHECK(loop_wake_new(l, site_drain_fn, s, &s->drain, NULL) == 0);
    s->port = server_port(s->server);
}

static inline void site_clean(void *arg)
{
    struct site *s = arg;
    server_free(s->server);
    loop_wake_free(s->drain);
}

/* Defaults; change what the test is about, then site_start. */
static inline void site_init(struct site *s)
{
    memset(s, 0, sizeof *s);
    log_set_level(LOG_ERROR);
    http_server_config_default(&s->config.http);
    s->fake = (struct fake_options){.answer_tokens = 60, .step_tokens_max = 64};
    s->native = (struct native_options){.threads = 2, .context_max = 512, .step_tokens_max = 64};
    s->config.worker = (struct worker_config){.streams_max = 16, .queue_max = 64};
    s->thread = (struct loop_thread){.prepare = site_prepare, .clean = site_clean, .arg = s};
}

static inline void site_start(struct site *s)
{
    loop_thread_start(&s->thread);
}

static inline void site_stop(struct site *s)
{
    loop_thread_stop(&s->thread);
}

static inline struct backend_stats site_stats(struct site *s)
{
    struct backend_stats stats;
    backend_stats_of(server_backend(s->server), &stats);
    return stats;
}

/* Wait until nothing runs or waits and no step is made any more; then all pages must be there. A
 * request that is still on its way through the loop may start once more, hence the repetition. */
static inline void site_check_idle(struct site *s)
{
    uint32_t total = server_backend(s->server)->info->kv_pages_total;
    uint64_t until = clock_us() + SITE_WAIT_US;
    struct backend_stats a, b = site_stats(s);
    do {
        CHECK(clock_us() < until);
        a = b;
        clock_sleep_us(a.running || a.waiting ? 500 : 20000);
        b = site_stats(s);
    } while (a.running || a.waiting || b.running || b.waiting || a.steps != b.steps);
    CHECK(s->config.worker.cache_pages > 0 || b.kv_pages_free == total);
    CHECK(b.kv_pages_free + b.kv_pages_cached == total);
}

/* ---- a client ---- */

struct client {
    int fd;
    struct buf raw, body; /* as received; without head and chunk framing */
    size_t raw_at;        /* parsed so far */
    size_t chunk_left;
    int status; /* 0: no head yet */
    bool chunked, in_chunk, closed;
    struct sse_parser sse;
    struct wire_event ev;
    /* what the stream said */
    char id[WIRE_ID_MAX];
    enum wire_match match;
    uint32_t granted, prompt_tokens, cached_tokens, n_progress, done_total, completion;
    int32_t tokens[SITE_TOKENS];
    uint32_t first_index, n_tokens;
    struct buf text;
    bool has_grant, done, failed;
    enum wire_reason reason;
};

static inline int client_event(void *arg, const char *name, const char *data, size_t n)
{
    struct client *c = arg;
    struct err err;
    CHECK(wire_event_decode(name, data, n, &c->ev, &err) == 0);
    CHECK(!c->done && !c->failed);
    switch (c->ev.kind) {
    case WIRE_GRANT:
        CHECK(!c->has_grant);
        c->has_grant = true;
        memcpy(c->id, c->ev.id, sizeof c->id);
        c->match = c->ev.match;
        c->granted = c->ev.tokens_max;
        c->prompt_tokens = c->ev.prompt_tokens;
        c->cached_tokens = c->ev.cached_tokens;
        break;
    case WIRE_PROGRESS:
        CHECK(c->has_grant && c->ev.done > c->done_total && c->n_tokens == 0);
        c->done_total = c->ev.done;
        c->n_progress++;
        break;
    case WIRE_TOKEN:
        CHECK(c->has_grant && c->n_tokens < SITE_TOKENS);
        if (c->n_tokens == 0) c->first_index = c->ev.index;
        CHECK(c->ev.index == c->first_index + c->n_tokens);
        c->tokens[c->n_tokens++] = c->ev.token;
        CHECK(buf_append(&c->text, c->ev.text.data, c->ev.text.len) == 0);
        break;
    case WIRE_DONE:
        c->done = true;
        c->reason = c->ev.reason;
        c->completion = c->ev.completion_tokens;
        CHECK(c->completion == c->n_tokens);
        break;
    case WIRE_ERROR:
        c->failed = true;
        break;
    default:
        CHECK(false);
    }
    return 0;
}

static inline void client_open(struct client *c, uint16_t port)
{
    memset(c, 0, sizeof *c);
    buf_init(&c->raw, RAW_MAX);
    buf_init(&c->body, RAW_MAX);
    buf_init(&c->text, RAW_MAX);
    wire_event_init(&c->ev);
    sse_parser_init(&c->sse, client_event, c);
    c->fd = raw_connect(port);
}

static inline void client_close(struct client *c)
{
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    buf_release(&c->raw);
    buf_release(&c->body);
    buf_release(&c->text);
    wire_event_release(&c->ev);
    sse_parser_release(&c->sse);
}

static inline void client_send(struct client *c, const char *method, const char *path,
                               const char *key, const char *body, size_t n)
{
    struct buf b;
    buf_init(&b, RAW_MAX);
    buf_printf(&b, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n", method, path, n);
    if (key) buf_printf(&b, "Authorization: Bearer %s\r\n", key);
    buf_puts(&b, "\r\n");
    buf_append(&b, body, n);
    raw_send(c->fd, b.data, b.len);
    buf_release(&b);
}

static inline void client_post(struct client *c, uint16_t port, const struct wire_request *q)
{
    struct buf b;
    struct err err;
    buf_init(&b, RAW_MAX);
    CHECK(wire_request_encode(q, &b, &err) == 0);
    client_open(c, port);
    client_send(c, "POST", "/v1/assist", NULL, b.data, b.len);
    buf_release(&b);
}

static inline bool client_parse_head(struct client *c)
{
    const char *end = strstr(c->raw.data, "\r\n\r\n");
    if (!end) return false;
    c->status = (int)strtol(c->raw.data + strlen("HTTP/1.1 "), NULL, 10);
    const char *te = strcasestr(c->raw.data, "Transfer-Encoding: chunked");
    c->chunked = te && te < end;
    c->raw_at = (size_t)(end - c->raw.data) + 4;
    return true;
}

/* Take the chunk framing off what has come. */
static inline void client_parse(struct client *c)
{
    struct err err;
    if (!c->status && !client_parse_head(c)) return;
    while (c->raw_at < c->raw.len) {
        size_t n = c->raw.len - c->raw_at;
        const char *at = c->raw.data + c->raw_at;
        if (!c->chunked) {
            buf_append(&c->body, at, n);
            c->raw_at += n;
        } else if (c->in_chunk) {
            n = n < c->chunk_left ? n : c->chunk_left;
            buf_append(&c->body, at, n);
            CHECK(sse_parser_feed(&c->sse, at, n, &err) == 0);
            c->raw_at += n;
            c->chunk_left -= n;
            c->in_chunk = c->chunk_left > 0;
        } else {
            const char *line = at[0] == '\r' ? at + 2 : at; /* the line end of the chunk before */
            const char *end = n < 3 ? NULL : strstr(line, "\r\n");
            if (!end) return;
            c->chunk_left = strtoul(line, NULL, 16);
            c->raw_at = (size_t)(end - c->raw.data) + 2;
            c->in_chunk = c->chunk_left > 0;
            if (!c->in_chunk) c->raw_at = c->raw.len;
        }
    }
}

/* Read once; false when nothing more will come. */
static inline bool client_read(struct client *c, int wait_ms)
{
    char piece[65536];
    if (c->closed || !raw_readable(c->fd, wait_ms)) return !c->closed;
    ssize_t n = recv(c->fd, piece, sizeof piece, 0);
    if (n <= 0) {
        c->closed = true;
        return false;
    }
    CHECK(buf_append(&c->raw, piece, (size_t)n) == 0);
    client_parse(c);
    return true;
}

/* Read until `tokens` have come, or the stream or connection is over. */
static inline void client_until(struct client *c, uint32_t tokens)
{
    uint64_t until = clock_us() + SITE_WAIT_US;
    while (!c->done && !c->failed && c->n_tokens < tokens && client_read(c, 100))
        CHECK(clock_us() < until);
}

static inline void client_until_grant(struct client *c)
{
    uint64_t until = clock_us() + SITE_WAIT_US;
    while (!c->has_grant && client_read(c, 100))
        CHECK(clock_us() < until);
}

static inline void client_finish(struct client *c)
{
    client_until(c, UINT32_MAX);
}

/* A short request with a short answer: status, and the whole answer in `ret_raw` unless NULL. */
static inline int site_ask(const struct site *s, const char *method, const char *path,
                           const char *key, const char *body, struct buf *ret_raw)
{
    struct client c;
    client_open(&c, s->port);
    client_send(&c, method, path, key, body, strlen(body));
    uint64_t until = clock_us() + SITE_WAIT_US;
    const char *length = NULL;
    while (client_read(&c, 100) && clock_us() < until) {
        length = c.status ? strcasestr(c.raw.data, "Content-Length: ") : NULL;
        if (length && c.body.len >= strtoul(length + 16, NULL, 10)) break;
    }
    int status = c.status;
    if (ret_raw) buf_puts(ret_raw, c.raw.data);
    client_close(&c);
    return status;
}

/* Wait until /ready has this status. */
static inline void site_await_ready(const struct site *s, int status)
{
    uint64_t until = clock_us() + SITE_WAIT_US;
    while (site_ask(s, "GET", "/ready", NULL, "", NULL) != status) {
        CHECK(clock_us() < until);
        clock_sleep_us(2000);
    }
}

/* A key file with this line for `key`, at a mkstemp template; the caller unlinks it. */
static inline void site_key_file(char *path, const char *key, struct key_line line)
{
    struct buf b;
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    key_hash(key, strlen(key), line.hash);
    buf_init(&b, 4096);
    CHECK(key_line_print(&line, &b) == 0);
    CHECK(write(fd, b.data, b.len) == (ssize_t)b.len);
    close(fd);
    buf_release(&b);
}

/* ---- what must come ---- */

struct site_answer {
    int32_t tokens[SITE_TOKENS];
    uint32_t n;
    bool ended; /* the model ended it, not the limit */
};

/* The answer of an engine that does nothing else. */
static inline void site_truth(const struct site *s, const int32_t *prompt, uint32_t n_prompt,
                              const struct sampling *sampling, uint32_t max,
                              struct site_answer *ret)
{
    struct site quick = *s;
    quick.fake.step_us = quick.fake.prefill_us_per_token = 0.0;
    quick.native.threads = 1; /* that waits for no other on a busy machine */
    struct engine *e = site_engine(&quick);
    const struct engine_info *info = engine_info(e);
    struct session *session;
    struct err err;
    ret->n = 0;
    ret->ended = false;
    CHECK(engine_session_open(e, &session, &err) == 0);
    session_set_sampling(session, sampling);
    const int32_t *tokens = prompt;
    uint32_t left = n_prompt;
    int32_t next = -1;
    while (ret->n < max && n_prompt + ret->n < info->context_max) {
        uint32_t n = left < info->step_tokens_max ? left : info->step_tokens_max;
        struct engine_span span = {
            .session = session, .tokens = tokens, .n = n, .sample = n == left};
        CHECK(engine_step(e, &span, 1, &err) == 0);
        tokens += n;
        left -= n;
        if (left > 0) continue;
        next = span.next;
        ret->ended = vocab_is_end(engine_vocab(e), next);
        if (ret->ended) break;
        ret->tokens[ret->n++] = next;
        tokens = &next;
        left = 1;
    }
    engine_session_close(session);
    engine_free(e);
}

static inline void site_prompt(const struct site *s, int32_t *tokens, uint32_t n, uint64_t seed)
{
    uint32_t size = server_backend(s->server)->info->vocab_size;
    size = size < 256 ? size : 256; /* no control tokens of the fake */
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)((seed * 31 + i * (seed % 7 + 3) + i / 9) % size);
    if (n < 2) return;
    tokens[n - 2] = 256; /* where the fake's answer begins */
    tokens[n - 1] = '\n';
}

/* A request over our own tokens with the server's own hashes. Borrows prompt and have. */
static inline void site_request(const struct site *s, int32_t *prompt, uint32_t n,
                                uint32_t tokens_max, struct wire_request *q)
{
    const struct engine_info *info = server_backend(s->server)->info;
    wire_request_init(q);
    snprintf(q->weights, sizeof q->weights, "%s", info->weights_hash);
    snprintf(q->tokenizer, sizeof q->tokenizer, "%s", info->tokenizer_hash);
    snprintf(q->chat_template, sizeof q->chat_template, "%s", info->template_hash);
    snprintf(q->numerics, sizeof q->numerics, "%s", info->numerics);
    q->prompt = prompt;
    q->n_prompt = n;
    q->tokens_max = tokens_max;
}

#endif
