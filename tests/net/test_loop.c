/* The loop: timers in order and never early, wake-ups from other threads, signals. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/queue.h"
#include "net/loop.h"

enum { TIMERS = 50, STEP_US = 300, TRIES = 200, PRODUCERS = 4, ITEMS = 20000 };

struct firing {
    struct loop *loop;
    struct loop_timer *timer;
    uint64_t when, *last;
    bool *disorder;
    unsigned *count;
    unsigned stop_at;
};

static void fired(void *arg)
{
    struct firing *f = arg;
    assert_true(clock_us() >= f->when);
    if (f->when < *f->last) *f->disorder = true;
    *f->last = f->when;
    loop_timer_free(f->timer); /* its own: allowed */
    if (++*f->count == f->stop_at) loop_stop(f->loop);
}

/* All timers once; whether they came in order. */
static bool run_timers(void)
{
    struct loop *l;
    struct firing f[TIMERS];
    uint64_t last = 0, now;
    unsigned count = 0;
    bool disorder = false;
    assert_int_equal(loop_new(&l, NULL), 0);
    now = clock_us();
    for (unsigned i = 0; i < TIMERS; i++) {
        uint64_t when = now + i * 7919 % TIMERS * STEP_US;
        f[i] = (struct firing){l, NULL, when, &last, &disorder, &count, TIMERS};
        assert_int_equal(loop_timer_new(l, fired, &f[i], &f[i].timer, NULL), 0);
        loop_timer_set(f[i].timer, now + 1000000000);
        loop_timer_set(f[i].timer, f[i].when); /* replaces */
    }
    assert_int_equal(loop_run(l, NULL), 0);
    assert_int_equal(count, TIMERS);
    loop_free(l);
    return !disorder;
}

/* Catches: timers early, out of order, or not freeable in their own callback. A thread that loses
 * its CPU while it sets a timer sets it late, and owes no order then: hence several tries. */
static void timers(void **state)
{
    unsigned tries = 0;
    (void)state;
    while (!run_timers())
        assert_true(++tries < TRIES);
}

static void must_not_fire(void *arg)
{
    bool cleared_timer_fired = true;
    (void)arg;
    CHECK(!cleared_timer_fired);
}

static void stop(void *arg)
{
    loop_stop(arg);
}

/* Catches: a cleared timer that fires all the same. */
static void cleared(void **state)
{
    struct loop *l;
    struct loop_timer *a, *b;
    (void)state;
    assert_int_equal(loop_new(&l, NULL), 0);
    assert_int_equal(loop_timer_new(l, must_not_fire, NULL, &a, NULL), 0);
    assert_int_equal(loop_timer_new(l, stop, l, &b, NULL), 0);
    loop_timer_set(a, clock_us());
    loop_timer_clear(a);
    loop_timer_set(b, clock_us() + 5000);
    assert_int_equal(loop_run(l, NULL), 0);
    loop_timer_free(a);
    loop_timer_free(b);
    loop_free(l);
}

struct traffic {
    struct loop *loop;
    struct loop_wake *wake;
    struct queue *queue;
    uintptr_t sum;
    unsigned count;
};

static void take_all(void *arg)
{
    struct traffic *t = arg;
    for (uintptr_t item; queue_try_pop(t->queue, &item);) {
        t->sum += item;
        t->count++;
    }
    if (t->count == PRODUCERS * ITEMS) loop_stop(t->loop);
}

static void *produce(void *arg)
{
    struct traffic *t = arg;
    for (uintptr_t i = 1; i <= ITEMS; i++)
        while (queue_push(t->queue, &i) == ERR_BUSY)
            clock_sleep_us(10);
    return NULL;
}

/* Catches: wake-ups that get lost between threads (the loop would hang), and races (under TSan). */
static void wakes(void **state)
{
    struct traffic t = {.sum = 0};
    pthread_t threads[PRODUCERS];
    (void)state;
    assert_int_equal(loop_new(&t.loop, NULL), 0);
    assert_int_equal(loop_wake_new(t.loop, take_all, &t, &t.wake, NULL), 0);
    assert_int_equal(queue_new(64, sizeof(uintptr_t), loop_wake_signal, t.wake, &t.queue, NULL), 0);
    for (int i = 0; i < PRODUCERS; i++)
        CHECK(pthread_create(&threads[i], NULL, produce, &t) == 0);
    assert_int_equal(loop_run(t.loop, NULL), 0);
    for (int i = 0; i < PRODUCERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(t.sum, (uintptr_t)PRODUCERS * ITEMS * (ITEMS + 1) / 2);
    queue_free(t.queue);
    loop_wake_free(t.wake);
    loop_free(t.loop);
}

/* Catches: a signal that kills instead of calling, and SIGPIPE. */
static void signals(void **state)
{
    struct loop *l;
    struct loop_signal *s;
    (void)state;
    assert_int_equal(loop_new(&l, NULL), 0);
    assert_int_equal(loop_signal_new(l, SIGTERM, stop, l, &s, NULL), 0);
    raise(SIGPIPE);
    raise(SIGTERM);
    assert_int_equal(loop_run(l, NULL), 0);
    loop_signal_free(s);
    loop_free(l);
}

/* Catches: a process that libevent ends, with a sentence of its own, when descriptors are short. */
static void few_descriptors(void **state)
{
    struct rlimit before, low;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int next = dup(0);
    assert_true(next >= 0);
    close(next);
    bool opened = false;
    for (int left = 0; left < 8 && !opened; left++) {
        struct loop *l = NULL;
        struct loop_wake *w = NULL;
        struct err e = ERR_INIT;
        low = before;
        low.rlim_cur = (rlim_t)(next + left);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
        int code = loop_new(&l, &e);
        if (code == 0) code = loop_wake_new(l, NULL, NULL, &w, &e);
        opened = code == 0;
        loop_wake_free(w);
        loop_free(l);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        if (opened) break;
        assert_int_equal(code, ERR_IO);
        assert_non_null(strstr(e.text, "(ulimit -n)"));
    }
    assert_true(opened);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_descriptors), cmocka_unit_test(timers),  cmocka_unit_test(cleared),
        cmocka_unit_test(wakes),           cmocka_unit_test(signals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
