/*
 * test_profile: what a profile learns from measurements.
 *
 * Catches: an estimate that one outlier ruins; a first-token time that ignores the prompt.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "policy/profile.h"

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
        cmocka_unit_test(test_estimates),
        cmocka_unit_test(test_first_token_grows_with_the_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
