/* cloud: `pdd cloud`, the server. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/os.h"
#include "cli/commands.h"
#include "cli/engine_open.h"
#include "cli/model_file.h"
#include "cli/options.h"
#include "cli/service.h"
#include "cloud/api/keys.h"
#include "cloud/api/server.h"
#include "net/http_url.h"

enum {
    STREAMS_DEFAULT = 64,
    PER_ADDRESS_DEFAULT = 256,
    DESCRIPTORS_BESIDE = HTTP_REFUSED_MAX + 32 /* connections that hear 503, and our own files */
};

const struct command command_cloud = {
    .name = "cloud",
    .bit = OPTIONS_CLOUD,
    .usage = "usage: pdd cloud --model MODEL | --upstream URL [OPTION]...\n"
             "       pdd cloud key NAME [OPTION]...     make a key; see pdd cloud key --help\n"
             "Serve a model: POST /v1/assist to devices; the OpenAI API\n"
             "(/v1/chat/completions, /v1/completions, /v1/models), /tokenize and /detokenize\n"
             "to other clients; /health, /ready and /metrics to operators.\n"};

static bool is_fake(const struct options *o)
{
    return o->fake_tokens != OPTIONS_NO_FAKE;
}

/* What the options mean together; -1 after saying what is wrong. */
static int check_options(const struct options *o, const struct option_line *line)
{
    const struct cloud_options *c = &o->cloud;
    bool upstream = c->server.upstream.n_servers > 0;
    if (c->n_certs != c->n_keys) {
        fprintf(stderr, "pdd cloud: each --tls-cert needs its --tls-key\n");
        return -1;
    }
    if ((o->native.model_path != NULL) + is_fake(o) + upstream != 1) {
        fprintf(stderr,
                "pdd cloud: give one of --model MODEL and --upstream URL; see pdd cloud --help\n");
        return -1;
    }
    return upstream ? options_refuse_idle(&command_cloud, line, OPTIONS_WITH_UPSTREAM,
                                          "with --upstream: the servers there compute")
                    : options_refuse_idle(&command_cloud, line, OPTIONS_WITH_ENGINE,
                                          "without --upstream");
}

/* What both kinds of computing are told by the same options. */
static void share_options(struct options *o)
{
    struct server_config *server = &o->cloud.server;
    server->upstream.timeout_us = o->cloud.upstream_s * 1000000ull;
    server->upstream.streams_max = server->worker.streams_max;
    server->upstream.chat_template = o->native.chat_template;
    server->upstream.chat_template_file = o->native.chat_template_file;
    server->upstream.no_think = o->native.no_think;
    if (!server->worker.streams_max) server->worker.streams_max = STREAMS_DEFAULT;
}

struct cloud {
    struct loop *loop;
    struct server *server;
    uint32_t drain_s;
    int signals;
};

static void drained(void *arg)
{
    struct cloud *c = arg;
    loop_stop(c->loop);
}

/* The first signal drains, the second leaves at once. */
static void asked_to_stop(void *arg)
{
    struct cloud *c = arg;
    if (c->signals++ > 0) {
        loop_stop(c->loop);
        return;
    }
    log_line(LOG_INFO, "cloud", "draining for up to %u s", c->drain_s);
    service_notify("STOPPING=1");
    server_drain(c->server, c->drain_s * 1000000ull, drained, c);
}

static void asked_to_reload(void *arg)
{
    struct cloud *c = arg;
    service_notify("RELOADING=1");
    server_reload(c->server);
    service_notify("READY=1");
}

/* SIGHUP ends a process that does not expect it, and may come while the model is still read. */
static void block_hangup(bool block)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(block ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

static int serve(struct cloud *c, struct engine *engine, const struct options *o, struct err *e)
{
    struct loop_signal *term = NULL, *interrupt = NULL, *hangup = NULL;
    struct server_config config = o->cloud.server;
    char where[OPTION_HOST_MAX + 16];
    uint64_t pages = engine ? engine_info(engine)->kv_pages_total : 0; /* none: upstreams */
    config.worker.cache_pages = (uint32_t)(pages * o->cloud.cache_percent / 100);
    int code = server_new(c->loop, engine, &config, &c->server, e);
    if (code) {
        engine_free(engine);
        return code;
    }
    code = loop_signal_new(c->loop, SIGTERM, asked_to_stop, c, &term, e);
    if (code == 0) code = loop_signal_new(c->loop, SIGINT, asked_to_stop, c, &interrupt, e);
    if (code == 0) code = loop_signal_new(c->loop, SIGHUP, asked_to_reload, c, &hangup, e);
    if (code == 0) {
        block_hangup(false); /* one that came meanwhile comes now */
        option_address_text(&o->listen, server_port(c->server), where);
        printf("cloud listening on %s://%s\n", o->cloud.n_certs ? "https" : "http", where);
        option_address_text(&o->cloud.metrics, server_metrics_port(c->server), where);
        if (server_metrics_port(c->server)) printf("metrics on http://%s/metrics\n", where);
        fflush(stdout);
        service_notify("READY=1");
        code = loop_run(c->loop, e);
        block_hangup(true);
    }
    loop_signal_free(term);
    loop_signal_free(interrupt);
    loop_signal_free(hangup);
    server_free(c->server);
    return code;
}

/* A connection beyond the limit of the process would hang unheard; one beyond ours hears 503. */
static void fit_connections(struct http_server_config *http)
{
    uint32_t most = os_raise_descriptors(http->connections_max + DESCRIPTORS_BESIDE);
    uint32_t left = most > DESCRIPTORS_BESIDE ? most - DESCRIPTORS_BESIDE : 1;
    if (http->connections_max <= left) return;
    log_line(LOG_WARN, "cloud", "%u connections at most: the process may open %u files (ulimit -n)",
             left, most);
    http->connections_max = left;
}

/* The fake engine's KV memory is small: enough of it for all streams. */
static uint32_t fake_pages(const struct options *o)
{
    uint32_t context = o->native.context_max ? o->native.context_max : FAKE_CONTEXT;
    return o->cloud.server.worker.streams_max * (context / ENGINE_PAGE + 1);
}

/* What follows from several options together. */
static void finish_options(struct options *o)
{
    struct cloud_options *c = &o->cloud;
    struct http_server_config *http = &c->server.http;
    o->native.kv_bytes_max = (uint64_t)o->kv_mb << 20;
    share_options(o);
    c->server.worker.step_us = c->step_ms * 1000;
    c->server.names = o->names;
    c->server.n_tls = c->n_certs;
    if (c->metrics.host[0]) {
        c->server.metrics_address = c->metrics.host;
        c->server.metrics_port = c->metrics.port;
    }
    http->address = o->listen.host;
    http->port = o->listen.port;
    http->per_address_max = c->per_address;
    /* Who listens for this machine alone has clients of one address, often a proxy's. */
    if (c->per_address == UINT32_MAX)
        http->per_address_max = option_address_local(&o->listen) ? 0 : PER_ADDRESS_DEFAULT;
    http->origins = c->origins;
    http->n_origins = c->n_origins;
    http->proxies = c->proxies;
    http->n_proxies = c->n_proxies;
    fit_connections(http);
}

/* What is easily forgotten, and what it means. */
static void warn_exposed(const struct options *o)
{
    const char *host = o->listen.host;
    const struct upstream_config *u = &o->cloud.server.upstream;
    for (uint32_t i = 0; i < u->n_servers; i++)
        if (u->servers[i].key_path && http_url_exposes(u->servers[i].url))
            log_line(LOG_WARN, "cloud",
                     "the key for %s and the prompts travel there unencrypted: give an https URL",
                     u->servers[i].url);
    if (option_address_local(&o->listen)) return;
    if (!o->cloud.server.keys_path)
        log_line(LOG_WARN, "cloud", "any client that reaches %s is served: --key-file is not given",
                 host);
    if (!o->cloud.n_certs)
        log_line(LOG_WARN, "cloud",
                 "prompts%s and answers travel to %s unencrypted: --tls-cert is not given",
                 o->cloud.server.keys_path ? ", keys" : "", host);
}

/* NULL: upstream servers compute. */
static int open_engine(const struct options *o, struct engine **ret_engine, struct err *e)
{
    *ret_engine = NULL;
    if (o->cloud.server.upstream.n_servers) return 0;
    const struct fake_options fake = {.answer_tokens = o->fake_tokens,
                                      .beat_us = o->cloud.fake_beat_us,
                                      .kv_pages = fake_pages(o)};
    int code = engine_open(&o->native, is_fake(o) ? &fake : NULL, o->profile, ret_engine, e);
    if (code) return code;
    const struct engine_info *info = engine_info(*ret_engine);
    uint64_t kv_bytes = info->kv_bytes_per_token * info->kv_pages_total * ENGINE_PAGE;
    log_line(LOG_INFO, "cloud", "model %s, context %u, KV memory at most %.1f MB, engine %s%s%s",
             info->model_name, info->context_max, (double)kv_bytes / (1 << 20), info->kind,
             info->emulated ? " as " : "", info->emulated ? info->emulated : "");
    if (engine_vocab(*ret_engine) && vocab_mended(engine_vocab(*ret_engine))[0])
        log_line(LOG_WARN, "cloud",
                 "model %s: the file calls %s ordinary text; taken for control tokens",
                 info->model_name, vocab_mended(engine_vocab(*ret_engine)));
    if (engine_vocab(*ret_engine) && vocab_merges_passed(engine_vocab(*ret_engine)) > 0)
        log_line(LOG_WARN, "cloud",
                 "model %s: %u malformed merges of its tokenizer are passed over", info->model_name,
                 vocab_merges_passed(engine_vocab(*ret_engine)));
    if (!engine_template(*ret_engine))
        log_line(LOG_WARN, "cloud",
                 "model %s has no chat template, or one that is no template (see pdd model "
                 "inspect): messages are refused, raw prompts work; --chat-template NAME sets one",
                 info->model_name);
    return 0;
}

/* Loading a model takes long, so files that are wrong are told of before; the server reads them
 * again. */
static int check_files(const struct options *o, struct err *e)
{
    struct keys *keys = NULL;
    struct tls *tls = NULL;
    const struct server_config *server = &o->cloud.server;
    int code = server->keys_path ? keys_open(server->keys_path, clock_us(), &keys, e) : 0;
    if (code == 0 && server->n_tls) code = tls_new(server->tls, server->n_tls, &tls, e);
    keys_close(keys);
    tls_free(tls);
    return code;
}

static int run(struct options *o, struct err *e)
{
    struct engine *engine;
    struct cloud c = {.drain_s = o->drain_s};
    char model[MODEL_FILE_PATH_MAX], vocab[MODEL_FILE_PATH_MAX];
    int code = check_files(o, e);
    if (code == 0) code = model_file_resolve(&o->native.model_path, model, e);
    if (code == 0) code = model_file_resolve(&o->cloud.server.upstream.vocab_path, vocab, e);
    if (code == 0) code = open_engine(o, &engine, e);
    if (code) return code;
    code = loop_new(&c.loop, e);
    if (code)
        engine_free(engine);
    else
        code = serve(&c, engine, o, e);
    loop_free(c.loop);
    return code;
}

int cmd_cloud(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "key") == 0) return cmd_cloud_key(argc - 1, argv + 1);
    struct options o;
    struct option_line line;
    struct err e = ERR_INIT;
    int status;
    block_hangup(true);
    if (options_parse(&command_cloud, argc, argv, &o, &line, &status)) return status;
    if (check_options(&o, &line)) return EXIT_USAGE;
    log_set_level(o.log_level);
    log_set_json(o.log_json);
    finish_options(&o);
    warn_exposed(&o);
    if (run(&o, &e)) {
        fprintf(stderr, "pdd cloud: %s\n", e.text);
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}
