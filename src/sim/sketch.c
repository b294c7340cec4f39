/* sketch: see sketch.h. */
#include "sim/sketch.h"

#include <string.h>

enum { FRACTION = 52, BIAS = 1023 };

void sketch_add(struct sketch *s, double value)
{
    uint64_t bits;
    s->n++;
    if (!(value > 0.0)) {
        s->zeros++;
        return;
    }
    s->sum += value;
    if (value > s->max) s->max = value;
    memcpy(&bits, &value, sizeof bits);
    int64_t at =
        (int64_t)(bits >> (FRACTION - SKETCH_BITS)) - ((int64_t)(BIAS + SKETCH_LOW) << SKETCH_BITS);
    if (at < 0)
        s->zeros++;
    else
        s->counts[at < SKETCH_BUCKETS ? at : SKETCH_BUCKETS - 1]++;
}

static double middle_of(int64_t bucket)
{
    uint64_t bits = (uint64_t)(bucket + ((int64_t)(BIAS + SKETCH_LOW) << SKETCH_BITS))
                        << (FRACTION - SKETCH_BITS) |
                    1ull << (FRACTION - SKETCH_BITS - 1);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

double sketch_quantile(const struct sketch *s, double q)
{
    if (s->n == 0) return 0.0;
    uint64_t rank = (uint64_t)(q * (double)(s->n - 1) + 0.5), seen = s->zeros;
    if (rank < seen) return 0.0;
    for (int64_t i = 0; i < SKETCH_BUCKETS; i++) {
        seen += s->counts[i];
        if (rank < seen) return middle_of(i) < s->max ? middle_of(i) : s->max;
    }
    return s->max;
}

double sketch_mean(const struct sketch *s)
{
    return s->n > 0 ? s->sum / (double)s->n : 0.0;
}
