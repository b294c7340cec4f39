/*
 * bench: `pdd bench engine`: how fast the native engine reads a prompt and writes tokens on this
 * machine, and what fraction of the machine's own limits that is. Measures; judges nothing.
 */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/commands.h"
#include "cli/engine_open.h"
#include "cli/model_file.h"
#include "cli/options.h"
#include "lab/bench_report.h"
#include "lab/bench_run.h"

static const char help[] =
    "usage: pdd bench engine [OPTION]...\n\n"
    "  --model FILE     GGUF file (the newest in models/ beside the program); see pdd model "
    "random\n"
    "  --prompt LIST    tokens of prompts, as 512,2048; 0: none (512)\n"
    "  --depth LIST     tokens in the KV cache before a prompt or an answer (0)\n"
    "  --batch LIST     sequences that decode at the same time; 0: none (1)\n"
    "  --mixed LIST     steps of a chunk of a prompt and so many decodes, and what a decode adds\n"
    "  --fill           reading up to each depth, too: once, as it is done anyway\n"
    "  --generate N     tokens of an answer (64)\n"
    "  --chunk N        tokens of a prompt that a step may take (512)\n"
    "  --threads LIST   0: all CPUs (0)\n"
    "  --isa LEVEL      scalar, avx2, avxvnni, avx512, amx, neon, neondot (the best here)\n"
    "  --kv-type TYPE   i16, f16 or q8_0 (i16; f16 if heads do not suit it)\n"
    "  --repeat N       rounds; the report has medians, and the best (3)\n"
    "  --load           time to the first token and peak memory of a fresh process, too\n"
    "  --beyond         measure beyond the context that the model was trained for, too\n"
    "  --json           one JSON object instead of a table\n"
    "  --quiet          no word on what is being measured\n";

enum { OPTION_LOAD_CHILD = 256 };
static const struct option options[] = {
    {"model", required_argument, NULL, 'm'},
    {"prompt", required_argument, NULL, 'p'},
    {"depth", required_argument, NULL, 'd'},
    {"fill", no_argument, NULL, 'f'},
    {"generate", required_argument, NULL, 'g'},
    {"batch", required_argument, NULL, 'b'},
    {"chunk", required_argument, NULL, 'c'},
    {"mixed", required_argument, NULL, 'x'},
    {"threads", required_argument, NULL, 't'},
    {"isa", required_argument, NULL, 'i'},
    {"kv-type", required_argument, NULL, 'k'},
    {"repeat", required_argument, NULL, 'r'},
    {"json", no_argument, NULL, 'j'},
    {"load", no_argument, NULL, 'l'},
    {"quiet", no_argument, NULL, 'q'},
    {"beyond", no_argument, NULL, 'B'},
    {"help", no_argument, NULL, 'h'},
    {"load-child", no_argument, NULL, OPTION_LOAD_CHILD},
    {NULL, 0, NULL, 0},
};

/* "512,2048". A list that is the single number 0 and need not be is empty. */
static int read_list(const char *option, const char *text, uint32_t low, uint32_t high,
                     struct bench_list *ret_list)
{
    ret_list->n = 0;
    if (low > 0 && strcmp(text, "0") == 0) return 0;
    for (const char *at = text;; at++) {
        char *end;
        errno = 0;
        long v = strtol(at, &end, 10);
        if (end == at || errno || (*end && *end != ',') || v < (long)low || v > (long)high ||
            ret_list->n == BENCH_LIST_MAX) {
            fprintf(stderr,
                    "pdd bench: --%s is \"%s\": up to %d whole numbers from %u to %u with commas "
                    "between them are needed\n",
                    option, text, BENCH_LIST_MAX, low, high);
            return -1;
        }
        ret_list->values[ret_list->n++] = (uint32_t)v;
        if (!*end) return 0;
        at = end;
    }
}

static int read_option(struct bench_plan *p, int c)
{
    switch (c) {
    case 'm':
        p->engine.model_path = optarg;
        return 0;
    case 'i':
        return option_isa("bench", optarg, &p->engine.isa);
    case 'k':
        return option_kv_type("bench", optarg, &p->engine.kv_type);
    case 'j':
        p->json = true;
        return 0;
    case 'l':
        p->load = true;
        return 0;
    case 'f':
        p->fill = true;
        return 0;
    case 'B':
        p->beyond = true;
        return 0;
    case 'q':
        p->quiet = true;
        return 0;
    case 'p':
        return read_list("prompt", optarg, 1, 1 << 20, &p->prompts);
    case 'd':
        return read_list("depth", optarg, 0, 1 << 20, &p->depths);
    case 'b':
        return read_list("batch", optarg, 1, ENGINE_SPANS_MAX, &p->batches);
    case 'x':
        return read_list("mixed", optarg, 1, ENGINE_SPANS_MAX - 1, &p->mixes);
    case 't':
        return read_list("threads", optarg, 0, 256, &p->threads);
    case 'g':
        return option_u32("bench", "generate", optarg, 0, 1 << 20, &p->generate);
    case 'c':
        return option_u32("bench", "chunk", optarg, 1, 1 << 14, &p->chunk);
    case 'r':
        return option_u32("bench", "repeat", optarg, 1, BENCH_ROUNDS_MAX, &p->rounds);
    default:
        return -1;
    }
}

static bool has_cases(const struct bench_plan *p)
{
    return p->prompts.n || p->mixes.n || (p->batches.n && p->generate) ||
           (p->fill && bench_largest(&p->depths));
}

/* EXIT_DONE where the plan can be measured, or the status to leave with, after saying why. */
static int check_plan(const struct bench_plan *p, struct err *e)
{
    uint32_t context, depth = bench_largest(&p->depths), most = bench_largest(&p->prompts);
    if (!has_cases(p)) {
        if (p->load) return EXIT_DONE;
        fputs(
            "pdd bench: nothing is to be measured: no prompt, no answer, no --mixed, no --load, no "
            "--fill of a --depth\n",
            stderr);
        return EXIT_USAGE;
    }
    if (bench_context(p->engine.model_path, &context, e)) return EXIT_FAILED;
    if (p->batches.n && p->generate > most) most = p->generate;
    if (p->mixes.n && p->chunk > most) most = p->chunk;
    if (p->beyond || context == 0 || depth + most <= context) return EXIT_DONE;
    fprintf(stderr,
            "pdd bench: %u tokens at depth %u end beyond the model's context of %u tokens; "
            "--beyond measures that, too\n",
            most, depth, context);
    return EXIT_USAGE;
}

static int run(const struct bench_plan *p, struct err *e)
{
    static struct bench_load load;
    struct bench_result r = {0};
    r.cases = mem_calloc(BENCH_CASES_MAX, sizeof *r.cases);
    if (!r.cases) return err_set(e, ERR_NO_MEMORY, "no memory for results");
    int rc = p->load ? bench_load(p, &load, e) : 0;
    if (rc == 0 && has_cases(p)) rc = bench_run(p, &r, e);
    if (rc == 0) rc = bench_report(p, &r, p->load ? &load : NULL, e);
    mem_free(r.cases);
    return rc;
}

static int measure(const struct bench_plan *p, bool child, struct err *e)
{
    int status = child ? EXIT_DONE : check_plan(p, e);
    if (status) return status;
    return (child ? bench_load_child(p, e) : run(p, e)) ? EXIT_FAILED : EXIT_DONE;
}

/* EXIT_DONE to go on; 'h' for help; EXIT_USAGE after saying what is wrong. */
static int read_arguments(int argc, char **argv, struct bench_plan *p, bool *ret_child)
{
    for (int c; (c = option_next(argc, argv, "", options)) != -1;) {
        if (c == 'h') return c;
        if (c == OPTION_LOAD_CHILD)
            *ret_child = true;
        else if (read_option(p, c) < 0)
            return EXIT_USAGE;
    }
    return EXIT_DONE;
}

int cmd_bench(int argc, char **argv)
{
    struct bench_plan p = {.prompts = {{512}, 1},
                           .depths = {{0}, 1},
                           .threads = {{0}, 1},
                           .batches = {{1}, 1},
                           .generate = 64,
                           .rounds = 3,
                           .chunk = 512};
    char path[MODEL_FILE_PATH_MAX];
    bool child = false, wants_help = argc >= 2 && strcmp(argv[1], "--help") == 0;
    if (argc < 2 || strcmp(argv[1], "engine") != 0) {
        if (argc >= 2 && !wants_help)
            fprintf(stderr, "pdd bench: \"%s\" cannot be measured, \"engine\" can\n\n", argv[1]);
        fputs(help, wants_help ? stdout : stderr);
        return wants_help ? EXIT_DONE : EXIT_USAGE;
    }
    argv[1] = argv[0]; /* for getopt's complaints */
    int c = read_arguments(argc - 1, argv + 1, &p, &child);
    if (c == 'h') fputs(help, stdout);
    if (c) return c == 'h' ? EXIT_DONE : c;
    struct err err = ERR_INIT;
    int code = 0;
    if (!p.engine.model_path) {
        code = model_file_find(path, sizeof path, &err);
        p.engine.model_path = path;
    }
    int status = code ? EXIT_FAILED : measure(&p, child, &err);
    if (status == EXIT_FAILED) fprintf(stderr, "pdd bench: %s\n", err.text);
    return status;
}
