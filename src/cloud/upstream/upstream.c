/* upstream: see upstream.h. Here: the backend itself, and what its servers serve. */
#include "cloud/upstream/upstream.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "cloud/upstream/upstream_impl.h"
#include "model/gguf.h"
#include "model/model.h"
#include "model/text/template.h"
#include "net/http_url.h"
#include "net/key_file.h"

#define CONNECT_US 3000000ull

static struct upstream *upstream_of(const struct backend *b)
{
    return (struct upstream *)(uintptr_t)b;
}

/* ---- events ---- */

void upstream_push(struct upstream *u, struct upstream_event *ev)
{
    ev->next = NULL;
    *u->last = ev;
    u->last = &ev->next;
    if (!u->closing) u->c.wake(u->c.wake_arg);
}

static bool take_event(struct backend *b, struct job_event *ret_event)
{
    struct upstream *u = upstream_of(b);
    struct upstream_event *ev = u->first;
    mem_free(u->taken_event);
    u->taken_event = ev;
    if (!ev) return false;
    u->first = ev->next;
    if (!u->first) u->last = &u->first;
    *ret_event = ev->ev;
    return true;
}

/* ---- what is served ---- */

static bool same_model(const struct upstream *u, const struct dialect_model *m)
{
    return strcmp(u->info.weights_hash, m->weights) == 0 &&
           strcmp(u->info.tokenizer_hash, m->tokenizer) == 0 &&
           strcmp(u->numerics, m->numerics) == 0;
}

static bool another_pdd_is_up(const struct upstream *u, const struct upstream_server *s)
{
    for (uint32_t i = 0; i < u->c.n_servers; i++)
        if (i != s->index && u->routes[i].up && u->servers[i].model.dialect == DIALECT_PDD)
            return true;
    return false;
}

/* The smallest context of all, so that no server is asked for more than it has. */
static void fit_context(struct upstream *u, const struct upstream_server *s, uint32_t context)
{
    uint32_t least = context;
    for (uint32_t i = 0; i < u->c.n_servers; i++) {
        uint32_t other = u->servers[i].model.context;
        if (i != s->index && u->routes[i].up && other && (!least || other < least)) least = other;
    }
    u->info.context_max = least;
    u->b.positions_max = least ? least : UINT32_MAX;
}

int upstream_adopt(struct upstream *u, const struct upstream_server *s,
                   const struct dialect_model *m, struct err *e)
{
    bool pdd = m->dialect == DIALECT_PDD;
    if (pdd && u->vocab && strcmp(m->tokenizer, u->vocab_hash) != 0)
        return err_set(e, ERR_UNSUPPORTED, "its tokenizer is not that of %s", u->c.vocab_path);
    if (pdd && another_pdd_is_up(u, s) && !same_model(u, m))
        return err_set(e, ERR_UNSUPPORTED,
                       "it serves other weights, tokenizer or numerics than the rest");
    if (pdd) {
        snprintf(u->info.weights_hash, sizeof u->info.weights_hash, "%s", m->weights);
        snprintf(u->info.tokenizer_hash, sizeof u->info.tokenizer_hash, "%s", m->tokenizer);
        snprintf(u->info.template_hash, sizeof u->info.template_hash, "%s", m->chat_template);
        snprintf(u->numerics, sizeof u->numerics, "%s", m->numerics);
    }
    fit_context(u, s, m->context);
    if (u->name[0]) return 0;
    snprintf(u->name, sizeof u->name, "%s", m->name);
    u->c.wake(u->c.wake_arg);
    return 0;
}

/* ---- jobs ---- */

/* Which of them wait at their servers is not known here: all slots count as the line. */
static struct slots_room room_of(const struct upstream *u)
{
    return (struct slots_room){.queue_max = u->c.streams_max};
}

static int submit(struct backend *b, struct job *job, struct err *e)
{
    struct upstream *u = upstream_of(b);
    switch (slots_enter(&u->inside, room_of(u), job->tenant)) {
    case ADMIT_FULL:
        return err_set(e, ERR_BUSY, "all streams are taken; try again later");
    case ADMIT_SHARE_TAKEN:
        return err_set(e, ERR_BUSY, "this key has its share, %u requests at once; try again later",
                       admit_share(0, u->c.streams_max));
    case ADMIT_ENTERS:
        break;
    }
    int code = upstream_request_new(u, job, e);
    if (code) slots_leave(&u->inside, job->tenant);
    return code;
}

static void changed(struct backend *b, struct job *job)
{
    (void)b;
    if (job->backend_data) upstream_request_changed(job->backend_data);
}

static const char *not_ready(struct backend *b)
{
    struct upstream *u = upstream_of(b);
    if (slots_full(&u->inside, room_of(u))) return "busy";
    for (uint32_t i = 0; i < u->c.n_servers; i++)
        if (u->routes[i].up) return NULL;
    return "no upstream";
}

/* Work is what was sent on; what waits there is not known here. */
static void stats(struct backend *b, struct backend_stats *ret_stats)
{
    *ret_stats = (struct backend_stats){.running = atomic_load(&upstream_of(b)->inside.all)};
}

/* ---- metrics ---- */

/* A line for each metric of a server: its name, type and help, and where server i of `u` has it. */
#define UPSTREAM_METRICS(X)                                                                        \
    X("pdd_upstream_up", "gauge", "1 when the server answered when last asked.", u->routes[i].up)  \
    X("pdd_upstream_outstanding", "gauge", "Requests at the server.", u->routes[i].outstanding)    \
    X("pdd_upstream_requests_total", "counter", "Requests sent to the server.",                    \
      u->servers[i].requests)                                                                      \
    X("pdd_upstream_tokens_total", "counter", "Tokens that it sent.", u->servers[i].tokens)        \
    X("pdd_upstream_closed_total", "counter",                                                      \
      "Streams closed before their end: the client left, or had enough.", u->servers[i].closed)

static void put_head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_faults(const struct upstream *u, struct buf *out)
{
    static const char *const names[UPSTREAM_FAULTS] = {"connect", "refused", "status",
                                                       "cut",     "timeout", "garbage"};
    static const char name[] = "pdd_upstream_errors_total";
    put_head(out, name, "counter", "Requests that a server did not answer to the end, by reason.");
    for (uint32_t i = 0; i < u->c.n_servers; i++)
        for (int f = 0; f < UPSTREAM_FAULTS; f++)
            buf_printf(out, "%s{upstream=\"%s\",reason=\"%s\"} %llu\n", name, u->servers[i].url,
                       names[f], (unsigned long long)u->servers[i].faults[f]);
}

#define PUT_METRIC(name, type, help, value)                                                        \
    put_head(out, name, type, help);                                                               \
    for (uint32_t i = 0; i < u->c.n_servers; i++)                                                  \
        buf_printf(out, "%s{upstream=\"%s\"} %llu\n", name, u->servers[i].url,                     \
                   (unsigned long long)(value));

/* URLs need no escaping: take_url sees to it. */
static int metrics(const struct backend *b, struct buf *out)
{
    static const char retries[] = "pdd_upstream_retries_total";
    const struct upstream *u = upstream_of(b);
    UPSTREAM_METRICS(PUT_METRIC)
    put_faults(u, out);
    put_head(out, retries, "counter", "Requests sent to a further server after one failed.");
    return buf_printf(out, "%s %llu\n", retries, (unsigned long long)u->retries);
}

/* ---- opening ---- */

int upstream_option(char *text, struct upstream_config *c, struct err *e)
{
    char *comma = strchr(text, ',');
    if (c->n_servers == ROUTE_SERVERS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d servers", ROUTE_SERVERS_MAX);
    if (comma) *comma = 0;
    if (comma && !comma[1])
        return err_set(e, ERR_BAD_INPUT, "a key file is missing after the comma that follows %s",
                       text);
    c->servers[c->n_servers++] =
        (struct upstream_server_config){.url = text, .key_path = comma ? comma + 1 : NULL};
    return 0;
}

/* The base URL, which logs and metrics show: it must hold no user name, and needs no escaping. */
static int take_url(struct upstream_server *s, const char *url, struct err *e)
{
    char base[HTTP_URL_MAX];
    for (const char *c = url; *c; c++)
        if (*c <= 32 || *c > 126 || strchr("\"\\@?#", *c))
            return err_set(e, ERR_BAD_INPUT,
                           "%s: a URL of a server has no quotes, blanks, query or user name; keys "
                           "come from a file: URL,key-file",
                           url);
    int code = http_url_base(url, base, sizeof base, e);
    if (code) return code;
    if (strlen(base) >= sizeof s->url)
        return err_set(e, ERR_LIMIT, "the URL of a server has at most %zu characters",
                       sizeof s->url - 1);
    memcpy(s->url, base, strlen(base) + 1);
    return 0;
}

static int open_server(struct upstream *u, uint32_t i, struct err *e)
{
    struct upstream_server *s = &u->servers[i];
    const struct upstream_server_config *c = &u->c.servers[i];
    struct http_client_config http;
    struct buf key;
    s->u = u;
    s->index = i;
    int code = take_url(s, c->url, e);
    if (code) return code;
    u->routes[i] = (struct route_server){.name = fnv_bytes(FNV_BEGIN, s->url, strlen(s->url)),
                                         .outstanding_max = u->c.streams_max};
    buf_init(&key, UPSTREAM_KEY_MAX);
    http_client_config_default(&http);
    http.base_url = c->url;
    http.ca_file = u->c.ca_file;
    http.connect_timeout_us = CONNECT_US;
    http.first_byte_timeout_us = http.idle_timeout_us = u->c.timeout_us;
    /* Each may have a PATCH beside it, and as many linger; and probes. */
    http.calls_max = 3 * u->c.streams_max + 2;
    http.lingering_max = u->c.streams_max;
    if (c->key_path) code = key_file_read(c->key_path, &key, e);
    http.bearer = c->key_path ? key.data : NULL;
    if (!code) code = http_client_new(u->loop, &http, &s->client, e);
    if (key.len) memset(key.data, 0, key.cap);
    buf_release(&key);
    return code ? code : upstream_probe_init(s, e);
}

static int open_template(struct upstream *u, struct err *e)
{
    struct err why = ERR_INIT;
    bool asked = u->c.chat_template || u->c.chat_template_file;
    const struct chat_template_choice choice = {u->c.chat_template, u->c.chat_template_file};
    int code = chat_template_choose(&choice, u->gguf, u->vocab, &u->chat_template, &why);
    if (code && (asked || code == ERR_NO_MEMORY)) /* else: only plain text */
        return err_set(e, code, "%s", why.text);
    return u->c.no_think && u->chat_template
               ? chat_template_set_thinking(u->chat_template, false, e)
               : 0;
}

static int open_vocab(struct upstream *u, struct err *e)
{
    int code = gguf_open(u->c.vocab_path, &u->gguf, e);
    if (!code) code = vocab_open(u->gguf, &u->vocab, e);
    if (!code) code = model_hash_tokenizer(u->gguf, u->vocab_hash, e);
    if (!code) code = open_template(u, e);
    if (code) return code;
    u->b.vocab = u->vocab;
    u->b.chat_template = u->chat_template;
    u->b.takes_ids = true;
    u->info.vocab_size = vocab_size(u->vocab);
    snprintf(u->info.tokenizer_hash, sizeof u->info.tokenizer_hash, "%s", u->vocab_hash);
    return 0;
}

static void release(struct backend *b)
{
    struct upstream *u = upstream_of(b);
    struct job_event ev;
    u->closing = true;
    while (u->requests)
        upstream_request_free(u->requests);
    for (uint32_t i = 0; i < u->c.n_servers; i++) {
        upstream_probe_release(&u->servers[i]);
        http_client_free(u->servers[i].client);
    }
    while (take_event(b, &ev)) {
    }
    chat_template_close(u->chat_template);
    vocab_close(u->vocab);
    gguf_close(u->gguf);
    mem_free(u);
}

static const struct backend_ops upstream_ops = {.submit = submit,
                                                .changed = changed,
                                                .take_event = take_event,
                                                .not_ready = not_ready,
                                                .stats = stats,
                                                .metrics = metrics,
                                                .free = release};

static void set_up(struct upstream *u, struct loop *l, const struct upstream_config *config)
{
    u->b = (struct backend){.ops = &upstream_ops,
                            .info = &u->info,
                            .positions_max = UINT32_MAX,
                            .jobs_max = UINT32_MAX,
                            .takes_request = true};
    u->loop = l;
    u->c = *config;
    u->last = &u->first;
    if (!u->c.streams_max) u->c.streams_max = UPSTREAM_STREAMS;
    if (!u->c.timeout_us) u->c.timeout_us = UPSTREAM_TIMEOUT_S * 1000000ull;
    if (!u->c.prefill_us) u->c.prefill_us = u->c.timeout_us * UPSTREAM_PREFILL_TIMES;
    u->info =
        (struct engine_info){.kind = "upstream", .model_name = u->name, .numerics = u->numerics};
}

int upstream_new(struct loop *l, const struct upstream_config *config, struct backend **ret_backend,
                 struct err *e)
{
    struct upstream *u = mem_calloc(1, sizeof *u);
    if (!u) return err_set(e, ERR_NO_MEMORY, "no memory for the upstream servers");
    set_up(u, l, config);
    const char *model = config->model ? config->model : "";
    int code = strlen(model) < sizeof u->model
                   ? 0
                   : err_set(e, ERR_LIMIT, "the name of a model has at most %d characters",
                             DIALECT_MODEL_MAX - 1);
    if (!code) snprintf(u->model, sizeof u->model, "%s", model);
    if (!code && config->vocab_path) code = open_vocab(u, e);
    for (uint32_t i = 0; i < u->c.n_servers && !code; i++)
        code = open_server(u, i, e);
    if (code) {
        release(&u->b);
        return code;
    }
    *ret_backend = &u->b;
    return 0;
}
