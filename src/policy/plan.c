/* plan: see plan.h. */
#include "policy/plan.h"

#include <math.h>
#include <stdio.h>

static const double DEFAULT_FIRST_TOKEN_US = 300000.0, SURE = 2.0; /* deviations kept in hand */

static void choose(struct plan *p, enum plan_choice choice, uint32_t n)
{
    p->choice = choice;
    p->cloud_tokens = n;
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
    double prefill_us = in->prompt_tokens / in->prefill_tps * 1e6,
           per_token = 1e6 / in->prefill_tps;
    double first = in->first_token_us > 0.0 ? in->first_token_us : DEFAULT_FIRST_TOKEN_US;
    double interval = in->interval_us > 0.0 ? in->interval_us : in->decode_us;
    if (first >= prefill_us) {
        choose(p, PLAN_DEVICE, 0);
        snprintf(p->why, sizeof p->why,
                 "the device's prefill (%.0f ms) beats the cloud's first token (%.0f ms)",
                 prefill_us / 1e3, first / 1e3);
        return;
    }
    double lead = prefill_us * (1.0 + SURE * in->spread) + in->decode_us - first;
    double n = interval > per_token ? ceil(lead / (interval - per_token)) : INFINITY;
    if (!(n < in->answer_max)) {
        choose(p, PLAN_BOTH, in->answer_max);
        snprintf(p->why, sizeof p->why,
                 "the device needs %.1f s: longer than the answer takes to show", prefill_us / 1e6);
        return;
    }
    choose(p, PLAN_BOTH, n < 1.0 ? 1 : (uint32_t)n);
    snprintf(p->why, sizeof p->why,
             "%u cloud tokens at %.0f ms bridge the device's %.1f s of prefill", p->cloud_tokens,
             interval / 1e3, prefill_us / 1e6);
}
