/* answer_plan: what the device knows before an answer, and learns from it; see device_impl.h. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "device/device_impl.h"
#include "policy/turn_plan.h"
#include "store/store_profile.h"

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

void answer_plan(struct device *d, struct turn_config *c)
{
    struct answer *a = &d->answer;
    struct plan *p = &a->plan;
    struct plan_input in;
    a->unsent = new_to_cloud(d->core, a);
    ask_plan(d, c, &in);
    turn_plan_predict(&in, c);
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
    turn_plan_follow(p, c);
    c->cloud_most = a->q->limits.cloud_tokens;
    if (p->choice != PLAN_DEVICE) note_sent(d->core, a);
}

void answer_plan_granted(struct device *d, uint32_t granted)
{
    struct answer *a = &d->answer;
    struct plan_input in;
    const uint32_t wanted = a->plan.cloud_tokens;
    if (a->q->mode != DEVICE_AUTO || !d->local || a->plan.ratio < 1.0) return;
    ask_plan(d, &a->turn.c, &in);
    if (!turn_plan_again(&a->turn, &a->plan, &in, granted)) return;
    size_t n = strlen(a->plan.why);
    snprintf(a->plan.why + n, sizeof a->plan.why - n, " (%u of %u tokens were granted)", granted,
             wanted);
}

/* ---- what an answer teaches ---- */

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
    turn_plan_learn_prefill(t, now_s(), p);
    turn_plan_learn_decode(t, now_s(), a->report.turn.device_tokens, p);
    turn_plan_learn_answer(t, p);
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
