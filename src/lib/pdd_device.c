/*
 * pdd_device: devices of libpdd: a loop thread, and the answers that it is to start, cancel and
 * end; see pdd.h and lib_impl.h.
 *
 * A *runner* is a device of device/core.h: it gives one answer at a time. There are as many as
 * answers were given at once. One that rests is used again: its engine still holds the last
 * history, so that the next question of a conversation goes on from there.
 */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "lib/lib_impl.h"

void lib_device_wake(struct pdd_device *d)
{
    if (!d->closed) loop_wake_signal(d->wake);
}

/* ---- the loop thread ---- */

static int open_runner(struct pdd_device *d, struct device **ret_runner, struct err *e)
{
    int code = device_open_on(d->core, ret_runner, e);
    d->n_runners += code == 0;
    return code;
}

/* The one that rests and was used last, or a new one. */
static int take_runner(struct pdd_device *d, struct device **ret_runner, struct err *e)
{
    uint32_t at = d->n_idle;
    while (at > 0 && !device_rests(d->idle[at - 1]))
        at--;
    if (at == 0 && d->n_runners < PDD_ANSWERS_MAX) return open_runner(d, ret_runner, e);
    if (at == 0) at = d->n_idle; /* it waits for a step */
    *ret_runner = d->idle[at - 1];
    memmove(d->idle + at - 1, d->idle + at, (d->n_idle - at) * sizeof *d->idle);
    d->n_idle--;
    return 0;
}

static void start(struct pdd_device *d, struct pdd_answer *a)
{
    struct err e = ERR_INIT;
    int code = a->runner ? 0 : take_runner(d, &a->runner, &e);
    if (code == 0) {
        lib_answer_start(a);
        return;
    }
    pthread_mutex_lock(&d->lock);
    lib_answer_end(a, code, &e, TURN_FAILED);
    pthread_mutex_unlock(&d->lock);
}

static void stop(struct pdd_device *d, struct pdd_answer *a)
{
    device_stop(a->runner);
    pthread_mutex_lock(&d->lock);
    /* It may have ended so that it is to be asked again. */
    if (a->state != LIB_OVER) lib_answer_end(a, 0, NULL, TURN_CANCELLED);
    pthread_mutex_unlock(&d->lock);
}

/* Unlink an answer that is over. Under the lock, which it leaves for a moment. */
static void let_go(struct pdd_device *d, struct pdd_answer **link)
{
    struct pdd_answer *a = *link;
    *link = a->next;
    d->n_answers--;
    if (a->runner) d->idle[d->n_idle++] = a->runner;
    a->runner = NULL;
    pthread_mutex_unlock(&d->lock);
    lib_answer_unref(a);
    pthread_mutex_lock(&d->lock);
}

/* One thing that is to be done; false: there is none. Under the lock, which it leaves. */
static bool serve_one(struct pdd_device *d)
{
    for (struct pdd_answer **link = &d->answers; *link; link = &(*link)->next) {
        struct pdd_answer *a = *link;
        bool cancel = a->cancel || a->ended || d->closing;
        if (a->state == LIB_ASKED && cancel) lib_answer_end(a, 0, NULL, TURN_CANCELLED);
        if (a->state == LIB_OVER) {
            let_go(d, link);
            return true;
        }
        if (a->state == LIB_RUNNING && (!cancel || a->stopped)) continue;
        bool fresh = a->state == LIB_ASKED;
        if (fresh)
            a->state = LIB_RUNNING;
        else
            a->stopped = true;
        pthread_mutex_unlock(&d->lock);
        if (fresh)
            start(d, a);
        else
            stop(d, a);
        pthread_mutex_lock(&d->lock);
        return true;
    }
    return false;
}

static void on_wake(void *arg)
{
    struct pdd_device *d = arg;
    pthread_mutex_lock(&d->lock);
    while (serve_one(d)) {
    }
    bool over = d->closing;
    pthread_mutex_unlock(&d->lock);
    if (over) loop_stop(d->loop);
}

static void *loop_main(void *arg)
{
    struct pdd_device *d = arg;
    struct err e = ERR_INIT;
    lib_guard_thread();
    CHECK(loop_run(d->loop, &e) == 0);
    return NULL;
}

/* ---- opening ---- */

static int take_options(const pdd_device_options *from, pdd_device_options *o, struct err *e)
{
    int code = lib_struct_take("pdd_device_options", from,
                               LIB_LEAST(pdd_device_options, read_ahead), sizeof *o, o, e);
    if (code) return code;
    const char *wrong = NULL;
    if (!o->model && !o->cloud_url)
        wrong = "model and .cloud_url: one of them is needed";
    else if (!o->cloud_url && o->cloud_key)
        wrong = "cloud_key: it has no effect without cloud_url";
    else if (!o->cloud_url && o->cloud_ca_file)
        wrong = "cloud_ca_file: it has no effect without cloud_url";
    else if (!o->cloud_url && o->cloud_model)
        wrong = "cloud_model: it has no effect without cloud_url";
    else if (o->cloud_model && strlen(o->cloud_model) >= WIRE_NAME_MAX)
        wrong = "cloud_model: the name is too long";
    else if (o->kv_disk_bytes && !(o->state_dir && o->model))
        wrong = "kv_disk_bytes: it needs state_dir and model";
    else if (o->read_ahead < PDD_READ_AHEAD_OFF || o->read_ahead > PDD_READ_AHEAD_ALWAYS)
        wrong = "read_ahead: there is no such value";
    else if (o->read_ahead && !o->model)
        wrong = "read_ahead: it needs a model";
    return wrong ? err_set(e, ERR_BAD_INPUT, "pdd_device_options.%s", wrong) : 0;
}

static int take_model(struct pdd_device *d, struct pdd_model *m, struct err *e)
{
    pthread_mutex_lock(&m->lock);
    bool taken = m->taken;
    if (!taken) {
        m->taken = true;
        m->refs++;
        d->model = m;
    }
    pthread_mutex_unlock(&m->lock);
    return taken ? err_set(e, ERR_BUSY, "pdd_device_options.model: another device has it") : 0;
}

static int open_kv_disk(struct pdd_device *d, const pdd_device_options *o, struct err *e)
{
    char dir[KV_DISK_DIR_MAX];
    if (!o->kv_disk_bytes) return 0;
    if (snprintf(dir, sizeof dir, "%s/kv", o->state_dir) >= (int)sizeof dir)
        return err_set(e, ERR_LIMIT, "pdd_device_options.state_dir: the name is too long");
    return local_keep(device_core_local(d->core), dir, o->kv_disk_bytes, e);
}

struct opening {
    struct pdd_device *device;
    const pdd_device_options *options;
};

static int open_core(void *arg, struct err *e)
{
    struct pdd_device *d = ((struct opening *)arg)->device;
    const pdd_device_options *o = ((struct opening *)arg)->options;
    struct device_options of = {.engine = d->model ? d->model->engine : NULL,
                                .prefill_tps = d->model ? d->model->prefill_tps : 0.0,
                                .decode_us = d->model ? d->model->decode_us : 0.0,
                                .cloud_url = o->cloud_url,
                                .key = o->cloud_key,
                                .ca_file = o->cloud_ca_file,
                                .model = o->cloud_model,
                                .stall_us = o->stall_ms * 1000ull,
                                .idle_fill = o->read_ahead != PDD_READ_AHEAD_OFF,
                                .fill_always = o->read_ahead == PDD_READ_AHEAD_ALWAYS};
    int code = o->state_dir ? store_open(o->state_dir, &d->store, e) : 0;
    of.store = d->store;
    if (code == 0) code = device_core_open(d->loop, &of, &d->core, e);
    return code ? code : open_kv_disk(d, o, e);
}

/* The last step of opening: from here on the loop is the thread's. The caller's signals are
 * blocked, so the thread's are for good. */
static int start_thread(struct pdd_device *d, struct err *e)
{
    d->started = pthread_create(&d->thread, NULL, loop_main, d) == 0;
    return d->started ? 0 : err_set(e, ERR_NO_MEMORY, "the loop thread cannot be started");
}

static int open_device(struct pdd_device *d, const pdd_device_options *options, struct err *e)
{
    pdd_device_options o;
    int code = take_options(options, &o, e);
    if (code == 0 && o.model) code = take_model(d, o.model, e);
    if (code == 0) code = loop_new_guest(&d->loop, e);
    if (code == 0) code = loop_wake_new(d->loop, on_wake, d, &d->wake, e);
    if (code == 0) code = lib_run(open_core, &(struct opening){d, &o}, e);
    return code ? code : start_thread(d, e);
}

/* ---- closing ---- */

static void give_model_back(struct pdd_device *d)
{
    struct pdd_model *m = d->model;
    d->model = NULL;
    if (!m) return;
    pthread_mutex_lock(&m->lock);
    m->taken = false;
    pthread_mutex_unlock(&m->lock);
    lib_model_unref(m);
}

/* All but the lock, which answers still take. */
static void close_parts(struct pdd_device *d)
{
    while (d->n_idle > 0)
        device_close_on(d->idle[--d->n_idle]);
    device_core_release(d->core); /* the engine is the model's */
    store_close(d->store);
    loop_wake_free(d->wake);
    loop_free(d->loop);
    give_model_back(d);
}

void lib_device_unref(struct pdd_device *d)
{
    pthread_mutex_lock(&d->lock);
    bool last = --d->refs == 0;
    pthread_mutex_unlock(&d->lock);
    if (!last) return;
    pthread_mutex_destroy(&d->lock);
    mem_free(d);
}

void pdd_device_close(pdd_device *d)
{
    struct lib_guard guard;
    if (!d) return;
    lib_guard_enter(&guard);
    pthread_mutex_lock(&d->lock);
    d->closing = true;
    lib_device_wake(d);
    pthread_mutex_unlock(&d->lock);
    if (d->started) pthread_join(d->thread, NULL);
    pthread_mutex_lock(&d->lock);
    CHECK(!d->answers);
    d->closed = true;
    pthread_mutex_unlock(&d->lock);
    close_parts(d);
    lib_guard_leave(&guard);
    lib_device_unref(d);
}

int pdd_device_open(const pdd_device_options *options, pdd_device **ret_device, pdd_error *error)
{
    struct err e = ERR_INIT;
    struct lib_guard guard;
    struct pdd_device *d = mem_calloc(1, sizeof *d);
    if (!d) return lib_result(err_set(&e, ERR_NO_MEMORY, "no memory for a device"), &e, error);
    lib_guard_enter(&guard);
    pthread_mutex_init(&d->lock, NULL);
    d->refs = 1;
    int code = open_device(d, options, &e);
    if (code) {
        close_parts(d);
        lib_device_unref(d);
    } else {
        *ret_device = d;
    }
    lib_guard_leave(&guard);
    return lib_result(code, &e, error);
}

void pdd_device_cancel(pdd_device *d)
{
    pthread_mutex_lock(&d->lock);
    for (struct pdd_answer *a = d->answers; a; a = a->next)
        a->cancel = true;
    lib_device_wake(d);
    pthread_mutex_unlock(&d->lock);
}
