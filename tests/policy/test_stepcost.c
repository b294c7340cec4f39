/*
 * test_stepcost: how long steps take, learned from simulated engines. Catches: steps that miss
 * their aim by more than the noise, prompts that starve where answers alone miss it, one disturbed
 * step that spoils the estimate, limits outside their bounds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "policy/stepcost.h"

enum { STEP_TOKENS = 512 };

struct machine {
    double base, each, prefill, noise; /* microseconds; the last: relative */
};

static double step_us(const struct machine *m, struct rng *r, uint32_t decodes, uint32_t prompts)
{
    double us = m->base + m->each * decodes + m->prefill * prompts;
    return us * (1.0 + m->noise * ((double)rng_below(r, 2001) / 1000.0 - 1.0));
}

/* Lives with a machine for a while, then checks the steps that it would plan. */
static void check_machine(const struct machine *m, double aim_us, uint64_t seed)
{
    struct stepcost c = {0};
    struct rng r;
    rng_init(&r, seed, 1);
    for (uint32_t step = 0; step < 600; step++) {
        struct sched_limits l = {.step_tokens = STEP_TOKENS};
        uint32_t decodes = step < 3 ? 0 : rng_below(&r, 40), prompts = 0;
        stepcost_limit(&c, decodes, aim_us, STEP_TOKENS, &l);
        assert_true(l.prefill_beside >= 1 && l.prefill_beside <= STEP_TOKENS);
        assert_true(l.prefill_alone >= 1 && l.prefill_alone <= STEP_TOKENS);
        if (decodes == 0 || step % 2) prompts = decodes ? l.prefill_beside : l.prefill_alone;
        double us = step_us(m, &r, decodes, prompts);
        if (step % 100 == 99) us *= 50; /* the machine slept */
        stepcost_note(&c, decodes, prompts, us);
    }
    for (uint32_t decodes = 1; decodes < 40; decodes++) {
        struct sched_limits l = {.step_tokens = STEP_TOKENS};
        stepcost_limit(&c, decodes, aim_us, STEP_TOKENS, &l);
        double alone = m->base + m->each * decodes;
        double whole = alone + m->prefill * l.prefill_beside;
        double bound = aim_us > alone * 4 / 3 ? aim_us : alone * 4 / 3;
        assert_true(whole <= bound * 1.35 + m->prefill);
        /* and what there is, is used */
        if (l.prefill_beside < STEP_TOKENS) assert_true(whole + 16 * m->prefill >= bound * 0.5);
    }
}

static void test_machines(void **state)
{
    (void)state;
    static const struct machine machines[] = {
        {30000, 500, 2300, 0.05},    /* half a billion parameters on two cores */
        {8000, 900, 900, 0.1},       /* a small model */
        {400000, 9000, 30000, 0.05}, /* a large one: answers alone miss the aim */
        {200, 5, 10, 0.2},           /* an accelerator */
    };
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++)
        for (uint64_t seed = 0; seed < 20; seed++)
            check_machine(&machines[i], 100000, seed);
}

static void test_unknown(void **state)
{
    (void)state;
    struct stepcost c = {0};
    struct sched_limits l = {.step_tokens = STEP_TOKENS};
    stepcost_limit(&c, 3, 1e5, STEP_TOKENS, &l);
    assert_int_equal(l.prefill_beside, STEPCOST_TOKENS_FIRST);
    assert_int_equal(l.prefill_alone, STEPCOST_TOKENS_FIRST);
    l.step_tokens = 5;
    stepcost_limit(&c, 3, 1e5, 3, &l);
    assert_int_equal(l.prefill_beside, 3);
    assert_int_equal(l.prefill_alone, 5);
    assert_true(stepcost_decode_us(&c, 7) <= 0.0);
    stepcost_note(&c, 4, 0, 8000);
    assert_true(stepcost_decode_us(&c, 1) >= 7999 && stepcost_decode_us(&c, 8) >= 15999);
    stepcost_note(&c, 0, 100, 0); /* a clock that stands still */
    stepcost_limit(&c, 4, 1e5, 400, &l);
    assert_int_equal(l.prefill_beside, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_machines),
        cmocka_unit_test(test_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
