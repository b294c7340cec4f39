/*
 * bench_cloud: loads a running `pdd cloud` and prints what it measured, one JSON object.
 * bench/cloud.py starts servers, runs this next to them and writes the report; by hand it is for a
 * closer look.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "load/load_run.h"

static const char help[] =
    "usage: bench_cloud WHAT --to HOST:PORT [OPTION]...\n"
    "  streams      many open assists: how late tokens come, what a stream and a token cost\n"
    "  leave        how soon the server sees a client leave: in the queue, prefill, decode\n"
    "  connections  memory and time of connections that ask nothing, of TLS handshakes\n"
    "  arrivals     requests at random times, of a trace's lengths\n"
    "  chaos        clients of every bad manner\n\n"
    "  --tls, --resume          speak TLS; take up the last session again\n"
    "  --key KEY                bearer key\n"
    "  --tokenizer HASH         of /v1/models: token ids are sent with it\n"
    "  --pid N                  the server: its memory and CPU time are measured\n"
    "  --streams N  --seconds N  --per-second N (opened)  --times N (one after the other)\n"
    "  --prompt N   --tokens N   --vocab N   --seed N  --prompt-seed N\n"
    "  --beat-us N  --period-us N   of the fake engine, and of a stream's tokens\n"
    "  --rate X     --warm N     --trace FILE  --scale X  --common X  --prompt-max N\n"
    "  --answer-max N  --ttft-ms N  --tpot-ms N  --rows FILE\n"
    "  --log FILE               where the server logs (leave)\n"
    "  --hup N                  seconds between two SIGHUPs to the server (chaos)\n";

enum { NUMBERS = 18 };

struct arguments {
    struct load_options o;
    const char *to, *key, *tokenizer;
    bool tls, resume;
};

/* Options that are whole numbers, by name. */
static uint32_t *number_of(struct load_options *o, const char *name)
{
    const struct {
        const char *name;
        uint32_t *value;
    } all[NUMBERS] = {
        {"streams", &o->streams},
        {"seconds", &o->seconds},
        {"prompt", &o->prompt},
        {"tokens", &o->tokens},
        {"vocab", &o->vocab},
        {"per-second", &o->per_second},
        {"beat-us", &o->beat_us},
        {"period-us", &o->period_us},
        {"times", &o->times},
        {"prompt-max", &o->prompt_max},
        {"answer-max", &o->answer_max},
        {"warm", &o->warm_s},
        {"ttft-ms", &o->ttft_ms},
        {"tpot-ms", &o->tpot_ms},
        {"hup", &o->hup_s},
        {"pid", &o->pid},
        {"seed", &o->seed},
        {"prompt-seed", &o->prompt_seed},
    };
    for (int i = 0; i < NUMBERS; i++)
        if (strcmp(all[i].name, name) == 0) return all[i].value;
    return NULL;
}

static int set_text(struct arguments *a, const char *name, const char *value)
{
    const struct {
        const char *name;
        const char **value;
    } all[] = {{"to", &a->to},     {"key", &a->key},       {"tokenizer", &a->tokenizer},
               {"log", &a->o.log}, {"trace", &a->o.trace}, {"rows", &a->o.rows}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].name, name) == 0) *all[i].value = value;
    if (strcmp(name, "rate") == 0) a->o.rate = strtod(value, NULL);
    if (strcmp(name, "scale") == 0) a->o.scale = strtod(value, NULL);
    if (strcmp(name, "common") == 0) a->o.common = strtod(value, NULL);
    if (strcmp(name, "tls") == 0) a->tls = true;
    if (strcmp(name, "resume") == 0) a->resume = true;
    return 0;
}

static const struct option options[] = {
    {"to", required_argument, NULL, 't'},
    {"key", required_argument, NULL, 't'},
    {"tokenizer", required_argument, NULL, 't'},
    {"log", required_argument, NULL, 't'},
    {"trace", required_argument, NULL, 't'},
    {"rows", required_argument, NULL, 't'},
    {"rate", required_argument, NULL, 't'},
    {"scale", required_argument, NULL, 't'},
    {"common", required_argument, NULL, 't'},
    {"tls", no_argument, NULL, 't'},
    {"resume", no_argument, NULL, 't'},
    {"streams", required_argument, NULL, 'n'},
    {"seconds", required_argument, NULL, 'n'},
    {"prompt", required_argument, NULL, 'n'},
    {"tokens", required_argument, NULL, 'n'},
    {"vocab", required_argument, NULL, 'n'},
    {"per-second", required_argument, NULL, 'n'},
    {"beat-us", required_argument, NULL, 'n'},
    {"period-us", required_argument, NULL, 'n'},
    {"times", required_argument, NULL, 'n'},
    {"prompt-max", required_argument, NULL, 'n'},
    {"answer-max", required_argument, NULL, 'n'},
    {"warm", required_argument, NULL, 'n'},
    {"ttft-ms", required_argument, NULL, 'n'},
    {"tpot-ms", required_argument, NULL, 'n'},
    {"hup", required_argument, NULL, 'n'},
    {"pid", required_argument, NULL, 'n'},
    {"seed", required_argument, NULL, 'n'},
    {"prompt-seed", required_argument, NULL, 'n'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static int read_arguments(int argc, char **argv, struct arguments *a)
{
    int at = 0;
    for (int c; (c = getopt_long(argc, argv, "", options, &at)) != -1;) {
        char *end = NULL;
        if (c == '?') return -1;
        if (c == 'h') {
            fputs(help, stdout);
            return -1;
        }
        if (c == 'n') {
            unsigned long value = strtoul(optarg, &end, 10);
            if (*end || !*optarg || value > UINT32_MAX) {
                fprintf(stderr, "bench_cloud: --%s is \"%s\": a whole number is needed\n",
                        options[at].name, optarg);
                return -1;
            }
            *number_of(&a->o, options[at].name) = (uint32_t)value;
        } else {
            set_text(a, options[at].name, optarg);
        }
    }
    return a->to ? 0 : -1;
}

static const struct {
    const char *name;
    int (*run)(struct load_target *t, const struct load_options *o);
} runs[] = {
    {"streams", load_streams},   {"leave", load_leave}, {"connections", load_connections},
    {"arrivals", load_arrivals}, {"chaos", load_chaos},
};

int main(int argc, char **argv)
{
    struct arguments a = {.o = {.streams = 100,
                                .seconds = 10,
                                .prompt = 64,
                                .vocab = 256,
                                .per_second = 1000,
                                .beat_us = 5000,
                                .period_us = 100000,
                                .prompt_max = 4096,
                                .answer_max = 1000,
                                .ttft_ms = 1000,
                                .tpot_ms = 100,
                                .rate = 1.0,
                                .scale = 1.0,
                                .seed = 1}};
    struct loop *loop;
    struct load_target target;
    if (argc < 2 || read_arguments(argc - 1, argv + 1, &a)) {
        if (argc < 2) fputs(help, stderr);
        return 2;
    }
    os_raise_descriptors(a.o.streams + 256);
    if (loop_new(&loop, NULL) || load_target_init(&target, loop, a.to, a.tls)) return 1;
    target.key = a.key;
    target.resume = a.resume;
    if (a.tokenizer) target.tokenizer = a.tokenizer;
    int code = -2;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++)
        if (strcmp(argv[1], runs[i].name) == 0) code = runs[i].run(&target, &a.o);
    if (code == -2) fputs(help, stderr);
    load_target_release(&target);
    loop_free(loop);
    return code ? 1 : 0;
}
