/*
 * demo_report: the outcome of the demonstration's runs: targets on the terminal, and
 * `demo.json`, from which tools/readme_demo.py writes the README's table. No threads.
 *
 *   {"version": 1, "commit", "model": file name, "weights", "numerics",
 *    "device", "cloud", "slow": {"profile", "prefill_tps", "decode_tps", "source"}, all emulated,
 *    "rtt_ms": of the emulated link,
 *    "cpus", "load": of the machine at the end,
 *    "machine_prefill_ms": of the prompt by the cloud's process, without emulation,
 *    "document", "question", "prompt_tokens", "answer_tokens",
 *    "identical": the first three answers are,
 *    "facts", "facts_found": in the answer,
 *    "wait_less_percent": first token, of P/D-Device against the device alone,
 *    "plan_tokens": what the plan's formula (policy/plan.h) gives for the speeds measured,
 *    "runs": [{"label", "ttft_ms", "tpot_mean_ms", "tpot_max_ms", "handover_gap_ms": or null,
 *              "tokens", "cloud_tokens", "cloud_slot_ms", "prompt_tokens", "facts_found",
 *              "read_tokens": of the prompt, by the device; null: all}, ...]}
 *
 * The last two runs are of a slower device and a longer prompt, whole and refined
 * (docs/design/refine.md); a task without "more" has three runs.
 */
#ifndef PDD_DEMO_DEMO_REPORT_H
#define PDD_DEMO_DEMO_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "demo/demo_task.h"
#include "demo/timeline.h"
#include "engine/emulated.h"

enum {
    DEMO_DEVICE_ONLY,
    DEMO_CLOUD_ONLY,
    DEMO_BOTH,
    DEMO_SAME, /* the runs whose answers are the same */
    DEMO_SLOW = DEMO_SAME,
    DEMO_REFINED,
    DEMO_RUNS
};

struct demo_report {
    const char *model; /* path */
    const struct demo_task *task;
    const struct device_profile *device, *cloud, *slow;
    uint32_t rtt_ms;
    double prefill_ms;               /* of the prompt, not emulated, before the runs */
    const struct timeline_run *runs; /* [n_runs] */
    int n_runs;                      /* DEMO_SAME or DEMO_RUNS */
};

bool demo_report_identical(const struct demo_report *r);
/* What refinement did for the slow device; nothing without those runs. */
void demo_report_refined(const struct demo_report *r);
void demo_report_targets(const struct demo_report *r);
int demo_report_json(const struct demo_report *r, const char *path, struct err *e);

#endif
