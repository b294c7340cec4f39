/* script_cloud: see script_cloud.h. */
#include "support/script_cloud.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "proto/wire.h"

enum { CONNECTIONS = 64, REQUEST_MAX = 8 << 20 };

struct connection {
    int fd; /* -1: free */
    struct buf in;
};

struct script_cloud {
    struct script script;
    struct connection connections[CONNECTIONS];
    pthread_mutex_t lock;
    pthread_t thread;
    int listener, stop[2];
    uint32_t accepted, asked;
    struct script_refine refine;
    char url[64];
};

static void drop(struct connection *c)
{
    if (c->fd < 0) return;
    close(c->fd);
    c->fd = -1;
    buf_release(&c->in);
}

static void send_bytes(struct connection *c, const char *data, size_t n)
{
    while (n > 0 && c->fd >= 0) {
        ssize_t sent = send(c->fd, data, n, MSG_NOSIGNAL);
        if (sent <= 0) return;
        data += sent;
        n -= (size_t)sent;
    }
}

static void send_text(struct connection *c, const char *text)
{
    send_bytes(c, text, strlen(text));
}

static void send_chunk(struct connection *c, const char *data, size_t n)
{
    char head[32];
    snprintf(head, sizeof head, "%zx\r\n", n);
    send_text(c, head);
    send_bytes(c, data, n);
    send_text(c, "\r\n");
}

/* The reply to a whole request, except for POST /v1/assist. */
static void reply(struct connection *c, int status, const char *json)
{
    char head[160];
    snprintf(head, sizeof head,
             "HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
             status, strlen(json));
    send_text(c, head);
    send_text(c, json);
}

struct stream {
    struct script_cloud *cloud;
    struct connection *c;
    const struct script *s;
    struct wire_event ev;
    uint32_t event, index, limit;
    uint32_t sent;    /* tokens */
    uint32_t version; /* of the refined prompt, sent so far */
    bool faulty, open, refines;
};

static void send_event(struct stream *st)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    if (wire_event_encode(&st->ev, &b, NULL) == 0) {
        send_chunk(st->c, b.data, b.len);
    } else {
        st->open = false;
        drop(st->c);
    }
    buf_release(&b);
}

static void send_half_event(struct stream *st)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    if (wire_event_encode(&st->ev, &b, NULL) == 0) send_chunk(st->c, b.data, b.len / 2);
    buf_release(&b);
}

static void send_token(struct stream *st, uint32_t index, int32_t id)
{
    st->ev.kind = WIRE_TOKEN;
    st->ev.index = index;
    st->ev.token = id;
    send_event(st);
}

static void send_done(struct stream *st, enum wire_reason reason)
{
    st->ev.kind = WIRE_DONE;
    st->ev.reason = reason;
    st->ev.completion_tokens = st->sent + (st->faulty && st->s->fault == SCRIPT_COUNT);
    send_event(st);
    send_text(st->c, "0\r\n\r\n");
    st->open = false;
}

static bool is_left(const struct connection *c)
{
    char byte;
    ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN);
}

static void send_again_and_again(struct stream *st)
{
    while (st->open && !is_left(st->c)) {
        send_event(st);
        clock_sleep_us(2000);
    }
    st->open = false;
    drop(st->c);
}

/* The fault takes the place of an event: true when that event is not sent any more. */
static bool strike(struct stream *st)
{
    switch (st->s->fault) {
    case SCRIPT_CUT_HALF:
        send_half_event(st);
        st->open = false;
        drop(st->c);
        return true;
    case SCRIPT_CUT:
        st->open = false;
        drop(st->c);
        return true;
    case SCRIPT_STALL:
        st->open = false;
        return true;
    case SCRIPT_GARBAGE:
        send_chunk(st->c, "event: token\ndata: {\"i\"\n\n", 25);
        return true;
    case SCRIPT_REPEAT:
        send_event(st);
        return false;
    case SCRIPT_SKIP:
        return true;
    case SCRIPT_OTHER:
        if (st->index > 1 && st->ev.kind == WIRE_TOKEN)
            send_token(st, st->index - 2, st->s->tokens[st->index - 2] + 1);
        return true;
    case SCRIPT_BAD_ID:
        if (st->ev.kind == WIRE_TOKEN) send_token(st, st->index - 1, 1 << 20);
        return true;
    case SCRIPT_END_TOKEN:
        if (st->ev.kind == WIRE_TOKEN) send_token(st, st->index - 1, st->s->end_token);
        return true;
    case SCRIPT_ERROR:
        st->ev.kind = WIRE_ERROR;
        snprintf(st->ev.code, sizeof st->ev.code, "internal");
        snprintf(st->ev.message, sizeof st->ev.message, "a scripted mishap");
        return false;
    case SCRIPT_DRAIN:
        send_done(st, WIRE_DRAIN);
        return true;
    case SCRIPT_AGAIN:
        send_again_and_again(st);
        return true;
    case SCRIPT_STOP:
        if (st->ev.kind != WIRE_GRANT) return false;
        send_done(st, WIRE_STOP);
        return true;
    default:
        return false;
    }
}

static void next_event(struct stream *st)
{
    bool hit = st->faulty && st->event == st->s->at;
    st->event++;
    if (hit && strike(st)) return;
    st->sent += st->ev.kind == WIRE_TOKEN;
    if (st->ev.kind == WIRE_DONE)
        send_done(st, st->ev.reason);
    else
        send_event(st);
}

static void set_token(struct stream *st)
{
    const struct script *s = st->s;
    st->ev.kind = WIRE_TOKEN;
    st->ev.index = st->index;
    st->ev.token = s->tokens[st->index] + (st->index + 1 == s->lies);
    buf_clear(&st->ev.text);
    if (s->texts && buf_puts(&st->ev.text, s->texts[st->index])) st->open = false;
    st->index++;
}

static void send_refined(struct stream *st)
{
    const struct script *s = st->s;
    uint32_t v = st->version;
    bool refuses = s->refused && v == (s->takes_back ? 1 : 0);
    st->ev.kind = WIRE_REFINED;
    st->ev.version = ++st->version;
    st->ev.final = refuses || v + 1 == SCRIPT_VERSIONS || !s->kept[v + 1];
    st->ev.ratio = 0.5f;
    st->ev.coverage = 0.9f;
    st->ev.chunk = 1;
    buf_clear(&st->ev.kept);
    snprintf(st->ev.refused, sizeof st->ev.refused, "%s", refuses ? s->refused : "");
    if (!refuses && buf_append(&st->ev.kept, s->kept[v], wire_kept_bytes(s->prompt_tokens, 1)))
        st->open = false;
    send_event(st);
}

static bool refines_now(const struct stream *st)
{
    const struct script *s = st->s;
    uint32_t v = st->version;
    if (!st->refines || v == SCRIPT_VERSIONS) return false;
    return s->refused && !s->takes_back ? v == 0 : s->kept[v] && st->index >= s->kept_at[v];
}

static void stream_tokens(struct stream *st)
{
    const struct script *s = st->s;
    while (st->open && st->index < s->n && st->index < st->limit) {
        if (refines_now(st)) send_refined(st);
        if (s->token_pause_us) clock_sleep_us(s->token_pause_us);
        set_token(st);
        next_event(st);
    }
    if (!st->open) return;
    bool over = s->ends && st->index == s->n && st->index < st->limit;
    st->ev.kind = WIRE_DONE;
    st->ev.reason = over ? WIRE_STOP : WIRE_BUDGET;
    next_event(st);
}

static void stream(struct script_cloud *cloud, struct connection *c, const struct wire_request *q)
{
    const struct script *s = &cloud->script;
    struct stream st = {.cloud = cloud, .c = c, .s = s, .index = q->n_have, .open = true};
    st.limit = q->n_have + q->tokens_max;
    st.faulty = cloud->asked == 1 || s->always;
    if (st.faulty && s->fault == SCRIPT_FLOOD) st.limit = s->n;
    wire_event_init(&st.ev);
    send_text(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                 "Transfer-Encoding: chunked\r\n\r\n");
    if (s->grant_pause_us) clock_sleep_us(s->grant_pause_us);
    st.ev.kind = WIRE_GRANT;
    snprintf(st.ev.id, sizeof st.ev.id, "script");
    st.ev.match = s->other_words ? WIRE_TEXT : s->other_numerics ? WIRE_WEIGHTS : WIRE_EXACT;
    st.ev.tokens_max = q->tokens_max;
    st.refines = q->refine.ratio > 0.0f && (s->kept[0] || s->refused);
    st.ev.refine = st.refines;
    st.ev.prompt_tokens = s->prompt_tokens + (st.faulty && s->fault == SCRIPT_PROMPT);
    next_event(&st);
    stream_tokens(&st);
    wire_event_release(&st.ev);
}

static void answer(struct script_cloud *cloud, struct connection *c, const char *body, size_t n)
{
    const struct script *s = &cloud->script;
    struct wire_request q;
    wire_request_init(&q);
    if (wire_request_decode(body, n, &q, NULL)) {
        wire_request_release(&q);
        drop(c);
        return;
    }
    bool faulty = ++cloud->asked == 1 || s->always;
    cloud->refine = (struct script_refine){q.refine.ratio, q.refine.held, q.refine.n_whole,
                                           q.refine.n_whole > 1 ? (uint32_t)q.refine.whole[1] : 0};
    if (faulty && s->fault == SCRIPT_REFUSE)
        reply(c, s->status ? s->status : 503, "{\"error\":{\"message\":\"no room\"}}");
    else if (faulty && s->fault == SCRIPT_NO_HTTP)
        send_text(c, "I am no server\r\n\r\n");
    else if (s->other_words && q.prompt)
        reply(c, 400, "{\"error\":{\"message\":\"send messages\"}}");
    else
        stream(cloud, c, &q);
    wire_request_release(&q);
}

/* Serve one whole request that is in the buffer; false when there is none yet. */
static bool serve(struct script_cloud *cloud, struct connection *c)
{
    char *end = strstr(c->in.data, "\r\n\r\n");
    if (!end) return false;
    size_t head = (size_t)(end - c->in.data) + 4, body = 0;
    char *length = strcasestr(c->in.data, "\r\nContent-Length:");
    if (length && length < end) body = strtoul(length + 17, NULL, 10);
    if (c->in.len < head + body) return false;
    if (strncmp(c->in.data, "POST ", 5) == 0)
        answer(cloud, c, c->in.data + head, body);
    else
        reply(c, 200, "{}");
    if (c->fd >= 0) buf_consume(&c->in, head + body);
    return c->fd >= 0;
}

static void receive(struct script_cloud *cloud, struct connection *c)
{
    char bytes[65536];
    ssize_t n = recv(c->fd, bytes, sizeof bytes, 0);
    if (n <= 0) {
        drop(c);
        return;
    }
    if (buf_append(&c->in, bytes, (size_t)n)) { /* a test may let memory give out, here too */
        drop(c);
        return;
    }
    pthread_mutex_lock(&cloud->lock);
    while (serve(cloud, c)) {
    }
    pthread_mutex_unlock(&cloud->lock);
}

static void accept_one(struct script_cloud *cloud)
{
    int fd = accept(cloud->listener, NULL, NULL);
    int on = 1;
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* or each event waits for an ACK */
    pthread_mutex_lock(&cloud->lock);
    cloud->accepted++;
    pthread_mutex_unlock(&cloud->lock);
    for (int i = 0; i < CONNECTIONS; i++) {
        if (cloud->connections[i].fd >= 0) continue;
        cloud->connections[i].fd = fd;
        buf_init(&cloud->connections[i].in, REQUEST_MAX);
        return;
    }
    close(fd);
}

static void *run(void *arg)
{
    struct script_cloud *cloud = arg;
    for (;;) {
        struct pollfd fds[CONNECTIONS + 2] = {{cloud->stop[0], POLLIN, 0},
                                              {cloud->listener, POLLIN, 0}};
        for (int i = 0; i < CONNECTIONS; i++)
            fds[i + 2] = (struct pollfd){cloud->connections[i].fd, POLLIN, 0};
        if (poll(fds, CONNECTIONS + 2, -1) < 0) continue;
        if (fds[0].revents) return NULL;
        for (int i = 0; i < CONNECTIONS; i++)
            if (fds[i + 2].revents && cloud->connections[i].fd == fds[i + 2].fd)
                receive(cloud, &cloud->connections[i]);
        if (fds[1].revents) accept_one(cloud);
    }
}

struct script_cloud *script_cloud_start(const struct script *s)
{
    struct script_cloud *c = mem_calloc(1, sizeof *c);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof at;
    CHECK(c);
    c->script = *s;
    pthread_mutex_init(&c->lock, NULL);
    for (int i = 0; i < CONNECTIONS; i++)
        c->connections[i].fd = -1;
    c->listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(c->listener >= 0 && bind(c->listener, (struct sockaddr *)&at, sizeof at) == 0 &&
          listen(c->listener, 64) == 0 &&
          getsockname(c->listener, (struct sockaddr *)&at, &n) == 0 && pipe(c->stop) == 0);
    snprintf(c->url, sizeof c->url, "http://127.0.0.1:%u", ntohs(at.sin_port));
    CHECK(pthread_create(&c->thread, NULL, run, c) == 0);
    return c;
}

void script_cloud_set(struct script_cloud *c, const struct script *s)
{
    pthread_mutex_lock(&c->lock);
    c->script = *s;
    c->asked = 0;
    pthread_mutex_unlock(&c->lock);
}

const char *script_cloud_url(const struct script_cloud *c)
{
    return c->url;
}

uint32_t script_cloud_connections(struct script_cloud *c)
{
    pthread_mutex_lock(&c->lock);
    uint32_t n = c->accepted;
    pthread_mutex_unlock(&c->lock);
    return n;
}

uint32_t script_cloud_asked(struct script_cloud *c)
{
    pthread_mutex_lock(&c->lock);
    uint32_t n = c->asked;
    pthread_mutex_unlock(&c->lock);
    return n;
}

struct script_refine script_cloud_refine(struct script_cloud *c)
{
    pthread_mutex_lock(&c->lock);
    struct script_refine r = c->refine;
    pthread_mutex_unlock(&c->lock);
    return r;
}

void script_cloud_stop(struct script_cloud *c)
{
    CHECK(write(c->stop[1], "", 1) == 1);
    pthread_join(c->thread, NULL);
    for (int i = 0; i < CONNECTIONS; i++)
        if (c->connections[i].fd >= 0) drop(&c->connections[i]);
    close(c->listener);
    close(c->stop[0]);
    close(c->stop[1]);
    pthread_mutex_destroy(&c->lock);
    mem_free(c);
}
