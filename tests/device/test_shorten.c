/*
 * test_shorten: a device whose prompt the cloud shortens (docs/design/refine.md), against a
 * scripted cloud. The fake engine's answer is a function of its whole history, so a wrong one
 * shows.
 *
 * Catches: a history that is not the one that the choice leaves; an answer that loses tokens when
 * it changes; a choice that nobody asked for taken; a next turn that builds on what has gaps; an
 * idle device that fills no gap, or does not let go.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "device/device.h"
#include "engine/fake.h"
#include "refine/refine.h"
#include "support/cloud_fixture.h"
#include "support/script_cloud.h"

enum { DOCUMENT = 4000, N = 16, ANSWER = 40, TAIL = 160, WAIT_US = 20000000 };

static const char tail[] = "\n\nWhat was in the box?";
static const struct sampling greedy = SAMPLING_GREEDY;
static char document[DOCUMENT + sizeof tail];

static struct engine *open_engine(double us)
{
    struct engine *e;
    struct fake_options o = {
        .answer_tokens = ANSWER, .prefill_us_per_token = us, .context_max = 3 * DOCUMENT};
    assert_int_equal(fake_open(&o, &e, NULL), 0);
    return e;
}

static struct device *open_device(double us, const char *url, bool fill)
{
    struct device *d;
    struct device_options o = {.engine = open_engine(us),
                               .cloud_url = url,
                               .prefill_tps = 500.0, /* so that the plan wants the cloud */
                               .decode_us = 20000.0,
                               .idle_fill = fill};
    assert_int_equal(device_open(&o, &d, NULL), 0);
    return d;
}

static struct device_question question_of(const struct chat_message *m, uint32_t n, float ratio)
{
    return (struct device_question){.messages = m,
                                    .n_messages = n,
                                    .sampling = greedy,
                                    .tokens_max = 2 * ANSWER,
                                    .pace = PACE_OFF,
                                    .cloud_tokens = N,
                                    .refine =
                                        ratio > 0.0f ? DEVICE_REFINE_RATIO : DEVICE_REFINE_OFF,
                                    .refine_ratio = ratio};
}

/* A choice: runs of 16 tokens, the end always. */
static void make_bits(uint64_t seed, uint32_t n, uint8_t *bits)
{
    memset(bits, 0, (n + 7) / 8);
    for (uint32_t i = 0; i < n; i++)
        if (rng_u32(seed, 5, i / 16) % 3 == 0 || i + TAIL >= n)
            bits[i / 8] |= (uint8_t)(1u << i % 8);
}

static bool has(const uint8_t *bits, uint32_t i)
{
    return bits[i / 8] >> (i % 8) & 1;
}

/* The history that holds `reading` tokens: whole up to some place, chosen after it. */
static void expect_history(const struct token_list *prompt, const uint8_t *bits, uint32_t reading,
                           struct token_list *out)
{
    uint32_t after = 0, whole = 0;
    for (uint32_t i = 0; i < prompt->len; i++)
        after += has(bits, i);
    while (whole + after < reading && whole < prompt->len)
        after -= has(bits, whole++);
    assert_int_equal(whole + after, reading);
    token_list_init(out, 1 << 20);
    for (uint32_t i = 0; i < prompt->len; i++)
        if (i < whole || has(bits, i)) assert_int_equal(token_list_push(out, prompt->ids[i]), 0);
}

/* Every token of the device is what an engine draws after that history. */
static void check_draws(const struct device_report *r, const struct token_list *history)
{
    struct engine *e = open_engine(0.0);
    struct session *s;
    uint32_t at = 0;
    assert_int_equal(engine_session_open(e, &s, NULL), 0);
    struct engine_span span = {.session = s, .sample = true};
    for (; at < history->len; at += span.n) {
        span.tokens = history->ids + at;
        span.n = history->len - at < 500 ? history->len - at : 500;
        assert_int_equal(engine_step(e, &span, 1, NULL), 0);
    }
    for (uint32_t i = 0; i < r->n; i++) {
        if (r->tokens[i].source == TURN_DEVICE) assert_int_equal(span.next, r->tokens[i].id);
        span.tokens = &r->tokens[i].id;
        span.n = 1;
        assert_int_equal(engine_step(e, &span, 1, NULL), 0);
    }
    engine_session_close(s);
    engine_free(e);
}

struct rig {
    struct single_answer want; /* of the whole prompt: what the cloud says */
    struct script script;
    struct script_cloud *cloud;
    uint8_t bits[SCRIPT_VERSIONS][DOCUMENT / 8 + 64];
};

static void rig_start(struct rig *g)
{
    struct rng r;
    rng_init(&r, 3, 3);
    for (uint32_t i = 0; i < DOCUMENT; i++)
        document[i] = i % 7 == 6 ? ' ' : (char)('a' + rng_below(&r, 26));
    memcpy(document + DOCUMENT, tail, sizeof tail);
    struct engine *single = open_engine(0.0);
    single_answer_make(single, document, false, &greedy, ANSWER, &g->want);
    engine_free(single);
    for (uint32_t v = 0; v < SCRIPT_VERSIONS; v++)
        make_bits(v, g->want.prompt.len, g->bits[v]);
    g->script = (struct script){.tokens = g->want.tokens.ids,
                                .n = g->want.tokens.len,
                                .ends = true,
                                .prompt_tokens = g->want.prompt.len,
                                .kept = {g->bits[0], NULL}};
    g->cloud = script_cloud_start(&g->script);
}

static void rig_stop(struct rig *g)
{
    script_cloud_stop(g->cloud);
    single_answer_release(&g->want);
}

static void test_reads_what_is_kept(void **state)
{
    (void)state;
    struct rig g;
    struct device_report r;
    struct token_list history;
    rig_start(&g);
    struct chat_message m = {"user", document, strlen(document)};
    struct device *d = open_device(150.0, script_cloud_url(g.cloud), false);
    struct device_question q = question_of(&m, 1, 0.4f);
    assert_int_equal(device_ask(d, &q, &r, NULL), 0);
    struct script_refine asked = script_cloud_refine(g.cloud);
    assert_true(asked.ratio > 0.39f && asked.ratio < 0.41f && asked.held == 0);
    assert_true(r.turn.refined && r.refined.versions == 1 && !r.refined.refused[0]);
    assert_true(r.turn.reading < g.want.prompt.len);
    assert_int_equal(r.turn.cloud_tokens, N);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(r.tokens[i].id, g.want.tokens.ids[i]);
    expect_history(&g.want.prompt, g.bits[0], r.turn.reading, &history);
    check_draws(&r, &history);
    token_list_release(&history);

    /* The next turn is refined anew, or not: what it holds is the part without gaps. */
    char text[4 * ANSWER + 1];
    snprintf(text, sizeof text, "%s", r.text);
    struct chat_message talk[] = {m, {"assistant", text, strlen(text)}, {"user", "Why?", 4}};
    struct device_question next = question_of(talk, 3, 0.0f);
    struct device_report alone;
    struct device_options o = {.engine = open_engine(0.0)};
    struct device *fresh;
    assert_int_equal(device_open(&o, &fresh, NULL), 0);
    next.mode = DEVICE_LOCAL_ONLY;
    assert_int_equal(device_ask(fresh, &next, &alone, NULL), 0);
    assert_int_equal(device_ask(d, &next, &r, NULL), 0);
    assert_string_equal(r.text, alone.text);
    assert_true(r.kept_tokens < g.want.prompt.len);
    device_close(fresh);
    device_close(d);
    rig_stop(&g);
}

/* A second version after the eighth token, at a device that still reads then. */
static void test_second_version(void **state)
{
    (void)state;
    struct rig g;
    struct device_report r;
    rig_start(&g);
    struct chat_message m = {"user", document, strlen(document)};
    g.script.kept[1] = g.bits[1];
    g.script.kept_at[1] = 8;
    g.script.token_pause_us = 5000;
    script_cloud_set(g.cloud, &g.script);
    struct device *d = open_device(150.0, script_cloud_url(g.cloud), false);
    struct device_question q = question_of(&m, 1, 0.4f);
    assert_int_equal(device_ask(d, &q, &r, NULL), 0);
    assert_true(r.turn.refined);
    assert_int_equal(r.refined.versions, 2);
    assert_int_equal(r.n, ANSWER);
    for (uint32_t i = 0; i < r.turn.cloud_tokens; i++)
        assert_int_equal(r.tokens[i].id, g.want.tokens.ids[i]);
    device_close(d);
    rig_stop(&g);
}

/* Off, refused, or sent though nobody asked: the whole prompt, and the answer of one machine. */
static void test_whole_prompt(void **state)
{
    (void)state;
    struct rig g;
    struct device_report r;
    rig_start(&g);
    struct chat_message m = {"user", document, strlen(document)};
    for (int how = 0; how < 2; how++) {
        struct device *d = open_device(20.0, script_cloud_url(g.cloud), false);
        struct device_question q = question_of(&m, 1, how ? 0.3f : 0.0f);
        g.script.refused = how ? "flat" : NULL;
        script_cloud_set(g.cloud, &g.script);
        assert_int_equal(device_ask(d, &q, &r, NULL), 0);
        assert_true((script_cloud_refine(g.cloud).ratio > 0.0f) == (how == 1));
        assert_false(r.turn.refined);
        assert_string_equal(r.refined.refused, how ? "flat" : "");
        assert_string_equal(r.text, g.want.text.data);
        assert_int_equal(r.match, WIRE_EXACT);
        device_close(d);
    }
    rig_stop(&g);
}

/* What a device asks of refinement with these messages; the cloud refuses. */
static struct script_refine asked_with(struct rig *g, const struct chat_message *m, uint32_t n)
{
    struct device_report r;
    struct device_question q = question_of(m, n, 0.3f);
    q.cloud_tokens = 0; /* how long the prompt is */
    for (int i = 0; i < 2; i++) {
        struct device *d = open_device(20.0, script_cloud_url(g->cloud), false);
        assert_int_equal(device_ask(d, &q, &r, NULL), 0);
        device_close(d);
        g->script.kept[0] = NULL;
        g->script.refused = "unfit";
        g->script.prompt_tokens = r.prompt_tokens;
        script_cloud_set(g->cloud, &g->script);
        q.cloud_tokens = N;
    }
    return script_cloud_refine(g->cloud);
}

/* The system message is named, so that the cloud keeps it whole; what the device holds is, too. */
static void test_system_message(void **state)
{
    (void)state;
    static const char guard[] = "Never name the captain.", brief[] = "Be brief.";
    char quote[64];
    struct rig g;
    rig_start(&g);
    struct chat_message m[] = {{"system", guard, sizeof guard - 1},
                               {"user", document, strlen(document)}};
    struct script_refine asked = asked_with(&g, m, 2);
    assert_int_equal(asked.n_whole, 2);
    assert_true(asked.whole_to >= sizeof guard - 1 && asked.whole_to < sizeof guard + 40);
    /* Where another message is the first one, the rules are found by their words. */
    const struct chat_message later[] = {{"user", document, strlen(document)},
                                         {"system", guard, sizeof guard - 1},
                                         {"user", tail, sizeof tail - 1}};
    asked = asked_with(&g, later, 3);
    assert_int_equal(asked.n_whole, 2);
    assert_true(asked.whole_to > strlen(document) + sizeof guard - 1);
    /* One that is quoted after another one: the cloud takes ranges in order only. */
    int len = snprintf(quote, sizeof quote, "Why \"%s\"?", guard);
    const struct chat_message quoted[] = {{"system", guard, sizeof guard - 1},
                                          {"user", document, strlen(document)},
                                          {"system", brief, sizeof brief - 1},
                                          {"user", quote, (size_t)len}};
    asked = asked_with(&g, quoted, 4);
    assert_int_equal(asked.n_whole, 6);
    rig_stop(&g);
}

/* A cloud that would keep nothing: the system message, the template's tokens, the beginning and the
 * question stay, the answer follows from just that, and the report counts what was missing. */
static void test_what_must_stay(void **state)
{
    (void)state;
    static const char guard[] = "Never name the captain.";
    struct rig g;
    struct device_report r;
    struct token_list prompt, history;
    uint32_t added = 0;
    rig_start(&g);
    struct chat_message m[] = {{"system", guard, sizeof guard - 1},
                               {"user", document, strlen(document)}};
    struct engine *e = open_engine(0.0);
    token_list_init(&prompt, 1 << 20);
    const struct chat_prompt chat = {.messages = m, .n = 2, .generate = true};
    assert_int_equal(
        chat_template_render(engine_template(e), engine_vocab(e), &chat, &prompt, NULL), 0);
    memset(g.bits[0], 0, sizeof g.bits[0]);
    g.script.prompt_tokens = prompt.len;
    script_cloud_set(g.cloud, &g.script);
    struct device *d = open_device(150.0, script_cloud_url(g.cloud), false);
    struct device_question q = question_of(m, 2, 0.3f);
    assert_int_equal(device_ask(d, &q, &r, NULL), 0);
    int32_t whole[2] = {0, (int32_t)script_cloud_refine(g.cloud).whole_to};
    assert_true(whole[1] >= (int32_t)sizeof guard - 1);
    const struct wire_refine asked = {.whole = whole, .n_whole = 2};
    assert_int_equal(
        refine_must(engine_vocab(e), prompt.ids, prompt.len, &asked, g.bits[0], &added, NULL), 0);
    for (uint32_t i = 0; i < prompt.len; i++)
        if (i < (uint32_t)whole[1] || i + KEEP_QUESTION >= prompt.len)
            assert_true(has(g.bits[0], i));
    assert_true(added >= (uint32_t)whole[1] + KEEP_QUESTION && added < prompt.len / 2);
    assert_true(r.turn.refined && r.refined.restored == added);
    expect_history(&prompt, g.bits[0], r.turn.reading, &history);
    check_draws(&r, &history);
    token_list_release(&history);
    token_list_release(&prompt);
    device_close(d);
    engine_free(e);
    rig_stop(&g);
}

/* A choice that is taken back: what is left is read whole, and the report says both. */
static void test_taken_back(void **state)
{
    (void)state;
    struct rig g;
    struct device_report r;
    rig_start(&g);
    struct chat_message m = {"user", document, strlen(document)};
    g.script.kept[1] = g.bits[1]; /* the refusal comes in its place */
    g.script.kept_at[1] = 4;
    g.script.refused = "flat";
    g.script.takes_back = true;
    g.script.token_pause_us = 5000;
    script_cloud_set(g.cloud, &g.script);
    struct device *d = open_device(150.0, script_cloud_url(g.cloud), false);
    struct device_question q = question_of(&m, 1, 0.4f);
    assert_int_equal(device_ask(d, &q, &r, NULL), 0);
    assert_int_equal(r.refined.versions, 2);
    assert_string_equal(r.refined.refused, "flat");
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g.want.prompt.len; i++)
        kept += has(g.bits[0], i);
    assert_true(r.turn.reading > kept + g.want.prompt.len / 4);
    device_close(d);
    rig_stop(&g);
}

/* A share was asked for, and the prompt is read whole all the same: the report says why. And the
 * plan says what is read, also where alone it would leave the device out. */
static void test_says_why(void **state)
{
    (void)state;
    static const char *const why[] = {"", "no choice came from the cloud",
                                      "the choice is all of the prompt", "short"};
    struct rig g;
    rig_start(&g);
    for (size_t how = 0; how < sizeof why / sizeof *why; how++) {
        struct device_report r;
        const char *text = how == 3 ? tail : document;
        struct chat_message m = {"user", text, strlen(text)};
        struct device *d = open_device(150.0, script_cloud_url(g.cloud), false);
        struct device_question q = question_of(&m, 1, 0.3f);
        q.cloud_tokens = how == 0 ? -1 : N;
        g.script.token_pause_us = 10000; /* the choice takes effect first */
        if (how == 1) g.script.kept[0] = NULL;
        if (how == 2) memset(g.bits[0], 0xff, sizeof g.bits[0]);
        if (how == 2) g.script.kept[0] = g.bits[0];
        script_cloud_set(g.cloud, &g.script);
        (void)device_ask(d, &q, &r, NULL);
        assert_string_equal(r.unrefined, why[how]);
        if (how == 0) assert_non_null(strstr(r.plan.why, "30 % of the prompt, as asked"));
        device_close(d);
    }
    rig_stop(&g);
}

/* Catches: `auto` that takes any plan below the answer's limit for in time. The device reads the
 * whole prompt in the time of some 440 tokens: few answers are longer. */
static void test_auto(void **state)
{
    (void)state;
    struct rig g;
    struct device_report r;
    struct chat_message m = {"user", document, 0};
    rig_start(&g);
    m.content_len = strlen(document);
    struct device *d = open_device(150.0, script_cloud_url(g.cloud), false);
    struct device_question q = question_of(&m, 1, 0.3f);
    q.refine = DEVICE_REFINE_AUTO;
    q.cloud_tokens = -1;
    q.tokens_max = 4096;
    assert_int_equal(device_ask(d, &q, &r, NULL), 0);
    if (!(r.plan.ratio < 1.0)) fail_msg("not refined: %s", r.plan.why);
    assert_non_null(strstr(r.plan.why, "% of the prompt (quality"));
    device_close(d);
    rig_stop(&g);
}

/* The device chooses by words itself, alone and beside a cloud: its tokens follow from just that
 * history. A question whose words are nowhere needs the whole prompt. */
static void test_local_choice(void **state)
{
    (void)state;
    static const char fact[] = "the brass lantern was in the wooden box ";
    struct rig g;
    rig_start(&g);
    for (int how = 0; how < 3; how++) { /* alone; with a cloud; words that are nowhere */
        struct device_report r;
        if (how < 2) memcpy(document + DOCUMENT / 2, fact, sizeof fact - 1);
        if (how == 2) memset(document, 'x', DOCUMENT);
        struct chat_message m = {"user", document, strlen(document)};
        struct engine *single = open_engine(0.0);
        struct single_answer want;
        single_answer_make(single, document, false, &greedy, ANSWER, &want);
        struct device *d = open_device(20.0, script_cloud_url(g.cloud), false);
        struct device_question q = question_of(&m, 1, 0.3f);
        q.refine = DEVICE_REFINE_LOCAL;
        q.mode = how == 1 ? DEVICE_AUTO : DEVICE_LOCAL_ONLY;
        g.script.tokens = want.tokens.ids;
        g.script.prompt_tokens = want.prompt.len;
        script_cloud_set(g.cloud, &g.script);
        assert_int_equal(device_ask(d, &q, &r, NULL), 0);
        assert_true(r.refined.local && r.turn.refined == (how < 2));
        assert_true(script_cloud_refine(g.cloud).ratio == 0.0f);
        assert_string_equal(r.refined.refused, how < 2 ? "" : "flat");
        struct wire_refine asked = {.ratio = 0.3f};
        struct refine *f;
        struct token_list history;
        assert_int_equal(
            refine_new(engine_vocab(single), want.prompt.ids, want.prompt.len, &asked, &f, NULL),
            0);
        if (how < 2) {
            const struct refined *v = refine_choose(f, NULL, true);
            expect_history(&want.prompt, v->bits, r.turn.reading, &history);
            assert_int_equal(history.len, v->choice.tokens); /* nothing was passed before */
            check_draws(&r, &history);
            token_list_release(&history);
        } else {
            assert_string_equal(r.text, want.text.data);
        }
        refine_free(f);
        device_close(d);
        engine_free(single);
        single_answer_release(&want);
    }
    rig_stop(&g);
}

/* ---- idle ---- */

static void wait_for_fill(struct device *d)
{
    uint64_t until = clock_us() + WAIT_US;
    while (device_fills(d) && clock_us() < until)
        clock_sleep_us(2000);
    assert_false(device_fills(d));
}

/* After a refined answer an idle device reads what was left out: soon it holds all of the
 * conversation, and a question that comes meanwhile is answered at once. */
static void test_idle_fill(void **state)
{
    (void)state;
    struct rig g;
    rig_start(&g);
    struct chat_message m = {"user", document, strlen(document)};
    struct device_options o = {.engine = open_engine(0.0)};
    struct device *fresh;
    assert_int_equal(device_open(&o, &fresh, NULL), 0);
    for (int fill = 0; fill < 3; fill++) { /* off; done; interrupted */
        struct device_report r, alone;
        struct device *d = open_device(30.0, script_cloud_url(g.cloud), fill);
        struct device_question q = question_of(&m, 1, 0.4f);
        assert_int_equal(device_ask(d, &q, &r, NULL), 0);
        assert_true(r.turn.refined);
        char text[4 * ANSWER + 1];
        snprintf(text, sizeof text, "%s", r.text);
        struct chat_message talk[] = {m, {"assistant", text, strlen(text)}, {"user", "Why?", 4}};
        q = question_of(talk, 3, 0.0f);
        q.mode = DEVICE_LOCAL_ONLY;
        assert_true(device_fills(d) == (fill > 0));
        if (fill == 1) wait_for_fill(d);
        assert_int_equal(device_ask(fresh, &q, &alone, NULL), 0);
        assert_int_equal(device_ask(d, &q, &r, NULL), 0);
        if (fill < 2) assert_true((r.kept_tokens >= g.want.prompt.len) == (fill == 1));
        assert_string_equal(r.text, alone.text); /* whether it was done, not begun or under way */
        device_close(d);
    }
    device_close(fresh);
    rig_stop(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_what_is_kept), cmocka_unit_test(test_second_version),
        cmocka_unit_test(test_whole_prompt),       cmocka_unit_test(test_system_message),
        cmocka_unit_test(test_idle_fill),          cmocka_unit_test(test_local_choice),
        cmocka_unit_test(test_what_must_stay),     cmocka_unit_test(test_taken_back),
        cmocka_unit_test(test_says_why),           cmocka_unit_test(test_auto),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
