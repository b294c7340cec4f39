/* rng: see rng.h. Philox4x32-10; multipliers and key increments are those of the paper. */
#include "base/rng.h"

#include <math.h>
#include <string.h>

static void philox_round(uint32_t c[4], uint32_t k0, uint32_t k1)
{
    uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
    uint32_t c1 = c[1], c3 = c[3];
    c[0] = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c[1] = (uint32_t)p1;
    c[2] = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c[3] = (uint32_t)p0;
}

uint32_t rng_u32(uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), (uint32_t)stream,
                     (uint32_t)(stream >> 32)};
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int i = 0; i < 10; i++) {
        philox_round(c, k0, k1);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c[0];
}

float rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return (float)(rng_u32(seed, stream, counter) >> 8) * 0x1p-24f;
}

/* Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA'14. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

void rng_fill(uint64_t seed, uint64_t stream, uint64_t counter, void *out, size_t n)
{
    const uint64_t gamma = 0x9E3779B97F4A7C15u, start = mix(mix(seed + gamma) ^ stream);
    uint8_t *to = out;
    for (; n >= 8; n -= 8, to += 8) {
        uint64_t x = mix(start + ++counter * gamma);
        memcpy(to, &x, 8);
    }
    uint64_t last = mix(start + ++counter * gamma);
    memcpy(to, &last, n);
}

void rng_init(struct rng *r, uint64_t seed, uint64_t stream)
{
    *r = (struct rng){seed, stream, 0};
}

uint32_t rng_next(struct rng *r)
{
    return rng_u32(r->seed, r->stream, r->counter++);
}

uint32_t rng_below(struct rng *r, uint32_t n)
{
    uint32_t limit = UINT32_MAX - UINT32_MAX % n, x;
    do
        x = rng_next(r);
    while (x >= limit);
    return x % n;
}

float rng_next_uniform(struct rng *r)
{
    return (float)(rng_next(r) >> 8) * 0x1p-24f;
}

float rng_next_normal(struct rng *r)
{
    double u = ((double)rng_next(r) + 1.0) / 4294967297.0, v = (double)rng_next(r) / 4294967296.0;
    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}
