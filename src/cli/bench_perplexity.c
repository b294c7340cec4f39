/* bench_perplexity: `pdd bench perplexity`; lab/perplexity.h measures. */
#include <stdio.h>

#include "base/mem.h"
#include "cli/commands.h"
#include "cli/model_file.h"
#include "cli/options.h"
#include "lab/perplexity.h"

const struct command command_bench_perplexity = {
    .name = "bench perplexity",
    .bit = OPTIONS_PERPLEXITY,
    .usage = "usage: pdd bench perplexity --file TEXTFILE [OPTION]...\n"
             "Measure how well a model predicts texts: mean negative log-likelihood and\n"
             "perplexity of a token, and bits per byte, by this engine's own logits.\n\n"};

static int measure(const struct perplexity_plan *p, struct err *e)
{
    struct perplexity_result *r = mem_calloc(1, sizeof *r);
    if (!r) return err_set(e, ERR_NO_MEMORY, "no memory for results");
    int code = perplexity_run(p, r, e);
    if (code == 0) code = perplexity_report(p, r, e);
    mem_free(r);
    return code;
}

int cmd_bench_perplexity(int argc, char **argv)
{
    struct options o;
    struct option_line line;
    struct err e = ERR_INIT;
    char path[MODEL_FILE_PATH_MAX];
    int status;
    if (options_parse(&command_bench_perplexity, argc, argv, &o, &line, &status)) return status;
    int code = model_file_default(&o.native.model_path, path, &e);
    o.perplexity.engine = o.native;
    if (code == 0) code = measure(&o.perplexity, &e);
    if (code == 0) return EXIT_DONE;
    fprintf(stderr, "pdd bench perplexity: %s\n", e.text);
    return EXIT_FAILED;
}
