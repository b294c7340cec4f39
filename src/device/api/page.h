/*
 * page: the web page that the server shows at "/", and the files it is made of at "/page/{id}".
 * They are embedded in the program, from the folder src/web. No file holds a secret: each
 * client gets the same bytes, without a token, for the page asks for one itself.
 *
 * Each file has an ETag and is asked for again, so that a new program never meets an old page. The
 * Content-Security-Policy allows scripts, styles and requests of this server alone, and nothing
 * inline; another site cannot frame the page, nor load its files.
 *
 * Threads: the loop only.
 */
#ifndef PDD_DEVICE_API_PAGE_H
#define PDD_DEVICE_API_PAGE_H

#include <stddef.h>

#include "net/http_server.h"

struct page_file {
    const char *name, *tag; /* "app.js"; the beginning of its SHA-256 */
    const unsigned char *data;
    size_t size;
};

/* Of the generated source. */
extern const struct page_file page_files[];
extern const size_t page_file_count;

/* Handlers; `arg` is not used. */
void page_index(struct http_request *r, void *arg);
void page_part(struct http_request *r, void *arg);

#endif
