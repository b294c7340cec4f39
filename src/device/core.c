/* core: see core.h. */
#include "device/core.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "device/device_impl.h"
#include "net/http_url.h"

/* ---- the core ---- */

static void engine_reports(void *arg)
{
    struct device_core *c = arg;
    answer_fill_end(c);
    if (c->on_use) c->on_use(c->use_arg);
    for (struct device *d = c->devices, *next; d; d = next) {
        next = d->next;
        answer_local(d);
    }
}

static int open_client(struct device_core *c, const struct device_options *o, struct err *e)
{
    struct http_client_config config;
    http_client_config_default(&config);
    int code = http_url_base(o->cloud_url, c->url, sizeof c->url, e);
    if (code) return err_prefix(e, "the cloud's URL");
    config.base_url = c->url;
    config.bearer = o->key;
    config.ca_file = o->ca_file;
    config.warm_path = "/health";
    return http_client_new(c->loop, &config, &c->client, e);
}

static int open_speeds(struct device_core *c, const struct device_options *o, struct err *e)
{
    double tps, us;
    device_core_learned(c, o);
    bool known = profile_line_at(&c->profile.prefill, 0.0) > 0.0 &&
                 profile_line_at(&c->profile.decode, 0.0) > 0.0;
    if (!o->engine || !o->cloud_url || known) return 0;
    int code = local_measure(o->engine, &tps, &us, e);
    if (code) return code;
    profile_line_init(&c->profile.prefill, 1e6 / tps, 0.0);
    profile_line_init(&c->profile.decode, us, 0.0);
    return 0;
}

static int open_parts(struct device_core *c, const struct device_options *o, struct err *e)
{
    int code = loop_wake_new(c->loop, engine_reports, c, &c->wake, e);
    if (code == 0 && o->cloud_url) code = open_client(c, o, e);
    if (code == 0) code = open_speeds(c, o, e);
    if (code || !o->engine) return code;
    /* Signals are the program's: its own threads get them, never the engine's. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    /* It comes last: it takes the engine, which a failure must leave with the caller. */
    code = local_new(o->engine, loop_wake_signal, c->wake, &c->local, e);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    c->fill_always = o->fill_always;
    if (code || !o->idle_fill) return code;
    code = local_seat_open(c->local, true, &c->fill, e);
    if (code) (void)local_release(c->local); /* the engine stays with the caller */
    if (code) c->local = NULL;
    return code;
}

int device_core_open(struct loop *l, const struct device_options *o, struct device_core **ret_core,
                     struct err *e)
{
    if (!o->engine && !o->cloud_url)
        return err_set(e, ERR_BAD_INPUT, "neither a model nor a cloud is given");
    struct device_core *c = mem_calloc(1, sizeof *c);
    if (!c) return err_set(e, ERR_NO_MEMORY, "no memory for a device");
    c->loop = l;
    c->engine = o->engine;
    c->on_use = o->on_use;
    c->use_arg = o->arg;
    energy_init(&c->energy, o->sys);
    c->stall_us = o->stall_us ? o->stall_us : o->engine ? DEVICE_STALL_US : DEVICE_STALL_ALONE_US;
    snprintf(c->model, sizeof c->model, "%s", o->model ? o->model : "");
    int code = open_parts(c, o, e);
    if (code) {
        device_core_close(c);
        return code;
    }
    *ret_core = c;
    return 0;
}

void device_core_close(struct device_core *c)
{
    struct engine *engine = c && c->local ? c->engine : NULL;
    device_core_release(c);
    engine_free(engine);
}

void device_core_release(struct device_core *c)
{
    if (!c) return;
    CHECK(!c->devices);
    if (c->fill) local_cancel(c->fill);
    local_seat_close(c->fill);
    (void)local_release(c->local);
    http_client_free(c->client);
    token_list_release(&c->sent);
    loop_wake_free(c->wake);
    mem_free(c);
}

const char *device_core_url(const struct device_core *c)
{
    return c->url[0] ? c->url : NULL;
}

struct local *device_core_local(struct device_core *c)
{
    return c->local;
}

/* ---- a device ---- */

static void on_timer(void *arg)
{
    answer_tick(arg);
}

int device_open_on(struct device_core *c, struct device **ret_device, struct err *e)
{
    struct device *d = mem_calloc(1, sizeof *d);
    if (!d) return err_set(e, ERR_NO_MEMORY, "no memory for a device");
    d->core = c;
    d->client = c->client;
    d->engine = c->engine;
    int code = loop_timer_new(c->loop, on_timer, d, &d->timer, e);
    if (code == 0 && c->local) code = local_seat_open(c->local, false, &d->local, e);
    if (code) {
        loop_timer_free(d->timer);
        mem_free(d);
        return code;
    }
    d->next = c->devices;
    c->devices = d;
    *ret_device = d;
    return 0;
}

void device_close_on(struct device *d)
{
    if (!d) return;
    struct device **link = &d->core->devices;
    while (*link != d)
        link = &(*link)->next;
    *link = d->next;
    if (d->local) local_cancel(d->local);
    local_seat_close(d->local);
    answer_release(&d->answer);
    loop_timer_free(d->timer);
    mem_free(d);
}

bool device_rests(struct device *d)
{
    return !d->local || local_seat_rests(d->local);
}

int device_start(struct device *d, const struct device_question *q,
                 void (*done)(void *arg, int code, const struct device_report *r,
                              const struct err *why),
                 void *arg, struct err *e)
{
    CHECK(!d->answer.running);
    d->done = done;
    d->done_arg = arg;
    return answer_start(d, q, e);
}

void device_stop(struct device *d)
{
    answer_cancel(d);
}

bool device_core_fills(struct device_core *c, uint32_t *ret_done, uint32_t *ret_total)
{
    *ret_done = c->fill_done;
    *ret_total = c->fill_total;
    return c->fill && local_seat_feeds(c->fill);
}

void device_core_fill_stop(struct device_core *c)
{
    answer_fill_stop(c);
}

bool device_fills(struct device *d)
{
    return d->core->fill && local_seat_feeds(d->core->fill);
}

void device_answered(struct device *d, int code, const struct err *e)
{
    d->done(d->done_arg, code, &d->answer.report, e);
}
