/* cloud: `pdd cloud`, the server. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/os.h"
#include "cli/commands.h"
#include "cli/engine_open.h"
#include "cli/options.h"
#include "cloud/server.h"

enum {
    HOST_MAX = 64,
    DRAIN_SECONDS = 30,
    QUEUE_DEFAULT = 256,
    STREAMS_DEFAULT = 64,
    CACHE_DEFAULT = 16,
    DESCRIPTORS_BESIDE = HTTP_REFUSED_MAX + 32 /* those who hear 503, and files of our own */
};

struct options {
    struct native_options native;
    struct server_config server;
    char host[HOST_MAX], metrics_host[HOST_MAX];
    const char *profile;
    struct fake_options fake;
    bool is_fake;
    uint32_t drain_s;
};

static const char help[] =
    "usage: pdd cloud --model FILE [OPTION]...\n"
    "Serve a model to devices: POST /v1/assist and the rest of the protocol.\n\n"
    "  --model FILE           the GGUF file to serve\n"
    "  --listen HOST:PORT     where (127.0.0.1:8080); port 0 takes a free one and prints it\n"
    "  --threads N            compute threads (all CPUs)\n"
    "  --context N            positions a session may have (the model's)\n"
    "  --kv-mb N              memory for the KV cache (room for two full contexts, at most\n"
    "                         half of what is available)\n"
    "  --step-tokens N        tokens in one step of the engine (512)\n"
    "  --streams-max N        assists in work at once (64)\n"
    "  --queue-max N          assists that may wait besides (256); more are answered 429\n"
    "  --tokens-max N         tokens that one assist may bring (4096)\n"
    "  --prefix-cache N       finished answers kept so that a second turn is cheap (16; 0: none)\n"
    "  --key-file FILE        bearer keys, one a line; without it everyone may ask\n"
    "  --model-name NAME      the name to serve under (the file's)\n"
    "  --chat-template NAME   family of the chat template, when the file's is unknown\n"
    "  --isa NAME             scalar, avx2, avxvnni, avx512, amx, neon, neondot (the best here)\n"
    "  --kv-type TYPE         f16, or q8_0: half the KV memory; both ends must agree (f16)\n"
    "  --no-think             answers begin without a thought, where the template can say so\n"
    "  --profile NAME         emulate the speed of a device profile\n"
    "  --drain-seconds N      how long running answers may go on after SIGTERM (30)\n"
    "  --metrics-listen HOST:PORT  /metrics, /health and /ready there too, without keys\n"
    "  --log-format FORMAT    text, or json: an object a line (text)\n"
    "  --log-level LEVEL      error, warn, info, debug (info)\n"
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
    O_CACHE,
    O_KEYS,
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
    {"prefix-cache", required_argument, NULL, O_CACHE},
    {"key-file", required_argument, NULL, O_KEYS},
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
    {"help", no_argument, NULL, O_HELP},
    {NULL, 0, NULL, 0},
};

static int number(int option, uint32_t low, uint32_t high, uint32_t *ret_value)
{
    return option_u32("cloud", long_options[option - O_MODEL].name, optarg, low, high, ret_value);
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

static int set_option(struct options *o, int option)
{
    uint32_t n = 0;
    int bad = 0;
    switch (option) {
    case O_MODEL:
        o->native.model_path = optarg;
        return 0;
    case O_LISTEN:
        return option_address("cloud", "listen", optarg, o->host, sizeof o->host,
                              &o->server.http.port);
    case O_THREADS:
        return number(option, 1, 256, &o->native.threads);
    case O_CONTEXT:
        return number(option, 2, 1 << 24, &o->native.context_max);
    case O_KV_MB:
        bad = number(option, 1, 1 << 22, &n);
        o->native.kv_bytes_max = (uint64_t)n << 20;
        return bad;
    case O_STEP:
        return number(option, 1, 1 << 16, &o->native.step_tokens_max);
    case O_STREAMS:
        return number(option, 1, WORKER_STREAMS_MAX, &o->server.worker.streams_max);
    case O_QUEUE:
        return number(option, 0, 1 << 16, &o->server.worker.queue_max);
    case O_TOKENS:
        return number(option, 1, WIRE_TOKENS_MAX, &o->server.tokens_max);
    case O_CACHE:
        return number(option, 0, WORKER_CACHE_MAX, &o->server.worker.cache_max);
    case O_KEYS:
        o->server.keys_path = optarg;
        return 0;
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
        o->native.isa = optarg;
        return 0;
    case O_PROFILE:
        o->profile = optarg;
        return 0;
    case O_DRAIN:
        return number(option, 0, 3600, &o->drain_s);
    case O_METRICS:
        o->server.metrics_address = o->metrics_host;
        return option_address("cloud", "metrics-listen", optarg, o->metrics_host,
                              sizeof o->metrics_host, &o->server.metrics_port);
    case O_LOG_FORMAT:
        return set_log_format();
    case O_LOG:
        return set_log_level();
    case O_FAKE:
        o->is_fake = true;
        return number(option, 0, 1 << 20, &o->fake.answer_tokens);
    case O_FAKE_BEAT:
        return number(option, 1, 1000000, &o->fake.beat_us);
    default:
        return -1;
    }
}

/* 0: go on; otherwise leave with *ret_status. */
static int parse(int argc, char **argv, struct options *o, int *ret_status)
{
    int option;
    *ret_status = EXIT_USAGE;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == O_HELP) {
            fputs(help, stdout);
            *ret_status = EXIT_DONE;
            return -1;
        }
        if (set_option(o, option)) /* getopt or the reader has said what is wrong */
            return -1;
    }
    if (optind < argc) {
        fprintf(stderr, "pdd cloud: \"%s\" is no option; see pdd cloud --help\n", argv[optind]);
        return -1;
    }
    if (!o->native.model_path && !o->is_fake) {
        fprintf(stderr, "pdd cloud: --model FILE is needed; see pdd cloud --help\n");
        return -1;
    }
    return 0;
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
    server_drain(c->server, c->drain_s * 1000000ull, drained, c);
}

static int serve(struct cloud *c, struct engine *engine, const struct options *o, struct err *e)
{
    struct loop_signal *term = NULL, *interrupt = NULL;
    int code = server_new(c->loop, engine, &o->server, &c->server, e);
    if (code) {
        engine_free(engine);
        return code;
    }
    code = loop_signal_new(c->loop, SIGTERM, asked_to_stop, c, &term, e);
    if (code == 0) code = loop_signal_new(c->loop, SIGINT, asked_to_stop, c, &interrupt, e);
    if (code == 0) {
        printf("cloud listening on http://%s:%u\n", o->host, server_port(c->server));
        if (server_metrics_port(c->server))
            printf("metrics on http://%s:%u/metrics\n", o->metrics_host,
                   server_metrics_port(c->server));
        fflush(stdout);
        code = loop_run(c->loop, e);
    }
    loop_signal_free(term);
    loop_signal_free(interrupt);
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
    return o->server.worker.streams_max * (context / ENGINE_PAGE + 1);
}

static int run(const struct options *o, struct err *e)
{
    struct engine *engine;
    struct cloud c = {.drain_s = o->drain_s};
    int code = engine_open(&o->native, o->is_fake ? &o->fake : NULL, o->profile, &engine, e);
    if (code) return code;
    const struct engine_info *info = engine_info(engine);
    log_line(LOG_INFO, "cloud", "model %s, context %u, KV memory at most %llu MB, engine %s%s%s",
             info->model_name, info->context_max,
             (unsigned long long)(info->kv_bytes_per_token * info->kv_pages_total * 64 >> 20),
             info->kind, info->emulated ? " as " : "", info->emulated ? info->emulated : "");
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
    struct options o = {.drain_s = DRAIN_SECONDS, .host = "127.0.0.1"};
    struct err e = ERR_INIT;
    int status;
    http_server_config_default(&o.server.http);
    o.server.http.port = 8080;
    o.server.worker.streams_max = STREAMS_DEFAULT;
    o.server.worker.queue_max = QUEUE_DEFAULT;
    o.server.worker.cache_max = CACHE_DEFAULT;
    if (parse(argc, argv, &o, &status)) return status;
    o.server.http.address = o.host;
    o.fake.kv_pages = fake_pages(&o);
    fit_connections(&o.server.http);
    if (run(&o, &e)) {
        fprintf(stderr, "pdd cloud: %s\n", e.text);
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}
