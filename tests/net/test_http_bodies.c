/*
 * Bodies of requests: who may send one, how many bytes one address and all together may hold, and
 * who hears of a refusal. A trusted proxy on loopback speaks for several addresses.
 *
 * Catches: one address that holds the memory of all bodies and so keeps everybody else out; small
 * requests that find no room beside large ones; a body, or a "100 Continue", for whoever has no
 * key; bytes that are counted for ever.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/http_server.h"
#include "proto/wire.h"
#include "support/net_raw.h"

enum {
    BODY_MAX = 128 * 1024,
    SHARE = 256 * 1024, /* two bodies */
    ALL = 1024 * 1024,  /* eight of them, the last only in small ones */
    LARGE = BODY_MAX - 1
};

struct site {
    struct loop_thread thread;
    struct http_server_config config;
    struct http_network proxy;
    struct http_server *server;
    struct loop_wake *let_go;
    struct http_body taken; /* of /take */
    uint16_t port;
    atomic_size_t shrink_to; /* of /take; 0: not */
    atomic_uint handled, refused, let_in;
    char reason[32];
};

static void count(struct http_request *r, void *arg)
{
    struct site *s = arg;
    atomic_fetch_add(&s->handled, 1);
    http_reply(r, 200, "text/plain", "ok", 2);
}

static void take(struct http_request *r, void *arg)
{
    struct site *s = arg;
    size_t n;
    http_body_release(&s->taken);
    http_request_take_body(r, &s->taken);
    (void)http_request_body(r, &n);
    CHECK(n == 0);
    size_t to = atomic_load(&s->shrink_to);
    if (to) {
        http_body_free_bytes(&s->taken);
        http_body_shrink(&s->taken, to);
    }
    count(r, s);
}

static void tell_bytes(struct http_request *r, void *arg)
{
    struct site *s = arg;
    char text[32];
    int n = snprintf(text, sizeof text, "bytes=%zu;", http_server_body_bytes(s->server));
    http_reply(r, 200, "text/plain", text, (size_t)n);
}

static bool has_key(struct http_request *r, void *arg)
{
    const char *key = http_request_key(r, NULL);
    struct site *s = arg;
    size_t n;
    (void)http_request_body(r, &n);
    CHECK(n == 0);
    if (key && strcmp(key, "good") == 0) {
        atomic_fetch_add(&s->let_in, 1);
        return true;
    }
    http_reply_error(r, 401, NULL, NULL, "no key");
    return false;
}

static const struct http_route routes[] = {
    {"POST", "/", count, NULL, 0, false},          {"POST", "/take", take, NULL, 0, false},
    {"POST", "/short", count, NULL, 100, false},   {"POST", "/guarded", count, has_key, 0, false},
    {"GET", "/bytes", tell_bytes, NULL, 0, false},
};

static void on_refused(struct http_request *r, int status, const char *reason, void *arg)
{
    struct site *s = arg;
    CHECK(status >= 400 && http_request_path(r)[0] == '/');
    snprintf(s->reason, sizeof s->reason, "%s", reason);
    atomic_fetch_add(&s->refused, 1);
}

static void let_go(void *arg)
{
    struct site *s = arg;
    http_body_release(&s->taken);
}

static void prepare(struct loop *l, void *arg)
{
    struct site *s = arg;
    CHECK(http_server_new(l, &s->config, routes, sizeof routes / sizeof *routes, s, &s->server,
                          NULL) == 0);
    CHECK(loop_wake_new(l, let_go, s, &s->let_go, NULL) == 0);
    s->port = http_server_port(s->server);
}

static void clean(void *arg)
{
    struct site *s = arg;
    http_body_release(&s->taken);
    http_server_free(s->server);
    loop_wake_free(s->let_go);
}

static struct site *site_new(void)
{
    struct site *s = mem_calloc(1, sizeof *s);
    CHECK(s);
    CHECK(http_network_parse("127.0.0.1", &s->proxy, NULL) == 0);
    http_server_config_default(&s->config);
    s->config.error_body = wire_error_body;
    s->config.on_refused = on_refused;
    s->config.body_max = BODY_MAX;
    s->config.bodies_max = ALL;
    s->config.bodies_per_address = SHARE;
    s->config.proxies = &s->proxy;
    s->config.n_proxies = 1;
    s->thread = (struct loop_thread){.prepare = prepare, .clean = clean, .arg = s};
    loop_thread_start(&s->thread);
    return s;
}

static void site_stop(struct site *s)
{
    loop_thread_stop(&s->thread);
    mem_free(s);
}

static void put_head(struct buf *b, const char *path, int address, size_t n, bool chunked)
{
    buf_init(b, RAW_MAX);
    CHECK(buf_printf(b, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", path) == 0);
    CHECK(buf_printf(b, "X-Forwarded-For: 10.0.0.%d\r\n", address) == 0);
    if (chunked)
        CHECK(buf_printf(b, "Transfer-Encoding: chunked\r\n\r\n%zx\r\n", n) == 0);
    else
        CHECK(buf_printf(b, "Content-Length: %zu\r\n\r\n", n) == 0);
}

/* A client that sends all of a body but its last byte, and waits. */
static int hold(const struct site *s, int address, size_t n, bool chunked)
{
    static const char zeros[LARGE];
    struct buf b;
    put_head(&b, "/", address, n, chunked);
    int fd = raw_connect(s->port);
    raw_send(fd, b.data, b.len);
    raw_send(fd, zeros, n - 1);
    buf_release(&b);
    return fd;
}

/* Wait until the server has read so many bytes of bodies that are not over. */
static void expect_bytes(const struct site *s, size_t bytes)
{
    size_t now = 0;
    for (int i = 0; i < RAW_WAIT_MS; i += 5) {
        struct buf b;
        raw_ask(s->port, "GET /bytes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", &b);
        const char *at = strstr(b.data, "bytes=");
        now = at ? strtoul(at + 6, NULL, 10) : SIZE_MAX;
        buf_release(&b);
        if (now == bytes) return;
        clock_sleep_us(5000);
    }
    fail_msg("%zu bytes are held, not %zu", now, bytes);
}

/* The status that a whole body of n bytes gets. */
static int ask(const struct site *s, const char *path, int address, size_t n)
{
    static const char zeros[BODY_MAX + 1];
    struct buf b, reply;
    put_head(&b, path, address, n, false);
    buf_init(&reply, RAW_MAX);
    int fd = raw_connect(s->port);
    raw_send(fd, b.data, b.len);
    raw_send(fd, zeros, n);
    (void)raw_read_until(fd, &reply, NULL);
    int status = reply.len > 12 ? atoi(reply.data + 9) : 0;
    close(fd);
    buf_release(&b);
    buf_release(&reply);
    return status;
}

/* One address reaches its share; the others do not notice, and what it held comes back. */
static void share_of_an_address(void **state)
{
    (void)state;
    for (int chunked = 0; chunked < 2; chunked++) {
        struct site *s = site_new();
        int first = hold(s, 1, LARGE, chunked), second = hold(s, 1, LARGE, chunked);
        expect_bytes(s, 2 * (LARGE - 1));
        assert_int_equal(ask(s, "/", 1, LARGE), 429);
        assert_string_equal(s->reason, "bodies_of_address");
        assert_int_equal(ask(s, "/", 1, HTTP_BODY_SMALL), 200);
        assert_true(atomic_load(&s->refused) > 0);
        for (int other = 2; other < 6; other++)
            assert_int_equal(ask(s, "/", other, LARGE), 200);
        close(first);
        expect_bytes(s, LARGE - 1);
        assert_int_equal(ask(s, "/", 1, LARGE), 200);
        close(second);
        site_stop(s);
    }
}

/* The share is met by bytes that come, too, where no length was announced. */
static void share_met_while_sending(void **state)
{
    (void)state;
    struct site *s = site_new();
    int held[3];
    for (int i = 0; i < 3; i++)
        held[i] = hold(s, 1, LARGE, true);
    struct buf b;
    buf_init(&b, RAW_MAX);
    bool any = false;
    for (int wait = 0; wait < RAW_WAIT_MS && !any; wait += 5)
        for (int i = 0; i < 3 && !any; i++)
            any = raw_readable(held[i], 5) && raw_read_until(held[i], &b, "too_many_bytes");
    assert_true(any);
    for (int i = 0; i < 3; i++)
        close(held[i]);
    buf_release(&b);
    site_stop(s);
}

/* Large bodies of many addresses leave room for small ones. */
static void reserve_for_small_bodies(void **state)
{
    (void)state;
    struct site *s = site_new();
    int held[7];
    for (int i = 0; i < 7; i++)
        held[i] = hold(s, 10 + i, LARGE, false);
    expect_bytes(s, 7 * (LARGE - 1));
    assert_int_equal(ask(s, "/", 1, LARGE), 503);
    assert_string_equal(s->reason, "bodies");
    assert_int_equal(ask(s, "/", 1, HTTP_BODY_SMALL), 200);
    assert_int_equal(ask(s, "/", 1, 100), 200);
    for (int i = 0; i < 7; i++)
        close(held[i]);
    expect_bytes(s, 0);
    assert_int_equal(ask(s, "/", 1, LARGE), 200);
    site_stop(s);
}

/* A body that its handler took counts until it is released. */
static void taken_bodies_count(void **state)
{
    (void)state;
    struct site *s = site_new();
    assert_int_equal(ask(s, "/take", 1, LARGE), 200);
    int held = hold(s, 1, LARGE, false);
    expect_bytes(s, 2 * LARGE - 1);
    assert_int_equal(ask(s, "/", 1, LARGE), 429);
    loop_wake_signal(s->let_go);
    expect_bytes(s, LARGE - 1);
    assert_int_equal(ask(s, "/", 1, LARGE), 200);
    close(held);
    site_stop(s);
}

/* What was made of a body counts in its place, if it is not small. */
static void place_of_a_body(void **state)
{
    (void)state;
    struct site *s = site_new();
    s->shrink_to = LARGE - 1000;
    assert_int_equal(ask(s, "/take", 1, LARGE), 200);
    expect_bytes(s, LARGE - 1000);
    s->shrink_to = HTTP_BODY_SMALL;
    assert_int_equal(ask(s, "/take", 1, LARGE), 200);
    expect_bytes(s, 0);
    site_stop(s);
}

static void limit_of_a_route(void **state)
{
    (void)state;
    struct site *s = site_new();
    assert_int_equal(ask(s, "/short", 1, 100), 200);
    assert_int_equal(ask(s, "/short", 1, 101), 413);
    assert_string_equal(s->reason, "body_size");
    assert_int_equal(ask(s, "/", 1, BODY_MAX), 200);
    assert_int_equal(ask(s, "/", 1, BODY_MAX + 1), 413);
    site_stop(s);
}

static void expect_reply(const struct site *s, const char *request, const char *begins)
{
    struct buf b;
    raw_ask(s->port, request, &b);
    if (strncmp(b.data, begins, strlen(begins)) != 0)
        fail_msg("asked:\n%s\nwanted %s, got:\n%s", request, begins, b.data);
    buf_release(&b);
}

#define GUARDED "POST /guarded HTTP/1.1\r\nHost: x\r\n"
#define KEY "Authorization: Bearer good\r\n"

/* The gate speaks before the body: 401 comes although the body never does, and nobody is asked to
 * go on who would be refused, or speaks HTTP/1.0. */
static void gate_before_body(void **state)
{
    (void)state;
    struct site *s = site_new();
    expect_reply(s, GUARDED "Content-Length: 100000\r\n\r\n", "HTTP/1.1 401 ");
    expect_reply(s, GUARDED "Transfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 401 ");
    expect_reply(s, GUARDED "Expect: 100-continue\r\nContent-Length: 100\r\n\r\n", "HTTP/1.1 401 ");
    assert_int_equal(atomic_load(&s->handled), 0);
    /* Without a body the connection goes on. */
    struct buf b;
    raw_ask(s->port, GUARDED "\r\n" GUARDED KEY "Connection: close\r\nContent-Length: 2\r\n\r\nhi",
            &b);
    assert_memory_equal(b.data, "HTTP/1.1 401 ", 13);
    assert_non_null(strstr(b.data, "HTTP/1.1 200 OK"));
    buf_release(&b);
    site_stop(s);
}

static void who_hears_continue(void **state)
{
    static const struct {
        const char *head;
        bool asked;
    } cases[] = {
        {GUARDED KEY "Connection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
         true},
        {"POST /guarded HTTP/1.0\r\n" KEY "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n",
         false},
    };
    struct site *s = site_new();
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf b;
        buf_init(&b, RAW_MAX);
        int fd = raw_connect(s->port);
        raw_puts(fd, cases[i].head);
        if (cases[i].asked) assert_true(raw_read_until(fd, &b, "100 Continue\r\n\r\n"));
        for (int wait = 0; wait < RAW_WAIT_MS && atomic_load(&s->let_in) <= i; wait++)
            clock_sleep_us(1000);
        raw_puts(fd, "ok");
        assert_true(raw_read_until(fd, &b, NULL));
        assert_true((strstr(b.data, "100 Continue") != NULL) == cases[i].asked);
        assert_non_null(strstr(b.data, "HTTP/1.1 200 OK"));
        close(fd);
        buf_release(&b);
    }
    site_stop(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(share_of_an_address),      cmocka_unit_test(share_met_while_sending),
        cmocka_unit_test(reserve_for_small_bodies), cmocka_unit_test(taken_bodies_count),
        cmocka_unit_test(place_of_a_body),          cmocka_unit_test(limit_of_a_route),
        cmocka_unit_test(gate_before_body),         cmocka_unit_test(who_hears_continue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
