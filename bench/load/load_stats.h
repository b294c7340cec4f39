/*
 * load_stats: samples and their quantiles, and what another process of this machine uses.
 */
#ifndef PDD_BENCH_LOAD_STATS_H
#define PDD_BENCH_LOAD_STATS_H

#include <stddef.h>
#include <stdint.h>

/* Zeroed: empty. */
struct samples {
    double *values;
    size_t n, cap;
};
void samples_add(struct samples *s, double value);
void samples_release(struct samples *s);
/* Sorts; q in [0, 1]; 0 of none. */
double samples_quantile(struct samples *s, double q);
/* "name":{"n","min","p50","p95","p99","p999","max"} to standard output, all times `scale`. */
void samples_print(struct samples *s, const char *name, double scale);

struct process {
    double cpu_us; /* of all its threads so far */
    double rss_kb; /* memory that is its own */
};
/* Zeroes when there is no such process or pid is 0. */
struct process process_of(uint32_t pid);

#endif
