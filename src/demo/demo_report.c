/* demo_report: see demo_report.h. */
#include "demo/demo_report.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "policy/plan.h"

enum { DEMO_REPORT_VERSION = 1, DEMO_REPORT_BYTES_MAX = 64 << 10 };

bool demo_report_identical(const struct demo_report *r)
{
    const char *both = r->runs[DEMO_BOTH].text;
    return strcmp(r->runs[DEMO_DEVICE_ONLY].text, both) == 0 &&
           strcmp(r->runs[DEMO_CLOUD_ONLY].text, both) == 0;
}

static double wait_less_percent(const struct demo_report *r)
{
    return 100.0 * (1.0 - r->runs[DEMO_BOTH].ttft_ms / r->runs[DEMO_DEVICE_ONLY].ttft_ms);
}

/* What the plan would have borrowed, had it known the speeds of this run. */
static double plan_tokens(const struct demo_report *r)
{
    const struct timeline_run *both = &r->runs[DEMO_BOTH];
    double tps = both->prefill_tps > 0.0 ? both->prefill_tps : r->device->prefill_tps;
    double decode_us = 1e6 / r->device->decode_tps;
    struct plan_input in = {.prompt_tokens = both->prompt_tokens,
                            .device = {.prefill = {.us = 1e6 / tps}, .decode = {.us = decode_us}},
                            .cloud = {.first_us = {.mean = 1e3 * both->ttft_ms}}};
    return plan_tokens_least(&in, decode_us);
}

static const char *verdict(bool met)
{
    return met ? "met" : "MISSED";
}

static bool handed_over(const struct timeline_run *run)
{
    return run->cloud_tokens > 0 && run->cloud_tokens < run->n;
}

static double load_now(void)
{
    double load;
    return getloadavg(&load, 1) == 1 ? load : 0.0;
}

/* Timings of a busy machine say little: tell when it is. */
static void print_load(void)
{
    if (load_now() > (double)os_cpu_count() + 0.5)
        printf("(the machine is busy, load %.1f on %u CPUs: expect missed targets)\n", load_now(),
               os_cpu_count());
}

static void print_facts(const struct demo_report *r)
{
    const char *answer = r->runs[DEMO_BOTH].text;
    uint32_t found = demo_task_found(r->task, answer);
    if (r->task->n_facts > 0)
        printf("facts of the document in the answer: %u of %u\n", found, r->task->n_facts);
}

void demo_report_targets(const struct demo_report *r)
{
    const struct timeline_run *both = &r->runs[DEMO_BOTH], *cloud = &r->runs[DEMO_CLOUD_ONLY];
    double less = wait_less_percent(r), own = 1e3 / r->device->decode_tps, plan = plan_tokens(r);
    printf("answers identical: %s\n", demo_report_identical(r) ? "yes" : "NO");
    print_facts(r);
    printf("\nTTFT %.0f %% below device only (target 80 %%): %s\n", less, verdict(less >= 80.0));
    printf("largest gap %.1f ms, %.2f of the device's own %.1f ms (target 1.10): %s\n",
           both->tpot_max_ms, both->tpot_max_ms / own, own,
           verdict(both->tpot_max_ms <= 1.1 * own));
    printf("cloud tokens %u of %u; the plan's formula gives %.0f (target a fifth more): %s\n",
           both->cloud_tokens, both->n, plan,
           handed_over(both) ? verdict(both->cloud_tokens <= 1.2 * plan)
                             : "MISSED, no handover: the cloud gave the whole answer");
    printf("a slot of the cloud for %.1f s, %.0f %% of the %.1f s of cloud only\n",
           both->slot_ms / 1e3, 100.0 * both->slot_ms / fmax(cloud->slot_ms, 1.0),
           cloud->slot_ms / 1e3);
    print_load();
    if (both->trouble) printf("trouble on the way: %s\n", both->trouble);
}

void demo_report_refined(const struct demo_report *r)
{
    if (r->n_runs <= DEMO_REFINED) return;
    const struct timeline_run *whole = &r->runs[DEMO_SLOW], *part = &r->runs[DEMO_REFINED];
    printf("\non %s, with a prompt of %u tokens:\n", r->slow->name, part->prompt_tokens);
    printf("  whole    %u of %u tokens from the cloud, a slot for %.1f s, %u of %u facts right\n",
           whole->cloud_tokens, whole->n, whole->slot_ms / 1e3,
           demo_task_found(r->task, whole->text), r->task->n_facts);
    printf(
        "  refined  %u of %u tokens from the cloud, a slot for %.1f s, %u of %u facts right; the "
        "device read %u tokens\n",
        part->cloud_tokens, part->n, part->slot_ms / 1e3, demo_task_found(r->task, part->text),
        r->task->n_facts, part->read_tokens ? part->read_tokens : part->prompt_tokens);
}

static json_t *json_profile(const struct device_profile *p)
{
    return json_pack("{s:s, s:f, s:f, s:s}", "profile", p->name, "prefill_tps", p->prefill_tps,
                     "decode_tps", p->decode_tps, "source", p->source);
}

/* What was not measured is negative, and null in the file. */
static json_t *json_known(double value)
{
    return isfinite(value) && value >= 0.0 ? json_real(value) : json_null();
}

static json_t *json_runs(const struct demo_report *r)
{
    json_t *all = json_array();
    for (int i = 0; i < r->n_runs; i++) {
        const struct timeline_run *k = &r->runs[i];
        json_array_append_new(
            all, json_pack("{s:s, s:o, s:o, s:o, s:o, s:i, s:i, s:o, s:i, s:i, s:o}", "label",
                           k->label, "ttft_ms", json_known(k->ttft_ms), "tpot_mean_ms",
                           json_known(k->tpot_mean_ms), "tpot_max_ms", json_known(k->tpot_max_ms),
                           "handover_gap_ms", json_known(k->handover_gap_ms), "tokens", (int)k->n,
                           "cloud_tokens", (int)k->cloud_tokens, "cloud_slot_ms",
                           json_known(k->slot_ms), "prompt_tokens", (int)k->prompt_tokens,
                           "facts_found", (int)demo_task_found(r->task, k->text), "read_tokens",
                           k->read_tokens ? json_integer((int)k->read_tokens) : json_null()));
    }
    return all;
}

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static json_t *json_all(const struct demo_report *r)
{
    const struct timeline_run *both = &r->runs[DEMO_BOTH];
    return json_pack(
        "{s:i, s:s, s:s, s:s?, s:s?, s:o, s:o, s:o, s:i, s:i, s:f, s:f, s:s, s:s, s:i, s:i, s:b, "
        "s:i, "
        "s:i, "
        "s:f, s:o, s:o}",
        "version", DEMO_REPORT_VERSION, "commit", both->commit ? both->commit : "", "model",
        file_name(r->model), "weights", both->weights, "numerics", both->numerics, "device",
        json_profile(r->device), "cloud", json_profile(r->cloud), "slow", json_profile(r->slow),
        "rtt_ms", (int)r->rtt_ms, "cpus", (int)os_cpu_count(), "load", load_now(),
        "machine_prefill_ms", r->prefill_ms, "document", file_name(r->task->document), "question",
        r->task->question, "prompt_tokens", (int)both->prompt_tokens, "answer_tokens", (int)both->n,
        "identical", (int)demo_report_identical(r), "facts", (int)r->task->n_facts, "facts_found",
        (int)demo_task_found(r->task, both->text), "wait_less_percent", wait_less_percent(r),
        "plan_tokens", json_known(plan_tokens(r)), "runs", json_runs(r));
}

int demo_report_json(const struct demo_report *r, const char *path, struct err *e)
{
    char *text = mem_alloc(DEMO_REPORT_BYTES_MAX);
    json_t *all = text ? json_all(r) : NULL;
    if (!all) {
        mem_free(text);
        return err_set(e, ERR_NO_MEMORY, "no memory for %s", path);
    }
    size_t n =
        json_dumpb(all, text, DEMO_REPORT_BYTES_MAX, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    json_decref(all);
    int code = n <= DEMO_REPORT_BYTES_MAX
                   ? os_write_file(path, text, n, e)
                   : err_set(e, ERR_LIMIT, "%s: more than %d bytes", path, DEMO_REPORT_BYTES_MAX);
    mem_free(text);
    return code;
}
