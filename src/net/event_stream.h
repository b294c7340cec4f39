/*
 * event_stream: a POST whose response is a stream of server-sent events, and PATCHes of what it
 * made, as /v1/assist has them. On the loop thread.
 *
 * Life: event_stream_open; then on_head, on_event for each event, on_end last; then
 * event_stream_close. The owner may close the stream earlier. All functions may be called from
 * inside the callbacks; no callback but `release` follows a close, not even for events that have
 * come already.
 */
#ifndef PDD_NET_EVENT_STREAM_H
#define PDD_NET_EVENT_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "net/http_client.h"

enum { EVENT_STREAM_PATH_MAX = 64 };

struct event_stream;

struct event_stream_spec {
    const char *path;                       /* of the POST; below EVENT_STREAM_PATH_MAX bytes */
    struct buf *body;                       /* JSON; emptied, not copied */
    uint64_t deadline_us;                   /* absolute; 0: none */
    void (*on_head)(void *arg, int status); /* NULL: not of interest */
    /* Non-zero, with a sentence in `e`: the stream makes no sense, and on_end follows. */
    int (*on_event)(void *arg, const char *name, const char *data, size_t n, struct err *e);
    /* Either the call ended (`result`: its error, a status of 300 or above, or an end that came too
     * soon), or its bytes were no good (result NULL: `e`, and the socket is closed already). */
    void (*on_end)(void *arg, const struct http_result *result, const struct err *e);
    void (*on_patched)(void *arg); /* a PATCH has ended, whatever came of it; NULL: none is sent */
    void (*release)(void *arg);    /* it is closed, and no callback runs any more; NULL: nothing */
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
/* PATCH path/id with a JSON body. ERR_BUSY: another one is on its way, on_patched will say when it
 * has ended. ERR_BAD_INPUT: the id is not good. */
int event_stream_patch(struct event_stream *s, const char *id, const void *body, size_t n,
                       struct err *e);
bool event_stream_patching(const struct event_stream *s); /* one is on its way */

#endif
