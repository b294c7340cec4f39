/*
 * upstream_impl: what the files of the upstream backend share: upstream.c (the backend: submit,
 * changes of a job, events, the model served), upstream_request.c (one job at the servers),
 * upstream_probe.c (whether a server is up, and what it is). Only these files include it.
 */
#ifndef PDD_CLOUD_UPSTREAM_UPSTREAM_IMPL_H
#define PDD_CLOUD_UPSTREAM_UPSTREAM_IMPL_H

#include "cloud/upstream/dialect.h"
#include "cloud/upstream/upstream.h"
#include "cloud/work/slots.h"
#include "net/event_stream.h"
#include "net/http_client.h"

enum upstream_fault {
    UPSTREAM_CONNECT, /* no connection, or it broke without a head */
    UPSTREAM_REFUSED, /* 429, 503 */
    UPSTREAM_STATUS,  /* other statuses that are the server's fault */
    UPSTREAM_CUT,     /* the stream ended earlier than the answer */
    UPSTREAM_TIMEOUT,
    UPSTREAM_GARBAGE, /* malformed */
    UPSTREAM_FAULTS
};

struct upstream_server {
    struct upstream *u;
    uint32_t index; /* of its route_server */
    char url[UPSTREAM_URL_MAX];
    struct http_client *client;
    struct dialect_model model; /* valid once `known` */
    bool known;
    bool no_ids;      /* a vLLM too old to give token ids */
    uint32_t without; /* DIALECT_NO_...: what it has refused */
    /* probing */
    struct loop_timer *timer;
    struct http_call *probe;
    char why[ERR_TEXT_MAX]; /* the reason why it is down, as last logged; "" while up */
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
    struct job *job; /* NULL after JOB_DONE: then its slot is free */
    struct upstream_request *next, **link;
    uint64_t prompt, tried;         /* its hash; bit i: server i was tried */
    struct upstream_server *server; /* NULL: none now */
    struct event_stream *events;    /* of that server; NULL: none, or it has ended */
    struct dialect_stream stream;
    bool open;                  /* `stream` is initialised */
    bool admitted, over;        /* over: JOB_DONE was sent */
    bool told;                  /* a JOB_THOUGHT or JOB_CHUNK was sent */
    bool unlimited;             /* a server has refused our limit of tokens */
    unsigned inside;            /* callbacks that run: freeing waits */
    uint32_t sent, done;        /* tokens; of the prefill, as last reported */
    uint32_t prefilled;         /* highest report of this server */
    uint64_t asked;             /* clock_us() of the request to this server */
    uint64_t progressed;        /* when sent or prefilled last grew, else asked */
    struct loop_timer *stall;   /* checks whether that is too long ago */
    struct upstream_event *end; /* allocated early: the end must not fail */
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
    struct slots inside; /* of requests that are not over */
    uint64_t retries;
    struct upstream_event *first, **last; /* events, oldest first */
    struct upstream_event *taken_event;   /* its text is in use; NULL: none */
    bool closing;
};

/* upstream.c */
void upstream_push(struct upstream *u, struct upstream_event *ev);
/* Serve the model `m` of the server; ERR_UNSUPPORTED: it differs from the model of the rest. */
int upstream_adopt(struct upstream *u, const struct upstream_server *s,
                   const struct dialect_model *m, struct err *e);

/* upstream_request.c */
int upstream_request_new(struct upstream *u, struct job *job, struct err *e); /* and send it */
void upstream_request_changed(struct upstream_request *req);
void upstream_request_free(struct upstream_request *req); /* without an event */

/* upstream_probe.c */
int upstream_probe_init(struct upstream_server *s, struct err *e);
void upstream_probe_release(struct upstream_server *s);
void upstream_probe_soon(struct upstream_server *s); /* a request went wrong */
/* A request got no connection, or lost it before a head: the server counts as down until the next
 * probe. That is sent at once, since the fault may be that request's alone. */
void upstream_probe_lost(struct upstream_server *s, const struct err *e);
void upstream_probe_failed(struct upstream_server *s,
                           const struct err *e); /* it is down; the reason */

#endif
