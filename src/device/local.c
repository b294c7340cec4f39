/*
 * local: see local.h.
 *
 * The lock guards all but the step itself: the engine thread lets go of it only while it computes
 * (`stepping`) or has nothing to do, and computes from tokens that it has copied. So the loop
 * thread, under the lock, may read the cache, and while no step runs close a history.
 */
#include "device/local.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "device/kv_disk.h"
#include "engine/history.h"
#include "model/text/vocab.h"
#include "policy/admit.h"
#include "policy/sched.h"
#include "policy/stepcost.h"

enum { MEASURE_STEPS = 4 };

struct local_seat {
    struct local *local;
    uint32_t place; /* in local->seats */
    bool behind;
    struct history history; /* session NULL: not begun, dropped or preempted */
    int32_t *tokens;        /* [context_max + 1] what the history is to become */
    uint32_t n, keep;       /* of them; of the session, unless it is longer */
    struct sampling sampling;
    bool pausing;  /* the feed ends after the step that runs */
    bool feeding;  /* the session is to hold all of them; then sample */
    bool drop;     /* the session ends after the current step */
    bool in_step;  /* it has a span in the step that runs */
    bool parked;   /* it waits for KV memory */
    uint64_t feed; /* number of the feed, so that a step knows whether it was cancelled */
    char tag[KV_DISK_TAG_MAX], history_tag[KV_DISK_TAG_MAX]; /* of the tokens; of the session */
    bool forgotten;  /* the session: nothing of it is to be kept on disk */
    uint64_t begun;  /* order of beginning: the last one waits for memory first */
    uint64_t served; /* number of the step that served it last */
    bool have_progress, have_end;
    uint32_t progress;
    struct local_event end;
    int32_t *drawn;   /* [context_max + 1] of this feed, for positions from draw_at on */
    uint32_t n_draws; /* of the tokens, the last ones, that are drawn after */
    uint32_t draw_at; /* position of what the first of them gives */
    uint32_t n_drawn; /* of the feed so far, but for its last token */
    uint32_t n_taken; /* of them, those that an event told */
};

/* A seat's part of the step that runs. */
struct part {
    struct local_seat *seat;
    uint64_t feed;
    uint32_t at; /* of its tokens, in local->copied */
    bool prefill;
};

struct local {
    struct engine *engine;
    struct prefix *prefix;
    struct kv_disk *disk;          /* NULL: none */
    uint32_t saving, saving_pages; /* histories whose pages the disk reads, and how many pages */
    struct sched *sched;
    struct stepcost cost;
    void (*wake)(void *arg);
    void *arg;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stepping, closing;
    bool short_of_pages;    /* the step that is planned finds too few */
    uint32_t positions_max; /* the context, or what all KV memory holds */
    struct local_seat *seats[LOCAL_SEATS_MAX];
    uint32_t n_seats;
    uint64_t begun;
    struct local_stats stats;
    /* of the step */
    struct sched_item items[LOCAL_SEATS_MAX];
    struct engine_span spans[LOCAL_SEATS_MAX];
    struct part parts[LOCAL_SEATS_MAX];
    int32_t *copied; /* [step_tokens_max] */
    int32_t draws[LOCAL_SEATS_MAX * LOCAL_DRAWS_MAX];
};

/* ---- events ---- */

static void end_feed(struct local_seat *s, const struct local_event *ev)
{
    s->feeding = s->parked = s->pausing = false;
    s->end = *ev;
    s->have_end = true;
    s->local->wake(s->local->arg);
}

static void tell_progress(struct local_seat *s, uint32_t kv)
{
    s->progress = kv;
    s->have_progress = true;
    s->local->wake(s->local->arg);
}

/* ---- pages on disk ---- */

/* What one history gives to the disk. Its pages stay held, and so unchanged, until they are
 * written. */
struct save {
    struct local *local;
    uint32_t path, n_path;
};

static void saved(void *arg)
{
    struct save *v = arg;
    struct local *w = v->local;
    pthread_mutex_lock(&w->lock);
    prefix_release(w->prefix, v->path); /* all pages may be idle, so none is evicted by this */
    w->saving--;
    w->saving_pages -= v->n_path;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    mem_free(v);
}

/* The keys of all pages of a path, and those pages that the disk lacks, in order; returns how many.
 */
static uint32_t pages_to_save(struct local *w, const struct history *h, struct kv_disk_page *pages,
                              struct kv_key *keys)
{
    uint32_t at = h->path, n = 0;
    for (uint32_t i = h->n_path; i-- > 0; at = prefix_before(w->prefix, at)) {
        pages[i].depth = i;
        memcpy(pages[i].tokens, prefix_tokens(w->prefix, at), sizeof pages[i].tokens);
        pages[i].data = engine_page_data(w->engine, prefix_page(w->prefix, at));
    }
    for (uint32_t i = 0; i < h->n_path; i++) {
        kv_disk_key(w->disk, i ? &keys[i - 1] : NULL, pages[i].tokens, &keys[i]);
        if (kv_disk_has(w->disk, &keys[i])) continue;
        if (n != i) pages[n] = pages[i];
        pages[n++].key = keys[i];
    }
    return n;
}

/* Writing keeps memory from other histories: at most half of it. */
static bool may_save(const struct local *w, const struct history *h)
{
    return w->disk && h->n_path > 0 &&
           w->saving_pages + h->n_path <= engine_info(w->engine)->kv_pages_total / 2;
}

/* Told before the pages are written. */
static void tell_use(struct local *w, const char *tag, struct kv_disk_use *use, uint32_t n)
{
    if (!tag[0]) {
        mem_free(use);
        return;
    }
    snprintf(use->tag, sizeof use->tag, "%s", tag);
    use->n = n;
    kv_disk_put_use(w->disk, use);
    w->wake(w->arg);
}

static void save(struct local *w, const struct history *h, const char *tag)
{
    if (!may_save(w, h)) return;
    struct kv_disk_page *pages = mem_calloc(h->n_path, sizeof *pages);
    struct kv_disk_use *use = mem_calloc(1, sizeof *use + h->n_path * sizeof *use->keys);
    struct save *v = mem_calloc(1, sizeof *v);
    uint32_t n = pages && use && v ? pages_to_save(w, h, pages, use->keys) : 0;
    if (v) *v = (struct save){w, h->path, h->n_path};
    if (pages && use && v)
        tell_use(w, tag, use, h->n_path);
    else
        mem_free(use);
    if (n > 0) {
        prefix_hold(w->prefix, h->path);
        w->saving++;
        w->saving_pages += h->n_path;
        if (kv_disk_write(w->disk, pages, n, saved, v, NULL) == 0) return;
        prefix_release(w->prefix, h->path);
        w->saving--;
        w->saving_pages -= h->n_path;
    }
    mem_free(pages);
    mem_free(v);
}

/* The page after those that a history has, from disk into the cache. False: it is not there, or
 * there is no memory for it. */
static bool load_next(struct local *w, const struct history *h, const int32_t *tokens,
                      struct kv_key *key)
{
    const int32_t *of_page = tokens + (size_t)h->n_path * ENGINE_PAGE;
    uint32_t page;
    kv_disk_key(w->disk, h->n_path ? key : NULL, of_page, key);
    if (!kv_disk_has(w->disk, key) || !prefix_room(w->prefix) ||
        engine_page_new(w->engine, &page, NULL))
        return false;
    if (kv_disk_read(w->disk, key, h->n_path, of_page, engine_page_data(w->engine, page), NULL)) {
        engine_page_drop(w->engine, page);
        return false;
    }
    uint32_t at = prefix_put(w->prefix, h->scope, h->path, page, of_page);
    if (at == PREFIX_NONE) return false;
    prefix_release_last(w->prefix, at); /* the history takes it from there */
    w->stats.loaded_pages++;
    return true;
}

/* Take from the cache, and what it lacks from the disk. Returns the tokens gained. */
static uint32_t follow(struct local *w, struct history *h, const int32_t *tokens, uint32_t n)
{
    uint32_t gained = history_follow(h, tokens, n);
    struct kv_key key;
    if (!w->disk || session_len(h->session) != h->n_path * ENGINE_PAGE) return gained;
    for (uint32_t i = 0; i < h->n_path; i++)
        kv_disk_key(w->disk, i ? &key : NULL, tokens + (size_t)i * ENGINE_PAGE, &key);
    while ((h->n_path + 1) * ENGINE_PAGE < n && load_next(w, h, tokens, &key)) {
        uint32_t more = history_follow(h, tokens, n);
        if (more != ENGINE_PAGE) break;
        gained += more;
    }
    return gained;
}

/* Of tokens[n], those that the cache or the disk has. */
static uint32_t count_cached(struct local *w, const int32_t *tokens, uint32_t n)
{
    uint32_t cached = prefix_count(w->prefix, 0, tokens, n), pages = cached / ENGINE_PAGE, i = 0;
    struct kv_key key;
    if (!w->disk) return cached;
    for (; (i + 1) * ENGINE_PAGE <= n; i++) {
        kv_disk_key(w->disk, i ? &key : NULL, tokens + (size_t)i * ENGINE_PAGE, &key);
        if (i >= pages && !kv_disk_has(w->disk, &key)) break;
    }
    return i > pages ? i * ENGINE_PAGE : cached;
}

/* ---- sessions ---- */

static void drop(struct local_seat *s)
{
    if (s->history.session && !s->forgotten) save(s->local, &s->history, s->history_tag);
    history_close(&s->history, true);
    s->drop = false;
}

static uint32_t pages_spare(const struct local *w)
{
    return engine_kv_pages_free(w->engine) + prefix_idle(w->prefix);
}

/* Whether a seat without a session may begin: there is memory for what it has to hold, or no other
 * seat that would give some back. */
static bool may_begin(const struct local *w, const struct local_seat *s)
{
    uint32_t needed = admit_pages(s->n) + (s->parked ? LOCAL_SPARE_PAGES : 0);
    if (pages_spare(w) >= needed) return true;
    for (uint32_t i = 0; i < w->n_seats; i++)
        if (w->seats[i] != s && w->seats[i]->history.session) return false;
    return true;
}

static void begin_history(struct local_seat *s)
{
    memcpy(s->history_tag, s->tag, sizeof s->tag);
    s->forgotten = false;
}

/* Bring the session as far along the tokens as the cache goes. False: it cannot be stepped now. */
static bool prepare(struct local *w, struct local_seat *s)
{
    struct local_event failed = {.kind = LOCAL_FAILED};
    uint32_t gained = 0;
    if (s->n > w->positions_max) {
        failed.kind = LOCAL_FULL;
        end_feed(s, &failed);
        return false;
    }
    bool fresh = !s->history.session;
    if (fresh && !may_begin(w, s)) {
        s->parked = true;
        return false;
    }
    if (fresh && history_open(w->engine, w->prefix, 0, &s->history, &failed.why)) {
        end_feed(s, &failed);
        return false;
    }
    s->parked = false;
    if (fresh) begin_history(s);
    if (session_len(s->history.session) > s->keep) history_cut(&s->history, s->keep);
    uint32_t known = s->n_draws > 0 ? s->draw_at : s->n;
    gained = fresh ? follow(w, &s->history, s->tokens, known)
                   : history_follow(&s->history, s->tokens, known);
    if (fresh) gained += history_follow_part(&s->history, s->tokens, known);
    w->stats.cached_tokens += gained;
    s->keep = s->n;
    session_set_sampling(s->history.session, &s->sampling);
    return true;
}

/* The seat that gives its memory back: the last to begin, but one that works behind all others. */
static struct local_seat *victim(const struct local *w)
{
    struct local_seat *last = NULL;
    for (uint32_t i = 0; i < w->n_seats; i++) {
        struct local_seat *s = w->seats[i];
        if (!s->history.session) continue;
        bool later = last && (s->behind != last->behind ? s->behind : s->begun > last->begun);
        if (!last || later) last = s;
    }
    return last;
}

static void preempt(struct local *w, struct local_seat *s)
{
    drop(s);
    s->parked = true;
    w->stats.preempted++;
}

static uint32_t sessions_open(const struct local *w)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->n_seats; i++)
        n += w->seats[i]->history.session != NULL;
    return n;
}

/* Pages for what each seat is given. The seat that began first always goes on. False: a seat lost
 * its session for it, and the step is to be planned again. */
static bool make_room(struct local *w)
{
    for (bool again = false;; again = true) {
        uint32_t needed = 0;
        for (uint32_t i = 0; i < w->n_seats; i++) {
            const struct local_seat *s = w->seats[i];
            if (w->items[i].given == 0 || !s->history.session) continue;
            uint32_t len = session_len(s->history.session);
            needed += admit_pages(len + w->items[i].given) - admit_pages(len);
        }
        while (engine_kv_pages_free(w->engine) < needed && prefix_evict(w->prefix)) {
        }
        w->short_of_pages = engine_kv_pages_free(w->engine) < needed;
        if (!w->short_of_pages || sessions_open(w) < 2) return !again;
        preempt(w, victim(w));
    }
}

/* ---- a step ---- */

/* Whether a seat has work now. `front`: some seat that is not behind is in the middle of its own,
 * maybe between two feeds. */
static bool has_work(const struct local_seat *s, bool front)
{
    return s->feeding && !(front && s->behind);
}

static bool in_front(const struct local_seat *s)
{
    return !s->behind && (s->feeding || s->history.session);
}

/* How many of the next `given` tokens of a seat are drawn after: always the last ones. */
static uint32_t draws_of(const struct local_seat *s, uint32_t given)
{
    uint32_t len = session_len(s->history.session), plain = s->n - s->n_draws;
    if (len + given <= plain) return 0;
    return len + given - (len > plain ? len : plain);
}

/* Fewer tokens where the step would draw after too many: each of its spans may sample besides. */
static void limit_draws(struct local *w)
{
    uint32_t left = engine_info(w->engine)->spans_max;
    for (uint32_t i = 0; i < w->n_seats; i++)
        left -= w->items[i].given > 0;
    for (uint32_t i = 0; i < w->n_seats; i++) {
        struct local_seat *s = w->seats[i];
        if (w->items[i].given == 0 || s->n_draws == 0) continue;
        uint32_t most = left + 1 < LOCAL_DRAWS_MAX ? left + 1 : LOCAL_DRAWS_MAX;
        uint32_t draws = draws_of(s, w->items[i].given);
        if (draws > most) {
            w->items[i].given -= draws - most;
            draws = most;
        }
        if (draws > 1) left -= draws - 1;
    }
}

static void plan_items(struct local *w)
{
    struct sched_limits limits = {.step_tokens = engine_info(w->engine)->step_tokens_max,
                                  .spans = engine_info(w->engine)->spans_max};
    bool front = false;
    uint32_t decodes = 0, n = 0, of[LOCAL_SEATS_MAX];
    struct sched_item items[LOCAL_SEATS_MAX];
    for (uint32_t i = 0; i < w->n_seats; i++)
        front = front || in_front(w->seats[i]);
    for (uint32_t i = 0; i < w->n_seats; i++) {
        struct local_seat *s = w->seats[i];
        w->items[i].given = 0;
        if (!has_work(s, front) || !prepare(w, s)) continue;
        uint32_t left = s->n - session_len(s->history.session);
        items[n] = (struct sched_item){.waiting = left > 1 ? left : 0,
                                       .tenant = s->place,
                                       .arrived = s->begun,
                                       .served = s->served};
        decodes += left == 1;
        of[n++] = i;
    }
    stepcost_limit(&w->cost, decodes, LOCAL_STEP_US, limits.step_tokens, &limits);
    sched_step(w->sched, items, n, &limits);
    for (uint32_t k = 0; k < n; k++) {
        uint32_t given = items[k].given, waiting = items[k].waiting;
        /* A rest of one would be a whole decode step on a device: leave two. */
        if (given > 1 && waiting - given == 1) given--;
        w->items[of[k]].given = given;
    }
    limit_draws(w);
}

/* Spans of the next step; 0: there is nothing to do. */
static uint32_t plan(struct local *w)
{
    uint32_t n = 0, at = 0;
    do
        plan_items(w);
    while (!make_room(w));
    for (uint32_t i = 0; i < w->n_seats; i++) {
        struct local_seat *s = w->seats[i];
        uint32_t given = w->items[i].given;
        if (given == 0 || !s->history.session || !s->feeding) continue;
        uint32_t len = session_len(s->history.session);
        memcpy(w->copied + at, s->tokens + len, given * sizeof *s->tokens);
        w->parts[n] = (struct part){s, s->feed, at, s->n - len > 1};
        w->spans[n] = (struct engine_span){.session = s->history.session,
                                           .tokens = w->copied + at,
                                           .n = given,
                                           .sample = len + given == s->n,
                                           .draws = w->draws + (size_t)n * LOCAL_DRAWS_MAX,
                                           .n_draws = draws_of(s, given)};
        n++;
        at += given;
        s->in_step = true;
    }
    return n;
}

/* A feed that lost its session draws some again: each is kept once. The last is the feed's `id`. */
static void take_draws(struct local_seat *s, const struct engine_span *span)
{
    uint32_t n = span->n_draws > 0 ? span->n_draws - span->sample : 0;
    uint32_t at = session_len(s->history.session) + 1 - span->n_draws;
    for (uint32_t i = 0; i < n; i++)
        if (at + i == s->draw_at + s->n_drawn) s->drawn[s->n_drawn++] = span->draws[i];
}

static void take_result(struct local *w, const struct part *p, const struct engine_span *span)
{
    struct local_seat *s = p->seat;
    history_grow(&s->history);
    *(p->prefill ? &w->stats.prefill_tokens : &w->stats.decode_tokens) += span->n;
    s->served = w->stats.steps;
    if (!s->feeding || s->feed != p->feed) return; /* it was cancelled meanwhile */
    struct local_event ev = {.kind = LOCAL_TOKEN, .kv = session_len(s->history.session)};
    take_draws(s, span);
    if (!span->sample) {
        ev.kind = LOCAL_PAUSED;
        if (s->pausing)
            end_feed(s, &ev);
        else
            tell_progress(s, ev.kv);
        return;
    }
    ev.id = span->next;
    ev.is_end = vocab_is_end(engine_vocab(w->engine), ev.id);
    end_feed(s, &ev);
}

/* The engine refuses a step as a whole. */
static void take_failure(struct local *w, uint32_t n, const struct err *why)
{
    struct local_event ev = {.kind = LOCAL_FAILED, .why = *why};
    for (uint32_t k = 0; k < n; k++)
        if (w->parts[k].seat->feeding && w->parts[k].seat->feed == w->parts[k].feed)
            end_feed(w->parts[k].seat, &ev);
}

static void note_step(struct local *w, uint32_t n, uint64_t us)
{
    uint32_t decodes = 0, prompts = 0;
    for (uint32_t k = 0; k < n; k++)
        *(w->parts[k].prefill ? &prompts : &decodes) += w->spans[k].n;
    stepcost_note(&w->cost, decodes, prompts, (double)us);
    w->stats.steps++;
    w->stats.step_us += us;
    w->stats.spans += n;
}

/* Under the lock, which is not held while the engine computes. */
static void step(struct local *w, uint32_t n)
{
    struct err why = ERR_INIT;
    w->stepping = true;
    pthread_mutex_unlock(&w->lock);
    uint64_t begin = clock_us();
    int code = engine_step(w->engine, w->spans, n, &why);
    uint64_t us = clock_us() - begin;
    pthread_mutex_lock(&w->lock);
    w->stepping = false;
    note_step(w, n, us);
    if (code) take_failure(w, n, &why);
    for (uint32_t k = 0; k < n; k++) {
        struct local_seat *s = w->parts[k].seat;
        if (!code) take_result(w, &w->parts[k], &w->spans[k]);
        s->in_step = false;
    }
    for (uint32_t i = 0; i < w->n_seats; i++)
        if (w->seats[i]->drop) drop(w->seats[i]);
    pthread_cond_broadcast(&w->changed);
}

/* It is planned again when something has changed. */
static void forget_step(struct local *w, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        w->parts[k].seat->in_step = false;
    pthread_cond_wait(&w->changed, &w->lock);
}

static void *local_main(void *arg)
{
    struct local *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->closing) {
        uint32_t n = plan(w);
        if (n > 0 && w->short_of_pages && w->saving > 0)
            forget_step(w, n); /* the disk gives pages back soon */
        else if (n > 0)
            step(w, n);
        else if (!w->closing)
            pthread_cond_wait(&w->changed, &w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* ---- opening and closing ---- */

static void release(struct local *w)
{
    prefix_close(w->prefix);
    sched_free(w->sched);
    mem_free(w->copied);
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
    uint64_t memory = (uint64_t)info->kv_pages_total * ENGINE_PAGE;
    w->engine = engine;
    w->wake = wake;
    w->arg = arg;
    w->positions_max = memory < info->context_max ? (uint32_t)memory : info->context_max;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    w->copied = mem_alloc(info->step_tokens_max * sizeof *w->copied);
    int code = w->copied ? 0 : err_set(e, ERR_NO_MEMORY, "no memory for the engine's thread");
    if (code == 0) code = prefix_open(engine, info->kv_pages_total, &w->prefix, e);
    if (code == 0) code = sched_new(&w->sched, e);
    if (code == 0 && pthread_create(&w->thread, NULL, local_main, w) != 0)
        code = err_set(e, ERR_NO_MEMORY, "the engine's thread cannot be started");
    if (code) {
        release(w);
        return code;
    }
    *ret_local = w;
    return 0;
}

int local_keep(struct local *w, const char *dir, uint64_t bytes_max, struct err *e)
{
    const struct engine_info *info = engine_info(w->engine);
    struct kv_disk *disk;
    char fingerprint[256];
    snprintf(fingerprint, sizeof fingerprint, "%s %s %s", info->weights_hash, info->numerics,
             info->kv_type ? info->kv_type : "none");
    struct kv_disk_config c = {dir, fingerprint, engine_page_bytes(w->engine), bytes_max};
    int code = kv_disk_open(&c, &disk, e);
    if (code) return code;
    pthread_mutex_lock(&w->lock);
    CHECK(!w->disk);
    w->disk = disk;
    pthread_mutex_unlock(&w->lock);
    return 0;
}

struct engine *local_release(struct local *w)
{
    if (!w) return NULL;
    CHECK(w->n_seats == 0);
    pthread_mutex_lock(&w->lock);
    w->closing = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    kv_disk_close(w->disk); /* its writes hold pages */
    struct engine *engine = w->engine;
    release(w);
    return engine;
}

void local_free(struct local *w)
{
    engine_free(local_release(w));
}

void local_stats_of(struct local *w, struct local_stats *ret_stats)
{
    pthread_mutex_lock(&w->lock);
    *ret_stats = w->stats;
    if (!w->stepping) { /* else the engine's count changes */
        w->stats.kv_pages_free = engine_kv_pages_free(w->engine);
        w->stats.kv_pages_cached = prefix_idle(w->prefix);
    }
    ret_stats->kv_pages_free = w->stats.kv_pages_free;
    ret_stats->kv_pages_cached = w->stats.kv_pages_cached;
    if (w->disk) kv_disk_stats_of(w->disk, &ret_stats->disk);
    ret_stats->kv_pages_total = engine_info(w->engine)->kv_pages_total;
    pthread_mutex_unlock(&w->lock);
}

static void seat_free(struct local_seat *s)
{
    if (!s) return;
    mem_free(s->tokens);
    mem_free(s->drawn);
    mem_free(s);
}

int local_seat_open(struct local *w, bool behind, struct local_seat **ret_seat, struct err *e)
{
    struct local_seat *s = mem_calloc(1, sizeof *s);
    /* one token more than fits, so that a full context is found by the feed */
    size_t most = engine_info(w->engine)->context_max + 1u;
    if (s) s->tokens = mem_alloc(most * sizeof *s->tokens);
    if (s) s->drawn = mem_alloc(most * sizeof *s->drawn);
    if (!s || !s->tokens || !s->drawn) {
        seat_free(s);
        return err_set(e, ERR_NO_MEMORY, "no memory for a history of tokens");
    }
    s->local = w;
    s->behind = behind;
    s->history.path = PREFIX_NONE;
    pthread_mutex_lock(&w->lock);
    bool room = w->n_seats < LOCAL_SEATS_MAX;
    if (room) {
        s->place = w->n_seats;
        w->seats[w->n_seats++] = s;
    }
    pthread_mutex_unlock(&w->lock);
    if (room) {
        *ret_seat = s;
        return 0;
    }
    seat_free(s);
    return err_set(e, ERR_LIMIT, "%d histories at once are the limit", LOCAL_SEATS_MAX);
}

/* A history may be closed while no step runs: a step takes pages of the engine. */
static void drop_soon(struct local_seat *s)
{
    s->drop = true;
    if (!s->local->stepping) drop(s);
}

void local_seat_close(struct local_seat *s)
{
    if (!s) return;
    struct local *w = s->local;
    pthread_mutex_lock(&w->lock);
    s->feeding = false;
    drop_soon(s);
    while (s->drop)
        pthread_cond_wait(&w->changed, &w->lock);
    w->seats[s->place] = w->seats[--w->n_seats];
    w->seats[s->place]->place = s->place;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    seat_free(s);
}

bool local_seat_rests(struct local_seat *s)
{
    pthread_mutex_lock(&s->local->lock);
    bool rests = !s->in_step;
    pthread_mutex_unlock(&s->local->lock);
    return rests;
}

bool local_seat_feeds(struct local_seat *s)
{
    pthread_mutex_lock(&s->local->lock);
    bool feeds = s->feeding;
    pthread_mutex_unlock(&s->local->lock);
    return feeds;
}

uint32_t local_begin(struct local_seat *s, const int32_t *tokens, uint32_t n, const char *tag)
{
    struct local *w = s->local;
    uint32_t most = engine_info(w->engine)->context_max + 1;
    CHECK(n > 0 && n <= most);
    pthread_mutex_lock(&w->lock);
    CHECK(!s->feeding);
    while (s->in_step)
        pthread_cond_wait(&w->changed, &w->lock);
    if (s->history.session) drop_soon(s);
    memcpy(s->tokens, tokens, n * sizeof *tokens);
    snprintf(s->tag, sizeof s->tag, "%s", tag ? tag : "");
    s->n = n;
    s->keep = 0;
    s->begun = ++w->begun;
    s->parked = false;
    uint32_t cached = count_cached(w, tokens, n);
    pthread_mutex_unlock(&w->lock);
    return cached;
}

int local_feed(struct local_seat *s, uint32_t from, const int32_t *tokens, uint32_t n,
               uint32_t n_draws, const struct sampling *sampling, struct err *e)
{
    struct local *w = s->local;
    uint32_t most = engine_info(w->engine)->context_max + 1;
    CHECK(n > 0 && n_draws <= n);
    if (n > most || from > most - n)
        return err_set(e, ERR_LIMIT, "%u tokens do not fit the context of %u", from + n, most - 1);
    pthread_mutex_lock(&w->lock);
    CHECK(!s->feeding && from <= s->n);
    memcpy(s->tokens + from, tokens, n * sizeof *tokens);
    s->n = from + n;
    if (s->keep > from) s->keep = from;
    s->sampling = *sampling;
    s->n_draws = n_draws;
    s->draw_at = s->n - n_draws + 1;
    s->n_drawn = s->n_taken = 0;
    s->progress = from;
    s->feed++;
    s->feeding = true;
    s->have_progress = s->have_end = false;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return 0;
}

void local_pause(struct local_seat *s)
{
    struct local *w = s->local;
    pthread_mutex_lock(&w->lock);
    if (s->feeding && s->in_step) {
        s->pausing = true;
    } else if (s->feeding) {
        /* A session that was lost is computed again; what the feed told of it counts. */
        struct local_event ev = {.kind = LOCAL_PAUSED, .kv = s->progress};
        uint32_t len = s->history.session ? session_len(s->history.session) : 0;
        if (len > s->keep) len = s->keep;
        if (len > ev.kv) ev.kv = len;
        end_feed(s, &ev);
    }
    pthread_mutex_unlock(&w->lock);
}

static void cancel(struct local_seat *s)
{
    s->feed++;
    s->feeding = s->parked = s->pausing = s->have_progress = s->have_end = false;
    if (s->history.session) drop_soon(s);
    pthread_cond_broadcast(&s->local->changed);
}

void local_cancel(struct local_seat *s)
{
    pthread_mutex_lock(&s->local->lock);
    cancel(s);
    pthread_mutex_unlock(&s->local->lock);
}

/* ---- conversations ---- */

void local_forget(struct local *w, const char *tag)
{
    pthread_mutex_lock(&w->lock);
    for (uint32_t i = 0; i < w->n_seats; i++) {
        struct local_seat *s = w->seats[i];
        if (s->history.session && strcmp(s->history_tag, tag) == 0) s->forgotten = true;
        if (s->behind && strcmp(s->tag, tag) == 0) cancel(s);
    }
    pthread_mutex_unlock(&w->lock);
}

struct kv_disk *local_disk(struct local *w)
{
    pthread_mutex_lock(&w->lock);
    struct kv_disk *disk = w->disk;
    pthread_mutex_unlock(&w->lock);
    return disk;
}

bool local_take(struct local_seat *s, struct local_event *ret_event)
{
    struct local *w = s->local;
    pthread_mutex_lock(&w->lock);
    bool any = s->have_progress || s->have_end;
    if (s->have_progress)
        *ret_event = (struct local_event){.kind = LOCAL_PROGRESS, .kv = s->progress};
    else if (s->have_end)
        *ret_event = s->end;
    if (any) {
        ret_event->draws = s->drawn + s->n_taken;
        ret_event->n_draws = s->n_drawn - s->n_taken;
        ret_event->draw_at = s->draw_at + s->n_taken;
        s->n_taken = s->n_drawn;
    }
    if (s->have_progress)
        s->have_progress = false;
    else
        s->have_end = false;
    pthread_mutex_unlock(&w->lock);
    return any;
}

static int measure(struct engine *engine, struct session *s, double *ret_tps, double *ret_us,
                   struct err *e)
{
    const struct engine_info *info = engine_info(engine);
    int32_t tokens[LOCAL_MEASURE_MAX];
    uint32_t n = LOCAL_MEASURE_MAX;
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
