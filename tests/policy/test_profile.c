/*
 * test_profile: what a profile learns from measurements.
 *
 * Catches: an estimate that one outlier ruins; speeds that do not grow with length and depth; heat
 * taken for the device's own speed, or kept after a rest; a first-token time that ignores the
 * prompt; plans from measured figures that are off by more than the figures.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
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

static bool near(double a, double b, double share)
{
    return fabs(a / b - 1.0) <= share;
}

static void test_lines(void **state)
{
    (void)state;
    struct profile_line l;
    struct rng r;
    rng_init(&r, 1, 1);
    profile_line_init(&l, 0.0, 0.0);
    assert_true(profile_line_at(&l, 500.0) == 0.0);
    profile_line_init(&l, 700.0, 0.0);
    assert_true(profile_line_at(&l, 500.0) == 700.0);
    profile_line_add(&l, 1000.0, 1000.0, 1.0); /* the guess is gone */
    assert_true(near(profile_line_at(&l, 1000.0), 1000.0, 1e-9));
    assert_true(near(profile_line_at(&l, 4000.0), 1000.0, 1e-9));
    for (int i = 0; i < 60; i++) { /* 800 + 0.1 x, within a twentieth */
        double x = rng_below(&r, 8000);
        profile_line_add(&l, x, (800.0 + 0.1 * x) * (0.95 + 0.1 * (double)rng_next_uniform(&r)), 1);
    }
    assert_true(near(profile_line_at(&l, 0.0), 800.0, 0.06));
    assert_true(near(profile_line_at(&l, 8000.0), 1600.0, 0.06));
    assert_true(profile_line_spread(&l) < 0.1);
    double before = profile_line_at(&l, 4000.0);
    profile_line_add(&l, 4000.0, 1e9, 1.0); /* the machine slept */
    assert_true(profile_line_at(&l, 4000.0) < 1.5 * before);
    assert_true(profile_line_spread(&l) > 0.3);
    for (int i = 0; i < 40; i++) /* another device altogether */
        profile_line_add(&l, 4000.0 + i, 12000.0, 1.0);
    assert_true(near(profile_line_at(&l, 4000.0), 12000.0, 0.02));
}

static void test_lines_ignore_nonsense(void **state)
{
    (void)state;
    struct profile_line l;
    profile_line_init(&l, 700.0, 0.0);
    profile_line_add(&l, 1.0, 0.0, 1.0);
    profile_line_add(&l, 1.0, -5.0, 1.0);
    profile_line_add(&l, -1.0, 5.0, 1.0);
    profile_line_add(&l, NAN, 5.0, 1.0);
    profile_line_add(&l, 1.0, INFINITY, 1.0);
    assert_int_equal(l.n, 0);
    /* a line that would lead below zero does not */
    profile_line_add(&l, 100.0, 10.0, 1.0);
    profile_line_add(&l, 20000.0, 20000.0, 1.0);
    profile_line_add(&l, 20000.0, 20000.0, 1.0);
    for (double x = 0.0; x < 40000.0; x += 500.0)
        assert_true(profile_line_at(&l, x) > 0.0);
}

static void test_speed_by_length_and_depth(void **state)
{
    (void)state;
    struct profile p;
    struct plan_device d;
    struct rng r;
    double now = 1e9;
    rng_init(&r, 2, 1);
    profile_init(&p, 500.0, 50000.0);
    profile_device(&p, now, &d);
    assert_true(d.prefill.us == 2000.0 && d.decode.us == 50000.0 && d.heat == 1.0);
    for (int i = 0; i < 30; i++) { /* 1,000 us + 0.2 us a position; 40 ms + 2 us a position */
        uint32_t from = rng_below(&r, 2) ? rng_below(&r, 4000) : 0, n = 200 + rng_below(&r, 4000);
        now += 600.0;
        profile_prefilled(&p, now, from, n, n * (1000.0 + 0.2 * (from + n / 2.0)));
        now += 600.0;
        profile_decoded(&p, now, from + n, 40000.0 + 2.0 * (from + n));
    }
    profile_device(&p, now + 600.0, &d);
    assert_true(near(plan_speed_us(&d.prefill, 0, 8000), 8000 * 1800.0, 0.02));
    assert_true(near(plan_speed_us(&d.prefill, 6000, 500), 500 * 2250.0, 0.02));
    assert_true(near(plan_speed_us(&d.decode, 8000, 1), 56000.0, 0.02));
    assert_true(d.prefill.spread < 0.06);
}

/* A phone that loses half of its speed while it works, as an iPhone 16 Pro within two runs, and has
 * it back after a rest. */
static void test_heat(void **state)
{
    (void)state;
    struct profile p;
    struct plan_device d;
    double now = 1e9;
    profile_init(&p, 0.0, 0.0);
    for (int day = 0; day < 5; day++) {
        double slow = 1.0;
        now += 8 * 3600.0;
        profile_device(&p, now, &d);
        assert_true(d.heat < 1.01);
        if (day > 0) /* rested: its own speed */
            assert_true(near(plan_speed_us(&d.prefill, 0, 2000) * d.heat, 2e6, 0.12));
        for (int run = 0; run < 8; run++) {
            double us = 2000 * 1000.0 * slow;
            now += us / 1e6;
            profile_prefilled(&p, now, 0, 2000, us);
            slow = slow + 0.5 * (2.0 - slow);
            now += 1.0;
        }
        profile_device(&p, now, &d); /* hot: what the next run will take */
        assert_true(near(plan_speed_us(&d.prefill, 0, 2000) * d.heat, 4e6, 0.12));
        assert_true(d.heat > 1.4);
    }
    profile_device(&p, now - 500.0, &d); /* a clock that was set back harms nothing */
    assert_true(d.heat >= 1.0 && d.heat < 4.0);
}

static void test_first_token_grows_with_the_prompt(void **state)
{
    (void)state;
    struct profile p;
    struct plan_cloud c;
    profile_init(&p, 800.0, 64000.0);
    profile_cloud(&p, 1e9, 1000, &c);
    assert_true(c.first_us.mean == 0.0 && c.uncached == 1000); /* not known */
    profile_granted(&p, 1e9, 50000.0);
    profile_first_token(&p, 1000, 300000.0);
    profile_first_token(&p, 3000, 700000.0);
    for (int i = 0; i < 20; i++) {
        profile_granted(&p, 1e9, 50000.0);
        profile_first_token(&p, 1000, 300000.0);
        profile_first_token(&p, 6000, 1300000.0);
    }
    profile_cloud(&p, 1e9, 3000, &c);
    assert_true(near(c.first_us.mean, 750000.0, 0.02));
    assert_true(c.first_us.deviation > 1000.0 && c.first_us.deviation < 100000.0);
    assert_true(near(c.rtt_us, 50000.0, 0.01));
    profile_streamed(&p, 15000.0);
    profile_cloud(&p, 1e9, 100, &c);
    assert_true(c.token_us == 15000.0);
    assert_true(c.first_us.mean < 250000.0);
    for (int i = 0; i < 30; i++) /* most of what it was not sent by us, others have sent it */
        profile_cached(&p, 4000, 1000);
    profile_cached(&p, 0, 0);
    profile_cloud(&p, 1e9, 4000, &c);
    assert_true(c.uncached >= 999 && c.uncached <= 1010);
    assert_true(near(c.first_us.mean, 350000.0, 0.02));
    double sure = c.first_us.deviation;
    profile_cached(&p, 4000, 4000); /* not this time: less sure */
    profile_cloud(&p, 1e9, 4000, &c);
    assert_true(c.first_us.deviation > 2.0 * sure);
}

/* A queue is no way: it is expected for a while, and never as a part of the round trip. */
static void test_queues_are_forgotten(void **state)
{
    (void)state;
    struct profile p;
    struct plan_cloud c;
    profile_init(&p, 0.0, 0.0);
    for (int i = 0; i < 10; i++) {
        profile_granted(&p, 1e9 + i, 40000.0);
        profile_first_token(&p, 1000, 200000.0);
    }
    for (int i = 10; i < 20; i++)
        profile_granted(&p, 1e9 + i, 3040000.0);
    profile_cloud(&p, 1e9 + 20, 1000, &c);
    assert_true(near(c.first_us.mean, 3.2e6, 0.1) && c.first_us.deviation > 2e5);
    assert_true(c.rtt_us < 70000.0);
    profile_cloud(&p, 1e9 + 20 + 600, 1000, &c);
    assert_true(c.first_us.mean < 450000.0);
    for (int i = 0; i < 100; i++) /* a new network: that is the way now */
        profile_granted(&p, 1e9 + 30 + i, 300000.0);
    profile_cloud(&p, 1e9 + 130, 1000, &c);
    assert_true(near(c.rtt_us, 300000.0, 0.05));
}

static void test_lengths_by_kind(void **state)
{
    (void)state;
    struct profile p;
    struct lengths_view v;
    profile_init(&p, 0.0, 0.0);
    for (int i = 0; i < 100; i++) {
        profile_answered(&p, 30, 8, false);
        profile_answered(&p, 9000, 900, false);
    }
    lengths_view(profile_lengths(&p, 40), 0, 0, &v);
    assert_true(lengths_mean_up_to(&v, 1e5) < 60.0);
    lengths_view(profile_lengths(&p, 8000), 0, 0, &v);
    assert_true(lengths_mean_up_to(&v, 1e5) > 600.0);
    assert_ptr_not_equal(profile_lengths(&p, 0), profile_lengths(&p, UINT32_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_estimates),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_lines_ignore_nonsense),
        cmocka_unit_test(test_speed_by_length_and_depth),
        cmocka_unit_test(test_heat),
        cmocka_unit_test(test_first_token_grows_with_the_prompt),
        cmocka_unit_test(test_queues_are_forgotten),
        cmocka_unit_test(test_lengths_by_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
