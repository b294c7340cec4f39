/* report: what happened, as JSON; see serve_impl.h. */
#include "device/api/serve_impl.h"
#include "proto/json.h"

static void put_ms(struct buf *out, const char *name, double us)
{
    buf_printf(out, ",\"%s\":%.3f", name, us / 1e3);
}

static void put_text(struct buf *out, const char *name, const char *text)
{
    buf_printf(out, ",\"%s\":", name);
    json_put_text(out, text);
}

int report_put_served(struct buf *out, const struct ask *a)
{
    buf_putc(out, '[');
    for (uint32_t i = 0; i < a->n_tokens;) {
        uint8_t source = ask_token_at(a, i)->source;
        uint32_t from = i;
        while (i < a->n_tokens && ask_token_at(a, i)->source == source)
            i++;
        buf_printf(out, "%s[\"%s\",%u]", from ? "," : "", turn_source_name(source), i - from);
    }
    return buf_putc(out, ']');
}

/* Tokens are counted over restarts, times from the last one. */
static void put_turn(struct buf *out, const struct ask *a, const struct turn_report *t)
{
    uint32_t of[2] = {0, 0};
    for (uint32_t i = 0; i < a->n_tokens; i++)
        of[ask_token_at(a, i)->source]++;
    buf_printf(out,
               ",\"reason\":\"%s\",\"cloud_tokens\":%u,\"device_tokens\":%u,\"handover\":%u,"
               "\"resumed\":%u",
               turn_reason_name(t->reason), of[TURN_CLOUD], of[TURN_DEVICE],
               t->handover ? t->handover + a->have.len : 0, a->have.len);
    put_ms(out, "ttft_ms", t->ttft_us);
    put_ms(out, "tpot_mean_ms", t->tpot_mean_us);
    put_ms(out, "gap_max_ms", t->tpot_max_us);
    put_ms(out, "handover_gap_ms", t->handover_gap_us);
    buf_printf(out, ",\"stalls\":%u", t->stalls);
}

/* Of a cloud whose numerics are not ours; null: nothing was compared. */
static void put_verified(struct buf *out, const struct turn_report *t)
{
    if (t->compared > 0)
        buf_printf(out, ",\"verified\":[%u,%u]", t->verified, t->received);
    else
        buf_puts(out, ",\"verified\":null");
}

static void put_cloud(struct buf *out, const struct device_report *r)
{
    put_text(out, "match", device_match_name(r));
    buf_printf(
        out,
        ",\"ratio\":%.4g,\"sent_bytes\":%llu,\"received_bytes\":%llu,\"cloud\":{\"requests\":%u,"
        "\"prompt_tokens\":%u,\"cached_tokens\":%u,\"first_ms\":%.3f,\"slot_ms\":%.3f}",
        r->turn.refined ? (double)r->refined.ratio : 1.0, (unsigned long long)r->sent_bytes,
        (unsigned long long)r->received_bytes, r->turn.cloud_opens, r->cloud_prompt_tokens,
        r->cloud_cached_tokens, r->cloud_first_us / 1e3, r->cloud_slot_us / 1e3);
}

/* null: nothing is known. */
static void put_energy(struct buf *out, const struct device_report *r)
{
    if (!r->energy_how || !r->energy_how[0]) {
        buf_puts(out, ",\"energy\":null");
        return;
    }
    buf_printf(out, ",\"energy\":{\"joules\":%.3f,\"measured\":%s", r->energy_j,
               r->energy_measured ? "true" : "false");
    put_text(out, "how", r->energy_how);
    buf_putc(out, '}');
}

int report_put(struct buf *out, const struct ask *a, const struct device_report *r, bool brief)
{
    buf_printf(out, "{\"id\":\"%s\",\"mode\":\"%s\",\"tokens\":%u", a->id, ask_modes[a->mode],
               a->n_tokens);
    put_turn(out, a, &r->turn);
    put_cloud(out, r);
    put_verified(out, &r->turn);
    buf_printf(out, ",\"prompt_tokens\":%u,\"kept_tokens\":%u,\"prefill_tps\":%.1f",
               r->prompt_tokens, r->kept_tokens, r->prefill_tps);
    put_ms(out, "decode_ms", r->decode_us);
    buf_printf(out, ",\"plan\":{\"choice\":\"%s\",\"cloud_tokens\":%u",
               plan_choice_name(r->plan.choice), r->plan.cloud_tokens);
    put_text(out, "why", r->plan.why);
    buf_putc(out, '}');
    if (brief) return buf_putc(out, '}'); /* what follows grows, or may be more than ASCII */
    put_energy(out, r);
    buf_puts(out, ",\"served\":");
    report_put_served(out, a);
    put_text(out, "trouble", r->trouble && r->trouble[0] ? r->trouble : NULL);
    put_text(out, "emulated", r->emulated);
    return buf_putc(out, '}');
}

int report_put_answer(struct buf *out, const struct ask *a, bool text, uint32_t from)
{
    buf_printf(out, "{\"id\":\"%s\",\"object\":\"pdd.answer\",\"state\":\"%s\",\"created\":%llu",
               a->id, ask_state_name(a), (unsigned long long)a->created);
    put_text(out, "conversation", a->pdd.conversation[0] ? a->pdd.conversation : NULL);
    put_text(out, "finish_reason", a->state == ASK_OVER ? a->finish : NULL);
    put_text(out, "error", a->failure.code ? a->failure.text : NULL);
    buf_printf(out, ",\"tokens\":%u", a->n_clear);
    if (text) {
        const struct ask_token *last = a->n_clear ? ask_token_at(a, a->n_clear - 1) : NULL;
        size_t end = last ? last->at + last->len : 0;
        size_t at = from < a->n_clear ? ask_token_at(a, from)->at : end;
        size_t thought_end = last ? last->thought_at + last->thought_len : 0;
        size_t thought_at = from < a->n_clear ? ask_token_at(a, from)->thought_at : thought_end;
        buf_printf(out, ",\"from\":%u,\"text\":", from);
        json_put_string(out, a->text.data + at, end - at);
        if (thought_end > thought_at) {
            buf_puts(out, ",\"thought\":");
            json_put_string(out, a->thought.data + thought_at, thought_end - thought_at);
        }
        buf_puts(out, ",\"served\":");
        report_put_served(out, a);
    }
    buf_puts(out, ",\"report\":");
    buf_puts(out, a->report.len ? a->report.data : "null");
    return buf_putc(out, '}');
}
