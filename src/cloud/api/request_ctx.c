/* request_ctx: see request_ctx.h. */
#include "cloud/api/request_ctx.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cloud/api/server_impl.h"

enum { LOG_PATH_MAX = 160 };

/* The request and its client; nothing of a body, a query, or an unknown key. */
static void log_request(enum log_level level, const struct request_ctx *c, const char *message,
                        int status, const char *reason)
{
    char path[LOG_PATH_MAX], peer[HTTP_ADDRESS_TEXT];
    snprintf(path, sizeof path, "%s",
             http_request_path(c->http)); /* it is ASCII: can be cut anywhere */
    http_request_peer(c->http, peer);
    const struct log_field fields[] = {
        {"request", .text = http_request_tag(c->http)},
        {"method", .text = http_request_method(c->http)},
        {"path", .text = path},
        {"from", .text = peer},
        {"key", .text = c->key ? c->key->line.name : "-"},
        {"status", .number = status},
        {"reason", .text = reason},
    };
    log_fields(level, "cloud", message, fields, reason ? 7 : 5);
}

void request_log_refusal(const struct request_ctx *c, int status, const char *reason)
{
    log_request(LOG_INFO, c, "refused", status, reason);
}

/* False: it needs a key and has none that is valid, or two of which *ret_other names the second's
 * header. */
static bool fill(struct request_ctx *c, struct server *s, struct http_request *r,
                 const char **ret_other)
{
    *c = (struct request_ctx){.server = s, .http = r};
    *ret_other = NULL;
    if (!s->keys) return true;
    const char *key = http_request_key(r, ret_other);
    if (!*ret_other) c->key = keys_find(s->keys, key);
    return c->key;
}

static void refuse_keys(struct request_ctx *c, const char *other)
{
    request_log_refusal(c, 400, "two_keys");
    http_reply_error(c->http, 400, "two_keys", NULL,
                     "%s holds another key than the request's first one: send one key", other);
}

bool request_authorised(struct request_ctx *c, struct server *s, struct http_request *r)
{
    const char *other;
    if (fill(c, s, r, &other)) return true;
    s->metrics.refused[METRICS_UNAUTHORISED]++;
    if (other) {
        refuse_keys(c, other);
        return false;
    }
    request_log_refusal(c, 401, "invalid_api_key");
    http_request_reply_header(r, "WWW-Authenticate", "Bearer");
    http_reply_error(r, 401, "invalid_api_key", NULL,
                     "a valid key is needed: Authorization: Bearer KEY, or X-Api-Key: KEY");
    return false;
}

static bool gate(struct request_ctx *c, struct server *s, struct http_request *r)
{
    if (!request_authorised(c, s, r)) return false;
    log_request(LOG_DEBUG, c, "request", 0, NULL);
    return true;
}

bool request_gate(struct http_request *r, void *server)
{
    struct request_ctx c;
    return gate(&c, server, r);
}

bool request_gate_work(struct http_request *r, void *server)
{
    struct request_ctx c;
    return gate(&c, server, r) && quota_use_request(&c);
}

void request_body_refused(struct http_request *r, int status, const char *reason, void *server)
{
    struct request_ctx c;
    const char *other;
    (void)fill(&c, server, r, &other); /* for its key's name in the line */
    request_log_refusal(&c, status, reason);
}

bool request_accepts(struct request_ctx *c, const char *model)
{
    struct server *s = c->server;
    struct http_request *r = c->http;
    if (s->draining) {
        s->metrics.refused[METRICS_UNAVAILABLE]++;
        request_log_refusal(c, 503, "draining");
        http_request_reply_header(r, "Retry-After", "5");
        http_reply_error(r, 503, "draining", NULL, "the server is shutting down");
        return false;
    }
    bool unknown =
        !s->model_name[0]; /* no upstream server was up yet: the backend says so, with 503 */
    if (!model[0] || unknown || strcmp(model, s->model_name) == 0) return true;
    if (model_names_have(&s->c.names, model)) return true;
    s->metrics.refused[METRICS_INVALID]++;
    request_log_refusal(c, 404, "model_not_found");
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

static int status_of(const struct err *e)
{
    return e->code == ERR_LIMIT ? 400 : http_err_status(e->code);
}

void request_refuse(struct request_ctx *c, const struct err *e, const char *param)
{
    struct server *s = c->server;
    const struct quota_refusal *quota = &c->quota;
    int status = quota->code ? 429 : status_of(e);
    const char *code = quota->code ? quota->code : code_name(status, e->code);
    s->metrics.refused[quota->code ? METRICS_QUOTA : refusal_of(e->code)]++;
    if (e->code == ERR_BUSY && !quota->never) set_retry_after(s, c->http, quota->retry_s);
    request_log_refusal(c, status, code);
    http_reply_error(c->http, status, code, param, "%s", e->text);
}

void request_refuse_job(struct server *s, struct http_request *r, const struct job_failure *f)
{
    char seconds[16];
    int status = f->status ? f->status : status_of(&f->e);
    s->metrics.refused[refusal_of(f->e.code)]++;
    if (!f->status && f->e.code == ERR_BUSY) set_retry_after(s, r, 0);
    if (f->status == 429 || f->status == 503) {
        snprintf(seconds, sizeof seconds, "%u",
                 f->retry_after_s ? f->retry_after_s : SERVER_RETRY_AFTER_S);
        http_request_reply_header(r, "Retry-After", seconds);
    }
    http_reply_error(r, status, f->code[0] ? f->code : code_name(status, f->e.code),
                     f->param[0] ? f->param : NULL, "%s", f->e.text);
}
