/*
 * serve: `pdd device`, a server on this machine for any client of OpenAI's API. An answer starts in
 * the cloud and is finished by the engine here, or comes from one of them alone (device/device.h);
 * several at once share the engine's steps. docs/DEVICE.md is the manual of its clients.
 *
 *   GET    /, /page/{id}                the page for people (device/api/page.h)
 *   POST   /v1/chat/completions, /v1/completions   OpenAI's API (proto/openai.h), with "pdd"
 *   GET    /v1/answers                  the latest answers, without their texts
 *   GET    /v1/answers/{id}?from=INDEX  an answer, as a stream or as it is now
 *   DELETE /v1/answers/{id}             stops it
 *   POST   /v1/answers/{id}/send        {"send": true|false}, with ask_before_sending; a yes needs
 *                                       serve_approval's secret in X-PDD-Approval
 *   GET    /v1/egress?answer={id}       what was sent to the cloud, the latest first
 *   GET, PUT, DELETE /v1/conversations/{id}   a client's own JSON; GET /v1/conversations lists them
 *   GET    /v1/models, /v1/models/{id}  what is here
 *   POST   /tokenize, /detokenize
 *   GET    /health, /metrics, /v1/status
 *   DELETE /v1/reading                  stops what the idle device reads
 *
 * Answers wait in a bounded queue, in which clients take turns; a full one is 429. A client that
 * leaves cancels its answer, waiting or not, unless it asked to keep it. An answer is kept after
 * its end, for those who come back. With a state folder (record.h) a kill loses nothing: after a
 * restart an answer that is to be kept goes on from its last token.
 *
 * The head of a stream waits for the start of work, so that a failure before it has its own status.
 * A stream that was silent for quiet_us, held, in the queue, in a prefill or later, gets a comment
 * as a sign of life, with its head if need be.
 *
 * Whom it serves: see guard.h. One loop thread; nothing in it waits for the engine or the cloud.
 */
#ifndef PDD_DEVICE_API_SERVE_H
#define PDD_DEVICE_API_SERVE_H

#include <stdint.h>

#include "base/err.h"
#include "device/device.h"
#include "net/http_server.h"
#include "net/loop.h"
#include "proto/model_names.h"

enum {
    SERVE_PORT = 8710,
    SERVE_ANSWERS_MAX = 16, /* at once */
    SERVE_QUEUE_MAX = 1024,
    SERVE_KEPT_MAX = 256,      /* ended answers in memory */
    SERVE_HOSTS_MAX = 16,      /* names and origins besides its own */
    SERVE_APPROVAL_BYTES = 16, /* random */
    SERVE_TEXT_MAX = 255,      /* bytes of one */
    SERVE_QUIET_US = 10000000  /* the comment comes at most a quarter later */
};

struct serve_config {
    struct http_server_config http;
    struct device_options device; /* its engine is taken on success */
    uint32_t answers_max, queue_max;
    struct model_names names; /* of the model, besides its own; must outlive the server */
    const char *token;        /* that clients must send; NULL: none */
    const char *hosts[SERVE_HOSTS_MAX], *origins[SERVE_HOSTS_MAX];
    uint32_t n_hosts, n_origins;
    bool ask_before_sending;
    /* A question is held. May be NULL. */
    void (*on_held)(void *arg, const char *id);
    void *on_held_arg;
    enum pace_mode pace; /* where a request says none, as what follows */
    enum device_refine refine;
    float refine_ratio;
    const char *state_dir;  /* NULL: nothing outlives the program */
    uint64_t kv_disk_bytes; /* of KV pages in it; 0: none */
    uint64_t quiet_us;      /* 0: SERVE_QUIET_US */
    uint32_t keep_s;        /* seconds that an answer without readers goes on */
};

struct serve;

int serve_new(struct loop *l, const struct serve_config *config, struct serve **ret_serve,
              struct err *e);
void serve_free(struct serve *s); /* NULL is fine */
uint16_t serve_port(const struct serve *s);
/* The id of the answer that has been held (ask_before_sending) the longest; NULL: none is. */
const char *serve_held(const struct serve *s);
/* What a yes over HTTP must bring in X-PDD-Approval: a secret of this run, in hexadecimal,
 * which the program shows in its terminal or log and never at its port. */
const char *serve_approval(const struct serve *s);
/* The user's word on a held answer; false: it is not held. */
bool serve_allow(struct serve *s, const char *id, bool send);
/* Refuse new requests; answers that have readers end first, for drain_us at most. `done` is called
 * once. */
void serve_drain(struct serve *s, uint64_t drain_us, loop_fn *done, void *arg);

#endif
