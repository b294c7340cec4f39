/*
 * kv_disk: pages of KV cache on disk, so that a device that starts again need not compute the
 * prompts of its last conversations once more.
 *
 * A page has 64 tokens. Its *key* is the SHA-256 of the key of the page before it and of its
 * tokens; the first one's begins with the fingerprint: weights, class of numerics, type of the KV
 * cache. So a key means one history under one way to compute, and its page the same bits as
 * computed anew. A file DIR/KEY.kv holds one page with key, tokens and checksum, which are compared
 * when it is read; a file that is not as it should be is removed, and the page is computed.
 *
 * The files together keep within bytes_max: the least recently used go, of a history its last pages
 * first, as no page is of use without those before it. They say what the
 * conversations were about, so the folder has mode 0700, and the files 0600.
 *
 * A *use* says that the history of a conversation has some pages. The disk hands uses on to an
 * owner who keeps them (device/api/record.h), so that the pages of a deleted conversation can be
 * removed, except those that other conversations have.
 *
 * Threads: any, but for open and close. One thread of its own writes, in the background.
 */
#ifndef PDD_DEVICE_KV_DISK_H
#define PDD_DEVICE_KV_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
    KV_DISK_TOKENS = 64, /* of a page */
    KV_DISK_KEY = 32,    /* bytes */
    KV_DISK_FILES_MAX = 1 << 16,
    KV_DISK_WAITING_MAX = 8, /* histories that wait to be written; further ones are not kept */
    KV_DISK_DIR_MAX = 3072,
    KV_DISK_TAG_MAX = 40 /* of a conversation's id, with its end */
};

struct kv_disk;

struct kv_key {
    uint8_t bytes[KV_DISK_KEY];
};

struct kv_disk_config {
    const char *dir;         /* made where it is missing */
    const char *fingerprint; /* what must be equal for equal bits */
    size_t page_bytes;
    uint64_t bytes_max;
};

/* A page to be written. */
struct kv_disk_page {
    struct kv_key key;
    uint32_t depth; /* pages before it */
    int32_t tokens[KV_DISK_TOKENS];
    const void *data; /* [page_bytes], unchanged until `done` */
    bool forgotten;   /* by kv_disk_forget, while it waits */
};

struct kv_disk_use {
    struct kv_disk_use *next; /* of those that wait to be taken */
    char tag[KV_DISK_TAG_MAX];
    uint32_t n;
    struct kv_key keys[]; /* [n] */
};

struct kv_disk_stats {
    uint64_t bytes, files, written, read, damaged, dropped; /* the last four: pages since opening */
};

int kv_disk_open(const struct kv_disk_config *config, struct kv_disk **ret_disk, struct err *e);
void kv_disk_close(struct kv_disk *d); /* writes what waits; NULL is fine */

/* The key of the page with `tokens` after the page `before` (NULL: the first one). */
void kv_disk_key(const struct kv_disk *d, const struct kv_key *before, const int32_t *tokens,
                 struct kv_key *ret_key);
bool kv_disk_has(struct kv_disk *d, const struct kv_key *key);
/* Fill page [page_bytes]. ERR_NOT_FOUND, or ERR_BAD_INPUT: it was damaged, and is removed. */
int kv_disk_read(struct kv_disk *d, const struct kv_key *key, uint32_t depth, const int32_t *tokens,
                 void *page, struct err *e);
/* Write n pages, in order, then call done(arg) from the writer's thread.
 * Takes `pages` (of mem_alloc) on success. ERR_BUSY: too many wait. */
int kv_disk_write(struct kv_disk *d, struct kv_disk_page *pages, uint32_t n,
                  void (*done)(void *arg), void *arg, struct err *e);
/* Hand on a use (of mem_alloc), and take the oldest one; NULL: there is none. */
void kv_disk_put_use(struct kv_disk *d, struct kv_disk_use *use);
struct kv_disk_use *kv_disk_take_use(struct kv_disk *d);
/* Remove these pages, and write none of them that waits to be written. */
void kv_disk_forget(struct kv_disk *d, const struct kv_key *keys, uint32_t n);
void kv_disk_stats_of(struct kv_disk *d, struct kv_disk_stats *ret_stats);

#endif
