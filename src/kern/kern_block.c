/*
 * kern_block: the blocks of GGUF's quantised types, laid open as unsigned values, scales and mins.
 * The bit layouts are facts of the format. Relies on the caller for a whole block of bytes.
 */
#include <string.h>

#include "base/check.h"
#include "kern/kern_impl.h"

static uint16_t half_at(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/* 32 values: the low nibbles of 16 bytes, then the high ones. */
static void open_nibbles(const uint8_t *p, uint8_t *q)
{
    for (int k = 0; k < 16; k++) {
        q[k] = p[k] & 15;
        q[16 + k] = p[k] >> 4;
    }
}

/* Bit 4 of 32 values, one bit each. */
static void add_fifth_bits(const uint8_t *p, uint8_t *q)
{
    for (int k = 0; k < 32; k++)
        q[k] |= (uint8_t)((p[k / 8] >> k % 8 & 1) << 4);
}

/* Two bits of 256 values: bytes 32 h .. 32 h + 31 hold columns 128 h + 32 s .. at bit 2 s. The bits
 * go to bit `to`. */
static void add_pairs(const uint8_t *p, int to, uint8_t *q)
{
    for (int s = 0; s < 8; s++)
        for (int k = 0; k < 32; k++)
            q[32 * s + k] |= (uint8_t)((p[s / 4 * 32 + k] >> s % 4 * 2 & 3) << to);
}

/* One bit of 256 values: bit s of byte k is of column 32 s + k. */
static void add_bits(const uint8_t *p, int to, uint8_t *q)
{
    for (int s = 0; s < 8; s++)
        for (int k = 0; k < 32; k++)
            q[32 * s + k] |= (uint8_t)((p[k] >> s & 1) << to);
}

/* Nibbles of 256 values, `run` columns from low nibbles, then as many from the same bytes' high. */
static void open_runs(const uint8_t *p, int run, uint8_t *q)
{
    for (int s = 0; s < 256 / (2 * run); s++, p += run, q += 2 * run) {
        for (int k = 0; k < run; k++) {
            q[k] = p[k] & 15;
            q[run + k] = p[k] >> 4;
        }
    }
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

static void open_q2_k(const uint8_t *p, struct kern_opened *o)
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

static void open_q3_k(const uint8_t *p, struct kern_opened *o)
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

static void open_q6_k(const uint8_t *p, struct kern_opened *o)
{
    open_runs(p, 64, o->q);
    add_pairs(p + 128, 4, o->q);
    memcpy(o->scale, p + 192, 16);
    o->d = half_at(p + 208);
}

static void open_iq4_xs(const uint8_t *p, struct kern_opened *o)
{
    unsigned high = half_at(p + 2);
    for (int s = 0; s < 8; s++) {
        unsigned low = (unsigned)p[4 + s / 2] >> s % 2 * 4 & 15u;
        o->scale[s] = (int8_t)((int)(low | (high >> 2 * s & 3) << 4) - 32);
        open_nibbles(p + 8 + 16 * s, o->q + 32 * s);
    }
}

void kern_block_open(enum kern_type type, const uint8_t *raw, struct kern_opened *o)
{
    o->d = half_at(raw);
    o->m = 0;
    switch (type) {
    case KERN_Q8_0:
        for (int k = 0; k < KERN_BLOCK; k++)
            o->q[k] = raw[2 + k] ^ 0x80;
        return;
    case KERN_Q4_0:
    case KERN_IQ4_NL:
        open_nibbles(raw + 2, o->q);
        return;
    case KERN_Q4_1:
        o->m = half_at(raw + 2);
        open_nibbles(raw + 4, o->q);
        return;
    case KERN_Q5_0:
        open_nibbles(raw + 6, o->q);
        add_fifth_bits(raw + 2, o->q);
        return;
    case KERN_Q5_1:
        o->m = half_at(raw + 2);
        open_nibbles(raw + 8, o->q);
        add_fifth_bits(raw + 4, o->q);
        return;
    case KERN_Q2_K:
        open_q2_k(raw, o);
        return;
    case KERN_Q3_K:
        open_q3_k(raw, o);
        return;
    case KERN_Q4_K:
        o->m = half_at(raw + 2);
        open_six(raw + 4, o);
        open_runs(raw + 16, 32, o->q);
        return;
    case KERN_Q5_K:
        o->m = half_at(raw + 2);
        open_six(raw + 4, o);
        open_runs(raw + 48, 32, o->q);
        add_bits(raw + 16, 4, o->q);
        return;
    case KERN_Q6_K:
        open_q6_k(raw, o);
        return;
    case KERN_IQ4_XS:
        open_iq4_xs(raw, o);
        return;
    default:
        CHECK(false); /* not a quantised type */
    }
}
