/*
 * forward: one pass of the model over a batch of spans of several sequences.
 *
 * Chunked prefill and decoding are the same call: every span appends its tokens to its sequence's
 * KV cache, and may ask for the logits after its last tokens. The result of a span depends on its
 * sequence alone: not on the chunking, the other spans, the threads or the level of the kernels
 * (docs/design/exact.md). That holds because each row of activations is computed from itself and
 * its sequence's KV cache, and the kernels keep one order of operations per output.
 *
 * All memory is allocated at opening; a pass allocates nothing. Threads: one owner, which also owns
 * the pool while a pass runs.
 */
#ifndef PDD_MODEL_FORWARD_H
#define PDD_MODEL_FORWARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "kern/kern.h"
#include "model/kv.h"
#include "model/model.h"

enum { FORWARD_TOKENS_MAX = 16384 };

struct pool;
struct forward;

/* Scores of a prompt's positions: how much the queries at positions first, first + 1, ... attend to
 * them, the largest of all passes, heads and full-attention layers after the first quarter. Queries
 * of the prompt count by a ramp, (position - first + 1) / ramp, from `ramp` tokens on in full. Each
 * weight is that of the model's softmax over all that the query sees. */
struct forward_score {
    uint32_t first, n; /* n: tokens of the prompt; first < n */
    uint32_t ramp;     /* 1 to n - first */
    float *best;       /* [n, and up to the end of its tile]; zeros at first */
};

struct forward_span {
    struct kv_seq *kv;     /* n more positions are reserved; no two spans of a pass share one */
    const int32_t *tokens; /* [n], ids < vocab */
    uint32_t n;            /* >= 1 */
    uint32_t want;         /* logits after each of the last `want` tokens, <= n */
    const float *logits;   /* out, when `want`: [vocab] after the last token, in front of it those
                            * of the token before; valid until the next pass */
    const struct forward_score *score; /* NULL: none; after forward_score_open */
};

/* What a pass may hold: tokens in all, spans (and as many rows of logits), and positions of a
 * sequence. */
struct forward_limits {
    uint32_t tokens, spans, positions;
};

/* The model, the kernels and the pool must outlive it. */
int forward_open(const struct model *m, const struct kern *kern, struct pool *pool,
                 const struct forward_limits *limits, struct forward **ret_forward, struct err *e);
void forward_close(struct forward *f); /* NULL is fine */
/* With the default kind of KV cache: int16 where the head size allows it, else float16. */
struct kv_shape forward_kv_shape(const struct model *m);

/* Make memory for scores, once. ERR_UNSUPPORTED: no layer of the model sees the whole prompt. */
int forward_score_open(struct forward *f, struct err *e);

/* Run a pass; afterwards each sequence is n positions longer. Cannot fail. */
void forward_run(struct forward *f, struct forward_span *spans, uint32_t n);

#endif
