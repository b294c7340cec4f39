/*
 * load_streams: many open assists at a steady pace; see load_run.h.
 *
 * The server's fake engine ends a step at each multiple of beat_us of the monotonic clock, and each
 * stream gets a token every period_us. So a stream's tokens are due at E, E + period, ..., where E
 * is a beat: the last one before the earliest of its arrivals, each moved back by its number of
 * periods. What a token comes later than it was due is the delay that the server (its engine
 * thread, queue, loop), the kernel and this client have added. A stream all of whose tokens were
 * later than a whole beat would pass for less late by that beat; the least delay found says whether
 * that is plausible.
 */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "load/load_run.h"
#include "load/load_stats.h"

enum {
    TICK_US = 1000,
    SETTLE_US = 2000000, /* after the last stream's first token */
    PATIENCE_US = 120000000
};

struct streams;
struct stream {
    struct streams *of;
    struct load_call *call;
    uint32_t n;
    uint64_t *at; /* [tokens] clock_us() of arrivals */
};

struct streams {
    struct load_target *target;
    const struct load_options *o;
    struct loop_timer *tick;
    struct stream *all; /* [o->streams] */
    uint32_t opened, flowing, lost, ended;
    int status; /* of a refusal */
    uint64_t began, window, until;
    struct process before, at_window, after;
};

static void on_head(struct load_call *c)
{
    struct streams *s = ((struct stream *)c->owner)->of;
    if (c->status != 200) s->status = c->status;
}

static void on_event(struct load_call *c, const char *name, const char *data)
{
    uint64_t now = clock_us();
    struct stream *st = c->owner;
    struct streams *s = st->of;
    if (strcmp(name, "token") != 0) return;
    if (load_number(data, "i") != st->n || st->n >= s->o->tokens) s->lost++;
    if (st->n == 0) s->flowing++;
    if (st->n < s->o->tokens) st->at[st->n++] = now;
}

static void on_end(struct load_call *c, enum load_end how)
{
    struct stream *st = c->owner;
    (void)how;
    st->of->ended++;
    st->call = NULL;
    load_call_close(c);
}

static const struct load_hooks hooks = {.head = on_head, .event = on_event, .end = on_end};

static int open_one(struct streams *s)
{
    char *bytes = NULL;
    size_t n;
    struct stream *st = &s->all[s->opened];
    st->of = s;
    st->at = mem_calloc(s->o->tokens, sizeof *st->at);
    CHECK(st->at);
    if (load_assist_bytes(s->target, s->o->prompt, 0, s->o->vocab, s->o->tokens, s->opened, &bytes,
                          &n))
        return -1;
    st->call = load_call_open(s->target, bytes, n, &hooks, st);
    mem_free(bytes);
    s->opened++;
    return st->call ? 0 : -1;
}

static void begin_window(struct streams *s, uint64_t now)
{
    s->window = now + SETTLE_US;
    s->until = s->window + s->o->seconds * 1000000ull;
    fprintf(stderr, "bench_cloud: %u streams are open after %.1f s; measuring %u s\n", s->opened,
            (double)(now - s->began) / 1e6, s->o->seconds);
}

static void tick(void *arg)
{
    struct streams *s = arg;
    uint64_t now = clock_us();
    uint64_t due = (now - s->began) * s->o->per_second / 1000000u + 1;
    while (s->opened < s->o->streams && s->opened < due && s->status == 0)
        if (open_one(s)) s->status = -1;
    if (!s->window && s->flowing == s->o->streams) begin_window(s, now);
    if (s->window && now >= s->window && s->at_window.cpu_us == 0.0)
        s->at_window = process_of(s->o->pid);
    bool over = s->window ? now >= s->until : now - s->began > PATIENCE_US;
    if (over || s->ended || s->status) {
        s->after = process_of(s->o->pid);
        loop_stop(s->target->loop);
        return;
    }
    loop_timer_set(s->tick, now + TICK_US);
}

/* Delays of one stream's tokens in the window. */
static void add_delays(const struct streams *s, const struct stream *st, struct samples *delays,
                       struct samples *gaps)
{
    uint64_t base = UINT64_MAX, period = s->o->period_us;
    for (uint32_t k = 0; k < st->n; k++)
        if (st->at[k] >= s->window && st->at[k] - k * period < base) base = st->at[k] - k * period;
    if (base == UINT64_MAX) return;
    uint64_t due = base / s->o->beat_us * s->o->beat_us;
    for (uint32_t k = 0; k < st->n; k++) {
        if (st->at[k] < s->window) continue;
        samples_add(delays, (double)(st->at[k] - (due + k * period)));
        if (k > 0) samples_add(gaps, (double)(st->at[k] - st->at[k - 1]));
    }
}

static int report(struct streams *s)
{
    struct samples delays = {0}, gaps = {0};
    for (uint32_t i = 0; i < s->opened; i++)
        add_delays(s, &s->all[i], &delays, &gaps);
    double seconds = (double)s->o->seconds, spent = s->after.cpu_us - s->at_window.cpu_us;
    printf("{\"streams\":%u,\"flowing\":%u,\"lost_tokens\":%u,\"ended_early\":%u,\"status\":%d,"
           "\"seconds\":%u,\"tokens_per_s\":%.1f,\"server_cpu\":%.4f,\"server_us_per_token\":%.3f,"
           "\"rss_before_kb\":%.0f,\"rss_streams_kb\":%.0f,\"bytes_per_stream\":%.0f,",
           s->o->streams, s->flowing, s->lost, s->ended, s->status, s->o->seconds,
           (double)delays.n / seconds, spent / 1e6 / seconds,
           delays.n ? spent / (double)delays.n : 0.0, s->before.rss_kb, s->after.rss_kb,
           (s->after.rss_kb - s->before.rss_kb) * 1024.0 / s->o->streams);
    samples_print(&delays, "delay_ms", 1e-3);
    printf(",");
    samples_print(&gaps, "gap_ms", 1e-3);
    printf("}\n");
    bool good = s->flowing == s->o->streams && s->lost == 0 && s->ended == 0 && s->status == 0;
    samples_release(&delays);
    samples_release(&gaps);
    if (good) return 0;
    fprintf(stderr, "bench_cloud: of %u streams %u flowed, %u ended early, status %d\n",
            s->o->streams, s->flowing, s->ended, s->status);
    return -1;
}

int load_streams(struct load_target *t, const struct load_options *o)
{
    struct streams s = {.target = t, .o = o, .before = process_of(o->pid)};
    s.all = mem_calloc(o->streams, sizeof *s.all);
    CHECK(s.all);
    s.began = clock_us();
    CHECK(loop_timer_new(t->loop, tick, &s, &s.tick, NULL) == 0);
    loop_timer_set(s.tick, s.began);
    int code = loop_run(t->loop, NULL) == 0 ? report(&s) : -1;
    for (uint32_t i = 0; i < o->streams; i++) {
        load_call_close(s.all[i].call);
        mem_free(s.all[i].at);
    }
    loop_timer_free(s.tick);
    mem_free(s.all);
    return code;
}
