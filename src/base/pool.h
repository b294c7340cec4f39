/*
 * pool: a thread pool for parallel loops.
 *
 * pool_run splits [0, n) into tasks that the caller and the pool's threads take from a shared
 * counter; it returns when all are done. Results must not depend on which thread runs a task.
 * Threads: one owner, one pool_run at a time. A pool of 1 thread runs tasks in the caller.
 */
#ifndef PDD_BASE_POOL_H
#define PDD_BASE_POOL_H

#include <stdint.h>

#include "base/err.h"

enum { POOL_THREADS_MAX = 256 };

struct pool;

/* task: 0..n-1; worker: 0..threads-1, for per-thread scratch memory. */
typedef void pool_fn(void *arg, uint32_t task, uint32_t worker);

int pool_new(unsigned threads, struct pool **ret_pool, struct err *e); /* 0: os_cpu_count() */
void pool_free(struct pool *p);
unsigned pool_threads(const struct pool *p);
void pool_run(struct pool *p, uint32_t n, pool_fn *fn, void *arg);

#endif
