/*
 * bench: `pdd bench engine`: how fast the native engine reads a prompt and writes tokens on this
 * machine. Measures; judges nothing. The prompt is random tokens: a model's speed does not depend
 * on their sense.
 */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cli/commands.h"
#include "cli/model_file.h"
#include "cli/options.h"
#include "engine/native.h"

enum { REPEATS_MAX = 100, BATCH_MAX = ENGINE_SPANS_MAX };

struct bench {
    struct native_options engine;
    uint32_t prompt, depth, generate, batch, repeats, chunk;
    bool json;
};

struct result {
    double prefill_tps, decode_tps; /* of all sequences together; the best repeat */
};

static const char help[] =
    "usage: pdd bench engine [OPTION]...\n\n"
    "  --model FILE     GGUF file (the newest in models/ beside the program)\n"
    "  --prompt N       tokens of the prompt (512)\n"
    "  --depth N        tokens in the KV cache before it (0)\n"
    "  --generate N     tokens to generate (64)\n"
    "  --batch N        sequences that do so at the same time (1)\n"
    "  --chunk N        tokens a step may take (512)\n"
    "  --threads N      0: all CPUs (0)\n"
    "  --isa LEVEL      scalar, avx2, avxvnni, avx512, amx (the best here)\n"
    "  --repeat N       take the best of N runs (3)\n"
    "  --json           one JSON object instead of a table\n";

static const struct option options[] = {
    {"model", required_argument, NULL, 'm'},   {"prompt", required_argument, NULL, 'p'},
    {"depth", required_argument, NULL, 'd'},   {"generate", required_argument, NULL, 'g'},
    {"batch", required_argument, NULL, 'b'},   {"chunk", required_argument, NULL, 'c'},
    {"threads", required_argument, NULL, 't'}, {"isa", required_argument, NULL, 'i'},
    {"repeat", required_argument, NULL, 'r'},  {"json", no_argument, NULL, 'j'},
    {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0},
};

static int read_option(struct bench *b, int c)
{
    uint32_t threads = 0;
    int rc = 0;
    switch (c) {
    case 'm':
        b->engine.model_path = optarg;
        return 0;
    case 'i':
        b->engine.isa = optarg;
        return 0;
    case 'j':
        b->json = true;
        return 0;
    case 'p':
        return option_u32("bench", "--prompt", optarg, 1, 1 << 20, &b->prompt);
    case 'd':
        return option_u32("bench", "--depth", optarg, 0, 1 << 20, &b->depth);
    case 'g':
        return option_u32("bench", "--generate", optarg, 0, 1 << 20, &b->generate);
    case 'b':
        return option_u32("bench", "--batch", optarg, 1, BATCH_MAX, &b->batch);
    case 'c':
        return option_u32("bench", "--chunk", optarg, 1, 1 << 14, &b->chunk);
    case 'r':
        return option_u32("bench", "--repeat", optarg, 1, REPEATS_MAX, &b->repeats);
    case 't':
        rc = option_u32("bench", "--threads", optarg, 0, 256, &threads);
        b->engine.threads = threads;
        return rc;
    default:
        return -1;
    }
}

/* Append n random tokens in steps; the last one samples. */
static int feed(struct engine *e, struct session *s, uint32_t n, uint32_t chunk, int32_t *ret_next,
                struct err *err)
{
    int32_t *tokens = mem_alloc(chunk * sizeof *tokens);
    if (!tokens) return err_set(err, ERR_NO_MEMORY, "no memory for a prompt");
    int rc = 0;
    for (uint32_t done = 0; done < n && rc == 0;) {
        uint32_t left = n - done, take = left < chunk ? left : chunk;
        for (uint32_t i = 0; i < take; i++)
            tokens[i] = (int32_t)(rng_u32(1, 1, session_len(s) + i) % engine_info(e)->vocab_size);
        struct engine_span span = {.session = s, .tokens = tokens, .n = take};
        span.sample = take == left;
        rc = engine_step(e, &span, 1, err);
        if (span.sample) *ret_next = span.next;
        done += take;
    }
    mem_free(tokens);
    return rc;
}

static int generate(struct engine *e, struct session **s, int32_t *next, const struct bench *b,
                    struct err *err)
{
    struct engine_span spans[BATCH_MAX];
    for (uint32_t k = 0; k < b->generate; k++) {
        for (uint32_t i = 0; i < b->batch; i++)
            spans[i] =
                (struct engine_span){.session = s[i], .tokens = &next[i], .n = 1, .sample = true};
        int rc = engine_step(e, spans, b->batch, err);
        if (rc < 0) return rc;
        for (uint32_t i = 0; i < b->batch; i++)
            next[i] = spans[i].next;
    }
    return 0;
}

static double rate(uint64_t tokens, uint64_t us)
{
    return us ? (double)tokens * 1e6 / (double)us : 0.0;
}

static int run_once(struct engine *e, const struct bench *b, struct result *best, struct err *err)
{
    struct session *s[BATCH_MAX] = {0};
    int32_t next[BATCH_MAX] = {0};
    uint64_t prefill_us = 0, start;
    int rc = 0;
    for (uint32_t i = 0; i < b->batch && rc == 0; i++) {
        rc = engine_session_open(e, &s[i], err);
        if (rc == 0 && b->depth > 0) rc = feed(e, s[i], b->depth, b->chunk, &next[i], err);
        start = clock_us();
        if (rc == 0) rc = feed(e, s[i], b->prompt, b->chunk, &next[i], err);
        prefill_us += clock_us() - start;
    }
    start = clock_us();
    if (rc == 0) rc = generate(e, s, next, b, err);
    uint64_t decode_us = clock_us() - start;
    for (uint32_t i = 0; i < b->batch; i++)
        engine_session_close(s[i]);
    if (rc < 0) return rc;
    double prefill = rate((uint64_t)b->prompt * b->batch, prefill_us);
    double decode = rate((uint64_t)b->generate * b->batch, decode_us);
    if (prefill > best->prefill_tps) best->prefill_tps = prefill;
    if (decode > best->decode_tps) best->decode_tps = decode;
    return 0;
}

static void print_result(const struct bench *b, const struct engine_info *info, struct result r)
{
    const char *isa = b->engine.isa ? b->engine.isa : "best";
    if (b->json) {
        printf("{\"prompt\": %u, \"depth\": %u, \"generate\": %u, \"batch\": %u, \"threads\": %u, "
               "\"isa\": \"%s\", \"prefill_tps\": %.2f, \"decode_tps\": %.2f}\n",
               b->prompt, b->depth, b->generate, b->batch, b->engine.threads, isa, r.prefill_tps,
               r.decode_tps);
        return;
    }
    printf("%s, kernels %s, threads %u, best of %u\n", info->model_name, isa, b->engine.threads,
           b->repeats);
    printf("%8s %8s %8s %8s %14s %14s\n", "prompt", "depth", "generate", "batch", "prefill tok/s",
           "decode tok/s");
    printf("%8u %8u %8u %8u %14.1f %14.1f\n", b->prompt, b->depth, b->generate, b->batch,
           r.prefill_tps, r.decode_tps);
}

static int run(struct bench *b, struct err *err)
{
    uint32_t length = b->depth + b->prompt + b->generate + 1;
    struct engine *e;
    b->engine.context_max = length;
    b->engine.step_tokens_max = b->chunk > b->batch ? b->chunk : b->batch;
    int rc = native_open(&b->engine, &e, err);
    if (rc < 0) return rc;
    uint64_t pages_bytes = engine_info(e)->kv_bytes_per_token * 64;
    uint64_t needed = pages_bytes * ((length + 63) / 64) * b->batch;
    if (b->batch > 2) { /* more sequences than the default memory holds */
        engine_free(e);
        b->engine.kv_bytes_max = needed;
        rc = native_open(&b->engine, &e, err);
        if (rc < 0) return rc;
    }
    struct result best = {0};
    for (uint32_t i = 0; i < b->repeats && rc == 0; i++)
        rc = run_once(e, b, &best, err);
    if (rc == 0) print_result(b, engine_info(e), best);
    engine_free(e);
    return rc;
}

int cmd_bench(int argc, char **argv)
{
    struct bench b = {.prompt = 512, .generate = 64, .batch = 1, .repeats = 3, .chunk = 512};
    char path[MODEL_FILE_PATH_MAX];
    bool wants_help = argc >= 2 && strcmp(argv[1], "--help") == 0;
    if (argc < 2 || strcmp(argv[1], "engine") != 0) {
        if (argc >= 2 && !wants_help)
            fprintf(stderr, "pdd bench: \"%s\" cannot be measured, \"engine\" can\n\n", argv[1]);
        fputs(help, wants_help ? stdout : stderr);
        return wants_help ? EXIT_DONE : EXIT_USAGE;
    }
    argv[1] = argv[0]; /* for getopt's complaints */
    argc--;
    argv++;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'h') {
            fputs(help, stdout);
            return EXIT_DONE;
        }
        if (read_option(&b, c) < 0) return EXIT_USAGE;
    }
    struct err err = ERR_INIT;
    int code = 0;
    if (!b.engine.model_path) {
        code = model_file_find(path, sizeof path, &err);
        b.engine.model_path = path;
    }
    if (code || run(&b, &err) < 0) {
        fprintf(stderr, "pdd bench: %s\n", err.text);
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}
