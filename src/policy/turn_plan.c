/* turn_plan: see turn_plan.h. */
#include "policy/turn_plan.h"

/* Shorter runs than these say more about the cost of a step than about the rate. */
enum { MEASURE_PREFILL_MIN = 128, MEASURE_DECODES_MIN = 4, MEASURE_STREAM_MIN = 8 };

void turn_plan_predict(const struct plan_input *in, struct turn_config *c)
{
    double n = in->prompt_tokens, heat = in->device.heat;
    double us = plan_speed_us(&in->device.prefill, in->kv_tokens, n) * heat;
    c->prefill_tps = us > 0.0 ? n * 1e6 / us : 0.0;
    c->decode_us = plan_speed_us(&in->device.decode, in->kv_tokens + n, 1.0) * heat;
    c->rtt_us = in->cloud.rtt_us;
    c->spread = in->device.prefill.spread;
}

static double pace_us(const struct plan *p)
{
    return p->choice == PLAN_BOTH ? p->interval_us : 0.0;
}

void turn_plan_follow(const struct plan *p, struct turn_config *c)
{
    c->cloud_tokens = p->cloud_tokens;
    c->local_after = plan_local_after(p);
    c->pace_us = pace_us(p);
}

bool turn_plan_again(struct turn *t, struct plan *plan, struct plan_input *in, uint32_t granted)
{
    struct plan p;
    if (granted >= plan->cloud_tokens || t->n > 0 || t->c.fixed) return false;
    in->cloud.grant_max = granted > 0 ? granted : 1;
    plan_make(in, &p);
    if (p.choice == PLAN_DEVICE) return false; /* the race is on already, and settles it */
    turn_pace(t, pace_us(&p));
    p.choice = plan->choice;
    *plan = p;
    return true;
}

/* ---- what an answer teaches ---- */

void turn_plan_learn_prefill(const struct turn *t, double now_s, struct profile *p)
{
    uint32_t fresh = t->prompt_len - t->c.kv_tokens;
    if (t->c.use_local && t->kv >= t->prompt_len && fresh >= MEASURE_PREFILL_MIN && t->tps > 0.0)
        profile_prefilled(p, now_s, t->c.kv_tokens, fresh, fresh * 1e6 / t->tps);
}

void turn_plan_learn_decode(const struct turn *t, double now_s, uint32_t decoded, struct profile *p)
{
    if (decoded >= MEASURE_DECODES_MIN) profile_decoded(p, now_s, t->kv, t->decode_us);
}

/* Of the tokens that the cloud sent one after another. */
static double stream_us(const struct turn *t)
{
    uint32_t n = 0;
    while (n < t->n && t->tokens[n].source == TURN_CLOUD)
        n++;
    if (n < MEASURE_STREAM_MIN) return 0.0;
    return (double)(t->tokens[n - 1].arrived - t->tokens[0].arrived) / (n - 1);
}

void turn_plan_learn_answer(const struct turn *t, struct profile *p)
{
    profile_streamed(p, stream_us(t));
    if (t->n > 0) profile_answered(p, t->c.prompt_tokens, t->n, t->reason != TURN_STOP);
}
