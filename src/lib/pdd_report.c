/* pdd_report: what happened in an answer, as a struct; see pdd.h. */
#include <stdio.h>

#include "lib/json_report.h"
#include "lib/lib_impl.h"

static void keep(char *to, size_t size, const char *text)
{
    snprintf(to, size, "%s", text ? text : "");
}
#define KEEP(field, text) keep(a->names.field, sizeof a->names.field, text)

void lib_report_keep(struct pdd_answer *a, const struct device_report *r)
{
    struct lib_names *n = &a->names;
    KEEP(model, r->model);
    KEEP(emulated, r->emulated);
    KEEP(numerics, r->numerics);
    KEEP(weights, r->weights_hash);
    KEEP(trouble, r->trouble);
    KEEP(unrefined, r->unrefined);
    KEEP(unverified, r->unverified);
    KEEP(energy_how, r->energy_how);
    a->report = *r;
    a->report.model = r->model ? n->model : NULL;
    a->report.emulated = r->emulated ? n->emulated : NULL;
    a->report.numerics = r->numerics ? n->numerics : NULL;
    a->report.weights_hash = r->weights_hash ? n->weights : NULL;
    a->report.trouble = n->trouble;
    a->report.unrefined = n->unrefined;
    a->report.unverified = n->unverified;
    a->report.energy_how = n->energy_how;
    a->report.tokens = a->tokens;
    a->report.n = a->n;
    a->report.text = a->text.data;
    a->report.text_len = a->text.len;
    a->report.thought = a->thought.data;
    a->report.thought_len = a->thought.len;
}

static double ms(double us)
{
    return us / 1e3;
}

static void put_turn(pdd_report *to, const struct device_report *r)
{
    const struct turn_report *t = &r->turn;
    to->reason = (int)t->reason;
    to->tokens = r->n;
    to->cloud_tokens = t->cloud_tokens;
    to->device_tokens = t->device_tokens;
    to->handover = t->handover;
    to->stalls = t->stalls;
    to->first_ms = ms(t->ttft_us);
    to->interval_mean_ms = ms(t->tpot_mean_us);
    to->interval_max_ms = ms(t->tpot_max_us);
    to->handover_gap_ms = ms(t->handover_gap_us);
    to->verifying = t->verifying;
    to->differs = t->differs;
    to->verified = t->verified;
    to->compared = t->compared;
    to->received = t->received;
    to->difference = t->difference;
    to->dropped = t->dropped;
    to->refined = t->refined;
    to->refined_read = t->reading;
}

static void put_ends(pdd_report *to, const struct device_report *r)
{
    const char *match = device_match_name(r);
    to->plan = r->plan.why;
    to->trouble = r->trouble;
    to->prompt_tokens = r->prompt_tokens;
    to->kept_tokens = r->kept_tokens;
    to->prefill_tps = r->prefill_tps;
    to->decode_ms = ms(r->decode_us);
    to->match = match ? match : "";
    to->cloud_requests = r->turn.cloud_opens;
    to->cloud_prompt_tokens = r->cloud_prompt_tokens;
    to->cloud_cached_tokens = r->cloud_cached_tokens;
    to->cloud_first_ms = ms(r->cloud_first_us);
    to->cloud_slot_ms = ms(r->cloud_slot_us);
    to->sent_bytes = r->sent_bytes;
    to->received_bytes = r->received_bytes;
    to->unverified = r->unverified;
    to->unrefined = r->unrefined;
    to->refined_here = r->refined.local;
    to->refined_versions = r->refined.versions;
    to->refined_restored = r->refined.restored;
    to->refined_ratio = r->refined.ratio;
    to->refined_coverage = r->refined.coverage;
    to->energy_j = r->energy_j;
    to->energy_measured = r->energy_measured;
    to->energy_how = r->energy_how;
}

int pdd_answer_report(const pdd_answer *a, pdd_report *ret_report, pdd_error *error)
{
    struct err e = ERR_INIT;
    pdd_report report = {.left_out = a->q.talk.left_out};
    if (!a->settled)
        return lib_result(err_set(&e, ERR_BUSY, "the answer is not over: there is no report yet"),
                          &e, error);
    put_turn(&report, &a->report);
    put_ends(&report, &a->report);
    int code = lib_struct_give("pdd_report", &report, LIB_LEAST(pdd_report, energy_how),
                               sizeof report, ret_report, &e);
    return lib_result(code, &e, error);
}

int pdd_answer_json(pdd_answer *a, const char **ret_json, size_t *ret_length, pdd_error *error)
{
    struct err e = ERR_INIT;
    struct lib_guard guard;
    if (!a->settled)
        return lib_result(err_set(&e, ERR_BUSY, "the answer is not over: there is no report yet"),
                          &e, error);
    lib_guard_enter(&guard);
    buf_clear(&a->json);
    int code = json_report_put(&a->report, a->code ? a->why.text : NULL, &a->json);
    lib_guard_leave(&guard);
    if (code) return lib_result(err_set(&e, code, "no memory for the report"), &e, error);
    *ret_json = a->json.data;
    if (ret_length) *ret_length = a->json.len;
    return lib_result(0, &e, error);
}
