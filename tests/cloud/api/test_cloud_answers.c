/*
 * test_cloud_answers: what `pdd cloud` answers, over real sockets, with the fake and the native
 * engine. The truth is an engine of the same kind that does nothing else.
 *
 * Catches: answers that depend on who else is served, on the prefix cache or on KV memory being
 * short; a resumed answer that differs; wrong indices, texts, budgets and reasons.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/cloud_site.h"

enum { ENOUGH = 100 }; /* pages for 14 prompts and answers of at most 334 tokens, and the cache */

static char tiny_path[TINY_PATH_MAX];

static const struct sampling greedy = SAMPLING_GREEDY;
static const struct sampling seeded = {.temperature = 1.1f,
                                       .top_k = 50,
                                       .top_p = 0.95f,
                                       .min_p = 0.01f,
                                       .repeat_penalty = 1.1f,
                                       .repeat_last = 32,
                                       .seed = 12345};

static struct site sites[1];

static struct site *site_of(bool native)
{
    struct site *s = &sites[0];
    site_init(s);
    if (native) s->native_path = tiny_path;
    return s;
}

static void assert_tokens(const struct client *c, const struct site_answer *a, uint32_t from,
                          uint32_t n)
{
    assert_int_equal(c->status, 200);
    assert_int_equal(c->n_tokens, n);
    if (n) assert_int_equal(c->first_index, from);
    assert_memory_equal(c->tokens, a->tokens + from, n * sizeof *a->tokens);
}

/* The text of the events is the text of the tokens. */
static void assert_text(const struct site *s, const struct client *c)
{
    struct engine *e = site_engine(s);
    struct detok d;
    struct buf text;
    buf_init(&text, RAW_MAX);
    detok_init(&d, true);
    for (uint32_t i = 0; i < c->n_tokens; i++)
        assert_int_equal(detok_push(&d, engine_vocab(e), c->tokens[i], &text), 0);
    assert_int_equal(text.len, c->text.len);
    assert_memory_equal(text.data, c->text.data, text.len);
    buf_release(&text);
    engine_free(e);
}

static uint64_t page_bytes(void)
{
    struct engine *e = site_engine(site_of(true));
    uint64_t bytes = engine_info(e)->kv_bytes_per_token * ENGINE_PAGE;
    engine_free(e);
    return bytes;
}

/* With so many pages that nobody need be cut short, or too few of them. */
static void check_concurrent(bool native, uint32_t cache, uint32_t pages, bool too_few)
{
    enum { CLIENTS = 14, PROMPT = 230 };
    static struct client c[CLIENTS];
    static struct site_answer truth[CLIENTS];
    int32_t prompts[CLIENTS][PROMPT];
    struct sampling how[CLIENTS];
    uint64_t bytes = page_bytes() * pages;
    struct site *s = site_of(native);
    s->config.worker.cache_pages = cache;
    s->native.kv_bytes_max = bytes;
    s->fake.kv_pages = pages;
    site_start(s);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        uint32_t n = 3 + i * i % PROMPT, max = 5 + i * 7;
        how[i] = i % 2 ? seeded : greedy;
        how[i].seed += i;
        site_prompt(s, prompts[i], n, i / 2);
        site_truth(s, prompts[i], n, &how[i], max, &truth[i]);
        struct wire_request q;
        site_request(s, prompts[i], n, max, &q);
        q.sampling = how[i];
        client_post(&c[i], s->port, &q);
        if (i % 3 == 0) client_until(&c[i], 1 + i / 2);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        client_finish(&c[i]);
        assert_true(c[i].done);
        /* Where memory is short fewer tokens may be granted, and then they are what comes. */
        bool cut = c[i].granted < truth[i].n;
        assert_true(!cut || too_few);
        assert_tokens(&c[i], &truth[i], 0, cut ? c[i].granted : truth[i].n);
        assert_text(s, &c[i]);
        assert_int_equal(c[i].reason, truth[i].ended && !cut ? WIRE_STOP : WIRE_BUDGET);
        assert_int_equal(c[i].match, WIRE_EXACT);
        assert_int_equal(c[i].prompt_tokens, 3 + i * i % PROMPT);
        assert_true(c[i].cached_tokens < c[i].prompt_tokens);
        assert_int_equal(c[i].done_total, c[i].prompt_tokens);
        client_close(&c[i]);
    }
    site_check_idle(s);
    site_stop(s);
}

static void test_concurrent_fake(void **state)
{
    (void)state;
    check_concurrent(false, 0, ENOUGH, false);
    check_concurrent(false, 8, ENOUGH, false);
}

static void test_concurrent_native(void **state)
{
    (void)state;
    check_concurrent(true, 0, ENOUGH, false);
    check_concurrent(true, 8, ENOUGH, false);
}

/* KV memory for one or two of them at a time: they wait or get fewer tokens, nobody fails. */
static void test_little_memory(void **state)
{
    (void)state;
    check_concurrent(true, 8, 9, true);
    check_concurrent(true, 0, 9, true);
    check_concurrent(false, 8, 8, true);
}

static void check_resume(bool native)
{
    enum { PROMPT = 100 };
    static struct site_answer truth;
    static struct client c;
    int32_t prompt[PROMPT];
    struct site *s = site_of(native);
    s->config.worker.cache_pages = 8;
    site_start(s);
    for (int mode = 0; mode < 2; mode++) {
        const struct sampling *how = mode ? &seeded : &greedy;
        site_prompt(s, prompt, PROMPT, 5);
        site_truth(s, prompt, PROMPT, how, 50, &truth);
        for (uint32_t have = 0; have <= truth.n; have++) {
            struct wire_request q;
            site_request(s, prompt, PROMPT, 50 - have + (have == 50), &q);
            q.have = truth.tokens;
            q.n_have = have;
            q.sampling = *how;
            client_post(&c, s->port, &q);
            client_finish(&c);
            if (have < 50) assert_tokens(&c, &truth, have, truth.n - have);
            if (have > 0) assert_true(c.cached_tokens >= PROMPT - 1);
            client_close(&c);
        }
    }
    site_check_idle(s);
    site_stop(s);
}

static void test_resume(void **state)
{
    (void)state;
    check_resume(false);
    check_resume(true);
}

/* A resume in the middle of a character: its text begins where the first stream's ended. */
static void test_resume_in_character(void **state)
{
    (void)state;
    static const char script[] = "a\xE2\x82\xAC\xF0\x9F\x8C\x8A b";
    enum { PROMPT = 20, LEN = sizeof script - 1 };
    static struct client c;
    int32_t prompt[PROMPT], have[LEN];
    struct site *s = site_of(false);
    s->fake.script = script;
    site_start(s);
    site_prompt(s, prompt, PROMPT, 1);
    for (uint32_t n = 1; n < LEN; n++) {
        struct wire_request q;
        char text[2 * LEN] = "";
        for (int part = 0; part < 2; part++) {
            site_request(s, prompt, PROMPT, part ? 100 : n, &q);
            for (uint32_t i = 0; i < n; i++)
                have[i] = (uint8_t)script[i];
            q.have = have;
            q.n_have = part ? n : 0;
            client_post(&c, s->port, &q);
            client_finish(&c);
            strncat(text, c.text.data, LEN);
            client_close(&c);
        }
        assert_string_equal(text, script);
    }
    site_stop(s);
}

static void test_budgets(void **state)
{
    (void)state;
    enum { PROMPT = 30, ANSWER = 12 };
    static struct site_answer truth;
    static struct client c;
    int32_t prompt[PROMPT];
    struct site *s = site_of(false);
    s->fake.answer_tokens = ANSWER;
    s->config.tokens_max = 11;
    site_start(s);
    site_prompt(s, prompt, PROMPT, 2);
    site_truth(s, prompt, PROMPT, &greedy, 100, &truth);
    for (uint32_t n = 1; n < 15; n++) {
        struct wire_request q;
        site_request(s, prompt, PROMPT, n, &q);
        client_post(&c, s->port, &q);
        client_finish(&c);
        assert_int_equal(c.granted, n < 11 ? n : 11); /* the server's own maximum */
        assert_tokens(&c, &truth, 0, c.granted);
        assert_int_equal(c.reason, WIRE_BUDGET);
        client_close(&c);
    }
    site_stop(s);
}

/* The answer ends with the context; nothing is promised that could not come. */
static void test_context_end(void **state)
{
    (void)state;
    enum { CONTEXT = 128 };
    static struct site_answer truth;
    static struct client c;
    int32_t prompt[CONTEXT];
    for (int native = 0; native < 2; native++) {
        struct site *s = site_of(native);
        s->fake.context_max = s->native.context_max = CONTEXT;
        s->fake.answer_tokens = 1000;
        site_start(s);
        for (uint32_t n = CONTEXT - 3; n < CONTEXT; n++) {
            struct wire_request q;
            site_prompt(s, prompt, n, 3);
            site_truth(s, prompt, n, &greedy, 1000, &truth);
            site_request(s, prompt, n, 1000, &q);
            client_post(&c, s->port, &q);
            client_finish(&c);
            assert_int_equal(c.granted, CONTEXT - n);
            assert_tokens(&c, &truth, 0, truth.n);
            assert_int_equal(c.reason, truth.ended ? WIRE_STOP : WIRE_LENGTH);
            client_close(&c);
        }
        site_stop(s);
    }
}

static int patch(const struct site *s, const char *id, const char *body, struct buf *answer)
{
    char path[96];
    snprintf(path, sizeof path, "/v1/assist/%s", id);
    return site_ask(s, "PATCH", path, NULL, body, answer);
}

static void test_extend(void **state)
{
    (void)state;
    enum { PROMPT = 40 };
    static struct site_answer truth;
    static struct client c;
    int32_t prompt[PROMPT];
    struct buf b;
    struct wire_request q;
    buf_init(&b, RAW_MAX);
    struct site *s = site_of(false);
    s->fake.step_us = 30000;
    s->fake.answer_tokens = 200;
    site_start(s);
    site_prompt(s, prompt, PROMPT, 4);
    site_truth(s, prompt, PROMPT, &greedy, 70, &truth);
    site_request(s, prompt, PROMPT, 50, &q);
    client_post(&c, s->port, &q);
    client_until(&c, 1);
    assert_int_equal(patch(s, c.id, "{\"tokens_max\":70}", &b), 200);
    assert_non_null(strstr(b.data, "{\"tokens_max\":70}"));
    assert_int_equal(patch(s, c.id, "{\"tokens_max\":0}", &b), 400);
    assert_int_equal(patch(s, c.id, "{}", &b), 400);
    assert_int_equal(patch(s, c.id, "[", &b), 400);
    assert_int_equal(patch(s, "as-0", "{\"tokens_max\":70}", &b), 404);
    client_finish(&c);
    assert_tokens(&c, &truth, 0, 70);
    assert_int_equal(c.reason, WIRE_BUDGET);
    assert_int_equal(patch(s, c.id, "{\"tokens_max\":90}", &b), 404);
    client_close(&c);
    /* less than was sent: it ends at once */
    client_post(&c, s->port, &q);
    client_until(&c, 3);
    assert_int_equal(patch(s, c.id, "{\"tokens_max\":1}", &b), 200);
    client_finish(&c);
    assert_true(c.done && c.n_tokens < 50);
    assert_int_equal(c.reason, WIRE_BUDGET);
    client_close(&c);
    buf_release(&b);
    site_check_idle(s);
    site_stop(s);
}

/* Budgets that grow beyond KV memory end early; they must not take the other streams along. */
static void test_extend_beyond_memory(void **state)
{
    (void)state;
    enum { CLIENTS = 3, PROMPT = 60 };
    static struct site_answer truth[CLIENTS];
    static struct client c[CLIENTS];
    int32_t prompts[CLIENTS][PROMPT];
    uint32_t total = 0;
    struct site *s = site_of(false);
    s->fake.step_us = 10000;
    s->fake.kv_pages = 12;
    s->fake.answer_tokens = 2000;
    site_start(s);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        struct wire_request q;
        site_prompt(s, prompts[i], PROMPT, 7 + i);
        site_truth(s, prompts[i], PROMPT, &greedy, 700, &truth[i]);
        site_request(s, prompts[i], PROMPT, 100, &q);
        client_post(&c[i], s->port, &q);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        client_until_grant(&c[i]);
        assert_int_equal(patch(s, c[i].id, "{\"tokens_max\":700}", NULL), 200);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        client_finish(&c[i]);
        assert_true(c[i].done && c[i].n_tokens >= 100);
        assert_true(c[i].reason == WIRE_BUDGET || c[i].reason == WIRE_LENGTH);
        assert_tokens(&c[i], &truth[i], 0, c[i].n_tokens);
        total += c[i].n_tokens;
        client_close(&c[i]);
    }
    assert_true(total > 12 * 64 - CLIENTS * (PROMPT + 64)); /* what there was, was used */
    site_check_idle(s);
    site_stop(s);
}

static void test_match_and_messages(void **state)
{
    (void)state;
    static struct client c;
    int32_t prompt[30];
    struct wire_message message = {(char *)"user", (char *)"Hello there", 11};
    struct wire_request q;
    struct site *s = site_of(false);
    site_start(s);
    site_prompt(s, prompt, 30, 1);
    for (int what = 0; what < 4; what++) {
        site_request(s, prompt, 30, 5, &q);
        if (what == 1) q.weights[0] ^= 1;
        if (what == 2) q.numerics[0] ^= 1;
        if (what == 3) {
            memset(q.tokenizer, 'f', 10);
            q.prompt = NULL;
            q.messages = &message;
            q.n_messages = 1;
        }
        client_post(&c, s->port, &q);
        client_finish(&c);
        assert_int_equal(c.n_tokens, 5);
        static const enum wire_match matches[] = {WIRE_EXACT, WIRE_TOKENS, WIRE_WEIGHTS, WIRE_TEXT};
        assert_int_equal(c.match, matches[what]);
        client_close(&c);
    }
    site_stop(s);
}

static void test_many(void **state)
{
    (void)state;
    enum { CLIENTS = 200, PROMPT = 50 };
    static struct client c[CLIENTS];
    static struct site_answer truth[CLIENTS];
    int32_t prompts[CLIENTS][PROMPT];
    struct site *s = site_of(false);
    s->config.worker.streams_max = 150;
    s->fake.step_tokens_max = 512;
    site_start(s);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        struct wire_request q;
        site_prompt(s, prompts[i], PROMPT, i);
        site_truth(s, prompts[i], PROMPT, &greedy, 60, &truth[i]);
        site_request(s, prompts[i], PROMPT, 60, &q);
        client_post(&c[i], s->port, &q);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        client_finish(&c[i]);
        assert_tokens(&c[i], &truth[i], 0, truth[i].n);
        assert_text(s, &c[i]);
        client_close(&c[i]);
    }
    site_check_idle(s);
    site_stop(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_concurrent_fake),
        cmocka_unit_test(test_concurrent_native),
        cmocka_unit_test(test_little_memory),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_resume_in_character),
        cmocka_unit_test(test_budgets),
        cmocka_unit_test(test_context_end),
        cmocka_unit_test(test_extend),
        cmocka_unit_test(test_extend_beyond_memory),
        cmocka_unit_test(test_match_and_messages),
        cmocka_unit_test(test_many),
    };
    struct tiny_options o = TINY_DEFAULT;
    tiny_model_file(&o, tiny_path);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(tiny_path);
    return failed;
}
