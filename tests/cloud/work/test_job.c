/*
 * test_job: what jobs hold while they wait for the engine thread, and what they are given.
 *
 * Catches: memory that grows with the line: the log-probabilities of one answer are up to a
 * megabyte, and only those in work may have it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cloud/work/worker.h"
#include "engine/fake.h"

enum { JOBS = 4, TOKENS = 3, TOP = 2, WAIT_US = 60000000 };

static void wake(void *arg)
{
    (void)arg;
}

static struct backend *start(void)
{
    struct fake_options options = {.answer_tokens = 60, .step_tokens_max = 64, .step_us = 5000};
    struct worker_config config = {.streams_max = 1, .queue_max = JOBS, .wake = wake};
    struct engine *engine;
    struct backend *b;
    assert_int_equal(fake_open(&options, &engine, NULL), 0);
    assert_int_equal(worker_new(engine, &config, &b, NULL), 0);
    return b;
}

/* The worker's `fail_at`-th allocation for it fails; 0: none. */
static struct job *submit(struct backend *b, long fail_at)
{
    static const int32_t prompt[] = {'a', 256, 10};
    struct job *j;
    assert_int_equal(job_new(prompt, 3, NULL, 0, &j, NULL), 0);
    atomic_store(&j->tokens_max, TOKENS);
    j->tokens_least = TOKENS;
    job_want_logprobs(j, TOP);
    mem_fail_at(fail_at);
    assert_int_equal(backend_submit(b, j, NULL), 0);
    return j;
}

/* The next event of that kind. */
static struct job_event next(struct backend *b, enum job_event_kind kind)
{
    uint64_t until = clock_us() + WAIT_US;
    for (;;) {
        struct job_event ev;
        assert_true(clock_us() < until);
        if (!backend_take_event(b, &ev))
            clock_sleep_us(200);
        else if (ev.kind == kind)
            return ev;
    }
}

static void test_logprobs_come_with_the_slot(void **state)
{
    (void)state;
    struct backend *b = start();
    struct job *jobs[JOBS];
    for (int i = 0; i < JOBS; i++)
        jobs[i] = submit(b, 0);
    for (int i = 0; i < JOBS; i++) {
        assert_ptr_equal(next(b, JOB_ADMITTED).job, jobs[i]);
        assert_non_null(jobs[i]->logprobs);
        assert_int_equal(jobs[i]->n_logprobs, TOKENS);
        if (i == 0) /* it takes 15 ms, the others wait */
            for (int k = 1; k < JOBS; k++)
                assert_null(jobs[k]->logprobs);
        struct job_event done = next(b, JOB_DONE);
        assert_ptr_equal(done.job, jobs[i]);
        assert_null(done.failure);
        assert_int_equal(done.produced, TOKENS);
        assert_non_null(job_logprobs_of(jobs[i], TOKENS - 1));
        assert_null(job_logprobs_of(jobs[i], TOKENS));
        assert_true(job_logprobs_of(jobs[i], 0)->id >= 0);
    }
    backend_free(b);
    for (int i = 0; i < JOBS; i++)
        job_free(jobs[i]);
}

/* No memory for them is that request's misfortune only: it ends with an error that says so, its
 * place and its pages are free again. */
static void test_no_memory_for_logprobs(void **state)
{
    (void)state;
    struct backend *b = start();
    struct backend_stats stats;
    bool refused = false;
    for (long at = 1; !refused; at++) {
        assert_true(at < 50);
        struct job *j = submit(b, at), *after;
        struct job_event done = next(b, JOB_DONE);
        refused = done.failure && done.failure->e.code == ERR_NO_MEMORY &&
                  strstr(done.failure->e.text, "log-probabilities");
        job_free(j);
        after = submit(b, 0);
        done = next(b, JOB_DONE);
        assert_ptr_equal(done.job, after);
        assert_null(done.failure);
        job_free(after);
    }
    uint64_t until = clock_us() + WAIT_US;
    do {
        assert_true(clock_us() < until);
        backend_stats_of(b, &stats);
    } while (stats.running || stats.kv_pages_free != b->info->kv_pages_total);
    backend_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logprobs_come_with_the_slot),
        cmocka_unit_test(test_no_memory_for_logprobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
