/* worker: the thread, its queues and what others may ask; see worker.h. */
#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cloud/work/worker_impl.h"

enum { EVENTS_PER_STREAM = 8 };

static struct worker *worker_of(struct backend *b)
{
    return (struct worker *)b;
}

/* An event must not be lost: while as many wait as may, so does the worker. The loop thread, which
 * takes them, never waits for the worker. */
void worker_send(struct worker *w, struct job_event ev)
{
    ev.at = clock_us();
    (void)queue_push_wait(w->events, &ev); /* ERR_CANCELLED: the worker is being freed */
}

void worker_finish(struct worker *w, struct job *job, const struct running *r,
                   enum wire_reason reason, const struct err *error)
{
    struct job_event ev = {.kind = JOB_DONE, .job = job, .reason = reason};
    if (r) {
        ev.produced = r->produced;
        ev.cached = r->cached;
    }
    if (error) {
        job->failure = (struct job_failure){.e = *error};
        ev.failure = &job->failure;
    }
    worker_release_choices(w, job);
    slots_leave(&w->inside, job->tenant);
    worker_send(w, ev);
}

void worker_release_choices(struct worker *w, struct job *job)
{
    if (!job->next) return;
    struct job *last = job->next;
    while (last->next)
        last = last->next;
    last->next = w->released;
    w->released = job->next;
    job->next = NULL;
}

uint32_t worker_tenant(const struct job *job)
{
    return job->tenant % SCHED_TENANTS_MAX; /* beyond that, two share an account */
}

uint32_t worker_scope(const struct worker *w, const struct job *job)
{
    return w->c.cache_by_tenant ? job->tenant : 0;
}

static void publish_stats(struct worker *w)
{
    struct admit_load load = {admit_waiting(w->line), w->line_tokens + w->prefill_left,
                              w->cost.prefill_us, w->between_ends_us};
    w->own.running = w->n_running;
    w->own.waiting = load.waiting;
    w->own.kv_pages_free = engine_kv_pages_free(w->engine);
    w->own.kv_pages_cached = prefix_idle(w->prefix);
    w->own.cache_evictions = prefix_evictions(w->prefix);
    w->own.step_tokens = w->c.step_tokens;
    w->own.retry_after_s = admit_retry_s(&load);
    pthread_mutex_lock(&w->stats_mutex);
    w->stats = w->own;
    pthread_mutex_unlock(&w->stats_mutex);
}

static void join_released(struct worker *w)
{
    for (struct job *job; (job = w->released) != NULL;) {
        w->released = job->next;
        job->next = NULL;
        admit_rejoin(w->line, job, worker_tenant(job), job->priority);
        w->line_tokens += job->n_tokens;
    }
}

static void receive_jobs(struct worker *w)
{
    join_released(w);
    bool idle = w->n_running == 0 && admit_waiting(w->line) == 0;
    struct job *job;
    bool any = idle ? queue_pop(w->jobs, &job, UINT64_MAX) : queue_try_pop(w->jobs, &job);
    for (; any; any = queue_try_pop(w->jobs, &job)) {
        if (job->n_have > 0)
            admit_rejoin(w->line, job, worker_tenant(job), job->priority);
        else
            admit_join(w->line, job, worker_tenant(job), job->priority);
        w->line_tokens += job->n_tokens;
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    while (!atomic_load(&w->quit)) {
        receive_jobs(w);
        worker_drop_unwanted(w);
        worker_extend_grants(w);
        worker_admit(w);
        publish_stats(w);
        worker_step(w);
        publish_stats(w);
    }
    while (w->n_running > 0)
        worker_end(w, w->n_running - 1, WIRE_DRAIN, NULL);
    CHECK(w->promised == 0);
    return NULL;
}

static void fill_config(struct worker *w, const struct worker_config *config)
{
    const struct engine_info *info = engine_info(w->engine);
    uint32_t max = info->step_tokens_max;
    w->c = *config;
    if (w->c.step_tokens == 0 || w->c.step_tokens > max) w->c.step_tokens = max;
    if (w->c.step_us == 0) w->c.step_us = WORKER_STEP_US;
    if (w->c.prefill_beside == 0) w->c.prefill_beside = w->c.step_tokens;
    if (w->c.streams_max == 0 || w->c.streams_max > WORKER_STREAMS_MAX)
        w->c.streams_max = WORKER_STREAMS_MAX;
    if (w->c.cache_pages > info->kv_pages_total) w->c.cache_pages = info->kv_pages_total;
    atomic_store(&w->slots_now, w->c.streams_max);
}

static void release(struct worker *w)
{
    queue_free(w->jobs);
    queue_free(w->events);
    admit_line_free(w->line);
    prefix_close(w->prefix);
    sched_free(w->sched);
    pthread_mutex_destroy(&w->stats_mutex);
    mem_free(w->spans);
    mem_free(w->span_of);
    mem_free(w);
}

static int open_parts(struct worker *w, struct err *e)
{
    uint32_t jobs = w->c.streams_max + w->c.queue_max + 1;
    uint32_t spans = engine_info(w->engine)->spans_max;
    w->spans = mem_calloc(spans, sizeof *w->spans);
    w->span_of = mem_calloc(spans, sizeof *w->span_of);
    if (!w->spans || !w->span_of)
        return err_set(e, ERR_NO_MEMORY, "no memory for the engine thread");
    int code = queue_new(jobs, sizeof(struct job *), NULL, NULL, &w->jobs, e);
    if (code == 0)
        code = queue_new(w->c.streams_max * EVENTS_PER_STREAM, sizeof(struct job_event), w->c.wake,
                         w->c.wake_arg, &w->events, e);
    if (code == 0) code = admit_line_new(jobs, &w->line, e);
    if (code == 0) code = sched_new(&w->sched, e);
    if (code == 0) code = prefix_open(w->engine, w->c.cache_pages, &w->prefix, e);
    return code;
}

static void free_worker(struct backend *b)
{
    struct worker *w = worker_of(b);
    struct engine *engine = w->engine;
    atomic_store(&w->quit, true);
    queue_close(w->jobs);
    queue_close(w->events);
    pthread_join(w->thread, NULL);
    release(w);
    engine_free(engine);
}

static struct slots_room room_of(struct worker *w)
{
    return (struct slots_room){.slots = atomic_load(&w->slots_now),
                               .slots_max = w->c.streams_max,
                               .queue_max = w->c.queue_max};
}

static const char *not_ready(struct backend *b)
{
    struct worker *w = worker_of(b);
    return slots_full(&w->inside, room_of(w)) ? "busy" : NULL;
}

/* What is short: streams, or the KV memory for more of them. */
static int refuse_full(const struct worker *w, uint32_t slots, struct err *e)
{
    uint32_t all = atomic_load(&w->inside.all);
    if (slots < w->c.streams_max)
        return err_set(
            e, ERR_BUSY,
            "KV memory is taken by the requests in work (%u) and the queue (%u) is full; "
            "try again later",
            slots, all > slots ? all - slots : 0);
    return err_set(e, ERR_BUSY,
                   "all streams (%u) are taken and the queue (%u) is full; try again later", slots,
                   w->c.queue_max);
}

/* While memory is short, fewer than streams_max run. */
static int enter(struct worker *w, const struct job *job, struct err *e)
{
    struct slots_room room = room_of(w);
    switch (slots_enter(&w->inside, room, job->tenant)) {
    case ADMIT_FULL:
        return refuse_full(w, room.slots, e);
    case ADMIT_SHARE_TAKEN:
        return err_set(e, ERR_BUSY,
                       "this key has its share, %u requests in work or waiting; try again later",
                       admit_share(room.slots, room.queue_max));
    case ADMIT_ENTERS:
        break;
    }
    return 0;
}

static int submit(struct backend *b, struct job *job, struct err *e)
{
    struct worker *w = worker_of(b);
    const struct job *next = job;
    int code = 0;
    while (next && (code = enter(w, next, e)) == 0)
        next = next->next;
    if (!code && queue_push(w->jobs, &job))
        code = err_set(e, ERR_BUSY, "the engine takes no more requests now; try again later");
    if (!code) return 0;
    for (const struct job *j = job; j != next; j = j->next)
        slots_leave(&w->inside, j->tenant);
    return code;
}

static bool take_event(struct backend *b, struct job_event *ret_event)
{
    return queue_try_pop(worker_of(b)->events, ret_event);
}

static void stats_of(struct backend *b, struct backend_stats *ret_stats)
{
    struct worker *w = worker_of(b);
    pthread_mutex_lock(&w->stats_mutex);
    *ret_stats = w->stats;
    pthread_mutex_unlock(&w->stats_mutex);
}

/* The context, or what all KV memory holds. */
static uint32_t positions_max(const struct engine_info *info)
{
    uint64_t memory = (uint64_t)info->kv_pages_total * ENGINE_PAGE;
    return memory < info->context_max ? (uint32_t)memory : info->context_max;
}

static void fill_backend(struct worker *w)
{
    static const struct backend_ops ops = {.submit = submit,
                                           .take_event = take_event,
                                           .not_ready = not_ready,
                                           .stats = stats_of,
                                           .free = free_worker};
    w->b = (struct backend){.ops = &ops,
                            .info = engine_info(w->engine),
                            .vocab = engine_vocab(w->engine),
                            .chat_template = engine_template(w->engine),
                            .positions_max = positions_max(engine_info(w->engine)),
                            .jobs_max = admit_share(w->c.streams_max, w->c.queue_max),
                            .takes_ids = true,
                            .refines = engine_scores(w->engine),
                            .gives_logprobs = true,
                            .gives_choices = true};
}

int worker_new(struct engine *engine, const struct worker_config *config,
               struct backend **ret_backend, struct err *e)
{
    struct worker *w = mem_calloc(1, sizeof *w);
    if (!w) return err_set(e, ERR_NO_MEMORY, "no memory for the engine thread");
    w->engine = engine;
    fill_config(w, config);
    fill_backend(w);
    pthread_mutex_init(&w->stats_mutex, NULL);
    int code = open_parts(w, e);
    if (code == 0) publish_stats(w);
    if (code == 0 && pthread_create(&w->thread, NULL, worker_main, w) != 0)
        code = err_set(e, ERR_NO_MEMORY, "the engine thread cannot be started");
    if (code) {
        release(w);
        return code;
    }
    *ret_backend = &w->b;
    return 0;
}
