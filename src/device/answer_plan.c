/* answer_plan: what the device knows before an answer, and learns from it; see device_impl.h. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "device/device_impl.h"
#include "store/store_profile.h"

/* Shorter runs than these say more about the cost of a step than about the rate. */
enum { MEASURE_PREFILL_MIN = 128, MEASURE_DECODES_MIN = 4, MEASURE_STREAM_MIN = 8 };

static double now_s(void)
{
    return (double)time(NULL); /* heat cools while no program runs */
}

/* ---- the plan ---- */

/* Tokens of the prompt that the cloud need not have in its prefix cache: those after the part that
 * it was sent before. */
static uint32_t new_to_cloud(const struct device_core *c, const struct answer *a)
{
    uint32_t same = 0, n = a->prompt.len;
    while (same < n && same < c->sent.len && c->sent.ids[same] == a->prompt.ids[same])
        same++;
    return n > 0 ? n - same : 1;
}

static void note_sent(struct device_core *c, const struct answer *a)
{
    c->sent.len = 0; /* what cannot be kept counts as new next time */
    if (token_list_append(&c->sent, a->prompt.ids, a->prompt.len)) c->sent.len = 0;
}

static void ask_plan(struct device *d, const struct turn_config *c, struct plan_input *in)
{
    const struct answer *a = &d->answer;
    struct profile *p = &d->core->profile;
    plan_input_init(in, a->q->goal);
    in->prompt_tokens = c->prompt_tokens - c->kv_tokens;
    in->kv_tokens = c->kv_tokens;
    in->answer_max = c->answer_max;
    in->lengths = profile_lengths(p, c->prompt_tokens);
    if (d->local) profile_device(p, now_s(), &in->device);
    profile_cloud(p, now_s(), a->unsent, &in->cloud);
    in->cloud.known = d->client != NULL;
    if (c->pace == PACE_READING) {
        in->limits.interval_us = PACE_READING_US;
        in->weights.slow_s = 0.0;
    } else if (c->pace == PACE_OFF) {
        in->limits.interval_us = 0.0;
    }
    const struct plan_limits *own = &a->q->limits;
    if (own->first_us > 0.0) in->limits.first_us = own->first_us;
    if (own->interval_us > 0.0) in->limits.interval_us = own->interval_us;
    if (own->cloud_tokens > 0) in->limits.cloud_tokens = own->cloud_tokens;
    in->limits.local_only = a->q->mode == DEVICE_LOCAL_ONLY;
    in->limits.cloud_only = a->q->mode == DEVICE_CLOUD_ONLY;
}

/* What the turn predicts with. */
static void predict(const struct plan_input *in, struct turn_config *c)
{
    double n = in->prompt_tokens, heat = in->device.heat;
    double us = plan_speed_us(&in->device.prefill, in->kv_tokens, n) * heat;
    c->prefill_tps = us > 0.0 ? n * 1e6 / us : 0.0;
    c->decode_us = plan_speed_us(&in->device.decode, in->kv_tokens + n, 1.0) * heat;
    c->rtt_us = in->cloud.rtt_us;
    c->spread = in->device.prefill.spread;
}

void answer_plan(struct device *d, struct turn_config *c)
{
    struct answer *a = &d->answer;
    struct plan *p = &a->plan;
    struct plan_input in;
    a->unsent = new_to_cloud(d->core, a);
    ask_plan(d, c, &in);
    predict(&in, c);
    plan_make(&in, p);
    answer_plan_refined(d, &in);
    if (a->q->cloud_tokens >= 0 && a->q->mode == DEVICE_AUTO && d->client && d->local) {
        bool none = a->q->cloud_tokens == 0;
        *p = (struct plan){.choice = none ? PLAN_DEVICE : PLAN_BOTH, .ratio = 1.0, .quality = 1.0};
        if (none) a->refine_ratio = 0.0f;
        if (a->refine_ratio > 0.0f) p->ratio = (double)a->refine_ratio;
        p->cloud_tokens = none ? 0 : (uint32_t)a->q->cloud_tokens;
        p->interval_us = c->decode_us;
        snprintf(p->why, sizeof p->why, "%u cloud tokens, as asked", p->cloud_tokens);
    }
    c->cloud_tokens = p->cloud_tokens;
    c->cloud_most = a->q->limits.cloud_tokens;
    c->local_after = plan_local_after(p);
    c->pace_us = p->choice == PLAN_BOTH ? p->interval_us : 0.0;
    if (p->choice != PLAN_DEVICE) note_sent(d->core, a);
}

void answer_plan_granted(struct device *d, uint32_t granted)
{
    struct answer *a = &d->answer;
    struct plan_input in;
    struct plan p;
    if (granted >= a->plan.cloud_tokens || a->turn.n > 0 || a->turn.c.fixed ||
        a->q->mode != DEVICE_AUTO || !d->local || a->plan.ratio < 1.0)
        return;
    ask_plan(d, &a->turn.c, &in);
    in.cloud.grant_max = granted > 0 ? granted : 1;
    plan_make(&in, &p);
    if (p.choice == PLAN_DEVICE) return; /* the race is on already, and settles it */
    turn_pace(&a->turn, p.choice == PLAN_BOTH ? p.interval_us : 0.0);
    p.choice = a->plan.choice;
    size_t n = strlen(p.why);
    snprintf(p.why + n, sizeof p.why - n, " (%u of %u tokens were granted)", granted,
             a->plan.cloud_tokens);
    a->plan = p;
}

/* ---- what an answer teaches ---- */

/* Of the tokens that the cloud sent one after another. */
static double stream_us(const struct turn *t)
{
    uint32_t n = 0;
    while (n < t->n && t->tokens[n].source == TURN_CLOUD)
        n++;
    if (n < MEASURE_STREAM_MIN) return 0.0;
    return (double)(t->tokens[n - 1].arrived - t->tokens[0].arrived) / (n - 1);
}

static void save(struct device_core *c)
{
    struct err e = ERR_INIT;
    struct store_owners owners = {c->engine ? c->owner : NULL, c->client ? c->url : NULL};
    if (!c->store || store_profile_save(c->store, &owners, &c->profile, &e) == 0) return;
    if (e.code == ERR_BUSY) return; /* the next answer will do */
    c->store = NULL;
    c->store_err = e;
}

void answer_granted(struct device *d, double us)
{
    profile_granted(&d->core->profile, now_s(), us);
}

void answer_learn(struct device *d)
{
    struct answer *a = &d->answer;
    const struct turn *t = &a->turn;
    struct profile *p = &d->core->profile;
    uint32_t fresh = t->prompt_len - t->c.kv_tokens;
    if (t->c.use_local && t->kv >= t->prompt_len && fresh >= MEASURE_PREFILL_MIN && t->tps > 0.0)
        profile_prefilled(p, now_s(), t->c.kv_tokens, fresh, fresh * 1e6 / t->tps);
    if (a->report.turn.device_tokens >= MEASURE_DECODES_MIN)
        profile_decoded(p, now_s(), t->kv, t->decode_us);
    profile_streamed(p, stream_us(t));
    if (t->n > 0) profile_answered(p, t->c.prompt_tokens, t->n, t->reason != TURN_STOP);
    save(d->core);
    if (d->core->store_err.code && !a->report.trouble[0]) {
        a->store_err = d->core->store_err; /* said once */
        a->report.trouble = a->store_err.text;
        d->core->store_err.code = 0;
    }
}

void device_core_learned(struct device_core *c, const struct device_options *o)
{
    profile_init(&c->profile, o->prefill_tps, o->decode_us);
    c->store = o->store;
    token_list_init(&c->sent, WIRE_PROMPT_MAX);
    if (o->engine) {
        const struct engine_info *i = engine_info(o->engine);
        snprintf(c->owner, sizeof c->owner, "%s %s %s", i->weights_hash, i->numerics,
                 i->emulated ? i->emulated : "");
    }
    struct store_owners owners = {o->engine ? c->owner : NULL, o->cloud_url ? c->url : NULL};
    struct profile p = c->profile;
    if (!c->store) return;
    if (store_profile_load(c->store, &owners, &p, &c->store_err))
        c->store = NULL;
    else
        c->profile = p;
}
