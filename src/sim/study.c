/* study: see study.h. */
#include "sim/study.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "sim/study_impl.h"

#define FIRST_LIMIT_US 1000000.0
#define FIRST_LIMIT_TOKEN_US 200.0
#define LATE_LIMIT_US 200000.0

/* Refined prompts: published for a larger reader, 43.7 of 47.8 points at 1,024 kept tokens
 * (SpecPC on LongBench); until our own readers are measured, the aim of the design stands here. */
static const struct plan_quality assumed_quality = {
    {0.75, 0.90, 0.97, 0.98, 0.99, 1.0, 1.0, 1.0, 1.0, 1.0}};

void study_plan_init(struct study_plan *p)
{
    *p = (struct study_plan){.methods = "all", .mix = "all", .engine = "h100"};
    p->run = (struct run_config){
        .rtt_us = 50000.0,
        .up_bytes_s = 1.25e6,
        .down_bytes_s = 6.25e6,
        .cloud = {.engines = 4, .queue_max = 1024, .cache_percent = 50, .transfer_bytes_s = 50e9},
        .limits = {FIRST_LIMIT_US, FIRST_LIMIT_TOKEN_US, LATE_LIMIT_US},
        .prefill_s = 1.0 / 33000.0,
        .decode_s = 1.0 / 15000.0,
        .quality = assumed_quality,
        .ratio = 0.3,
        .ratio_least = 0.3,
        .seed = 1,
        .copies = 1,
        .speed = 1.0,
        .devices = 200,
        .context = 32768,
        .answer_max = 2048,
        .device_kv_bytes = 28672.0,
        .kv_bytes_s = 12.5e6};
}

/* ---- files ---- */

static void name_of(const char *path, char *ret_name)
{
    const char *slash = strrchr(path, '/');
    snprintf(ret_name, STUDY_NAME_MAX, "%.60s", slash ? slash + 1 : path);
    char *dot = strrchr(ret_name, '.');
    if (dot && dot != ret_name) *dot = 0;
}

static int open_methods(struct study *s, struct err *e)
{
    bool all = strcmp(s->p.methods, "all") == 0;
    for (uint32_t i = 0; all && method_at(i); i++)
        s->methods[s->n_methods++] = method_at(i);
    for (const char *at = all ? NULL : s->p.methods; at;) {
        char name[STUDY_NAME_MAX];
        size_t n = strcspn(at, ",");
        snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), at);
        const struct method *m = method_find(name);
        if (!m) return err_set(e, ERR_NOT_FOUND, "no method \"%s\"; see --list", name);
        if (s->n_methods == REPORT_RUNS_MAX)
            return err_set(e, ERR_LIMIT, "at most %d methods", REPORT_RUNS_MAX);
        s->methods[s->n_methods++] = m;
        at = at[n] ? at + n + 1 : NULL;
    }
    return 0;
}

int study_open(const struct study_plan *p, struct study **ret_study, struct err *e)
{
    struct study *s = mem_calloc(1, sizeof *s);
    if (!s) return err_set(e, ERR_NO_MEMORY, "no memory for a study");
    s->p = *p;
    s->p.run.mix = &s->mix;
    s->p.run.cloud.engine = hardware_engine_find(p->engine);
    int code = open_methods(s, e);
    if (code == 0 && !s->p.run.cloud.engine)
        code = err_set(e, ERR_NOT_FOUND, "no engine \"%.60s\"; see --list", p->engine);
    if (code == 0) code = hardware_mix_of(p->mix, &s->mix, e);
    for (uint32_t i = 0; code == 0 && i < p->n_traces; i++)
        code = trace_open(p->traces[i], &s->traces[i], e);
    for (uint32_t i = 0; code == 0 && i < p->n_links; i++) {
        code = rtt_trace_open(p->links[i], &s->links[i], e);
        name_of(p->links[i], s->link_names[i]);
    }
    if (code) {
        study_close(s);
        return code;
    }
    *ret_study = s;
    return 0;
}

void study_close(struct study *s)
{
    if (!s) return;
    for (uint32_t i = 0; i < STUDY_FILES_MAX; i++) {
        trace_release(&s->traces[i]);
        rtt_trace_release(&s->links[i]);
    }
    mem_free(s);
}

void study_config(const struct study *s, uint32_t trace, uint32_t link, struct run_config *ret_c)
{
    *ret_c = s->p.run;
    ret_c->trace = &s->traces[trace];
    ret_c->link = link < s->p.n_links ? &s->links[link] : NULL;
}

/* ---- runs ---- */

struct teller {
    const struct study *s;
    const char *what;
};

static void tell(void *arg, uint64_t done, uint64_t of)
{
    const struct teller *t = arg;
    if (t->s->p.say) t->s->p.say(t->s->p.say_arg, t->what, done, of);
}

int study_one(const struct study *s, struct run_config *c, const char *method,
              struct run_result *ret_result, struct err *e)
{
    struct teller teller = {s, method};
    c->method = method_find(method);
    CHECK(c->method);
    c->progress = tell;
    c->progress_arg = &teller;
    return run_simulate(c, ret_result, e);
}

static bool is_oracle(const struct method *m)
{
    return m->plan == METHOD_PLAN_CLAIRVOYANT || m->plan == METHOD_PLAN_DISTRIBUTION;
}

/* An oracle knows what the run that asks the cloud always has seen. */
static int find_known(const struct study *s, struct run_config *c, struct comparison *to,
                      struct run_result *own, struct err *e)
{
    const struct run_result *seen = study_find(to, c->frozen ? "cloud" : "lossless");
    int code = 0;
    if (!seen) {
        code = study_one(s, c, c->frozen ? "cloud" : "lossless", own, e);
        seen = own;
    }
    if (code == 0) run_know(c, seen, &to->known);
    return code;
}

static int run_methods(const struct study *s, struct run_config *c, const char *const *methods,
                       struct comparison *to, struct run_result *own, struct err *e)
{
    c->record = true;
    for (uint32_t i = 0; methods[i]; i++) {
        struct report_run *r = &to->runs[to->n];
        const struct method *m = method_find(methods[i]);
        CHECK(m && to->n < REPORT_RUNS_MAX);
        int code = is_oracle(m) && !to->known.records ? find_known(s, c, to, own, e) : 0;
        c->known = &to->known;
        if (code == 0) code = study_one(s, c, methods[i], &to->results[to->n], e);
        if (code) return code;
        snprintf(r->label, sizeof r->label, "%s", m->title);
        r->key = m->name;
        r->result = &to->results[to->n++];
    }
    return 0;
}

int study_methods(const struct study *s, struct run_config *c, const char *const *methods,
                  struct comparison *ret_comparison, struct err *e)
{
    struct run_result own = {.requests = 0};
    *ret_comparison = (struct comparison){.n = 0};
    int code = run_methods(s, c, methods, ret_comparison, &own, e);
    run_release(&own);
    ret_comparison->known.records = NULL;
    c->known = NULL;
    return code;
}

void study_release(struct comparison *c)
{
    for (uint32_t k = 0; k < c->n; k++)
        run_release(&c->results[k]);
    c->n = 0;
}

const struct run_result *study_find(const struct comparison *c, const char *method)
{
    for (uint32_t k = 0; k < c->n; k++)
        if (strcmp(c->runs[k].key, method) == 0) return &c->results[k];
    return NULL;
}

/* ---- what a user asks for ---- */

static void put_head(const struct study *s, struct buf *out)
{
    const struct run_config *c = &s->p.run;
    if (s->p.json) {
        buf_printf(out,
                   "{\"version\": 1, \"seed\": %llu, \"engine\": \"%s\", \"engines\": %u, "
                   "\"decode_engines\": %u, \"copies\": %u, \"speed\": %.6g, \"runs\": [",
                   (unsigned long long)c->seed, c->cloud.engine->name, c->cloud.engines,
                   c->cloud.decode_engines, c->copies, c->speed);
        return;
    }
    buf_printf(out, "Seed %llu. Cloud: %u engines%s: %s.\n", (unsigned long long)c->seed,
               c->cloud.engines, c->cloud.decode_engines ? " for prompts" : "",
               c->cloud.engine->source);
    if (c->cloud.decode_engines) buf_printf(out, "%u engines decode.\n", c->cloud.decode_engines);
}

static void put_json(const struct comparison *c, struct buf *out)
{
    for (uint32_t k = 0; k < c->n; k++) {
        if (out->data[out->len - 1] == '}') buf_puts(out, ",");
        buf_puts(out, "\n");
        report_json(out, &c->runs[k]);
        buf_cut(out, out->len - 1);
        buf_puts(out, ", \"trace\": \"");
        report_text(out, c->trace, "\"\\");
        buf_puts(out, "\", \"link\": \"");
        report_text(out, c->link, "\"\\");
        buf_puts(out, "\"}");
    }
}

/* Where an oracle is asked for: how far the planner is from it. */
static int put_regrets(const struct study *s, struct run_config *config, struct buf *out,
                       struct err *e)
{
    struct regrets r;
    bool asked = false;
    for (uint32_t i = 0; i < s->n_methods; i++)
        asked = asked || is_oracle(s->methods[i]);
    if (!asked || s->p.json) return 0;
    int code = study_regrets(s, config, &r, e);
    if (code) return code;
    buf_putc(out, '\n');
    study_put_regrets(out, &r);
    return 0;
}

static void put_comparison(const struct study *s, const struct comparison *c, struct buf *out)
{
    if (s->p.json) {
        put_json(c, out);
        return;
    }
    buf_printf(out, "\n## %s, %s\n\n", c->trace, c->link);
    report_table(out, c->runs, c->n,
                 "answers first_mean first_p50 first_p95 gap_mean gap_p99 widest_p50 widest_p99 "
                 "stalled handover_p50 handover_p99 handed_over");
    buf_putc(out, '\n');
    report_table(out, c->runs, c->n,
                 "cloud_tokens slot_s decode_slot_s kv_gb_s engine_s busy joule wasted kept cost "
                 "failed cut beyond");
}

int study_compare(struct study *s, struct buf *out, struct err *e)
{
    const char *names[REPORT_RUNS_MAX + 1] = {NULL};
    uint32_t links = s->p.n_links > 0 ? s->p.n_links : 1;
    int code = 0;
    for (uint32_t i = 0; i < s->n_methods; i++)
        names[i] = s->methods[i]->name;
    put_head(s, out);
    struct comparison *c = mem_calloc(1, sizeof *c);
    if (!c) return err_set(e, ERR_NO_MEMORY, "no memory for a comparison");
    for (uint32_t t = 0; code == 0 && t < s->p.n_traces; t++)
        for (uint32_t l = 0; code == 0 && l < links; l++) {
            struct run_config config;
            study_config(s, t, l, &config);
            code = study_methods(s, &config, names, c, e);
            c->trace = s->traces[t].name;
            c->link = l < s->p.n_links ? s->link_names[l] : "one round-trip time";
            if (code == 0) put_comparison(s, c, out);
            if (code == 0) code = put_regrets(s, &config, out, e);
            study_release(c);
        }
    mem_free(c);
    if (s->p.json) buf_puts(out, "\n]}\n");
    if (code == 0 && out->error) code = err_set(e, out->error, "no memory for the report");
    return code;
}

void study_list(struct buf *out)
{
    buf_puts(out, "Methods:\n");
    for (uint32_t i = 0; method_at(i); i++)
        buf_printf(out, "  %-20s %s%s%s\n", method_at(i)->name, method_at(i)->title,
                   method_at(i)->source ? ": " : "",
                   method_at(i)->source ? method_at(i)->source : "");
    buf_puts(out, "Engines of a cloud:\n");
    for (uint32_t i = 0; hardware_engine_at(i); i++)
        buf_printf(out, "  %-20s %s\n", hardware_engine_at(i)->name, hardware_engine_at(i)->source);
    buf_puts(out, "Devices, prefill and decode in tok/s:\n");
    for (uint32_t i = 0; hardware_device_at(i); i++) {
        const struct hardware_device *d = hardware_device_at(i);
        buf_printf(out, "  %-20s %6.0f %6.1f  %s\n", d->name, d->prefill_tps, d->decode_tps,
                   d->source);
    }
    buf_puts(out, "Mixes of devices: all, phone-cpu, phone-gpu, or shares as s26-gpu=2,pi5=1\n");
}
