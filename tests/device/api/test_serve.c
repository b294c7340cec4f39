/*
 * test_serve: `pdd device` as its clients see it, over loopback sockets with a fake engine and a
 * real cloud.
 *
 * Catches: an answer that differs by who gave it, or by being streamed; a token lost or repeated
 * where a reader comes back; an answer that goes on after its client has left, or does not though
 * it was asked to; a queue without a bound, or one that a single client fills; a page of another
 * site that is served; a question that leaves the machine without a yes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "support/serve_site.h"

enum { LATE_US = 20000000 };

static const char question[] = "\"messages\":[{\"role\":\"user\",\"content\":\"Where did the old "
                               "sailor leave the brass lantern?\"}],\"temperature\":0";

static struct serve_site site;

/* The text of all chunks, and of the whole response. */
static void join_chunks(const struct buf *b, struct buf *text)
{
    static const char mark[] = "\"content\":\"";
    buf_init(text, RAW_MAX);
    for (const char *at = strstr(b->data, mark); at; at = strstr(at, mark)) {
        at += sizeof mark - 1;
        const char *end = strchr(at, '"');
        buf_append(text, at, (size_t)(end - at));
    }
}

static void chat(const char *more, struct buf *text, struct buf *ret_response)
{
    struct buf body;
    buf_init(&body, RAW_MAX);
    buf_printf(&body, "{%s%s}", question, more);
    int status = serve_site_ask(&site, "POST", "/v1/chat/completions", "", body.data, ret_response);
    if (status != 200) fail_msg("%s: %s", more, ret_response->data);
    join_chunks(ret_response, text);
    buf_release(&body);
}

static uint32_t number_of(const struct buf *b, const char *name)
{
    const char *at = strstr(b->data, name);
    if (!at) fail_msg("no %s in %s", name, b->data);
    return (uint32_t)strtoul(at + strlen(name), NULL, 10);
}

/* Streamed or not, by the cloud, the device or both: the same text, and a report that adds up. */
static void test_same_answer(void **state)
{
    static const char *const ways[] = {
        "",
        ",\"stream\":true",
        ",\"stream\":true,\"pdd\":{\"mode\":\"cloud\"}",
        ",\"pdd\":{\"mode\":\"local\"}",
        ",\"stream\":true,\"pdd\":{\"cloud_tokens\":5,\"progress\":true}",
        ",\"pdd\":{\"cloud_tokens\":9,\"pace\":\"smooth\"}",
        ",\"stream\":true,\"stream_options\":{\"include_usage\":true}",
    };
    struct buf first, text, response;
    (void)state;
    struct cloud_fixture *cloud = serve_site_with_cloud(&site, 20);
    site.fake.prefill_us_per_token = 2000.0;
    serve_site_start(&site);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        chat(ways[i], i ? &text : &first, &response);
        uint32_t by_cloud = number_of(&response, "\"cloud_tokens\":");
        uint32_t by_device = number_of(&response, "\"device_tokens\":");
        assert_int_equal(by_cloud + by_device, 20);
        assert_int_equal(number_of(&response, "\"tokens\":"), 20);
        if (strstr(ways[i], "local")) {
            assert_int_equal(by_cloud, 0);
            assert_int_equal(number_of(&response, "\"sent_bytes\":"), 0);
        }
        if (strstr(ways[i], "\"cloud\"")) {
            assert_int_equal(by_device, 0);
            assert_true(number_of(&response, "\"sent_bytes\":") > 100);
            assert_true(number_of(&response, "\"received_bytes\":") > 100);
        }
        if (strstr(ways[i], "stream")) assert_non_null(strstr(response.data, "data: [DONE]"));
        if (!strstr(ways[i], "stream")) assert_non_null(strstr(response.data, "X-PDD-Report: {"));
        if (!strstr(ways[i], "stream") || strstr(ways[i], "usage"))
            assert_non_null(strstr(response.data, "\"energy\":{\"joules\":"));
        if (strstr(ways[i], "usage"))
            assert_non_null(strstr(response.data, "\"completion_tokens\":20"));
        if (i > 0) {
            assert_string_equal(text.data, first.data);
            buf_release(&text);
        }
        buf_release(&response);
    }
    buf_release(&first);
    serve_site_stop(&site);
    cloud_fixture_stop(cloud);
}

/* A prompt as text and as token ids, stop strings, tokens and back, models. */
static void test_completions(void **state)
{
    struct buf a, b;
    (void)state;
    serve_site_defaults(&site);
    serve_site_start(&site);
    assert_int_equal(serve_site_ask(&site, "POST", "/v1/completions", "",
                                    "{\"prompt\":\"abc\",\"temperature\":0}", &a),
                     200);
    assert_int_equal(serve_site_ask(&site, "POST", "/v1/completions", "",
                                    "{\"prompt\":[97,98,99],\"temperature\":0}", &b),
                     200);
    char *text = strstr(a.data, "\"text\":\""), *again = strstr(b.data, "\"text\":\"");
    assert_non_null(text);
    assert_memory_equal(text, again, 24);
    char stop[2] = {text[12], 0}, body[128];
    snprintf(body, sizeof body,
             "{\"prompt\":\"abc\",\"temperature\":0,\"stream\":true,\"stop\":\"%s\"}", stop);
    buf_release(&b);
    assert_int_equal(serve_site_ask(&site, "POST", "/v1/completions", "", body, &b), 200);
    assert_non_null(strstr(b.data, "\"finish_reason\":\"stop\""));
    assert_null(strstr(strstr(b.data, "\"text\":\""), stop) &&
                        strncmp(strstr(b.data, "\"text\":\"") + 8, stop, 1) == 0
                    ? b.data
                    : NULL);
    buf_release(&a);
    buf_release(&b);
    assert_int_equal(serve_site_ask(&site, "POST", "/tokenize", "", "{\"content\":\"abc\"}", &a),
                     200);
    assert_non_null(strstr(a.data, "\"tokens\":[97,98,99]"));
    buf_release(&a);
    assert_int_equal(
        serve_site_ask(&site, "POST", "/detokenize", "", "{\"tokens\":[97,98,99]}", &a), 200);
    assert_non_null(strstr(a.data, "\"content\":\"abc\""));
    buf_release(&a);
    serve_site_expect(&site, 400, "POST", "/v1/completions", "", "{\"prompt\":\"\"}");
    serve_site_expect(&site, 200, "GET", "/v1/models/fake", "", "");
    serve_site_expect(&site, 404, "GET", "/v1/models/other", "", "");
    assert_int_equal(serve_site_ask(&site, "GET", "/metrics", "", "", &a), 200);
    assert_non_null(strstr(a.data, "pdd_answers_total{end=\"stop\"}"));
    buf_release(&a);
    serve_site_stop(&site);
}

/* An answer that ends within a character: the mark for it comes after its token, which a client may
 * have by then, and can be a stop string. */
static void test_stop_in_the_rest(void **state)
{
    struct buf b;
    (void)state;
    serve_site_defaults(&site);
    site.fake.script = "So\xC3";
    serve_site_start(&site);
    for (int stream = 0; stream < 2; stream++) {
        const char *body = stream ? "{\"prompt\":\"a\",\"stop\":\"\\ufffd\",\"stream\":true}"
                                  : "{\"prompt\":\"a\",\"stop\":\"\\ufffd\"}";
        assert_int_equal(serve_site_ask(&site, "POST", "/v1/completions", "", body, &b), 200);
        assert_non_null(strstr(b.data, "\"finish_reason\":\"stop\""));
        assert_null(strstr(b.data, "\xEF\xBF\xBD"));
        buf_release(&b);
    }
    serve_site_stop(&site);
}

/* Tools that may not be called: answered by the device,
 * and without a model here by the cloud, which is not told of tools. */
static void test_no_tools(void **state)
{
    static const char tools[] = ",\"tool_choice\":\"none\",\"tools\":[{\"type\":\"function\","
                                "\"function\":{\"name\":\"f\"}}]}";
    struct buf b, body;
    (void)state;
    struct cloud_fixture *cloud = serve_site_with_cloud(&site, 20);
    buf_init(&body, RAW_MAX);
    buf_printf(&body, "{%s%s", question, tools);
    for (int engine = 1; engine >= 0; engine--) {
        site.no_engine = !engine;
        if (!engine) site.config.device.engine = NULL;
        serve_site_start(&site);
        assert_int_equal(serve_site_ask(&site, "POST", "/v1/chat/completions", "", body.data, &b),
                         200);
        buf_release(&b);
        serve_site_stop(&site);
    }
    buf_release(&body);
    cloud_fixture_stop(cloud);
}

static const struct {
    const char *body, *says;
    int status;
} wrong[] = {
    {"{", "the request", 400},
    {"{}", "messages", 400},
    {"{\"messages\":[]}", "messages", 400},
    {"{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", "is not served",
     404},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"pdd\":{\"mode\":\"fast\"}}",
     "pdd.mode", 400},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"pdd\":{\"pace\":\"fast\"}}",
     "pdd.pace", 400},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"pdd\":{\"mood\":1}}", "pdd.mood",
     400},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"pdd\":7}", "pdd must", 400},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"pdd\":{\"mode\":\"cloud\"}}",
     "no cloud", 400},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"pdd\":{\"id\":\"a/b\"}}", "pdd.id",
     400},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"logprobs\":true}", "logprobs", 400},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"logit_bias\":{\"259\":1}}",
     "logit_bias", 400},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":[{\"type\":\"function\","
     "\"function\":{\"name\":\"f\"}}]}",
     "tools", 400},
};

static void test_wrong_requests(void **state)
{
    struct buf b;
    (void)state;
    serve_site_defaults(&site);
    serve_site_start(&site);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int status = serve_site_ask(&site, "POST", "/v1/chat/completions", "", wrong[i].body, &b);
        if (status != wrong[i].status || !strstr(b.data, wrong[i].says))
            fail_msg("%s: %d %s", wrong[i].body, status, b.data);
        buf_release(&b);
    }
    serve_site_expect(&site, 400, "POST", "/v1/chat/completions", "X-PDD-Keep: soon\r\n",
                      wrong[4].body);
    /* Cut to what fits, two clients' ids would be one, and its answer both's. */
    assert_int_equal(serve_site_ask(&site, "POST", "/v1/chat/completions",
                                    "X-PDD-Answer: a123456789b123456789c123456789d123456789\r\n",
                                    "{\"messages\":[{\"role\":\"user\",\"content\":\"?\"}]}", &b),
                     400);
    assert_non_null(strstr(b.data, "X-PDD-Answer must have at most 39"));
    buf_release(&b);
    serve_site_expect(&site, 404, "GET", "/v1/answers/ans-none", "", "");
    assert_int_equal(serve_site_ask(&site, "GET", "/v1/answers", "", "", &b), 200);
    assert_non_null(strstr(b.data, "Cache-Control: no-store\r\n"));
    assert_non_null(strstr(b.data, "X-Content-Type-Options: nosniff\r\n"));
    buf_release(&b);
    serve_site_stop(&site);
}

/* Posts a streamed question and returns its socket after `until` has come. */
static int begin_stream(const char *more, const char *headers, const char *until, struct buf *b)
{
    char body[512];
    int fd = raw_connect(site.port);
    snprintf(body, sizeof body, "{%s,\"stream\":true%s}", question, more);
    serve_site_send(fd, "POST", "/v1/chat/completions", headers, body);
    buf_init(b, RAW_MAX);
    assert_true(raw_read_until(fd, b, until));
    return fd;
}

static void wait_for(const char *path, const char *text)
{
    struct buf b;
    uint64_t until = clock_us() + LATE_US;
    bool there = false;
    while (!there && clock_us() < until) {
        serve_site_ask(&site, "GET", path, "", "", &b);
        there = strstr(b.data, text) != NULL;
        if (!there && clock_us() + 100000 > until) fail_msg("%s never in %s", text, b.data);
        buf_release(&b);
        if (!there) clock_sleep_us(2000);
    }
}

/* Left while it waits, is prefilled, is decoded: it ends at once; asked to be kept it goes on, and
 * a reader that comes back gets the rest from its token on. */
static void test_leaving(void **state)
{
    struct buf a, b, all, rest;
    (void)state;
    serve_site_defaults(&site);
    site.fake.answer_tokens = 200;
    site.fake.step_us = 4000.0;
    site.config.answers_max = 1;
    serve_site_start(&site);
    int fd = begin_stream(",\"pdd\":{\"id\":\"left\"}", "", "\"index\":3,", &a);
    int waiting = begin_stream(",\"pdd\":{\"id\":\"never\",\"progress\":true}", "",
                               "\"state\":\"waiting\"", &b);
    close(waiting);
    wait_for("/v1/answers/never", "\"finish_reason\":\"cancelled\"");
    close(fd);
    wait_for("/v1/answers/left", "\"finish_reason\":\"cancelled\"");
    wait_for("/v1/status", "\"running\":0");
    buf_release(&a);
    buf_release(&b);

    fd = begin_stream(",\"pdd\":{\"id\":\"kept\",\"keep\":60}", "", "\"index\":5,", &a);
    close(fd);
    int status = serve_site_ask(&site, "GET", "/v1/answers/kept?from=3&stream=1", "", "", &b);
    assert_int_equal(status, 200);
    assert_non_null(strstr(b.data, "\"index\":3,"));
    assert_null(strstr(b.data, "\"index\":2,"));
    assert_non_null(strstr(b.data, "\"finish_reason\":\"stop\""));
    buf_release(&a);
    serve_site_ask(&site, "GET", "/v1/answers/kept?stream=1", "", "", &a);
    join_chunks(&a, &all);
    join_chunks(&b, &rest);
    assert_true(rest.len > 0 && rest.len < all.len);
    assert_string_equal(all.data + all.len - rest.len, rest.data);
    buf_release(&a);
    buf_release(&b);
    /* The same id is the same answer. */
    assert_int_equal(serve_site_ask(&site, "POST", "/v1/chat/completions",
                                    "X-PDD-Answer: kept\r\nX-PDD-Keep: 5\r\n",
                                    "{\"messages\":[{\"role\":\"user\",\"content\":\"?\"}]}", &a),
                     200);
    join_chunks(&a, &b);
    assert_string_equal(b.data, all.data);
    buf_release(&a);
    buf_release(&b);
    buf_release(&all);
    buf_release(&rest);
    serve_site_stop(&site);
}

/* One client fills its share, and another one still gets a place; then it is full. */
static void test_queue(void **state)
{
    struct buf b[16], r;
    int fds[16];
    char more[64];
    (void)state;
    serve_site_defaults(&site);
    site.fake.answer_tokens = 5000;
    site.fake.step_us = 1000.0;
    site.config.answers_max = 2;
    site.config.queue_max = 4;
    serve_site_start(&site);
    for (int i = 0; i < 4; i++) { /* its share: two run, two wait */
        snprintf(more, sizeof more, ",\"pdd\":{\"id\":\"a%d\",\"progress\":true}", i);
        fds[i] = begin_stream(more, "X-PDD-Client: one\r\n", "\"state\":", &b[i]);
    }
    static const char body[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"?\"}]}";
    static const char path[] = "/v1/chat/completions";
    assert_int_equal(serve_site_ask(&site, "POST", path, "X-PDD-Client: one\r\n", body, &r), 429);
    assert_non_null(strstr(r.data, "its share"));
    assert_non_null(strstr(r.data, "Retry-After:"));
    buf_release(&r);
    for (int i = 4; i < 6; i++)
        fds[i] = begin_stream(",\"pdd\":{\"progress\":true}", "X-PDD-Client: two\r\n",
                              "\"state\":\"waiting\"", &b[i]);
    assert_int_equal(serve_site_ask(&site, "POST", path, "X-PDD-Client: three\r\n", body, &r), 429);
    assert_non_null(strstr(r.data, "the queue is full"));
    buf_release(&r);
    /* A place becomes free: the client that has none is next, though it came later. */
    serve_site_expect(&site, 200, "DELETE", "/v1/answers/a0", "", "");
    assert_true(raw_read_until(fds[4], &b[4], "\"state\":\"running\""));
    for (int i = 0; i < 6; i++) {
        close(fds[i]);
        buf_release(&b[i]);
    }
    wait_for("/v1/status", "\"running\":0,\"waiting\":0");
    serve_site_stop(&site);
}

#define PREFLIGHT                                                                                  \
    "Access-Control-Request-Headers: x-api-key,x-mine\r\n"                                         \
    "Access-Control-Request-Private-Network: true\r\n"

static const struct {
    const char *method, *path, *headers;
    int status;
} guests[] = {
    {"GET", "/v1/models", "Host: localhost\r\nAuthorization: Bearer secret\r\n", 200},
    {"GET", "/v1/models", "Host: 127.0.0.1\r\nAuthorization: Bearer secret\r\n", 200},
    {"GET", "/v1/models", "Host: [::1]\r\nAuthorization: Bearer secret\r\n", 200},
    {"GET", "/v1/models", "Host: desk.example\r\nAuthorization: Bearer secret\r\n", 200},
    {"GET", "/v1/models", "Host: localhost\r\n", 401},
    {"GET", "/v1/models", "Host: localhost\r\nAuthorization: Bearer secre\r\n", 401},
    {"GET", "/v1/models", "Host: localhost\r\nAuthorization: Bearer secretsecret\r\n", 401},
    {"GET", "/v1/models", "Host: localhost\r\nAuthorization: Basic secret\r\n", 401},
    {"GET", "/v1/models", "Host: localhost\r\nX-Api-Key: secret\r\n", 200},
    {"GET", "/models", "Host: localhost\r\napi-key: secret\r\n", 200},
    {"GET", "/v1/models", "Host: localhost\r\nX-Api-Key: secre\r\n", 401},
    {"GET", "/models/", "Host: localhost\r\n", 401},
    {"GET", "/v1/models", "Host: localhost\r\nX-Api-Key: a\r\nAuthorization: Bearer secret\r\n",
     400},
    {"GET", "/health", "Host: localhost\r\n", 200},
    {"GET", "/health", "Host: evil.example\r\n", 403},
    {"GET", "/health", "Host: localhost.evil.example\r\n", 403},
    {"GET", "/health", "Host: 127.0.0.1.evil.example\r\n", 403},
    {"GET", "/health", "Host: localhost:1\r\n", 403},
    {"GET", "/health", "Host: \r\n", 403},
    {"GET", "/health", "Host: localhost\r\nOrigin: http://evil.example\r\n", 403},
    {"GET", "/health", "Host: localhost\r\nOrigin: null\r\n", 403},
    {"GET", "/health", "Host: localhost\r\nOrigin: http://localhost\r\n", 403},
    {"GET", "/health", "Host: localhost\r\nOrigin: http://localhost:1\r\n", 403},
    {"GET", "/health", "Host: localhost\r\nOrigin: https://good.example\r\n", 200},
    {"GET", "/health", "Host: localhost\r\nOrigin: https://good.example.evil\r\n", 403},
    {"GET", "/health", "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", 403},
    {"GET", "/health", "Host: localhost\r\nSec-Fetch-Site: same-site\r\n", 403},
    {"GET", "/health", "Host: localhost\r\nSec-Fetch-Site: none\r\n", 200},
    {"OPTIONS", "/v1/chat/completions", "Host: localhost\r\nOrigin: https://good.example\r\n", 204},
    {"OPTIONS", "/v1/chat/completions", "Host: localhost\r\nOrigin: http://evil.example\r\n", 403},
    {"OPTIONS", "/chat/completions",
     "Host: localhost\r\nOrigin: https://good.example\r\n" PREFLIGHT, 204},
};

static void test_guests(void **state)
{
    struct buf b;
    (void)state;
    serve_site_defaults(&site);
    site.config.token = "secret";
    site.config.hosts[site.config.n_hosts++] = "desk.example";
    site.config.origins[site.config.n_origins++] = "https://good.example";
    serve_site_start(&site);
    for (size_t i = 0; i < sizeof guests / sizeof *guests; i++) {
        int status =
            serve_site_ask(&site, guests[i].method, guests[i].path, guests[i].headers, "", &b);
        bool cors = strstr(b.data, "Access-Control-Allow-Origin: https://good.example") != NULL;
        bool named = strstr(guests[i].headers, "good.example\r") != NULL;
        bool preflight = strstr(guests[i].headers, PREFLIGHT) != NULL;
        bool told = strstr(b.data, "Allow-Headers: x-api-key,x-mine\r\n") &&
                    strstr(b.data, "Allow-Private-Network: true\r\n");
        if (status != guests[i].status || cors != named || told != preflight)
            fail_msg("%s %s: %d\n%s", guests[i].path, guests[i].headers, status, b.data);
        buf_release(&b);
    }
    serve_site_stop(&site);
}

/* With ask_before_sending nothing reaches the cloud without a yes; with a no the device answers. */
static void test_ask_before_sending(void **state)
{
    struct buf a, text;
    (void)state;
    struct cloud_fixture *cloud = serve_site_with_cloud(&site, 20);
    site.config.ask_before_sending = true;
    serve_site_start(&site);
    for (int yes = 0; yes < 2; yes++) {
        int fd = begin_stream(yes ? ",\"pdd\":{\"id\":\"y\",\"progress\":true,\"cloud_tokens\":5}"
                                  : ",\"pdd\":{\"id\":\"n\",\"progress\":true,\"cloud_tokens\":5}",
                              "", "\"state\":\"held\"", &a);
        assert_int_equal(serve_site_say(&site, yes ? "y" : "n", yes), 200);
        assert_true(raw_read_until(fd, &a, "[DONE]"));
        assert_int_equal(number_of(&a, "\"requests\":"), yes);
        join_chunks(&a, &text);
        assert_int_equal(text.len > 0, 1);
        buf_release(&text);
        buf_release(&a);
        close(fd);
    }
    assert_int_equal(serve_site_say(&site, "y", true), 400);
    serve_site_stop(&site);
    cloud_fixture_stop(cloud);
}

/* The cloud cannot be reached: the device answers, and a device without an engine says why. */
static void test_cloud_away(void **state)
{
    struct buf b, text;
    char url[64];
    uint16_t port;
    (void)state;
    int taken = raw_listen(&port); /* a port that is closed again */
    close(taken);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", port);
    serve_site_defaults(&site);
    site.config.device.cloud_url = url;
    serve_site_start(&site);
    chat(",\"stream\":true,\"pdd\":{\"cloud_tokens\":4}", &text, &b);
    assert_int_equal(number_of(&b, "\"device_tokens\":"), 20);
    buf_release(&b);
    buf_release(&text);
    serve_site_stop(&site);
    site.no_engine = true;
    site.config.device.engine = NULL;
    serve_site_start(&site);
    int status = serve_site_ask(
        &site, "POST", "/v1/chat/completions", "",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"?\"}],\"stream\":true}", &b);
    assert_int_equal(status, 502);
    buf_release(&b);
    serve_site_stop(&site);
}

static void text_of_answer(const char *path, struct buf *text)
{
    struct buf b;
    assert_int_equal(serve_site_ask(&site, "GET", path, "", "", &b), 200);
    if (!strstr(b.data, "[DONE]")) fail_msg("%s: %s", path, b.data);
    join_chunks(&b, text);
    buf_release(&b);
}

/* A server that ends in the middle of answers: those that are to be kept go on from their last
 * token when it starts again, and are what they would have been; the others are over. */
static void test_restart(void **state)
{
    struct buf b, whole, again, rest;
    (void)state;
    serve_site_defaults(&site);
    site.fake.answer_tokens = 120;
    site.fake.step_us = 3000.0;
    serve_site_make_folder(&site);
    serve_site_start(&site);
    chat("", &whole, &b);
    buf_release(&b);
    int kept = begin_stream(",\"pdd\":{\"id\":\"kept\",\"keep\":60}", "", "\"index\":30,", &b);
    buf_release(&b);
    int left = begin_stream(",\"pdd\":{\"id\":\"left\"}", "", "\"index\":2,", &b);
    buf_release(&b);
    serve_site_stop(&site);
    close(kept);
    close(left);
    serve_site_start(&site);
    text_of_answer("/v1/answers/kept?from=20&stream=1", &rest);
    text_of_answer("/v1/answers/kept?stream=1", &again);
    assert_string_equal(again.data, whole.data);
    assert_string_equal(again.data + again.len - rest.len, rest.data);
    assert_true(rest.len < again.len);
    serve_site_ask(&site, "GET", "/v1/answers/kept", "", "", &b);
    assert_true(number_of(&b, "\"resumed\":") >= 30);
    assert_int_equal(number_of(&b, "\"device_tokens\":"), 120);
    buf_release(&b);
    wait_for("/v1/answers/left", "\"finish_reason\":\"cancelled\"");
    serve_site_stop(&site);
    serve_site_start(&site); /* ended answers are there, too */
    buf_release(&again);
    text_of_answer("/v1/answers/kept?stream=1", &again);
    assert_string_equal(again.data, whole.data);
    serve_site_stop(&site);
    buf_release(&whole);
    buf_release(&again);
    buf_release(&rest);
    serve_site_remove_folder(&site);
}

/* The user's no outlives the program: what was refused is not sent by the next run. */
static void test_no_is_kept(void **state)
{
    struct buf b;
    (void)state;
    struct cloud_fixture *cloud = serve_site_with_cloud(&site, 120);
    site.fake = (struct fake_options){.answer_tokens = 120, .step_us = 3000.0};
    site.config.ask_before_sending = true;
    serve_site_make_folder(&site);
    serve_site_start(&site);
    int fd =
        begin_stream(",\"pdd\":{\"id\":\"n\",\"keep\":60,\"progress\":true,\"mode\":\"cloud\"}", "",
                     "\"state\":\"held\"", &b);
    buf_release(&b);
    serve_site_ask(&site, "POST", "/v1/answers/n/send", "", "{\"send\":false}", &b);
    buf_release(&b);
    buf_init(&b, RAW_MAX);
    assert_true(raw_read_until(fd, &b, "\"index\":3,"));
    buf_release(&b);
    serve_site_stop(&site);
    close(fd);
    serve_site_start(&site);
    wait_for("/v1/answers/n", "\"state\":\"done\"");
    serve_site_ask(&site, "GET", "/v1/answers/n", "", "", &b);
    assert_int_equal(number_of(&b, "\"device_tokens\":"), 120);
    assert_int_equal(number_of(&b, "\"requests\":"), 0);
    buf_release(&b);
    serve_site_ask(&site, "GET", "/v1/egress", "", "", &b);
    assert_non_null(strstr(b.data, "\"data\":[]"));
    buf_release(&b);
    serve_site_stop(&site);
    cloud_fixture_stop(cloud);
    serve_site_remove_folder(&site);
}

/* A question that an earlier run may have sent without asking is held by one that asks. */
static void test_asks_after_restart(void **state)
{
    struct buf b;
    int fds[2];
    (void)state;
    struct cloud_fixture *cloud = serve_site_with_cloud(&site, 20);
    site.fake = (struct fake_options){.answer_tokens = 120, .step_us = 3000.0};
    site.config.answers_max = 1;
    serve_site_make_folder(&site);
    serve_site_start(&site);
    fds[0] = begin_stream(",\"pdd\":{\"id\":\"a\",\"mode\":\"local\"}", "", "\"index\":2,", &b);
    buf_release(&b);
    fds[1] =
        begin_stream(",\"pdd\":{\"id\":\"b\",\"keep\":60,\"progress\":true,\"mode\":\"cloud\"}", "",
                     "\"state\":\"waiting\"", &b);
    buf_release(&b);
    serve_site_stop(&site);
    close(fds[0]);
    close(fds[1]);
    site.config.ask_before_sending = true;
    serve_site_start(&site);
    wait_for("/v1/answers/b", "\"state\":\"held\"");
    serve_site_ask(&site, "GET", "/v1/egress", "", "", &b);
    assert_non_null(strstr(b.data, "\"data\":[]"));
    buf_release(&b);
    assert_int_equal(serve_site_say(&site, "b", true), 200);
    wait_for("/v1/answers/b", "\"state\":\"done\"");
    serve_site_ask(&site, "GET", "/v1/egress", "", "", &b);
    assert_non_null(strstr(b.data, "\"answer\":\"b\""));
    buf_release(&b);
    serve_site_stop(&site);
    cloud_fixture_stop(cloud);
    serve_site_remove_folder(&site);
}

/* What left the machine is on record before it leaves, and outlives the program. */
static void test_egress(void **state)
{
    struct buf b, text;
    (void)state;
    struct cloud_fixture *cloud = serve_site_with_cloud(&site, 20);
    serve_site_make_folder(&site);
    serve_site_start(&site);
    chat(",\"pdd\":{\"id\":\"here\",\"mode\":\"local\"}", &text, &b);
    buf_release(&b);
    buf_release(&text);
    chat(",\"pdd\":{\"id\":\"away\",\"mode\":\"cloud\"}", &text, &b);
    buf_release(&b);
    buf_release(&text);
    serve_site_stop(&site);
    site.config.state_dir = NULL; /* no record is not an empty one */
    serve_site_start(&site);
    serve_site_expect(&site, 503, "GET", "/v1/egress", "", "");
    serve_site_stop(&site);
    site.config.state_dir = site.folder;
    serve_site_start(&site);
    assert_int_equal(serve_site_ask(&site, "GET", "/v1/egress", "", "", &b), 200);
    assert_non_null(strstr(b.data, cloud_fixture_url(cloud)));
    assert_non_null(strstr(b.data, "\"answer\":\"away\""));
    assert_null(strstr(b.data, "\"answer\":\"here\""));
    assert_non_null(strstr(b.data, "\"protected\":\"none\",\"form\":\"tokens\""));
    assert_true(number_of(&b, "\"answer_sent_bytes\":") > 100);
    buf_release(&b);
    assert_int_equal(serve_site_ask(&site, "GET", "/v1/egress?answer=here", "", "", &b), 200);
    assert_non_null(strstr(b.data, "\"data\":[]"));
    buf_release(&b);
    serve_site_stop(&site);
    cloud_fixture_stop(cloud);
    serve_site_remove_folder(&site);
}

/* After an answer that the cloud gave alone the idle device reads it: the status says so, and the
 * same prompt then needs no prefill. */
static void test_reads_on(void **state)
{
    struct buf b, text;
    (void)state;
    struct cloud_fixture *cloud = serve_site_with_cloud(&site, 20);
    site.fake.prefill_us_per_token = 5000.0;
    site.config.device.idle_fill = site.config.device.fill_always = true;
    serve_site_start(&site);
    chat(",\"pdd\":{\"cloud_tokens\":100}", &text, &b);
    assert_int_equal(number_of(&b, "\"cloud_tokens\":"), 20);
    buf_release(&text);
    buf_release(&b);
    wait_for("/v1/status", "\"reading\":[");
    wait_for("/v1/status", "\"reading\":null");
    chat(",\"pdd\":{\"mode\":\"local\"}", &text, &b);
    assert_int_equal(number_of(&b, "\"kept_tokens\":") + 1,
                     number_of(&b, "\"usage\":{\"prompt_tokens\":"));
    buf_release(&text);
    buf_release(&b);
    serve_site_stop(&site);
    serve_site_start(&site); /* stopped by the user: it stays unread */
    chat(",\"pdd\":{\"cloud_tokens\":100}", &text, &b);
    buf_release(&text);
    buf_release(&b);
    wait_for("/v1/status", "\"reading\":[");
    serve_site_expect(&site, 204, "DELETE", "/v1/reading", "", "");
    wait_for("/v1/status", "\"reading\":null");
    serve_site_stop(&site);
    cloud_fixture_stop(cloud);
}

/* In the database or its log. */
static bool is_on_disk(const char *text)
{
    static const char *const names[] = {"state.db", "state.db-wal"};
    char path[128];
    bool found = false;
    for (size_t i = 0; i < 2; i++) {
        struct buf b;
        size_t n;
        snprintf(path, sizeof path, "%s/%s", site.folder, names[i]);
        FILE *f = fopen(path, "rb");
        char piece[4096];
        buf_init(&b, RAW_MAX);
        while (f && (n = fread(piece, 1, sizeof piece, f)) > 0)
            assert_int_equal(buf_append(&b, piece, n), 0);
        if (f) fclose(f);
        found = found || memmem(b.data, b.len, text, strlen(text));
        buf_release(&b);
    }
    return found;
}

static void test_conversations(void **state)
{
    static const char path[] = "/v1/conversations/c1";
    struct buf text;
    static const char body[] = "{\"title\":\"Lamps \u00e9\",\"messages\":[{\"text\":\"a\"}]}";
    struct buf b;
    (void)state;
    serve_site_defaults(&site);
    serve_site_make_folder(&site);
    serve_site_start(&site);
    serve_site_expect(&site, 204, "PUT", path, "", body);
    serve_site_expect(&site, 400, "PUT", path, "", "[1]");
    serve_site_expect(&site, 400, "PUT", "/v1/conversations/a%2Fb", "", body);
    serve_site_stop(&site);
    serve_site_start(&site);
    assert_int_equal(serve_site_ask(&site, "GET", path, "", "", &b), 200);
    assert_non_null(strstr(b.data, body));
    buf_release(&b);
    assert_int_equal(serve_site_ask(&site, "GET", "/v1/conversations", "", "", &b), 200);
    assert_non_null(strstr(b.data, "\"id\":\"c1\",\"title\":\"Lamps \xc3\xa9\""));
    buf_release(&b);
    chat(",\"pdd\":{\"id\":\"of-c1\",\"conversation\":\"c1\"}", &text, &b);
    buf_release(&text);
    buf_release(&b);
    assert_true(is_on_disk("Lamps") && is_on_disk("of-c1"));
    serve_site_expect(&site, 204, "DELETE", path, "", "");
    assert_false(is_on_disk("Lamps") || is_on_disk("of-c1"));
    serve_site_expect(&site, 404, "GET", path, "", "");
    serve_site_stop(&site);
    serve_site_remove_folder(&site);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_tools),
        cmocka_unit_test(test_same_answer),
        cmocka_unit_test(test_completions),
        cmocka_unit_test(test_wrong_requests),
        cmocka_unit_test(test_stop_in_the_rest),
        cmocka_unit_test(test_leaving),
        cmocka_unit_test(test_queue),
        cmocka_unit_test(test_guests),
        cmocka_unit_test(test_ask_before_sending),
        cmocka_unit_test(test_cloud_away),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_no_is_kept),
        cmocka_unit_test(test_asks_after_restart),
        cmocka_unit_test(test_egress),
        cmocka_unit_test(test_conversations),
        cmocka_unit_test(test_reads_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
