/*
 * test_lib_stop: stop strings and token biases of questions to libpdd, of each source.
 *
 * Catches: a stop string, or its beginning, that a callback is given; text behind it that is kept;
 * text that only looked like one and is lost; a token that its report counts and nobody was shown;
 * an answer that goes on behind it; a bias that is not applied, or not told to the cloud.
 */
#include <stdio.h>
#include <unistd.h>

#include "support/lib_device.h"

#include "engine/native.h"
#include "support/cloud_fixture.h"
#include "support/tiny_model.h"

static const struct {
    const char *script;
    const char *stop[3];
    const char *text;
    int reason;
} cases[] = {
    {"One. Two. Three.", {"Two"}, "One. ", PDD_STOP},
    {"One. Two. Three.", {"Twp", "Thr", "Two."}, "One. ", PDD_STOP},
    {"One. Two. Three.", {"Three!", "One, "}, "One. Two. Three.", PDD_STOP}, /* its own end */
    {"One. Two. Three.", {"One"}, "", PDD_STOP},
    {"One. Two. Three.", {".", "e."}, "On", PDD_STOP}, /* complete at once: the longest */
    {"aab", {"ab"}, "a", PDD_STOP},
    {"\xC3\xA9t\xC3\xA9!", {"t\xC3\xA9"}, "\xC3\xA9", PDD_STOP},
    {"So\xC3", {"\xEF\xBF\xBD"}, "So", PDD_STOP}, /* in the rest of the last token */
    {"<think>\nTwo?\n</think>\n\nOne. Two. Three.", {"Two."}, "One. ", PDD_STOP},
};

static int gather_thought(void *arg, const char *text, size_t length, const pdd_token *token)
{
    struct gathered *g = arg;
    (void)token;
    return buf_append(&g->thought, text, length);
}

static void check(pdd_device *device, size_t i)
{
    struct gathered g;
    pdd_answer *a;
    pdd_error error;
    pdd_question q = gather(&g, "Count.");
    q.on_thought = gather_thought;
    q.stop = cases[i].stop;
    while (q.stop_count < 3 && cases[i].stop[q.stop_count])
        q.stop_count++;
    if (pdd_ask(device, &q, &a, &error)) fail_msg("case %zu: %s", i, error.text);
    pdd_report r = report_of(a);
    if (strcmp(pdd_answer_text(a, NULL), cases[i].text) != 0)
        fail_msg("case %zu: \"%s\"", i, pdd_answer_text(a, NULL));
    assert_string_equal(g.text.data, cases[i].text);
    assert_int_equal(r.reason, cases[i].reason);
    assert_int_equal(r.tokens, g.n_tokens);
    assert_int_equal(r.cloud_tokens, g.of[PDD_SOURCE_CLOUD]);
    assert_int_equal(r.device_tokens, g.of[PDD_SOURCE_DEVICE]);
    assert_string_equal(r.trouble, "");
    if (strstr(cases[i].script, "think")) assert_non_null(strstr(g.thought.data, "Two?"));
    pdd_answer_free(a);
    buf_release(&g.text);
    buf_release(&g.thought);
}

/* Of the device, of the cloud, and of both. */
static void test_stops(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fake_options o = {.script = cases[i].script};
        struct engine *engine;
        assert_int_equal(fake_open(&o, &engine, NULL), 0);
        struct cloud_fixture *cloud = cloud_fixture_start(engine);
        bool thinks = strstr(cases[i].script, "<think>") != NULL; /* ChatML here marks none */
        for (int way = thinks; way < (thinks ? 2 : 3); way++) {
            pdd_model *model = way == 1 ? NULL : fake_model(&o);
            pdd_device *device = open_device(model, way ? cloud_fixture_url(cloud) : NULL);
            check(device, i);
            pdd_device_close(device);
            pdd_model_close(model);
        }
        cloud_fixture_stop(cloud);
    }
}

static int count_call(void *arg, const char *text, size_t length, const pdd_token *token)
{
    (void)text, (void)length, (void)token;
    ++*(uint32_t *)arg;
    return 0;
}

/* An answer without end ends there, joins its chat, and the device is free for the next one. */
static void test_endless(void **state)
{
    (void)state;
    struct fake_options o = {.answer_tokens = 1 << 20, .step_us = 100};
    pdd_model *model = fake_model(&o);
    pdd_device *device = open_device(model, NULL);
    pdd_chat *chat;
    const char *const stop[] = {" "}, *text;
    uint32_t calls = 0;
    assert_int_equal(pdd_chat_new(NULL, &chat, NULL), 0);
    for (int i = 0; i < 3; i++) {
        pdd_question q = {.size = sizeof q, .chat = chat, .text = "x", .tokens_max = 3000};
        pdd_answer *a;
        q.pace = PDD_PACE_OFF;
        q.stop = stop;
        q.stop_count = 1;
        q.on_text = count_call;
        q.arg = &calls;
        assert_int_equal(pdd_ask(device, &q, &a, NULL), 0);
        assert_int_equal(report_of(a).reason, PDD_STOP);
        assert_true(report_of(a).tokens < 100);
        assert_null(strchr(pdd_answer_text(a, NULL), ' '));
        uint32_t at = pdd_chat_count(chat);
        assert_int_equal(at, 2 * (i + 1));
        assert_int_equal(pdd_chat_message(chat, at - 1, NULL, &text, NULL, NULL), 0);
        assert_string_equal(text, pdd_answer_text(a, NULL));
        pdd_answer_free(a);
    }
    assert_true(calls > 0);
    pdd_chat_free(chat);
    pdd_device_close(device);
    pdd_model_close(model);
}

/* ---- biases ---- */

static uint32_t first_token(pdd_device *device, int mode, const pdd_bias *bias, uint32_t n)
{
    pdd_question q = {.size = sizeof q, .text = "Where?", .tokens_max = 4, .mode = mode};
    uint32_t id = 0;
    const char *json;
    pdd_answer *a;
    pdd_error error;
    q.logit_bias = bias;
    q.logit_bias_count = n;
    q.pace = PDD_PACE_OFF;
    if (pdd_ask(device, &q, &a, &error)) fail_msg("%s", error.text);
    assert_int_equal(pdd_answer_json(a, &json, NULL, NULL), 0);
    const char *at = strstr(json, "\"id\"");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "\"id\" : %u", &id) + sscanf(at, "\"id\":%u", &id) > 0, 1);
    pdd_answer_free(a);
    return id;
}

/* One that is forbidden is not drawn, and one that is wanted is, here and in the cloud. */
static void test_biases(void **state)
{
    (void)state;
    struct tiny_options tiny = TINY_DEFAULT;
    char path[TINY_PATH_MAX];
    struct engine *engine;
    tiny_model_file(&tiny, path);
    struct native_options o = {
        .model_path = path, .threads = 1, .context_max = 512, .chat_template = "chatml"};
    assert_int_equal(native_open(&o, &engine, NULL), 0);
    struct cloud_fixture *cloud = cloud_fixture_start(engine);
    pdd_model_options m = {.size = sizeof m,
                           .path = path,
                           .threads = 1,
                           .context_max = 512,
                           .chat_template = "chatml"};
    pdd_model *model;
    assert_int_equal(pdd_model_open(&m, &model, NULL), 0);
    pdd_device *device = open_device(model, cloud_fixture_url(cloud));
    for (int mode = PDD_MODE_LOCAL; mode <= PDD_MODE_CLOUD; mode++) {
        uint32_t plain = first_token(device, mode, NULL, 0);
        pdd_bias never = {(int32_t)plain, -100.0f}, always = {70, 100.0f};
        assert_true(first_token(device, mode, &never, 1) != plain);
        assert_int_equal(first_token(device, mode, &always, 1), 70);
    }
    pdd_device_close(device);
    pdd_model_close(model);
    cloud_fixture_stop(cloud);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stops),
        cmocka_unit_test(test_endless),
        cmocka_unit_test(test_biases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
