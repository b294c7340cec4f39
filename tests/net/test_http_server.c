/*
 * The HTTP server against raw sockets: framing, limits, deadlines, clients that leave or do not
 * read, pipelining, drain. Each test says which failure it catches.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/http_server.h"
#include "proto/wire.h"
#include "support/net_raw.h"

enum { STREAM_CHUNKS = 5 };

/* One server and what its handlers saw; written by the loop thread, read by the test. */
struct site {
    struct loop_thread thread;
    struct loop *loop;
    struct http_server_config config;
    struct http_server *server;
    uint16_t port;
    struct http_request *waiting; /* of /wait and /flood, loop thread only */
    struct loop_timer *tick;
    struct loop_wake *drain;
    uint64_t drain_deadline_us; /* 0: half a minute from now */
    uint32_t chunks_left;
    atomic_uint handled, closed, drained, limit_errors;
};

static void echo(struct http_request *r, void *arg)
{
    struct site *s = arg;
    size_t n;
    const char *body = http_request_body(r, &n);
    atomic_fetch_add(&s->handled, 1);
    http_reply(r, 200, "text/plain", body, n);
}

static void show_id(struct http_request *r, void *arg)
{
    struct buf b;
    char peer[HTTP_ADDRESS_TEXT];
    (void)arg;
    buf_init(&b, 1024);
    http_request_peer(r, peer);
    buf_printf(&b, "id=%s query=%s key=%s peer=%s", http_request_id(r), http_request_query(r),
               http_request_key(r, NULL) ? http_request_key(r, NULL) : "-", peer);
    http_reply(r, 200, "text/plain", b.data, b.len);
    buf_release(&b);
}

static void client_left(void *arg)
{
    struct site *s = arg;
    s->waiting = NULL;
    loop_timer_clear(s->tick);
    atomic_fetch_add(&s->closed, 1);
}

static void wait_for_ever(struct http_request *r, void *arg)
{
    struct site *s = arg;
    s->waiting = r;
    http_request_on_close(r, client_left, s);
    atomic_fetch_add(&s->handled, 1);
}

static void stream_tick(void *arg)
{
    struct site *s = arg;
    if (!s->waiting) return;
    http_stream_send(s->waiting, "data: x\n\n", 9);
    if (--s->chunks_left == 0) {
        http_stream_end(s->waiting);
        s->waiting = NULL;
    } else {
        loop_timer_set(s->tick, clock_us() + 1000);
    }
}

static void stream(struct http_request *r, void *arg)
{
    struct site *s = arg;
    wait_for_ever(r, s);
    s->chunks_left = http_request_query(r)[0] ? UINT32_MAX : STREAM_CHUNKS;
    http_stream_begin(r, "text/event-stream");
    stream_tick(s);
}

/* Sends far more than any socket buffer holds, as long as the client is there. */
static void flood(struct http_request *r, void *arg)
{
    static const char block[64 * 1024];
    struct site *s = arg;
    wait_for_ever(r, s);
    http_stream_begin(r, "application/octet-stream");
    for (int i = 0; i < 4096; i++)
        if (http_stream_send(r, block, sizeof block) != 0) {
            atomic_fetch_add(&s->limit_errors, 1);
            break;
        }
}

static void abort_half(struct http_request *r, void *arg)
{
    (void)arg;
    http_stream_begin(r, "text/event-stream");
    http_stream_send(r, "half", 4);
    http_request_abort(r);
}

static void say_busy(struct http_request *r, void *arg)
{
    struct err e = ERR_INIT;
    (void)arg;
    err_set(&e, ERR_BUSY, "the queue \"%s\" is full", "a\nb");
    http_request_reply_header(r, "Retry-After", "3");
    http_reply_error(r, http_err_status(e.code), err_code_name(e.code), "n", "%s", e.text);
}

static const struct http_route routes[] = {
    {"POST", "/echo", echo, NULL, 0, false},
    {"GET", "/echo", echo, NULL, 0, false},
    {"GET", "/v1/things/{id}", show_id, NULL, 0, false},
    {"DELETE", "/v1/things/{id}/parts", show_id, NULL, 0, false},
    {"GET", "/wait", wait_for_ever, NULL, 0, false},
    {"GET", "/stream", stream, NULL, 0, false},
    {"GET", "/flood", flood, NULL, 0, false},
    {"GET", "/abort", abort_half, NULL, 0, false},
    {"GET", "/fail", say_busy, NULL, 0, false},
};

static void drained(void *arg)
{
    struct site *s = arg;
    atomic_fetch_add(&s->drained, 1);
}

static void drain_now(void *arg)
{
    struct site *s = arg;
    uint64_t deadline = s->drain_deadline_us ? s->drain_deadline_us : clock_us() + 30000000;
    http_server_drain(s->server, deadline, drained, s);
}

static void prepare(struct loop *l, void *arg)
{
    struct site *s = arg;
    s->loop = l;
    struct err e = ERR_INIT;
    if (http_server_new(l, &s->config, routes, sizeof routes / sizeof *routes, s, &s->server, &e)) {
        fprintf(stderr, "%s\n", e.text);
        abort();
    }
    s->port = http_server_port(s->server);
    CHECK(loop_timer_new(l, stream_tick, s, &s->tick, NULL) == 0);
    CHECK(loop_wake_new(l, drain_now, s, &s->drain, NULL) == 0);
}

static void clean(void *arg)
{
    struct site *s = arg;
    http_server_free(s->server);
    loop_timer_free(s->tick);
    loop_wake_free(s->drain);
}

static struct site *site_new(void)
{
    struct site *s = mem_calloc(1, sizeof *s);
    CHECK(s);
    http_server_config_default(&s->config);
    s->config.error_body = wire_error_body;
    s->thread = (struct loop_thread){.prepare = prepare, .clean = clean, .arg = s};
    return s;
}

static struct site *site_start(struct site *s)
{
    loop_thread_start(&s->thread);
    return s;
}

static void site_stop(struct site *s)
{
    loop_thread_stop(&s->thread);
    mem_free(s);
}

/* No timed tests: wait for an event, fail only when it never comes. */
static bool wait_until(atomic_uint *counter, unsigned value)
{
    for (int i = 0; i < RAW_WAIT_MS; i++) {
        if (atomic_load(counter) >= value) return true;
        clock_sleep_us(1000);
    }
    return false;
}

static void expect_answer(uint16_t port, const char *request, const char *status, const char *part)
{
    struct buf b;
    raw_ask(port, request, &b);
    if (strncmp(b.data, status, strlen(status)) != 0 || !strstr(b.data, part))
        fail_msg("asked:\n%s\nwanted %s ... %s, got:\n%s", request, status, part, b.data);
    buf_release(&b);
}

#define HOST "Host: x\r\n"
#define CLOSE "Connection: close\r\n"

/* Catches: a wrong answer to a plain request, its id, query, key or peer. */
static void plain_requests(void **state)
{
    struct site *s = site_start(site_new());
    (void)state;
    expect_answer(s->port, "POST /echo HTTP/1.1\r\n" HOST CLOSE "Content-Length: 5\r\n\r\nhello",
                  "HTTP/1.1 200 OK\r\n", "\r\n\r\nhello");
    expect_answer(s->port, "GET /echo HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\n",
                  "Connection: close\r\n");
    expect_answer(s->port,
                  "GET /v1/things/ab-1?x=2 HTTP/1.1\r\n" HOST CLOSE
                  "authorization: bearer k3y\r\n\r\n",
                  "HTTP/1.1 200 OK\r\n", "id=ab-1 query=x=2 key=k3y peer=127.0.0.1");
    expect_answer(s->port, "DELETE /v1/things/q/parts HTTP/1.1\r\n" HOST CLOSE "\r\n",
                  "HTTP/1.1 200 OK\r\n", "id=q query= key=-");
    expect_answer(s->port, "GET /fail HTTP/1.1\r\n" HOST CLOSE "\r\n", "HTTP/1.1 429 ",
                  "Retry-After: 3\r\n");
    expect_answer(s->port, "GET /fail HTTP/1.1\r\n" HOST CLOSE "\r\n", "HTTP/1.1 429 ",
                  "{\"error\":{\"message\":\"the queue \\\"a b\\\" is full\",\"type\":\"rate_limit_"
                  "error\",\"param\":\"n\",\"code\":\"busy\"}}");
    site_stop(s);
}

/* Catches: a request that a proxy and we could read differently, and every other refusal. */
static void refusals(void **state)
{
    static const struct {
        const char *request, *status, *part;
    } cases[] = {
        {"GET /none HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 404 ", "invalid_request_error"},
        {"GET /v1/things/ HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 404 ", ""},
        {"GET /v1/things/a/b HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 404 ", ""},
        {"PUT /echo HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 405 ",
         "Allow: POST, GET, HEAD, OPTIONS\r\n"},
        {"NOSUCHMETHODATALLHERE / HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 501 ", ""},
        {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
         "0\r\n\r\n",
         "HTTP/1.1 400 ", "exclude each other"},
        {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
         "HTTP/1.1 400 ", "twice"},
        {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: +5\r\n\r\nhello", "HTTP/1.1 400 ", ""},
        {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5, 5\r\n\r\nhello", "HTTP/1.1 400 ", ""},
        {"POST /echo HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n", "HTTP/1.1 400 ", ""},
        {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999\r\n\r\n",
         "HTTP/1.1 400 ", ""},
        {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 999999999999\r\n\r\n", "HTTP/1.1 413 ",
         ""},
        {"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n", "HTTP/1.1 501 ",
         ""},
        {"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n", "HTTP/1.1 501 ", ""},
        {"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 400 ", ""},
        {"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n",
         "HTTP/1.1 400 ", "chunks"},
        {"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n",
         "HTTP/1.1 400 ", "chunks"},
        {"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX",
         "HTTP/1.1 400 ", "chunks"},
        {"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
         "HTTP/1.1 400 ", "chunks"},
        {"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
         "HTTP/1.1 413 ", ""},
        {"POST /echo HTTP/1.1\r\n" HOST "Expect: magic\r\n\r\n", "HTTP/1.1 417 ", ""},
        {"GET /echo HTTP/1.1\n" HOST "\n", "HTTP/1.1 400 ", "CRLF"},
        {"GET /echo HTTP/1.1\r\n" HOST " folded: x\r\n\r\n", "HTTP/1.1 400 ", "name: value"},
        {"GET /echo HTTP/1.1\r\n" HOST "Name : x\r\n\r\n", "HTTP/1.1 400 ", "name: value"},
        {"GET /echo HTTP/1.1\r\n" HOST "Name: \x01\r\n\r\n", "HTTP/1.1 400 ", "control"},
        {"GET /echo HTTP/1.1\r\n" HOST "A: b\rC: d\r\n\r\n", "HTTP/1.1 400 ", "CR"},
        {"GET /echo HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", "Host"},
        {"GET /echo HTTP/1.1\r\n" HOST HOST "\r\n", "HTTP/1.1 400 ", "Host"},
        {"GET /echo HTTP/2.0\r\n" HOST "\r\n", "HTTP/1.1 505 ", ""},
        {"GET /echo\r\n" HOST "\r\n", "HTTP/1.1 400 ", ""},
        {"GET  /echo HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 400 ", ""},
        {"GET http://y/echo HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 400 ", ""},
        {"\x16\x03\x01\x02 hello tls\r\n\r\n", "HTTP/1.1 400 ", ""},
    };
    struct site *s = site_start(site_new());
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_answer(s->port, cases[i].request, cases[i].status, cases[i].part);
    expect_answer(s->port, "GET /echo HTTP/1.1\r\n" HOST CLOSE "\r\n", "HTTP/1.1 200", "");
    assert_int_equal(atomic_load(&s->handled), 1);
    site_stop(s);
}

/* An answer without a body, after which the connection carries another request whose answer begins
 * where this one ends. */
static void expect_head(uint16_t port, const char *request, const char *status, const char *part)
{
    struct buf b;
    char both[1024];
    snprintf(both, sizeof both, "%sGET /v1/things/2nd HTTP/1.1\r\n" HOST CLOSE "\r\n", request);
    raw_ask(port, both, &b);
    const char *end = strstr(b.data, "\r\n\r\n");
    if (strncmp(b.data, status, strlen(status)) != 0 || !end || !strstr(b.data, part) ||
        strstr(b.data, part) > end || strncmp(end + 4, "HTTP/1.1 200 OK", 15) != 0 ||
        !strstr(end, "id=2nd"))
        fail_msg("asked:\n%s\nwanted %s ... %s, got:\n%s", request, status, part, b.data);
    buf_release(&b);
}

/* Catches: a HEAD that is answered otherwise than its GET, or with a body, on any way that an
 * answer takes; OPTIONS. */
static void heads_and_options(void **state)
{
    static const char length[] = "Content-Length: 101\r\n";
    struct site *s = site_start(site_new());
    (void)state;
    expect_answer(s->port, "GET /fail HTTP/1.1\r\n" HOST CLOSE "\r\n", "HTTP/1.1 429", length);
    expect_head(s->port, "HEAD /fail HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 429 ", length);
    expect_head(s->port, "HEAD /v1/things/abc?x HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 200 ",
                "Content-Length: 35\r\n");
    expect_head(s->port, "HEAD /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello",
                "HTTP/1.1 200 ", "Content-Length: 5\r\n");
    expect_head(s->port, "HEAD /stream HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 200 ",
                "Transfer-Encoding: chunked\r\n");
    expect_head(s->port, "OPTIONS /echo HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 204 ",
                "Allow: POST, GET, HEAD, OPTIONS\r\n");
    expect_head(s->port,
                "OPTIONS /v1/things/x/parts HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\n{}",
                "HTTP/1.1 204 ", "Allow: DELETE, OPTIONS\r\n");
    static const struct {
        const char *request, *status;
    } last[] = {
        /* the connection ends with these */
        {"HEAD /none HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 404 "},
        {"HEAD /v1/things/x/parts HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 405 "},
        {"HEAD /echo HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
        {"HEAD /echo HTTP/1.1\r\n" HOST "Content-Length: 999999999999\r\n\r\n", "HTTP/1.1 413 "},
        {"HEAD /stream HTTP/1.0\r\n\r\n", "HTTP/1.1 200 "},
        {"OPTIONS /echo HTTP/1.1\r\n" HOST CLOSE "\r\n", "HTTP/1.1 204 "},
    };
    for (size_t i = 0; i < sizeof last / sizeof *last; i++) {
        struct buf b;
        raw_ask(s->port, last[i].request, &b);
        const char *end = strstr(b.data, "\r\n\r\n");
        if (strncmp(b.data, last[i].status, strlen(last[i].status)) != 0 || !end || end[4])
            fail_msg("asked:\n%s\ngot:\n%s", last[i].request, b.data);
        buf_release(&b);
    }
    expect_answer(s->port, "OPTIONS /none HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 404 ", "}");
    site_stop(s);
}

/* Catches: heads without end, and more headers than we keep. */
static void heads_too_large(void **state)
{
    struct site *s = site_start(site_new());
    struct buf b;
    (void)state;
    buf_init(&b, RAW_MAX);
    buf_puts(&b, "GET /echo HTTP/1.1\r\n" HOST "X: ");
    while (b.len < HTTP_HEAD_MAX + 10)
        buf_putc(&b, 'x');
    expect_answer(s->port, b.data, "HTTP/1.1 431 ", "");
    buf_clear(&b);
    buf_puts(&b, "GET /echo HTTP/1.1\r\n" HOST);
    for (int i = 0; i < 101; i++)
        buf_puts(&b, "A: b\r\n");
    buf_puts(&b, "\r\n");
    expect_answer(s->port, b.data, "HTTP/1.1 431 ", "too many");
    buf_release(&b);
    site_stop(s);
}

/* Catches: an answer lost to a reset because the client was still sending a body that is refused.
 */
static void refused_while_sending(void **state)
{
    static char block[1 << 20];
    struct site *s = site_new();
    (void)state;
    s->config.body_max = 1000;
    site_start(s);
    memset(block, 'x', sizeof block);
    for (int i = 0; i < 20; i++) {
        int fd = raw_connect(s->port);
        struct buf b;
        buf_init(&b, RAW_MAX);
        raw_puts(fd, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 1048576\r\n\r\n");
        assert_true(raw_send(fd, block, sizeof block));
        assert_true(raw_read_until(fd, &b, NULL));
        assert_int_equal(strncmp(b.data, "HTTP/1.1 413 ", 13), 0);
        buf_release(&b);
        close(fd);
    }
    site_stop(s);
}

/* Catches: chunked bodies cut at any offset read differently. */
static void chunked_bodies(void **state)
{
    static const char request[] =
        "POST /echo HTTP/1.1\r\n" HOST CLOSE "Transfer-Encoding: chunked\r\n\r\n"
        "4;ext=1\r\nWiki\r\n5\r\npedia\r\nE\r\n in\r\n\r\nchunks.\r\n"
        "0\r\nTrailer: x\r\n\r\n";
    struct site *s = site_start(site_new());
    (void)state;
    for (size_t cut = 1; cut < sizeof request - 1; cut++) {
        int fd = raw_connect(s->port);
        struct buf b;
        buf_init(&b, RAW_MAX);
        raw_send(fd, request, cut);
        if (cut % 4 == 0) clock_sleep_us(300);
        raw_puts(fd, request + cut);
        assert_true(raw_read_until(fd, &b, NULL));
        assert_non_null(strstr(b.data, "\r\n\r\nWikipedia in\r\n\r\nchunks."));
        buf_release(&b);
        close(fd);
    }
    site_stop(s);
}

/* Catches: pipelined requests lost, reordered or answered twice; keep-alive broken. */
static void pipelining(void **state)
{
    struct site *s = site_start(site_new());
    struct buf b;
    (void)state;
    buf_init(&b, RAW_MAX);
    for (int i = 0; i < 100; i++)
        buf_printf(&b, "POST /echo HTTP/1.1\r\n" HOST "%sContent-Length: 4\r\n\r\n#%03d",
                   i == 99 ? CLOSE : "", i);
    int fd = raw_connect(s->port);
    raw_send(fd, b.data, b.len);
    buf_clear(&b);
    assert_true(raw_read_until(fd, &b, NULL));
    const char *at = b.data;
    for (int i = 0; i < 100; i++) {
        char want[8];
        snprintf(want, sizeof want, "#%03d", i);
        at = strstr(at, want);
        assert_non_null(at);
    }
    assert_int_equal(atomic_load(&s->handled), 100);
    close(fd);
    buf_release(&b);
    site_stop(s);
}

/* Catches: Expect: 100-continue ignored, which costs curl a second. */
static void expect_continue(void **state)
{
    struct site *s = site_start(site_new());
    struct buf b;
    (void)state;
    buf_init(&b, RAW_MAX);
    int fd = raw_connect(s->port);
    raw_puts(fd, "POST /echo HTTP/1.1\r\n" HOST CLOSE
                 "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_true(raw_read_until(fd, &b, "100 Continue\r\n\r\n"));
    raw_puts(fd, "ok");
    assert_true(raw_read_until(fd, &b, NULL));
    assert_non_null(strstr(b.data, "\r\n\r\nok"));
    close(fd);
    buf_release(&b);
    site_stop(s);
}

/* Catches: deadlines that a byte now and then would extend for ever (slow loris). */
static void slow_heads_and_bodies(void **state)
{
    static const char *const begins[] = {"GET /echo HTTP/1.1\r\nX: ",
                                         "POST /echo HTTP/1.1\r\n" HOST
                                         "Content-Length: 100000\r\n\r\n"};
    struct site *s = site_new();
    (void)state;
    s->config.head_timeout_us = s->config.body_timeout_us = 150000;
    site_start(s);
    for (int i = 0; i < 2; i++) {
        int fd = raw_connect(s->port);
        struct buf b;
        buf_init(&b, RAW_MAX);
        raw_puts(fd, begins[i]);
        while (!raw_readable(fd, 10) && raw_puts(fd, "x"))
            ;
        assert_true(raw_read_until(fd, &b, NULL));
        assert_int_equal(strncmp(b.data, "HTTP/1.1 408 ", 13), 0);
        buf_release(&b);
        close(fd);
    }
    int fd = raw_connect(s->port); /* says nothing: closed without a word */
    char c;
    assert_true(raw_readable(fd, RAW_WAIT_MS));
    assert_int_equal(recv(fd, &c, 1, 0), 0);
    close(fd);
    site_stop(s);
}

/* Catches: a client that leaves (close, reset, half-close) before the first byte goes unnoticed, so
 * that its prefill runs on. */
static void leaving_before_the_answer(void **state)
{
    struct site *s = site_start(site_new());
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        int fd = raw_connect(s->port);
        raw_puts(fd, "GET /wait HTTP/1.1\r\n" HOST "\r\nGET /echo");
        assert_true(wait_until(&s->handled, i + 1));
        if (i == 1) {
            struct linger reset = {1, 0};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        }
        if (i == 2) shutdown(fd, SHUT_WR);
        if (i < 2) close(fd);
        assert_true(wait_until(&s->closed, i + 1));
        if (i == 2) close(fd);
    }
    site_stop(s);
}

/* Catches: chunk framing, and a client that leaves a running stream. */
static void streams(void **state)
{
    struct site *s = site_start(site_new());
    struct buf b;
    (void)state;
    expect_answer(s->port, "GET /stream HTTP/1.1\r\n" HOST CLOSE "\r\n", "HTTP/1.1 200 OK\r\n",
                  "Transfer-Encoding: chunked\r\n");
    expect_answer(s->port, "GET /stream HTTP/1.1\r\n" HOST CLOSE "\r\n", "HTTP/1.1 200 OK\r\n",
                  "\r\n\r\n9\r\ndata: x\n\n\r\n9\r\ndata: x\n\n\r\n9\r\ndata: x\n\n\r\n9\r\n"
                  "data: x\n\n\r\n9\r\ndata: x\n\n\r\n0\r\n\r\n");
    expect_answer(s->port, "GET /stream HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\n",
                  "\r\n\r\ndata: x\n\ndata: x\n\ndata: x\n\ndata: x\n\ndata: x\n\n");
    assert_int_equal(atomic_load(&s->closed), 0);
    buf_init(&b, RAW_MAX);
    int fd = raw_connect(s->port);
    raw_puts(fd, "GET /stream?endless HTTP/1.1\r\n" HOST "\r\n");
    assert_true(raw_read_until(fd, &b, "data: x"));
    close(fd);
    assert_true(wait_until(&s->closed, 1));
    buf_release(&b);
    site_stop(s);
}

/* Catches: an aborted answer that looks whole to the client. */
static void aborts(void **state)
{
    struct site *s = site_start(site_new());
    struct buf b;
    (void)state;
    raw_ask(s->port, "GET /abort HTTP/1.1\r\n" HOST "\r\n", &b);
    assert_null(strstr(b.data, "\r\n0\r\n"));
    buf_release(&b);
    expect_answer(s->port, "GET /echo HTTP/1.1\r\n" HOST CLOSE "\r\n", "HTTP/1.1 200", "");
    site_stop(s);
}

/* Catches: memory that grows without end for clients that do not read. */
static void client_that_does_not_read(void **state)
{
    struct site *s = site_new();
    (void)state;
    s->config.output_max = 1 << 20;
    site_start(s);
    int fd = raw_connect(s->port);
    raw_puts(fd, "GET /flood HTTP/1.1\r\n" HOST "\r\n");
    assert_true(wait_until(&s->closed, 1));
    assert_int_equal(atomic_load(&s->limit_errors), 1);
    close(fd);
    site_stop(s);
}

/* Catches: a client that sends without end while it waits, which would fill the input buffer and
 * blind us to its leaving. */
static void client_that_sends_on(void **state)
{
    static const char block[65536];
    struct site *s = site_start(site_new());
    (void)state;
    int fd = raw_connect(s->port);
    raw_puts(fd, "GET /wait HTTP/1.1\r\n" HOST "\r\n");
    for (int i = 0; i < 1000 && raw_send(fd, block, sizeof block); i++)
        ;
    assert_true(wait_until(&s->closed, 1));
    close(fd);
    site_stop(s);
}

/* Catches: a connection limit that is not one, or that refuses without a word. */
static void too_many_connections(void **state)
{
    enum { MANY = 150 };
    int fds[MANY];
    unsigned served = 0, refused = 0, cut = 0;
    struct site *s = site_new();
    (void)state;
    s->config.connections_max = 20;
    site_start(s);
    for (int i = 0; i < MANY; i++)
        fds[i] = raw_connect(s->port);
    for (int i = 0; i < MANY; i++) {
        struct buf b;
        buf_init(&b, RAW_MAX);
        raw_puts(fds[i], "GET /echo HTTP/1.1\r\n" HOST "\r\n");
        (void)raw_read_until(fds[i], &b, "\r\n\r\n");
        served += strncmp(b.data, "HTTP/1.1 200", 12) == 0;
        refused += strncmp(b.data, "HTTP/1.1 503", 12) == 0;
        cut += b.len == 0;
        buf_release(&b);
    }
    for (int i = 0; i < MANY; i++)
        close(fds[i]);
    assert_int_equal(served, 20);
    assert_true(refused >= HTTP_REFUSED_MAX);
    assert_int_equal(served + refused + cut, MANY);
    site_stop(s);
}

/* Catches: one address that takes all connections, a count that leaks, and the limit hitting a
 * proxy's clients together instead of each. */
static void connections_of_one_address(void **state)
{
    struct http_network proxy;
    struct buf b;
    (void)state;
    assert_int_equal(http_network_parse("127.0.0.0/8", &proxy, NULL), 0);
    for (int proxied = 0; proxied < 2; proxied++) {
        struct site *s = site_new();
        int fds[4];
        s->config.per_address_max = 3;
        s->config.proxies = &proxy;
        s->config.n_proxies = (size_t)proxied;
        site_start(s);
        for (int round = 0; round < 2; round++) {
            for (int i = 0; i < 4; i++) {
                fds[i] = raw_connect(s->port);
                raw_puts(fds[i], "GET /stream?on HTTP/1.1\r\n" HOST
                                 "X-Forwarded-For: 1.1.1.1, 9.9.9.9\r\n\r\n");
                buf_init(&b, RAW_MAX);
                assert_true(raw_read_until(fds[i], &b, "\r\n\r\n"));
                assert_memory_equal(b.data, i < 3 ? "HTTP/1.1 200" : "HTTP/1.1 429", 12);
                if (i == 3) assert_true(raw_read_until(fds[i], &b, "too_many_connections"));
                buf_release(&b);
            }
            if (proxied) { /* another client of the proxy is not concerned */
                expect_answer(s->port,
                              "GET /v1/things/a HTTP/1.1\r\n" HOST CLOSE
                              "X-Forwarded-For: 1.1.1.1,2001:db8::8\r\n\r\n",
                              "HTTP/1.1 200", "peer=2001:db8::8");
                /* A line of the client's own does not count where the proxy's is no address. */
                expect_answer(s->port,
                              "GET /v1/things/a HTTP/1.1\r\n" HOST CLOSE
                              "X-Forwarded-For: 5.5.5.5\r\nX-Forwarded-For: unknown\r\n\r\n",
                              "HTTP/1.1 200", "peer=127.0.0.1");
            }
            for (int i = 0; i < 4; i++)
                close(fds[i]);
            assert_true(wait_until(&s->closed, 3 * (unsigned)(round + 1)));
        }
        site_stop(s);
    }
}

/* Catches: connections or requests lost when many come at once (backlog), and leaks of the count.
 */
static void many_connections(void **state)
{
    enum { MANY = 400 };
    int fds[MANY];
    struct site *s = site_start(site_new());
    (void)state;
    for (int i = 0; i < MANY; i++)
        fds[i] = raw_connect(s->port);
    for (int i = 0; i < MANY; i++)
        raw_puts(fds[i], "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc");
    for (int i = 0; i < MANY; i++) {
        struct buf b;
        buf_init(&b, RAW_MAX);
        assert_true(raw_read_until(fds[i], &b, "abc"));
        buf_release(&b);
        close(fds[i]);
    }
    assert_int_equal(atomic_load(&s->handled), MANY);
    site_stop(s);
}

/* Catches: the usual soft limit of descriptors taken as given, and a server that spins or gives up
 * when they run out. */
static void few_descriptors(void **state)
{
    enum { MANY = 100 };
    int fds[MANY];
    struct rlimit before, low;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = 40;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    struct site *s = site_start(site_new());
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &low), 0);
    assert_true(low.rlim_cur > HTTP_CONNECTIONS_MAX || low.rlim_cur == low.rlim_max);
    for (int i = 0; i < MANY; i++)
        fds[i] = raw_socket();
    struct rlimit none = low;
    none.rlim_cur = 8; /* what is open stays open, but nothing can be accepted */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (int i = 0; i < MANY; i++)
        raw_connect_socket(fds[i], s->port);
    clock_sleep_us(50000);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    for (int i = 0; i < MANY; i++) {
        struct buf b;
        buf_init(&b, RAW_MAX);
        raw_puts(fds[i], "GET /echo HTTP/1.1\r\n" HOST "\r\n");
        assert_true(raw_read_until(fds[i], &b, "\r\n\r\n"));
        buf_release(&b);
        close(fds[i]);
    }
    site_stop(s);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* Catches: a drain that cuts running answers, keeps idle connections, or never ends. */
static void drain(void **state)
{
    struct site *s = site_start(site_new());
    struct buf b;
    char c;
    (void)state;
    buf_init(&b, RAW_MAX);
    int idle = raw_connect(s->port), busy = raw_connect(s->port);
    raw_puts(idle, "GET /echo HTTP/1.1\r\n" HOST "\r\n");
    assert_true(raw_read_until(idle, &b, "\r\n\r\n"));
    raw_puts(busy, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\na");
    clock_sleep_us(20000);
    loop_wake_signal(s->drain);
    assert_true(raw_readable(idle, RAW_WAIT_MS));
    assert_int_equal(recv(idle, &c, 1, 0), 0);
    assert_int_equal(atomic_load(&s->drained), 0);
    buf_clear(&b);
    raw_puts(busy, "b");
    assert_true(raw_read_until(busy, &b, NULL));
    assert_non_null(strstr(b.data, "Connection: close\r\n"));
    assert_non_null(strstr(b.data, "\r\n\r\nab"));
    close(busy);
    close(idle);
    assert_true(wait_until(&s->drained, 1));
    buf_release(&b);
    site_stop(s);
}

/* Catches: a drain deadline that waits for streams for ever. */
static void drain_deadline(void **state)
{
    struct site *s = site_new();
    (void)state;
    s->drain_deadline_us = 1;
    site_start(s);
    int fd = raw_connect(s->port);
    raw_puts(fd, "GET /wait HTTP/1.1\r\n" HOST "\r\n");
    assert_true(wait_until(&s->handled, 1));
    loop_wake_signal(s->drain);
    assert_true(wait_until(&s->drained, 1));
    assert_int_equal(atomic_load(&s->closed), 1);
    close(fd);
    site_stop(s);
}

/* Whether a connection to it is accepted. */
static bool reaches(int family, uint16_t port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    v6.sin6_addr = in6addr_loopback;
    int fd = socket(family, SOCK_STREAM, 0);
    int code = family == AF_INET ? connect(fd, (struct sockaddr *)&v4, sizeof v4)
                                 : connect(fd, (struct sockaddr *)&v6, sizeof v6);
    close(fd);
    return code == 0;
}

/* Catches: localhost that listens on one of its two addresses, :: without IPv4, ::1 with it. */
static void addresses_of_both_kinds(void **state)
{
    static const struct {
        const char *address;
        bool v4, v6;
    } cases[] = {{"127.0.0.1", true, false},
                 {"::1", false, true},
                 {"localhost", true, true},
                 {"LocalHost", true, true},
                 {"::", true, true}};
    (void)state;
    uint16_t taken_port;
    int taken = raw_listen(&taken_port);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct loop *l;
        struct err e = ERR_INIT;
        struct http_server *server;
        struct http_server_config config;
        http_server_config_default(&config);
        config.error_body = wire_error_body;
        config.address = cases[i].address;
        assert_int_equal(loop_new(&l, &e), 0);
        int code = http_server_new(l, &config, routes, 1, NULL, &server, &e);
        if (code && cases[i].v6 && strstr(e.text, "assign")) {
            print_message("skipped: this machine has no IPv6\n");
            loop_free(l);
            continue;
        }
        if (code) fail_msg("%s", e.text);
        assert_int_equal(e.code, 0);
        uint16_t port = http_server_port(server);
        assert_int_equal(reaches(AF_INET, port), cases[i].v4);
        if (reaches(AF_INET6, port) != cases[i].v6) print_message("no ::1 here\n");
        if (!cases[i].v6) assert_false(reaches(AF_INET6, port));
        http_server_free(server);
        config.port = taken_port; /* of 127.0.0.1, by another program */
        bool clash = cases[i].v4;
        code = http_server_new(l, &config, routes, 1, NULL, &server, &e);
        assert_int_equal(code, clash ? ERR_NET : 0);
        if (!code) http_server_free(server);
        loop_free(l);
    }
    close(taken);
}

/* Catches: a listening address that cannot be used and fails without saying why. */
static void bad_addresses(void **state)
{
    struct loop *l;
    struct err e = ERR_INIT;
    struct http_server *server;
    struct http_server_config config;
    uint16_t port;
    (void)state;
    assert_int_equal(loop_new(&l, &e), 0);
    http_server_config_default(&config);
    config.error_body = wire_error_body;
    config.address = "localhost.example";
    assert_int_equal(http_server_new(l, &config, routes, 1, NULL, &server, &e), ERR_BAD_INPUT);
    assert_non_null(strstr(e.text, "localhost.example"));
    int taken = raw_listen(&port);
    http_server_config_default(&config);
    config.error_body = wire_error_body;
    config.port = port;
    assert_int_equal(http_server_new(l, &config, routes, 1, NULL, &server, &e), ERR_NET);
    assert_non_null(strstr(e.text, "Address already in use"));
    close(taken);
    loop_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_requests),
        cmocka_unit_test(refusals),
        cmocka_unit_test(heads_and_options),
        cmocka_unit_test(heads_too_large),
        cmocka_unit_test(refused_while_sending),
        cmocka_unit_test(chunked_bodies),
        cmocka_unit_test(pipelining),
        cmocka_unit_test(expect_continue),
        cmocka_unit_test(slow_heads_and_bodies),
        cmocka_unit_test(leaving_before_the_answer),
        cmocka_unit_test(streams),
        cmocka_unit_test(aborts),
        cmocka_unit_test(client_that_does_not_read),
        cmocka_unit_test(client_that_sends_on),
        cmocka_unit_test(too_many_connections),
        cmocka_unit_test(connections_of_one_address),
        cmocka_unit_test(many_connections),
        cmocka_unit_test(few_descriptors),
        cmocka_unit_test(drain),
        cmocka_unit_test(drain_deadline),
        cmocka_unit_test(bad_addresses),
        cmocka_unit_test(addresses_of_both_kinds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
