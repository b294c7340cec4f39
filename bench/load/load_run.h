/*
 * load_run: the measurements of bench_cloud, one file each. Each runs the target's loop until it is
 * done and prints one JSON object on standard output; 0, or -1 after a sentence on standard error.
 */
#ifndef PDD_BENCH_LOAD_RUN_H
#define PDD_BENCH_LOAD_RUN_H

#include "load/load.h"

struct load_options {
    uint32_t streams;                /* at once */
    uint32_t seconds;                /* of measuring */
    uint32_t prompt;                 /* tokens */
    uint32_t tokens;                 /* of an answer; 0: as the trace has it */
    uint32_t vocab;                  /* ids of prompts are below it */
    uint32_t per_second;             /* connections opened a second */
    uint32_t beat_us;                /* the fake engine's, */
    uint32_t period_us;              /* and the time between two tokens of a stream */
    uint32_t times;                  /* repetitions of what is done one after the other */
    uint32_t prompt_max, answer_max; /* what longer ones of the trace are cut to */
    uint32_t warm_s;                 /* arrivals before this are not counted */
    uint32_t hup_s;                  /* between two SIGHUPs to the server; 0: none */
    uint32_t ttft_ms, tpot_ms;       /* limits that an answer keeps, or does not */
    double rate;                     /* arrivals a second */
    double scale;                    /* of the trace's prompts */
    double common;                   /* part of each prompt that all share */
    uint32_t seed, prompt_seed;      /* of times and lengths; of what stands in prompts */
    uint32_t pid;                    /* the server; 0: its memory and time are not measured */
    const char *log;                 /* where the server logs, at level debug */
    const char *trace;               /* CSV file */
    const char *rows;                /* file for one line a request; NULL: none */
};

/* Many open assists, each with a token every period: how late tokens are, what a stream and a token
 * cost, whether one is lost. */
int load_streams(struct load_target *t, const struct load_options *o);
/* Clients that leave while they wait, during prefill and while tokens come: how soon the server
 * notices. */
int load_leave(struct load_target *t, const struct load_options *o);
/* Connections that ask nothing: memory and time of each; with TLS, of a handshake. */
int load_connections(struct load_target *t, const struct load_options *o);
/* Requests that arrive at random times whatever becomes of the ones before. */
int load_arrivals(struct load_target *t, const struct load_options *o);
/* Clients of every bad manner. */
int load_chaos(struct load_target *t, const struct load_options *o);

#endif
