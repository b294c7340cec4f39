/*
 * load_arrivals: an open loop: requests arrive at random times (exponential gaps of a seed),
 * whatever became of the ones before; see load_run.h. Their lengths are rows of a trace, drawn by
 * the same seed, so that two runs that differ in what they ask of the server see the same requests.
 *
 * Requests that arrive in the first warm_s are not counted. Others go on arriving until the last
 * counted one has ended, so that its end is under the same load.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "load/load_run.h"
#include "load/load_stats.h"
#include "load/load_trace.h"

enum {
    STREAM_GAPS = 11,
    STREAM_ROWS = 12,
    WATCH_US = 1000000,
    WATCHES_MAX = 4096,
    PATIENCE_US = 120000000, /* for the last counted request, after the last arrival that counts */
    TOO_BUSY = 429
};

struct arrivals;
struct request {
    struct arrivals *of;
    struct load_call *call;
    struct load_lengths asked;
    bool counted, whole;
    int status;
    uint32_t n, retry_after;
    uint64_t due, head, first, last, cached;
    struct request *next; /* all that are counted */
};

struct arrivals {
    struct load_target *target;
    const struct load_options *o;
    struct load_trace trace;
    struct loop_timer *next, *watch;
    struct request *counted;
    uint64_t began, due, counted_from, counted_to;
    uint32_t arrived, n_counted, n_open;
    double rss_kb[WATCHES_MAX];
    uint32_t n_watches;
    struct process at_from, at_to;
};

static void finish(struct request *r, bool whole)
{
    struct arrivals *a = r->of;
    r->whole = whole;
    load_call_close(r->call);
    r->call = NULL;
    if (!r->counted) {
        mem_free(r);
        return;
    }
    a->n_open--;
    if (a->n_open == 0 && clock_us() > a->counted_to) loop_stop(a->target->loop);
}

static void on_head(struct load_call *c)
{
    struct request *r = c->owner;
    r->head = clock_us();
    r->status = c->status;
}

static void on_event(struct load_call *c, const char *name, const char *data)
{
    struct request *r = c->owner;
    if (strcmp(name, "grant") == 0) {
        int64_t cached = load_number(data, "cached_tokens");
        r->cached = cached > 0 ? (uint64_t)cached : 0;
    }
    if (strcmp(name, "token") != 0) return;
    r->last = clock_us();
    if (r->n++ == 0) r->first = r->last;
}

static void on_end(struct load_call *c, enum load_end how)
{
    finish(c->owner, how == LOAD_WHOLE);
}

static const struct load_hooks hooks = {.head = on_head, .event = on_event, .end = on_end};

static struct load_lengths lengths_of(const struct arrivals *a, uint32_t i)
{
    const struct load_options *o = a->o;
    struct load_lengths l = a->trace.rows[rng_u32(o->seed, STREAM_ROWS, i) % a->trace.n];
    double prompt = l.prompt * o->scale;
    l.prompt = prompt < 1.0 ? 1 : prompt > o->prompt_max ? o->prompt_max : (uint32_t)prompt;
    if (l.answer > o->answer_max) l.answer = o->answer_max;
    if (o->tokens && l.answer > o->tokens) l.answer = o->tokens;
    return l;
}

static void arrive(struct arrivals *a)
{
    struct request *r = mem_calloc(1, sizeof *r);
    char *bytes = NULL;
    size_t n;
    CHECK(r);
    r->of = a;
    r->due = a->due;
    r->counted = r->due >= a->counted_from && r->due < a->counted_to;
    r->asked = lengths_of(a, a->arrived);
    uint32_t common = (uint32_t)(r->asked.prompt * a->o->common);
    CHECK(load_assist_bytes(a->target, r->asked.prompt, common, a->o->vocab, r->asked.answer,
                            ((uint64_t)a->o->prompt_seed << 32) + a->arrived, &bytes, &n) == 0);
    a->arrived++;
    if (r->counted) {
        r->next = a->counted;
        a->counted = r;
        a->n_counted++;
        a->n_open++;
    }
    r->call = load_call_open(a->target, bytes, n, &hooks, r);
    mem_free(bytes);
    if (!r->call) finish(r, false);
}

static void on_due(void *arg)
{
    struct arrivals *a = arg;
    uint64_t now = clock_us();
    while (a->due <= now) {
        arrive(a);
        double u = rng_uniform(a->o->seed, STREAM_GAPS, a->arrived);
        a->due += (uint64_t)(-log1p(-u) / a->o->rate * 1e6) + 1;
    }
    if (now > a->counted_to && (a->n_open == 0 || now > a->counted_to + PATIENCE_US)) {
        loop_stop(a->target->loop);
        return;
    }
    loop_timer_set(a->next, a->due);
}

static void on_watch(void *arg)
{
    struct arrivals *a = arg;
    uint64_t now = clock_us();
    struct process p = process_of(a->o->pid);
    if (now >= a->counted_from && a->at_from.cpu_us == 0.0) a->at_from = p;
    if (now < a->counted_to + WATCH_US) a->at_to = p;
    if (a->n_watches < WATCHES_MAX) a->rss_kb[a->n_watches++] = p.rss_kb;
    loop_timer_set(a->watch, now + WATCH_US);
}

/* ---- what it comes to ---- */

struct tally {
    struct samples ttft, tpot, refused;
    uint32_t whole, good, busy, other, cut;
    uint64_t prompt_tokens, cached_tokens, tokens;
};

static double tpot_of(const struct request *r)
{
    return r->n > 1 ? (double)(r->last - r->first) / (r->n - 1) : 0.0;
}

static void tally_one(struct tally *t, const struct request *r, const struct load_options *o)
{
    if (r->status != 200) {
        t->busy += r->status == TOO_BUSY;
        t->other += r->status != TOO_BUSY;
        if (r->head) samples_add(&t->refused, (double)(r->head - r->due));
        return;
    }
    if (!r->whole || r->n == 0) {
        t->cut++;
        return;
    }
    double ttft = (double)(r->first - r->due), tpot = tpot_of(r);
    t->whole++;
    t->good += ttft <= o->ttft_ms * 1e3 && tpot <= o->tpot_ms * 1e3;
    t->prompt_tokens += r->asked.prompt;
    t->cached_tokens += r->cached;
    t->tokens += r->n;
    samples_add(&t->ttft, ttft);
    if (r->n > 1) samples_add(&t->tpot, tpot);
}

static void print_rows(const struct arrivals *a)
{
    FILE *f = a->o->rows ? fopen(a->o->rows, "w") : NULL;
    if (!f) return;
    fprintf(f, "due_us,status,whole,prompt,answer,tokens,head_us,ttft_us,tpot_us\n");
    for (const struct request *r = a->counted; r; r = r->next)
        fprintf(f, "%llu,%d,%d,%u,%u,%u,%llu,%llu,%.0f\n", (unsigned long long)(r->due - a->began),
                r->status, r->whole, r->asked.prompt, r->asked.answer, r->n,
                (unsigned long long)(r->head ? r->head - r->due : 0),
                (unsigned long long)(r->first ? r->first - r->due : 0), tpot_of(r));
    fclose(f);
}

static void report(struct arrivals *a)
{
    struct tally t = {0};
    const struct load_options *o = a->o;
    for (const struct request *r = a->counted; r; r = r->next)
        tally_one(&t, r, o);
    double s = o->seconds, whole = t.whole ? t.whole : 1;
    printf("{\"rate\":%.4f,\"seconds\":%u,\"arrived\":%u,\"whole\":%u,\"good\":%u,\"busy\":%u,"
           "\"other\":%u,\"cut\":%u,\"whole_per_s\":%.4f,\"good_per_s\":%.4f,\"ttft_limit_ms\":%u,"
           "\"tpot_limit_ms\":%u,\"prompt_mean\":%.1f,\"cached_mean\":%.1f,\"answer_mean\":%.1f,"
           "\"server_cpu\":%.3f,",
           o->rate, o->seconds, a->n_counted, t.whole, t.good, t.busy, t.other, t.cut, t.whole / s,
           t.good / s, o->ttft_ms, o->tpot_ms, (double)t.prompt_tokens / whole,
           (double)t.cached_tokens / whole, (double)t.tokens / whole,
           (a->at_to.cpu_us - a->at_from.cpu_us) / 1e6 / s);
    samples_print(&t.ttft, "ttft_ms", 1e-3);
    printf(",");
    samples_print(&t.tpot, "tpot_ms", 1e-3);
    printf(",");
    samples_print(&t.refused, "refused_ms", 1e-3);
    printf(",\"rss_kb\":[");
    for (uint32_t i = 0; i < a->n_watches; i++)
        printf("%s%.0f", i ? "," : "", a->rss_kb[i]);
    printf("]}\n");
    samples_release(&t.ttft);
    samples_release(&t.tpot);
    samples_release(&t.refused);
}

int load_arrivals(struct load_target *t, const struct load_options *o)
{
    static struct arrivals a;
    a = (struct arrivals){.target = t, .o = o};
    if (!o->trace || load_trace_read(o->trace, &a.trace)) return -1;
    CHECK(loop_timer_new(t->loop, on_due, &a, &a.next, NULL) == 0 &&
          loop_timer_new(t->loop, on_watch, &a, &a.watch, NULL) == 0);
    a.began = a.due = clock_us();
    a.counted_from = a.began + o->warm_s * 1000000ull;
    a.counted_to = a.counted_from + o->seconds * 1000000ull;
    loop_timer_set(a.next, a.began);
    loop_timer_set(a.watch, a.began);
    bool ran = loop_run(t->loop, NULL) == 0;
    report(&a);
    print_rows(&a);
    for (struct request *r = a.counted, *next; r; r = next) {
        next = r->next;
        load_call_close(r->call);
        mem_free(r);
    }
    loop_timer_free(a.next);
    loop_timer_free(a.watch);
    load_trace_release(&a.trace);
    return ran ? 0 : -1; /* requests that are not counted and still run end with the process */
}
