/*
 * kv: keys and values of sequences, in pages of KERN_TILE (64) positions.
 *
 * A page holds its 64 positions for all layers:
 *
 *     layer 0: head 0: K tile, V tile | head 1: K tile, V tile | ... || layer 1: ... || ...
 *
 * with the tiles of kern.h. Pages are reference-counted and copied on write: sequences with the
 * same prefix share them, and a prefix cache may hold them beyond their sequence. Layers with a
 * sliding window keep all positions too, so that a prefix can be cut anywhere and shared. All pages
 * are one reservation made at opening; after that only kv_seq_init allocates.
 *
 * Life: kv_pool_open; kv_seq_init ... kv_seq_release; kv_pool_close when no sequence is left.
 * Threads: one owner. While a forward pass runs, its threads only read the tables and write to
 * slots that kv_seq_reserve made exclusive.
 */
#ifndef PDD_MODEL_KV_H
#define PDD_MODEL_KV_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kern/kern.h"

enum { KV_PAGES_MAX = 1 << 24 };

struct kv_shape {
    uint32_t layers, kv_heads, head_dim; /* head_dim: see kern_tile_bytes */
    enum kern_kv kv;
};

struct kv_pool;

struct kv_seq {
    struct kv_pool *pool;
    uint32_t *pages; /* [pages_max]; the first pages_used are in use */
    uint32_t pages_used, pages_max;
    uint32_t len; /* positions with values */
};

size_t kv_page_bytes(const struct kv_shape *shape);
int kv_pool_open(const struct kv_shape *shape, uint32_t pages, struct kv_pool **ret_pool,
                 struct err *e);
void kv_pool_close(struct kv_pool *p); /* NULL is fine */
uint32_t kv_pages_total(const struct kv_pool *p);
size_t kv_pool_page_bytes(const struct kv_pool *p);
uint32_t kv_pages_free(const struct kv_pool *p);

/* An empty sequence of at most `positions`; it has no page yet. */
int kv_seq_init(struct kv_seq *s, struct kv_pool *pool, uint32_t positions, struct err *e);
void kv_seq_release(struct kv_seq *s); /* pages go back; also for a zeroed struct */

/* Free pages that kv_seq_reserve(s, n) needs, with the copy of a shared last page. */
uint32_t kv_seq_pages_needed(const struct kv_seq *s, uint32_t n);
/* Make positions [len, len + n) writable by this sequence alone. All or nothing. len stays. */
int kv_seq_reserve(struct kv_seq *s, uint32_t n, struct err *e);
void kv_seq_advance(struct kv_seq *s, uint32_t n); /* len += n, within what is reserved */
/* Truncate to the first n positions (n <= len); the other pages are freed. */
void kv_seq_cut(struct kv_seq *s, uint32_t n);

/* Take a reference to the page of positions [64 i, 64 i + 64), of which at least one has values;
 * returns its number in the pool. It stays unchanged until kv_page_drop. */
uint32_t kv_page_hold(const struct kv_seq *s, uint32_t i);
void kv_page_drop(struct kv_pool *p, uint32_t page);
/* A page that is held once, with values of the caller's to come; ERR_NO_MEMORY: none is free. */
int kv_page_new(struct kv_pool *p, uint32_t *ret_page, struct err *e);
void *kv_page_data(struct kv_pool *p, uint32_t page); /* [kv_page_bytes] of a held page */
/* Append the first n (1 to 64) positions of a held page to `s`, whose len is a multiple of 64: the
 * whole page is shared, a part of it copied. ERR_NO_MEMORY when a copy finds no free page. */
int kv_seq_adopt(struct kv_seq *s, uint32_t page, uint32_t n, struct err *e);
/* Replace the sequence's full page of positions [64 i, 64 i + 64) by a held page. The caller
 * guarantees that it has the same values. */
void kv_seq_swap(struct kv_seq *s, uint32_t i, uint32_t page);

/* The tiles of page number i of a sequence. */
void *kv_k_tile(const struct kv_seq *s, uint32_t page, uint32_t layer, uint32_t kv_head);
void *kv_v_tile(const struct kv_seq *s, uint32_t page, uint32_t layer, uint32_t kv_head);
enum kern_kv kv_kind(const struct kv_seq *s);

#endif
