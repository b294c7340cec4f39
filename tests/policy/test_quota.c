/*
 * test_quota: token buckets by tables and a seeded simulation.
 *
 * Catches: a tenant that gets more than its rate, or less; a Retry-After that is too early, or
 * later than need be; what a refused request took; debts forgotten over a reload; overflow.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "policy/quota.h"

#define SECOND 1000000ull
#define MINUTE (60 * SECOND)

enum { TENANT_RUNS = 60, EVENTS = 4000 };

static enum quota_verdict enter(struct quota *q, uint64_t now, uint32_t tokens, uint64_t *wait)
{
    *wait = 12345;
    return quota_enter(q, now, tokens, wait);
}

static enum quota_verdict arrive(struct quota *q, uint64_t now, uint64_t *wait)
{
    *wait = 12345;
    return quota_take_request(q, now, wait);
}

static void test_no_limits(void **state)
{
    struct quota q;
    uint64_t wait;
    (void)state;
    quota_init(&q, &(struct quota_limits){0, 0, 0}, 5);
    for (uint32_t i = 0; i < 1000; i++) {
        assert_int_equal(arrive(&q, 5, &wait), QUOTA_OK);
        assert_int_equal(enter(&q, 5, UINT32_MAX, &wait), QUOTA_OK);
        assert_int_equal(wait, 0);
        quota_spend(&q, 5, UINT32_MAX);
    }
    assert_int_equal(q.streams, 1000);
}

static void test_requests(void **state)
{
    struct quota q;
    uint64_t wait, now = 77;
    (void)state;
    quota_init(&q, &(struct quota_limits){.requests_per_minute = 3}, now);
    for (int i = 0; i < 3; i++)
        assert_int_equal(arrive(&q, now, &wait), QUOTA_OK);
    assert_int_equal(arrive(&q, now, &wait), QUOTA_REQUESTS);
    assert_int_equal(wait, 20 * SECOND);
    assert_int_equal(arrive(&q, now + wait - 1, &wait), QUOTA_REQUESTS); /* and takes nothing */
    assert_int_equal(wait, 1);
    now += 20 * SECOND;
    assert_int_equal(arrive(&q, now, &wait), QUOTA_OK);
    now += 100 * MINUTE; /* never more than a minute's worth */
    for (int i = 0; i < 3; i++)
        assert_int_equal(arrive(&q, now, &wait), QUOTA_OK);
    assert_int_equal(arrive(&q, now, &wait), QUOTA_REQUESTS);
    /* A request that is refused for another reason stays taken. */
    assert_int_equal(enter(&q, now, 9, &wait), QUOTA_OK);
    quota_undo(&q, now, 9);
    assert_int_equal(arrive(&q, now, &wait), QUOTA_REQUESTS);
}

static void test_tokens(void **state)
{
    struct quota q;
    uint64_t wait, now = 1;
    (void)state;
    quota_init(&q, &(struct quota_limits){.tokens_per_minute = 600}, now);
    assert_int_equal(enter(&q, now, 601, &wait), QUOTA_NEVER);
    assert_int_equal(wait, 0);
    assert_int_equal(enter(&q, now, 600, &wait), QUOTA_OK);
    quota_spend(&q, now, 100); /* into debt: what runs is not cut off */
    assert_int_equal(enter(&q, now, 0, &wait), QUOTA_TOKENS);
    assert_int_equal(wait, 10 * SECOND);
    assert_int_equal(enter(&q, now, 50, &wait), QUOTA_TOKENS);
    assert_int_equal(wait, 15 * SECOND);
    quota_return(&q, now, 150);
    assert_int_equal(enter(&q, now, 50, &wait), QUOTA_OK);
    quota_return(&q, now, UINT32_MAX); /* never above full */
    assert_int_equal(enter(&q, now, 600, &wait), QUOTA_OK);
    assert_int_equal(enter(&q, now, 1, &wait), QUOTA_TOKENS);
}

static void test_streams(void **state)
{
    struct quota q;
    uint64_t wait;
    (void)state;
    quota_init(&q, &(struct quota_limits){.streams_max = 2}, 0);
    assert_int_equal(enter(&q, 0, 1, &wait), QUOTA_OK);
    assert_int_equal(enter(&q, 0, 1, &wait), QUOTA_OK);
    assert_int_equal(enter(&q, 0, 1, &wait), QUOTA_STREAMS);
    assert_int_equal(wait, 0);
    quota_leave(&q);
    assert_int_equal(enter(&q, 0, 1, &wait), QUOTA_OK);
}

static void test_change(void **state)
{
    struct quota q;
    uint64_t wait, now = 0;
    (void)state;
    quota_init(&q, &(struct quota_limits){.tokens_per_minute = 60}, now);
    assert_int_equal(enter(&q, now, 60, &wait), QUOTA_OK);
    quota_spend(&q, now, 60);
    quota_change(&q, &(struct quota_limits){.tokens_per_minute = 600, .streams_max = 1}, now);
    assert_int_equal(enter(&q, now, 0, &wait), QUOTA_STREAMS);
    quota_leave(&q);
    assert_int_equal(enter(&q, now, 0, &wait), QUOTA_TOKENS); /* the debt is still there */
    assert_int_equal(wait, 6 * SECOND);
    quota_change(&q, &(struct quota_limits){0, 0, 0}, now);
    assert_int_equal(enter(&q, now, 1000, &wait), QUOTA_OK);
    quota_change(&q, &(struct quota_limits){.tokens_per_minute = 10}, now);
    assert_int_equal(enter(&q, now, 10, &wait), QUOTA_OK);
    assert_int_equal(enter(&q, now, 10, &wait), QUOTA_TOKENS);
}

/* The largest rates and times: no overflow (the undefined-behaviour sanitizer looks on). */
static void test_extremes(void **state)
{
    struct quota q;
    uint64_t wait;
    (void)state;
    quota_init(&q, &(struct quota_limits){QUOTA_RATE_MAX, QUOTA_RATE_MAX, 0}, 0);
    for (int i = 0; i < 100; i++)
        quota_spend(&q, 0, UINT32_MAX);
    assert_int_equal(enter(&q, 1, QUOTA_RATE_MAX, &wait), QUOTA_TOKENS);
    assert_int_equal(enter(&q, UINT64_MAX, QUOTA_RATE_MAX, &wait), QUOTA_OK);
    assert_int_equal(enter(&q, 5, 1, &wait),
                     QUOTA_TOKENS); /* a clock that went back gives nothing */
    quota_init(&q, &(struct quota_limits){1, 1, 0}, 0);
    quota_spend(&q, 0, UINT32_MAX);
    assert_int_equal(enter(&q, 0, 1, &wait), QUOTA_TOKENS);
    assert_int_equal(enter(&q, wait - 1, 1, &wait), QUOTA_TOKENS);
    assert_int_equal(wait, 1);
}

/*
 * A greedy tenant asks at random; its answers come token by token, some are cancelled. All the
 * time: tokens used <= rate * (minutes + 1) + what running streams still produced; the same request
 * is admitted exactly after the wait that it was told, when nothing else happens.
 */
static void simulate(uint64_t seed)
{
    struct rng rng;
    struct quota q, later;
    rng_init(&rng, seed, 0);
    uint32_t rate = 1 + rng_below(&rng, 5000), requests = 1 + rng_below(&rng, 200);
    uint64_t start = rng_next(&rng), now = start, used = 0, asked = 0, answers = 0, wait;
    quota_init(&q, &(struct quota_limits){requests, rate, 1 + rng_below(&rng, 20)}, now);
    for (int i = 0; i < EVENTS; i++) {
        now += rng_below(&rng, 500000);
        uint32_t prompt = rng_below(&rng, rate + rate / 8 + 1), dice = rng_below(&rng, 8);
        if (dice < 3) {
            bool taken = arrive(&q, now, &wait) == QUOTA_OK;
            asked += taken ? 1 : 0;
            if (!taken) {
                later = q;
                uint64_t when = now + wait;
                assert_int_not_equal(arrive(&later, when - 1, &wait), QUOTA_OK);
                assert_int_equal(arrive(&later, when, &wait), QUOTA_OK);
                continue;
            }
            enum quota_verdict v = enter(&q, now, prompt, &wait);
            assert_true((v == QUOTA_NEVER) == (prompt > rate));
            if (v == QUOTA_OK) {
                used += prompt;
            } else if (v == QUOTA_TOKENS) {
                uint64_t told = wait;
                later = q;
                assert_int_not_equal(enter(&later, now + told - 1, prompt, &wait), QUOTA_OK);
                later = q;
                assert_int_equal(enter(&later, now + told, prompt, &wait), QUOTA_OK);
            }
        } else if (dice < 7 && q.streams > 0) {
            quota_spend(&q, now, 1);
            answers++;
        } else if (q.streams > 0) {
            quota_leave(&q);
        }
        uint64_t allowed = rate + (now - start) * rate / MINUTE + 1;
        assert_true(used <= allowed);
        assert_true(used + answers <= allowed + answers);
        assert_true(asked <= requests + (now - start) * requests / MINUTE + 1);
    }
    /* What it was due it got: with the debt paid, a full bucket again and not more. */
    now += MINUTE + answers * MINUTE / rate + MINUTE;
    while (q.streams > 0)
        quota_leave(&q);
    assert_int_equal(enter(&q, now, rate, &wait), QUOTA_OK);
    assert_int_equal(enter(&q, now, 1, &wait), QUOTA_TOKENS);
}

static void test_simulation(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= TENANT_RUNS; seed++)
        simulate(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_limits),  cmocka_unit_test(test_requests),
        cmocka_unit_test(test_tokens),     cmocka_unit_test(test_streams),
        cmocka_unit_test(test_change),     cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_simulation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
