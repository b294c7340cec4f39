/*
 * test_faults: a device against a cloud that misbehaves at every event of its stream. Whatever the
 * cloud does, the answer is the single machine's, or a clear error where nobody can go on.
 *
 * Catches: an answer lost, cut or garbled when the cloud goes away, in a token, in a character, or
 * before its first; a wrong token believed; a device that waits for ever; a socket in local-only
 * mode; an answer that cannot be stopped.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "device/device.h"
#include "engine/fake.h"
#include "support/cloud_fixture.h"
#include "support/script_cloud.h"

/* A cloud that is merely slow on a busy machine must not seem silent where it is counted. */
enum { ANSWER = 20, END_TOKEN = 257, STALL_US = 60000, PATIENT_US = 20000000 };

static const char question[] = "What was in the box?";
static const struct sampling sampled = {.temperature = 0.9f,
                                        .top_k = 40,
                                        .top_p = 0.95f,
                                        .repeat_penalty = 1.1f,
                                        .repeat_last = 32,
                                        .seed = 7};

/* Characters of one to four bytes, a token being a byte: every cut falls somewhere in them. */
static const char story[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x8C\x8A z\xC3\xBC\xE2\x80\xA6ok";

static struct engine *open_engine(double us)
{
    struct engine *e;
    struct fake_options o = {.script = story, .prefill_us_per_token = us};
    assert_int_equal(fake_open(&o, &e, NULL), 0);
    return e;
}

static void make_answer(struct single_answer *a)
{
    struct engine *e = open_engine(0.0);
    single_answer_make(e, question, false, &sampled, 64, a);
    engine_free(e);
    assert_true(a->ends);
    assert_int_equal(a->tokens.len, sizeof story - 1);
}

static struct script script_of(const struct single_answer *a)
{
    return (struct script){.tokens = a->tokens.ids,
                           .n = a->tokens.len,
                           .ends = true,
                           .end_token = END_TOKEN,
                           .prompt_tokens = a->prompt.len};
}

static struct device *open_device(struct engine *engine, const char *url, uint64_t stall_us)
{
    struct device *d;
    struct device_options o = {.engine = engine,
                               .cloud_url = url,
                               .prefill_tps = 1000.0,
                               .decode_us = 10.0,
                               .stall_us = stall_us};
    assert_int_equal(device_open(&o, &d, NULL), 0);
    return d;
}

static int ask(struct device *d, enum device_mode mode, int64_t n, struct device_report *r,
               struct err *e)
{
    struct chat_message m = {"user", question, sizeof question - 1};
    struct device_question q = {.messages = &m,
                                .n_messages = 1,
                                .sampling = sampled,
                                .tokens_max = 64,
                                .mode = mode,
                                .pace = PACE_OFF,
                                .cloud_tokens = n};
    return device_ask(d, &q, r, e);
}

static void assert_same(const struct device_report *r, const struct single_answer *want)
{
    assert_int_equal(r->n, want->tokens.len);
    for (uint32_t i = 0; i < r->n; i++)
        assert_int_equal(r->tokens[i].id, want->tokens.ids[i]);
    assert_int_equal(r->text_len, want->text.len);
    assert_memory_equal(r->text, want->text.data, want->text.len);
    assert_int_equal(r->turn.reason, TURN_STOP);
}

/* Every fault at every event, at a device that is slow enough to meet most of them. */
static void test_every_fault_at_every_event(void **state)
{
    (void)state;
    struct single_answer want;
    make_answer(&want);
    struct script s = script_of(&want);
    struct script_cloud *cloud = script_cloud_start(&s);
    uint32_t events = want.tokens.len + 2, borrowed = 0;
    for (int fault = SCRIPT_FINE; fault < SCRIPT_FAULTS; fault++) {
        for (uint32_t at = 0; at < events;
             at += fault == SCRIPT_STALL || fault == SCRIPT_AGAIN ? 3 : 1) {
            struct device *d = open_device(open_engine(200.0), script_cloud_url(cloud), STALL_US);
            struct device_report r;
            struct err e = ERR_INIT;
            s.fault = (enum script_fault)fault;
            s.at = at;
            s.always = at % 2 == 1;
            script_cloud_set(cloud, &s);
            if (ask(d, DEVICE_AUTO, 12 + at % 16, &r, &e)) fail_msg("fault %d: %s", fault, e.text);
            assert_same(&r, &want);
            borrowed += r.turn.cloud_tokens;
            device_close(d);
        }
    }
    assert_true(borrowed > 0); /* else nothing was tried */
    script_cloud_stop(cloud);
    single_answer_release(&want);
}

/* Without an engine that takes over, a cut stream is asked for again, with what came already. */
static void test_cloud_only_goes_on_after_a_cut(void **state)
{
    (void)state;
    struct single_answer want;
    make_answer(&want);
    struct script s = script_of(&want);
    struct script_cloud *cloud = script_cloud_start(&s);
    static const enum script_fault faults[] = {SCRIPT_CUT,   SCRIPT_CUT_HALF, SCRIPT_REFUSE,
                                               SCRIPT_DRAIN, SCRIPT_GARBAGE,  SCRIPT_STALL,
                                               SCRIPT_AGAIN};
    for (size_t k = 0; k < sizeof faults / sizeof *faults; k++) {
        for (uint32_t at = 0; at < want.tokens.len + 2; at += 4) {
            bool stalls = faults[k] == SCRIPT_STALL || faults[k] == SCRIPT_AGAIN;
            struct device *d = open_device(open_engine(0.0), script_cloud_url(cloud),
                                           stalls ? STALL_US : PATIENT_US);
            struct device_report r;
            struct err e = ERR_INIT;
            s.fault = faults[k];
            s.at = at;
            script_cloud_set(cloud, &s);
            if (ask(d, DEVICE_CLOUD_ONLY, -1, &r, &e)) fail_msg("%s", e.text);
            assert_same(&r, &want);
            assert_int_equal(r.turn.device_tokens, 0);
            assert_in_range(script_cloud_asked(cloud), 2, stalls ? 1 + DEVICE_REOPEN_MAX : 2);
            device_close(d);
        }
    }
    script_cloud_stop(cloud);
    single_answer_release(&want);
}

/* What a cloud says of an answer is held against what came; the device goes on, and says why. */
static void test_lies(void **state)
{
    (void)state;
    static const struct {
        enum script_fault fault;
        const char *said;
    } lies[] = {{SCRIPT_STOP, "begin with a grant"},
                {SCRIPT_COUNT, "its end counts"},
                {SCRIPT_PROMPT, "the grant counts"}};
    struct single_answer want;
    make_answer(&want);
    struct script s = script_of(&want);
    struct script_cloud *cloud = script_cloud_start(&s);
    for (size_t k = 0; k < sizeof lies / sizeof *lies; k++) {
        struct device *d = open_device(open_engine(2000.0), script_cloud_url(cloud), PATIENT_US);
        struct device_report r;
        struct err e = ERR_INIT;
        s.fault = lies[k].fault;
        s.always = true;
        script_cloud_set(cloud, &s);
        if (ask(d, DEVICE_AUTO, 64, &r, &e)) fail_msg("lie %zu: %s", k, e.text);
        assert_same(&r, &want);
        if (!strstr(r.trouble, lies[k].said)) fail_msg("lie %zu: \"%s\"", k, r.trouble);
        device_close(d);
    }
    script_cloud_stop(cloud);
    single_answer_release(&want);
}

/* One text of a cloud of another vocabulary may be many tokens of ours: each is an event of its
 * own for the turn. */
static void test_long_text(void **state)
{
    (void)state;
    static const int32_t ids[] = {9000, 9001};
    char text[400];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    const char *const texts[] = {text, "."};
    struct script s = {.tokens = ids,
                       .n = 2,
                       .ends = true,
                       .prompt_tokens = 5,
                       .other_words = true,
                       .texts = texts};
    struct script_cloud *cloud = script_cloud_start(&s);
    struct device *d = open_device(open_engine(100000.0), script_cloud_url(cloud), PATIENT_US);
    struct device_report r;
    struct err e = ERR_INIT;
    struct chat_message m = {"user", question, sizeof question - 1};
    struct device_question q = {.messages = &m,
                                .n_messages = 1,
                                .sampling = sampled,
                                .tokens_max = 300,
                                .pace = PACE_OFF,
                                .cloud_tokens = 300};
    if (device_ask(d, &q, &r, &e)) fail_msg("%s", e.text);
    if (r.n != 300) fail_msg("%u tokens, %s; %s", r.n, r.text, r.trouble);
    assert_memory_equal(r.text, text, 300);
    device_close(d);
    script_cloud_stop(cloud);
}

static void test_cloud_only_gives_up_in_a_sentence(void **state)
{
    (void)state;
    struct single_answer want;
    make_answer(&want);
    struct script s = script_of(&want);
    s.fault = SCRIPT_REFUSE;
    s.always = true;
    struct script_cloud *cloud = script_cloud_start(&s);
    struct device *d = open_device(open_engine(0.0), script_cloud_url(cloud), PATIENT_US);
    struct device_report r;
    struct err e = ERR_INIT;
    assert_true(ask(d, DEVICE_CLOUD_ONLY, -1, &r, &e) < 0);
    assert_non_null(strstr(e.text, "no room"));
    assert_int_equal(script_cloud_asked(cloud), 1 + DEVICE_REOPEN_MAX);
    device_close(d);
    script_cloud_stop(cloud);
    single_answer_release(&want);
}

/* What asking again does not change is asked once, with an engine and without. Each status has a
 * cloud of its own: a device that answers itself may be done before its request arrives. */
static void test_final_refusals(void **state)
{
    static const int statuses[] = {301, 302, 401, 403, 404, 413};
    (void)state;
    struct single_answer want;
    make_answer(&want);
    struct script s = script_of(&want);
    s.fault = SCRIPT_REFUSE;
    s.always = true;
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        struct device_report r;
        struct err e = ERR_INIT;
        s.status = statuses[i];
        struct script_cloud *cloud = script_cloud_start(&s);
        struct device *d = open_device(open_engine(0.0), script_cloud_url(cloud), PATIENT_US);
        assert_true(ask(d, DEVICE_CLOUD_ONLY, -1, &r, &e) < 0);
        assert_non_null(strstr(e.text, "no room"));
        assert_int_equal(script_cloud_asked(cloud), 1);
        script_cloud_set(cloud, &s);
        assert_int_equal(ask(d, DEVICE_AUTO, 5, &r, &e), 0);
        assert_same(&r, &want);
        assert_true(script_cloud_asked(cloud) <= 1);
        device_close(d);
        script_cloud_stop(cloud);
    }
    single_answer_release(&want);
}

/* Nobody listens there at all. */
static void test_no_cloud_at_all(void **state)
{
    (void)state;
    struct single_answer want;
    make_answer(&want);
    struct script s = script_of(&want);
    struct script_cloud *cloud = script_cloud_start(&s);
    char url[64];
    snprintf(url, sizeof url, "%s", script_cloud_url(cloud));
    script_cloud_stop(cloud);
    struct device *d = open_device(open_engine(100.0), url, STALL_US);
    struct device_report r;
    struct err e = ERR_INIT;
    assert_int_equal(ask(d, DEVICE_AUTO, 5, &r, &e), 0);
    assert_same(&r, &want);
    assert_true(r.trouble[0]);
    assert_true(ask(d, DEVICE_CLOUD_ONLY, -1, &r, &e) < 0);
    assert_true(e.text[0]);
    device_close(d);
    single_answer_release(&want);
}

/* The device's engine breaks: the cloud finishes the answer. */
static void test_broken_engine(void **state)
{
    (void)state;
    struct single_answer want;
    make_answer(&want);
    struct script s = script_of(&want);
    struct script_cloud *cloud = script_cloud_start(&s);
    for (uint32_t step = 1; step < 8; step++) {
        struct engine *engine;
        struct fake_options o = {
            .script = story, .prefill_us_per_token = 100.0, .fail_at_step = step};
        assert_int_equal(fake_open(&o, &engine, NULL), 0);
        struct device *d = open_device(engine, script_cloud_url(cloud), STALL_US);
        struct device_report r;
        struct err e = ERR_INIT;
        script_cloud_set(cloud, &s);
        if (ask(d, DEVICE_AUTO, 3, &r, &e)) fail_msg("step %u: %s", step, e.text);
        assert_same(&r, &want);
        device_close(d);
    }
    script_cloud_stop(cloud);
    single_answer_release(&want);
}

static void test_local_only_opens_no_socket(void **state)
{
    (void)state;
    struct single_answer want;
    make_answer(&want);
    struct script s = script_of(&want);
    struct script_cloud *cloud = script_cloud_start(&s);
    struct device *d = open_device(open_engine(0.0), NULL, STALL_US);
    struct device_report r;
    assert_int_equal(ask(d, DEVICE_LOCAL_ONLY, -1, &r, NULL), 0);
    assert_same(&r, &want);
    assert_int_equal(ask(d, DEVICE_AUTO, 9, &r, NULL), 0);
    assert_same(&r, &want);
    device_close(d);
    d = open_device(open_engine(0.0), script_cloud_url(cloud),
                    STALL_US); /* a cloud is known, and not asked */
    assert_int_equal(ask(d, DEVICE_LOCAL_ONLY, 9, &r, NULL), 0);
    assert_same(&r, &want);
    device_close(d);
    assert_int_equal(script_cloud_asked(cloud), 0);
    script_cloud_stop(cloud);
    single_answer_release(&want);
}

/* A cloud of another vocabulary: its text goes on in tokens of ours. */
static void test_text_match(void **state)
{
    (void)state;
    static const int32_t ids[] = {9000, 9001, 9002, 9003};
    static const char *const texts[] = {"The ", "caf\xC3\xA9", "", " is"};
    struct script s = {
        .tokens = ids, .n = 4, .prompt_tokens = 5, .other_words = true, .texts = texts};
    struct script_cloud *cloud = script_cloud_start(&s);
    double us = 500.0;
    bool met = false;
    for (int attempt = 0; attempt < 5 && !met; attempt++, us *= 4.0) {
        struct device *d = open_device(open_engine(us), script_cloud_url(cloud), STALL_US);
        struct device_report r;
        struct err e = ERR_INIT;
        script_cloud_set(cloud, &s);
        if (ask(d, DEVICE_AUTO, 4, &r, &e)) fail_msg("%s", e.text);
        met = r.turn.handover == 12; /* bytes are the fake engine's tokens */
        if (met) assert_int_equal(r.match, WIRE_TEXT);
        if (met) assert_memory_equal(r.text, "The caf\xC3\xA9 is", 12);
        if (met) assert_true(r.turn.device_tokens > 0);
        device_close(d);
    }
    assert_true(met); /* a busy machine may need a slower device to see it */
    script_cloud_stop(cloud);
}

/* Behind a cloud without token ids a cut answer cannot go on: what was shown stays, the sentence
 * has the cause, and nothing is asked with ids that are none. A device with a model goes on. */
static void test_cut_without_ids(void **state)
{
    static const int32_t ids[] = {-1, -1, -1, -1};
    static const char *const texts[] = {"The ", "caf\xC3\xA9", " is", " open"};
    static const struct {
        enum script_fault fault;
        const char *part;
    } cuts[] = {{SCRIPT_CUT, "go on with it"},      {SCRIPT_CUT_HALF, "go on with it"},
                {SCRIPT_GARBAGE, "go on with it"},  {SCRIPT_ERROR, "a scripted mishap"},
                {SCRIPT_DRAIN, "ended the stream"}, {SCRIPT_STALL, "fell silent"}};
    struct script s = {.tokens = ids,
                       .n = 4,
                       .ends = true,
                       .prompt_tokens = 5,
                       .at = 3,
                       .other_words = true,
                       .texts = texts,
                       .always = true};
    struct script_cloud *cloud = script_cloud_start(&s);
    (void)state;
    for (size_t i = 0; i < 2 * sizeof cuts / sizeof *cuts; i++) {
        bool alone = i % 2 == 0;
        struct device *d = open_device(alone ? NULL : open_engine(0.0), script_cloud_url(cloud),
                                       cuts[i / 2].fault == SCRIPT_STALL ? STALL_US : PATIENT_US);
        struct device_report r;
        struct err e = ERR_INIT;
        s.fault = cuts[i / 2].fault;
        script_cloud_set(cloud, &s);
        int code = ask(d, DEVICE_CLOUD_ONLY, alone ? -1 : 4, &r, &e);
        assert_true(code < 0);
        if (!strstr(e.text, cuts[i / 2].part) || strstr(e.text, "cannot be written"))
            fail_msg("fault %d: %s", s.fault, e.text);
        assert_int_equal(r.text_len, 9);
        assert_memory_equal(r.text, "The caf\xC3\xA9", 9);
        assert_int_equal(script_cloud_asked(cloud), alone ? 1 : 2); /* 2: with ids at first */
        device_close(d);
    }
    script_cloud_stop(cloud);
}

/* Memory gives out at any moment of opening and asking: an error or the answer, nothing else; what
 * leaks is the leak checker's to find. */
static void test_failing_allocations(void **state)
{
    (void)state;
    struct single_answer want;
    make_answer(&want);
    struct script s = script_of(&want);
    struct script_cloud *cloud = script_cloud_start(&s);
    uint32_t answered = 0;
    for (long n = 1; n < 400; n += n < 100 ? 1 : 7) {
        struct device *d = NULL;
        struct device_report r;
        struct err e = ERR_INIT;
        struct device_options o = {.engine = open_engine(50.0),
                                   .cloud_url = script_cloud_url(cloud),
                                   .prefill_tps = 1000.0,
                                   .decode_us = 10.0,
                                   .stall_us = STALL_US};
        script_cloud_set(cloud, &s);
        mem_fail_at(n);
        int code = device_open(&o, &d, &e);
        if (code) engine_free(o.engine);
        if (code == 0) code = ask(d, DEVICE_AUTO, 5, &r, &e);
        mem_fail_at(0);
        assert_true(code == 0 || e.text[0]);
        if (code == 0 && r.turn.reason == TURN_STOP) assert_same(&r, &want);
        answered += code == 0;
        device_close(d);
    }
    assert_true(answered > 0);
    script_cloud_stop(cloud);
    single_answer_release(&want);
}

struct stopper {
    struct device *d;
    uint32_t at;
};

static void stop_at(void *arg, const char *text, size_t n, uint32_t index, enum turn_source source)
{
    struct stopper *s = arg;
    (void)text, (void)n, (void)source;
    if (index == s->at) device_cancel(s->d);
}

static void *stop_later(void *arg)
{
    struct stopper *s = arg;
    clock_sleep_us(s->at);
    device_cancel(s->d);
    return NULL;
}

/* Stopped at a token, and stopped from another thread in the middle of a long prefill; the next
 * question is answered as if nothing had been. */
static void test_cancel(void **state)
{
    (void)state;
    struct single_answer want;
    make_answer(&want);
    struct cloud_fixture *cloud = cloud_fixture_start(open_engine(0.0));
    struct device *d = open_device(open_engine(500.0), cloud_fixture_url(cloud), STALL_US);
    struct device_report r;
    struct chat_message m = {"user", question, sizeof question - 1};
    for (uint32_t at = 0; at < 9; at++) {
        struct stopper stopper = {d, at};
        struct device_question q = {.messages = &m,
                                    .n_messages = 1,
                                    .sampling = sampled,
                                    .tokens_max = 64,
                                    .cloud_tokens = at % 5,
                                    .on_text = stop_at,
                                    .arg = &stopper};
        assert_int_equal(device_ask(d, &q, &r, NULL), 0);
        assert_int_equal(r.turn.reason, TURN_CANCELLED);
        assert_true(r.text_len <= want.text.len);
        struct stopper later = {d, 3000};
        pthread_t thread;
        q.on_text = NULL;
        q.mode = DEVICE_LOCAL_ONLY;
        assert_int_equal(pthread_create(&thread, NULL, stop_later, &later), 0);
        assert_int_equal(device_ask(d, &q, &r, NULL), 0);
        pthread_join(thread, NULL);
        assert_int_equal(ask(d, DEVICE_AUTO, at, &r, NULL), 0);
        assert_same(&r, &want);
    }
    device_close(d);
    cloud_fixture_stop(cloud);
    single_answer_release(&want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_final_refusals),
        cmocka_unit_test(test_every_fault_at_every_event),
        cmocka_unit_test(test_cloud_only_goes_on_after_a_cut),
        cmocka_unit_test(test_cloud_only_gives_up_in_a_sentence),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_long_text),
        cmocka_unit_test(test_no_cloud_at_all),
        cmocka_unit_test(test_broken_engine),
        cmocka_unit_test(test_local_only_opens_no_socket),
        cmocka_unit_test(test_text_match),
        cmocka_unit_test(test_cut_without_ids),
        cmocka_unit_test(test_failing_allocations),
        cmocka_unit_test(test_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
