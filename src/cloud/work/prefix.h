/*
 * prefix: the prefix cache. It keeps KV pages (engine.h) of histories that were computed, so that a
 * request that begins alike computes only what is new: a second turn, a resumed answer, a system
 * prompt that many share.
 *
 * Pages form a tree: each stands for 64 tokens that follow the tokens of its parent. A page is
 * found by a hash of its parent and its tokens; the tokens themselves are compared too, so a
 * collision cannot happen. A page's parent is one page, not a hash, so equal tokens mean an equal
 * history. `scope` separates trees whose hits must not be seen elsewhere.
 *
 * Requests in work hold the pages of their history, which then cost nothing extra; pages that
 * nobody holds are *idle*, at most `idle_max`, least recently used out. Whoever holds a page holds
 * its ancestors, and ancestors go idle after their descendants, so no page loses its parent.
 *
 * An answer's last page is seldom full. Such a part is kept as well when its session ends, and any
 * page may be matched in part: the caller copies those tokens.
 *
 * Memory: fixed at opening. Threads: those of the engine.
 */
#ifndef PDD_CLOUD_WORK_PREFIX_H
#define PDD_CLOUD_WORK_PREFIX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/engine.h"

#define PREFIX_NONE UINT32_MAX /* no page: the beginning of a history */

enum { PREFIX_LOOKS_MAX = 128 /* pages that a search for a part looks at, the newest first */ };

struct prefix;

/* idle_max 0: nothing is kept. */
int prefix_open(struct engine *e, uint32_t idle_max, struct prefix **ret_prefix, struct err *err);
void prefix_close(struct prefix *p); /* nothing may be held; NULL is fine */

/* The page of the 64 tokens that follow page `after`, held from now on; PREFIX_NONE: not there. The
 * caller holds `after`. */
uint32_t prefix_find(struct prefix *p, uint32_t scope, uint32_t after, const int32_t *tokens);
/* The page after `after` that begins with most of the n tokens, not held; *ret_n says how many. */
uint32_t prefix_find_part(struct prefix *p, uint32_t scope, uint32_t after, const int32_t *tokens,
                          uint32_t n, uint32_t *ret_n);
uint32_t prefix_page(const struct prefix *p, uint32_t at); /* its number in the engine */
/* Add page number i, full, of a session whose pages before it are the path to `after`; the result
 * is held in `after`'s place: the page that was there already, which then replaces the session's
 * own, or the new one. PREFIX_NONE when nothing is kept. */
uint32_t prefix_add(struct prefix *p, uint32_t scope, uint32_t after, struct session *s,
                    uint32_t i);
/* The same for the last page of n < 64 tokens, which goes idle. */
void prefix_add_part(struct prefix *p, uint32_t scope, uint32_t after, struct session *s,
                     uint32_t i, uint32_t n);
/* Hold the path to `at` once more, or let it go. PREFIX_NONE is fine. */
void prefix_hold(struct prefix *p, uint32_t at);
void prefix_release(struct prefix *p, uint32_t at);

/* Give up the idle page that was used longest ago; false: none is idle. */
bool prefix_evict(struct prefix *p);
uint32_t prefix_idle(const struct prefix *p);
uint64_t prefix_evictions(const struct prefix *p);

#endif
