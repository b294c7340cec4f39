/* local: see local.h. */
#include "device/local.h"

#include <pthread.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "model/text/vocab.h"

enum { MEASURE_STEPS = 4 };

struct feed {
    uint32_t from, n;
    uint64_t generation;
    struct sampling sampling;
    int32_t *tokens; /* [context_max], owned by `struct local`, reused from job to job */
};

struct local {
    struct engine *engine;
    struct session *session;
    uint32_t chunk; /* the engine thread's */
    void (*wake)(void *arg);
    void *arg;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under the lock */
    struct feed next; /* waits to be taken, when `pending` */
    struct feed now;  /* the engine thread's while `running` */
    bool pending, running, closing, have_progress, have_end;
    uint64_t generation; /* of the newest job; cancelling makes a newer one */
    uint32_t progress;
    struct local_event end;
};

static bool is_current(struct local *w, const struct feed *j)
{
    pthread_mutex_lock(&w->lock);
    bool current = j->generation == w->generation && !w->closing;
    pthread_mutex_unlock(&w->lock);
    return current;
}

static void tell(struct local *w, const struct feed *j, const struct local_event *ev)
{
    pthread_mutex_lock(&w->lock);
    bool current = j->generation == w->generation;
    if (current && ev->kind == LOCAL_PROGRESS) {
        w->progress = ev->kv;
        w->have_progress = true;
    } else if (current) {
        w->end = *ev;
        w->have_end = true;
    }
    pthread_mutex_unlock(&w->lock);
    if (current) w->wake(w->arg);
}

/* Tokens of the next step. A rest of one would be a whole decode step on a device: leave two. */
static uint32_t chunk_of(const struct local *w, uint32_t left)
{
    if (left <= w->chunk) return left;
    return left - w->chunk == 1 ? w->chunk - 1 : w->chunk;
}

static void adapt_chunk(struct local *w, uint32_t n, uint64_t us)
{
    if (n < LOCAL_CHUNK_MIN) return;
    uint64_t ideal = us > 0 ? (uint64_t)n * LOCAL_CHUNK_US / us : UINT32_MAX;
    uint64_t most = engine_info(w->engine)->step_tokens_max;
    ideal = ideal > 2 * (uint64_t)w->chunk ? 2 * (uint64_t)w->chunk : ideal;
    ideal -= ideal % LOCAL_CHUNK_MIN;
    ideal = ideal < LOCAL_CHUNK_MIN ? LOCAL_CHUNK_MIN : ideal;
    w->chunk = (uint32_t)(ideal > most ? most : ideal);
}

static int step(struct local *w, const int32_t *tokens, uint32_t n, bool sample,
                struct local_event *ev)
{
    struct engine_span span = {.session = w->session, .tokens = tokens, .n = n, .sample = sample};
    uint64_t begin = clock_us();
    int code = engine_step(w->engine, &span, 1, &ev->why);
    if (code) return code;
    adapt_chunk(w, n, clock_us() - begin);
    ev->kv = session_len(w->session);
    ev->id = span.next;
    return 0;
}

static void run_feed(struct local *w, const struct feed *j)
{
    struct local_event ev = {.kind = LOCAL_PROGRESS};
    uint32_t done = 0;
    if (session_len(w->session) < j->from) {
        ev.kind = LOCAL_FAILED;
        err_set(&ev.why, ERR_INTERNAL, "the KV cache holds %u positions, a job starts at %u",
                session_len(w->session), j->from);
        tell(w, j, &ev);
        return;
    }
    session_cut(w->session, j->from);
    session_set_sampling(w->session, &j->sampling);
    while (done < j->n && is_current(w, j)) {
        uint32_t n = chunk_of(w, j->n - done);
        int code = step(w, j->tokens + done, n, done + n == j->n, &ev);
        done += n;
        if (code) {
            bool full = j->from + j->n > engine_info(w->engine)->context_max;
            ev.kind = code == ERR_LIMIT && full ? LOCAL_FULL : LOCAL_FAILED;
        } else if (done == j->n) {
            ev.kind = LOCAL_TOKEN;
            ev.is_end = vocab_is_end(engine_vocab(w->engine), ev.id);
        }
        tell(w, j, &ev);
        if (code) return;
    }
}

static void *local_main(void *arg)
{
    struct local *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->closing) {
        if (!w->pending) {
            pthread_cond_wait(&w->changed, &w->lock);
            continue;
        }
        struct feed taken = w->next;
        w->next.tokens = w->now.tokens;
        w->now = taken;
        w->pending = false;
        w->running = true;
        pthread_mutex_unlock(&w->lock);
        run_feed(w, &w->now);
        pthread_mutex_lock(&w->lock);
        w->running = false;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void release(struct local *w)
{
    engine_session_close(w->session);
    mem_free(w->next.tokens);
    mem_free(w->now.tokens);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    mem_free(w);
}

int local_new(struct engine *engine, void (*wake)(void *arg), void *arg, struct local **ret_local,
              struct err *e)
{
    struct local *w = mem_calloc(1, sizeof *w);
    if (!w) return err_set(e, ERR_NO_MEMORY, "no memory for the engine's thread");
    const struct engine_info *info = engine_info(engine);
    w->engine = engine;
    w->wake = wake;
    w->arg = arg;
    w->chunk =
        LOCAL_CHUNK_FIRST < info->step_tokens_max ? LOCAL_CHUNK_FIRST : info->step_tokens_max;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    /* one token more than fits, so that a full context is the engine's finding */
    w->next.tokens = mem_alloc((info->context_max + 1u) * sizeof(int32_t));
    w->now.tokens = mem_alloc((info->context_max + 1u) * sizeof(int32_t));
    int code = w->next.tokens && w->now.tokens
                   ? engine_session_open(engine, &w->session, e)
                   : err_set(e, ERR_NO_MEMORY, "no memory for the engine's thread");
    if (code == 0 && pthread_create(&w->thread, NULL, local_main, w) != 0)
        code = err_set(e, ERR_NO_MEMORY, "the engine's thread cannot be started");
    if (code) {
        release(w);
        return code;
    }
    *ret_local = w;
    return 0;
}

void local_free(struct local *w)
{
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->closing = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    struct engine *engine = w->engine;
    release(w);
    engine_free(engine);
}

uint32_t local_prefix(struct local *w, const int32_t *tokens, uint32_t n)
{
    pthread_mutex_lock(&w->lock);
    while (w->running || w->pending)
        pthread_cond_wait(&w->changed, &w->lock);
    const int32_t *held = session_tokens(w->session);
    uint32_t len = session_len(w->session), same = 0;
    while (same < n && same < len && held[same] == tokens[same])
        same++;
    pthread_mutex_unlock(&w->lock);
    return same;
}

int local_feed(struct local *w, uint32_t from, const int32_t *tokens, uint32_t n,
               const struct sampling *sampling, struct err *e)
{
    uint32_t most = engine_info(w->engine)->context_max + 1;
    CHECK(n > 0);
    if (n > most)
        return err_set(e, ERR_LIMIT, "%u tokens do not fit the context of %u", n, most - 1);
    pthread_mutex_lock(&w->lock);
    CHECK(!w->pending);
    w->next.from = from;
    w->next.n = n;
    w->next.sampling = *sampling;
    w->next.generation = ++w->generation;
    memcpy(w->next.tokens, tokens, n * sizeof *tokens);
    w->pending = true;
    w->have_progress = w->have_end = false;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return 0;
}

void local_cancel(struct local *w)
{
    pthread_mutex_lock(&w->lock);
    w->generation++;
    w->pending = w->have_progress = w->have_end = false;
    pthread_mutex_unlock(&w->lock);
}

bool local_take(struct local *w, struct local_event *ret_event)
{
    pthread_mutex_lock(&w->lock);
    bool any = w->have_progress || w->have_end;
    if (w->have_progress)
        *ret_event = (struct local_event){.kind = LOCAL_PROGRESS, .kv = w->progress};
    else if (w->have_end)
        *ret_event = w->end;
    if (w->have_progress)
        w->have_progress = false;
    else
        w->have_end = false;
    pthread_mutex_unlock(&w->lock);
    return any;
}

static int measure(struct engine *engine, struct session *s, double *ret_tps, double *ret_us,
                   struct err *e)
{
    const struct engine_info *info = engine_info(engine);
    int32_t tokens[LOCAL_CHUNK_FIRST];
    uint32_t n = LOCAL_CHUNK_FIRST;
    if (n > info->step_tokens_max) n = info->step_tokens_max;
    if (n + MEASURE_STEPS > info->context_max) n = 1;
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)(i % info->vocab_size);
    struct engine_span span = {.session = s, .tokens = tokens, .n = n, .sample = true};
    uint64_t begin = clock_us(), middle = begin;
    int code = engine_step(engine, &span, 1, e);
    for (uint32_t i = 0; code == 0 && i < MEASURE_STEPS && session_len(s) < info->context_max;
         i++) {
        if (i == 0) middle = clock_us();
        span.n = 1;
        code = engine_step(engine, &span, 1, e);
    }
    if (code) return code;
    uint64_t end = clock_us();
    *ret_tps = n * 1e6 / (double)(middle > begin ? middle - begin : 1);
    *ret_us = (double)(end > middle ? end - middle : 1) / MEASURE_STEPS;
    return 0;
}

int local_measure(struct engine *engine, double *ret_prefill_tps, double *ret_decode_us,
                  struct err *e)
{
    struct session *s;
    int code = engine_session_open(engine, &s, e);
    if (code) return code;
    code = measure(engine, s, ret_prefill_tps, ret_decode_us, e);
    engine_session_close(s);
    return code;
}
