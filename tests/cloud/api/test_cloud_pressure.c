/*
 * test_cloud_pressure: `pdd cloud` with far more to do than KV memory allows, and what the prefix
 * cache saves, over real sockets.
 *
 * Catches: a stream that fails because memory is short, an answer that pressure changes, a grant
 * that is not kept, a refusal without Retry-After or for another reason than it says, pages that
 * are lost, a second turn or a resumed answer that pays for what was computed, two that begin alike
 * and compute it twice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/cloud_site.h"

static char tiny_path[TINY_PATH_MAX];
static const struct sampling greedy = SAMPLING_GREEDY;
static struct site site;

static struct site *site_of(bool native, uint32_t pages)
{
    site_init(&site);
    site.fake.kv_pages = pages;
    site.fake.answer_tokens = 3000;
    if (!native) return &site;
    site.native_path = tiny_path;
    struct engine *e = site_engine(&site);
    site.native.kv_bytes_max = engine_info(e)->kv_bytes_per_token * ENGINE_PAGE * pages;
    engine_free(e);
    return &site;
}

/* A refusal leaves the connection open. */
static void finish_or_refused(struct client *c)
{
    uint64_t until = clock_us() + SITE_WAIT_US;
    while (!c->done && c->status != 429 && client_read(c, 100))
        assert_true(clock_us() < until);
}

/* Far too many at once: who is taken gets a right answer of the length that was granted, who is not
 * hears 429 and when to come back; then all come once more, to a server that is as it was. */
static void check_flood(bool native, uint32_t cache)
{
    enum { CLIENTS = 60, PROMPT = 150, WISH = 300 };
    static struct client c[CLIENTS];
    static struct site_answer truth[CLIENTS];
    static int32_t prompts[CLIENTS][PROMPT];
    struct site *s = site_of(native, 10);
    s->config.worker.queue_max = 12;
    s->config.worker.cache_pages = cache;
    s->fake.step_us = 300;
    site_start(s);
    uint32_t refused = 0, cut = 0;
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < CLIENTS; i++) {
            struct wire_request q;
            uint32_t n = 20 + i * 31 % (PROMPT - 20);
            site_prompt(s, prompts[i], n, i % 9);
            if (round == 0) site_truth(s, prompts[i], n, &greedy, WISH, &truth[i]);
            site_request(s, prompts[i], n, WISH, &q);
            client_post(&c[i], s->port, &q);
        }
        for (uint32_t i = 0; i < CLIENTS; i++) {
            finish_or_refused(&c[i]);
            if (c[i].status == 429) {
                const char *after = strstr(c[i].raw.data, "Retry-After: ");
                assert_non_null(after);
                long seconds = strtol(after + 13, NULL, 10);
                assert_true(seconds >= 1 && seconds <= 60);
                refused++;
            } else {
                assert_int_equal(c[i].status, 200);
                assert_true(c[i].done && c[i].granted <= WISH);
                cut += c[i].granted < WISH;
                assert_true(c[i].granted >= WISH / 8);
                uint32_t n = c[i].granted < truth[i].n ? c[i].granted : truth[i].n;
                assert_int_equal(c[i].n_tokens, n);
                assert_memory_equal(c[i].tokens, truth[i].tokens, n * sizeof *c[i].tokens);
            }
            client_close(&c[i]);
        }
        site_check_idle(s);
    }
    struct backend_stats stats = site_stats(s);
    assert_true(refused > 0 && cut > 0);
    assert_int_equal(stats.grants_cut, cut);
    if (cache == 0) assert_int_equal(stats.cache_hits + stats.cached_tokens, 0);
    site_stop(s);
}

/* The refusal of one more names what the others have taken. */
static void check_reason(uint32_t pages, uint32_t streams, const char *reason)
{
    enum { PROMPT = 60, INSIDE = 4 };
    static struct client c[INSIDE], more;
    int32_t prompt[PROMPT];
    struct wire_request q;
    struct site *s = site_of(false, pages);
    s->config.worker.streams_max = streams;
    s->config.worker.queue_max = 2;
    s->fake.step_us = 3000;
    site_start(s);
    site_prompt(s, prompt, PROMPT, 1);
    site_request(s, prompt, PROMPT, 4 * ENGINE_PAGE - PROMPT, &q);
    for (uint32_t i = 0; i < INSIDE;
         i++) { /* the first two begin, for the others there is no room */
        client_post(&c[i], s->port, &q);
        if (i < 2) client_until_grant(&c[i]);
    }
    while (site_stats(s).waiting < 2)
        clock_sleep_us(500);
    client_post(&more, s->port, &q);
    finish_or_refused(&more);
    while (!strstr(more.raw.data, "}}") && client_read(&more, 100))
        ;
    if (!strstr(more.raw.data, reason)) fail_msg("%s not in %s", reason, more.raw.data);
    client_close(&more);
    for (uint32_t i = 0; i < INSIDE; i++)
        client_close(&c[i]);
    site_check_idle(s);
    site_stop(s);
}

static void test_reason(void **state)
{
    (void)state;
    check_reason(80, 2, "all streams (2) are taken and the queue (2) is full");
    check_reason(8, 16, "KV memory is taken by the requests in work (2) and the queue (2) is full");
}

static void test_flood(void **state)
{
    (void)state;
    check_flood(false, 0);
    check_flood(false, 10);
    check_flood(true, 10);
}

/* What was cut while memory was short may come later, when there is more. */
static void test_extend_after_cut(void **state)
{
    (void)state;
    enum { PROMPT = 60 };
    static struct client a, b;
    static struct site_answer truth;
    int32_t prompt[2][PROMPT];
    struct wire_request q;
    struct site *s = site_of(false, 8);
    s->fake.step_us = 10000;
    site_start(s);
    for (uint64_t i = 0; i < 2; i++)
        site_prompt(s, prompt[i], PROMPT, i + 1);
    site_truth(s, prompt[1], PROMPT, &greedy, 200, &truth);
    site_request(s, prompt[0], PROMPT, 300, &q);
    client_post(&a, s->port, &q);
    client_until_grant(&a);
    assert_int_equal(a.granted, 300);
    site_request(s, prompt[1], PROMPT, 200, &q);
    client_post(&b, s->port, &q);
    client_until_grant(&b);
    assert_int_equal(b.granted, 2 * ENGINE_PAGE - PROMPT);
    client_close(&a);
    while (site_stats(s).running > 1)
        clock_sleep_us(1000);
    client_until(&b, 5);
    char path[96];
    snprintf(path, sizeof path, "/v1/assist/%s", b.id);
    assert_int_equal(site_ask(s, "PATCH", path, NULL, "{\"tokens_max\":200}", NULL), 200);
    client_finish(&b);
    assert_int_equal(b.n_tokens, 200);
    assert_memory_equal(b.tokens, truth.tokens, 200 * sizeof *b.tokens);
    client_close(&b);
    site_check_idle(s);
    site_stop(s);
}

static uint32_t ask(struct site *s, int32_t *prompt, uint32_t n, uint32_t most,
                    struct site_answer *ret)
{
    static struct client c;
    struct wire_request q;
    site_request(s, prompt, n, most, &q);
    client_post(&c, s->port, &q);
    client_finish(&c);
    assert_true(c.done);
    site_truth(s, prompt, n, &greedy, most, ret);
    assert_int_equal(c.n_tokens, ret->n);
    assert_memory_equal(c.tokens, ret->tokens, ret->n * sizeof *c.tokens);
    uint32_t cached = c.cached_tokens;
    client_close(&c);
    return cached;
}

/* Prompt, answer, the next question: the second turn pays for the question only, and so does a
 * third that goes back and asks something else. */
static void check_turns(bool native)
{
    enum { PROMPT = 170, ANSWER = 50, MORE = 40 };
    static struct site_answer first, second;
    int32_t history[PROMPT + ANSWER + MORE];
    struct site *s = site_of(native, 40);
    s->config.worker.cache_pages = 40;
    site_start(s);
    site_prompt(s, history, PROMPT, 3);
    assert_int_equal(ask(s, history, PROMPT, ANSWER, &first), 0);
    memcpy(history + PROMPT, first.tokens, first.n * sizeof *history);
    uint32_t n = PROMPT + first.n;
    site_prompt(s, history + n, MORE, 4);
    assert_int_equal(ask(s, history, n + MORE, 5, &second), n - 1); /* the last was never fed */
    site_prompt(s, history + n, MORE, 5);
    history[n] ^= 1;
    uint32_t cached = ask(s, history, n + MORE, 5, &second);
    assert_true(cached >= n - 1 && cached <= n);
    struct backend_stats stats = site_stats(s);
    assert_int_equal(stats.cache_hits, 2);
    assert_int_equal(stats.cache_misses, 1);
    site_check_idle(s);
    site_stop(s);
}

static void test_turns(void **state)
{
    (void)state;
    check_turns(false);
    check_turns(true);
}

/* Many ask the same at once: the first computes it, the others take it page by page. */
static void test_same_at_once(void **state)
{
    (void)state;
    enum { CLIENTS = 6, PROMPT = 700 };
    static struct client c[CLIENTS];
    static struct site_answer truth;
    static int32_t prompt[PROMPT];
    struct wire_request q;
    struct site *s = site_of(false, 100);
    s->config.worker.cache_pages = 100;
    s->fake.prefill_us_per_token = 100;
    site_start(s);
    site_prompt(s, prompt, PROMPT, 2);
    site_truth(s, prompt, PROMPT, &greedy, 20, &truth);
    site_request(s, prompt, PROMPT, 20, &q);
    for (int i = 0; i < CLIENTS; i++)
        client_post(&c[i], s->port, &q);
    for (int i = 0; i < CLIENTS; i++) {
        client_finish(&c[i]);
        assert_int_equal(c[i].n_tokens, truth.n);
        assert_memory_equal(c[i].tokens, truth.tokens, truth.n * sizeof *c[i].tokens);
        assert_int_equal(c[i].done_total, PROMPT);
        client_close(&c[i]);
    }
    site_check_idle(s);
    struct backend_stats stats = site_stats(s);
    assert_true(stats.prefill_tokens <= PROMPT + (CLIENTS - 1) * 2 * ENGINE_PAGE);
    assert_int_equal(stats.prefill_tokens + stats.cached_tokens, CLIENTS * PROMPT);
    site_stop(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flood),
        cmocka_unit_test(test_reason),
        cmocka_unit_test(test_extend_after_cut),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_same_at_once),
    };
    struct tiny_options o = TINY_DEFAULT;
    tiny_model_file(&o, tiny_path);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(tiny_path);
    return failed;
}
