/*
 * profile: what measurements say of a device, a cloud and the network between them, as a plan needs
 * it: speeds as functions of length and depth with their spread, heat, and the lengths of answers.
 * Pure: time is an argument, in seconds of any clock that survives the program (Unix time).
 * Starts from guesses that the first measurements replace.
 *
 * Lines fade: each measurement takes a tenth off the weight of those before it.
 *
 * Heat: a device that works long becomes slower, and recovers at rest. What a measurement is slower
 * than the line of speeds says is heat if the device was working shortly before, and news for the
 * line if it was at rest; heat halves in PROFILE_COOLS_S seconds of rest.
 *
 * The time to a grant is the way there and back, which is what the shortest took, and a queue,
 * which halves in PROFILE_QUEUE_S seconds: else a device that met a long queue would never ask
 * again, and never learn that it is gone.
 */
#ifndef PDD_POLICY_PROFILE_H
#define PDD_POLICY_PROFILE_H

#include <stdint.h>

#include "policy/lengths.h"
#include "policy/plan.h"

/* ---- one number ---- */

struct estimate {
    double mean, variance;
    uint32_t n; /* measurements; 0: the mean is a guess, or 0 if not known */
};

void estimate_init(struct estimate *e, double guess);
void estimate_add(struct estimate *e, double value);
double estimate_deviation(const struct estimate *e); /* absolute; of a guess: a quarter of it */

/* ---- a number that grows with a length ---- */

/* y = at + slope x, with at > 0 and slope >= 0, by fading least squares. As long as all x are about
 * the same, the slope stays near the guess. */
struct profile_line {
    double guess, guess_slope;   /* 0: not known */
    double weight, x, y, xx, xy; /* fading sums of w, w x, w y, w x x, w x y */
    double off;                  /* fading mean of squared relative errors of prediction */
    uint32_t n;
};

void profile_line_init(struct profile_line *l, double guess, double guess_slope);
/* x >= 0, y > 0 (others are ignored); weight 0..1. After two measurements a y of more than three
 * times the prediction, or less than a third, counts as that: one outlier moves little. */
void profile_line_add(struct profile_line *l, double x, double y, double weight);
void profile_line_fit(const struct profile_line *l, double *ret_at, double *ret_slope);
double profile_line_at(const struct profile_line *l, double x); /* 0: not known */
double profile_line_spread(const struct profile_line *l);       /* relative deviation */

/* ---- all of them ---- */

enum { PROFILE_KINDS = 6 }; /* of questions, by the length of their prompt */
enum { PROFILE_COOLS_S = 60, PROFILE_QUEUE_S = 30 };

struct profile {
    struct profile_line prefill; /* us of a token by its position; a run counts at its middle */
    struct profile_line decode;  /* us of a token by the depth of the context */
    double heat, heat_at_s;      /* factor, at least 1; when it was measured */
    struct profile_line first; /* us from grant to first token by the tokens that are not cached */
    double way_us;             /* the shortest time from asking to the grant; 0: not known */
    struct estimate queue_us;  /* what the grant took longer */
    double queue_at_s;         /* when that was measured: a queue is forgotten soon */
    struct estimate new_share; /* of tokens that it was not sent before: not cached either */
    struct estimate token_us;  /* between tokens of the cloud's stream */
    struct lengths lengths[PROFILE_KINDS];
};

void profile_init(struct profile *p, double prefill_tps, double decode_us); /* 0: not known */

/* A run of `tokens` prompt tokens from position `from` on took `us`. */
void profile_prefilled(struct profile *p, double now_s, uint32_t from, uint32_t tokens, double us);
void profile_decoded(struct profile *p, double now_s, uint32_t depth, double us); /* a token */
void profile_granted(struct profile *p, double now_s, double us);                 /* since asking */
/* Of `sent` tokens that this device had not sent before, it had not cached `uncached`. */
void profile_cached(struct profile *p, uint32_t sent, uint32_t uncached);
/* Since the grant; `uncached`: tokens that the cloud had to prefill. */
void profile_first_token(struct profile *p, uint32_t uncached, double us);
void profile_streamed(struct profile *p, double us); /* a token */
void profile_answered(struct profile *p, uint32_t prompt_tokens, uint32_t tokens, bool cut);

double profile_heat(const struct profile *p, double now_s);
struct lengths *profile_lengths(struct profile *p, uint32_t prompt_tokens);
/* The plan's view of the device now. The power is declared, not measured: 5 W in prefill and 4 W in
 * decode, what phones take under such loads. */
void profile_device(const struct profile *p, double now_s, struct plan_device *ret_device);
/* The plan's view of the cloud, for so many tokens of the prompt that it was not sent before;
 * grant_max 0. `known` is the caller's. */
void profile_cloud(const struct profile *p, double now_s, uint32_t sent,
                   struct plan_cloud *ret_cloud);

#endif
