/*
 * kern_fetch: prefetch of packed weights, for the levels whose few rows read them from memory. It
 * goes into L2: as many outstanding lines of L1 would delay its loads (half the speed on Zen 4).
 * Only inline functions whose type is a constant after inlining.
 */
#ifndef PDD_KERN_KERN_FETCH_H
#define PDD_KERN_KERN_FETCH_H

#include "kern/kern_impl.h"

enum { FETCH_SECOND_LEVEL = 2, FETCH_LINE = 64 };

static inline __attribute__((always_inline)) void fetch_lines(const uint8_t *at, size_t bytes)
{
    _Pragma("GCC unroll 16") for (size_t i = 0; i < bytes; i += FETCH_LINE)
        __builtin_prefetch(at + i, 0, FETCH_SECOND_LEVEL);
}

/* Weights and scales of sub-blocks of block b. */
static inline __attribute__((always_inline)) void fetch_block(const uint8_t *unit, size_t b,
                                                              enum kern_type type)
{
    const size_t bytes = kern_block_bytes(type), subs_at = kern_subs_at(type);
    fetch_lines(unit + b * bytes, bytes);
    if (b == 0 && kern_unit_bytes(type) > subs_at)
        fetch_lines(unit + subs_at, kern_unit_bytes(type) - subs_at);
}

#endif
