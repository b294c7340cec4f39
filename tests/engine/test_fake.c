/*
 * test_fake: what only the engines for tests promise: scripts, scripted faults, hashes that tell
 * two fakes apart, and emulated times. Catches: a fake whose answer depends on how it was fed, a
 * fault that leaves tokens behind, fakes that pass for the same model, a device emulated too fast.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/emulated.h"
#include "engine/fake.h"
#include "model/text/template.h"
#include "model/text/vocab.h"

static struct engine *open_fake(const struct fake_options *o)
{
    struct engine *e;
    struct err err;
    if (fake_open(o, &e, &err)) fail_msg("%s", err.text);
    return e;
}

static int step(struct engine *e, struct session *s, const int32_t *tokens, uint32_t n,
                int32_t *ret_next)
{
    struct engine_span span = {.session = s, .tokens = tokens, .n = n, .sample = true};
    struct err err;
    int code = engine_step(e, &span, 1, &err);
    if (code == 0) *ret_next = span.next;
    return code;
}

static void test_script(void **state)
{
    (void)state;
    static const char script[] = "Hi \xE2\x82\xAC!";
    struct engine *e = open_fake(&(struct fake_options){.script = script});
    struct session *s;
    struct token_list prompt;
    struct chat_message ask = {"user", "anything", 8};
    token_list_init(&prompt, 1000);
    assert_int_equal(
        chat_template_encode(engine_template(e), engine_vocab(e), &ask, 1, true, &prompt, NULL), 0);
    assert_int_equal(engine_session_open(e, &s, NULL), 0);
    int32_t next;
    assert_int_equal(step(e, s, prompt.ids, prompt.len, &next), 0);
    for (size_t i = 0; i < sizeof script - 1; i++) {
        assert_int_equal(next, (uint8_t)script[i]);
        assert_int_equal(step(e, s, &next, 1, &next), 0);
    }
    assert_true(vocab_is_end(engine_vocab(e), next));
    engine_session_close(s);
    engine_free(e);
    token_list_release(&prompt);
}

/* Also through an emulated engine, which must pass the fault on. */
/* A fake marks its text in the prompt; one without a text has no scores. */
static void test_scored(void **state)
{
    (void)state;
    static const char prompt[] = "a needle b needl needle";
    int32_t tokens[sizeof prompt - 1], next;
    struct engine *plain = open_fake(&(struct fake_options){.script = "x"});
    struct engine *e = open_fake(&(struct fake_options){.script = "x", .scored = "needle"});
    struct session *s;
    struct err err;
    for (uint32_t i = 0; i < sizeof prompt - 1; i++)
        tokens[i] = (uint8_t)prompt[i];
    assert_int_equal(engine_session_open(plain, &s, NULL), 0);
    assert_int_equal(session_score(s, 0, 23, &err), ERR_UNSUPPORTED);
    engine_session_close(s);
    assert_int_equal(engine_session_open(e, &s, NULL), 0);
    assert_int_equal(session_score(s, 0, 23, &err), 0);
    assert_int_equal(step(e, s, tokens, 20, &next), 0);
    assert_null(session_scores(s));
    assert_int_equal(step(e, s, tokens + 20, 3, &next), 0);
    for (uint32_t i = 0; i < 23; i++) {
        bool marked = (i >= 2 && i < 8) || i >= 17;
        float want = marked ? 1.0f : FAKE_SCORE;
        assert_memory_equal(&session_scores(s)[i], &want, sizeof want);
    }
    engine_session_close(s);
    engine_free(e);
    engine_free(plain);
}

static void test_fault(void **state)
{
    (void)state;
    static const struct device_profile quick = {"quick", 1e12, 1e12, "this test", false};
    for (int emulated = 0; emulated < 2; emulated++) {
        struct engine *e = open_fake(&(struct fake_options){.answer_tokens = 9, .fail_at_step = 3});
        struct session *s;
        int32_t tokens[80] = {0}, next = -5;
        if (emulated) engine_emulate(e, &quick);
        assert_int_equal(engine_session_open(e, &s, NULL), 0);
        assert_int_equal(step(e, s, tokens, 40, &next), 0);
        assert_int_equal(step(e, s, tokens, 20, &next), 0);
        uint32_t pages = engine_kv_pages_free(e);
        next = -5;
        assert_int_equal(step(e, s, tokens, 10, &next), ERR_INTERNAL);
        assert_int_equal(next, -5);
        assert_int_equal(session_len(s), 60);
        assert_int_equal(engine_kv_pages_free(e), pages);
        assert_int_equal(step(e, s, tokens, 10, &next), 0);
        engine_session_close(s);
        engine_free(e);
    }
}

static void test_hashes(void **state)
{
    (void)state;
    static const struct fake_options options[] = {
        {.answer_tokens = 9}, {.answer_tokens = 9, .model_name = "other"},
        {.answer_tokens = 8}, {.script = "abc"},
        {.script = "abd"},    {.script = ""},
    };
    enum { N = sizeof options / sizeof *options };
    char hashes[N][ENGINE_HASH_TEXT];
    for (int i = 0; i < N; i++) {
        struct engine *e = open_fake(&options[i]), *same = open_fake(&options[i]);
        memcpy(hashes[i], engine_info(e)->weights_hash, ENGINE_HASH_TEXT);
        assert_string_equal(hashes[i], engine_info(same)->weights_hash);
        engine_free(e);
        engine_free(same);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(hashes[k], hashes[i]);
    }
}

/* Lower bounds only: a busy machine may be late, never early. */
static void test_emulated_times(void **state)
{
    (void)state;
    static const struct device_profile slow = {"slow", 1000.0, 100.0, "this test", false};
    static const struct {
        uint32_t spans, tokens, us;
    } cases[] = {{1, 40, 40000}, {1, 1, 10000}, {3, 1, 10000}, {3, 20, 60000}, {1, 2, 10000}};
    struct engine *e = open_fake(&(struct fake_options){.answer_tokens = 9});
    int32_t tokens[40] = {0};
    engine_emulate(e, &slow);
    struct session *s[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(engine_session_open(e, &s[i], NULL), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct engine_span spans[3];
        for (uint32_t k = 0; k < cases[i].spans; k++)
            spans[k] =
                (struct engine_span){.session = s[k], .tokens = tokens, .n = cases[i].tokens};
        uint64_t begin = clock_us();
        assert_int_equal(engine_step(e, spans, cases[i].spans, NULL), 0);
        assert_true(clock_us() - begin >= cases[i].us);
    }
    for (int i = 0; i < 3; i++)
        engine_session_close(s[i]);
    engine_free(e);
}

/* Catches: a cached prompt that an emulated provider reads in no time, or again and again. */
static void test_emulated_rereads(void **state)
{
    (void)state;
    static const struct device_profile reader = {"reader", 1000.0, 1e6, "this test", true};
    struct engine *e = open_fake(&(struct fake_options){.answer_tokens = 9});
    struct session *first, *second;
    int32_t tokens[128] = {0}, next;
    assert_int_equal(engine_session_open(e, &first, NULL), 0);
    assert_int_equal(engine_session_open(e, &second, NULL), 0);
    assert_int_equal(step(e, first, tokens, 128, &next), 0);
    engine_emulate(e, &reader);
    assert_int_equal(session_share(second, first, 128, NULL), 0);
    uint64_t begin = clock_us();
    assert_int_equal(step(e, second, tokens, 1, &next), 0);
    assert_true(clock_us() - begin >= 129000);
    uint64_t least = UINT64_MAX; /* of several, as a busy machine may be late */
    for (int i = 0; i < 20; i++) {
        begin = clock_us();
        assert_int_equal(step(e, second, tokens, 1, &next), 0);
        uint64_t took = clock_us() - begin;
        least = took < least ? took : least;
    }
    assert_true(least < 64000);
    engine_session_close(first);
    engine_session_close(second);
    engine_free(e);
}

static void test_profiles(void **state)
{
    (void)state;
    uint32_t n = 0;
    for (const struct device_profile *p; (p = device_profile_at(n)) != NULL; n++) {
        assert_ptr_equal(device_profile_find(p->name), p);
        assert_true(p->prefill_tps > p->decode_tps && p->decode_tps > 0.0 && p->source[0]);
    }
    assert_true(n >= 4);
    assert_null(device_profile_find("toaster"));
    assert_true(device_profile_find("s24-ultra-gpu")->prefill_tps == 816.0);
}

/* One step a beat, however little a step computes: a rate that load tests can rely on. */
static void test_beat(void **state)
{
    (void)state;
    enum { STEPS = 8, BEAT_US = 3000 };
    struct engine *e = open_fake(&(struct fake_options){.answer_tokens = 9, .beat_us = BEAT_US});
    struct session *s;
    int32_t next = 1;
    assert_int_equal(engine_session_open(e, &s, NULL), 0);
    uint64_t begin = clock_us();
    for (int i = 0; i < STEPS; i++)
        assert_int_equal(step(e, s, &next, 1, &next), 0);
    assert_true(clock_us() - begin >= (STEPS - 1) * BEAT_US);
    engine_session_close(s);
    engine_free(e);
}

/* Every allocation of opening may fail; nothing is lost or freed twice (seen by ASan). */
static void test_open_without_memory(void **state)
{
    (void)state;
    for (long nth = 1;; nth++) {
        struct engine *e = NULL;
        mem_fail_at(nth);
        int code = fake_open(&(struct fake_options){.script = "x", .model_name = "y"}, &e, NULL);
        bool hit = mem_fail_hit();
        mem_fail_at(0);
        if (!hit) {
            assert_int_equal(code, 0);
            engine_free(e);
            return;
        }
        assert_int_equal(code, ERR_NO_MEMORY);
        assert_null(e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_script),         cmocka_unit_test(test_scored),
        cmocka_unit_test(test_fault),          cmocka_unit_test(test_hashes),
        cmocka_unit_test(test_emulated_times), cmocka_unit_test(test_emulated_rereads),
        cmocka_unit_test(test_profiles),       cmocka_unit_test(test_open_without_memory),
        cmocka_unit_test(test_beat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
