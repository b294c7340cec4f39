/*
 * TLS clients that are slow, rude, greedy or gone, byte by byte against the server; and what TLS
 * must offer to those that behave: both kinds of certificate, both versions, resumption, ALPN.
 *
 * Catches: work that goes on for a TLS client that left, memory without bound for one that does not
 * read, handshakes that hold a connection for ever, answers cut by a half-close.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "net/http_server.h"
#include "net/tls.h"
#include "proto/wire.h"
#include "support/net_raw.h"
#include "support/tls_files.h"

enum { BIG = 3 << 20, PIECE = 16384, CHURN = 150, NOISE = 60 };

struct site {
    struct loop_thread thread;
    struct http_server_config config;

    struct tls *tls;
    struct http_server *server;
    struct http_request *flooding;
    struct loop_timer *tick;
    uint16_t port;
    atomic_uint handled, closed, sent;
};

static void left(void *arg)
{
    struct site *s = arg;
    s->flooding = NULL;
    atomic_fetch_add(&s->closed, 1);
}

static void hello(struct http_request *r, void *arg)
{
    struct site *s = arg;
    atomic_fetch_add(&s->handled, 1);
    http_reply_json(r, 200, "{}", 2);
}

static void wait_for_ever(struct http_request *r, void *arg)
{
    struct site *s = arg;
    atomic_fetch_add(&s->handled, 1);
    http_request_on_close(r, left, s);
}

static void stream(struct http_request *r, void *arg)
{
    wait_for_ever(r, arg);
    http_stream_begin(r, "text/event-stream");
    http_stream_send(r, "one", 3);
}

static void big(struct http_request *r, void *arg)
{
    static char data[BIG];
    struct site *s = arg;
    memset(data, 'b', sizeof data);
    atomic_fetch_add(&s->handled, 1);
    http_reply(r, 200, "text/plain", data, sizeof data);
}

static void flood(struct http_request *r, void *arg)
{
    struct site *s = arg;
    s->flooding = r;
    stream(r, arg);
    loop_timer_set(s->tick, clock_us());
}

static void flood_on(void *arg)
{
    static const char piece[PIECE];
    struct site *s = arg;
    if (!s->flooding) return;
    atomic_fetch_add(&s->sent, 1);
    if (http_stream_send(s->flooding, piece, sizeof piece) == 0)
        loop_timer_set(s->tick, clock_us() + 100);
}

static const struct http_route routes[] = {
    {"GET", "/hello", hello, NULL, 0, false},   {"GET", "/wait", wait_for_ever, NULL, 0, false},
    {"GET", "/stream", stream, NULL, 0, false}, {"GET", "/big", big, NULL, 0, false},
    {"GET", "/flood", flood, NULL, 0, false},
};

static void prepare(struct loop *l, void *arg)
{
    struct site *s = arg;
    CHECK(http_server_new(l, &s->config, routes, sizeof routes / sizeof *routes, s, &s->server,
                          NULL) == 0);
    CHECK(loop_timer_new(l, flood_on, s, &s->tick, NULL) == 0);
    s->port = http_server_port(s->server);
}

static void clean(void *arg)
{
    struct site *s = arg;
    http_server_free(s->server);
    loop_timer_free(s->tick);
}

static struct tls_files files[2]; /* of all tests: making an RSA key takes a while */

static struct site *site_new(void)
{
    struct site *s = mem_calloc(1, sizeof *s);
    CHECK(s);
    const struct tls_identity identities[2] = {{files[0].cert, files[0].key},
                                               {files[1].cert, files[1].key}};
    CHECK(tls_new(identities, 2, &s->tls, NULL) == 0);
    http_server_config_default(&s->config);
    s->config.error_body = wire_error_body;
    s->config.make_bufferevent = tls_bufferevent;
    s->config.make_bufferevent_arg = s->tls;
    s->thread = (struct loop_thread){.prepare = prepare, .clean = clean, .arg = s};
    return s;
}

static struct site *site_start(struct site *s)
{
    loop_thread_start(&s->thread);
    return s;
}

/* ---- a client ---- */

struct client {
    int fd;
    SSL_CTX *context;
    SSL *ssl;
};

static void client_new(struct client *c, const struct site *s)
{
    c->fd = raw_connect(s->port);
    c->context = SSL_CTX_new(TLS_client_method());
    CHECK(c->context && SSL_CTX_load_verify_locations(c->context, files[0].cert, NULL) &&
          SSL_CTX_load_verify_locations(c->context, files[1].cert, NULL));
    SSL_CTX_set_verify(c->context, SSL_VERIFY_PEER, NULL);
    c->ssl = SSL_new(c->context);
    CHECK(c->ssl && SSL_set_fd(c->ssl, c->fd));
}

static void client_open(struct client *c, const struct site *s)
{
    client_new(c, s);
    assert_int_equal(SSL_connect(c->ssl), 1);
}

static void client_close(struct client *c)
{
    SSL_free(c->ssl);
    SSL_CTX_free(c->context);
    if (c->fd >= 0) close(c->fd);
    ERR_clear_error();
}

static void ask(struct client *c, const char *path, const char *more)
{
    char text[256];
    int n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", path, more);
    assert_int_equal(SSL_write(c->ssl, text, n), n);
}

/* Read until `until` has been seen, or the end; false: the end, `clean_end` says whether in TLS. */
static bool read_until(struct client *c, struct buf *b, const char *until, bool *ret_clean)
{
    static char piece[PIECE];
    while (!until || !strstr(b->data, until)) {
        int n = SSL_read(c->ssl, piece, sizeof piece);
        if (n <= 0) {
            *ret_clean = SSL_get_error(c->ssl, n) == SSL_ERROR_ZERO_RETURN;
            return false;
        }
        CHECK(buf_append(b, piece, (size_t)n) == 0);
    }
    return true;
}

static void expect(struct client *c, const char *said)
{
    struct buf b;
    bool end;
    buf_init(&b, RAW_MAX);
    if (!read_until(c, &b, said, &end)) fail_msg("no %s in: %s", said, b.data);
    buf_release(&b);
}

static void wait_until(atomic_uint *counter, unsigned value)
{
    for (int i = 0; i < RAW_WAIT_MS && atomic_load(counter) < value; i++)
        clock_sleep_us(1000);
    assert_true(atomic_load(counter) >= value);
}

/* An honest client is served, and then nobody is left. */
static void site_stop(struct site *s)
{
    struct client c;
    client_open(&c, s);
    ask(&c, "/hello", "Connection: close\r\n");
    expect(&c, "\r\n\r\n{}");
    client_close(&c);
    loop_thread_stop(&s->thread);
    tls_free(s->tls);
    mem_free(s);
}

/* ---- those who behave ---- */

static void both_kinds_both_versions(void **state)
{
    struct site *s = site_start(site_new());
    static const struct {
        int version;
        const char *algorithms;
        int kind;
    } cases[] = {{TLS1_2_VERSION, "ECDSA+SHA256", EVP_PKEY_EC},
                 {TLS1_2_VERSION, "RSA-PSS+SHA256:RSA+SHA256", EVP_PKEY_RSA},
                 {TLS1_3_VERSION, "ECDSA+SHA256", EVP_PKEY_EC},
                 {TLS1_3_VERSION, "RSA-PSS+SHA256", EVP_PKEY_RSA}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct client c;
        client_new(&c, s);
        CHECK(SSL_set_min_proto_version(c.ssl, cases[i].version) &&
              SSL_set_max_proto_version(c.ssl, cases[i].version) &&
              SSL_set1_sigalgs_list(c.ssl, cases[i].algorithms));
        assert_int_equal(SSL_connect(c.ssl), 1);
        assert_int_equal(EVP_PKEY_get_base_id(X509_get0_pubkey(SSL_get0_peer_certificate(c.ssl))),
                         cases[i].kind);
        ask(&c, "/hello", "");
        expect(&c, "\r\n\r\n{}");
        ask(&c, "/hello", ""); /* kept alive */
        expect(&c, "\r\n\r\n{}");
        SSL_SESSION *session = SSL_get1_session(c.ssl);
        SSL_CTX *context = c.context;
        SSL_CTX_up_ref(context);
        SSL_shutdown(c.ssl); /* or OpenSSL would not resume it */
        client_close(&c);
        assert_int_equal(tls_reload(s->tls, NULL), 0); /* the loop is idle: nobody connects */
        c.fd = raw_connect(s->port);
        c.context = context;
        c.ssl = SSL_new(context);
        CHECK(c.ssl && SSL_set_fd(c.ssl, c.fd) && SSL_set_session(c.ssl, session) &&
              SSL_set_max_proto_version(c.ssl, cases[i].version));
        assert_int_equal(SSL_connect(c.ssl), 1);
        assert_true(SSL_session_reused(c.ssl));
        SSL_SESSION_free(session);
        client_close(&c);
    }
    site_stop(s);
}

static void protocols_and_old_versions(void **state)
{
    struct site *s = site_start(site_new());
    static const struct {
        const char *offer; /* ALPN: lengths and names */
        unsigned n;
        bool good;
    } cases[] = {{"\x08http/1.1", 9, true},
                 {"\x02h2\x08http/1.1", 12, true},
                 {"\x02h2", 3, false},
                 {"\x08http/1.0", 9, false}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct client c;
        const unsigned char *name;
        unsigned len;
        client_new(&c, s);
        CHECK(SSL_set_alpn_protos(c.ssl, (const unsigned char *)cases[i].offer, cases[i].n) == 0);
        assert_int_equal(SSL_connect(c.ssl) == 1, cases[i].good);
        SSL_get0_alpn_selected(c.ssl, &name, &len);
        assert_int_equal(len, cases[i].good ? 8 : 0);
        client_close(&c);
    }
    struct client old;
    client_new(&old, s);
    SSL_set_security_level(old.ssl, 0);
    CHECK(SSL_set_min_proto_version(old.ssl, TLS1_VERSION) &&
          SSL_set_max_proto_version(old.ssl, TLS1_1_VERSION));
    assert_int_not_equal(SSL_connect(old.ssl), 1);
    client_close(&old);
    site_stop(s);
}

/* The last answer of a connection ends in TLS too: nobody could have cut it. */
static void clean_end(void **state)
{
    struct site *s = site_start(site_new());
    struct client c;
    struct buf b;
    bool clean_tls = false;
    (void)state;
    buf_init(&b, RAW_MAX);
    client_open(&c, s);
    ask(&c, "/hello", "Connection: close\r\n");
    assert_false(read_until(&c, &b, NULL, &clean_tls));
    assert_true(clean_tls);
    client_close(&c);
    buf_release(&b);
    site_stop(s);
}

/* A client that says in TLS that it will send no more, behind its request, has the whole answer
 * when that was complete by then; and one that is not yet has left. */
static void half_close(void **state)
{
    struct site *s = site_start(site_new());
    struct client c;
    struct buf b;
    bool end;
    (void)state;
    buf_init(&b, RAW_MAX);
    client_open(&c, s);
    ask(&c, "/big", "");
    wait_until(&s->handled, 1);
    SSL_shutdown(c.ssl);
    assert_false(read_until(&c, &b, NULL, &end));
    const char *body = strstr(b.data, "\r\n\r\n");
    assert_non_null(body);
    assert_int_equal(b.len - (size_t)(body + 4 - b.data), BIG);
    client_close(&c);
    buf_release(&b);
    site_stop(s);
}

/* ---- those who do not ---- */

static void leave(struct client *c, int how)
{
    struct linger reset = {1, 0};
    switch (how) {
    case 0: /* as one should */
        SSL_shutdown(c->ssl);
        break;
    case 1: /* closed without a word in TLS */
        break;
    case 2:
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        break;
    case 3: /* half, in TLS */
        SSL_shutdown(c->ssl);
        return;
    default: /* half, in TCP */
        shutdown(c->fd, SHUT_WR);
        return;
    }
    close(c->fd);
    c->fd = -1;
}

/* Leaving is seen, before the answer and in it, whichever way. */
static void leaving(void **state)
{
    struct site *s = site_start(site_new());
    unsigned n = 0;
    (void)state;
    for (int how = 0; how < 5; how++)
        for (int streaming = 0; streaming < 2; streaming++) {
            struct client c;
            client_open(&c, s);
            ask(&c, streaming ? "/stream" : "/wait", "");
            if (streaming) expect(&c, "one");
            wait_until(&s->handled, ++n);
            leave(&c, how);
            wait_until(&s->closed, n);
            client_close(&c);
        }
    site_stop(s);
}

static void never_reads(void **state)
{
    struct site *s = site_new();
    struct client c;
    (void)state;
    s->config.output_max = 200000;
    site_start(s);
    client_open(&c, s);
    ask(&c, "/flood", "");
    wait_until(&s->closed, 1);
    /* What the kernel holds, and output_max beyond it: not what was there to send. */
    assert_true(atomic_load(&s->sent) * (unsigned)PIECE < 64 << 20);
    client_close(&c);
    site_stop(s);
}

/* No handshake, half of one, one byte after the other; then a slow head inside TLS. */
static void slowloris(void **state)
{
    static const unsigned char hello_start[] = {0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00};
    struct site *s = site_new();
    struct client c;
    struct buf b;
    char byte;
    (void)state;
    s->config.head_timeout_us = 1000000; /* a busy machine needs some of it for a handshake */
    site_start(s);
    for (size_t sent = 0; sent <= sizeof hello_start; sent += sizeof hello_start) {
        int fd = raw_connect(s->port);
        raw_send(fd, (const char *)hello_start, sent);
        assert_true(raw_readable(fd, RAW_WAIT_MS));
        assert_true(recv(fd, &byte, 1, 0) <= 0);
        close(fd);
    }
    int fd = raw_connect(s->port); /* the deadline does not move with each byte */
    raw_send(fd, (const char *)hello_start, sizeof hello_start);
    while (!raw_readable(fd, 20) && raw_send(fd, "\1", 1))
        ;
    close(fd);
    buf_init(&b, RAW_MAX);
    client_open(&c, s);
    SSL_write(c.ssl, "GET /hello HT", 13);
    expect(&c, "HTTP/1.1 408 ");
    client_close(&c);
    buf_release(&b);
    site_stop(s);
}

/* Bytes that are no TLS, and plain HTTP, on the port; handshakes that are left at random. */
static void noise_and_churn(void **state)
{
    struct site *s = site_start(site_new());
    struct rng rng;
    struct buf b;
    (void)state;
    rng_init(&rng, 11, 0);
    for (int i = 0; i < NOISE; i++) {
        char noise[512];
        size_t n = rng_below(&rng, sizeof noise) + 1;
        rng_fill(11, 1, (uint64_t)i * 64, noise, n);
        if (i % 2) noise[0] = 0x16;
        int fd = raw_connect(s->port);
        raw_send(fd, noise, n);
        shutdown(fd, SHUT_WR);
        buf_init(&b, RAW_MAX);
        (void)raw_read_until(fd, &b, NULL);
        buf_release(&b);
        close(fd);
    }
    static const char *const methods[] = {"GET", "POST", "HEAD", "OPTIONS", "PATCH", "DELETE"};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        char request[64];
        snprintf(request, sizeof request, "%s /hello HTTP/1.1\r\nHost: x\r\n\r\n", methods[i]);
        raw_ask(s->port, request, &b);
        assert_non_null(strstr(b.data, "HTTP/1.1 400 "));
        assert_non_null(strstr(b.data, "use https://"));
        buf_release(&b);
    }
    for (int i = 0; i < CHURN; i++) {
        struct client c;
        if (i % 3 == 0) {
            client_open(&c, s);
            ask(&c, i % 2 ? "/stream" : "/big", "");
        } else {
            client_new(&c, s);
            SSL_set_connect_state(c.ssl);
            BIO *memory = BIO_new(BIO_s_mem());
            SSL_set0_wbio(c.ssl, memory);
            SSL_set0_rbio(c.ssl, BIO_new(BIO_s_mem()));
            SSL_do_handshake(c.ssl); /* the ClientHello goes into memory; some of it is sent */
            char *data;
            long n = BIO_get_mem_data(memory, &data);
            raw_send(c.fd, data, (size_t)rng_below(&rng, (uint32_t)n + 1));
        }
        leave(&c, i % 3 == 0 ? (int)rng_below(&rng, 3) : 1 + (int)rng_below(&rng, 2));
        client_close(&c);
    }
    site_stop(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_kinds_both_versions),
        cmocka_unit_test(protocols_and_old_versions),
        cmocka_unit_test(clean_end),
        cmocka_unit_test(half_close),
        cmocka_unit_test(leaving),
        cmocka_unit_test(never_reads),
        cmocka_unit_test(slowloris),
        cmocka_unit_test(noise_and_churn),
    };
    signal(SIGPIPE, SIG_IGN);
    tls_files_make(TLS_FILES_ECDSA, &files[0]);
    tls_files_make(TLS_FILES_RSA, &files[1]);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tls_files_remove(&files[0]);
    tls_files_remove(&files[1]);
    return failed;
}
