/*
 * bench_run: what `pdd bench engine` measures, and how. Every case runs once a round, the roofs of
 * the machine in the same round, so that compared numbers are taken within seconds of each other;
 * the report has medians over the rounds. Prompts are random tokens: a model's speed does not
 * depend on their sense. One thread, besides those of the engine.
 */
#ifndef PDD_LAB_BENCH_RUN_H
#define PDD_LAB_BENCH_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/energy.h"
#include "base/err.h"
#include "engine/native.h"

enum { BENCH_LIST_MAX = 16, BENCH_ROUNDS_MAX = 100, BENCH_CASES_MAX = 256 };

struct bench_list {
    uint32_t values[BENCH_LIST_MAX], n;
};

struct bench_plan {
    struct native_options engine;
    struct bench_list prompts, depths, threads, batches, mixes;
    uint32_t generate, rounds, chunk;
    bool json, load, quiet;
    bool fill;       /* reading up to each depth is a case, too */
    bool beyond;     /* the model's context does not matter */
    const char *sys; /* where energy is read (base/energy.h); NULL: /sys */
};

enum bench_kind {
    BENCH_PREFILL, /* a prompt of n tokens */
    BENCH_DECODE,  /* n sequences, one token each at a time */
    BENCH_MIXED,   /* steps of a chunk of a prompt and n decodes */
    BENCH_FILL     /* the n tokens of the depth itself, read once whatever the rounds */
};

struct bench_sample {
    double us;        /* of the case; of the mixed step */
    double us_alone;  /* mixed: of the chunk without the decodes */
    double joules;    /* of the whole machine; 0: not measured, or mixed */
    double peak_gops, /* of the kernels' level */
        vnni_gops,    /* of 512-bit VNNI; 0: the CPU has none */
        read_gbs;
};

struct bench_case {
    enum bench_kind kind;
    uint32_t threads, depth, n;
    uint64_t tokens;          /* that it computes */
    double operations, bytes; /* int8 operations of the products; weights and KV read */
    struct bench_sample samples[BENCH_ROUNDS_MAX];
    uint32_t rounds;
};

/* What a token costs, from the file's tensors. A mixture counts the experts that one token uses. */
struct bench_work {
    double layer_weights, head_weights; /* numbers of the matrices */
    double layer_bytes, head_bytes;     /* as they stand in the file */
    double kv_bytes;                    /* of one position */
    uint64_t file_bytes;
};

struct bench_result {
    const char *isa, *kv_type;
    enum energy_source energy;
    char model_name[128];
    struct bench_work work;
    struct bench_case *cases; /* [BENCH_CASES_MAX], the caller's */
    uint32_t n;
};

/* Load times of fresh processes: from before the fork until the first token is there. */
struct bench_load {
    double ms[BENCH_ROUNDS_MAX], peak_mb[BENCH_ROUNDS_MAX];
    uint32_t rounds;
    uint64_t file_bytes;
};

uint32_t bench_largest(const struct bench_list *l); /* 0 of none */
/* Positions that the model in the file was trained for; 0: the file does not say. */
int bench_context(const char *path, uint32_t *ret_context, struct err *e);
int bench_run(const struct bench_plan *p, struct bench_result *r, struct err *e);
int bench_load(const struct bench_plan *p, struct bench_load *ret_load, struct err *e);
/* In the fresh process: first token, then "PEAK_KB\n" on standard output. */
int bench_load_child(const struct bench_plan *p, struct err *e);

#endif
