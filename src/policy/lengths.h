/*
 * lengths: a histogram of how long answers are, as a plan needs it: learned from the answers of one
 * kind of question, starting from a prior. Pure, and of IEEE operations only: the same history
 * gives the same values on every machine.
 *
 * Bucket 2k holds lengths from 2^k to 1.5 * 2^k, bucket 2k + 1 those from there to 2^(k + 1);
 * within a bucket lengths count as uniform. An answer that was cut off says only that it is longer:
 * its weight goes to the lengths above the cut, as the histogram has them so far. The newest
 * answers count most: all weight but the prior's fades by 1/LENGTHS_MEMORY with each answer.
 */
#ifndef PDD_POLICY_LENGTHS_H
#define PDD_POLICY_LENGTHS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    LENGTHS_BUCKETS = 42,
    LENGTHS_MEMORY = 200,
    LENGTHS_PRIOR = 8 /* answers that it is worth */
};

struct lengths {
    double weight[LENGTHS_BUCKETS]; /* of answers seen, without the prior */
    uint32_t n;                     /* answers seen */
};

void lengths_clear(struct lengths *l);
/* An answer of `tokens` (0 counts as 1), or at least so long: `cut`. */
void lengths_add(struct lengths *l, uint32_t tokens, bool cut);

/* What a plan asks of the histogram, or of a known length, many times. `from`: tokens of the answer
 * that exist already; lengths of at most that many are out. */
struct lengths_view {
    double above[LENGTHS_BUCKETS + 1]; /* P(L >= lower edge of bucket) */
    double sum[LENGTHS_BUCKETS + 1];   /* E[min(L, lower edge)] */
    double from, known;                /* known > 0: L is that */
    double scale, before;              /* P(L > from), E[min(L, from)] */
};

/* `l` NULL: the prior alone; `known` above 0: that length for certain. */
void lengths_view(const struct lengths *l, uint32_t from, uint32_t known,
                  struct lengths_view *ret_view);
/* P(L > from + x), given that L > from; x >= 0. */
double lengths_above(const struct lengths_view *v, double x);
/* E[min(L - from, x)], given that L > from. */
double lengths_mean_up_to(const struct lengths_view *v, double x);

#endif
