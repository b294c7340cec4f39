/*
 * http_reply: what a handler can read of its request and how it answers; see http_server.h.
 * Chunks are framed straight into the connection's output buffer.
 */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/check.h"
#include "net/http_server_impl.h"
#include "net/wire.h"

enum { ERROR_BODY_MAX = 8192 };

const char *http_request_method(const struct http_request *r)
{
    return r->asked ? r->asked->head.method : "";
}

const char *http_request_path(const struct http_request *r)
{
    return r->asked ? r->asked->head.path : "";
}

const char *http_request_query(const struct http_request *r)
{
    return r->asked ? r->asked->head.query : "";
}

const char *http_request_id(const struct http_request *r)
{
    return r->asked ? r->asked->id : "";
}

const char *http_request_header(const struct http_request *r, const char *name)
{
    return r->asked ? http_head_field(&r->asked->head, name) : NULL;
}

const char *http_request_body(const struct http_request *r, size_t *ret_len)
{
    *ret_len = r->body.len;
    return r->body.data;
}

const char *http_request_bearer(const struct http_request *r)
{
    const char *value = http_request_header(r, "Authorization");
    if (!value || strncasecmp(value, "Bearer ", 7) != 0) return NULL;
    value += 7;
    value += strspn(value, " ");
    return value;
}

void http_request_peer(const struct http_request *r, char text[HTTP_ADDRESS_TEXT])
{
    http_address_print(&r->address, text);
}

void http_request_on_close(struct http_request *r, loop_fn *fn, void *arg)
{
    r->on_close = fn;
    r->on_close_arg = arg;
}

void http_request_reply_header(struct http_request *r, const char *name, const char *value)
{
    CHECK(r->n_reply_headers < HTTP_REPLY_HEADERS_MAX);
    CHECK(!strpbrk(name, "\r\n: ") && !strpbrk(value, "\r\n"));
    r->n_reply_headers++;
    (void)buf_printf(&r->reply_headers, "%s: %s\r\n", name, value);
}

/* Is there still somebody to answer? A handler cannot know that its client is being cut off. */
static bool answerable(const struct http_request *r, enum conn_state expected)
{
    if (r->state == CONN_CUT || r->state == CONN_DEAD) return false;
    CHECK(r->state == expected);
    return true;
}

static struct evbuffer *output_of(const struct http_request *r)
{
    return bufferevent_get_output(r->bev);
}

/* RFC 9110 wants a Date; strftime would write it in the user's language. */
static void put_date(struct evbuffer *out)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t now = time(NULL);
    struct tm t;
    if (!gmtime_r(&now, &t)) return;
    evbuffer_add_printf(out, "Date: %.3s, %02d %.3s %04d %02d:%02d:%02d GMT\r\n",
                        days + 3 * t.tm_wday, t.tm_mday, months + 3 * t.tm_mon, t.tm_year + 1900,
                        t.tm_hour, t.tm_min, t.tm_sec);
}

static void put_head(struct http_request *r, int status, const char *content_type)
{
    struct evbuffer *out = output_of(r);
    if (r->server->draining) r->close_after = true;
    evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\n", status,
                        http_status_text(status), content_type);
    put_date(out);
    evbuffer_add(out, r->reply_headers.data, r->reply_headers.len);
    if (r->close_after)
        evbuffer_add_printf(out, "Connection: close\r\n");
    else if (r->old)
        evbuffer_add_printf(out, "Connection: keep-alive\r\n");
}

void http_reply(struct http_request *r, int status, const char *content_type, const void *data,
                size_t n)
{
    if (!answerable(r, CONN_HANDLING)) return;
    struct evbuffer *out = output_of(r);
    put_head(r, status, content_type);
    if (status == 204 || status == 304)
        evbuffer_add_printf(out, "\r\n");
    else
        evbuffer_add_printf(out, "Content-Length: %zu\r\n\r\n", n);
    if (status != 204 && status != 304 && n > 0 && evbuffer_add(out, data, n) != 0) {
        conn_cut_later(r);
        return;
    }
    r->on_close = NULL;
    conn_flush(r);
}

void http_reply_json(struct http_request *r, int status, const char *json, size_t n)
{
    http_reply(r, status, "application/json", json, n);
}

static void reply_error_text(struct http_request *r, int status, const char *code,
                             const char *param, const char *message)
{
    struct buf body;
    buf_init(&body, ERROR_BODY_MAX);
    if (wire_error_body(status, code, message, param, &body) != 0) {
        buf_clear(&body);
        (void)wire_error_body(status, NULL, http_status_text(status), NULL, &body);
    }
    http_reply_json(r, status, body.data, body.len);
    buf_release(&body);
}

void http_reply_error(struct http_request *r, int status, const char *code, const char *param,
                      const char *format, ...)
{
    char message[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    reply_error_text(r, status, code, param, message);
}

void http_reply_err(struct http_request *r, const struct err *e, const char *param)
{
    static const struct {
        int code, status;
    } statuses[] = {
        {ERR_BAD_INPUT, 400}, {ERR_UNSUPPORTED, 400}, {ERR_PROTOCOL, 400},  {ERR_DENIED, 401},
        {ERR_NOT_FOUND, 404}, {ERR_LIMIT, 413},       {ERR_BUSY, 429},      {ERR_NO_MEMORY, 503},
        {ERR_TIMEOUT, 504},   {ERR_NET, 502},         {ERR_CANCELLED, 503},
    };
    int status = 500;
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        if (statuses[i].code == e->code) status = statuses[i].status;
    reply_error_text(r, status, err_code_name(e->code), param, e->text);
}

void http_stream_begin(struct http_request *r, const char *content_type)
{
    if (!answerable(r, CONN_HANDLING)) return;
    r->chunked_out = !r->old;
    if (!r->chunked_out) r->close_after = true; /* HTTP/1.0: the close is the end */
    put_head(r, 200, content_type);
    evbuffer_add_printf(output_of(r), "Cache-Control: no-store\r\nX-Accel-Buffering: no\r\n%s\r\n",
                        r->chunked_out ? "Transfer-Encoding: chunked\r\n" : "");
    conn_drop_request(r);
    buf_release(&r->reply_headers);
    r->state = CONN_STREAMING;
}

int http_stream_send(struct http_request *r, const void *data, size_t n)
{
    if (!answerable(r, CONN_STREAMING)) return ERR_CANCELLED;
    if (n == 0) return 0;
    struct evbuffer *out = output_of(r);
    size_t pending = evbuffer_get_length(out), max = r->server->config.output_max;
    if (n > max || pending > max - n) {
        conn_cut_later(r);
        return ERR_LIMIT;
    }
    if (r->chunked_out) evbuffer_add_printf(out, "%zx\r\n", n);
    int failed = evbuffer_add(out, data, n);
    if (r->chunked_out) failed |= evbuffer_add(out, "\r\n", 2);
    if (!failed) return 0;
    conn_cut_later(r);
    return ERR_LIMIT;
}

void http_stream_end(struct http_request *r)
{
    if (!answerable(r, CONN_STREAMING)) return;
    if (r->chunked_out) evbuffer_add(output_of(r), "0\r\n\r\n", 5);
    r->on_close = NULL;
    conn_flush(r);
}

void http_request_abort(struct http_request *r)
{
    r->on_close = NULL;
    conn_close(r);
}

size_t http_stream_pending(const struct http_request *r)
{
    return r->bev ? evbuffer_get_length(output_of(r)) : 0;
}
