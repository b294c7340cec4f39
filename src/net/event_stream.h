/*
 * event_stream: a POST whose response is a stream of server-sent events, and PATCHes of what it
 * created, as for /v1/assist. Threads: the loop only.
 *
 * Life: event_stream_open; then on_head, on_event for each event, on_end last; then
 * event_stream_close. The owner may close the stream earlier. Callbacks may call all functions;
 * after a close only `release` follows, not even events that have come already.
 *
 * An owner with on_whole also takes what servers send instead of events: one JSON value, or one
 * each line (an event without a name each), whatever the content type says. For every owner an HTML
 * page is an error that tells its title. It takes an event whose blank line is missing at a clean
 * end, too.
 */
#ifndef PDD_NET_EVENT_STREAM_H
#define PDD_NET_EVENT_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "net/http_client.h"

enum {
    EVENT_STREAM_PATH_MAX = 64,
    EVENT_STREAM_WHOLE_MAX = 32 << 20, /* bytes of a JSON value instead of events */
    EVENT_STREAM_PAGE_MAX = 16 << 10   /* bytes of a page in which its title is looked for */
};

struct event_stream;

struct event_stream_spec {
    const char *path;                       /* of the POST; below EVENT_STREAM_PATH_MAX bytes */
    struct buf *body;                       /* JSON; emptied, not copied */
    uint64_t deadline_us;                   /* absolute; 0: none */
    const char *accept;                     /* NULL: "text/event-stream" */
    uint64_t first_byte_timeout_us;         /* 0: the client's */
    void (*on_head)(void *arg, int status); /* may be NULL */
    /* Non-zero, with a sentence in `e`: the event is malformed, and on_end follows. */
    int (*on_event)(void *arg, const char *name, const char *data, size_t n, struct err *e);
    /* The whole response is one JSON value; as on_event. NULL: only events are taken. */
    int (*on_whole)(void *arg, const char *data, size_t n, struct err *e);
    /* Either the call ended (`result`: its error, a status of 300 or above, or an early end), or
     * the response is no event stream, by its content type or its bytes (result NULL: see `e`; the
     * socket is closed already). */
    void (*on_end)(void *arg, const struct http_result *result, const struct err *e);
    void (*on_patched)(
        void *arg);             /* a PATCH has ended, with or without success; NULL: none is sent */
    void (*release)(void *arg); /* it is closed, and no callback runs; may be NULL */
    void *arg;
};

/* `spec` is copied, its path too. Errors are those of http_call_start. */
int event_stream_open(struct http_client *client, const struct event_stream_spec *spec,
                      struct event_stream **ret_stream, struct err *e);
/* The last event that matters has come: no callback follows but `release`, and the connection may
 * end by itself (http_call_linger). Close it all the same. */
void event_stream_finish(struct event_stream *s);
/* Unless it is finished or has ended, the socket is closed at once, which stops the server. NULL is
 * fine. */
void event_stream_close(struct event_stream *s);

/* An id goes into a path: letters, digits, '-' and '_' only, and one at least. */
bool event_stream_id_good(const char *id);
/* PATCH path/id with a JSON body. ERR_BUSY: another one is in flight, until on_patched.
 * ERR_BAD_INPUT: the id is not good. */
int event_stream_patch(struct event_stream *s, const char *id, const void *body, size_t n,
                       struct err *e);
/* Add the bytes of bodies that went out and came in so far. */
void event_stream_add_bytes(const struct event_stream *s, uint64_t *sent, uint64_t *received);
bool event_stream_patching(const struct event_stream *s); /* one is in flight */

#endif
