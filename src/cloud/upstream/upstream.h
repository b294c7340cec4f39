/*
 * upstream: the backend of `pdd cloud --upstream`: upstream servers compute the answers
 * (cloud/upstream/dialect.h has their kinds). Threads: the loop thread only.
 *
 * A job goes to one server, chosen by policy/route. A failure until the answer's first token is
 * retried once on each other server. After it the job fails with a sentence that names the server,
 * and the device continues alone. Bytes without progress keep a job alive only until its first
 * token, and for a bounded time (prefill_us). The request asks for N tokens. A client that
 * disconnects, or a budget that shrinks, closes the connection to the server at once, which stops
 * it. A budget that grows reaches another pdd (PATCH); elsewhere the stream ends with N, and the
 * device asks again.
 *
 * All servers serve one model. Its name, and the hashes of another pdd, come from GET /v1/models,
 * requested at the start, every ROUTE_PROBE_US, and sooner after a failure. A pdd with other hashes
 * than the rest counts as down.
 *
 * Without a vocabulary (vocab_path) tokens pass as ids only between pdd and pdd; other servers get
 * messages and return text. With one they get and return ids, and can continue an answer that was
 * cut.
 */
#ifndef PDD_CLOUD_UPSTREAM_UPSTREAM_H
#define PDD_CLOUD_UPSTREAM_UPSTREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cloud/work/backend.h"
#include "net/loop.h"
#include "policy/route.h"

enum {
    UPSTREAM_URL_MAX = 512,
    UPSTREAM_KEY_MAX = 4096,
    UPSTREAM_STREAMS = 1024,        /* default of streams_max */
    UPSTREAM_TIMEOUT_S = 60,        /* default of timeout_us */
    UPSTREAM_PREFILL_TIMES = 10,    /* default of prefill_us, in timeout_us; and the longest prefill
                                       that makes progress, in prefill_us */
    UPSTREAM_RETRY_AFTER_S = 5,     /* when no server is up */
    UPSTREAM_AFFINITY_BYTES = 1024, /* of the prompt, which choose the server, */
    UPSTREAM_AFFINITY_TOKENS = 256  /* or its tokens */
};

struct upstream_server_config {
    const char *url; /* "http://host:port", "https://host/prefix"; "/v1" at its end is dropped */
    const char *key_path; /* file whose first line is the bearer key; NULL: none */
};

struct upstream_config {
    struct upstream_server_config servers[ROUTE_SERVERS_MAX];
    uint32_t n_servers;        /* 0: no upstream backend */
    const char *model;         /* its name there; NULL: the first that a server lists */
    const char *vocab_path;    /* GGUF file of the model, for tokenizer and template; NULL: none */
    const char *chat_template; /* NULL: the file's; or a family's name */
    const char *chat_template_file; /* or the path of one; NULL: none */
    bool no_think;        /* answers start without reasoning, where the template can ask for that */
    const char *ca_file;  /* PEM bundle instead of the system's; NULL: the system's */
    uint32_t streams_max; /* jobs at once, half of one key; 0: UPSTREAM_STREAMS */
    uint64_t timeout_us;  /* without a byte, or without a token after the first one: the
                             server has failed; 0: the default */
    uint64_t prefill_us;  /* without progress until the first token, while other bytes may
                             come; 0: the default */
    loop_fn *wake;        /* called when events wait, or when the model served has changed */
    void *wake_arg;
};

/* "URL[,key-file]", the value of an option; `text` is cut at the comma. ERR_BAD_INPUT, ERR_LIMIT.
 */
int upstream_option(char *text, struct upstream_config *c, struct err *e);

/* `config` is copied but for its strings, which must stay until it returns. ERR_BAD_INPUT, ERR_IO:
 * a URL or a file is not usable. A server that does not respond yet is no error. */
int upstream_new(struct loop *l, const struct upstream_config *config, struct backend **ret_backend,
                 struct err *e);

#endif
