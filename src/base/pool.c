/*
 * pool: see pool.h.
 *
 * A run is published by bumping `generation`; workers spin on it for a moment, then sleep. Tasks
 * are handed out by one atomic counter. The caller works too, then waits until every worker has
 * left the run, so that `fn` and `arg` may die with the caller's frame.
 */
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/os.h"

/* About 20 us of pauses: longer than the gaps between the parallel parts of one decode step. */
enum { SPIN_ROUNDS = 2000 };

struct pool_thread {
    struct pool *pool;
    pthread_t thread;
    uint32_t index;
};

struct pool {
    unsigned threads; /* with the caller */
    struct pool_thread workers[POOL_THREADS_MAX];
    unsigned started;
    bool spin;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    atomic_uint generation;
    atomic_bool quit;
    atomic_uint next, busy; /* next task to take; workers still in this run */
    uint32_t n;
    pool_fn *fn;
    void *arg;
    bool forbid; /* the caller's tasks must not allocate */
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_tasks(struct pool *p, uint32_t worker)
{
    for (;;) {
        uint32_t task = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (task >= p->n) return;
        p->fn(p->arg, task, worker);
    }
}

/* Wait for a generation other than `seen`; returns it. */
static unsigned wait_for_run(struct pool *p, unsigned seen)
{
    for (int i = 0; p->spin && i < SPIN_ROUNDS; i++) {
        unsigned now = atomic_load_explicit(&p->generation, memory_order_acquire);
        if (now != seen) return now;
        relax();
    }
    pthread_mutex_lock(&p->mutex);
    unsigned now;
    while ((now = atomic_load_explicit(&p->generation, memory_order_acquire)) == seen)
        pthread_cond_wait(&p->wake, &p->mutex);
    pthread_mutex_unlock(&p->mutex);
    return now;
}

static void *worker_main(void *arg)
{
    struct pool_thread *w = arg;
    unsigned seen = 0;
    for (;;) {
        seen = wait_for_run(w->pool, seen);
        if (atomic_load(&w->pool->quit)) return NULL;
        bool forbid = w->pool->forbid;
        if (forbid) mem_forbid_begin();
        take_tasks(w->pool, w->index);
        if (forbid) mem_forbid_end();
        atomic_fetch_sub_explicit(&w->pool->busy, 1, memory_order_release);
    }
}

int pool_new(unsigned threads, struct pool **ret_pool, struct err *e)
{
    unsigned cpus = os_cpu_count();
    if (threads == 0) threads = cpus;
    if (threads > POOL_THREADS_MAX)
        return err_set(e, ERR_LIMIT, "%u threads asked for, %d is the limit", threads,
                       POOL_THREADS_MAX);
    struct pool *p = mem_calloc(1, sizeof *p);
    if (!p) return err_set(e, ERR_NO_MEMORY, "no memory for a thread pool");
    p->threads = threads;
    p->spin =
        threads <= cpus; /* spinning with more threads than CPUs keeps the others from working */
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->wake, NULL);
    for (unsigned i = 1; i < threads; i++) {
        struct pool_thread *w = &p->workers[p->started];
        *w = (struct pool_thread){.pool = p, .index = i};
        if (pthread_create(&w->thread, NULL, worker_main, w) != 0) {
            pool_free(p);
            return err_set(e, ERR_NO_MEMORY, "thread %u of %u cannot be started", i + 1, threads);
        }
        p->started++;
    }
    *ret_pool = p;
    return 0;
}

static void publish(struct pool *p)
{
    pthread_mutex_lock(&p->mutex);
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_release);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
}

void pool_free(struct pool *p)
{
    if (!p) return;
    atomic_store(&p->quit, true);
    publish(p);
    for (unsigned i = 0; i < p->started; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->mutex);
    mem_free(p);
}

unsigned pool_threads(const struct pool *p)
{
    return p->threads;
}

void pool_run(struct pool *p, uint32_t n, pool_fn *fn, void *arg)
{
    CHECK(n <= UINT32_MAX / 2);
    if (p->started == 0 || n <= 1) {
        for (uint32_t i = 0; i < n; i++)
            fn(arg, i, 0);
        return;
    }
    p->n = n;
    p->fn = fn;
    p->arg = arg;
    p->forbid = mem_forbidden();
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->busy, p->started, memory_order_relaxed);
    publish(p);
    take_tasks(p, 0);
    for (unsigned i = 0; atomic_load_explicit(&p->busy, memory_order_acquire) != 0; i++) {
        relax();
        if (i > SPIN_ROUNDS) sched_yield();
    }
}
