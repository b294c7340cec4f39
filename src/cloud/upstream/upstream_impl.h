/*
 * upstream_impl: what the files of the upstream backend share: upstream.c (the backend: submit,
 * wishes, events, what is served), upstream_request.c (one job at the servers), upstream_probe.c
 * (whether a server is up, and what it is). Nobody else includes it.
 */
#ifndef PDD_CLOUD_UPSTREAM_UPSTREAM_IMPL_H
#define PDD_CLOUD_UPSTREAM_UPSTREAM_IMPL_H

#include "cloud/upstream/dialect.h"
#include "cloud/upstream/upstream.h"
#include "cloud/work/slots.h"
#include "net/http_client.h"
#include "net/sse.h"

enum upstream_fault {
    UPSTREAM_CONNECT, /* no connection, or it broke before the head */
    UPSTREAM_REFUSED, /* 429, 503 */
    UPSTREAM_STATUS,  /* other statuses that are the server's fault */
    UPSTREAM_CUT,     /* the stream ended before the answer did */
    UPSTREAM_TIMEOUT,
    UPSTREAM_GARBAGE, /* what came makes no sense */
    UPSTREAM_FAULTS
};

struct upstream_server {
    struct upstream *u;
    uint32_t index; /* of its route_server */
    char url[UPSTREAM_URL_MAX];
    struct http_client *client;
    struct dialect_model model; /* valid once `known` */
    bool known;
    bool no_ids; /* a vLLM too old to give token ids */
    /* probing */
    struct loop_timer *timer;
    struct http_call *probe;
    char why[ERR_TEXT_MAX]; /* it is down, as last logged; "" while up */
    /* counters */
    uint64_t requests, tokens, closed, faults[UPSTREAM_FAULTS];
};

/* An event on its way to the loop; the text of a token follows the struct. */
struct upstream_event {
    struct job_event ev;
    struct upstream_event *next;
};

/* One job at the servers. */
struct upstream_request {
    struct upstream *u;
    struct job *job; /* NULL once it has had its end: then its slot is another's */
    struct upstream_request *next, **link;
    uint64_t prompt, tried;         /* its hash; bit i: server i has been asked */
    struct upstream_server *server; /* NULL: none is asked */
    struct http_call *call, *patch;
    struct sse_parser sse;
    struct dialect_stream stream;
    bool open;                  /* sse and stream are initialised */
    bool admitted, over;        /* over: the job has had its end, */
    bool lingers;               /* the connection not yet */
    struct err trouble;         /* what was wrong with an event */
    unsigned inside;            /* callbacks running: freeing waits */
    uint32_t sent, done;        /* tokens; of the prefill, as last told */
    uint32_t prefilled;         /* as this server told, the most */
    uint64_t asked;             /* clock_us(), when this server was asked */
    uint64_t progressed;        /* when sent or prefilled last grew, or it was asked */
    struct loop_timer *stall;   /* looks whether that is too long ago */
    struct upstream_event *end; /* made beforehand: the end must not fail */
};

struct upstream {
    struct backend b; /* first */
    struct loop *loop;
    struct upstream_config c;
    struct upstream_server servers[ROUTE_SERVERS_MAX];
    struct route_server routes[ROUTE_SERVERS_MAX];
    char model[DIALECT_MODEL_MAX], name[DIALECT_MODEL_MAX]; /* wanted; served */
    struct gguf *gguf;                                      /* of vocab_path, with */
    struct vocab *vocab;
    struct chat_template *chat_template;
    char vocab_hash[WIRE_HASH_MAX];
    struct engine_info info;
    char numerics[WIRE_NAME_MAX];
    struct upstream_request *requests;
    struct slots taken; /* of requests that are not over */
    uint32_t lingering; /* requests that are, and have a connection still */
    uint64_t retries;
    struct upstream_event *first, **last; /* events, oldest first */
    struct upstream_event *taken_event;   /* its text is being read; NULL: none */
    bool closing;
};

/* upstream.c */
void upstream_push(struct upstream *u, struct upstream_event *ev);
/* What `m` of the server says of the model becomes what is served; ERR_UNSUPPORTED when it is
 * another model than the rest has. */
int upstream_adopt(struct upstream *u, const struct upstream_server *s,
                   const struct dialect_model *m, struct err *e);

/* upstream_request.c */
int upstream_request_new(struct upstream *u, struct job *job,
                         struct err *e); /* and send it on its way */
void upstream_request_wish(struct upstream_request *o);
void upstream_request_free(struct upstream_request *o); /* without a word */

/* upstream_probe.c */
int probe_init(struct upstream_server *s, struct err *e);
void probe_release(struct upstream_server *s);
void probe_soon(struct upstream_server *s);                        /* a request went wrong */
void probe_failed(struct upstream_server *s, const struct err *e); /* it is down, for this reason */

#endif
