/* cloud: `pdd cloud`, the server. */
#include <getopt.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/os.h"
#include "cli/cloud_key.h"
#include "cli/commands.h"
#include "cli/engine_open.h"
#include "cli/options.h"
#include "cli/service.h"
#include "cloud/api/keys.h"
#include "cloud/api/server.h"

enum {
    HOST_MAX = 64,
    DRAIN_SECONDS = 30,
    QUEUE_DEFAULT = 256,
    STREAMS_DEFAULT = 64,
    CACHE_DEFAULT = 100,
    STEP_MS_MAX = 60000,
    PER_ADDRESS_DEFAULT = 256,
    DESCRIPTORS_BESIDE = HTTP_REFUSED_MAX + 32 /* those who hear 503, and files of our own */
};

struct options {
    struct native_options native;
    struct server_config server;
    char host[HOST_MAX], metrics_host[HOST_MAX];
    const char *profile;
    struct fake_options fake; /* answer_tokens UINT32_MAX: not asked for */
    uint32_t drain_s, upstream_s, kv_mb, per_address, cache_percent, step_ms;
    size_t n_certs, n_keys; /* of server.tls */
    struct http_network proxies[HTTP_PROXIES_MAX];
    size_t n_proxies;
};

static const char help[] =
    "usage: pdd cloud --model FILE | --upstream URL [OPTION]...\n"
    "       pdd cloud key NAME [OPTION]...        make a key; see pdd cloud key --help\n"
    "Serve a model: POST /v1/assist and the rest of the protocol to devices, and OpenAI's API\n"
    "(/v1/chat/completions, /v1/completions, /v1/models) to its clients; /tokenize, /detokenize;\n"
    "/health, /ready and /metrics to the provider.\n\n"
    "  --model FILE           the GGUF file to serve\n"
    "  --listen HOST:PORT     where (127.0.0.1:8080); port 0 takes a free one and prints it\n"
    "  --threads N            compute threads (all CPUs)\n"
    "  --context N            positions a session may have (the model's)\n"
    "  --kv-mb N              memory for the KV cache, which bounds how many are served at once\n"
    "                         (room for two full contexts, at most half of what is available);\n"
    "                         the model's context is shortened to what it holds\n"
    "  --step-tokens N        tokens in one step of the engine (512)\n"
    "  --streams-max N        assists and answers in work at once (64)\n"
    "  --queue-max N          assists that may wait besides (256), half of them of one key; more\n"
    "                         are answered 429\n"
    "  --tokens-max N         tokens that one assist or answer may bring (4096)\n"
    "  --step-ms N            aim for a step while answers run: how many prompt tokens go beside\n"
    "                         them is found from measured speeds; at most three times as long\n"
    "                         when none runs (100)\n"
    "  --prefix-cache P       per cent of the KV memory that may keep, while it is idle, what was\n"
    "                         computed: a prompt that begins alike costs the rest (100; 0: none)\n"
    "  --prefix-cache-scope S who may hit what another's prompt left there: all, or key: only\n"
    "                         requests with the same key (all)\n"
    "  --key-file FILE        hashed keys with their quotas, lines of `pdd cloud key`; SIGHUP\n"
    "                         reads it again; without it everyone may ask\n"
    "  --tls-cert FILE        PEM certificate, with its chain: serve https only\n"
    "  --tls-key FILE         its key; both again for a certificate of another kind of key\n"
    "                         (ECDSA beside RSA). SIGHUP reads these files again\n"
    "  --connections-max N    connections at once (4096); more hear 503\n"
    "  --connections-per-address N  of one address, an IPv6 /64 as one (256; none when it listens\n"
    "                         on this machine only); more hear 429; 0: no limit\n"
    "  --trusted-proxy ADDRESS[/BITS]  believe its X-Forwarded-For; may be given again\n"
    "  --model-name NAME      the name to serve under (the file's)\n"
    "  --chat-template NAME   family of the chat template, when the file's is unknown\n"
    "  --isa NAME             scalar, avx2, avxvnni, avx512, amx, neon, neondot (the best here)\n"
    "  --kv-type TYPE         keys and values as i16, f16, or q8_0 (half the memory); exact only\n"
    "                         with the same on both ends (i16; f16 if heads do not suit it)\n"
    "  --no-think             answers begin without a thought, where the template can say so\n"
    "  --profile NAME         emulate the speed of a device profile\n"
    "  --drain-seconds N      how long running answers may go on after SIGTERM, while new\n"
    "                         connections are refused (30); a second signal ends them at once\n"
    "  --metrics-listen HOST:PORT  /metrics, /health and /ready there too, without keys\n"
    "  --log-format FORMAT    text, or json: an object a line (text)\n"
    "  --log-level LEVEL      error, warn, info, debug (info)\n"
    "\nInstead of a model, servers that compute (docs/UPSTREAMS.md):\n"
    "  --upstream URL[,KEYFILE]    a server: pdd cloud, vLLM, SGLang, llama-server or another "
    "that\n"
    "                         speaks the OpenAI API; may be given up to 64 times\n"
    "  --upstream-model NAME  the model's name there (the first that it lists)\n"
    "  --upstream-vocab FILE  GGUF file of that model, for its tokenizer and template alone, so\n"
    "                         that tokens pass as ids\n"
    "  --upstream-ca FILE     certificates (PEM) to trust for https:// instead of the system's\n"
    "  --upstream-timeout S   silence, or time without a token after the first one, after which\n"
    "                         a server counts as lost (60); ten times as long may empty events\n"
    "                         come before the first token, for long prefills\n\n"
    "  --fake N               no model: made-up answers of N tokens, for tests\n"
    "  --fake-beat-us N       the fake engine's steps end at multiples of N microseconds\n";

enum {
    O_MODEL = 256,
    O_LISTEN,
    O_THREADS,
    O_CONTEXT,
    O_KV_MB,
    O_STEP,
    O_STREAMS,
    O_QUEUE,
    O_TOKENS,
    O_STEP_MS,
    O_CACHE,
    O_CACHE_SCOPE,
    O_KEYS,
    O_TLS_CERT,
    O_TLS_KEY,
    O_CONNECTIONS,
    O_PER_ADDRESS,
    O_PROXY,
    O_NAME,
    O_TEMPLATE,
    O_NO_THINK,
    O_ISA,
    O_KV_TYPE,
    O_PROFILE,
    O_DRAIN,
    O_METRICS,
    O_LOG_FORMAT,
    O_LOG,
    O_FAKE,
    O_FAKE_BEAT,
    O_UPSTREAM,
    O_UPSTREAM_MODEL,
    O_UPSTREAM_VOCAB,
    O_UPSTREAM_CA,
    O_UPSTREAM_TIMEOUT,
    O_HELP
};

static const struct option long_options[] = {
    {"model", required_argument, NULL, O_MODEL},
    {"listen", required_argument, NULL, O_LISTEN},
    {"threads", required_argument, NULL, O_THREADS},
    {"context", required_argument, NULL, O_CONTEXT},
    {"kv-mb", required_argument, NULL, O_KV_MB},
    {"step-tokens", required_argument, NULL, O_STEP},
    {"streams-max", required_argument, NULL, O_STREAMS},
    {"queue-max", required_argument, NULL, O_QUEUE},
    {"tokens-max", required_argument, NULL, O_TOKENS},
    {"step-ms", required_argument, NULL, O_STEP_MS},
    {"prefix-cache", required_argument, NULL, O_CACHE},
    {"prefix-cache-scope", required_argument, NULL, O_CACHE_SCOPE},
    {"key-file", required_argument, NULL, O_KEYS},
    {"tls-cert", required_argument, NULL, O_TLS_CERT},
    {"tls-key", required_argument, NULL, O_TLS_KEY},
    {"connections-max", required_argument, NULL, O_CONNECTIONS},
    {"connections-per-address", required_argument, NULL, O_PER_ADDRESS},
    {"trusted-proxy", required_argument, NULL, O_PROXY},
    {"model-name", required_argument, NULL, O_NAME},
    {"chat-template", required_argument, NULL, O_TEMPLATE},
    {"no-think", no_argument, NULL, O_NO_THINK},
    {"isa", required_argument, NULL, O_ISA},
    {"kv-type", required_argument, NULL, O_KV_TYPE},
    {"profile", required_argument, NULL, O_PROFILE},
    {"drain-seconds", required_argument, NULL, O_DRAIN},
    {"metrics-listen", required_argument, NULL, O_METRICS},
    {"log-format", required_argument, NULL, O_LOG_FORMAT},
    {"log-level", required_argument, NULL, O_LOG},
    {"fake", required_argument, NULL, O_FAKE},
    {"fake-beat-us", required_argument, NULL, O_FAKE_BEAT},
    {"upstream", required_argument, NULL, O_UPSTREAM},
    {"upstream-model", required_argument, NULL, O_UPSTREAM_MODEL},
    {"upstream-vocab", required_argument, NULL, O_UPSTREAM_VOCAB},
    {"upstream-ca", required_argument, NULL, O_UPSTREAM_CA},
    {"upstream-timeout", required_argument, NULL, O_UPSTREAM_TIMEOUT},
    {"help", no_argument, NULL, O_HELP},
    {NULL, 0, NULL, 0},
};

/* Options whose value is a whole number: where it goes. */
static const struct number {
    int option;
    uint32_t low, high;
    size_t at; /* of a uint32_t in struct options */
} numbers[] = {
    {O_THREADS, 1, 256, offsetof(struct options, native.threads)},
    {O_CONTEXT, 2, 1 << 24, offsetof(struct options, native.context_max)},
    {O_KV_MB, 1, 1 << 22, offsetof(struct options, kv_mb)},
    {O_STEP, 1, 1 << 16, offsetof(struct options, native.step_tokens_max)},
    {O_STREAMS, 1, WORKER_STREAMS_MAX, offsetof(struct options, server.worker.streams_max)},
    {O_QUEUE, 0, 1 << 16, offsetof(struct options, server.worker.queue_max)},
    {O_TOKENS, 1, WIRE_TOKENS_MAX, offsetof(struct options, server.tokens_max)},
    {O_CACHE, 0, 100, offsetof(struct options, cache_percent)},
    {O_STEP_MS, 1, STEP_MS_MAX, offsetof(struct options, step_ms)},
    {O_CONNECTIONS, 1, 1 << 20, offsetof(struct options, server.http.connections_max)},
    {O_PER_ADDRESS, 0, 1 << 20, offsetof(struct options, per_address)},
    {O_DRAIN, 0, 3600, offsetof(struct options, drain_s)},
    {O_FAKE, 0, 1 << 20, offsetof(struct options, fake.answer_tokens)},
    {O_FAKE_BEAT, 1, 1000000, offsetof(struct options, fake.beat_us)},
    {O_UPSTREAM_TIMEOUT, 1, 3600, offsetof(struct options, upstream_s)},
};

/* 0: read; 1: not an option of a number; -1: the reader has said what is wrong. */
static int set_number(struct options *o, int option)
{
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const struct number *n = &numbers[i];
        if (n->option != option) continue;
        uint32_t value;
        if (option_u32("cloud", long_options[option - O_MODEL].name, optarg, n->low, n->high,
                       &value))
            return -1;
        memcpy((char *)o + n->at, &value, sizeof value);
        return 0;
    }
    return 1;
}

/* --tls-cert and --tls-key come in pairs: the n-th of one belongs to the n-th of the other. */
static int set_tls(struct options *o, bool cert)
{
    size_t *n = cert ? &o->n_certs : &o->n_keys;
    if (*n == TLS_IDENTITIES_MAX) {
        fprintf(stderr, "pdd cloud: at most %d certificates can be served\n", TLS_IDENTITIES_MAX);
        return -1;
    }
    struct tls_identity *identity = &o->server.tls[(*n)++];
    *(cert ? &identity->cert_path : &identity->key_path) = optarg;
    return 0;
}

static int add_proxy(struct options *o)
{
    struct err e = ERR_INIT;
    if (o->n_proxies == HTTP_PROXIES_MAX)
        err_set(&e, ERR_LIMIT, "at most %d networks", HTTP_PROXIES_MAX);
    else if (http_network_parse(optarg, &o->proxies[o->n_proxies], &e) == 0)
        o->n_proxies++;
    if (e.code) fprintf(stderr, "pdd cloud: --trusted-proxy: %s\n", e.text);
    return e.code ? -1 : 0;
}

static int set_log_level(void)
{
    enum log_level level;
    if (log_level_from_name(optarg, &level)) {
        fprintf(stderr, "pdd cloud: --log-level is \"%s\": error, warn, info or debug is needed\n",
                optarg);
        return -1;
    }
    log_set_level(level);
    return 0;
}

static int set_log_format(void)
{
    if (strcmp(optarg, "text") != 0 && strcmp(optarg, "json") != 0) {
        fprintf(stderr, "pdd cloud: --log-format is \"%s\": text or json is needed\n", optarg);
        return -1;
    }
    log_set_json(strcmp(optarg, "json") == 0);
    return 0;
}

static int add_upstream(struct upstream_config *c)
{
    struct err e = ERR_INIT;
    if (upstream_option(optarg, c, &e) == 0) return 0;
    fprintf(stderr, "pdd cloud: --upstream: %s\n", e.text);
    return -1;
}

static int set_upstream(struct upstream_config *c, int option)
{
    switch (option) {
    case O_UPSTREAM:
        return add_upstream(c);
    case O_UPSTREAM_MODEL:
        c->model = optarg;
        return 0;
    case O_UPSTREAM_VOCAB:
        c->vocab_path = optarg;
        return 0;
    case O_UPSTREAM_CA:
        c->ca_file = optarg;
        return 0;
    default:
        return -1;
    }
}

static int set_cache_scope(bool *ret_by_tenant)
{
    if (strcmp(optarg, "all") != 0 && strcmp(optarg, "key") != 0) {
        fprintf(stderr, "pdd cloud: --prefix-cache-scope is \"%s\": all or key is needed\n",
                optarg);
        return -1;
    }
    *ret_by_tenant = strcmp(optarg, "key") == 0;
    return 0;
}

static int set_option(struct options *o, int option)
{
    int done = set_number(o, option);
    if (done <= 0) return done;
    switch (option) {
    case O_MODEL:
        o->native.model_path = optarg;
        return 0;
    case O_LISTEN:
        return option_address("cloud", "listen", optarg, o->host, sizeof o->host,
                              &o->server.http.port);
    case O_CACHE_SCOPE:
        return set_cache_scope(&o->server.worker.cache_by_tenant);
    case O_KEYS:
        o->server.keys_path = optarg;
        return 0;
    case O_TLS_CERT:
    case O_TLS_KEY:
        return set_tls(o, option == O_TLS_CERT);
    case O_PROXY:
        return add_proxy(o);
    case O_NAME:
        o->server.model_name = optarg;
        return 0;
    case O_TEMPLATE:
        o->native.chat_template = optarg;
        return 0;
    case O_KV_TYPE:
        return option_kv_type("cloud", optarg, &o->native.kv_type);
    case O_NO_THINK:
        o->native.no_think = true;
        return 0;
    case O_ISA:
        return option_isa("cloud", optarg, &o->native.isa);
    case O_PROFILE:
        o->profile = optarg;
        return 0;
    case O_METRICS:
        o->server.metrics_address = o->metrics_host;
        return option_address("cloud", "metrics-listen", optarg, o->metrics_host,
                              sizeof o->metrics_host, &o->server.metrics_port);
    case O_LOG_FORMAT:
        return set_log_format();
    case O_LOG:
        return set_log_level();
    default:
        return set_upstream(&o->server.upstream, option);
    }
}

/* Options that say how this process computes, which it does not before --upstream, and those of the
 * servers there. */
static const int of_engine[] = {O_THREADS, O_CONTEXT, O_KV_MB,   O_STEP,    O_STEP_MS,     O_QUEUE,
                                O_CACHE,   O_ISA,     O_KV_TYPE, O_PROFILE, O_CACHE_SCOPE, 0};
static const int of_upstream[] = {O_UPSTREAM_MODEL, O_UPSTREAM_VOCAB, O_UPSTREAM_CA,
                                  O_UPSTREAM_TIMEOUT, 0};

_Static_assert(O_HELP - O_MODEL < 64, "a bit for each option");

static uint64_t bit_of(int option)
{
    return 1ull << (option - O_MODEL);
}

/* Options of the list, among those given, would be without effect: all of them are named. */
static int refuse_idle(const int *list, uint64_t given, const char *why)
{
    uint64_t left = 0;
    for (const int *at = list; *at; at++)
        left |= given & bit_of(*at);
    if (!left) return 0;
    bool several = left & (left - 1);
    fputs("pdd cloud:", stderr);
    for (const int *at = list; *at; at++) {
        if (!(left & bit_of(*at))) continue;
        left &= ~bit_of(*at);
        fprintf(stderr, " --%s%s", long_options[*at - O_MODEL].name,
                !left               ? ""
                : left & (left - 1) ? ","
                                    : " and");
    }
    fprintf(stderr, " %s no effect %s\n", several ? "have" : "has", why);
    return -1;
}

static bool is_fake(const struct options *o)
{
    return o->fake.answer_tokens != UINT32_MAX;
}

/* 0: go on; otherwise leave with *ret_status. */
static int parse(int argc, char **argv, struct options *o, int *ret_status)
{
    int option;
    uint64_t given = 0;
    *ret_status = EXIT_USAGE;
    while ((option = option_next(argc, argv, "", long_options)) != -1) {
        if (option == O_HELP) {
            fputs(help, stdout);
            *ret_status = EXIT_DONE;
            return -1;
        }
        if (set_option(o, option)) /* getopt or the reader has said what is wrong */
            return -1;
        given |= bit_of(option);
    }
    if (optind < argc) {
        fprintf(stderr, "pdd cloud: \"%s\" is no option; see pdd cloud --help\n", argv[optind]);
        return -1;
    }
    if (o->n_certs != o->n_keys) {
        fprintf(stderr, "pdd cloud: each --tls-cert needs its --tls-key\n");
        return -1;
    }
    bool upstream = o->server.upstream.n_servers > 0;
    if ((o->native.model_path != NULL) + is_fake(o) + upstream != 1) {
        fprintf(stderr,
                "pdd cloud: give one of --model FILE and --upstream URL; see pdd cloud --help\n");
        return -1;
    }
    return upstream ? refuse_idle(of_engine, given, "with --upstream: the servers there compute")
                    : refuse_idle(of_upstream, given, "without --upstream");
}

/* What both kinds of computing are told by the same options. */
static void share_options(struct options *o)
{
    o->server.upstream.timeout_us = o->upstream_s * 1000000ull;
    o->server.upstream.streams_max = o->server.worker.streams_max;
    o->server.upstream.chat_template = o->native.chat_template;
    o->server.upstream.no_think = o->native.no_think;
    if (!o->server.worker.streams_max) o->server.worker.streams_max = STREAMS_DEFAULT;
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

static int serve(struct cloud *c, struct engine *engine, const struct options *o, struct err *e)
{
    struct loop_signal *term = NULL, *interrupt = NULL, *hangup = NULL;
    struct server_config config = o->server;
    uint64_t pages = engine ? engine_info(engine)->kv_pages_total : 0; /* none: upstreams */
    config.worker.cache_pages = (uint32_t)(pages * o->cache_percent / 100);
    int code = server_new(c->loop, engine, &config, &c->server, e);
    if (code) {
        engine_free(engine);
        return code;
    }
    code = loop_signal_new(c->loop, SIGTERM, asked_to_stop, c, &term, e);
    if (code == 0) code = loop_signal_new(c->loop, SIGINT, asked_to_stop, c, &interrupt, e);
    if (code == 0) code = loop_signal_new(c->loop, SIGHUP, asked_to_reload, c, &hangup, e);
    if (code == 0) {
        printf("cloud listening on %s://%s:%u\n", o->n_certs ? "https" : "http", o->host,
               server_port(c->server));
        if (server_metrics_port(c->server))
            printf("metrics on http://%s:%u/metrics\n", o->metrics_host,
                   server_metrics_port(c->server));
        fflush(stdout);
        service_notify("READY=1");
        code = loop_run(c->loop, e);
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

/* Who listens for this machine alone has clients of one address, often a proxy's. */
static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0;
}

/* The fake engine's KV memory is small: enough of it for all streams. */
static uint32_t fake_pages(const struct options *o)
{
    uint32_t context = o->native.context_max ? o->native.context_max : FAKE_CONTEXT;
    return o->server.worker.streams_max * (context / ENGINE_PAGE + 1);
}

/* What follows from several options together. */
static void finish_options(struct options *o)
{
    struct http_server_config *http = &o->server.http;
    o->native.kv_bytes_max = (uint64_t)o->kv_mb << 20;
    share_options(o);
    o->server.worker.step_us = o->step_ms * 1000;
    o->server.n_tls = o->n_certs;
    o->fake.kv_pages = fake_pages(o);
    http->address = o->host;
    http->per_address_max = o->per_address;
    if (o->per_address == UINT32_MAX)
        http->per_address_max = is_loopback(o->host) ? 0 : PER_ADDRESS_DEFAULT;
    http->proxies = o->proxies;
    http->n_proxies = o->n_proxies;
    fit_connections(http);
}

/* What is easily forgotten, and what it means. */
static void warn_exposed(const struct options *o)
{
    if (is_loopback(o->host)) return;
    if (!o->server.keys_path)
        log_line(LOG_WARN, "cloud", "everybody who reaches %s may ask: --key-file is not given",
                 o->host);
    if (!o->n_certs)
        log_line(LOG_WARN, "cloud",
                 "prompts%s and answers reach %s in the clear: --tls-cert is not given",
                 o->server.keys_path ? ", keys" : "", o->host);
}

/* NULL: servers behind this one compute. */
static int open_engine(const struct options *o, struct engine **ret_engine, struct err *e)
{
    *ret_engine = NULL;
    if (o->server.upstream.n_servers) return 0;
    int code = engine_open(&o->native, is_fake(o) ? &o->fake : NULL, o->profile, ret_engine, e);
    if (code) return code;
    const struct engine_info *info = engine_info(*ret_engine);
    uint64_t kv_bytes = info->kv_bytes_per_token * info->kv_pages_total * ENGINE_PAGE;
    log_line(LOG_INFO, "cloud", "model %s, context %u, KV memory at most %.1f MB, engine %s%s%s",
             info->model_name, info->context_max, (double)kv_bytes / (1 << 20), info->kind,
             info->emulated ? " as " : "", info->emulated ? info->emulated : "");
    if (!engine_template(*ret_engine))
        log_line(LOG_WARN, "cloud",
                 "model %s has no chat template that this program knows: messages are refused, "
                 "prompts are answered; --chat-template NAME gives one",
                 info->model_name);
    return 0;
}

/* Loading a model takes long, so files that are wrong are told of before; the server reads them
 * again. */
static int check_files(const struct options *o, struct err *e)
{
    struct keys *keys = NULL;
    struct tls *tls = NULL;
    int code = o->server.keys_path ? keys_open(o->server.keys_path, clock_us(), &keys, e) : 0;
    if (code == 0 && o->n_certs) code = tls_new(o->server.tls, o->n_certs, &tls, e);
    keys_close(keys);
    tls_free(tls);
    return code;
}

static int run(const struct options *o, struct err *e)
{
    struct engine *engine;
    struct cloud c = {.drain_s = o->drain_s};
    int code = check_files(o, e);
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
    if (argc > 1 && strcmp(argv[1], "key") == 0) return cloud_key(argc - 1, argv + 1);
    struct options o = {.drain_s = DRAIN_SECONDS,
                        .fake.answer_tokens = UINT32_MAX,
                        .host = "127.0.0.1",
                        .per_address = UINT32_MAX,
                        .cache_percent = CACHE_DEFAULT};
    struct err e = ERR_INIT;
    int status;
    http_server_config_default(&o.server.http);
    o.server.http.port = 8080;
    o.server.worker.queue_max = QUEUE_DEFAULT;
    if (parse(argc, argv, &o, &status)) return status;
    finish_options(&o);
    warn_exposed(&o);
    if (run(&o, &e)) {
        fprintf(stderr, "pdd cloud: %s\n", e.text);
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}
