/*
 * test_upstream_streams: a cloud in front of servers of OpenAI's API that are not like the others:
 * what their streams say besides an answer, and which fields they refuse.
 *
 * Catches: a thought that is lost, taken for the answer or told twice; an answer that was only
 * thought and ends without a word.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "support/cloud_site.h"
#include "support/script_server.h"

static struct wire_message message = {(char *)(uintptr_t) "user", (char *)(uintptr_t) "Hello", 5};

static void begin(struct site *s, struct script_server *a)
{
    uint64_t until = clock_us() + SITE_WAIT_US;
    site_init(s);
    s->config.upstream.servers[s->config.upstream.n_servers++].url = a->url;
    s->config.upstream.timeout_us = s->config.upstream.prefill_us = SITE_WAIT_US;
    site_start(s);
    while (site_ask(s, "GET", "/ready", NULL, "", NULL) != 200) {
        assert_true(clock_us() < until);
        clock_sleep_us(2000);
    }
}

/* POST /v1/chat/completions with these fields besides the messages; the caller frees `ret`. */
static void chat(const struct site *s, const char *fields, struct buf *ret)
{
    char request[1000], body[600];
    snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]%s}",
             fields);
    snprintf(request, sizeof request,
             "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
             "Content-Length: %zu\r\n\r\n%s",
             strlen(body), body);
    raw_ask(s->port, request, ret);
}

static void check_says(const struct buf *b, const char *part, bool wanted)
{
    if ((strstr(b->data, part) != NULL) != wanted)
        fail_msg("%s %s in %s", part, wanted ? "is not" : "is", b->data);
}

#define DELTA(inner) "data: {\"choices\":[{\"index\":0,\"delta\":{" inner "}}]}\n\n"
#define END(why)                                                                                   \
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"" why "\"}]}\n\ndata: [DONE]\n\n"
#define HELLO DELTA("\"content\":\"Hello\"") END("stop")
#define THOUGHT "\"reasoning_content\":\"Let me think\""

static const char *const thoughts[] = {
    DELTA("\"content\":null," THOUGHT),
    DELTA("\"reasoning\":\"Let me think\""),
    DELTA("\"thinking\":\"Let me think\""),
    DELTA("\"reasoning\":\"Let me think\"," THOUGHT),
    DELTA("\"content\":[{\"type\":\"thinking\",\"thinking\":[{\"type\":\"text\","
          "\"text\":\"Let me think\"}]}]"),
    DELTA("\"content\":[{\"type\":\"thinking\",\"thinking\":\"Let me think\"},"
          "{\"type\":\"text\",\"text\":\"\"}]"),
};

/* Under whatever name it comes, it goes on apart from the answer, once, streamed or whole. */
static void test_thoughts(void **state)
{
    struct script_server a;
    struct site s;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a);
    atomic_store(&a.how, SCRIPT_SAY);
    for (size_t i = 0; i < 2 * sizeof thoughts / sizeof *thoughts; i++) {
        char stream[1000];
        struct buf b;
        snprintf(stream, sizeof stream, "%s" HELLO, thoughts[i / 2]);
        atomic_store(&a.saying, stream);
        chat(&s, i % 2 ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : "", &b);
        check_says(&b, THOUGHT, true);
        check_says(&b, "\"content\":\"Hello\"", true);
        check_says(&b, "\"completion_tokens\":2", true);
        check_says(&b, "\"reasoning_tokens\":1", true);
        check_says(&b, "\"finish_reason\":\"stop\"", true);
        assert_null(strstr(strstr(b.data, "Let me think") + 1, "Let me think"));
        buf_release(&b);
    }
    site_stop(&s);
    script_stop(&a);
}

/* A device that gets thoughts only is told so; a client of OpenAI's API sees them. */
static void test_only_thoughts(void **state)
{
    struct script_server a;
    struct site s;
    struct client c;
    struct buf b;
    struct wire_request q;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a);
    atomic_store(&a.how, SCRIPT_SAY);
    atomic_store(&a.saying, DELTA(THOUGHT) END("length"));
    wire_request_init(&q);
    q.messages = &message;
    q.n_messages = 1;
    q.tokens_max = 5;
    client_post(&c, s.port, &q);
    client_finish(&c);
    assert_true(c.failed && !c.done);
    if (!strstr(c.ev.message, "thought")) fail_msg("%s", c.ev.message);
    client_close(&c);
    chat(&s, "", &b);
    check_says(&b, "\"content\":\"\"," THOUGHT, true);
    check_says(&b, "\"finish_reason\":\"length\"", true);
    buf_release(&b);
    site_stop(&s);
    script_stop(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thoughts),
        cmocka_unit_test(test_only_thoughts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
