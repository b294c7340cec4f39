/*
 * prefix: the prefix cache. It keeps KV pages (engine.h) of computed histories, so that a request
 * with the same beginning computes only the rest: a second turn, a resumed answer, a shared system
 * prompt.
 *
 * Pages form a tree: each stands for 64 tokens that follow the tokens of its parent. A page is
 * found by a hash of its parent and its tokens; the tokens themselves are compared too, so a
 * collision cannot happen. A page's parent is one page, not a hash, so equal tokens mean an equal
 * history. `scope` separates trees that must not share hits.
 *
 * Running requests hold the pages of their history, at no extra cost. Other pages are *idle*, at
 * most `idle_max`; the least recently used is evicted. Holding a page holds its ancestors, and
 * ancestors go idle after their descendants, so no page loses its parent.
 *
 * An answer's last page is seldom full. Such a part is kept as well when its session ends, and any
 * page may be matched in part: the caller copies those tokens.
 *
 * Memory: fixed at opening. Threads: those of the engine.
 */
#ifndef PDD_ENGINE_PREFIX_H
#define PDD_ENGINE_PREFIX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/engine.h"

#define PREFIX_NONE UINT32_MAX /* no page: the start of a history */

enum { PREFIX_LOOKS_MAX = 128 /* pages that a search for a part examines, the newest first */ };

struct prefix;

/* idle_max 0: nothing is kept. */
int prefix_open(struct engine *e, uint32_t idle_max, struct prefix **ret_prefix, struct err *err);
void prefix_close(struct prefix *p); /* no page may be held; NULL is fine */

/* The page of the 64 tokens that follow page `after`, held from now on; PREFIX_NONE: not cached.
 * The caller holds `after`. */
uint32_t prefix_find(struct prefix *p, uint32_t scope, uint32_t after, const int32_t *tokens);
/* The page after `after` that begins with most of the n tokens, not held; *ret_n says how many. */
uint32_t prefix_find_part(struct prefix *p, uint32_t scope, uint32_t after, const int32_t *tokens,
                          uint32_t n, uint32_t *ret_n);
uint32_t prefix_page(const struct prefix *p, uint32_t at);         /* its number in the engine */
uint32_t prefix_before(const struct prefix *p, uint32_t at);       /* the page that it follows */
const int32_t *prefix_tokens(const struct prefix *p, uint32_t at); /* [64] of a whole page */
/* Add page i, which is full, of a session whose earlier pages are the path to `after`. The result
 * is held in place of `after`: the new page, or an equal cached one, which then replaces the
 * session's. PREFIX_NONE when nothing is kept. */
uint32_t prefix_add(struct prefix *p, uint32_t scope, uint32_t after, struct session *s,
                    uint32_t i);
/* The same for a page of other origin that the caller holds and gives away. */
uint32_t prefix_put(struct prefix *p, uint32_t scope, uint32_t after, uint32_t page,
                    const int32_t *tokens);
/* The same for the last page of n < 64 tokens, which goes idle. */
void prefix_add_part(struct prefix *p, uint32_t scope, uint32_t after, struct session *s,
                     uint32_t i, uint32_t n);
/* Hold the path to `at` once more, or release it. PREFIX_NONE is fine. */
void prefix_hold(struct prefix *p, uint32_t at);
void prefix_release(struct prefix *p, uint32_t at);
/* Release this page only, the last of a path; returns the one before it, which stays held. */
uint32_t prefix_release_last(struct prefix *p, uint32_t at);
/* How many of tokens[n] whole pages and the beginning of one hold. Nothing is held, nor used. */
uint32_t prefix_count(const struct prefix *p, uint32_t scope, const int32_t *tokens, uint32_t n);

/* Evict the least recently used idle page; false: none is idle. */
bool prefix_evict(struct prefix *p);
/* Whether the engine has a free page, after evicting one if need be. */
bool prefix_room(struct prefix *p);
uint32_t prefix_idle(const struct prefix *p);
uint64_t prefix_evictions(const struct prefix *p);

#endif
