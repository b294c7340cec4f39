/* http_client: libcurl's multi interface on the loop, and the warm spare; see http_client.h. */
#include "net/http_client.h"

#include <event2/event.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/http_ca.h"
#include "net/http_client_impl.h"
#include "net/http_url.h"

void http_client_config_default(struct http_client_config *ret_config)
{
    *ret_config = (struct http_client_config){.warm_path = "/health",
                                              .warm_interval_us = 25000000,
                                              .connect_timeout_us = 5000000,
                                              .first_byte_timeout_us = 60000000,
                                              .idle_timeout_us = 15000000,
                                              .calls_max = HTTP_CLIENT_CALLS_MAX,
                                              .lingering_max = HTTP_CLIENT_LINGERING_MAX};
}

static void unlink_call(struct http_call *call)
{
    struct http_client *c = call->client;
    if (call->prev)
        call->prev->next = call->next;
    else
        c->calls = call->next;
    if (call->next) call->next->prev = call->prev;
    if (c->cursor == call) c->cursor = call->next;
    if (c->current == call) c->current = NULL;
    if (call->lingers) c->n_lingering--;
    if (c->warming == call)
        c->warming = NULL;
    else
        c->n_calls--;
}

void call_leave_multi(struct http_call *call)
{
    if (!call->counted) return;
    call->counted = false;
    call->client->n_active--;
    curl_multi_remove_handle(call->client->multi, call->easy);
}

uint32_t http_client_spares(const struct http_client *c)
{
    return c->n_sockets > c->n_active ? c->n_sockets - c->n_active : 0;
}

static void warm_ended(void *arg, const struct http_result *result)
{
    struct http_client *c = arg;
    uint64_t wait = c->config.warm_interval_us;
    if (result->err.code) {
        if (c->warm_retry_us < wait) wait = c->warm_retry_us;
        c->warm_retry_us *= 2;
    } else {
        c->warm_retry_us = HTTP_WARM_RETRY_US;
    }
    loop_timer_set(c->warm_timer, clock_us() + wait);
}

static int start(struct http_client *c, const struct http_call_spec *spec, bool warming,
                 struct http_call **ret_call, struct err *e)
{
    struct http_call *call;
    int code = call_new(c, spec, &call, e);
    if (code) return code;
    CURLMcode added = curl_multi_add_handle(c->multi, call->easy);
    if (added != CURLM_OK) {
        call_free(call);
        return err_set(e, ERR_INTERNAL, "curl refuses a call: %s", curl_multi_strerror(added));
    }
    call->counted = true;
    c->n_active++;
    call->next = c->calls;
    if (call->next) call->next->prev = call;
    c->calls = call;
    if (warming)
        c->warming = call;
    else
        c->n_calls++;
    *ret_call = call;
    return 0;
}

/* A cheap request leaves an idle, established connection. */
static void warm(void *arg)
{
    struct http_client *c = arg;
    struct http_call *call;
    if (!c->warm_path || c->warming) return;
    struct http_call_spec spec = {
        .method = "GET", .path = c->warm_path, .collect = true, .on_done = warm_ended, .arg = c};
    if (start(c, &spec, true, &call, NULL))
        loop_timer_set(c->warm_timer, clock_us() + c->config.warm_interval_us);
}

static void keep_warm(struct http_client *c)
{
    if (c->warm_path && !c->warming && http_client_spares(c) == 0 &&
        c->warm_retry_us == HTTP_WARM_RETRY_US)
        loop_timer_set(c->warm_timer, clock_us());
}

/* Tell a call what has come for it. The callbacks may cancel it: then c->current is NULL. Or they
 * let it linger: then its spec names no callback any more. */
static void deliver_one(struct http_client *c, struct http_call *call)
{
    const struct http_call_spec *spec = &call->spec;
    c->current = call;
    if (call->lingers && call->inbox.len > 0) {
        http_call_cancel(call);
        return;
    }
    if (call->head_seen && !call->head_told) {
        call->head_told = true;
        call_free_sent_body(call);
        if (call != c->warming) keep_warm(c); /* the call has taken the spare */
        if (spec->on_head) spec->on_head(spec->arg, call->result.status);
    }
    if (c->current && call->inbox.len > 0) {
        struct buf data = call->inbox;
        buf_init(&call->inbox, HTTP_INBOX_MAX);
        if (spec->on_body) spec->on_body(spec->arg, data.data, data.len);
        buf_release(&data);
    }
    if (c->current && call->ended) {
        unlink_call(call);
        call->told = true;
        if (spec->on_done) spec->on_done(spec->arg, &call->result);
        call_free(call);
        keep_warm(c);
    }
    c->current = NULL;
}

void client_deliver(struct http_client *c)
{
    CHECK(!c->current); /* callbacks must not run the loop or free the client */
    for (struct http_call *call = c->calls; call; call = c->cursor) {
        c->cursor = call->next;
        deliver_one(c, call);
    }
    c->cursor = NULL;
}

/* Calls whose sockets cannot be watched, as there was no memory for it. */
static void end_starved(struct http_client *c)
{
    if (!c->starved) return;
    c->starved = false;
    for (struct http_call *call = c->calls; call; call = call->next) {
        if (!call->starved || call->ended) continue;
        call_end(call, CURLE_OUT_OF_MEMORY);
        call_leave_multi(call);
    }
}

/* Let curl work, then tell the calls what came of it. */
static void act(struct http_client *c, curl_socket_t fd, int what)
{
    int left;
    curl_multi_socket_action(c->multi, fd, what, &left);
    for (CURLMsg *m; (m = curl_multi_info_read(c->multi, &left)) != NULL;) {
        struct http_call *call = NULL;
        CURLcode code = m->data.result;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&call);
        if (m->msg != CURLMSG_DONE || !call) continue;
        call_end(call, code);
        call_leave_multi(call); /* m is gone after this */
    }
    end_starved(c);
    client_deliver(c);
}

static void curl_timer_fired(void *arg)
{
    act(arg, CURL_SOCKET_TIMEOUT, 0);
}

static void socket_ready(evutil_socket_t fd, short what, void *arg)
{
    int bits = (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0);
    act(arg, fd, bits);
}

static struct event *watch_for(struct http_client *c, curl_socket_t fd, int what)
{
    short kind = (short)((what & CURL_POLL_IN ? EV_READ : 0) |
                         (what & CURL_POLL_OUT ? EV_WRITE : 0) | EV_PERSIST);
    struct event *event = event_new(loop_base(c->loop), fd, kind, socket_ready, c);
    if (!event || event_add(event, NULL) == 0) return event;
    event_free(event);
    return NULL;
}

/* An error returned to curl would be the end of all calls, and of the events of their sockets. */
static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
    struct http_client *c = arg;
    struct event *event = socket_arg;
    struct http_call *call = NULL;
    if (event) event_free(event);
    event = what == CURL_POLL_REMOVE ? NULL : watch_for(c, fd, what);
    curl_multi_assign(c->multi, fd, event);
    if (event || what == CURL_POLL_REMOVE) return 0;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&call);
    if (call) call->starved = c->starved = true;
    return 0;
}

static int set_curl_timer(CURLM *multi, long timeout_ms, void *arg)
{
    struct http_client *c = arg;
    (void)multi;
    if (timeout_ms < 0)
        loop_timer_clear(c->curl_timer);
    else
        loop_timer_set(c->curl_timer, clock_us() + (uint64_t)timeout_ms * 1000);
    return 0;
}

static bool copy_text(const char *text, char **ret_copy)
{
    *ret_copy = text ? mem_strdup(text) : NULL;
    return !text || *ret_copy;
}

static int copy_config(struct http_client *c, const struct http_client_config *config,
                       struct err *e)
{
    const char *ca_file = config->ca_file ? config->ca_file : http_ca_file();
    char base_url[HTTP_URL_MAX];
    int code = http_url_base(config->base_url, base_url, sizeof base_url, e);
    if (code) return code;
    c->config = *config;
    c->warm_retry_us = HTTP_WARM_RETRY_US;
    if (config->bearer && strpbrk(config->bearer, "\r\n"))
        return err_set(e, ERR_BAD_INPUT, "the key for %s holds a line end", config->base_url);
    if (!copy_text(base_url, &c->base_url) || !copy_text(config->bearer, &c->bearer) ||
        !copy_text(ca_file, &c->ca_file) || !copy_text(config->warm_path, &c->warm_path))
        return err_set(e, ERR_NO_MEMORY, "no memory for a client");
    c->is_local = http_url_is_local(base_url);
    return 0;
}

static int make_multi(struct http_client *c, struct err *e)
{
    /* Some of many calls are between two at a time; more idle sockets would only lie about. */
    long idle = (long)c->config.calls_max / 16;
    c->multi = curl_multi_init();
    if (!c->multi) return err_set(e, ERR_NO_MEMORY, "no memory for a client");
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, set_curl_timer);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS,
                      idle > HTTP_IDLE_CONNECTIONS ? idle : HTTP_IDLE_CONNECTIONS);
    return 0;
}

int http_client_new(struct loop *l, const struct http_client_config *config,
                    struct http_client **ret_client, struct err *e)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return err_set(e, ERR_INTERNAL, "libcurl cannot be initialised");
    struct http_client *c = mem_calloc(1, sizeof *c);
    if (!c) {
        curl_global_cleanup();
        return err_set(e, ERR_NO_MEMORY, "no memory for a client");
    }
    c->loop = l;
    int code = copy_config(c, config, e);
    if (!code) code = loop_timer_new(l, curl_timer_fired, c, &c->curl_timer, e);
    if (!code) code = loop_timer_new(l, warm, c, &c->warm_timer, e);
    if (!code) code = make_multi(c, e);
    if (code) {
        http_client_free(c);
        return code;
    }
    keep_warm(c);
    *ret_client = c;
    return 0;
}

void http_client_free(struct http_client *c)
{
    if (!c) return;
    CHECK(!c->current);
    while (c->calls) {
        struct http_call *call = c->calls;
        call_leave_multi(call);
        unlink_call(call);
        call_free(call);
    }
    if (c->multi) curl_multi_cleanup(c->multi);
    loop_timer_free(c->curl_timer);
    loop_timer_free(c->warm_timer);
    mem_free(c->base_url);
    mem_free(c->bearer);
    mem_free(c->ca_file);
    mem_free(c->warm_path);
    mem_free(c);
    curl_global_cleanup();
}

int http_call_start(struct http_client *c, const struct http_call_spec *spec,
                    struct http_call **ret_call, struct err *e)
{
    if (c->n_calls >= c->config.calls_max)
        return err_set(e, ERR_BUSY, "%s: there are %u calls already", c->base_url,
                       c->config.calls_max);
    struct http_call *call;
    int code = start(c, spec, false, &call, e);
    if (!code) *ret_call = call;
    return code;
}

void http_call_linger(struct http_call *call)
{
    if (!call || call->told) return;
    struct http_client *c = call->client;
    if (c->n_lingering >= c->config.lingering_max) {
        http_call_cancel(call);
        return;
    }
    c->n_lingering++;
    call->lingers = true;
    call->spec.on_head = NULL;
    call->spec.on_body = NULL;
    call->spec.on_done = NULL;
    call->spec.deadline_us = clock_us() + HTTP_LINGER_MAX_US;
    loop_timer_set(call->timer, call_due_us(call));
}

void http_call_cancel(struct http_call *call)
{
    if (!call || call->told) return; /* told: its on_done is running and ends it anyway */
    struct http_client *c = call->client;
    call_leave_multi(call);
    unlink_call(call);
    call_free(call);
    keep_warm(c);
}
