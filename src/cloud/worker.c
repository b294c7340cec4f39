/* worker: see worker.h. */
#include "cloud/worker.h"

#include <pthread.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/queue.h"
#include "model/vocab.h"
#include "policy/sched.h"

enum {
    PAGE = 64,
    CACHE_PREFIX_MIN = 32,
    EVENTS_PER_STREAM = 8,
    EVENTS_FULL_US = 200,
    TPS_WEIGHT = 4
};

/* A job in work, or a finished session kept for its prefix. */
struct running {
    struct job *job;
    struct session *session;
    uint32_t fed;      /* of job->tokens, in the session */
    uint32_t produced; /* tokens sent */
    uint32_t granted;  /* of job->tokens_max, what KV pages are set aside for */
    int32_t next;      /* sampled, not yet in the session */
    uint64_t arrived, served;
};

struct cached {
    struct session *session;
    uint64_t used; /* number of the step */
};

struct worker {
    struct engine *engine;
    struct worker_config c;
    struct queue *jobs, *events;
    pthread_t thread;
    atomic_bool quit;
    atomic_uint submitted; /* jobs accepted and not yet done */
    struct running running[WORKER_STREAMS_MAX];
    uint32_t n_running;
    struct job **waiting; /* ring [queue_max + streams_max] */
    uint32_t first_waiting, n_waiting, waiting_cap;
    struct cached cache[WORKER_CACHE_MAX];
    uint32_t n_cached;
    uint64_t arrivals;
    struct sched_item items[WORKER_STREAMS_MAX];
    struct engine_span spans[ENGINE_SPANS_MAX];
    uint32_t span_of[ENGINE_SPANS_MAX]; /* index into running */
    pthread_mutex_t stats_mutex;
    struct worker_stats stats; /* what others may read, */
    struct worker_stats own;   /* and what the worker counts */
};

static uint32_t pages_of(uint32_t tokens)
{
    return (tokens + PAGE - 1) / PAGE;
}

/* Events must not be lost: when the loop is behind, the worker waits for it. */
static void send_event(struct worker *w, struct job_event ev)
{
    struct job_event *copy;
    while (!(copy = mem_alloc(sizeof *copy)) && !atomic_load(&w->quit))
        clock_sleep_us(1000);
    if (!copy) return;
    *copy = ev;
    copy->at = clock_us();
    int code;
    while ((code = queue_push(w->events, copy)) == ERR_BUSY && !atomic_load(&w->quit))
        clock_sleep_us(EVENTS_FULL_US);
    if (code) mem_free(copy);
}

static void finish_job(struct worker *w, struct job *job, uint32_t produced,
                       enum wire_reason reason, const struct err *error)
{
    struct job_event ev = {.kind = JOB_DONE, .job = job, .produced = produced, .reason = reason};
    if (error) ev.error = *error;
    atomic_fetch_sub(&w->submitted, 1);
    send_event(w, ev);
}

static void evict(struct worker *w, uint32_t i)
{
    engine_session_close(w->cache[i].session);
    w->cache[i] = w->cache[--w->n_cached];
}

/* The cached session used longest ago, `keep` left out; UINT32_MAX: none. */
static uint32_t oldest_cached(const struct worker *w, const struct session *keep)
{
    uint32_t oldest = UINT32_MAX;
    for (uint32_t i = 0; i < w->n_cached; i++)
        if (w->cache[i].session != keep &&
            (oldest == UINT32_MAX || w->cache[i].used < w->cache[oldest].used))
            oldest = i;
    return oldest;
}

/* A finished session either joins the cache or goes. */
static void retire_session(struct worker *w, struct session *s)
{
    if (w->c.cache_max == 0 || session_len(s) < CACHE_PREFIX_MIN) {
        engine_session_close(s);
        return;
    }
    if (w->n_cached == w->c.cache_max) evict(w, oldest_cached(w, NULL));
    w->cache[w->n_cached++] = (struct cached){s, w->own.steps};
}

static void end_running(struct worker *w, uint32_t i, enum wire_reason reason,
                        const struct err *error)
{
    struct running *r = &w->running[i];
    if (error)
        engine_session_close(r->session);
    else
        retire_session(w, r->session);
    finish_job(w, r->job, r->produced, reason, error);
    w->running[i] = w->running[--w->n_running];
}

/* Positions a job fills when all tokens that it may bring come. */
static uint32_t end_of(const struct worker *w, const struct job *job, uint32_t tokens_max)
{
    uint32_t max = worker_positions_max(w);
    return tokens_max < max - job->n_tokens ? job->n_tokens + tokens_max : max;
}

/* Pages that the running jobs may still take. Sharing can only make it fewer. */
static uint32_t pages_promised(const struct worker *w)
{
    uint32_t pages = 0;
    for (uint32_t i = 0; i < w->n_running; i++) {
        const struct running *r = &w->running[i];
        pages += pages_of(end_of(w, r->job, r->granted)) - pages_of(session_len(r->session));
    }
    return pages;
}

static uint32_t common_prefix(const struct session *s, const struct job *job)
{
    uint32_t n = session_len(s), i = 0;
    const int32_t *tokens = session_tokens(s);
    n = n < job->n_tokens - 1 ? n : job->n_tokens - 1; /* one must be left to compute logits from */
    while (i < n && tokens[i] == job->tokens[i])
        i++;
    return i;
}

static struct cached *best_cached(struct worker *w, const struct job *job, uint32_t *ret_len)
{
    struct cached *best = NULL;
    *ret_len = CACHE_PREFIX_MIN - 1;
    for (uint32_t i = 0; i < w->n_cached; i++) {
        uint32_t n = common_prefix(w->cache[i].session, job);
        if (n > *ret_len) {
            *ret_len = n;
            best = &w->cache[i];
        }
    }
    return best;
}

/* Make `need` pages free that nobody was promised, giving up cached sessions but `keep`, the least
 * recently used first; false: not now. */
static bool make_room(struct worker *w, uint32_t need, const struct session *keep)
{
    while (engine_kv_pages_free(w->engine) < pages_promised(w) + need) {
        uint32_t victim = oldest_cached(w, keep);
        if (victim == UINT32_MAX) return false;
        evict(w, victim);
    }
    return true;
}

/* A budget that grew needs pages too. What cannot be had now is not granted: that stream ends with
 * its budget, instead of failing the step for everybody. */
static void extend_grants(struct worker *w)
{
    for (uint32_t i = 0; i < w->n_running; i++) {
        struct running *r = &w->running[i];
        uint32_t wish = atomic_load(&r->job->tokens_max);
        if (wish <= r->granted) continue;
        uint32_t before = pages_of(end_of(w, r->job, r->granted));
        uint32_t more = pages_of(end_of(w, r->job, wish)) - before;
        if (make_room(w, more, NULL)) {
            r->granted = wish;
            continue;
        }
        uint32_t spare = engine_kv_pages_free(w->engine) - pages_promised(w);
        r->granted = (before + spare) * PAGE - r->job->n_tokens; /* more than fits: below `wish` */
    }
}

/* Open the job's session over whatever prefix is cached; its length is what was found. */
static int open_session(struct worker *w, const struct job *job, uint32_t granted,
                        struct session **ret_session, struct err *e)
{
    uint32_t n, need = pages_of(end_of(w, job, granted));
    struct cached *from = best_cached(w, job, &n);
    struct session *source = from ? from->session : NULL;
    if (from) from->used = w->own.steps;
    if (!make_room(w, need, source) && (!source || !make_room(w, need, NULL))) return ERR_BUSY;
    struct session *s;
    int code = engine_session_open(w->engine, &s, e);
    if (code) return code;
    bool still = false;
    for (uint32_t i = 0; i < w->n_cached; i++)
        still = still || w->cache[i].session == source;
    struct err ignored;
    if (source && still && session_share(s, source, n, &ignored) != 0)
        session_cut(s, 0); /* no page to copy into: prefill it all */
    session_set_sampling(s, &job->sampling);
    *ret_session = s;
    return 0;
}

/* Move waiting jobs into work while there is room. */
static void admit(struct worker *w)
{
    while (w->n_waiting > 0 && w->n_running < w->c.streams_max) {
        struct job *job = w->waiting[w->first_waiting];
        struct session *s = NULL;
        struct err e = ERR_INIT;
        uint32_t granted = atomic_load(&job->tokens_max);
        int code = job->n_tokens < worker_positions_max(w)
                       ? open_session(w, job, granted, &s, &e)
                       : err_set(&e, ERR_LIMIT, "the prompt does not fit the KV memory");
        if (code == ERR_BUSY && w->n_running > 0) return;
        w->first_waiting = (w->first_waiting + 1) % w->waiting_cap;
        w->n_waiting--;
        if (code) {
            if (code == ERR_BUSY)
                err_set(&e, ERR_NO_MEMORY, "the request needs more KV memory than the server has");
            finish_job(w, job, 0, WIRE_CANCEL, &e);
            continue;
        }
        uint32_t cached = session_len(s);
        w->running[w->n_running++] = (struct running){.job = job,
                                                      .session = s,
                                                      .fed = cached,
                                                      .granted = granted,
                                                      .next = -1,
                                                      .arrived = w->arrivals++};
        w->own.cached_tokens += cached;
        send_event(w, (struct job_event){.kind = JOB_ADMITTED, .job = job, .cached = cached});
    }
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

static void drop_unwanted(struct worker *w)
{
    uint64_t now = clock_us();
    enum wire_reason reason;
    for (uint32_t i = w->n_running; i-- > 0;)
        if (must_leave(w->running[i].job, now, &reason)) end_running(w, i, reason, NULL);
    for (uint32_t n = w->n_waiting; n > 0; n--) { /* once around the ring, keeping the order */
        struct job *job = w->waiting[w->first_waiting];
        w->first_waiting = (w->first_waiting + 1) % w->waiting_cap;
        w->n_waiting--;
        if (must_leave(job, now, &reason))
            finish_job(w, job, 0, reason, NULL);
        else
            w->waiting[(w->first_waiting + w->n_waiting++) % w->waiting_cap] = job;
    }
}

/* Spans of the next step; 0 when there is nothing to do. */
static uint32_t plan_step(struct worker *w, uint32_t *ret_tokens)
{
    const struct engine_info *info = engine_info(w->engine);
    struct sched_limits limits = {w->c.step_tokens, w->c.prefill_beside, ENGINE_SPANS_MAX};
    for (uint32_t i = 0; i < w->n_running; i++) {
        const struct running *r = &w->running[i];
        w->items[i] = (struct sched_item){
            .waiting = r->job->n_tokens - r->fed, .arrived = r->arrived, .served = r->served};
    }
    CHECK(limits.step_tokens <= info->step_tokens_max);
    *ret_tokens = sched_step(w->items, w->n_running, &limits);
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->n_running; i++) {
        struct running *r = &w->running[i];
        uint32_t given = w->items[i].given;
        if (given == 0) continue;
        bool prefill = r->fed < r->job->n_tokens;
        w->span_of[n] = i;
        w->spans[n++] =
            (struct engine_span){.session = r->session,
                                 .tokens = prefill ? r->job->tokens + r->fed : &r->next,
                                 .n = given,
                                 .sample = !prefill || r->fed + given == r->job->n_tokens};
    }
    return n;
}

/* What became of one span. Returns false when the job is over. */
static bool take_result(struct worker *w, struct running *r, const struct engine_span *span,
                        enum wire_reason *ret_reason)
{
    if (r->fed < r->job->n_tokens) {
        r->fed += span->n;
        w->own.prefill_tokens += span->n;
        send_event(
            w, (struct job_event){
                   .kind = JOB_PROGRESS, .job = r->job, .done = r->fed, .total = r->job->n_tokens});
    } else {
        w->own.decode_tokens++;
    }
    if (!span->sample) return true;
    *ret_reason = WIRE_STOP;
    if (vocab_is_end(engine_vocab(w->engine), span->next)) return false;
    r->next = span->next;
    send_event(w, (struct job_event){.kind = JOB_TOKEN,
                                     .job = r->job,
                                     .index = r->job->n_have + r->produced,
                                     .token = span->next});
    r->produced++;
    *ret_reason = WIRE_LENGTH;
    if (r->job->n_tokens + r->produced >= worker_positions_max(w)) return false;
    *ret_reason = WIRE_BUDGET;
    return r->produced < r->granted && r->produced < atomic_load(&r->job->tokens_max);
}

static void note_speed(struct worker *w, uint32_t tokens, uint64_t us)
{
    if (tokens < PAGE || us == 0) return;
    uint64_t tps = tokens * 1000000ull / us;
    uint64_t mean = w->own.prefill_tps;
    mean = mean ? (mean * (TPS_WEIGHT - 1) + tps) / TPS_WEIGHT : tps;
    w->own.prefill_tps = mean < UINT32_MAX ? (uint32_t)mean : UINT32_MAX;
}

/* The engine refused the whole step: the jobs in it cannot go on. */
static void fail_step(struct worker *w, uint32_t n, const struct err *e)
{
    for (uint32_t k = n; k-- > 0;)
        end_running(w, w->span_of[k], WIRE_CANCEL, e);
}

static void step(struct worker *w)
{
    uint32_t tokens, n = plan_step(w, &tokens);
    struct err e = ERR_INIT;
    uint64_t begin = clock_us();
    if (n == 0) return;
    int code = engine_step(w->engine, w->spans, n, &e);
    w->own.steps++;
    if (code) {
        fail_step(w, n, &e);
        return;
    }
    note_speed(w, tokens, clock_us() - begin);
    for (uint32_t k = n; k-- > 0;) { /* downwards: end_running moves the last one into the gap */
        struct running *r = &w->running[w->span_of[k]];
        enum wire_reason reason = WIRE_STOP;
        r->served = w->own.steps;
        if (!take_result(w, r, &w->spans[k], &reason)) end_running(w, w->span_of[k], reason, NULL);
    }
}

static void publish_stats(struct worker *w)
{
    w->own.running = w->n_running;
    w->own.waiting = w->n_waiting;
    w->own.kv_pages_free = engine_kv_pages_free(w->engine);
    w->own.kv_pages_cached = 0;
    for (uint32_t i = 0; i < w->n_cached; i++)
        w->own.kv_pages_cached += pages_of(session_len(w->cache[i].session));
    pthread_mutex_lock(&w->stats_mutex);
    w->stats = w->own;
    pthread_mutex_unlock(&w->stats_mutex);
}

static void receive_jobs(struct worker *w)
{
    bool idle = w->n_running == 0 && w->n_waiting == 0;
    struct job *job = idle ? queue_pop(w->jobs, UINT64_MAX) : queue_try_pop(w->jobs);
    for (; job; job = queue_try_pop(w->jobs)) {
        CHECK(w->n_waiting < w->waiting_cap);
        w->waiting[(w->first_waiting + w->n_waiting++) % w->waiting_cap] = job;
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    while (!atomic_load(&w->quit)) {
        receive_jobs(w);
        drop_unwanted(w);
        extend_grants(w);
        admit(w);
        publish_stats(w);
        step(w);
        publish_stats(w);
    }
    while (w->n_running > 0)
        end_running(w, w->n_running - 1, WIRE_DRAIN, NULL);
    while (w->n_cached > 0)
        evict(w, w->n_cached - 1);
    return NULL;
}

static void fill_config(struct worker *w, const struct worker_config *config)
{
    uint32_t max = engine_info(w->engine)->step_tokens_max;
    w->c = *config;
    if (w->c.step_tokens == 0 || w->c.step_tokens > max) w->c.step_tokens = max;
    if (w->c.prefill_beside == 0)
        w->c.prefill_beside = w->c.step_tokens / 4 > PAGE ? w->c.step_tokens / 4 : PAGE;
    if (w->c.streams_max == 0 || w->c.streams_max > WORKER_STREAMS_MAX)
        w->c.streams_max = WORKER_STREAMS_MAX;
    if (w->c.cache_max > WORKER_CACHE_MAX) w->c.cache_max = WORKER_CACHE_MAX;
    w->waiting_cap = w->c.streams_max + w->c.queue_max + 1;
}

int worker_new(struct engine *engine, const struct worker_config *config,
               struct worker **ret_worker, struct err *e)
{
    struct worker *w = mem_calloc(1, sizeof *w);
    if (!w) return err_set(e, ERR_NO_MEMORY, "no memory for the engine thread");
    w->engine = engine;
    fill_config(w, config);
    pthread_mutex_init(&w->stats_mutex, NULL);
    uint32_t events = w->c.streams_max * EVENTS_PER_STREAM;
    w->waiting = mem_calloc(w->waiting_cap, sizeof(struct job *));
    int code = w->waiting ? queue_new(w->waiting_cap, NULL, NULL, &w->jobs, e)
                          : err_set(e, ERR_NO_MEMORY, "no memory for the engine thread");
    if (code == 0) code = queue_new(events, config->wake, config->wake_arg, &w->events, e);
    w->own.kv_pages_free = engine_kv_pages_free(engine);
    w->stats = w->own;
    if (code == 0 && pthread_create(&w->thread, NULL, worker_main, w) != 0)
        code = err_set(e, ERR_NO_MEMORY, "the engine thread cannot be started");
    if (code) {
        queue_free(w->jobs);
        queue_free(w->events);
        mem_free(w->waiting);
        mem_free(w);
        return code;
    }
    *ret_worker = w;
    return 0;
}

void worker_free(struct worker *w)
{
    if (!w) return;
    atomic_store(&w->quit, true);
    queue_close(w->jobs);
    pthread_join(w->thread, NULL);
    struct job_event *ev;
    while ((ev = queue_try_pop(w->events)) != NULL)
        mem_free(ev);
    queue_free(w->jobs);
    queue_free(w->events);
    pthread_mutex_destroy(&w->stats_mutex);
    engine_free(w->engine);
    mem_free(w->waiting);
    mem_free(w);
}

int worker_submit(struct worker *w, struct job *job)
{
    if (atomic_fetch_add(&w->submitted, 1) >= w->c.streams_max + w->c.queue_max) {
        atomic_fetch_sub(&w->submitted, 1);
        return ERR_BUSY;
    }
    int code = queue_push(w->jobs, job);
    if (code) atomic_fetch_sub(&w->submitted, 1);
    return code;
}

struct job_event *worker_take_event(struct worker *w)
{
    return queue_try_pop(w->events);
}

void worker_stats_of(struct worker *w, struct worker_stats *ret_stats)
{
    pthread_mutex_lock(&w->stats_mutex);
    *ret_stats = w->stats;
    pthread_mutex_unlock(&w->stats_mutex);
}

uint32_t worker_positions_max(const struct worker *w)
{
    const struct engine_info *info = engine_info(w->engine);
    uint64_t memory = (uint64_t)info->kv_pages_total * PAGE;
    return memory < info->context_max ? (uint32_t)memory : info->context_max;
}

const struct engine_info *worker_engine_info(const struct worker *w)
{
    return engine_info(w->engine);
}

const struct vocab *worker_vocab(const struct worker *w)
{
    return engine_vocab(w->engine);
}

const struct chat_template *worker_template(const struct worker *w)
{
    return engine_template(w->engine);
}
