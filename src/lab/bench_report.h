/* bench_report: what bench_run measured, as a table for people or one JSON object.
 * One thread. */
#ifndef PDD_LAB_BENCH_REPORT_H
#define PDD_LAB_BENCH_REPORT_H

#include "lab/bench_run.h"

/* `load` may be NULL. ERR_NO_MEMORY only with JSON. */
int bench_report(const struct bench_plan *p, const struct bench_result *r,
                 const struct bench_load *load, struct err *e);

#endif
