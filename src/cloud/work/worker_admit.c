/* worker_admit: from the line into work and out of it: prefixes, KV memory, grants. */
#include "base/check.h"
#include "base/clock.h"
#include "cloud/work/worker_impl.h"

enum { SWEEP_AT_ONCE = 256, SWEEP_EVERY_US = 2000, ENDS_WEIGHT = 16 };

/* ---- the prefix cache ---- */

static uint32_t follow(struct running *r)
{
    uint32_t gained = history_follow(&r->history, r->job->tokens, r->feed_first);
    r->fed += gained;
    r->cached += gained;
    return gained;
}

/* It takes a page of those set aside for the job. */
static void follow_part(struct running *r)
{
    uint32_t gained = history_follow_part(&r->history, r->job->tokens, r->feed_first);
    r->fed += gained;
    r->cached += gained;
}

/* ---- KV memory ---- */

static struct admit_memory memory_of(const struct worker *w)
{
    return (struct admit_memory){engine_kv_pages_free(w->engine), prefix_idle(w->prefix),
                                 w->promised};
}

static struct admit_request request_of(const struct worker *w, const struct job *job, uint32_t most)
{
    return (struct admit_request){.tokens = job->n_tokens,
                                  .most = most > 0 ? most : 1,
                                  .least = job->tokens_least,
                                  .positions_max = w->b.positions_max};
}

/* The fair grant while others wait. */
static uint32_t fair_of(const struct worker *w)
{
    struct admit_pressure p = {admit_waiting(w->line), w->c.streams_max,
                               stepcost_decode_us(&w->cost, w->n_running)};
    return admit_fair(&p);
}

static void set_promise(struct worker *w, struct running *r)
{
    struct admit_request wanted = request_of(w, r->job, r->granted);
    uint32_t promise = admit_pages(admit_positions(&wanted, wanted.most)) -
                       admit_pages(session_len(r->history.session));
    CHECK(session_len(r->history.session) <= admit_positions(&wanted, wanted.most));
    CHECK(w->promised >= r->promise);
    w->promised += promise - r->promise;
    r->promise = promise;
}

void worker_note_growth(struct worker *w, struct running *r)
{
    CHECK(r->fed <= r->job->n_tokens);
    set_promise(w, r);
    history_grow(&r->history);
}

void worker_catch_up(struct worker *w, struct running *r)
{
    uint32_t gained = follow(r);
    if (gained == 0) return;
    w->own.cached_tokens += gained;
    set_promise(w, r);
}

/* A budget that grew needs pages too. Pages that are not free are not granted: that stream ends
 * with its budget, instead of failing the step for all. */
void worker_extend_grants(struct worker *w)
{
    for (uint32_t i = 0; i < w->n_running; i++) {
        struct running *r = &w->running[i];
        uint32_t wanted = atomic_load(&r->job->tokens_max);
        if (wanted <= r->granted) continue;
        struct admit_memory memory = memory_of(w);
        struct admit_request ask = request_of(w, r->job, wanted);
        ask.least = 1;
        ask.fair = fair_of(w);
        ask.shared = admit_pages(session_len(r->history.session));
        memory.promised -= r->promise;
        uint32_t granted = admit_grant(&memory, &ask);
        if (granted <= r->granted) continue;
        r->granted = granted;
        set_promise(w, r);
    }
}

/* ---- into work ---- */

/* Find what is cached and set the rest aside; ERR_BUSY: there is not enough memory now. */
static int begin(struct worker *w, struct running *r, struct err *e)
{
    struct job *job = r->job;
    uint32_t asked = atomic_load(&job->tokens_max);
    int code = history_open(w->engine, w->prefix, worker_scope(w, job), &r->history, e);
    if (code) return code;
    code = worker_refine_begin(w, r, e);
    if (code) {
        history_close(&r->history, false);
        return code;
    }
    follow(r);
    struct admit_request wanted = request_of(w, job, asked);
    struct admit_memory memory = memory_of(w);
    wanted.shared = r->history.n_path;
    wanted.fair = fair_of(w);
    r->granted = admit_grant(&memory, &wanted);
    code = r->granted ? job_make_logprobs(job, r->granted, e) : ERR_BUSY;
    if (code) {
        history_close(&r->history, false);
        return code;
    }
    follow_part(r);
    set_promise(w, r);
    session_set_sampling(r->history.session, &job->sampling);
    if (r->granted < asked) {
        w->own.grants_cut++;
        /* Said in the request itself, so that a later, larger one is seen as new. */
        atomic_compare_exchange_strong(&job->tokens_max, &asked, r->granted);
    }
    return 0;
}

static void note_begun(struct worker *w, const struct running *r)
{
    w->own.cached_tokens += r->cached;
    if (w->c.cache_pages > 0) ++*(r->cached ? &w->own.cache_hits : &w->own.cache_misses);
    worker_send(w, (struct job_event){.kind = JOB_ADMITTED, .job = r->job, .cached = r->cached});
}

/* Pages that are not reserved. */
static uint32_t spare_pages(const struct worker *w)
{
    struct admit_memory m = memory_of(w);
    return m.free + m.idle - m.promised;
}

/* Start the next job of the line. ERR_BUSY: it must wait, and those after it. */
static int admit_one(struct worker *w, struct job *job)
{
    struct running r = {.job = job, .next = -1, .arrived = w->arrivals};
    struct err e = ERR_INIT;
    int code = job->n_tokens < w->b.positions_max
                   ? begin(w, &r, &e)
                   : err_set(&e, ERR_LIMIT, "the prompt does not fit the KV memory");
    if (code == ERR_BUSY && w->n_running > 0) {
        w->blocked = job;
        w->blocked_at = spare_pages(w);
        return code;
    }
    CHECK(w->line_tokens >= job->n_tokens);
    w->line_tokens -= job->n_tokens;
    if (code) {
        if (code == ERR_BUSY)
            err_set(&e, ERR_NO_MEMORY, "the request needs more KV memory than the server has");
        admit_refuse(w->line);
        worker_finish(w, job, NULL, WIRE_CANCEL, &e);
        return 0;
    }
    admit_begin(w->line);
    CHECK(w->n_running < w->c.streams_max && r.granted > 0);
    w->arrivals++;
    w->running[w->n_running++] = r;
    note_begun(w, &r);
    worker_refine_admitted(w, &w->running[w->n_running - 1]);
    return 0;
}

void worker_admit(struct worker *w)
{
    struct job *job;
    while (w->n_running < w->c.streams_max && (job = admit_next(w->line)) != NULL) {
        bool hopeless = job == w->blocked && w->n_running > 0 && spare_pages(w) <= w->blocked_at;
        if (hopeless || admit_one(w, job)) {
            atomic_store(&w->slots_now, w->n_running);
            return;
        }
    }
    w->blocked = NULL;
    atomic_store(&w->slots_now, w->c.streams_max);
}

/* ---- out of it ---- */

/* How quickly jobs end while others wait. */
static void note_end(struct worker *w)
{
    uint64_t now = clock_us();
    if (w->last_end > 0) {
        double us = (double)(now - w->last_end);
        w->between_ends_us +=
            (us - w->between_ends_us) / (w->between_ends_us > 0 ? ENDS_WEIGHT : 1);
    }
    w->last_end = admit_waiting(w->line) > 0 ? now : 0;
}

void worker_end(struct worker *w, uint32_t i, enum wire_reason reason, const struct err *error)
{
    struct running *r = &w->running[i];
    CHECK(i < w->n_running && w->promised >= r->promise);
    history_close(&r->history, !error);
    w->promised -= r->promise;
    admit_ended(w->line, worker_tenant(r->job));
    note_end(w);
    worker_finish(w, r->job, r, reason, error);
    w->running[i] = w->running[--w->n_running];
}

/* Whether a job must leave, and why. */
static bool must_leave(const struct job *job, uint64_t now, enum wire_reason *ret_reason)
{
    if (atomic_load(&job->cancelled))
        *ret_reason = WIRE_CANCEL;
    else if (atomic_load(&job->drained))
        *ret_reason = WIRE_DRAIN;
    else if (now >= job->deadline)
        *ret_reason = WIRE_DEADLINE;
    else
        return false;
    return true;
}

static bool leaves_line(void *arg, void *waiting)
{
    struct worker *w = arg;
    struct job *job = waiting;
    enum wire_reason reason;
    if (!must_leave(job, w->swept, &reason)) return false;
    CHECK(w->line_tokens >= job->n_tokens);
    w->line_tokens -= job->n_tokens;
    w->blocked = NULL; /* a new job may get the same address */
    worker_finish(w, job, NULL, reason, NULL);
    return true;
}

void worker_drop_unwanted(struct worker *w)
{
    uint64_t now = clock_us();
    enum wire_reason reason;
    for (uint32_t i = w->n_running; i-- > 0;)
        if (must_leave(w->running[i].job, now, &reason)) worker_end(w, i, reason, NULL);
    if (admit_waiting(w->line) > SWEEP_AT_ONCE && now - w->swept < SWEEP_EVERY_US) return;
    w->swept = now;
    admit_sweep(w->line, leaves_line, w);
}
