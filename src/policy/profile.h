/*
 * profile: measurements of a device, a cloud and the network between them: exponentially weighted
 * means with their spread. Pure; starts from a guess that the first measurements replace.
 */
#ifndef PDD_POLICY_PROFILE_H
#define PDD_POLICY_PROFILE_H

#include <stdint.h>

struct estimate {
    double mean, variance;
    uint32_t n; /* measurements; 0: the mean is a guess, or 0 if not known */
};

void estimate_init(struct estimate *e, double guess);
void estimate_add(struct estimate *e, double value);
double estimate_deviation(const struct estimate *e); /* absolute; of a guess: a quarter of it */

struct profile {
    struct estimate prefill_tps;        /* tokens/s over whole prefills */
    struct estimate decode_us;          /* time per token */
    struct estimate first_token_us;     /* from asking the cloud to its first token */
    struct estimate cloud_us_per_token; /* of its prefill, from grant to first token */
    struct estimate rtt_us;             /* from asking to the grant */
};

/* Expected time to the cloud's first token for that many prompt tokens that it has not cached; 0:
 * not known. */
double profile_first_token_us(const struct profile *p, uint32_t tokens);
void profile_init(struct profile *p, double prefill_tps, double decode_us);

#endif
