/*
 * load: clients for load tests. One thread and one loop carry thousands of requests to one server,
 * plain or TLS, one connection each. It understands just enough of HTTP to measure: status, length,
 * event streams whose events have one data line (as this server writes them).
 *
 * Life of a call: load_call_open; then hooks, in this order: ready (connected, TLS done), head
 * (status known), event (each), end (once). load_call_close frees it, from inside any hook or
 * later; nothing is called after it. A call that ended must still be closed.
 */
#ifndef PDD_BENCH_LOAD_H
#define PDD_BENCH_LOAD_H

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/loop.h"

enum { LOAD_LINE_MAX = 256, LOAD_NAME_MAX = 16 };

struct load_target {
    struct loop *loop;
    struct sockaddr_in address;
    SSL_CTX *tls;           /* NULL: plain */
    unsigned char *session; /* [session_len], of the first handshake; taken up when `resume` */
    long session_len;
    bool resume;
    const char *key;       /* bearer key, or NULL */
    const char *tokenizer; /* hash that lets us send token ids */
};

/* "HOST:PORT", numeric. 0, or -1 after a sentence on standard error. */
int load_target_init(struct load_target *t, struct loop *l, const char *address, bool tls);
void load_target_release(struct load_target *t);

enum load_end {
    LOAD_WHOLE,    /* the answer came to its end */
    LOAD_CUT,      /* the server closed before */
    LOAD_UNSHAKEN, /* connected, but the TLS handshake failed */
    LOAD_FAILED    /* no connection */
};

struct load_call;
/* Each may be NULL but `end`. data: the event's, without line end, cut at LOAD_LINE_MAX. */
struct load_hooks {
    void (*ready)(struct load_call *c);
    void (*head)(struct load_call *c);
    void (*event)(struct load_call *c, const char *name, const char *data);
    void (*end)(struct load_call *c, enum load_end how);
};

enum load_state { LOAD_CONNECT, LOAD_SHAKE, LOAD_HEAD, LOAD_LENGTH, LOAD_STREAM, LOAD_OVER };

struct load_call {
    /* for the owner to read */
    void *owner;
    int fd, status;
    uint64_t began, ready_at, sent_at; /* clock_us() */
    bool resumed;                      /* the TLS session was */
    bool paused;                       /* load_call_pause: nothing is read */
    /* private */
    struct load_target *target;
    const struct load_hooks *hooks;
    struct event *event;
    SSL *ssl;
    char *out;
    size_t out_len, out_at;
    enum load_state state;
    short interest;
    bool busy, closed, has_length, chunked;
    uint64_t length_left;
    size_t line_len;
    char name[LOAD_NAME_MAX], line[LOAD_LINE_MAX];
};

/* `bytes` [n] are copied and sent once connected; n = 0 only connects. NULL when the process has no
 * descriptor or memory left. */
struct load_call *load_call_open(struct load_target *t, const char *bytes, size_t n,
                                 const struct load_hooks *hooks, void *owner);
void load_call_send(struct load_call *c, const char *bytes, size_t n); /* more, later */
void load_call_pause(struct load_call *c); /* read no more: a client that does not listen */
void load_call_close(struct load_call *c); /* NULL is fine */

/* A whole assist request of n_prompt ids below `vocab`: the first `n_common` the same in every
 * request, the rest chosen by `seed`. *ret_bytes: to mem_free. 0, or -1: no memory. */
int load_assist_bytes(const struct load_target *t, uint32_t n_prompt, uint32_t n_common,
                      uint32_t vocab, uint32_t tokens_max, uint64_t seed, char **ret_bytes,
                      size_t *ret_len);
/* The number behind "key": in an event's data; -1: not there. */
int64_t load_number(const char *data, const char *key);

#endif
