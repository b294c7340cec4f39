/*
 * metrics: the page of /metrics for Prometheus (text format 0.0.4): counters and histograms of the
 * server, gauges of the backend. Plain numbers of the loop thread; noting one costs nanoseconds and
 * no memory. Names follow the field: time to first token, time per output token (TPOT, the mean of
 * one answer's gaps), queue time, all in seconds; those of the process are Prometheus's own. No
 * metric names a prompt, an answer or a key.
 */
#ifndef PDD_CLOUD_API_METRICS_H
#define PDD_CLOUD_API_METRICS_H

#include <stdint.h>

#include "base/buf.h"
#include "base/os.h"
#include "cloud/work/backend.h"
#include "net/http_server.h"

enum { METRICS_BUCKETS_MAX = 24, METRICS_BYTES_MAX = 1 << 18 };

enum metrics_endpoint { METRICS_ASSIST, METRICS_CHAT, METRICS_COMPLETION, METRICS_ENDPOINTS };

/* How requests end: as wire_reason, in its order, then failures. */
enum metrics_end {
    METRICS_BUDGET,
    METRICS_STOP,
    METRICS_LENGTH,
    METRICS_CANCEL,
    METRICS_DEADLINE,
    METRICS_DRAIN,
    METRICS_ERROR,
    METRICS_ENDS
};

/* Why requests were refused ahead of any work. */
enum metrics_refusal {
    METRICS_BUSY,         /* 429: queue or memory */
    METRICS_QUOTA,        /* 429: the key's */
    METRICS_UNAUTHORISED, /* 401 */
    METRICS_INVALID,      /* other 4xx */
    METRICS_UNAVAILABLE,  /* 5xx */
    METRICS_REFUSALS
};

/* Where a cancelled request was. */
enum metrics_phase { METRICS_WAITING, METRICS_PREFILL, METRICS_DECODE, METRICS_PHASES };

struct histogram {
    uint64_t counts[METRICS_BUCKETS_MAX + 1]; /* of one bucket each; the last: above all bounds */
    double sum;
};

struct metrics {
    uint64_t requests[METRICS_ENDPOINTS][METRICS_ENDS];
    uint64_t refused[METRICS_REFUSALS];
    uint64_t cancelled[METRICS_PHASES];
    uint64_t prompt_tokens, cached_tokens, generated_tokens; /* of requests that were admitted */
    struct histogram first_token, per_token, queue, whole;   /* seconds */
    struct histogram delivery;                               /* seconds */
    struct histogram prompt_length, answer_length;           /* tokens */
};

void histogram_note_seconds(struct histogram *h, uint64_t us);
void histogram_note_tokens(struct histogram *h, uint64_t tokens);

/* Values of the moment, besides the counters. */
struct metrics_now {
    const char *model; /* needs no escaping */
    struct backend_stats work;
    uint32_t streams_max, kv_pages_total, connections;
    uint64_t refused[HTTP_LIMITS]; /* http_server_refused */
    uint64_t body_bytes;           /* http_server_body_bytes */
    bool ready;
    struct os_usage process;
    double started; /* os_started */
};

/* Appends the whole page; ERR_NO_MEMORY or ERR_LIMIT from the buffer. */
int metrics_print(const struct metrics *m, const struct metrics_now *now, struct buf *out);

#endif
