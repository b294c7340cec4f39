/*
 * load_trace: lengths of requests from a trace (CSV, a line of names first: time, tokens of the
 * prompt, tokens of the answer).
 */
#ifndef PDD_BENCH_LOAD_TRACE_H
#define PDD_BENCH_LOAD_TRACE_H

#include <stdint.h>

struct load_lengths {
    uint32_t prompt, answer;
};
struct load_trace {
    struct load_lengths *rows; /* [n] */
    uint32_t n;
};

/* 0, or -1 after a sentence on standard error. */
int load_trace_read(const char *path, struct load_trace *ret_trace);
void load_trace_release(struct load_trace *t);

#endif
