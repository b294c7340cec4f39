/* event_stream: see event_stream.h. */
#include "net/event_stream.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "net/body_kind.h"
#include "net/http_portal.h"
#include "net/sse.h"

enum { PATCH_PATH_MAX = 2 * EVENT_STREAM_PATH_MAX };

struct event_stream {
    struct http_client *client;
    struct http_call *call, *patch; /* NULL: ended, or none */
    struct event_stream_spec on;    /* the callbacks */
    char path[EVENT_STREAM_PATH_MAX];
    enum body_kind kind;
    struct sse_parser sse;
    bool told;               /* by the first bytes that are no blanks */
    struct buf held;         /* what has come and is no event yet: JSON, a line, a page */
    struct err why;          /* what on_event found wrong */
    uint64_t sent, received; /* bytes of bodies */
    unsigned inside;         /* callbacks that run: freeing waits */
    bool over;               /* finished by the owner, or on_end was called */
    bool closed;             /* by the owner */
};

static void release(struct event_stream *s)
{
    CHECK(!s->call && !s->patch);
    struct event_stream_spec on = s->on;
    sse_parser_release(&s->sse);
    buf_release(&s->held);
    mem_free(s);
    if (on.release) on.release(on.arg);
}

/* Every callback of a call runs between these two, as any may close the stream. */
static void enter(struct event_stream *s)
{
    s->inside++;
}

static void leave(struct event_stream *s)
{
    CHECK(s->inside > 0);
    if (--s->inside == 0 && s->closed) release(s);
}

/* Let go of both calls, of the stream by `drop`. */
static void drop_calls(struct event_stream *s, void (*drop)(struct http_call *))
{
    drop(s->call);
    http_call_cancel(s->patch);
    s->call = s->patch = NULL;
}

static void end(struct event_stream *s, const struct http_result *result, const struct err *e)
{
    CHECK(!s->over && !s->closed);
    drop_calls(s, http_call_cancel);
    s->over = true;
    s->on.on_end(s->on.arg, result, e);
}

static int take_event(void *arg, const char *name, const char *data, size_t n)
{
    struct event_stream *s = arg;
    if (s->over || s->closed) return ERR_CANCELLED;
    int code = s->on.on_event(s->on.arg, name, data, n, &s->why);
    return s->over || s->closed ? ERR_CANCELLED : code;
}

/* A captive portal, a proxy or a server without streams answers 200, too. */
static int check_type(struct event_stream *s, struct err *e)
{
    const char *type = http_call_header(s->call, "Content-Type");
    s->kind = body_kind_of_type(type);
    if (s->kind == BODY_EVENTS && s->on.on_whole) s->kind = BODY_UNKNOWN;
    if (s->kind == BODY_EVENTS || s->kind == BODY_PAGE || s->on.on_whole) return 0;
    return err_set(e, ERR_PROTOCOL, "the response is no event stream; its content type is %.80s",
                   type ? type : "not told");
}

static void take_head(void *arg, int status)
{
    struct event_stream *s = arg;
    struct err e = ERR_INIT;
    if (s->over || s->closed) return;
    enter(s);
    if (status < 300 && check_type(s, &e))
        end(s, NULL, &e);
    else if (s->on.on_head && (status >= 300 || s->kind != BODY_PAGE))
        s->on.on_head(s->on.arg, status);
    leave(s);
}

/* The error that a page is. */
static int refuse_page(struct event_stream *s)
{
    char page[BODY_PAGE_NAME_MAX], notice[HTTP_PORTAL_MAX];
    const char *type = http_call_header(s->call, "Content-Type");
    body_page_name(s->held.data, s->held.len, page);
    http_call_notice(s->call, notice);
    return err_set(&s->why, ERR_PROTOCOL,
                   "the response is no event stream but %s (content type %.80s)%s%s", page,
                   type ? type : "not told", notice[0] ? ": " : "", notice);
}

static int hold(struct event_stream *s, const char *data, size_t n)
{
    return buf_append(&s->held, data, n)
               ? err_set(&s->why, ERR_PROTOCOL, "the response is longer than %d bytes",
                         EVENT_STREAM_WHOLE_MAX)
               : 0;
}

/* Each line is an event, but for those that hold only blanks. */
static int take_lines(struct event_stream *s, bool all)
{
    int code = 0;
    for (;;) {
        char *line = s->held.data, *stop = s->held.len ? memchr(line, '\n', s->held.len) : NULL;
        size_t n = stop ? (size_t)(stop - line) : s->held.len, taken = stop ? n + 1 : n;
        if (code || (!stop && !(all && n))) return code;
        if (body_kind_of_bytes(line, n) != BODY_UNKNOWN) code = take_event(s, "message", line, n);
        buf_consume(&s->held, taken);
    }
}

/* What the type left open, or called a page that is none: PHP calls all it sends text/html. */
static int take_first_bytes(struct event_stream *s, struct err *malformed)
{
    enum body_kind kind = body_kind_of_bytes(s->held.data, s->held.len);
    if (kind == BODY_UNKNOWN) return 0;
    s->told = true;
    if (s->kind == BODY_LINES && kind == BODY_JSON) return take_lines(s, false);
    if (kind != BODY_PAGE && !s->on.on_whole) return refuse_page(s);
    s->kind = kind;
    if (kind != BODY_EVENTS) return 0;
    int code = sse_parser_feed(&s->sse, s->held.data, s->held.len, malformed);
    buf_clear(&s->held);
    return code;
}

static int take_bytes(struct event_stream *s, const char *data, size_t n, struct err *malformed)
{
    if (s->kind == BODY_EVENTS) return sse_parser_feed(&s->sse, data, n, malformed);
    int code = hold(s, data, n);
    if (!code && !s->told) return take_first_bytes(s, malformed);
    if (!code && s->kind == BODY_LINES) code = take_lines(s, false);
    if (!code && s->kind == BODY_PAGE && s->held.len > EVENT_STREAM_PAGE_MAX) code = refuse_page(s);
    return code;
}

static void take_body(void *arg, const char *data, size_t n)
{
    struct event_stream *s = arg;
    struct err malformed = ERR_INIT;
    enter(s);
    s->received += n;
    s->why.code = 0;
    int code = take_bytes(s, data, n, &malformed);
    if (code && !s->over && !s->closed) end(s, NULL, s->why.code ? &s->why : &malformed);
    leave(s);
}

/* What the end completes. */
static int take_rest(struct event_stream *s, const struct http_result *result)
{
    struct err ignored = ERR_INIT;
    bool clean = !result->err.code && result->status < 300;
    s->why.code = 0;
    if (result->status >= 300 || s->over || s->closed) return 0;
    if (s->kind == BODY_PAGE) return refuse_page(s);
    if (!clean || !s->on.on_whole) return 0;
    if (s->kind == BODY_EVENTS) return sse_parser_feed(&s->sse, "\n\n", 2, &ignored);
    if (s->kind == BODY_LINES) return take_lines(s, true);
    return s->kind == BODY_JSON ? s->on.on_whole(s->on.arg, s->held.data, s->held.len, &s->why) : 0;
}

static void call_done(void *arg, const struct http_result *result)
{
    struct event_stream *s = arg;
    enter(s);
    int code = take_rest(s, result);
    s->call = NULL;
    if (!s->over && !s->closed) end(s, code && s->why.code ? NULL : result, &s->why);
    leave(s);
}

int event_stream_open(struct http_client *client, const struct event_stream_spec *spec,
                      struct event_stream **ret_stream, struct err *e)
{
    struct event_stream *s = mem_calloc(1, sizeof *s);
    if (!s) return err_set(e, ERR_NO_MEMORY, "no memory for a stream");
    s->client = client;
    CHECK(strlen(spec->path) < sizeof s->path);
    memcpy(s->path, spec->path, strlen(spec->path) + 1);
    s->on = *spec;
    s->on.path = NULL; /* the caller's, as the body is */
    s->on.body = NULL;
    s->on.accept = NULL;
    s->sent = spec->body->len;
    s->kind = BODY_UNKNOWN;
    sse_parser_init(&s->sse, take_event, s);
    buf_init(&s->held, EVENT_STREAM_WHOLE_MAX);
    struct http_call_spec call = {.method = "POST",
                                  .path = spec->path,
                                  .accept = spec->accept ? spec->accept : "text/event-stream",
                                  .first_byte_timeout_us = spec->first_byte_timeout_us,
                                  .body_taken = spec->body,
                                  .deadline_us = spec->deadline_us,
                                  .on_head = take_head,
                                  .on_body = take_body,
                                  .on_done = call_done,
                                  .arg = s};
    int code = http_call_start(client, &call, &s->call, e);
    if (code) {
        s->on.release = NULL;
        release(s);
    } else {
        *ret_stream = s;
    }
    return code;
}

void event_stream_finish(struct event_stream *s)
{
    drop_calls(s, http_call_linger);
    s->over = true;
}

void event_stream_close(struct event_stream *s)
{
    if (!s || s->closed) return;
    drop_calls(s, http_call_cancel);
    s->closed = true;
    if (!s->inside) release(s);
}

bool event_stream_id_good(const char *id)
{
    static const char good[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    return id[0] && strspn(id, good) == strlen(id);
}

static void patch_done(void *arg, const struct http_result *result)
{
    struct event_stream *s = arg;
    (void)result; /* a refusal means that nothing changes */
    s->patch = NULL;
    enter(s);
    s->on.on_patched(s->on.arg);
    leave(s);
}

int event_stream_patch(struct event_stream *s, const char *id, const void *body, size_t n,
                       struct err *e)
{
    char path[PATCH_PATH_MAX];
    if (s->patch) return err_set(e, ERR_BUSY, "a change of the stream is on its way");
    int len = snprintf(path, sizeof path, "%s/%s", s->path, id);
    if (!event_stream_id_good(id) || len >= (int)sizeof path || !s->on.on_patched)
        return err_set(e, ERR_BAD_INPUT, "the stream has an id that is none");
    struct http_call_spec call = {.method = "PATCH",
                                  .path = path,
                                  .body = body,
                                  .body_len = n,
                                  .collect = true,
                                  .on_done = patch_done,
                                  .arg = s};
    int code = http_call_start(s->client, &call, &s->patch, e);
    if (code == 0) s->sent += n;
    return code;
}

void event_stream_add_bytes(const struct event_stream *s, uint64_t *sent, uint64_t *received)
{
    *sent += s->sent;
    *received += s->received;
}

bool event_stream_patching(const struct event_stream *s)
{
    return s->patch != NULL;
}
