/*
 * test_route: the choice of a server. Catches: prompts of one beginning that go to several servers
 * though none is busy, a busy favourite that is asked all the same, a server that is down, full or
 * was asked already, prompts that move when another server comes or goes, probes without a pause.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "policy/route.h"

enum { SERVERS = 5, PROMPTS = 2000, NOW = 1000 };

static void make(struct route_server s[SERVERS])
{
    static const char *const urls[SERVERS] = {"http://a", "http://b", "http://c", "http://d",
                                              "http://e"};
    for (int i = 0; i < SERVERS; i++)
        s[i] = (struct route_server){
            .name = fnv_bytes(FNV_BEGIN, urls[i], 8), .outstanding_max = 100, .up = true};
}

static uint64_t prompt(uint32_t i)
{
    return fnv_bytes(FNV_BEGIN, &i, sizeof i);
}

/* Each server gets its share, and every prompt always the same server, in whatever order they are
 * listed. */
static void test_affinity(void **state)
{
    struct route_server s[SERVERS], turned[SERVERS];
    uint32_t count[SERVERS] = {0};
    (void)state;
    make(s);
    for (int i = 0; i < SERVERS; i++)
        turned[i] = s[(i + 2) % SERVERS];
    for (uint32_t p = 0; p < PROMPTS; p++) {
        int i = route_choose(s, SERVERS, prompt(p), 0, NOW);
        assert_in_range(i, 0, SERVERS - 1);
        assert_int_equal(s[i].name, turned[route_choose(turned, SERVERS, prompt(p), 0, NOW)].name);
        count[i]++;
    }
    for (int i = 0; i < SERVERS; i++)
        assert_in_range(count[i], PROMPTS / SERVERS / 2, PROMPTS / SERVERS * 2);
}

/* A server that goes moves only its own prompts, and gets them back. */
static void test_coming_and_going(void **state)
{
    struct route_server s[SERVERS];
    (void)state;
    make(s);
    for (uint32_t p = 0; p < PROMPTS; p++) {
        int before = route_choose(s, SERVERS, prompt(p), 0, NOW);
        s[2].up = false;
        int without = route_choose(s, SERVERS, prompt(p), 0, NOW);
        s[2].up = true;
        assert_int_equal(route_choose(s, SERVERS, prompt(p), 0, NOW), before);
        if (before != 2) assert_int_equal(without, before);
        assert_int_not_equal(without, 2);
    }
}

static void test_table(void **state)
{
    static const struct {
        const char *what;
        uint32_t outstanding[3], max;
        bool up[3];
        uint64_t rest[3], skip;
        int want; /* -2: the favourite, whoever it is */
    } cases[] = {
        {"all idle", {0, 0, 0}, 9, {true, true, true}, {0}, 0, -2},
        {"slack", {4, 0, 4}, 9, {true, true, true}, {0}, 0, -2},
        {"none up", {0, 0, 0}, 9, {false, false, false}, {0}, 0, -1},
        {"one up", {8, 8, 8}, 9, {false, true, false}, {0}, 0, 1},
        {"all full", {9, 9, 9}, 9, {true, true, true}, {0}, 0, -1},
        {"one has room", {9, 9, 8}, 9, {true, true, true}, {0}, 0, 2},
        {"two tried", {0, 0, 0}, 9, {true, true, true}, {0}, 5, 1},
        {"all tried", {0, 0, 0}, 9, {true, true, true}, {0}, 7, -1},
        {"two rest", {0, 8, 0}, 9, {true, true, true}, {NOW + 1, 0, NOW + 1}, 0, 1},
        {"all rest", {9, 0, 9}, 9, {true, true, true}, {NOW + 1, NOW + 1, NOW + 1}, 0, 1},
        {"rested", {0, 0, 0}, 9, {true, true, true}, {NOW, NOW, NOW}, 0, -2},
    };
    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct route_server s[SERVERS];
        make(s);
        int favourite = route_choose(s, 3, prompt(7), 0, NOW);
        for (int i = 0; i < 3; i++) {
            s[i].outstanding = cases[k].outstanding[i];
            s[i].outstanding_max = cases[k].max;
            s[i].up = cases[k].up[i];
            s[i].rest_until = cases[k].rest[i];
        }
        int want = cases[k].want == -2 ? favourite : cases[k].want;
        int got = route_choose(s, 3, prompt(7), cases[k].skip, NOW);
        if (got != want) fail_msg("%s: got %d, want %d", cases[k].what, got, want);
    }
}

/* Markedly more work than the least busy one: that one gets it; a quarter more is not markedly. */
static void test_busy_favourite(void **state)
{
    struct route_server s[SERVERS];
    (void)state;
    make(s);
    int favourite = route_choose(s, SERVERS, prompt(1), 0, NOW), least = (favourite + 1) % SERVERS;
    static const struct {
        uint32_t favourite, least;
        bool stays;
    } cases[] = {{4, 0, true},    {5, 0, false},  {14, 10, true},
                 {15, 10, false}, {50, 40, true}, {51, 40, false}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        for (int i = 0; i < SERVERS; i++)
            s[i].outstanding = 60;
        s[favourite].outstanding = cases[k].favourite;
        s[least].outstanding = cases[k].least;
        assert_int_equal(route_choose(s, SERVERS, prompt(1), 0, NOW),
                         cases[k].stays ? favourite : least);
    }
}

static void test_health(void **state)
{
    struct route_server s = {.up = true};
    (void)state;
    static const uint64_t waits[] = {1, 2, 4, 8, 16, 30, 30, 30};
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        assert_int_equal(route_failed(&s, NOW), NOW + waits[i] * 1000000);
        assert_false(s.up);
    }
    assert_int_equal(route_answered(&s, NOW), NOW + ROUTE_PROBE_US);
    assert_true(s.up);
    assert_int_equal(route_failed(&s, NOW), NOW + ROUTE_RETRY_US);
    route_busy(&s, NOW, 0);
    assert_int_equal(s.rest_until, NOW + 1000000);
    route_busy(&s, NOW, 7);
    assert_int_equal(s.rest_until, NOW + 7000000);
    route_busy(&s, NOW, UINT32_MAX);
    assert_int_equal(s.rest_until, NOW + 30000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_affinity), cmocka_unit_test(test_coming_and_going),
        cmocka_unit_test(test_table),    cmocka_unit_test(test_busy_favourite),
        cmocka_unit_test(test_health),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
