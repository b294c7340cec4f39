/*
 * http_parse: the head of an HTTP/1.1 request, and chunked bodies; pure, no sockets.
 *
 * Strict on purpose: what two parsers could read differently is refused (bare LF, folded lines,
 * blanks in front of a colon, several or signed Content-Lengths, Content-Length with
 * Transfer-Encoding), so that a proxy and this server always agree where a request ends.
 */
#ifndef PDD_NET_HTTP_PARSE_H
#define PDD_NET_HTTP_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum {
    HTTP_FIELDS_MAX = 100,
    HTTP_METHOD_MAX = 16, /* with the end */
    HTTP_CHUNK_LINE_MAX = 256,
    HTTP_TRAILER_MAX = 4096
};

struct http_field {
    const char *name, *value; /* 0-terminated, in the head's own text */
};

struct http_head {
    char method[HTTP_METHOD_MAX];
    const char *path, *query; /* query: "" without one */
    const char *authority; /* of a target such as "http://host/path", as proxies get; else NULL */
    int minor;             /* HTTP/1.minor, 0 or 1 */
    struct http_field fields[HTTP_FIELDS_MAX];
    uint32_t n_fields;
    uint64_t content_length; /* 0 without one */
    bool chunked, keep_alive, expects_continue;
};

/* Length of the head at the front of `text`, with its empty line; 0 while that has not come.
 * http_head_parse, not this, refuses lines that do not end in CRLF. */
size_t http_head_length(const char *text, size_t n);

/* Parse a whole head in place (line ends become zeros; `text` must stay). 0, or the status of the
 * refusal (400, 417, 431, 501, 505) with a constant sentence in *ret_why. */
int http_head_parse(char *text, size_t n, struct http_head *ret_head, const char **ret_why);
const char *http_head_field(const struct http_head *h, const char *name); /* first, or NULL */

/* A chunked body, in pieces. */
enum http_chunk_state {
    HTTP_CHUNK_SIZE,
    HTTP_CHUNK_DATA,
    HTTP_CHUNK_DATA_END,
    HTTP_CHUNK_TRAILER,
    HTTP_CHUNK_DONE
};
struct http_chunked {
    enum http_chunk_state state;
    uint64_t left; /* of the chunk's data */
    uint32_t line_len, trailer_len;
    bool any_digit, in_extension, cr;
};

/* Read up to n bytes, append their content to body; *ret_used of them belong to this body. 0, or
 * 400 (malformed), 413 (body is full). Complete when state is HTTP_CHUNK_DONE. */
int http_chunked_feed(struct http_chunked *c, const char *data, size_t n, struct buf *body,
                      size_t *ret_used);

const char *http_status_text(int status);

#endif
