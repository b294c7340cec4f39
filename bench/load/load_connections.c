/*
 * load_connections: connections that ask nothing; see load_run.h. All are opened at the given rate,
 * ask once for /health, and stay idle; with `times`, each is closed once it is ready and the next
 * opened, so that the cost is that of a handshake alone, full or resumed.
 */
#include <stdio.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "load/load_run.h"
#include "load/load_stats.h"

enum { TICK_US = 1000, SETTLE_US = 500000, AT_ONCE = 16, STUCK_US = 20000000 };

struct connections {
    struct load_target *target;
    const struct load_options *o;
    struct loop_timer *tick;
    struct load_call **kept; /* [slots] */
    uint32_t slots;
    uint32_t wanted, opened, ready, answered, failed, resumed;
    uint64_t began, moved, settled;
    struct process before;
    struct samples times;
};

static void on_ready(struct load_call *c)
{
    struct connections *s = c->owner;
    s->ready++;
    s->resumed += c->resumed;
    s->moved = c->ready_at;
    samples_add(&s->times, (double)(c->ready_at - c->began));
}

/* An idle connection has had its answer and stays; nothing else should end. */
static void on_end(struct load_call *c, enum load_end how)
{
    struct connections *s = c->owner;
    if (how == LOAD_WHOLE && c->status == 200) {
        s->answered++;
        return;
    }
    s->failed++;
    for (uint32_t i = 0; i < s->slots; i++)
        if (s->kept[i] == c) s->kept[i] = NULL;
    load_call_close(c);
}

static const struct load_hooks hooks = {.ready = on_ready, .end = on_end};

static const char request[] = "GET /health HTTP/1.1\r\nHost: bench\r\n\r\n";

static void open_due(struct connections *s, uint64_t now)
{
    uint64_t due = (now - s->began) * s->o->per_second / 1000000u + 1;
    for (; s->opened < s->wanted && s->opened < due; s->opened++) {
        struct load_call *c = load_call_open(s->target, request, sizeof request - 1, &hooks, s);
        s->kept[s->opened] = c;
        s->failed += c == NULL;
    }
}

static void tick(void *arg)
{
    struct connections *s = arg;
    uint64_t now = clock_us();
    open_due(s, now);
    bool all = s->answered + s->failed >= s->wanted;
    if (all && !s->settled) s->settled = now + SETTLE_US;
    if ((s->settled && now >= s->settled) || now > s->moved + STUCK_US) {
        loop_stop(s->target->loop);
        return;
    }
    loop_timer_set(s->tick, now + TICK_US);
}

/* One after the other, a few at once; a ticket that comes after the handshake is waited for. */
static void round_tick(void *arg)
{
    struct connections *s = arg;
    uint64_t now = clock_us();
    for (uint32_t i = 0; i < s->slots; i++) {
        struct load_call *c = s->kept[i];
        bool fresh = s->target->session != NULL || !s->target->resume;
        if (c && c->ready_at && (fresh || now > c->ready_at + SETTLE_US)) {
            load_call_close(c);
            s->kept[i] = c = NULL;
        }
        if (!c && s->opened < s->wanted) {
            s->kept[i] = load_call_open(s->target, "", 0, &hooks, s);
            s->opened++;
            s->failed += s->kept[i] == NULL;
        }
    }
    if (s->ready + s->failed >= s->wanted || now > s->moved + STUCK_US) {
        loop_stop(s->target->loop);
        return;
    }
    loop_timer_set(s->tick, now + TICK_US / 4);
}

static void report(struct connections *s)
{
    struct process after = process_of(s->o->pid);
    double n = s->ready ? (double)s->ready : 1.0;
    printf("{\"connections\":%u,\"ready\":%u,\"failed\":%u,\"resumed\":%u,\"seconds\":%.3f,"
           "\"rss_before_kb\":%.0f,\"rss_after_kb\":%.0f,\"bytes_per_connection\":%.0f,"
           "\"server_us_per_connection\":%.2f,",
           s->wanted, s->ready, s->failed, s->resumed, (double)(s->moved - s->began) / 1e6,
           s->before.rss_kb, after.rss_kb, (after.rss_kb - s->before.rss_kb) * 1024.0 / n,
           (after.cpu_us - s->before.cpu_us) / n);
    samples_print(&s->times, "ready_ms", 1e-3);
    printf("}\n");
}

int load_connections(struct load_target *t, const struct load_options *o)
{
    struct connections s = {.target = t, .o = o, .wanted = o->times ? o->times : o->streams};
    s.slots = o->times ? AT_ONCE : o->streams;
    s.kept = mem_calloc(s.slots, sizeof(struct load_call *));
    CHECK(s.kept && loop_timer_new(t->loop, o->times ? round_tick : tick, &s, &s.tick, NULL) == 0);
    s.before = process_of(o->pid);
    s.began = s.moved = clock_us();
    loop_timer_set(s.tick, s.began);
    bool ran = loop_run(t->loop, NULL) == 0;
    report(&s);
    for (uint32_t i = 0; i < s.slots; i++)
        load_call_close(s.kept[i]);
    loop_timer_free(s.tick);
    samples_release(&s.times);
    mem_free(s.kept);
    return ran && s.failed == 0 && s.ready == s.wanted ? 0 : -1;
}
