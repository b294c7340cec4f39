/* tally: see tally.h. */
#include "sim/tally.h"

static const uint32_t below[TALLY_CLASSES - 1] = {512, 2048, 8192, 32768};
static const char *const names[TALLY_CLASSES] = {"below 512", "512 to 2k", "2k to 8k", "8k to 32k",
                                                 "32k and more"};

uint32_t tally_class(uint32_t prompt)
{
    uint32_t c = 0;
    while (c < TALLY_CLASSES - 1 && prompt >= below[c])
        c++;
    return c;
}

const char *tally_class_name(uint32_t c)
{
    return names[c];
}

static void add_sums(struct tally_sums *s, const struct tally_answer *a)
{
    s->answers++;
    s->kept += a->kept;
    s->cloud_tokens += a->cloud.produced;
    s->tokens += a->shown;
    s->wasted_prefill += a->wasted_prefill;
    s->local_prefilled += a->local_prefilled;
    s->engine_s += a->cloud.engine_us / 1e6;
    s->slot_s += a->cloud.slot_us / 1e6;
    s->decode_slot_s += a->cloud.decode_slot_us / 1e6;
    s->kv_byte_s += a->cloud.kv_byte_s;
    s->joule += a->joule;
    s->first_s += a->report.ttft_us / 1e6;
    s->cost += a->cost;
    s->quality += a->quality;
}

void tally_add(struct tally *t, const struct tally_answer *a)
{
    const struct turn_report *r = &a->report;
    uint32_t c = tally_class(a->prompt);
    add_sums(&t->all, a);
    add_sums(&t->of_class[c], a);
    add_sums(a->honest ? &t->honest : &t->liars, a);
    t->failed += r->reason == TURN_FAILED;
    t->short_of += a->shown < a->length && r->reason != TURN_LENGTH;
    t->cut += r->reason == TURN_LENGTH && a->shown < a->length;
    t->beyond_context += a->beyond_context;
    t->handed_over += a->handed_over;
    t->stalls += r->stalls;
    t->stalled_answers += r->stalls > 0;
    t->device_alone += a->shown > 0 && r->cloud_tokens == 0;
    t->cloud_alone += a->shown > 0 && r->device_tokens == 0;
    t->refused += a->cloud.refused;
    t->reopened += r->cloud_opens > 1;
    sketch_add(&t->borrowed, r->cloud_tokens);
    if (a->cloud.slot_us > 0.0) sketch_add(&t->queue_ms, (double)a->cloud.queued_us / 1e3);
    if (a->shown == 0) return;
    sketch_add(&t->first_ms, r->ttft_us / 1e3);
    sketch_add(&t->first_of_class[c], r->ttft_us / 1e3);
    sketch_add(a->honest ? &t->first_honest : &t->first_liars, r->ttft_us / 1e3);
    if (a->shown < 2) return;
    sketch_add(&t->widest_ms, r->tpot_max_us / 1e3);
    if (a->own_decode_us > 0.0) sketch_add(&t->widest_of_own, r->tpot_max_us / a->own_decode_us);
    if (a->handed_over) sketch_add(&t->handover_ms, r->handover_gap_us / 1e3);
}

void tally_gaps(struct tally *t, const struct turn *turn)
{
    for (uint32_t i = 1; i < turn->shown; i++)
        sketch_add(&t->gap_ms, (double)(turn->tokens[i].shown - turn->tokens[i - 1].shown) / 1e3);
}
