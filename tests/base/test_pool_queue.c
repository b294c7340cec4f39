/*
 * test_pool_queue: what threads share. Catches: a task run twice or never, a run that returns too
 * early, a lost item or wake-up, a full queue that waits (with the thread sanitizer: races), a
 * guard against allocation that does not reach the threads of a pool.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/pool.h"
#include "base/queue.h"

enum { TASKS = 1000, ROUNDS = 300, ITEMS = 20000 };

struct tally {
    atomic_uint done[TASKS];
    uint32_t plain[TASKS]; /* written by one task each: a race would show */
    unsigned threads;
};

static void count_task(void *arg, uint32_t task, uint32_t worker)
{
    struct tally *t = arg;
    if (worker >= t->threads) return;
    atomic_fetch_add(&t->done[task], 1);
    t->plain[task] = task;
}

static void test_each_task_once(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 5; threads += 2) {
        static struct tally t;
        struct pool *p;
        memset(&t, 0, sizeof t);
        t.threads = threads;
        assert_int_equal(pool_new(threads, &p, NULL), 0);
        assert_int_equal(pool_threads(p), threads);
        uint32_t expected[TASKS] = {0};
        for (uint32_t round = 0; round < ROUNDS; round++) {
            uint32_t n = round * 7 % TASKS;
            pool_run(p, n, count_task, &t);
            for (uint32_t i = 0; i < n; i++)
                assert_int_equal(t.done[i], ++expected[i]);
        }
        pool_free(p);
    }
}

static void test_pool_limits(void **state)
{
    (void)state;
    struct pool *p;
    struct err e = ERR_INIT;
    assert_int_equal(pool_new(POOL_THREADS_MAX + 1, &p, &e), ERR_LIMIT);
    assert_true(e.text[0]);
    pool_free(NULL);
}

static atomic_bool allocated;

/* Only the last thread allocates; the others wait for it. */
static void allocate_task(void *arg, uint32_t task, uint32_t worker)
{
    (void)task;
    if (worker + 1 == *(unsigned *)arg) {
        mem_free(mem_alloc(1));
        atomic_store(&allocated, true);
    }
    while (!atomic_load(&allocated))
        usleep(100);
}

/* How a process ends whose pool allocates: 0, or the signal that killed it. */
static int end_of_allocating(unsigned threads, bool forbid)
{
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct pool *p;
        if (!freopen("/dev/null", "w", stderr) || pool_new(threads, &p, NULL) != 0) _exit(1);
        alarm(60);
        if (forbid) mem_forbid_begin();
        pool_run(p, 100, allocate_task, &threads);
        if (forbid) mem_forbid_end();
        pool_free(p);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void test_guard_reaches_every_thread(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 3; threads++) {
        assert_int_equal(end_of_allocating(threads, false), 0);
        assert_int_equal(end_of_allocating(threads, true), mem_guarded() ? SIGABRT : 0);
    }
}

static void *produce(void *arg)
{
    struct queue *q = arg;
    for (uintptr_t i = 1; i <= ITEMS;)
        i += queue_push(q, &i) == 0;
    queue_close(q);
    return NULL;
}

static void count_wake(void *arg)
{
    atomic_fetch_add((atomic_uint *)arg, 1);
}

static void test_queue_keeps_order(void **state)
{
    (void)state;
    struct queue *q;
    pthread_t thread;
    static atomic_uint wakes;
    assert_int_equal(queue_new(16, sizeof(uintptr_t), count_wake, &wakes, &q, NULL), 0);
    pthread_create(&thread, NULL, produce, q);
    uintptr_t expected = 1;
    for (uintptr_t item; queue_pop(q, &item, UINT64_MAX); expected++)
        assert_int_equal(item, expected);
    assert_int_equal(expected, ITEMS + 1);
    assert_true(atomic_load(&wakes) > 0);
    pthread_join(thread, NULL);
    queue_free(q);
}

static void test_full_and_closed_are_answers(void **state)
{
    (void)state;
    struct queue *q;
    int item = 0;
    assert_int_equal(queue_new(2, sizeof item, NULL, NULL, &q, NULL), 0);
    assert_false(queue_try_pop(q, &item));
    assert_false(queue_pop(q, &item, 1000));
    assert_int_equal(queue_push(q, &(int){1}), 0);
    assert_int_equal(queue_push(q, &(int){2}), 0);
    assert_int_equal(queue_push(q, &(int){3}), ERR_BUSY);
    queue_close(q);
    assert_int_equal(queue_push(q, &(int){3}), ERR_CANCELLED);
    assert_true(queue_pop(q, &item, UINT64_MAX) && item == 1);
    assert_true(queue_pop(q, &item, UINT64_MAX) && item == 2);
    assert_false(queue_pop(q, &item, UINT64_MAX));
    queue_free(q);
}

static void *produce_waiting(void *arg)
{
    uintptr_t pushed = 0;
    for (uintptr_t i = 1; queue_push_wait(arg, &i) == 0; i++)
        pushed = i;
    return (void *)pushed;
}

/* A producer that waits loses nothing, goes on as soon as there is room, and ends with a close. */
static void test_producer_waits(void **state)
{
    (void)state;
    struct queue *q;
    pthread_t thread;
    void *pushed;
    uintptr_t item, taken = 0;
    assert_int_equal(queue_new(3, sizeof item, NULL, NULL, &q, NULL), 0);
    pthread_create(&thread, NULL, produce_waiting, q);
    for (; taken < ITEMS; taken++) {
        assert_true(queue_pop(q, &item, UINT64_MAX));
        assert_int_equal(item, taken + 1);
    }
    queue_close(q);
    pthread_join(thread, &pushed);
    for (; queue_try_pop(q, &item); taken++)
        assert_int_equal(item, taken + 1);
    assert_int_equal((uintptr_t)pushed, taken);
    queue_free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_task_once),
        cmocka_unit_test(test_pool_limits),
        cmocka_unit_test(test_guard_reaches_every_thread),
        cmocka_unit_test(test_queue_keeps_order),
        cmocka_unit_test(test_full_and_closed_are_answers),
        cmocka_unit_test(test_producer_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
