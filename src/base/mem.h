/*
 * mem: allocation with two test modes, and arenas.
 *
 * All heap memory of the project comes from here, so that tests can fail the N-th allocation and
 * debug builds (PDD_GUARDS) can forbid allocation while decoding. Everything returns NULL when out
 * of memory; callers turn that into ERR_NO_MEMORY. Any thread.
 *
 * An arena allocates memory that is freed all at once, such as that of a model. One owner.
 */
#ifndef PDD_BASE_MEM_H
#define PDD_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *mem_alloc(size_t size);                /* uninitialised; size 0 gives a unique pointer */
void *mem_calloc(size_t count, size_t size); /* zeroed; overflow of count * size gives NULL */
void *mem_realloc(void *old, size_t size);   /* old stays valid on failure */
void *mem_alloc_aligned(size_t align, size_t size); /* align: power of two; freed by mem_free */
/* For tables that are read over and over: huge pages of MEM_HUGE bytes where the system has them,
 * because small ones cost TLB misses. Pages are committed at the first write. Freed by mem_free. */
enum { MEM_HUGE = 2 << 20 };
void *mem_alloc_huge(size_t size);
char *mem_strdup(const char *text);
void mem_free(void *memory); /* NULL is fine */

/* Test mode: the `countdown`-th allocation from now (1 = the next one), in any thread, fails once.
 * 0 switches it off. mem_fail_hit() says whether it failed. */
void mem_fail_at(long countdown);
int mem_fail_hit(void);

/* Debug guard: between the two calls any allocation in this thread, and in the tasks of a pool that
 * it runs, aborts (only with PDD_GUARDS). They nest. */
void mem_forbid_begin(void);
void mem_forbid_end(void);
bool mem_forbidden(void);
bool mem_guarded(void); /* built with PDD_GUARDS */

struct arena_chunk;
struct arena {
    struct arena_chunk *chunks; /* newest first */
    size_t used, max;           /* bytes allocated, and their limit */
    size_t step;                /* least bytes of a chunk */
};

void arena_init(struct arena *a, size_t max);
/* The same with chunks from mem_alloc_huge of at least `step` bytes. */
void arena_init_huge(struct arena *a, size_t max, size_t step);
void arena_release(struct arena *a);
/* `align` bytes aligned (power of two, at most 64); NULL past `max` or out of memory. */
void *arena_alloc(struct arena *a, size_t size, size_t align);

#endif
