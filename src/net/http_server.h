/*
 * http_server: an HTTP/1.1 server for JSON requests and event streams, hard to abuse.
 *
 * It reads a whole request within absolute deadlines and size limits, finds the route, and calls
 * its handler. The handler responds at once or later, on the loop thread, with exactly one of
 * http_reply, http_reply_take, http_reply_json, http_reply_error, or http_stream_begin ...
 * http_stream_end. That call ends the life of `struct http_request`. Requests of one connection are
 * served in order (pipelined ones wait); connections are kept alive.
 *
 * HEAD uses the handler of GET: the same head, no body. OPTIONS gets 204 with Allow, and for pages
 * of `origins` with what CORS asks for.
 *
 * Every request has a tag, for logs: its X-Request-Id if that is sane, else a new one. Every
 * response has it, errors and streams too.
 *
 * A disconnect (close, reset, or half-close: a client that closes its sending side counts as gone)
 * is noticed at once, before the response and during it: the function given to
 * http_request_on_close is called once, and the request must not be used after it returns. The same
 * happens to a client that does not read its response, when output_max bytes wait for it. No
 * function of this header other than http_server_free calls it from inside.
 *
 * The server itself refuses, with the error object that `error_body` writes: malformed or ambiguous
 * heads (400; for example Content-Length with Transfer-Encoding), unknown paths (404), methods (405
 * with Allow), slow heads and bodies (408), bodies too large (413), compressed or in another
 * charset than UTF-8 (415), Expect (417), heads too large (431), transfer codings other than
 * chunked (501), too many connections in all (503) or of one address (429), bodies and large
 * responses beyond their budget (503, of one address 429), versions (505).
 *
 * Connections are also limited by address, an IPv6 client's /64 as one: further ones get 429. The
 * connections of a trusted proxy are not limited; there each request counts for the address that
 * the proxy names in X-Forwarded-For.
 *
 * TLS changes nothing of this (net/tls.h has `make_bufferevent`): the handshake must end within the
 * head's deadline, and close_notify is the half-close. Plain HTTP on its port gets 400 where
 * OpenSSL sees it; a TLS handshake on a plain port gets 400 at once.
 *
 * All bodies together and those of one address have a budget (http_body.c): beyond it 503, or 429
 * for the address's share. The route's gate decides whether a request may go on while none of its
 * body is read; only after it an HTTP/1.1 client gets "100 Continue".
 *
 * Not here: keys (see the gate), ranges, compression, trailers, HTTP/2. Threads: the loop only.
 */
#ifndef PDD_NET_HTTP_SERVER_H
#define PDD_NET_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "net/http_peers.h"
#include "net/loop.h"

struct bufferevent;
struct http_server;
struct http_request;

enum {
    HTTP_BACKLOG = 4096,
    HTTP_HEAD_MAX = 16 * 1024,                  /* default of head_max */
    HTTP_BODY_MAX = 16 * 1024 * 1024,           /* default of body_max */
    HTTP_BODIES_MAX = 512 * 1024 * 1024,        /* default of bodies_max */
    HTTP_BODIES_PER_ADDRESS = 64 * 1024 * 1024, /* default of bodies_per_address */
    HTTP_BODIES_RESERVE_PART = 8, /* of bodies_max: the part that only small bodies may take */
    HTTP_BODY_SMALL = 64 * 1024,
    HTTP_OUTPUT_MAX = 4 * 1024 * 1024, /* default of output_max, besides the kernel's buffer */
    HTTP_CONNECTIONS_MAX = 4096,       /* default of connections_max */
    HTTP_REFUSED_MAX = 64,             /* connections above a limit that still get an error */
    HTTP_PIPELINE_MAX = 64 * 1024,     /* bytes a client may send before a response */
    HTTP_REPLY_HEADERS_MAX = 12,       /* http_request_reply_header calls */
    HTTP_ID_MAX = 128,                 /* length of what {id} matches */
    HTTP_TAG_MAX = 128                 /* length of a request's tag */
};

/* Append an error's JSON object to `out`; code and param may be NULL. Non-zero: it does not fit. */
typedef int http_error_body_fn(int status, const char *code, const char *message, const char *param,
                               struct buf *out);

typedef void http_handler(struct http_request *r, void *arg);
/* Whether the request may go on; false: the gate has responded, with one of http_reply,
 * http_reply_json and http_reply_error. It sees the head only. */
typedef bool http_gate(struct http_request *r, void *arg);

struct http_server_config {
    http_error_body_fn *error_body; /* has no default: the caller sets it (proto/wire.h) */
    const char *address;            /* numeric; default "127.0.0.1". "localhost": 127.0.0.1, and
                                       ::1 where the machine has it; "::": IPv4 too */
    uint16_t port;                  /* 0: any free one, see http_server_port */
    uint32_t connections_max;
    uint32_t per_address_max; /* connections, or requests through proxies; 0: no limit (default) */
    const struct http_network *proxies; /* [n_proxies] trusted; must outlive the server */
    size_t n_proxies;
    size_t head_max, body_max, output_max;
    size_t bodies_max;         /* bytes of all bodies together */
    size_t bodies_per_address; /* of one address's; a single body always fits, and small ones
                                  beside large ones */
    uint64_t head_timeout_us;  /* from connect or the request's first byte to the head's end */
    uint64_t body_timeout_us;  /* from the head's end to the body's end */
    uint64_t idle_timeout_us;  /* between two requests */
    uint64_t flush_timeout_us; /* from the end of a response until the client has read it */
    /* Called when a request's body is refused, before the response, with the `arg` of the
     * handlers; `reason` is a constant word. "tls_on_plain_port": it is no request. May be NULL. */
    void (*on_refused)(struct http_request *r, int status, const char *reason, void *arg);
    http_gate *options_gate; /* of OPTIONS: may refuse, or add headers (CORS). May be NULL */
    /* [n_origins] pages of these may read responses (CORS): each response to them says so, errors
     * too, and OPTIONS allows the headers that were asked for. "*": all pages. Must outlive the
     * server. */
    const char *const *origins;
    size_t n_origins;
    /* NULL: plain TCP. Otherwise makes the connection's bufferevent around fd (it closes fd when
     * freed); NULL refuses the connection. */
    struct bufferevent *(*make_bufferevent)(struct event_base *base, int fd, void *arg);
    void *make_bufferevent_arg;
};

void http_server_config_default(struct http_server_config *ret_config);

struct http_route {
    const char *method; /* "GET" (which takes HEAD too), "POST", ...; not "HEAD" or "OPTIONS" */
    const char *path; /* "/v1/assist", or with one "{id}" for a whole segment: "/v1/assist/{id}" */
    http_handler *handler;
    /* Called when the head has come, before "100 Continue" and the body. NULL: every client may
     * send a body. A request with a body that is refused here is the last of its connection. */
    http_gate *gate;
    size_t body_max; /* less than the server's; 0: the server's */
    /* It answers to other spellings of its path as well, as clients with a base URL of their own
     * make them: without "/v1", with "/v1" twice, with more slashes between, in front or at the
     * end. Not for paths that a proxy may have to keep closed. */
    bool loose;
};

/* Listens at once; raises the process's soft limit of descriptors to what connections_max needs,
 * where the hard one allows. `routes` [n] must outlive the server; `arg` goes to every handler. */
int http_server_new(struct loop *l, const struct http_server_config *config,
                    const struct http_route *routes, size_t n, void *arg,
                    struct http_server **ret_server, struct err *e);
/* Cuts every connection (close callbacks are called). NULL is fine. Not from inside a handler. */
void http_server_free(struct http_server *s);
uint16_t http_server_port(const struct http_server *s);
uint32_t http_server_connections(const struct http_server *s);
size_t http_server_body_bytes(const struct http_server *s); /* that bodies hold now */

/* How often a limit was met since the start, whether or not the client got an error. */
enum http_limit {
    HTTP_LIMIT_ALL,            /* connections_max */
    HTTP_LIMIT_ADDRESS,        /* per_address_max, by a connection */
    HTTP_LIMIT_FORWARDED,      /* the same, by a request through a trusted proxy */
    HTTP_LIMIT_MEMORY,         /* no memory to take one or count it */
    HTTP_LIMIT_BODIES,         /* bodies_max, or its part for large bodies */
    HTTP_LIMIT_BODIES_ADDRESS, /* bodies_per_address */
    HTTP_LIMIT_BODY_SIZE,      /* body_max, of the server or the route */
    HTTP_LIMIT_BODY_TIME,      /* body_timeout_us */
    HTTP_LIMITS
};
uint64_t http_server_refused(const struct http_server *s, enum http_limit limit);

/* Stop listening, close idle connections, let running responses end (with "Connection: close"); at
 * deadline_us cut the rest. `done` is called once, later, when no connection is left. */
void http_server_drain(struct http_server *s, uint64_t deadline_us, loop_fn *done, void *arg);

/* The request. Strings and body live until the response begins, then they are empty. */
const char *http_request_method(const struct http_request *r);
const char *http_request_path(const struct http_request *r);  /* without the query, as sent */
const char *http_request_query(const struct http_request *r); /* after '?', or "" */
const char *http_request_id(const struct http_request *r);    /* what {id} matched, or "" */
/* Whether that is `name`, percent-encoded or not: clients encode the slash of "owner/model". */
bool http_request_id_is(const struct http_request *r, const char *name);
/* First header of that name (any case), or NULL. */
const char *http_request_header(const struct http_request *r, const char *name);
const char *http_request_body(const struct http_request *r, size_t *ret_len); /* 0-terminated */
/* Take ownership of the body: it may outlive the request, but not the server, and counts in the
 * budget of bodies until it is released. */
struct http_body {
    struct buf bytes;
    struct http_server *server; /* NULL: released */
    struct http_address whose;
    size_t held; /* bytes that count */
};
void http_request_take_body(struct http_request *r, struct http_body *ret_body);
/* Free the bytes only: what was made of them takes their place in the budget. */
void http_body_free_bytes(struct http_body *b);
/* Of the place in the budget at most n bytes are kept; none when that is HTTP_BODY_SMALL or less:
 * the number of requests bounds what small ones keep. */
void http_body_shrink(struct http_body *b, size_t n);
void http_body_release(struct http_body *b); /* again is fine */
/* The key of "Authorization: Bearer KEY", X-Api-Key or Api-Key; NULL: none. *ret_other, unless it
 * is NULL: the name of a header that holds another key, which makes the request ambiguous, or
 * NULL. */
const char *http_request_key(const struct http_request *r, const char **ret_other);
const char *http_request_tag(const struct http_request *r);
/* The headers that a page's OPTIONS wants to send, or the usual ones. */
const char *http_request_page_headers(const struct http_request *r);
/* A page of the public network asks whether it may use one of this machine or a private one. */
bool http_request_from_public(const struct http_request *r);
/* Numeric address of the client, also through a trusted proxy, while the request lives. */
void http_request_peer(const struct http_request *r, char text[HTTP_ADDRESS_TEXT]);
/* A number that is the same for all addresses that count as one client. */
uint64_t http_request_peer_id(const struct http_request *r);

/* Call fn if the client disconnects while the response has not ended. NULL: nothing is called. */
void http_request_on_close(struct http_request *r, loop_fn *fn, void *arg);

/* Add a header to the response (copied; name and value are trusted) while it has not begun. */
void http_request_reply_header(struct http_request *r, const char *name, const char *value);

/* content_type NULL: none. */
void http_reply(struct http_request *r, int status, const char *content_type, const void *data,
                size_t n);
/* The same with what `data` holds, which is taken (it is empty then) and not copied. A large one
 * counts in the budget of bodies until the client has read it: 503 or 429 takes its place when
 * there is no room. */
void http_reply_take(struct http_request *r, int status, const char *content_type,
                     struct buf *data);
void http_reply_json(struct http_request *r, int status, const char *json, size_t n);
/* The configuration's error_body writes the body; code and param may be NULL. */
void http_reply_error(struct http_request *r, int status, const char *code, const char *param,
                      const char *format, ...) __attribute__((format(printf, 5, 6)));
/* The HTTP status of an err's code: BAD_INPUT, UNSUPPORTED, PROTOCOL 400, DENIED 401, NOT_FOUND
 * 404, LIMIT 413, BUSY 429, NET 502, NO_MEMORY, CANCELLED 503, TIMEOUT 504, else 500. */
int http_err_status(int code);

/* A stream: status 200, chunked (or until close, for HTTP/1.0). Each send is one chunk, written in
 * the next iteration of the loop. ERR_LIMIT: output_max would be exceeded, and the client is cut
 * off; ERR_CANCELLED: it is cut off already. In both cases the close function is called later; do
 * not end the stream. n = 0 sends nothing. */
void http_stream_begin(struct http_request *r, const char *content_type);
int http_stream_send(struct http_request *r, const void *data, size_t n);
void http_stream_end(struct http_request *r);
/* Cut the connection now, so that the client sees an incomplete response. No close callback; the
 * request is gone. Works before the response and during it. */
void http_request_abort(struct http_request *r);

#endif
