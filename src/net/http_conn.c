/*
 * http_conn: one connection of the server, from accept to close.
 *
 * Why not evhttp (libevent's own, version 2.1.12): it stops reading while a handler thinks, so a
 * client that leaves during prefill is not seen (and reading on makes it call exit() when the
 * client pipelines); its timeouts restart with every byte; it replies to malformed heads with HTML
 * and without asking; it takes "0x10" and "-0" as chunk sizes and Content-Length beside
 * Transfer-Encoding. The machine below uses libevent's bufferevents and costs about as much code as
 * those repairs.
 *
 * Relies on: bufferevent callbacks run on the loop thread and may free their bufferevent.
 */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/http_server_impl.h"
#include "net/tls.h"

static const char many_in_all[] = "this server has as many connections as it takes";
static const char many_of_address[] = "there are too many connections from your address";

static void set_deadline(struct http_request *c, uint64_t after_us)
{
    loop_timer_set(c->timer, clock_us() + after_us);
}

void conn_drop_request(struct http_request *c)
{
    body_release(c);
    buf_release(&c->head_text);
    mem_free(c->asked);
    c->asked = NULL;
}

void conn_uncount(struct http_request *c)
{
    if (c->counted != CONN_UNCOUNTED) http_peers_leave(c->server->peers, &c->address);
    c->counted = CONN_UNCOUNTED;
}

static void conn_free(struct http_request *c)
{
    loop_timer_free(c->timer);
    if (c->bev) bufferevent_free(c->bev);
    conn_drop_request(c);
    reply_drop(c);
    buf_release(&c->reply_headers);
    mem_free(c);
}

void conn_close(struct http_request *c)
{
    if (c->state == CONN_DEAD) return;
    c->state = CONN_DEAD;
    stream_forget(c);
    server_forget(c);
    /* The socket closes now, even when a handler is still on the stack. */
    bufferevent_free(c->bev);
    c->bev = NULL;
    loop_timer_clear(c->timer);
    if (!c->in_handler) conn_free(c);
}

void conn_close_and_tell(struct http_request *c)
{
    loop_fn *fn = c->on_close;
    bool told = c->state == CONN_HANDLING || c->state == CONN_STREAMING || c->state == CONN_CUT;
    c->on_close = NULL;
    if (fn && told) {
        c->state = CONN_CUT; /* whatever the callback sends goes nowhere */
        c->in_handler = true;
        fn(c->on_close_arg);
        c->in_handler = false;
        if (c->state == CONN_DEAD) { /* it aborted the request */
            conn_free(c);
            return;
        }
    }
    conn_close(c);
}

void conn_cut_later(struct http_request *c)
{
    c->state = CONN_CUT;
    stream_forget(c);
    bufferevent_disable(c->bev, EV_READ | EV_WRITE);
    set_deadline(c, 0);
}

static void refuse_as(struct http_request *c, int status, const char *code, const char *why)
{
    c->state = CONN_HANDLING;
    c->close_after = true;
    if (status == 429 || status == 503) http_request_reply_header(c, "Retry-After", "1");
    http_reply_error(c, status, code, NULL, "%s", why);
}

/* Refuse what the client sent; the connection ends with this response. */
static void refuse(struct http_request *c, int status, const char *why)
{
    refuse_as(c, status,
              status == 429   ? "too_many_connections"
              : status == 503 ? "overloaded"
                              : NULL,
              why);
}

/* The same for a request because of its body; the owner of the server hears of it. */
static void refuse_body(struct http_request *c, int status, const char *reason, const char *why)
{
    const struct http_server *s = c->server;
    body_release(c); /* what was refused is not to keep out others while the client is told */
    if (s->config.on_refused) s->config.on_refused(c, status, reason, s->arg);
    refuse_as(c, status,
              status == 415   ? "unsupported_media_type"
              : status == 429 ? "too_many_bytes"
              : status == 503 ? "overloaded"
                              : NULL,
              why);
}

static size_t body_max_of(const struct http_request *c)
{
    size_t max = c->server->config.body_max;
    return c->route->body_max > 0 && c->route->body_max < max ? c->route->body_max : max;
}

static void refuse_for(struct http_request *c, enum http_limit limit)
{
    char size[80];
    c->server->limit_met[limit]++;
    switch (limit) {
    case HTTP_LIMIT_BODIES_ADDRESS:
        refuse_body(c, 429, "bodies_of_address",
                    "the requests from your address that are on their way are too large together");
        break;
    case HTTP_LIMIT_BODY_SIZE:
        snprintf(size, sizeof size, "the body is larger than this server takes: %zu bytes at most",
                 body_max_of(c));
        refuse_body(c, 413, "body_size", size);
        break;
    case HTTP_LIMIT_BODY_TIME:
        refuse_body(c, 408, "body_time", "the body of the request took too long");
        break;
    default:
        refuse_body(c, 503, limit == HTTP_LIMIT_BODIES ? "bodies" : "memory",
                    "this server has no memory for the body now");
    }
}

static void begin_request(struct http_request *c, bool first)
{
    c->state = CONN_HEAD;
    c->idle = true;
    c->close_after = c->chunked_out = c->head_only = false;
    c->route = NULL;
    c->on_close = NULL;
    c->n_reply_headers = 0;
    buf_release(&c->reply_headers);
    reply_drop(c);
    if (c->counted == CONN_REQUEST_COUNTED) conn_uncount(c);
    c->chunked = (struct http_chunked){.state = HTTP_CHUNK_SIZE};
    const struct http_server_config *config = &c->server->config;
    set_deadline(c, first ? config->head_timeout_us : config->idle_timeout_us);
}

/* A whole request is there. Nothing of c may be touched after this. */
static void handle(struct http_request *c)
{
    c->state = CONN_HANDLING;
    loop_timer_clear(c->timer);
    c->in_handler = true;
    c->route->handler(c, c->server->arg);
    c->in_handler = false;
    if (c->state == CONN_DEAD) conn_free(c);
}

/* Count the limit; the status that the client hears. */
static int refused_by(const struct http_request *c, enum http_limit limit)
{
    c->server->limit_met[limit]++;
    return limit == HTTP_LIMIT_ADDRESS || limit == HTTP_LIMIT_FORWARDED ? 429 : 503;
}

/* A request through a trusted proxy counts for the client that the proxy names; 0, or a status. */
static int count_request(struct http_request *c)
{
    const struct http_server_config *config = &c->server->config;
    const struct http_head *h = &c->asked->head;
    struct http_address client;
    if (!c->proxied) return 0;
    for (uint32_t i = h->n_fields; i-- > 0;) { /* the last line is the nearest proxy's */
        if (strcasecmp(h->fields[i].name, "X-Forwarded-For") != 0) continue;
        int found =
            http_forwarded_for(h->fields[i].value, config->proxies, config->n_proxies, &client);
        if (found == ERR_NOT_FOUND) continue;
        if (found) return 0;
        c->address = client;
        if (config->per_address_max == 0) return 0;
        int code = http_peers_enter(c->server->peers, &client, config->per_address_max);
        if (code) return refused_by(c, code == ERR_BUSY ? HTTP_LIMIT_FORWARDED : HTTP_LIMIT_MEMORY);
        c->counted = CONN_REQUEST_COUNTED;
        return 0;
    }
    return 0;
}

/* Whether the route's gate lets the request in; otherwise the error was sent. */
static bool pass_gate(struct http_request *c)
{
    const struct http_head *h = &c->asked->head;
    bool last = c->close_after;
    http_gate *gate = server_gate(c);
    if (!gate) return true;
    if (h->chunked || h->content_length > 0) c->close_after = true; /* its body is not read */
    c->state = CONN_HANDLING;
    c->in_handler = true;
    bool passed = gate(c, c->server->arg);
    c->in_handler = false;
    if (passed) c->close_after = last;
    return passed;
}

/* Whether the bytes of the body are what it says; otherwise 415 was sent. */
static bool takes_body(struct http_request *c)
{
    const struct http_head *h = &c->asked->head;
    char why[MEDIA_WHY_MAX];
    const char *reason;
    if ((!h->chunked && h->content_length == 0) || body_is_plain(h, &reason, why)) return true;
    http_request_reply_header(c, "Accept-Encoding", "identity");
    refuse_body(c, 415, reason, why);
    return false;
}

static void begin_body(struct http_request *c)
{
    const struct http_head *h = &c->asked->head;
    enum http_limit broken = HTTP_LIMIT_BODY_SIZE;
    if (!takes_body(c)) return;
    c->body.max = body_max_of(c);
    if (h->content_length <= c->body.max) broken = body_fits(c, h->content_length);
    if (broken != HTTP_LIMITS) {
        refuse_for(c, broken);
        return;
    }
    c->state = CONN_BODY;
    c->body_left = h->content_length;
    set_deadline(c, c->server->config.body_timeout_us);
    bool waits = h->expects_continue && !c->old && (h->chunked || c->body_left > 0);
    if (waits && evbuffer_get_length(bufferevent_get_input(c->bev)) == 0)
        evbuffer_add_printf(bufferevent_get_output(c->bev), "HTTP/1.1 100 Continue\r\n\r\n");
}

/* The head is parsed: what is to be done with the request? */
static void take_request(struct http_request *c)
{
    struct buf allow;
    buf_init(&allow, 256);
    const struct http_head *h = &c->asked->head;
    int busy = count_request(c), status = server_route(c, &allow);
    c->close_after = !h->keep_alive || c->server->draining;
    c->old = h->minor == 0;
    if (allow.len > 0 && !busy) http_request_reply_header(c, "Allow", allow.data);
    if (busy) {
        refuse(c, busy, busy == 429 ? many_of_address : "this server has no memory now");
    } else if (status == 404) {
        refuse(c, 404, "there is nothing at this path");
    } else if (status) {
        refuse(c, status, "this path does not take this method");
    } else if (pass_gate(c)) {
        begin_body(c);
    }
    buf_release(&allow);
}

/* The client's tag, if it fits logs and heads as it is; else a new one. */
static void tag_request(struct http_request *c)
{
    static const char good[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                               "-_.:/+=@~";
    const char *given = http_request_header(c, "X-Request-Id");
    size_t n = given ? strlen(given) : 0;
    if (n > 0 && n <= HTTP_TAG_MAX && strspn(given, good) == n)
        memcpy(c->asked->tag, given, n + 1);
    else
        reply_make_tag(c->asked->tag);
}

/* A ClientHello where plain HTTP is spoken: it would wait for a line end until the deadline. */
static bool is_tls_hello(const struct http_request *c, struct evbuffer *input)
{
    unsigned char record[2]; /* type handshake, version 3.x */
    return !c->server->config.make_bufferevent && evbuffer_copyout(input, record, 2) == 2 &&
           record[0] == 0x16 && record[1] == 3;
}

/* TLS clients call the response a wrong version, and their users know what that means. */
static void refuse_tls_hello(struct http_request *c)
{
    const struct http_server *s = c->server;
    if (s->config.on_refused) s->config.on_refused(c, 400, "tls_on_plain_port", s->arg);
    refuse(c, 400, "this port speaks plain HTTP: use http://");
}

/* Returns whether there may be more to do with what has been read already. */
static bool take_head(struct http_request *c)
{
    struct evbuffer *input = bufferevent_get_input(c->bev);
    char crlf[2];
    if (is_tls_hello(c, input)) {
        refuse_tls_hello(c);
        return false;
    }
    while (evbuffer_copyout(input, crlf, 2) == 2 && crlf[0] == '\r' && crlf[1] == '\n')
        evbuffer_drain(input, 2); /* some clients send an empty line after a body */
    size_t n = evbuffer_get_length(input), max = c->server->config.head_max;
    if (n == 0) return false;
    if (c->idle) set_deadline(c, c->server->config.head_timeout_us);
    c->idle = false;
    if (n > max) n = max;
    const char *text = (const char *)evbuffer_pullup(input, (ev_ssize_t)n);
    size_t len = text ? http_head_length(text, n) : 0;
    if (len == 0) {
        if (n == max) refuse(c, 431, "the head of the request is too large");
        return false;
    }
    const char *why = "out of memory";
    int status = buf_append(&c->head_text, text, len) ? 503 : 0;
    evbuffer_drain(input, len);
    if (!status && !(c->asked = mem_calloc(1, sizeof *c->asked))) status = 503;
    if (!status) status = http_head_parse(c->head_text.data, len, &c->asked->head, &why);
    c->head_only = c->asked && strcmp(c->asked->head.method, "HEAD") == 0;
    if (c->asked) tag_request(c);
    if (status)
        refuse(c, status, why);
    else
        take_request(c);
    return c->state == CONN_BODY;
}

static void take_body(struct http_request *c)
{
    struct body_progress p;
    int status = body_take(c, &p);
    if (p.limit != HTTP_LIMITS)
        refuse_for(c, p.limit);
    else if (status == 413)
        refuse_for(c, HTTP_LIMIT_BODY_SIZE);
    else if (status)
        refuse_body(c, status, "body_malformed", "the body's chunks are malformed");
    else if (p.whole)
        handle(c);
}

/* Go as far as the bytes that were read allow. */
static void advance(struct http_request *c)
{
    if (c->state == CONN_HEAD && !take_head(c)) return;
    if (c->state == CONN_BODY) take_body(c);
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct http_request *c = arg;
    struct evbuffer *input = bufferevent_get_input(bev);
    switch (c->state) {
    case CONN_HEAD:
    case CONN_BODY:
        advance(c);
        break;
    case CONN_HANDLING:
    case CONN_STREAMING:
        /* Reading continues only to notice a disconnect; a client that sends much meanwhile is cut
         * off. */
        if (evbuffer_get_length(input) > HTTP_PIPELINE_MAX) conn_close_and_tell(c);
        break;
    case CONN_FLUSH:
        if (c->close_after)
            evbuffer_drain(input, evbuffer_get_length(input));
        else if (evbuffer_get_length(input) > HTTP_PIPELINE_MAX)
            conn_close(c);
        break;
    case CONN_LINGER:
        evbuffer_drain(input, evbuffer_get_length(input));
        break;
    case CONN_CUT:
    case CONN_DEAD:
        break;
    }
}

/* Closing at once would reset the connection when the client is still sending, and the reset could
 * overtake the response. */
static void linger(struct http_request *c)
{
    c->state = CONN_LINGER;
    tls_say_end(c->bev);
    shutdown(bufferevent_getfd(c->bev), SHUT_WR);
    bufferevent_disable(c->bev, EV_WRITE);
    set_deadline(c, HTTP_LINGER_US);
}

static void on_written(struct bufferevent *bev, void *arg)
{
    struct http_request *c = arg;
    if (c->state == CONN_STREAMING) stream_begin_direct(c);
    if (c->state != CONN_FLUSH || evbuffer_get_length(bufferevent_get_output(bev)) > 0) return;
    if (c->close_after || c->server->draining) {
        if (bufferevent_get_enabled(bev) & EV_READ)
            linger(c);
        else
            conn_close(c); /* the client has closed its side already */
        return;
    }
    begin_request(c, false);
    advance(c);
}

void conn_flush(struct http_request *c)
{
    conn_drop_request(c);
    stream_end_direct(c);
    c->state = CONN_FLUSH;
    set_deadline(c, c->server->config.flush_timeout_us);
    if (evbuffer_get_length(bufferevent_get_output(c->bev)) == 0)
        bufferevent_trigger(c->bev, EV_WRITE, BEV_TRIG_DEFER_CALLBACKS);
}

/* Said in plain HTTP to a client that speaks it to the TLS port, past the failed handshake. */
static void reply_plain(struct http_request *c)
{
    static const char reply[] =
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n"
        "Content-Length: 126\r\n\r\n"
        "{\"error\":{\"message\":\"this port speaks HTTPS: use https://\",\"type\":"
        "\"invalid_request_error\",\"param\":null,\"code\":\"https_needed\"}}";
    char rest[1024];
    int fd = bufferevent_getfd(c->bev);
    (void)!send(fd, reply, sizeof reply - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(fd, SHUT_WR);
    for (int i = 0; i < 16 && recv(fd, rest, sizeof rest, MSG_DONTWAIT) > 0; i++)
        ; /* bytes left unread would turn the close into a reset that overtakes the response */
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct http_request *c = arg;
    if (!(what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))) return;
    if (c->state == CONN_FLUSH && (what & BEV_EVENT_EOF) && (what & BEV_EVENT_READING)) {
        /* The response is complete: a client that only closed its sending side may have it. */
        c->close_after = true;
        bufferevent_disable(bev, EV_READ);
        bufferevent_enable(bev, EV_WRITE); /* TLS has stopped both ways */
        return;
    }
    if (c->state == CONN_HEAD && c->idle && tls_got_plain_http(bev)) reply_plain(c);
    if (c->state == CONN_CUT) return; /* the timer is about to tell */
    conn_close_and_tell(c);
}

static void on_deadline(void *arg)
{
    struct http_request *c = arg;
    switch (c->state) {
    case CONN_HEAD:
        if (c->idle)
            conn_close(c);
        else
            refuse(c, 408, "the head of the request took too long");
        break;
    case CONN_BODY:
        refuse_for(c, HTTP_LIMIT_BODY_TIME);
        break;
    case CONN_FLUSH:
    case CONN_LINGER:
        conn_close(c);
        break;
    case CONN_HANDLING:
    case CONN_STREAMING:
    case CONN_CUT:
        conn_close_and_tell(c);
        break;
    case CONN_DEAD:
        break;
    }
}

static struct bufferevent *make_bufferevent(struct http_server *s, int fd)
{
    struct event_base *base = loop_base(s->loop);
    if (s->config.make_bufferevent)
        return s->config.make_bufferevent(base, fd, s->config.make_bufferevent_arg);
    return bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
}

/* What of the server's limits the new connection breaks: 0, or the status it hears. */
static int count_connection(struct http_request *c)
{
    struct http_server *s = c->server;
    c->proxied = http_networks_have(s->config.proxies, s->config.n_proxies, &c->address);
    if (s->n_connections >= s->config.connections_max) return refused_by(c, HTTP_LIMIT_ALL);
    if (s->config.per_address_max == 0 || c->proxied) return 0;
    int code = http_peers_enter(s->peers, &c->address, s->config.per_address_max);
    if (code) return refused_by(c, code == ERR_BUSY ? HTTP_LIMIT_ADDRESS : HTTP_LIMIT_MEMORY);
    c->counted = CONN_COUNTED;
    return 0;
}

/* NULL: no memory. Its limits are counted, but it is in no list yet. */
static struct http_request *conn_new(struct http_server *s, const struct sockaddr *from)
{
    struct http_request *c = mem_calloc(1, sizeof *c);
    if (!c) return NULL;
    buf_init(&c->head_text, s->config.head_max + 1);
    buf_init(&c->body, s->config.body_max);
    buf_init(&c->reply_headers, HTTP_REPLY_HEAD_MAX / 2);
    c->server = s;
    c->state = CONN_DEAD;
    http_address_from(from, &c->address);
    if (loop_timer_new(s->loop, on_deadline, c, &c->timer, NULL) == 0) return c;
    conn_free(c);
    return NULL;
}

int conn_open(struct http_server *s, int fd, const struct sockaddr *from)
{
    int one = 1;
    struct http_request *c = conn_new(s, from);
    if (!c) {
        s->limit_met[HTTP_LIMIT_MEMORY]++;
        return ERR_NO_MEMORY;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    int broken = count_connection(c);
    c->refused = broken != 0;
    if (!(c->refused && s->n_refused >= HTTP_REFUSED_MAX)) c->bev = make_bufferevent(s, fd);
    if (!c->bev) {
        if (!broken) s->limit_met[HTTP_LIMIT_MEMORY]++;
        conn_uncount(c);
        conn_free(c);
        return ERR_BUSY;
    }
    bufferevent_setcb(c->bev, on_read, on_written, on_event, c);
    c->next = s->connections;
    if (c->next) c->next->prev = c;
    s->connections = c;
    if (c->refused)
        s->n_refused++;
    else
        s->n_connections++;
    begin_request(c, true);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
    if (broken) refuse(c, broken, broken == 429 ? many_of_address : many_in_all);
    return 0;
}
