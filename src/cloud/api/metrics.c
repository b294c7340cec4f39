/* metrics: see metrics.h. */
#include "cloud/api/metrics.h"

#include <stddef.h>

#include "base/log.h"

/* Upper bounds of the buckets, ascending; 1, 2.5 and 5 of each decade that matters. */
static const double second_bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075,
                                       0.1,   0.15,   0.2,   0.3,  0.5,  0.75, 1,    2,
                                       3,     5,      10,    20,   30,   60,   120,  300};
static const double token_bounds[] = {1,   2,    5,    10,   20,   50,   100,   200, 500,
                                      1e3, 2000, 5000, 10e3, 20e3, 50e3, 100e3, 2e5, 5e5};

enum {
    SECOND_BOUNDS = sizeof second_bounds / sizeof *second_bounds,
    TOKEN_BOUNDS = sizeof token_bounds / sizeof *token_bounds
};
_Static_assert((int)SECOND_BOUNDS <= METRICS_BUCKETS_MAX &&
                   (int)TOKEN_BOUNDS <= METRICS_BUCKETS_MAX,
               "a bucket for each bound");

static const char *const end_names[METRICS_ENDS] = {"budget",   "stop",  "length", "cancel",
                                                    "deadline", "drain", "error"};
static const char *const refusal_names[METRICS_REFUSALS] = {"busy", "quota", "unauthorised",
                                                            "invalid", "unavailable"};
static const char *const limit_names[HTTP_LIMITS] = {"all",       "address",  "forwarded",
                                                     "memory",    "bodies",   "bodies_of_address",
                                                     "body_size", "body_time"};
static const char *const phase_names[METRICS_PHASES] = {"waiting", "prefill", "decode"};

#define NAME(constant, name) [METRICS_##constant] = name,
const char *metrics_endpoint_name(enum metrics_endpoint endpoint)
{
    static const char *const names[METRICS_ENDPOINTS] = {METRICS_OF_ENDPOINTS(NAME)};
    return names[endpoint];
}
#undef NAME

static void note(struct histogram *h, const double *bounds, uint32_t n, double value)
{
    uint32_t i = 0;
    while (i < n && value > bounds[i])
        i++;
    h->counts[i]++;
    h->sum += value;
}

void histogram_note_seconds(struct histogram *h, uint64_t us)
{
    note(h, second_bounds, SECOND_BOUNDS, (double)us / 1e6);
}

void histogram_note_tokens(struct histogram *h, uint64_t tokens)
{
    note(h, token_bounds, TOKEN_BOUNDS, (double)tokens);
}

/*
 * Values that are read when the page is asked for, a line for each metric: its kind, its name and
 * help, and where it stands. `now` is the struct metrics_now, `w` its backend's statistics.
 */
#define METRICS_READ(X)                                                                            \
    X(COUNTER, "pdd_prefill_tokens_total", "Prompt tokens computed.", w->prefill_tokens)           \
    X(COUNTER, "pdd_decode_tokens_total", "Tokens decoded after the first of each answer.",        \
      w->decode_tokens)                                                                            \
    X(COUNTER, "pdd_engine_steps_total", "Steps of the engine.", w->steps)                         \
    X(COUNTER, "pdd_engine_step_seconds_total", "Time of all steps.", (double)w->step_us / 1e6)    \
    X(COUNTER, "pdd_engine_spans_total", "Requests in steps: over the steps, how many share one.", \
      w->spans)                                                                                    \
    X(COUNTER, "pdd_prefix_cache_hits_total",                                                      \
      "Requests that found part of their prompt in the prefix cache.", w->cache_hits)              \
    X(COUNTER, "pdd_prefix_cache_misses_total", "Requests that found nothing there.",              \
      w->cache_misses)                                                                             \
    X(COUNTER, "pdd_prefix_cache_evictions_total", "Pages that the prefix cache gave up.",         \
      w->cache_evictions)                                                                          \
    X(COUNTER, "pdd_log_lines_dropped_total",                                                      \
      "Log lines that standard error did not take at once.", log_dropped())                        \
    X(COUNTER, "pdd_grants_cut_total",                                                             \
      "Requests that were granted fewer tokens than asked for: KV memory was short.",              \
      w->grants_cut)                                                                               \
    X(COUNTER, "pdd_refined_prompts_total", "Prompts refined for a device.", w->refined)           \
    X(COUNTER, "pdd_refine_refused_total",                                                         \
      "Prompts that a device wanted refined and needs whole.", w->refine_refused)                  \
    X(COUNTER, "pdd_refined_prompt_tokens_total", "Tokens of refined prompts.", w->refined_tokens) \
    X(COUNTER, "pdd_refined_kept_tokens_total", "Tokens of them that devices were told to keep.",  \
      w->refined_kept)                                                                             \
    X(COUNTER, "pdd_refine_seconds_total", "Time of the choices of tokens, without the scores.",   \
      (double)w->refine_us / 1e6)                                                                  \
    X(GAUGE, "pdd_num_requests_running", "Requests in work.", w->running)                          \
    X(GAUGE, "pdd_num_requests_waiting", "Requests in the queue.", w->waiting)                     \
    X(GAUGE, "pdd_num_requests_max", "Requests that can be in work at once.", now->streams_max)    \
    X(GAUGE, "pdd_step_tokens_max", "Tokens that a step of the engine can hold.", w->step_tokens)  \
    X(GAUGE, "pdd_kv_pages", "Pages of the KV cache, of 64 positions.", now->kv_pages_total)       \
    X(GAUGE, "pdd_kv_pages_free", "Pages that are not held.", w->kv_pages_free)                    \
    X(GAUGE, "pdd_kv_pages_prefix_cache", "Pages that the prefix cache alone holds.",              \
      w->kv_pages_cached)                                                                          \
    X(GAUGE, "pdd_kv_cache_usage_ratio", "Part of the pages that running requests hold.",          \
      usage_of(now))                                                                               \
    X(GAUGE, "pdd_prefill_tokens_per_second", "Prefill speed measured lately.", w->prefill_tps)    \
    X(GAUGE, "pdd_http_connections", "Open connections.", now->connections)                        \
    X(GAUGE, "pdd_http_body_bytes", "Bytes that bodies of requests hold.", now->body_bytes)        \
    X(GAUGE, "pdd_ready", "1 when new requests are taken.", now->ready)                            \
    X(BY_LIMIT, "pdd_http_refused_total",                                                          \
      "Connections refused by a limit: of all, of one address, of memory; forwarded: requests by " \
      "that of the address a trusted proxy named; requests for their bodies: what all or one "     \
      "address may hold, one body's size, its time.",                                              \
      now->refused)                                                                                \
    X(COUNTER, "process_cpu_seconds_total", "Total user and system CPU time spent in seconds.",    \
      now->process.cpu_seconds)                                                                    \
    X(GAUGE, "process_resident_memory_bytes", "Resident memory size in bytes.",                    \
      now->process.resident_bytes)                                                                 \
    X(GAUGE, "process_open_fds", "Number of open file descriptors.", now->process.descriptors)     \
    X(GAUGE, "process_max_fds", "Maximum number of open file descriptors.",                        \
      now->process.descriptors_max)                                                                \
    X(GAUGE, "process_start_time_seconds",                                                         \
      "Start time of the process since unix epoch in seconds.", now->started)

static double usage_of(const struct metrics_now *now)
{
    uint32_t pages = now->kv_pages_total;
    uint32_t unused = now->work.kv_pages_free + now->work.kv_pages_cached;
    return pages > unused ? (double)(pages - unused) / pages : 0;
}

/* Which metric is being written. */
struct metric {
    const char *name, *help;
};

static void put_head(struct buf *out, struct metric m, const char *type)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", m.name, m.help, m.name, type);
}

/* A value below zero is not known. */
static void put_number(struct buf *out, struct metric m, const char *type, double value)
{
    if (value < 0) return;
    put_head(out, m, type);
    buf_printf(out, "%s %.15g\n", m.name, value);
}

static void put_labelled(struct buf *out, struct metric m, const char *label,
                         const char *const *names, const uint64_t *values, int n)
{
    put_head(out, m, "counter");
    for (int i = 0; i < n; i++)
        buf_printf(out, "%s{%s=\"%s\"} %llu\n", m.name, label, names[i],
                   (unsigned long long)values[i]);
}

static void put_by_end(struct buf *out, struct metric m,
                       const uint64_t values[METRICS_ENDPOINTS][METRICS_ENDS])
{
    put_head(out, m, "counter");
    for (int f = 0; f < METRICS_ENDPOINTS; f++)
        for (int e = 0; e < METRICS_ENDS; e++)
            buf_printf(out, "%s{api=\"%s\",end=\"%s\"} %llu\n", m.name,
                       metrics_endpoint_name((enum metrics_endpoint)f), end_names[e],
                       (unsigned long long)values[f][e]);
}

static void put_histogram(struct buf *out, struct metric m, const struct histogram *h,
                          const double *bounds, uint32_t n)
{
    uint64_t below = 0;
    put_head(out, m, "histogram");
    for (uint32_t i = 0; i < n; i++) {
        below += h->counts[i];
        buf_printf(out, "%s_bucket{le=\"%g\"} %llu\n", m.name, bounds[i],
                   (unsigned long long)below);
    }
    below += h->counts[n];
    buf_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.6f\n%s_count %llu\n", m.name,
               (unsigned long long)below, m.name, h->sum, m.name, (unsigned long long)below);
}

#define PUT_COUNTER(m, value) put_number(out, m, "counter", (double)(value));
#define PUT_GAUGE(m, value) put_number(out, m, "gauge", (double)(value));
#define PUT_SECONDS(m, value) put_histogram(out, m, &(value), second_bounds, SECOND_BOUNDS);
#define PUT_TOKENS(m, value) put_histogram(out, m, &(value), token_bounds, TOKEN_BOUNDS);
#define PUT_BY_END(m, value) put_by_end(out, m, value);
#define PUT_BY_REFUSAL(m, value)                                                                   \
    put_labelled(out, m, "reason", refusal_names, value, METRICS_REFUSALS);
#define PUT_BY_PHASE(m, value) put_labelled(out, m, "phase", phase_names, value, METRICS_PHASES);
#define PUT_BY_LIMIT(m, value) put_labelled(out, m, "limit", limit_names, value, HTTP_LIMITS);

#define PUT_COUNTED(kind, field, name, help)                                                       \
    PUT_##kind(((struct metric){name, help}), counted->field)
#define PUT_READ(kind, name, help, value) PUT_##kind(((struct metric){name, help}), value)

int metrics_print(const struct metrics *counted, const struct metrics_now *now, struct buf *out)
{
    const struct backend_stats *w = &now->work;
    put_head(out, (struct metric){"pdd_info", "What is served."}, "gauge");
    buf_printf(out, "pdd_info{version=\"%s\",model=\"%s\"} 1\n", PDD_VERSION, now->model);
    METRICS_COUNTED(PUT_COUNTED)
    METRICS_READ(PUT_READ)
    return out->error;
}
