/* model_random: `pdd model random`, which writes a file of random weights (lab/random_file.h). */
#include <stdio.h>

#include "base/clock.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "lab/random_file.h"

const struct command command_model_random = {
    .name = "model random",
    .bit = OPTIONS_RANDOM,
    .usage = "usage: pdd model random --shape NAME [OPTION]... -o FILE\n"
             "Write random weights in the shape of a real model.\n\n"};

static int run(const struct random_file *r, struct err *e)
{
    struct random_written written = {0};
    uint64_t start = clock_us();
    int code = random_file_write(r, &written, e);
    if (code == 0)
        printf("%s: %s, %s, seed %u, %u tensors, %.1f MB, %.1f s\n", r->path, r->shape->name,
               random_type_name(r->type), r->seed, written.tensors, (double)written.bytes * 1e-6,
               (double)(clock_us() - start) * 1e-6);
    return code;
}

int model_random(int argc, char **argv)
{
    struct options o;
    struct option_line line;
    struct err e = ERR_INIT;
    int status;
    if (options_parse(&command_model_random, argc, argv, &o, &line, &status)) return status;
    if (run(&o.random, &e) == 0) return EXIT_DONE;
    fprintf(stderr, "pdd model random: %s\n", e.text);
    return EXIT_FAILED;
}
