/*
 * test_upstream_streams: a cloud in front of servers of OpenAI's API that are not like the others:
 * what their streams say besides an answer, and which fields they refuse.
 *
 * Catches: a thought that is lost, taken for the answer or told twice; an answer that was only
 * thought and ends without a word; a server that is given up for a field that it could do without,
 * is asked for ever, or is asked anew for what it has refused; a refusal that is not passed on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cloud/upstream/dialect.h"
#include "support/cloud_site.h"
#include "support/script_server.h"

static struct wire_message message = {(char *)(uintptr_t) "user", (char *)(uintptr_t) "Hello", 5};

static void begin(struct site *s, struct script_server *a)
{
    site_init(s);
    s->config.upstream.servers[s->config.upstream.n_servers++].url = a->url;
    s->config.upstream.timeout_us = s->config.upstream.prefill_us = SITE_WAIT_US;
    site_start(s);
    site_await_ready(s, 200);
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

#define REFUSED(param, code)                                                                       \
    "{\"error\":{\"message\":\"Unsupported parameter: '" param "'\",\"param\":\"" param            \
    "\",\"code\":\"" code "\"}}"

/* Each field is refused once, in one of the usual forms, and the next request knows. */
static void test_without(void **state)
{
    struct script_server a;
    struct site s;
    struct buf b;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a);
    a.refuses[0].field = "\"max_tokens\"";
    a.refuses[0].answer = REFUSED("max_tokens", "unsupported_parameter");
    a.refuses[1].field = "\"temperature\"";
    a.refuses[1].answer = REFUSED("temperature", "unsupported_value");
    a.refuses[2].field = "\"stream_options\"";
    a.refuses[2].answer =
        "{\"detail\":[{\"type\":\"extra_forbidden\",\"loc\":[\"body\",\"stream_options\"],"
        "\"msg\":\"Extra inputs are not permitted\",\"input\":{\"include_usage\":true}}]}";
    for (uint32_t i = 0; i < 2; i++) {
        chat(&s, ",\"max_tokens\":3,\"temperature\":0.5", &b);
        check_says(&b, "\"content\":\"abc\"", true);
        buf_release(&b);
        assert_non_null(strstr(a.body, "\"max_completion_tokens\":3"));
        assert_int_equal(atomic_load(&a.requests), 4 + i);
    }
    site_stop(&s);
    script_stop(&a);
}

/* A server that refuses whatever it is asked gets no more requests than there are fields. */
static void test_never_content(void **state)
{
    struct script_server a;
    struct site s;
    struct buf b;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a);
    a.refuses[0].field = "messages";
    a.refuses[0].answer = "{\"error\":\"unknown: max_tokens, top_p, temperature, stream_options, "
                          "top_k, min_p, repetition_penalty, seed\"}";
    chat(&s, "", &b);
    check_says(&b, "HTTP/1.1 400", true);
    check_says(&b, "unknown: max_tokens", true);
    assert_in_range(atomic_load(&a.requests), 2, 9);
    buf_release(&b);
    site_stop(&s);
    script_stop(&a);
}

static const struct {
    const char *body;
    uint32_t without, want;
} refusals[] = {
    {REFUSED("max_tokens", "unsupported_parameter"), 0, DIALECT_NO_MAX_TOKENS},
    {REFUSED("max_tokens", "unsupported_parameter"), DIALECT_NO_MAX_TOKENS, 0},
    {"{\"error\":{\"message\":\"max_tokens is too large: 9. This model supports at most 4\","
     "\"param\":\"max_tokens\",\"code\":\"invalid_value\"}}",
     0, 0},
    {"{\"error\":{\"message\":\"'temperature' does not support 0.7 with this model.\"}}", 0,
     DIALECT_NO_TEMPERATURE},
    {"{\"error\":{\"message\":\"invalid temperature: only 1 is allowed for this model\"}}", 0,
     DIALECT_NO_TEMPERATURE},
    {"{\"message\":\"`temperature` and `top_p` cannot both be specified\"}", 0, DIALECT_NO_TOP_P},
    {"{\"error\":{\"message\":\"property 'stream_options' is unsupported\"}}", 0,
     DIALECT_NO_STREAM_OPTIONS},
    {"{\"error\":{\"message\":\"Unrecognized request argument supplied: top_k\"}}", 0,
     DIALECT_NO_TOP_K},
    {"[{\"error\":{\"message\":\"Unknown name \\\"seed\\\": Cannot find field.\"}}]", 0,
     DIALECT_NO_SEED},
    {"{\"error\":{\"message\":\"unknown model; temperature was 1\",\"param\":\"model\"}}", 0, 0},
    {"{\"detail\":[{\"loc\":[\"body\",\"messages\"],\"msg\":\"unexpected seed\"}]}", 0, 0},
    {"not even JSON: unsupported seed", 0, 0},
    {"{\"error\":{\"message\":\"the picture is not supported\"}}", 0, 0},
};

static void test_refused_field(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        const char *body = refusals[i].body;
        uint32_t got = dialect_refused_field(body, strlen(body), refusals[i].without);
        if (got != refusals[i].want) fail_msg("%s: %x", body, got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thoughts),      cmocka_unit_test(test_only_thoughts),
        cmocka_unit_test(test_without),       cmocka_unit_test(test_never_content),
        cmocka_unit_test(test_refused_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
