/*
 * http_client: calls to one HTTP/1.1 server, on the loop (libcurl's multi interface underneath).
 *
 * A client belongs to one base URL and keeps a *warm spare*: an idle, established connection (TCP
 * and TLS done), so that the next call needs no handshake, not even while another call streams. It
 * is opened with `GET warm_path` at the start, after a call has taken it, and again every
 * warm_interval_us so that middleboxes do not drop it. Without a client there is no socket: "local
 * only" relies on that.
 *
 * A call streams the response to on_body, or collects it for on_done. on_done is called once, last;
 * the call is gone when it returns. After http_call_cancel no callback follows; the socket is
 * closed at once, which the server sees. Callbacks may cancel their own call or any other, and
 * start calls; they must not free the client.
 *
 * Certificates are verified. No redirects, cookies or HTTP/0.9. No compression is asked for, since
 * it delays streams, and what comes compressed all the same is unpacked. A request is retried only
 * if its connection, taken from the spare, was dead already. A proxy is used as libcurl reads it
 * from the environment (http_proxy, https_proxy, all_proxy, no_proxy), never to this machine; the
 * key goes to the server alone. Threads: the loop only.
 */
#ifndef PDD_NET_HTTP_CLIENT_H
#define PDD_NET_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "net/loop.h"

enum {
    HTTP_URL_MAX = 2048,
    HTTP_COLLECT_MAX = 1024 * 1024,   /* largest collected response */
    HTTP_ERROR_BODY_MAX = 64 * 1024,  /* kept of a response with status >= 300 */
    HTTP_ANSWER_HEAD_MAX = 64 * 1024, /* all header lines of a response together */
    HTTP_CLIENT_CALLS_MAX = 64,       /* default of calls_max */
    HTTP_CLIENT_LINGERING_MAX = 4,    /* default of lingering_max */
    HTTP_LINGER_MAX_US = 1000000      /* a call that lingers and does not end is cut */
};

struct http_client;
struct http_call;

struct http_client_config {
    const char *base_url;  /* as http_url_base takes it: "http://127.0.0.1:8080" */
    const char *bearer;    /* key, or NULL */
    const char *ca_file;   /* PEM bundle instead of the system's, or NULL */
    const char *warm_path; /* "/health"; NULL: no spare */
    uint64_t warm_interval_us;
    uint64_t connect_timeout_us;    /* name lookup, TCP and TLS together */
    uint64_t first_byte_timeout_us; /* from the call's start to the first byte of the response */
    uint64_t idle_timeout_us;       /* between two pieces of a response: a stall */
    uint32_t calls_max;             /* calls at once, those that linger too */
    uint32_t lingering_max;         /* of them, that linger */
};

void http_client_config_default(struct http_client_config *ret_config);

/* `config` is copied. ERR_BAD_INPUT for a URL that is not http or https. */
int http_client_new(struct loop *l, const struct http_client_config *config,
                    struct http_client **ret_client, struct err *e);
void http_client_free(struct http_client *c); /* cancels all calls; NULL is fine */
/* Idle connections that are established now: 0 or more, usually 1. For reports and tests. */
uint32_t http_client_spares(const struct http_client *c);

struct http_result {
    struct err err;   /* code 0: a whole response came (of any status) */
    int status;       /* 0 when no head came */
    const char *body; /* collected, or of an error (status >= 300); 0-terminated */
    size_t body_len;
    uint32_t retry_after_s; /* of the Retry-After header, seconds or a date; 0: none */
    uint64_t started_us, connected_us, first_byte_us, ended_us; /* clock_us(); 0: not reached */
    bool reused;        /* the connection was the warm spare, or an older one */
    const char *notice; /* "", or what http_portal.h reads in it */
};

struct http_call_spec {
    const char *method;                /* "GET", "POST", "PATCH", "DELETE" */
    const char *path;                  /* "/v1/assist", appended to the base URL; escaped already */
    const char *content_type, *accept; /* NULL: "application/json" with a body; none */
    const void *body;                  /* copied; NULL: none */
    size_t body_len;
    struct buf *body_taken; /* instead of `body`: emptied by the call, not copied */
    bool collect;           /* the whole body goes to on_done, at most HTTP_COLLECT_MAX */
    /* 0: the client's */
    uint64_t connect_timeout_us, first_byte_timeout_us, idle_timeout_us;
    uint64_t deadline_us; /* absolute; 0: none */
    /* Each may be NULL. on_head: status line and headers are there. on_body: a piece of a body with
     * status 2xx (not when collecting). */
    void (*on_head)(void *arg, int status);
    void (*on_body)(void *arg, const char *data, size_t n);
    void (*on_done)(void *arg, const struct http_result *result);
    void *arg;
};

/* Starts within the next iteration of the loop; no callback is called from inside. ERR_BUSY with
 * calls_max calls running. */
int http_call_start(struct http_client *c, const struct http_call_spec *spec,
                    struct http_call **ret_call, struct err *e);
void http_call_cancel(struct http_call *call); /* NULL is fine */
/* The caller has all it wants, and the response is about to end: as http_call_cancel, but the
 * connection may end the response by itself and then serve another call. It is cut after
 * HTTP_LINGER_MAX_US, at its next bytes, or at once when lingering_max calls linger already. */
void http_call_linger(struct http_call *call); /* NULL is fine */
/* From on_head on: the last header of that name, or NULL. */
const char *http_call_header(const struct http_call *call, const char *name);

/* From on_head on: what http_portal_notice says of the response, in `text` of HTTP_PORTAL_MAX. */
void http_call_notice(const struct http_call *call, char *text);

/* Extract the message of an error's body, cut to `size`; "" if there is none. */
typedef void http_error_text_fn(const char *body, size_t n, char *text, size_t size);
/* The sentence of an error response: its status, and its notice, the title of an HTML page or the
 * message that `read` (proto/wire.h) finds. Sets DENIED (401, 403), NOT_FOUND (404), LIMIT (413),
 * BUSY (429, 503), BAD_INPUT (other 4xx), PROTOCOL (else); returns the code. */
int http_result_error(const struct http_result *result, const char *url, http_error_text_fn *read,
                      struct err *e);

#endif
