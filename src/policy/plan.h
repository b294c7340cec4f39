/*
 * plan: the best settings for one answer. Pure, below 100 us, and of IEEE operations only: equal
 * input gives equal plans on every machine. The clairvoyant plan of the simulator is this code
 * too: give it the true values, deviations of 0 and the length of the answer.
 *
 * It decides who answers, N (how many tokens the cloud may send), the keep ratio of the prompt, the
 * pace D, and when the device starts its prefill, s. A device that prefills m tokens from s on can
 * emit token N + 1 at s + F(m + N) + t, F being its prefill time and t the time of a token; the
 * token is due at T1 + N D. So it is in time if
 *
 *     N >= N* = (s - T1 + F(m) + t + z sigma) / (D - u)        for D > u and D >= t,
 *
 * u being the prefill time of one more token, sigma the deviation of what stands in the numerator,
 * z the quantile that the limit on late tokens asks for. Ratio, D and s are enumerated, N follows.
 * Of the settings that keep the limits the cheapest wins:
 *
 *     cost = engine and slot seconds of the cloud + energy of the device + what refinement loses
 *            + seconds of waiting beyond what goes unnoticed + seconds by which the pace is slower
 *
 * Equal costs: the higher quality, then the quicker pace, then fewer cloud tokens. If no settings
 * keep the limits, those win that break them least, and the plan says which are broken.
 */
#ifndef PDD_POLICY_PLAN_H
#define PDD_POLICY_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/lengths.h"

/* ---- what is known ---- */

struct plan_value {
    double mean, deviation; /* deviation 0: certain */
};

/* Time of a token at position x of the context: us + us_per_position * x. */
struct plan_speed {
    double us, us_per_position;
    double spread; /* relative deviation, say 0.1 */
};

/* Microseconds for n tokens from position `from` on. */
double plan_speed_us(const struct plan_speed *s, double from, double n);

struct plan_device {
    struct plan_speed prefill; /* us 0: there is no local engine */
    struct plan_speed decode;
    double heat;                /* factor of both, 1: cool; 0 counts as 1 */
    double prefill_w, decode_w; /* power, for the cost of energy */
};

struct plan_cloud {
    bool known;
    struct plan_value first_us; /* T1, from asking to the first token; mean 0: not known yet */
    double rtt_us;
    double token_us;                /* between tokens of its stream; 0: 20 ms */
    double refined_us;              /* when the refined prompt is here; 0: with the first token */
    uint32_t uncached;              /* tokens of the prompt that it must prefill */
    uint32_t grant_max;             /* largest N that it grants; 0: no limit known */
    double prefill_tps, decode_tps; /* of its whole engine, at batch; 0: 33,000 and 15,000 */
};

/* Share of right answers with a refined prompt to right answers with the whole one, by keep ratio
 * 0.1, 0.2, ... 1; linear between them. */
enum { PLAN_RATIOS = 10 };
struct plan_quality {
    double at[PLAN_RATIOS];
};

/* ---- what is wanted ---- */

struct plan_limits {
    double first_us;       /* mean time to the first token; 0: no limit */
    double interval_us;    /* D, where the device's own time per token is shorter; 0: only that */
    double late_us;        /* a longer gap counts as a stall; 0: any gap longer than D does */
    double late_share;     /* of answers that may have a stall; 0: 0.01 */
    uint32_t cloud_tokens; /* N; 0: no limit */
    double quality_least;
    double ratio_least; /* 0 counts as 1: the whole prompt */
    bool local_only, cloud_only;
};

/* Prices, in one unit. */
struct plan_weights {
    double engine_s, slot_s;     /* of a second of the cloud's engine, of a slot */
    double joule;                /* of the device */
    double quality;              /* of a wrong answer */
    double wait_s, wait_free_us; /* of a second until the first token, beyond wait_free_us */
    double slow_s;               /* of a second that the answer is shown later by a slower pace */
};

enum plan_goal {
    PLAN_EVEN,   /* an even pace, quality, and a first token within a second */
    PLAN_FAST,   /* the first token as soon as possible */
    PLAN_CHEAP,  /* little of the cloud: a slower pace, a longer wait */
    PLAN_BATTERY /* little of the device's energy */
};
extern const char *const plan_goal_names[]; /* "even", ..., NULL */
/* Everything of the two that the goal decides; local_only and cloud_only false. */
void plan_goal(enum plan_goal g, struct plan_limits *ret_limits, struct plan_weights *ret_weights);

/* Nothing known and the goal's limits and weights. */
struct plan_input;
void plan_input_init(struct plan_input *in, enum plan_goal g);

/* A running answer, for planning again: times count from now on. */
struct plan_running {
    uint32_t held; /* tokens of the answer; prompt_tokens counts those not in the KV cache, too */
    uint32_t buffered; /* of them not shown yet */
    double due_us;     /* until the next token is due, if all are shown: first_us is not asked */
};

struct plan_input {
    uint32_t prompt_tokens;        /* that the device must prefill */
    uint32_t kv_tokens;            /* in its KV cache already: where the prefill begins */
    uint32_t answer_max;           /* at least 1; of a running answer: that may follow */
    const struct lengths *lengths; /* of such answers; NULL: the prior */
    uint32_t length_known;         /* of this answer; 0: by `lengths` */
    struct plan_device device;
    struct plan_cloud cloud;
    const struct plan_quality *quality; /* NULL: unknown, so only the whole prompt is right */
    struct plan_limits limits;
    struct plan_weights weights;
    struct plan_running running; /* held 0: the answer has not begun */
};

/* ---- what is decided ---- */

enum plan_choice { PLAN_DEVICE, PLAN_CLOUD, PLAN_BOTH };
const char *plan_choice_name(enum plan_choice c);

enum plan_start {
    PLAN_START_NOW,
    PLAN_START_FIRST, /* with the first token of the cloud */
    PLAN_START_LONG,  /* when the cloud has sent start_tokens tokens and the answer goes on */
    PLAN_START_NEVER  /* unless the cloud is lost */
};

enum plan_limit { PLAN_LIMIT_FIRST = 1, PLAN_LIMIT_LATE = 2, PLAN_LIMIT_QUALITY = 4 };

enum { PLAN_WHY_MAX = 256 };

struct plan {
    enum plan_choice choice;
    uint32_t cloud_tokens; /* N, a cap: the stream is stopped when the device is sure */
    double ratio;          /* to keep of the prompt; 1: all of it */
    double interval_us;    /* D */
    enum plan_start start;
    uint32_t start_tokens;
    double start_us; /* expected, from now */
    /* what it expects */
    double first_us, ready_us; /* the first token; the device catches up, with N tokens */
    double cloud_mean;         /* tokens that the cloud computes */
    double handover;           /* probability that the device takes over */
    double slot_s, engine_s, joule, quality, cost;
    double late;     /* probability of a stall */
    unsigned broken; /* bits of plan_limit: these cannot be kept */
    char why[PLAN_WHY_MAX];
};

void plan_make(const struct plan_input *in, struct plan *ret_plan);

/* The start of the device's prefill as the turn takes it: tokens of the answer that are known by
 * then (turn_config.local_after). */
uint32_t plan_local_after(const struct plan *p);

/* N* for settings that are given: without margin, rounded up; INFINITY where the device never
 * catches up. Of the input it takes prompt, device, first_us and D = interval_us. */
double plan_tokens_least(const struct plan_input *in, double interval_us);

/* The stop rule: how many more tokens than those held are needed until the device is ready;
 * negative: so many are spare, and the cloud can be told to stop. INFINITY: the device never
 * catches up at this pace. */
struct plan_remainder {
    double ready_us;     /* until the device can emit the token after those held */
    double deviation_us; /* of that */
    double due_us;       /* until the next token is due */
    double interval_us;  /* D */
    double per_token_us; /* u */
    double rtt_us;
    double sure;       /* z */
    uint32_t buffered; /* held and not shown */
};
double plan_tokens_more(const struct plan_remainder *r);

/* z, so that a normal value is above mean + z deviations with probability p; 0 < p < 1. */
double plan_sure(double p);

#endif
