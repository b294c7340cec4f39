/*
 * demo: `pdd demo`, the main job end to end: a cloud, a mobile link and a device as processes of
 * their own. A question about a document is answered by the device alone, by the cloud alone and
 * by both.
 *
 * Real: model, tokens, HTTP, processes, cancellation. Emulated: the speeds of device and cloud, and
 * the link; the output says so. The cloud's machine is no provider's: it prefills the prompt once
 * before the runs, in its own time, and the emulation then counts that as new (engine/emulated.h).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/os.h"
#include "cli/commands.h"
#include "cli/engine_open.h"
#include "cli/model_file.h"
#include "cli/options.h"
#include "demo/demo_report.h"
#include "demo/demo_task.h"
#include "demo/process.h"
#include "demo/timeline.h"
#include "engine/emulated.h"

#define REFINE "0.3"            /* share of the prompt that the slow device reads */
#define SLOW "iphone17-pro-cpu" /* engine/emulated.h */

enum {
    PATH_BYTES = 4096,
    URL_BYTES = 128,
    NUMBER_BYTES = 24,
    WHAT_BYTES = 80,
    ARGS_MAX = 40,
    DOCUMENT_MAX = 16 << 20
};

static const struct {
    const char *label, *file, *flag, *said, *refine;
} run_kinds[DEMO_RUNS] = {
    [DEMO_DEVICE_ONLY] = {"device only", "device.json", "--local-only", "the device alone", "off"},
    [DEMO_CLOUD_ONLY] = {"cloud only", "cloud.json", "--cloud-only",
                         "the cloud alone, over the link", "off"},
    [DEMO_BOTH] = {"P/D-Device", "both.json", NULL, "begun in the cloud, finished on the device",
                   "off"},
    [DEMO_SLOW] = {"slow, whole", "slow.json", NULL, "a slower device and a longer prompt", "off"},
    [DEMO_REFINED] = {"slow, refined", "refined.json", NULL,
                      "of the same prompt the device reads what the cloud marks", REFINE},
};

const struct command command_demo = {
    .name = "demo",
    .bit = OPTIONS_DEMO,
    .usage = "usage: pdd demo [OPTION]...\n"
             "A question about a document, answered by the device, by the cloud, and by both.\n\n"};

struct demo {
    const char *model; /* of an option, or model_path */
    char model_path[MODEL_FILE_PATH_MAX], task_path[PATH_BYTES], out[PATH_BYTES];
    char cloud_url[URL_BYTES], url[URL_BYTES]; /* the latter over the link */
    struct demo_task task;
    const char *device_name, *provider_name;
    const struct device_profile *device, *provider, *slow;
    char long_document[PATH_BYTES + 32]; /* the document and what stands behind it; "": no more */
    char temperature[NUMBER_BYTES], seed[NUMBER_BYTES], tokens[NUMBER_BYTES];
    uint32_t rtt_ms;
    double prefill_ms; /* of the prompt by the cloud's process, as fast as this machine can */
    struct process cloud, link;
    struct timeline_run runs[DEMO_RUNS];
};

static void in_out(const struct demo *d, const char *name, char path[PATH_BYTES + 32])
{
    snprintf(path, PATH_BYTES + 32, "%s/%s", d->out, name);
}

static int start_cloud(struct demo *d, struct err *e)
{
    char log[PATH_BYTES + 32];
    const char *const argv[] = {"pdd",         "cloud",     "--model",         d->model, "--listen",
                                "127.0.0.1:0", "--profile", d->provider->name, NULL};
    in_out(d, "cloud.log", log);
    int code = process_start(argv, log, false, &d->cloud, e);
    return code ? code : process_url(&d->cloud, log, d->cloud_url, URL_BYTES, e);
}

static int start_link(struct demo *d, struct err *e)
{
    char log[PATH_BYTES + 32], rtt[NUMBER_BYTES];
    const char *to = strstr(d->cloud_url, "//");
    snprintf(rtt, sizeof rtt, "%u", d->rtt_ms);
    const char *const argv[] = {"pdd",   "link", "--to", to ? to + 2 : d->cloud_url,
                                "--rtt", rtt,    NULL};
    in_out(d, "link.log", log);
    int code = process_start(argv, log, false, &d->link, e);
    return code ? code : process_url(&d->link, log, d->url, URL_BYTES, e);
}

/* `pdd chat` with the question and `more`, which ends with NULL, to its end. */
static int ask(struct demo *d, const char *document, const char *const more[], const char *label,
               bool own_output, struct err *e)
{
    char log[PATH_BYTES + 32], what[WHAT_BYTES];
    struct process device;
    int status = 0, n = 0;
    const char *argv[ARGS_MAX] = {0};
    const char *const common[] = {"pdd",        "chat",   "--model",       d->model,
                                  "--document", document, "--prompt",      d->task.question,
                                  "--seed",     d->seed,  "--temperature", d->temperature,
                                  "--no-state"};
    for (size_t i = 0; i < sizeof common / sizeof *common; i++)
        argv[n++] = common[i];
    while (*more && n < ARGS_MAX - 1)
        argv[n++] = *more++;
    in_out(d, "device.log", log);
    int code = process_start(argv, log, own_output, &device, e);
    if (code) return code;
    for (char c; !own_output && read(device.out, &c, 1) > 0;)
        continue; /* the text is in the report */
    code = process_wait(&device, &status, e);
    if (code || status == 0) return code;
    snprintf(what, sizeof what, "the run \"%s\" failed with status %d", label, status);
    return process_blame(log, what, e);
}

/* The prompt goes through the cloud's engine once, before any clock runs. */
static int prefill_cloud(struct demo *d, const char *document, double *ret_ms, struct err *e)
{
    char stats[PATH_BYTES + 32];
    const char *const more[] = {"--cloud", d->cloud_url,   "--cloud-only", "--max-tokens",
                                "1",       "--stats-json", stats,          NULL};
    struct timeline_run once;
    in_out(d, "prefill.json", stats);
    printf("\nthis machine prefills the prompt for the cloud, once, before the clock runs: ");
    fflush(stdout);
    int code = ask(d, document, more, "the cloud's prefill", false, e);
    if (code == 0) code = timeline_load(stats, "the cloud's prefill", &once, e);
    if (code) return code;
    *ret_ms = once.ttft_ms;
    printf("%.1f s\n", once.ttft_ms / 1e3);
    timeline_release(&once);
    return 0;
}

static bool is_slow(int kind)
{
    return kind >= DEMO_SAME;
}

static int n_runs(const struct demo *d)
{
    return d->long_document[0] ? DEMO_RUNS : DEMO_SAME;
}

/* One answer by a device process of its own. */
static int run_one(struct demo *d, int kind, struct err *e)
{
    char stats[PATH_BYTES + 32];
    /* One thread: a device prefills in small steps, and on a busy machine threads that wait for
     * each other in every layer of each step are slower than one. */
    const char *more[ARGS_MAX] = {"--max-tokens", d->tokens,
                                  "--profile",    is_slow(kind) ? d->slow->name : d->device->name,
                                  "--stats-json", stats,
                                  "--threads",    "1",
                                  "--refine",     run_kinds[kind].refine};
    int n = 10;
    in_out(d, run_kinds[kind].file, stats);
    unlink(stats);
    if (kind != DEMO_DEVICE_ONLY) {
        more[n++] = "--cloud";
        more[n++] = d->url;
    }
    more[n] = run_kinds[kind].flag;
    const char *document = is_slow(kind) ? d->long_document : d->task.document;
    int code = ask(d, document, more, run_kinds[kind].label, kind == DEMO_BOTH, e);
    return code ? code : timeline_load(stats, run_kinds[kind].label, &d->runs[kind], e);
}

static int run_all(struct demo *d, struct err *e)
{
    static const int order[DEMO_RUNS] = {DEMO_BOTH, DEMO_DEVICE_ONLY, DEMO_CLOUD_ONLY, DEMO_SLOW,
                                         DEMO_REFINED};
    int code = 0;
    for (int i = 0; i < n_runs(d) && code == 0; i++) {
        int kind = order[i];
        double ignored;
        if (kind == DEMO_SLOW) code = prefill_cloud(d, d->long_document, &ignored, e);
        if (code) return code;
        printf("\n--- %s: %s ---\n", run_kinds[kind].label, run_kinds[kind].said);
        fflush(stdout);
        code = run_one(d, kind, e);
        const struct timeline_run *r = &d->runs[kind];
        if (code == 0 && kind != DEMO_BOTH)
            printf("%u tokens, the first after %.0f ms\n", r->n, r->ttft_ms);
        if (code == 0 && kind == DEMO_BOTH) printf("\n(%s)\n", r->plan ? r->plan : "");
    }
    return code;
}

static int write_picture(const struct demo *d, struct err *e)
{
    char path[PATH_BYTES + 32], gain[160], prompt[320], emulated[320], slow[320];
    const struct timeline_run *both = &d->runs[DEMO_BOTH], *cloud = &d->runs[DEMO_CLOUD_ONLY];
    struct buf svg;
    buf_init(&svg, 16 << 20);
    snprintf(
        gain, sizeof gain,
        "P/D-Device: first token %.0f %% sooner than on the device, for %.0f %% of the cloud's "
        "slot-seconds",
        100.0 * (1.0 - both->ttft_ms / d->runs[DEMO_DEVICE_ONLY].ttft_ms),
        cloud->slot_ms > 0.0 ? 100.0 * both->slot_ms / cloud->slot_ms : 0.0);
    snprintf(prompt, sizeof prompt,
             "Prompt of %u tokens. Real: the model, its tokens, processes, HTTP, cancellation; the "
             "answers are identical (%s).",
             both->prompt_tokens, both->numerics ? both->numerics : "");
    snprintf(emulated, sizeof emulated,
             "Emulated: the device (%s: prefill %.0f, decode %.1f tok/s), the cloud (%s: %.0f, "
             "%.0f) and the link (%u ms round trip).",
             d->device->name, d->device->prefill_tps, d->device->decode_tps, d->provider->name,
             d->provider->prefill_tps, d->provider->decode_tps, d->rtt_ms);
    snprintf(
        slow, sizeof slow,
        "The last two: a prompt of %u tokens on %s (prefill %.0f, decode %.1f tok/s); refined, "
        "the answer may differ.",
        d->runs[DEMO_REFINED].prompt_tokens, d->slow->name, d->slow->prefill_tps,
        d->slow->decode_tps);
    const char *const notes[] = {prompt, emulated, d->long_document[0] ? slow : NULL, NULL};
    in_out(d, "timeline.svg", path);
    int code = timeline_svg(d->runs, (uint32_t)n_runs(d), gain, notes, &svg);
    if (code)
        err_set(e, code, "no memory for the picture");
    else
        code = os_write_file(path, svg.data, svg.len, e);
    buf_release(&svg);
    if (code == 0) printf("\npicture: %s\n", path);
    return code;
}

static void introduce_speed(const char *what, const struct device_profile *p)
{
    printf("emulated %s: %s, prefill %.0f tok/s, decode %.1f tok/s\n", what, p->name,
           p->prefill_tps, p->decode_tps);
    printf("         (%s)\n", p->source);
}

static void introduce(const struct demo *d)
{
    printf("model    %s, the same on both ends\n", d->model);
    printf("document %s\n", d->task.document);
    printf("question %s\n", d->task.question);
    introduce_speed("the device", d->device);
    introduce_speed("the cloud", d->provider);
    printf("emulated the link: %u ms round trip\n", d->rtt_ms);
    printf("real     everything else: processes, HTTP, tokens, cancellation\n");
}

/* Everything that was measured, on the terminal and in the folder. */
static int show(const struct demo *d, struct err *e)
{
    char path[PATH_BYTES + 32];
    const struct demo_report r = {d->model,  &d->task,      d->device, d->provider, d->slow,
                                  d->rtt_ms, d->prefill_ms, d->runs,   n_runs(d)};
    const uint32_t n = (uint32_t)n_runs(d);
    printf("\n");
    timeline_print_table(d->runs, n, stdout);
    demo_report_targets(&r);
    demo_report_refined(&r);
    printf("\n");
    timeline_print(d->runs, n, isatty(STDOUT_FILENO), stdout);
    in_out(d, "demo.json", path);
    int code = demo_report_json(&r, path, e);
    if (code) return code;
    if (!demo_report_identical(&r))
        return err_set(e, ERR_INTERNAL,
                       "the answers differ: this must not happen; please report it");
    return write_picture(d, e);
}

/* The document of the slow device's prompt, where the task has more. */
static int write_long(struct demo *d, struct err *e)
{
    struct buf text;
    if (!d->task.more[0]) return 0;
    in_out(d, "document.txt", d->long_document);
    buf_init(&text, DOCUMENT_MAX);
    int code = os_read_file(d->task.document, &text, e);
    if (code == 0) code = buf_append(&text, "\n", 1);
    if (code == 0) code = os_read_file(d->task.more, &text, e);
    if (code == 0) code = os_write_file(d->long_document, text.data, text.len, e);
    buf_release(&text);
    return code;
}

static int demonstrate(struct demo *d, struct err *e)
{
    if (mkdir(d->out, 0755) != 0 && access(d->out, W_OK) != 0)
        return err_set(e, ERR_IO, "%s: cannot be written to; choose another with --out", d->out);
    int code = write_long(d, e);
    if (code) return code;
    introduce(d);
    code = start_cloud(d, e);
    if (code == 0) code = start_link(d, e);
    if (code == 0) code = prefill_cloud(d, d->task.document, &d->prefill_ms, e);
    if (code == 0) code = run_all(d, e);
    return code ? code : show(d, e);
}

/* demo/logbook.json of the source tree that the program was built in, or of its installation. */
static int find_task(char *path, size_t size, struct err *e)
{
    static const char *const places[] = {"demo", "share/pdd/demo"};
    char program[PATH_BYTES];
    for (int up = 0; up <= MODEL_FILE_FOLDERS_UP && model_file_above(up, program, sizeof program);
         up++)
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            int len = snprintf(path, size, "%s/%s/logbook.json", program, places[i]);
            if (len > 0 && (size_t)len < size && access(path, R_OK) == 0) return 0;
        }
    return err_set(e, ERR_NOT_FOUND,
                   "demo/logbook.json is not near the program; name another with --task");
}

static int run(struct demo *d, struct err *e)
{
    int code = engine_profile(d->device_name, &d->device, e);
    if (code == 0) code = engine_profile(SLOW, &d->slow, e);
    if (code == 0) code = engine_profile(d->provider_name, &d->provider, e);
    if (code == 0 && !d->task_path[0]) code = find_task(d->task_path, sizeof d->task_path, e);
    if (code == 0) code = demo_task_load(d->task_path, &d->task, e);
    if (code == 0) code = model_file_default(&d->model, d->model_path, e);
    if (code == 0) code = demonstrate(d, e);
    process_stop(&d->link);
    process_stop(&d->cloud);
    for (int i = 0; i < DEMO_RUNS; i++)
        timeline_release(&d->runs[i]);
    demo_task_release(&d->task);
    return code;
}

static int copy_path(char to[PATH_BYTES], const char *from, const char *option, struct err *e)
{
    if (!from) return 0;
    if (strlen(from) >= PATH_BYTES)
        return err_set(e, ERR_LIMIT, "--%s: the path is too long", option);
    memcpy(to, from, strlen(from) + 1);
    return 0;
}

/* The settings of a demo from its options. */
static int demo_init(struct demo *d, const struct options *o, struct err *e)
{
    d->rtt_ms = o->rtt_ms;
    snprintf(d->tokens, sizeof d->tokens, "%u", o->tokens_max);
    snprintf(d->seed, sizeof d->seed, "%u", o->seed);
    snprintf(d->temperature, sizeof d->temperature, "%.6f", (double)o->chat.sampling.temperature);
    d->device_name = o->profile;
    d->provider_name = o->cloud_profile;
    d->model = o->native.model_path;
    int code = copy_path(d->task_path, o->task, "task", e);
    return code ? code : copy_path(d->out, o->out, "out", e);
}

int cmd_demo(int argc, char **argv)
{
    struct options o;
    struct option_line line;
    struct err e = ERR_INIT;
    int status;
    if (options_parse(&command_demo, argc, argv, &o, &line, &status)) return status;
    struct demo *d = mem_calloc(1, sizeof *d);
    if (!d) return EXIT_FAILED;
    status = demo_init(d, &o, &e) || run(d, &e) ? EXIT_FAILED : EXIT_DONE;
    if (status) fprintf(stderr, "pdd demo: %s\n", e.text);
    mem_free(d);
    return status;
}
