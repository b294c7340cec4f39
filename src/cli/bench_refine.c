/* bench_refine: `pdd bench refine`; lab/refine.h asks. */
#include <stdio.h>

#include "cli/commands.h"
#include "cli/model_file.h"
#include "cli/options.h"
#include "lab/refine.h"

const struct command command_bench_refine = {
    .name = "bench refine",
    .bit = OPTIONS_REFINE,
    .usage = "usage: pdd bench refine --set FILE [--set FILE]... [OPTION]...\n"
             "Ask questions about documents, from the whole prompt and from what each way to\n"
             "refine it keeps. Results are JSON lines; tools/refine/report.py makes tables.\n\n"};

int cmd_bench_refine(int argc, char **argv)
{
    struct options o;
    struct option_line line;
    struct err e = ERR_INIT;
    char path[MODEL_FILE_PATH_MAX];
    int status;
    if (options_parse(&command_bench_refine, argc, argv, &o, &line, &status)) return status;
    int code = model_file_default(&o.native.model_path, path, &e);
    o.refine.engine = o.native;
    if (code == 0) code = refine_run(&o.refine, &e);
    if (code == 0) return EXIT_DONE;
    fprintf(stderr, "pdd bench refine: %s\n", e.text);
    return EXIT_FAILED;
}
