/*
 * server: `pdd cloud`, the HTTP server of a backend (cloud/work/backend.h). One loop thread:
 * sockets, JSON, templates, tokenisation and detokenisation; the worker's thread computes.
 *
 *   POST   /v1/assist       an event stream (proto/wire.h)
 *   PATCH  /v1/assist/{id}  {"tokens_max": N} while the stream runs
 *   DELETE /v1/assist/{id}  cancels; so does closing the stream
 *   POST   /v1/chat/completions, /v1/completions   OpenAI's API (proto/openai.h)
 *   POST   /tokenize, /detokenize   text to token ids and back (proto/openai_tokens.c)
 *   GET    /health          {"status": "ok"}, or "draining": the process lives
 *   GET    /ready           200 when new requests are taken, 503 when it drains or is full
 *   GET    /metrics         for Prometheus (cloud/api/metrics.h)
 *   GET    /v1/models, /v1/models/{id}   what is served, with its hashes
 *
 * A PATCH may come too late: if the last token was sent already, or KV memory is short, the stream
 * ends with reason budget. After the end it gets 404. A budget below what was sent ends the stream
 * at the next token. A cancelled or resumed assist loses nothing: ask again with `have`; the prefix
 * cache makes that cheap. All keys share one cache unless worker_config.cache_by_tenant separates
 * them. Then cached_tokens and the time to the first token can reveal that another client has sent
 * the same beginning lately.
 *
 * Under pressure: while KV memory is short, an assist is granted fewer tokens than it asked for
 * (grant.tokens_max; a PATCH may raise it later). If not even a few are free, it waits in a queue
 * of at most queue_max, in which keys take turns. If the queue is full, it gets 429, which says
 * whether streams or KV memory are short; Retry-After is the time until about half of the queue has
 * begun. One key has at most half of the queue besides what it runs, and half of
 * upstream.streams_max.
 *
 * The head of a stream waits for its first event, so that an earlier failure has its own status;
 * a later one is an `error` event. A stream that was silent for quiet_us, in the queue, in a
 * prefill or later, gets a comment as a sign of life, with its head if need be: proxies and mobile
 * networks close what is silent.
 *
 * OpenAI's endpoints: the same prompt, greedy or with the same seed, gives the same answer as
 * /v1/assist, streamed or not. Without a seed one is drawn. An error in a stream is OpenAI's error
 * object, then [DONE]. An answer that a stop string ended counts as stopped, not as cancelled.
 *
 * Keys, if there are any, guard all paths but /health and /ready, and each has its quotas
 * (cloud/api/keys.h). Beyond them a request gets 429, with Retry-After from the bucket and the code
 * rate_limit_exceeded, or insufficient_quota if waiting cannot help. Every POST takes one of the
 * key's requests, refused or not; PATCH, DELETE and GET do when they are refused. A key can read
 * and change only its own assists. /metrics may have a port of its own, which needs no key. Prompt
 * and answer texts are never logged.
 */
#ifndef PDD_CLOUD_API_SERVER_H
#define PDD_CLOUD_API_SERVER_H

#include <stdint.h>

#include "base/err.h"
#include "cloud/upstream/upstream.h"
#include "cloud/work/worker.h"
#include "net/http_server.h"
#include "net/loop.h"
#include "net/tls.h"
#include "proto/model_names.h"

struct server_config {
    struct http_server_config http;
    struct worker_config worker;     /* wake and wake_arg are filled in */
    struct upstream_config upstream; /* without an engine; wake and wake_arg are filled in */
    const char *model_name;          /* NULL: the engine's, or that of the upstream servers */
    struct model_names names;        /* besides; must outlive the server */
    const char *keys_path;           /* of cloud/api/keys.h; NULL: no key is needed */
    uint32_t tokens_max;             /* largest N of one assist */
    uint64_t quiet_us;               /* 0: SERVER_QUIET_US */
    struct tls_identity tls[TLS_IDENTITIES_MAX];
    size_t n_tls;                /* 0: plain HTTP */
    const char *metrics_address; /* numeric; NULL: /metrics on the main port, with a key */
    uint16_t metrics_port;
};

enum {
    SERVER_TOKENS_MAX = 4096,   /* default of tokens_max */
    SERVER_QUIET_US = 10000000, /* found within a quarter more: 12.5 s of silence at most */
    SERVER_RETRY_AFTER_S = 1    /* when the backend does not know */
};

struct server;

/* Takes the engine (on success) and listens. NULL: the servers of config->upstream compute. */
int server_new(struct loop *l, struct engine *engine, const struct server_config *config,
               struct server **ret_server, struct err *e);
void server_free(struct server *s);
uint16_t server_port(const struct server *s);
uint16_t server_metrics_port(const struct server *s); /* 0: there is none */
struct backend *server_backend(struct server *s);     /* for reports and tests */

/* Read the files of keys and certificates again. Connections and answers continue. A file that
 * cannot be used changes nothing, and the log says so. */
void server_reload(struct server *s);

/* Refuse new requests, let running ones end; after drain_us they end with reason drain. `done` is
 * called once when all connections are closed. */
void server_drain(struct server *s, uint64_t drain_us, loop_fn *done, void *arg);

#endif
