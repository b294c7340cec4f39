/*
 * kv: keys and values of sequences, in pages of KERN_TILE (64) positions.
 *
 * A page holds its 64 positions for all layers: for each layer and KV head a K tile [head_dim][64]
 * (so that lanes hold different keys) and a V tile [64][head_dim], as kern.h has them. Pages are
 * counted: a page may belong to several sequences with the same prefix, or be held beyond its
 * sequence, and is copied before one of them writes into it. Layers with a sliding window keep all
 * their positions too, so that a prefix can be cut anywhere and shared. All page memory is one
 * reservation made at opening; nothing here allocates afterwards but kv_seq_init.
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
    uint32_t *pages; /* [pages_max]; the first pages_used are taken */
    uint32_t pages_used, pages_max;
    uint32_t len; /* positions that hold values */
};

size_t kv_page_bytes(const struct kv_shape *shape);
int kv_pool_open(const struct kv_shape *shape, uint32_t pages, struct kv_pool **ret_pool,
                 struct err *e);
void kv_pool_close(struct kv_pool *p); /* NULL is fine */
uint32_t kv_pages_total(const struct kv_pool *p);
uint32_t kv_pages_free(const struct kv_pool *p);

/* An empty sequence of at most `positions`; it takes no page yet. */
int kv_seq_init(struct kv_seq *s, struct kv_pool *pool, uint32_t positions, struct err *e);
void kv_seq_release(struct kv_seq *s); /* pages go back; also for a zeroed struct */

/* How many free pages kv_seq_reserve(s, n) takes, with the copy of a shared last page. */
uint32_t kv_seq_pages_needed(const struct kv_seq *s, uint32_t n);
/* Make positions [len, len + n) writable by this sequence alone. All or nothing. len stays. */
int kv_seq_reserve(struct kv_seq *s, uint32_t n, struct err *e);
void kv_seq_advance(struct kv_seq *s, uint32_t n); /* len += n, within what is reserved */
/* Forget all but the first n positions (n <= len); the others' pages go back. */
void kv_seq_cut(struct kv_seq *s, uint32_t n);

/* One more holder for the page of positions [64 i, 64 i + 64), which holds some; returns its number
 * in the pool. It stays as it is, whatever the sequence does, until kv_page_drop. */
uint32_t kv_page_hold(const struct kv_seq *s, uint32_t i);
void kv_page_drop(struct kv_pool *p, uint32_t page);
/* Append the first n (1 to 64) positions of a held page to `s`, whose len is a multiple of 64: the
 * whole page is shared, a part of it copied. ERR_NO_MEMORY when a copy finds no free page. */
int kv_seq_adopt(struct kv_seq *s, uint32_t page, uint32_t n, struct err *e);
/* Use a held page, of which the caller vouches that it holds the same values, in the place of the
 * sequence's own of positions [64 i, 64 i + 64), all of them there. */
void kv_seq_swap(struct kv_seq *s, uint32_t i, uint32_t page);

/* The tiles of page number i of a sequence. */
void *kv_k_tile(const struct kv_seq *s, uint32_t page, uint32_t layer, uint32_t kv_head);
void *kv_v_tile(const struct kv_seq *s, uint32_t page, uint32_t layer, uint32_t kv_head);
enum kern_kv kv_kind(const struct kv_seq *s);

#endif
