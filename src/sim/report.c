/* report: see report.h. */
#include "sim/report.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"

/* ---- figures ---- */

static double per_answer(const struct run_result *r, double sum)
{
    uint64_t n = r->tally->all.answers;
    return n > 0 ? sum / (double)n : 0.0;
}

static double share(const struct run_result *r, uint64_t n)
{
    return 100.0 * per_answer(r, (double)n);
}

/* As long as requests arrive: what is left after the last one is not load. */
static double duration_s(const struct run_result *r)
{
    return r->arrived_at > r->began_at ? (double)(r->arrived_at - r->began_at) / 1e6 : 1.0;
}

#define FIGURE(name, value)                                                                        \
    static double name(const struct run_result *r)                                                 \
    {                                                                                              \
        return (value);                                                                            \
    }

FIGURE(answers, (double)r->tally->all.answers)
FIGURE(first_mean, sketch_mean(&r->tally->first_ms))
FIGURE(first_p50, sketch_quantile(&r->tally->first_ms, 0.5))
FIGURE(first_p95, sketch_quantile(&r->tally->first_ms, 0.95))
FIGURE(first_p99, sketch_quantile(&r->tally->first_ms, 0.99))
FIGURE(gap_mean, sketch_mean(&r->tally->gap_ms))
FIGURE(gap_p50, sketch_quantile(&r->tally->gap_ms, 0.5))
FIGURE(gap_p95, sketch_quantile(&r->tally->gap_ms, 0.95))
FIGURE(widest_p95, sketch_quantile(&r->tally->widest_ms, 0.95))
FIGURE(tokens_p50, sketch_quantile(&r->tally->borrowed, 0.5))
FIGURE(tokens_p95, sketch_quantile(&r->tally->borrowed, 0.95))
FIGURE(gap_p99, sketch_quantile(&r->tally->gap_ms, 0.99))
FIGURE(gap_max, r->tally->gap_ms.max)
FIGURE(widest_p50, sketch_quantile(&r->tally->widest_ms, 0.5))
FIGURE(widest_p99, sketch_quantile(&r->tally->widest_ms, 0.99))
FIGURE(widest_own, sketch_quantile(&r->tally->widest_of_own, 0.5))
FIGURE(widest_own_p99, sketch_quantile(&r->tally->widest_of_own, 0.99))
FIGURE(first_max_s, r->tally->first_ms.max / 1e3)
FIGURE(stalls,
       r->tally->all.tokens ? 1e3 * (double)r->tally->stalls / (double)r->tally->all.tokens : 0.0)
FIGURE(stalled, share(r, r->tally->stalled_answers))
FIGURE(handover_p50, sketch_quantile(&r->tally->handover_ms, 0.5))
FIGURE(handover_p99, sketch_quantile(&r->tally->handover_ms, 0.99))
FIGURE(handed_over, share(r, r->tally->handed_over))
FIGURE(device_alone, share(r, r->tally->device_alone))
FIGURE(cloud_alone, share(r, r->tally->cloud_alone))
FIGURE(cloud_tokens, per_answer(r, (double)r->tally->all.cloud_tokens))
FIGURE(slot_s, per_answer(r, r->tally->all.slot_s))
FIGURE(decode_slot_s, per_answer(r, r->tally->all.decode_slot_s))
FIGURE(decoding_mean, sketch_mean(r->decoding))
FIGURE(decoding_p99, sketch_quantile(r->decoding, 0.99))
FIGURE(kv_gb_s, per_answer(r, r->tally->all.kv_byte_s) / 1e9)
FIGURE(engine_s, per_answer(r, r->tally->all.engine_s))
FIGURE(busy, r->cloud.busy_us / 1e4 / duration_s(r))
FIGURE(queue_p99, sketch_quantile(&r->tally->queue_ms, 0.99))
FIGURE(joule, per_answer(r, r->tally->all.joule))
FIGURE(wasted, r->tally->all.local_prefilled ? 100.0 * (double)r->tally->all.wasted_prefill /
                                                   (double)r->tally->all.local_prefilled
                                             : 0.0)
FIGURE(kept, share(r, r->tally->all.kept))
FIGURE(kept_rate, (double)r->tally->all.kept / duration_s(r))
FIGURE(cost, per_answer(r, r->tally->all.cost))
FIGURE(quality, per_answer(r, r->tally->all.quality))
FIGURE(failed, (double)r->tally->failed)
FIGURE(unfinished, (double)r->tally->short_of)
FIGURE(cut, (double)r->tally->cut)
FIGURE(refused, (double)r->cloud.refused)
FIGURE(asked_again, share(r, r->tally->reopened))
FIGURE(beyond, (double)r->tally->beyond_context)
FIGURE(devices, (double)r->devices)
FIGURE(at_once, (double)r->answers_most)
FIGURE(cached, r->cloud.prefill_tokens + r->cloud.cached_tokens
                   ? 100.0 * (double)r->cloud.cached_tokens /
                         (double)(r->cloud.prefill_tokens + r->cloud.cached_tokens)
                   : 0.0)

static const struct report_figure figures[] = {
    {"answers", "answers", "", 0, answers},
    {"first_mean", "TTFT mean", "ms", 0, first_mean},
    {"first_p50", "TTFT p50", "ms", 0, first_p50},
    {"first_p95", "TTFT p95", "ms", 0, first_p95},
    {"first_p99", "TTFT p99", "ms", 0, first_p99},
    {"gap_mean", "gap mean", "ms", 1, gap_mean},
    {"gap_p50", "gap p50", "ms", 1, gap_p50},
    {"gap_p95", "gap p95", "ms", 1, gap_p95},
    {"widest_p95", "largest gap p95", "ms", 0, widest_p95},
    {"tokens_p50", "cloud tokens shown p50", "", 0, tokens_p50},
    {"tokens_p95", "p95", "", 0, tokens_p95},
    {"gap_p99", "gap p99", "ms", 0, gap_p99},
    {"gap_max", "gap max", "ms", 0, gap_max},
    {"widest_p50", "largest gap of an answer p50", "ms", 0, widest_p50},
    {"widest_p99", "largest gap p99", "ms", 0, widest_p99},
    {"widest_own", "largest gap by the device's own p50", "", 2, widest_own},
    {"widest_own_p99", "p99", "", 2, widest_own_p99},
    {"first_max", "TTFT max", "s", 0, first_max_s},
    {"stalls", "stalls in 1,000 tokens", "", 3, stalls},
    {"stalled", "answers with a stall", "%", 2, stalled},
    {"handover_p50", "gap at the handover p50", "ms", 0, handover_p50},
    {"handover_p99", "gap at the handover p99", "ms", 0, handover_p99},
    {"handed_over", "handed over", "%", 1, handed_over},
    {"device_alone", "device alone", "%", 1, device_alone},
    {"cloud_alone", "cloud alone", "%", 1, cloud_alone},
    {"cloud_tokens", "cloud tokens", "", 1, cloud_tokens},
    {"slot_s", "slot", "s", 3, slot_s},
    {"decode_slot_s", "decode slot", "s", 3, decode_slot_s},
    {"decoding_mean", "slots that decode, mean", "", 2, decoding_mean},
    {"decoding_p99", "p99", "", 0, decoding_p99},
    {"kv_gb_s", "KV memory", "GB s", 3, kv_gb_s},
    {"engine_s", "engine", "s", 4, engine_s},
    {"busy", "engines busy", "%", 0, busy},
    {"queue_p99", "queue p99", "ms", 0, queue_p99},
    {"joule", "device energy", "J", 1, joule},
    {"wasted", "wasted prefill", "%", 1, wasted},
    {"kept", "within limits", "%", 2, kept},
    {"kept_rate", "answers/s within limits", "", 2, kept_rate},
    {"cost", "cost", "", 4, cost},
    {"quality", "quality", "", 3, quality},
    {"failed", "failed", "", 0, failed},
    {"unfinished", "unfinished", "", 0, unfinished},
    {"cut", "cut at the longest answer", "", 0, cut},
    {"refused", "refusals", "", 0, refused},
    {"asked_again", "asked again", "%", 1, asked_again},
    {"beyond", "beyond the device's context", "", 0, beyond},
    {"devices", "devices", "", 0, devices},
    {"at_once", "answers at once", "", 0, at_once},
    {"cached", "prompt tokens cached", "%", 1, cached},
};

const struct report_figure *report_figure_at(uint32_t i)
{
    return i < sizeof figures / sizeof *figures ? &figures[i] : NULL;
}

static const struct report_figure *find(const char *key, size_t n)
{
    const struct report_figure *f = figures;
    for (uint32_t i = 0; (f = report_figure_at(i)) != NULL; i++)
        if (strlen(f->key) == n && memcmp(f->key, key, n) == 0) break;
    CHECK(f);
    return f;
}

double report_figure(const struct run_result *r, const char *key)
{
    return find(key, strlen(key))->of(r);
}

/* ---- text ---- */

void report_text(struct buf *out, const char *text, const char *forbidden)
{
    for (; *text; text++)
        buf_putc(out, (unsigned char)*text < ' ' || strchr(forbidden, *text) ? '_' : *text);
}

/* ---- tables ---- */

static const char *next_key(const char *keys, size_t *ret_n)
{
    keys += strspn(keys, " ");
    *ret_n = strcspn(keys, " ");
    return *ret_n > 0 ? keys : NULL;
}

void report_table(struct buf *out, const struct report_run *runs, uint32_t n, const char *keys)
{
    size_t length;
    buf_puts(out, "| |");
    for (const char *k = keys; (k = next_key(k, &length)) != NULL; k += length) {
        const struct report_figure *f = find(k, length);
        buf_printf(out, " %s%s%s |", f->title, *f->unit ? ", " : "", f->unit);
    }
    buf_puts(out, "\n|---|");
    for (const char *k = keys; (k = next_key(k, &length)) != NULL; k += length)
        buf_puts(out, "--:|");
    for (uint32_t i = 0; i < n; i++) {
        buf_puts(out, "\n| ");
        report_text(out, runs[i].label, "|");
        buf_puts(out, " |");
        for (const char *k = keys; (k = next_key(k, &length)) != NULL; k += length) {
            const struct report_figure *f = find(k, length);
            buf_printf(out, " %.*f |", f->digits, f->of(runs[i].result));
        }
    }
    buf_putc(out, '\n');
}

void report_json(struct buf *out, const struct report_run *run)
{
    const struct report_figure *f;
    buf_puts(out, "{\"label\": \"");
    report_text(out, run->label, "\"\\");
    buf_printf(out, "\", \"method\": \"%s\"", run->key);
    for (uint32_t i = 0; (f = report_figure_at(i)) != NULL; i++)
        buf_printf(out, ", \"%s\": %.*f", f->key, f->digits + 3, f->of(run->result));
    buf_puts(out, ", \"classes\": {");
    for (uint32_t c = 0; c < TALLY_CLASSES; c++) {
        const struct tally *t = run->result->tally;
        const struct tally_sums *s = &t->of_class[c];
        double n = s->answers > 0 ? (double)s->answers : 1.0;
        buf_printf(out,
                   "%s\"%s\": {\"answers\": %llu, \"first_mean\": %.3f, \"first_p50\": %.3f, "
                   "\"cloud_tokens\": %.3f, \"engine_s\": %.6f, \"decode_slot_s\": %.6f}",
                   c > 0 ? ", " : "", tally_class_name(c), (unsigned long long)s->answers,
                   sketch_mean(&t->first_of_class[c]), sketch_quantile(&t->first_of_class[c], 0.5),
                   (double)s->cloud_tokens / n, s->engine_s / n, s->decode_slot_s / n);
    }
    buf_puts(out, "}}");
}

/* ---- pictures ---- */

enum { WIDTH = 760, LEFT = 270, BAR = 18, STEP = 26, TOP = 44 };

void report_bars(struct buf *out, const char *title, const struct report_run *runs, uint32_t n,
                 const char *key)
{
    const struct report_figure *f = find(key, strlen(key));
    double most = 0.0;
    for (uint32_t i = 0; i < n; i++)
        most = f->of(runs[i].result) > most ? f->of(runs[i].result) : most;
    buf_printf(out,
               "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%u\" "
               "font-family=\"sans-serif\" font-size=\"12\">\n"
               "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
               "<text x=\"12\" y=\"24\" font-size=\"14\" font-weight=\"bold\">",
               WIDTH, TOP + n * STEP + 12);
    report_text(out, title, "<>&");
    buf_puts(out, "</text>\n");
    for (uint32_t i = 0; i < n; i++) {
        double value = f->of(runs[i].result);
        double width = most > 0.0 ? value / most * (WIDTH - LEFT - 110) : 0.0;
        unsigned y = TOP + i * STEP;
        bool ours = strncmp(runs[i].label, "P/D", 3) == 0;
        buf_printf(out, "<text x=\"%d\" y=\"%u\" text-anchor=\"end\">", LEFT - 8, y + 13);
        report_text(out, runs[i].label, "<>&");
        buf_printf(out,
                   "</text><rect x=\"%d\" y=\"%u\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>"
                   "<text x=\"%.1f\" y=\"%u\">%.*f %s</text>\n",
                   LEFT, y, width, BAR, ours ? "#2a7ab8" : "#b8b8b8", LEFT + width + 6.0, y + 13,
                   f->digits, value, f->unit);
    }
    buf_puts(out, "</svg>\n");
}
