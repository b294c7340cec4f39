/* model_random: `pdd model random`, see lab/random_file.h. */
#include "cli/model_random.h"

#include <getopt.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/pool.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "lab/random_file.h"

static const char help[] =
    "usage: pdd model random --shape NAME [--type TYPE] [--seed N] [--threads N] -o FILE\n\n"
    "Writes random weights in the shape of a real model.\n\n"
    "  --shape NAME   one of:\n";

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

static void print_help(FILE *to)
{
    fputs(help, to);
    for (uint32_t i = 0; random_shape_at(i); i++)
        fprintf(to, "%s%s",
                i % 5 ? ", "
                : i   ? ",\n                 "
                      : "                 ",
                random_shape_at(i)->name);
    fputs("\n  --type TYPE    of the weights (Q8_0), one of:\n", to);
    for (uint32_t i = 0; random_type_at(i); i++)
        fprintf(to, "%s%s",
                i % 9 ? ", "
                : i   ? ",\n                 "
                      : "                 ",
                random_type_name(random_type_at(i)));
    fputs("\n  --seed N       the same seed makes the same file (1)\n"
          "  --threads N    0: all CPUs (0)\n"
          "  -o FILE        where to\n",
          to);
}

static const struct option options[] = {
    {"shape", required_argument, NULL, 's'},
    {"type", required_argument, NULL, 't'},
    {"seed", required_argument, NULL, 'n'},
    {"threads", required_argument, NULL, 'j'},
    {"output", required_argument, NULL, 'o'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static int read_option(int c, struct random_file *r, struct err *e)
{
    switch (c) {
    case 's':
        return random_shape_find(optarg, &r->shape, e);
    case 't':
        return random_type_find(optarg, &r->type, e);
    case 'n':
        return option_u32("model random", "seed", optarg, 0, UINT32_MAX, &r->seed);
    case 'j':
        return option_u32("model random", "threads", optarg, 0, POOL_THREADS_MAX, &r->threads);
    case 'o':
        r->path = optarg;
        return 0;
    default:
        return -1;
    }
}

int model_random(int argc, char **argv)
{
    struct random_file r = {.seed = 1};
    struct err e = ERR_INIT;
    for (int c; (c = option_next(argc, argv, "o:", options)) != -1;) {
        if (c == 'h') {
            print_help(stdout);
            return EXIT_DONE;
        }
        if (read_option(c, &r, &e) == 0) continue;
        if (e.code) fprintf(stderr, "pdd model random: %s\n", e.text);
        return EXIT_USAGE;
    }
    if (!r.type && random_type_find("Q8_0", &r.type, &e) < 0) return EXIT_USAGE;
    if (!r.shape || !r.path || optind < argc) {
        fprintf(stderr, "pdd model random: %s; see pdd model random --help\n",
                !r.shape  ? "--shape NAME is missing"
                : !r.path ? "-o FILE is missing"
                          : "it takes no operands");
        return EXIT_USAGE;
    }
    if (run(&r, &e) == 0) return EXIT_DONE;
    fprintf(stderr, "pdd model random: %s\n", e.text);
    return EXIT_FAILED;
}
