/*
 * TLS of the server (net/tls.h) and the client's verification. Certificates are made on the spot,
 * for 127.0.0.1. Raw and hostile clients are test_http_tls_abuse's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "net/tls.h"
#include "proto/wire.h"
#include "support/net_raw.h"
#include "support/tls_files.h"

struct site {
    struct loop *loop;
    struct http_server *server;
    struct tls_files files;
    struct tls *tls;
    struct http_request *open;
    unsigned handled, closed;
};

static void left(void *arg)
{
    struct site *s = arg;
    s->closed++;
}

static void hello(struct http_request *r, void *arg)
{
    struct site *s = arg;
    s->handled++;
    http_reply_json(r, 200, "{}", 2);
}

static void stream(struct http_request *r, void *arg)
{
    struct site *s = arg;
    s->open = r;
    http_request_on_close(r, left, s);
    http_stream_begin(r, "text/event-stream");
    http_stream_send(r, "one", 3);
}

static const struct http_route routes[] = {{"GET", "/health", hello, NULL, 0, false},
                                           {"GET", "/hello", hello, NULL, 0, false},
                                           {"GET", "/stream", stream, NULL, 0, false}};

static int site_start(void **state)
{
    static struct site site;
    struct http_server_config config;
    site = (struct site){.loop = NULL};
    tls_files_make(TLS_FILES_ECDSA, &site.files);
    struct tls_identity identity = {site.files.cert, site.files.key};
    CHECK(tls_new(&identity, 1, &site.tls, NULL) == 0);
    http_server_config_default(&config);
    config.error_body = wire_error_body;
    config.make_bufferevent = tls_bufferevent;
    config.make_bufferevent_arg = site.tls;
    CHECK(loop_new(&site.loop, NULL) == 0);
    CHECK(http_server_new(site.loop, &config, routes, sizeof routes / sizeof *routes, &site,
                          &site.server, NULL) == 0);
    *state = &site;
    return 0;
}

static int site_stop(void **state)
{
    struct site *s = *state;
    http_server_free(s->server);
    loop_free(s->loop);
    tls_free(s->tls);
    tls_files_remove(&s->files);
    return 0;
}

struct seen {
    struct err err;
    int status;
    unsigned dones, pieces;
    bool reused;
};

static void on_body(void *arg, const char *data, size_t n)
{
    struct seen *s = arg;
    (void)data, (void)n;
    s->pieces++;
}

static void on_done(void *arg, const struct http_result *result)
{
    struct seen *s = arg;
    s->err = result->err;
    s->status = result->status;
    s->reused = result->reused;
    s->dones++;
}

static struct http_client *client_for(struct site *s, const char *ca_path, const char *scheme)
{
    struct http_client_config config;
    struct http_client *c;
    char url[64];
    snprintf(url, sizeof url, "%s://127.0.0.1:%u", scheme, http_server_port(s->server));
    http_client_config_default(&config);
    config.base_url = url;
    config.ca_file = ca_path;
    config.warm_path = ca_path ? "/health" : NULL;
    CHECK(http_client_new(s->loop, &config, &c, NULL) == 0);
    return c;
}

static void stop(void *arg)
{
    loop_stop(arg);
}

static void run_for(struct loop *l, uint64_t us)
{
    struct loop_timer *t;
    CHECK(loop_timer_new(l, stop, l, &t, NULL) == 0);
    loop_timer_set(t, clock_us() + us);
    CHECK(loop_run(l, NULL) == 0);
    loop_timer_free(t);
}

static void run_until(struct loop *l, const unsigned *value, unsigned least)
{
    for (int i = 0; i < RAW_WAIT_MS && *value < least; i++)
        run_for(l, 1000);
    assert_true(*value >= least);
}

static void ask(struct site *s, struct http_client *c, const char *path, struct seen *seen)
{
    struct http_call *call;
    struct http_call_spec spec = {
        .method = "GET", .path = path, .on_body = on_body, .on_done = on_done, .arg = seen};
    *seen = (struct seen){.status = 0};
    CHECK(http_call_start(c, &spec, &call, NULL) == 0);
    run_until(s->loop, &seen->dones, 1);
}

/* Catches: a certificate that nobody vouches for, accepted; here one of the same name, but of
 * another key, is trusted. (Not the system's certificates: a bare Debian has none.) */
static void unknown_certificate(void **state)
{
    struct site *s = *state;
    struct seen seen;
    struct tls_files other;
    tls_files_make(TLS_FILES_ECDSA, &other);
    struct http_client *c = client_for(s, other.cert, "https");
    ask(s, c, "/hello", &seen);
    assert_int_equal(seen.err.code, ERR_NET);
    assert_non_null(strstr(seen.err.text, "certificate cannot be verified"));
    assert_int_equal(s->handled, 0);
    http_client_free(c);
    tls_files_remove(&other);
}

/* Catches: plain HTTP to a TLS port that hangs or is not explained. */
static void wrong_scheme(void **state)
{
    struct site *s = *state;
    struct seen seen;
    struct http_client *c = client_for(s, NULL, "http");
    ask(s, c, "/hello", &seen);
    assert_int_equal(seen.status, 400);
    assert_int_equal(s->handled, 0);
    http_client_free(c);
}

/* Catches: a warm spare that does not keep the TLS session, streams that do not flow, and a client
 * that leaves unseen behind TLS. */
static void verified(void **state)
{
    struct site *s = *state;
    struct seen seen = {.status = 0};
    struct http_call *call;
    struct http_client *c = client_for(s, s->files.cert, "https");
    for (int i = 0; i < RAW_WAIT_MS && http_client_spares(c) == 0; i++)
        run_for(s->loop, 1000);
    ask(s, c, "/hello", &seen);
    assert_int_equal(seen.err.code, 0);
    assert_int_equal(seen.status, 200);
    assert_true(seen.reused);
    struct http_call_spec spec = {
        .method = "GET", .path = "/stream", .on_body = on_body, .on_done = on_done, .arg = &seen};
    CHECK(http_call_start(c, &spec, &call, NULL) == 0);
    run_until(s->loop, &seen.pieces, 2);
    http_stream_send(s->open, "two", 3);
    run_until(s->loop, &seen.pieces, 3);
    http_call_cancel(call);
    run_until(s->loop, &s->closed, 1);
    http_client_free(c);
}

/* Catches: a reload that breaks open connections, keeps the old certificate, or takes a bad one. */
static void reloaded(void **state)
{
    struct site *s = *state;
    struct seen seen = {.status = 0}, stream_seen = {.status = 0};
    struct http_call *call;
    struct tls_files first;
    struct err e = ERR_INIT;
    struct http_client *old = client_for(s, s->files.cert, "https");
    ask(s, old, "/hello", &seen); /* it has read its file of certificates */
    assert_int_equal(seen.status, 200);
    struct http_call_spec spec = {.method = "GET",
                                  .path = "/stream",
                                  .on_body = on_body,
                                  .on_done = on_done,
                                  .arg = &stream_seen};
    CHECK(http_call_start(old, &spec, &call, NULL) == 0);
    run_until(s->loop, &stream_seen.pieces, 1);
    first = s->files;
    tls_files_make(TLS_FILES_RSA, &s->files); /* a key that belongs to nothing here */
    CHECK(rename(s->files.key, first.key) == 0);
    assert_int_equal(tls_reload(s->tls, &e), ERR_BAD_INPUT);
    assert_non_null(strstr(e.text, first.key));
    ask(s, old, "/hello", &seen);
    assert_int_equal(seen.status, 200);
    tls_files_renew(TLS_FILES_RSA, &first);
    assert_int_equal(tls_reload(s->tls, &e), 0);
    http_stream_send(s->open, "two", 3);
    run_until(s->loop, &stream_seen.pieces, 2); /* what is open goes on */
    struct http_client *fresh = client_for(s, first.cert, "https");
    ask(s, fresh, "/hello", &seen);
    assert_int_equal(seen.err.code, 0);
    assert_int_equal(seen.status, 200);
    http_client_free(fresh);
    http_client_free(old);
    run_until(s->loop, &s->closed, 1);
    tls_files_remove(&s->files);
    s->files = first;
}

/* Catches: files that cannot be used, accepted, or refused without their name. */
static void bad_files(void **state)
{
    struct site *s = *state;
    struct tls *t = NULL;
    struct tls_files rsa;
    tls_files_make(TLS_FILES_RSA, &rsa);
    const struct {
        struct tls_identity identities[2];
        size_t n;
        const char *said;
    } cases[] = {
        {{{NULL, NULL}}, 0, "1 to 4"},
        {{{"/nowhere.pem", rsa.key}}, 1, "/nowhere.pem"},
        {{{rsa.cert, "/nowhere.key"}}, 1, "/nowhere.key"},
        {{{rsa.key, rsa.key}}, 1, rsa.key},
        {{{rsa.cert, rsa.cert}}, 1, rsa.cert},
        {{{rsa.cert, s->files.key}}, 1, s->files.key},
        {{{rsa.cert, rsa.key}, {rsa.cert, rsa.key}}, 2, "same kind of key"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e = ERR_INIT;
        assert_int_equal(tls_new(cases[i].identities, cases[i].n, &t, &e), ERR_BAD_INPUT);
        if (!strstr(e.text, cases[i].said)) fail_msg("case %zu: %s", i, e.text);
    }
    tls_free(NULL);
    tls_files_remove(&rsa);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(unknown_certificate, site_start, site_stop),
        cmocka_unit_test_setup_teardown(wrong_scheme, site_start, site_stop),
        cmocka_unit_test_setup_teardown(verified, site_start, site_stop),
        cmocka_unit_test_setup_teardown(reloaded, site_start, site_stop),
        cmocka_unit_test_setup_teardown(bad_files, site_start, site_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
