/*
 * test_serve_clients: what clients of `pdd device`, the networks between and the other programs of
 * the machine do, over real sockets.
 *
 * Catches: a stream that is silent while its question is held, waits or is read; a model that is
 * asked for by another name and refused; a page of another program that counts as ours; a program
 * that allows its own question; a question that is sent though it cannot be put on record, or that
 * waits for a yes again because its cloud's URL is written in another way.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "base/clock.h"
#include "support/serve_site.h"

static const char question[] = "\"messages\":[{\"role\":\"user\",\"content\":\"Where did the old "
                               "sailor leave the brass lantern?\"}],\"temperature\":0";

static struct serve_site site;

static int begin_stream(const char *more, const char *until, struct buf *b)
{
    char body[512];
    int fd = raw_connect(site.port);
    snprintf(body, sizeof body, "{%s,\"stream\":true%s}", question, more);
    serve_site_send(fd, "POST", "/v1/chat/completions", "", body);
    buf_init(b, RAW_MAX);
    assert_true(raw_read_until(fd, b, until));
    return fd;
}

/* Nothing was sent while a question was held, waited or was read: proxies close such streams.
 * Comments come, with the head; the answer is whole, or an error in the stream. */
static void test_signs_of_life(void **state)
{
    enum { HELD, WAITS, READS, CASES };
    static const char sign[] = ": keep-alive\n\n";
    (void)state;
    for (int i = 0; i < 2 * CASES; i++) {
        int which = i % CASES, other = -1;
        bool completion = i >= CASES;
        struct buf a, b;
        struct cloud_fixture *cloud = which == HELD ? serve_site_with_cloud(&site, 20) : NULL;
        if (which != HELD) serve_site_defaults(&site);
        site.config.quiet_us = 20000;
        site.config.ask_before_sending = which == HELD;
        site.config.answers_max = 1;
        site.fake.prefill_us_per_token = which == READS ? 20000.0 : 0.0;
        site.fake.step_us = which == WAITS ? 5000.0 : 0.0;
        serve_site_start(&site);
        if (which == WAITS) other = begin_stream(",\"max_tokens\":2000", "\"index\":3,", &a);
        int fd = raw_connect(site.port);
        char body[300];
        snprintf(body, sizeof body, "{%s,\"stream\":true,\"pdd\":{\"id\":\"x\"}}",
                 completion ? "\"prompt\":\"Where did the old sailor leave it, and why?\""
                            : question);
        serve_site_send(fd, "POST", completion ? "/v1/completions" : "/v1/chat/completions", "",
                        body);
        buf_init(&b, RAW_MAX);
        for (int k = 0; k < 2; k++) { /* the second one is not in the same place */
            assert_true(raw_read_until(fd, &b, sign));
            strstr(b.data, sign)[2] = 'K';
        }
        if (which == HELD) assert_int_equal(serve_site_say(&site, "x", true), 200);
        if (which == WAITS) close(other);
        assert_true(raw_read_until(fd, &b, "[DONE]"));
        assert_non_null(strstr(b.data, "X-PDD-Answer: x\r\n"));
        assert_ptr_equal(strstr(b.data + 1, "HTTP/1.1"), NULL);
        assert_int_equal(strstr(b.data, "\"role\":\"assistant\"") != NULL, !completion);
        if (!strstr(b.data, "\"reason\":\"stop\"")) fail_msg("case %d: %s", i, b.data);
        if (which == WAITS) buf_release(&a);
        buf_release(&b);
        close(fd);
        serve_site_stop(&site);
        if (cloud) cloud_fixture_stop(cloud);
    }
}

/* llama-server's extras come to those who ask, and to no one else. */
static void test_extras(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) { /* each with an empty KV cache */
        serve_site_defaults(&site);
        site.fake.prefill_us_per_token = 500.0;
        serve_site_start(&site);
        bool stream = i & 1, asked = i & 2;
        struct buf b;
        char body[400];
        snprintf(body, sizeof body, "{%s,\"pdd\":{\"id\":\"x\"}%s%s}", question,
                 stream ? ",\"stream\":true" : "",
                 asked ? ",\"timings_per_token\":true,\"return_progress\":true" : "");
        assert_int_equal(serve_site_ask(&site, "POST", "/v1/chat/completions", "", body, &b), 200);
        const char *timings = strstr(b.data, "\"timings\":{");
        const char *progress = strstr(b.data, "\"prompt_progress\":{\"total\":");
        assert_int_equal(timings != NULL, asked);
        assert_int_equal(progress != NULL, asked && stream);
        if (asked) assert_non_null(strstr(timings, "\"predicted_n\":20,"));
        buf_release(&b);
        assert_int_equal(serve_site_ask(&site, "GET", "/v1/answers/x",
                                        "Accept: Application/JSON, Text/Event-Stream\r\n", "", &b),
                         200);
        assert_non_null(strstr(b.data, "Content-Type: text/event-stream\r\n"));
        buf_release(&b);
        serve_site_stop(&site);
    }
}

/* By an alias the model here answers; "*" is any name. */
static void test_aliases(void **state)
{
    struct err e = ERR_INIT;
    struct buf b;
    (void)state;
    for (int any = 0; any < 2; any++) {
        serve_site_defaults(&site);
        assert_int_equal(model_names_add(&site.config.names, any ? "*" : "gpt-4", &e), 0);
        serve_site_start(&site);
        for (int other = 0; other < 2; other++) {
            char body[300];
            snprintf(body, sizeof body, "{%s,\"max_tokens\":2,\"model\":\"%s\"}", question,
                     other ? "gpt-5" : "gpt-4");
            serve_site_expect(&site, other && !any ? 404 : 200, "POST", "/v1/chat/completions", "",
                              body);
            serve_site_expect(&site, other && !any ? 404 : 200, "GET",
                              other ? "/models/gpt-5" : "/models/gpt-4", "", "");
        }
        assert_int_equal(serve_site_ask(&site, "GET", "/v1/models", "", "", &b), 200);
        assert_int_equal(strstr(b.data, "{\"id\":\"gpt-4\",") != NULL, !any);
        assert_null(strstr(b.data, "\"*\""));
        buf_release(&b);
        serve_site_stop(&site);
    }
}

/* A page of another program of this machine, on a loopback address of its own and our port number,
 * is not ours: 127.0.0.2 was. */
static void test_own_pages(void **state)
{
    static const struct {
        const char *origin, *host;
        int status;
    } cases[] = {
        {"http://127.0.0.1:%u", "127.0.0.1:%u", 200}, {"http://localhost:%u", "localhost:%u", 200},
        {"HTTP://LocalHost:%u", "localhost", 200},    {"http://[::1]:%u", "[::1]:%u", 200},
        {"http://127.0.0.2:%u", "127.0.0.2:%u", 200}, {"http://127.0.0.2:%u", "127.0.0.1:%u", 403},
        {"http://localhost:%u", "127.0.0.1:%u", 403}, {"http://127.0.0.1:%u", "localhost:%u", 403},
        {"http://[::1]:%u", "127.0.0.1:%u", 403},     {"https://127.0.0.1:%u", "127.0.0.1:%u", 403},
        {"http://127.0.0.1:1%u", "127.0.0.1:%u", 403}};
    (void)state;
    serve_site_defaults(&site);
    serve_site_start(&site);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char origin[64], host[64], headers[256];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(origin, sizeof origin, cases[i].origin, site.port);
        snprintf(host, sizeof host, cases[i].host, site.port);
#pragma GCC diagnostic pop
        snprintf(headers, sizeof headers, "Host: %s\r\nOrigin: %s\r\n", host, origin);
        serve_site_expect(&site, cases[i].status, "GET", "/health", headers, "");
    }
    serve_site_stop(&site);
}

/* Whoever reaches the port can ask; a yes to it needs the code that the program printed. */
static void test_own_word(void **state)
{
    static const char yes[] = "{\"send\":true}";
    char wrong[128], code[2 * SERVE_APPROVAL_BYTES + 1];
    struct buf b;
    (void)state;
    struct cloud_fixture *cloud = serve_site_with_cloud(&site, 20);
    site.config.ask_before_sending = true;
    serve_site_start(&site);
    int fd = begin_stream(",\"pdd\":{\"id\":\"x\",\"progress\":true,\"mode\":\"cloud\"}",
                          "\"state\":\"held\"", &b);
    snprintf(code, sizeof code, "%s", serve_approval(site.serve));
    assert_int_equal(strspn(code, "0123456789abcdef"), sizeof code - 1);
    code[3] ^= 1;
    snprintf(wrong, sizeof wrong, "X-PDD-Approval: %s\r\n", code);
    serve_site_expect(&site, 403, "POST", "/v1/answers/x/send", "", yes);
    serve_site_expect(&site, 403, "POST", "/v1/answers/x/send", "X-PDD-Approval: \r\n", yes);
    serve_site_expect(&site, 403, "POST", "/v1/answers/x/send", wrong, yes);
    code[5] = 0;
    snprintf(wrong, sizeof wrong, "X-PDD-Approval: %s\r\n", code);
    serve_site_expect(&site, 403, "POST", "/v1/answers/x/send", wrong, yes);
    assert_null(strstr(b.data, "\"state\":\"running\""));
    assert_int_equal(serve_site_say(&site, "x", true), 200);
    assert_true(raw_read_until(fd, &b, "[DONE]"));
    assert_non_null(strstr(b.data, "\"requests\":1,"));
    buf_release(&b);
    close(fd);
    /* A no needs none: whoever can ask can stop the answer, too. */
    fd = begin_stream(",\"pdd\":{\"id\":\"n\",\"progress\":true}", "\"state\":\"held\"", &b);
    serve_site_expect(&site, 200, "POST", "/v1/answers/n/send", "", "{\"send\":false}");
    assert_true(raw_read_until(fd, &b, "[DONE]"));
    assert_non_null(strstr(b.data, "\"requests\":0,"));
    buf_release(&b);
    close(fd);
    snprintf(code, sizeof code, "%s", serve_approval(site.serve));
    serve_site_stop(&site);
    site.config.device.cloud_url = cloud_fixture_url(cloud);
    serve_site_start(&site); /* another run has another code */
    assert_string_not_equal(code, serve_approval(site.serve));
    serve_site_stop(&site);
    cloud_fixture_stop(cloud);
}

static void limit_files(rlim_t max)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = max < limit.rlim_max ? max : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static int ask(const char *more, struct buf *b)
{
    char body[512];
    snprintf(body, sizeof body, "{%s%s}", question, more);
    return serve_site_ask(&site, "POST", "/v1/chat/completions", "", body, b);
}

/* A full disk: files cannot grow. Nothing is sent, the device answers alone or says why not, and
 * when there is room again questions are sent, each of them on record. */
static void test_full_disk(void **state)
{
    struct buf b;
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    struct cloud_fixture *cloud = serve_site_with_cloud(&site, 20);
    serve_site_make_folder(&site);
    serve_site_start(&site);
    assert_int_equal(ask(",\"pdd\":{\"id\":\"a\",\"mode\":\"cloud\"}", &b), 200);
    buf_release(&b);
    limit_files(1);
    int alone = ask(",\"pdd\":{\"id\":\"b\",\"mode\":\"cloud\"}", &b);
    limit_files(RLIM_INFINITY);
    if (alone < 500 || !strstr(b.data, "cannot be put on record")) fail_msg("%s", b.data);
    buf_release(&b);
    limit_files(1);
    int both = ask(",\"pdd\":{\"id\":\"c\",\"cloud_tokens\":5}", &b);
    limit_files(RLIM_INFINITY);
    assert_int_equal(both, 200);
    assert_non_null(strstr(b.data, "\"cloud_tokens\":0,\"device_tokens\":20"));
    assert_non_null(strstr(b.data, "cannot be put on record"));
    assert_non_null(strstr(b.data, "\"sent_bytes\":0"));
    buf_release(&b);
    assert_int_equal(ask(",\"pdd\":{\"id\":\"d\",\"mode\":\"cloud\"}", &b), 200);
    buf_release(&b);
    assert_int_equal(serve_site_ask(&site, "GET", "/v1/egress", "", "", &b), 200);
    for (const char *id = "abcd"; *id; id++) {
        char row[32];
        snprintf(row, sizeof row, "\"answer\":\"%c\"", *id);
        assert_int_equal(strstr(b.data, row) != NULL, *id == 'a' || *id == 'd');
    }
    buf_release(&b);
    serve_site_stop(&site);
    cloud_fixture_stop(cloud);
    serve_site_remove_folder(&site);
}

/* A state folder that cannot be used: without a question nothing changes, as one device at a time
 * uses a folder; with a question the record would be missed. */
static void test_no_record(void **state)
{
    struct buf b;
    (void)state;
    for (int asks = 0; asks < 2; asks++) {
        struct cloud_fixture *cloud = serve_site_with_cloud(&site, 20);
        site.config.state_dir = "/dev/null/none";
        site.config.ask_before_sending = asks;
        serve_site_start(&site);
        int fd = begin_stream(",\"pdd\":{\"id\":\"x\",\"progress\":true,\"mode\":\"cloud\"}",
                              "\"state\":", &b);
        if (asks) assert_int_equal(serve_site_say(&site, "x", true), 200);
        assert_true(raw_read_until(fd, &b, "[DONE]"));
        assert_int_equal(strstr(b.data, "the state folder cannot be used") != NULL, asks);
        assert_int_equal(strstr(b.data, "\"requests\":1,") != NULL, !asks);
        buf_release(&b);
        close(fd);
        serve_site_stop(&site);
        cloud_fixture_stop(cloud);
    }
}

/* A conversation that nothing keeps is no fault of the server. */
static void test_nothing_kept(void **state)
{
    (void)state;
    serve_site_defaults(&site);
    serve_site_start(&site);
    serve_site_expect(&site, 404, "PUT", "/v1/conversations/c", "", "{}");
    serve_site_expect(&site, 404, "GET", "/v1/conversations/c", "", "");
    serve_site_expect(&site, 404, "DELETE", "/v1/conversations/c", "", "");
    serve_site_expect(&site, 400, "PUT", "/v1/conversations/c", "", "[]");
    serve_site_stop(&site);
}

/* What was sent before a restart is not asked about again, however the cloud's URL is written. */
static void test_same_cloud(void **state)
{
    struct buf b;
    char url[128];
    (void)state;
    struct cloud_fixture *cloud = serve_site_with_cloud(&site, 2000);
    snprintf(url, sizeof url, "%s/v1/", strstr(cloud_fixture_url(cloud), "://") + 3);
    site.config.device.cloud_url = url;
    site.fake = (struct fake_options){.answer_tokens = 2000, .step_us = 1000.0};
    serve_site_make_folder(&site);
    serve_site_start(&site);
    int fd =
        begin_stream(",\"pdd\":{\"id\":\"k\",\"keep\":60,\"cloud_tokens\":5}", "\"index\":3,", &b);
    buf_release(&b);
    serve_site_stop(&site);
    close(fd);
    site.config.ask_before_sending = true;
    serve_site_start(&site);
    assert_int_equal(serve_site_ask(&site, "GET", "/v1/answers/k", "", "", &b), 200);
    if (strstr(b.data, "\"state\":\"held\"")) fail_msg("%s", b.data);
    buf_release(&b);
    serve_site_stop(&site);
    cloud_fixture_stop(cloud);
    serve_site_remove_folder(&site);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signs_of_life), cmocka_unit_test(test_extras),
        cmocka_unit_test(test_aliases),       cmocka_unit_test(test_own_pages),
        cmocka_unit_test(test_own_word),      cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_no_record),     cmocka_unit_test(test_nothing_kept),
        cmocka_unit_test(test_same_cloud),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
