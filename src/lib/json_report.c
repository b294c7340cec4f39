/* json_report: see json_report.h. */
#include "lib/json_report.h"

#include "proto/json.h"

static double ms(double us)
{
    return us / 1e3;
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
    buf_printf(out, "{\"version\": %d, \"commit\": \"%s\", ", JSON_REPORT_VERSION, PDD_COMMIT);
    put_text(out, "model", r->model);
    put_text(out, "weights", r->weights_hash);
    put_text(out, "numerics", r->numerics);
    put_text(out, "emulated", r->emulated);
    buf_printf(out, "\"plan\": {\"choice\": \"%s\", \"cloud_tokens\": %u, \"why\": ",
               plan_choice_name(r->plan.choice), r->plan.cloud_tokens);
    json_put_text(out, r->plan.why);
    buf_puts(out, "}, ");
    put_text(out, "match", r->any_match ? device_match_name(r) : NULL);
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

static void put_energy(struct buf *out, const struct device_report *r)
{
    if (!r->energy_how || !r->energy_how[0]) {
        buf_puts(out, "\"energy\": null, ");
        return;
    }
    buf_printf(out, "\"energy\": {\"joules\": %.3f, \"measured\": %s, \"how\": ", r->energy_j,
               r->energy_measured ? "true" : "false");
    json_put_text(out, r->energy_how);
    buf_puts(out, "}, ");
}

int json_report_put(const struct device_report *r, const char *failure, struct buf *out)
{
    put_head(out, r, failure);
    put_refined(out, r);
    put_verified(out, r);
    put_measures(out, r);
    put_energy(out, r);
    buf_puts(out, "\"text\": ");
    json_put_string(out, r->text ? r->text : "", r->text_len);
    buf_puts(out, ", \"tokens\": [");
    for (uint32_t i = 0; i < r->n; i++)
        put_token(out, r, i);
    return buf_puts(out, "]}");
}
