/*
 * http_conn: one connection of the server, from accept to close.
 *
 * Why not evhttp (libevent's own, version 2.1.12): it stops reading while a handler thinks, so a
 * client that leaves during prefill is not seen (and reading on makes it call exit() when the
 * client pipelines); its timeouts restart with every byte; it answers malformed heads with HTML and
 * without asking; it takes "0x10" and "-0" as chunk sizes and Content-Length beside
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
#include <string.h>
#include <sys/socket.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/http_server_impl.h"

static void set_deadline(struct http_request *c, uint64_t after_us)
{
    loop_timer_set(c->timer, clock_us() + after_us);
}

void conn_drop_body(struct http_request *c)
{
    c->server->body_bytes -= c->body.len;
    buf_release(&c->body);
}

static void conn_free(struct http_request *c)
{
    loop_timer_free(c->timer);
    if (c->bev) bufferevent_free(c->bev);
    conn_drop_body(c);
    buf_release(&c->head_text);
    buf_release(&c->reply_headers);
    mem_free(c);
}

void conn_close(struct http_request *c)
{
    if (c->state == CONN_DEAD) return;
    c->state = CONN_DEAD;
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
    bufferevent_disable(c->bev, EV_READ | EV_WRITE);
    set_deadline(c, 0);
}

/* Refuse what the client sent; the connection ends with this answer. */
static void refuse(struct http_request *c, int status, const char *why)
{
    c->state = CONN_HANDLING;
    c->close_after = true;
    http_reply_error(c, status, status == 503 ? "overloaded" : NULL, NULL, "%s", why);
}

static void begin_request(struct http_request *c, bool first)
{
    c->state = CONN_HEAD;
    c->idle = true;
    c->close_after = c->chunked_out = false;
    c->route = NULL;
    c->id[0] = 0;
    c->on_close = NULL;
    c->n_reply_headers = 0;
    buf_clear(&c->reply_headers);
    buf_clear(&c->head_text);
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

/* The head is parsed: what is to be done with the request? */
static void take_request(struct http_request *c)
{
    struct buf allow;
    buf_init(&allow, 256);
    int status = server_route(c, &allow);
    c->close_after = !c->head.keep_alive || c->server->draining;
    if (status == 404) {
        refuse(c, 404, "there is nothing at this path");
    } else if (status) {
        http_request_reply_header(c, "Allow", allow.data);
        refuse(c, status, "this path does not take this method");
    } else if (c->head.content_length > c->server->config.body_max) {
        refuse(c, 413, "the body is larger than this server takes");
    } else {
        c->state = CONN_BODY;
        c->body_left = c->head.content_length;
        set_deadline(c, c->server->config.body_timeout_us);
        struct evbuffer *input = bufferevent_get_input(c->bev);
        if (c->head.expects_continue && (c->head.chunked || c->body_left > 0) &&
            evbuffer_get_length(input) == 0)
            evbuffer_add_printf(bufferevent_get_output(c->bev), "HTTP/1.1 100 Continue\r\n\r\n");
    }
    buf_release(&allow);
}

/* Returns whether there may be more to do with what has been read already. */
static bool take_head(struct http_request *c)
{
    struct evbuffer *input = bufferevent_get_input(c->bev);
    char crlf[2];
    while (evbuffer_copyout(input, crlf, 2) == 2 && crlf[0] == '\r' && crlf[1] == '\n')
        evbuffer_drain(input, 2); /* some clients send an empty line behind a body */
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
    if (!status) status = http_head_parse(c->head_text.data, len, &c->head, &why);
    if (status)
        refuse(c, status, why);
    else
        take_request(c);
    return c->state == CONN_BODY;
}

static int take_length_bytes(struct http_request *c, struct evbuffer *input)
{
    size_t n = evbuffer_get_length(input);
    if (n > c->body_left) n = (size_t)c->body_left;
    if (n == 0) return 0;
    int code = buf_reserve(&c->body, n);
    if (code) return code == ERR_LIMIT ? 413 : 503;
    evbuffer_remove(input, c->body.data + c->body.len, n);
    c->body.len += n;
    c->body.data[c->body.len] = 0;
    c->body_left -= n;
    return 0;
}

static int take_chunked_bytes(struct http_request *c, struct evbuffer *input)
{
    struct evbuffer_iovec piece;
    int status = 0;
    while (!status && c->chunked.state != HTTP_CHUNK_DONE &&
           evbuffer_peek(input, -1, NULL, &piece, 1) > 0) {
        size_t used = 0;
        status = http_chunked_feed(&c->chunked, piece.iov_base, piece.iov_len, &c->body, &used);
        evbuffer_drain(input, used);
    }
    return status;
}

static void take_body(struct http_request *c)
{
    struct evbuffer *input = bufferevent_get_input(c->bev);
    size_t before = c->body.len;
    int status = c->head.chunked ? take_chunked_bytes(c, input) : take_length_bytes(c, input);
    c->server->body_bytes += c->body.len - before;
    if (!status && c->server->body_bytes > HTTP_BODIES_MAX) status = 503;
    bool whole = c->head.chunked ? c->chunked.state == HTTP_CHUNK_DONE : c->body_left == 0;
    if (status == 413)
        refuse(c, 413, "the body is larger than this server takes");
    else if (status == 503)
        refuse(c, 503, "this server has no memory for the body now");
    else if (status)
        refuse(c, status, "the body's chunks are malformed");
    else if (whole)
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
        /* Reading goes on only to see the client leave; who sends much meanwhile is cut off. */
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
 * overtake the answer. */
static void linger(struct http_request *c)
{
    c->state = CONN_LINGER;
    shutdown(bufferevent_getfd(c->bev), SHUT_WR);
    bufferevent_disable(c->bev, EV_WRITE);
    set_deadline(c, HTTP_LINGER_US);
}

static void on_written(struct bufferevent *bev, void *arg)
{
    struct http_request *c = arg;
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
    conn_drop_body(c);
    c->state = CONN_FLUSH;
    set_deadline(c, c->server->config.flush_timeout_us);
    if (evbuffer_get_length(bufferevent_get_output(c->bev)) == 0)
        bufferevent_trigger(c->bev, EV_WRITE, BEV_TRIG_DEFER_CALLBACKS);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct http_request *c = arg;
    (void)bev;
    if (!(what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))) return;
    if (c->state == CONN_FLUSH && (what & BEV_EVENT_EOF) && (what & BEV_EVENT_READING)) {
        /* The answer is complete: a client that only closed its sending side may have it. */
        c->close_after = true;
        return;
    }
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
        refuse(c, 408, "the body of the request took too long");
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

int conn_open(struct http_server *s, int fd, const char *peer, bool refused)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct http_request *c = mem_calloc(1, sizeof *c);
    if (!c) return ERR_NO_MEMORY;
    buf_init(&c->head_text, s->config.head_max + 1);
    buf_init(&c->body, s->config.body_max);
    buf_init(&c->reply_headers, HTTP_REPLY_HEAD_MAX / 2);
    c->server = s;
    c->refused = refused;
    c->state = CONN_DEAD;
    size_t peer_len = strnlen(peer, HTTP_PEER_TEXT - 1);
    memcpy(c->peer, peer, peer_len);
    if (loop_timer_new(s->loop, on_deadline, c, &c->timer, NULL) ||
        (c->bev = make_bufferevent(s, fd)) == NULL) {
        conn_free(c);
        return ERR_NO_MEMORY;
    }
    bufferevent_setcb(c->bev, on_read, on_written, on_event, c);
    c->next = s->connections;
    if (c->next) c->next->prev = c;
    s->connections = c;
    if (refused)
        s->n_refused++;
    else
        s->n_connections++;
    begin_request(c, true);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
    if (refused) {
        http_request_reply_header(c, "Retry-After", "1");
        refuse(c, 503, "this server has as many connections as it takes");
    }
    return 0;
}
