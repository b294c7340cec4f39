/*
 * study_impl: what the files of a study share: comparisons of methods (study.c), and of the planner
 * with the best that could be done (study_regret.c).
 */
#ifndef PDD_SIM_STUDY_IMPL_H
#define PDD_SIM_STUDY_IMPL_H

#include "sim/study.h"

struct study {
    struct study_plan p;
    struct trace traces[STUDY_FILES_MAX];
    struct rtt_trace links[STUDY_FILES_MAX];
    char link_names[STUDY_FILES_MAX][STUDY_NAME_MAX];
    struct hardware_mix mix;
    const struct method *methods[REPORT_RUNS_MAX];
    uint32_t n_methods;
};

/* Several methods on one trace and one link. */
struct comparison {
    const char *trace, *link;
    struct report_run runs[REPORT_RUNS_MAX];
    struct run_result results[REPORT_RUNS_MAX];
    uint32_t n;
    struct run_known known;
};

/* study.c */
void study_config(const struct study *s, uint32_t trace, uint32_t link, struct run_config *ret_c);
/* Runs `methods` (NULL ends them) with c, whose method is replaced. Release it in any case. */
int study_methods(const struct study *s, struct run_config *c, const char *const *methods,
                  struct comparison *ret_comparison, struct err *e);
int study_one(const struct study *s, struct run_config *c, const char *method,
              struct run_result *ret_result, struct err *e);
void study_release(struct comparison *c);
const struct run_result *study_find(const struct comparison *c, const char *method); /* or NULL */

/* study_regret.c: the cost of a method for a request by the least cost that any method with the
 * whole prompt has for it when the cloud answers both alike (frozen), within the limits where one
 * of them keeps these; less 1. */
struct study_regret {
    double p50, p95, mean; /* mean: of all costs by all least costs */
    double broken;         /* share of answers outside the limits that another method kept */
};
enum { STUDY_REGRETS = 6 };
struct regrets {
    const char *labels[STUDY_REGRETS];
    struct study_regret of[STUDY_REGRETS], of_class[TALLY_CLASSES]; /* of_class: of the planner */
    uint64_t n_class[TALLY_CLASSES];
    double real_cost, frozen_cost; /* means of the planner, in the simulation and frozen */
};
int study_regrets(const struct study *s, struct run_config *c, struct regrets *ret_regrets,
                  struct err *e);
void study_put_regrets(struct buf *out, const struct regrets *r); /* a Markdown table */

/* study_load.c: the fastest arrival at which STUDY_KEPT percent of the answers keep the limits, to
 * 2 %. speed 0: none was found; bounded false: the fastest one tried is still kept. */
enum { STUDY_KEPT = 95 };
struct study_load {
    double speed, kept, rate,
        busy; /* rate: answers/s within limits; busy: of the engines, percent */
    bool bounded;
};
int study_find_load(const struct study *s, const struct run_config *config, const char *method,
                    struct study_load *ret_load, struct err *e);

/* study_claims.c: the paper's three claims, from a comparison that has device, cloud and planned.
 */
void study_put_claims(struct buf *out, const struct comparison *c);
/* The gain in engine time by class: simulated, and what the formula allows. */
void study_put_gains(struct buf *out, const struct comparison *c, const struct run_config *config);

#endif
