/* profile: see profile.h. */
#include "policy/profile.h"

#include <math.h>

static const double NEWEST = 0.25; /* weight of the newest measurement */

void estimate_init(struct estimate *e, double guess)
{
    *e = (struct estimate){guess, 0.0, 0};
}

void estimate_add(struct estimate *e, double value)
{
    if (e->n++ == 0) {
        e->mean = value;
        e->variance = value * value / 64.0; /* one measurement: believe it to an eighth */
        return;
    }
    double off = value - e->mean;
    e->mean += NEWEST * off;
    e->variance = (1.0 - NEWEST) * (e->variance + NEWEST * off * off);
}

double estimate_deviation(const struct estimate *e)
{
    return e->n == 0 ? e->mean / 4.0 : sqrt(e->variance);
}

void profile_init(struct profile *p, double prefill_tps, double decode_us)
{
    estimate_init(&p->prefill_tps, prefill_tps);
    estimate_init(&p->decode_us, decode_us);
    estimate_init(&p->first_token_us, 0.0);
    estimate_init(&p->cloud_us_per_token, 0.0);
    estimate_init(&p->rtt_us, 0.0);
}

double profile_first_token_us(const struct profile *p, uint32_t tokens)
{
    if (p->cloud_us_per_token.n == 0) return p->first_token_us.mean;
    return p->rtt_us.mean + tokens * p->cloud_us_per_token.mean;
}
