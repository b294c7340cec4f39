/*
 * study_report: the whole report: what is assumed, the paper's three claims, all methods, regret,
 * device by device, loads, kinds of clouds, and what goes wrong; see study.h. Each part fills one
 * buffer of Markdown; they are joined at the end, claims first.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "sim/study_impl.h"

static const char page_name[] = "sim" /* in two, as the page is made, not there */
                                ".md";

enum { PATH_MAX_BYTES = 4096, PARTS = 8 };

struct page {
    struct study *s;
    const char *folder;
    struct buf parts[PARTS], json;
    struct err *e;
};

enum part { HEAD, CLAIMS, METHODS, REGRET, DEVICES, LOADS, CLOUDS, FAULTS };

static int write_file(struct page *p, const char *name, const struct buf *b)
{
    char path[PATH_MAX_BYTES];
    if (b->error) return err_set(p->e, b->error, "no memory for %s", name);
    if (snprintf(path, sizeof path, "%s/%s", p->folder, name) >= (int)sizeof path)
        return err_set(p->e, ERR_LIMIT, "%s: the path is too long", p->folder);
    return os_write_file(path, b->data, b->len, p->e);
}

static const char *link_name(const struct study *s, uint32_t l)
{
    return l < s->p.n_links ? s->link_names[l] : "one round-trip time";
}

static uint32_t links_of(const struct study *s)
{
    return s->p.n_links > 0 ? s->p.n_links : 1;
}

/* ---- what is assumed ---- */

static void put_head(struct page *p)
{
    const struct run_config *c = &p->s->p.run;
    struct buf *out = &p->parts[HEAD];
    buf_printf(
        out,
        "Made by `pdd sim --report`, seed %llu. Devices run policy/turn, pace, plan, profile "
        "and lengths; the cloud runs quota, route, admit, sched and stepcost. Models are: "
        "times of engines, the link (a round trip from the file, %.0f and %.0f kbit/s up and "
        "down, 6 bytes a prompt token, 120 an event), which tokens of a prompt are kept.\n\n",
        (unsigned long long)c->seed, c->up_bytes_s / 125.0, c->down_bytes_s / 125.0);
    buf_printf(out, "- Cloud: %u engines; %s.\n", c->cloud.engines, c->cloud.engine->source);
    buf_printf(
        out,
        "- Requests: each is a conversation of its own, so devices hold nothing of its "
        "prompt; the cloud's prefix cache (%u %% of KV memory) finds what the trace's hashes "
        "say. Prompts of %u tokens and more are the cloud's alone.\n",
        c->cloud.cache_percent, c->context);
    buf_printf(out,
               "- Within limits: first token within %.0f ms + %.1f ms a prompt token, no gap over "
               "%.0f ms (or half more than the device's own).\n",
               c->limits.first_us / 1e3, c->limits.first_token_us / 1e3, c->limits.late_us / 1e3);
    buf_printf(out,
               "- Refinement keeps %.0f %% of prompts of 2,048 tokens and more. Its quality is "
               "assumed, not measured: %.2f at 0.3.\n",
               100.0 * c->ratio, c->quality.at[2]);
    buf_puts(out, "- Energy is declared: watts while the device's engine works, none for radio and "
                  "screen.\n\n| device | prefill, tok/s | decode, tok/s | watts | source |\n"
                  "|---|--:|--:|--:|---|\n");
    for (uint32_t i = 0; i < p->s->mix.n; i++) {
        const struct hardware_device *d = p->s->mix.devices[i];
        double share = p->s->mix.upto[i] - (i > 0 ? p->s->mix.upto[i - 1] : 0.0);
        buf_printf(out, "| %s (%.0f %%) | %.0f | %.1f | %.0f | %s |\n", d->name, 100.0 * share,
                   d->prefill_tps, d->decode_tps, d->watts, d->source);
    }
}

/* ---- all methods ---- */

static int put_pictures(struct page *p, const struct comparison *c, uint32_t t, uint32_t l)
{
    static const struct {
        const char *key, *file, *what;
    } pictures[] = {{"first_p50", "first", "first token, median, ms"},
                    {"widest_p99", "gap", "largest gap of an answer, p99, ms"},
                    {"decode_slot_s", "slot", "decode slot of the cloud, s an answer"}};
    for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++) {
        struct buf out;
        char name[64], title[160];
        buf_init(&out, STUDY_TEXT_MAX);
        snprintf(name, sizeof name, "sim-%u-%u-%s.svg", t + 1, l + 1, pictures[i].file);
        snprintf(title, sizeof title, "%s, %s: %s", c->trace, c->link, pictures[i].what);
        report_bars(&out, title, c->runs, c->n, pictures[i].key);
        int code = write_file(p, name, &out);
        buf_release(&out);
        if (code) return code;
        buf_printf(&p->parts[METHODS], "![%s](%s)\n", pictures[i].what, name);
    }
    buf_putc(&p->parts[METHODS], '\n');
    return 0;
}

static int put_methods(struct page *p, const struct comparison *c, uint32_t t, uint32_t l)
{
    struct buf *out = &p->parts[METHODS];
    buf_printf(out, "\n### %s, %s\n\n", c->trace, c->link);
    int code = put_pictures(p, c, t, l);
    report_table(out, c->runs, c->n,
                 "first_mean first_p50 first_p95 first_p99 gap_mean gap_p99 gap_max widest_p50 "
                 "widest_p99 stalls stalled handover_p50 handover_p99");
    buf_putc(out, '\n');
    report_table(
        out, c->runs, c->n,
        "handed_over device_alone cloud_alone asked_again cloud_tokens slot_s "
        "decode_slot_s kv_gb_s engine_s busy cached joule wasted quality kept cost failed");
    for (uint32_t k = 0; k < c->n; k++) {
        buf_puts(&p->json, p->json.len > 0 ? ",\n" : "");
        report_json(&p->json, &c->runs[k]);
        buf_cut(&p->json, p->json.len - 1);
        buf_printf(&p->json, ", \"trace\": \"%s\", \"link\": \"%s\"}", c->trace, c->link);
    }
    return code;
}

static int compare_all(struct page *p, struct comparison *c, uint32_t t, uint32_t l)
{
    const char *names[REPORT_RUNS_MAX + 1] = {NULL};
    struct run_config config;
    for (uint32_t i = 0; method_at(i) && i < REPORT_RUNS_MAX; i++)
        names[i] = method_at(i)->name;
    study_config(p->s, t, l, &config);
    int code = study_methods(p->s, &config, names, c, p->e);
    c->trace = p->s->traces[t].name;
    c->link = link_name(p->s, l);
    if (code == 0) {
        buf_printf(&p->parts[CLAIMS], "\n### %s, %s\n", c->trace, c->link);
        study_put_claims(&p->parts[CLAIMS], c);
        if (l == 0) study_put_gains(&p->parts[CLAIMS], c, &config);
        code = put_methods(p, c, t, l);
    }
    study_release(c);
    struct regrets r;
    if (code == 0) code = study_regrets(p->s, &config, &r, p->e);
    if (code) return code;
    buf_printf(&p->parts[REGRET], "\n### %s, %s\n\n", p->s->traces[t].name, link_name(p->s, l));
    study_put_regrets(&p->parts[REGRET], &r);
    return 0;
}

/* ---- device by device ---- */

static int put_device(struct page *p, uint32_t t, const struct hardware_device *d)
{
    struct run_config c;
    struct hardware_mix mix = {.devices = {d}, .upto = {1.0}, .n = 1};
    struct run_result alone = {.requests = 0}, planned = {.requests = 0};
    study_config(p->s, t, 0, &c);
    c.mix = &mix;
    int code = study_one(p->s, &c, "device", &alone, p->e);
    if (code == 0) code = study_one(p->s, &c, "planned", &planned, p->e);
    if (code == 0) {
        static const char *const keys[] = {"device_alone", "handed_over", "cloud_alone"};
        double before = report_figure(&alone, "first_p50"),
               after = report_figure(&planned, "first_p50");
        struct buf *out = &p->parts[DEVICES];
        buf_printf(out, "| %s |", d->name);
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            buf_printf(out, " %.0f |", report_figure(&planned, keys[i]));
        buf_printf(out, " %.0f | %.0f | %.0f | %.2f | %.1f |\n", before, after,
                   before > 0.0 ? 100.0 * (1.0 - after / before) : 0.0,
                   report_figure(&planned, "widest_own"), report_figure(&planned, "cloud_tokens"));
    }
    run_release(&alone);
    run_release(&planned);
    return code;
}

static int put_devices(struct page *p)
{
    int code = 0;
    for (uint32_t t = 0; code == 0 && t < p->s->p.n_traces; t++) {
        buf_printf(
            &p->parts[DEVICES],
            "\n### %s, %s\n\n| device | the planner chose: device alone, %% | handed over, %% "
            "| cloud alone, %% | TTFT p50 of the device alone, ms | planned, ms | less, %% | "
            "largest gap by its own, p50 | cloud tokens |\n|---|--:|--:|--:|--:|--:|--:|--:|"
            "--:|\n",
            p->s->traces[t].name, link_name(p->s, 0));
        for (uint32_t i = 0; code == 0 && hardware_device_at(i); i++)
            code = put_device(p, t, hardware_device_at(i));
    }
    return code;
}

/* ---- loads ---- */

static int put_loads(struct page *p)
{
    static const char *const methods[] = {"cloud",    "race",    "disco",
                                          "lossless", "planned", "planned-refined"};
    struct buf *out = &p->parts[LOADS];
    int code = 0;
    for (uint32_t t = 0; code == 0 && t < p->s->p.n_traces; t++) {
        struct run_config c;
        study_config(p->s, t, 0, &c);
        c.requests = 4000;
        buf_printf(out,
                   "\n### %s, %s\n\n| | arrivals, times the trace's | answers/s within limits | "
                   "engines busy, %% | by cloud only |\n|---|--:|--:|--:|--:|\n",
                   p->s->traces[t].name, link_name(p->s, 0));
        double base = 0.0;
        for (size_t i = 0; code == 0 && i < sizeof methods / sizeof *methods; i++) {
            struct study_load load;
            code = study_find_load(p->s, &c, methods[i], &load, p->e);
            if (code) break;
            if (i == 0) base = load.rate;
            buf_printf(out, "| %s | %s%.2f | %.1f | %.0f | %.2f |\n",
                       method_find(methods[i])->title, load.bounded ? "" : "above ", load.speed,
                       load.rate, load.busy, base > 0.0 ? load.rate / base : 0.0);
        }
    }
    return code;
}

/* ---- kinds of clouds ---- */

struct cloud_kind {
    const char *title, *engine;
    uint32_t engines, decode_engines;
    double speed;
    uint32_t step_us; /* 0: as usual */
};

static int put_kind(struct page *p, uint32_t t, const struct cloud_kind *k)
{
    static const char *const methods[] = {"cloud", "lossless", "planned", NULL};
    struct comparison *c = mem_calloc(1, sizeof *c);
    struct run_config config;
    if (!c) return err_set(p->e, ERR_NO_MEMORY, "no memory for a comparison");
    study_config(p->s, t, 0, &config);
    config.cloud.engine = hardware_engine_find(k->engine);
    config.cloud.engines = k->engines;
    config.cloud.decode_engines = k->decode_engines;
    config.speed = k->speed;
    config.cloud.step_us = k->step_us;
    if (k->speed < 1.0) config.requests = 2000;
    int code = study_methods(p->s, &config, methods, c, p->e);
    if (code == 0) {
        buf_printf(&p->parts[CLOUDS], "\n%s; %s at %.2f times its rate:\n\n", k->title,
                   p->s->traces[t].name, k->speed);
        report_table(&p->parts[CLOUDS], c->runs, c->n,
                     "first_p50 first_p95 widest_p50 stalled cloud_tokens slot_s decode_slot_s "
                     "decoding_mean decoding_p99 engine_s busy kept");
    }
    study_release(c);
    mem_free(c);
    return code;
}

static int put_clouds(struct page *p)
{
    static const struct cloud_kind kinds[] = {
        {"One pool, four engines of the H100 class do both phases", "h100", 4, 0, 1.0, 0},
        {"The same with steps of 25 ms instead of 100", "h100", 4, 0, 1.0, 25000},
        {"Two pools: four engines of the H100 class for prompts, two for decoding", "h100", 4, 2,
         1.0, 0},
        {"Two pools: four for prompts, one for decoding", "h100", 4, 1, 1.0, 0},
        {"One machine of two CPUs, as measured", "cpu", 1, 0, 0.02, 0},
    };
    int code = 0;
    for (size_t i = 0; code == 0 && i < sizeof kinds / sizeof *kinds; i++)
        for (uint32_t t = 0; code == 0 && t < p->s->p.n_traces; t++)
            code = put_kind(p, t, &kinds[i]);
    return code;
}

/* ---- what goes wrong ---- */

struct fault {
    const char *title;
    struct run_faults faults;
    uint32_t engines, queue_max; /* 0: as usual */
    struct quota_limits quota;
};

static int put_fault(struct page *p, const struct fault *f, struct run_config *c)
{
    struct buf *out = &p->parts[FAULTS];
    struct run_result r;
    c->faults = f->faults;
    if (f->engines) c->cloud.engines = f->engines;
    if (f->queue_max) c->cloud.queue_max = f->queue_max;
    c->cloud.quota = f->quota;
    int code = study_one(p->s, c, "planned", &r, p->e);
    if (code) return code;
    const struct tally *t = r.tally;
    buf_printf(out, "| %s | %.0f | %.0f | %.0f | %.2f | %.1f | %.1f | %.3f | %.0f | %.4f | %.0f |",
               f->title, report_figure(&r, "first_p50"), report_figure(&r, "first_p95"),
               report_figure(&r, "first_max"), report_figure(&r, "stalled"),
               report_figure(&r, "kept"), report_figure(&r, "cloud_tokens"),
               report_figure(&r, "slot_s"), report_figure(&r, "refused"), report_figure(&r, "cost"),
               report_figure(&r, "failed"));
    if (t->liars.answers > 0)
        buf_printf(out, " honest %.0f, liars %.0f ms; tokens %.0f, %.0f |\n",
                   sketch_mean(&t->first_honest), sketch_mean(&t->first_liars),
                   (double)t->honest.cloud_tokens / (double)t->honest.answers,
                   (double)t->liars.cloud_tokens / (double)t->liars.answers);
    else
        buf_puts(out, " |\n");
    run_release(&r);
    return 0;
}

static int put_faults(struct page *p)
{
    static const struct fault faults[] = {
        {.title = "as planned"},
        {.title = "devices believe in half their speed", .faults = {.believed = 0.5}},
        {.title = "devices believe in twice their speed", .faults = {.believed = 2.0}},
        {.title = "devices become hot", .faults = {.heat = true}},
        {.title = "a fifth of the connections is cut for 10 s",
         .faults = {.cut_share = 0.2, .cut_within_s = 5.0, .cut_s = 10.0}},
        {.title = "a fifth of the devices lies", .faults = {.liars = 0.2}},
        {.title = "10 % lie", .faults = {.liars = 0.1}},
        {.title = "10 % lie, two engines, queue of 64",
         .faults = {.liars = 0.1},
         .engines = 2,
         .queue_max = 64},
        {.title = "the same with a quota of 10,000 tokens a minute",
         .faults = {.liars = 0.1},
         .engines = 2,
         .queue_max = 64,
         .quota = {.tokens_per_minute = 10000}},
        {.title = "one engine, queue of 64", .engines = 1, .queue_max = 64},
    };
    int code = 0;
    for (uint32_t t = 0; code == 0 && t < p->s->p.n_traces; t++) {
        buf_printf(&p->parts[FAULTS],
                   "\n### %s, %s\n\n| planned | TTFT p50, ms | p95, ms | max, s | answers with a "
                   "stall, %% | within limits, %% | cloud tokens | slot, s | refusals | cost | "
                   "failed | TTFT mean; cloud tokens |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
                   "--:|---|\n",
                   p->s->traces[t].name, link_name(p->s, 0));
        for (size_t i = 0; code == 0 && i < sizeof faults / sizeof *faults; i++) {
            struct run_config c;
            study_config(p->s, t, 0, &c);
            code = put_fault(p, &faults[i], &c);
        }
    }
    return code;
}

/* ---- all of it ---- */

static const char *const titles[PARTS] = {
    [HEAD] = "# The simulator's report\n\n",
    [CLAIMS] = "\n## The paper's three claims\n",
    [METHODS] = "\n## All methods\n",
    [REGRET] =
        "\n## Regret\n\nThe planner's cost of a request by the least cost of six methods for "
        "it, when a frozen cloud answers each method in the times that the planner's run "
        "recorded.\n",
    [DEVICES] =
        "\n## Where it pays, device by device\n\nEach row: all requests from devices of one "
        "kind. Where the device alone is chosen, P/D-Device does not pay.\n",
    [LOADS] = "\n## Load at which 95 % of the answers keep their limits\n\nThe first 4,000 "
              "requests, the same engines for all.\n",
    [CLOUDS] = "\n## Kinds of clouds\n",
    [FAULTS] = "\n## What goes wrong\n",
};

static int fill(struct page *p)
{
    struct comparison *c = mem_calloc(1, sizeof *c);
    if (!c) return err_set(p->e, ERR_NO_MEMORY, "no memory for a comparison");
    int code = 0;
    put_head(p);
    for (uint32_t t = 0; code == 0 && t < p->s->p.n_traces; t++)
        for (uint32_t l = 0; code == 0 && l < links_of(p->s); l++)
            code = compare_all(p, c, t, l);
    mem_free(c);
    if (code == 0) code = put_devices(p);
    if (code == 0) code = put_loads(p);
    if (code == 0) code = put_clouds(p);
    if (code == 0) code = put_faults(p);
    return code;
}

static int join(struct page *p)
{
    struct buf all;
    buf_init(&all, STUDY_TEXT_MAX);
    for (int i = 0; i < PARTS; i++) {
        if (p->parts[i].error) buf_fail(&all, p->parts[i].error);
        buf_puts(&all, titles[i]);
        buf_append(&all, p->parts[i].data, p->parts[i].len);
    }
    int code = write_file(p, page_name, &all);
    if (code == 0 && p->json.error) buf_fail(&all, p->json.error);
    buf_clear(&all);
    buf_printf(&all, "{\"version\": 1, \"seed\": %llu, \"runs\": [\n",
               (unsigned long long)p->s->p.run.seed);
    buf_append(&all, p->json.data, p->json.len);
    buf_puts(&all, "\n]}\n");
    if (code == 0) code = write_file(p, "sim.json", &all);
    buf_release(&all);
    return code;
}

int study_report(struct study *s, const char *folder, struct err *e)
{
    struct page p = {.s = s, .folder = folder, .e = e};
    for (int i = 0; i < PARTS; i++)
        buf_init(&p.parts[i], STUDY_TEXT_MAX);
    buf_init(&p.json, STUDY_TEXT_MAX);
    int code = os_make_folder(folder, 0777, e); /* before minutes of work */
    if (code == 0) code = fill(&p);
    if (code == 0) code = join(&p);
    for (int i = 0; i < PARTS; i++)
        buf_release(&p.parts[i]);
    buf_release(&p.json);
    return code;
}
