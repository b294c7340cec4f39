/*
 * test_lib: libpdd as its users call it: answers in both forms, conversations, cancelling, objects
 * that go in any order, several devices, clouds and threads in one process.
 *
 * Catches: another answer than a single machine's; a callback in a thread of the library's; text
 * lost or doubled between the loop and its user; an object used after it was freed (with the
 * sanitizers); two devices that share something.
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "support/lib_device.h"

#include <jansson.h>

#include "base/clock.h"
#include "engine/native.h"
#include "support/cloud_fixture.h"
#include "support/program.h"
#include "support/tiny_model.h"

enum { ANSWER = 40, TINY_ANSWER = 24, ENDLESS = 1 << 20 };

static const char question_text[] = "Where did the old sailor leave the brass lantern, and why?";
static const struct sampling greedy = SAMPLING_GREEDY;

static struct fake_options fake(uint32_t tokens, double step_us)
{
    return (struct fake_options){.answer_tokens = tokens, .step_us = step_us};
}

static void single(struct single_answer *want, const struct fake_options *o)
{
    struct engine *engine;
    assert_int_equal(fake_open(o, &engine, NULL), 0);
    single_answer_make(engine, question_text, false, &greedy, 512, want);
    engine_free(engine);
}

static void check_json(pdd_answer *a, const struct single_answer *want)
{
    const char *json;
    size_t n;
    assert_int_equal(pdd_answer_json(a, &json, &n, NULL), 0);
    json_t *j = json_loadb(json, n, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(j);
    assert_string_equal(json_string_value(json_object_get(j, "text")), want->text.data);
    assert_int_equal(json_array_size(json_object_get(j, "tokens")), want->tokens.len);
    assert_string_equal(json_string_value(json_object_get(j, "reason")), "stop");
    json_decref(j);
}

/* No cloud. Both forms give what one machine gives, and the report says so. */
static void test_forms(void **state)
{
    (void)state;
    struct fake_options o = fake(ANSWER, 0);
    struct single_answer want;
    single(&want, &o);
    pdd_model *model = fake_model(&o);
    pdd_device *device = open_device(model, NULL);
    for (int form = 0; form < 3; form++) {
        struct gathered g;
        pdd_question q = gather(&g, question_text);
        pdd_answer *a;
        pdd_error error;
        int code = PDD_MORE;
        if (form == 0) {
            code = pdd_ask(device, &q, &a, &error);
        } else {
            assert_int_equal(pdd_ask_begin(device, &q, &a, &error), 0);
            pdd_report early = {.size = sizeof early};
            assert_int_equal(pdd_answer_report(a, &early, NULL), PDD_ERR_BUSY);
            if (form == 1) code = pdd_answer_wait(a, -1, &error);
        }
        while (code == PDD_MORE) {
            struct pollfd fd = {.fd = pdd_answer_fd(a), .events = POLLIN};
            assert_int_equal(poll(&fd, 1, 20000), 1);
            code = pdd_answer_dispatch(a, &error);
        }
        assert_int_equal(code, 0);
        assert_string_equal(g.text.data, want.text.data);
        assert_int_equal(g.n_tokens, want.tokens.len);
        size_t n;
        assert_string_equal(pdd_answer_text(a, &n), want.text.data);
        assert_int_equal(n, want.text.len);
        pdd_report r = report_of(a);
        assert_int_equal(r.reason, PDD_STOP);
        assert_int_equal(r.tokens, want.tokens.len);
        assert_int_equal(r.device_tokens, want.tokens.len);
        assert_int_equal(r.sent_bytes + r.received_bytes + r.cloud_requests, 0);
        assert_string_equal(r.match, "");
        check_json(a, &want);
        /* an answer that is over stays so, and stays readable */
        struct pollfd fd = {.fd = pdd_answer_fd(a), .events = POLLIN};
        assert_int_equal(poll(&fd, 1, 0), 1);
        assert_int_equal(pdd_answer_dispatch(a, NULL), 0);
        pdd_answer_free(a);
        buf_release(&g.text);
    }
    pdd_device_close(device);
    pdd_model_close(model);
    single_answer_release(&want);
}

static void test_wait_timeout(void **state)
{
    (void)state;
    struct fake_options o = fake(ENDLESS, 2000);
    pdd_model *model = fake_model(&o);
    pdd_device *device = open_device(model, NULL);
    struct gathered g;
    pdd_question q = gather(&g, question_text);
    pdd_answer *a;
    assert_int_equal(pdd_ask_begin(device, &q, &a, NULL), 0);
    assert_int_equal(pdd_answer_wait(a, 0, NULL), PDD_MORE);
    assert_int_equal(pdd_answer_wait(a, 5, NULL), PDD_MORE);
    pdd_answer_free(a);
    pdd_device_close(device);
    pdd_model_close(model);
    buf_release(&g.text);
}

/* ---- two devices, two clouds, two threads ---- */

struct side {
    uint64_t seed;
    char path[TINY_PATH_MAX];
    struct cloud_fixture *cloud;
    struct single_answer want;
    uint32_t cloud_tokens; /* borrowed in all */
    const char *wrong;
};

static struct engine *open_tiny(const char *path)
{
    struct engine *e;
    struct native_options o = {
        .model_path = path, .threads = 1, .context_max = 512, .chat_template = "chatml"};
    assert_int_equal(native_open(&o, &e, NULL), 0);
    return e;
}

static void side_open(struct side *s, uint64_t seed)
{
    struct tiny_options tiny = TINY_DEFAULT;
    tiny.seed = seed;
    tiny_model_file(&tiny, s->path);
    struct engine *e = open_tiny(s->path);
    single_answer_make(e, question_text, false, &greedy, TINY_ANSWER, &s->want);
    s->cloud = cloud_fixture_start(e);
}

static void side_close(struct side *s)
{
    cloud_fixture_stop(s->cloud);
    single_answer_release(&s->want);
    unlink(s->path);
}

static const char *ask_side(struct side *s, pdd_device *device)
{
    struct gathered g;
    pdd_question q = gather(&g, question_text);
    pdd_error error;
    pdd_answer *a;
    q.tokens_max = TINY_ANSWER;
    q.cloud_tokens = 8;
    q.on_trouble = NULL;
    if (pdd_ask(device, &q, &a, &error)) return "it failed";
    bool same = strcmp(g.text.data, s->want.text.data) == 0;
    pdd_report r = report_of(a);
    s->cloud_tokens += r.cloud_tokens;
    same = same && (r.cloud_tokens == 0 || strcmp(r.match, "exact") == 0);
    pdd_answer_free(a);
    buf_release(&g.text);
    return same ? NULL : "another answer";
}

static void *run_side(void *arg)
{
    struct side *s = arg;
    pdd_model_options o = {.size = sizeof o,
                           .path = s->path,
                           .threads = 1,
                           .context_max = 512,
                           .chat_template = "chatml",
                           .profile = "m3-max"};
    pdd_model *model;
    pdd_error error;
    if (pdd_model_open(&o, &model, &error)) {
        s->wrong = "the model";
        return NULL;
    }
    pdd_device *device = open_device(model, cloud_fixture_url(s->cloud));
    for (int i = 0; i < 2 && !s->wrong; i++)
        s->wrong = ask_side(s, device);
    pdd_device_close(device);
    pdd_model_close(model);
    return NULL;
}

static void test_two_devices(void **state)
{
    (void)state;
    struct side sides[2] = {{.seed = 1}, {.seed = 2}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        side_open(&sides[i], sides[i].seed);
    assert_string_not_equal(sides[0].want.text.data, sides[1].want.text.data);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_side, &sides[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++) {
        if (sides[i].wrong) fail_msg("%s", sides[i].wrong);
        assert_true(sides[i].cloud_tokens > 0);
        side_close(&sides[i]);
    }
}

/* Several questions to one device, from one thread, are answered at the same time. */
static void test_many_answers(void **state)
{
    (void)state;
    enum { MANY = 32 };
    struct fake_options o = fake(ANSWER, 100);
    struct single_answer want;
    single(&want, &o);
    pdd_model *model = fake_model(&o);
    pdd_device *device = open_device(model, NULL);
    static struct gathered g[MANY + 1];
    pdd_answer *a[MANY + 1];
    pdd_error error;
    for (int i = 0; i < MANY; i++) {
        pdd_question q = gather(&g[i], question_text);
        assert_int_equal(pdd_ask_begin(device, &q, &a[i], NULL), 0);
    }
    pdd_question q = gather(&g[MANY], question_text);
    assert_int_equal(pdd_ask_begin(device, &q, &a[MANY], &error), PDD_ERR_BUSY);
    assert_non_null(strstr(error.text, "32"));
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(pdd_answer_wait(a[i], -1, NULL), 0);
        assert_string_equal(g[i].text.data, want.text.data);
        pdd_answer_free(a[i]);
        buf_release(&g[i].text);
    }
    pdd_device_close(device);
    pdd_model_close(model);
    single_answer_release(&want);
}

struct asker {
    pdd_device *device;
    const char *want;
    uint32_t wrong;
};

static void *ask_often(void *arg)
{
    struct asker *k = arg;
    for (int i = 0; i < 4; i++) {
        pdd_question q = {.size = sizeof q, .text = question_text, .pace = PDD_PACE_OFF};
        pdd_answer *a;
        int code = pdd_ask(k->device, &q, &a, NULL);
        k->wrong += code || strcmp(pdd_answer_text(a, NULL), k->want) != 0;
        if (!code) pdd_answer_free(a);
    }
    return NULL;
}

/* One device, asked by several threads. */
static void test_many_threads(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    struct fake_options o = fake(ANSWER, 50);
    struct single_answer want;
    single(&want, &o);
    pdd_model *model = fake_model(&o);
    pdd_device *device = open_device(model, NULL);
    struct asker askers[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        askers[i] = (struct asker){device, want.text.data, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, ask_often, &askers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(askers[i].wrong, 0);
    }
    pdd_device_close(device);
    pdd_model_close(model);
    single_answer_release(&want);
}

/* Everything in a thread of the program whose stack is small. */
static void *use_all(void *arg)
{
    struct side *s = arg;
    pdd_model_options m = {.size = sizeof m, .path = s->path, .threads = 1, .context_max = 512};
    pdd_device_options d = {.size = sizeof d, .cloud_url = "http://127.0.0.1:1"};
    pdd_device *device;
    pdd_answer *a;
    const char *json;
    uint32_t n;
    m.chat_template = "chatml";
    m.kv_type = "i16"; /* whose kernels have large frames */
    s->wrong = "opening";
    if (pdd_model_open(&m, &d.model, NULL)) return NULL;
    if (pdd_device_open(&d, &device, NULL)) return NULL; /* with a cloud, the model is measured */
    pdd_question q = {.size = sizeof q, .text = question_text, .tokens_max = TINY_ANSWER};
    q.mode = PDD_MODE_LOCAL;
    s->wrong = "asking";
    if (pdd_ask(device, &q, &a, NULL)) return NULL;
    s->wrong = strcmp(pdd_answer_text(a, NULL), s->want.text.data) ? "another answer" : NULL;
    if (pdd_answer_json(a, &json, NULL, NULL)) s->wrong = "the report";
    if (pdd_model_count(d.model, question_text, sizeof question_text, &n, NULL))
        s->wrong = "counts";
    pdd_answer_free(a);
    pdd_device_close(device);
    pdd_model_close(d.model);
    return NULL;
}

static void test_small_stack(void **state)
{
    (void)state;
    struct tiny_options tiny = TINY_DEFAULT;
    struct side s = {.seed = 1};
    pthread_attr_t attr;
    pthread_t thread;
    if (program_instrumented) skip(); /* sanitizers fill such stacks alone */
    tiny.head_dim = 64;
    tiny_model_file(&tiny, s.path);
    struct native_options o = {.model_path = s.path,
                               .threads = 1,
                               .context_max = 512,
                               .kv_type = NATIVE_KV_I16,
                               .chat_template = "chatml"};
    struct engine *e;
    assert_int_equal(native_open(&o, &e, NULL), 0);
    single_answer_make(e, question_text, false, &greedy, TINY_ANSWER, &s.want);
    engine_free(e);
    pthread_attr_init(&attr);
    assert_int_equal(pthread_attr_setstacksize(&attr, 64 << 10), 0);
    assert_int_equal(pthread_create(&thread, &attr, use_all, &s), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
    if (s.wrong) fail_msg("%s", s.wrong);
    single_answer_release(&s.want);
    unlink(s.path);
}

/* ---- cancelling, and objects that go early ---- */

static int cancel_handle(void *arg, const char *text, size_t length, const pdd_token *token)
{
    (void)text, (void)length, (void)token;
    pdd_answer_cancel(*(pdd_answer **)arg);
    return 0;
}

static void *cancel_all(void *arg)
{
    clock_sleep_us(3000);
    pdd_device_cancel(arg);
    return NULL;
}

/* By a callback's result, by a call in a callback, by another thread, and before it began. */
static void test_cancel(void **state)
{
    (void)state;
    struct fake_options o = fake(ENDLESS, 500);
    pdd_model *model = fake_model(&o);
    pdd_device *device = open_device(model, NULL);
    for (int way = 0; way < 4; way++) {
        struct gathered g;
        pthread_t thread;
        pdd_answer *a;
        pdd_question q = gather(&g, question_text);
        if (way == 0) g.cancel_at = 3;
        if (way == 1) {
            q.on_text = cancel_handle;
            q.on_progress = NULL;
            q.arg = &a;
        }
        assert_int_equal(pdd_ask_begin(device, &q, &a, NULL), 0);
        if (way == 2) assert_int_equal(pthread_create(&thread, NULL, cancel_all, device), 0);
        if (way == 3) pdd_answer_cancel(a);
        assert_int_equal(pdd_answer_wait(a, -1, NULL), 0);
        if (way == 2) pthread_join(thread, NULL);
        pdd_report r = report_of(a);
        assert_int_equal(r.reason, PDD_CANCELLED);
        if (way < 2) assert_true(r.tokens > 0);
        pdd_answer_free(a);
        buf_release(&g.text);
    }
    pdd_device_close(device);
    pdd_model_close(model);
}

static int free_handle(void *arg, const char *text, size_t length, const pdd_token *token)
{
    (void)text, (void)length, (void)token;
    pdd_answer **a = arg;
    assert_int_equal(pdd_answer_dispatch(*a, NULL), PDD_ERR_BUSY);
    pdd_answer_free(*a);
    *a = NULL;
    return 0;
}

/* In each order, and from a callback. */
static void test_destroy(void **state)
{
    (void)state;
    static const char orders[][5] = {"adcm", "dacm", "mdca", "cmda", "macd", "cdma"};
    struct fake_options o = fake(ENDLESS, 300);
    for (size_t i = 0; i < 2 * sizeof orders / sizeof *orders; i++) {
        struct gathered g;
        pdd_model *model = fake_model(&o);
        pdd_device *device = open_device(model, NULL);
        pdd_chat *chat;
        pdd_answer *a;
        assert_int_equal(pdd_chat_new("Be brief.", &chat, NULL), 0);
        pdd_question q = gather(&g, question_text);
        q.chat = chat;
        assert_int_equal(pdd_ask_begin(device, &q, &a, NULL), 0);
        if (i % 2) assert_int_equal(pdd_answer_wait(a, 4, NULL), PDD_MORE);
        for (const char *what = orders[i / 2]; *what; what++) {
            if (*what == 'a') pdd_answer_free(a);
            if (*what == 'c') pdd_chat_free(chat);
            if (*what == 'm') pdd_model_close(model);
            if (*what != 'd') continue;
            pdd_device_close(device);
            if (strchr(orders[i / 2], 'a') < what) continue;
            assert_int_equal(pdd_answer_wait(a, -1, NULL), 0); /* over, as cancelled */
            assert_int_equal(report_of(a).reason, PDD_CANCELLED);
        }
        buf_release(&g.text);
    }
    pdd_model *model = fake_model(&o);
    pdd_device *device = open_device(model, NULL);
    pdd_answer *a;
    pdd_question q = {.size = sizeof q, .text = "x", .on_text = free_handle, .arg = &a};
    assert_int_equal(pdd_ask_begin(device, &q, &a, NULL), 0);
    assert_int_equal(pdd_answer_wait(a, -1, NULL), 0);
    assert_null(a);
    pdd_device_close(device);
    pdd_model_close(model);
    pdd_device_close(NULL);
    pdd_model_close(NULL);
    pdd_answer_free(NULL);
    pdd_chat_free(NULL);
}

/* A model serves one device at a time, and another one after it. */
static void test_model_taken(void **state)
{
    (void)state;
    struct fake_options o = fake(ANSWER, 0);
    pdd_model *model = fake_model(&o);
    pdd_device_options d = {.size = sizeof d, .model = model};
    for (int i = 0; i < 2; i++) {
        pdd_error error;
        pdd_device *device = open_device(model, NULL), *second;
        assert_int_equal(pdd_device_open(&d, &second, &error), PDD_ERR_BUSY);
        assert_non_null(strstr(error.text, "pdd_device_options.model"));
        pdd_question q = {.size = sizeof q, .text = "x", .pace = PDD_PACE_OFF};
        assert_int_equal(pdd_ask(device, &q, NULL, NULL), 0);
        pdd_device_close(device);
    }
    uint32_t n;
    assert_int_equal(pdd_model_count(model, "abc", 3, &n, NULL), 0);
    assert_int_equal(n, 3);
    pdd_model_close(model);
}

/* ---- the cloud ---- */

/* Without a model the cloud gives all; without a cloud that is up, the sentence names it. */
static void test_cloud_only(void **state)
{
    (void)state;
    struct fake_options o = fake(ANSWER, 0);
    struct single_answer want;
    struct engine *engine;
    single(&want, &o);
    assert_int_equal(fake_open(&o, &engine, NULL), 0);
    struct cloud_fixture *cloud = cloud_fixture_start(engine);
    pdd_device *device = open_device(NULL, cloud_fixture_url(cloud));
    struct gathered g;
    pdd_question q = gather(&g, question_text);
    pdd_answer *a;
    pdd_error error;
    if (pdd_ask(device, &q, &a, &error)) fail_msg("%s", error.text);
    assert_string_equal(g.text.data, want.text.data);
    pdd_report r = report_of(a);
    assert_int_equal(r.cloud_tokens, r.tokens);
    assert_true(r.sent_bytes > 0 && r.received_bytes > 0 && r.cloud_requests == 1);
    pdd_answer_free(a);
    buf_release(&g.text);
    cloud_fixture_stop(cloud);
    q = gather(&g, question_text);
    assert_int_equal(pdd_ask(device, &q, &a, &error), PDD_ERR_NET);
    assert_int_equal(error.code, PDD_ERR_NET);
    assert_non_null(strstr(error.text, "127.0.0.1"));
    q.mode = PDD_MODE_LOCAL;
    assert_int_equal(pdd_ask(device, &q, &a, &error), PDD_ERR_BAD_INPUT);
    pdd_device_close(device);
    buf_release(&g.text);
    single_answer_release(&want);
}

/* A cloud that is away costs a word, not the answer. */
static void test_cloud_away(void **state)
{
    (void)state;
    struct fake_options o = fake(ANSWER, 1000);
    struct single_answer want;
    o.prefill_us_per_token = 2000;
    single(&want, &o);
    pdd_model *model = fake_model(&o);
    pdd_device *device = open_device(model, "http://127.0.0.1:1");
    struct gathered g;
    pdd_question q = gather(&g, question_text);
    pdd_answer *a;
    q.cloud_tokens = 5;
    assert_int_equal(pdd_ask(device, &q, &a, NULL), 0);
    assert_string_equal(g.text.data, want.text.data);
    assert_int_equal(g.n_trouble, 1);
    assert_non_null(strstr(report_of(a).trouble, "127.0.0.1"));
    pdd_answer_free(a);
    pdd_device_close(device);
    pdd_model_close(model);
    buf_release(&g.text);
    single_answer_release(&want);
}

static int gather_thought(void *arg, const char *text, size_t length, const pdd_token *token)
{
    struct gathered *g = arg;
    assert_int_equal(g->text.len, 0); /* it comes before the answer */
    assert_int_equal(token->index, g->n_tokens);
    assert_int_equal(buf_append(&g->thought, text, length), 0);
    return 0;
}

/* Apart from the answer if the user wants to know of it, else within. */
static void test_thoughts(void **state)
{
    (void)state;
    struct fake_options o = {.script = "<think>\nHm, so.\n</think>\n\nYes, so."};
    struct engine *engine;
    assert_int_equal(fake_open(&o, &engine, NULL), 0);
    struct cloud_fixture *cloud = cloud_fixture_start(engine);
    pdd_device *device = open_device(NULL, cloud_fixture_url(cloud));
    for (int apart = 0; apart < 2; apart++) {
        struct gathered g;
        pdd_answer *a;
        pdd_question q = gather(&g, question_text);
        if (apart) q.on_thought = gather_thought;
        assert_int_equal(pdd_ask(device, &q, &a, NULL), 0);
        assert_string_equal(g.text.data, pdd_answer_text(a, NULL));
        assert_string_equal(g.thought.data, pdd_answer_thought(a, NULL));
        assert_string_equal(g.text.data, apart ? "Yes, so." : o.script);
        assert_true((strstr(g.thought.data, "Hm, so.") != NULL) == apart);
        pdd_answer_free(a);
        buf_release(&g.text);
        buf_release(&g.thought);
    }
    pdd_device_close(device);
    cloud_fixture_stop(cloud);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),       cmocka_unit_test(test_wait_timeout),
        cmocka_unit_test(test_two_devices), cmocka_unit_test(test_many_answers),
        cmocka_unit_test(test_cancel),      cmocka_unit_test(test_destroy),
        cmocka_unit_test(test_model_taken), cmocka_unit_test(test_cloud_only),
        cmocka_unit_test(test_cloud_away),  cmocka_unit_test(test_many_threads),
        cmocka_unit_test(test_thoughts),    cmocka_unit_test(test_small_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
