/*
 * test_sched: the batching policy by seeded simulation. Catches: a step over its budget, a decode
 * left out while there is room, a starved request, an order that depends on anything but the items.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "policy/sched.h"

enum { ITEMS = 60 };

static void check_step(const struct sched_item *items, uint32_t n, const struct sched_limits *l,
                       uint32_t used)
{
    uint32_t total = 0, decodes = 0, served = 0, prefill = 0, spans = 0;
    for (uint32_t i = 0; i < n; i++) {
        total += items[i].given;
        spans += items[i].given > 0;
        decodes += items[i].waiting == 0;
        served += items[i].waiting == 0 && items[i].given == 1;
        prefill += items[i].waiting ? items[i].given : 0;
        assert_true(items[i].waiting ? items[i].given <= items[i].waiting : items[i].given <= 1);
    }
    uint32_t kept = l->step_tokens / 4 > 0 ? l->step_tokens / 4 : 1;
    if (kept > l->prefill_beside) kept = l->prefill_beside;
    if (decodes == n || l->step_tokens < 2 || l->spans < 2) kept = 0;
    uint32_t room = l->step_tokens - kept, most = l->spans - (kept > 0);
    if (room > most) room = most;
    assert_int_equal(total, used);
    assert_true(total <= l->step_tokens && spans <= l->spans);
    assert_int_equal(served, decodes < room ? decodes : room);
    if (served > 0) assert_true(prefill <= l->prefill_beside);
    if (n > 0) assert_true(used > 0 || (served == 0 && l->step_tokens == 0));
}

/* Every item is a prompt and then some tokens; all must finish, in a bounded number of steps. */
static void test_everyone_finishes(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct rng r;
        rng_init(&r, seed, 1);
        struct sched_limits l = {1 + rng_below(&r, 300), 1 + rng_below(&r, 64),
                                 1 + rng_below(&r, 40)};
        struct sched_item items[ITEMS];
        uint32_t answer[ITEMS], n = 1 + rng_below(&r, ITEMS), left = n;
        uint64_t work = 0;
        for (uint32_t i = 0; i < n; i++) {
            items[i] = (struct sched_item){.waiting = 1 + rng_below(&r, 900),
                                           .arrived = rng_below(&r, 10)};
            answer[i] = rng_below(&r, 50);
            work += items[i].waiting + answer[i] + 2;
        }
        for (uint64_t step = 1; left > 0; step++) {
            assert_true(step <= work);
            check_step(items, left, &l, sched_step(items, left, &l));
            for (uint32_t i = 0; i < left;) {
                bool done = false;
                if (items[i].given && items[i].waiting)
                    items[i].waiting -= items[i].given;
                else if (items[i].given)
                    done = answer[i]-- == 0;
                if (items[i].given) items[i].served = step;
                if (done) {
                    items[i] = items[--left];
                    answer[i] = answer[left];
                } else {
                    i++;
                }
            }
        }
    }
}

static void test_first_come_first_served(void **state)
{
    (void)state;
    struct sched_item items[3] = {
        {.waiting = 100, .arrived = 2}, {.waiting = 100, .arrived = 1}, {0}};
    sched_step(items, 3, &(struct sched_limits){512, 150, 64});
    assert_int_equal(items[1].given, 100);
    assert_int_equal(items[0].given, 50);
    assert_int_equal(items[2].given, 1);
}

static void test_decodes_take_turns(void **state)
{
    (void)state;
    struct sched_item items[8] = {{0}};
    for (uint64_t step = 1; step <= 80; step++) {
        assert_int_equal(sched_step(items, 8, &(struct sched_limits){3, 3, 64}), 3);
        for (int i = 0; i < 8; i++)
            if (items[i].given) items[i].served = step;
    }
    for (int i = 0; i < 8; i++)
        assert_true(items[i].served >= 78);
}

/* Answers that never end must not keep a prompt from beginning, nor starve each other. */
static void test_prompt_beside_many(void **state)
{
    (void)state;
    static const struct sched_limits limits[] = {
        {64, 32, 256}, {512, 128, 256}, {2, 64, 256}, {16, 1, 2}};
    enum { RUNNING = 700, PROMPT = 1000 };
    for (size_t k = 0; k < sizeof limits / sizeof *limits; k++) {
        static struct sched_item items[RUNNING + 1];
        memset(items, 0, sizeof items);
        items[RUNNING] = (struct sched_item){.waiting = PROMPT, .arrived = 1};
        uint64_t step = 0;
        for (; items[RUNNING].waiting > 0; step++) {
            assert_true(step <= PROMPT);
            sched_step(items, RUNNING + 1, &limits[k]);
            items[RUNNING].waiting -= items[RUNNING].given;
            for (int i = 0; i < RUNNING; i++)
                if (items[i].given) items[i].served = step + 1;
        }
        for (int i = 0; i < RUNNING; i++)
            assert_true(step < 2 * RUNNING || items[i].served > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everyone_finishes),
        cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_decodes_take_turns),
        cmocka_unit_test(test_prompt_beside_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
