/*
 * test_cloud_openai: OpenAI's API of `pdd cloud`, over real sockets, with the fake engine and the
 * model that the project brings.
 *
 * Catches: an answer that differs from /v1/assist's, or streamed from whole; a stop string that is
 * shown, missed because a token border cuts it, or that keeps the engine at work; half characters;
 * log-probabilities that are not the model's or belong to other text; options that do nothing
 * without a word; work that goes on for nobody.
 */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/utf8.h"
#include "support/cloud_story.h"

/* ---- the same answer everywhere ---- */

static void by_assist(const struct site *s, const char *sampling, uint32_t n, struct buf *text)
{
    struct buf body;
    buf_init(&body, RAW_MAX);
    buf_printf(&body, "{" FOX ",\"tokens_max\":%u,\"sampling\":{%s}}", n, sampling);
    client_open(&c, s->port);
    client_send(&c, "POST", "/v1/assist", NULL, body.data, body.len);
    client_finish(&c);
    assert_true(c.done);
    buf_append(text, c.text.data, c.text.len);
    client_close(&c);
    buf_release(&body);
}

static void test_same_answers(void **state)
{
    (void)state;
    static const char *const samplings[] = {
        "\"temperature\":0",
        "\"temperature\":1.1,\"top_k\":40,\"top_p\":0.9,\"min_p\":0.02,\"seed\":77",
        ("\"temperature\":0.7,\"seed\":3,\"frequency_penalty\":1.5,\"presence_penalty\":0.4,"
         "\"min_tokens\":20,\"ignore_eos\":true,\"logit_bias\":[[101,3],[116,-100]]")};
    for (int native = 0; native < 2; native++) {
        struct site *s = native ? reader_site() : fake_site(NULL);
        site_start(s);
        for (size_t i = 0; i < 3; i++) {
            struct story whole, stream;
            struct buf want;
            buf_init(&want, RAW_MAX);
            by_assist(s, samplings[i], 24, &want);
            tellf(&whole, s, CHAT, "{" FOX ",\"max_tokens\":24,%s}", samplings[i]);
            tellf(&stream, s, CHAT, "{" FOX ",\"max_completion_tokens\":24,\"stream\":true,%s}",
                  samplings[i]);
            assert_true(want.len > 20);
            assert_string_equal(whole.text.data, want.data);
            assert_string_equal(stream.text.data, want.data);
            assert_string_equal(whole.finish, "length");
            assert_string_equal(stream.finish, "length");
            assert_true(stream.done && stream.n_text > 10);
            assert_int_equal(whole.completion, 24);
            assert_int_equal(stream.n_usage, 0);
            story_release(&whole);
            story_release(&stream);
            buf_release(&want);
        }
        site_check_idle(s);
        site_stop(s);
    }
}

/* Catches: an option that reaches the sampler changed, or not at all. */
static void test_changes(void **state)
{
    (void)state;
    static const struct {
        const char *options, *text, *finish;
    } cases[] = {
        {"\"min_tokens\":5", "Hey..", "stop"},
        {"\"min_tokens\":3", "Hey", "stop"},
        {"\"ignore_eos\":true,\"max_tokens\":9", "Hey......", "length"},
        {"\"ignore_eos\":false,\"min_tokens\":0,\"frequency_penalty\":0,\"logit_bias\":{}", "Hey",
         "stop"},
    };
    struct site *s = fake_site("Hey");
    struct story t[4];
    site_start(s);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tellf(&t[0], s, CHAT, "{" FOX ",%s}", cases[i].options);
        assert_string_equal(t[0].text.data, cases[i].text);
        assert_string_equal(t[0].finish, cases[i].finish);
        story_release(&t[0]);
    }
    site_stop(s);
    s = reader_site();
    site_start(s);
    static const char *const options[] = {"\"stop\":[]", "\"frequency_penalty\":2",
                                          "\"presence_penalty\":2", "\"logit_bias\":{\"300\":100}"};
    for (int i = 0; i < 4; i++) {
        tellf(&t[i], s, TEXT, "{\"prompt\":\"Once\",\"max_tokens\":150,\"temperature\":0,%s}",
              options[i]);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(t[k].text.data, t[i].text.data);
    }
    for (int i = 0; i < 4; i++)
        story_release(&t[i]);
    site_stop(s);
}

/* A seed makes a sampled answer repeatable; without one it is another each time. */
static void test_seed(void **state)
{
    (void)state;
    struct site *s = reader_site();
    struct story t[4];
    site_start(s);
    for (int i = 0; i < 4; i++)
        tellf(&t[i], s, TEXT, "{\"prompt\":\"Once\",\"max_tokens\":16,\"temperature\":2%s}",
              i < 2 ? ",\"seed\":-5" : "");
    assert_string_equal(t[0].text.data, t[1].text.data);
    assert_string_not_equal(t[2].text.data, t[3].text.data);
    for (int i = 0; i < 4; i++)
        story_release(&t[i]);
    site_stop(s);
}

/* A text, one in an array, and its ids are the same prompt. */
static void test_prompts(void **state)
{
    (void)state;
    static const char *const prompts[] = {"\"Once upon\"", "[\"Once upon\"]", NULL, NULL};
    struct site *s = reader_site();
    struct story t[4];
    struct token_list ids;
    struct engine *e = site_engine(s);
    struct buf list[2];
    token_list_init(&ids, 64);
    assert_int_equal(vocab_encode(engine_vocab(e), "Once upon", 9, VOCAB_ADD_BOS, &ids, NULL), 0);
    engine_free(e);
    for (int k = 0; k < 2; k++) {
        buf_init(&list[k], 4096);
        buf_puts(&list[k], k ? "[[" : "[");
        for (uint32_t i = 0; i < ids.len; i++)
            buf_printf(&list[k], i ? ",%d" : "%d", ids.ids[i]);
        buf_puts(&list[k], k ? "]]" : "]");
    }
    site_start(s);
    for (int i = 0; i < 4; i++) {
        tellf(&t[i], s, TEXT, "{\"prompt\":%s,\"temperature\":0}",
              i < 2 ? prompts[i] : list[i - 2].data);
        assert_string_equal(t[i].text.data, t[0].text.data);
        assert_int_equal(t[i].prompt, ids.len);
        assert_int_equal(t[i].completion, 16);
        assert_int_equal(t[i].text.data[0] == ' ' || t[i].text.data[0] == ',', 1);
    }
    for (int i = 0; i < 4; i++)
        story_release(&t[i]);
    buf_release(&list[0]);
    buf_release(&list[1]);
    token_list_release(&ids);
    site_stop(s);
}

/* ---- stop strings, characters ---- */

/* The fake's tokens are bytes: every stop string is cut by token borders. */
static const char script[] = "One, two, tw\xc3\xb6lf \xf0\x9d\x84\x9e und zw\xc3\xb6lf; END of it.";

static const struct {
    const char *stop, *text, *finish;
} stop_cases[] = {
    {"\"END\"", "One, two, tw\xc3\xb6lf \xf0\x9d\x84\x9e und zw\xc3\xb6lf; ", "stop"},
    {"\"tw\xc3\xb6lf\"", "One, two, ", "stop"},
    {"[\"tw\xc3\xb6lf \xf0\x9d\x84\x9f\",\"zw\xc3\xb6lf\"]",
     "One, two, tw\xc3\xb6lf \xf0\x9d\x84\x9e und ", "stop"},
    {"[\"nowhere\",\"e, \",\"never\",\"One, x\"]", "On", "stop"},
    {"[\"O\"]", "", "stop"},
    {"[\"ne, t\",\"e\"]", "On", "stop"},    /* what is complete first */
    {"[\"two\",\"One, two\"]", "", "stop"}, /* together: the longest */
    {"[\"it.!\"]", script, "stop"},         /* begun, and the answer ends */
    {"[\"\xf0\x9d\x84\x9e\"]", "One, two, tw\xc3\xb6lf ", "stop"},
    {"[]", script, "stop"},
    {"null", script, "stop"},
};

static void test_stops(void **state)
{
    (void)state;
    struct site *s = fake_site(script);
    site_start(s);
    for (size_t i = 0; i < sizeof stop_cases / sizeof *stop_cases; i++)
        for (int how = 0; how < 4; how++) {
            struct story t;
            tellf(&t, s, how & 1 ? CHAT : TEXT, "{%s,\"stop\":%s,\"stream\":%s,\"max_tokens\":99}",
                  how & 1 ? FOX : "\"prompt\":\"<|im_start|>\\n\"", stop_cases[i].stop,
                  how & 2 ? "true" : "false");
            if (strcmp(t.text.data, stop_cases[i].text) != 0 ||
                strcmp(t.finish, stop_cases[i].finish) != 0 || t.done != (how > 1))
                fail_msg("stop %s, way %d: %s (%s)", stop_cases[i].stop, how, t.pieces.data,
                         t.finish);
            story_release(&t);
        }
    site_check_idle(s);
    site_stop(s);
}

/* A stop string ends the work too, and is no cancellation. */
static void test_stop_ends_work(void **state)
{
    (void)state;
    struct site *s = fake_site(script);
    struct story t;
    struct buf page;
    s->fake.step_us = 2000;
    site_start(s);
    tell(&t, s, CHAT, "{" FOX ",\"stop\":\"two\",\"max_tokens\":50}");
    assert_int_equal(t.completion, 8);
    site_check_idle(s);
    assert_true(site_stats(s).decode_tokens < 30);
    buf_init(&page, RAW_MAX);
    assert_int_equal(site_ask(s, "GET", "/metrics", NULL, "", &page), 200);
    assert_non_null(strstr(page.data, "pdd_requests_total{api=\"chat\",end=\"stop\"} 1\n"));
    assert_non_null(strstr(page.data, "pdd_requests_cancelled_total{phase=\"decode\"} 0\n"));
    buf_release(&page);
    story_release(&t);
    site_stop(s);
}

/* Cut at any token: whole characters only, and no more than there is. */
static void test_characters(void **state)
{
    (void)state;
    struct site *s = fake_site(script);
    site_start(s);
    for (uint32_t n = 10; n < 20; n++)
        for (int stream = 0; stream < 2; stream++) {
            struct story t;
            tellf(&t, s, CHAT, "{" FOX ",\"max_tokens\":%u,\"stream\":%s}", n,
                  stream ? "true" : "false");
            size_t whole = utf8_valid_prefix(script, n);
            assert_int_equal(t.text.len, whole);
            assert_memory_equal(t.text.data, script, whole);
            assert_string_equal(t.finish, "length");
            story_release(&t);
        }
    site_stop(s);
}

static void test_usage(void **state)
{
    (void)state;
    struct site *s = fake_site(script);
    s->config.worker.cache_pages = 64;
    struct story t;
    site_start(s);
    static const char body[] = "{" FOX ",\"stream\":true,\"stream_options\":{\"include_usage\":true"
                               "},\"max_tokens\":9}";
    for (int i = 0; i < 2; i++) {
        tell(&t, s, CHAT, body);
        assert_int_equal(t.n_usage, 1);
        assert_int_equal(t.completion, 9);
        assert_true(t.prompt > 32);
        assert_int_equal(t.cached > 0, i);
        story_release(&t);
    }
    site_stop(s);
}

/* ---- log-probabilities ---- */

static double number_of(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

static void append_bytes(const json_t *row, struct buf *out)
{
    const json_t *bytes = json_object_get(row, "bytes");
    for (size_t i = 0; i < json_array_size(bytes); i++)
        buf_putc(out, (char)json_integer_value(json_array_get(bytes, i)));
}

/* What the engine itself says of the first token after the prompt. */
static void first_logprobs(const struct site *s, const char *prompt, uint32_t n, double *ret)
{
    struct engine *e = site_engine(s);
    struct session *session;
    struct token_list ids;
    struct err err;
    token_list_init(&ids, 64);
    assert_int_equal(engine_session_open(e, &session, &err), 0);
    assert_int_equal(
        vocab_encode(engine_vocab(e), prompt, strlen(prompt), VOCAB_ADD_BOS, &ids, &err), 0);
    struct engine_span span = {.session = session, .tokens = ids.ids, .n = ids.len, .sample = true};
    assert_int_equal(engine_step(e, &span, 1, &err), 0);
    const float *logits = session_logits(session);
    uint32_t size = engine_info(e)->vocab_size;
    double sum = 0.0, last = INFINITY;
    for (uint32_t i = 0; i < size; i++)
        sum += exp((double)logits[i]);
    for (uint32_t k = 0; k < n; k++) {
        double best = -INFINITY;
        for (uint32_t i = 0; i < size; i++)
            if ((double)logits[i] < last && (double)logits[i] > best) best = (double)logits[i];
        last = best;
        ret[k] = best - log(sum);
    }
    token_list_release(&ids);
    engine_session_close(session);
    engine_free(e);
}

static void check_rows(const struct story *t, uint32_t top, bool greedy)
{
    struct buf bytes;
    buf_init(&bytes, RAW_MAX);
    assert_int_equal(json_array_size(t->rows), t->completion);
    for (size_t i = 0; i < json_array_size(t->rows); i++) {
        const json_t *row = json_array_get(t->rows, i),
                     *best = json_object_get(row, "top_logprobs");
        double before = 0.0;
        assert_int_equal(json_array_size(best), top);
        append_bytes(row, &bytes);
        for (uint32_t k = 0; k < top; k++) {
            double p = number_of(json_array_get(best, k), "logprob");
            assert_true(p <= before);
            before = p;
        }
        if (greedy && top)
            assert_true(json_equal(json_object_get(json_array_get(best, 0), "bytes"),
                                   json_object_get(row, "bytes")));
    }
    /* The text begins without the space that its first token may carry. */
    assert_true(bytes.len >= t->text.len);
    assert_string_equal(bytes.data + bytes.len - t->text.len, t->text.data);
    buf_release(&bytes);
}

static void test_chat_logprobs(void **state)
{
    (void)state;
    struct site *s = reader_site();
    struct story whole, stream;
    site_start(s);
    for (int sampled = 0; sampled < 2; sampled++)
        for (uint32_t top = 0; top <= 20; top += 10) {
            static const char format[] =
                "{" FOX ",\"max_tokens\":12,\"temperature\":%d,\"seed\":9,\"logprobs\":true,"
                "\"top_logprobs\":%u,\"stream\":%s,\"stop\":\"never said\"%s}";
            tellf(&whole, s, CHAT, format, sampled, top, "false", "");
            tellf(&stream, s, CHAT, format, sampled, top, "true",
                  ",\"stream_options\":{\"include_usage\":true}");
            check_rows(&whole, top, !sampled);
            check_rows(&stream, top, !sampled);
            assert_true(json_equal(whole.rows, stream.rows));
            story_release(&whole);
            story_release(&stream);
        }
    site_stop(s);
}

static void test_completion_logprobs(void **state)
{
    (void)state;
    struct site *s = reader_site();
    struct story t;
    double want[5];
    site_start(s);
    first_logprobs(s, "Once upon a", 5, want);
    tell(&t, s, TEXT,
         "{\"prompt\":\"Once upon a\",\"max_tokens\":10,\"temperature\":0,\"logprobs\":5}");
    const json_t *tokens = json_object_get(t.lists, "tokens");
    const json_t *probs = json_object_get(t.lists, "token_logprobs");
    const json_t *best = json_object_get(t.lists, "top_logprobs");
    const json_t *offsets = json_object_get(t.lists, "text_offset");
    assert_int_equal(json_array_size(tokens), 10);
    assert_int_equal(json_array_size(probs), 10);
    assert_int_equal(json_array_size(best), 10);
    size_t at = 0;
    for (size_t i = 0; i < 10; i++) {
        const char *token = json_string_value(json_array_get(tokens, i));
        assert_int_equal(json_integer_value(json_array_get(offsets, i)), at);
        assert_memory_equal(t.text.data + at, token, strlen(token));
        at += strlen(token);
        assert_int_equal(json_object_size(json_array_get(best, i)), 5);
    }
    assert_true(fabs(json_number_value(json_array_get(probs, 0)) - want[0]) < 1e-4);
    const char *name;
    json_t *value;
    size_t k = 0;
    json_object_foreach(json_array_get(best, 0), name, value)
    {
        double p = json_number_value(value), nearest = INFINITY;
        for (size_t i = 0; i < 5; i++)
            nearest = fmin(nearest, fabs(p - want[i]));
        assert_true(name[0] && nearest < 1e-4);
        k++;
    }
    assert_int_equal(k, 5);
    story_release(&t);
    site_stop(s);
}

/* The rows end where the text does, and a token that a stop string took has none. */
static void test_stop_logprobs(void **state)
{
    (void)state;
    struct site *s = fake_site(script);
    site_start(s);
    for (int stream = 0; stream < 2; stream++) {
        struct story t;
        struct buf bytes;
        buf_init(&bytes, RAW_MAX);
        tellf(&t, s, CHAT,
              "{" FOX ",\"logprobs\":true,\"stop\":[\"\xf0\x9d\x84\x9e u\"],\"stream\":%s}",
              stream ? "true" : "false");
        assert_string_equal(t.text.data, "One, two, tw\xc3\xb6lf ");
        assert_int_equal(json_array_size(t.rows), t.text.len);
        for (size_t i = 0; i < json_array_size(t.rows); i++)
            append_bytes(json_array_get(t.rows, i), &bytes);
        assert_string_equal(bytes.data, t.text.data);
        assert_string_equal(json_string_value(json_object_get(json_array_get(t.rows, 12), "token")),
                            "\xef\xbf\xbd"); /* half of a character */
        story_release(&t);
        buf_release(&bytes);
    }
    site_stop(s);
}

/* ---- refusals, failures, clients that leave ---- */

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *path, *body, *param;
        int status;
    } cases[] = {
        {CHAT, "{", "", 400},
        {CHAT, "{\"messages\":[]}", "messages", 400},
        {CHAT, "{" FOX ",\"n\":0}", "n", 400},
        {CHAT, "{" FOX ",\"model\":\"gpt-4o\"}", "model", 404},
        {CHAT, "{" FOX ",\"logit_bias\":{\"259\":1}}", "logit_bias", 400},
        {"/v1/assist", "{" FOX ",\"tokens_max\":1,\"sampling\":{\"logit_bias\":[[259,1]]}}",
         "sampling.logit_bias", 400},
        {CHAT, "{" FOX ",\"tools\":[{\"type\":\"function\"}]}", "tools", 400},
        {CHAT, "{\"messages\":[{\"role\":\"pope\",\"content\":\"x\"}]}", "messages", 400},
        {TEXT, "{}", "prompt", 400},
        {TEXT, "{\"prompt\":[1,99999]}", "prompt", 400},
        {TEXT, "{\"prompt\":[\"a\",\"\"]}", "prompt", 400},
        {TEXT, "{\"prompt\":\"\"}", "prompt", 400},
        {"/tokenize", "{}", "content", 400},
        {"/tokenize", "{\"content\":7}", "content", 400},
        {"/detokenize", "{}", "tokens", 400},
        {"/detokenize", "{\"tokens\":[1,-2]}", "tokens", 400},
        {"/detokenize", "{\"tokens\":[259]}", "tokens", 400},
    };
    struct site *s = fake_site(NULL);
    site_start(s);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct story t;
        tell(&t, s, cases[i].path, cases[i].body);
        if (t.status != cases[i].status || t.n_error != 1 || strcmp(t.param, cases[i].param) != 0)
            fail_msg("%s: %d, param %s", cases[i].body, t.status, t.param);
        story_release(&t);
    }
    site_check_idle(s);
    assert_int_equal(site_stats(s).prefill_tokens, 0);
    site_stop(s);
}

/* An engine that fails: before the head of a stream a status, after it an error in the stream. */
static void test_engine_fails(void **state)
{
    (void)state;
    for (int stream = 0; stream < 2; stream++) {
        struct site *s = fake_site(script);
        struct story t;
        s->fake.fail_at_step = 6;
        site_start(s);
        tellf(&t, s, CHAT, "{" FOX ",\"stream\":%s}", stream ? "true" : "false");
        assert_int_equal(t.status, stream ? 200 : 500);
        assert_int_equal(t.n_error, 1);
        assert_string_equal(t.code, "internal");
        assert_string_equal(t.finish, "");
        assert_int_equal(t.done, stream);
        story_release(&t);
        site_check_idle(s);
        site_stop(s);
    }
}

static void test_too_long(void **state)
{
    (void)state;
    struct site *s = fake_site(script);
    struct story t;
    s->fake.context_max = 128;
    site_start(s);
    tell(&t, s, CHAT, "{" FOX ",\"max_tokens\":4000}"); /* clipped, as the context is */
    assert_int_equal(t.status, 200);
    story_release(&t);
    tellf(&t, s, TEXT, "{\"prompt\":\"%0200d\"}", 7);
    assert_int_equal(t.status, 400);
    assert_string_equal(t.code, "context_length_exceeded");
    assert_string_equal(t.param, "prompt");
    story_release(&t);
    site_stop(s);
}

static void test_leave(void **state)
{
    (void)state;
    struct site *s = fake_site(NULL);
    s->fake = (struct fake_options){.answer_tokens = 3000, .step_us = 5000, .kv_pages = 200};
    site_start(s);
    for (int stream = 0; stream < 2; stream++) {
        struct story t;
        uint64_t until = clock_us() + SITE_WAIT_US;
        story_post(&t, s, CHAT,
                   stream ? "{" FOX ",\"stream\":true,\"logprobs\":true}" : "{" FOX "}");
        while (stream ? t.n_text < 3 : site_stats(s).decode_tokens < 3) {
            assert_true(clock_us() < until);
            if (stream)
                client_read(&c, 100);
            else
                clock_sleep_us(1000);
        }
        client_close(&c);
        story_release(&t);
        site_check_idle(s);
    }
    assert_true(site_stats(s).decode_tokens < 1000);
    site_stop(s);
}

/* An answer is none of /v1/assist's: a patch could grow it beyond what it has memory for. */
static void test_not_an_assist(void **state)
{
    (void)state;
    struct site *s = fake_site(NULL);
    struct story t;
    char path[96];
    s->fake = (struct fake_options){.answer_tokens = 3000, .step_us = 5000, .kv_pages = 200};
    site_start(s);
    story_post(&t, s, CHAT, "{" FOX ",\"stream\":true}");
    while (t.n_text < 1)
        client_read(&c, 100);
    const char *id = strstr(c.body.data, "chatcmpl-");
    snprintf(path, sizeof path, "/v1/assist/%.*s", (int)strcspn(id, "\""), id);
    struct client mine = c;
    assert_int_equal(site_ask(s, "DELETE", path, NULL, "", NULL), 404);
    c = mine;
    client_close(&c);
    story_release(&t);
    site_check_idle(s);
    site_stop(s);
}

static void test_drain(void **state)
{
    (void)state;
    struct site *s = fake_site(NULL);
    struct story t;
    s->fake = (struct fake_options){.answer_tokens = 3000, .step_us = 5000, .kv_pages = 200};
    s->drain_us = 50000;
    site_start(s);
    story_post(&t, s, CHAT, "{" FOX ",\"stream\":true}");
    while (t.n_text < 3)
        client_read(&c, 100);
    loop_wake_signal(s->drain);
    while (!t.done && client_read(&c, 100))
        ;
    assert_int_equal(t.n_error, 1);
    assert_true(t.done);
    client_close(&c);
    story_release(&t);
    site_stop(s);
}

/* ---- models, tokens ---- */

static void test_models(void **state)
{
    (void)state;
    struct site *s = fake_site(NULL);
    struct buf b;
    buf_init(&b, RAW_MAX);
    s->config.model_name = "me/tale 1";
    site_start(s);
    assert_int_equal(site_ask(s, "GET", "/v1/models", NULL, "", &b), 200);
    assert_non_null(strstr(b.data, "\"id\":\"me/tale-1\",\"object\":\"model\",\"created\":"));
    assert_int_equal(site_ask(s, "GET", "/v1/models/me%2Ftale-1", NULL, "", NULL), 200);
    assert_int_equal(site_ask(s, "GET", "/v1/models/me%2ftale%2D1", NULL, "", NULL), 200);
    static const char *const wrong[] = {"me%2Ftale-", "me%2Ftale-11", "me%2", "me%2Ftale-1%00",
                                        "%"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char path[64];
        snprintf(path, sizeof path, "/v1/models/%s", wrong[i]);
        buf_clear(&b);
        assert_int_equal(site_ask(s, "GET", path, NULL, "", &b), 404);
        assert_non_null(strstr(b.data, "model_not_found"));
    }
    buf_release(&b);
    site_stop(s);
}

static json_t *ask_json(const struct site *s, const char *path, const char *body)
{
    struct buf b;
    buf_init(&b, RAW_MAX);
    assert_int_equal(site_ask(s, "POST", path, NULL, body, &b), 200);
    json_t *root = json_loads(strstr(b.data, "\r\n\r\n") + 4, 0, NULL);
    assert_non_null(root);
    buf_release(&b);
    return root;
}

/* What /tokenize makes of a text /detokenize turns back into it. */
static void test_tokenize(void **state)
{
    (void)state;
    static const struct {
        const char *fields, *back; /* back: NULL: the text itself */
    } cases[] = {{"", NULL}, {",\"add_special\":true", NULL}, {",\"parse_special\":false", NULL}};
    static const char text[] = "A t\xc3\xb6"
                               "lt, <|im_start|> \xf0\x9d\x84\x9e and  more.";
    for (int native = 0; native < 2; native++) {
        struct site *s = native ? reader_site() : fake_site(NULL);
        json_int_t counts[3];
        site_start(s);
        for (size_t i = 0; i < 3; i++) {
            char body[256];
            snprintf(body, sizeof body, "{\"content\":\"%s\"%s}", text, cases[i].fields);
            json_t *made = ask_json(s, "/tokenize", body);
            json_t *tokens = json_object_get(made, "tokens");
            counts[i] = json_integer_value(json_object_get(made, "count"));
            assert_int_equal(json_array_size(tokens), counts[i]);
            assert_true(json_integer_value(json_object_get(made, "max_model_len")) > 0);
            json_t *ask = json_pack("{s:O}", "tokens", tokens);
            char *dumped = json_dumps(ask, 0);
            json_t *back = ask_json(s, "/detokenize", dumped);
            const char *content = json_string_value(json_object_get(back, "content"));
            assert_non_null(strstr(content, text));
            assert_string_equal(json_string_value(json_object_get(back, "prompt")), content);
            json_decref(made);
            json_decref(ask);
            json_decref(back);
            free(dumped);
        }
        assert_true(counts[2] > counts[0]);
        site_stop(s);
    }
}

/* ---- memory ---- */

/* One answer without an allocation: whole, told to be none, or cut. True: it was whole. */
static bool ask_without_memory(const struct site *s, const struct buf *request, bool stream)
{
    static char got[1 << 17];
    size_t len = 0;
    ssize_t did;
    int fd = raw_connect(s->port);
    raw_send(fd, request->data, request->len);
    while (len < sizeof got - 1 && raw_readable(fd, RAW_WAIT_MS) &&
           (did = recv(fd, got + len, sizeof got - 1 - len, 0)) > 0)
        len += (size_t)did;
    close(fd);
    got[len] = 0;
    bool whole = strstr(got, "\"finish_reason\":\"length\"") != NULL;
    uint32_t pieces = 0;
    for (const char *at = got; (at = strstr(at, "\"bytes\"")) != NULL; at++)
        pieces++;
    if (whole ? pieces != 6 : len > 0 && !strstr(got, "\"error\"") && strstr(got, "\r\n0\r\n\r\n"))
        fail_msg("stream %d: %s", stream, got);
    return whole;
}

static void test_no_memory(void **state)
{
    (void)state;
    struct site *s = fake_site(script);
    struct buf request;
    buf_init(&request, RAW_MAX);
    site_start(s);
    for (int stream = 0; stream < 2; stream++) {
        static const char format[] =
            "{" FOX ",\"max_tokens\":6,\"logprobs\":true,\"stop\":[\"zz\"],\"stream\":%s}";
        char body[256];
        int n = snprintf(body, sizeof body, format, stream ? "true" : "false");
        buf_clear(&request);
        buf_printf(&request,
                   "POST " CHAT " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: "
                   "%d\r\n\r\n%s",
                   n, body);
        bool hit = true;
        long nth = 0;
        while (hit) {
            mem_fail_at(++nth);
            bool whole = ask_without_memory(s, &request, stream);
            site_check_idle(s);
            hit = mem_fail_hit();
            mem_fail_at(0);
            assert_true(hit || whole);
            assert_true(nth < 1000);
        }
        assert_true(nth > 10);
    }
    buf_release(&request);
    site_stop(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_answers),  cmocka_unit_test(test_changes),
        cmocka_unit_test(test_seed),          cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_stops),         cmocka_unit_test(test_stop_ends_work),
        cmocka_unit_test(test_characters),    cmocka_unit_test(test_usage),
        cmocka_unit_test(test_chat_logprobs), cmocka_unit_test(test_completion_logprobs),
        cmocka_unit_test(test_stop_logprobs), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_engine_fails),  cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_leave),         cmocka_unit_test(test_not_an_assist),
        cmocka_unit_test(test_drain),         cmocka_unit_test(test_models),
        cmocka_unit_test(test_tokenize),      cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
