/*
 * engine: the interface to a language model.
 *
 * An *engine* holds a model and its KV memory. A *session* is one token history with its KV cache.
 * One call, engine_step, does prefill and decode alike: it appends a span of tokens to each of
 * several sessions and, where asked, samples the token that follows. The result of a session never
 * depends on the other spans of a step, on the chunking of its prompt or on threads
 * (docs/design/exact.md).
 *
 * Kinds: native (engine/native.h) and fake (engine/fake.h: scripted tokens, delays, faults). Any
 * kind can take its time as a named device does (engine/emulated.h). tests/engine/ holds one
 * conformance suite for all.
 *
 * Threads: an engine and its sessions belong to one thread. engine_info, engine_vocab and
 * engine_template may be read from any thread while the engine is open.
 */
#ifndef PDD_ENGINE_ENGINE_H
#define PDD_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sampling.h"

struct vocab;
struct chat_template;

enum {
    ENGINE_HASH_TEXT = 65,
    ENGINE_SPANS_MAX = 256, /* of an engine that computes */
    ENGINE_PAGE = 64        /* positions in a page of KV memory */
};

struct engine_info {
    const char *kind;       /* "native", "fake" */
    const char *model_name; /* general.name, or the file's name */
    const char *numerics;   /* class of numerics (docs/design/exact.md), as "exact-1" */
    const char *kv_type;    /* "i16", "f16" or "q8_0"; NULL: the engine has no KV cache */
    char weights_hash[ENGINE_HASH_TEXT];   /* SHA-256 in hex: of tensors and hyper-parameters, */
    char tokenizer_hash[ENGINE_HASH_TEXT]; /* of vocabulary, merges and flags, */
    char template_hash[ENGINE_HASH_TEXT];  /* of the chat template text */
    uint32_t vocab_size;
    uint32_t context_max;     /* positions a session can hold */
    uint32_t context_trained; /* context_length of the model's file; 0: unknown */
    uint32_t step_tokens_max; /* tokens one step may append in all spans together */
    uint32_t spans_max;       /* sessions in one step */
    uint64_t kv_bytes_per_token;
    uint32_t kv_pages_total; /* pages of 64 positions that all sessions share */
    uint32_t beside;         /* tensors of the file for pictures or sound, passed over */
    const char
        *emulated; /* NULL, or the emulated profile, for reports ("s24-ultra-gpu: 816 tok/s ...") */
};

struct engine;
struct session;

const struct engine_info *engine_info(const struct engine *e);
const struct vocab *engine_vocab(const struct engine *e);
/* NULL when the model has none of a known family. */
const struct chat_template *engine_template(const struct engine *e);
uint32_t engine_kv_pages_free(const struct engine *e);
void engine_free(struct engine *e); /* all sessions must be closed; NULL is fine */

/* A session starts empty, with greedy sampling. Opening allocates no KV page. */
int engine_session_open(struct engine *e, struct session **ret_session, struct err *err);
void engine_session_close(struct session *s); /* NULL is fine; pages go back */
void session_set_sampling(struct session *s, const struct sampling *sampling);
uint32_t session_len(const struct session *s); /* tokens in the history = in the KV cache */
const int32_t *
session_tokens(const struct session *s); /* [session_len], valid until the next change */
/* Truncate the history to its first n tokens (n <= len); their KV stays unchanged. */
void session_cut(struct session *s, uint32_t n);
/* Give `s` (empty) the first n tokens of `from`. Whole KV pages are shared, a partial last one is
 * copied. ERR_NO_MEMORY when the copy finds no free page; then `s` stays empty. */
int session_share(struct session *s, const struct session *from, uint32_t n, struct err *err);

/* Take a reference to a KV page, as a prefix cache does: the page of tokens [64 i, 64 i + 64) of
 * the history, of which at least one exists. Returns its number. Its values stay unchanged, also
 * after the session is closed, until engine_page_drop. Copy-on-write: when the session appends to a
 * held page that is not full, it needs another page. */
uint32_t session_page_hold(struct session *s, uint32_t i);
void engine_page_drop(struct engine *e, uint32_t page);
/* The values of a page, for those who keep them elsewhere: the same history has the same bytes in
 * every engine of equal weights_hash and numerics. A page made anew is held once, and to be filled;
 * ERR_NO_MEMORY: none is free. */
size_t engine_page_bytes(const struct engine *e);
void *engine_page_data(struct engine *e, uint32_t page); /* of a held page */
int engine_page_new(struct engine *e, uint32_t *ret_page, struct err *err);
/* Append to `s`, whose length is a multiple of 64, the first n (1 to 64) tokens of a held page,
 * without computing. The caller guarantees that they are those tokens, and that the history
 * that preceded them is that of `s`. A whole page is shared, a part of one copied: ERR_NO_MEMORY
 * when no page is free for that. */
int session_page_adopt(struct session *s, uint32_t page, const int32_t *tokens, uint32_t n,
                       struct err *err);
/* Replace the full page i of `s` by a held page. The caller guarantees an equal history. So two
 * sessions that computed the same page keep one. */
void session_page_swap(struct session *s, uint32_t i, uint32_t page);

/* One session's part of a step. */
struct engine_span {
    struct session *session;
    const int32_t *tokens; /* [n] appended to the history, n >= 1, ids < vocab_size */
    uint32_t n;
    bool sample;        /* sample the token that follows the last one */
    int32_t next;       /* out, when `sample`; not yet part of the history */
    float next_logprob; /* out, when `sample`: natural log of its probability at temperature 1 */
    int32_t *draws;     /* out: [n_draws] what would be sampled after each of the last n_draws
                         * tokens, so that tokens of another engine are verified; NULL: none */
    uint32_t n_draws;   /* <= n; each costs the last layer and the logits of its token */
};

/* Run one step over n <= spans_max spans of n different sessions, tokens <= step_tokens_max, tokens
 * that something is drawn after <= spans_max.
 * On failure nothing is appended to any session: ERR_LIMIT (context, step size), ERR_NO_MEMORY (KV
 * pages), ERR_BAD_INPUT (token id), or an error of the kind of engine. */
int engine_step(struct engine *e, struct engine_span *spans, uint32_t n, struct err *err);

/* Scores of a prompt's positions, for refinement (docs/design/refine.md): how much a window of its
 * last tokens and all tokens after it attend to each position: the largest weight of all heads of
 * all layers that see the whole prompt, after the first quarter of layers. The window begins at
 * `first` and holds the question; its first ENGINE_SCORE_WINDOW tokens count by a ramp from 0 to 1.
 * Steps gather scores from the queries that they compute anyway; the same bits for any chunking,
 * batch and number of threads.
 *
 * Ask before tokens of the window are appended: session_len <= first < n; n == 0 ends it.
 * ERR_UNSUPPORTED: the engine has no attention, or no layer that sees the whole prompt; ERR_LIMIT:
 * n is above the context, or tokens of the window are there already. */
enum {
    ENGINE_SCORE_WINDOW = 64,  /* tokens at least, where the prompt has so many, */
    ENGINE_SCORE_LONGEST = 512 /* and at most */
};
int session_score(struct session *s, uint32_t first, uint32_t n, struct err *err);
bool engine_scores(struct engine *e); /* whether it can: asks for a session's, once */
/* [n], valid until the next change of the session; NULL while tokens of the prompt are missing, and
 * for good after tokens of the window were cut in part or adopted instead of computed. */
const float *session_scores(const struct session *s);
/* Where the window of a prompt of n tokens begins whose question begins at `question` (<= n). */
static inline uint32_t engine_score_from(uint32_t question, uint32_t n)
{
    uint32_t last = n > ENGINE_SCORE_WINDOW ? n - ENGINE_SCORE_WINDOW : 0;
    uint32_t earliest = n > ENGINE_SCORE_LONGEST ? n - ENGINE_SCORE_LONGEST : 0;
    return question > last ? last : question > earliest ? question : earliest;
}

/* Logits of the last token of the last span that sampled in `s`: [vocab_size], or NULL when the
 * engine has none (fake). Valid until the next step. For tests and tools. */
const float *session_logits(const struct session *s);

#endif
