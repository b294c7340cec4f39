/*
 * kern_block: unpacks the blocks of GGUF's quantised types to unsigned values, scales and mins.
 * The bit layouts are facts of the format. Relies on the caller for a whole block of bytes.
 */
#include <string.h>

#include "base/check.h"
#include "kern/kern_impl.h"

static uint16_t half_at(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/* Eight bytes at a time: gigabytes are unpacked before the first token. */
#define EACH_BYTE 0x0101010101010101u

static uint64_t eight_at(const uint8_t *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static void put_eight(uint8_t *q, uint64_t x)
{
    memcpy(q, &x, sizeof x);
}

/* Of each byte the bits that `mask` has, `from` bits higher up. */
static uint64_t bits_of(uint64_t x, int from, unsigned mask)
{
    return x >> from & mask * EACH_BYTE;
}

/* Low nibbles of n bytes, a multiple of 8, then the high ones. */
static void open_nibbles(const uint8_t *p, int n, uint8_t *q)
{
    for (int k = 0; k < n; k += 8) {
        put_eight(q + k, bits_of(eight_at(p + k), 0, 15));
        put_eight(q + n + k, bits_of(eight_at(p + k), 4, 15));
    }
}

/* Bit 4 of 32 values, one bit each. */
static void add_fifth_bits(const uint8_t *p, uint8_t *q)
{
    for (int k = 0; k < 32; k += 8) {
        uint64_t own = p[k / 8] * EACH_BYTE & 0x8040201008040201u; /* bit i in byte i */
        put_eight(q + k, eight_at(q + k) | bits_of(own + 0x7F * EACH_BYTE, 7, 1) << 4);
    }
}

/* Two bits of 256 values: bytes 32 h .. 32 h + 31 hold columns 128 h + 32 s .. at bit 2 s. The bits
 * go to bit `to`. */
static void add_pairs(const uint8_t *p, int to, uint8_t *q)
{
    for (int s = 0; s < 8; s++, q += 32)
        for (int k = 0; k < 32; k += 8)
            put_eight(q + k, eight_at(q + k) | bits_of(eight_at(p + s / 4 * 32 + k), s % 4 * 2, 3)
                                                   << to);
}

/* One bit of 256 values: bit s of byte k is of column 32 s + k. */
static void add_bits(const uint8_t *p, int to, uint8_t *q)
{
    for (int s = 0; s < 8; s++, q += 32)
        for (int k = 0; k < 32; k += 8)
            put_eight(q + k, eight_at(q + k) | bits_of(eight_at(p + k), s, 1) << to);
}

/* Nibbles of 256 values, `run` columns from low nibbles, then as many from the same bytes' high. */
static void open_runs(const uint8_t *p, int run, uint8_t *q)
{
    for (int s = 0; s < 256 / (2 * run); s++, p += run, q += 2 * run)
        open_nibbles(p, run, q);
}

/* Eight 6-bit scales and mins in 12 bytes (Q4_K, Q5_K). */
static void open_six(const uint8_t *p, struct kern_opened *o)
{
    for (int s = 0; s < 4; s++) {
        o->scale[s] = (int8_t)(p[s] & 63);
        o->min[s] = (int8_t)(p[s + 4] & 63);
        o->scale[s + 4] = (int8_t)((p[s + 8] & 15) | p[s] >> 6 << 4);
        o->min[s + 4] = (int8_t)(p[s + 8] >> 4 | p[s + 4] >> 6 << 4);
    }
}

/* ---- one function a type ----
 *
 * Each fills in what its type has: values, scales and mins of sub-blocks, and the half floats where
 * they are not the first two bytes (d) or where there are two (m). Pure. */

static void open_Q8_0(const uint8_t *p, struct kern_opened *o)
{
    for (int k = 0; k < KERN_BLOCK; k += 8)
        put_eight(o->q + k, eight_at(p + 2 + k) ^ 0x80 * EACH_BYTE);
}

static void open_Q4_0(const uint8_t *p, struct kern_opened *o)
{
    open_nibbles(p + 2, 16, o->q);
}

static void open_Q4_1(const uint8_t *p, struct kern_opened *o)
{
    o->m = half_at(p + 2);
    open_nibbles(p + 4, 16, o->q);
}

static void open_Q5_0(const uint8_t *p, struct kern_opened *o)
{
    open_nibbles(p + 6, 16, o->q);
    add_fifth_bits(p + 2, o->q);
}

static void open_Q5_1(const uint8_t *p, struct kern_opened *o)
{
    o->m = half_at(p + 2);
    open_nibbles(p + 8, 16, o->q);
    add_fifth_bits(p + 4, o->q);
}

static void open_Q2_K(const uint8_t *p, struct kern_opened *o)
{
    for (int s = 0; s < 16; s++) {
        o->scale[s] = (int8_t)(p[s] & 15);
        o->min[s] = (int8_t)(p[s] >> 4);
    }
    memset(o->q, 0, sizeof o->q);
    add_pairs(p + 16, 0, o->q);
    o->d = half_at(p + 80);
    o->m = half_at(p + 82);
}

static void open_Q3_K(const uint8_t *p, struct kern_opened *o)
{
    memset(o->q, 0, sizeof o->q);
    add_pairs(p + 32, 0, o->q);
    add_bits(p, 2, o->q);
    const uint8_t *scales = p + 96; /* 16 of 6 bits, 32 too high */
    for (int s = 0; s < 16; s++) {
        int low = s < 8 ? scales[s] & 15 : scales[s - 8] >> 4;
        int high = scales[8 + s % 4] >> s / 4 * 2 & 3;
        o->scale[s] = (int8_t)((low | high << 4) - 32);
    }
    o->d = half_at(p + 108);
}

static void open_Q4_K(const uint8_t *p, struct kern_opened *o)
{
    o->m = half_at(p + 2);
    open_six(p + 4, o);
    open_runs(p + 16, 32, o->q);
}

static void open_Q5_K(const uint8_t *p, struct kern_opened *o)
{
    o->m = half_at(p + 2);
    open_six(p + 4, o);
    open_runs(p + 48, 32, o->q);
    add_bits(p + 16, 4, o->q);
}

static void open_Q6_K(const uint8_t *p, struct kern_opened *o)
{
    open_runs(p, 64, o->q);
    add_pairs(p + 128, 4, o->q);
    memcpy(o->scale, p + 192, 16);
    o->d = half_at(p + 208);
}

static void open_IQ4_NL(const uint8_t *p, struct kern_opened *o)
{
    open_nibbles(p + 2, 16, o->q);
}

static void open_IQ4_XS(const uint8_t *p, struct kern_opened *o)
{
    unsigned high = half_at(p + 2);
    for (int s = 0; s < 8; s++) {
        unsigned low = (unsigned)p[4 + s / 2] >> s % 2 * 4 & 15u;
        o->scale[s] = (int8_t)((int)(low | (high >> 2 * s & 3) << 4) - 32);
        open_nibbles(p + 8 + 16 * s, 16, o->q + 32 * s);
    }
}

static void open_MXFP4(const uint8_t *p, struct kern_opened *o)
{
    o->d = p[0];
    open_nibbles(p + 1, 16, o->q);
}

void kern_block_open(enum kern_type type, const uint8_t *raw, struct kern_opened *o)
{
    o->d = half_at(raw);
    o->m = 0;
#define CASE(name, ...)                                                                            \
    case KERN_##name:                                                                              \
        open_##name(raw, o);                                                                       \
        return;
    switch (type) {
        KERN_QUANTS(CASE)
    default:
        CHECK(false); /* not a quantised type */
    }
#undef CASE
}
