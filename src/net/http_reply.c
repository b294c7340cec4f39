/*
 * http_reply: what a handler can read of its request and how it responds; see http_server.h.
 * Chunks are framed straight into the connection's output buffer.
 *
 * Plain streams are written *directly*: libevent asks the kernel to watch the socket whenever
 * output is waiting and to stop afterwards, two more system calls for each token than the write
 * itself. So while a stream runs its EV_WRITE is disabled, streams with something to send stand in
 * a list, and one write each sends it at the next iteration of the loop. When the kernel does not
 * take it all, libevent has the stream until that is gone. TLS has records and a handshake in
 * between; libevent keeps it.
 */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/hex.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "net/http_server_impl.h"

enum { ERROR_BODY_MAX = 8192, CHUNK_LINE_MAX = 2 * sizeof(size_t) + 2 };

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

bool http_request_id_is(const struct http_request *r, const char *name)
{
    const char *id = http_request_id(r);
    for (; *id && *name; id++, name++) {
        unsigned char byte = (unsigned char)*id;
        if (byte == '%' && hex_decode(id + 1, &byte, 1)) id += 2;
        if ((char)byte != *name) return false;
    }
    return !*id && !*name;
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

/* The key that a field holds, or NULL. */
static const char *key_of(const struct http_field *f)
{
    static const char scheme[] = "Bearer";
    const char *key = f->value;
    if (strcasecmp(f->name, "Authorization") == 0) {
        if (strncasecmp(key, scheme, sizeof scheme - 1) != 0) return NULL;
        key += sizeof scheme - 1;
        if (*key && *key != ' ') return NULL;
        key += strspn(key, " ");
    } else if (strcasecmp(f->name, "X-Api-Key") != 0 && strcasecmp(f->name, "Api-Key") != 0) {
        return NULL;
    }
    return *key ? key : NULL;
}

const char *http_request_key(const struct http_request *r, const char **ret_other)
{
    const struct http_head *h = r->asked ? &r->asked->head : NULL;
    const char *key = NULL, *other = NULL;
    for (uint32_t i = 0; h && i < h->n_fields; i++) {
        const char *found = key_of(&h->fields[i]);
        if (found && key && strcmp(found, key) != 0) other = h->fields[i].name;
        if (!key) key = found;
    }
    if (ret_other) *ret_other = other;
    return key;
}

const char *http_request_tag(const struct http_request *r)
{
    return r->asked ? r->asked->tag : "";
}

void reply_make_tag(char tag[HTTP_TAG_MAX + 1])
{
    uint64_t x = 0;
    if (getrandom(&x, sizeof x, 0) != (ssize_t)sizeof x) x = clock_us();
    snprintf(tag, HTTP_TAG_MAX + 1, "req-%016llx", (unsigned long long)x);
}

void http_request_peer(const struct http_request *r, char text[HTTP_ADDRESS_TEXT])
{
    http_address_print(&r->address, text);
}

uint64_t http_request_peer_id(const struct http_request *r)
{
    struct http_address counted = http_address_counted(&r->address);
    return fnv_bytes(FNV_BEGIN, counted.bytes, sizeof counted.bytes);
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

/* Whether the client is still there. A handler cannot know that it is being cut off. */
static bool may_reply(const struct http_request *r, enum conn_state expected)
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

const char *reply_origin(const struct http_request *c)
{
    const struct http_server_config *config = &c->server->config;
    const char *origin = http_request_header(c, "Origin");
    for (size_t i = 0; i < config->n_origins; i++) {
        if (strcmp(config->origins[i], "*") == 0) return "*";
        if (origin && strcasecmp(config->origins[i], origin) == 0) return origin;
    }
    return NULL;
}

static void put_cors(const struct http_request *r, struct evbuffer *out)
{
    const char *origin = reply_origin(r);
    if (!r->server->config.n_origins) return;
    if (origin)
        evbuffer_add_printf(out,
                            "Access-Control-Allow-Origin: %s\r\n"
                            "Access-Control-Expose-Headers: Retry-After, X-Request-Id\r\n",
                            origin);
    if (!origin || strcmp(origin, "*") != 0) evbuffer_add_printf(out, "Vary: Origin\r\n");
}

/* What was refused before it was a request gets a new one. */
static void put_tag(const struct http_request *r, struct evbuffer *out)
{
    char made[HTTP_TAG_MAX + 1];
    const char *tag = http_request_tag(r);
    if (!tag[0]) {
        reply_make_tag(made);
        tag = made;
    }
    evbuffer_add_printf(out, "X-Request-Id: %s\r\n", tag);
}

static void put_head(struct http_request *r, int status, const char *content_type)
{
    struct evbuffer *out = output_of(r);
    if (r->server->draining) r->close_after = true;
    evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\n", status, http_status_text(status));
    if (content_type) evbuffer_add_printf(out, "Content-Type: %s\r\n", content_type);
    put_date(out);
    put_tag(r, out);
    put_cors(r, out);
    evbuffer_add(out, r->reply_headers.data, r->reply_headers.len);
    if (r->close_after)
        evbuffer_add_printf(out, "Connection: close\r\n");
    else if (r->old)
        evbuffer_add_printf(out, "Connection: keep-alive\r\n");
}

/* The head of a whole response of n bytes; whether these are to follow. */
static bool put_whole_head(struct http_request *r, int status, const char *content_type, size_t n)
{
    bool without = status == 204 || status == 304; /* such a response has no body, nor its length */
    put_head(r, status, content_type);
    if (without)
        evbuffer_add_printf(output_of(r), "\r\n");
    else
        evbuffer_add_printf(output_of(r), "Content-Length: %zu\r\n\r\n", n);
    return !without && !r->head_only && n > 0;
}

static void end_whole(struct http_request *r, bool failed)
{
    if (failed) {
        conn_cut_later(r);
        return;
    }
    r->on_close = NULL;
    conn_flush(r);
}

void http_reply(struct http_request *r, int status, const char *content_type, const void *data,
                size_t n)
{
    if (!may_reply(r, CONN_HANDLING)) return;
    bool follows = put_whole_head(r, status, content_type, n);
    end_whole(r, follows && evbuffer_add(output_of(r), data, n) != 0);
}

static void free_taken(const void *data, size_t n, void *arg)
{
    (void)data, (void)n;
    mem_free(arg);
}

static void refuse_large_reply(struct http_request *r, enum http_limit broken)
{
    r->server->limit_met[broken]++;
    http_request_reply_header(r, "Retry-After", "1");
    if (broken == HTTP_LIMIT_BODIES_ADDRESS)
        http_reply_error(r, 429, "too_many_bytes", NULL,
                         "the requests and replies of your address are too large together");
    else
        http_reply_error(r, 503, "overloaded", NULL, "this server has no memory for the reply now");
}

void http_reply_take(struct http_request *r, int status, const char *content_type, struct buf *data)
{
    if (!may_reply(r, CONN_HANDLING)) return;
    size_t n = data->len;
    enum http_limit broken = reply_hold(r, n);
    if (broken != HTTP_LIMITS) {
        refuse_large_reply(r, broken);
        return;
    }
    bool follows = put_whole_head(r, status, content_type, n), failed = false;
    if (follows) {
        char *taken = buf_steal(data);
        failed = !taken || evbuffer_add_reference(output_of(r), taken, n, free_taken, taken) != 0;
        if (failed) mem_free(taken);
    }
    end_whole(r, failed);
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
    if (r->server->config.error_body(status, code, message, param, &body) != 0) {
        buf_clear(&body);
        (void)r->server->config.error_body(status, NULL, http_status_text(status), NULL, &body);
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
    int n = vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (n >= (int)sizeof message) /* cut it between characters */
        message[sizeof message - 1 - utf8_pending(message, sizeof message - 1)] = 0;
    reply_error_text(r, status, code, param, message);
}

int http_err_status(int code)
{
    static const struct {
        int code, status;
    } statuses[] = {
        {ERR_BAD_INPUT, 400}, {ERR_UNSUPPORTED, 400}, {ERR_PROTOCOL, 400},  {ERR_DENIED, 401},
        {ERR_NOT_FOUND, 404}, {ERR_LIMIT, 413},       {ERR_BUSY, 429},      {ERR_NO_MEMORY, 503},
        {ERR_TIMEOUT, 504},   {ERR_NET, 502},         {ERR_CANCELLED, 503},
    };
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        if (statuses[i].code == code) return statuses[i].status;
    return 500;
}

void stream_begin_direct(struct http_request *c)
{
    if (c->server->config.make_bufferevent || evbuffer_get_length(output_of(c)) > 0) return;
    bufferevent_disable(c->bev, EV_WRITE);
    c->direct = true;
}

void stream_forget(struct http_request *c)
{
    if (!c->unsent_link) return;
    *c->unsent_link = c->next_unsent;
    if (c->next_unsent) c->next_unsent->unsent_link = c->unsent_link;
    c->unsent_link = NULL;
}

static void send_soon(struct http_request *c)
{
    struct http_server *s = c->server;
    if (!c->direct || c->unsent_link) return;
    if (!s->unsent) loop_timer_set(s->unsent_timer, 0);
    c->next_unsent = s->unsent;
    if (c->next_unsent) c->next_unsent->unsent_link = &c->next_unsent;
    c->unsent_link = &s->unsent;
    s->unsent = c;
}

/* libevent sends what the kernel does not take, and meets any error again. */
static void send_now(struct http_request *c)
{
    struct evbuffer *out = output_of(c);
    evbuffer_unfreeze(out, 1);
    (void)evbuffer_write(out, bufferevent_getfd(c->bev));
    evbuffer_freeze(out, 1);
}

void stream_send_all(void *server)
{
    struct http_server *s = server;
    while (s->unsent) {
        struct http_request *c = s->unsent;
        stream_forget(c);
        send_now(c);
        if (evbuffer_get_length(output_of(c)) == 0) continue;
        c->direct = false;
        bufferevent_enable(c->bev, EV_WRITE);
    }
}

void stream_end_direct(struct http_request *c)
{
    if (!c->direct) return;
    stream_forget(c);
    send_now(c);
    c->direct = false;
    bufferevent_enable(c->bev, EV_WRITE);
}

void http_stream_begin(struct http_request *r, const char *content_type)
{
    if (!may_reply(r, CONN_HANDLING)) return;
    stream_begin_direct(r);
    r->chunked_out = !r->old;
    if (!r->chunked_out) r->close_after = true; /* HTTP/1.0: the close is the end */
    put_head(r, 200, content_type);
    evbuffer_add_printf(output_of(r), "Cache-Control: no-store\r\nX-Accel-Buffering: no\r\n%s\r\n",
                        r->chunked_out ? "Transfer-Encoding: chunked\r\n" : "");
    conn_drop_request(r);
    buf_release(&r->reply_headers);
    r->state = CONN_STREAMING;
    send_soon(r);
}

/* "hex\r\n", the size that stands before a chunk's data. */
static size_t chunk_line(size_t n, char line[CHUNK_LINE_MAX])
{
    size_t digits = 1, len;
    while (digits < 2 * sizeof n && n >> (4 * digits))
        digits++;
    for (len = 0; len < digits; len++)
        line[len] = "0123456789abcdef"[n >> (4 * (digits - 1 - len)) & 15];
    line[len++] = '\r';
    line[len++] = '\n';
    return len;
}

int http_stream_send(struct http_request *r, const void *data, size_t n)
{
    if (!may_reply(r, CONN_STREAMING)) return ERR_CANCELLED;
    if (n == 0 || r->head_only) return 0;
    struct evbuffer *out = output_of(r);
    size_t pending = evbuffer_get_length(out), max = r->server->config.output_max;
    if (n > max || pending > max - n) {
        conn_cut_later(r);
        return ERR_LIMIT;
    }
    char line[CHUNK_LINE_MAX];
    int failed = r->chunked_out ? evbuffer_add(out, line, chunk_line(n, line)) : 0;
    failed |= evbuffer_add(out, data, n);
    if (r->chunked_out) failed |= evbuffer_add(out, "\r\n", 2);
    send_soon(r);
    if (!failed) return 0;
    conn_cut_later(r);
    return ERR_LIMIT;
}

void http_stream_end(struct http_request *r)
{
    if (!may_reply(r, CONN_STREAMING)) return;
    if (r->chunked_out && !r->head_only) evbuffer_add(output_of(r), "0\r\n\r\n", 5);
    r->on_close = NULL;
    conn_flush(r);
}

void http_request_abort(struct http_request *r)
{
    r->on_close = NULL;
    conn_close(r);
}
