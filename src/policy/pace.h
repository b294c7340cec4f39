/*
 * pace: when the next token is shown. Pure: time is an argument, in microseconds.
 *
 * d_1 = a_1 (the first token is never held back); d_k = max(a_k, d_(k-1) + D). Before the handover
 * D = clamp((R + m) / max(b, 1), D_min, D_max): b tokens held or still granted, R the predicted
 * time until the device can emit, m a margin. After it, leftovers drain a little faster than the
 * device decodes, down to a cushion of two tokens. D_min and D_max lie close around the device's
 * own time per token, so that the handover cannot be seen in the pace.
 */
#ifndef PDD_POLICY_PACE_H
#define PDD_POLICY_PACE_H

#include <stdbool.h>
#include <stdint.h>

enum pace_mode {
    PACE_SMOOTH,
    PACE_OFF,    /* show on arrival */
    PACE_READING /* as smooth, but no faster than a reader: needs fewer cloud tokens */
};
extern const char *const pace_mode_names[]; /* "smooth", ..., NULL */

struct pace {
    enum pace_mode mode;
    double plan_us;   /* D that the plan counts on, in place of the mode's; 0: none */
    double decode_us; /* the device's own time per token; 0: unknown, then tokens show on arrival */
    bool any;         /* something was shown */
    uint64_t last;    /* when */
};

enum { PACE_READING_US = 120000, PACE_CUSHION = 2 }; /* about 8 tokens, 6 words, a second */

void pace_init(struct pace *p, enum pace_mode mode, double decode_us);
/* Slowest interval that `smooth` uses; what a plan should count on. */
double pace_plan_us(const struct pace *p);
/* D while tokens are borrowed. ready_us: R + m. */
double pace_borrowed_us(const struct pace *p, double ready_us, uint32_t tokens);
/* D once the device decodes, with `buffered` tokens not shown yet: a little faster than the device
 * while more than a cushion of PACE_CUSHION is left, at its own pace while the cushion holds, a
 * little slower until it is back. The cushion hides the jitter of single decode steps. */
double pace_own_us(const struct pace *p, uint32_t buffered);
/* When a token that arrived at `arrived` is due, D after the last one. */
uint64_t pace_due(const struct pace *p, uint64_t arrived, double interval_us);
void pace_shown(struct pace *p, uint64_t now);

#endif
