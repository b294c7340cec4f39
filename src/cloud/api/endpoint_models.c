/* endpoint_models: /v1/models and /v1/models/{id}: what is served, with the hashes by which a
 * device knows whether it has the same. */
#include <string.h>

#include "cloud/api/server_impl.h"

enum { REPLY_BYTES_MAX = 1 << 16 };

/* A name holds no character that JSON must escape: server_new and model_names_add see to it. */
static void put_model(const struct server *s, const char *name, struct buf *out)
{
    const struct engine_info *info = s->backend->info;
    uint32_t context = s->backend->positions_max;
    buf_printf(out,
               "{\"id\":\"%s\",\"object\":\"model\",\"created\":%llu,"
               "\"owned_by\":\"pdd\",",
               name, (unsigned long long)s->started);
    if (context != UINT32_MAX) /* else the upstream server does not say */
        buf_printf(out, "\"context_length\":%u,", context);
    buf_printf(out,
               "\"numerics\":\"%s\",\"hashes\":{"
               "\"weights\":\"%s\",\"tokenizer\":\"%s\",\"template\":\"%s\"}}",
               info->numerics, info->weights_hash, info->tokenizer_hash, info->template_hash);
}

static void reply(struct http_request *r, struct buf *b)
{
    if (!b->error)
        http_reply_json(r, 200, b->data, b->len);
    else
        http_reply_error(r, 503, NULL, NULL, "no memory for the answer");
    buf_release(b);
}

void models_list(struct http_request *r, void *server)
{
    struct server *s = server;
    struct request_ctx c;
    struct buf b;
    if (!request_authorised(&c, s, r)) return;
    buf_init(&b, REPLY_BYTES_MAX);
    buf_puts(&b, "{\"object\":\"list\",\"data\":[");
    /* No name: no upstream server has been up yet. */
    if (s->model_name[0]) put_model(s, s->model_name, &b);
    for (uint32_t i = 0; s->model_name[0] && i < s->c.names.n; i++) {
        if (strcmp(s->c.names.alias[i], "*") == 0) continue;
        buf_putc(&b, ',');
        put_model(s, s->c.names.alias[i], &b);
    }
    buf_puts(&b, "]}");
    reply(r, &b);
}

/* The model's own name, or an alias of it; NULL: another. */
static const char *name_asked(const struct server *s, const struct http_request *r)
{
    if (http_request_id_is(r, s->model_name)) return s->model_name;
    for (uint32_t i = 0; i < s->c.names.n; i++)
        if (http_request_id_is(r, s->c.names.alias[i])) return s->c.names.alias[i];
    return model_names_all(&s->c.names) ? s->model_name : NULL;
}

void models_one(struct http_request *r, void *server)
{
    struct server *s = server;
    struct request_ctx c;
    struct buf b;
    if (!request_authorised(&c, s, r)) return;
    if (!s->model_name[0]) {
        s->metrics.refused[METRICS_UNAVAILABLE]++;
        request_log_refusal(&c, 503, "network");
        http_reply_error(r, 503, "network", NULL, "no upstream server has been up yet");
        return;
    }
    const char *name = name_asked(s, r);
    if (!name) {
        if (!quota_use_request(&c)) return;
        s->metrics.refused[METRICS_INVALID]++;
        request_log_refusal(&c, 404, "model_not_found");
        http_reply_error(r, 404, "model_not_found", "model",
                         "model \"%s\" is not served here; \"%s\" is", http_request_id(r),
                         s->model_name);
        return;
    }
    buf_init(&b, REPLY_BYTES_MAX);
    put_model(s, name, &b);
    reply(r, &b);
}
