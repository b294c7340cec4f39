/*
 * test_plan: the planner's decisions, the pacer's bounds and the estimates, as tables.
 *
 * Catches: a cloud asked against the user's will or not worth it; an N that is too small for the
 * formula of docs/design/handover.md; a pace outside its bounds; an estimate that one outlier
 * ruins.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "policy/pace.h"
#include "policy/plan.h"
#include "policy/profile.h"

static const struct {
    const char *what;
    struct plan_input in;
    enum plan_choice choice;
    uint32_t n;
} decisions[] = {
    {"local only", {3000, 200, 816, 64000, 3e5, 0, 0, true, false, true}, PLAN_DEVICE, 0},
    {"no cloud", {3000, 200, 816, 64000, 3e5, 0, 0, false, false, false}, PLAN_DEVICE, 0},
    {"cloud only", {3000, 200, 816, 64000, 3e5, 0, 0, false, true, true}, PLAN_CLOUD, 200},
    {"no engine", {3000, 200, 0, 0, 3e5, 0, 0, false, false, true}, PLAN_CLOUD, 200},
    {"short prompt", {100, 200, 816, 64000, 3e5, 0, 0, false, false, true}, PLAN_DEVICE, 0},
    {"slow cloud", {3000, 200, 816, 64000, 4e6, 0, 0, false, false, true}, PLAN_DEVICE, 0},
    /* (3000 / 816 s + 64 ms - 300 ms) / (64 ms - 1 / 816 s) = 54.8 */
    {"both", {3000, 200, 816, 64000, 3e5, 0, 0, false, false, true}, PLAN_BOTH, 55},
    {"both, unsure", {3000, 200, 816, 64000, 3e5, 0, 0.1, false, false, true}, PLAN_BOTH, 67},
    {"reading pace", {3000, 200, 816, 64000, 3e5, 120000, 0, false, false, true}, PLAN_BOTH, 29},
    {"short answer", {3000, 20, 816, 64000, 3e5, 0, 0, false, false, true}, PLAN_BOTH, 20},
    /* a device that reads more slowly than it writes never catches up */
    {"never", {3000, 200, 10, 64000, 3e5, 0, 0, false, false, true}, PLAN_BOTH, 200},
};

static void test_decisions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof decisions / sizeof *decisions; i++) {
        struct plan p;
        plan_make(&decisions[i].in, &p);
        if (p.choice != decisions[i].choice || p.cloud_tokens != decisions[i].n)
            fail_msg("%s: choice %d, %u tokens (%s)", decisions[i].what, (int)p.choice,
                     p.cloud_tokens, p.why);
        assert_true(p.why[0] != 0);
        if (p.choice == PLAN_BOTH && p.cloud_tokens < decisions[i].in.answer_max)
            assert_true(plan_tokens_least(&decisions[i].in) == p.cloud_tokens);
    }
}

/* Not even an endless answer is long enough for a device that never catches up. */
static void test_never_enough(void **state)
{
    (void)state;
    struct plan_input in = {.prompt_tokens = 100, .prefill_tps = 10, .decode_us = 64000};
    assert_true(isinf(plan_tokens_least(&in)));
}

/* With exact predictions the device is ready when the last borrowed token has been shown. */
static void test_n_suffices(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 5, 1);
    for (int i = 0; i < 20000; i++) {
        struct plan_input in = {.prompt_tokens = 1 + rng_below(&r, 9000),
                                .answer_max = 1 + rng_below(&r, 2000),
                                .prefill_tps = 50 + rng_below(&r, 5000),
                                .decode_us = 5000 + rng_below(&r, 100000),
                                .first_token_us = 1 + rng_below(&r, 2000000),
                                .cloud_known = true};
        struct plan p;
        plan_make(&in, &p);
        assert_true(p.cloud_tokens <= in.answer_max);
        if (p.choice != PLAN_BOTH || p.cloud_tokens == in.answer_max) continue;
        double n = p.cloud_tokens;
        double ready = (in.prompt_tokens + n) / in.prefill_tps * 1e6 + in.decode_us;
        double due = in.first_token_us + n * in.decode_us;
        assert_true(ready <= due + 1.0);
    }
}

static void test_pace_bounds(void **state)
{
    (void)state;
    struct pace p;
    pace_init(&p, PACE_SMOOTH, 64000);
    for (uint32_t tokens = 0; tokens < 300; tokens++)
        for (double ready = 0; ready < 2e7; ready += 99991) {
            double d = pace_borrowed_us(&p, ready, tokens);
            assert_true(d >= 0.85 * 64000 && d <= 1.1 * 64000);
        }
    for (uint32_t buffered = 0; buffered < 10; buffered++) {
        double d = pace_own_us(&p, buffered);
        assert_true(d >= 0.9 * 64000 && d <= 1.05 * 64000);
        assert_true(buffered == 0 || d <= pace_own_us(&p, buffered - 1));
    }
    pace_init(&p, PACE_OFF, 64000);
    assert_true(pace_borrowed_us(&p, 1e7, 3) == 0.0 && pace_own_us(&p, 0) == 0.0);
    pace_init(&p, PACE_READING, 64000);
    assert_true(pace_borrowed_us(&p, 1e9, 3) == (double)PACE_READING_US);
    pace_init(&p, PACE_SMOOTH, 64000);
    assert_int_equal(pace_due(&p, 500, 64000), 500); /* the first is never held back */
    pace_shown(&p, 500);
    assert_int_equal(pace_due(&p, 600, 64000), 64500);
    assert_int_equal(pace_due(&p, 99999, 64000), 99999);
}

static void test_estimates(void **state)
{
    (void)state;
    struct estimate e;
    estimate_init(&e, 100.0);
    assert_true(e.mean == 100.0 && estimate_deviation(&e) > 0.0);
    estimate_add(&e, 50.0); /* the first measurement replaces the guess */
    assert_true(e.mean == 50.0);
    for (int i = 0; i < 50; i++)
        estimate_add(&e, i % 2 ? 52.0 : 48.0);
    assert_true(fabs(e.mean - 50.0) < 1.5);
    assert_true(estimate_deviation(&e) > 0.5 && estimate_deviation(&e) < 5.0);
    estimate_add(&e, 5000.0);
    assert_true(estimate_deviation(&e) > 500.0); /* and the spread tells */
    for (int i = 0; i < 60; i++)
        estimate_add(&e, 50.0);
    assert_true(fabs(e.mean - 50.0) < 1.0);
}

static void test_first_token_grows_with_the_prompt(void **state)
{
    (void)state;
    struct profile p;
    profile_init(&p, 800.0, 64000.0);
    assert_true(profile_first_token_us(&p, 1000) == 0.0);
    estimate_add(&p.first_token_us, 700000.0);
    assert_true(profile_first_token_us(&p, 1000) == 700000.0);
    estimate_add(&p.rtt_us, 50000.0);
    estimate_add(&p.cloud_us_per_token, 200.0);
    assert_true(profile_first_token_us(&p, 0) == 50000.0);
    assert_true(profile_first_token_us(&p, 3000) == 650000.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decisions),  cmocka_unit_test(test_never_enough),
        cmocka_unit_test(test_n_suffices), cmocka_unit_test(test_pace_bounds),
        cmocka_unit_test(test_estimates),  cmocka_unit_test(test_first_token_grows_with_the_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
