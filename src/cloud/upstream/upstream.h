/*
 * upstream: the backend of `pdd cloud --upstream`: servers behind this one compute the answers
 * (cloud/upstream/dialect.h says which kinds). All of it is on the loop thread.
 *
 * A job goes to one server, chosen by policy/route. What fails before the answer's first token is
 * tried again on each other server, once; after it the job fails with a sentence that names the
 * server, and the device goes on alone. Bytes that bring nothing of the answer keep a job alive
 * only before its first token, and not for ever (prefill_us). N tokens are asked for; a client that
 * leaves, or a budget that shrinks, closes the connection to the server at once, which stops it. A
 * budget that grows reaches another pdd (PATCH); elsewhere the stream ends with N, and the device
 * asks again.
 *
 * All servers serve one model. Its name, and of another pdd its hashes, come from GET /v1/models,
 * which is asked at the start, every ROUTE_PROBE_US, and sooner after a failure. A pdd with other
 * hashes than the rest counts as down.
 *
 * Without a vocabulary (vocab_path) tokens pass as ids only between pdd and pdd; the others are
 * asked with messages and answer with text. With one they are asked with ids and answer with ids,
 * and an answer that was cut can go on there.
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
    UPSTREAM_PREFILL_TIMES = 10,    /* default of prefill_us: so many times timeout_us; and so many
                                       times prefill_us a prefill may take that makes progress */
    UPSTREAM_RETRY_AFTER_S = 5,     /* told when no server is up */
    UPSTREAM_AFFINITY_BYTES = 1024, /* of the prompt that choose the server, */
    UPSTREAM_AFFINITY_TOKENS = 256  /* or so many tokens */
};

struct upstream_server_config {
    const char *url; /* "http://host:port", "https://host/prefix"; "/v1" at its end is dropped */
    const char *key_path; /* file whose first line is the bearer key; NULL: none */
};

struct upstream_config {
    struct upstream_server_config servers[ROUTE_SERVERS_MAX];
    uint32_t n_servers;        /* 0: no upstream backend is wanted */
    const char *model;         /* its name there; NULL: the first that a server lists */
    const char *vocab_path;    /* GGUF file of the model, for tokenizer and template; NULL: none */
    const char *chat_template; /* NULL: the file's; or a family's name */
    bool no_think;             /* answers begin without a thought, where the template can say so */
    const char *ca_file;       /* PEM bundle instead of the system's; NULL: the system's */
    uint32_t streams_max;      /* jobs at once, half of one key; 0: UPSTREAM_STREAMS */
    uint64_t timeout_us;       /* of a server without a byte, and without a token after the first
                                  one, that counts as failure; 0: the default */
    uint64_t prefill_us;       /* the same without progress before the first token, while other
                                  bytes may come; 0: the default */
    loop_fn *wake;             /* called when events wait, or what is served has changed */
    void *wake_arg;
};

/* "URL[,key-file]" as an option gives it; `text` is cut at the comma. ERR_BAD_INPUT, ERR_LIMIT. */
int upstream_option(char *text, struct upstream_config *c, struct err *e);

/* `config` is copied but for its strings, which must stay until it returns. ERR_BAD_INPUT, ERR_IO:
 * a URL or a file is not usable. A server that does not answer yet is no error. */
int upstream_new(struct loop *l, const struct upstream_config *config, struct backend **ret_backend,
                 struct err *e);

#endif
