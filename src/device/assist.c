/* assist: see assist.h. */
#include "device/assist.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "net/event_stream.h"
#include "net/sse.h"

enum { PATCH_MAX = 64, URL_SHOWN_MAX = 256 };

_Static_assert((int)WIRE_EVENT_MAX <= (int)SSE_LINE_MAX, "every event of the wire can be parsed");

/* Lives as long as its stream: release_assist frees it. */
struct assist {
    struct event_stream *stream;
    struct assist_callbacks on;
    struct wire_stream order;
    struct wire_event event;
    char id[WIRE_ID_MAX], url[URL_SHOWN_MAX];
    uint32_t wanted; /* tokens_max that waits for the grant or for the PATCH before; 0: none */
    int status;
    bool ended; /* done or lost was told */
    bool closed;
};

static void release_assist(void *arg)
{
    struct assist *a = arg;
    wire_event_release(&a->event);
    mem_free(a);
}

static void patched(void *arg)
{
    struct assist *a = arg;
    if (a->wanted) assist_extend(a, a->wanted);
}

void assist_extend(struct assist *a, uint32_t tokens_max)
{
    struct buf body;
    struct err ignored = ERR_INIT;
    a->wanted = tokens_max;
    if (!a->id[0] || a->ended || event_stream_patching(a->stream)) return;
    buf_init(&body, PATCH_MAX);
    if (wire_patch_encode(tokens_max, &body, &ignored) == 0)
        (void)event_stream_patch(a->stream, a->id, body.data, body.len, &ignored);
    buf_release(&body);
    a->wanted = 0;
}

static int take_grant(struct assist *a, const struct wire_event *ev, struct err *e)
{
    if (!event_stream_id_good(ev->id))
        return err_set(e, ERR_PROTOCOL, "the cloud gave the request an invalid id");
    snprintf(a->id, sizeof a->id, "%s", ev->id);
    a->on.event(a->on.arg, ev);
    if (!a->closed && a->wanted) assist_extend(a, a->wanted);
    return 0;
}

static int handle(struct assist *a, const struct wire_event *ev, struct err *e)
{
    switch (ev->kind) {
    case WIRE_GRANT:
        return take_grant(a, ev, e);
    case WIRE_PROGRESS:
    case WIRE_REFINED:
    case WIRE_TOKEN:
        a->on.event(a->on.arg, ev);
        return 0;
    case WIRE_DONE:
        a->ended = true;
        event_stream_finish(a->stream);
        a->on.done(a->on.arg, ev);
        return 0;
    case WIRE_ERROR:
        return err_set(e, ERR_NET, "the cloud failed: %.300s", ev->message);
    default: /* what a newer cloud may say */
        return 0;
    }
}

static int on_event(void *arg, const char *name, const char *data, size_t n, struct err *e)
{
    struct assist *a = arg;
    int code = wire_event_decode(name, data, n, &a->event, e);
    if (!code) code = wire_stream_take(&a->order, &a->event, e);
    if (code) {
        if (code != ERR_NO_MEMORY) err_prefix(e, "the cloud broke the protocol");
        return code;
    }
    return handle(a, &a->event, e);
}

static void on_head(void *arg, int status)
{
    struct assist *a = arg;
    a->status = status;
}

static void on_end(void *arg, const struct http_result *result, const struct err *e)
{
    struct assist *a = arg;
    struct err why = ERR_INIT;
    a->ended = true;
    if (result) a->status = result->status;
    if (!result)
        why = *e;
    else if (result->err.code)
        why = result->err;
    else if (result->status >= 300)
        http_result_error(result, a->url, wire_error_text, &why);
    else
        err_set(&why, ERR_PROTOCOL, "the cloud's stream ended earlier than its answer");
    a->on.lost(a->on.arg, a->status >= 300 ? a->status : 0, result ? result->retry_after_s : 0,
               &why);
}

int assist_open(struct http_client *client, const char *url, const struct wire_request *request,
                const struct assist_callbacks *callbacks, struct assist **ret_assist, struct err *e)
{
    struct assist *a = mem_calloc(1, sizeof *a);
    if (!a) return err_set(e, ERR_NO_MEMORY, "no memory for a request to the cloud");
    struct buf body;
    buf_init(&body, WIRE_BODY_MAX);
    a->on = *callbacks;
    snprintf(a->url, sizeof a->url, "%s/v1/assist", url);
    wire_event_init(&a->event);
    wire_stream_init(&a->order, request->n_prompt, request->n_have);
    int code = wire_request_encode(request, &body, e);
    if (code == 0) {
        struct event_stream_spec spec = {.path = "/v1/assist",
                                         .body = &body,
                                         .on_head = on_head,
                                         .on_event = on_event,
                                         .on_end = on_end,
                                         .on_patched = patched,
                                         .release = release_assist,
                                         .arg = a};
        code = event_stream_open(client, &spec, &a->stream, e);
    }
    buf_release(&body);
    if (code)
        release_assist(a);
    else
        *ret_assist = a;
    return code;
}

void assist_add_bytes(const struct assist *a, uint64_t *sent, uint64_t *received)
{
    event_stream_add_bytes(a->stream, sent, received);
}

void assist_close(struct assist *a)
{
    if (!a || a->closed) return;
    a->closed = true;
    event_stream_close(a->stream);
}
