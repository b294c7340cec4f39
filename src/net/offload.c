/* offload: see offload.h. */
#include "net/offload.h"

#include <pthread.h>
#include <sys/resource.h>

#include "base/check.h"
#include "base/mem.h"

enum {
    THREADS = 2,
    NICENESS = 5 /* a third of the loop's and the engine's weight, where CPUs are short */
};

struct task_list {
    struct offload_task *first, **end;
};

struct helper {
    struct offload *of;
    pthread_t thread;
    bool short_only;
    uint64_t owner, start, finish; /* of the task it took last */
};

struct offload {
    pthread_mutex_t mutex; /* of the lists, the tasks' states and `quit` */
    pthread_cond_t came;
    struct task_list waiting, done;
    bool quit;
    struct loop_wake *wake;
    struct helper helpers[THREADS];
    uint32_t n_threads;
    uint32_t n_tasks; /* loop thread's: submitted, neither handed back nor dropped */
};

static void list_init(struct task_list *l)
{
    l->first = NULL;
    l->end = &l->first;
}

static void list_append(struct task_list *l, struct offload_task *t)
{
    t->next = NULL;
    *l->end = t;
    l->end = &t->next;
}

/* Take out the task that *at points to. */
static struct offload_task *list_take(struct task_list *l, struct offload_task **at)
{
    struct offload_task *t = *at;
    *at = t->next;
    if (l->end == &t->next) l->end = at;
    return t;
}

static bool may_do(const struct helper *h, const struct offload_task *t)
{
    return !h->short_only || t->size <= OFFLOAD_SHORT_BYTES;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Start-time fair queueing (Goyal, Vin and Cheng, 1996): a task starts where its owner's last one
 * finishes, counted in bytes, or where the helper that will do it stands. */
static uint64_t start_of(const struct offload *o, const struct offload_task *t)
{
    uint64_t now = UINT64_MAX, start = 0;
    for (uint32_t i = 0; i < THREADS; i++) {
        const struct helper *h = &o->helpers[i];
        if (may_do(h, t) && h->start < now) now = h->start;
        if (h->owner == t->owner) start = later(start, h->finish);
    }
    for (const struct offload_task *w = o->waiting.first; w; w = w->next)
        if (w->owner == t->owner) start = later(start, w->start + w->size);
    return later(start, now);
}

/* The task that starts first, of those that this helper may do; of equals the oldest. */
static struct offload_task *choose(struct offload *o, struct helper *h)
{
    struct offload_task **found = NULL;
    for (struct offload_task **at = &o->waiting.first; *at; at = &(*at)->next)
        if (may_do(h, *at) && (!found || (*at)->start < (*found)->start)) found = at;
    if (!found) return NULL;
    struct offload_task *t = list_take(&o->waiting, found);
    h->owner = t->owner;
    h->start = later(h->start, t->start);
    h->finish = t->start + t->size;
    t->state = OFFLOAD_WORKING;
    return t;
}

static void *helper_main(void *arg)
{
    struct helper *h = arg;
    struct offload *o = h->of;
    (void)setpriority(PRIO_PROCESS, 0, NICENESS); /* on Linux: of this thread */
    pthread_mutex_lock(&o->mutex);
    while (!o->quit) {
        struct offload_task *t = choose(o, h);
        if (!t) {
            pthread_cond_wait(&o->came, &o->mutex);
            continue;
        }
        pthread_mutex_unlock(&o->mutex);
        t->work(t);
        pthread_mutex_lock(&o->mutex);
        t->state = OFFLOAD_DONE;
        list_append(&o->done, t);
        loop_wake_signal(o->wake);
    }
    pthread_mutex_unlock(&o->mutex);
    return NULL;
}

static struct offload_task *take_done(struct offload *o, bool *ret_more)
{
    pthread_mutex_lock(&o->mutex);
    struct offload_task *t = o->done.first ? list_take(&o->done, &o->done.first) : NULL;
    *ret_more = o->done.first != NULL;
    pthread_mutex_unlock(&o->mutex);
    return t;
}

static void hand_back(void *arg)
{
    struct offload *o = arg;
    bool more;
    struct offload_task *t = take_done(o, &more);
    if (!t) return;
    if (more) loop_wake_signal(o->wake);
    o->n_tasks--;
    t->state = OFFLOAD_IDLE;
    t->done(t);
}

int offload_new(struct loop *l, struct offload **ret_offload, struct err *e)
{
    struct offload *o = mem_calloc(1, sizeof *o);
    if (!o) return err_set(e, ERR_NO_MEMORY, "no memory for helper threads");
    list_init(&o->waiting);
    list_init(&o->done);
    pthread_mutex_init(&o->mutex, NULL);
    pthread_cond_init(&o->came, NULL);
    int code = loop_wake_new(l, hand_back, o, &o->wake, e);
    for (; code == 0 && o->n_threads < THREADS; o->n_threads++) {
        struct helper *h = &o->helpers[o->n_threads];
        h->of = o;
        h->short_only = o->n_threads == 0;
        if (pthread_create(&h->thread, NULL, helper_main, h) != 0) {
            code = err_set(e, ERR_NO_MEMORY, "a helper thread cannot be started");
            break;
        }
    }
    if (code) {
        offload_free(o);
        return code;
    }
    *ret_offload = o;
    return 0;
}

static void drop_all(struct offload *o, struct task_list *l)
{
    while (l->first) {
        struct offload_task *t = list_take(l, &l->first);
        o->n_tasks--;
        t->state = OFFLOAD_IDLE;
        t->drop(t);
    }
}

void offload_free(struct offload *o)
{
    if (!o) return;
    pthread_mutex_lock(&o->mutex);
    o->quit = true;
    pthread_cond_broadcast(&o->came);
    pthread_mutex_unlock(&o->mutex);
    for (uint32_t i = 0; i < o->n_threads; i++)
        pthread_join(o->helpers[i].thread, NULL);
    drop_all(o, &o->waiting);
    drop_all(o, &o->done);
    CHECK(o->n_tasks == 0);
    loop_wake_free(o->wake);
    pthread_cond_destroy(&o->came);
    pthread_mutex_destroy(&o->mutex);
    mem_free(o);
}

static uint32_t waiting_of(const struct offload *o, uint64_t owner)
{
    uint32_t n = 0;
    for (const struct offload_task *t = o->waiting.first; t; t = t->next)
        n += t->owner == owner;
    return n;
}

int offload_submit(struct offload *o, struct offload_task *t, struct err *e)
{
    CHECK(t->state == OFFLOAD_IDLE);
    if (!t->unlimited && o->n_tasks >= OFFLOAD_TASKS_MAX)
        return err_set(e, ERR_BUSY, "too many large requests wait to be read; try again later");
    pthread_mutex_lock(&o->mutex);
    bool many = !t->unlimited && waiting_of(o, t->owner) >= OFFLOAD_PER_OWNER_MAX;
    if (!many) {
        t->state = OFFLOAD_WAITING;
        t->start = start_of(o, t);
        list_append(&o->waiting, t);
        o->n_tasks++;
        pthread_cond_broadcast(&o->came);
    }
    pthread_mutex_unlock(&o->mutex);
    if (!many) return 0;
    return err_set(e, ERR_BUSY, "too many of your large requests wait to be read; try again later");
}

bool offload_cancel(struct offload *o, struct offload_task *t)
{
    bool taken = false;
    pthread_mutex_lock(&o->mutex);
    for (struct offload_task **at = &o->waiting.first; *at && !taken; at = &(*at)->next) {
        if (*at != t) continue;
        list_take(&o->waiting, at);
        t->state = OFFLOAD_IDLE;
        taken = true;
        break;
    }
    pthread_mutex_unlock(&o->mutex);
    if (taken) o->n_tasks--;
    return taken;
}
