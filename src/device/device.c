/* device: the loop thread of a device of its own, and the hand-over of questions to it; see
 * device.h. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "device/device_impl.h"

/* The device's thread and what lies between it and the caller's. */
struct device_thread {
    struct device *device;
    struct loop *loop;
    struct loop_wake *wake;
    pthread_t thread;
    bool started, ready; /* ready: the loop may run */
    atomic_bool cancel, closing;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    const struct device_question *asked; /* waits for the loop thread */
    bool busy, answered;
    int code;
    struct err err;
};

static void answered(void *arg, int code, const struct device_report *r, const struct err *e)
{
    struct device_thread *t = arg;
    (void)r;
    pthread_mutex_lock(&t->lock);
    t->code = code;
    if (code) t->err = *e;
    t->answered = true;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

static void take_question(struct device_thread *t)
{
    struct err e = ERR_INIT;
    pthread_mutex_lock(&t->lock);
    const struct device_question *q = t->asked;
    t->asked = NULL;
    pthread_mutex_unlock(&t->lock);
    if (!q) return;
    int code = device_start(t->device, q, answered, t, &e);
    if (code) answered(t, code, NULL, &e);
}

static void on_wake(void *arg)
{
    struct device_thread *t = arg;
    if (atomic_load(&t->closing)) {
        loop_stop(t->loop);
        return;
    }
    take_question(t);
    if (atomic_exchange(&t->cancel, false)) device_stop(t->device);
}

static void *loop_main(void *arg)
{
    struct device_thread *t = arg;
    struct err e = ERR_INIT;
    pthread_mutex_lock(&t->lock);
    while (!t->ready)
        pthread_cond_wait(&t->changed, &t->lock);
    pthread_mutex_unlock(&t->lock);
    CHECK(loop_run(t->loop, &e) == 0);
    return NULL;
}

static void set_ready(struct device_thread *t)
{
    pthread_mutex_lock(&t->lock);
    t->ready = true;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

/* It waits until all else is there: what comes after it may fail, and then the engine must be the
 * caller's still. */
static int start_thread(struct device_thread *t, struct err *e)
{
    /* Signals are the program's: its own threads get them, never this one. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    t->started = pthread_create(&t->thread, NULL, loop_main, t) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return t->started ? 0 : err_set(e, ERR_NO_MEMORY, "the loop thread cannot be started");
}

static void close_thread(struct device_thread *t)
{
    if (t->started) {
        atomic_store(&t->closing, true);
        loop_wake_signal(t->wake);
        set_ready(t);
        pthread_join(t->thread, NULL);
    }
    struct device_core *core = t->device ? t->device->core : NULL;
    if (t->device) device_close_on(t->device);
    device_core_close(core);
    loop_wake_free(t->wake);
    loop_free(t->loop);
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}

static int open_device(struct device_thread *t, const struct device_options *o, struct err *e)
{
    struct device_core *core;
    int code = device_core_open(t->loop, o, &core, e);
    if (code) return code;
    code = device_open_on(core, &t->device, e);
    if (code) {
        device_core_release(core);
        return code;
    }
    t->device->thread = t;
    return 0;
}

int device_open(const struct device_options *o, struct device **ret_device, struct err *e)
{
    struct device_thread *t = mem_calloc(1, sizeof *t);
    if (!t) return err_set(e, ERR_NO_MEMORY, "no memory for a device");
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, NULL);
    int code = loop_new(&t->loop, e);
    if (code == 0) code = loop_wake_new(t->loop, on_wake, t, &t->wake, e);
    if (code == 0) code = start_thread(t, e);
    if (code == 0) code = open_device(t, o, e);
    if (code) {
        close_thread(t);
        return code;
    }
    set_ready(t);
    *ret_device = t->device;
    return 0;
}

void device_close(struct device *d)
{
    if (d) close_thread(d->thread);
}

int device_ask(struct device *d, const struct device_question *q, struct device_report *ret_report,
               struct err *e)
{
    struct device_thread *t = d->thread;
    pthread_mutex_lock(&t->lock);
    if (t->busy) {
        pthread_mutex_unlock(&t->lock);
        return err_set(e, ERR_BUSY, "the device is answering another question");
    }
    t->busy = true;
    t->answered = false;
    t->asked = q;
    loop_wake_signal(t->wake);
    while (!t->answered)
        pthread_cond_wait(&t->changed, &t->lock);
    t->busy = false;
    atomic_store(&t->cancel, false); /* it came too late */
    int code = t->code;
    if (code && e) *e = t->err;
    *ret_report = d->answer.report;
    pthread_mutex_unlock(&t->lock);
    return code;
}

void device_cancel(struct device *d)
{
    struct device_thread *t = d->thread;
    pthread_mutex_lock(&t->lock);
    if (t->busy) {
        atomic_store(&t->cancel, true);
        loop_wake_signal(t->wake);
    }
    pthread_mutex_unlock(&t->lock);
}
