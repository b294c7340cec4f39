/* chat_hello: see chat_hello.h. */
#include "cli/chat/chat_hello.h"

#include <jansson.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "net/http_client.h"
#include "net/http_url.h"
#include "proto/wire.h"

struct asked {
    const struct chat_hello *h;
    struct loop *loop;
    struct buf *line;
};

/* What a stranger may have written: the terminal obeys no character of it. */
static void put_text(struct buf *line, const char *text)
{
    size_t n = strlen(text);
    for (size_t at = 0, len; at < n; at += len) {
        size_t control = utf8_control(text + at, n - at);
        len = control ? control : 1;
        buf_putc(line, control ? '?' : text[at]);
    }
}

static bool same(const json_t *object, const char *key, const char *ours)
{
    const char *theirs = json_string_value(json_object_get(object, key));
    return theirs && theirs[0] && ours && strcmp(theirs, ours) == 0;
}

/* As the cloud's grant will say it; NULL without a model here. */
static const char *match_of(const struct engine_info *info, const json_t *model)
{
    const json_t *hashes = json_object_get(model, "hashes");
    if (!info) return NULL;
    if (!same(hashes, "tokenizer", info->tokenizer_hash)) return wire_match_name(WIRE_TEXT);
    if (!same(hashes, "weights", info->weights_hash)) return wire_match_name(WIRE_TOKENS);
    return wire_match_name(same(model, "numerics", info->numerics) ? WIRE_EXACT : WIRE_WEIGHTS);
}

/* The one that is asked for, else the first. */
static const json_t *choose_model(const json_t *models, const char *wanted)
{
    size_t i;
    const json_t *m;
    json_array_foreach(models, i, m)
    {
        if (wanted && same(m, "id", wanted)) return m;
    }
    return wanted ? NULL : json_array_get(models, 0);
}

static void put_models(struct asked *a, const struct http_result *r)
{
    json_t *root = json_loadb(r->body, r->body_len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *models = json_object_get(root, "data");
    const json_t *m = choose_model(models, a->h->model);
    const char *id = json_string_value(json_object_get(m, "id"));
    if (!json_is_array(models)) {
        buf_puts(a->line, "answers, but not as such a server does");
    } else if (!id && a->h->model) {
        buf_puts(a->line, "answers, but has no model ");
        put_text(a->line, a->h->model);
    } else if (!id) {
        buf_puts(a->line, "answers, but has no model yet");
    } else {
        const char *match = match_of(a->h->info, m);
        buf_puts(a->line, "answers with model ");
        put_text(a->line, id);
        if (match) buf_printf(a->line, ", match %s", match);
    }
    json_decref(root);
}

static void on_done(void *arg, const struct http_result *r)
{
    struct asked *a = arg;
    struct err e = ERR_INIT;
    loop_stop(a->loop);
    if (r->err.code == ERR_TIMEOUT) {
        buf_printf(a->line, "no answer within %d s; each question tries it again",
                   CHAT_HELLO_US / 1000000);
    } else if (r->err.code == 0 && r->status < 300 && !r->notice[0]) {
        put_models(a, r);
    } else {
        buf_puts(a->line, r->err.code && !r->status ? "not reachable: " : "");
        if (r->err.code == 0 && r->notice[0])
            err_set(&e, ERR_NET, "%s", r->notice);
        else
            http_result_error(r, "it", wire_error_text, &e);
        put_text(a->line, e.text);
    }
}

static int ask_cloud(struct asked *a, struct err *e)
{
    struct http_client_config config;
    struct http_client *client = NULL;
    struct http_call *call;
    struct http_call_spec spec = {.method = "GET",
                                  .path = "/v1/models",
                                  .collect = true,
                                  .deadline_us = clock_us() + CHAT_HELLO_US,
                                  .on_done = on_done,
                                  .arg = a};
    http_client_config_default(&config);
    config.base_url = a->h->cloud_url;
    config.bearer = a->h->key;
    config.ca_file = a->h->ca_file;
    config.warm_path = NULL;
    int code = loop_new(&a->loop, e);
    if (code == 0) code = http_client_new(a->loop, &config, &client, e);
    if (code == 0) code = http_call_start(client, &spec, &call, e);
    if (code == 0) code = loop_run(a->loop, e);
    http_client_free(client);
    loop_free(a->loop);
    return code;
}

void chat_hello(const struct chat_hello *h, struct buf *line)
{
    struct asked a = {.h = h, .line = line};
    struct err e = ERR_INIT;
    if (h->info)
        buf_printf(line, "model %s, context %u", h->info->model_name, h->info->context_max);
    else
        buf_puts(line, "no model here");
    if (!h->cloud_url) {
        buf_puts(line, "; no cloud: nothing leaves this machine");
        return;
    }
    buf_printf(line, "; cloud %s (%s): ", h->cloud_url,
               strncasecmp(h->cloud_url, "https:", 6) == 0 ? "TLS"
               : http_url_exposes(h->cloud_url)            ? "no TLS"
                                                           : "this machine");
    if (ask_cloud(&a, &e)) put_text(line, e.text);
}
