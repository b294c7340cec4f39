/*
 * report: the figures of simulations, as tables, JSON and pictures. What a figure is, is a row of
 * one table, from which all three are made. Figures are printed with digits enough to compare, by
 * IEEE arithmetic alone: the same result gives the same bytes. Pure.
 */
#ifndef PDD_SIM_REPORT_H
#define PDD_SIM_REPORT_H

#include <stdint.h>

#include "base/buf.h"
#include "sim/run.h"

enum { REPORT_RUNS_MAX = 32, REPORT_LABEL_MAX = 96 };

/* One run with its name. */
struct report_run {
    char label[REPORT_LABEL_MAX];
    const char *key; /* of the method */
    const struct run_result *result;
};

struct report_figure {
    const char *key, *title, *unit;
    int digits; /* after the point */
    double (*of)(const struct run_result *r);
};

const struct report_figure *report_figure_at(uint32_t i); /* NULL past the end */
/* By key, which must exist. */
double report_figure(const struct run_result *r, const char *key);

/* A Markdown table: a row for each run, a column for each of the keys (separated by blanks). */
void report_table(struct buf *out, const struct report_run *runs, uint32_t n, const char *keys);
/* {"label", "method", key: figure, ...} */
void report_json(struct buf *out, const struct report_run *run);
/* Bars of one figure; `title` names it. An SVG image. */
void report_bars(struct buf *out, const char *title, const struct report_run *runs, uint32_t n,
                 const char *key);
/* Text that may stand in Markdown, JSON or SVG: bytes that mean something there are replaced. */
void report_text(struct buf *out, const char *text, const char *forbidden);

#endif
