/*
 * bench_plan: how long one plan takes (policy/plan), on one core. Aim: below 100 us.
 *
 *   build/release/bench_plan
 *
 * Random prompts, speeds and histograms; "wide": every ratio, pace and start may be chosen;
 * "usual": the default goal and the whole prompt. Prints mean, median, 99th percentile and longest
 * call.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/rng.h"
#include "policy/plan.h"

enum { CALLS = 20000, AT_ONCE = 20 }; /* plans in a measurement */

static const struct plan_quality quality = {{0.9, 0.96, 0.98, 0.99, 1, 1, 1, 1, 1, 1}};

static void make_input(struct rng *r, bool wide, struct lengths *lengths, struct plan_input *in)
{
    plan_input_init(in, wide ? PLAN_CHEAP : PLAN_EVEN);
    in->prompt_tokens = in->cloud.uncached = 500 + rng_below(r, 12000);
    in->answer_max = 512 + rng_below(r, 4096);
    in->device = (struct plan_device){.prefill = {1e6 / (100.0 + rng_below(r, 900)), 0.05, 0.1},
                                      .decode = {20000.0 + rng_below(r, 80000), 1.0, 0.05},
                                      .heat = 1.0 + (double)rng_next_uniform(r),
                                      .prefill_w = 5.0,
                                      .decode_w = 4.0};
    in->cloud.known = true;
    in->cloud.first_us = (struct plan_value){2e5 + rng_below(r, 1000000), 5e4};
    lengths_clear(lengths);
    for (int i = 0; i < 40; i++)
        lengths_add(lengths, 1 + rng_below(r, 1500), i % 7 == 0);
    in->lengths = lengths;
    if (wide) {
        in->quality = &quality;
        in->limits.ratio_least = 0.1;
        in->limits.interval_us = 300000.0;
    }
}

/* Of this thread: others on the machine do not count. */
static double cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const char *name, bool wide)
{
    static double us[CALLS / AT_ONCE];
    struct rng r;
    double sum = 0.0, cost = 0.0;
    rng_init(&r, 1, wide);
    for (int i = 0; i < CALLS / AT_ONCE; i++) {
        struct lengths lengths;
        struct plan_input in;
        struct plan p;
        make_input(&r, wide, &lengths, &in);
        double began = cpu_us();
        for (int k = 0; k < AT_ONCE; k++) {
            plan_make(&in, &p);
            cost += p.cost;
        }
        us[i] = (cpu_us() - began) / AT_ONCE;
        sum += us[i];
    }
    int n = CALLS / AT_ONCE;
    qsort(us, (size_t)n, sizeof *us, by_size);
    printf("%-6s mean %5.1f us, median %5.1f us, p99 %5.1f us, longest %5.1f us (sum of costs "
           "%.0f)\n",
           name, sum / n, us[n / 2], us[n * 99 / 100], us[n - 1], cost);
}

int main(void)
{
    measure("usual", false);
    measure("wide", true);
    return 0;
}
