/* chat_stats: see chat_stats.h. */
#include "cli/chat/chat_stats.h"

#include "proto/json.h"

static double ms(double us)
{
    return us / 1e3;
}

/* "  verified 37 of 40 cloud tokens; ...", where the cloud's numerics are not ours. */
static void print_verified(const struct device_report *r, FILE *to)
{
    const struct turn_report *t = &r->turn;
    if (r->unverified && r->unverified[0]) fprintf(to, "  not verified: %s\n", r->unverified);
    if (!t->verifying) return;
    fprintf(to, "  verified %u of %u cloud tokens", t->verified, t->received);
    if (t->differs)
        fprintf(to, "; the first difference at token %u, after which %u not yet shown were dropped",
                t->difference, t->dropped);
    else if (t->compared < t->received)
        fprintf(to, "; the answer was complete before the device reached %u of them",
                t->received - t->compared);
    fputc('\n', to);
}

/* How far the ends agree, as a word. Without a token of the device the answer is the cloud's. */
static const char *match_name(const struct device_report *r)
{
    return r->turn.refined && r->turn.device_tokens > 0 ? "refined" : wire_match_name(r->match);
}

static void print_refined(const struct device_report *r, FILE *to)
{
    const struct device_refined *f = &r->refined;
    if (r->turn.refined)
        fprintf(to, "  refined: %u of %u prompt tokens for the device", r->turn.reading,
                r->prompt_tokens);
    if (r->turn.refined && f->local) fprintf(to, ", chosen here by words");
    if (r->turn.refined && f->versions > 0)
        fprintf(to, "; the choice holds %.0f %% of the score", 100.0 * (double)f->coverage);
    if (r->turn.refined && f->restored > 0)
        fprintf(to, "; it lacked %u tokens that must stay", f->restored);
    if (r->turn.refined) fputc('\n', to);
    if (r->unrefined && r->unrefined[0])
        fprintf(to, "  not refined%s: %s\n", r->turn.refined ? " any more" : "", r->unrefined);
}

void chat_stats_print(const struct device_report *r, FILE *to)
{
    const struct turn_report *t = &r->turn;
    fprintf(to, "%u tokens: %u of the cloud, %u of the device; ended by %s\n", r->n,
            t->cloud_tokens, t->device_tokens, turn_reason_name(t->reason));
    if (r->n > 0)
        fprintf(to, "  first token %.0f ms; then %.1f ms a token, at most %.1f ms; %u stalls\n",
                ms(t->ttft_us), ms(t->tpot_mean_us), ms(t->tpot_max_us), t->stalls);
    if (t->handover)
        fprintf(to, "  handover at token %u, after %.1f ms\n", t->handover, ms(t->handover_gap_us));
    fprintf(to, "  plan: %s\n", r->plan.why);
    if (r->any_match)
        fprintf(to,
                "  cloud: match %s, %u prompt tokens (%u cached), first token %.0f ms, a slot for "
                "%.2f s\n",
                match_name(r), r->cloud_prompt_tokens, r->cloud_cached_tokens,
                ms(r->cloud_first_us), r->cloud_slot_us / 1e6);
    print_refined(r, to);
    print_verified(r, to);
    if (r->model && t->device_tokens > 0)
        fprintf(to,
                "  device: %s, %u prompt tokens (%u kept), %.0f tok/s prefill, %.1f ms a token\n",
                r->model, r->prompt_tokens, r->kept_tokens, r->prefill_tps, ms(r->decode_us));
    else if (r->model) /* its speeds would be guesses */
        fprintf(to, "  device: %s, %u prompt tokens, no token of its own\n", r->model,
                r->prompt_tokens);
    if (r->emulated) fprintf(to, "  emulated: %s\n", r->emulated);
    if (r->trouble[0]) fprintf(to, "  trouble: %s\n", r->trouble);
}

/* "key": "text" or "key": null, followed by a comma. */
static void put_text(struct buf *out, const char *key, const char *text)
{
    buf_printf(out, "\"%s\": ", key);
    json_put_text(out, text);
    buf_puts(out, ", ");
}

static void put_ms(struct buf *out, const char *key, double us, bool any)
{
    if (any)
        buf_printf(out, "\"%s\": %.3f, ", key, ms(us));
    else
        buf_printf(out, "\"%s\": null, ", key);
}

static void put_token(struct buf *out, const struct device_report *r, uint32_t i)
{
    const struct device_token *k = &r->tokens[i];
    buf_printf(out,
               "%s{\"i\": %u, \"id\": %d, \"source\": \"%s\", \"arrived_ms\": %.3f, "
               "\"shown_ms\": %.3f, \"text\": ",
               i ? ", " : "", i, k->id, turn_source_name(k->source), ms((double)k->arrived_us),
               ms((double)k->shown_us));
    json_put_string(out, r->text + k->text_at, k->text_len);
    buf_putc(out, '}');
}

static void put_head(struct buf *out, const struct device_report *r, const char *failure)
{
    buf_printf(out, "{\"version\": %d, \"commit\": \"%s\", ", CHAT_STATS_VERSION, PDD_COMMIT);
    put_text(out, "model", r->model);
    put_text(out, "weights", r->weights_hash);
    put_text(out, "numerics", r->numerics);
    put_text(out, "emulated", r->emulated);
    buf_printf(out, "\"plan\": {\"choice\": \"%s\", \"cloud_tokens\": %u, \"why\": ",
               plan_choice_name(r->plan.choice), r->plan.cloud_tokens);
    json_put_text(out, r->plan.why);
    buf_puts(out, "}, ");
    put_text(out, "match", r->any_match ? match_name(r) : NULL);
    buf_printf(out,
               "\"prompt_tokens\": %u, \"kept_tokens\": %u, \"cloud_prompt_tokens\": "
               "%u, \"cloud_cached_tokens\": %u, ",
               r->prompt_tokens, r->kept_tokens, r->cloud_prompt_tokens, r->cloud_cached_tokens);
    put_text(out, "reason", failure ? "failed" : turn_reason_name(r->turn.reason));
    put_text(out, "error", failure);
    put_text(out, "trouble", r->trouble && r->trouble[0] ? r->trouble : NULL);
}

static void put_refined(struct buf *out, const struct device_report *r)
{
    const struct device_refined *f = &r->refined;
    put_text(out, "unrefined", r->unrefined && r->unrefined[0] ? r->unrefined : NULL);
    if (r->turn.refined)
        buf_printf(
            out,
            "\"refined\": {\"read\": %u, \"local\": %s, \"ratio\": %.4f, \"coverage\": %.4f, "
            "\"versions\": %u, \"restored\": %u}, ",
            r->turn.reading, f->local ? "true" : "false", (double)f->ratio, (double)f->coverage,
            f->versions, f->restored);
    else
        buf_puts(out, "\"refined\": null, ");
}

static void put_verified(struct buf *out, const struct device_report *r)
{
    const struct turn_report *t = &r->turn;
    put_text(out, "unverified", r->unverified && r->unverified[0] ? r->unverified : NULL);
    if (!t->verifying) {
        buf_puts(out, "\"verified\": null, ");
        return;
    }
    buf_printf(out,
               "\"verified\": {\"tokens\": %u, \"compared\": %u, \"of\": %u, \"dropped\": %u, "
               "\"difference\": ",
               t->verified, t->compared, t->received, t->dropped);
    if (t->differs)
        buf_printf(out, "%u}, ", t->difference);
    else
        buf_puts(out, "null}, ");
}

static void put_measures(struct buf *out, const struct device_report *r)
{
    const struct turn_report *t = &r->turn;
    put_ms(out, "ttft_ms", t->ttft_us, r->n > 0);
    put_ms(out, "tpot_mean_ms", t->tpot_mean_us, r->n > 1);
    put_ms(out, "tpot_max_ms", t->tpot_max_us, r->n > 1);
    buf_printf(out, "\"stalls\": %u, ", t->stalls);
    if (t->handover)
        buf_printf(out, "\"handover\": %u, ", t->handover);
    else
        buf_puts(out, "\"handover\": null, ");
    put_ms(out, "handover_gap_ms", t->handover_gap_us, t->handover > 0 && r->n > t->handover);
    put_ms(out, "cloud_first_ms", r->cloud_first_us, r->cloud_first_us > 0.0);
    put_ms(out, "cloud_slot_ms", r->cloud_slot_us, r->any_match);
    buf_printf(out,
               "\"tokens_total\": %u, \"cloud_tokens\": %u, \"device_tokens\": %u, "
               "\"cloud_requests\": %u, \"device_prefill_tps\": %.3f, "
               "\"device_decode_ms\": %.3f, ",
               r->n, t->cloud_tokens, t->device_tokens, t->cloud_opens, r->prefill_tps,
               ms(r->decode_us));
}

int chat_stats_json(const struct device_report *r, const char *failure, struct buf *out)
{
    put_head(out, r, failure);
    put_refined(out, r);
    put_verified(out, r);
    put_measures(out, r);
    buf_puts(out, "\"text\": ");
    json_put_string(out, r->text ? r->text : "", r->text_len);
    buf_puts(out, ", \"tokens\": [");
    for (uint32_t i = 0; i < r->n; i++)
        put_token(out, r, i);
    return buf_puts(out, "]}\n");
}
