/*
 * Requests as people's clients send them, against raw sockets: spellings of paths, whole URLs as
 * targets, keys in other headers, tags, compressed bodies and charsets, TLS on a plain port. Each
 * test says which failure it catches.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/mem.h"
#include "net/http_server.h"
#include "proto/wire.h"
#include "support/net_raw.h"

enum { LOG_MAX = 256 };

struct site {
    struct loop_thread thread;
    struct http_server_config config;
    struct http_server *server;
    uint16_t port;
    char refused[LOG_MAX]; /* what on_refused was told; read when the loop has ended */
};

static void show(struct http_request *r, void *arg)
{
    struct buf b;
    size_t n;
    const char *other, *key = http_request_key(r, &other), *body = http_request_body(r, &n);
    (void)arg;
    buf_init(&b, 4096);
    buf_printf(&b, "[%s %s?%s id=%s key=%s other=%s tag=%s body=%.*s]", http_request_method(r),
               http_request_path(r), http_request_query(r), http_request_id(r), key ? key : "-",
               other ? other : "-", http_request_tag(r), (int)n, n ? body : "");
    http_reply(r, 200, "text/plain", b.data, b.len);
    buf_release(&b);
}

static void stream(struct http_request *r, void *arg)
{
    (void)arg;
    http_stream_begin(r, "text/event-stream");
    http_stream_send(r, "data: x\n\n", 9);
    http_stream_end(r);
}

static void fail_at_length(struct http_request *r, void *arg)
{
    char text[2 * ERR_TEXT_MAX];
    (void)arg;
    for (size_t i = 0; i + 2 < sizeof text; i += 2)
        memcpy(text + i, "\xc3\xa4", 3);
    http_reply_error(r, 400, "bad_input", NULL, "x%s", text);
}

static const struct http_route routes[] = {
    {"POST", "/v1/chat/completions", show, NULL, 0, true},
    {"GET", "/v1/models", show, NULL, 0, true},
    {"GET", "/v1/models/{id}", show, NULL, 0, true},
    {"GET", "/v1/strict", show, NULL, 0, false},
    {"GET", "/metrics", show, NULL, 0, false},
    {"GET", "/stream", stream, NULL, 0, false},
    {"GET", "/fail", fail_at_length, NULL, 0, false},
};

static void on_refused(struct http_request *r, int status, const char *reason, void *arg)
{
    struct site *s = arg;
    char peer[HTTP_ADDRESS_TEXT];
    http_request_peer(r, peer);
    snprintf(s->refused, sizeof s->refused, "%d %s %s", status, reason, peer);
}

static void prepare(struct loop *l, void *arg)
{
    struct site *s = arg;
    struct err e = ERR_INIT;
    CHECK(http_server_new(l, &s->config, routes, sizeof routes / sizeof *routes, s, &s->server,
                          &e) == 0);
    s->port = http_server_port(s->server);
}

static void clean(void *arg)
{
    struct site *s = arg;
    http_server_free(s->server);
}

static void site_start(struct site *s)
{
    memset(s, 0, sizeof *s);
    http_server_config_default(&s->config);
    s->config.error_body = wire_error_body;
    s->config.on_refused = on_refused;
    s->thread = (struct loop_thread){.prepare = prepare, .clean = clean, .arg = s};
    loop_thread_start(&s->thread);
}

/* The status of a request of these lines, with Host and Connection: close unless `bare`. */
static int ask(const struct site *s, struct buf *b, bool bare, const char *lines, const char *body)
{
    struct buf q;
    buf_init(&q, 8192);
    CHECK(buf_printf(&q, "%s\r\n%s\r\n%s", lines, bare ? "" : "Host: x\r\nConnection: close\r\n",
                     body) == 0);
    raw_ask(s->port, q.data, b);
    buf_release(&q);
    return b->len > 12 ? (int)strtol(b->data + 9, NULL, 10) : 0;
}

struct ask_case {
    const char *lines, *body;
    int status;
    const char *part; /* of the response; NULL: any */
};

static void check_cases(const struct ask_case *cases, size_t n, bool bare)
{
    struct site s;
    site_start(&s);
    for (size_t i = 0; i < n; i++) {
        struct buf b;
        int status = ask(&s, &b, bare, cases[i].lines, cases[i].body);
        if (status != cases[i].status || (cases[i].part && !strstr(b.data, cases[i].part)))
            fail_msg("%s: %d, not %d with '%s':\n%s", cases[i].lines, status, cases[i].status,
                     cases[i].part ? cases[i].part : "", b.data);
        buf_release(&b);
    }
    loop_thread_stop(&s.thread);
}

#define CHECK_CASES(cases, bare) check_cases(cases, sizeof(cases) / sizeof *(cases), bare)

/* Base URLs without /v1, with it twice, with slashes at the end: 404 before. What a proxy keeps
 * closed by its path has one spelling only. */
static void test_spellings(void **state)
{
    static const struct ask_case cases[] = {
        {"GET /v1/models HTTP/1.1", "", 200, "/v1/models? id= "},
        {"GET /models HTTP/1.1", "", 200, "[GET /models?"},
        {"GET /v1/v1/models HTTP/1.1", "", 200, NULL},
        {"GET /v1/models/ HTTP/1.1", "", 200, "id= "},
        {"GET //v1//models HTTP/1.1", "", 200, NULL},
        {"GET /models/a HTTP/1.1", "", 200, "id=a "},
        {"GET /v1/models/a/ HTTP/1.1", "", 200, "id=a "},
        {"GET /models?api-version=1 HTTP/1.1", "", 200, "?api-version=1 "},
        {"HEAD /models HTTP/1.1", "", 200, NULL},
        {"POST /chat/completions HTTP/1.1", "", 200, NULL},
        {"POST /v1/chat/completions/ HTTP/1.1", "", 200, NULL},
        {"OPTIONS /chat/completions HTTP/1.1", "", 204, "Allow: POST, OPTIONS\r\n"},
        {"OPTIONS /v1/v1/models/ HTTP/1.1", "", 204, "Allow: GET, HEAD, OPTIONS\r\n"},
        {"GET /chat/completions HTTP/1.1", "", 405, "Allow: POST, OPTIONS\r\n"},
        {"GET /v1 HTTP/1.1", "", 404, NULL},
        {"GET /v1/ HTTP/1.1", "", 404, NULL},
        {"GET /v2/models HTTP/1.1", "", 404, NULL},
        {"GET /v1models HTTP/1.1", "", 404, NULL},
        {"GET /models/a/b HTTP/1.1", "", 404, NULL},
        {"GET /strict HTTP/1.1", "", 404, NULL},
        {"GET /v1/strict/ HTTP/1.1", "", 404, NULL},
        {"GET /metrics/ HTTP/1.1", "", 404, NULL},
        {"GET //metrics HTTP/1.1", "", 404, NULL},
        {"GET /v1/metrics HTTP/1.1", "", 404, NULL},
    };
    (void)state;
    CHECK_CASES(cases, false);
}

/* A client behind a proxy sends a whole URL: 400 before. A host that differs from Host is none that
 * anybody can check. */
static void test_whole_urls(void **state)
{
    static const struct ask_case cases[] = {
        {"GET http://x/v1/models HTTP/1.1\r\nHost: x", "", 200, "[GET /v1/models? "},
        {"GET HTTP://X:80/models?a=b HTTP/1.1\r\nHost: x:80", "", 200, "[GET /models?a=b "},
        {"GET https://x/metrics HTTP/1.1\r\nHost: X", "", 200, "[GET /metrics?"},
        {"GET http://x HTTP/1.1\r\nHost: x", "", 404, NULL},
        {"GET http://x?a HTTP/1.1\r\nHost: x", "", 404, NULL},
        {"GET http://x/metrics HTTP/1.1\r\nHost: y", "", 400, "different hosts"},
        {"GET http://x/metrics HTTP/1.1\r\nHost: x:80", "", 400, "different hosts"},
        {"GET http://x/metrics HTTP/1.1", "", 400, "exactly one Host"},
        {"GET http://a@x/metrics HTTP/1.1\r\nHost: x", "", 400, NULL},
        {"GET http:///metrics HTTP/1.1\r\nHost: x", "", 400, NULL},
        {"GET ftp://x/metrics HTTP/1.1\r\nHost: x", "", 400, NULL},
        {"GET x/metrics HTTP/1.1\r\nHost: x", "", 400, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ask_case one = cases[i];
        char lines[256];
        snprintf(lines, sizeof lines, "%s\r\nConnection: close", one.lines);
        one.lines = lines;
        check_cases(&one, 1, true);
    }
}

/* Clients of other APIs send the key in a header of their own. */
static void test_keys(void **state)
{
    static const struct ask_case cases[] = {
        {"GET /metrics HTTP/1.1", "", 200, " key=- other=- "},
        {"GET /metrics HTTP/1.1\r\nAuthorization: Bearer a", "", 200, " key=a other=- "},
        {"GET /metrics HTTP/1.1\r\nauthorization: bearer  a b", "", 200, " key=a b other=- "},
        {"GET /metrics HTTP/1.1\r\nX-API-Key: a", "", 200, " key=a other=- "},
        {"GET /metrics HTTP/1.1\r\napi-key: a", "", 200, " key=a other=- "},
        {"GET /metrics HTTP/1.1\r\nApi-Key: a\r\nAuthorization: Bearer a", "", 200,
         " key=a other=- "},
        {"GET /metrics HTTP/1.1\r\nAuthorization: Bearer \r\nX-Api-Key: a", "", 200,
         " key=a other=- "},
        {"GET /metrics HTTP/1.1\r\nAuthorization: Basic YTpi\r\nX-Api-Key: a", "", 200,
         " key=a other=- "},
        {"GET /metrics HTTP/1.1\r\nX-Api-Key: \r\nAuthorization: Bearer a", "", 200,
         " key=a other=- "},
        {"GET /metrics HTTP/1.1\r\nAuthorization: Bearera", "", 200, " key=- other=- "},
        {"GET /metrics HTTP/1.1\r\nAuthorization: Bearer a\r\nX-Api-Key: b", "", 200,
         " key=a other=X-Api-Key "},
        {"GET /metrics HTTP/1.1\r\nApi-Key: b\r\nAuthorization: Bearer a", "", 200,
         " key=b other=Authorization "},
        {"GET /metrics HTTP/1.1\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b", "", 200,
         " key=a other=Authorization "},
    };
    (void)state;
    CHECK_CASES(cases, false);
}

/* No response without a tag; one that could break a log line or a head is replaced. */
static void test_tags(void **state)
{
    static const struct ask_case cases[] = {
        {"GET /metrics HTTP/1.1\r\nX-Request-Id: a-B_9.:/+=@~", "", 200,
         "\r\nX-Request-Id: a-B_9.:/+=@~\r\n"},
        {"GET /metrics HTTP/1.1\r\nx-request-id: mine", "", 200, " tag=mine "},
        {"GET /metrics HTTP/1.1", "", 200, "\r\nX-Request-Id: req-"},
        {"GET /metrics HTTP/1.1\r\nX-Request-Id: a b", "", 200, "\r\nX-Request-Id: req-"},
        {"GET /metrics HTTP/1.1\r\nX-Request-Id: a\"b", "", 200, "\r\nX-Request-Id: req-"},
        {"GET /metrics HTTP/1.1\r\nX-Request-Id: \xc3\xa4", "", 200, "\r\nX-Request-Id: req-"},
        {"GET /metrics HTTP/1.1\r\nX-Request-Id: ", "", 200, "\r\nX-Request-Id: req-"},
        {"GET /stream HTTP/1.1\r\nX-Request-Id: mine", "", 200, "\r\nX-Request-Id: mine\r\n"},
        {"GET /none HTTP/1.1\r\nX-Request-Id: mine", "", 404, "\r\nX-Request-Id: mine\r\n"},
        {"PUT /metrics HTTP/1.1\r\nX-Request-Id: mine", "", 405, "\r\nX-Request-Id: mine\r\n"},
        {"OPTIONS /metrics HTTP/1.1\r\nX-Request-Id: mine", "", 204, "\r\nX-Request-Id: mine\r\n"},
        {"GET /metrics HTTP/1.1\r\nX-Request-Id: mine\r\nExpect: tea", "", 417,
         "\r\nX-Request-Id: mine\r\n"},
        {"no request", "", 400, "\r\nX-Request-Id: req-"},
    };
    char longest[512], longer[512];
    struct ask_case lengths[] = {{longest, "", 200, " tag=0000"}, {longer, "", 200, " tag=req-"}};
    (void)state;
    CHECK_CASES(cases, false);
    snprintf(longest, sizeof longest, "GET /metrics HTTP/1.1\r\nX-Request-Id: %0*d", HTTP_TAG_MAX,
             0);
    snprintf(longer, sizeof longer, "GET /metrics HTTP/1.1\r\nX-Request-Id: %0*d", HTTP_TAG_MAX + 1,
             0);
    CHECK_CASES(lengths, false);
}

#define POST "POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n"

/* A compressed body, or one in another charset, was "not valid JSON" and no word of why. */
static void test_bodies(void **state)
{
    static const struct ask_case cases[] = {
        {POST "Content-Type: application/json", "{}", 200, "body={}"},
        {POST "Content-Type: application/json; charset=utf-8", "{}", 200, NULL},
        {POST "Content-Type: application/json;charset=\"UTF-8\"", "{}", 200, NULL},
        {POST "Content-Type: text/plain; q=1; charset=utf8", "{}", 200, NULL},
        {POST "Content-Type: application/json; charset='utf-8'", "{}", 200, NULL},
        {POST "Content-Type: text/plain; charset=US-ASCII", "{}", 200, NULL},
        {POST "Content-Type: text/plain", "{}", 200, NULL},
        {POST "Content-Type:", "{}", 200, NULL},
        {POST "Content-Type: application/json; charset=", "{}", 200, NULL},
        {POST "Content-Type: application/x-www-form-urlencoded", "{}", 200, NULL},
        {POST "Content-Type: application/json; charset=utf-16", "{}", 415, "charset utf-16"},
        {POST "Content-Type: application/json; Charset=\"ISO-8859-1\"", "{}", 415,
         "charset ISO-8859-1"},
        {POST "Content-Encoding: identity", "{}", 200, NULL},
        {POST "Content-Encoding:", "{}", 200, NULL},
        {POST "Content-Encoding: gzip", "{}", 415, "\r\nAccept-Encoding: identity\r\n"},
        {POST "Content-Encoding: gzip", "{}", 415, "Content-Encoding gzip is not taken"},
        {POST "content-encoding: deflate", "{}", 415, "Content-Encoding deflate"},
        {POST "Content-Encoding: br", "{}", 415, "unsupported_media_type"},
        {POST "Content-Encoding: identity, zstd", "{}", 415, "Content-Encoding identity, zstd"},
        {POST "Content-Encoding: gzip\r\nExpect: 100-continue", "", 415, "HTTP/1.1 415"},
        {"GET /metrics HTTP/1.1\r\nContent-Encoding: gzip", "", 200, NULL},
        {"GET /metrics HTTP/1.1\r\nContent-Type: a; charset=utf-16", "", 200, NULL},
        {"GET /metrics HTTP/1.1\r\nAccept-Encoding: gzip, br\r\nAccept: text/html;q=0", "", 200,
         NULL},
    };
    (void)state;
    CHECK_CASES(cases, false);
}

/* HTTP/1.0: no chunks, and the close ends a stream. */
static void test_old_clients(void **state)
{
    static const struct ask_case cases[] = {
        {"GET /stream HTTP/1.0", "", 200, "\r\n\r\ndata: x\n\n"},
        {"GET /metrics HTTP/1.0", "", 200, "Connection: close\r\n"},
        {"GET http://x/metrics HTTP/1.0\r\nHost: x", "", 200, "[GET /metrics?"},
        {"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue", "{}",
         200, "body={}"},
    };
    (void)state;
    CHECK_CASES(cases, true);
}

/* A sentence that was cut in the middle of a character became "Bad Request". */
static void test_long_sentence(void **state)
{
    static const struct ask_case cases[] = {{"GET /fail HTTP/1.1", "", 400, "\xc3\xa4\xc3\xa4\","}};
    (void)state;
    CHECK_CASES(cases, false);
}

/* A TLS client at a plain port waited for ten seconds. The log has a line of it. */
static void test_tls_hello(void **state)
{
    static const char hello[] = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    struct site s;
    struct buf b;
    (void)state;
    site_start(&s);
    buf_init(&b, 4096);
    int fd = raw_connect(s.port);
    raw_send(fd, hello, 1); /* the first byte alone is not enough to know, and may come alone */
    struct pollfd nothing = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&nothing, 1, 50), 0);
    raw_send(fd, hello + 1, sizeof hello - 2);
    assert_true(raw_read_until(fd, &b, NULL));
    assert_int_equal(strncmp(b.data, "HTTP/1.1 400 ", 13), 0);
    assert_non_null(strstr(b.data, "use http://"));
    close(fd);
    buf_release(&b);
    loop_thread_stop(&s.thread);
    assert_string_equal(s.refused, "400 tls_on_plain_port 127.0.0.1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spellings),     cmocka_unit_test(test_whole_urls),
        cmocka_unit_test(test_keys),          cmocka_unit_test(test_tags),
        cmocka_unit_test(test_bodies),        cmocka_unit_test(test_old_clients),
        cmocka_unit_test(test_long_sentence), cmocka_unit_test(test_tls_hello),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
