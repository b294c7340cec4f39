/*
 * history: a session that takes from a prefix cache (engine/prefix.h) what need not be computed
 * again, and gives it the pages that it computes.
 *
 * Life: history_open; then, in any order: history_follow and history_follow_part where the tokens
 * to come may be cached, steps of the engine on `session` and history_grow after each, history_cut;
 * history_close. The session's first n_path pages are those of the cache that end with page
 * `path`. Threads: those of the engine.
 */
#ifndef PDD_ENGINE_HISTORY_H
#define PDD_ENGINE_HISTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"
#include "engine/prefix.h"

struct history {
    struct prefix *prefix;
    struct session *session;
    uint32_t scope;  /* of the cache */
    uint32_t path;   /* its last page of this history, held; PREFIX_NONE */
    uint32_t n_path; /* how many there are from the start */
};

int history_open(struct engine *e, struct prefix *p, uint32_t scope, struct history *ret_history,
                 struct err *err);
/* `keep`: a last page that is not full goes to the cache, too. A zeroed one is fine. */
void history_close(struct history *h, bool keep);

/* The history is to become tokens[n], of which it has the beginning. Take the whole pages that are
 * cached; one token is left to compute logits from. Returns how many tokens were gained. */
uint32_t history_follow(struct history *h, const int32_t *tokens, uint32_t n);
/* The same for the beginning of a page that differs later. It is copied and takes a page of KV
 * memory: none free and none to evict, and nothing is gained. */
uint32_t history_follow_part(struct history *h, const int32_t *tokens, uint32_t n);
/* The session has grown: its new full pages join the cache. */
void history_grow(struct history *h);
/* Truncate to the first n tokens. */
void history_cut(struct history *h, uint32_t n);

#endif
