/* blocks: see blocks.h. */
#include "sim/blocks.h"

#include <string.h>

#include "base/check.h"
#include "base/mem.h"

#define NONE UINT32_MAX

struct block {
    uint64_t key;
    uint32_t holders;
    uint32_t newer, older; /* among the idle ones; `older` links those unused */
    uint32_t next;         /* in the bucket */
};

struct blocks {
    uint32_t most, idle_max, n_idle, n, used, unused;
    uint32_t newest, oldest, n_buckets;
    uint32_t *buckets; /* [n_buckets], a power of two */
    struct block blocks[];
};

int blocks_new(uint32_t most, uint32_t idle_max, struct blocks **ret_blocks, struct err *e)
{
    struct blocks *b = mem_calloc(1, sizeof *b + most * sizeof b->blocks[0]);
    uint32_t n = 1;
    while (n < most && n < 1u << 31)
        n *= 2;
    uint32_t *buckets = mem_alloc(n * sizeof *buckets);
    if (!b || !buckets) {
        mem_free(b);
        mem_free(buckets);
        return err_set(e, ERR_NO_MEMORY, "no memory for a prefix cache of %u blocks", most);
    }
    memset(buckets, 0xFF, n * sizeof *buckets);
    b->most = most;
    b->idle_max = idle_max;
    b->unused = b->newest = b->oldest = NONE;
    b->n_buckets = n;
    b->buckets = buckets;
    *ret_blocks = b;
    return 0;
}

void blocks_free(struct blocks *b)
{
    if (b) mem_free(b->buckets);
    mem_free(b);
}

static uint32_t *bucket_of(struct blocks *b, uint64_t key)
{
    uint64_t h = (key ^ key >> 32) * 0xD6E8FEB86659FD93u;
    return &b->buckets[(h ^ h >> 32) & (b->n_buckets - 1)];
}

static uint32_t look_up(struct blocks *b, uint64_t key)
{
    uint32_t at = *bucket_of(b, key);
    while (at != NONE && b->blocks[at].key != key)
        at = b->blocks[at].next;
    return at;
}

static void idle_remove(struct blocks *b, uint32_t at)
{
    struct block *k = &b->blocks[at];
    *(k->newer == NONE ? &b->newest : &b->blocks[k->newer].older) = k->older;
    *(k->older == NONE ? &b->oldest : &b->blocks[k->older].newer) = k->newer;
    b->n_idle--;
}

static void idle_push(struct blocks *b, uint32_t at)
{
    struct block *k = &b->blocks[at];
    k->newer = NONE;
    k->older = b->newest;
    *(b->newest == NONE ? &b->oldest : &b->blocks[b->newest].newer) = at;
    b->newest = at;
    b->n_idle++;
}

bool blocks_find(struct blocks *b, uint64_t key)
{
    uint32_t at = look_up(b, key);
    if (at == NONE) return false;
    if (b->blocks[at].holders++ == 0) idle_remove(b, at);
    return true;
}

bool blocks_add(struct blocks *b, uint64_t key)
{
    if (b->idle_max == 0) return false;
    if (blocks_find(b, key)) return true;
    uint32_t at = b->unused;
    if (at != NONE)
        b->unused = b->blocks[at].older;
    else if (b->used < b->most)
        at = b->used++;
    else
        return false;
    uint32_t *bucket = bucket_of(b, key);
    b->blocks[at] = (struct block){.key = key, .holders = 1, .next = *bucket};
    *bucket = at;
    b->n++;
    return true;
}

bool blocks_evict(struct blocks *b)
{
    uint32_t at = b->oldest;
    if (at == NONE) return false;
    idle_remove(b, at);
    uint32_t *link = bucket_of(b, b->blocks[at].key);
    while (*link != at)
        link = &b->blocks[*link].next;
    *link = b->blocks[at].next;
    b->blocks[at].older = b->unused;
    b->unused = at;
    b->n--;
    return true;
}

void blocks_release(struct blocks *b, uint64_t key)
{
    uint32_t at = look_up(b, key);
    CHECK(at != NONE && b->blocks[at].holders > 0);
    if (--b->blocks[at].holders == 0) idle_push(b, at);
    while (b->n_idle > b->idle_max)
        blocks_evict(b);
}

uint32_t blocks_idle(const struct blocks *b)
{
    return b->n_idle;
}

uint32_t blocks_known(const struct blocks *b)
{
    return b->n;
}
