/*
 * study: many simulations side by side, of the traces, links and methods that a user names; or the
 * whole report, with claims, regret, loads and what goes wrong. Reads files, prints nothing;
 * progress goes to a callback. One thread.
 */
#ifndef PDD_SIM_STUDY_H
#define PDD_SIM_STUDY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "sim/report.h"
#include "sim/run.h"

enum { STUDY_FILES_MAX = 8, STUDY_NAME_MAX = 64, STUDY_TEXT_MAX = 64 << 20 };

/* What is asked for. Strings are borrowed. */
struct study_plan {
    const char *traces[STUDY_FILES_MAX], *links[STUDY_FILES_MAX];
    uint32_t n_traces, n_links; /* no link: one round-trip time, of run.rtt_us */
    const char *methods;        /* "all", or names with commas between */
    const char *mix, *engine;   /* names, of sim/hardware.h */
    struct run_config run;      /* the rest; its pointers are set by the study */
    bool json;
    void (*say)(void *arg, const char *what, uint64_t done, uint64_t of);
    void *say_arg;
};

struct study;

/* Defaults: everything but files. */
void study_plan_init(struct study_plan *p);
int study_open(const struct study_plan *p, struct study **ret_study, struct err *e);
void study_close(struct study *s); /* NULL is fine */

/* All methods on each trace and link: Markdown or JSON. */
int study_compare(struct study *s, struct buf *out, struct err *e);
/* The whole report, a page, JSON and pictures, in a folder, which is made where it is missing;
 * takes minutes. */
int study_report(struct study *s, const char *folder, struct err *e);

/* Engines and devices that can be named, as Markdown. */
void study_list(struct buf *out);

#endif
