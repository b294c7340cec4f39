/*
 * test_http_url: base URLs as people write them, the proxy that the environment names, and which of
 * the files of CA certificates that systems have is there.
 *
 * Catches: a base URL of OpenAI's API that asks for /v1/v1/...; a host without a scheme that is
 * guessed, or refused where it can only mean one; a proxy that is passed over, that is asked about
 * this machine, or that sees the server's key; a file that is there and not found, or taken
 * although the first one is there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "net/http_ca.h"
#include "net/http_client.h"
#include "net/http_url.h"
#include "support/net_raw.h"

static void bases(void **state)
{
    static const struct {
        const char *url, *base; /* base NULL: refused, with `sentence` */
        const char *sentence;
    } cases[] = {
        {"http://host:8080", "http://host:8080", NULL},
        {"http://host:8080/", "http://host:8080", NULL},
        {"http://host:8080/v1", "http://host:8080", NULL},
        {"http://host:8080/v1/", "http://host:8080", NULL},
        {"http://host:8080///v1///", "http://host:8080", NULL},
        {"https://host/prefix/v1", "https://host/prefix", NULL},
        {"https://host/prefix/v1/other", "https://host/prefix/v1/other", NULL},
        {"https://host/v1/v1", "https://host", NULL},
        {"https://host/v1//v1/", "https://host", NULL},
        {"https://host/a/v1/v1", "https://host/a", NULL},
        {"https://host/openai-v1", "https://host/openai-v1", NULL},
        {"http://v1", "http://v1", NULL},
        {"http://v1/v1/", "http://v1", NULL},
        {"http://[::1]:8080/v1", "http://[::1]:8080", NULL},
        {"http://[fd00::7]:8080", "http://[fd00::7]:8080", NULL},
        {"localhost:8080/v1", "http://localhost:8080", NULL},
        {"LocalHost", "http://LocalHost", NULL},
        {"127.0.0.1:8080", "http://127.0.0.1:8080", NULL},
        {"127.9.9.9/prefix/", "http://127.9.9.9/prefix", NULL},
        {"[::1]:8080/v1/", "http://[::1]:8080", NULL},
        {"host:8080", NULL, "'host:8080' lacks its scheme: write https://host:8080"},
        {"[fd00::7]:8080", NULL, "lacks its scheme"},
        {"10.0.0.1", NULL, "lacks its scheme"},
        {"http://::1:8080", NULL, "in brackets"},
        {"::1", NULL, "is not a URL"},
        {"", NULL, "is not a URL"},
        {"http://", NULL, "is not a URL"},
        {"ftp://host", NULL, "is not a URL"},
        {"user@localhost:80", NULL, "is not a URL"},
        {"http://host/v1?key=1", NULL, "without user, query"},
        {"http://host:99999/v1", NULL, "is not a URL"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char base[HTTP_URL_MAX] = "";
        struct err e = ERR_INIT;
        int code = http_url_base(cases[i].url, base, sizeof base, &e);
        if (cases[i].base ? code || strcmp(base, cases[i].base) != 0
                          : code != ERR_BAD_INPUT || !strstr(e.text, cases[i].sentence))
            fail_msg("%s: code %d, '%s', %s", cases[i].url, code, base, e.text);
    }
    char small[16];
    assert_int_equal(http_url_base("http://a.long.name.of.a.host", small, sizeof small, NULL),
                     ERR_LIMIT);
}

static void this_machine(void **state)
{
    static const char *const local[] = {
        "http://localhost",     "https://LOCALHOST:1/x",    "http://a.localhost",
        "http://localhost.:80", "http://127.0.0.1",         "http://127.255.0.9:80",
        "http://[::1]:8080",    "http://[0:0:0:0:0:0:0:1]", "http://[::ffff:127.0.0.1]"};
    static const char *const other[] = {"http://localhost.example", "http://128.0.0.1",
                                        "http://[::2]", "http://0.0.0.0", "no url"};
    (void)state;
    for (size_t i = 0; i < sizeof local / sizeof *local; i++)
        if (!http_url_is_local(local[i])) fail_msg("%s", local[i]);
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        if (http_url_is_local(other[i])) fail_msg("%s", other[i]);
}

/* A server of one request: what it was asked, and one response. */
struct one {
    int listener;
    uint16_t port;
    const char *response;
    struct buf request;
    pthread_t thread;
};

static void *one_main(void *arg)
{
    struct one *s = arg;
    int fd = accept(s->listener, NULL, NULL);
    if (fd < 0) return NULL; /* nobody came: see one_stop */
    raw_read_until(fd, &s->request, "\r\n\r\n");
    raw_puts(fd, s->response);
    close(fd);
    return NULL;
}

static void one_start(struct one *s, const char *response)
{
    *s = (struct one){.response = response};
    buf_init(&s->request, RAW_MAX);
    s->listener = raw_listen(&s->port);
    CHECK(pthread_create(&s->thread, NULL, one_main, s) == 0);
}

static void one_stop(struct one *s)
{
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->listener);
}

struct seen {
    struct loop *loop;
    struct err err;
    int status;
};

static void on_done(void *arg, const struct http_result *result)
{
    struct seen *s = arg;
    s->err = result->err;
    s->status = result->status;
    loop_stop(s->loop);
}

/* GET PATH of the server at `url`, with a key. */
static void ask(const char *url, struct seen *s)
{
    struct http_client_config config;
    struct http_client *c;
    struct http_call *call;
    struct http_call_spec spec = {
        .method = "GET", .path = "/v1/models", .collect = true, .on_done = on_done, .arg = s};
    *s = (struct seen){0};
    CHECK(loop_new(&s->loop, NULL) == 0);
    http_client_config_default(&config);
    config.base_url = url;
    config.bearer = "k3y";
    config.warm_path = NULL;
    config.connect_timeout_us = 1000000;
    CHECK(http_client_new(s->loop, &config, &c, NULL) == 0);
    CHECK(http_call_start(c, &spec, &call, NULL) == 0);
    CHECK(loop_run(s->loop, NULL) == 0);
    http_client_free(c);
    loop_free(s->loop);
}

static void set_proxies(const char *name, uint16_t port, const char *none)
{
    static const char *const names[] = {"http_proxy",  "https_proxy", "all_proxy", "no_proxy",
                                        "HTTPS_PROXY", "ALL_PROXY",   "NO_PROXY"};
    char url[64];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
    if (port == 0) return;
    snprintf(url, sizeof url, "http://127.0.0.1:%u", port);
    setenv(name, url, 1);
    if (none) setenv("no_proxy", none, 1);
}

/* Of an address that is nobody's: unreachable, refused or silent, as the machine has it. */
#define ANY_FAILURE 1

#define NO_BODY "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

/* The names below .invalid cannot be resolved: only a proxy reaches them. */
static void proxies(void **state)
{
    static const struct {
        const char *name, *none, *url, *response, *request; /* request NULL: not asked */
        int code, status;
    } cases[] = {
        {"http_proxy", NULL, "http://cloud.invalid:8080/v1", NO_BODY,
         "GET http://cloud.invalid:8080/v1/models HTTP/1.1\r\n", 0, 200},
        {"all_proxy", NULL, "http://cloud.invalid", NO_BODY,
         "GET http://cloud.invalid/v1/models HTTP/1.1\r\n", 0, 200},
        {"https_proxy", NULL, "https://cloud.invalid", "HTTP/1.1 200 OK\r\n\r\n",
         "CONNECT cloud.invalid:443 HTTP/1.1\r\n", ERR_NET, 0},
        {"https_proxy", NULL, "https://cloud.invalid",
         "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
         "CONNECT cloud.invalid:443 HTTP/1.1\r\n", ERR_NET, 0},
        {"https_proxy", NULL, "http://cloud.invalid", NO_BODY, NULL, ERR_NET, 0},
        {"http_proxy", "cloud.invalid", "http://cloud.invalid", NO_BODY, NULL, ERR_NET, 0},
        {"http_proxy", "*", "http://cloud.invalid", NO_BODY, NULL, ERR_NET, 0},
        {"http_proxy", "x.example,.invalid", "http://cloud.invalid", NO_BODY, NULL, ERR_NET, 0},
        {"http_proxy", "invalid", "http://cloud.invalid", NO_BODY, NULL, ERR_NET, 0},
        {"http_proxy", "loud.invalid", "http://cloud.invalid", NO_BODY,
         "GET http://cloud.invalid/v1/models HTTP/1.1\r\n", 0, 200},
        {"http_proxy", "192.0.3.0/24", "http://192.0.2.1", NO_BODY,
         "GET http://192.0.2.1/v1/models HTTP/1.1\r\n", 0, 200},
        {"http_proxy", "192.0.2.0/24", "http://192.0.2.1", NO_BODY, NULL, ANY_FAILURE, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct one proxy;
        struct seen s;
        one_start(&proxy, cases[i].response);
        set_proxies(cases[i].name, proxy.port, cases[i].none);
        ask(cases[i].url, &s);
        one_stop(&proxy);
        const char *wanted = cases[i].request, *got = proxy.request.len ? proxy.request.data : "";
        bool failed = cases[i].code == ANY_FAILURE && s.err.code;
        if ((s.err.code != cases[i].code && !failed) || s.status != cases[i].status ||
            (wanted ? strncmp(got, wanted, strlen(wanted)) != 0 : *got != 0))
            fail_msg("case %zu: code %d status %d '%s': %s", i, s.err.code, s.status, got,
                     s.err.text);
        if (strncmp(got, "CONNECT", 7) == 0) assert_null(strstr(got, "k3y"));
        buf_release(&proxy.request);
    }
    set_proxies(NULL, 0, NULL);
}

/* Catches: a proxy's refusal that reads as a connection that was cut. */
static void proxy_refuses(void **state)
{
    static const struct {
        const char *response, *said;
    } cases[] = {
        {"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
         "the proxy that the environment gives answered 407 (it wants a user name"},
        {"HTTP/1.1 302 No\r\nLocation: http://hotel/\r\nContent-Length: 0\r\n\r\n",
         "answered 302 (the network asks for a log-in page)"},
        {"HTTP/1.1 511 No\r\nContent-Length: 0\r\n\r\n",
         "answered 511 (the network asks for a log-in page)"},
        {"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "environment gives answered 403"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct one proxy;
        struct seen s;
        one_start(&proxy, cases[i].response);
        set_proxies("https_proxy", proxy.port, NULL);
        ask("https://cloud.invalid", &s);
        one_stop(&proxy);
        buf_release(&proxy.request);
        if (s.err.code != ERR_NET || !strstr(s.err.text, cases[i].said))
            fail_msg("case %zu: %s", i, s.err.text);
    }
    set_proxies(NULL, 0, NULL);
}

/* Whatever the environment says, nothing of this machine goes to a proxy. */
static void never_for_this_machine(void **state)
{
    static const char *const hosts[] = {"127.0.0.1", "localhost"};
    (void)state;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        struct one proxy, server;
        struct seen s;
        char url[64];
        one_start(&proxy, NO_BODY);
        one_start(&server, NO_BODY);
        snprintf(url, sizeof url, "http://%s:%u/v1", hosts[i], server.port);
        set_proxies("http_proxy", proxy.port, NULL);
        ask(url, &s);
        one_stop(&proxy);
        one_stop(&server);
        assert_int_equal(s.status, 200);
        assert_int_equal(proxy.request.len, 0);
        buf_release(&proxy.request);
        buf_release(&server.request);
    }
    set_proxies(NULL, 0, NULL);
}

static void finds_certificates(void **state)
{
    static const char *const others[] = {"/nowhere/a", "/dev/null", "/dev/zero", NULL};
    static const char *const none[] = {"/nowhere/a", NULL};
    (void)state;
    assert_string_equal(http_ca_find("/dev/zero", others), "/dev/zero");
    assert_string_equal(http_ca_find("/nowhere/b", others), "/dev/null");
    assert_string_equal(http_ca_find(NULL, others), "/dev/null");
    assert_null(http_ca_find("/nowhere/b", none));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bases),         cmocka_unit_test(finds_certificates),
        cmocka_unit_test(this_machine),  cmocka_unit_test(proxies),
        cmocka_unit_test(proxy_refuses), cmocka_unit_test(never_for_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
