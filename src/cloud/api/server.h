/*
 * server: `pdd cloud`, the HTTP server of a backend (cloud/work/backend.h). One loop thread:
 * sockets, JSON, templates, tokenisation and detokenisation; the worker's thread computes.
 *
 *   POST   /v1/assist       an event stream (proto/wire.h)
 *   PATCH  /v1/assist/{id}  {"tokens_max": N} while the stream runs
 *   DELETE /v1/assist/{id}  cancels; so does closing the stream
 *   POST   /v1/chat/completions, /v1/completions   OpenAI's API (proto/openai.h)
 *   POST   /tokenize, /detokenize   text to token ids and back (net/openai_tokens.c)
 *   GET    /health          {"status": "ok"}, or "draining": the process answers
 *   GET    /ready           200 when new requests are taken, 503 when it drains or is full
 *   GET    /metrics         for Prometheus (cloud/api/metrics.h)
 *   GET    /v1/models, /v1/models/{id}   what is served, with its hashes
 *
 * A PATCH is a wish: one that comes when the last token was on its way, or for which there is no KV
 * memory, still sees the stream end with reason budget, and after the end it is 404. A budget below
 * what was sent ends the stream at the next token. A cancelled or resumed assist loses nothing: ask
 * again with `have`; the prefix cache makes that cheap. The cache is one for all keys unless
 * worker_config.cache_by_tenant separates them, so cached_tokens, and the time to the first token,
 * can tell that somebody has asked the same beginning lately.
 *
 * Under pressure: when KV memory is short, an assist is granted fewer tokens than it asked for
 * (grant.tokens_max says how many; a PATCH may bring more later); when not even a few are to be
 * had, it waits in a line of at most queue_max, in which keys take turns; when the line is full, it
 * is answered 429, which says whether streams or KV memory are short, with a Retry-After that is
 * the time in which about half of the line will go. One key has at most half of the line besides
 * what is in work, so that another finds room; of upstream.streams_max, half.
 *
 * What goes wrong before the first event of a stream has the status that fits, as the head waits
 * for that event; after it comes an `error` event.
 *
 * OpenAI's endpoints: the same prompt, greedy or with the same seed, gives the same answer there as
 * by /v1/assist, streamed or not. A seed that is not given is drawn. An error in a stream is
 * OpenAI's error object there, then [DONE]. An answer that a stop string ended counts as stopped,
 * not as cancelled.
 *
 * Keys, if there are any, guard all but /health and /ready, and each has its quotas
 * (cloud/api/keys.h): beyond them 429, with Retry-After from the bucket and the code
 * rate_limit_exceeded, or insufficient_quota for what no waiting would help. Every POST takes one
 * of the key's requests, refused or not; PATCH, DELETE and GET do when they are refused. A key sees
 * and touches its own assists only. /metrics may have a port of its own, which asks for no key.
 * Prompt and answer texts are never logged.
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

struct server_config {
    struct http_server_config http;
    struct worker_config worker;     /* wake and wake_arg are filled in */
    struct upstream_config upstream; /* without an engine; wake and wake_arg are filled in */
    const char *model_name; /* NULL: the engine's, or what the servers behind this one say */
    const char *keys_path;  /* of cloud/api/keys.h; NULL: everyone may ask */
    uint32_t tokens_max;    /* most tokens one assist may bring */
    struct tls_identity tls[TLS_IDENTITIES_MAX];
    size_t n_tls;                /* 0: plain HTTP */
    const char *metrics_address; /* numeric; NULL: /metrics on the main port, behind the keys */
    uint16_t metrics_port;
};

enum {
    SERVER_TOKENS_MAX = 4096, /* default of tokens_max */
    SERVER_RETRY_AFTER_S = 1  /* when the backend cannot tell */
};

struct server;

/* Takes the engine (on success) and listens. Without an engine (NULL) the servers of
 * config->upstream compute. */
int server_new(struct loop *l, struct engine *engine, const struct server_config *config,
               struct server **ret_server, struct err *e);
void server_free(struct server *s);
uint16_t server_port(const struct server *s);
uint16_t server_metrics_port(const struct server *s); /* 0: there is none */
struct backend *server_backend(struct server *s);     /* for reports and tests */

/* Read the files of keys and certificates again. Connections and answers go on; what cannot be used
 * changes nothing, and the log says so. */
void server_reload(struct server *s);

/* Refuse new work, let running assists end; after drain_us they end with reason drain. `done` is
 * called once when all connections are gone. */
void server_drain(struct server *s, uint64_t drain_us, loop_fn *done, void *arg);

#endif
