/* mem: see mem.h. The only file that calls malloc and free. */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/check.h"

/* Test state; process-wide on purpose, since "the N-th allocation" counts all threads. */
static atomic_long fail_countdown;
static atomic_int fail_hit;
static _Thread_local int forbidden;

#ifdef PDD_GUARDS
enum { GUARDED = 1 };
#else
enum { GUARDED = 0 };
#endif

/* Whether this allocation must fail; also checks the guard. */
static int refuse(void)
{
    CHECK(!GUARDED || !forbidden);
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) <= 0) return 0;
    if (atomic_fetch_sub(&fail_countdown, 1) != 1) return 0;
    atomic_store(&fail_hit, 1);
    return 1;
}

void *mem_alloc(size_t size)
{
    return refuse() ? NULL : malloc(size ? size : 1);
}

void *mem_calloc(size_t count, size_t size)
{
    return refuse() ? NULL : calloc(count ? count : 1, size ? size : 1);
}

void *mem_realloc(void *old, size_t size)
{
    return refuse() ? NULL : realloc(old, size ? size : 1);
}

void *mem_alloc_aligned(size_t align, size_t size)
{
    void *memory = NULL;
    if (refuse() || posix_memalign(&memory, align < sizeof(void *) ? sizeof(void *) : align,
                                   size ? size : 1) != 0)
        return NULL;
    return memory;
}

void *mem_alloc_huge(size_t size)
{
    if (size > SIZE_MAX - MEM_HUGE) return NULL;
    size_t whole = (size + MEM_HUGE - 1) / MEM_HUGE * MEM_HUGE;
    void *memory = mem_alloc_aligned(MEM_HUGE, whole);
    /* Advice: where it is refused the memory is as good, only slower. */
    if (memory) (void)madvise(memory, whole, MADV_HUGEPAGE);
    return memory;
}

char *mem_strdup(const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = mem_alloc(n);
    return copy ? memcpy(copy, text, n) : NULL;
}

void mem_free(void *memory)
{
    free(memory);
}

void mem_fail_at(long countdown)
{
    atomic_store(&fail_hit, 0);
    atomic_store(&fail_countdown, countdown);
}

int mem_fail_hit(void)
{
    return atomic_load(&fail_hit);
}

void mem_forbid_begin(void)
{
    forbidden++;
}

void mem_forbid_end(void)
{
    forbidden--;
}

bool mem_forbidden(void)
{
    return forbidden > 0;
}

bool mem_guarded(void)
{
    return GUARDED;
}

/* Arena: chunks of at least 64 KiB, newest first; the payload begins 64-byte aligned. */
struct arena_chunk {
    struct arena_chunk *older;
    size_t size, used;
    unsigned char *payload;
};

enum { ARENA_CHUNK_MIN = 65536, ARENA_ALIGN_MAX = 64 };

void arena_init(struct arena *a, size_t max)
{
    *a = (struct arena){.max = max, .step = ARENA_CHUNK_MIN};
}

void arena_init_huge(struct arena *a, size_t max, size_t step)
{
    *a = (struct arena){.max = max, .step = step < MEM_HUGE ? MEM_HUGE : step};
}

void arena_release(struct arena *a)
{
    while (a->chunks) {
        struct arena_chunk *older = a->chunks->older;
        mem_free(a->chunks->payload);
        mem_free(a->chunks);
        a->chunks = older;
    }
    a->used = 0;
}

static struct arena_chunk *chunk_new(struct arena *a, size_t size)
{
    struct arena_chunk *chunk = mem_alloc(sizeof *chunk);
    if (!chunk) return NULL;
    size_t room = size > a->step ? size : a->step;
    *chunk = (struct arena_chunk){a->chunks, room, 0,
                                  a->step >= MEM_HUGE ? mem_alloc_huge(room)
                                                      : mem_alloc_aligned(ARENA_ALIGN_MAX, room)};
    if (!chunk->payload) {
        mem_free(chunk);
        return NULL;
    }
    a->chunks = chunk;
    return chunk;
}

void *arena_alloc(struct arena *a, size_t size, size_t align)
{
    CHECK(align && align <= ARENA_ALIGN_MAX && (align & (align - 1)) == 0);
    if (size > a->max - a->used) return NULL;
    struct arena_chunk *chunk = a->chunks;
    size_t at = chunk ? (chunk->used + align - 1) & ~(align - 1) : 0;
    if (!chunk || at > chunk->size || size > chunk->size - at) {
        chunk = chunk_new(a, size);
        if (!chunk) return NULL;
        at = 0;
    }
    chunk->used = at + size;
    a->used += size;
    return chunk->payload + at;
}
