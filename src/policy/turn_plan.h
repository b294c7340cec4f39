/*
 * turn_plan: what stands between a turn, its plan and the profile of its device: what the turn
 * predicts with, how it follows a plan, when it is planned again, and what it teaches afterwards.
 * The device and the simulator both go through it. Pure: time is an argument, in seconds as in
 * profile.h.
 */
#ifndef PDD_POLICY_TURN_PLAN_H
#define PDD_POLICY_TURN_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/plan.h"
#include "policy/profile.h"
#include "policy/turn.h"

/* Speeds and round trip, as the plan was told them. */
void turn_plan_predict(const struct plan_input *in, struct turn_config *c);
/* N, pace and the start of the device's prefill, as the plan has them. */
void turn_plan_follow(const struct plan *p, struct turn_config *c);
/* Plan again before the first token, for a grant of fewer tokens than planned; `in` as for the
 * first plan. True: `plan` is the new one, with the old choice, and the turn has its pace. */
bool turn_plan_again(struct turn *t, struct plan *plan, struct plan_input *in, uint32_t granted);

/* ---- what an answer teaches ---- */

/* The device's prefill, if it read the whole prompt and not too little of it. */
void turn_plan_learn_prefill(const struct turn *t, double now_s, struct profile *p);
/* The time of a token, from `decoded` tokens of the device or from nothing, if they are few. */
void turn_plan_learn_decode(const struct turn *t, double now_s, uint32_t decoded,
                            struct profile *p);
/* The cloud's pace, and how long the answer was. */
void turn_plan_learn_answer(const struct turn *t, struct profile *p);

#endif
