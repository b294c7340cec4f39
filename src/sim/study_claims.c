/* study_claims: what the paper claims, measured; see study_impl.h. */
#include <stdio.h>

#include "sim/study_impl.h"

static const char *const ours[] = {"lossless", "refined", "planned", "planned-refined"};
enum { OURS = sizeof ours / sizeof *ours };

static double less(double ours_value, double other)
{
    return other > 0.0 ? 100.0 * (1.0 - ours_value / other) : 0.0;
}

static double times(double other, double ours_value)
{
    return ours_value > 0.0 ? other / ours_value : 0.0;
}

/* Claim 1: the first token at least 60 % sooner than the device alone gives it. */
static void put_first(struct buf *out, const struct comparison *c, const struct run_result *device)
{
    buf_puts(out, "\n**First token**: less waiting than with the device alone, %, mean by class of "
                  "prompt (claim: 60 %; aim: 80 % at 8k)\n\n| | all |");
    for (uint32_t k = 0; k < TALLY_CLASSES - 1; k++)
        buf_printf(out, " %s |", tally_class_name(k));
    buf_puts(out, "\n|---|--:|--:|--:|--:|--:|\n");
    for (uint32_t i = 0; i < OURS; i++) {
        const struct run_result *r = study_find(c, ours[i]);
        if (!r) continue;
        buf_printf(out, "| %s | %.1f |", method_find(ours[i])->title,
                   less(sketch_mean(&r->tally->first_ms), sketch_mean(&device->tally->first_ms)));
        for (uint32_t k = 0; k < TALLY_CLASSES - 1; k++)
            buf_printf(out, " %.1f |",
                       less(sketch_mean(&r->tally->first_of_class[k]),
                            sketch_mean(&device->tally->first_of_class[k])));
        buf_putc(out, '\n');
    }
}

/* Claim 2: the largest gap shown. */
static void put_gaps(struct buf *out, const struct comparison *c)
{
    static const char *const keys[] = {"device",  "cloud",   "lossless",
                                       "refined", "planned", "planned-refined"};
    struct report_run runs[sizeof keys / sizeof *keys];
    uint32_t n = 0;
    buf_puts(out, "\n**Largest gap** (claim: tens of ms; aim: 1.1 of the device's own, no stall of "
                  "over 200 ms in 99 % of answers)\n\n");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct run_result *r = study_find(c, keys[i]);
        if (!r) continue;
        runs[n] = (struct report_run){.key = keys[i], .result = r};
        snprintf(runs[n++].label, REPORT_LABEL_MAX, "%s", method_find(keys[i])->title);
    }
    report_table(
        out, runs, n,
        "widest_p50 widest_p99 widest_own widest_own_p99 stalled handover_p50 handover_p99");
}

/* Claim 3: throughput of the cloud. */
static void put_throughput(struct buf *out, const struct comparison *c,
                           const struct run_result *cloud)
{
    static const char *const keys[] = {"cloud_tokens",  "slot_s",       "decode_slot_s",
                                       "decoding_mean", "decoding_p99", "engine_s"};
    static const char *const titles[] = {
        "tokens", "slot seconds",  "decode slot seconds", "decode slots, mean",
        "p99",    "engine seconds"};
    buf_puts(out, "\n**Throughput**: how many times less of the cloud an answer takes than cloud "
                  "only does (claim: up to 15; aim: 20 for slots)\n\n| |");
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
        buf_printf(out, " %s |", titles[k]);
    buf_puts(out, "\n|---|--:|--:|--:|--:|--:|--:|\n");
    for (uint32_t i = 0; i < OURS; i++) {
        const struct run_result *r = study_find(c, ours[i]);
        if (!r) continue;
        buf_printf(out, "| %s |", method_find(ours[i])->title);
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            buf_printf(out, " %.2f |",
                       times(report_figure(cloud, keys[k]), report_figure(r, keys[k])));
        buf_putc(out, '\n');
    }
}

void study_put_claims(struct buf *out, const struct comparison *c)
{
    const struct run_result *device = study_find(c, "device"), *cloud = study_find(c, "cloud");
    if (!device || !cloud) return;
    put_first(out, c, device);
    put_gaps(out, c);
    put_throughput(out, c, cloud);
}

static double per_answer(const struct tally_sums *s, double sum)
{
    return s->answers > 0 ? sum / (double)s->answers : 0.0;
}

void study_put_gains(struct buf *out, const struct comparison *c, const struct run_config *config)
{
    const struct run_result *cloud = study_find(c, "cloud"), *r = study_find(c, "planned");
    double mean[TALLY_CLASSES] = {0.0}, n[TALLY_CLASSES] = {0.0};
    if (!cloud || !r) return;
    for (uint32_t i = 0; i < config->trace->n; i++) {
        uint32_t k = tally_class(config->trace->requests[i].input);
        mean[k] += config->trace->requests[i].input;
        n[k]++;
    }
    buf_puts(out,
             "\n**By class of prompt**, planned against cloud only. The formula is (n/Pc + "
             "L/Dc) / (n/Pc + N/Dc) for the class's mean n, L and N, and answers that all use "
             "the cloud.\n\n| prompt | answers | L | N | tokens | decode slot seconds | engine "
             "seconds | formula |\n|---|--:|--:|--:|--:|--:|--:|--:|\n");
    for (uint32_t k = 0; k < TALLY_CLASSES; k++) {
        const struct tally_sums *a = &cloud->tally->of_class[k], *b = &r->tally->of_class[k];
        if (a->answers == 0) continue;
        double l = per_answer(a, (double)a->cloud_tokens),
               own = per_answer(b, (double)b->cloud_tokens);
        double read = mean[k] / n[k] * config->prefill_s;
        buf_printf(out, "| %s | %llu | %.0f | %.1f | %.1f | %.1f | %.2f | %.2f |\n",
                   tally_class_name(k), (unsigned long long)a->answers, l, own, times(l, own),
                   times(a->decode_slot_s, b->decode_slot_s), times(a->engine_s, b->engine_s),
                   (read + l * config->decode_s) / (read + own * config->decode_s));
    }
}
