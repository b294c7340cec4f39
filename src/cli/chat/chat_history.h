/*
 * chat_history: the lines that were typed in `pdd chat`, kept in one file for the next time.
 *
 * DIR/history, mode 0600: a JSON string for each entry, one a line, the oldest first; so an entry
 * of several lines stays one. Several programs may use it at once: each entry is appended under a
 * lock (flock), and a file that has grown beyond CHAT_HISTORY_BYTES_MAX is replaced by its newer
 * half. A program killed at any moment leaves a file that loads; a line that is no JSON string is
 * passed over. Threads: one owner.
 */
#ifndef PDD_CLI_CHAT_CHAT_HISTORY_H
#define PDD_CLI_CHAT_CHAT_HISTORY_H

#include "base/buf.h"
#include "base/err.h"
#include "store/store.h"

enum {
    CHAT_HISTORY_BYTES_MAX = 1 << 20, /* of the file */
    CHAT_HISTORY_ENTRY_MAX = 1 << 16  /* bytes of JSON of an entry; a longer one is not kept */
};

struct chat_history {
    char path[STORE_PATH_MAX];
};

/* In the folder, which is made where it is missing. ERR_DENIED: another user's file. */
int chat_history_open(struct chat_history *h, const char *dir, struct err *e);
/* Call `each` for the entries, the oldest first. */
int chat_history_load(const struct chat_history *h, void (*each)(void *arg, const char *text),
                      void *arg, struct err *e);
/* Append an entry. One that begins with a blank is not kept, nor one that is too long. */
int chat_history_add(const struct chat_history *h, const char *text, size_t n, struct err *e);

#endif
