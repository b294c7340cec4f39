/*
 * test_local: several histories on one engine thread. Whatever shares steps with a history, waits
 * for memory or is cancelled, its tokens are those of an engine that does nothing else.
 *
 * Catches: a seat that gets another one's token; KV of a page that was evicted or of another
 * history; a wait for memory that never ends; a seat behind that works while others do; a cached
 * beginning that is computed again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "device/local.h"
#include "engine/fake.h"

enum { SEATS = 6, PROMPT = 300, SHARED = 140, ANSWER = 40, LATE_US = 20000000, CONTEXT = 1024 };

static const struct sampling greedy = SAMPLING_GREEDY;

static struct engine *open_engine(uint32_t pages, double step_us)
{
    struct engine *e;
    struct fake_options o = {.answer_tokens = 1 << 20,
                             .context_max = CONTEXT,
                             .kv_pages = pages,
                             .step_tokens_max = 96,
                             .step_us = step_us};
    assert_int_equal(fake_open(&o, &e, NULL), 0);
    return e;
}

static void wake(void *arg)
{
    (void)arg;
}

static void make_prompt(uint32_t which, int32_t *tokens)
{
    struct rng r;
    for (uint32_t i = 0; i < PROMPT; i++) {
        rng_init(&r, i < SHARED ? 7 : 100 + which, i);
        tokens[i] = (int32_t)('a' + rng_below(&r, 26));
    }
}

/* What an engine of its own says. */
static void alone(const int32_t *prompt, int32_t *ret_answer)
{
    struct engine *e = open_engine(64, 0.0);
    struct session *s;
    assert_int_equal(engine_session_open(e, &s, NULL), 0);
    for (uint32_t at = 0; at < PROMPT + ANSWER - 1;) {
        uint32_t n = at < PROMPT ? (PROMPT - at > 60 ? 60 : PROMPT - at) : 1;
        struct engine_span span = {.session = s,
                                   .tokens = at < PROMPT ? prompt + at : ret_answer + (at - PROMPT),
                                   .n = n,
                                   .sample = true};
        assert_int_equal(engine_step(e, &span, 1, NULL), 0);
        at += n;
        if (at >= PROMPT) ret_answer[at - PROMPT] = span.next;
    }
    engine_session_close(s);
    engine_free(e);
}

struct runner {
    struct local_seat *seat;
    int32_t prompt[PROMPT], want[ANSWER], got[ANSWER];
    uint32_t n, cached;
};

static void begin(struct runner *r, struct local *w, uint32_t which, bool behind)
{
    make_prompt(which, r->prompt);
    alone(r->prompt, r->want);
    r->n = 0;
    if (!r->seat) assert_int_equal(local_seat_open(w, behind, &r->seat, NULL), 0);
    r->cached = local_begin(r->seat, r->prompt, PROMPT, NULL);
    if (r->cached == PROMPT) r->cached--;
    assert_int_equal(
        local_feed(r->seat, r->cached, r->prompt + r->cached, PROMPT - r->cached, 0, &greedy, NULL),
        0);
}

/* Take what has come, and feed on. */
static void go_on(struct runner *r)
{
    struct local_event ev;
    while (r->n < ANSWER && local_take(r->seat, &ev)) {
        if (ev.kind == LOCAL_PROGRESS) continue;
        if (ev.kind != LOCAL_TOKEN) fail_msg("event %d: %s", (int)ev.kind, ev.why.text);
        assert_int_equal(ev.kv, PROMPT + r->n);
        r->got[r->n++] = ev.id;
        if (r->n == ANSWER) break;
        assert_int_equal(local_feed(r->seat, PROMPT + r->n - 1, &ev.id, 1, 0, &greedy, NULL), 0);
    }
}

static void finish(struct runner *r, uint32_t n)
{
    uint64_t until = clock_us() + LATE_US;
    for (uint32_t done = 0; done < n && clock_us() < until; clock_sleep_us(50)) {
        done = 0;
        for (uint32_t i = 0; i < n; i++) {
            go_on(&r[i]);
            done += r[i].n == ANSWER;
            if (r[i].n == ANSWER) local_cancel(r[i].seat);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(r[i].n, ANSWER);
        assert_memory_equal(r[i].got, r[i].want, sizeof r[i].want);
    }
}

static void together(uint32_t pages, struct local_stats *ret_stats)
{
    struct runner r[SEATS];
    struct local *w;
    memset(r, 0, sizeof r);
    assert_int_equal(local_new(open_engine(pages, 50.0), wake, NULL, &w, NULL), 0);
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < SEATS; i++)
            begin(&r[i], w, i + 2 * (uint32_t)round, false);
        finish(r, SEATS);
    }
    local_stats_of(w, ret_stats);
    for (uint32_t i = 0; i < SEATS; i++)
        local_seat_close(r[i].seat);
    local_free(w);
}

static void test_steps_are_shared(void **state)
{
    struct local_stats s;
    (void)state;
    together(200, &s);
    assert_int_equal(s.preempted, 0);
    assert_true(s.spans > s.steps);      /* more than one history in a step */
    assert_true(s.cached_tokens > 3000); /* beginnings, and whole histories asked again */
}

/* Six pages each, and fourteen in all: two histories fit, and grow. */
static void test_short_memory(void **state)
{
    struct local_stats s;
    (void)state;
    together(14, &s);
    assert_true(s.kv_pages_total == 14);
    together(7, &s); /* one */
}

static void test_behind_waits(void **state)
{
    struct runner r[2];
    struct local *w;
    (void)state;
    memset(r, 0, sizeof r);
    assert_int_equal(local_new(open_engine(64, 300.0), wake, NULL, &w, NULL), 0);
    begin(&r[0], w, 1, false);
    begin(&r[1], w, 2, true);
    while (r[0].n < ANSWER) { /* between two feeds of the first the second may have a step */
        go_on(&r[0]);
        go_on(&r[1]);
    }
    assert_true(r[1].n < ANSWER / 2);
    finish(r, 2);
    for (int i = 0; i < 2; i++)
        local_seat_close(r[i].seat);
    local_free(w);
}

/* A cancelled feed says no more, and what it computed is found again. */
static void test_cancel(void **state)
{
    struct runner r = {0};
    struct local *w;
    struct local_event ev;
    (void)state;
    assert_int_equal(local_new(open_engine(64, 2000.0), wake, NULL, &w, NULL), 0);
    begin(&r, w, 1, false);
    uint64_t until = clock_us() + LATE_US;
    while (!local_take(r.seat, &ev) && clock_us() < until)
        clock_sleep_us(100);
    assert_int_equal(ev.kind, LOCAL_PROGRESS);
    local_cancel(r.seat);
    clock_sleep_us(10000);
    assert_false(local_take(r.seat, &ev));
    begin(&r, w, 1, false);
    assert_true(r.cached >= ev.kv / ENGINE_PAGE * ENGINE_PAGE);
    finish(&r, 1);
    local_seat_close(r.seat);
    local_free(w);
}

/* A feed that draws after the answer's tokens, while others share its steps: the draws come once
 * and in order, a second time too, when all is cached, and after memory ran short. */
static void draw_all(struct local *w, struct runner *r, uint32_t n_others)
{
    int32_t all[PROMPT + ANSWER], got[ANSWER];
    uint32_t n = 0;
    struct local_event ev = {.kind = LOCAL_PROGRESS};
    memcpy(all, r->prompt, sizeof r->prompt);
    memcpy(all + PROMPT, r->want, sizeof r->want);
    if (!r->seat) assert_int_equal(local_seat_open(w, false, &r->seat, NULL), 0);
    uint32_t cached = local_begin(r->seat, all, PROMPT, NULL);
    cached = cached < PROMPT ? cached : PROMPT - 1;
    assert_int_equal(local_feed(r->seat, cached, all + cached, PROMPT + ANSWER - 1 - cached, ANSWER,
                                &greedy, NULL),
                     0);
    for (uint64_t until = clock_us() + LATE_US; ev.kind != LOCAL_TOKEN && clock_us() < until;) {
        for (uint32_t i = 1; i <= n_others; i++) {
            go_on(&r[i]);
            if (r[i].n == ANSWER) local_cancel(r[i].seat);
        }
        if (!local_take(r->seat, &ev)) continue;
        assert_int_equal(ev.draw_at, PROMPT + n);
        assert_true(n + ev.n_draws < ANSWER);
        memcpy(got + n, ev.draws, ev.n_draws * sizeof *got);
        n += ev.n_draws;
    }
    assert_int_equal(n, ANSWER - 1);
    got[n] = ev.id;
    assert_memory_equal(got, r->want, sizeof r->want);
    local_cancel(r->seat);
}

static void test_draws(void **state)
{
    (void)state;
    static const uint32_t pages[] = {64, 14};
    for (int k = 0; k < 2; k++) {
        struct runner r[4];
        struct local *w;
        memset(r, 0, sizeof r);
        assert_int_equal(local_new(open_engine(pages[k], 100.0), wake, NULL, &w, NULL), 0);
        make_prompt(0, r[0].prompt);
        alone(r[0].prompt, r[0].want);
        for (uint32_t i = 1; i < 4; i++)
            begin(&r[i], w, i, false);
        draw_all(w, r, 3);
        finish(r + 1, 3);
        draw_all(w, r, 0);
        for (uint32_t i = 0; i < 4; i++)
            local_seat_close(r[i].seat);
        local_free(w);
    }
}

static void test_full(void **state)
{
    struct local *w;
    struct local_seat *s;
    struct local_event ev = {.kind = LOCAL_PROGRESS};
    int32_t tokens[CONTEXT + 2];
    (void)state;
    for (uint32_t i = 0; i < CONTEXT + 2; i++)
        tokens[i] = 'x';
    assert_int_equal(local_new(open_engine(8, 0.0), wake, NULL, &w, NULL), 0);
    assert_int_equal(local_seat_open(w, false, &s, NULL), 0);
    local_begin(s, tokens, 600, NULL); /* eight pages hold 512 */
    assert_int_equal(local_feed(s, 0, tokens, 600, 0, &greedy, NULL), 0);
    uint64_t until = clock_us() + LATE_US;
    while (!local_take(s, &ev) && clock_us() < until)
        clock_sleep_us(100);
    assert_int_equal(ev.kind, LOCAL_FULL);
    assert_int_equal(local_feed(s, 0, tokens, CONTEXT + 2, 0, &greedy, NULL), ERR_LIMIT);
    local_seat_close(s);
    local_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_are_shared),
        cmocka_unit_test(test_short_memory),
        cmocka_unit_test(test_behind_waits),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_draws),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
