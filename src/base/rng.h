/*
 * rng: counter-based random numbers. Pure: a value is a function of (seed, stream, counter), so
 * that device and cloud draw the same number for the same position of the same answer.
 * Philox4x32-10 (Salmon et al., SC'11): key = seed, counter = (counter, stream).
 */
#ifndef PDD_BASE_RNG_H
#define PDD_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

uint32_t rng_u32(uint64_t seed, uint64_t stream, uint64_t counter);
/* Uniform in [0, 1), 24 bits, exact in float32. */
float rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter);

/* n bytes of stream `stream` from byte 8 * counter on, by SplitMix64: gigabytes a second, for bulk
 * data. */
void rng_fill(uint64_t seed, uint64_t stream, uint64_t counter, void *out, size_t n);

/* A sequential generator on top of it, for tests and simulations. */
struct rng {
    uint64_t seed, stream, counter;
};
void rng_init(struct rng *r, uint64_t seed, uint64_t stream);
uint32_t rng_next(struct rng *r);
uint32_t rng_below(struct rng *r, uint32_t n); /* 0..n-1 without bias; n > 0 */
float rng_next_uniform(struct rng *r);
float rng_next_normal(struct rng *r); /* mean 0, deviation 1; not part of the exact contract */

#endif
