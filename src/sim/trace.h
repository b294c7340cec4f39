/*
 * trace: recorded arrivals of requests, from files that others publish. Two formats:
 *
 *   CSV   Azure LLM inference: TIMESTAMP (date and time), ContextTokens, GeneratedTokens, in any
 *         order of columns
 *   JSONL Mooncake: {"timestamp": ms, "input_length", "output_length", "hash_ids": one for each
 *         block of 512 prompt tokens; equal ids mean an equal prompt up to that block's end}
 *
 * The whole file is checked before anything runs: a line that cannot be used is an error that names
 * file and line. Times ascend, and are relative to the first request. Read-only once open: any
 * thread.
 */
#ifndef PDD_SIM_TRACE_H
#define PDD_SIM_TRACE_H

#include <stdint.h>

#include "base/err.h"

enum {
    TRACE_REQUESTS_MAX = 1 << 24,
    TRACE_TOKENS_MAX = 1 << 24, /* of a prompt, and of an answer; at least 1 */
    TRACE_BLOCK = 512,          /* prompt tokens that one hash stands for */
    TRACE_NAME_MAX = 64
};

struct trace_request {
    uint64_t at_us;         /* since the first request */
    uint32_t input, output; /* tokens of prompt and answer */
    uint64_t first_hash;    /* into trace.hashes */
    uint32_t n_hashes;      /* 0: nothing is known of shared prefixes */
};

struct trace {
    char name[TRACE_NAME_MAX];      /* the file's name without folder and suffix */
    struct trace_request *requests; /* [n], n >= 1 */
    uint32_t n;
    uint32_t *hashes;
    uint64_t n_hashes;
};

int trace_open(const char *path, struct trace *ret_trace, struct err *e);
void trace_release(struct trace *t);
/* Time from the first request to the last, and a mean gap: after that the trace may repeat. */
uint64_t trace_span_us(const struct trace *t);

#endif
