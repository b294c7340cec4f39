/*
 * blocks: the rule of the prefix cache (engine/prefix.h) for prompts of which only the hashes of
 * their blocks are known. A block is held by the running requests whose prompts contain it, or
 * idle; of the idle ones, at most `idle_max`, the least recently used is evicted first. A request
 * releases its blocks from the last to the first, so that no block outlives the one before it.
 * Pure; memory is allocated once.
 */
#ifndef PDD_SIM_BLOCKS_H
#define PDD_SIM_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct blocks;

/* At most `most` blocks are known at once. */
int blocks_new(uint32_t most, uint32_t idle_max, struct blocks **ret_blocks, struct err *e);
void blocks_free(struct blocks *b); /* NULL is fine */
/* Hold the block if it is there. */
bool blocks_find(struct blocks *b, uint64_t key);
/* Add a block, or find it; held. False: there is no room, or nothing is kept. */
bool blocks_add(struct blocks *b, uint64_t key);
void blocks_release(struct blocks *b, uint64_t key);
bool blocks_evict(struct blocks *b); /* false: none is idle */
uint32_t blocks_idle(const struct blocks *b);
uint32_t blocks_known(const struct blocks *b); /* held and idle */

#endif
