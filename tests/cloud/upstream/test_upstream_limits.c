/*
 * test_upstream_limits: a cloud in front of servers that compute passed on requests: what holds
 * them, and what they tell, within limits.
 *
 * Catches: a limit of ours that a server's context has no room for; steps of a prefill that a
 * client asks for and does not get; counts that cannot be; a server that one request makes unusable
 * for all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/pass_site.h"

#define NO_ROOM                                                                                    \
    "{\"object\":\"error\",\"message\":\"'max_tokens' or 'max_completion_tokens' is too large: "   \
    "50. This model's maximum context length is 60 tokens and your request has 20 input tokens\"," \
    "\"type\":\"BadRequestError\",\"param\":null,\"code\":400}"

/* A limit that the context has no room for: ours goes, the client's is its own fault. */
static void test_no_room(void **state)
{
    struct script_server a;
    struct site s;
    struct buf b;
    (void)state;
    script_start(&a, "vllm");
    begin(&s, &a, NULL);
    script_reply_json(&a, WHOLE);
    a.refuses[0].field = "_tokens\"";
    a.refuses[0].answer = NO_ROOM;
    for (uint32_t i = 0; i < 2; i++) { /* each request anew: the next prompt may be shorter */
        post(&s, CHAT, HI "," TOOLS "}", &b);
        check_says(&b, "HTTP/1.1 200", true);
        check_parts(a.body, "!max_tokens|!max_completion_tokens|" TOOLS, 0);
        assert_int_equal(atomic_load(&a.requests), 2 * i + 2);
        buf_release(&b);
    }
    post(&s, CHAT, HI "," TOOLS ",\"max_tokens\":50}", &b);
    check_says(&b, "HTTP/1.1 400", true);
    check_says(&b, "is too large: 50", true);
    check_parts(a.body, "\"max_tokens\":50", 0);
    assert_int_equal(atomic_load(&a.requests), 5);
    buf_release(&b);
    a.refuses[0].field = "\"messages\""; /* the prompt alone is too long */
    post(&s, CHAT, HI "," TOOLS "}", &b);
    check_says(&b, "HTTP/1.1 400", true);
    check_says(&b, "maximum context length", true);
    assert_int_equal(atomic_load(&a.requests), 7);
    buf_release(&b);
    site_stop(&s);
    script_stop(&a);
}

#define STEP(processed)                                                                            \
    "data: "                                                                                       \
    "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"}}],\"prompt_progress\":{\"total\":"    \
    "9,\"cache\":2,\"processed\":" processed "}}\n\n"

/* Steps of a prefill, for a client that asks for them. */
static void test_progress(void **state)
{
    static const char *const owners[] = {"llamacpp", "pdd"};
    (void)state;
    for (size_t k = 0; k < sizeof owners / sizeof *owners; k++) {
        struct script_server a;
        struct site s;
        script_start(&a, owners[k]);
        begin(&s, &a, NULL);
        script_say_all(&a, NULL,
                       STEP("5") STEP("9") CHUNK(DELTA("0", "\"content\":\"well\""))
                           CHUNK(END("0", "stop")));
        for (int asks = 0; asks < 2; asks++) {
            struct buf b;
            post(&s, CHAT,
                 asks ? HI "," TOOLS "," STREAM ",\"return_progress\":true}"
                      : HI "," TOOLS "," STREAM "}",
                 &b);
            check_parts(a.body, "\"return_progress\":true", k);
            check_says(&b, "\"content\":\"well\"", true);
            check_says(&b, "\"prompt_progress\":{\"total\":9,\"cache\":2,\"processed\":5,", asks);
            check_says(&b, "\"processed\":9,", asks);
            check_says(&b, "theirs", false);
            buf_release(&b);
        }
        site_stop(&s);
        script_stop(&a);
    }
}

static double metric(const struct site *s, const char *name)
{
    struct buf page;
    char line[100];
    buf_init(&page, RAW_MAX);
    site_ask(s, "GET", "/metrics", NULL, "", &page);
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(page.data, line);
    assert_non_null(at);
    double value = strtod(at + strlen(line), NULL);
    buf_release(&page);
    return value;
}

/* Counts that cannot be: they cost a key what the answer can have had. */
static void test_counts(void **state)
{
    struct script_server a;
    struct site s;
    struct buf b;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a, NULL);
    script_reply_json(
        &a, "{\"choices\":[{\"index\":0,\"message\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}"
            "],\"usage\":{\"prompt_tokens\":2000000000,\"completion_tokens\":2000000000,"
            "\"prompt_tokens_details\":{\"cached_tokens\":2100000000}}}");
    post(&s, CHAT, HI ",\"n\":2}", &b);
    check_says(&b, "HTTP/1.1 200", true);
    buf_release(&b);
    assert_true(metric(&s, "pdd_generation_tokens_total") < 1000); /* of 2 times 50 */
    assert_true(metric(&s, "pdd_prompt_tokens_total") <= 2.0 * WIRE_PROMPT_MAX);
    assert_true(metric(&s, "pdd_prompt_tokens_cached_total") <= 2.0 * WIRE_PROMPT_MAX);
    site_stop(&s);
    script_stop(&a);
}

/* A server that closes the connection of one request is not lost for those of others. */
static void test_closed_connections(void **state)
{
    enum { TIMES = 100 }; /* a second each would be too long */
    uint64_t until = clock_us() + SITE_WAIT_US;
    struct script_server a;
    struct site s;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a, NULL);
    atomic_store(&a.how, SCRIPT_CLOSE);
    for (int i = 0; i < TIMES; i++) {
        struct buf b;
        post(&s, CHAT, HI "," TOOLS "}", &b);
        check_says(&b, "HTTP/1.1 502", true);
        buf_release(&b);
        site_await_ready(&s, 200);
        assert_true(clock_us() < until);
    }
    site_stop(&s);
    script_stop(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_closed_connections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
