/*
 * fetch: one HTTP GET to its end, redirects followed, on the caller's thread (libcurl's easy
 * interface). It blocks; for servers that answer others, net/http_client.h is there instead.
 *
 * Only http and https. At most FETCH_HOPS_MAX redirects; none from https to http, nor from
 * elsewhere to this machine or a link-local address. The token goes to the scheme, host and port of
 * the first URL alone, never over http that others can read (net/http_url.h). Certificates are
 * verified, and a proxy of the environment is used, never to this machine. No cookies. Texts for
 * people name a URL without its query, which may be a secret.
 *
 * Connections are kept between the calls of one `struct fetch`. Threads: one owner.
 */
#ifndef PDD_HUB_FETCH_H
#define PDD_HUB_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum {
    FETCH_URL_MAX = 4096, /* signed URLs of object stores are long */
    FETCH_HOPS_MAX = 10,
    FETCH_HEAD_MAX = 64 * 1024,
    FETCH_TAG_MAX = 256,
    FETCH_TEXT_MAX = 256,
    FETCH_ERROR_BODY_MAX = 4096, /* kept of a response that is an error */
    FETCH_WAIT_MAX_S = 60
};

#define FETCH_UNKNOWN UINT64_MAX

struct fetch;

struct fetch_options {
    const char *token;          /* bearer, or NULL; it must outlive the object, as the next */
    const char *ca_file;        /* PEM bundle instead of the system's, or NULL */
    uint64_t connect_ms;        /* 0: 15 s */
    uint32_t stall_s;           /* a response that brings no byte for this time fails; 0: 30 s */
    uint64_t head_us;           /* a head that takes longer fails; 0: 2 min */
    bool (*stopped)(void *arg); /* asked at least once a second; true: ERR_CANCELLED */
    void *arg;
};

/* What the headers of the last response say. */
struct fetch_head {
    int status;
    uint64_t length;               /* of the body; FETCH_UNKNOWN */
    uint64_t range_from, range_of; /* Content-Range; FETCH_UNKNOWN without */
    char etag[FETCH_TAG_MAX];      /* with quotes and W/; "" without, as the next */
    char modified[FETCH_TAG_MAX];
    char type[FETCH_TAG_MAX];     /* Content-Type */
    char encoding[FETCH_TAG_MAX]; /* Content-Encoding */
    uint32_t retry_after_s;       /* 0: none */
    /* X-Linked-Size and X-Linked-ETag of the first server, before or with the last response: size
     * and, at Hugging Face, SHA-256 of the file to which it redirects. */
    uint64_t linked_size;
    char linked_tag[FETCH_TAG_MAX];
    char why[FETCH_TEXT_MAX]; /* X-Error-Message, or what an error's body says */
    bool first_server;        /* the last response is of the first URL's server */
};

struct fetch_call {
    const char *url;
    const char *range, *if_range; /* NULL: none */
    /* Head of a response with status 2xx; a code other than 0 (with e set) ends the call with it */
    int (*on_head)(void *arg, const struct fetch_head *head, struct err *e);
    int (*on_body)(void *arg, const void *data, size_t n, struct err *e);
    void *arg;
};

/* BAD_INPUT: the token cannot stand in a header. */
int fetch_open(const struct fetch_options *options, struct fetch **ret_fetch, struct err *e);
void fetch_close(struct fetch *f); /* NULL is fine */

/* 0: a whole response with status 2xx came. Else the code of a callback, or: NET (no connection, or
 * cut), TIMEOUT (a stall), CANCELLED, PROTOCOL, LIMIT, and for a status DENIED (401, 403),
 * NOT_FOUND (404, 410), BUSY (408, 429, 5xx), BAD_INPUT (other 4xx; 416: *ret_head has the status).
 * NET, TIMEOUT and BUSY may pass by themselves; fetch_may_pass says when. */
int fetch_get(struct fetch *f, const struct fetch_call *call, struct fetch_head *ret_head,
              struct err *e);
/* Whether the last response was of the first URL's server, which alone gets the token. */
bool fetch_at_first(const struct fetch *f);

/* Whether the same request may succeed a little later, by the code of fetch_get; not after what
 * another try does not change: a certificate, a name, a connection that is refused. */
bool fetch_may_pass(const struct fetch *f, int code);
/* The time to wait before the next try: it grows with `failures` in a row from `first_us` (0: a
 * second), is no less than Retry-After, and at most FETCH_WAIT_MAX_S. */
uint64_t fetch_wait_us(const struct fetch_head *head, uint64_t first_us, uint32_t failures);
int fetch_wait(const struct fetch *f, uint64_t us, struct err *e); /* or CANCELLED */

/* The body of a response, appended to `body`; larger than its room is ERR_LIMIT, more than ten
 * minutes ERR_TIMEOUT. */
int fetch_text(struct fetch *f, const char *url, struct buf *body, struct fetch_head *ret_head,
               struct err *e);

/* Whether a request for `first` may be sent on to `next`, by the addresses that the URLs write:
 * servers elsewhere have no business with this machine's. What a name resolves to is not asked. */
bool fetch_may_redirect(const char *first, const char *next);

/* The URL without user, query and fragment, for people. */
void fetch_plain_url(const char *url, char *ret_text, size_t size);

#endif
