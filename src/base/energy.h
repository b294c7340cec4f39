/*
 * energy: joules that this machine has used, where the system tells (Linux, sysfs). Two sources,
 * the first that can be read:
 *
 *   RAPL     class/powercap/intel-rapl:N of a package: a counter of microjoules, which wraps at
 *            max_energy_range_uj. Processors of Intel and AMD; since 2020 often for root only.
 *   battery  class/power_supply: power_now, or current_now and voltage_now, while a battery
 *            discharges: power, summed up between samples.
 *
 * Both measure the whole machine, or its processors, with everything that runs there. A source that
 * goes away in between (a charger is plugged in) makes what was measured void, and the next mark
 * looks for one again.
 *
 * There is no thread: the caller calls energy_sample while it measures, as often as it likes. Files
 * are read once in ENERGY_STEP_US at most. Threads: one owner.
 */
#ifndef PDD_BASE_ENERGY_H
#define PDD_BASE_ENERGY_H

#include <stdbool.h>
#include <stdint.h>

#define ENERGY_SYS "/sys"

enum { ENERGY_ROOT_MAX = 256, ENERGY_PARTS_MAX = 16, ENERGY_STEP_US = 250000 };

enum energy_source { ENERGY_NONE, ENERGY_RAPL, ENERGY_BATTERY };

struct energy {
    char root[ENERGY_ROOT_MAX];
    enum energy_source source;
    uint32_t epoch; /* changes when the source does */
    double joules;  /* since it was found */
    uint64_t sampled_us;
    /* RAPL: packages, by number */
    uint32_t n_parts, parts[ENERGY_PARTS_MAX];
    uint64_t counters[ENERGY_PARTS_MAX], ranges[ENERGY_PARTS_MAX]; /* microjoules */
    double watts; /* of the battery, at the last sample */
};

/* The beginning of what is to be measured. */
struct energy_mark {
    double joules;
    uint32_t epoch;
    uint64_t at_us;
};

/* `root`: a folder as ENERGY_SYS, for tests; NULL: that. Reads nothing yet. */
void energy_init(struct energy *m, const char *root);
/* `now`: clock_us(). */
void energy_sample(struct energy *m, uint64_t now);
/* Reads at once, and looks for a source if there is none. */
struct energy_mark energy_mark(struct energy *m, uint64_t now);
/* Joules since the mark; false: they were not measured, or not all along. Reads at once. */
bool energy_since(struct energy *m, const struct energy_mark *mark, uint64_t now,
                  double *ret_joules);
/* What was measured, in words: "RAPL of the processors, whole machine". */
const char *energy_source_text(enum energy_source source);

#endif
