/* metrics: see metrics.h. */
#include "cloud/api/metrics.h"

#include <stddef.h>

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

static const char *const endpoint_names[METRICS_ENDPOINTS] = {"assist", "chat", "completion"};
static const char *const end_names[METRICS_ENDS] = {"budget",   "stop",  "length", "cancel",
                                                    "deadline", "drain", "error"};
static const char *const refusal_names[METRICS_REFUSALS] = {"busy", "quota", "unauthorised",
                                                            "invalid", "unavailable"};
static const char *const limit_names[HTTP_LIMITS] = {"all",       "address",  "forwarded",
                                                     "memory",    "bodies",   "bodies_of_address",
                                                     "body_size", "body_time"};
static const char *const phase_names[METRICS_PHASES] = {"waiting", "prefill", "decode"};

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

static int head(struct buf *out, const char *name, const char *type, const char *help)
{
    return buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static int print_histogram(struct buf *out, const char *name, const char *help,
                           const struct histogram *h, const double *bounds, uint32_t n)
{
    int code = head(out, name, "histogram", help);
    uint64_t below = 0;
    for (uint32_t i = 0; i < n && code == 0; i++) {
        below += h->counts[i];
        code = buf_printf(out, "%s_bucket{le=\"%g\"} %llu\n", name, bounds[i],
                          (unsigned long long)below);
    }
    below += h->counts[n];
    if (code) return code;
    return buf_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.6f\n%s_count %llu\n", name,
                      (unsigned long long)below, name, h->sum, name, (unsigned long long)below);
}

static int print_histograms(const struct metrics *m, struct buf *out)
{
    const struct {
        const char *name, *help;
        const struct histogram *h;
        bool seconds;
    } all[] = {
        {"pdd_time_to_first_token_seconds", "From the request's arrival to its first token.",
         &m->first_token, true},
        {"pdd_time_per_output_token_seconds", "Mean gap between the tokens of an answer.",
         &m->per_token, true},
        {"pdd_request_queue_time_seconds", "From arrival until work on the request began.",
         &m->queue, true},
        {"pdd_token_delivery_seconds", "From the engine's report of a token until it is sent on.",
         &m->delivery, true},
        {"pdd_e2e_request_latency_seconds", "From arrival to the end of the answer.", &m->whole,
         true},
        {"pdd_request_prompt_tokens", "Length of prompts.", &m->prompt_length, false},
        {"pdd_request_generation_tokens", "Length of what was generated for a request.",
         &m->answer_length, false},
    };
    int code = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all && code == 0; i++)
        code = print_histogram(out, all[i].name, all[i].help, all[i].h,
                               all[i].seconds ? second_bounds : token_bounds,
                               all[i].seconds ? SECOND_BOUNDS : TOKEN_BOUNDS);
    return code;
}

static int print_requests(const struct metrics *m, struct buf *out)
{
    int code = head(out, "pdd_requests_total", "counter", "Requests that were admitted, by end.");
    for (int f = 0; f < METRICS_ENDPOINTS; f++)
        for (int e = 0; e < METRICS_ENDS && code == 0; e++)
            code =
                buf_printf(out, "pdd_requests_total{api=\"%s\",end=\"%s\"} %llu\n",
                           endpoint_names[f], end_names[e], (unsigned long long)m->requests[f][e]);
    if (code == 0)
        code =
            head(out, "pdd_requests_refused_total", "counter", "Requests refused before any work.");
    for (int r = 0; r < METRICS_REFUSALS && code == 0; r++)
        code = buf_printf(out, "pdd_requests_refused_total{reason=\"%s\"} %llu\n", refusal_names[r],
                          (unsigned long long)m->refused[r]);
    if (code == 0)
        code = head(out, "pdd_requests_cancelled_total", "counter",
                    "Requests whose client left or stopped them, by phase.");
    for (int p = 0; p < METRICS_PHASES && code == 0; p++)
        code = buf_printf(out, "pdd_requests_cancelled_total{phase=\"%s\"} %llu\n", phase_names[p],
                          (unsigned long long)m->cancelled[p]);
    return code;
}

struct value {
    const char *name, *type, *help;
    double value;
};

static int print_values(const struct value *v, size_t n, struct buf *out)
{
    int code = 0;
    for (size_t i = 0; i < n && code == 0; i++) {
        code = head(out, v[i].name, v[i].type, v[i].help);
        if (code == 0) code = buf_printf(out, "%s %.15g\n", v[i].name, v[i].value);
    }
    return code;
}

static int print_counters(const struct metrics *m, const struct backend_stats *w, struct buf *out)
{
    const struct value values[] = {
        {"pdd_prompt_tokens_total", "counter", "Prompt tokens of admitted requests.",
         (double)m->prompt_tokens},
        {"pdd_prompt_tokens_cached_total", "counter",
         "Prompt tokens whose keys and values were in the prefix cache.", (double)m->cached_tokens},
        {"pdd_generation_tokens_total", "counter", "Tokens generated and sent.",
         (double)m->generated_tokens},
        {"pdd_prefill_tokens_total", "counter", "Prompt tokens computed.",
         (double)w->prefill_tokens},
        {"pdd_decode_tokens_total", "counter", "Tokens decoded after the first of each answer.",
         (double)w->decode_tokens},
        {"pdd_engine_steps_total", "counter", "Steps of the engine.", (double)w->steps},
        {"pdd_engine_step_seconds_total", "counter", "Time of all steps.",
         (double)w->step_us / 1e6},
        {"pdd_engine_spans_total", "counter",
         "Requests in steps: over the steps, how many share one.", (double)w->spans},
        {"pdd_prefix_cache_hits_total", "counter",
         "Requests that found part of their prompt in the prefix cache.", (double)w->cache_hits},
        {"pdd_prefix_cache_misses_total", "counter", "Requests that found nothing there.",
         (double)w->cache_misses},
        {"pdd_prefix_cache_evictions_total", "counter", "Pages that the prefix cache gave up.",
         (double)w->cache_evictions},
        {"pdd_grants_cut_total", "counter",
         "Requests that were granted fewer tokens than asked for, for want of KV memory.",
         (double)w->grants_cut},
    };
    return print_values(values, sizeof values / sizeof *values, out);
}

static int print_gauges(const struct metrics_now *now, struct buf *out)
{
    const struct backend_stats *w = &now->work;
    uint32_t pages = now->kv_pages_total, unused = w->kv_pages_free + w->kv_pages_cached;
    const struct value values[] = {
        {"pdd_num_requests_running", "gauge", "Requests in work.", w->running},
        {"pdd_num_requests_waiting", "gauge", "Requests in the queue.", w->waiting},
        {"pdd_num_requests_max", "gauge", "Requests that can be in work at once.",
         now->streams_max},
        {"pdd_step_tokens_max", "gauge", "Tokens that a step of the engine can hold.",
         w->step_tokens},
        {"pdd_kv_pages", "gauge", "Pages of the KV cache, of 64 positions.", pages},
        {"pdd_kv_pages_free", "gauge", "Pages that nobody holds.", w->kv_pages_free},
        {"pdd_kv_pages_prefix_cache", "gauge", "Pages that the prefix cache alone holds.",
         w->kv_pages_cached},
        {"pdd_kv_cache_usage_ratio", "gauge", "Part of the pages that running requests hold.",
         pages > unused ? (double)(pages - unused) / pages : 0},
        {"pdd_prefill_tokens_per_second", "gauge", "Prefill speed measured lately.",
         w->prefill_tps},
        {"pdd_http_connections", "gauge", "Open connections.", now->connections},
        {"pdd_http_body_bytes", "gauge", "Bytes that bodies of requests hold.",
         (double)now->body_bytes},
        {"pdd_ready", "gauge", "1 when new requests are taken.", now->ready},
    };
    return print_values(values, sizeof values / sizeof *values, out);
}

static int print_limits(const struct metrics_now *now, struct buf *out)
{
    int code = head(out, "pdd_http_refused_total", "counter",
                    "Connections refused by a limit: of all, of one address, of memory; forwarded: "
                    "requests by that of the address a trusted proxy named; requests for their "
                    "bodies: what all or one address may hold, one body's size, its time.");
    for (int i = 0; i < HTTP_LIMITS && code == 0; i++)
        code = buf_printf(out, "pdd_http_refused_total{limit=\"%s\"} %llu\n", limit_names[i],
                          (unsigned long long)now->refused[i]);
    return code;
}

static int print_process(const struct metrics_now *now, struct buf *out)
{
    const struct os_usage *p = &now->process;
    const struct value values[] = {
        {"process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.",
         p->cpu_seconds},
        {"process_resident_memory_bytes", "gauge", "Resident memory size in bytes.",
         p->resident_bytes},
        {"process_open_fds", "gauge", "Number of open file descriptors.", p->descriptors},
        {"process_max_fds", "gauge", "Maximum number of open file descriptors.",
         p->descriptors_max},
        {"process_start_time_seconds", "gauge",
         "Start time of the process since unix epoch in seconds.", now->started},
    };
    int code = 0;
    for (size_t i = 0; i < sizeof values / sizeof *values && code == 0; i++)
        if (values[i].value >= 0) code = print_values(&values[i], 1, out); /* else not known */
    return code;
}

int metrics_print(const struct metrics *m, const struct metrics_now *now, struct buf *out)
{
    int code = head(out, "pdd_info", "gauge", "What is served.");
    if (code == 0)
        code =
            buf_printf(out, "pdd_info{version=\"%s\",model=\"%s\"} 1\n", PDD_VERSION, now->model);
    if (code == 0) code = print_requests(m, out);
    if (code == 0) code = print_counters(m, &now->work, out);
    if (code == 0) code = print_gauges(now, out);
    if (code == 0) code = print_limits(now, out);
    if (code == 0) code = print_process(now, out);
    return code ? code : print_histograms(m, out);
}
