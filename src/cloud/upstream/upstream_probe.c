/* upstream_probe: whether a server is up, and what it is; see upstream_impl.h. */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "cloud/upstream/upstream_impl.h"

#define PROBE_TIMEOUT_US 5000000ull

static void ask(struct upstream_server *s, const char *path,
                void (*on_done)(void *, const struct http_result *))
{
    struct err e = ERR_INIT;
    struct http_call_spec spec = {.method = "GET",
                                  .path = path,
                                  .accept = "application/json",
                                  .collect = true,
                                  .first_byte_timeout_us = PROBE_TIMEOUT_US,
                                  .idle_timeout_us = PROBE_TIMEOUT_US,
                                  .on_done = on_done,
                                  .arg = s};
    if (http_call_start(s->client, &spec, &s->probe, &e)) upstream_probe_failed(s, &e);
}

static void note_why(struct upstream_server *s, const struct err *e)
{
    if (!s->why[0] || strcmp(s->why, e->text) != 0)
        log_line(LOG_WARN, "upstream", "%s is down: %s", s->url, e->text);
    memcpy(s->why, e->text, sizeof s->why);
}

void upstream_probe_failed(struct upstream_server *s, const struct err *e)
{
    note_why(s, e);
    loop_timer_set(s->timer, route_failed(&s->u->routes[s->index], clock_us()));
}

void upstream_probe_lost(struct upstream_server *s, const struct err *e)
{
    note_why(s, e);
    s->u->routes[s->index].up = false;
    upstream_probe_soon(s);
}

static void is_up(struct upstream_server *s)
{
    struct route_server *r = &s->u->routes[s->index];
    if (!r->up)
        log_line(LOG_INFO, "upstream", "%s is up: %s, model %s%s", s->url,
                 dialect_name(s->model.dialect), s->model.name,
                 s->no_ids ? ", too old to give token ids" : "");
    s->why[0] = 0;
    loop_timer_set(s->timer, route_answered(r, clock_us()));
}

static int check(const struct http_result *result, const struct upstream_server *s, struct err *e)
{
    if (result->err.code) {
        *e = result->err;
        return e->code;
    }
    return result->status == 200 ? 0 : http_result_error(result, s->url, wire_error_text, e);
}

/* A server without /version is taken for a recent one. */
static void version_done(void *arg, const struct http_result *result)
{
    struct upstream_server *s = arg;
    s->probe = NULL;
    s->no_ids = !result->err.code && result->status == 200 &&
                !dialect_vllm_gives_ids(result->body, result->body_len);
    is_up(s);
}

static void models_done(void *arg, const struct http_result *result)
{
    struct upstream_server *s = arg;
    struct dialect_model m;
    struct err e = ERR_INIT;
    s->probe = NULL;
    int code = check(result, s, &e);
    if (!code) code = dialect_decode_models(result->body, result->body_len, s->u->model, &m, &e);
    if (!code) code = upstream_adopt(s->u, s, &m, &e);
    if (code) {
        upstream_probe_failed(s, &e);
        return;
    }
    bool same = s->known && s->model.dialect == m.dialect;
    s->model = m;
    s->known = true;
    if (m.dialect == DIALECT_VLLM && s->u->vocab && !(same && s->u->routes[s->index].up))
        ask(s, "/version", version_done);
    else
        is_up(s);
}

static void timer_fired(void *arg)
{
    struct upstream_server *s = arg;
    if (!s->probe) ask(s, "/v1/models", models_done);
}

int upstream_probe_init(struct upstream_server *s, struct err *e)
{
    int code = loop_timer_new(s->u->loop, timer_fired, s, &s->timer, e);
    if (!code) loop_timer_set(s->timer, 0);
    return code;
}

void upstream_probe_release(struct upstream_server *s)
{
    http_call_cancel(s->probe);
    s->probe = NULL;
    loop_timer_free(s->timer);
    s->timer = NULL;
}

void upstream_probe_soon(struct upstream_server *s)
{
    if (!s->probe) loop_timer_set(s->timer, 0);
}
