/*
 * test_sched: the batching policy by seeded simulation. Catches: a step over its budget, a decode
 * left out while there is room, a starved request, a tenant with more than its share or a claim on
 * what it never wanted, an order that depends on anything but the items.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "policy/sched.h"

enum { ITEMS = 60, TENANTS = 5 };

static struct sched *open_sched(void)
{
    struct sched *s;
    assert_int_equal(sched_new(&s, NULL), 0);
    return s;
}

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
    assert_true(prefill <= (served > 0 ? l->prefill_beside : l->prefill_alone));
    if (n > 0) assert_true(used > 0 || (served == 0 && l->step_tokens == 0));
}

static struct sched_limits random_limits(struct rng *r)
{
    return (struct sched_limits){1 + rng_below(r, 300), 1 + rng_below(r, 64), 1 + rng_below(r, 300),
                                 1 + rng_below(r, 40)};
}

/* Every item is a prompt and then some tokens, of several tenants of several priorities; all must
 * finish, in a bounded number of steps. Returns a hash of all that was given. */
static uint64_t run_to_the_end(uint64_t seed)
{
    struct rng r;
    rng_init(&r, seed, 1);
    struct sched *s = open_sched();
    struct sched_limits l = random_limits(&r);
    struct sched_item items[ITEMS];
    uint32_t answer[ITEMS], n = 1 + rng_below(&r, ITEMS), left = n;
    uint64_t work = 0, hash = seed;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t tenant = rng_below(&r, TENANTS);
        items[i] = (struct sched_item){.waiting = 1 + rng_below(&r, 900),
                                       .tenant = tenant,
                                       .priority = (int32_t)tenant * 5 - 10,
                                       .arrived = rng_below(&r, 10)};
        answer[i] = rng_below(&r, 50);
        work += items[i].waiting + answer[i] + 2;
    }
    for (uint64_t step = 1; left > 0; step++) {
        assert_true(step <= work);
        check_step(items, left, &l, sched_step(s, items, left, &l));
        for (uint32_t i = 0; i < left;) {
            bool done = false;
            hash = hash * 31 + items[i].given;
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
    sched_free(s);
    return hash;
}

static void test_everyone_finishes(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++)
        assert_true(run_to_the_end(seed) == run_to_the_end(seed));
}

static void test_first_come_first_served(void **state)
{
    (void)state;
    struct sched *s = open_sched();
    struct sched_item items[3] = {
        {.waiting = 100, .arrived = 2}, {.waiting = 100, .arrived = 1}, {0}};
    sched_step(s, items, 3, &(struct sched_limits){512, 150, 512, 64});
    assert_int_equal(items[1].given, 100);
    assert_int_equal(items[0].given, 50);
    assert_int_equal(items[2].given, 1);
    sched_free(s);
}

/* One tenant: the order is that of a plain search for the smallest key. */
static void test_order(void **state)
{
    (void)state;
    enum { MANY = 300 };
    static struct sched_item items[MANY];
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct rng r;
        rng_init(&r, seed, 2);
        bool decode = seed % 2, taken[MANY] = {false};
        uint32_t n = 1 + rng_below(&r, MANY), room = 1 + rng_below(&r, MANY);
        uint64_t spread = (uint64_t)1 << (seed % 60);
        for (uint32_t i = 0; i < n; i++) {
            uint64_t key = (seed << 50) + rng_next(&r) % spread;
            items[i] =
                (struct sched_item){.waiting = decode ? 0 : 1, .arrived = key, .served = key};
        }
        struct sched *s = open_sched();
        sched_step(s, items, n, &(struct sched_limits){room, room, room, room});
        for (uint32_t k = 0; k < room && k < n; k++) {
            uint32_t best = UINT32_MAX;
            for (uint32_t i = 0; i < n; i++)
                if (!taken[i] && (best == UINT32_MAX || items[i].served < items[best].served))
                    best = i;
            taken[best] = true;
            assert_int_equal(items[best].given, 1);
        }
        for (uint32_t i = 0; i < n; i++)
            assert_int_equal(items[i].given, taken[i]);
        sched_free(s);
    }
}

static void test_decodes_take_turns(void **state)
{
    (void)state;
    struct sched *s = open_sched();
    struct sched_item items[8] = {{0}};
    for (uint64_t step = 1; step <= 80; step++) {
        assert_int_equal(sched_step(s, items, 8, &(struct sched_limits){3, 3, 3, 64}), 3);
        for (int i = 0; i < 8; i++)
            if (items[i].given) items[i].served = step;
    }
    for (int i = 0; i < 8; i++)
        assert_true(items[i].served >= 78);
    sched_free(s);
}

/* Answers that never end must not keep a prompt from beginning, nor starve each other. */
static void test_prompt_beside_many(void **state)
{
    (void)state;
    static const struct sched_limits limits[] = {
        {64, 32, 64, 256}, {512, 128, 512, 256}, {2, 64, 64, 256}, {16, 1, 1, 2}};
    enum { RUNNING = 700, PROMPT = 1000 };
    for (size_t k = 0; k < sizeof limits / sizeof *limits; k++) {
        static struct sched_item items[RUNNING + 1];
        struct sched *s = open_sched();
        memset(items, 0, sizeof items);
        items[RUNNING] = (struct sched_item){.waiting = PROMPT, .arrived = 1};
        uint64_t step = 0;
        for (; items[RUNNING].waiting > 0; step++) {
            assert_true(step <= PROMPT);
            sched_step(s, items, RUNNING + 1, &limits[k]);
            items[RUNNING].waiting -= items[RUNNING].given;
            for (int i = 0; i < RUNNING; i++)
                if (items[i].given) items[i].served = step + 1;
        }
        for (int i = 0; i < RUNNING; i++)
            assert_true(step < 2 * RUNNING || items[i].served > 0);
        sched_free(s);
    }
}

/* Tenants that always want more, with few or many requests each, prompts or answers: their accounts
 * stay within one step's charge of each other, so tokens are shared by priority. */
static void test_shares(void **state)
{
    (void)state;
    static struct sched_item items[400];
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct rng r;
        rng_init(&r, seed, 3);
        struct sched *s = open_sched();
        uint32_t tenants = 2 + rng_below(&r, TENANTS - 1), n = 0, step_tokens;
        uint64_t tokens[TENANTS] = {0};
        int32_t priority[TENANTS];
        bool decode = seed % 2;
        for (uint32_t t = 0; t < tenants; t++) {
            uint32_t count = (decode ? 40 : 1) + rng_below(&r, 30);
            priority[t] = (int32_t)rng_below(&r, 4) - 1;
            for (uint32_t k = 0; k < count; k++)
                items[n++] = (struct sched_item){.waiting = decode ? 0 : 1000,
                                                 .tenant = t,
                                                 .priority = priority[t],
                                                 .arrived = rng_below(&r, 100)};
        }
        step_tokens = decode ? 1 + rng_below(&r, 10) : 1 + rng_below(&r, 900);
        struct sched_limits l = {step_tokens, step_tokens, step_tokens, 64};
        for (uint64_t step = 1; step < 2000; step++) {
            sched_step(s, items, n, &l);
            for (uint32_t i = 0; i < n; i++) {
                tokens[items[i].tenant] += items[i].given;
                if (items[i].given) items[i].served = step;
            }
            for (uint32_t t = 1; t < tenants; t++) {
                uint64_t a = sched_used(s, 0), b = sched_used(s, t);
                assert_true((a > b ? a - b : b - a) <= 2 * (uint64_t)step_tokens * SCHED_CHARGE);
            }
        }
        for (uint32_t t = 1; t < tenants; t++) {
            double share = (double)tokens[t] / (double)tokens[0];
            double due = priority[t] >= priority[0]
                             ? (double)(1 << (priority[t] - priority[0]))
                             : 1.0 / (double)(1 << (priority[0] - priority[t]));
            assert_true(share > 0.97 * due && share < 1.03 * due);
        }
        sched_free(s);
    }
}

/* Who wanted next to nothing for long, or was not there, cannot push the others out later. */
static void test_no_claim(void **state)
{
    (void)state;
    for (int present = 0; present < 2; present++) {
        struct sched *s = open_sched();
        struct sched_limits l = {100, 50, 100, 64};
        struct sched_item items[3] = {
            {.waiting = 1000000, .tenant = 1}, {.tenant = 1}, {.tenant = 2, .arrived = 1}};
        for (int step = 0; step < 10000; step++) {
            sched_step(s, items, present ? 3 : 2, &l);
            if (present) assert_int_equal(items[2].given, 1);
            assert_int_equal(items[0].given, 50);
        }
        items[2].waiting = 1000000;
        uint32_t given[2] = {0, 0};
        for (int step = 0; step < 8; step++) {
            sched_step(s, items, 3, &l);
            given[0] += items[0].given;
            given[1] += items[2].given;
        }
        assert_true(given[0] >= 150 && given[1] >= 150);
        sched_free(s);
    }
}

/* As many as there can be, of as many tenants. */
static void test_most(void **state)
{
    (void)state;
    static struct sched_item items[SCHED_ITEMS_MAX];
    struct sched_limits l = {512, 128, 512, 256};
    struct sched *s = open_sched();
    for (uint32_t i = 0; i < SCHED_ITEMS_MAX; i++)
        items[i] = (struct sched_item){
            .waiting = i % 3 ? 0 : 50, .tenant = i % SCHED_TENANTS_MAX, .arrived = i};
    for (uint64_t step = 1; step <= 100; step++) {
        check_step(items, SCHED_ITEMS_MAX, &l, sched_step(s, items, SCHED_ITEMS_MAX, &l));
        for (uint32_t i = 0; i < SCHED_ITEMS_MAX; i++) {
            if (!items[i].given) continue;
            items[i].served = step;
            if (items[i].waiting) items[i].waiting -= items[i].given;
        }
    }
    for (uint32_t i = 0; i < SCHED_ITEMS_MAX; i++)
        if (i % 3) assert_true(items[i].served > 0); /* 100 steps of 255 are thrice their number */
    sched_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everyone_finishes),
        cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_decodes_take_turns),
        cmocka_unit_test(test_prompt_beside_many),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_no_claim),
        cmocka_unit_test(test_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
