/*
 * tally: what a simulation counts of answers and their tokens, in bounded memory. Pure.
 */
#ifndef PDD_SIM_TALLY_H
#define PDD_SIM_TALLY_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/turn.h"
#include "sim/cloud.h"
#include "sim/sketch.h"

enum { TALLY_CLASSES = 5, TALLY_STALL_US = TURN_STALL_US };

/* Prompts by length: below 512, 2,048, 8,192, 32,768 tokens, and the rest. */
uint32_t tally_class(uint32_t prompt);
const char *tally_class_name(uint32_t c);

/* One answer, when it is over on both ends. Times in microseconds. */
struct tally_answer {
    uint32_t prompt, length, shown, cloud_shown;
    struct turn_report report;
    double own_decode_us; /* the device's own time per token */
    struct cloud_cost cloud;
    double local_busy_us, joule;
    double quality, cost, slow_us; /* cost: in the unit of plan_weights; slow: by the pace */
    uint32_t local_prefilled, wasted_prefill;
    bool beyond_context, handed_over, kept; /* kept: within the limits */
    bool honest;
};

struct tally_sums {
    uint64_t answers, kept, cloud_tokens, tokens, wasted_prefill, local_prefilled;
    double engine_s, slot_s, decode_slot_s, kv_byte_s, joule, first_s, cost, quality;
};

struct tally {
    struct tally_sums all, of_class[TALLY_CLASSES], honest, liars;
    uint64_t failed, short_of, cut, beyond_context, handed_over, stalls, stalled_answers;
    uint64_t device_alone, cloud_alone, refused, reopened;
    struct sketch first_ms, gap_ms, widest_ms, handover_ms, widest_of_own, queue_ms;
    struct sketch borrowed; /* tokens shown that are the cloud's; it may have computed more */
    struct sketch first_of_class[TALLY_CLASSES], first_honest, first_liars;
};

void tally_add(struct tally *t, const struct tally_answer *a);
/* Every gap between two shown tokens of an answer. */
void tally_gaps(struct tally *t, const struct turn *turn);

#endif
