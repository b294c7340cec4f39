/*
 * sampling: parameters by which the next token is sampled from logits. Plain data, shared by wire,
 * engines and CLI; model/sampler.h samples.
 *
 * Order of steps: repetition penalty, then (temperature > 0) top-k, top-p, min-p on the
 * distribution at temperature, then one uniform number from (seed, absolute position). temperature
 * 0 is greedy: the highest logit after the penalty, the lowest id on a tie.
 */
#ifndef PDD_BASE_SAMPLING_H
#define PDD_BASE_SAMPLING_H

#include <stdint.h>

struct sampling {
    float temperature;    /* 0: greedy; at most 100 */
    uint32_t top_k;       /* 0: all */
    float top_p;          /* (0, 1]; 1: off */
    float min_p;          /* [0, 1); 0: off */
    float repeat_penalty; /* > 0; 1: off */
    uint32_t repeat_last; /* how many of the last tokens of the history are penalised */
    uint64_t seed;
};

#define SAMPLING_GREEDY                                                                            \
    {                                                                                              \
        0.0f, 0, 1.0f, 0.0f, 1.0f, 64, 0                                                           \
    }

#endif
