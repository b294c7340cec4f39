/* server: listening, keys, events of the backend, draining; see server.h. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/os.h"
#include "cloud/api/server_impl.h"

enum {
    EVENT_BYTES_MAX = 1 << 20,
    DRAIN_FLUSH_US = 2000000,
    LOG_PATH_MAX = 160,
    SHORT_BODY_MAX = 4096, /* where a body has little to say, or nothing */
    EVENTS_PER_TURN =
        128 /* then sockets have their turn: a client that leaves is seen within 2 ms */
};

/* The request and its client; nothing of a body, a query, or an unknown key. */
static void log_request(enum log_level level, const struct server *s, const struct http_request *r,
                        const char *message, int status, const char *reason)
{
    char path[LOG_PATH_MAX], peer[HTTP_ADDRESS_TEXT];
    snprintf(path, sizeof path, "%s", http_request_path(r)); /* it is ASCII: can be cut anywhere */
    http_request_peer(r, peer);
    const struct log_field fields[] = {
        {"method", .text = http_request_method(r)},
        {"path", .text = path},
        {"from", .text = peer},
        {"key", .text = s->asking ? s->asking->line.name : "-"},
        {"status", .number = status},
        {"reason", .text = reason},
    };
    log_fields(level, "cloud", message, fields, reason ? 6 : 4);
}

void server_log_refusal(const struct server *s, const struct http_request *r, int status,
                        const char *reason)
{
    log_request(LOG_INFO, s, r, "refused", status, reason);
}

/* Whose request it is; false: it needs a key and has none that is valid. */
static bool find_key(struct server *s, const struct http_request *r)
{
    s->asking = s->keys ? keys_find(s->keys, http_request_bearer(r)) : NULL;
    s->refusal = (struct refusal){.code = NULL};
    return !s->keys || s->asking;
}

bool server_authorised(struct server *s, struct http_request *r)
{
    if (find_key(s, r)) return true;
    s->metrics.refused[METRICS_UNAUTHORISED]++;
    server_log_refusal(s, r, 401, "invalid_api_key");
    http_request_reply_header(r, "WWW-Authenticate", "Bearer");
    http_reply_error(r, 401, "invalid_api_key", NULL,
                     "a valid key is needed: Authorization: Bearer KEY");
    return false;
}

bool server_gate(struct http_request *r, void *server)
{
    struct server *s = server;
    if (!server_authorised(s, r)) return false;
    log_request(LOG_DEBUG, s, r, "request", 0, NULL);
    return true;
}

bool server_gate_work(struct http_request *r, void *server)
{
    return server_gate(r, server) && quota_use_request(server, r);
}

static void body_refused(struct http_request *r, int status, const char *reason, void *server)
{
    struct server *s = server;
    (void)find_key(s, r); /* for its name in the line */
    server_log_refusal(s, r, status, reason);
}

bool server_accepts(struct server *s, struct http_request *r, const char *model)
{
    if (s->draining) {
        s->metrics.refused[METRICS_UNAVAILABLE]++;
        server_log_refusal(s, r, 503, "draining");
        http_request_reply_header(r, "Retry-After", "5");
        http_reply_error(r, 503, "draining", NULL, "the server is shutting down");
        return false;
    }
    bool unknown =
        !s->model_name[0]; /* no upstream server was up yet: the backend says so, with 503 */
    if (!model[0] || unknown || strcmp(model, s->model_name) == 0) return true;
    s->metrics.refused[METRICS_INVALID]++;
    server_log_refusal(s, r, 404, "model_not_found");
    http_reply_error(r, 404, "model_not_found", "model",
                     "model \"%s\" is not served here; \"%s\" is", model, s->model_name);
    return false;
}

static enum metrics_refusal refusal_of(int code)
{
    switch (code) {
    case ERR_BUSY:
        return METRICS_BUSY;
    case ERR_NO_MEMORY:
    case ERR_NET:
    case ERR_TIMEOUT:
    case ERR_PROTOCOL:
    case ERR_INTERNAL:
        return METRICS_UNAVAILABLE;
    default:
        return METRICS_INVALID;
    }
}

/* `seconds` of the key's bucket; 0: what the backend expects. */
static void set_retry_after(struct server *s, struct http_request *r, uint32_t seconds)
{
    struct backend_stats stats;
    char text[16];
    backend_stats_of(s->backend, &stats);
    if (seconds == 0) seconds = stats.retry_after_s;
    snprintf(text, sizeof text, "%u", seconds ? seconds : SERVER_RETRY_AFTER_S);
    http_request_reply_header(r, "Retry-After", text);
}

/* What the answer calls the error. */
static const char *code_name(int status, int code)
{
    return status == 400 && code == ERR_LIMIT ? WIRE_CODE_TOO_LONG : err_code_name(code);
}

/* `logged`: there is a line of it already. */
static void refuse(struct server *s, struct http_request *r, const struct err *e, const char *param,
                   bool logged)
{
    const struct refusal why = s->refusal;
    int status = why.code ? 429 : e->code == ERR_LIMIT ? 400 : http_err_status(e->code);
    const char *code = why.code ? why.code : code_name(status, e->code);
    s->refusal = (struct refusal){.code = NULL};
    s->metrics.refused[why.quota ? METRICS_QUOTA : refusal_of(e->code)]++;
    if (e->code == ERR_BUSY && !why.never) set_retry_after(s, r, why.retry_s);
    if (!logged) server_log_refusal(s, r, status, code);
    http_reply_error(r, status, code, param, "%s", e->text);
}

void server_refuse(struct server *s, struct http_request *r, const struct err *e, const char *param)
{
    refuse(s, r, e, param, false);
}

void server_refuse_job(struct server *s, struct http_request *r, const struct job_failure *f)
{
    char seconds[16];
    if (!f->status) {
        refuse(s, r, &f->e, NULL, true);
        return;
    }
    s->metrics.refused[refusal_of(f->e.code)]++;
    if (f->status == 429 || f->status == 503) {
        snprintf(seconds, sizeof seconds, "%u",
                 f->retry_after_s ? f->retry_after_s : SERVER_RETRY_AFTER_S);
        http_request_reply_header(r, "Retry-After", seconds);
    }
    http_reply_error(r, f->status, code_name(f->status, f->e.code), NULL, "%s", f->e.text);
}

/* Of a port of their own, which needs no key. */
static const struct http_route metrics_routes[] = {
    {"GET", "/health", status_health, NULL, SHORT_BODY_MAX},
    {"GET", "/ready", status_ready, NULL, SHORT_BODY_MAX},
    {"GET", "/metrics", status_metrics_open, NULL, SHORT_BODY_MAX},
};

static const struct http_route routes[] = {
    {"POST", "/v1/assist", assist_post, server_gate_work, 0},
    {"PATCH", "/v1/assist/{id}", assist_patch, server_gate, SHORT_BODY_MAX},
    {"DELETE", "/v1/assist/{id}", assist_delete, server_gate, SHORT_BODY_MAX},
    {"POST", "/v1/chat/completions", openai_post_chat, server_gate_work, 0},
    {"POST", "/v1/completions", openai_post_completion, server_gate_work, 0},
    {"POST", "/tokenize", tokenize_post, server_gate_work, 0},
    {"POST", "/detokenize", detokenize_post, server_gate_work, 0},
    {"GET", "/health", status_health, NULL, SHORT_BODY_MAX},
    {"GET", "/ready", status_ready, NULL, SHORT_BODY_MAX},
    {"GET", "/metrics", status_metrics, server_gate, SHORT_BODY_MAX},
    {"GET", "/v1/models", models_list, server_gate, SHORT_BODY_MAX},
    {"GET", "/v1/models/{id}", models_one, server_gate, SHORT_BODY_MAX},
};

/* A name that can stand in JSON, logs and URLs as it is. */
static void set_name(struct server *s, const char *name)
{
    size_t n = 0;
    for (; name[n] && n + 1 < sizeof s->model_name; n++) {
        char c = name[n];
        s->model_name[n] = c > 32 && c < 127 && c != '"' && c != '\\' ? c : '-';
    }
    s->model_name[n] = 0;
}

static void backend_has_events(void *arg)
{
    struct server *s = arg;
    struct job_event ev;
    if (!s->model_name[0]) set_name(s, s->backend->info->model_name);
    for (uint32_t n = 0; backend_take_event(s->backend, &ev); n++) {
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
    if (code == 0) code = loop_wake_new(s->loop, backend_has_events, s, &s->wake, e);
    if (code == 0) code = offload_new(s->loop, &s->offload, e);
    if (code == 0 && s->c.n_tls) code = tls_new(s->c.tls, s->c.n_tls, &s->tls, e);
    if (code) return code;
    if (s->tls) {
        s->c.http.make_bufferevent = tls_bufferevent;
        s->c.http.make_bufferevent_arg = s->tls;
    }
    s->c.http.on_refused = body_refused;
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
    const char *name = config->model_name;
    if (engine) {
        if (!name) name = engine_info(engine)->model_name;
        size_t body_max = wire_body_max(engine_info(engine)->context_max);
        if (s->c.http.body_max > body_max) s->c.http.body_max = body_max;
    }
    if (name) set_name(s, name); /* else the upstream servers will say */
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
    http_server_free(s->metrics_http);
    http_server_free(s->http);
    backend_free(s->backend);
    while (s->exchanges) {
        exchange_log_stopped(s->exchanges);
        exchange_free(s->exchanges);
    }
    loop_wake_free(s->wake);
    loop_timer_free(s->drain_timer);
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
