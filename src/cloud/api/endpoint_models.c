/* endpoint_models: /v1/models and /v1/models/{id}: what is served, with the hashes by which a
 * device knows whether it has the same. */
#include "cloud/api/server_impl.h"

enum { REPLY_BYTES_MAX = 1 << 16 };

/* The name holds no character that JSON must escape: server_new sees to it. */
static void put_model(const struct server *s, struct buf *out)
{
    const struct engine_info *info = s->backend->info;
    uint32_t context = s->backend->positions_max;
    buf_printf(out,
               "{\"id\":\"%s\",\"object\":\"model\",\"created\":%llu,"
               "\"owned_by\":\"pdd\",",
               s->model_name, (unsigned long long)s->started);
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
    if (s->model_name[0]) put_model(s, &b);
    buf_puts(&b, "]}");
    reply(r, &b);
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
    if (!http_request_id_is(r, s->model_name)) {
        if (!quota_use_request(&c)) return;
        s->metrics.refused[METRICS_INVALID]++;
        request_log_refusal(&c, 404, "model_not_found");
        http_reply_error(r, 404, "model_not_found", "model",
                         "model \"%s\" is not served here; \"%s\" is", http_request_id(r),
                         s->model_name);
        return;
    }
    buf_init(&b, REPLY_BYTES_MAX);
    put_model(s, &b);
    reply(r, &b);
}
