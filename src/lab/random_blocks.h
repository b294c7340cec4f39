/*
 * random_blocks: random bytes in a tensor type's block format, so that the weights they stand for
 * are about N(0, deviation): the quants are plain random bits and the block's scales are set to fit
 * them, each a little different. No quantiser is involved, so gigabytes take seconds. Pure.
 */
#ifndef PDD_LAB_RANDOM_BLOCKS_H
#define PDD_LAB_RANDOM_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

/* Fill n bytes, whole blocks, of a tensor of `type` (enum gguf_type). A function of its arguments
 * only; any thread. */
void random_blocks_fill(uint32_t type, float deviation, float mean, uint64_t seed, uint64_t stream,
                        uint64_t counter, void *out, size_t n);

#endif
