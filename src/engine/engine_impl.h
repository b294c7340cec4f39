/*
 * engine_impl: what a kind of engine implements. Only files of engine/ include it.
 *
 * `struct engine` and `struct session` are the first members of a kind's own structs. engine.c
 * checks arguments (lengths, ids, duplicate sessions, limits) before it calls a kind.
 */
#ifndef PDD_ENGINE_ENGINE_IMPL_H
#define PDD_ENGINE_ENGINE_IMPL_H

#include "engine/engine.h"

struct kv_pool;

struct engine_ops {
    uint32_t (*kv_pages_free)(const struct engine *e);
    void (*free)(struct engine *e);
    int (*session_open)(struct engine *e, struct session **ret_session, struct err *err);
    void (*session_close)(struct session *s);
    void (*session_set_sampling)(struct session *s, const struct sampling *sampling);
    uint32_t (*session_len)(const struct session *s);
    const int32_t *(*session_tokens)(const struct session *s);
    void (*session_cut)(struct session *s, uint32_t n);
    uint32_t (*page_hold)(struct session *s, uint32_t i);
    void (*page_drop)(struct engine *e, uint32_t page);
    struct kv_pool *(*pages)(struct engine *e); /* where they lie */
    int (*page_adopt)(struct session *s, uint32_t page, const int32_t *tokens, uint32_t n,
                      struct err *err);
    void (*page_swap)(struct session *s, uint32_t i, uint32_t page);
    const float *(*session_logits)(const struct session *s);
    /* Positions below n are scored from now on into `best` [n, to the end of its page], zeros at
     * first, by queries from position `first` on; n == 0: no more. engine.c owns `best`. */
    int (*session_score)(struct session *s, uint32_t first, uint32_t n, float *best,
                         struct err *err);
    int (*step)(struct engine *e, struct engine_span *spans, uint32_t n, struct err *err);
};

enum { ENGINE_EMULATED_TEXT = 160 };

/* The kind fills ops, info, vocab and chat_template before it gives the engine away, and frees the
 * latter two. */
struct engine {
    const struct engine_ops *ops;
    struct engine_info info;
    struct vocab *vocab;
    struct chat_template *chat_template;        /* NULL: none that we know */
    double emulated_token_us, emulated_step_us; /* see emulated.h; 0: nothing is emulated */
    bool emulated_rereads;                      /* tokens of adopted pages take their time, too */
    char emulated[ENGINE_EMULATED_TEXT];        /* what is, for info */
    uint32_t sessions_open;
    uint64_t steps; /* calls of engine_step */
};

struct session {
    struct engine *engine;
    uint64_t in_step; /* engine->steps of the call that has it last, to see it twice in one */
    uint64_t adopted; /* tokens of pages adopted since its last step, if they take time */
    float *scores;    /* [score_n, to the end of its page], or NULL */
    uint32_t score_first, score_n; /* the window begins; tokens of the prompt that is scored */
    bool score_lost;               /* some of the window were not computed */
};

/* How many tokens of a span, its last ones, something is drawn after. */
static inline uint32_t engine_span_draws(const struct engine_span *span)
{
    return span->n_draws > 0 ? span->n_draws : span->sample;
}

#endif
