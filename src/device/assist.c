/* assist: see assist.h. */
#include "device/assist.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "net/sse.h"

enum { PATH_MAX_LEN = WIRE_ID_MAX + 16, URL_SHOWN_MAX = 256 };

struct assist {
    struct http_client *client;
    struct http_call *call, *patch;
    struct assist_callbacks on;
    struct sse_parser sse;
    struct wire_stream order;
    struct wire_event event;
    char id[WIRE_ID_MAX], url[URL_SHOWN_MAX];
    uint32_t wanted; /* tokens_max that waits for the grant or for the PATCH before; 0: none */
    int status;
    unsigned inside; /* callbacks running: closing frees later */
    bool ended;      /* done or lost was told */
    bool closed;
};

static void release(struct assist *a)
{
    sse_parser_release(&a->sse);
    wire_event_release(&a->event);
    mem_free(a);
}

static void lose(struct assist *a, const struct err *why)
{
    if (a->ended || a->closed) return;
    a->ended = true;
    http_call_cancel(a->call);
    a->call = NULL;
    a->on.lost(a->on.arg, a->status >= 300 ? a->status : 0, why);
}

static void patch_done(void *arg, const struct http_result *result)
{
    (void)result;
    struct assist *a = arg;
    a->patch = NULL;
    if (a->wanted && !a->ended) assist_extend(a, a->wanted);
}

static int send_patch(struct assist *a, struct err *e)
{
    char path[PATH_MAX_LEN];
    struct buf body;
    buf_init(&body, URL_SHOWN_MAX);
    int code = wire_patch_encode(a->wanted, &body, e);
    if (code == 0) {
        snprintf(path, sizeof path, "/v1/assist/%s", a->id);
        struct http_call_spec spec = {.method = "PATCH",
                                      .path = path,
                                      .body = body.data,
                                      .body_len = body.len,
                                      .collect = true,
                                      .on_done = patch_done,
                                      .arg = a};
        code = http_call_start(a->client, &spec, &a->patch, e);
    }
    buf_release(&body);
    return code;
}

void assist_extend(struct assist *a, uint32_t tokens_max)
{
    a->wanted = tokens_max;
    if (!a->id[0] || a->patch || a->ended) return;
    struct err ignored = ERR_INIT;
    if (send_patch(a, &ignored)) a->patch = NULL;
    a->wanted = 0;
}

/* An id goes into a path: letters, digits, '-' and '_' only. */
static bool id_is_plain(const char *id)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    return id[0] && strspn(id, plain) == strlen(id);
}

static int handle(struct assist *a, const struct wire_event *ev, struct err *e)
{
    switch (ev->kind) {
    case WIRE_GRANT:
        if (!id_is_plain(ev->id))
            return err_set(e, ERR_PROTOCOL, "the cloud gave the request an invalid id");
        snprintf(a->id, sizeof a->id, "%s", ev->id);
        a->on.event(a->on.arg, ev);
        if (!a->closed && a->wanted) assist_extend(a, a->wanted);
        return 0;
    case WIRE_PROGRESS:
    case WIRE_TOKEN:
        a->on.event(a->on.arg, ev);
        return 0;
    case WIRE_DONE:
        a->ended = true;
        a->on.done(a->on.arg, ev);
        return 0;
    case WIRE_ERROR:
        return err_set(e, ERR_NET, "the cloud failed: %.300s", ev->message);
    default: /* refined, and what a newer cloud may say */
        return 0;
    }
}

static int on_event(void *arg, const char *name, const char *data, size_t n)
{
    struct assist *a = arg;
    struct err why = ERR_INIT;
    if (a->ended || a->closed) return ERR_CANCELLED;
    int code = wire_event_decode(name, data, n, &a->event, &why);
    if (code == 0) {
        code = wire_stream_take(&a->order, &a->event, &why);
        if (code) err_prefix(&why, "the cloud broke the protocol");
    }
    if (code == 0) code = handle(a, &a->event, &why);
    if (code) lose(a, &why);
    return a->ended || a->closed ? ERR_CANCELLED : 0;
}

static void on_head(void *arg, int status)
{
    struct assist *a = arg;
    a->status = status;
}

static void on_body(void *arg, const char *data, size_t n)
{
    struct assist *a = arg;
    struct err why = ERR_INIT;
    if (a->ended || a->closed) return;
    a->inside++;
    int code = sse_parser_feed(&a->sse, data, n, &why);
    if (code && !a->ended && !a->closed) lose(a, &why);
    a->inside--;
    if (a->closed && !a->inside) release(a);
}

static void on_done(void *arg, const struct http_result *result)
{
    struct assist *a = arg;
    struct err why = ERR_INIT;
    a->call = NULL;
    if (a->ended || a->closed) return;
    a->status = result->status;
    if (result->err.code)
        why = result->err;
    else if (result->status >= 300)
        http_result_error(result, a->url, wire_error_text, &why);
    else
        err_set(&why, ERR_PROTOCOL, "the cloud's stream ended earlier than its answer");
    a->inside++;
    lose(a, &why);
    a->inside--;
    if (a->closed && !a->inside) release(a);
}

int assist_open(struct http_client *client, const char *url, const struct wire_request *request,
                const struct assist_callbacks *callbacks, struct assist **ret_assist, struct err *e)
{
    struct assist *a = mem_calloc(1, sizeof *a);
    if (!a) return err_set(e, ERR_NO_MEMORY, "no memory for a request to the cloud");
    struct buf body;
    buf_init(&body, WIRE_BODY_MAX);
    a->client = client;
    a->on = *callbacks;
    snprintf(a->url, sizeof a->url, "%s/v1/assist", url);
    sse_parser_init(&a->sse, on_event, a);
    wire_event_init(&a->event);
    wire_stream_init(&a->order, request->n_prompt, request->n_have);
    int code = wire_request_encode(request, &body, e);
    if (code == 0) {
        struct http_call_spec spec = {.method = "POST",
                                      .path = "/v1/assist",
                                      .accept = "text/event-stream",
                                      .body = body.data,
                                      .body_len = body.len,
                                      .on_head = on_head,
                                      .on_body = on_body,
                                      .on_done = on_done,
                                      .arg = a};
        code = http_call_start(client, &spec, &a->call, e);
    }
    buf_release(&body);
    if (code)
        release(a);
    else
        *ret_assist = a;
    return code;
}

void assist_close(struct assist *a)
{
    if (!a || a->closed) return;
    a->closed = true;
    http_call_cancel(a->call);
    http_call_cancel(a->patch);
    a->call = a->patch = NULL;
    if (!a->inside) release(a);
}
