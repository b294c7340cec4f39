/*
 * test_handover: the proof of the handover. A device and a real cloud over loopback sockets give,
 * for every number of borrowed tokens, byte for byte the answer of a single machine.
 *
 * Catches: a token lost, doubled or changed where the device takes over; a random number drawn for
 * the wrong position; text cut inside a character; KV of an earlier turn taken for this one's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/device.h"
#include "engine/emulated.h"
#include "engine/fake.h"
#include "engine/native.h"
#include "support/cloud_fixture.h"
#include "support/tiny_model.h"

enum { ANSWER_FAKE = 40, ANSWER_NATIVE = 24, ATTEMPTS = 6, CONTEXT_FAKE = 4096 };

static const char question[] = "Where did the old sailor leave the brass lantern, and why?";

static const struct sampling samplings[] = {
    SAMPLING_GREEDY,
    {.temperature = 0.9f,
     .top_k = 40,
     .top_p = 0.95f,
     .repeat_penalty = 1.1f,
     .repeat_last = 32,
     .seed = 4711},
    {.temperature = 1.3f,
     .top_p = 1.0f,
     .min_p = 0.02f,
     .repeat_penalty = 1.0f,
     .repeat_last = 64,
     .seed = 99},
    /* What counts the tokens of the answer, greedy and drawn. The first bias is that of the token
     * that ends answers. */
    {.top_p = 1.0f, .repeat_penalty = 1.0f, .frequency_penalty = 1.7f},
    {.top_p = 1.0f, .repeat_penalty = 1.2f, .repeat_last = 8, .presence_penalty = 2.0f},
    {.temperature = 1.1f,
     .top_p = 0.9f,
     .repeat_penalty = 1.0f,
     .frequency_penalty = 0.6f,
     .presence_penalty = -0.9f,
     .seed = 5},
    {.top_p = 1.0f,
     .repeat_penalty = 1.0f,
     .min_tokens = 11,
     .n_biases = 3,
     .biases = {{0, 100.0f}, {101, -100.0f}, {102, 1.5f}}},
    {.temperature = 0.8f,
     .top_p = 1.0f,
     .repeat_penalty = 1.0f,
     .presence_penalty = 0.5f,
     .ignore_eos = true,
     .n_biases = 1,
     .biases = {{0, 100.0f}},
     .seed = 7},
};

/* An engine whose prefill takes `us` a token, so that the cloud is ahead. `path`: a model file, or
 * NULL for the fake engine. */
static struct engine *open_engine(const char *path, double us)
{
    struct engine *e;
    if (!path) {
        struct fake_options o = {.answer_tokens = ANSWER_FAKE, .prefill_us_per_token = us};
        assert_int_equal(fake_open(&o, &e, NULL), 0);
        return e;
    }
    struct native_options o = {
        .model_path = path, .threads = 1, .context_max = 512, .chat_template = "chatml"};
    struct err err = ERR_INIT;
    if (native_open(&o, &e, &err)) fail_msg("%s", err.text);
    if (us <= 0.0) return e;
    struct device_profile p = {"test", 1e6 / us, 1e6, "made up", false};
    engine_emulate(e, &p);
    return e;
}

/* For raw prompts, where the fake engine counts its answer from the prompt's beginning. */
static struct engine *open_endless(double us, double step_us)
{
    struct engine *e;
    struct fake_options o = {
        .answer_tokens = 1 << 20, .prefill_us_per_token = us, .step_us = step_us};
    assert_int_equal(fake_open(&o, &e, NULL), 0);
    return e;
}

static void ask_and_compare(struct device *d, const struct single_answer *want,
                            const struct sampling *sampling, uint32_t tokens_max, uint32_t n,
                            struct device_report *ret_report)
{
    struct chat_message m = {"user", question, sizeof question - 1};
    struct device_question q = {.messages = &m,
                                .n_messages = 1,
                                .sampling = *sampling,
                                .tokens_max = tokens_max,
                                .pace = PACE_OFF,
                                .cloud_tokens = n};
    struct err e = ERR_INIT;
    if (device_ask(d, &q, ret_report, &e)) fail_msg("%s", e.text);
    assert_int_equal(ret_report->n, want->tokens.len);
    for (uint32_t i = 0; i < ret_report->n; i++)
        assert_int_equal(ret_report->tokens[i].id, want->tokens.ids[i]);
    assert_int_equal(ret_report->text_len, want->text.len);
    assert_memory_equal(ret_report->text, want->text.data, want->text.len);
    assert_int_equal(ret_report->turn.reason, want->ends ? TURN_STOP : TURN_LENGTH);
}

/* The device must be slow enough for all n tokens to be borrowed; on a busy machine try slower. */
static void prove(const char *path, const char *url, const struct single_answer *want,
                  const struct sampling *sampling, uint32_t tokens_max, uint32_t n)
{
    struct device_report r;
    double us = 150.0;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++, us *= 3.0) {
        struct device *d;
        struct device_options o = {.engine = open_engine(path, us), .cloud_url = url};
        o.prefill_tps = 1e6 / us;
        o.decode_us = 10.0;
        assert_int_equal(device_open(&o, &d, NULL), 0);
        ask_and_compare(d, want, sampling, tokens_max, n, &r);
        uint32_t borrowed = r.turn.cloud_tokens;
        assert_true(borrowed <= n);
        if (borrowed > 0) assert_int_equal(r.match, WIRE_EXACT);
        if (n == 0) assert_int_equal(r.turn.cloud_opens, 0);
        assert_true((r.cloud_slot_us > 0.0) == r.any_match);
        device_close(d);
        if (borrowed == (n < want->tokens.len ? n : want->tokens.len)) return;
    }
    fail_msg("the cloud never was ahead by %u tokens", n);
}

/* The sampling with the token that ends answers of that model for its first bias. */
static struct sampling sampling_of(size_t k, const struct engine *e)
{
    struct sampling s = samplings[k];
    uint32_t n;
    if (s.n_biases) s.biases[0].id = vocab_ends(engine_vocab(e), &n)[0];
    return s;
}

/* `behind`: the device asks a cloud that has no engine and asks the one that has. */
static void every_n(const char *path, uint32_t tokens_max, bool behind)
{
    for (size_t k = 0; k < sizeof samplings / sizeof *samplings; k++) {
        struct single_answer want;
        struct engine *single = open_engine(path, 0.0);
        struct sampling how = sampling_of(k, single);
        single_answer_make(single, question, false, &how, tokens_max, &want);
        engine_free(single);
        assert_true(want.tokens.len > 0);
        if (path && how.min_tokens) assert_int_equal(want.tokens.len, how.min_tokens);
        if (how.ignore_eos) assert_int_equal(want.tokens.len, tokens_max);
        struct cloud_fixture *cloud = cloud_fixture_start(open_engine(path, 0.0)), *front = NULL;
        if (behind) front = cloud_fixture_start_before(cloud_fixture_url(cloud));
        const char *url = cloud_fixture_url(front ? front : cloud);
        for (uint32_t n = 0; n <= want.tokens.len + 1; n++)
            prove(path, url, &want, &how, tokens_max, n);
        if (front) cloud_fixture_stop(front);
        cloud_fixture_stop(cloud);
        single_answer_release(&want);
    }
}

static void test_every_n_fake(void **state)
{
    (void)state;
    every_n(NULL, 64, false);
}

static void test_every_n_behind_a_front(void **state)
{
    (void)state;
    every_n(NULL, 64, true);
}

static void test_every_n_native(void **state)
{
    (void)state;
    char path[TINY_PATH_MAX];
    struct tiny_options o = TINY_DEFAULT;
    tiny_model_file(&o, path);
    every_n(path, ANSWER_NATIVE, false);
    unlink(path);
}

/* An answer that was begun before, by a device that has ended since: both ends count its tokens. */
static void goes_on(const char *path, const char *url, const struct single_answer *want,
                    const struct sampling *how, uint32_t n_have)
{
    struct chat_message m = {"user", question, sizeof question - 1};
    struct device *d;
    struct device_report r;
    struct err e = ERR_INIT;
    struct device_options o = {.engine = open_engine(path, 600.0),
                               .cloud_url = url,
                               .prefill_tps = 1e6 / 600.0,
                               .decode_us = 10.0};
    assert_int_equal(device_open(&o, &d, NULL), 0);
    struct device_question q = {.messages = &m,
                                .n_messages = 1,
                                .sampling = *how,
                                .have = want->tokens.ids,
                                .n_have = n_have,
                                .tokens_max = want->tokens.len - n_have,
                                .pace = PACE_OFF,
                                .cloud_tokens = 5};
    if (device_ask(d, &q, &r, &e)) fail_msg("%s", e.text);
    assert_int_equal(r.n, want->tokens.len - n_have);
    for (uint32_t i = 0; i < r.n; i++)
        assert_int_equal(r.tokens[i].id, want->tokens.ids[n_have + i]);
    device_close(d);
}

static void test_goes_on(void **state)
{
    (void)state;
    char path[TINY_PATH_MAX];
    struct tiny_options o = TINY_DEFAULT;
    tiny_model_file(&o, path);
    struct cloud_fixture *cloud = cloud_fixture_start(open_engine(path, 0.0));
    for (size_t k = 3; k < sizeof samplings / sizeof *samplings; k++) {
        struct single_answer want;
        struct engine *single = open_engine(path, 0.0);
        struct sampling how = sampling_of(k, single);
        single_answer_make(single, question, false, &how, ANSWER_NATIVE, &want);
        engine_free(single);
        for (uint32_t n = 1; n < want.tokens.len; n += 4)
            goes_on(path, cloud_fixture_url(cloud), &want, &how, n);
        single_answer_release(&want);
    }
    cloud_fixture_stop(cloud);
    unlink(path);
}

/* As a person uses it: N planned, paced, one device for several questions. */
static void test_planned_and_paced(void **state)
{
    (void)state;
    static const enum pace_mode paces[] = {PACE_SMOOTH, PACE_OFF, PACE_READING};
    struct single_answer want;
    struct engine *single = open_engine(NULL, 0.0);
    single_answer_make(single, question, false, &samplings[1], 20, &want);
    engine_free(single);
    struct cloud_fixture *cloud = cloud_fixture_start(open_engine(NULL, 0.0));
    struct device_options o = {.engine = open_engine(NULL, 2000.0),
                               .cloud_url = cloud_fixture_url(cloud)};
    struct device *d;
    struct device_report r;
    assert_int_equal(device_open(&o, &d, NULL), 0);
    for (int i = 0; i < 3; i++) {
        struct chat_message m = {"user", question, sizeof question - 1};
        struct device_question q = {.messages = &m,
                                    .n_messages = 1,
                                    .sampling = samplings[1],
                                    .tokens_max = 20,
                                    .pace = paces[i],
                                    .cloud_tokens = -1};
        assert_int_equal(device_ask(d, &q, &r, NULL), 0);
        assert_int_equal(r.text_len, want.text.len);
        assert_memory_equal(r.text, want.text.data, want.text.len);
        if (i > 0) assert_int_equal(r.kept_tokens, r.prompt_tokens - 1); /* of the turn before */
        for (uint32_t k = 1; k < r.n; k++)
            assert_true(r.tokens[k].shown_us >= r.tokens[k - 1].shown_us);
    }
    device_close(d);
    cloud_fixture_stop(cloud);
    single_answer_release(&want);
}

/* A device five times slower than believed: the stream is extended (PATCH) while it runs, or asked
 * for again, until the device is there; nothing shows in the answer. */
static void test_late_device_extends(void **state)
{
    (void)state;
    struct engine *single = open_endless(0.0, 500.0);
    struct single_answer want;
    struct device *d;
    struct device_report r;
    char prompt[2001];
    memset(prompt, 'q', sizeof prompt - 1);
    prompt[sizeof prompt - 1] = 0;
    single_answer_make(single, prompt, true, &samplings[1], 700, &want);
    struct cloud_fixture *cloud = cloud_fixture_start(single);
    struct device_options o = {.engine = open_endless(500.0, 0.0),
                               .cloud_url = cloud_fixture_url(cloud),
                               .prefill_tps = 5500.0,
                               .decode_us = 2500.0};
    assert_int_equal(device_open(&o, &d, NULL), 0);
    struct device_question q = {.raw = prompt,
                                .raw_len = sizeof prompt - 1,
                                .sampling = samplings[1],
                                .tokens_max = 700,
                                .goal = PLAN_FAST, /* for 0.4 s, as it believes */
                                .cloud_tokens = -1};
    assert_int_equal(device_ask(d, &q, &r, NULL), 0);
    assert_string_equal(r.text, want.text.data);
    assert_int_equal(r.plan.choice, PLAN_BOTH);
    if (r.turn.cloud_tokens <= r.plan.cloud_tokens)
        fail_msg("%u cloud tokens, %u planned: %s", r.turn.cloud_tokens, r.plan.cloud_tokens,
                 r.plan.why);
    assert_true(r.turn.device_tokens > 0);
    /* The slot is held while its tokens are made, 500 us each, and not while the device decodes. */
    double all = (double)r.tokens[r.n - 1].shown_us;
    assert_true(r.cloud_slot_us > 500.0 * (r.turn.cloud_tokens - r.turn.cloud_opens));
    assert_true(r.cloud_slot_us < all);
    device_close(d);
    cloud_fixture_stop(cloud);
    single_answer_release(&want);
}

static void one_length(const char *url, const char *prompt, uint32_t length)
{
    struct single_answer want;
    struct device *d;
    struct device_report r;
    struct device_options o = {.engine = open_endless(5.0, 0.0), .cloud_url = url};
    struct engine *single = open_endless(0.0, 0.0);
    uint32_t room = CONTEXT_FAKE - length, most = room == 0 ? 1 : room < 12 ? room : 12;
    single_answer_make(single, prompt, true, &samplings[0], most, &want);
    engine_free(single);
    assert_int_equal(want.prompt.len, length);
    assert_int_equal(want.tokens.len, most);
    assert_int_equal(device_open(&o, &d, NULL), 0);
    struct device_question q = {.raw = prompt,
                                .raw_len = length,
                                .sampling = samplings[0],
                                .tokens_max = 12,
                                .cloud_tokens = 4};
    assert_int_equal(device_ask(d, &q, &r, NULL), 0);
    assert_int_equal(r.text_len, want.text.len);
    assert_memory_equal(r.text, want.text.data, want.text.len);
    device_close(d);
    single_answer_release(&want);
}

/* Prompts of one token, of a page and one more or less, and of the whole context. */
static void test_prompt_lengths(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {1, 63, 64, 65, 128, 4094, 4095, 4096};
    struct cloud_fixture *cloud = cloud_fixture_start(open_endless(0.0, 0.0));
    char prompt[CONTEXT_FAKE + 1];
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        memset(prompt, 'x', lengths[k]);
        prompt[lengths[k]] = 0;
        one_length(cloud_fixture_url(cloud), prompt, lengths[k]);
    }
    cloud_fixture_stop(cloud);
}

static void test_prompt_too_long(void **state)
{
    (void)state;
    struct device *d;
    struct device_report r;
    struct err e = ERR_INIT;
    struct device_options o = {.engine = open_engine(NULL, 0.0)};
    char prompt[CONTEXT_FAKE + 1];
    memset(prompt, 'x', sizeof prompt);
    assert_int_equal(device_open(&o, &d, NULL), 0);
    struct device_question q = {
        .raw = prompt, .raw_len = sizeof prompt, .sampling = samplings[0], .cloud_tokens = -1};
    assert_int_equal(device_ask(d, &q, &r, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "4097"));
    assert_non_null(strstr(e.text, "4096"));
    q.raw_len = 10; /* the device is none the worse */
    assert_int_equal(device_ask(d, &q, &r, &e), 0);
    device_close(d);
}

/* A growing conversation: each turn's answer is the one a fresh machine gives. */
static void test_conversation(void **state)
{
    (void)state;
    static const char *const lines[] = {"Who lives here?", "And before him?", "Tell me more."};
    struct cloud_fixture *cloud = cloud_fixture_start(open_engine(NULL, 0.0));
    struct device_options o = {.engine = open_engine(NULL, 300.0),
                               .cloud_url = cloud_fixture_url(cloud)};
    struct device_options alone = {.engine = open_engine(NULL, 0.0)};
    struct device *d, *fresh;
    struct chat_message m[6];
    struct buf texts[3];
    assert_int_equal(device_open(&o, &d, NULL), 0);
    assert_int_equal(device_open(&alone, &fresh, NULL), 0);
    for (uint32_t i = 0; i < 3; i++) {
        struct device_report r, want;
        m[2 * i] = (struct chat_message){"user", lines[i], strlen(lines[i])};
        struct device_question q = {.messages = m,
                                    .n_messages = 2 * i + 1,
                                    .sampling = samplings[2],
                                    .pace = PACE_OFF,
                                    .cloud_tokens = 7};
        assert_int_equal(device_ask(d, &q, &r, NULL), 0);
        q.cloud_tokens = 0;
        assert_int_equal(device_ask(fresh, &q, &want, NULL), 0);
        assert_string_equal(r.text, want.text);
        if (i > 0) assert_true(r.kept_tokens > 0);
        buf_init(&texts[i], 1 << 16);
        assert_int_equal(buf_append(&texts[i], r.text, r.text_len), 0);
        m[2 * i + 1] = (struct chat_message){"assistant", texts[i].data, texts[i].len};
    }
    for (uint32_t i = 0; i < 3; i++)
        buf_release(&texts[i]);
    device_close(d);
    device_close(fresh);
    cloud_fixture_stop(cloud);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_n_fake),
        cmocka_unit_test(test_every_n_native),
        cmocka_unit_test(test_goes_on),
        cmocka_unit_test(test_planned_and_paced),
        cmocka_unit_test(test_prompt_lengths),
        cmocka_unit_test(test_late_device_extends),
        cmocka_unit_test(test_prompt_too_long),
        cmocka_unit_test(test_conversation),
        cmocka_unit_test(test_every_n_behind_a_front),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
