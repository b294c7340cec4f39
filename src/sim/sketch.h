/*
 * sketch: counts of values in bounded memory, for quantiles that are exact to 0.2 %. A bucket is a
 * double's exponent and the first 8 bits of its fraction, so that no logarithm is needed and every
 * machine finds the same bucket. Mean and maximum are exact. Pure.
 */
#ifndef PDD_SIM_SKETCH_H
#define PDD_SIM_SKETCH_H

#include <stdint.h>

enum {
    SKETCH_BITS = 8,
    SKETCH_LOW = -20, /* values below 2^-20, and zero, count as zero */
    SKETCH_HIGH = 44, /* values from 2^44 on count as the last bucket */
    SKETCH_BUCKETS = (SKETCH_HIGH - SKETCH_LOW) << SKETCH_BITS
};

struct sketch {
    uint64_t n, zeros;
    double sum, max;
    uint64_t counts[SKETCH_BUCKETS];
};

void sketch_add(struct sketch *s, double value); /* negative values count as zero */
/* The middle of the bucket of the value at rank q * (n - 1), q from 0 to 1; 0 when empty. */
double sketch_quantile(const struct sketch *s, double q);
double sketch_mean(const struct sketch *s);

#endif
