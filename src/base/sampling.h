/*
 * sampling: parameters by which the next token is sampled from logits. Plain data, shared by wire,
 * engines and CLI; model/sampler.h samples.
 *
 * Order of steps: bias, repetition penalty, frequency and presence penalty, end tokens held back,
 * then (temperature > 0) top-k, top-p, min-p on the distribution at temperature, then one uniform
 * number from (seed, absolute position). temperature 0 is greedy: the highest logit after these
 * changes, the lowest id on a tie.
 */
#ifndef PDD_BASE_SAMPLING_H
#define PDD_BASE_SAMPLING_H

#include <stdbool.h>
#include <stdint.h>

enum { SAMPLING_BIASES_MAX = 300 };

/* Added to the logit of a token; SAMPLING_NEVER or less: the token is never drawn. */
struct sampling_bias {
    int32_t id;
    float bias; /* [-100, 100] */
};

#define SAMPLING_NEVER -100.0f

struct sampling {
    float temperature;    /* 0: greedy; at most 100 */
    uint32_t top_k;       /* 0: all */
    float top_p;          /* (0, 1]; 1: off */
    float min_p;          /* [0, 1); 0: off */
    float repeat_penalty; /* > 0; 1: off */
    uint32_t repeat_last; /* how many of the last tokens of the history are penalised */
    uint64_t seed;
    /* Of the tokens of the answer: what a token's logit loses for each time that it is there, and
     * for being there. [-2, 2]; 0: off. */
    float frequency_penalty, presence_penalty;
    uint32_t min_tokens; /* no end token before the answer has so many */
    bool ignore_eos;     /* no end token at all */
    /* Position in the history where the answer begins: the last three need it. The owner of the
     * history sets it, as each end counts its own prompt. */
    uint32_t answer_from;
    uint32_t n_biases;
    struct sampling_bias biases[SAMPLING_BIASES_MAX]; /* [n_biases] ids < vocabulary */
};

#define SAMPLING_GREEDY                                                                            \
    {                                                                                              \
        .top_p = 1.0f, .repeat_penalty = 1.0f, .repeat_last = 64                                   \
    }

#endif
