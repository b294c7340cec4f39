/* device: threads, opening and closing, and the hand-over of questions to the loop thread; see
 * device.h. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "device/device_impl.h"

static void take_question(struct device *d)
{
    struct err e = ERR_INIT;
    pthread_mutex_lock(&d->lock);
    const struct device_question *q = d->asked;
    d->asked = NULL;
    pthread_mutex_unlock(&d->lock);
    if (!q) return;
    int code = answer_start(d, q, &e);
    if (code) device_answered(d, code, &e);
}

static void on_wake(void *arg)
{
    struct device *d = arg;
    if (atomic_load(&d->closing)) {
        loop_stop(d->loop);
        return;
    }
    take_question(d);
    if (atomic_exchange(&d->cancel, false)) answer_cancel(d);
    answer_local(d);
}

static void on_timer(void *arg)
{
    answer_tick(arg);
}

void device_answered(struct device *d, int code, const struct err *e)
{
    pthread_mutex_lock(&d->lock);
    d->code = code;
    if (code) d->err = *e;
    d->answered = true;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
}

static void *loop_main(void *arg)
{
    struct device *d = arg;
    struct err e = ERR_INIT;
    CHECK(loop_run(d->loop, &e) == 0);
    return NULL;
}

static int open_client(struct device *d, const struct device_options *o, struct err *e)
{
    struct http_client_config config;
    http_client_config_default(&config);
    if (snprintf(d->url, sizeof d->url, "%s", o->cloud_url) >= (int)sizeof d->url)
        return err_set(e, ERR_BAD_INPUT, "the cloud's URL is longer than %d bytes", DEVICE_URL_MAX);
    for (size_t n = strlen(d->url); n > 0 && d->url[n - 1] == '/'; n--)
        d->url[n - 1] = '\0';
    config.base_url = d->url;
    config.bearer = o->key;
    config.ca_file = o->ca_file;
    config.warm_path = "/health";
    return http_client_new(d->loop, &config, &d->client, e);
}

static int open_speeds(struct device *d, const struct device_options *o, struct err *e)
{
    double tps = o->prefill_tps, us = o->decode_us;
    int code = 0;
    if (o->engine && o->cloud_url && (tps <= 0.0 || us <= 0.0))
        code = local_measure(o->engine, &tps, &us, e);
    if (code == 0) profile_init(&d->profile, tps, us);
    return code;
}

static int open_parts(struct device *d, const struct device_options *o, struct err *e)
{
    int code = open_speeds(d, o, e);
    if (code == 0) code = loop_new(&d->loop, e);
    if (code == 0) code = loop_wake_new(d->loop, on_wake, d, &d->wake, e);
    if (code == 0) code = loop_timer_new(d->loop, on_timer, d, &d->timer, e);
    if (code == 0 && o->cloud_url) code = open_client(d, o, e);
    if (code) return code;
    /* Signals are the program's: its own threads get them, never these two. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    if (pthread_create(&d->thread, NULL, loop_main, d) == 0)
        d->threaded = true;
    else
        code = err_set(e, ERR_NO_MEMORY, "the loop thread cannot be started");
    /* The engine thread comes last: it takes the engine, which a failure must leave with the
     * caller. */
    if (code == 0 && o->engine)
        code = local_new(o->engine, loop_wake_signal, d->wake, &d->local, e);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

int device_open(const struct device_options *o, struct device **ret_device, struct err *e)
{
    if (!o->engine && !o->cloud_url)
        return err_set(e, ERR_BAD_INPUT, "neither a model nor a cloud is given");
    struct device *d = mem_calloc(1, sizeof *d);
    if (!d) return err_set(e, ERR_NO_MEMORY, "no memory for a device");
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->changed, NULL);
    snprintf(d->model, sizeof d->model, "%s", o->model ? o->model : "");
    d->engine = o->engine;
    d->stall_us = o->stall_us ? o->stall_us : o->engine ? DEVICE_STALL_US : DEVICE_STALL_ALONE_US;
    int code = open_parts(d, o, e);
    if (code) {
        device_close(d);
        return code;
    }
    *ret_device = d;
    return 0;
}

void device_close(struct device *d)
{
    if (!d) return;
    if (d->threaded) {
        atomic_store(&d->closing, true);
        loop_wake_signal(d->wake);
        pthread_join(d->thread, NULL);
    }
    if (d->local) local_cancel(d->local);
    local_free(d->local);
    answer_release(&d->answer);
    http_client_free(d->client);
    loop_timer_free(d->timer);
    loop_wake_free(d->wake);
    loop_free(d->loop);
    pthread_cond_destroy(&d->changed);
    pthread_mutex_destroy(&d->lock);
    mem_free(d);
}

int device_ask(struct device *d, const struct device_question *q, struct device_report *ret_report,
               struct err *e)
{
    pthread_mutex_lock(&d->lock);
    if (d->busy) {
        pthread_mutex_unlock(&d->lock);
        return err_set(e, ERR_BUSY, "the device is answering another question");
    }
    d->busy = true;
    d->answered = false;
    d->asked = q;
    loop_wake_signal(d->wake);
    while (!d->answered)
        pthread_cond_wait(&d->changed, &d->lock);
    d->busy = false;
    atomic_store(&d->cancel, false); /* it came too late */
    int code = d->code;
    if (code && e) *e = d->err;
    *ret_report = d->answer.report;
    pthread_mutex_unlock(&d->lock);
    return code;
}

void device_cancel(struct device *d)
{
    pthread_mutex_lock(&d->lock);
    if (d->busy) {
        atomic_store(&d->cancel, true);
        loop_wake_signal(d->wake);
    }
    pthread_mutex_unlock(&d->lock);
}
