/*
 * method: who answers how, in a simulation: the methods of P/D-Device and those it is compared
 * with. A row of the table is all that tells them apart; the turn on the device and the cloud are
 * the same code for all. Pure.
 */
#ifndef PDD_SIM_METHOD_H
#define PDD_SIM_METHOD_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/pace.h"

enum method_tokens {
    METHOD_ALL,   /* the whole answer, unless a plan says another N */
    METHOD_ONE,   /* the first token */
    METHOD_BUFFER /* DiSCo: what is shown while the device prefills */
};

enum method_plan {
    METHOD_PLAN_NONE,
    METHOD_PLAN_PLAIN,       /* always both ends; N by the formula, with one keep ratio for all */
    METHOD_PLAN_FREE,        /* policy/plan */
    METHOD_PLAN_CLAIRVOYANT, /* policy/plan, told the answer's length, T1 and the true speeds */
    METHOD_PLAN_DISTRIBUTION /* policy/plan, told the true distributions and speeds, no values */
};

struct method {
    const char *name, *title, *source;
    bool cloud, local;
    enum method_tokens tokens;
    enum method_plan plan;
    enum pace_mode pace;
    bool migrates; /* the device begins once the cloud's tokens are there; at once if it is lost */
    bool refines;  /* the device may compute a part of the prompt */
    bool race;     /* the first token decides who answers; the other end is dropped */
    double kv_share; /* the device gets the KV cache instead of computing it: part of its bytes; 0:
                        no */
    uint64_t every_us; /* a token at most that often; 0: no limit */
};

const struct method *method_at(uint32_t i);         /* NULL past the end */
const struct method *method_find(const char *name); /* or NULL */

#endif
