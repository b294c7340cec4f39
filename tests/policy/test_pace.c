/*
 * test_pace: the pacer's bounds.
 *
 * Catches: a pace outside its bounds; a first token that is held back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "policy/pace.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pace_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
