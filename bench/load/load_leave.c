/*
 * load_leave: clients that leave, and how soon the server notices; see load_run.h.
 *
 * The server must run with --streams-max equal to `streams` here, log at level debug, and take long
 * for the prompt. Its log says "gone" with the clock's time at which it saw a client leave; that
 * clock is the machine's, and ours. First `streams` - 1 assists are opened and stay, so that one
 * place is free for those who leave during prefill or decode; for those who leave the queue another
 * takes that place. One leaves at a time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "load/load_run.h"
#include "load/load_stats.h"

enum {
    TICK_US = 1000,
    WAITING_US = 30000, /* in the queue, before leaving */
    PAUSE_US = 20000,   /* after it was noticed */
    TOKENS_BEFORE = 3,
    PATIENCE_US = 60000000,
    LATE_US = 5000, /* the aim: each that misses it is named, to be looked for in other records */
    LOG_BYTES = 1 << 16
};

enum phase { QUEUE, PREFILL, DECODE, PHASES };
static const char *const phase_names[PHASES] = {"queue", "prefill", "decode"};

struct leave {
    struct load_target *target;
    const struct load_options *o;
    struct loop_timer *tick;
    struct load_call **others; /* [o->streams] who stay */
    uint32_t n_others, flowing;
    struct load_call *leaver;
    enum phase phase;
    uint32_t done; /* in this phase */
    uint64_t left_at, ask_again_at, stuck_at;
    struct samples seen[PHASES];
    int log;
    char text[LOG_BYTES];
    size_t text_len;
    bool failed;
};

static void leave_now(struct leave *l)
{
    l->left_at = clock_us();
    load_call_close(l->leaver);
    l->leaver = NULL;
}

static void other_event(struct load_call *c, const char *name, const char *data)
{
    struct leave *l = c->owner;
    if (strcmp(name, "token") == 0 && load_number(data, "i") == 0) l->flowing++;
}

static void leaver_event(struct load_call *c, const char *name, const char *data)
{
    struct leave *l = c->owner;
    bool token = strcmp(name, "token") == 0;
    if (l->phase == PREFILL && strcmp(name, "progress") == 0) leave_now(l);
    if (l->phase == DECODE && token && load_number(data, "i") == TOKENS_BEFORE - 1) leave_now(l);
}

static void on_end(struct load_call *c, enum load_end how)
{
    struct leave *l = c->owner;
    fprintf(stderr, "bench_cloud: an assist that should go on ended (%d, status %d)\n", (int)how,
            c->status);
    l->failed = true;
    loop_stop(l->target->loop);
}

static const struct load_hooks other_hooks = {.event = other_event, .end = on_end};
static const struct load_hooks leaver_hooks = {.event = leaver_event, .end = on_end};

static struct load_call *ask(struct leave *l, uint32_t prompt, const struct load_hooks *hooks)
{
    char *bytes = NULL;
    size_t n;
    CHECK(load_assist_bytes(l->target, prompt, 0, l->o->vocab, l->o->tokens, clock_us(), &bytes,
                            &n) == 0);
    struct load_call *c = load_call_open(l->target, bytes, n, hooks, l);
    mem_free(bytes);
    CHECK(c);
    return c;
}

/* What of the log is about somebody who has gone, since the last look; 0: nothing yet. */
static uint64_t gone_at(struct leave *l)
{
    ssize_t n = read(l->log, l->text + l->text_len, sizeof l->text - 1 - l->text_len);
    if (n > 0) l->text_len += (size_t)n;
    l->text[l->text_len] = 0;
    uint64_t at = 0;
    char *line = l->text;
    for (char *stop; (stop = strchr(line, '\n')) != NULL; line = stop + 1) {
        *stop = 0;
        const char *clock = strstr(line, " gone ") ? strstr(line, "clock_us=") : NULL;
        if (clock) at = strtoull(clock + 9, NULL, 10);
    }
    l->text_len -= (size_t)(line - l->text);
    memmove(l->text, line, l->text_len);
    return at;
}

static void next_phase(struct leave *l)
{
    if (l->done < l->o->times) return;
    fprintf(stderr, "bench_cloud: %u left while %s\n", l->done, phase_names[l->phase]);
    l->done = 0;
    /* From decode to prefill to queue: for the last, the place that they used is taken. */
    if (l->phase == QUEUE)
        loop_stop(l->target->loop);
    else
        l->phase = l->phase == DECODE ? PREFILL : QUEUE;
}

static bool others_ready(struct leave *l, uint64_t now)
{
    uint32_t wanted = l->o->streams - (l->phase != QUEUE);
    if (l->n_others < wanted && now >= l->ask_again_at) {
        l->others[l->n_others++] = ask(l, 64, &other_hooks);
        l->ask_again_at = now + 1000000 / l->o->per_second;
        l->stuck_at = now + PATIENCE_US;
    }
    return l->flowing == wanted && now >= l->ask_again_at;
}

static void look_for_gone(struct leave *l, uint64_t now)
{
    uint64_t at = gone_at(l);
    if (at == 0) return;
    uint64_t us = at > l->left_at ? at - l->left_at : 0;
    samples_add(&l->seen[l->phase], (double)us);
    if (us > LATE_US)
        fprintf(stderr, "bench_cloud: who left while %s at clock_us=%llu was seen %.2f ms later\n",
                phase_names[l->phase], (unsigned long long)l->left_at, (double)us / 1e3);
    l->left_at = 0;
    l->done++;
    l->ask_again_at = now + PAUSE_US;
    next_phase(l);
}

static void tick(void *arg)
{
    struct leave *l = arg;
    uint64_t now = clock_us();
    loop_timer_set(l->tick, now + TICK_US);
    if (l->left_at) {
        look_for_gone(l, now);
    } else if (l->leaver) {
        if (l->phase == QUEUE && l->leaver->sent_at && now >= l->leaver->sent_at + WAITING_US)
            leave_now(l);
    } else if (others_ready(l, now)) {
        l->leaver = ask(l, l->o->prompt, &leaver_hooks);
        l->stuck_at = now + PATIENCE_US;
    }
    if (now < l->stuck_at) return;
    fprintf(stderr, "bench_cloud: nothing happens any more (%s, %u others of %u flow)\n",
            phase_names[l->phase], l->flowing, l->n_others);
    l->failed = true;
    loop_stop(l->target->loop);
}

int load_leave(struct load_target *t, const struct load_options *o)
{
    static struct leave l;
    l = (struct leave){.target = t, .o = o, .phase = DECODE, .stuck_at = clock_us() + PATIENCE_US};
    l.log = open(o->log ? o->log : "", O_RDONLY | O_CLOEXEC);
    if (l.log < 0) {
        fprintf(stderr, "bench_cloud: --log %s: %s\n", o->log ? o->log : "is needed",
                strerror(errno));
        return -1;
    }
    l.others = mem_calloc(o->streams, sizeof(struct load_call *));
    CHECK(l.others && loop_timer_new(t->loop, tick, &l, &l.tick, NULL) == 0);
    loop_timer_set(l.tick, clock_us());
    bool ran = loop_run(t->loop, NULL) == 0 && !l.failed;
    printf("{\"streams\":%u", o->streams);
    for (int p = 0; p < PHASES; p++) {
        printf(",");
        samples_print(&l.seen[p], phase_names[p], 1e-3);
        samples_release(&l.seen[p]);
    }
    printf("}\n");
    load_call_close(l.leaver);
    for (uint32_t i = 0; i < l.n_others; i++)
        load_call_close(l.others[i]);
    loop_timer_free(l.tick);
    mem_free(l.others);
    close(l.log);
    return ran ? 0 : -1;
}
