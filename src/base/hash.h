/*
 * hash: FNV-1a of 64 bits, for tables and choices that no attacker gains from. Pure.
 */
#ifndef PDD_BASE_HASH_H
#define PDD_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define FNV_BEGIN 0xcbf29ce484222325ull

/* One step: usually a byte. */
static inline uint64_t fnv_step(uint64_t hash, uint64_t value)
{
    return (hash ^ value) * 0x100000001b3ull;
}

static inline uint64_t fnv_bytes(uint64_t hash, const void *data, size_t n)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < n; i++)
        hash = fnv_step(hash, bytes[i]);
    return hash;
}

#endif
