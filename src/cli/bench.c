/*
 * bench: `pdd bench engine`: how fast the native engine reads a prompt and writes tokens on this
 * machine, and what fraction of the machine's own limits that is. Measures; judges nothing. The
 * other measurement, `pdd bench perplexity`, is bench_perplexity.c.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/commands.h"
#include "cli/model_file.h"
#include "cli/options.h"
#include "lab/bench_report.h"
#include "lab/bench_run.h"

const struct command command_bench = {
    .name = "bench engine",
    .bit = OPTIONS_BENCH,
    .usage = "usage: pdd bench engine [OPTION]...\n"
             "       pdd bench perplexity --file TEXTFILE     see pdd bench perplexity --help\n"
             "       pdd bench refine --set FILE              see pdd bench refine --help\n"
             "Measure how fast this machine reads prompts and writes answers.\n\n"};

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
            "pdd bench engine: nothing to measure: no prompt, no answer, no --mixed, no --load, no "
            "--fill of a --depth\n",
            stderr);
        return EXIT_USAGE;
    }
    if (bench_context(p->engine.model_path, &context, e)) return EXIT_FAILED;
    if (p->batches.n && p->generate > most) most = p->generate;
    if (p->mixes.n && p->chunk > most) most = p->chunk;
    if (p->beyond || context == 0 || depth + most <= context) return EXIT_DONE;
    fprintf(stderr,
            "pdd bench engine: %u tokens at depth %u end beyond the model's context of %u tokens; "
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

int cmd_bench(int argc, char **argv)
{
    struct options o;
    struct option_line line;
    struct err e = ERR_INIT;
    char path[MODEL_FILE_PATH_MAX];
    int status;
    if (argc >= 2 && strcmp(argv[1], "perplexity") == 0)
        return cmd_bench_perplexity(argc - 1, argv + 1);
    if (argc >= 2 && strcmp(argv[1], "refine") == 0) return cmd_bench_refine(argc - 1, argv + 1);
    bool wants_help = argc >= 2 && strcmp(argv[1], "--help") == 0;
    if (argc < 2 || strcmp(argv[1], "engine") != 0) {
        if (argc >= 2 && !wants_help)
            fprintf(
                stderr,
                "pdd bench: \"%s\" cannot be measured, \"engine\", \"perplexity\" and \"refine\" "
                "can\n\n",
                argv[1]);
        options_help(&command_bench, wants_help ? stdout : stderr);
        return wants_help ? EXIT_DONE : EXIT_USAGE;
    }
    if (options_parse(&command_bench, argc - 1, argv + 1, &o, &line, &status)) return status;
    int code = model_file_default(&o.native.model_path, path, &e);
    o.bench.engine = o.native;
    status = code ? EXIT_FAILED : measure(&o.bench, o.bench_load_child, &e);
    if (status == EXIT_FAILED) fprintf(stderr, "pdd bench engine: %s\n", e.text);
    return status;
}
