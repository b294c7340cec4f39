/*
 * http_server_impl: shared by http_server.c (listening, routes, drain), http_conn.c (one
 * connection's life), http_body.c (bodies) and http_reply.c (responses). Only these include it.
 *
 * `struct http_request` is the connection: it lives from accept to close and serves one request
 * after the other; `asked` is the request of the moment.
 */
#ifndef PDD_NET_HTTP_SERVER_IMPL_H
#define PDD_NET_HTTP_SERVER_IMPL_H

#include "base/buf.h"
#include "net/http_parse.h"
#include "net/http_peers.h"
#include "net/http_server.h"

struct evconnlistener;
struct sockaddr;

enum {
    HTTP_LINGER_US = 2000000, /* time for a refused client to read the error */
    HTTP_ACCEPT_PAUSE_US = 100000,
    HTTP_OTHER_DESCRIPTORS = 256, /* of the process: files, wake-ups, a client's sockets */
    HTTP_REPLY_HEAD_MAX = 4096
};

/*
 * HEAD -> BODY -> HANDLING -> [STREAMING ->] FLUSH -> HEAD (kept alive) or LINGER -> freed.
 * CUT: drop the client and call its owner at the next iteration of the loop.
 * DEAD: dropped; freed when the handler that is running has returned.
 */
enum conn_state {
    CONN_HEAD,
    CONN_BODY,
    CONN_HANDLING,
    CONN_STREAMING,
    CONN_FLUSH,
    CONN_LINGER,
    CONN_CUT,
    CONN_DEAD
};

/* The parsed request; present from its head's end until the response begins, as an idle connection
 * or a running stream has no use for it. */
struct conn_asked {
    struct http_head head;
    char id[HTTP_ID_MAX + 1], tag[HTTP_TAG_MAX + 1];
};

/* Whether the connection, or its request, is counted in server->peers. */
enum conn_counted { CONN_UNCOUNTED, CONN_COUNTED, CONN_REQUEST_COUNTED };

/* A connection, and the one request that it carries at a time. */
struct http_request {
    struct http_server *server;
    struct http_request *next, *prev;
    struct bufferevent *bev;
    struct loop_timer *timer; /* the state's deadline */
    enum conn_state state;
    bool in_handler;  /* a handler is on the stack: do not free */
    bool idle;        /* HEAD, and no byte of it has come */
    bool close_after; /* this response is the last of the connection */
    bool chunked_out;
    bool head_only; /* the request is HEAD: the response ends with its head */
    bool refused;   /* one of HTTP_REFUSED_MAX beyond a limit */
    bool proxied;   /* the peer is a trusted proxy */
    bool old;       /* the request is HTTP/1.0 */
    bool direct;    /* a plain stream that http_reply.c writes itself */
    struct http_request *next_unsent, **unsent_link; /* link NULL: not in server->unsent */
    enum conn_counted counted;
    struct http_address address; /* of the client, not of a trusted proxy, once that has named it */
    struct buf head_text, body, reply_headers;
    uint32_t n_reply_headers;
    uint64_t body_left; /* of Content-Length */
    size_t reply_held;  /* bytes of a large reply, counted as those of bodies are */
    struct http_chunked chunked;
    struct conn_asked *asked;
    const struct http_route *route;
    loop_fn *on_close;
    void *on_close_arg;
};

enum { HTTP_LISTENERS = 2 }; /* localhost has two addresses */

struct http_server {
    struct loop *loop;
    struct http_server_config config;
    const struct http_route *routes;
    size_t n_routes;
    void *arg;
    struct evconnlistener *listeners[HTTP_LISTENERS]; /* NULL: none, as all are once draining */
    uint16_t port;
    struct http_request *connections; /* any order */
    struct http_request *unsent;      /* streams to be written at the next iteration of the loop */
    struct loop_timer *unsent_timer;
    struct http_peers *peers;
    uint32_t n_connections, n_refused;
    uint64_t limit_met[HTTP_LIMITS];
    size_t body_bytes;               /* of all connections */
    struct loop_timer *accept_timer; /* after accept failed: when to try again */
    struct loop_timer *drain_timer;
    bool draining;
    loop_fn *drain_done;
    void *drain_arg;
};

/* http_conn.c */
int conn_open(struct http_server *s, int fd, const struct sockaddr *from);
void conn_close(struct http_request *c);          /* without a callback */
void conn_close_and_tell(struct http_request *c); /* calls on_close first */
void conn_cut_later(struct http_request *c);      /* CUT */
void conn_flush(struct http_request *c);          /* the response is complete */
void conn_drop_request(struct http_request *c);   /* the parsed request; the response begins */

/* http_body.c */
enum { MEDIA_WHY_MAX = 160 };
/* Whether the body comes without a coding (gzip, ...) and in UTF-8. Else a word for the log and a
 * sentence. */
bool body_is_plain(const struct http_head *h, const char **ret_reason, char why[MEDIA_WHY_MAX]);
struct body_progress {
    enum http_limit limit; /* that is exceeded; HTTP_LIMITS: none */
    bool whole;
};
/* Take what has arrived of the body. 0, or the status of the refusal: 400, 413, 429, 503. */
int body_take(struct http_request *c, struct body_progress *ret);
/* The limit that a body of n bytes would exceed now, or HTTP_LIMITS. */
enum http_limit body_fits(struct http_request *c, uint64_t n);
void body_release(struct http_request *c); /* again is fine */
/* Count a reply of n bytes: the limit that it breaks, or HTTP_LIMITS. */
enum http_limit reply_hold(struct http_request *c, size_t n);
void reply_drop(struct http_request *c); /* again is fine */

void conn_uncount(struct http_request *c); /* of its address; again is fine */

/* http_reply.c: streams that are written directly */
void stream_begin_direct(struct http_request *c); /* when its output is empty and it is plain */
void stream_end_direct(struct http_request *c);   /* the rest is libevent's; fine for others */
void stream_forget(struct http_request *c);       /* do not send what is unsent */
void stream_send_all(void *server);               /* unsent_timer */

/* http_server.c: find the route of c->asked; 0 or a status. `allow` gets the value of an Allow
 * header for 405 and OPTIONS, else nothing. */
int server_route(struct http_request *c, struct buf *allow);
http_gate *server_gate(const struct http_request *c); /* of its route; NULL: none */
void server_forget(struct http_request *c);           /* c leaves the list */

/* http_reply.c: write a new tag. */
void reply_make_tag(char tag[HTTP_TAG_MAX + 1]);
/* http_reply.c: the origin that may read the response (config.origins), "*" for all; NULL: none. */
const char *reply_origin(const struct http_request *c);

#endif
