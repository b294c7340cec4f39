/*
 * demo: `pdd demo`, the main job end to end: a cloud, a mobile link and a device as processes of
 * their own; the same question answered by the device alone, by the cloud alone and by both.
 *
 * Real: model, tokens, HTTP, processes, cancellation. Emulated: the device's speed and the link;
 * the output says so.
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
#include "cli/process.h"
#include "cli/timeline.h"
#include "engine/emulated.h"

enum {
    PATH_BYTES = 4096,
    URL_BYTES = 128,
    PROMPT_BYTES_MAX = 1 << 20,
    NUMBER_BYTES = 16,
    WHAT_BYTES = 80,
    ARGS_MAX = 40
};
enum { RUNS = 3, LONG_ANSWER = 200 };
enum { DEVICE_ONLY, CLOUD_ONLY, BOTH };

static const char question[] = "\n\nContinue the story.";
static const struct {
    const char *label, *file, *flag, *said;
} run_kinds[RUNS] = {
    {"device only", "device.json", "--local-only", "the device alone"},
    {"cloud only", "cloud.json", "--cloud-only", "the cloud alone, over the link"},
    {"P/D-Device", "both.json", NULL, "begun in the cloud, finished on the device"},
};

static const struct command command = {
    .name = "demo",
    .bit = OPTIONS_DEMO,
    .usage = "usage: pdd demo [OPTION]...\n"
             "One answer to a long prompt: by the device, by the cloud, and by both.\n\n"};

struct demo {
    char model[PATH_BYTES], story[PATH_BYTES], out[PATH_BYTES];
    char prompt[PATH_BYTES + 32], url[URL_BYTES];
    const char *profile_name;
    const struct device_profile *profile;
    uint32_t rtt_ms, tokens, seed;
    struct process cloud, link;
    struct timeline_run runs[RUNS];
};

static void in_out(const struct demo *d, const char *name, char path[PATH_BYTES + 32])
{
    snprintf(path, PATH_BYTES + 32, "%s/%s", d->out, name);
}

/* The prompt the device will send: the story and what to do with it. */
static int write_prompt(struct demo *d, struct err *e)
{
    struct buf text;
    buf_init(&text, PROMPT_BYTES_MAX);
    int code = os_read_file(d->story, &text, e);
    while (code == 0 && text.len > 0 && text.data[text.len - 1] == '\n')
        text.len--;
    if (code == 0 && (code = buf_puts(&text, question)) != 0)
        err_set(e, code, "%s: longer than %d bytes", d->story, PROMPT_BYTES_MAX);
    in_out(d, "prompt.txt", d->prompt);
    if (code == 0) code = os_write_file(d->prompt, text.data, text.len, e);
    buf_release(&text);
    return code;
}

static int start_cloud(struct demo *d, char *url, struct err *e)
{
    char log[PATH_BYTES + 32];
    const char *const argv[] = {"pdd",         "cloud",     "--model", d->model,         "--listen",
                                "127.0.0.1:0", "--threads", "1",       "--prefix-cache", "0",
                                NULL};
    in_out(d, "cloud.log", log);
    int code = process_start(argv, log, false, &d->cloud, e);
    return code ? code : process_url(&d->cloud, log, url, URL_BYTES, e);
}

static int start_link(struct demo *d, const char *cloud_url, struct err *e)
{
    char log[PATH_BYTES + 32], rtt[NUMBER_BYTES];
    const char *to = strstr(cloud_url, "//");
    snprintf(rtt, sizeof rtt, "%u", d->rtt_ms);
    const char *const argv[] = {"pdd", "link", "--to", to ? to + 2 : cloud_url, "--rtt", rtt, NULL};
    in_out(d, "link.log", log);
    int code = process_start(argv, log, false, &d->link, e);
    return code ? code : process_url(&d->link, log, d->url, URL_BYTES, e);
}

/* One answer by a device process of its own. */
static int run_one(struct demo *d, int kind, struct err *e)
{
    char stats[PATH_BYTES + 32], log[PATH_BYTES + 32], tokens[NUMBER_BYTES], seed[NUMBER_BYTES];
    struct process device;
    int status = 0, n = 0;
    const char *argv[ARGS_MAX];
    in_out(d, run_kinds[kind].file, stats);
    in_out(d, "device.log", log);
    snprintf(tokens, sizeof tokens, "%u", d->tokens);
    snprintf(seed, sizeof seed, "%u", d->seed);
    const char *const common[] = {"pdd",
                                  "chat",
                                  "--model",
                                  d->model,
                                  "--prompt-file",
                                  d->prompt,
                                  "--max-tokens",
                                  tokens,
                                  "--profile",
                                  d->profile_name,
                                  "--threads",
                                  "1",
                                  "--temperature",
                                  "0.7",
                                  "--top-p",
                                  "0.9",
                                  "--repeat-penalty",
                                  "1.1",
                                  "--seed",
                                  seed,
                                  "--stats-json",
                                  stats};
    unlink(stats);
    for (size_t i = 0; i < sizeof common / sizeof *common; i++)
        argv[n++] = common[i];
    if (kind != DEVICE_ONLY) {
        argv[n++] = "--cloud";
        argv[n++] = d->url;
    }
    if (run_kinds[kind].flag) argv[n++] = run_kinds[kind].flag;
    argv[n] = NULL;
    int code = process_start(argv, log, kind == BOTH, &device, e);
    if (code) return code;
    for (char c; kind != BOTH && read(device.out, &c, 1) > 0;)
        continue; /* the text is in the report */
    code = process_wait(&device, &status, e);
    if (code == 0 && status != 0) {
        char what[WHAT_BYTES];
        snprintf(what, sizeof what, "the run \"%s\" failed with status %d", run_kinds[kind].label,
                 status);
        code = process_blame(log, what, e);
    }
    return code ? code : timeline_load(stats, run_kinds[kind].label, &d->runs[kind], e);
}

static int run_all(struct demo *d, struct err *e)
{
    static const int order[RUNS] = {BOTH, DEVICE_ONLY, CLOUD_ONLY};
    int code = 0;
    for (int i = 0; i < RUNS && code == 0; i++) {
        int kind = order[i];
        printf("\n--- %s: %s ---\n", run_kinds[kind].label, run_kinds[kind].said);
        fflush(stdout);
        code = run_one(d, kind, e);
        const struct timeline_run *r = &d->runs[kind];
        if (code == 0 && kind != BOTH)
            printf("%u tokens, the first after %.0f ms\n", r->n, r->ttft_ms);
        if (code == 0 && kind == BOTH) printf("\n(%s)\n", r->plan ? r->plan : "");
    }
    return code;
}

static const char *verdict(bool met)
{
    return met ? "met" : "MISSED";
}

/* Timings of a busy machine say little: tell when it is. */
static void print_load(void)
{
    double load;
    if (getloadavg(&load, 1) == 1 && load > (double)os_cpu_count() + 0.5)
        printf("(the machine is busy, load %.1f on %u CPUs: expect missed targets)\n", load,
               os_cpu_count());
}

/* The targets of this demonstration, against what was measured. */
static bool print_targets(const struct demo *d)
{
    const struct timeline_run *device = &d->runs[DEVICE_ONLY], *both = &d->runs[BOTH];
    double less = 100.0 * (1.0 - both->ttft_ms / device->ttft_ms);
    double own = 1e3 / d->profile->decode_tps;
    bool same =
        strcmp(device->text, both->text) == 0 && strcmp(d->runs[CLOUD_ONLY].text, both->text) == 0;
    printf("answers identical: %s\n\n", same ? "yes" : "no");
    printf("TTFT %.0f %% below device only (target 80 %%): %s\n", less, verdict(less >= 80.0));
    printf("largest gap %.1f ms, %.2f of the device's own %.1f ms (target 1.10): %s\n",
           both->tpot_max_ms, both->tpot_max_ms / own, own,
           verdict(both->tpot_max_ms <= 1.1 * own));
    if (both->n >= LONG_ANSWER)
        printf("cloud tokens %u of %u (target a quarter): %s\n", both->cloud_tokens, both->n,
               verdict(4 * both->cloud_tokens <= both->n));
    else
        printf("cloud tokens %u of %u (the target, a quarter, is for answers of %d and more)\n",
               both->cloud_tokens, both->n, LONG_ANSWER);
    print_load();
    if (both->trouble) printf("trouble on the way: %s\n", both->trouble);
    return same;
}

static int write_picture(struct demo *d, struct err *e)
{
    char path[PATH_BYTES + 32], emulated[256];
    struct buf svg;
    buf_init(&svg, 16 << 20);
    snprintf(emulated, sizeof emulated,
             "Prompt of %u tokens. Emulated: the device's speed (%s, prefill %.0f and decode %.1f "
             "tok/s) "
             "and the link (%u ms round trip).",
             d->runs[BOTH].prompt_tokens, d->profile->name, d->profile->prefill_tps,
             d->profile->decode_tps, d->rtt_ms);
    const char *const notes[2] = {emulated, "Real: the model, its tokens, three processes, HTTP, "
                                            "cancellation; the answers are identical."};
    in_out(d, "timeline.svg", path);
    int code = timeline_svg(d->runs, RUNS, notes, &svg);
    if (code)
        err_set(e, code, "no memory for the picture");
    else
        code = os_write_file(path, svg.data, svg.len, e);
    buf_release(&svg);
    if (code == 0) printf("\npicture: %s\n", path);
    return code;
}

static void introduce(const struct demo *d)
{
    printf("model    %s, the same on both ends\n", d->model);
    printf("prompt   %s, then \"Continue the story.\"\n", d->story);
    printf("emulated the device's speed: %s, prefill %.0f tok/s, decode %.1f tok/s\n",
           d->profile->name, d->profile->prefill_tps, d->profile->decode_tps);
    printf("         (%s)\n", d->profile->source);
    printf("emulated the link: %u ms round trip\n", d->rtt_ms);
    printf("real     everything else: three processes, HTTP, tokens, cancellation\n");
}

/* 0, or a failure; *ret_same: whether the answers agree. */
static int demonstrate(struct demo *d, bool *ret_same, struct err *e)
{
    char cloud_url[URL_BYTES];
    if (mkdir(d->out, 0755) != 0 && access(d->out, W_OK) != 0)
        return err_set(e, ERR_IO, "%s: cannot be written to; choose another with --out", d->out);
    introduce(d);
    int code = write_prompt(d, e);
    if (code == 0) code = start_cloud(d, cloud_url, e);
    if (code == 0) code = start_link(d, cloud_url, e);
    if (code == 0) code = run_all(d, e);
    if (code) return code;
    printf("\n");
    timeline_print_table(d->runs, RUNS, stdout);
    *ret_same = print_targets(d);
    printf("\n");
    timeline_print(d->runs, RUNS, isatty(STDOUT_FILENO), stdout);
    return *ret_same ? write_picture(d, e) : 0;
}

/* demo/story.txt of the source tree that the program was built in. */
static int find_story(char *path, size_t size, struct err *e)
{
    char program[PATH_BYTES];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n > 0) {
        program[n] = 0;
        for (int up = 0; up < 4; up++) {
            char *slash = strrchr(program, '/');
            if (!slash) break;
            *slash = 0;
            int len = snprintf(path, size, "%s/demo/story.txt", program);
            if (len > 0 && (size_t)len < size && access(path, R_OK) == 0) return 0;
        }
    }
    return err_set(e, ERR_NOT_FOUND,
                   "demo/story.txt is not near the program; name a text with --prompt-file");
}

static int run(struct demo *d, struct err *e)
{
    bool same = false;
    int code = engine_profile(d->profile_name, &d->profile, e);
    if (code == 0 && !d->model[0]) code = model_file_find(d->model, sizeof d->model, e);
    if (code == 0 && !d->story[0]) code = find_story(d->story, sizeof d->story, e);
    if (code == 0) code = demonstrate(d, &same, e);
    process_stop(&d->link);
    process_stop(&d->cloud);
    for (int i = 0; i < RUNS; i++)
        timeline_release(&d->runs[i]);
    if (code == 0 && !same)
        code =
            err_set(e, ERR_INTERNAL, "the answers differ: this must not happen; please report it");
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
    d->profile_name = o->profile;
    d->rtt_ms = o->rtt_ms;
    d->tokens = o->tokens_max;
    d->seed = o->seed;
    int code = copy_path(d->model, o->native.model_path, "model", e);
    if (code == 0) code = copy_path(d->story, o->prompt_file, "prompt-file", e);
    return code ? code : copy_path(d->out, o->out, "out", e);
}

int cmd_demo(int argc, char **argv)
{
    struct options o;
    struct option_line line;
    struct err e = ERR_INIT;
    int status;
    if (options_parse(&command, argc, argv, &o, &line, &status)) return status;
    struct demo *d = mem_calloc(1, sizeof *d);
    if (!d) return EXIT_FAILED;
    status = EXIT_DONE;
    if (demo_init(d, &o, &e))
        status = EXIT_USAGE;
    else if (run(d, &e))
        status = EXIT_FAILED;
    if (status) fprintf(stderr, "pdd demo: %s\n", e.text);
    mem_free(d);
    return status;
}
