/*
 * endpoint_status: for operators: /health (the process answers), /ready (new
 * requests are taken), /metrics (metrics.h).
 */
#include <stdio.h>
#include <string.h>

#include "cloud/api/server_impl.h"

void status_health(struct http_request *r, void *server)
{
    const struct server *s = server;
    const char *reply = s->draining ? "{\"status\":\"draining\",\"version\":\"" PDD_VERSION "\"}"
                                    : "{\"status\":\"ok\",\"version\":\"" PDD_VERSION "\"}";
    http_reply_json(r, 200, reply, strlen(reply));
}

/* NULL, or why new requests would be refused. */
static const char *not_ready(const struct server *s)
{
    return s->draining ? "draining" : backend_not_ready(s->backend);
}

void status_ready(struct http_request *r, void *server)
{
    const struct server *s = server;
    const char *why = not_ready(s);
    char reply[64];
    int n = snprintf(reply, sizeof reply, "{\"status\":\"%s\"}", why ? why : "ready");
    http_reply_json(r, why ? 503 : 200, reply, (size_t)n);
}

void status_metrics_open(struct http_request *r, void *server)
{
    struct server *s = server;
    struct metrics_now now = {
        .model = s->model_name,
        .streams_max = s->c.worker.streams_max,
        .kv_pages_total = s->backend->info->kv_pages_total,
        .connections = http_server_connections(s->http),
        .body_bytes = http_server_body_bytes(s->http),
        .started = s->process_started,
    };
    for (int i = 0; i < HTTP_LIMITS; i++)
        now.refused[i] = http_server_refused(s->http, (enum http_limit)i);
    os_usage(&now.process);
    backend_stats_of(s->backend, &now.work);
    now.ready = not_ready(s) == NULL;
    struct buf page;
    buf_init(&page, METRICS_BYTES_MAX);
    if (metrics_print(&s->metrics, &now, &page) == 0 && backend_metrics(s->backend, &page) == 0)
        http_reply(r, 200, "text/plain; version=0.0.4; charset=utf-8", page.data, page.len);
    else
        http_reply_error(r, 503, NULL, NULL, "no memory for the answer");
    buf_release(&page);
}

void status_metrics(struct http_request *r, void *server)
{
    struct request_ctx c;
    if (request_authorised(&c, server, r)) status_metrics_open(r, server);
}
