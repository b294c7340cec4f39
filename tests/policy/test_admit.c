/*
 * test_admit: who begins, and with what, by seeded simulation. Catches: memory promised twice, a
 * grant outside its bounds or cut without need, a request that waits for ever, a tenant with more
 * than its share of the places, someone lost in the line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "policy/admit.h"

enum { JOBS = 300, TENANTS = 6, LINE = 64, PLACES = 12 };

struct fake_job {
    uint32_t tokens, most, least, tenant, end, len, until;
    int32_t priority;
    bool running, done;
};

struct world {
    struct rng r;
    struct admit_line *line;
    struct fake_job jobs[JOBS];
    uint32_t pages, used, idle, promised, running, came;
};

static uint32_t positions_max(const struct world *w)
{
    return w->pages * ADMIT_PAGE;
}

static void check_memory(const struct world *w)
{
    assert_true(w->used + w->idle <= w->pages);
    assert_true(w->promised <= w->pages - w->used); /* free and idle */
}

static struct admit_request request_of(const struct world *w, const struct fake_job *j)
{
    return (struct admit_request){
        .tokens = j->tokens, .most = j->most, .least = j->least, .positions_max = positions_max(w)};
}

static void begin_who_can(struct world *w)
{
    struct fake_job *j;
    while (w->running < PLACES && (j = admit_next(w->line)) != NULL) {
        struct admit_request wanted = request_of(w, j);
        struct admit_memory m = {w->pages - w->used - w->idle, w->idle, w->promised};
        uint32_t granted = admit_grant(&m, &wanted), free = m.free + m.idle - m.promised;
        if (granted == 0) {
            assert_true(w->running > 0); /* alone, everybody fits */
            assert_ptr_equal(admit_next(w->line), j);
            return;
        }
        assert_true(granted <= j->most && (granted >= j->least || granted == j->most));
        j->end = admit_positions(&wanted, granted);
        assert_true(admit_pages(j->end) <= free);
        if (granted < j->most) assert_true(admit_pages(j->end + 1) > free);
        w->promised += admit_pages(j->end);
        j->running = true;
        w->running++;
        admit_begin(w->line);
    }
}

static void grow(struct world *w)
{
    for (uint32_t i = 0; i < JOBS; i++) {
        struct fake_job *j = &w->jobs[i];
        if (!j->running) continue;
        uint32_t more = 1 + rng_below(&w->r, 300);
        uint32_t len = j->end - j->len < more ? j->end : j->len + more;
        uint32_t pages = admit_pages(len) - admit_pages(j->len);
        while (w->pages - w->used - w->idle < pages) /* the cache gives up what it must */
            assert_true(w->idle-- > 0);
        w->used += pages;
        w->promised -= pages;
        j->len = len;
        if (len < j->end && rng_below(&w->r, 30)) continue;
        w->promised -= admit_pages(j->end) - admit_pages(len);
        w->used -= admit_pages(len);
        w->idle += rng_below(&w->r, admit_pages(len) + 1); /* the cache keeps some */
        j->running = false;
        j->done = true;
        w->running--;
        admit_ended(w->line, j->tenant);
    }
}

static void come(struct world *w)
{
    while (w->came < JOBS && admit_waiting(w->line) < LINE && rng_below(&w->r, 3)) {
        struct fake_job *j = &w->jobs[w->came++];
        uint32_t most = positions_max(w) - 1;
        j->tokens = 1 + rng_below(&w->r, rng_below(&w->r, 8) ? most / 4 + 1 : most);
        j->most = 1 + rng_below(&w->r, 400);
        j->least = rng_below(&w->r, 3) ? 0 : 1 + rng_below(&w->r, j->most);
        j->tenant = rng_below(&w->r, TENANTS);
        j->priority = (int32_t)rng_below(&w->r, 3);
        admit_join(w->line, j, j->tenant, j->priority);
    }
}

static void test_everyone_is_served(void **state)
{
    (void)state;
    static struct world w;
    for (uint64_t seed = 0; seed < 100; seed++) {
        w = (struct world){0};
        rng_init(&w.r, seed, 1);
        w.pages = 2 + rng_below(&w.r, 60);
        assert_int_equal(admit_line_new(LINE, &w.line, NULL), 0);
        uint32_t turns = 0;
        for (bool all = false; !all; turns++) {
            assert_true(turns < 100000);
            come(&w);
            begin_who_can(&w);
            check_memory(&w);
            grow(&w);
            check_memory(&w);
            all = w.came == JOBS;
            for (uint32_t i = 0; i < w.came; i++)
                all = all && w.jobs[i].done;
        }
        assert_int_equal(admit_waiting(w.line), 0);
        assert_int_equal(w.promised + w.used, 0);
        admit_line_free(w.line);
    }
}

static void test_grant(void **state)
{
    (void)state;
    struct admit_memory m = {.free = 4, .idle = 3, .promised = 2};
    struct admit_request w = {.tokens = 100, .most = 200, .positions_max = 4096};
    assert_int_equal(admit_grant(&m, &w), 200);
    w.most = 300;
    assert_int_equal(admit_grant(&m, &w), 220); /* five pages */
    w.most = 3000;
    assert_int_equal(admit_grant(&m, &w), 0); /* less than an eighth */
    w.least = 220;
    assert_int_equal(admit_grant(&m, &w), 220);
    w.least = 221;
    assert_int_equal(admit_grant(&m, &w), 0);
    w.least = w.most = 500; /* all or wait */
    assert_int_equal(admit_grant(&m, &w), 0);
    w.shared = 5; /* its pages are there */
    assert_int_equal(admit_grant(&m, &w), 500);
    w = (struct admit_request){.tokens = 300, .most = 10, .positions_max = 302};
    assert_int_equal(admit_grant(&m, &w), 10); /* the context ends before */
    m.promised = 7;
    assert_int_equal(admit_grant(&m, &w), 0);
    w = (struct admit_request){.tokens = 100, .most = 20, .positions_max = 4096};
    m = (struct admit_memory){.free = 2};
    assert_int_equal(admit_grant(&m, &w), 20);
    m.free = 1;
    assert_int_equal(admit_grant(&m, &w), 0);
}

static void test_fair_grants(void **state)
{
    (void)state;
    struct admit_pressure p = {.waiting = 0, .slots = 16, .token_us = 20000.0};
    struct admit_memory m = {.free = 1000};
    struct admit_request w = {.tokens = 100, .most = 200, .positions_max = 4096};
    assert_int_equal(admit_fair(&p), 0); /* nobody waits */
    p.waiting = 5;
    assert_int_equal(admit_fair(&p), 160); /* 16 slots bring 800 tokens a second */
    w.fair = 160;
    assert_int_equal(admit_grant(&m, &w), 160);
    w.fair = 20;
    assert_int_equal(admit_grant(&m, &w), 100); /* half at least */
    w.least = 150;
    assert_int_equal(admit_grant(&m, &w), 150);
    w.least = 200; /* a client that cannot ask for the rest */
    assert_int_equal(admit_grant(&m, &w), 200);
    w = (struct admit_request){.tokens = 100, .most = 1, .fair = 1, .positions_max = 4096};
    assert_int_equal(admit_grant(&m, &w), 1);
    p.token_us = 0.0; /* not known yet */
    assert_int_equal(admit_fair(&p), 0);
    p = (struct admit_pressure){.waiting = UINT32_MAX, .slots = 1, .token_us = 1e9};
    assert_int_equal(admit_fair(&p), 1);
}

/* Jobs that continue an answer pass those of their tenant that begin one, and those of a tenant
 * with as many running; not the one that is next already. */
static void test_answers_go_on_first(void **state)
{
    (void)state;
    struct admit_line *l;
    int jobs[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    static const int order[] = {0, 4, 5, 1, 2, 3};
    assert_int_equal(admit_line_new(8, &l, NULL), 0);
    for (int i = 0; i < 4; i++)
        admit_join(l, &jobs[i], 1, 0);
    assert_ptr_equal(admit_next(l), &jobs[0]); /* it stays that */
    admit_rejoin(l, &jobs[4], 1, 0);
    admit_rejoin(l, &jobs[5], 1, 0);
    for (int i = 0; i < 6; i++) {
        assert_ptr_equal(admit_next(l), &jobs[order[i]]);
        admit_refuse(l);
    }
    admit_join(l, &jobs[6], 2, 0);
    admit_rejoin(l, &jobs[7], 3, 0);
    assert_ptr_equal(admit_next(l), &jobs[7]);
    admit_refuse(l);
    assert_ptr_equal(admit_next(l), &jobs[6]);
    admit_refuse(l);
    assert_null(admit_next(l));
    assert_int_equal(admit_waiting(l), 0);
    admit_line_free(l);
}

/* However many answers are continued, one that is begun starts after ADMIT_PASSES_MAX of them. */
static void test_beginners_do_not_starve(void **state)
{
    (void)state;
    struct admit_line *l;
    int beginner[3] = {0, 0, 0}, other = 1;
    uint32_t starts = 0, since = 0, longest = 0;
    assert_int_equal(admit_line_new(64, &l, NULL), 0);
    for (int i = 0; i < 20; i++)
        admit_rejoin(l, &other, 1, 0);
    for (int i = 0; i < 3; i++)
        admit_join(l, &beginner[i], 1, 0);
    for (int i = 0; i < 2000; i++) {
        int *next = admit_next(l);
        since++;
        admit_refuse(l);
        if (*next == 0) {
            longest = since > longest ? since : longest;
            since = 0;
            starts++;
            admit_join(l, next, 1, 0);
        } else {
            admit_rejoin(l, &other, 1, 0);
        }
    }
    assert_true(starts >= 2000 / (3 * ADMIT_PASSES_MAX));
    assert_true(longest <= 20 + 3 + 2 * ADMIT_PASSES_MAX);
    admit_line_free(l);
}

/* Tenants with endless demand: running requests stand as the priorities say. */
static void test_places_are_shared(void **state)
{
    (void)state;
    static const int32_t priorities[] = {0, 1, 3};
    struct admit_line *l;
    struct rng r;
    int jobs[3] = {0, 1, 2};
    uint32_t running[3] = {0, 0, 0}, total = 0;
    rng_init(&r, 1, 1);
    assert_int_equal(admit_line_new(300, &l, NULL), 0);
    for (uint32_t i = 0; i < 270; i++)
        admit_join(l, &jobs[i / 90], i / 90, priorities[i / 90]);
    for (uint32_t turn = 0; turn < 5000; turn++) {
        while (total < 44) {
            uint32_t t = (uint32_t) * (int *)admit_next(l);
            admit_begin(l);
            admit_join(l, &jobs[t], t, priorities[t]);
            running[t]++;
            total++;
        }
        assert_int_equal(running[0], 4);
        assert_int_equal(running[1], 8);
        assert_int_equal(running[2], 32);
        for (uint32_t k = rng_below(&r, 44); k > 0; k--) {
            uint32_t t = rng_below(&r, 3);
            if (running[t] == 0) continue;
            admit_ended(l, t);
            running[t]--;
            total--;
        }
    }
    admit_line_free(l);
}

static bool is_odd(void *arg, void *job)
{
    ++*(uint32_t *)arg;
    return *(int *)job % 2;
}

static void test_sweep(void **state)
{
    (void)state;
    struct admit_line *l;
    int jobs[40];
    uint32_t asked = 0;
    assert_int_equal(admit_line_new(40, &l, NULL), 0);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 40; i++) {
            jobs[i] = i;
            admit_join(l, &jobs[i], (uint32_t)i % 5, 0);
        }
        asked = 0;
        assert_ptr_equal(admit_next(l), &jobs[0]);
        admit_sweep(l, is_odd, &asked);
        assert_int_equal(asked, 40);
        for (int i = 0; i < 20; i++) {
            assert_int_equal(admit_waiting(l), 20 - i);
            int *next = admit_next(l);
            assert_int_equal(*next, 2 * i); /* in the order in which they came: nobody runs */
            admit_refuse(l);
        }
        assert_null(admit_next(l));
    }
    admit_line_free(l);
}

static void test_retry(void **state)
{
    (void)state;
    assert_int_equal(admit_retry_s(&(struct admit_load){0}), 1);
    assert_int_equal(admit_retry_s(&(struct admit_load){.waiting = 100, .between_ends_us = 1e5}),
                     6);
    assert_int_equal(
        admit_retry_s(&(struct admit_load){.waiting_tokens = 20000, .prefill_us = 1e3}), 11);
    assert_int_equal(admit_retry_s(&(struct admit_load){.waiting = 100000, .between_ends_us = 1e9}),
                     60);
}

/* One key leaves half of the line; who has none is bounded with all others only. */
static void test_door(void **state)
{
    static const struct {
        struct admit_state d;
        enum admit_entry want;
    } cases[] = {
        {{4, 10, 4, 0, 0, true}, ADMIT_ENTERS},       {{4, 10, 4, 8, 8, true}, ADMIT_ENTERS},
        {{4, 10, 4, 9, 9, true}, ADMIT_SHARE_TAKEN},  {{4, 10, 4, 9, 9, false}, ADMIT_ENTERS},
        {{4, 10, 4, 13, 0, true}, ADMIT_ENTERS},      {{4, 10, 4, 14, 0, true}, ADMIT_FULL},
        {{4, 10, 4, 14, 9, true}, ADMIT_SHARE_TAKEN}, {{4, 10, 4, 13, 13, false}, ADMIT_ENTERS},
        {{4, 10, 4, 14, 14, false}, ADMIT_FULL},      {{4, 0, 4, 3, 3, true}, ADMIT_ENTERS},
        {{4, 0, 4, 4, 0, true}, ADMIT_FULL},          {{0, 1, 0, 0, 0, true}, ADMIT_ENTERS},
        {{0, 1, 0, 1, 0, true}, ADMIT_FULL},          {{0, 8, 0, 4, 4, true}, ADMIT_SHARE_TAKEN},
        {{2, 10, 4, 13, 0, true}, ADMIT_ENTERS},      {{2, 10, 4, 14, 0, true}, ADMIT_FULL},
        {{2, 10, 4, 9, 7, true}, ADMIT_SHARE_TAKEN},  {{2, 10, 4, 12, 0, false}, ADMIT_FULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(admit_enter(&cases[i].d), cases[i].want);
    assert_int_equal(admit_share(64, 256), 192);
    assert_int_equal(admit_share(0, 1), 1);
}

/* One sends all that it may before memory is known to be short, for however few then; another has
 * a share all the same, and all together never more than the queues are built for. */
static void test_flood_before_shortage(void **state)
{
    enum { SLOTS = 64, QUEUE = 32 };
    (void)state;
    for (uint32_t slots = 0; slots <= SLOTS; slots++) {
        struct admit_state one = {SLOTS, QUEUE, SLOTS, 0, 0, true};
        while (admit_enter(&one) == ADMIT_ENTERS)
            one.inside = ++one.inside_own;
        one.slots = slots;
        if (slots < SLOTS) assert_int_equal(admit_enter(&one), ADMIT_SHARE_TAKEN);
        struct admit_state other = {slots, QUEUE, SLOTS, one.inside, 0, true};
        for (; admit_enter(&other) == ADMIT_ENTERS; other.inside++)
            other.inside_own++;
        assert_int_equal(other.inside_own, QUEUE / 2);
        assert_true(other.inside <= SLOTS + QUEUE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_door),
        cmocka_unit_test(test_everyone_is_served),
        cmocka_unit_test(test_grant),
        cmocka_unit_test(test_fair_grants),
        cmocka_unit_test(test_answers_go_on_first),
        cmocka_unit_test(test_beginners_do_not_starve),
        cmocka_unit_test(test_places_are_shared),
        cmocka_unit_test(test_sweep),
        cmocka_unit_test(test_retry),
        cmocka_unit_test(test_flood_before_shortage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
