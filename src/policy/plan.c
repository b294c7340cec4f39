/* plan: see plan.h. */
#include "policy/plan.h"

#include <math.h>
#include <stdio.h>

static const double DEFAULT_FIRST_TOKEN_US = 300000.0, SURE = 2.0; /* deviations of margin */

static void choose(struct plan *p, enum plan_choice choice, uint32_t n)
{
    p->choice = choice;
    p->cloud_tokens = n;
}

static double first_token_us(const struct plan_input *in)
{
    return in->first_token_us > 0.0 ? in->first_token_us : DEFAULT_FIRST_TOKEN_US;
}

static double interval_us(const struct plan_input *in)
{
    return in->interval_us > 0.0 ? in->interval_us : in->decode_us;
}

double plan_tokens_least(const struct plan_input *in)
{
    double per_token = 1e6 / in->prefill_tps, gain = interval_us(in) - per_token;
    double prefill = in->prompt_tokens * per_token * (1.0 + SURE * in->spread);
    return gain > 0.0 ? ceil((prefill + in->decode_us - first_token_us(in)) / gain) : INFINITY;
}

void plan_make(const struct plan_input *in, struct plan *p)
{
    bool local = in->prefill_tps > 0.0 && in->decode_us > 0.0;
    if (in->local_only || !in->cloud_known) {
        choose(p, PLAN_DEVICE, 0);
        snprintf(p->why, sizeof p->why,
                 in->local_only ? "local only, as asked" : "no cloud is known");
        return;
    }
    if (in->cloud_only || !local) {
        choose(p, PLAN_CLOUD, in->answer_max);
        snprintf(p->why, sizeof p->why,
                 in->cloud_only ? "cloud only, as asked" : "no model on the device");
        return;
    }
    double prefill_us = in->prompt_tokens / in->prefill_tps * 1e6, first = first_token_us(in);
    if (first >= prefill_us) {
        choose(p, PLAN_DEVICE, 0);
        snprintf(p->why, sizeof p->why,
                 "the device's prefill (%.0f ms) beats the cloud's first token (%.0f ms)",
                 prefill_us / 1e3, first / 1e3);
        return;
    }
    double n = plan_tokens_least(in);
    if (!(n < in->answer_max)) {
        choose(p, PLAN_BOTH, in->answer_max);
        snprintf(p->why, sizeof p->why,
                 "the device needs %.1f s: longer than the answer takes to show", prefill_us / 1e6);
        return;
    }
    choose(p, PLAN_BOTH, n < 1.0 ? 1 : (uint32_t)n);
    snprintf(p->why, sizeof p->why,
             "%u cloud tokens at %.0f ms bridge the device's %.1f s of prefill", p->cloud_tokens,
             interval_us(in) / 1e3, prefill_us / 1e6);
}
