/* relay: see relay.h. */
#include "lab/relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/os.h"

enum { BACKLOG = 1024 };

/* Bytes that arrived together and leave together. */
struct parcel {
    struct parcel *next;
    uint64_t due;
    struct evbuffer *bytes; /* NULL: the end of this direction */
};

struct pair;

struct way {
    struct pair *pair;
    struct bufferevent *from, *to;
    struct parcel *first, **last;
    struct loop_timer *timer;
    uint64_t free_at; /* when the rate lets the next byte start */
    uint64_t last_due;
    size_t held;
    bool ending, ended; /* the end is next to be written; it is */
};

struct pair {
    struct relay *relay;
    struct pair *next, **link;
    struct way up, down; /* to the server, to the client */
    uint64_t open_at;    /* the emulated handshake is done */
    uint64_t bytes_down;
    uint32_t events_down;
    char last_down;
    bool stalled, counted;
};

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

struct relay {
    struct loop *loop;
    struct relay_config c;
    struct evconnlistener *listener;
    struct loop_timer *cut_timer;
    union address to;
    socklen_t to_len;
    struct pair *pairs;
    uint64_t began;
    uint32_t accepted, cuts, open;
};

/* The round trip now, in microseconds. */
static double rtt_us(const struct relay *r, uint64_t now)
{
    const struct rtt_trace *t = &r->c.trace;
    return t->n > 0 ? rtt_trace_us(t, (double)(now - r->began)) : r->c.rtt_ms * 1e3;
}

static void way_release(struct way *w)
{
    while (w->first) {
        struct parcel *p = w->first;
        w->first = p->next;
        if (p->bytes) evbuffer_free(p->bytes);
        mem_free(p);
    }
    loop_timer_free(w->timer);
}

static void pair_free(struct pair *p)
{
    *p->link = p->next;
    if (p->next) p->next->link = p->link;
    p->relay->open--;
    way_release(&p->up);
    way_release(&p->down);
    if (p->up.from) bufferevent_free(p->up.from);
    if (p->up.to) bufferevent_free(p->up.to);
    mem_free(p);
}

/* The sockets answer with RST instead of FIN. */
static void make_reset(struct bufferevent *b)
{
    struct linger now = {1, 0};
    setsockopt(bufferevent_getfd(b), SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

static bool may_cut(const struct pair *p)
{
    const struct relay_config *c = &p->relay->c;
    return !p->counted && (c->cut_times == 0 || p->relay->cuts < c->cut_times);
}

/* Returns true when the pair is gone. */
static bool cut(struct pair *p)
{
    struct relay *r = p->relay;
    if (!may_cut(p)) return false;
    p->counted = true;
    r->cuts++;
    if (r->c.how == RELAY_STALL) {
        p->stalled = true;
        return false;
    }
    /* What was passed on before the cut must reach the client: write it out by hand. */
    struct evbuffer *out = bufferevent_get_output(p->down.to);
    evbuffer_unfreeze(out, 1);
    evbuffer_write(out, bufferevent_getfd(p->down.to));
    if (r->c.how == RELAY_RESET) {
        make_reset(p->up.from);
        make_reset(p->up.to);
    }
    pair_free(p);
    return true;
}

/* How many of the n bytes may pass before a cut; counts them. */
static size_t count_down(struct pair *p, const unsigned char *bytes, size_t n, bool *ret_cut)
{
    const struct relay_config *c = &p->relay->c;
    *ret_cut = false;
    for (size_t i = 0; i < n; i++) {
        p->bytes_down++;
        p->events_down += bytes[i] == '\n' && p->last_down == '\n';
        p->last_down = bytes[i] == '\n' && p->last_down == '\n' ? 0 : (char)bytes[i];
        if ((c->cut_bytes && p->bytes_down >= c->cut_bytes) ||
            (c->cut_events && p->events_down >= c->cut_events)) {
            *ret_cut = true;
            return i + 1;
        }
    }
    return n;
}

/* The end of a direction, once all before it is written. True when the pair is gone. */
static bool end_way(struct way *w)
{
    struct pair *p = w->pair;
    w->ending = true;
    if (evbuffer_get_length(bufferevent_get_output(w->to)) > 0)
        return false; /* written_out comes */
    shutdown(bufferevent_getfd(w->to), SHUT_WR);
    w->ended = true;
    if (!p->up.ended || !p->down.ended) return false;
    pair_free(p);
    return true;
}

static void written_out(struct bufferevent *b, void *arg)
{
    struct pair *p = arg;
    struct way *w = b == p->up.to ? &p->up : &p->down;
    if (w->ending && !w->ended) end_way(w);
}

/* Pass a parcel on; true when the pair is gone. */
static bool deliver(struct way *w, struct parcel *parcel)
{
    struct pair *p = w->pair;
    if (!parcel->bytes) return end_way(w);
    size_t n = evbuffer_get_length(parcel->bytes);
    bool now_cut = false;
    if (w == &p->down && may_cut(p) && (p->relay->c.cut_bytes || p->relay->c.cut_events))
        n = count_down(p, evbuffer_pullup(parcel->bytes, -1), n, &now_cut);
    evbuffer_remove_buffer(parcel->bytes, bufferevent_get_output(w->to), n);
    return now_cut && cut(p);
}

static void pass_due(void *arg)
{
    struct way *w = arg;
    uint64_t now = clock_us();
    while (w->first && w->first->due <= now && !w->pair->stalled) {
        struct parcel *p = w->first;
        if (evbuffer_get_length(bufferevent_get_output(w->to)) > RELAY_BUFFER_MAX) {
            loop_timer_set(w->timer, now + 5000);
            return;
        }
        w->first = p->next;
        if (!w->first) w->last = &w->first;
        w->held -= p->bytes ? evbuffer_get_length(p->bytes) : 0;
        bool gone = deliver(w, p);
        if (p->bytes) evbuffer_free(p->bytes);
        mem_free(p);
        if (gone) return;
    }
    if (w->held < RELAY_BUFFER_MAX) bufferevent_enable(w->from, EV_READ);
    if (w->first && !w->pair->stalled) loop_timer_set(w->timer, w->first->due);
}

/* Queue what has arrived (or, with NULL, the end) for its time. */
static void enqueue(struct way *w, struct evbuffer *bytes)
{
    struct relay *r = w->pair->relay;
    uint64_t now = clock_us(), start = now;
    double rtt = rtt_us(r, now);
    struct parcel *p = mem_calloc(1, sizeof *p);
    size_t n = bytes ? evbuffer_get_length(bytes) : 0;
    if (p && bytes && !(p->bytes = evbuffer_new())) {
        mem_free(p);
        p = NULL;
    }
    if (!p) { /* out of memory: a connection with a hole would be worse than none */
        pair_free(w->pair);
        return;
    }
    if (bytes) evbuffer_add_buffer(p->bytes, bytes);
    start = start < w->pair->open_at ? w->pair->open_at : start;
    start = start < w->free_at ? w->free_at : start;
    if (r->c.rate_kbit > 0.0) start += (uint64_t)((double)n * 8000.0 / r->c.rate_kbit);
    w->free_at = start;
    p->due = start + (uint64_t)(rtt / 2.0);
    p->due = p->due < w->last_due ? w->last_due : p->due; /* order is kept when the delay falls */
    w->last_due = p->due;
    bool was_empty = !w->first;
    *w->last = p;
    w->last = &p->next;
    w->held += n;
    if (w->held >= RELAY_BUFFER_MAX) bufferevent_disable(w->from, EV_READ);
    if (was_empty) loop_timer_set(w->timer, p->due);
}

static void bytes_came(struct bufferevent *b, void *arg)
{
    struct pair *p = arg;
    enqueue(b == p->up.from ? &p->up : &p->down, bufferevent_get_input(b));
}

static void something_happened(struct bufferevent *b, short what, void *arg)
{
    struct pair *p = arg;
    if (what & BEV_EVENT_CONNECTED) return;
    if (what & BEV_EVENT_EOF) {
        if (evbuffer_get_length(bufferevent_get_input(b)) > 0)
            enqueue(b == p->up.from ? &p->up : &p->down, bufferevent_get_input(b));
        enqueue(b == p->up.from ? &p->up : &p->down, NULL);
    } else if (what & BEV_EVENT_ERROR) {
        make_reset(b == p->up.from ? p->up.to : p->up.from);
        pair_free(p);
    }
}

static int way_init(struct way *w, struct pair *p, struct bufferevent *from, struct bufferevent *to)
{
    w->pair = p;
    w->from = from;
    w->to = to;
    w->last = &w->first;
    return loop_timer_new(p->relay->loop, pass_due, w, &w->timer, NULL);
}

static void set_nodelay(struct bufferevent *b)
{
    int one = 1;
    setsockopt(bufferevent_getfd(b), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void accepted(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                     int n, void *arg)
{
    (void)listener, (void)address, (void)n;
    struct relay *r = arg;
    struct pair *p = r->open < RELAY_CONNECTIONS_MAX ? mem_calloc(1, sizeof *p) : NULL;
    if (!p) {
        evutil_closesocket(fd);
        return;
    }
    struct event_base *base = loop_base(r->loop);
    uint64_t now = clock_us();
    r->accepted++;
    r->open++;
    *p = (struct pair){.relay = r, .open_at = now + (uint64_t)rtt_us(r, now)};
    p->next = r->pairs;
    p->link = &r->pairs;
    if (p->next) p->next->link = &p->next;
    r->pairs = p;
    struct bufferevent *client = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    struct bufferevent *server = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    if (!client) evutil_closesocket(fd);
    if (way_init(&p->up, p, client, server) || way_init(&p->down, p, server, client) || !client ||
        !server) {
        pair_free(p);
        return;
    }
    bufferevent_setcb(client, bytes_came, written_out, something_happened, p);
    bufferevent_setcb(server, bytes_came, written_out, something_happened, p);
    if (bufferevent_socket_connect(server, &r->to.any, (int)r->to_len) != 0)
        return; /* something_happened has freed the pair */
    set_nodelay(client);
    set_nodelay(server);
    bufferevent_enable(client, EV_READ | EV_WRITE);
    bufferevent_enable(server, EV_READ | EV_WRITE);
}

static void cut_all(void *arg)
{
    struct relay *r = arg;
    for (struct pair *p = r->pairs, *next; p; p = next) {
        next = p->next;
        cut(p);
    }
}

static int make_address(const char *host, uint16_t port, union address *a, socklen_t *ret_len,
                        struct err *e)
{
    memset(a, 0, sizeof *a);
    if (strcasecmp(host, "localhost") == 0) host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &a->v4.sin_addr) == 1) {
        a->v4.sin_family = AF_INET;
        a->v4.sin_port = htons(port);
        *ret_len = sizeof a->v4;
        return 0;
    }
    if (inet_pton(AF_INET6, host, &a->v6.sin6_addr) != 1)
        return err_set(e, ERR_BAD_INPUT, "\"%s\" is no numeric address", host);
    a->v6.sin6_family = AF_INET6;
    a->v6.sin6_port = htons(port);
    *ret_len = sizeof a->v6;
    return 0;
}

int relay_new(struct loop *l, const struct relay_config *config, struct relay **ret_relay,
              struct err *e)
{
    union address listen;
    socklen_t listen_len = 0;
    struct relay *r = mem_calloc(1, sizeof *r);
    if (!r) return err_set(e, ERR_NO_MEMORY, "no memory for a relay");
    r->loop = l;
    r->c = *config;
    r->began = clock_us();
    int code = make_address(config->to_host, config->to_port, &r->to, &r->to_len, e);
    if (code == 0)
        code = make_address(config->listen_host, config->listen_port, &listen, &listen_len, e);
    if (code == 0) {
        r->listener = evconnlistener_new_bind(loop_base(l), accepted, r,
                                              LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, BACKLOG,
                                              &listen.any, (int)listen_len);
        if (!r->listener)
            code = err_set(e, ERR_NET, "cannot listen on %s:%u: %s", config->listen_host,
                           config->listen_port, strerror(errno));
    }
    if (code == 0 && config->cut_at_s > 0.0) {
        code = loop_timer_new(l, cut_all, r, &r->cut_timer, e);
        if (code == 0) loop_timer_set(r->cut_timer, r->began + (uint64_t)(config->cut_at_s * 1e6));
    }
    if (code)
        relay_free(r);
    else
        *ret_relay = r;
    return code;
}

void relay_free(struct relay *r)
{
    if (!r) return;
    while (r->pairs)
        pair_free(r->pairs);
    if (r->listener) evconnlistener_free(r->listener);
    loop_timer_free(r->cut_timer);
    mem_free(r);
}

uint16_t relay_port(const struct relay *r)
{
    union address a;
    socklen_t n = sizeof a;
    getsockname(evconnlistener_get_fd(r->listener), &a.any, &n);
    return ntohs(a.any.sa_family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port);
}

uint32_t relay_accepted(const struct relay *r)
{
    return r->accepted;
}
