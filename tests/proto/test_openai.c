/*
 * test_openai: OpenAI's bodies, read; answers, written; stop strings, found.
 *
 * Catches: a field that is read as another, or not at all; one that would change the answer and is
 * ignored; a refusal that does not name its field; a stop string that depends on where the text was
 * cut.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "proto/openai.h"
#include "proto/openai_fields.h"
#include "proto/stop.h"

#define ASK "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"

enum { ROOM = 1 << 20 };

static const struct {
    bool chat;
    int code;
    const char *json, *param;
} refused_cases[] = {
    {true, ERR_BAD_INPUT, "", ""},
    {true, ERR_BAD_INPUT, "[1]", ""},
    {true, ERR_BAD_INPUT, "\xFF\xFE{", ""},
    {true, ERR_BAD_INPUT, "{\"n\":1,\"n\":1," ASK "}", ""},
    {true, ERR_BAD_INPUT, "{}", "messages"},
    {true, ERR_BAD_INPUT, "{\"messages\":null}", "messages"},
    {true, ERR_BAD_INPUT, "{\"messages\":[1]}", "messages"},
    {true, ERR_BAD_INPUT, "{\"messages\":[{\"content\":\"x\"}]}", "messages"},
    {true, ERR_BAD_INPUT, "{\"messages\":[{\"role\":\"a\\u0000\",\"content\":\"x\"}]}", "messages"},
    {true, ERR_BAD_INPUT, "{\"messages\":[{\"role\":\"user\"}]}", "messages"},
    {true, ERR_UNSUPPORTED,
     "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", "messages"},
    {true, ERR_UNSUPPORTED,
     "{\"messages\":[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{}]}]}", "messages"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"model\":7}", "model"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"temperature\":-0.1}", "temperature"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"temperature\":\"1\"}", "temperature"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"top_p\":1.1}", "top_p"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"top_k\":-2}", "top_k"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"min_p\":1}", "min_p"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"seed\":1.5}", "seed"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"stream\":1}", "stream"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"stream_options\":{\"include_usage\":true}}",
     "stream_options"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"max_tokens\":0}", "max_tokens"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"max_completion_tokens\":1.5}", "max_completion_tokens"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"max_tokens\":-2}", "max_tokens"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"max_tokens\":6.5}", "max_tokens"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"max_tokens\":1e300}", "max_tokens"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"top_k\":99999999999999999999}", "top_k"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"max_tokens\":\"6\"}", "max_tokens"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"n_predict\":0.0}", "n_predict"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"top_k\":40.25}", "top_k"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"repetition_penalty\":0}", "repetition_penalty"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"repeat_penalty\":\"1\"}", "repeat_penalty"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"repeat_last_n\":-2}", "repeat_last_n"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"n\":2.5}", "n"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"stop\":[1]}", "stop"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"logprobs\":3}", "logprobs"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"top_logprobs\":3}", "top_logprobs"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"logprobs\":true,\"top_logprobs\":21}", "top_logprobs"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"n\":0}", "n"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"n\":129}", "n"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"n\":true}", "n"},
    {true, ERR_UNSUPPORTED, "{" ASK ",\"n\":2,\"best_of\":3}", "best_of"},
    {true, ERR_UNSUPPORTED, "{" ASK ",\"echo\":true}", "echo"},
    {true, ERR_UNSUPPORTED, "{" ASK ",\"tools\":[{}]}", "tools"},
    {true, ERR_UNSUPPORTED, "{" ASK ",\"tool_choice\":\"required\"}", "tool_choice"},
    {true, ERR_UNSUPPORTED, "{" ASK ",\"response_format\":{\"type\":\"json_schema\"}}",
     "response_format"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"frequency_penalty\":2.5}", "frequency_penalty"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"frequency_penalty\":\"0\"}", "frequency_penalty"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"presence_penalty\":-2.01}", "presence_penalty"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"presence_penalty\":true}", "presence_penalty"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"logit_bias\":{\"5\":101}}", "logit_bias"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"logit_bias\":{\"-5\":1}}", "logit_bias"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"logit_bias\":{\"05\":1}}", "logit_bias"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"logit_bias\":{\"word\":1}}", "logit_bias"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"logit_bias\":{\"5\":true}}", "logit_bias"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"logit_bias\":5}", "logit_bias"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"logit_bias\":[[\"word\",1]]}", "logit_bias"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"logit_bias\":[[5]]}", "logit_bias"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"logit_bias\":[[5,1],[5,2]]}", "logit_bias"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"logit_bias\":[5,1]}", "logit_bias"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"ignore_eos\":1}", "ignore_eos"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"min_tokens\":-1}", "min_tokens"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"min_tokens\":1.5}", "min_tokens"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"min_tokens\":4,\"max_tokens\":3}", "min_tokens"},
    {true, ERR_UNSUPPORTED, "{" ASK ",\"audio\":{}}", "audio"},
    {true, ERR_UNSUPPORTED, "{" ASK ",\"modalities\":[\"text\",\"audio\"]}", "modalities"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"reasoning_effort\":1}", "reasoning_effort"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"enable_thinking\":\"no\"}", "enable_thinking"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"chat_template_kwargs\":[1]}", "chat_template_kwargs"},
    {true, ERR_BAD_INPUT, "{" ASK ",\"tools\":[{}],\"tool_choice\":\"none\"}", "tools"},
    {true, ERR_BAD_INPUT,
     "{\"messages\":[{\"role\":\"tool\",\"content\":\"\",\"tool_call_id\":1}]}", "messages"},
    {true, ERR_UNSUPPORTED, "{" ASK ",\"guided_json\":{}}", "guided_json"},
    {false, ERR_BAD_INPUT, "{}", "prompt"},
    {false, ERR_BAD_INPUT, "{\"prompt\":7}", "prompt"},
    {false, ERR_BAD_INPUT, "{\"prompt\":[]}", "prompt"},
    {false, ERR_BAD_INPUT, "{\"prompt\":[[]]}", "prompt"},
    {false, ERR_BAD_INPUT, "{\"prompt\":[1,-1]}", "prompt"},
    {false, ERR_BAD_INPUT, "{\"prompt\":[1.5]}", "prompt"},
    {false, ERR_BAD_INPUT, "{\"prompt\":[\"a\",7]}", "prompt"},
    {false, ERR_BAD_INPUT, "{\"prompt\":[\"a\",null]}", "prompt"},
    {false, ERR_BAD_INPUT, "{\"prompt\":[[1],[]]}", "prompt"},
    {false, ERR_BAD_INPUT, "{\"prompt\":[[1],[2,-1]]}", "prompt"},
    {false, ERR_BAD_INPUT, "{\"prompt\":[\"a\",\"b\"],\"n\":65}", "n"},
    {false, ERR_BAD_INPUT, "{\"prompt\":\"a\",\"logprobs\":6}", "logprobs"},
    {false, ERR_BAD_INPUT, "{\"prompt\":\"a\",\"logprobs\":true}", "logprobs"},
    {false, ERR_BAD_INPUT, "{\"prompt\":\"a\",\"echo\":1}", "echo"},
    {false, ERR_UNSUPPORTED, "{\"prompt\":\"a\",\"echo\":true,\"logprobs\":1}", "echo"},
    {false, ERR_UNSUPPORTED, "{\"prompt\":\"a\",\"best_of\":2}", "best_of"},
    {false, ERR_UNSUPPORTED, "{\"prompt\":\"a\",\"suffix\":\"b\"}", "suffix"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused_cases / sizeof *refused_cases; i++) {
        struct openai_request r;
        struct err e = ERR_INIT;
        char param[OPENAI_PARAM_MAX];
        const char *json = refused_cases[i].json;
        int code = openai_request_decode(json, strlen(json), refused_cases[i].chat, &r, param, &e);
        if (code != refused_cases[i].code || strcmp(param, refused_cases[i].param) != 0)
            fail_msg("%s: %d, param '%s': %s", json, code, param, e.text);
    }
}

/* Memory of a few bytes of JSON each: a body of 16 MB would take a gigabyte, and seconds. What a
 * request can need must pass: as many ids as a prompt may have. */
static void test_bombs(void **state)
{
    static const struct {
        const char *unit;
        int code;
        size_t n;
    } cases[] = {
        {"{}", ERR_BAD_INPUT, 5 << 20},     {"[]", ERR_BAD_INPUT, 5 << 20},
        {"0", ERR_BAD_INPUT, 8 << 20},      {"\"\"", ERR_BAD_INPUT, 5 << 20},
        {"\"{},[{},\\\"{},\"", 0, 1 << 18}, /* no parts, but a text */
        {"1", 0, WIRE_PROMPT_MAX},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct openai_request r;
        struct err e = ERR_INIT;
        char param[OPENAI_PARAM_MAX];
        struct buf b;
        buf_init(&b, WIRE_BODY_MAX + 64);
        assert_int_equal(buf_puts(&b, "{\"prompt\":[1],\"x\":["), 0);
        for (size_t k = 0; k < cases[i].n; k++)
            assert_int_equal(buf_puts(&b, cases[i].unit) || buf_putc(&b, ','), 0);
        assert_int_equal(buf_puts(&b, "0]}"), 0);
        int code = openai_request_decode(b.data, b.len, false, &r, param, &e);
        if (code != cases[i].code) fail_msg("%s: %d %s", cases[i].unit, code, e.text);
        if (code)
            assert_non_null(strstr(e.text, "too many"));
        else
            openai_request_release(&r);
        buf_release(&b);
    }
}

/* The rows of openai_fields.h that are no code: for each neutral value that it is taken, and of the
 * others that one which changes something is refused by name, with its remedy. */
enum kept_out { REFUSED_ROW, IGNORED_ROW, SERVED_ROW };

static const struct {
    const char *name;
    enum openai_where where;
    enum kept_out kept_out;
    enum openai_neutral neutral;
    const char *instead;
} table[] = {
#define PLAIN(NAME, WHERE, TYPE, MAX, LOW, HIGH, MEMBER, NOTE)                                     \
    {NAME, OPENAI_IN_##WHERE, SERVED_ROW, OPENAI_NEUTRAL_NOTHING, NOTE},
#define TAKE(NAME, WHERE, FUNCTION, NOTE)                                                          \
    {NAME, OPENAI_IN_##WHERE, SERVED_ROW, OPENAI_NEUTRAL_NOTHING, NOTE},
#define SEE(NAME, WHERE, NOTE) {NAME, OPENAI_IN_##WHERE, SERVED_ROW, OPENAI_NEUTRAL_NOTHING, NOTE},
#define PASS(NAME, WHERE, NEUTRAL, NOTE)                                                           \
    {NAME, OPENAI_IN_##WHERE, REFUSED_ROW, OPENAI_NEUTRAL_##NEUTRAL, NOTE},
#define REFUSE(NAME, WHERE, NEUTRAL, NOTE)                                                         \
    {NAME, OPENAI_IN_##WHERE, REFUSED_ROW, OPENAI_NEUTRAL_##NEUTRAL, NOTE},
#define IGNORE(NAME, WHERE, NOTE)                                                                  \
    {NAME, OPENAI_IN_##WHERE, IGNORED_ROW, OPENAI_NEUTRAL_NOTHING, NOTE},
    OPENAI_FIELDS(PLAIN, TAKE, SEE, PASS, REFUSE, IGNORE)};

static int decode_with(const char *name, const char *value, bool chat, struct err *e)
{
    struct openai_request r;
    char json[256], param[OPENAI_PARAM_MAX];
    snprintf(json, sizeof json, "{%s,\"%s\":%s}", chat ? ASK : "\"prompt\":\"a\"", name, value);
    *e = (struct err)ERR_INIT;
    int code = openai_request_decode(json, strlen(json), chat, &r, param, e);
    if (!code) openai_request_release(&r);
    if (code && strcmp(param, name) != 0) fail_msg("%s: param '%s'", json, param);
    return code;
}

static void check_row(size_t i, bool chat)
{
    static const char *const neutral[][2] = {
        [OPENAI_NEUTRAL_NOTHING] = {"null", "{\"a\":1}"},
        [OPENAI_NEUTRAL_ZERO] = {"0.0", "-1"},
        [OPENAI_NEUTRAL_OFF] = {"-1", "0.5"},
        [OPENAI_NEUTRAL_ONE] = {"1.0", "2"},
        [OPENAI_NEUTRAL_FALSE] = {"false", "true"},
        [OPENAI_NEUTRAL_TRUE] = {"true", "false"},
        [OPENAI_NEUTRAL_EMPTY] = {"[]", "[1]"},
        [OPENAI_NEUTRAL_TEXT_TYPE] = {"{\"type\":\"text\"}", "{\"type\":\"json_object\"}"},
        [OPENAI_NEUTRAL_NO_CALL] = {"\"auto\"", "\"required\""},
        [OPENAI_NEUTRAL_TEXT_ALONE] = {"[\"text\"]", "[\"text\",\"audio\"]"},
    };
    const char *name = table[i].name;
    struct err e;
    if (table[i].kept_out == IGNORED_ROW) {
        assert_int_equal(decode_with(name, "7", chat, &e), 0);
        return;
    }
    if (decode_with(name, neutral[table[i].neutral][0], chat, &e)) fail_msg("%s: %s", name, e.text);
    if (decode_with(name, neutral[table[i].neutral][1], chat, &e) != ERR_UNSUPPORTED)
        fail_msg("%s: not refused", name);
    if (!strstr(e.text, name)) fail_msg("%s: its sentence does not name it: %s", name, e.text);
    if (!strstr(e.text, table[i].instead[0] ? table[i].instead : "leave it out"))
        fail_msg("%s: no remedy in: %s", name, e.text);
}

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        for (size_t k = 0; k < i; k++)
            if (strcmp(table[i].name, table[k].name) == 0 && (table[i].where & table[k].where))
                fail_msg("%s stands twice", table[i].name);
        if (table[i].kept_out == SERVED_ROW) continue;
        if (table[i].where & OPENAI_IN_CHAT) check_row(i, true);
        if (table[i].where & OPENAI_IN_COMPLETION) check_row(i, false);
    }
}

/* What llama-server's clients read; and nothing of it unless it is there. */
static void test_timings(void **state)
{
    struct openai_timings t = {
        .cached = 4, .prompt = 10, .predicted = 3, .prompt_us = 5000, .predicted_us = 1500};
    struct openai_progress p = {.total = 14, .cached = 4, .processed = 9, .us = 2999};
    struct openai_head h = {.chat = true, .id = "i", .model = "m", .fingerprint = ""};
    struct openai_choice c = {.text = "x", .text_len = 1};
    struct openai_usage u = {.prompt_tokens = 14};
    struct buf b;
    (void)state;
    buf_init(&b, ROOM);
    openai_put_chunk(&b, &h, &c, false);
    openai_put_answer(&b, &h, &c, 1, &u);
    assert_null(strstr(b.data, "timings"));
    assert_null(strstr(b.data, "prompt_progress"));
    h.timings = &t;
    buf_clear(&b);
    openai_put_answer(&b, &h, &c, 1, &u);
    assert_non_null(strstr(b.data,
                           ",\"timings\":{\"cache_n\":4,\"prompt_n\":10,\"prompt_ms\":5.000,"
                           "\"prompt_per_token_ms\":0.500,\"prompt_per_second\":2000.000,"
                           "\"predicted_n\":3,\"predicted_ms\":1.500,"
                           "\"predicted_per_token_ms\":0.500,"
                           "\"predicted_per_second\":2000.000}}"));
    t = (struct openai_timings){.cached = 0};
    h.progress = &p;
    buf_clear(&b);
    openai_put_chunk(&b, &h, &c, true);
    assert_non_null(strstr(b.data,
                           "\"predicted_per_token_ms\":0.000,\"predicted_per_second\":0.000}"
                           ",\"prompt_progress\":{\"total\":14,\"cache\":4,\"processed\":9,"
                           "\"time_ms\":2},\"usage\":null}\n\n"));
    buf_release(&b);
}

static void decode(const char *json, bool chat, struct openai_request *r)
{
    struct err e = ERR_INIT;
    char param[OPENAI_PARAM_MAX];
    if (openai_request_decode(json, strlen(json), chat, r, param, &e))
        fail_msg("%s: %s", json, e.text);
    assert_string_equal(param, "");
}

static void test_taken(void **state)
{
    (void)state;
    struct openai_request r;
    decode("{\"model\":\"m\",\"messages\":[{\"role\":\"developer\",\"content\":\"a\\u0000b\","
           "\"name\":\"me\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"c\"},"
           "{\"type\":\"text\",\"text\":\"d\"}]},{\"role\":\"assistant\",\"content\":[]}],"
           "\"temperature\":0.5,\"top_p\":0.25,\"top_k\":7,\"min_p\":0.125,\"seed\":-1,"
           "\"max_tokens\":5,\"max_completion_tokens\":6,\"stop\":[\"s\",\"tt\"],\"stream\":true,"
           "\"stream_options\":{\"include_usage\":true,\"include_obfuscation\":false},"
           "\"logprobs\":true,\"top_logprobs\":4}",
           true, &r);
    assert_string_equal(r.ask.model, "m");
    assert_int_equal(r.ask.n_messages, 3);
    assert_string_equal(r.ask.messages[0].role, "system");
    assert_int_equal(r.ask.messages[0].content_len, 3);
    assert_memory_equal(r.ask.messages[0].content, "a\0b", 4);
    assert_string_equal(r.ask.messages[1].content, "c\nd");
    assert_string_equal(r.ask.messages[2].content, "");
    assert_true(r.ask.sampling.temperature == 0.5f && r.ask.sampling.top_p == 0.25f);
    assert_true(r.ask.sampling.top_k == 7 && r.ask.sampling.min_p == 0.125f);
    assert_true(r.seeded && r.ask.sampling.seed == INT64_MAX);
    assert_int_equal(r.ask.tokens_max, 6);
    assert_true(r.stream && r.include_usage && r.logprobs && r.top_logprobs == 4);
    assert_int_equal(r.n_stops, 2);
    assert_string_equal(r.stops[1].text, "tt");
    openai_request_release(&r);
}

/* Defaults, null for absent, what is neutral, what nobody knows. */
static void test_defaults(void **state)
{
    (void)state;
    struct openai_request r;
    decode("{" ASK ",\"n\":1,\"tools\":[],\"tool_choice\":\"auto\",\"response_format\":{\"type\":"
           "\"text\"},\"frequency_penalty\":0,\"presence_penalty\":0.0,\"logit_bias\":{},"
           "\"modalities\":[\"text\"],\"audio\":null,\"stop\":null,\"max_tokens\":null,"
           "\"top_k\":-1,\"top_p\":0,\"user\":\"me\",\"store\":true,\"metadata\":{\"a\":\"b\"},"
           "\"parallel_tool_calls\":false,\"service_tier\":\"auto\",\"banana\":[1]}",
           true, &r);
    assert_true(r.ask.sampling.temperature == 1.0f);
    assert_true(r.ask.sampling.top_p > 0.0f && r.ask.sampling.top_p < 1e-30f);
    assert_int_equal(r.ask.sampling.top_k, 0);
    assert_int_equal(r.ask.tokens_max, WIRE_TOKENS_MAX);
    assert_true(!r.seeded && !r.stream && !r.logprobs && r.n_stops == 0);
    openai_request_release(&r);
    decode("{\"prompt\":[\"a\"],\"stop\":\"x\",\"logprobs\":0,\"max_tokens\":99999999999}", false,
           &r);
    assert_string_equal(r.text, "a");
    assert_true(r.logprobs && r.top_logprobs == 0 && r.n_stops == 1);
    assert_int_equal(r.ask.tokens_max, WIRE_TOKENS_MAX);
    openai_request_release(&r);
    decode("{\"prompt\":[[3,4]]}", false, &r);
    assert_int_equal(r.ask.n_prompt, 2);
    assert_int_equal(r.ask.prompt[1], 4);
    assert_int_equal(r.ask.tokens_max, OPENAI_COMPLETION_TOKENS);
    openai_request_release(&r);
}

/* Samplers and limits that we do not have: refused by name, unless they are off. */
static void test_off_or_refused(void **state)
{
    static const struct {
        const char *name, *off, *on;
    } cases[] = {
        {"typical_p", "1", "0.5"},
        {"tfs_z", "1.0", "0.9"},
        {"top_a", "0", "0.1"},
        {"top_n_sigma", "0", "1.0"},
        {"top_n_sigma", "-1", "2"},
        {"mirostat", "0", "2"},
        {"mirostat_mode", "0.0", "1"},
        {"dry_multiplier", "0", "0.8"},
        {"xtc_probability", "0.0", "0.5"},
        {"dynatemp_range", "0", "0.5"},
        {"smoothing_factor", "0", "0.2"},
        {"epsilon_cutoff", "0", "1"},
        {"no_repeat_ngram_size", "0", "3"},
        {"length_penalty", "1.0", "2"},
        {"guidance_scale", "1", "1.5"},
        {"bad_words", "[]", "[\"x\"]"},
        {"allowed_token_ids", "null", "[1]"},
        {"negative_prompt", "\"\"", "\"x\""},
        {"regex", "null", "\"a*\""},
    };
    (void)state;
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        struct openai_request r;
        struct err e = ERR_INIT;
        char param[OPENAI_PARAM_MAX], json[200];
        bool on = i % 2;
        snprintf(json, sizeof json, "{" ASK ",\"%s\":%s}", cases[i / 2].name,
                 on ? cases[i / 2].on : cases[i / 2].off);
        int code = openai_request_decode(json, strlen(json), true, &r, param, &e);
        if (code != (on ? ERR_UNSUPPORTED : 0)) fail_msg("%s: %d %s", json, code, e.text);
        assert_string_equal(param, on ? cases[i / 2].name : "");
        if (!code) openai_request_release(&r);
    }
}

/* Catches: prompts or answers that are lost or mixed up, limits that are not kept. */
static void test_choices(void **state)
{
    struct openai_request r;
    struct buf b;
    (void)state;
    decode("{\"prompt\":[\"a\",[3.0,4],\"bc\"],\"n\":2.0,\"best_of\":2,\"echo\":true}", false, &r);
    assert_true(r.n == 2 && r.echo && openai_request_choices(&r) == 6);
    assert_string_equal(openai_request_prompt(&r, 0).text, "a");
    assert_null(openai_request_prompt(&r, 1).text);
    assert_int_equal(openai_request_prompt(&r, 1).n_ids, 2);
    assert_int_equal(openai_request_prompt(&r, 1).ids[0], 3);
    assert_string_equal(openai_request_prompt(&r, 2).text, "bc");
    openai_request_release(&r);
    decode("{" ASK "}", true, &r);
    assert_int_equal(openai_request_choices(&r), 1);
    openai_request_release(&r);
    buf_init(&b, ROOM);
    buf_puts(&b, "{\"prompt\":[\"a\"");
    for (int i = 1; i < OPENAI_CHOICES_MAX; i++)
        buf_puts(&b, ",\"a\"");
    buf_puts(&b, "]}");
    decode(b.data, false, &r);
    assert_int_equal(openai_request_choices(&r), OPENAI_CHOICES_MAX);
    openai_request_release(&r);
    buf_cut(&b, b.len - 2);
    buf_puts(&b, ",\"a\"]}");
    struct err e = ERR_INIT;
    char param[OPENAI_PARAM_MAX];
    assert_int_equal(openai_request_decode(b.data, b.len, false, &r, param, &e), ERR_BAD_INPUT);
    assert_string_equal(param, "prompt");
    buf_release(&b);
}

/* Numbers as other languages write them, and the limits of local servers. */
static void test_lenient(void **state)
{
    struct openai_request r;
    struct buf b;
    (void)state;
    decode("{\"messages\":[{\"role\":\"user\",\"content\":[\"a\",{\"type\":\"input_text\",\"text\":"
           "\"b\"}]},"
           "{\"role\":\"assistant\",\"content\":[{\"type\":\"refusal\",\"refusal\":\"no\"}]}]}",
           true, &r);
    assert_string_equal(r.ask.messages[0].content, "a\nb");
    assert_string_equal(r.ask.messages[1].content, "no");
    openai_request_release(&r);
    decode("{\"prompt\":\"a\",\"logprobs\":false,\"max_completion_tokens\":3}", false, &r);
    assert_false(r.logprobs);
    assert_int_equal(r.ask.tokens_max, 3);
    openai_request_release(&r);
    decode("{" ASK ",\"max_tokens\":6.0,\"top_k\":40.0,\"seed\":7.0,\"n\":1.0,\"logprobs\":true,"
           "\"top_logprobs\":2e0,\"repetition_penalty\":1.25,\"repeat_last_n\":-1.0}",
           true, &r);
    assert_int_equal(r.ask.tokens_max, 6);
    assert_int_equal(r.ask.sampling.top_k, 40);
    assert_true(r.seeded && r.ask.sampling.seed == 7 && r.top_logprobs == 2);
    assert_true(r.ask.sampling.repeat_penalty == 1.25f && r.ask.sampling.repeat_last == 1 << 20);
    openai_request_release(&r);
    decode("{\"prompt\":[[3.0,4]],\"logprobs\":1.0,\"max_tokens\":-1}", false, &r);
    assert_true(r.ask.n_prompt == 2 && r.ask.prompt[0] == 3 && r.top_logprobs == 1);
    assert_int_equal(r.ask.tokens_max, WIRE_TOKENS_MAX);
    openai_request_release(&r);
    decode("{\"prompt\":[5.0],\"n_predict\":3,\"repeat_penalty\":2}", false, &r);
    assert_true(r.ask.prompt[0] == 5 && r.ask.tokens_max == 3);
    assert_true(r.ask.sampling.repeat_penalty == 2.0f);
    openai_request_release(&r);
    decode("{" ASK ",\"max_completion_tokens\":-1.0,\"stop\":\"\","
           "\"chat_template_kwargs\":{\"x\":1.0}}",
           true, &r);
    assert_true(r.ask.tokens_max == WIRE_TOKENS_MAX && r.n_stops == 0);
    assert_string_equal(r.ask.arguments, "{\"x\":1.0}");
    openai_request_release(&r);
    decode("\xEF\xBB\xBF{" ASK ",\"seed\":18446744073709551615,\"max_tokens\":6,\"top_k\":40}",
           true, &r);
    assert_true(r.seeded && r.ask.tokens_max == 6 && r.ask.sampling.top_k == 40);
    openai_request_release(&r);
    buf_init(&b, ROOM);
    buf_puts(&b, "{" ASK ",\"stop\":[\"\",null");
    for (int i = 0; i < OPENAI_STOPS_MAX; i++)
        buf_printf(&b, ",\"<%d>\",\"\"", i);
    buf_puts(&b, "]}");
    decode(b.data, true, &r);
    assert_int_equal(r.n_stops, OPENAI_STOPS_MAX);
    assert_string_equal(r.stops[OPENAI_STOPS_MAX - 1].text, "<63>");
    openai_request_release(&r);
    buf_release(&b);
}

/* More than the limits of stop strings, in number and in bytes. */
static void test_too_many_stops(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct openai_request r;
        struct err e = ERR_INIT;
        char param[OPENAI_PARAM_MAX];
        struct buf b;
        buf_init(&b, ROOM);
        buf_puts(&b, "{" ASK ",\"stop\":[\"x\"");
        for (int k = 0; k < (i ? OPENAI_STOPS_MAX : 16); k++)
            buf_printf(&b, ",\"%0*d\"", i ? 2 : OPENAI_STOP_BYTES_MAX, k);
        buf_puts(&b, "]}");
        assert_int_equal(openai_request_decode(b.data, b.len, true, &r, param, &e), ERR_BAD_INPUT);
        assert_string_equal(param, "stop");
        assert_non_null(strstr(e.text, "at most 64"));
        buf_release(&b);
    }
}

/* Every allocation that fails is told, and nothing leaks (under the sanitizers). */
static void test_no_memory(void **state)
{
    (void)state;
    static const char json[] = "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
                               "\"text\":\"c\"}]}],\"stop\":[\"s\",\"tt\"]}";
    bool hit = true;
    for (long nth = 1; hit; nth++) {
        struct openai_request r;
        struct err e = ERR_INIT;
        char param[OPENAI_PARAM_MAX];
        mem_fail_at(nth);
        int code = openai_request_decode(json, strlen(json), true, &r, param, &e);
        hit = mem_fail_hit();
        mem_fail_at(0);
        assert_int_equal(code, hit ? ERR_NO_MEMORY : 0);
        if (!code) openai_request_release(&r);
    }
}

/* ---- answers ---- */

/* A token with half a character, the same text twice among the likeliest, and one without any
 * probability. */
static void fill_row(void *arg, uint32_t i, struct openai_row *ret_row)
{
    (void)arg;
    *ret_row = (struct openai_row){.token = {"\xc3", 1, -1.5f}, .text_offset = i, .n_top = 3};
    ret_row->top[0] = (struct openai_piece){"a\"", 2, -0.5f};
    ret_row->top[1] = (struct openai_piece){"a\"", 2, -0.75f};
    ret_row->top[2] = (struct openai_piece){"b", 1, -1.0f / 0.0f};
}

static void test_rows(void **state)
{
    (void)state;
    struct openai_head h = {.id = "id", .model = "m", .fingerprint = "", .created = 5};
    struct openai_rows rows = {fill_row, NULL, 3, 5};
    struct openai_choice choice = {
        .text = "t", .text_len = 1, .rows = &rows, .finish_reason = "stop"};
    struct buf out;
    buf_init(&out, ROOM);
    assert_int_equal(openai_put_chunk(&out, &h, &choice, false), 0);
    static const char top[] = "{\"a\\\"\":-0.5,\"b\":-9999.0,\"bytes:\\\\xc3\":-1.5}";
    char want[512];
    snprintf(want, sizeof want,
             "data: {\"id\":\"id\",\"object\":\"text_completion\",\"created\":5,\"model\":\"m\","
             "\"system_fingerprint\":null,\"choices\":[{\"index\":0,\"text\":\"t\",\"logprobs\":"
             "{\"tokens\":[\"bytes:\\\\xc3\",\"bytes:\\\\xc3\"],\"token_logprobs\":[-1.5,-1.5],"
             "\"top_logprobs\":[%s,%s],\"text_offset\":[3,4]},\"finish_reason\":\"stop\"}]}\n\n",
             top, top);
    assert_string_equal(out.data, want);
    buf_clear(&out);
    h.chat = true;
    rows.to = 4;
    assert_int_equal(openai_put_chunk(&out, &h, &choice, true), 0);
    assert_non_null(strstr(out.data, "\"delta\":{\"content\":\"t\"},\"logprobs\":{\"content\":[{"
                                     "\"token\":\"\xef\xbf\xbd\",\"logprob\":-1.5,\"bytes\":[195],"
                                     "\"top_logprobs\":[{\"token\":\"a\\\"\",\"logprob\":-0.5,"
                                     "\"bytes\":[97,34]}"));
    assert_non_null(strstr(out.data, "\"usage\":null}\n\n"));
    buf_release(&out);
}

/* ---- stop strings ---- */

/* The whole answer by definition: the first byte at which any stop string is complete, the longest
 * of them. */
static size_t end_by_definition(const struct openai_stop *stops, uint32_t n, const char *text,
                                size_t len)
{
    for (size_t end = 1; end <= len; end++)
        for (size_t begin = 0; begin < end; begin++)
            for (uint32_t i = 0; i < n; i++)
                if (stops[i].len == end - begin &&
                    memcmp(text + begin, stops[i].text, end - begin) == 0)
                    return begin;
    return len;
}

/* Random texts and stop strings of two letters, cut anywhere: the same end, and nothing shown that
 * a stop string takes. */
static void test_stop_cuts(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < 20000; round++) {
        char text[24], words[4][6];
        struct openai_stop stops[4];
        uint64_t at = (uint64_t)round * 100;
        uint32_t n = 1 + (uint32_t)(rng_uniform(7, 1, at++) * 4);
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = rng_uniform(7, 1, at++) < 0.6f ? 'a' : 'b';
        for (uint32_t i = 0; i < n; i++) {
            stops[i] = (struct openai_stop){words[i], 1 + (size_t)(rng_uniform(7, 1, at++) * 6)};
            for (size_t k = 0; k < stops[i].len; k++)
                words[i][k] = rng_uniform(7, 1, at++) < 0.5f ? 'a' : 'b';
        }
        size_t want = end_by_definition(stops, n, text, sizeof text), shown = 0, come = 0, clear;
        bool stopped = false;
        while (!stopped && come < sizeof text) {
            come += 1 + (size_t)(rng_uniform(7, 1, at++) * 4);
            if (come > sizeof text) come = sizeof text;
            stopped = stop_scan(stops, n, text + shown, come - shown, &clear);
            shown += clear;
            assert_true(shown <= want);
        }
        assert_int_equal(stopped, want < sizeof text);
        assert_int_equal(stopped ? shown : sizeof text, want);
    }
}

/* What a chat template gets beside texts; an answer may have no content. */
static void test_calls_and_arguments(void **state)
{
    struct openai_request r;
    (void)state;
    decode("{\"messages\":[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c\","
           "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},"
           "{\"role\":\"tool\",\"content\":\"42\",\"tool_call_id\":\"c\",\"name\":\"f\"},"
           "{\"role\":\"assistant\"},{\"role\":\"user\",\"content\":\"x\",\"banana\":1}],"
           "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":"
           "\"none\",\"enable_thinking\":false,\"reasoning_effort\":\"low\","
           "\"chat_template_kwargs\":{\"a\":1}}",
           true, &r);
    assert_string_equal(r.ask.messages[0].content, "");
    assert_string_equal(r.ask.messages[2].content, "");
    assert_string_equal(r.ask.extras[0],
                        "{\"tool_calls\":[{\"id\":\"c\",\"type\":\"function\",\"function\":"
                        "{\"name\":\"f\",\"arguments\":\"{}\"}}]}");
    assert_true(wire_message_has_calls(r.ask.extras[0]));
    assert_true(wire_message_has_calls(r.ask.extras[1]));
    assert_null(r.ask.extras[2]);
    assert_null(r.ask.extras[3]);
    assert_false(wire_message_has_calls("{\"name\":\"\\\"tool_calls\\\":[\"}"));
    assert_string_equal(r.ask.tools, "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]");
    assert_string_equal(r.ask.arguments,
                        "{\"a\":1,\"enable_thinking\":false,\"reasoning_effort\":\"low\"}");
    openai_request_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls_and_arguments),
        cmocka_unit_test(test_off_or_refused),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_lenient),
        cmocka_unit_test(test_too_many_stops),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_taken),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_stop_cuts),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_timings),
        cmocka_unit_test(test_bombs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
