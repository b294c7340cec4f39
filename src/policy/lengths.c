/* lengths: see lengths.h. */
#include "policy/lengths.h"

#include <string.h>

/* Share of each octave from 1 token on. The mean of 370 and the median near 170 lie between the
 * published traces of chats (Azure's conversations answer with 211 tokens, Mooncake's with 343). */
static const double prior_octaves[LENGTHS_BUCKETS / 2] = {0.01, 0.01, 0.02, 0.04, 0.07,  0.12, 0.17,
                                                          0.20, 0.18, 0.11, 0.05, 0.015, 0.005};

void lengths_clear(struct lengths *l)
{
    *l = (struct lengths){.n = 0};
}

static double lower_edge(uint32_t bucket)
{
    double octave = (double)((uint64_t)1 << bucket / 2);
    return bucket % 2 ? 1.5 * octave : octave;
}

static uint32_t bucket_of(double tokens)
{
    if (tokens < 1.0) return 0;
    if (tokens >= lower_edge(LENGTHS_BUCKETS - 1)) return LENGTHS_BUCKETS - 1;
    uint32_t n = (uint32_t)tokens, octave = 0;
    for (uint32_t step = 16; step > 0; step /= 2)
        if (n >> octave >> step) octave += step;
    return 2 * octave + (tokens >= lower_edge(2 * octave + 1));
}

static double prior_weight(uint32_t bucket)
{
    return LENGTHS_PRIOR * prior_octaves[bucket / 2] / 2.0;
}

static double weight_of(const struct lengths *l, uint32_t bucket)
{
    return prior_weight(bucket) + (l ? l->weight[bucket] : 0.0);
}

/* Share of a bucket's lengths that lies above x. */
static double share_above(uint32_t bucket, double x)
{
    double low = lower_edge(bucket), high = lower_edge(bucket + 1);
    return x <= low ? 1.0 : x >= high ? 0.0 : (high - x) / (high - low);
}

static void add_above(struct lengths *l, double tokens)
{
    double weight[LENGTHS_BUCKETS], sum = 0.0;
    for (uint32_t b = 0; b < LENGTHS_BUCKETS; b++)
        sum += weight[b] = weight_of(l, b) * share_above(b, tokens);
    if (sum <= 0.0) { /* longer than any answer so far */
        l->weight[bucket_of(tokens)] += 1.0;
        return;
    }
    for (uint32_t b = 0; b < LENGTHS_BUCKETS; b++)
        l->weight[b] += weight[b] / sum;
}

void lengths_add(struct lengths *l, uint32_t tokens, bool cut)
{
    double x = tokens > 0 ? tokens : 1;
    for (uint32_t b = 0; b < LENGTHS_BUCKETS; b++)
        l->weight[b] *= 1.0 - 1.0 / LENGTHS_MEMORY;
    if (cut)
        add_above(l, x);
    else
        l->weight[bucket_of(x)] += 1.0;
    if (l->n < UINT32_MAX) l->n++;
}

/* P(L > x) and E[min(L, x)] of the whole histogram. */
static double above_of(const struct lengths_view *v, double x, double *ret_sum)
{
    if (x < 1.0) {
        *ret_sum = x;
        return 1.0;
    }
    uint32_t b = bucket_of(x);
    double low = lower_edge(b), high = lower_edge(b + 1), far = x < high ? x : high;
    double above = v->above[b] + (v->above[b + 1] - v->above[b]) * (far - low) / (high - low);
    *ret_sum = v->sum[b] + (far - low) * (v->above[b] + above) / 2.0;
    return above;
}

void lengths_view(const struct lengths *l, uint32_t from, uint32_t known, struct lengths_view *v)
{
    double total = 0.0, above = 0.0;
    v->from = from;
    v->scale = 1.0;
    v->known = v->before = 0.0;
    if (known > 0) {
        v->known = known > from ? known - from : 1;
        return;
    }
    for (uint32_t b = 0; b < LENGTHS_BUCKETS; b++)
        total += weight_of(l, b);
    v->above[0] = 1.0;
    v->sum[0] = lower_edge(0);
    for (uint32_t b = 0; b < LENGTHS_BUCKETS; b++) {
        above += weight_of(l, b);
        double left = total - above;
        v->above[b + 1] = b + 1 < LENGTHS_BUCKETS && left > 0.0 ? left / total : 0.0;
        v->sum[b + 1] =
            v->sum[b] + (lower_edge(b + 1) - lower_edge(b)) * (v->above[b] + v->above[b + 1]) / 2.0;
    }
    double left = above_of(v, v->from, &v->before);
    if (left > 0.0)
        v->scale = left;
    else
        v->known = 1.0; /* longer than anything: it may end at any token */
}

double lengths_above(const struct lengths_view *v, double x)
{
    double sum;
    if (v->known > 0.0) return x < v->known ? 1.0 : 0.0;
    double above = above_of(v, v->from + x, &sum) / v->scale;
    return above < 1.0 ? above : 1.0;
}

double lengths_mean_up_to(const struct lengths_view *v, double x)
{
    double sum;
    if (v->known > 0.0) return x < v->known ? x : v->known;
    (void)above_of(v, v->from + x, &sum);
    return (sum - v->before) / v->scale;
}
