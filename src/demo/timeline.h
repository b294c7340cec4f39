/*
 * timeline: the demonstration's table, and its picture of every token by the time it was shown and
 * by its source, on the terminal and as SVG.
 */
#ifndef PDD_DEMO_TIMELINE_H
#define PDD_DEMO_TIMELINE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/err.h"

enum { TIMELINE_TOKENS_MAX = 1 << 16, TIMELINE_RUNS_MAX = 8 };

struct timeline_token {
    double shown_ms;
    bool cloud;
};

/* One answer, read from a line of `pdd chat --stats-json`. */
struct timeline_run {
    const char *label;
    struct timeline_token *tokens; /* [n] */
    uint32_t n, cloud_tokens, stalls, prompt_tokens;
    uint32_t read_tokens; /* of the refined prompt, by the device; 0: the prompt is whole */
    double ttft_ms, tpot_mean_ms, tpot_max_ms, handover_gap_ms; /* gap < 0: no handover */
    double slot_ms;     /* how long the cloud held a slot; 0: it was not asked */
    double prefill_tps; /* of the device, measured */
    char *text, *plan, *commit, *weights, *numerics, *trouble; /* all but text may be NULL */
};

int timeline_load(const char *path, const char *label, struct timeline_run *ret_run, struct err *e);
void timeline_release(struct timeline_run *run);

void timeline_print_table(const struct timeline_run *runs, uint32_t n, FILE *to);
void timeline_print(const struct timeline_run *runs, uint32_t n, bool colour, FILE *to);
/* `gain`: a line under the title, what the runs show; `notes`: lines under the picture, which say
 * what was emulated; ends with NULL. */
int timeline_svg(const struct timeline_run *runs, uint32_t n, const char *gain,
                 const char *const notes[], struct buf *out);

#endif
