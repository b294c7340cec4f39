/* endpoint_status: what is here and how it does: models, tokens, health, metrics. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "device/api/serve_impl.h"
#include "proto/json.h"

enum { REPLY_MAX = 64 << 20, PAGE_MAX = 1 << 16 };

/* What a person asked stays with who asked: not in a cache, nor as another page's script. */
static void put_private(struct http_request *r)
{
    http_request_reply_header(r, "Cache-Control", "no-store");
    http_request_reply_header(r, "X-Content-Type-Options", "nosniff");
}

void serve_reply(struct http_request *r, struct buf *b)
{
    put_private(r);
    if (!b->error)
        http_reply_take(r, 200, "application/json", b);
    else
        http_reply_error(r, 503, "no_memory", NULL, "no memory for the response");
    buf_release(b);
}

void serve_refuse(struct serve *s, struct http_request *r, const struct err *e, const char *param)
{
    int status = http_err_status(e->code);
    if (e->code == ERR_DENIED) status = 403;
    s->metrics.invalid += status < 500 && status != 429;
    log_line(LOG_DEBUG, "device", "refused request=%s status=%d reason=%s", http_request_tag(r),
             status, err_code_name(e->code));
    http_reply_error(r, status, err_code_name(e->code), param, "%s", e->text);
}

/* ---- models ---- */

static void put_model(const struct serve *s, const char *name, struct buf *out)
{
    buf_printf(out, "{\"id\":\"%s\",\"object\":\"model\",\"created\":%llu,\"owned_by\":\"pdd\"",
               name, (unsigned long long)s->started);
    if (s->info)
        buf_printf(out,
                   ",\"context_length\":%u,\"numerics\":\"%s\",\"hashes\":{\"weights\":\"%s\","
                   "\"tokenizer\":\"%s\",\"template\":\"%s\"}",
                   s->info->context_max, s->info->numerics, s->info->weights_hash,
                   s->info->tokenizer_hash, s->info->template_hash);
    buf_putc(out, '}');
}

void serve_models(struct http_request *r, void *serve)
{
    struct serve *s = serve;
    struct buf b;
    buf_init(&b, PAGE_MAX);
    buf_puts(&b, "{\"object\":\"list\",\"data\":[");
    put_model(s, s->model, &b);
    for (uint32_t i = 0; i < s->c.names.n; i++) {
        if (strcmp(s->c.names.alias[i], "*") == 0) continue;
        buf_putc(&b, ',');
        put_model(s, s->c.names.alias[i], &b);
    }
    buf_puts(&b, "]}");
    serve_reply(r, &b);
}

/* The model's own name, or an alias of it; NULL: another. */
static const char *name_asked(const struct serve *s, const struct http_request *r)
{
    if (http_request_id_is(r, s->model)) return s->model;
    for (uint32_t i = 0; i < s->c.names.n; i++)
        if (http_request_id_is(r, s->c.names.alias[i])) return s->c.names.alias[i];
    return model_names_all(&s->c.names) ? s->model : NULL;
}

void serve_model(struct http_request *r, void *serve)
{
    struct serve *s = serve;
    struct buf b;
    const char *name = name_asked(s, r);
    if (!name) {
        s->metrics.invalid++;
        http_reply_error(r, 404, "model_not_found", "model",
                         "model \"%s\" is not served here; \"%s\" is", http_request_id(r),
                         s->model);
        return;
    }
    buf_init(&b, PAGE_MAX);
    put_model(s, name, &b);
    serve_reply(r, &b);
}

/* ---- tokens ---- */

static int need_vocab(const struct serve *s, struct err *e)
{
    if (s->vocab) return 0;
    return err_set(e, ERR_UNSUPPORTED, "there is no model on the device, and so no tokenizer");
}

void serve_tokenize(struct http_request *r, void *serve)
{
    struct serve *s = serve;
    struct openai_tokenize q = {0};
    struct token_list tokens;
    struct err e = ERR_INIT;
    struct buf b;
    char param[OPENAI_PARAM_MAX] = "";
    size_t n;
    const char *body = http_request_body(r, &n);
    token_list_init(&tokens, WIRE_PROMPT_MAX);
    int code = need_vocab(s, &e);
    if (!code) code = openai_tokenize_decode(body, n, &q, param, &e);
    unsigned flags = (q.add_special ? VOCAB_ADD_BOS : 0u) | (q.parse_special ? VOCAB_SPECIAL : 0u);
    if (!code) code = vocab_encode(s->vocab, q.text, q.text_len, flags, &tokens, &e);
    if (code) {
        serve_refuse(s, r, &e, param[0] ? param : NULL);
    } else {
        buf_init(&b, REPLY_MAX);
        openai_put_tokens(&b, tokens.ids, tokens.len, s->info->context_max);
        serve_reply(r, &b);
    }
    openai_tokenize_release(&q);
    token_list_release(&tokens);
}

void serve_detokenize(struct http_request *r, void *serve)
{
    struct serve *s = serve;
    struct err e = ERR_INIT;
    struct buf b, text;
    char param[OPENAI_PARAM_MAX] = "";
    int32_t *ids = NULL;
    uint32_t n_ids = 0;
    size_t n;
    const char *body = http_request_body(r, &n);
    buf_init(&text, REPLY_MAX);
    int code = need_vocab(s, &e);
    if (!code) code = openai_detokenize_decode(body, n, &ids, &n_ids, param, &e);
    if (!code) code = vocab_write(s->vocab, ids, n_ids, &text, &e);
    if (code) {
        serve_refuse(s, r, &e, "tokens");
    } else {
        buf_init(&b, REPLY_MAX);
        openai_put_text(&b, text.data, text.len);
        serve_reply(r, &b);
    }
    mem_free(ids);
    buf_release(&text);
}

/* ---- how it does ---- */

static uint32_t running(const struct serve *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->c.answers_max; i++)
        n += s->runs[i] != NULL;
    return n;
}

static uint32_t held(const struct serve *s)
{
    uint32_t n = 0;
    for (const struct ask *a = s->asks; a; a = a->next)
        n += a->state == ASK_HELD;
    return n;
}

void serve_health(struct http_request *r, void *serve)
{
    const struct serve *s = serve;
    const char *reply = s->draining ? "{\"status\":\"draining\",\"version\":\"" PDD_VERSION "\"}"
                                    : "{\"status\":\"ok\",\"version\":\"" PDD_VERSION "\"}";
    http_reply_json(r, 200, reply, strlen(reply));
}

void serve_status(struct http_request *r, void *serve)
{
    struct serve *s = serve;
    struct buf b;
    buf_init(&b, PAGE_MAX);
    buf_printf(&b, "{\"version\":\"%s\",\"model\":", PDD_VERSION);
    if (s->info)
        put_model(s, s->model, &b);
    else
        buf_puts(&b, "null");
    buf_puts(&b, ",\"cloud\":");
    json_put_text(&b, s->c.device.cloud_url);
    buf_printf(&b,
               ",\"local_only\":%s,\"ask_before_sending\":%s,\"needs_token\":%s,"
               "\"running\":%u,\"waiting\":%u,\"held\":%u,\"answers_max\":%u,\"queue_max\":%u",
               s->c.device.cloud_url ? "false" : "true", s->c.ask_before_sending ? "true" : "false",
               s->token[0] ? "true" : "false", running(s), ask_waiting(s), held(s),
               s->c.answers_max, s->c.queue_max);
    uint32_t done, total;
    if (device_core_fills(s->core, &done, &total))
        buf_printf(&b, ",\"reading\":[%u,%u]", done, total);
    else
        buf_puts(&b, ",\"reading\":null");
    buf_puts(&b, ",\"emulated\":");
    json_put_text(&b, s->info ? s->info->emulated : NULL);
    buf_putc(&b, '}');
    serve_reply(r, &b);
}

void serve_reading_stop(struct http_request *r, void *serve)
{
    struct serve *s = serve;
    device_core_fill_stop(s->core);
    http_reply(r, 204, NULL, NULL, 0);
}

static void put_metric(struct buf *out, const char *name, const char *labels, const char *kind,
                       const char *help, double value)
{
    if (help) buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind);
    buf_printf(out, "%s%s %.17g\n", name, labels, value);
}

static void put_answers(struct buf *out, const struct serve_metrics *m)
{
    static const char name[] = "pdd_answers_total";
    put_metric(out, name, "{end=\"stop\"}", "counter", "Answers, by end.", (double)m->stopped);
    put_metric(out, name, "{end=\"length\"}", NULL, NULL, (double)m->length);
    put_metric(out, name, "{end=\"cancelled\"}", NULL, NULL, (double)m->cancelled);
    put_metric(out, name, "{end=\"failed\"}", NULL, NULL, (double)m->failed);
    static const char refused[] = "pdd_requests_refused_total";
    put_metric(out, refused, "{why=\"busy\"}", "counter", "Requests refused before any work.",
               (double)m->busy);
    put_metric(out, refused, "{why=\"invalid\"}", NULL, NULL, (double)m->invalid);
    put_metric(out, refused, "{why=\"forbidden\"}", NULL, NULL, (double)m->forbidden);
    static const char tokens[] = "pdd_generation_tokens_total";
    put_metric(out, tokens, "{source=\"cloud\"}", "counter", "Tokens of answers, by source.",
               (double)m->tokens[TURN_CLOUD]);
    put_metric(out, tokens, "{source=\"device\"}", NULL, NULL, (double)m->tokens[TURN_DEVICE]);
    put_metric(out, "pdd_handovers_total", "", "counter", "Answers that changed to the device.",
               (double)m->handovers);
    put_metric(out, "pdd_time_to_first_token_seconds_sum", "", "counter",
               "Time to the first token, summed up.", m->first_us / 1e6);
    put_metric(out, "pdd_time_to_first_token_seconds_count", "", "counter",
               "Answers with a first token.", m->first_n);
    put_metric(out, "pdd_cloud_requests_total", "", "counter", "Requests to the cloud.",
               (double)m->sends);
    put_metric(out, "pdd_sent_bytes_total", "", "counter", "Bodies sent to the cloud.",
               (double)m->sent_bytes);
    put_metric(out, "pdd_received_bytes_total", "", "counter", "Bodies received from the cloud.",
               (double)m->received_bytes);
}

static void put_engine(struct buf *out, const struct local_stats *t)
{
    put_metric(out, "pdd_engine_steps_total", "", "counter", "Steps of the engine.",
               (double)t->steps);
    put_metric(out, "pdd_engine_step_seconds_total", "", "counter", "Time of these steps.",
               (double)t->step_us / 1e6);
    put_metric(out, "pdd_engine_spans_total", "", "counter", "Answers in steps, summed up.",
               (double)t->spans);
    put_metric(out, "pdd_prefill_tokens_total", "", "counter", "Tokens of prefills.",
               (double)t->prefill_tokens);
    put_metric(out, "pdd_cached_tokens_total", "", "counter",
               "Tokens that were not computed again.", (double)t->cached_tokens);
    put_metric(out, "pdd_kv_disk_bytes", "", "gauge", "KV pages on disk.", (double)t->disk.bytes);
    put_metric(out, "pdd_kv_disk_pages_total", "{what=\"written\"}", "counter",
               "KV pages written, read and found damaged.", (double)t->disk.written);
    put_metric(out, "pdd_kv_disk_pages_total", "{what=\"read\"}", NULL, NULL, (double)t->disk.read);
    put_metric(out, "pdd_kv_disk_pages_total", "{what=\"damaged\"}", NULL, NULL,
               (double)t->disk.damaged);
    put_metric(out, "pdd_preempted_total", "", "counter", "Answers that gave KV memory back.",
               (double)t->preempted);
    put_metric(out, "pdd_kv_pages", "{state=\"free\"}", "gauge", "Pages of KV memory.",
               t->kv_pages_free);
    put_metric(out, "pdd_kv_pages", "{state=\"cached\"}", NULL, NULL, t->kv_pages_cached);
    put_metric(out, "pdd_kv_pages", "{state=\"used\"}", NULL, NULL,
               t->kv_pages_total - t->kv_pages_free - t->kv_pages_cached);
}

void serve_metrics_page(struct http_request *r, void *serve)
{
    struct serve *s = serve;
    struct local_stats t;
    struct buf b;
    buf_init(&b, PAGE_MAX);
    put_answers(&b, &s->metrics);
    put_metric(&b, "pdd_answers_running", "", "gauge", "Answers that run.", running(s));
    put_metric(&b, "pdd_answers_waiting", "", "gauge", "Answers that wait.", ask_waiting(s));
    if (device_core_local(s->core)) {
        local_stats_of(device_core_local(s->core), &t);
        put_engine(&b, &t);
    }
    if (b.error)
        http_reply_error(r, 503, "no_memory", NULL, "no memory for the response");
    else
        http_reply(r, 200, "text/plain; version=0.0.4; charset=utf-8", b.data, b.len);
    buf_release(&b);
}
