/*
 * fake_client: takes the place of net/http_client in a fuzz target, which includes this once: calls
 * open no socket, and what a server answers is what the target says, by the fuzzer's bytes.
 *
 * It keeps the promises of http_client.h: no callback from inside http_call_start, on_head first,
 * on_body only with a status below 300 and not when collecting, on_done once and last, nothing
 * after a cancel; callbacks may cancel and start calls.
 */
#ifndef PDD_FUZZ_FAKE_CLIENT_H
#define PDD_FUZZ_FAKE_CLIENT_H

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/mem.h"
#include "net/http_client.h"
#include "proto/wire.h"

enum { FAKE_PATH_MAX = 96, FAKE_PIECE_MAX = 1 << 16, FAKE_CALLS_MAX = 64 };

/* The fuzzer's bytes. */
struct input {
    const uint8_t *at;
    size_t n;
};

static uint8_t take(struct input *in)
{
    if (in->n == 0) return 0;
    in->n--;
    return *in->at++;
}

struct http_call {
    struct http_client *client;
    struct http_call *next;
    struct http_call_spec spec;
    char path[FAKE_PATH_MAX];
    bool posts, head;
    /* of the request, and what was sent of its answer */
    uint32_t n_prompt, n_have, sent;
};

struct http_client {
    struct loop *loop;
    struct http_call *calls; /* oldest first */
    uint32_t n_calls;
    void *of_target;
};

static void fake_client_made(struct http_client *c);  /* the target's */
static void fake_client_freed(struct http_client *c); /* the target's */
static void fake_call_made(struct http_call *call);   /* the target's */
static struct http_call *fake_running; /* whose callback runs; NULL once it was cancelled */

void http_client_config_default(struct http_client_config *ret_config)
{
    *ret_config = (struct http_client_config){.calls_max = FAKE_CALLS_MAX};
}

int http_client_new(struct loop *l, const struct http_client_config *config,
                    struct http_client **ret_client, struct err *e)
{
    (void)config, (void)e;
    struct http_client *c = mem_calloc(1, sizeof *c);
    CHECK(c);
    c->loop = l;
    fake_client_made(c);
    *ret_client = c;
    return 0;
}

static void fake_free(struct http_call *call)
{
    struct http_call **link = &call->client->calls;
    while (*link != call)
        link = &(*link)->next;
    *link = call->next;
    call->client->n_calls--;
    if (fake_running == call) fake_running = NULL;
    mem_free(call);
}

void http_client_free(struct http_client *c)
{
    if (!c) return;
    CHECK(!fake_running);
    while (c->calls)
        fake_free(c->calls);
    fake_client_freed(c);
    mem_free(c);
}

/* What of the request an honest answer would depend on. */
static void fake_read_request(struct http_call *call, const struct http_call_spec *spec)
{
    struct wire_request q;
    if (strcmp(call->path, "/v1/assist") != 0) return;
    CHECK(wire_request_decode(spec->body_taken->data, spec->body_taken->len, &q, NULL) == 0);
    call->n_prompt = q.n_prompt;
    call->n_have = q.n_have;
    wire_request_release(&q);
}

int http_call_start(struct http_client *c, const struct http_call_spec *spec,
                    struct http_call **ret_call, struct err *e)
{
    if (c->n_calls >= FAKE_CALLS_MAX) return err_set(e, ERR_BUSY, "too many calls");
    struct http_call *call = mem_calloc(1, sizeof *call), **link = &c->calls;
    CHECK(call && strlen(spec->path) < sizeof call->path);
    call->client = c;
    call->spec = *spec;
    memcpy(call->path, spec->path, strlen(spec->path) + 1);
    call->posts = strcmp(spec->method, "POST") == 0;
    fake_read_request(call, spec);
    if (spec->body_taken) buf_release(spec->body_taken);
    while (*link)
        link = &(*link)->next;
    *link = call;
    c->n_calls++;
    *ret_call = call;
    fake_call_made(call);
    return 0;
}

void http_call_cancel(struct http_call *call)
{
    if (call) fake_free(call);
}

void http_call_linger(struct http_call *call)
{
    if (call) fake_free(call);
}

const char *http_call_header(const struct http_call *call, const char *name)
{
    (void)call;
    return strcmp(name, "Content-Type") == 0 ? "text/event-stream" : NULL;
}

void http_call_notice(const struct http_call *call, char *text)
{
    (void)call;
    text[0] = 0;
}

int http_result_error(const struct http_result *result, const char *url, http_error_text_fn *read,
                      struct err *e)
{
    char text[256];
    if (result->err.code) return err_set(e, result->err.code, "%s", result->err.text);
    int s = result->status;
    read(result->body, result->body_len, text, sizeof text);
    return err_set(e,
                   s == 429 || s == 503 ? ERR_BUSY
                   : s < 500            ? ERR_BAD_INPUT
                                        : ERR_PROTOCOL,
                   "%s answered %d %s", url, s, text);
}

/* ---- what the target makes happen; each may end with the call gone ---- */

static bool fake_head(struct http_call *call, int status)
{
    if (call->head) return true;
    call->head = true;
    fake_running = call;
    if (call->spec.on_head) call->spec.on_head(call->spec.arg, status);
    bool there = fake_running == call;
    fake_running = NULL;
    return there;
}

static void fake_body(struct http_call *call, const char *data, size_t n)
{
    if (n == 0 || !call->spec.on_body || call->spec.collect || !fake_head(call, 200)) return;
    fake_running = call;
    call->spec.on_body(call->spec.arg, data, n);
    fake_running = NULL;
}

static void fake_done(struct http_call *call, const struct http_result *result)
{
    if (result->status && !fake_head(call, result->status)) return;
    fake_running = call;
    call->spec.on_done(call->spec.arg, result);
    if (fake_running) fake_free(call);
    fake_running = NULL;
}

/* ---- ends of calls, as the network and servers make them ---- */

static void fake_cut(struct http_call *call, int code)
{
    struct http_result r = {.status = call->head ? 200 : 0, .body = ""};
    err_set(&r.err, code, "the fuzzer cut the connection");
    fake_done(call, &r);
}

static void fake_status(struct http_call *call, int status, const char *body, uint32_t retry)
{
    struct http_result r = {
        .status = status, .body = body, .body_len = strlen(body), .retry_after_s = retry};
    fake_done(call, &r);
}

/* One of the ends that a call may have. */
static void fake_end(struct http_call *call, uint8_t how)
{
    static const int statuses[] = {400, 401, 404, 409, 413, 422, 429, 500, 503};
    static const char error[] = "{\"error\":{\"message\":\"no\",\"code\":\"x\"}}";
    if (how % 4 == 0)
        fake_cut(call, ERR_NET);
    else if (how % 4 == 1)
        fake_cut(call, ERR_TIMEOUT);
    else if (how % 4 == 2 || call->head)
        fake_status(call, 200, "", 0);
    else
        fake_status(call, statuses[how / 4 % 9], how & 0x80 ? error : "", how & 0x40 ? 3 : 0);
}

/* ---- the events of a pdd: mostly in order, so that bytes reach what lies behind ---- */

static void fake_token(struct http_call *call, struct input *in, struct wire_event *ev)
{
    static const int32_t beside[] = {0, 0, 0, 0, 0, -1, 1, 40};
    uint8_t how = take(in);
    uint32_t due = call->n_have + call->sent;
    ev->kind = WIRE_TOKEN;
    ev->index = due + (uint32_t)beside[how % 8];
    ev->token = how & 0x40 ? -1 : take(in) + (how & 0x80 ? 200 : 0);
    if (beside[how % 8] == 0) call->sent++;
    if (ev->index > INT32_MAX) ev->index = 0;
    for (unsigned i = how / 8 % 8; i > 0; i--)
        (void)buf_putc(&ev->text, (char)(32 + take(in) % 95));
}

/* Appends an event that the fuzzer's bytes choose. */
static void fake_pdd_event(struct http_call *call, struct input *in, struct buf *out)
{
    struct wire_event ev;
    uint8_t what = take(in);
    wire_event_init(&ev);
    switch (what % 8) {
    case 0:
        ev.kind = WIRE_GRANT;
        snprintf(ev.id, sizeof ev.id, what & 0x80 ? "../x" : "as-1");
        ev.match = (enum wire_match)(what / 8 % 3);
        ev.tokens_max = take(in);
        ev.prompt_tokens = call->n_prompt + (what >= 0x60 && what < 0x80);
        break;
    case 1:
        ev.kind = WIRE_PROGRESS;
        ev.done = take(in);
        ev.total = 255;
        break;
    case 2:
        ev.kind = WIRE_DONE;
        ev.reason = (enum wire_reason)(what / 8 % 6);
        ev.completion_tokens = call->sent + (what >= 0xc0);
        break;
    case 3:
        ev.kind = WIRE_ERROR;
        snprintf(ev.code, sizeof ev.code, "internal");
        snprintf(ev.message, sizeof ev.message, "no");
        break;
    default:
        fake_token(call, in, &ev);
    }
    CHECK(wire_event_encode(&ev, out, NULL) == 0);
    wire_event_release(&ev);
}

#endif
