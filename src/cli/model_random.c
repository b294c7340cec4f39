/*
 * model_random: see model_random.h. The head is made in memory; the tensors are filled and written
 * in pieces by all threads, each piece a function of seed, tensor and place, so that the file does
 * not depend on the number of threads.
 */
#include "cli/model_random.h"

#include <getopt.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/output.h"
#include "base/pool.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/random_blocks.h"
#include "cli/random_shape.h"
#include "cli/random_tensors.h"
#include "cli/random_vocab.h"
#include "model/gguf.h"
#include "model/gguf_write.h"

enum { PIECE_BYTES = 1 << 20, PIECES_AT_ONCE = 64, SCALE_BYTES_MAX = 256 * 4 };

static const char help[] =
    "usage: pdd model random --shape NAME [--type TYPE] [--seed N] [--threads N] -o FILE\n\n"
    "Writes random weights in the shape of a real model.\n\n"
    "  --shape NAME   one of:\n";

struct request {
    const struct random_shape *shape;
    const struct random_type *type;
    const char *path;
    uint32_t seed, threads;
};

/* A piece of a tensor's bytes, filled and written as one task. */
struct piece {
    uint32_t tensor;
    size_t bytes;
    uint64_t in_tensor, in_file, number; /* number: within the tensor */
};

struct job {
    const struct request *r;
    struct random_tensor *tensors;
    uint64_t *starts; /* [n] of each tensor in the file */
    uint32_t n;
    struct piece pieces[PIECES_AT_ONCE];
    uint8_t *memory; /* [threads][PIECE_BYTES] */
    struct output output;
    atomic_int code;
    struct err err; /* of whoever set code first */
};

static void fill_piece(const struct job *j, const struct piece *p, uint8_t *out)
{
    const struct random_tensor *t = &j->tensors[p->tensor];
    float factors[SCALE_BYTES_MAX / 4];
    switch (t->fill) {
    case FILL_WEIGHTS:
    case FILL_NORM:
        random_blocks_fill(t->type, t->deviation, t->fill == FILL_NORM ? 1.0f : 0.0f, j->r->seed,
                           p->tensor, p->number << 32, out, p->bytes);
        return;
    case FILL_ROPE:
        random_shape_rope_factors(j->r->shape, factors);
        break;
    case FILL_ONES:
        for (size_t i = 0; i < p->bytes / 4; i++)
            factors[i] = 1.0f;
    }
    memcpy(out, factors, p->bytes);
}

static void do_piece(void *arg, uint32_t task, uint32_t worker)
{
    struct job *j = arg;
    const struct piece *p = &j->pieces[task];
    uint8_t *out = j->memory + (size_t)worker * PIECE_BYTES;
    struct err e = ERR_INIT;
    int none = 0;
    if (atomic_load(&j->code)) return;
    fill_piece(j, p, out);
    int code = output_write(&j->output, p->in_file, out, p->bytes, &e);
    if (code && atomic_compare_exchange_strong(&j->code, &none, code)) j->err = e;
}

/* The piece after `at`, which moves on; false at the end of all tensors. */
static bool next_piece(const struct job *j, struct piece *at, struct piece *ret_piece)
{
    if (at->tensor == j->n) return false;
    const struct random_tensor *t = &j->tensors[at->tensor];
    uint32_t block = gguf_type_info(t->type)->block_bytes;
    uint64_t left = t->bytes - at->in_tensor, most = PIECE_BYTES / block * block;
    at->bytes = (size_t)(left < most ? left : most);
    at->in_file = j->starts[at->tensor] + at->in_tensor;
    *ret_piece = *at;
    at->in_tensor += at->bytes;
    at->number++;
    if (at->in_tensor == t->bytes) *at = (struct piece){.tensor = at->tensor + 1};
    return true;
}

static void show_progress(uint64_t done, uint64_t total)
{
    if (!isatty(STDERR_FILENO)) return;
    fprintf(stderr, "\r%3u %%%s", (unsigned)(done * 100 / total), done == total ? "\r     \r" : "");
}

static int write_tensors(struct job *j, uint64_t total, struct pool *pool, struct err *e)
{
    struct piece at = {0};
    uint64_t done = 0;
    for (;;) {
        uint32_t n = 0;
        while (n < PIECES_AT_ONCE && next_piece(j, &at, &j->pieces[n]))
            done += j->pieces[n++].bytes;
        if (n == 0) return 0;
        pool_run(pool, n, do_piece, j);
        int code = atomic_load(&j->code);
        if (code) return err_set(e, code, "%s", j->err.text);
        show_progress(done, total);
    }
}

static int make_head(struct job *j, struct buf *head, uint64_t *ret_total, struct err *e)
{
    const struct random_shape *s = j->r->shape;
    struct gguf_write w;
    gguf_write_init(&w);
    gguf_write_text(&w, "general.architecture", s->arch);
    gguf_write_text(&w, "general.name", s->name);
    gguf_write_text(&w, "general.description", "random weights: a shape to measure, not a model");
    gguf_write_u32(&w, "general.file_type", random_type_file(j->r->type));
    gguf_write_u32(&w, "general.quantization_version", 2);
    random_shape_keys(s, &w);
    int code = random_vocab_keys(s->vocab_kind, s->vocab, &w, e);
    for (uint32_t i = 0; i < j->n && code == 0; i++) {
        const struct random_tensor *t = &j->tensors[i];
        j->starts[i] = gguf_write_tensor(&w, t->name, t->type, t->dims, t->shape, t->bytes);
    }
    if (code == 0) code = gguf_write_finish(&w, head, e);
    for (uint32_t i = 0; i < j->n; i++)
        j->starts[i] += head->len;
    *ret_total = head->len + w.data_bytes;
    gguf_write_release(&w);
    return code;
}

static int write_all(struct job *j, struct pool *pool, uint64_t *ret_total, struct err *e)
{
    static const char zeros[GGUF_WRITE_ALIGN];
    struct buf head;
    buf_init(&head, GGUF_WRITE_HEAD_MAX);
    int code = make_head(j, &head, ret_total, e);
    if (code == 0) code = output_begin(&j->output, j->r->path, e);
    if (code == 0) {
        const struct random_tensor *last = &j->tensors[j->n - 1];
        uint64_t end = j->starts[j->n - 1] + last->bytes;
        code = output_write(&j->output, 0, head.data, head.len, e);
        if (code == 0) code = write_tensors(j, *ret_total, pool, e);
        if (code == 0) code = output_write(&j->output, end, zeros, *ret_total - end, e);
        if (code == 0)
            code = output_commit(&j->output, e);
        else
            output_abandon(&j->output);
    }
    buf_release(&head);
    return code;
}

static int run(const struct request *r, struct err *e)
{
    static struct job j;
    struct pool *pool;
    uint64_t start = clock_us(), total = 0;
    j = (struct job){.r = r};
    int code = pool_new(r->threads, &pool, e);
    if (code) return code;
    code = random_tensors_list(r->shape, r->type, &j.tensors, &j.n, e);
    if (code == 0) {
        j.starts = mem_calloc(j.n, sizeof *j.starts);
        j.memory = mem_alloc((size_t)pool_threads(pool) * PIECE_BYTES);
        code = j.starts && j.memory ? write_all(&j, pool, &total, e)
                                    : err_set(e, ERR_NO_MEMORY, "no memory to write %s", r->path);
    }
    if (code == 0)
        printf("%s: %s, %s, seed %u, %u tensors, %.1f MB, %.1f s\n", r->path, r->shape->name,
               random_type_name(r->type), r->seed, j.n, (double)total * 1e-6,
               (double)(clock_us() - start) * 1e-6);
    mem_free(j.memory);
    mem_free(j.starts);
    mem_free(j.tensors);
    pool_free(pool);
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

static int read_option(int c, struct request *r, struct err *e)
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
    struct request r = {.seed = 1};
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
