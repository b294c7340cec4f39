/*
 * kv: see kv.h.
 */
#include "model/kv.h"

#include <stdbool.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

struct kv_pool {
    struct kv_shape shape;
    size_t page_bytes;
    uint32_t total, n_free;
    uint32_t *free;  /* [total] stack of free pages */
    uint32_t *users; /* [total] sequences and others that hold the page */
    uint8_t *memory; /* [total][page_bytes]; the system hands it out page by page when written */
};

static size_t tile_bytes(const struct kv_shape *shape)
{
    return kern_tile_bytes(shape->kv, shape->head_dim);
}

size_t kv_page_bytes(const struct kv_shape *shape)
{
    return (size_t)shape->layers * shape->kv_heads * tile_bytes(shape) * 2;
}

int kv_pool_open(const struct kv_shape *shape, uint32_t pages, struct kv_pool **ret_pool,
                 struct err *e)
{
    size_t page_bytes = kv_page_bytes(shape);
    if (pages == 0 || pages > KV_PAGES_MAX || page_bytes > SIZE_MAX / 2 / pages)
        return err_set(e, ERR_LIMIT, "%u KV pages of %zu bytes cannot be reserved", pages,
                       page_bytes);
    struct kv_pool *p = mem_calloc(1, sizeof *p);
    if (!p) goto no_memory;
    p->shape = *shape;
    p->page_bytes = page_bytes;
    p->free = mem_calloc(pages, sizeof *p->free);
    p->users = mem_calloc(pages, sizeof *p->users);
    p->memory = mem_alloc_huge(page_bytes * pages);
    if (!p->free || !p->users || !p->memory) goto no_memory;
    p->total = p->n_free = pages;
    for (uint32_t i = 0; i < pages; i++)
        p->free[i] = pages - 1 - i; /* low pages first: memory in use stays dense */
    *ret_pool = p;
    return 0;
no_memory:
    kv_pool_close(p);
    return err_set(e, ERR_NO_MEMORY,
                   "no memory for %u KV pages of %zu bytes: lower the context or the KV memory",
                   pages, page_bytes);
}

void kv_pool_close(struct kv_pool *p)
{
    if (!p) return;
    CHECK(p->n_free == p->total);
    mem_free(p->free);
    mem_free(p->users);
    mem_free(p->memory);
    mem_free(p);
}

uint32_t kv_pages_total(const struct kv_pool *p)
{
    return p->total;
}

size_t kv_pool_page_bytes(const struct kv_pool *p)
{
    return p->page_bytes;
}

uint32_t kv_pages_free(const struct kv_pool *p)
{
    return p->n_free;
}

static uint32_t page_take(struct kv_pool *p)
{
    CHECK(p->n_free > 0);
    uint32_t page = p->free[--p->n_free];
    CHECK(p->users[page] == 0);
    p->users[page] = 1;
    return page;
}

static void page_drop(struct kv_pool *p, uint32_t page)
{
    CHECK(p->users[page] > 0);
    if (--p->users[page] == 0) p->free[p->n_free++] = page;
}

static uint8_t *page_at(const struct kv_pool *p, uint32_t page)
{
    return p->memory + p->page_bytes * page;
}

static uint32_t pages_for(uint32_t positions)
{
    return positions / KERN_TILE + (positions % KERN_TILE != 0);
}

int kv_seq_init(struct kv_seq *s, struct kv_pool *pool, uint32_t positions, struct err *e)
{
    uint32_t pages = pages_for(positions);
    *s = (struct kv_seq){.pool = pool, .pages_max = pages};
    s->pages = mem_calloc(pages, sizeof *s->pages);
    if (!s->pages) return err_set(e, ERR_NO_MEMORY, "no memory for a table of %u KV pages", pages);
    return 0;
}

void kv_seq_release(struct kv_seq *s)
{
    if (!s->pages) return;
    kv_seq_cut(s, 0);
    mem_free(s->pages);
    *s = (struct kv_seq){0};
}

/* Whether the page that the next position falls into holds values that others use too. */
static bool last_is_shared(const struct kv_seq *s)
{
    return s->len % KERN_TILE != 0 && s->pool->users[s->pages[s->len / KERN_TILE]] > 1;
}

uint32_t kv_seq_pages_needed(const struct kv_seq *s, uint32_t n)
{
    if (n == 0) return 0;
    uint32_t pages = pages_for(s->len + n);
    return (pages > s->pages_used ? pages - s->pages_used : 0) + (last_is_shared(s) ? 1 : 0);
}

int kv_seq_reserve(struct kv_seq *s, uint32_t n, struct err *e)
{
    struct kv_pool *p = s->pool;
    CHECK(n <= s->pages_max * KERN_TILE - s->len);
    uint32_t needed = kv_seq_pages_needed(s, n);
    if (needed > p->n_free)
        return err_set(e, ERR_NO_MEMORY, "%u KV pages needed, %u of %u are free", needed, p->n_free,
                       p->total);
    if (n > 0 && last_is_shared(s)) {
        uint32_t *at = &s->pages[s->len / KERN_TILE], copy = page_take(p);
        memcpy(page_at(p, copy), page_at(p, *at), p->page_bytes);
        page_drop(p, *at);
        *at = copy;
    }
    for (uint32_t pages = pages_for(s->len + n); s->pages_used < pages; s->pages_used++)
        s->pages[s->pages_used] = page_take(p);
    return 0;
}

void kv_seq_advance(struct kv_seq *s, uint32_t n)
{
    CHECK(n <= s->pages_used * KERN_TILE - s->len);
    s->len += n;
}

void kv_seq_cut(struct kv_seq *s, uint32_t n)
{
    CHECK(n <= s->len);
    for (uint32_t keep = pages_for(n); s->pages_used > keep; s->pages_used--)
        page_drop(s->pool, s->pages[s->pages_used - 1]);
    s->len = n;
}

uint32_t kv_page_hold(const struct kv_seq *s, uint32_t i)
{
    CHECK(i < pages_for(s->len));
    s->pool->users[s->pages[i]]++;
    return s->pages[i];
}

void kv_page_drop(struct kv_pool *p, uint32_t page)
{
    page_drop(p, page);
}

int kv_page_new(struct kv_pool *p, uint32_t *ret_page, struct err *e)
{
    if (p->n_free == 0) return err_set(e, ERR_NO_MEMORY, "no KV page is free");
    *ret_page = page_take(p);
    return 0;
}

void *kv_page_data(struct kv_pool *p, uint32_t page)
{
    CHECK(page < p->total && p->users[page] > 0);
    return page_at(p, page);
}

int kv_seq_adopt(struct kv_seq *s, uint32_t page, uint32_t n, struct err *e)
{
    struct kv_pool *p = s->pool;
    CHECK(s->len % KERN_TILE == 0 && s->pages_used == s->len / KERN_TILE);
    CHECK(s->pages_used < s->pages_max && n > 0 && n <= KERN_TILE);
    CHECK(page < p->total && p->users[page] > 0);
    if (n < KERN_TILE) {
        if (p->n_free == 0)
            return err_set(e, ERR_NO_MEMORY,
                           "a KV page is needed to copy %u positions: all %u are in use", n,
                           p->total);
        uint32_t copy = page_take(p);
        memcpy(page_at(p, copy), page_at(p, page), p->page_bytes);
        s->pages[s->pages_used++] = copy;
    } else {
        p->users[page]++;
        s->pages[s->pages_used++] = page;
    }
    s->len += n;
    return 0;
}

void kv_seq_swap(struct kv_seq *s, uint32_t i, uint32_t page)
{
    CHECK(i < s->len / KERN_TILE && s->pool->users[page] > 0);
    s->pool->users[page]++;
    page_drop(s->pool, s->pages[i]);
    s->pages[i] = page;
}

void *kv_k_tile(const struct kv_seq *s, uint32_t page, uint32_t layer, uint32_t kv_head)
{
    const struct kv_shape *shape = &s->pool->shape;
    size_t pair = (size_t)layer * shape->kv_heads + kv_head;
    return page_at(s->pool, s->pages[page]) + pair * 2 * tile_bytes(shape);
}

void *kv_v_tile(const struct kv_seq *s, uint32_t page, uint32_t layer, uint32_t kv_head)
{
    return (uint8_t *)kv_k_tile(s, page, layer, kv_head) + tile_bytes(&s->pool->shape);
}

enum kern_kv kv_kind(const struct kv_seq *s)
{
    return s->pool->shape.kv;
}
