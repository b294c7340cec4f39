/*
 * rtt_trace: recorded round-trip times of a mobile link over time, for the link emulator and the
 * simulator. Rows of (seconds, milliseconds), times ascending; repeated when the trace ends. A
 * trace is read-only once it is open: any thread.
 */
#ifndef PDD_BASE_RTT_TRACE_H
#define PDD_BASE_RTT_TRACE_H

#include <stdint.h>

#include "base/err.h"

enum { RTT_TRACE_MAX = 1 << 20 };

struct rtt_trace {
    double *seconds, *rtt_ms; /* [n] */
    uint32_t n;
};

/* Reads `time_s,rtt_ms` with a head line; an error names file and line. */
int rtt_trace_open(const char *path, struct rtt_trace *ret_trace, struct err *e);
void rtt_trace_release(struct rtt_trace *t);
/* The round trip, in microseconds, `us` microseconds after the trace's beginning. n > 0. */
double rtt_trace_us(const struct rtt_trace *t, double us);

#endif
