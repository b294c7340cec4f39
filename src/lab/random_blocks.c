/* random_blocks: see random_blocks.h. */
#include "lab/random_blocks.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "model/gguf.h"

enum { LEVELS = 4096, SCALES = 256, NONE = -1 };

/* A weight is scale * quant (+ minimum): the deviation of that at scale 1, for random quants and
 * random scales of sub-blocks; where the scale and the minimum stand; and what the minimum must be
 * in units of the scale to make the mean about zero. */
static const struct format {
    uint32_t type;
    int scale_at, min_at;
    float deviation, min_ratio;
} formats[] = {
    {GGUF_Q8_0, 0, NONE, 73.9f, 0.0f},   {GGUF_Q4_0, 0, NONE, 4.64f, 0.0f},
    {GGUF_Q4_1, 0, 2, 4.61f, -7.5f},     {GGUF_Q5_0, 0, NONE, 9.25f, 0.0f},
    {GGUF_Q5_1, 0, 2, 9.23f, -15.5f},    {GGUF_Q2_K, 80, 82, 13.9f, 1.5f},
    {GGUF_Q3_K, 108, NONE, 43.3f, 0.0f}, {GGUF_Q4_K, 0, 2, 258.0f, 7.5f},
    {GGUF_Q5_K, 0, 2, 527.0f, 15.5f},    {GGUF_Q6_K, 208, NONE, 1365.0f, 0.0f},
    {GGUF_IQ4_NL, 0, NONE, 67.4f, 0.0f}, {GGUF_IQ4_XS, 0, NONE, 1246.0f, 0.0f},
    {GGUF_MXFP4, 0, NONE, 2.926f, 0.0f},
};

static const struct format *format_of(uint32_t type)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (formats[i].type == type) return &formats[i];
    CHECK(false); /* not a tensor type that has no format */
    return NULL;
}

static void put_u16(uint8_t *at, uint16_t v)
{
    at[0] = (uint8_t)v;
    at[1] = (uint8_t)(v >> 8);
}

/* Scales of 3/4 to 5/4 of the one that fits; the random byte that stood there chooses. */
static void set_scales(const struct format *f, float deviation, uint32_t block_bytes, uint8_t *out,
                       size_t n)
{
    uint16_t scale[SCALES], min[SCALES];
    for (int i = 0; i < SCALES; i++) {
        float s = deviation / f->deviation * (0.75f + (float)i / 512.0f);
        scale[i] = kern_f32_to_f16(s);
        min[i] = kern_f32_to_f16(kern_f16_to_f32(scale[i]) * f->min_ratio);
    }
    for (size_t at = 0; at < n; at += block_bytes) {
        uint8_t *block = out + at, choice = block[f->scale_at];
        put_u16(block + f->scale_at, scale[choice]);
        if (f->min_at != NONE) put_u16(block + f->min_at, min[choice]);
    }
}

/* Scales that are powers of two (E8M0): the two nearest to the one that fits, as often as makes the
 * deviation right; the random byte that stood there chooses. */
static void set_powers(const struct format *f, float deviation, uint32_t block_bytes, uint8_t *out,
                       size_t n)
{
    enum { BIAS = 127, MOST = 254 };
    int exponent;
    float part = frexpf(deviation / f->deviation, &exponent); /* in [1/2, 1) */
    float larger = (4.0f * part * part - 1.0f) / 3.0f;        /* how often 2^exponent */
    int e = exponent - 1 + BIAS;
    e = e < 0 ? 0 : e > MOST - 1 ? MOST - 1 : e;
    for (size_t at = 0; at < n; at += block_bytes) {
        uint8_t *scale = out + at + f->scale_at;
        *scale = (uint8_t)(e + ((float)*scale < larger * SCALES));
    }
}

/* Quantisers never give -128, and some kernels of others rely on that. */
static void avoid_minimum(uint8_t *out, size_t n)
{
    for (size_t at = 0; at < n; at += 34)
        for (size_t i = 2; i < 34; i++)
            out[at + i] = out[at + i] == 0x80 ? 0x81 : out[at + i];
}

static uint32_t float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* Sums of two uniform numbers: a triangle is bell enough. */
static void make_levels(float deviation, float mean, float levels[LEVELS])
{
    for (int i = 0; i < LEVELS; i++) {
        float a = (float)(i & 63) + 0.5f, b = (float)(i >> 6) + 0.5f;
        levels[i] = mean + (a + b - 64.0f) / 64.0f * 2.449f * deviation;
    }
}

static void fill_f32(const float levels[LEVELS], uint8_t *out, size_t n)
{
    for (size_t at = 0; at < n; at += 4)
        memcpy(out + at, &levels[(out[at] | out[at + 1] << 8) % LEVELS], 4);
}

static void fill_f16(const float levels[LEVELS], uint32_t type, uint8_t *out, size_t n)
{
    uint16_t halves[LEVELS];
    for (int i = 0; i < LEVELS; i++)
        halves[i] = type == GGUF_F16 ? kern_f32_to_f16(levels[i])
                                     : (uint16_t)((float_bits(levels[i]) + 0x8000u) >> 16);
    for (size_t at = 0; at < n; at += 2)
        put_u16(out + at, halves[(out[at] | out[at + 1] << 8) % LEVELS]);
}

void random_blocks_fill(uint32_t type, float deviation, float mean, uint64_t seed, uint64_t stream,
                        uint64_t counter, void *out, size_t n)
{
    rng_fill(seed, stream, counter, out, n);
    if (!gguf_type_info(type)->quantised) {
        float levels[LEVELS];
        make_levels(deviation, mean, levels);
        if (type == GGUF_F32)
            fill_f32(levels, out, n);
        else
            fill_f16(levels, type, out, n);
        return;
    }
    (type == GGUF_MXFP4 ? set_powers : set_scales)(format_of(type), deviation,
                                                   gguf_type_info(type)->block_bytes, out, n);
    if (type == GGUF_Q8_0) avoid_minimum(out, n);
}
