/* load: see load.h. */
#include "load/load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "proto/wire.h"

enum { READ_BYTES = 64 * 1024, STREAM_COMMON = 1, STREAM_OWN = 2 };

/* ---- the target ---- */

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct load_target *t = ((struct load_call *)SSL_get_app_data(ssl))->target;
    int n = t->session ? 0 : i2d_SSL_SESSION(session, NULL);
    if (n <= 0) return 0;
    unsigned char *at = t->session = mem_alloc((size_t)n);
    CHECK(at);
    t->session_len = i2d_SSL_SESSION(session, &at);
    return 0;
}

/* A fresh copy each time: OpenSSL lets a TLS 1.3 session be taken up only once. */
static void take_up_session(struct load_call *c)
{
    const unsigned char *at = c->target->session;
    if (!c->target->resume || !at) return;
    SSL_SESSION *session = d2i_SSL_SESSION(NULL, &at, c->target->session_len);
    CHECK(session && SSL_set_session(c->ssl, session) == 1);
    SSL_SESSION_free(session);
}

int load_target_init(struct load_target *t, struct loop *l, const char *address, bool tls)
{
    char host[64];
    const char *colon = strrchr(address, ':');
    *t = (struct load_target){.loop = l, .tokenizer = ""};
    size_t n = colon ? (size_t)(colon - address) : 0;
    long port = colon ? strtol(colon + 1, NULL, 10) : 0;
    if (n >= sizeof host) n = 0;
    memcpy(host, address, n);
    host[n] = 0;
    t->address.sin_family = AF_INET;
    t->address.sin_port = htons((uint16_t)port);
    if (port < 1 || port > 65535 || inet_pton(AF_INET, host, &t->address.sin_addr) != 1) {
        fprintf(stderr, "bench_cloud: \"%s\" is no numeric HOST:PORT\n", address);
        return -1;
    }
    if (!tls) return 0;
    t->tls = SSL_CTX_new(TLS_client_method());
    CHECK(t->tls);
    SSL_CTX_set_session_cache_mode(t->tls,
                                   SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
    SSL_CTX_sess_set_new_cb(t->tls, keep_session);
    SSL_CTX_set_mode(t->tls, SSL_MODE_RELEASE_BUFFERS);
    return 0;
}

void load_target_release(struct load_target *t)
{
    mem_free(t->session);
    SSL_CTX_free(t->tls);
}

/* ---- the connection ---- */

static void on_io(evutil_socket_t fd, short what, void *arg);

static void set_interest(struct load_call *c, short what)
{
    if (c->closed || c->interest == what) return;
    if (c->interest) event_del(c->event);
    c->interest = what;
    if (!what) return;
    CHECK(event_assign(c->event, loop_base(c->target->loop), c->fd, (short)(what | EV_PERSIST),
                       on_io, c) == 0);
    CHECK(event_add(c->event, NULL) == 0);
}

static void call_free(struct load_call *c)
{
    event_free(c->event);
    mem_free(c->out);
    mem_free(c);
}

void load_call_close(struct load_call *c)
{
    if (!c || c->closed) return;
    set_interest(c, 0);
    c->closed = true;
    close(c->fd);
    /* A session whose connection ends without a word is taken for bad and not resumed. */
    if (c->ssl) SSL_set_shutdown(c->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(c->ssl);
    c->ssl = NULL;
    if (!c->busy) call_free(c);
}

static void end(struct load_call *c, enum load_end how)
{
    if (c->closed || c->state == LOAD_OVER) return;
    c->state = LOAD_OVER;
    set_interest(c, 0);
    c->hooks->end(c, how);
}

/* Bytes moved, 0: would block, -1: over. Sets what to wait for. */
static ssize_t tls_result(struct load_call *c, int n)
{
    if (n > 0) return n;
    int why = SSL_get_error(c->ssl, n);
    ERR_clear_error();
    if (why == SSL_ERROR_WANT_READ) set_interest(c, EV_READ);
    if (why == SSL_ERROR_WANT_WRITE) set_interest(c, EV_WRITE);
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static ssize_t io_read(struct load_call *c, char *to, size_t n)
{
    if (c->ssl) return tls_result(c, SSL_read(c->ssl, to, (int)n));
    ssize_t got = recv(c->fd, to, n, 0);
    if (got > 0) return got;
    return got < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static ssize_t io_write(struct load_call *c)
{
    const char *from = c->out + c->out_at;
    size_t n = c->out_len - c->out_at;
    if (c->ssl) return tls_result(c, SSL_write(c->ssl, from, (int)n));
    ssize_t put = send(c->fd, from, n, MSG_NOSIGNAL);
    if (put > 0) return put;
    if (put == 0 || (errno != EAGAIN && errno != EINTR)) return -1;
    set_interest(c, EV_WRITE);
    return 0;
}

/* ---- what the server says ---- */

static void head_line(struct load_call *c)
{
    const char *line = c->line;
    if (c->status == 0) {
        const char *blank = strchr(line, ' ');
        c->status = blank ? (int)strtol(blank + 1, NULL, 10) : -1;
    } else if (strncasecmp(line, "Content-Length:", 15) == 0) {
        c->has_length = true;
        c->length_left = strtoull(line + 15, NULL, 10);
    } else if (strncasecmp(line, "Transfer-Encoding:", 18) == 0) {
        c->chunked = true;
    } else if (!*line && c->status == 100) {
        c->status = 0;
    } else if (!*line) {
        c->state = c->has_length ? LOAD_LENGTH : LOAD_STREAM;
        if (c->hooks->head) c->hooks->head(c);
        if (c->state == LOAD_LENGTH && c->length_left == 0) end(c, LOAD_WHOLE);
    }
}

static void stream_line(struct load_call *c)
{
    const char *line = c->line;
    if (strncmp(line, "event: ", 7) == 0) {
        size_t n = strnlen(line + 7, sizeof c->name - 1);
        memcpy(c->name, line + 7, n);
        c->name[n] = 0;
    } else if (strncmp(line, "data: ", 6) == 0) {
        if (c->hooks->event) c->hooks->event(c, c->name, line + 6);
        c->name[0] = 0;
    } else if (c->chunked && line[0] == '0' && !line[1]) {
        end(c, LOAD_WHOLE);
    }
}

static void end_line(struct load_call *c)
{
    if (c->line_len > 0 && c->line[c->line_len - 1] == '\r') c->line_len--;
    c->line[c->line_len] = 0;
    c->line_len = 0;
    if (c->state == LOAD_HEAD)
        head_line(c);
    else
        stream_line(c);
}

static void feed(struct load_call *c, const char *p, size_t n)
{
    while (n > 0 && !c->closed && c->state != LOAD_OVER) {
        size_t used;
        if (c->state == LOAD_LENGTH) {
            used = n < c->length_left ? n : (size_t)c->length_left;
            c->length_left -= used;
            if (c->length_left == 0) end(c, LOAD_WHOLE);
        } else {
            const char *stop = memchr(p, '\n', n);
            size_t part = stop ? (size_t)(stop - p) : n, room = sizeof c->line - 1 - c->line_len;
            memcpy(c->line + c->line_len, p, part < room ? part : room);
            c->line_len += part < room ? part : room;
            used = part + (stop != NULL);
            if (stop) end_line(c);
        }
        p += used;
        n -= used;
    }
}

/* ---- driving ---- */

static void connected(struct load_call *c)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error) {
        end(c, LOAD_FAILED);
        return;
    }
    if (c->target->tls) {
        c->ssl = SSL_new(c->target->tls);
        CHECK(c->ssl && SSL_set_fd(c->ssl, c->fd) == 1);
        SSL_set_app_data(c->ssl, c);
        SSL_set_connect_state(c->ssl);
        take_up_session(c);
    }
    c->state = LOAD_SHAKE;
}

static void shake(struct load_call *c)
{
    if (c->ssl) {
        ssize_t done = tls_result(c, SSL_do_handshake(c->ssl));
        if (done < 0) end(c, LOAD_UNSHAKEN);
        if (done <= 0) return;
        c->resumed = SSL_session_reused(c->ssl) == 1;
    }
    c->state = LOAD_HEAD;
    c->ready_at = clock_us();
    if (c->hooks->ready) c->hooks->ready(c);
}

static void write_out(struct load_call *c)
{
    while (!c->closed && c->state >= LOAD_HEAD && c->state != LOAD_OVER && c->out_at < c->out_len) {
        ssize_t n = io_write(c);
        if (n < 0) return; /* whoever reads will see that, after the answer */
        if (n == 0) return;
        c->out_at += (size_t)n;
        if (c->out_at < c->out_len) continue;
        c->sent_at = clock_us();
        mem_free(c->out);
        c->out = NULL;
        c->out_at = c->out_len = 0;
    }
    if (!c->closed && c->state >= LOAD_HEAD && c->state != LOAD_OVER)
        set_interest(c, c->paused ? 0 : EV_READ);
}

static void read_in(struct load_call *c)
{
    static char bytes[READ_BYTES]; /* one thread, and hooks never read */
    while (!c->closed && !c->paused && c->state != LOAD_OVER) {
        ssize_t n = io_read(c, bytes, sizeof bytes);
        if (n < 0) {
            bool whole = c->state == LOAD_STREAM && !c->chunked;
            end(c, whole ? LOAD_WHOLE : LOAD_CUT);
        }
        if (n <= 0) return;
        feed(c, bytes, (size_t)n);
        if (!c->ssl && (size_t)n < sizeof bytes) return; /* that was all there is */
    }
}

static void on_io(evutil_socket_t fd, short what, void *arg)
{
    struct load_call *c = arg;
    (void)fd;
    c->busy = true;
    if (c->state == LOAD_CONNECT) connected(c);
    if (!c->closed && c->state == LOAD_SHAKE) shake(c);
    if (!c->closed && c->state >= LOAD_HEAD) write_out(c);
    if (!c->closed && c->state >= LOAD_HEAD && (what & EV_READ)) read_in(c);
    c->busy = false;
    if (c->closed) call_free(c);
}

struct load_call *load_call_open(struct load_target *t, const char *bytes, size_t n,
                                 const struct load_hooks *hooks, void *owner)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return NULL;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct load_call *c = mem_calloc(1, sizeof *c);
    if (c) c->event = event_new(loop_base(t->loop), fd, EV_WRITE, on_io, c);
    int rc = connect(fd, (const struct sockaddr *)&t->address, sizeof t->address);
    if (!c || !c->event || (rc != 0 && errno != EINPROGRESS)) {
        if (c && c->event) event_free(c->event);
        mem_free(c);
        close(fd);
        return NULL;
    }
    c->target = t;
    c->hooks = hooks;
    c->owner = owner;
    c->fd = fd;
    c->began = clock_us();
    load_call_send(c, bytes, n);
    set_interest(c, EV_WRITE);
    return c;
}

void load_call_send(struct load_call *c, const char *bytes, size_t n)
{
    if (c->closed || n == 0) return;
    char *more = mem_alloc(c->out_len + n);
    CHECK(more);
    if (c->out) memcpy(more, c->out, c->out_len);
    memcpy(more + c->out_len, bytes, n);
    mem_free(c->out);
    c->out = more;
    c->out_len += n;
    if (c->state >= LOAD_HEAD && c->state != LOAD_OVER) set_interest(c, EV_WRITE);
}

void load_call_pause(struct load_call *c)
{
    c->paused = true;
    if (c->out_len == 0) set_interest(c, 0);
}

/* ---- requests ---- */

int load_assist_bytes(const struct load_target *t, uint32_t n_prompt, uint32_t n_common,
                      uint32_t vocab, uint32_t tokens_max, uint64_t seed, char **ret_bytes,
                      size_t *ret_len)
{
    struct wire_request q;
    struct buf body, all;
    int32_t *ids = mem_alloc(n_prompt * sizeof *ids);
    if (!ids) return -1;
    for (uint32_t i = 0; i < n_prompt; i++)
        ids[i] = (int32_t)(rng_u32(i < n_common ? 0 : seed,
                                   i < n_common ? STREAM_COMMON : STREAM_OWN, i) %
                           vocab);
    wire_request_init(&q);
    q.prompt = ids;
    q.n_prompt = n_prompt;
    q.tokens_max = tokens_max;
    snprintf(q.tokenizer, sizeof q.tokenizer, "%s", t->tokenizer);
    buf_init(&body, WIRE_BODY_MAX);
    buf_init(&all, WIRE_BODY_MAX + 1024);
    int code = wire_request_encode(&q, &body, NULL);
    if (!code)
        code = buf_printf(&all,
                          "POST /v1/assist HTTP/1.1\r\nHost: bench\r\nContent-Type: "
                          "application/json\r\nContent-Length: %zu\r\n%s%s%s\r\n",
                          body.len, t->key ? "Authorization: Bearer " : "", t->key ? t->key : "",
                          t->key ? "\r\n" : "");
    if (!code) code = buf_append(&all, body.data, body.len);
    *ret_len = all.len;
    if (!code && !(*ret_bytes = buf_steal(&all))) code = -1;
    buf_release(&body);
    buf_release(&all);
    mem_free(ids);
    return code ? -1 : 0;
}

int64_t load_number(const char *data, const char *key)
{
    size_t n = strlen(key);
    for (const char *at = data; (at = strstr(at, key)) != NULL; at += n)
        if (at > data && at[-1] == '"' && at[n] == '"' && at[n + 1] == ':')
            return strtoll(at + n + 2, NULL, 10);
    return -1;
}
