/*
 * plan: whether to use the cloud for a request, and how many tokens to borrow. Pure.
 *
 * With n prompt tokens, P prefill tok/s, t_d decode time, T1 the first cloud token and Ts the start
 * of the device's prefill, the device can emit token N + 1 at Ts + (n + N) / P + t_d, and it is due
 * at T1 + N D. There is no stall if N >= N* = (Ts - T1 + n / P + t_d) / (D - 1 / P), for D > 1 / P.
 */
#ifndef PDD_POLICY_PLAN_H
#define PDD_POLICY_PLAN_H

#include <stdbool.h>
#include <stdint.h>

struct plan_input {
    uint32_t prompt_tokens; /* that the device must prefill: not in its KV cache yet */
    uint32_t answer_max;
    double prefill_tps, decode_us; /* of the device; 0: there is no local engine */
    double first_token_us;         /* T1, from asking; 0: not known yet */
    double interval_us;            /* D; 0: decode_us */
    double spread;                 /* relative deviation of the estimates, say 0.1 */
    bool local_only, cloud_only, cloud_known;
};

enum plan_choice { PLAN_DEVICE, PLAN_CLOUD, PLAN_BOTH };

enum { PLAN_WHY_MAX = 160 };

struct plan {
    enum plan_choice choice;
    uint32_t cloud_tokens; /* N */
    char why[PLAN_WHY_MAX];
};

void plan_make(const struct plan_input *in, struct plan *ret_plan);
/* N*, rounded up; INFINITY where the device never catches up. Needs prefill_tps and decode_us. */
double plan_tokens_least(const struct plan_input *in);

#endif
