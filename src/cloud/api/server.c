/* server: listening, keys, events of the backend, draining; see server.h. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/os.h"
#include "cloud/api/routes.h"
#include "cloud/api/server_impl.h"

enum {
    EVENT_BYTES_MAX = 1 << 20,
    DRAIN_FLUSH_US = 2000000,
    SHORT_BODY_MAX = 4096, /* where a body has little to say, or nothing */
    EVENTS_PER_TURN =
        128 /* then sockets have their turn: a client that leaves is seen within 2 ms */
};

#define ROUTE(METHOD, PATH, HANDLER, GATE, BODY_MAX, LOOSE, TEXT)                                  \
    {METHOD, PATH, HANDLER, GATE, BODY_MAX, LOOSE},

/* Of a port of their own, which needs no key. */
static const struct http_route metrics_routes[] = {ROUTES_OF_METRICS(ROUTE)};
static const struct http_route routes[] = {ROUTES_OF_CLOUD(ROUTE)};

static void backend_has_events(void *arg)
{
    struct server *s = arg;
    struct job_event ev;
    if (!s->model_name[0]) wire_name_set(s->model_name, s->backend->info->model_name);
    for (uint32_t n = 1; backend_take_event(s->backend, &ev); n++) {
        exchange_deliver(&ev);
        if (n == EVENTS_PER_TURN) {
            loop_wake_signal(s->wake);
            return;
        }
    }
}

static void drain_over(void *arg)
{
    struct server *s = arg;
    for (struct exchange *x = s->exchanges; x; x = x->next) {
        atomic_store(&x->job->drained, true);
        backend_changed(s->backend, x->job);
    }
}

void server_drain(struct server *s, uint64_t drain_us, loop_fn *done, void *arg)
{
    uint64_t until = clock_us() + drain_us;
    s->draining = true;
    loop_timer_set(s->drain_timer, until);
    http_server_drain(s->http, until + DRAIN_FLUSH_US, done, arg);
}

void server_reload(struct server *s)
{
    struct err e = ERR_INIT;
    if (s->keys && keys_reload(s->keys, clock_us(), &e))
        log_line(LOG_ERROR, "cloud", "keys stay as they were: %s", e.text);
    else if (s->keys)
        log_line(LOG_INFO, "cloud", "keys read again");
    if (s->tls && tls_reload(s->tls, &e))
        log_line(LOG_ERROR, "cloud", "certificates stay as they were: %s", e.text);
    else if (s->tls)
        log_line(LOG_INFO, "cloud", "certificates read again");
}

static int open_parts(struct server *s, struct engine *engine, struct err *e)
{
    int code = s->c.keys_path ? keys_open(s->c.keys_path, clock_us(), &s->keys, e) : 0;
    if (code == 0) code = loop_timer_new(s->loop, drain_over, s, &s->drain_timer, e);
    if (code == 0) code = loop_timer_new(s->loop, exchange_break_silence, s, &s->quiet_timer, e);
    if (code == 0) exchange_break_silence(s); /* there is no exchange yet: it sets the timer */
    if (code == 0) code = loop_wake_new(s->loop, backend_has_events, s, &s->wake, e);
    if (code == 0) code = offload_new(s->loop, &s->offload, e);
    if (code == 0 && s->c.n_tls) code = tls_new(s->c.tls, s->c.n_tls, &s->tls, e);
    if (code) return code;
    if (s->tls) {
        s->c.http.make_bufferevent = tls_bufferevent;
        s->c.http.make_bufferevent_arg = s->tls;
    }
    s->c.http.on_refused = request_body_refused;
    s->c.worker.wake = loop_wake_signal;
    s->c.worker.wake_arg = s->wake;
    s->c.http.error_body = wire_error_body;
    code = http_server_new(s->loop, &s->c.http, routes, sizeof routes / sizeof *routes, s, &s->http,
                           e);
    if (code == 0 && s->c.metrics_address) {
        struct http_server_config config = s->c.http;
        config.address = s->c.metrics_address;
        config.port = s->c.metrics_port;
        config.make_bufferevent = NULL;
        config.n_origins = 0;
        code =
            http_server_new(s->loop, &config, metrics_routes,
                            sizeof metrics_routes / sizeof *metrics_routes, s, &s->metrics_http, e);
    }
    if (code) return code;
    s->c.upstream.wake = loop_wake_signal;
    s->c.upstream.wake_arg = s->wake;
    return engine ? worker_new(engine, &s->c.worker, &s->backend, e)
                  : upstream_new(s->loop, &s->c.upstream, &s->backend, e);
}

int server_new(struct loop *l, struct engine *engine, const struct server_config *config,
               struct server **ret_server, struct err *e)
{
    struct server *s = mem_calloc(1, sizeof *s);
    if (!s) return err_set(e, ERR_NO_MEMORY, "no memory for a server");
    s->loop = l;
    s->c = *config;
    s->started = (uint64_t)time(NULL);
    s->process_started = os_started();
    if (s->c.tokens_max == 0) s->c.tokens_max = SERVER_TOKENS_MAX;
    if (s->c.quiet_us == 0) s->c.quiet_us = SERVER_QUIET_US;
    const char *name = config->model_name;
    if (engine) {
        if (!name) name = engine_info(engine)->model_name;
        size_t body_max = wire_body_max(engine_info(engine)->context_max);
        if (s->c.http.body_max > body_max) s->c.http.body_max = body_max;
    }
    if (name) wire_name_set(s->model_name, name); /* else the upstream servers will say */
    wire_event_init(&s->event);
    buf_init(&s->bytes, EVENT_BYTES_MAX);
    int code = open_parts(s, engine, e);
    if (code) {
        server_free(s);
        return code;
    }
    *ret_server = s;
    return 0;
}

void server_free(struct server *s)
{
    if (!s) return;
    offload_free(s->offload); /* bodies that it works on belong to the HTTP server */
    s->offload = NULL;
    for (struct exchange *x = s->exchanges; x; x = x->next)
        http_body_release(&x->body);
    http_server_free(s->metrics_http);
    http_server_free(s->http);
    backend_free(s->backend);
    while (s->exchanges) {
        exchange_log_stopped(s->exchanges);
        s->exchanges->running = false; /* the backend has gone with its events */
        exchange_free(s->exchanges);
    }
    loop_wake_free(s->wake);
    loop_timer_free(s->drain_timer);
    loop_timer_free(s->quiet_timer);
    keys_close(s->keys);
    tls_free(s->tls);
    wire_event_release(&s->event);
    buf_release(&s->bytes);
    mem_free(s);
}

uint16_t server_port(const struct server *s)
{
    return http_server_port(s->http);
}

uint16_t server_metrics_port(const struct server *s)
{
    return s->metrics_http ? http_server_port(s->metrics_http) : 0;
}

struct backend *server_backend(struct server *s)
{
    return s->backend;
}
