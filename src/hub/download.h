/*
 * download: one file by HTTP into a folder, so that it can be cut at any moment and goes on later.
 *
 * Bytes go to PATH.part. PATH.part.json beside it has what the server said of the file: ETag,
 * Last-Modified, size, SHA-256, and its URL. The next download asks for the rest by Range with
 * If-Range; where the server or the URL has another file by now, or it cannot resume, it begins
 * anew and says so. A complete file stays at PATH.part, checked and synced, until download_place
 * renames it.
 *
 * A connection that is lost or stalls, 408, 429 and 5xx are tried again with growing waits, or
 * after Retry-After, `retries` times without a byte of progress.
 *
 * The SHA-256 is computed from all bytes. It must be the caller's, and the hub's (X-Linked-ETag, an
 * ETag of 64 digits where `hub` is set); a file with another one is removed. A file must begin as
 * GGUF does: a web page or a picture is refused at its first bytes, by its kind.
 *
 * Threads: one, which it blocks. The caller holds the lock of the model's name.
 */
#ifndef PDD_HUB_DOWNLOAD_H
#define PDD_HUB_DOWNLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "hub/fetch.h"

enum { DOWNLOAD_PATH_MAX = 4096 };

struct download_progress {
    uint64_t done, total; /* bytes of this file; total: FETCH_UNKNOWN */
    bool checking;        /* what is there is read again, for its SHA-256 */
};

struct download {
    const char *url, *path;
    const char *sha256;    /* that it must have, lower case; NULL: not known */
    const char *have_etag; /* of the file that is at `path`, "" or NULL: none */
    const char *have_sha256;
    bool hub; /* the URL's server is a hub */
    uint32_t retries;
    uint64_t retry_us; /* first wait; 0: a second */
    bool (*stopped)(void *arg);
    void (*on_progress)(void *arg, const struct download_progress *p);
    void (*on_note)(void *arg, const char *sentence);
    void *arg;
};

struct download_result {
    bool same; /* the server has the file that is at `path`: nothing was loaded */
    uint64_t bytes;
    char sha256[65], etag[FETCH_TAG_MAX];
};

int download_run(struct fetch *f, const struct download *d, struct download_result *ret_result,
                 struct err *e);
/* PATH.part becomes PATH, and the state is removed. */
int download_place(const char *path, struct err *e);
/* PATH.part and its state are removed. */
void download_drop(const char *path);
/* Bytes of PATH.part; 0: there is none. */
uint64_t download_kept(const char *path);

#endif
