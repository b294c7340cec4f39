/* server: see server.h. */
#include "cloud/server.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cloud/keys.h"
#include "model/template.h"
#include "model/vocab.h"
#include "net/wire.h"

enum {
    EVENT_BYTES_MAX = 1 << 20,
    REPLY_BYTES_MAX = 1 << 16,
    DRAIN_FLUSH_US = 2000000,
    EVENTS_PER_TURN = 512 /* then sockets have their turn, or a quick engine would starve them */
};

/* One assist between the request and the worker's last event. */
struct assist {
    struct server *server;
    struct http_request *request; /* NULL once the client has gone or the stream has ended */
    struct job *job;
    struct assist *next, **link; /* all of them */
    char id[WIRE_ID_MAX];
    enum wire_match match;
    struct detok detok;
    uint64_t began, first_token;
    uint32_t cached, n_prompt;
};

struct server {
    struct loop *loop;
    struct http_server *http;
    struct worker *worker;
    struct loop_wake *wake;
    struct loop_timer *drain_timer;
    struct keys *keys;
    struct server_config c;
    char model_name[WIRE_NAME_MAX];
    struct assist *assists;
    bool draining;
    struct wire_event event; /* scratch */
    struct buf bytes;        /* scratch */
};

static void assist_free(struct assist *a)
{
    *a->link = a->next;
    if (a->next) a->next->link = a->link;
    job_free(a->job);
    mem_free(a);
}

static struct assist *assist_find(struct server *s, const char *id)
{
    for (struct assist *a = s->assists; a; a = a->next)
        if (a->request && strcmp(a->id, id) == 0) return a;
    return NULL;
}

/* The client has gone: whatever is still computed for it is wasted. */
static void client_gone(void *arg)
{
    struct assist *a = arg;
    a->request = NULL;
    atomic_store(&a->job->cancelled, true);
}

/* Out of memory: a stream with a hole would be worse than none. */
static void cut_off(struct assist *a)
{
    if (!a->request) return;
    http_request_abort(a->request);
    client_gone(a);
}

static void send_event(struct assist *a)
{
    struct server *s = a->server;
    struct err e;
    buf_clear(&s->bytes);
    if (!a->request) return;
    if (wire_event_encode(&s->event, &s->bytes, &e))
        cut_off(a);
    else /* on failure client_gone follows */
        http_stream_send(a->request, s->bytes.data, s->bytes.len);
}

static bool authorised(struct server *s, struct http_request *r)
{
    if (!s->keys || keys_match(s->keys, http_request_bearer(r))) return true;
    http_request_reply_header(r, "WWW-Authenticate", "Bearer");
    http_reply_error(r, 401, "invalid_api_key", NULL,
                     "a valid key is needed: Authorization: Bearer KEY");
    return false;
}

static int make_id(char id[WIRE_ID_MAX])
{
    uint64_t x[2];
    if (getrandom(x, sizeof x, 0) != (ssize_t)sizeof x) return ERR_INTERNAL;
    snprintf(id, WIRE_ID_MAX, "as-%016llx%016llx", (unsigned long long)x[0],
             (unsigned long long)x[1]);
    return 0;
}

/* How closely the device's model agrees with ours; what the hashes allow to promise. */
static enum wire_match match_of(const struct engine_info *info, const struct wire_request *q)
{
    if (strcmp(q->tokenizer, info->tokenizer_hash) != 0) return WIRE_TEXT;
    bool exact =
        strcmp(q->weights, info->weights_hash) == 0 && strcmp(q->numerics, info->numerics) == 0;
    return exact ? WIRE_EXACT : WIRE_TOKENS;
}

static int check_ids(const int32_t *ids, uint32_t n, uint32_t vocab, const char *field,
                     struct err *e)
{
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= vocab)
            return err_set(e, ERR_BAD_INPUT, "%s[%u]: token id %d is outside the vocabulary of %u",
                           field, i, ids[i], vocab);
    return 0;
}

static int encode_messages(struct server *s, const struct wire_request *q,
                           struct token_list *prompt, struct err *e)
{
    const struct chat_template *t = worker_template(s->worker);
    if (!t)
        return err_set(
            e, ERR_UNSUPPORTED,
            "messages: the model has no chat template that this program knows; send token "
            "ids, or start the cloud with --chat-template");
    struct chat_message *m = mem_calloc(q->n_messages, sizeof *m);
    if (!m) return err_set(e, ERR_NO_MEMORY, "no memory for the messages");
    for (uint32_t i = 0; i < q->n_messages; i++)
        m[i] = (struct chat_message){q->messages[i].role, q->messages[i].content,
                                     q->messages[i].content_len};
    int code = chat_template_encode(t, worker_vocab(s->worker), m, q->n_messages, true, prompt, e);
    mem_free(m);
    return code;
}

/* The prompt's tokens, checked; `param` names the field that is wrong. */
static int make_prompt(struct server *s, const struct wire_request *q, enum wire_match match,
                       struct token_list *prompt, const char **param, struct err *e)
{
    const struct engine_info *info = worker_engine_info(s->worker);
    *param = "prompt";
    int code;
    if (q->prompt && match == WIRE_TEXT)
        return err_set(
            e, ERR_BAD_INPUT,
            "prompt: token ids are of use only with our tokenizer (hashes.tokenizer %s); send "
            "messages instead",
            info->tokenizer_hash);
    if (q->prompt) {
        code = check_ids(q->prompt, q->n_prompt, info->vocab_size, "prompt", e);
        if (code == 0 && token_list_append(prompt, q->prompt, q->n_prompt))
            code = err_set(e, ERR_NO_MEMORY, "no memory for the prompt");
    } else {
        *param = "messages";
        code = encode_messages(s, q, prompt, e);
    }
    if (code) return code;
    *param = "have";
    code = check_ids(q->have, q->n_have, info->vocab_size, "have", e);
    if (code) return code;
    *param = "prompt";
    uint32_t max = worker_positions_max(s->worker);
    if (prompt->len == 0) return err_set(e, ERR_BAD_INPUT, "the prompt is empty");
    if ((uint64_t)prompt->len + q->n_have >= max)
        return err_set(e, ERR_LIMIT,
                       "the prompt has %u tokens and %u of its answer: the context of %u leaves "
                       "no room for more",
                       prompt->len, q->n_have, max);
    return 0;
}

static void link_assist(struct server *s, struct assist *a)
{
    a->server = s;
    a->next = s->assists;
    a->link = &s->assists;
    if (a->next) a->next->link = &a->next;
    s->assists = a;
}

static int start_job(struct server *s, struct assist *a, const struct wire_request *q,
                     const struct token_list *prompt, struct err *e)
{
    int code = job_new(prompt->ids, prompt->len, q->have, q->n_have, &a->job, e);
    if (code) return code;
    uint32_t room = worker_positions_max(s->worker) - a->job->n_tokens, n = q->tokens_max;
    n = n < s->c.tokens_max ? n : s->c.tokens_max;
    atomic_store(&a->job->tokens_max, n < room ? n : room);
    a->job->owner = a;
    a->job->sampling = q->sampling;
    a->n_prompt = prompt->len;
    a->began = clock_us();
    if (q->deadline_ms) a->job->deadline = a->began + q->deadline_ms * 1000ull;
    detok_init(&a->detok, true);
    for (uint32_t i = 0; i < q->n_have && code == 0; i++) {
        buf_clear(&s->event.text); /* only so that half a character goes on whole */
        code = detok_push(&a->detok, worker_vocab(s->worker), q->have[i], &s->event.text);
        if (code) err_set(e, code, "have[%u]: token %d has no text", i, q->have[i]);
    }
    if (code == 0 && make_id(a->id))
        code = err_set(e, ERR_INTERNAL, "no random numbers from the system");
    if (code == 0 && worker_submit(s->worker, a->job))
        code = err_set(e, ERR_BUSY, "all streams are taken and the queue is full; try again later");
    return code;
}

static void begin_assist(struct server *s, struct http_request *r, const struct wire_request *q)
{
    struct err e = ERR_INIT;
    const char *param = NULL;
    struct token_list prompt;
    token_list_init(&prompt, WIRE_PROMPT_MAX);
    enum wire_match match = match_of(worker_engine_info(s->worker), q);
    struct assist *a = NULL;
    int code = make_prompt(s, q, match, &prompt, &param, &e);
    if (code == 0) {
        param = NULL;
        a = mem_calloc(1, sizeof *a);
        code = a ? 0 : err_set(&e, ERR_NO_MEMORY, "no memory for another stream");
    }
    if (code == 0) {
        link_assist(s, a);
        a->match = match;
        code = start_job(s, a, q, &prompt, &e);
    }
    token_list_release(&prompt);
    if (code == 0) {
        a->request = r;
        http_request_on_close(r, client_gone, a);
        http_stream_begin(r, "text/event-stream");
        return;
    }
    if (a) assist_free(a);
    if (code == ERR_BUSY) http_request_reply_header(r, "Retry-After", "1");
    if (code == ERR_LIMIT)
        http_reply_error(r, 400, "context_length_exceeded", param, "%s", e.text);
    else
        http_reply_err(r, &e, param);
}

static void post_assist(struct http_request *r, void *arg)
{
    struct server *s = arg;
    struct wire_request q;
    struct err e = ERR_INIT;
    size_t n;
    if (!authorised(s, r)) return;
    if (s->draining) {
        http_request_reply_header(r, "Retry-After", "5");
        http_reply_error(r, 503, "draining", NULL, "the server is shutting down");
        return;
    }
    const char *body = http_request_body(r, &n);
    wire_request_init(&q);
    if (wire_request_decode(body, n, &q, &e))
        http_reply_err(r, &e, NULL);
    else if (q.model[0] && strcmp(q.model, s->model_name) != 0)
        http_reply_error(r, 404, "model_not_found", "model",
                         "model \"%s\" is not served here; \"%s\" is", q.model, s->model_name);
    else
        begin_assist(s, r, &q);
    wire_request_release(&q);
}

static struct assist *named_assist(struct server *s, struct http_request *r)
{
    struct assist *a = assist_find(s, http_request_id(r));
    if (!a)
        http_reply_error(r, 404, "assist_not_found", NULL,
                         "no running assist %s: it may have ended", http_request_id(r));
    return a;
}

static void patch_assist(struct http_request *r, void *arg)
{
    struct server *s = arg;
    struct err e = ERR_INIT;
    uint32_t tokens_max = 0;
    size_t n;
    if (!authorised(s, r)) return;
    const char *body = http_request_body(r, &n);
    struct assist *a = named_assist(s, r);
    if (!a) return;
    if (wire_patch_decode(body, n, &tokens_max, &e)) {
        http_reply_err(r, &e, "tokens_max");
        return;
    }
    uint32_t room = worker_positions_max(s->worker) - a->job->n_tokens;
    tokens_max = tokens_max < s->c.tokens_max ? tokens_max : s->c.tokens_max;
    tokens_max = tokens_max < room ? tokens_max : room;
    atomic_store(&a->job->tokens_max, tokens_max);
    char reply[64];
    int len = snprintf(reply, sizeof reply, "{\"tokens_max\":%u}", tokens_max);
    http_reply_json(r, 200, reply, (size_t)len);
}

static void delete_assist(struct http_request *r, void *arg)
{
    struct server *s = arg;
    if (!authorised(s, r)) return;
    struct assist *a = named_assist(s, r);
    if (!a) return;
    atomic_store(&a->job->cancelled, true);
    static const char reply[] = "{\"cancelled\":true}";
    http_reply_json(r, 200, reply, sizeof reply - 1);
}

static void get_health(struct http_request *r, void *arg)
{
    struct server *s = arg;
    const char *reply = s->draining ? "{\"status\":\"draining\"}" : "{\"status\":\"ok\"}";
    http_reply_json(r, s->draining ? 503 : 200, reply, strlen(reply));
}

static void get_models(struct http_request *r, void *arg)
{
    struct server *s = arg;
    if (!authorised(s, r)) return;
    const struct engine_info *info = worker_engine_info(s->worker);
    struct buf b;
    buf_init(&b, REPLY_BYTES_MAX);
    /* The name holds no character that JSON must escape: server_new sees to it. */
    int code =
        buf_printf(&b,
                   "{\"object\":\"list\",\"data\":[{\"id\":\"%s\",\"object\":\"model\","
                   "\"owned_by\":\"pdd\",\"context_length\":%u,\"numerics\":\"%s\",\"hashes\":{"
                   "\"weights\":\"%s\",\"tokenizer\":\"%s\",\"template\":\"%s\"}}]}",
                   s->model_name, worker_positions_max(s->worker), info->numerics,
                   info->weights_hash, info->tokenizer_hash, info->template_hash);
    if (code == 0)
        http_reply_json(r, 200, b.data, b.len);
    else
        http_reply_error(r, 503, NULL, NULL, "no memory for the answer");
    buf_release(&b);
}

static const struct http_route routes[] = {
    {"POST", "/v1/assist", post_assist},
    {"PATCH", "/v1/assist/{id}", patch_assist},
    {"DELETE", "/v1/assist/{id}", delete_assist},
    {"GET", "/health", get_health},
    {"GET", "/v1/models", get_models},
};

static uint32_t estimate_first_ms(struct server *s, const struct assist *a)
{
    struct worker_stats stats;
    worker_stats_of(s->worker, &stats);
    uint64_t tokens = a->job->n_tokens - a->cached;
    return stats.prefill_tps ? (uint32_t)(tokens * 1000 / stats.prefill_tps) : 0;
}

static void on_admitted(struct server *s, struct assist *a, const struct job_event *ev)
{
    a->cached = ev->cached;
    s->event.kind = WIRE_GRANT;
    snprintf(s->event.id, sizeof s->event.id, "%s", a->id);
    s->event.match = a->match;
    s->event.tokens_max = atomic_load(&a->job->tokens_max);
    s->event.prompt_tokens = a->n_prompt;
    s->event.cached_tokens = ev->cached;
    s->event.first_token_ms = estimate_first_ms(s, a);
    send_event(a);
}

static void on_progress(struct server *s, struct assist *a, const struct job_event *ev)
{
    s->event.kind = WIRE_PROGRESS;
    s->event.done = ev->done;
    s->event.total = ev->total;
    send_event(a);
}

static void on_token(struct server *s, struct assist *a, const struct job_event *ev)
{
    if (!a->first_token) a->first_token = clock_us();
    s->event.kind = WIRE_TOKEN;
    s->event.index = ev->index;
    s->event.token = ev->token;
    buf_clear(&s->event.text);
    if (detok_push(&a->detok, worker_vocab(s->worker), ev->token, &s->event.text) == 0)
        send_event(a);
    else
        cut_off(a);
}

static void on_done(struct server *s, struct assist *a, const struct job_event *ev)
{
    if (ev->error.code) {
        s->event.kind = WIRE_ERROR;
        snprintf(s->event.code, sizeof s->event.code, "%s", err_code_name(ev->error.code));
        snprintf(s->event.message, sizeof s->event.message, "%s", ev->error.text);
    } else {
        s->event.kind = WIRE_DONE;
        s->event.reason = ev->reason;
        s->event.prompt_tokens = a->n_prompt;
        s->event.cached_tokens = a->cached;
        s->event.completion_tokens = ev->produced;
    }
    send_event(a);
    uint64_t now = clock_us();
    log_line(LOG_INFO, "cloud",
             "assist %s prompt=%u have=%u cached=%u tokens=%u end=%s first_ms=%.1f ms=%.1f", a->id,
             a->n_prompt, a->job->n_have, a->cached, ev->produced,
             ev->error.code ? err_code_name(ev->error.code) : wire_reason_name(ev->reason),
             a->first_token ? (double)(a->first_token - a->began) / 1e3 : 0.0,
             (double)(now - a->began) / 1e3);
    struct http_request *r = a->request;
    a->request = NULL;
    if (r) {
        http_request_on_close(r, NULL, NULL);
        http_stream_end(r);
    }
    assist_free(a);
}

/* send_event may end with the client cut off later, never at once, so `a` stays good throughout. */
static void worker_has_events(void *arg)
{
    struct server *s = arg;
    struct job_event *ev;
    for (uint32_t n = 0; (ev = worker_take_event(s->worker)) != NULL; n++) {
        struct assist *a = ev->job->owner;
        if (ev->kind == JOB_ADMITTED)
            on_admitted(s, a, ev);
        else if (ev->kind == JOB_PROGRESS)
            on_progress(s, a, ev);
        else if (ev->kind == JOB_TOKEN)
            on_token(s, a, ev);
        else
            on_done(s, a, ev);
        mem_free(ev);
        if (n == EVENTS_PER_TURN) {
            loop_wake_signal(s->wake);
            return;
        }
    }
}

static void drain_over(void *arg)
{
    struct server *s = arg;
    for (struct assist *a = s->assists; a; a = a->next)
        atomic_store(&a->job->drained, true);
}

void server_drain(struct server *s, uint64_t drain_us, loop_fn *done, void *arg)
{
    uint64_t until = clock_us() + drain_us;
    s->draining = true;
    loop_timer_set(s->drain_timer, until);
    http_server_drain(s->http, until + DRAIN_FLUSH_US, done, arg);
}

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

static int open_parts(struct server *s, struct engine *engine, struct err *e)
{
    int code = s->c.keys_path ? keys_open(s->c.keys_path, &s->keys, e) : 0;
    if (code == 0) code = loop_timer_new(s->loop, drain_over, s, &s->drain_timer, e);
    if (code == 0) code = loop_wake_new(s->loop, worker_has_events, s, &s->wake, e);
    if (code) return code;
    s->c.worker.wake = loop_wake_signal;
    s->c.worker.wake_arg = s->wake;
    code = http_server_new(s->loop, &s->c.http, routes, sizeof routes / sizeof *routes, s, &s->http,
                           e);
    return code ? code : worker_new(engine, &s->c.worker, &s->worker, e);
}

int server_new(struct loop *l, struct engine *engine, const struct server_config *config,
               struct server **ret_server, struct err *e)
{
    struct server *s = mem_calloc(1, sizeof *s);
    if (!s) return err_set(e, ERR_NO_MEMORY, "no memory for a server");
    s->loop = l;
    s->c = *config;
    if (s->c.tokens_max == 0) s->c.tokens_max = SERVER_TOKENS_MAX;
    set_name(s, config->model_name ? config->model_name : engine_info(engine)->model_name);
    size_t body_max = wire_body_max(engine_info(engine)->context_max);
    if (s->c.http.body_max > body_max) s->c.http.body_max = body_max;
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
    http_server_free(s->http);
    worker_free(s->worker);
    while (s->assists)
        assist_free(s->assists);
    loop_wake_free(s->wake);
    loop_timer_free(s->drain_timer);
    keys_close(s->keys);
    wire_event_release(&s->event);
    buf_release(&s->bytes);
    mem_free(s);
}

uint16_t server_port(const struct server *s)
{
    return http_server_port(s->http);
}

struct worker *server_worker(struct server *s)
{
    return s->worker;
}
