/*
 * TLS through the server's seam (make_bufferevent) and the client's verification. The certificate
 * is made on the spot, for 127.0.0.1.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/clock.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "net_raw.h"

enum { CA_PATH_MAX = 64 };

struct site {
    struct loop *loop;
    struct http_server *server;
    SSL_CTX *ssl;
    char ca_path[CA_PATH_MAX];
    struct http_request *open;
    unsigned handled, closed;
};

static X509 *self_signed(EVP_PKEY *key)
{
    X509 *cert = X509_new();
    CHECK(cert && X509_set_version(cert, 2) && X509_set_pubkey(cert, key));
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_NAME *name = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"pdd test", -1, -1,
                               0);
    X509_set_issuer_name(cert, name);
    X509_EXTENSION *alt = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "IP:127.0.0.1");
    CHECK(alt && X509_add_ext(cert, alt, -1) && X509_sign(cert, key, EVP_sha256()));
    X509_EXTENSION_free(alt);
    return cert;
}

/* A client's file of certificates that holds this one only. */
static void write_certificate(X509 *cert, char path[CA_PATH_MAX])
{
    snprintf(path, CA_PATH_MAX, "/tmp/pdd_test_ca_XXXXXX");
    int fd = mkstemp(path);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
    CHECK(f && PEM_write_X509(f, cert) && fclose(f) == 0);
}

static void make_identity(struct site *s)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    CHECK(key);
    X509 *cert = self_signed(key);
    s->ssl = SSL_CTX_new(TLS_server_method());
    CHECK(s->ssl && SSL_CTX_use_certificate(s->ssl, cert) && SSL_CTX_use_PrivateKey(s->ssl, key));
    write_certificate(cert, s->ca_path);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static struct bufferevent *with_tls(struct event_base *base, int fd, void *arg)
{
    struct site *s = arg;
    SSL *ssl = SSL_new(s->ssl);
    struct bufferevent *bev =
        ssl ? bufferevent_openssl_socket_new(base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING,
                                             BEV_OPT_CLOSE_ON_FREE)
            : NULL;
    if (bev) bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    return bev;
}

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

static const struct http_route routes[] = {
    {"GET", "/health", hello}, {"GET", "/hello", hello}, {"GET", "/stream", stream}};

static int site_start(void **state)
{
    static struct site site;
    struct http_server_config config;
    site = (struct site){.loop = NULL};
    make_identity(&site);
    http_server_config_default(&config);
    config.make_bufferevent = with_tls;
    config.make_bufferevent_arg = &site;
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
    SSL_CTX_free(s->ssl);
    unlink(s->ca_path);
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
    char path[CA_PATH_MAX];
    EVP_PKEY *key = EVP_EC_gen("P-256");
    CHECK(key);
    X509 *cert = self_signed(key);
    write_certificate(cert, path);
    X509_free(cert);
    EVP_PKEY_free(key);
    struct http_client *c = client_for(s, path, "https");
    ask(s, c, "/hello", &seen);
    assert_int_equal(seen.err.code, ERR_NET);
    assert_non_null(strstr(seen.err.text, "certificate cannot be verified"));
    assert_int_equal(s->handled, 0);
    http_client_free(c);
    unlink(path);
}

/* Catches: plain HTTP to a TLS port, and the other way round, that hangs or is not explained. */
static void wrong_scheme(void **state)
{
    struct site *s = *state;
    struct seen seen;
    struct http_client *c = client_for(s, NULL, "http");
    ask(s, c, "/hello", &seen);
    assert_true(seen.err.code == ERR_NET || seen.err.code == ERR_PROTOCOL);
    http_client_free(c);
}

/* Catches: a warm spare that does not keep the TLS session, streams that do not flow, and a client
 * that leaves unseen behind TLS. */
static void verified(void **state)
{
    struct site *s = *state;
    struct seen seen = {.status = 0};
    struct http_call *call;
    struct http_client *c = client_for(s, s->ca_path, "https");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(unknown_certificate, site_start, site_stop),
        cmocka_unit_test_setup_teardown(wrong_scheme, site_start, site_stop),
        cmocka_unit_test_setup_teardown(verified, site_start, site_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
