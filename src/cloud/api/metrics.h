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

/* The endpoints that make jobs, and their names in labels and log lines. */
#define METRICS_OF_ENDPOINTS(X)                                                                    \
    X(ASSIST, "assist")                                                                            \
    X(CHAT, "chat")                                                                                \
    X(COMPLETION, "completion")
#define METRICS_ENDPOINT(constant, name) METRICS_##constant,
enum metrics_endpoint { METRICS_OF_ENDPOINTS(METRICS_ENDPOINT) METRICS_ENDPOINTS };
#undef METRICS_ENDPOINT
const char *metrics_endpoint_name(enum metrics_endpoint endpoint);

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

/* Why requests were refused before any work. */
enum metrics_refusal {
    METRICS_BUSY,  /* ERR_BUSY: queue, KV memory, upstream servers, or a helper for a large body */
    METRICS_QUOTA, /* 429: the key's quota */
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

/*
 * What the server counts itself, a line for each metric: its kind, its field in struct metrics, its
 * name and help. COUNTER is a number, SECONDS and TOKENS are histograms, the others counters by
 * label. A new metric is a line here and the code that counts; one whose value is read from another
 * part is a line of METRICS_READ in metrics.c. A value that struct backend_stats does not hold is a
 * field of struct metrics_now, filled by status_metrics_open (endpoint_status.c). Metrics of one
 * upstream server are rows of UPSTREAM_METRICS in cloud/upstream/upstream.c.
 */
#define METRICS_COUNTED(X)                                                                         \
    X(BY_END, requests, "pdd_requests_total", "Requests that were admitted, by end.")              \
    X(BY_REFUSAL, refused, "pdd_requests_refused_total", "Requests refused before any work.")      \
    X(BY_PHASE, cancelled, "pdd_requests_cancelled_total",                                         \
      "Requests whose client left or stopped them, by phase.")                                     \
    X(COUNTER, prompt_tokens, "pdd_prompt_tokens_total", "Prompt tokens of admitted requests.")    \
    X(COUNTER, cached_tokens, "pdd_prompt_tokens_cached_total",                                    \
      "Prompt tokens whose keys and values were in the prefix cache.")                             \
    X(COUNTER, generated_tokens, "pdd_generation_tokens_total", "Tokens generated and sent.")      \
    X(SECONDS, first_token, "pdd_time_to_first_token_seconds",                                     \
      "From the request's arrival to its first token.")                                            \
    X(SECONDS, per_token, "pdd_time_per_output_token_seconds",                                     \
      "Mean gap between the tokens of an answer.")                                                 \
    X(SECONDS, queue, "pdd_request_queue_time_seconds",                                            \
      "From arrival until work on the request began.")                                             \
    X(SECONDS, delivery, "pdd_token_delivery_seconds",                                             \
      "From the engine's report of a token until it is sent on.")                                  \
    X(SECONDS, whole, "pdd_e2e_request_latency_seconds", "From arrival to the end of the answer.") \
    X(TOKENS, prompt_length, "pdd_request_prompt_tokens", "Length of prompts.")                    \
    X(TOKENS, answer_length, "pdd_request_generation_tokens",                                      \
      "Length of what was generated for a request.")

#define METRICS_FIELD_COUNTER(field) uint64_t field;
#define METRICS_FIELD_SECONDS(field) struct histogram field;
#define METRICS_FIELD_TOKENS(field) struct histogram field;
#define METRICS_FIELD_BY_END(field) uint64_t field[METRICS_ENDPOINTS][METRICS_ENDS];
#define METRICS_FIELD_BY_REFUSAL(field) uint64_t field[METRICS_REFUSALS];
#define METRICS_FIELD_BY_PHASE(field) uint64_t field[METRICS_PHASES];
#define METRICS_FIELD(kind, field, name, help) METRICS_FIELD_##kind(field)

struct metrics {
    METRICS_COUNTED(METRICS_FIELD)
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
