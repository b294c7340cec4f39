/*
 * download_state: PATH.part.json, what a server said of a file of which a part is here. Blocking
 * file I/O; no threads.
 */
#ifndef PDD_HUB_DOWNLOAD_STATE_H
#define PDD_HUB_DOWNLOAD_STATE_H

#include <stdint.h>

#include "base/err.h"
#include "hub/fetch.h"

struct download_state {
    char url[FETCH_URL_MAX]; /* without query: that was asked, whatever it redirected to */
    char etag[FETCH_TAG_MAX], modified[FETCH_TAG_MAX];
    char sha256[65]; /* lower case; "" where not known, as above */
    uint64_t size;   /* FETCH_UNKNOWN */
};

/* An empty state where the file is missing or damaged. */
void download_state_read(const char *path, struct download_state *ret_state);
int download_state_write(const char *path, const struct download_state *state, struct err *e);

/* What If-Range may hold: a strong ETag, or a date; NULL: neither. */
const char *download_state_validator(const struct download_state *s);

/* The digest in an ETag, "\"0123...\"", or in 64 digits; "" if it is none. */
void download_digest(const char *tag, char ret_sha256[65]);

/* What the first bytes of a file are, if not GGUF: "a web page", "a picture", ...; NULL: GGUF. */
const char *download_kind(const void *head, size_t n);

#endif
