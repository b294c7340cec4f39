/*
 * test_upstream_pass: a cloud in front of servers whose options it does not compute: requests that
 * go on to them with these options, and answers that come back as they are.
 *
 * Catches: an option that is lost on the way, or goes under a name that the server ignores; one
 * that no server of that kind has and that is not refused; a part of an answer that is lost (calls,
 * further choices, log-probabilities, refusals, annotations, thoughts, counts); a request that is
 * asked again without what its client relies on; an answer that ends in the middle without a word;
 * a fault of the request that is told without its field; pages and redirects that are not named; an
 * answer that is given up for its content type.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "support/pass_site.h"

/* ---- what a server is asked ---- */

#define SCHEMA "{\"type\":\"object\"}"
#define FORMAT                                                                                     \
    "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"answer\","          \
    "\"schema\":" SCHEMA "}}"

static const struct {
    const char *owner, *path, *body, *want; /* want: parts, with | between them; !part: not there */
} asked[] = {
    {"somebody", CHAT, HI "," TOOLS ",\"tool_choice\":\"required\",\"parallel_tool_calls\":false}",
     TOOLS "|\"tool_choice\":\"required\"|\"parallel_tool_calls\":false|\"stream\":false"},
    {"somebody", CHAT, HI ",\"n\":3,\"logprobs\":true,\"top_logprobs\":2," STREAM "}",
     "\"n\":3|\"logprobs\":true|\"top_logprobs\":2|\"stream\":true|\"include_usage\":true"},
    {"somebody", CHAT, HI ",\"frequency_penalty\":0.5,\"presence_penalty\":-1,\"user\":\"u\"}",
     "\"frequency_penalty\":0.5|\"presence_penalty\":-1|!\"user\":"},
    {"somebody", CHAT,
     HI ",\"logit_bias\":{\"5\":-100},\"seed\":7,\"stop\":[\"x\",\"\"],\"max_completion_tokens\":9,"
        "\"top_p\":0.5}",
     "\"logit_bias\":{\"5\":-100}|\"seed\":7|\"stop\":[\"x\"]|\"max_tokens\":9|\"top_p\":0.5"},
    {"somebody", CHAT, HI ",\"seed\":null,\"verbosity\":\"low\",\"guided_regex\":\"a+\"}",
     "\"verbosity\":\"low\"|\"guided_regex\":\"a+\"|!\"seed\""},
    {"somebody", CHAT,
     HI ",\"reasoning_effort\":\"low\",\"chat_template_kwargs\":{\"a\":1.5},"
        "\"enable_thinking\":false}",
     "\"reasoning_effort\":\"low\"|\"chat_template_kwargs\":{\"a\":1.5}|\"enable_thinking\":false"},
    {"somebody", CHAT,
     "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{"
     "\"url\":\"data:image/png;base64,AA\"}}]}]}",
     "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,AA\"}}"},
    {"somebody", CHAT,
     "{\"n\":2,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":"
     "\"http://a\"},\"http://b\",{\"image_url\":{\"url\":\"data:,\",\"detail\":\"low\"}}]}]}",
     "\"text\":\"http://a\"},\"http://b\",{\"image_url\":{\"url\":\"data:,\",\"detail\":\"low\"}}"},
    {"somebody", CHAT,
     "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":"
     "null,\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"f\","
     "\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"3\"}]}",
     "\"tool_calls\":[{\"id\":\"c1\"|\"tool_call_id\":\"c1\""},
    {"somebody", CHAT, HI "," TOOLS ",\"tool_choice\":\"none\"}", "\"tool_choice\":\"none\""},
    {"somebody", TEXT, "{\"prompt\":[\"a\",\"b\"],\"echo\":true,\"best_of\":2,\"n\":2}",
     "\"prompt\":[\"a\",\"b\"]|\"echo\":true|\"best_of\":2|\"n\":2|\"max_tokens\":16"},
    {"somebody", TEXT, "{\"prompt\":[5,6],\"logprobs\":0,\"suffix\":\"z\"}",
     "\"prompt\":[5,6]|\"logprobs\":0|\"suffix\":\"z\""},
    /* names by kind of server */
    {"llamacpp", CHAT, HI ",\"guided_json\":" SCHEMA "}", FORMAT "|!guided"},
    {"llamacpp", CHAT, HI ",\"json_schema\":" SCHEMA ",\"reasoning_effort\":\"low\"}",
     FORMAT "|\"chat_template_kwargs\":{\"reasoning_effort\":\"low\"}|!\"json_schema\":" SCHEMA},
    {"llamacpp", TEXT, "{\"prompt\":\"a\"," FORMAT "}", "\"json_schema\":" SCHEMA "|!response"},
    {"llamacpp", TEXT, "{\"prompt\":\"a\",\"response_format\":{\"type\":\"json_object\"}}",
     "\"json_schema\":" SCHEMA},
    {"llamacpp", CHAT, HI ",\"structured_outputs\":{\"choice\":[\"a\\\"\",\"b\"]}}",
     "\"grammar\":\"root ::= \\\"a\\\\\\\"\\\" | \\\"b\\\"\"|!structured"},
    {"llamacpp", CHAT, HI ",\"ebnf\":\"root ::= x\"," STREAM "}",
     "\"grammar\":\"root ::= x\"|\"return_progress\":true"},
    {"llamacpp", CHAT,
     HI "," TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}}",
     "\"tool_choice\":\"required\"|\"name\":\"g\"|!\"name\":\"f\""},
    {"llamacpp", CHAT,
     HI
     ",\"chat_template_kwargs\":{\"a\":1},\"enable_thinking\":true,\"dry_base\":2,\"mirostat\":1}",
     "\"chat_template_kwargs\":{\"a\":1,\"enable_thinking\":true}|\"dry_base\":2|\"mirostat\":1|"
     "\"temperature\":1|\"top_k\":0|\"repeat_penalty\":1"},
    {"vllm", CHAT,
     HI ",\"guided_json\":\""
        "{}"
        "\"}",
     "\"schema\":{}"},
    {"vllm", CHAT, HI ",\"regex\":\"a+\"}",
     "\"guided_regex\":\"a+\"|\"structured_outputs\":{\"regex\":\"a+\"}|!\"regex\":\"a+\",|"
     "\"top_k\":-1"},
    {"vllm", CHAT, HI ",\"guided_choice\":[\"a\"],\"guided_whitespace_pattern\":\" \"}",
     "\"guided_choice\":[\"a\"]|\"structured_outputs\":{\"choice\":[\"a\"]}|whitespace_pattern"},
    {"vllm", CHAT, HI ",\"enable_thinking\":false,\"reasoning_effort\":\"low\",\"min_tokens\":2}",
     "\"chat_template_kwargs\":{\"enable_thinking\":false}|\"reasoning_effort\":\"low\"|"
     "\"min_tokens\":2"},
    {"sglang", CHAT, HI ",\"guided_grammar\":\"root ::= x\",\"include_stop_str_in_output\":true}",
     "\"ebnf\":\"root ::= x\"|\"no_stop_trim\":true|!include_stop"},
    {"sglang", CHAT, HI ",\"guided_regex\":\"a+\",\"dry_base\":3}", "\"regex\":\"a+\"|!dry_base"},
    {"sglang", TEXT, "{\"prompt\":\"a\",\"json_schema\":\"{}\"}", "\"response_format\""},
    /* another pdd is a server of OpenAI's API for these */
    {"vllm", CHAT, HI ",\"n\":2,\"ban_eos_token\":true,\"min_new_tokens\":4}",
     "\"ignore_eos\":true|\"min_tokens\":4|!ban_eos|!min_new"},
    {"pdd", CHAT, HI ",\"n\":2,\"seed\":9223372036854775806}", "\"seed\":9223372036854775806"},
    {"somebody", CHAT, HI ",\"n\":2,\"seed\":9223372036854775806}", "\"seed\":2147483646"},
    {"pdd", CHAT, HI ",\"n\":2,\"guided_json\":{}}", "\"n\":2|\"guided_json\":{}|\"messages\":[{"},
};

static void test_asked(void **state)
{
    static const char *const owners[] = {"somebody", "llamacpp", "vllm", "sglang", "pdd"};
    (void)state;
    for (size_t k = 0; k < sizeof owners / sizeof *owners; k++) {
        struct script_server a;
        struct site s;
        script_start(&a, owners[k]);
        begin(&s, &a, NULL);
        script_reply_json(&a, WHOLE);
        for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
            struct buf b;
            if (strcmp(asked[i].owner, owners[k]) != 0) continue;
            post(&s, asked[i].path, asked[i].body, &b);
            check_says(&b, "HTTP/1.1 200", true);
            check_parts(a.body, asked[i].want, i);
            buf_release(&b);
        }
        site_stop(&s);
        script_stop(&a);
    }
}

static const struct {
    const char *owner, *path, *body, *param;
} refused[] = {
    {"llamacpp", CHAT, HI ",\"guided_regex\":\"a\"}", "guided_regex"},
    {"llamacpp", CHAT, HI ",\"structured_outputs\":{\"structural_tag\":\"a\"}}",
     "structured_outputs"},
    {"llamacpp", CHAT, HI ",\"min_tokens\":2}", "min_tokens"},
    {"llamacpp", TEXT, "{\"prompt\":\"a\",\"echo\":true}", "echo"},
    {"vllm", CHAT, HI ",\"mirostat\":2}", "mirostat"},
    {"vllm", CHAT, HI ",\"grammar\":\"x\",\"response_format\":{\"type\":\"json_object\"}}",
     "grammar"},
    {"sglang", CHAT, HI ",\"prompt_logprobs\":1}", "prompt_logprobs"},
    {"sglang", CHAT, HI ",\"functions\":[{\"name\":\"f\"}]}", "functions"},
    {"llamacpp", CHAT,
     HI "," TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"h\"}}}",
     "tool_choice"},
    {"somebody", CHAT, HI "," TOOLS ",\"samplers\":[\"top_k\"]}", "samplers"},
    {"somebody", CHAT, HI ",\"n\":0}", "n"},
    {"somebody", CHAT, HI ",\"n\":129}", "n"},
    {"somebody", TEXT, "{\"prompt\":[\"a\",\"b\"],\"n\":2,\"best_of\":65}", "best_of"},
    {"somebody", CHAT,
     "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{"
     "\"url\":\"http://10.0.0.1/\"}}]}]}",
     "messages"},
    {"somebody", CHAT,
     "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"audio_url\",\"audio_url\":"
     "\"file:///etc/passwd\"}]}]}",
     "messages"},
    {"somebody", CHAT,
     "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":["
     "\"data:,\",\"http://10.0.0.1/\"]}]}]}",
     "messages"},
    {"somebody", CHAT,
     "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"image\":"
     "\"http://10.0.0.1/\"}]}]}",
     "messages"},
    {"somebody", CHAT,
     "{\"messages\":[{\"role\":\"tool\",\"content\":[{\"type\":\"tool_result\",\"content\":["
     "{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":\"http://10.0.0.1/\"}}]}]}]}",
     "messages"},
    {"somebody", CHAT, HI ",\"n\":2,\"temperature\":-1}", "temperature"},
    {"somebody", CHAT, HI ",\"n\":2,\"best_of\":3}", "best_of"},
    {"somebody", CHAT, HI "," TOOLS ",\"best_of\":3}", "best_of"},
    {"somebody", CHAT, HI ",\"n\":2,\"stop\":[5]}", "stop"},
    {"somebody", CHAT, "{\"n\":2,\"messages\":[7]}", "messages"},
    {"somebody", TEXT, "{\"n\":2,\"prompt\":{}}", "prompt"},
};

/* Before any server is asked. */
static void test_refused(void **state)
{
    static const char *const owners[] = {"somebody", "llamacpp", "vllm", "sglang"};
    (void)state;
    for (size_t k = 0; k < sizeof owners / sizeof *owners; k++) {
        struct script_server a;
        struct site s;
        script_start(&a, owners[k]);
        begin(&s, &a, NULL);
        for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
            struct buf b;
            char param[100];
            if (strcmp(refused[i].owner, owners[k]) != 0) continue;
            post(&s, refused[i].path, refused[i].body, &b);
            snprintf(param, sizeof param, "\"param\":\"%s\"", refused[i].param);
            check_says(&b, "HTTP/1.1 400", true);
            check_says(&b, param, true);
            buf_release(&b);
        }
        assert_int_equal(atomic_load(&a.requests), 0);
        site_stop(&s);
        script_stop(&a);
    }
}

/* A device takes tokens, so that options of OpenAI's API are none of an assist. */
static void test_assist(void **state)
{
    struct script_server a;
    struct site s;
    struct buf b;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a, NULL);
    post(&s, "/v1/assist", HI ",\"tokens_max\":3," TOOLS "}", &b);
    check_says(&b, "HTTP/1.1 400", true);
    check_says(&b, "tools", true);
    buf_release(&b);
    assert_int_equal(atomic_load(&a.requests), 0);
    site_stop(&s);
    script_stop(&a);
}

/* ---- what comes back ---- */

#define CALL                                                                                       \
    "\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"f\","           \
    "\"arguments\":\"{}\"}}]"
#define MESSAGE                                                                                    \
    "\"message\":{\"role\":\"assistant\",\"content\":null,\"refusal\":\"no\"," CALL                \
    ",\"annotations\":[{\"type\":\"url_citation\"}],\"reasoning\":\"hm\"}"
#define ANSWER                                                                                     \
    "{\"id\":\"theirs\",\"object\":\"chat.completion\",\"model\":\"secret\",\"created\":1,"        \
    "\"system_fingerprint\":\"fp_1\",\"service_tier\":\"x\",\"choices\":[{\"index\":0," MESSAGE    \
    ",\"logprobs\":{\"content\":[{\"token\":\"a\",\"logprob\":-0.5}]},\"finish_reason\":"          \
    "\"tool_calls\"},{\"index\":1,\"message\":{\"content\":\"b\"},\"finish_reason\":"              \
    "\"content_filter\"}],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":5,"                \
    "\"total_tokens\":16}}"

/* Whole answers, as such and to a client that wants a stream. */
static void test_whole_answers(void **state)
{
    struct script_server a;
    struct site s;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a, NULL);
    for (int i = 0; i < 6; i++) {
        static const char *const types[] = {"application/json", "", "text/event-stream"};
        bool streams = i % 2;
        struct buf b;
        script_say_all(&a, types[i / 2], ANSWER);
        post(&s, CHAT,
             streams ? HI ",\"n\":2," STREAM ",\"stream_options\":{\"include_usage\":true}}"
                     : HI ",\"n\":2}",
             &b);
        static const char *const parts[] = {"\"id\":\"chatcmpl-",
                                            "\"model\":\"m\"",
                                            "\"system_fingerprint\":\"fp_1\"",
                                            "\"service_tier\":\"x\"",
                                            "\"refusal\":\"no\"",
                                            "\"url_citation\"",
                                            "\"reasoning_content\":\"hm\"",
                                            "\"id\":\"c1\"",
                                            "\"logprob\":-0.5",
                                            "\"finish_reason\":\"tool_calls\"",
                                            "\"finish_reason\":\"content_filter\"",
                                            "\"index\":1",
                                            "\"completion_tokens\":5"};
        for (size_t k = 0; k < sizeof parts / sizeof *parts; k++)
            check_says(&b, parts[k], true);
        check_says(&b, "theirs", false);
        check_says(&b, "secret", false);
        check_says(&b, "\"delta\":", streams);
        check_says(&b, "\"message\":", !streams);
        check_says(&b, "data: [DONE]", streams);
        if (streams) check_says(&b, "\"choices\":[],\"usage\":{\"prompt_tokens\":11", true);
        buf_release(&b);
    }
    site_stop(&s);
    script_stop(&a);
}

#define NAME "\"tool_calls\":[{\"index\":0,\"id\":\"c1\",\"function\":{\"name\":\"f\"}}]"
#define PART "\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{}\"}}]"
#define TWO_CHOICES                                                                                \
    CHUNK(DELTA("0", "\"role\":\"assistant\",\"content\":\"\""))                                   \
    ": ping\n\n" CHUNK("") CHUNK(DELTA("0", NAME) "," DELTA("1", "\"content\":\"b\""))             \
        CHUNK(DELTA("0", PART)) CHUNK(END("0", "tool_calls"))                                      \
            CHUNK(DELTA("1", "\"reasoning\":\"r\"")) CHUNK(END("1", "length"))
#define COUNTS "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":9}}\n\n"

static const struct {
    const char *stream;
    bool whole;
} streams[] = {
    {TWO_CHOICES COUNTS "data: [DONE]\n\n", true},
    {TWO_CHOICES "data: [DONE]\n\n" COUNTS, true},
    {TWO_CHOICES COUNTS, true}, /* no [DONE] */
    {TWO_CHOICES, true},
    {CHUNK(DELTA("0", NAME)) CHUNK(DELTA("0", PART))
         CHUNK(END("0", "tool_calls")) "data: [DONE]\n\n",
     true}, /* one choice of the two: as the server will have it */
    {CHUNK(DELTA("0", NAME)) CHUNK(DELTA("0", PART)) CHUNK(END("0", "tool_calls")), true},
    {CHUNK(DELTA("0", NAME) "," DELTA("1", PART)) CHUNK(END("0", "tool_calls")), false},
    {CHUNK(DELTA("0", NAME) "," DELTA("1", PART)) CHUNK(END("0", "tool_calls")) "data: [DONE]\n\n",
     false},
    {CHUNK(DELTA("0", NAME) "," DELTA("1", PART)) "data: {\"error\":{\"message\":\"out\"}}\n\n",
     false},
    {CHUNK(DELTA("0", NAME) "," DELTA("1", PART)) "event: error\ndata: out of memory\n\n", false},
    {CHUNK(DELTA("0", NAME)) CHUNK("{\"index\":1,\"finish_reason\":\"error\"}"), false},
    {CHUNK(DELTA("0", NAME)) "data: {\"choices\": what\n\n", false},
    /* a choice that nobody asked for, or without a number */
    {CHUNK(DELTA("0", NAME)) CHUNK(DELTA("2", "\"content\":\"no\"")) CHUNK(END("2", "stop")),
     false},
    {CHUNK(DELTA("0", NAME)) CHUNK(DELTA("\"0\"", "\"content\":\"no\"")) CHUNK(END("0", "stop")),
     false},
    /* one that goes on after its end */
    {CHUNK(DELTA("0", NAME)) CHUNK(END("0", "stop")) CHUNK(DELTA("0", "\"content\":\"no\""))
         CHUNK(END("0", "length") "," DELTA("1", "\"content\":\"b\"")) CHUNK(END("1", "stop")),
     true},
    {CHUNK("{\"delta\":{" NAME "}}") CHUNK("{\"delta\":null,\"finish_reason\":\"stop\"}"), true},
};

static void test_streams(void **state)
{
    struct script_server a;
    struct site s;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a, NULL);
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
        struct buf b;
        script_say_all(&a, NULL, streams[i].stream);
        post(&s, CHAT, HI ",\"n\":2," TOOLS "," STREAM "}", &b);
        if ((strstr(b.data, "\"error\":{") == NULL) != streams[i].whole)
            fail_msg("%zu: %s", i, b.data);
        check_says(&b, "data: [DONE]\n\n", true);
        check_says(&b, "\"role\":\"assistant\"", true);
        check_says(&b, "\"id\":\"c1\"", true);
        check_says(&b, "usage", false);
        check_says(&b, "theirs", false);
        check_says(&b, "\"no\"", false);
        check_says(&b, "\"delta\":null", false);
        if (strstr(streams[i].stream, "[{\"delta\":")) check_says(&b, "},\"index\":0}", true);
        if (i < 4) {
            check_says(&b, "\"arguments\":\"{}\"", true);
            check_says(&b, "\"reasoning_content\":\"r\"", true);
            check_says(&b, "\"finish_reason\":\"length\"", true);
        }
        buf_release(&b);
    }
    struct buf b; /* counts of our own, where the server has none */
    script_say_all(&a, NULL, TWO_CHOICES);
    post(&s, CHAT, HI ",\"n\":2," STREAM ",\"stream_options\":{\"include_usage\":true}}", &b);
    check_says(&b, "\"choices\":[],\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":4", true);
    buf_release(&b);
    site_stop(&s);
    script_stop(&a);
}

/* A whole answer whose choices are none, or others than were asked for. */
static void test_strange_answers(void **state)
{
    static const char *const answers[] = {
        "{\"choices\":[null]}",
        "{\"choices\":[{\"index\":0,\"message\":\"b\"}]}",
        "{\"choices\":[{\"index\":2,\"message\":{\"content\":\"b\"}}]}",
        "{\"choices\":[{\"index\":\"0\",\"message\":{\"content\":\"b\"}}]}",
        "{\"choices\":[{\"message\":{\"content\":\"b\"}},{\"index\":-1,\"message\":{}}]}",
    };
    struct script_server a;
    struct site s;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a, NULL);
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        struct buf b;
        script_say_all(&a, "application/json", answers[i]);
        post(&s, CHAT, HI ",\"n\":2}", &b);
        check_says(&b, "HTTP/1.1 502", true);
        check_says(&b, "malformed", true);
        buf_release(&b);
    }
    site_stop(&s);
    script_stop(&a);
}

/* Each answer of a request is a stream of its key, as those that are computed here. */
static void test_key_streams(void **state)
{
    char path[] = "/tmp/pdd-pass-keysXXXXXX";
    static const char two[] = HI ",\"n\":2," STREAM "}", one[] = HI ",\"n\":1," TOOLS "}";
    struct key_line line = {.name = "ann", .limits = {.streams_max = 3}};
    struct script_server a;
    struct site s;
    struct client c;
    (void)state;
    site_key_file(path, "key-a", line);
    script_start(&a, "somebody");
    begin_with(&s, &a, NULL, path);
    atomic_store(&a.how, SCRIPT_SAY);
    atomic_store(&a.saying, CHUNK(DELTA("0", "\"content\":\"b\"")));
    client_open(&c, s.port);
    client_send(&c, "POST", CHAT, "key-a", two, strlen(two));
    assert_true(raw_readable(c.fd, RAW_WAIT_MS)); /* it has begun, and goes on */
    assert_int_equal(site_ask(&s, "POST", CHAT, "key-a", HI ",\"n\":4}", NULL), 400);
    assert_int_equal(site_ask(&s, "POST", CHAT, "key-a", two, NULL), 429);
    static const char best4[] = "{\"prompt\":\"a\",\"best_of\":4}",
                      best2[] = "{\"prompt\":\"a\",\"best_of\":2}";
    assert_int_equal(site_ask(&s, "POST", TEXT, "key-a", best4, NULL), 400);
    assert_int_equal(site_ask(&s, "POST", TEXT, "key-a", best2, NULL), 429);
    script_reply_json(&a, WHOLE);
    assert_int_equal(site_ask(&s, "POST", CHAT, "key-a", one, NULL), 200); /* one is left */
    assert_int_equal(site_ask(&s, "POST", CHAT, "key-a", one, NULL), 200);
    client_close(&c);
    for (uint64_t until = clock_us() + SITE_WAIT_US;;) { /* all are free again */
        int status = site_ask(&s, "POST", CHAT, "key-a", HI ",\"n\":3}", NULL);
        if (status == 200) break;
        assert_int_equal(status, 429);
        assert_true(clock_us() < until);
        clock_sleep_us(2000);
    }
    site_stop(&s);
    script_stop(&a);
    unlink(path);
}

/* llama-server gives completions log-probabilities in the form of chats. */
static void test_completion_logprobs(void **state)
{
    struct script_server a;
    struct site s;
    struct buf b;
    (void)state;
    script_start(&a, "llamacpp");
    begin(&s, &a, NULL);
    script_reply_json(&a, "{\"choices\":[{\"text\":\"ab\",\"index\":0,\"logprobs\":{\"content\":["
                          "{\"token\":\"a\",\"logprob\":-1,\"top_logprobs\":[{\"token\":\"a\","
                          "\"logprob\":-1},{\"token\":\"x\",\"logprob\":-2}]},"
                          "{\"token\":\"b\",\"logprob\":-3}]},\"finish_reason\":\"length\"}]}");
    post(&s, TEXT, "{\"prompt\":\"p\",\"logprobs\":2}", &b);
    check_says(&b,
               "\"logprobs\":{\"tokens\":[\"a\",\"b\"],\"token_logprobs\":[-1,-3],"
               "\"top_logprobs\":[{\"a\":-1,\"x\":-2},{}]}",
               true);
    buf_release(&b);
    site_stop(&s);
    script_stop(&a);
}

/* A server that dies before it said anything: the other one answers. After it: an error. */
static void test_deaths(void **state)
{
    struct script_server a, c;
    struct site s;
    struct buf b;
    (void)state;
    script_start(&a, "somebody");
    script_start(&c, "somebody");
    begin(&s, &a, &c);
    struct script_server *all[] = {&a, &c};
    for (int i = 0; i < 2; i++)
        script_say_all(all[i], NULL, CHUNK(DELTA("0", "\"role\":\"assistant\",\"content\":\"\"")));
    post(&s, CHAT, HI "," TOOLS "," STREAM "}", &b); /* both */
    check_says(&b, "earlier than the answer", true);
    check_says(&b, "\"error\":{", true);
    buf_release(&b);
    assert_int_equal(atomic_load(&a.requests) + atomic_load(&c.requests), 2);
    post(&s, CHAT, HI "," TOOLS "}", &b); /* each streams unasked */
    check_says(&b, "HTTP/1.1 502", true);
    buf_release(&b);
    for (int i = 0; i < 2; i++) { /* one of them */
        script_say_all(all[i], NULL,
                       CHUNK(DELTA("0", "\"content\":\"well\"")) CHUNK(END("0", "stop")));
        script_say_all(all[1 - i], NULL, CHUNK(DELTA("0", "\"role\":\"assistant\"")));
        post(&s, CHAT, HI "," TOOLS "," STREAM "}", &b);
        check_says(&b, "\"content\":\"well\",\"role\":\"assistant\"", true);
        check_says(&b, "\"error\":{", false);
        buf_release(&b);
    }
    site_stop(&s);
    script_stop(&a);
    script_stop(&c);
}

/* A server that heeds no limit is not read for ever, and one whose client has left is let go. */
static void test_endless(void **state)
{
    struct script_server a;
    struct site s;
    struct buf b;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a, NULL);
    atomic_store(&a.how, SCRIPT_MANY);
    post(&s, CHAT, HI "," TOOLS ",\"max_tokens\":3," STREAM "}", &b);
    check_says(&b, "beyond max_tokens", true);
    buf_release(&b);
    post(&s, CHAT, HI "," TOOLS "," STREAM "}", &b); /* its own limit counts, then ours */
    check_parts(a.body, "!max_tokens", 0);
    check_says(&b, "\"finish_reason\":\"length\"", true);
    check_says(&b, "\"error\":{", false);
    buf_release(&b);
    post(&s, CHAT, HI "," STREAM "}", &b); /* the same, where nothing is passed on */
    check_parts(a.body, "!max_tokens", 0);
    check_says(&b, "\"finish_reason\":\"length\"", true);
    buf_release(&b);
    struct client c;
    client_open(&c, s.port);
    const char *ask = HI "," TOOLS ",\"max_tokens\":4000," STREAM "}";
    client_send(&c, "POST", CHAT, NULL, ask, strlen(ask));
    assert_true(raw_readable(c.fd, RAW_WAIT_MS)); /* it has begun */
    client_close(&c);
    uint64_t until = clock_us() + SITE_WAIT_US;
    while (atomic_load(&a.closed) < 4) {
        assert_true(clock_us() < until);
        clock_sleep_us(2000);
    }
    site_stop(&s);
    script_stop(&a);
}

/* ---- faults ---- */

#define FASTAPI                                                                                    \
    "{\"detail\":[{\"type\":\"x\",\"loc\":[\"body\",\"tools\",0,\"function\"],\"msg\":"            \
    "\"Field required\"}]}"

static const struct {
    int status, want;
    const char *type, *says, *location;
    const char *parts[3];
} faults[] = {
    {400,
     400,
     "application/json",
     "{\"error\":{\"message\":\"Unsupported parameter\",\"param\":\"tools\",\"code\":"
     "\"unsupported_parameter\"}}",
     NULL,
     {"\"param\":\"tools\"", "\"code\":\"unsupported_parameter\"", "Unsupported parameter"}},
    {422, 422, "application/json", FASTAPI, NULL, {"\"param\":\"tools\"", "Field required", NULL}},
    {400,
     400,
     "application/json",
     "{\"error\":{\"message\":\"unknown field tools\"}}",
     NULL,
     {"\"param\":\"tools\"", "unknown field tools", NULL}},
    {400, 400, "text/plain", "no tools here", NULL, {"no tools here", "\"param\":null", NULL}},
    {429,
     429,
     "application/json",
     "{\"error\":{\"message\":\"slow down\"}}",
     NULL,
     {"slow down", "Retry-After: ", "rate_limit_error"}},
    {503,
     503,
     "text/html",
     "<html><head><title>503 Busy</title>",
     NULL,
     {"an HTML page titled \\\"503 Busy\\\"", "Retry-After: ", NULL}},
    {502,
     502,
     "text/html",
     "<html><head><title>Bad\nGateway</title>",
     NULL,
     {"answered 502: an HTML page titled \\\"Bad Gateway\\\"", NULL, NULL}},
    {307,
     502,
     "text/html",
     "<html>",
     "https://login.example/x",
     {"answered 307: the network asks for a log-in page: https://login.example/x", NULL, NULL}},
    {302, 502, "text/html", "<html>", NULL, {"answered 302: an HTML page", NULL, NULL}},
    {200,
     502,
     "text/html",
     "<html><title>Hotel</title>",
     NULL,
     {"an HTML page titled \\\"Hotel\\\"", "log-in page: http://127.0.0.1:", NULL}},
    {200,
     502,
     "application/json",
     "{\"error\":{\"message\":\"no GPU\"}}",
     NULL,
     {"no GPU", NULL, NULL}},
    {200, 502, "application/json", "{\"hello\":1}", NULL, {"no choices", NULL, NULL}},
    {200, 502, "application/json", "{\"cho", NULL, {"no JSON object", NULL, NULL}},
    {200, 502, "application/json", "", NULL, {"earlier than the answer", NULL, NULL}},
};

/* Each is asked once: none goes again without its tools. */
static void test_faults(void **state)
{
    struct script_server a;
    struct site s;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a, NULL);
    atomic_store(&a.how, SCRIPT_REPLY);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct buf b;
        char status[32];
        uint32_t before = atomic_load(&a.requests);
        atomic_store(&a.status, faults[i].status);
        atomic_store(&a.saying_type, faults[i].type);
        atomic_store(&a.saying, faults[i].says);
        atomic_store(&a.location, faults[i].location);
        site_await_ready(&s, 200);
        post(&s, CHAT, HI "," TOOLS "}", &b);
        snprintf(status, sizeof status, "HTTP/1.1 %d", faults[i].want);
        check_says(&b, status, true);
        for (size_t k = 0; k < 3 && faults[i].parts[k]; k++)
            check_says(&b, faults[i].parts[k], true);
        assert_int_equal(atomic_load(&a.requests), before + 1);
        buf_release(&b);
    }
    site_stop(&s);
    script_stop(&a);
}

/* What changes nothing that a client relies on goes when it is refused; tools stay. */
static void test_without(void **state)
{
    struct script_server a;
    struct site s;
    struct buf b;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a, NULL);
    script_reply_json(&a, WHOLE);
    a.refuses[0].field = "\"max_tokens\"";
    a.refuses[0].answer = "{\"error\":{\"message\":\"Unsupported parameter: 'max_tokens'. Use "
                          "'max_completion_tokens' instead.\",\"param\":\"max_tokens\"}}";
    a.refuses[1].field = "\"temperature\"";
    a.refuses[1].answer = "{\"error\":{\"message\":\"Unsupported value: temperature does not "
                          "support 0.5\",\"param\":\"temperature\"}}";
    post(&s, CHAT, HI "," TOOLS ",\"max_tokens\":3,\"temperature\":0.5}", &b);
    check_says(&b, "HTTP/1.1 200", true);
    check_parts(a.body, "\"max_completion_tokens\":3|!temperature|" TOOLS, 0);
    assert_int_equal(atomic_load(&a.requests), 3);
    buf_release(&b);
    site_stop(&s);
    script_stop(&a);
}

/* A plain chat: an answer that came whole, another reason than stop, the server's fingerprint. */
static void test_plain(void **state)
{
    static const char whole[] =
        "{\"system_fingerprint\":\"fp_1\",\"choices\":[{\"index\":0,\"message\":{\"content\":"
        "\"Hello\",\"reasoning_content\":\"hm\"},\"finish_reason\":\"content_filter\"}],"
        "\"usage\":{\"prompt_tokens\":11}}";
    struct script_server a;
    struct site s;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a, NULL);
    script_say_all(&a, "application/json", whole);
    for (int i = 0; i < 2; i++) {
        struct buf b;
        post(&s, CHAT, i ? HI "," STREAM "}" : HI "}", &b);
        check_says(&b, "\"content\":\"Hello\"", true);
        check_says(&b, "\"reasoning_content\":\"hm\"", true);
        check_says(&b, "\"finish_reason\":\"content_filter\"", true);
        check_says(&b, "\"system_fingerprint\":\"fp_1\"", true);
        if (!i) check_says(&b, "\"prompt_tokens\":11", true);
        buf_release(&b);
    }
    site_stop(&s);
    script_stop(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_asked),           cmocka_unit_test(test_refused),
        cmocka_unit_test(test_assist),          cmocka_unit_test(test_whole_answers),
        cmocka_unit_test(test_streams),         cmocka_unit_test(test_completion_logprobs),
        cmocka_unit_test(test_strange_answers), cmocka_unit_test(test_key_streams),
        cmocka_unit_test(test_deaths),          cmocka_unit_test(test_endless),
        cmocka_unit_test(test_faults),          cmocka_unit_test(test_without),
        cmocka_unit_test(test_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
