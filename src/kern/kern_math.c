/*
 * kern_math: elementary functions and conversions in plain C, the same bits on every machine,
 * because they use only IEEE + - * / and no libm.
 */
#include <string.h>

#include "kern/kern.h"

static double bits_to_double(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint64_t double_to_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* Nearest integer, ties to even, for |x| < 2^51. */
static double nearest(double x)
{
    volatile double magic =
        6755399441055744.0; /* 1.5 * 2^52; volatile keeps the sum from folding */
    return (x + magic) - magic;
}

double kern_exp(double x)
{
    if (x < -708.0) return 0.0;
    if (x > 709.0) x = 709.0;
    double n = nearest(x * 1.4426950408889634);
    double r = (x - n * 0.69314718036912382) - n * 1.9082149292705877e-10;
    /* Taylor to r^13 on |r| <= ln2 / 2: the first term left out is below 2^-57. */
    double sum = 1.0;
    for (int i = 13; i > 0; i--)
        sum = 1.0 + sum * (r / i);
    return sum * bits_to_double((uint64_t)((int64_t)n + 1023) << 52);
}

double kern_log(double x)
{
    uint64_t bits = double_to_bits(x);
    int64_t exponent = (int64_t)(bits >> 52) - 1023;
    double m = bits_to_double((bits & 0xFFFFFFFFFFFFFu) | 0x3FF0000000000000u);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        exponent++;
    }
    /* log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 0.172 */
    double s = (m - 1.0) / (m + 1.0), s2 = s * s, sum = 0.0;
    for (int i = 23; i > 0; i -= 2)
        sum = sum * s2 + 1.0 / i;
    double n = (double)exponent;
    return n * 0.69314718036912382 + (2.0 * s * sum + n * 1.9082149292705877e-10);
}

void kern_sincos(double x, double *ret_sin, double *ret_cos)
{
    /* pi / 2 in three parts of 33 bits, so that n times the first two is exact for n < 2^20. */
    double n = nearest(x * 0.63661977236758134);
    double r = ((x - n * 1.57079632673412561417) - n * 6.07710050630396597660e-11) -
               n * 2.02226624879595063154e-21;
    double r2 = r * r, s = 1.0, c = 1.0;
    for (int i = 17; i > 1; i -= 2) {
        s = 1.0 - s * (r2 / (i * (i - 1)));
        c = 1.0 - c * (r2 / ((i - 1) * (i > 3 ? i - 2 : 1)));
    }
    double sine = r * s, cosine = c;
    switch ((int64_t)n & 3) {
    case 0:
        *ret_sin = sine;
        *ret_cos = cosine;
        break;
    case 1:
        *ret_sin = cosine;
        *ret_cos = -sine;
        break;
    case 2:
        *ret_sin = -sine;
        *ret_cos = -cosine;
        break;
    default:
        *ret_sin = -cosine;
        *ret_cos = sine;
    }
}

float kern_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31u, mantissa = h & 0x3FFu;
    uint32_t bits;
    float x;
    if (exponent == 0) {
        x = (float)mantissa * 0x1p-24f;
        memcpy(&bits, &x, 4);
        bits |= sign;
    } else if (exponent == 31) {
        bits = sign | 0x7F800000u | mantissa << 13 | (mantissa ? 0x400000u : 0); /* NaN: quiet */
    } else {
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    }
    memcpy(&x, &bits, 4);
    return x;
}

uint16_t kern_f32_to_f16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | (magnitude >> 13 & 0x3FFu));
    if (magnitude >= 0x477FF000u) /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7C00u);
    if (magnitude >= 0x38800000u) { /* normal: round the 13 bits that go */
        uint32_t rounded = magnitude + 0xFFFu + (magnitude >> 13 & 1u);
        return (uint16_t)(sign | (rounded - 0x38000000u) >> 13);
    }
    /* Subnormal: adding 0.5 puts the wanted bits at the end of the mantissa, rounded to even. */
    float y;
    memcpy(&y, &magnitude, 4);
    y += 0.5f;
    memcpy(&magnitude, &y, 4);
    return (uint16_t)(sign | (magnitude - 0x3F000000u));
}

void kern_add(float *x, const float *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] += y[i];
}

void kern_add_scaled(float *x, const float *y, float by, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] = __builtin_fmaf(y[i], by, x[i]);
}

void kern_scale(float *x, float by, uint32_t n)
{
    enum { LANES = 16 }; /* a loop of fixed length is one that gcc -O2 makes vectors of */
    for (; n >= LANES; n -= LANES, x += LANES)
        for (uint32_t i = 0; i < LANES; i++)
            x[i] *= by;
    for (uint32_t i = 0; i < n; i++)
        x[i] *= by;
}

void kern_rope_table(uint32_t position, const double *inverse, uint32_t pairs, float *table)
{
    for (uint32_t i = 0; i < pairs; i++) {
        double s, c;
        kern_sincos((double)position * inverse[i], &s, &c);
        table[2 * i] = (float)c;
        table[2 * i + 1] = (float)s;
    }
}

void kern_rope_pairs(float *x, uint32_t heads, uint32_t head_dim, uint32_t pairs,
                     const float *table)
{
    for (uint32_t h = 0; h < heads; h++, x += head_dim) {
        for (uint32_t i = 0; i < pairs; i++) {
            float a = x[2 * i], b = x[2 * i + 1], c = table[2 * i], s = table[2 * i + 1];
            x[2 * i] = a * c - b * s;
            x[2 * i + 1] = a * s + b * c;
        }
    }
}

void kern_rope_halves(float *x, uint32_t heads, uint32_t head_dim, uint32_t pairs,
                      const float *table)
{
    for (uint32_t h = 0; h < heads; h++, x += head_dim) {
        for (uint32_t i = 0; i < pairs; i++) {
            float a = x[i], b = x[pairs + i], c = table[2 * i], s = table[2 * i + 1];
            x[i] = a * c - b * s;
            x[pairs + i] = a * s + b * c;
        }
    }
}

/* The maximum in lanes, which a compiler can keep in a register, and then where it stands first: a
 * step of a small model spends percents here when each value is asked for its place. */
uint32_t kern_argmax(const float *x, uint32_t n)
{
    enum { LANES = 16 };
    float lanes[LANES], max = x[0];
    uint32_t i = 0;
    for (uint32_t j = 0; j < LANES; j++)
        lanes[j] = max;
    for (; i + LANES <= n; i += LANES)
        for (uint32_t j = 0; j < LANES; j++)
            lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (uint32_t j = 0; j < LANES; j++)
        max = lanes[j] > max ? lanes[j] : max;
    for (i = 0; i < n; i++)
        if (x[i] == max) return i;
    return 0; /* NaN first */
}

void kern_put_k(const float *k, uint32_t head_dim, uint32_t slot, uint16_t *tile)
{
    for (uint32_t d = 0; d < head_dim; d++)
        tile[d * KERN_TILE + slot] = kern_f32_to_f16(k[d]);
}

void kern_put_v(const float *v, uint32_t head_dim, uint32_t slot, uint16_t *tile)
{
    for (uint32_t d = 0; d < head_dim; d++)
        tile[slot * head_dim + d] = kern_f32_to_f16(v[d]);
}
