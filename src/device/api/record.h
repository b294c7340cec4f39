/*
 * record: what the server keeps in the device's store (store/store.h), so that a kill at any moment
 * loses nothing: answers with every token before a client gets it, what was sent to the cloud
 * before it is sent, conversations. Without a store all functions do nothing. An error is logged,
 * once, and from then on nothing is kept: an answer never fails for it. But what is to be sent and
 * cannot be recorded, as when the disk is full, is not sent, until it can be again.
 *
 * Threads: the loop only. A write takes tens of microseconds, as nothing waits for the disk.
 */
#ifndef PDD_DEVICE_API_RECORD_H
#define PDD_DEVICE_API_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct ask;
struct kv_disk_use;
struct kv_key;
struct serve;
struct record;
struct device_sent;
struct store;

enum {
    RECORD_EGRESS_MAX = 10000,           /* rows; older ones go */
    RECORD_CONVERSATIONS_MAX = 2000,     /* further ones are refused */
    RECORD_CONVERSATION_BYTES = 4 << 20, /* of one */
    RECORD_TITLE_MAX = 200,
    RECORD_PAGES_BYTES = 64 << 20 /* of keys */
};

/* ERR_*: the store cannot be used; the sentence names file and remedy. ERR_BUSY: another
 * device uses it. */
int record_open(const char *dir, struct record **ret_record, struct err *e);
struct store *record_store(struct record *r); /* for others of the same thread */
void record_close(struct record *r);          /* NULL is fine, here and below */

/* An ask was accepted; `request` is its body. */
void record_ask(struct record *r, const struct ask *a, const char *request, size_t n);
void record_token(struct record *r, const struct ask *a, uint32_t i);
/* It changed its state: held, in work, or over, with its report. */
void record_state(struct record *r, const struct ask *a);
void record_forget(struct record *r, const char *answer);
/* Take what was deleted out of the file's log, too: its pages are zeroed (store.c). */
void record_scrub(struct record *r);
/* Not 0: it is not on record. */
int record_sent(struct record *r, const struct ask *a, const struct device_sent *sent,
                struct err *e);
/* Was the question sent to the host of that URL, as far as is known? */
bool record_was_sent(struct record *r, const char *answer, const char *url);

/* What an earlier run left: each answer is read into a new ask, the oldest first, and given to
 * `take`, which owns it. */
void record_restore(struct record *r, struct serve *s, void (*take)(struct ask *a));

/* JSON of the latest rows of the egress record, or those of one answer (NULL: all). Not 0: there is
 * no record, or no whole one. */
int record_put_egress(struct record *r, const char *answer, struct buf *out);

/* Conversations: a client's own JSON by id. */
int record_put_conversations(struct record *r, struct buf *out); /* without their bodies */
/* 1: there is none. */
int record_get_conversation(struct record *r, const char *id, struct buf *out);
/* ERR_LIMIT: too many. */
int record_set_conversation(struct record *r, const char *id, const char *title, const char *body,
                            size_t n, struct err *e);
int record_drop_conversation(struct record *r, const char *id); /* 1: there was none */

/* KV pages on disk (device/kv_disk.h), and which conversations have them. */
void record_use(struct record *r, const struct kv_disk_use *use);
/* Forget the pages of a conversation. Appends to `keys` (struct kv_key) those that no other has. */
void record_take_pages(struct record *r, const char *conversation, struct buf *keys);
/* Forget pages that are gone. */
void record_check_pages(struct record *r, bool (*has)(void *arg, const struct kv_key *key),
                        void *arg);

#endif
