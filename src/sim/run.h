/*
 * run: one simulation: the requests of a trace, on a mix of devices, through links, with one method
 * and one cloud. Virtual time in microseconds, one thread; the result depends on the arguments
 * alone, so the same seed gives the same bytes on every machine.
 *
 * Each device runs policy/turn, pace, plan and profile; the cloud runs sim/cloud.h. Devices keep
 * their profiles from answer to answer; each has its place in the link's trace. A request goes to
 * the device that has been idle longest; if all answer, a new device comes.
 *
 * Copies: the trace is replayed `copies` times at once, each copy from its own place in the trace
 * and with prompts of its own, so that bursts do not coincide. Cells of a large cloud share
 * nothing: they are simulated one after the other, each with its part of copies and devices.
 */
#ifndef PDD_SIM_RUN_H
#define PDD_SIM_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rtt_trace.h"
#include "policy/lengths.h"
#include "policy/plan.h"
#include "sim/cloud.h"
#include "sim/method.h"
#include "sim/tally.h"
#include "sim/trace.h"

enum {
    RUN_COPIES_MAX = 100000,
    RUN_DEVICES_MAX = 1 << 22,
    RUN_STALL_US = 5000000,        /* silence of the cloud, with an engine on the device */
    RUN_STALL_ALONE_US = 30000000, /* and without */
    RUN_REOPEN_MAX = 2
};

/* What goes wrong. */
struct run_faults {
    double believed;  /* devices believe in this many times their speed, and never learn; 0: no */
    double cut_share; /* of answers whose connection is cut, somewhere in its first cut_within_s */
    double cut_within_s, cut_s; /* for how long nothing passes */
    double liars;               /* share of devices that ask for the whole answer and keep it */
    bool heat;                  /* devices slow down with work */
};

/* Answers that count as within limits: the first token comes within first_us + first_token_us for
 * each token of the prompt, no gap is longer than late_us or half more than the device's own. */
struct run_limits {
    double first_us, first_token_us, late_us;
};

/* Of one request, in order of arrival, for oracles and regret. */
struct run_record {
    float first_us; /* T1, from asking the cloud; 0: it was not asked, or gave nothing */
    float queue_us, service_us, token_us; /* at the cloud: waiting; from there to the first token;
                                             between tokens; 0: not known */
    uint32_t cached;
    float cost, shown_first_us;
    uint8_t class; /* of its prompt, by tally_class */
    bool kept;
};

/* What an earlier run of the same arrivals knows. */
struct run_known {
    const struct run_record *records; /* [requests] */
    double first_mean[TALLY_CLASSES], first_deviation[TALLY_CLASSES], token_us;
    struct lengths lengths;
};

struct run_config {
    const struct trace *trace;
    const struct rtt_trace *link; /* NULL: a round trip of rtt_us */
    double rtt_us;
    double up_bytes_s, down_bytes_s; /* 0: no limit */
    const struct hardware_mix *mix;
    const struct method *method;
    struct cloud_config cloud;
    struct run_faults faults;
    struct run_limits limits;
    double prefill_s, decode_s; /* engine seconds of a token, for costs: 1/33,000 and 1/15,000 */
    enum plan_goal goal;
    struct plan_quality quality;     /* of refined prompts, for methods that refine, */
    double ratio, ratio_least;       /* their keep ratio, and the least that a planner may choose */
    const struct run_known *known;   /* for methods whose plan is an oracle's */
    const struct run_record *frozen; /* the cloud's times, as recorded, instead of a cloud */
    bool record;
    uint64_t seed;
    uint32_t copies;     /* of the trace; at least 1 */
    double speed;        /* times the trace's arrival rate; above 0 */
    uint32_t requests;   /* of each copy; 0: all */
    uint32_t devices;    /* at the beginning */
    uint32_t context;    /* of devices, in tokens */
    uint32_t answer_max; /* tokens that a client asks for */
    bool fresh; /* each device knows nothing yet, and asks for just the tokens of the trace */
    double device_kv_bytes; /* of a token, for methods that send a KV cache */
    double kv_bytes_s;      /* at which it is sent */
    /* Called now and then; NULL is fine. */
    void (*progress)(void *arg, uint64_t answers, uint64_t of);
    void *progress_arg;
};

struct run_result {
    struct tally *tally;
    struct cloud_stats cloud;
    struct run_record *records; /* [requests] if asked for */
    struct sketch *decoding;    /* slots that decode in a part, sampled every 0.1 s */
    uint64_t requests, began_at, arrived_at, ended_at, events; /* arrived_at: the last request */
    uint32_t devices, answers_most; /* devices; answers at once, the most of each part added up */
    uint32_t parts;                 /* simulated one after the other */
};

int run_simulate(const struct run_config *config, struct run_result *ret_result, struct err *e);
void run_release(struct run_result *r);
/* Means and deviations from a run that recorded; the result must outlive *ret_known. */
void run_know(const struct run_config *config, const struct run_result *r,
              struct run_known *ret_known);

#endif
