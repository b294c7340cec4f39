/*
 * Torture of the HTTP server over loopback: requests cut at every offset, mutated requests, random
 * bytes, and clients that come and go at random while streams run. After each, an honest client is
 * still served, and no connection is left behind. Seeded: a failure can be repeated.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "net/http_server.h"
#include "proto/wire.h"
#include "support/net_raw.h"

enum { STREAMS_MAX = 64, MUTANTS = 400, RANDOMS = 200, CHURN = 600 };

struct site {
    struct loop_thread thread;
    struct http_server *server;
    struct loop_timer *tick;
    struct loop_wake *count_wake;
    struct stream {
        struct site *site;
        struct http_request *request;
    } streams[STREAMS_MAX];
    uint16_t port;
    atomic_uint connections, counted, opened, closed, ended;
};

static void echo(struct http_request *r, void *arg)
{
    size_t n;
    const char *body = http_request_body(r, &n);
    (void)arg;
    http_reply(r, 200, "text/plain", body, n);
}

static void stream_left(void *arg)
{
    struct stream *st = arg;
    st->request = NULL;
    atomic_fetch_add(&st->site->closed, 1);
}

static void stream(struct http_request *r, void *arg)
{
    struct site *s = arg;
    for (int i = 0; i < STREAMS_MAX; i++) {
        if (s->streams[i].request) continue;
        s->streams[i] = (struct stream){s, r};
        http_request_on_close(r, stream_left, &s->streams[i]);
        atomic_fetch_add(&s->opened, 1);
        if (i % 2) http_stream_begin(r, "text/event-stream");
        return;
    }
    http_reply_error(r, 429, "full", NULL, "there are %d streams", STREAMS_MAX);
}

/* Every millisecond each stream gets its head, a piece, its end, or is aborted. */
static void tick(void *arg)
{
    struct site *s = arg;
    static struct rng rng = {7, 0, 0};
    for (int i = 0; i < STREAMS_MAX; i++) {
        struct http_request *r = s->streams[i].request;
        if (!r) continue;
        uint32_t dice = rng_below(&rng, 16);
        if (dice == 0) {
            s->streams[i].request = NULL;
            atomic_fetch_add(&s->ended, 1);
            http_request_abort(r);
        } else if (dice == 1 && i % 2) {
            s->streams[i].request = NULL;
            atomic_fetch_add(&s->ended, 1);
            http_stream_end(r);
        } else if (dice == 1) {
            s->streams[i].request = NULL;
            atomic_fetch_add(&s->ended, 1);
            http_reply_json(r, 200, "{}", 2);
        } else if (i % 2) {
            http_stream_send(r, "data: {}\n\n", 10);
        }
    }
    loop_timer_set(s->tick, clock_us() + 1000);
}

static void count(void *arg)
{
    struct site *s = arg;
    atomic_store(&s->connections, http_server_connections(s->server));
    atomic_fetch_add(&s->counted, 1);
}

static const struct http_route routes[] = {{"POST", "/echo", echo, NULL, 0, false},
                                           {"GET", "/stream", stream, NULL, 0, false}};

static void prepare(struct loop *l, void *arg)
{
    struct site *s = arg;
    struct http_server_config config;
    http_server_config_default(&config);
    config.error_body = wire_error_body;
    config.head_timeout_us = config.body_timeout_us = config.idle_timeout_us = 2000000;
    CHECK(http_server_new(l, &config, routes, 2, s, &s->server, NULL) == 0);
    s->port = http_server_port(s->server);
    CHECK(loop_timer_new(l, tick, s, &s->tick, NULL) == 0);
    CHECK(loop_wake_new(l, count, s, &s->count_wake, NULL) == 0);
    tick(s);
}

static void clean(void *arg)
{
    struct site *s = arg;
    http_server_free(s->server);
    loop_timer_free(s->tick);
    loop_wake_free(s->count_wake);
}

static struct site *site_start(void)
{
    struct site *s = mem_calloc(1, sizeof *s);
    CHECK(s);
    s->thread = (struct loop_thread){.prepare = prepare, .clean = clean, .arg = s};
    loop_thread_start(&s->thread);
    return s;
}

static unsigned connections_now(struct site *s)
{
    unsigned before = atomic_load(&s->counted);
    loop_wake_signal(s->count_wake);
    while (atomic_load(&s->counted) == before)
        clock_sleep_us(100);
    return atomic_load(&s->connections);
}

/* Nothing is left behind, and whoever asks properly is answered. */
static void site_stop(struct site *s)
{
    struct buf b;
    raw_ask(s->port,
            "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            &b);
    assert_non_null(strstr(b.data, "\r\n\r\nok"));
    buf_release(&b);
    for (int i = 0; i < RAW_WAIT_MS && connections_now(s) > 0; i++)
        clock_sleep_us(1000);
    assert_int_equal(connections_now(s), 0);
    assert_int_equal(atomic_load(&s->opened), atomic_load(&s->closed) + atomic_load(&s->ended));
    loop_thread_stop(&s->thread);
    mem_free(s);
}

static const char request[] =
    "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\nX-A: b\r\n\r\nhello world"
    "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    "5;e=1\r\nabcde\r\n3\r\nfgh\r\n0\r\nT: x\r\n\r\n";

/* Catches: a request that is read differently when a read ends in its middle. */
static void cut_at_every_offset(void **state)
{
    struct site *s = site_start();
    (void)state;
    for (size_t cut = 0; cut <= sizeof request - 1; cut++) {
        int fd = raw_connect(s->port);
        struct buf b;
        buf_init(&b, RAW_MAX);
        raw_send(fd, request, cut);
        clock_sleep_us(200);
        raw_send(fd, request + cut, sizeof request - 1 - cut);
        assert_true(raw_read_until(fd, &b, NULL));
        assert_non_null(strstr(b.data, "\r\n\r\nhello worldHTTP/1.1 200 OK\r\n"));
        assert_non_null(strstr(b.data, "\r\n\r\nabcdefgh"));
        close(fd);
        buf_release(&b);
    }
    site_stop(s);
}

/* Catches: a client that stops or leaves anywhere in its request and takes the server along. */
static void left_at_every_offset(void **state)
{
    struct site *s = site_start();
    (void)state;
    for (size_t cut = 0; cut <= sizeof request - 1; cut++) {
        int fd = raw_connect(s->port);
        raw_send(fd, request, cut);
        if (cut % 3 == 1) {
            struct linger reset = {1, 0};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        }
        if (cut % 3 == 2) shutdown(fd, SHUT_WR);
        close(fd);
    }
    site_stop(s);
}

/* Send, half-close, read whatever comes: it must end, and be HTTP when it is anything. */
static void abuse(struct site *s, const char *data, size_t n)
{
    int fd = raw_connect(s->port);
    struct buf b;
    buf_init(&b, RAW_MAX);
    raw_send(fd, data, n);
    shutdown(fd, SHUT_WR);
    (void)raw_read_until(fd, &b, NULL);
    if (b.len > 0) assert_int_equal(strncmp(b.data, "HTTP/1.1 ", b.len < 9 ? b.len : 9), 0);
    close(fd);
    buf_release(&b);
}

static void mutants_and_noise(void **state)
{
    static const char alphabet[] = "\r\n :;,/0159afx\t\0HPOSTECN";
    struct site *s = site_start();
    struct rng rng;
    (void)state;
    rng_init(&rng, 99, 0);
    for (int i = 0; i < MUTANTS; i++) {
        char copy[sizeof request];
        memcpy(copy, request, sizeof request);
        for (uint32_t k = rng_below(&rng, 4) + 1; k > 0; k--)
            copy[rng_below(&rng, sizeof request - 1)] =
                rng_below(&rng, 4) ? alphabet[rng_below(&rng, sizeof alphabet - 1)]
                                   : (char)rng_below(&rng, 256);
        abuse(s, copy, sizeof request - 1);
    }
    for (int i = 0; i < RANDOMS; i++) {
        char noise[3000];
        size_t n = rng_below(&rng, sizeof noise) + 1;
        for (size_t k = 0; k < n; k++)
            noise[k] =
                i % 2 ? (char)rng_below(&rng, 256) : alphabet[rng_below(&rng, sizeof alphabet - 1)];
        abuse(s, noise, n);
    }
    site_stop(s);
}

/* Catches: clients that come and go while answers wait, stream, end and are aborted. */
static void churn(void **state)
{
    enum { OPEN = 40 };
    struct site *s = site_start();
    struct rng rng;
    int fds[OPEN];
    (void)state;
    rng_init(&rng, 5, 0);
    for (int i = 0; i < OPEN; i++)
        fds[i] = -1;
    for (int i = 0; i < CHURN; i++) {
        uint32_t at = rng_below(&rng, OPEN);
        if (fds[at] < 0) {
            fds[at] = raw_connect(s->port);
            raw_puts(fds[at], "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
        } else if (rng_below(&rng, 3) == 0) {
            raw_puts(fds[at], "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"); /* maybe pipelined */
        } else {
            if (rng_below(&rng, 2)) {
                struct linger reset = {1, 0};
                setsockopt(fds[at], SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            }
            close(fds[at]);
            fds[at] = -1;
        }
        if (i % 4 == 0) clock_sleep_us(500);
    }
    for (int i = 0; i < OPEN; i++)
        if (fds[i] >= 0) close(fds[i]);
    assert_true(atomic_load(&s->opened) > 0);
    site_stop(s);
}

/* Catches: a crash or a leak when any of the server's allocations fails, in any request. */
static void without_memory(void **state)
{
    static char answer[1 << 16];
    struct site *s = site_start();
    (void)state;
    for (long n = 1; n <= 60; n++) {
        mem_fail_at(n);
        int fd = raw_connect(s->port);
        raw_send(fd, request, sizeof request - 1);
        shutdown(fd, SHUT_WR);
        ssize_t got;
        while ((got = recv(fd, answer, sizeof answer, 0)) > 0)
            assert_memory_equal(answer, "HTTP/1.1 ", got < 9 ? (size_t)got : 9);
        close(fd);
        mem_fail_at(0);
    }
    site_stop(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_at_every_offset), cmocka_unit_test(left_at_every_offset),
        cmocka_unit_test(mutants_and_noise),   cmocka_unit_test(churn),
        cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
