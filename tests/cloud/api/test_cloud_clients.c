/*
 * test_cloud_clients: what clients of `pdd cloud` and the networks between take for granted, over
 * real sockets with the fake engine.
 *
 * Catches: a stream that is silent in the queue or in a prefill until somebody closes it; a second
 * head or none; an error that is lost behind a sign of life; tools that may not be used and are
 * refused; a model that is asked for by another name; a page that is let in though nobody named it,
 * or shut out though somebody did.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "support/cloud_site.h"

#define ASK "\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]"
#define CHAT "/v1/chat/completions"

enum { QUIET_US = 20000 };

static struct site site;
static struct client c;

/* The end of OpenAI's streams. */
static int other_event(void *arg, const char *name, const char *data, size_t n)
{
    (void)name, (void)n;
    if (strcmp(data, "[DONE]") == 0) ((struct client *)arg)->done = true;
    return 0;
}

static void post(const char *path, const char *body)
{
    client_open(&c, site.port);
    if (strcmp(path, "/v1/assist") != 0) c.sse.fn = other_event;
    client_send(&c, "POST", path, NULL, body, strlen(body));
}

static unsigned count(const char *text, const char *part)
{
    unsigned n = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at += strlen(part))
        n++;
    return n;
}

static const struct {
    const char *path, *body;
} streams[] = {
    {"/v1/assist", "{" ASK ",\"tokens_max\":3}"},
    {CHAT, "{" ASK ",\"max_tokens\":3,\"stream\":true}"},
    {"/v1/completions", "{\"prompt\":\"Hello\",\"max_tokens\":3,\"stream\":true}"},
};

/* Comments come while one waits in the queue, and while its prompt is read; the answer is whole. */
static void test_signs_of_life(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * sizeof streams / sizeof *streams; i++) {
        bool queue = i % 2;
        struct client first;
        site_init(&site);
        site.config.quiet_us = QUIET_US;
        site.config.worker.streams_max = 1;
        site.fake.prefill_us_per_token = queue ? 0.0 : 60000.0;
        site.fake.step_us = queue ? 20000.0 : 0.0;
        site_start(&site);
        client_open(&first, site.port);
        if (queue) {
            static const char body[] = "{" ASK ",\"tokens_max\":50}";
            client_send(&first, "POST", "/v1/assist", NULL, body, sizeof body - 1);
            while (first.n_tokens == 0)
                assert_true(client_read(&first, 100));
        }
        post(streams[i / 2].path, streams[i / 2].body);
        client_finish(&c);
        assert_int_equal(c.status, 200);
        if (count(c.body.data, ": keep-alive\n\n") < 2) fail_msg("case %zu: %s", i, c.body.data);
        assert_int_equal(count(c.raw.data, "HTTP/1.1"), 1);
        if (i / 2 == 0)
            assert_true(c.done && c.n_tokens == 3);
        else
            assert_int_equal(count(c.body.data, "data: [DONE]"), 1);
        if (i / 2 == 1) assert_int_equal(count(c.body.data, "\"role\":\"assistant\""), 1);
        client_close(&c);
        client_close(&first);
        site_stop(&site);
    }
}

/* What fails behind a sign of life is an error in the stream; a whole answer gets its status. */
static void test_error_after_sign(void **state)
{
    static const struct {
        const char *path, *body;
        int status;
    } cases[] = {{"/v1/assist", "{" ASK ",\"tokens_max\":3}", 200},
                 {CHAT, "{" ASK ",\"max_tokens\":3,\"stream\":true}", 200},
                 {CHAT, "{" ASK ",\"max_tokens\":3}", 503}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static const char body[] = "{" ASK ",\"tokens_max\":50}";
        struct client first;
        site_init(&site);
        site.config.quiet_us = QUIET_US;
        site.config.worker.streams_max = 1;
        site.fake.step_us = 20000.0;
        site.drain_us = 100000;
        site_start(&site);
        client_open(&first, site.port);
        client_send(&first, "POST", "/v1/assist", NULL, body, sizeof body - 1);
        while (first.n_tokens == 0)
            assert_true(client_read(&first, 100));
        post(cases[i].path, cases[i].body);
        while (cases[i].status == 200 && !c.status)
            assert_true(client_read(&c, 100));
        while (!site_stats(&site).waiting)
            clock_sleep_us(500);
        loop_wake_signal(site.drain);
        uint64_t until = clock_us() + SITE_WAIT_US;
        while (!c.done && !c.failed && clock_us() < until && client_read(&c, 100))
            ;
        assert_int_equal(c.status, cases[i].status);
        if (i == 0 && !c.done) fail_msg("%s", c.body.data);
        if (i > 0 && !strstr(c.body.data, "shutting down")) fail_msg("%s", c.body.data);
        client_close(&c);
        client_close(&first);
        site_stop(&site);
    }
}

/* Tools that may not be called change nothing where the template has no place for them. */
static void test_tools_of_no_use(void **state)
{
    struct buf b;
    (void)state;
    site_init(&site);
    site_start(&site);
    buf_init(&b, RAW_MAX);
    int status = (site_ask(&site, "POST", CHAT, NULL,
                           "{" ASK ",\"max_tokens\":3,\"tool_choice\":\"none\",\"tools\":[{"
                           "\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}",
                           &b));
    if (status != 200) fail_msg("%s", b.data);
    buf_release(&b);
    site_stop(&site);
}

#define PAGE "http://localhost:3000"
#define OTHER "http://elsewhere.example"

/* The head of the response to a page. */
static void ask_as_page(const char *method, const char *path, const char *origin, const char *body,
                        struct buf *ret)
{
    char request[1000];
    snprintf(request, sizeof request,
             "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nOrigin: %s\r\n"
             "Access-Control-Request-Headers: authorization,x-stainless-os\r\n"
             "Access-Control-Request-Private-Network: true\r\n"
             "Content-Length: %zu\r\n\r\n%s",
             method, path, origin, strlen(body), body);
    raw_ask(site.port, request, ret);
}

static const struct {
    const char *method, *path, *body;
    int status;
} visits[] = {
    {"OPTIONS", CHAT, "", 204},
    {"POST", CHAT, "{" ASK ",\"max_tokens\":2}", 200},
    {"POST", CHAT, "{" ASK ",\"max_tokens\":2,\"stream\":true}", 200},
    {"POST", CHAT, "{" ASK ",\"max_tokens\":\"x\"}", 400},
    {"POST", "/v1/assist", "{" ASK ",\"tokens_max\":2}", 200},
    {"GET", "/nowhere", "", 404},
    {"PUT", CHAT, "", 405},
};

/* Every response names the page's origin, errors and streams too, and none does for another. */
static void test_pages(void **state)
{
    static const char *const lists[][2] = {{PAGE, "https://b.example"}, {"*", "*"}, {NULL, NULL}};
    static const char *const pages[] = {PAGE, OTHER};
    (void)state;
    for (size_t i = 0; i < 6 * sizeof visits / sizeof *visits; i++) {
        size_t list = i % 3, v = i / 6;
        const char *page = pages[i / 3 % 2], *named = list == 1 ? "*" : page;
        bool allowed = list == 1 || (list == 0 && page == pages[0]);
        char status[16], line[100];
        struct buf b;
        site_init(&site);
        site.config.http.origins = lists[list];
        site.config.http.n_origins = list == 2 ? 0 : 2;
        site_start(&site);
        ask_as_page(visits[v].method, visits[v].path, page, visits[v].body, &b);
        snprintf(status, sizeof status, "HTTP/1.1 %d", visits[v].status);
        snprintf(line, sizeof line, "Access-Control-Allow-Origin: %s\r\n", named);
        if (strncmp(b.data, status, strlen(status)) != 0) fail_msg("%s", b.data);
        if ((strstr(b.data, line) != NULL) != allowed) fail_msg("%s: %s", line, b.data);
        if (!allowed) assert_null(strstr(b.data, "Access-Control-Allow"));
        assert_int_equal(strstr(b.data, "Vary: Origin") != NULL, list == 0);
        assert_int_equal(strstr(b.data, "Allow-Private-Network: true\r\n") != NULL,
                         allowed && v == 0);
        if (v == 0)
            assert_int_equal(strstr(b.data, "Allow-Headers: authorization,x-stainless-os") != NULL,
                             allowed);
        buf_release(&b);
        site_stop(&site);
    }
}

/* The number behind the n-th `name`, from 1. */
static double number_at(const char *text, const char *name, int n)
{
    for (int i = 0; i < n; i++) {
        text = strstr(text, name);
        if (!text) fail_msg("no %s", name);
        text += strlen(name);
    }
    return strtod(text, NULL);
}

/* llama-server's extras come to those who ask, and to no one else. */
static void test_extras(void **state)
{
    static const char prompt[] = "\"prompt\":\"A long text that takes some steps to read: one two "
                                 "three four five six seven eight nine ten eleven twelve.\"";
    (void)state;
    for (int i = 0; i < 8; i++) {
        bool chat = i & 1, stream = i & 2, asked = i & 4;
        char body[600];
        site_init(&site);
        site.fake.step_tokens_max = 8;
        site.fake.step_us = 1000.0;
        site_start(&site);
        snprintf(body, sizeof body, "{%s,\"max_tokens\":5,\"temperature\":0%s%s}",
                 chat ? ASK : prompt, stream ? ",\"stream\":true" : "",
                 asked ? ",\"timings_per_token\":true,\"return_progress\":true" : "");
        post(chat ? CHAT : "/v1/completions", body);
        uint64_t until = clock_us() + SITE_WAIT_US;
        while (!c.done && clock_us() < until && client_read(&c, 100) &&
               !strstr(c.raw.data, "\"usage\":{"))
            ;
        const char *text = c.raw.data;
        assert_int_equal(c.status, 200);
        assert_int_equal(strstr(text, "\"timings\":{") != NULL, asked);
        assert_int_equal(strstr(text, "\"prompt_progress\":{") != NULL, asked && stream);
        if (asked) {
            int n = (int)count(text, "\"timings\":{");
            assert_true(number_at(text, "\"prompt_n\":", n) > 0);
            assert_true(number_at(text, "\"prompt_ms\":", n) > 0);
            assert_true(number_at(text, "\"predicted_n\":", n) >= (chat ? 5 : 0));
            assert_true(number_at(text, "\"predicted_per_second\":", n) > 0 || !chat);
        }
        if (asked && stream) { /* grows from what was cached to the whole prompt */
            int n = (int)count(text, "\"prompt_progress\":{");
            double total = number_at(text, "{\"total\":", 1), last = -1;
            assert_true(n >= 3);
            for (int k = 1; k <= n; k++) {
                double done = number_at(text, "\"processed\":", k);
                assert_true(done > last && done <= total);
                last = done;
            }
            assert_true(last >= total);
        }
        client_close(&c);
        site_stop(&site);
    }
}

/* Programs with a model's name built in: by an alias the model answers under its own name. */
static void test_aliases(void **state)
{
    static const struct {
        const char *aliases[2], *model;
        int status;
    } cases[] = {
        {{"gpt-4", "owner/m:8b"}, "gpt-4", 200},   {{"gpt-4", "owner/m:8b"}, "owner/m:8b", 200},
        {{"gpt-4", "owner/m:8b"}, "fake", 200},    {{"gpt-4", "owner/m:8b"}, "gpt-4o", 404},
        {{"gpt-4", "*"}, "anything \\u00e4", 200}, {{"gpt-4", "*"}, "", 200},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[300], path[300];
        struct buf b, list, one;
        struct err e = ERR_INIT;
        buf_init(&b, RAW_MAX);
        buf_init(&list, RAW_MAX);
        buf_init(&one, RAW_MAX);
        site_init(&site);
        for (int k = 0; k < 2; k++)
            assert_int_equal(model_names_add(&site.config.names, cases[i].aliases[k], &e), 0);
        site_start(&site);
        snprintf(body, sizeof body, "{" ASK ",\"max_tokens\":2,\"model\":\"%s\"}", cases[i].model);
        int status = site_ask(&site, "POST", CHAT, NULL, body, &b);
        if (status != cases[i].status) fail_msg("%s: %s", body, b.data);
        if (status == 200) assert_non_null(strstr(b.data, "\"model\":\"fake\""));
        assert_int_equal(site_ask(&site, "GET", "/v1/models", NULL, "", &list), 200);
        assert_non_null(strstr(list.data, "{\"id\":\"fake\","));
        assert_non_null(strstr(list.data, "{\"id\":\"gpt-4\","));
        assert_int_equal(count(list.data, "{\"id\":"), i < 4 ? 3 : 2);
        snprintf(path, sizeof path, "/v1/models/%s",
                 i == 1  ? "owner%2fm:8b"
                 : i < 4 ? cases[i].model
                         : "x");
        assert_int_equal(site_ask(&site, "GET", path, NULL, "", &one), status);
        if (i == 1) assert_non_null(strstr(one.data, "{\"id\":\"owner/m:8b\","));
        buf_release(&b);
        buf_release(&list);
        buf_release(&one);
        site_stop(&site);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signs_of_life),   cmocka_unit_test(test_error_after_sign),
        cmocka_unit_test(test_tools_of_no_use), cmocka_unit_test(test_pages),
        cmocka_unit_test(test_aliases),         cmocka_unit_test(test_extras),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
