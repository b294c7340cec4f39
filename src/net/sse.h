/*
 * sse: server-sent events (WHATWG HTML, "Server-sent events"): a parser that takes bytes in any
 * pieces. Pure. The fields `id` and `retry` are ignored: nothing here reconnects. Besides the
 * standard a line "error: ..." is data of an event named error, as llama-server wrote it.
 */
#ifndef PDD_NET_SSE_H
#define PDD_NET_SSE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

enum { SSE_LINE_MAX = 1 << 20, SSE_NAME_MAX = 32 };

/* name: "message" if the stream has none; data: without the last line end. */
typedef int sse_fn(void *arg, const char *name, const char *data, size_t n);

struct sse_parser {
    struct buf line, data;
    char name[SSE_NAME_MAX];
    bool any_data, after_cr, started;
    unsigned bom; /* bytes of a byte order mark seen at the very start */
    sse_fn *fn;
    void *arg;
};

void sse_parser_init(struct sse_parser *p, sse_fn *fn, void *arg);
void sse_parser_release(struct sse_parser *p);
/* Feed bytes; calls fn for each finished event. ERR_PROTOCOL for a line or event past SSE_LINE_MAX,
 * or the first non-zero result of fn; the parser is useless then. */
int sse_parser_feed(struct sse_parser *p, const char *bytes, size_t n, struct err *e);

#endif
