/*
 * The HTTP client against our server and against scripted ones that misbehave. Each test says which
 * failure it catches.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/os.h"
#include "net/http_client.h"
#include "net/http_portal.h"
#include "net/http_server.h"
#include "net/http_url.h"
#include "net/key_file.h"
#include "proto/wire.h"
#include "support/net_raw.h"

/* What came of one call. */
struct seen {
    struct loop *loop;
    struct http_call *call, *other; /* other: cancelled by on_body */
    struct buf body;
    struct http_result result;
    struct err err;
    char retry[16], notice[HTTP_PORTAL_MAX];
    int head_status;
    unsigned heads, pieces, dones;
    bool cancel_in_body, cancel_in_head, stop_in_body;
};

static void on_head(void *arg, int status)
{
    struct seen *s = arg;
    s->heads++;
    s->head_status = status;
    if (s->cancel_in_head) {
        http_call_cancel(s->call);
        loop_stop(s->loop);
    }
}

static void on_body(void *arg, const char *data, size_t n)
{
    struct seen *s = arg;
    s->pieces++;
    CHECK(buf_append(&s->body, data, n) == 0);
    if (s->other) {
        http_call_cancel(s->other);
        s->other = NULL;
    }
    if (s->cancel_in_body) http_call_cancel(s->call);
    if (s->cancel_in_body || s->stop_in_body) loop_stop(s->loop);
}

static void on_done(void *arg, const struct http_result *result)
{
    struct seen *s = arg;
    s->dones++;
    s->result = *result;
    snprintf(s->notice, sizeof s->notice, "%s", result->notice ? result->notice : "");
    s->result.notice = s->notice; /* the result's goes with its call */
    s->err = result->err;
    if (result->body_len) CHECK(buf_append(&s->body, result->body, result->body_len) == 0);
    http_call_cancel(s->call); /* allowed, and nothing: it is over */
    loop_stop(s->loop);
}

static void seen_init(struct seen *s, struct loop *l)
{
    *s = (struct seen){.loop = l};
    buf_init(&s->body, RAW_MAX);
}

static struct http_call_spec spec_of(struct seen *s, const char *method, const char *path)
{
    return (struct http_call_spec){.method = method,
                                   .path = path,
                                   .on_head = on_head,
                                   .on_body = on_body,
                                   .on_done = on_done,
                                   .arg = s};
}

static struct http_client *client_for(struct loop *l, uint16_t port, const char *warm_path)
{
    struct http_client_config config;
    struct http_client *c;
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%u/", port);
    http_client_config_default(&config);
    config.base_url = url;
    config.bearer = "k3y";
    config.warm_path = warm_path;
    CHECK(http_client_new(l, &config, &c, NULL) == 0);
    return c;
}

static void start(struct http_client *c, struct seen *s, const struct http_call_spec *spec)
{
    struct err e = ERR_INIT;
    if (http_call_start(c, spec, &s->call, &e)) fail_msg("%s", e.text);
}

static void stop_loop(void *arg)
{
    loop_stop(arg);
}

static void run_for(struct loop *l, uint64_t us)
{
    struct loop_timer *t;
    CHECK(loop_timer_new(l, stop_loop, l, &t, NULL) == 0);
    loop_timer_set(t, clock_us() + us);
    CHECK(loop_run(l, NULL) == 0);
    loop_timer_free(t);
}

/* Run the loop until *value reaches `least`; no timed test: fails only when it never does. */
static void run_until(struct loop *l, const unsigned *value, unsigned least)
{
    for (int i = 0; i < RAW_WAIT_MS && *value < least; i++)
        run_for(l, 1000);
    assert_true(*value >= least);
}

static void run_until_spare(struct loop *l, const struct http_client *c)
{
    for (int i = 0; i < RAW_WAIT_MS && http_client_spares(c) == 0; i++)
        run_for(l, 1000);
    assert_true(http_client_spares(c) > 0);
}

/* Our own server, in the same loop. */
struct site {
    struct loop *loop;
    struct http_server *server;
    struct http_request *open;
    unsigned handled, closed, health;
};

static void show(struct http_request *r, void *arg)
{
    struct site *s = arg;
    struct buf b;
    size_t n;
    const char *body = http_request_body(r, &n);
    s->handled++;
    buf_init(&b, RAW_MAX);
    buf_printf(&b, "%s %s key=%s type=%s expect=%s body=%s", http_request_method(r),
               http_request_path(r), http_request_key(r, NULL),
               http_request_header(r, "content-type") ? http_request_header(r, "content-type")
                                                      : "-",
               http_request_header(r, "expect") ? "yes" : "no", body);
    http_reply(r, 200, "text/plain", b.data, b.len);
    buf_release(&b);
}

static void left(void *arg)
{
    struct site *s = arg;
    s->closed++;
    s->open = NULL;
}

static void open_stream(struct http_request *r, void *arg)
{
    struct site *s = arg;
    s->handled++;
    s->open = r;
    http_request_on_close(r, left, s);
    bool end = strcmp(http_request_query(r), "end") == 0;
    if (strcmp(http_request_query(r), "silent") == 0) return;
    http_stream_begin(r, "text/event-stream");
    http_stream_send(r, "one", 3);
    if (end) {
        http_stream_send(r, "two", 3);
        http_stream_end(r);
    }
}

static void busy(struct http_request *r, void *arg)
{
    (void)arg;
    const char *after = http_request_query(r);
    char value[80] = "7";
    size_t n = 0;
    for (; after[n] && n + 1 < sizeof value; n++) /* '+' is a blank */
        value[n] = after[n] == '+' ? ' ' : after[n];
    if (n) value[n] = 0;
    http_request_reply_header(r, "Retry-After", value);
    http_reply_error(r, 429, "queue_full", NULL, "come back later");
}

static void big(struct http_request *r, void *arg)
{
    size_t n = HTTP_COLLECT_MAX + 1;
    char *data = mem_calloc(1, n);
    (void)arg;
    http_reply(r, 200, "text/plain", data, n);
    mem_free(data);
}

static void health(struct http_request *r, void *arg)
{
    struct site *s = arg;
    s->health++;
    http_reply_json(r, 200, "{}", 2);
}

static const struct http_route routes[] = {
    {"GET", "/show", show, NULL, 0, false},
    {"POST", "/show", show, NULL, 0, false},
    {"PATCH", "/show", show, NULL, 0, false},
    {"DELETE", "/show", show, NULL, 0, false},
    {"GET", "/stream", open_stream, NULL, 0, false},
    {"GET", "/busy", busy, NULL, 0, false},
    {"GET", "/big", big, NULL, 0, false},
    {"GET", "/health", health, NULL, 0, false},
};

static void site_start(struct site *s)
{
    struct http_server_config config;
    *s = (struct site){.loop = NULL};
    http_server_config_default(&config);
    config.error_body = wire_error_body;
    CHECK(loop_new(&s->loop, NULL) == 0);
    CHECK(http_server_new(s->loop, &config, routes, sizeof routes / sizeof *routes, s, &s->server,
                          NULL) == 0);
}

static void site_stop(struct site *s)
{
    http_server_free(s->server);
    loop_free(s->loop);
}

/* Catches: wrong method, path, key, body or header, and Expect (a round trip for nothing). */
static void plain_calls(void **state)
{
    static const struct {
        const char *method, *body, *want;
    } cases[] = {
        {"GET", NULL, "GET /show key=k3y type=- expect=no body="},
        {"POST", "{\"a\":1}", "POST /show key=k3y type=application/json expect=no body={\"a\":1}"},
        {"PATCH", "{}", "PATCH /show key=k3y type=application/json expect=no body={}"},
        {"DELETE", NULL, "DELETE /show key=k3y type=- expect=no body="},
    };
    struct site site;
    (void)state;
    site_start(&site);
    struct http_client *c = client_for(site.loop, http_server_port(site.server), NULL);
    for (size_t i = 0; i < 8; i++) {
        struct seen s;
        seen_init(&s, site.loop);
        struct http_call_spec spec = spec_of(&s, cases[i % 4].method, "/show");
        spec.body = cases[i % 4].body;
        spec.body_len = spec.body ? strlen(spec.body) : 0;
        spec.collect = i >= 4;
        start(c, &s, &spec);
        run_until(site.loop, &s.dones, 1);
        assert_int_equal(s.err.code, 0);
        assert_int_equal(s.result.status, 200);
        assert_int_equal(s.heads, 1);
        assert_string_equal(s.body.data, cases[i % 4].want);
        assert_true(s.result.first_byte_us >= s.result.started_us);
        assert_true(s.result.ended_us >= s.result.first_byte_us);
        assert_int_equal(s.result.reused, i > 0);
        buf_release(&s.body);
    }
    http_client_free(c);
    site_stop(&site);
}

/* Catches: a body of many megabytes cut or reordered on the way. */
static void large_body(void **state)
{
    enum { SIZE = 8 << 20 };
    struct site site;
    struct seen s;
    (void)state;
    site_start(&site);
    struct http_client *c = client_for(site.loop, http_server_port(site.server), NULL);
    char *body = mem_alloc(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        body[i] = (char)('a' + (i * 7 + i / 1000) % 26);
    seen_init(&s, site.loop);
    struct http_call_spec spec = spec_of(&s, "POST", "/show");
    spec.body = body;
    spec.body_len = SIZE;
    start(c, &s, &spec);
    run_until(site.loop, &s.dones, 1);
    assert_int_equal(s.err.code, 0);
    assert_true(s.body.len > SIZE);
    assert_memory_equal(s.body.data + s.body.len - SIZE, body, SIZE);
    mem_free(body);
    buf_release(&s.body);
    http_client_free(c);
    site_stop(&site);
}

/* Catches: an error answer whose sentence, code or Retry-After is lost; a too large answer. */
static void error_answers(void **state)
{
    struct site site;
    struct seen s;
    struct err e = ERR_INIT;
    (void)state;
    site_start(&site);
    struct http_client *c = client_for(site.loop, http_server_port(site.server), NULL);
    seen_init(&s, site.loop);
    struct http_call_spec spec = spec_of(&s, "GET", "/busy");
    start(c, &s, &spec);
    run_until(site.loop, &s.dones, 1);
    assert_int_equal(s.pieces, 0);
    assert_int_equal(s.result.status, 429);
    assert_int_equal(s.result.retry_after_s, 7);
    s.result.body = s.body.data;
    assert_int_equal(http_result_error(&s.result, "http://x", wire_error_text, &e), ERR_BUSY);
    assert_string_equal(e.text, "http://x answered 429: come back later");
    buf_release(&s.body);
    seen_init(&s, site.loop);
    spec = spec_of(&s, "GET", "/big");
    spec.collect = true;
    start(c, &s, &spec);
    run_until(site.loop, &s.dones, 1);
    assert_int_equal(s.err.code, ERR_LIMIT);
    buf_release(&s.body);
    http_client_free(c);
    site_stop(&site);
}

/* Catches: a date told as a second; a wait that is endless or negative. Our server tells its own
 * date, and the wait is from there. */
static void retry_after_dates(void **state)
{
    static const struct {
        int ahead; /* seconds; 0: the text */
        const char *text;
        uint32_t least, most;
    } cases[] = {{120, NULL, 110, 121},
                 {-500, NULL, 1, 1},
                 {10000000, NULL, 100000, 100000},
                 {0, "120", 120, 120},
                 {0, "99999999999", 100000, 100000},
                 {0, "tomorrow", 0, 0},
                 {0, "-5", 0, 0},
                 {0, "Sat,+99+Xyz+2026", 0, 0}};
    struct site site;
    (void)state;
    site_start(&site);
    struct http_client *c = client_for(site.loop, http_server_port(site.server), NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct seen s;
        char path[100];
        time_t when = time(NULL) + cases[i].ahead;
        struct tm t;
        gmtime_r(&when, &t);
        if (cases[i].text)
            snprintf(path, sizeof path, "/busy?%s", cases[i].text);
        else
            strftime(path, sizeof path, "/busy?%a,+%d+%b+%Y+%H:%M:%S+GMT", &t);
        seen_init(&s, site.loop);
        struct http_call_spec spec = spec_of(&s, "GET", path);
        start(c, &s, &spec);
        run_until(site.loop, &s.dones, 1);
        if (s.result.retry_after_s < cases[i].least || s.result.retry_after_s > cases[i].most)
            fail_msg("%s: %u s", path, s.result.retry_after_s);
        buf_release(&s.body);
    }
    http_client_free(c);
    site_stop(&site);
}

/* Catches: a key that travels readable without a word, and a warning where it does not. */
static void exposing_urls(void **state)
{
    static const struct {
        const char *url;
        bool exposes;
    } cases[] = {{"http://example.org", true},     {"http://10.0.0.1:8080/prefix", true},
                 {"http://[fd00::1]:80", true},    {"http://localhost.example.org", true},
                 {"http://notlocalhost", true},    {"HTTP://Example.org", true},
                 {"http://128.0.0.1", true},       {"https://example.org", false},
                 {"http://localhost:8080", false}, {"http://a.LocalHost", false},
                 {"http://127.0.0.1:1", false},    {"http://127.9.9.9", false},
                 {"http://[::1]:8080", false},     {"no url at all", false}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (http_url_exposes(cases[i].url) != cases[i].exposes) fail_msg("%s", cases[i].url);
}

/* Catches: pieces held back until the end, and an end that is not told. */
static void streaming(void **state)
{
    struct site site;
    struct seen s;
    (void)state;
    site_start(&site);
    struct http_client *c = client_for(site.loop, http_server_port(site.server), NULL);
    seen_init(&s, site.loop);
    struct http_call_spec spec = spec_of(&s, "GET", "/stream");
    start(c, &s, &spec);
    run_until(site.loop, &s.pieces, 1);
    assert_string_equal(s.body.data, "one");
    assert_int_equal(s.dones, 0);
    http_stream_send(site.open, "two", 3);
    run_until(site.loop, &s.pieces, 2);
    http_stream_end(site.open);
    run_until(site.loop, &s.dones, 1);
    assert_string_equal(s.body.data, "onetwo");
    assert_int_equal(s.err.code, 0);
    buf_release(&s.body);
    http_client_free(c);
    site_stop(&site);
}

/* Catches: a cancel that the server does not see, one from inside a callback that breaks curl, and
 * callbacks after it. */
static void cancelling(void **state)
{
    struct site site;
    (void)state;
    site_start(&site);
    struct http_client *c = client_for(site.loop, http_server_port(site.server), NULL);
    for (unsigned i = 0; i < 5; i++) {
        struct seen s, t;
        seen_init(&s, site.loop);
        seen_init(&t, site.loop);
        struct http_call_spec spec = spec_of(&s, "GET", i == 1 ? "/stream?silent" : "/stream");
        s.cancel_in_body = i == 2;
        s.cancel_in_head = i == 3;
        unsigned closed = site.closed;
        if (i == 4) { /* cancels another one, which waits for its head */
            struct http_call_spec second = spec_of(&t, "GET", "/stream?silent");
            start(c, &t, &second);
            run_until(site.loop, &site.handled, site.handled + 1);
            s.other = t.call;
        }
        start(c, &s, &spec);
        if (i == 0) http_call_cancel(s.call); /* before anything was sent */
        if (i == 1) {
            run_until(site.loop, &site.handled, site.handled + 1);
            http_call_cancel(s.call);
        }
        if (i > 0) run_until(site.loop, &site.closed, closed + 1);
        assert_int_equal(s.dones + t.dones, 0);
        if (i == 4) http_call_cancel(s.call);
        run_for(site.loop, 5000);
        buf_release(&s.body);
    }
    assert_int_equal(http_client_spares(c), 0);
    http_client_free(c);
    site_stop(&site);
}

/* Catches: no warm connection after the start, during a stream, or after a cancel; a handshake
 * before each request. */
static void warm_spare(void **state)
{
    struct site site;
    (void)state;
    site_start(&site);
    struct http_client *c = client_for(site.loop, http_server_port(site.server), "/health");
    for (int i = 0; i < 4; i++) {
        struct seen s;
        run_until_spare(site.loop, c);
        seen_init(&s, site.loop);
        struct http_call_spec spec = spec_of(&s, "GET", i % 2 ? "/stream" : "/stream?end");
        start(c, &s, &spec);
        if (i % 2) {
            run_until(site.loop, &s.pieces, 1);
            run_until_spare(site.loop, c); /* another one, while this one streams */
            http_call_cancel(s.call);
        } else {
            run_until(site.loop, &s.dones, 1);
            assert_true(s.result.reused);
        }
        buf_release(&s.body);
    }
    assert_true(site.health >= 2);
    http_client_free(c);
    site_stop(&site);
}

/* Catches: a spare that the server closed meanwhile and that fails the next call. */
static void dead_spare(void **state)
{
    struct site site;
    struct seen s;
    (void)state;
    site_start(&site);
    uint16_t port = http_server_port(site.server);
    struct http_client *c = client_for(site.loop, port, "/health");
    run_until_spare(site.loop, c);
    http_server_free(site.server);
    struct http_server_config config;
    http_server_config_default(&config);
    config.error_body = wire_error_body;
    config.port = port;
    assert_int_equal(http_server_new(site.loop, &config, routes, sizeof routes / sizeof *routes,
                                     &site, &site.server, NULL),
                     0);
    seen_init(&s, site.loop);
    struct http_call_spec spec = spec_of(&s, "POST", "/show");
    spec.body = "x";
    spec.body_len = 1;
    start(c, &s, &spec);
    run_until(site.loop, &s.dones, 1);
    assert_int_equal(s.err.code, 0);
    assert_int_equal(s.result.status, 200);
    buf_release(&s.body);
    http_client_free(c);
    site_stop(&site);
}

/* Catches: calls without limit. */
static void too_many_calls(void **state)
{
    struct site site;
    struct seen s[HTTP_CLIENT_CALLS_MAX + 1];
    struct err e = ERR_INIT;
    (void)state;
    site_start(&site);
    struct http_client *c = client_for(site.loop, http_server_port(site.server), NULL);
    for (int i = 0; i <= HTTP_CLIENT_CALLS_MAX; i++) {
        seen_init(&s[i], site.loop);
        struct http_call_spec spec = spec_of(&s[i], "GET", "/stream?silent");
        int code = http_call_start(c, &spec, &s[i].call, &e);
        assert_int_equal(code, i < HTTP_CLIENT_CALLS_MAX ? 0 : ERR_BUSY);
    }
    run_until(site.loop, &site.handled, HTTP_CLIENT_CALLS_MAX);
    http_client_free(c); /* with everything running */
    run_until(site.loop, &site.closed, HTTP_CLIENT_CALLS_MAX);
    site_stop(&site);
}

enum { AFTER_CLOSE, AFTER_WAIT, AFTER_RESET };

/* A server that sends one text to whoever connects, then does `after`. */
struct script {
    int listener;
    uint16_t port;
    const char *text;
    int after;
    pthread_t thread;
};

static void *script_main(void *arg)
{
    struct script *s = arg;
    struct buf b;
    char c;
    buf_init(&b, RAW_MAX);
    int fd = accept(s->listener, NULL, NULL);
    raw_read_until(fd, &b, "\r\n\r\n");
    raw_puts(fd, s->text);
    if (s->after == AFTER_WAIT)
        while (recv(fd, &c, 1, 0) > 0)
            ;
    if (s->after == AFTER_RESET) {
        struct linger reset = {1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    close(fd);
    buf_release(&b);
    return NULL;
}

#define HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
#define CHUNKED HEAD "Transfer-Encoding: chunked\r\n\r\n"

/* Catches: a server that misbehaves and is believed, waited for without end, or blamed without its
 * URL. */
static void bad_servers(void **state)
{
    static const struct {
        const char *text;
        int after, code, status;
        const char *body, *sentence;
    } cases[] = {
        {CHUNKED "3\r\nabc\r\n0\r\n\r\n", AFTER_CLOSE, 0, 200, "abc", ""},
        {HEAD "Content-Length: 3\r\n\r\nabc", AFTER_WAIT, 0, 200, "abc", ""},
        {"HTTP/1.1 100 Continue\r\n\r\n" CHUNKED "3\r\nabc\r\n0\r\n\r\n", AFTER_CLOSE, 0, 200,
         "abc", ""},
        {"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 2\r\n\r\nno",
         AFTER_CLOSE, 0, 302, "no", ""},
        {"", AFTER_CLOSE, ERR_NET, 0, "", "closed before an answer"},
        {"", AFTER_RESET, ERR_NET, 0, "", "cut"},
        {"garbage garbage\r\n\r\n", AFTER_CLOSE, ERR_PROTOCOL, 0, "", "not HTTP"},
        {"HTTP/1.1 abc\r\n\r\n", AFTER_CLOSE, ERR_PROTOCOL, 0, "", "not HTTP"},
        {"HTTP/1.1 200 OK\r\nContent-", AFTER_CLOSE, ERR_NET, 0, "", ""},
        {HEAD "Content-Length: 5\r\n\r\nabc", AFTER_CLOSE, ERR_NET, 200, "abc", "cut"},
        {CHUNKED "3\r\nabc\r\n5\r\nde", AFTER_CLOSE, ERR_NET, 200, "abcde", "cut"},
        {CHUNKED "3\r\nabc\r\n", AFTER_CLOSE, ERR_NET, 200, "abc", "cut"},
        {CHUNKED "3\r\nabc\r\n", AFTER_RESET, ERR_NET, 200, NULL, "cut"},
        {CHUNKED "zz\r\nabc\r\n", AFTER_CLOSE, ERR_NET, 200, "", ""},
        {CHUNKED "3\r\nabc\r\n", AFTER_WAIT, ERR_TIMEOUT, 200, "abc", "stalled"},
        {"", AFTER_WAIT, ERR_TIMEOUT, 0, "", "no answer came"},
        {"HTTP/1.1 200 OK\r\nX: y\r\n", AFTER_WAIT, ERR_TIMEOUT, 0, "", "stalled"},
    };
    struct loop *l;
    (void)state;
    assert_int_equal(loop_new(&l, NULL), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct script script = {.text = cases[i].text};
        struct seen s;
        script.after = cases[i].after;
        script.listener = raw_listen(&script.port);
        CHECK(pthread_create(&script.thread, NULL, script_main, &script) == 0);
        struct http_client *c = client_for(l, script.port, NULL);
        seen_init(&s, l);
        struct http_call_spec spec = spec_of(&s, "GET", "/v1/x");
        spec.first_byte_timeout_us = spec.idle_timeout_us =
            cases[i].code == ERR_TIMEOUT ? 500000 : 0;
        start(c, &s, &spec);
        run_until(l, &s.dones, 1);
        http_client_free(c);
        pthread_join(script.thread, NULL);
        close(script.listener);
        if (s.err.code != cases[i].code || s.result.status != cases[i].status ||
            (cases[i].body && strcmp(s.body.data, cases[i].body) != 0) ||
            !strstr(s.err.text, cases[i].sentence))
            fail_msg("case %zu: code %d status %d body '%s': %s", i, s.err.code, s.result.status,
                     s.body.data, s.err.text);
        if (s.err.code) assert_non_null(strstr(s.err.text, "http://127.0.0.1:"));
        buf_release(&s.body);
    }
    loop_free(l);
}

/* Catches: an answer's head without end that fills memory. */
static void endless_head(void **state)
{
    struct loop *l;
    struct seen s;
    struct buf text;
    (void)state;
    assert_int_equal(loop_new(&l, NULL), 0);
    buf_init(&text, RAW_MAX);
    buf_puts(&text, "HTTP/1.1 200 OK\r\n");
    while (text.len < HTTP_ANSWER_HEAD_MAX + 1000)
        buf_puts(&text, "X-Header: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n");
    struct script script = {.text = text.data, .after = AFTER_WAIT};
    script.listener = raw_listen(&script.port);
    CHECK(pthread_create(&script.thread, NULL, script_main, &script) == 0);
    struct http_client *c = client_for(l, script.port, NULL);
    seen_init(&s, l);
    struct http_call_spec spec = spec_of(&s, "GET", "/");
    start(c, &s, &spec);
    run_until(l, &s.dones, 1);
    assert_int_equal(s.err.code, ERR_LIMIT);
    http_client_free(c);
    pthread_join(script.thread, NULL);
    close(script.listener);
    buf_release(&text);
    buf_release(&s.body);
    loop_free(l);
}

/* Catches: a cloud that is not there, told without its URL; a deadline that is not kept; TLS to a
 * server without it. */
static void unreachable(void **state)
{
    struct loop *l;
    struct seen s;
    uint16_t port;
    (void)state;
    assert_int_equal(loop_new(&l, NULL), 0);
    close(raw_listen(&port)); /* nobody listens there now */
    struct http_client *c = client_for(l, port, "/health");
    seen_init(&s, l);
    struct http_call_spec spec = spec_of(&s, "GET", "/v1/x");
    start(c, &s, &spec);
    run_until(l, &s.dones, 1);
    assert_int_equal(s.err.code, ERR_NET);
    assert_non_null(strstr(s.err.text, "/v1/x: no connection can be made (Connection refused)"));
    http_client_free(c);
    int silent = raw_listen(&port);
    c = client_for(l, port, NULL);
    spec.deadline_us = clock_us() + 50000;
    start(c, &s, &spec);
    run_until(l, &s.dones, 2);
    assert_int_equal(s.err.code, ERR_TIMEOUT);
    assert_non_null(strstr(s.err.text, "deadline"));
    http_client_free(c);
    close(silent);
    loop_free(l);
}

/* Catches: addresses that cannot be meant, accepted. */
static void bad_urls(void **state)
{
    static const char *const urls[] = {"",
                                       "host:80",
                                       "ftp://host/",
                                       "file:///etc/passwd",
                                       "http://",
                                       "http://host/?q=1",
                                       "http://user:secret@host/",
                                       "http://host:99999/"};
    struct loop *l;
    struct http_client *c;
    struct http_client_config config;
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(loop_new(&l, NULL), 0);
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        http_client_config_default(&config);
        config.base_url = urls[i];
        assert_int_equal(http_client_new(l, &config, &c, &e), ERR_BAD_INPUT);
    }
    config.base_url = "https://host";
    config.bearer = "a\r\nX: y";
    assert_int_equal(http_client_new(l, &config, &c, &e), ERR_BAD_INPUT);
    loop_free(l);
}

/* Catches: more than the first line taken for the key, and an empty key. */
static void key_files(void **state)
{
    static const struct {
        const char *text, *key; /* NULL: refused */
    } files[] = {{"pdd-1", "pdd-1"}, {"pdd-2\r\npdd-3\n", "pdd-2"}, {"\npdd-4", NULL}, {"", NULL}};
    char path[] = "/tmp/pdd-test-key-XXXXXX";
    struct err e = ERR_INIT;
    int fd = mkstemp(path);
    (void)state;
    assert_true(fd >= 0);
    close(fd);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct buf key;
        buf_init(&key, 100);
        assert_int_equal(os_write_file(path, files[i].text, strlen(files[i].text), &e), 0);
        int code = key_file_read(path, &key, &e);
        assert_int_equal(code, files[i].key ? 0 : ERR_BAD_INPUT);
        if (files[i].key) assert_string_equal(key.data, files[i].key);
        if (!files[i].key) assert_non_null(strstr(e.text, path));
        buf_release(&key);
    }
    unlink(path);
}

/* Catches: a crash or a call that never ends when any of our allocations fails. */
static void without_memory(void **state)
{
    struct site site;
    bool hit = true;
    (void)state;
    site_start(&site);
    for (long n = 1; hit; n++) {
        struct http_client_config config;
        struct http_client *c = NULL;
        char url[64];
        unsigned dones = 0;
        struct seen s;
        seen_init(&s, site.loop);
        snprintf(url, sizeof url, "http://127.0.0.1:%u/", http_server_port(site.server));
        http_client_config_default(&config);
        config.base_url = url;
        mem_fail_at(n);
        if (http_client_new(site.loop, &config, &c, NULL) == 0) {
            struct http_call_spec spec = spec_of(&s, "GET", "/stream?end");
            spec.on_body = NULL;
            if (http_call_start(c, &spec, &s.call, NULL) == 0) {
                for (int i = 0; i < RAW_WAIT_MS && s.dones == 0; i++) {
                    struct loop_timer *t;
                    while (loop_timer_new(site.loop, stop_loop, site.loop, &t, NULL))
                        ;
                    loop_timer_set(t, clock_us() + 1000);
                    CHECK(loop_run(site.loop, NULL) == 0);
                    loop_timer_free(t);
                }
                dones = s.dones;
                assert_int_equal(dones, 1);
            }
        }
        hit = mem_fail_hit();
        mem_fail_at(0);
        http_client_free(c);
        run_for(site.loop, 1000);
        buf_release(&s.body);
    }
    site_stop(&site);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exposing_urls),  cmocka_unit_test(retry_after_dates),
        cmocka_unit_test(key_files),      cmocka_unit_test(plain_calls),
        cmocka_unit_test(large_body),     cmocka_unit_test(error_answers),
        cmocka_unit_test(streaming),      cmocka_unit_test(cancelling),
        cmocka_unit_test(warm_spare),     cmocka_unit_test(dead_spare),
        cmocka_unit_test(too_many_calls), cmocka_unit_test(bad_servers),
        cmocka_unit_test(endless_head),   cmocka_unit_test(unreachable),
        cmocka_unit_test(bad_urls),       cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
