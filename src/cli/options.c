/*
 * options: the table of all options; see options.h. Rows stand in the order of the help. Below them
 * are readers for the few values that are not a number, a text, a word or an address.
 */
#include "cli/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "kern/kern.h"
#include "lab/refine_method.h"
#include "policy/sched.h"

enum {
    BENCH = OPTIONS_BENCH,
    CHAT = OPTIONS_CHAT,
    CLOUD = OPTIONS_CLOUD,
    KEY = OPTIONS_KEY,
    DEMO = OPTIONS_DEMO,
    DEVICE = OPTIONS_DEVICE,
    LINK = OPTIONS_LINK,
    LIST = OPTIONS_LIST,
    PULL = OPTIONS_PULL,
    INSPECT = OPTIONS_INSPECT,
    TOKENIZE = OPTIONS_TOKENIZE,
    DETOKENIZE = OPTIONS_DETOKENIZE,
    RANDOM = OPTIONS_RANDOM,
    PERPLEXITY = OPTIONS_PERPLEXITY,
    REFINE = OPTIONS_REFINE,
    SIM = OPTIONS_SIM,
    MANUAL = OPTIONS_MANUAL
};

#define REFINE_LEAST 0.01f
#define REFINE_LOCAL "0.3" /* of `local` without a share */

#define AT(field) OPTION_AT(field)
#define RANGE(from, to) .low = (from), .high = (to)
#define HEADING(bits, text)                                                                        \
    {                                                                                              \
        .commands = (bits), .help = (text)                                                         \
    }

static const char *const log_levels[] = {"error", "warn", "info", "debug", NULL};
static const char *const log_formats[] = {"text", "json", NULL};
static const char *const cache_scopes[] = {"all", "key", NULL};
static const char *const fills[] = {"mains", "on", "off", NULL};
static const char *const verifies[] = {"auto", "on", "off", NULL};
static const char *const colors[] = {"auto", "always", "never", NULL};
static const char *const cuts[] = {"reset", "close", "stall", NULL};

/* ---- names and readers ---- */

static const char *profile_at(uint32_t i)
{
    const struct device_profile *p = device_profile_at(i);
    return p ? p->name : NULL;
}

static const char *shape_at(uint32_t i)
{
    const struct random_shape *s = random_shape_at(i);
    return s ? s->name : NULL;
}

static const char *type_at(uint32_t i)
{
    const struct random_type *t = random_type_at(i);
    return t ? random_type_name(t) : NULL;
}

static const char *refine_at(uint32_t i)
{
    const struct refine_method *m = refine_method_at(i);
    return m ? m->name : NULL;
}

static int read_shape(const struct option_row *row, struct options *o, char *text, struct err *e)
{
    (void)row;
    return random_shape_find(text, &o->random.shape, e);
}

static int read_type(const struct option_row *row, struct options *o, char *text, struct err *e)
{
    (void)row;
    return random_type_find(text, &o->random.type, e);
}

static int read_isa(const struct option_row *row, struct options *o, char *text, struct err *e)
{
    const struct kern *kern;
    (void)row;
    o->native.isa = text;
    return kern_select(text, &kern, e);
}

static int read_kv_type(const struct option_row *row, struct options *o, char *text, struct err *e)
{
    (void)row;
    return native_kv_of(text, &o->native.kv_type, e);
}

/* "512,2048". A list that is the single number 0, where 0 is out of range, is empty. */
static int read_list(const struct option_row *row, struct options *o, char *text, struct err *e)
{
    struct bench_list *list = (struct bench_list *)((char *)o + row->at);
    list->n = 0;
    if (row->low > 0 && strcmp(text, "0") == 0) return 0;
    for (const char *at = text;; at++) {
        char *end;
        errno = 0;
        long v = strtol(at, &end, 10);
        if (end == at || errno || (*end && *end != ',') || v < (long)row->low ||
            v > (long)row->high || list->n == BENCH_LIST_MAX)
            return err_set(e, ERR_BAD_INPUT,
                           "\"%.100s\": up to %d whole numbers from %.0f to %.0f, separated by "
                           "commas, are needed",
                           text, BENCH_LIST_MAX, row->low, row->high);
        list->values[list->n++] = (uint32_t)v;
        if (!*end) return 0;
        at = end;
    }
}

/* The n-th --tls-cert and the n-th --tls-key are one identity. */
static int read_tls(const char *text, size_t *n, const char **path, struct err *e)
{
    if (*n == TLS_IDENTITIES_MAX)
        return err_set(e, ERR_LIMIT, "at most %d certificates can be served", TLS_IDENTITIES_MAX);
    *path = text;
    (*n)++;
    return 0;
}

static int read_tls_cert(const struct option_row *row, struct options *o, char *text, struct err *e)
{
    struct cloud_options *c = &o->cloud;
    (void)row;
    return read_tls(text, &c->n_certs, &c->server.tls[c->n_certs % TLS_IDENTITIES_MAX].cert_path,
                    e);
}

static int read_tls_key(const struct option_row *row, struct options *o, char *text, struct err *e)
{
    struct cloud_options *c = &o->cloud;
    (void)row;
    return read_tls(text, &c->n_keys, &c->server.tls[c->n_keys % TLS_IDENTITIES_MAX].key_path, e);
}

static int read_proxy(const struct option_row *row, struct options *o, char *text, struct err *e)
{
    struct cloud_options *c = &o->cloud;
    (void)row;
    if (c->n_proxies == HTTP_PROXIES_MAX)
        return err_set(e, ERR_LIMIT, "at most %d networks", HTTP_PROXIES_MAX);
    int code = http_network_parse(text, &c->proxies[c->n_proxies], e);
    if (code == 0) c->n_proxies++;
    return code;
}

static int read_upstream(const struct option_row *row, struct options *o, char *text, struct err *e)
{
    (void)row;
    return upstream_option(text, &o->cloud.server.upstream, e);
}

/* An option that may be repeated: its text at the end of list[max]; `what`: " files", or "". */
static int add_text(const char **list, uint32_t *n, uint32_t max, const char *what,
                    const char *text, struct err *e)
{
    if (*n == max) return err_set(e, ERR_LIMIT, "at most %u%s", max, what);
    list[(*n)++] = text;
    return 0;
}

static int read_allowed_host(const struct option_row *row, struct options *o, char *text,
                             struct err *e)
{
    struct serve_config *c = &o->device.server;
    (void)row;
    return add_text(c->hosts, &c->n_hosts, SERVE_HOSTS_MAX, "", text, e);
}

static int check_origin(const char *text, struct err *e)
{
    const char *host = strstr(text, "://");
    if (host && host[3] && !strchr(host + 3, '/')) return 0;
    return err_set(e, ERR_BAD_INPUT,
                   "\"%.100s\" is no origin: a scheme, a host and a port, as "
                   "https://notes.example",
                   text);
}

static int read_cloud_origin(const struct option_row *row, struct options *o, char *text,
                             struct err *e)
{
    struct cloud_options *c = &o->cloud;
    (void)row;
    if (strcmp(text, "*") != 0 && check_origin(text, e)) return e->code;
    return add_text(c->origins, &c->n_origins, OPTIONS_ORIGINS_MAX, "", text, e);
}

static int read_allowed_origin(const struct option_row *row, struct options *o, char *text,
                               struct err *e)
{
    struct serve_config *c = &o->device.server;
    (void)row;
    if (check_origin(text, e)) return e->code;
    return add_text(c->origins, &c->n_origins, SERVE_HOSTS_MAX, "", text, e);
}

static int read_alias(const struct option_row *row, struct options *o, char *text, struct err *e)
{
    (void)row;
    return model_names_add(&o->names, text, e);
}

/* auto, off, RATIO or local[:RATIO] */
static int read_refine(const struct option_row *row, struct options *o, char *text, struct err *e)
{
    struct chat_options *c = &o->chat;
    bool local = strncmp(text, "local", 5) == 0 && (text[5] == ':' || !text[5]);
    const char *number = !local ? text : text[5] ? text + 6 : REFINE_LOCAL;
    char *end;
    (void)row;
    errno = 0;
    float ratio = strtof(number, &end);
    if (strcmp(text, "auto") == 0 || strcmp(text, "off") == 0) {
        c->refine = text[0] == 'a' ? DEVICE_REFINE_AUTO : DEVICE_REFINE_OFF;
    } else if (end != number && !*end && !errno && ratio >= REFINE_LEAST && ratio < 1.0f) {
        c->refine = local ? DEVICE_REFINE_LOCAL : DEVICE_REFINE_RATIO;
        c->refine_ratio = ratio;
    } else {
        return err_set(e, ERR_BAD_INPUT,
                       "\"%.100s\": auto, off, local, local:SHARE or a share to keep, from %.2f to "
                       "below 1, is needed",
                       text, (double)REFINE_LEAST);
    }
    return 0;
}

static int read_sample(const struct option_row *row, struct options *o, char *text, struct err *e)
{
    struct perplexity_plan *p = &o->perplexity;
    (void)row;
    if (p->n_files == PERPLEXITY_FILES_MAX)
        return err_set(e, ERR_LIMIT, "at most %d files", PERPLEXITY_FILES_MAX);
    p->files[p->n_files++] = text;
    return 0;
}

static int read_set(const struct option_row *row, struct options *o, char *text, struct err *e)
{
    struct refine_plan *p = &o->refine;
    (void)row;
    if (p->n_sets == REFINE_SETS_MAX)
        return err_set(e, ERR_LIMIT, "at most %d files", REFINE_SETS_MAX);
    p->sets[p->n_sets++] = text;
    return 0;
}

/* "I/N" */
static int read_part(const struct option_row *row, struct options *o, char *text, struct err *e)
{
    struct refine_plan *p = &o->refine;
    char end;
    (void)row;
    if (sscanf(text, "%u/%u%c", &p->part, &p->parts, &end) == 2 && p->part >= 1 &&
        p->part <= p->parts)
        return 0;
    return err_set(e, ERR_BAD_INPUT, "\"%s\" is no I/N with I from 1 to N", text);
}

static int read_trace(const struct option_row *row, struct options *o, char *text, struct err *e)
{
    (void)row;
    return add_text(o->sim.plan.traces, &o->sim.plan.n_traces, STUDY_FILES_MAX, " files", text, e);
}

static int read_link(const struct option_row *row, struct options *o, char *text, struct err *e)
{
    (void)row;
    return add_text(o->sim.plan.links, &o->sim.plan.n_links, STUDY_FILES_MAX, " files", text, e);
}

/* ---- the table ---- */

#define ENGINE .only = OPTIONS_WITH_ENGINE
#define UPSTREAM .only = OPTIONS_WITH_UPSTREAM

static const struct option_row rows[] = {
    HEADING(CHAT | CLOUD | DEVICE, "Model and engine:"),
    {"model", "MODEL", CLOUD, AT(native.model_path),
     .help = "the model to serve: a GGUF file, or a name of pdd model list"},
    {"model", "MODEL", CHAT | DEVICE, AT(native.model_path),
     .help = "the model of this device: a GGUF file, or a name of pdd model list",
     .otherwise = "the largest in models/ next to the program"},
    {"model", "MODEL", PERPLEXITY | REFINE, AT(native.model_path),
     .help = "the model to measure: a GGUF file, or a name of pdd model list",
     .otherwise = "the largest in models/ next to the program"},
    {"model", "MODEL", BENCH, AT(native.model_path),
     .help =
         "the model to measure: a GGUF file (pdd model random makes one of any shape), or a name "
         "of pdd model list",
     .otherwise = "the largest in models/ next to the program"},
    {"model", "MODEL", DEMO, AT(native.model_path),
     .help = "the model of both ends: a GGUF file, or a name of pdd model list",
     .otherwise = "the largest in models/ next to the program"},
    {"no-model", NULL, CHAT | DEVICE, AT(chat.no_model),
     .help = "no engine on this device: the cloud computes everything"},
    {"model-name", "NAME", CLOUD, AT(cloud.server.model_name),
     .help = "the name to serve the model under", .otherwise = "the file's"},
    {"model-alias", "NAME", CLOUD | DEVICE, .read = read_alias,
     .help = "requests may ask for the model by this name, too; may be repeated; *: by any name"},
    {"chat-template", "NAME", CHAT | CLOUD | DEVICE, AT(native.chat_template),
     .help = "one of the program's own chat templates instead of the file's, by its family"},
    {"chat-template-file", "FILE", CHAT | CLOUD | DEVICE, AT(native.chat_template_file),
     .help = "a chat template (Jinja text) instead of the file's"},
    {"no-think", NULL, CHAT | CLOUD | DEVICE, AT(native.no_think),
     .help = "answers start without reasoning, where the chat template can ask for that"},
    {"threads", "N", CHAT | CLOUD | DEVICE | PERPLEXITY | REFINE, AT(native.threads), RANGE(1, 256),
     .help = "compute threads", .otherwise = "all CPUs", ENGINE},
    {"isa", "NAME", CHAT | CLOUD | DEVICE | BENCH | PERPLEXITY | REFINE, .read = read_isa,
     .help = "instruction set: scalar, avx2, avxvnni, avx512, amx, neon or neondot",
     .otherwise = "the best here", ENGINE},
    {"context", "N", CHAT | CLOUD | DEVICE, AT(native.context_max), RANGE(2, 1 << 24),
     .help = "context length of a session in tokens", .otherwise = "the model's", ENGINE},
    {"kv-mb", "N", CLOUD | DEVICE, AT(kv_mb), RANGE(1, 1 << 22),
     .help = "memory for the KV cache in MiB. It bounds how many requests run at once; a context "
             "that does not fit is shortened",
     .otherwise = "room for two full contexts, at most half of the available memory", ENGINE},
    {"kv-type", "TYPE", CHAT | CLOUD | DEVICE | BENCH | PERPLEXITY | REFINE, .read = read_kv_type,
     .help = "type of the KV cache: i16, f16 or q8_0 (half the memory). A handover is exact only "
             "with the same type on both ends",
     .otherwise = "i16, or f16 where the head size is not a multiple of 16", ENGINE},
    {"profile", "NAME", CHAT | CLOUD | DEVICE, AT(profile), .help = "emulate the speed of a device",
     .choice = profile_at, ENGINE},
    {"profile", "NAME", DEMO, AT(profile), .help = "the device to emulate",
     .initial = "s24-ultra-gpu", .choice = profile_at},

    HEADING(CHAT | DEVICE, "Cloud:"),
    {"cloud", "URL", CHAT | DEVICE, AT(chat.cloud_url),
     .help = "the cloud, as http://127.0.0.1:8080, with or without /v1"},
    {"key-file", "FILE", CHAT | DEVICE, AT(chat.key_file),
     .help = "its bearer key, on the first line"},
    {"ca-file", "FILE", CHAT | DEVICE, AT(chat.ca_file),
     .help = "PEM file of CA certificates to trust", .otherwise = "the system's"},
    {"cloud-model", "NAME", CHAT | DEVICE, AT(chat.cloud_model), .help = "the model to request",
     .otherwise = "whatever it serves"},
    {"local-only", NULL, CHAT, AT(chat.local_only),
     .help = "this device alone; no socket is opened"},
    {"local-only", NULL, DEVICE, AT(chat.local_only),
     .help = "this device alone, whatever a request says: no socket is opened besides its own"},
    {"ask-before-sending", NULL, DEVICE, AT(device.server.ask_before_sending),
     .help = "hold each question that may be sent to the cloud until the page, or this terminal, "
             "says yes"},
    {"cloud-only", NULL, CHAT, AT(chat.cloud_only), .help = "the cloud alone"},
    {"cloud-tokens", "N", CHAT, AT(chat.cloud_tokens), RANGE(0, TURN_ANSWER_MAX),
     .help = "request exactly N tokens from the cloud", .otherwise = "as planned"},
    {"refine", "MODE", CHAT | DEVICE, .read = read_refine,
     .help = "let the cloud shorten the prompt that this device reads, to what the answer needs "
             "(docs/design/refine.md). The rest of the answer may then differ. auto: only where "
             "the device could not take over in time; off; or the share to keep, as 0.3. local, or "
             "local:0.3: this device chooses by the words of the question, without a cloud too",
     .otherwise = "auto"},
    {"idle-fill", "MODE", CHAT | DEVICE, AT(chat.idle_fill),
     .help = "after an answer, read in the background what this device has not read of the "
             "conversation; mains: except while the machine runs on its battery",
     .words = fills, .initial = "mains"},
    {"verify", "MODE", CHAT, AT(chat.verify),
     .help = "compare the cloud's tokens with this model's own. auto: where the cloud says that it "
             "has the same weights, but other numerics; on: also where it says that both are the "
             "same, or does not say so (another engine; with temperature 0)",
     .words = verifies, .initial = "auto"},

    {"goal", "NAME", CHAT, AT(chat.goal),
     .help = "what the plan goes for: even (an even pace, the first token within a second), fast "
             "(the first token soon), cheap (little of the cloud) or battery (little of this "
             "device)",
     .words = plan_goal_names, .initial = "even"},
    {"first-ms", "N", CHAT, AT(chat.first_ms), RANGE(1, 1 << 24),
     .help = "longest wait for the first token that a plan may count on, in ms",
     .otherwise = "no limit"},
    {"gap-ms", "N", CHAT, AT(chat.gap_ms), RANGE(1, 60000),
     .help = "slowest pace of the cloud's tokens, in ms a token; slower needs fewer of them. The "
             "device's own pace is always allowed",
     .otherwise = "as the goal has it"},
    {"cloud-tokens-max", "N", CHAT, AT(chat.cloud_tokens_max), RANGE(1, TURN_ANSWER_MAX),
     .help = "most tokens to take from the cloud while this device can go on",
     .otherwise = "no limit"},
    {"state", "DIR", CHAT, AT(chat.state),
     .help = "folder for what is learned from answers (speeds, round trips, lengths), and for the "
             "lines that were typed at a terminal (--no-history)",
     .otherwise = "$XDG_STATE_HOME/pdd, or ~/.local/state/pdd"},
    {"no-state", NULL, CHAT, AT(chat.no_state), .help = "keep nothing between runs"},
    {"no-history", NULL, CHAT, AT(chat.no_history),
     .help = "do not keep what is typed; a line that begins with a blank is never kept"},

    HEADING(CHAT, "Prompt and answer:"),
    {"prompt", "TEXT", CHAT, AT(chat.prompt), .help = "one question, then exit"},
    {"prompt-file", "FILE", CHAT, AT(prompt_file),
     .help = "the same from a file; - is standard input"},
    {"document", "FILE", CHAT, AT(chat.document),
     .help = "a text to ask about: the first question follows it, after an empty line"},
    {"system", "TEXT", CHAT, AT(chat.system), .help = "system message of the conversation"},
    {"raw", NULL, CHAT, AT(chat.raw), .help = "the prompt as it is, without a chat template"},
    {"max-tokens", "N", CHAT, AT(tokens_max), RANGE(1, TURN_ANSWER_MAX),
     .help = "maximum length of an answer", .initial = "512"},
    {"temperature", "T", CHAT, AT(chat.sampling.temperature), RANGE(0, 100),
     .help = "sampling temperature; 0 is greedy", .initial = "0"},
    {"top-k", "N", CHAT, AT(chat.sampling.top_k), RANGE(0, 1 << 24),
     .help = "sample from the N likeliest tokens; 0: all", .initial = "0"},
    {"top-p", "P", CHAT, AT(chat.sampling.top_p), RANGE(1e-6, 1),
     .help = "sample from the likeliest tokens that together have probability P", .initial = "1"},
    {"min-p", "P", CHAT, AT(chat.sampling.min_p), RANGE(0, 0.999999),
     .help = "drop tokens below P times the highest probability", .initial = "0"},
    {"repeat-penalty", "R", CHAT, AT(chat.sampling.repeat_penalty), RANGE(0.01, 100),
     .help = "penalty for tokens that occurred lately; 1: none", .initial = "1"},
    {"frequency-penalty", "F", CHAT, AT(chat.sampling.frequency_penalty), RANGE(-2, 2),
     .help = "what a token loses for each time that the answer has it", .initial = "0"},
    {"presence-penalty", "F", CHAT, AT(chat.sampling.presence_penalty), RANGE(-2, 2),
     .help = "what a token loses when the answer has it", .initial = "0"},
    {"seed", "N", CHAT, AT(chat.sampling.seed), RANGE(0, UINT32_MAX),
     .help = "seed of the sampling", .initial = "0"},
    {"pace", "MODE", CHAT, AT(chat.pace), .help = "pace of the tokens shown",
     .words = pace_mode_names, .initial = "smooth"},

    HEADING(DEVICE, "Answers:"),
    {"pace", "MODE", DEVICE, AT(device.server.pace),
     .help = "pace of the tokens shown, where a request says none", .words = pace_mode_names,
     .initial = "smooth"},
    {"answers-max", "N", DEVICE, AT(device.server.answers_max), RANGE(1, SERVE_ANSWERS_MAX),
     .help = "answers at once; they share the steps of the engine", .initial = "4"},
    {"queue-max", "N", DEVICE, AT(device.server.queue_max), RANGE(0, SERVE_QUEUE_MAX),
     .help = "questions that may wait, at most half of them of one client; further ones get 429",
     .initial = "32"},
    {"state", "DIR", DEVICE, AT(device.state_dir),
     .help = "folder for answers, conversations and the record of what was sent; 0700",
     .otherwise = "$XDG_STATE_HOME/pdd, or ~/.local/state/pdd"},
    {"kv-disk-mb", "N", DEVICE, AT(device.kv_disk_mb), RANGE(0, 1 << 24),
     .help = "MiB of computed prompts kept in the state folder, so that the next turn of a "
             "conversation starts without prefill after a restart; 0: none",
     .initial = "1024"},
    {"no-state", NULL, DEVICE, AT(device.no_state), .help = "keep nothing after the program"},
    {"keep", "S", DEVICE, AT(device.server.keep_s), RANGE(0, 604800),
     .help = "an answer that nobody reads goes on for S seconds, where a request says nothing; 0: "
             "a client that leaves cancels it",
     .initial = "0"},

    HEADING(CHAT, "Reports:"),
    {"stats", NULL, CHAT, AT(chat.stats), .help = "a report after each answer, on standard error"},
    {"stats-json", "FILE", CHAT, AT(chat.stats_json),
     .help = "the same as JSON with the times and source of every token, one line an answer"},
    {"color", "MODE", CHAT, AT(chat.color), .help = "color tokens by their source", .words = colors,
     .initial = "auto"},

    {"rtt", "MS", DEMO, AT(rtt_ms), RANGE(0, 60000), .help = "round-trip time of the emulated link",
     .initial = "50"},
    {"cloud-profile", "NAME", DEMO, AT(cloud_profile), .help = "the cloud to emulate",
     .initial = "provider-20ms", .choice = profile_at},
    {"task", "FILE", DEMO, AT(task),
     .help =
         "JSON file with \"document\" (a file beside it), \"question\" and \"facts\" of the answer",
     .otherwise = "demo/logbook.json"},
    {"max-tokens", "N", DEMO, AT(tokens_max), RANGE(1, 100000),
     .help = "maximum length of the answer", .initial = "400"},
    {"temperature", "T", DEMO, AT(chat.sampling.temperature), RANGE(0, 100),
     .help = "sampling temperature; 0 is greedy", .initial = "0"},
    {"seed", "N", DEMO, AT(seed), RANGE(0, UINT32_MAX), .help = "seed of the sampling",
     .initial = "1"},
    {"out", "DIR", DEMO, AT(out), .help = "folder for reports, logs and picture",
     .initial = "pdd-demo"},

    HEADING(CLOUD, "Scheduling:"),
    {"streams-max", "N", CLOUD, AT(cloud.server.worker.streams_max), RANGE(1, WORKER_STREAMS_MAX),
     .help = "requests in progress at once", .otherwise = "64; with --upstream 1024"},
    {"queue-max", "N", CLOUD, AT(cloud.server.worker.queue_max), RANGE(0, 1 << 16),
     .help = "requests that may wait, at most half of them of one key; further requests get 429",
     .initial = "256", ENGINE},
    {"tokens-max", "N", CLOUD, AT(cloud.server.tokens_max), RANGE(1, WIRE_TOKENS_MAX),
     .help = "tokens that one request may generate", .initial = "4096"},
    {"step-tokens", "N", CLOUD, AT(native.step_tokens_max), RANGE(1, 1 << 16),
     .help = "tokens in one step of the engine", .otherwise = "512", ENGINE},
    {"step-ms", "N", CLOUD, AT(cloud.step_ms), RANGE(1, 60000),
     .help = "target time of a step while answers are generated: prompt tokens join a step as far "
             "as measured speeds allow. Steps of prompts alone take at most three times as long",
     .otherwise = "100", ENGINE},
    {"prefix-cache", "P", CLOUD, AT(cloud.cache_percent), RANGE(0, 100),
     .help = "per cent of the KV memory that may keep computed prompts while it is idle: a prompt "
             "with the same beginning costs only the rest; 0: none",
     .initial = "100", ENGINE},
    {"prefix-cache-scope", "S", CLOUD, AT(cloud.server.worker.cache_by_tenant),
     .help = "requests that share cached prompts, all of them or those with one key",
     .words = cache_scopes, .initial = "all", ENGINE},

    HEADING(CLOUD | DEVICE, "Network and access:"),
    {"listen", "HOST:PORT", DEVICE, AT(listen),
     .help = "address to listen on; port 0 takes a free one and prints it",
     .initial = "127.0.0.1:8710"},
    {"token-file", "FILE", DEVICE, AT(device.token_file),
     .help = "a token, on the first line, that clients must send as their bearer key",
     .otherwise = "none: every program of this machine is served"},
    {"allow-host", "NAME", DEVICE, .read = read_allowed_host,
     .help = "answer to this name too, besides localhost and the address; may be repeated"},
    {"allow-origin", "ORIGIN", DEVICE, .read = read_allowed_origin,
     .help = "pages of this origin, as https://notes.example, may use the device; may be repeated"},
    {"listen", "HOST:PORT", CLOUD, AT(listen),
     .help = "address to listen on; port 0 takes a free one and prints it",
     .initial = "127.0.0.1:8080"},
    {"metrics-listen", "HOST:PORT", CLOUD, AT(cloud.metrics),
     .help = "serve /metrics, /health and /ready on this address too, without keys"},
    {"key-file", "FILE", CLOUD, AT(cloud.server.keys_path),
     .help = "hashed keys with their quotas, one line each from pdd cloud key. SIGHUP reads it "
             "again",
     .otherwise = "none: every client is served"},
    {"tls-cert", "FILE", CLOUD, .read = read_tls_cert,
     .help = "certificate with its chain (PEM): serve https only. May be repeated, each with a "
             "--tls-key, for keys of another kind (ECDSA and RSA). SIGHUP reads both files again"},
    {"tls-key", "FILE", CLOUD, .read = read_tls_key, .help = "private key of the certificate"},
    {"connections-max", "N", CLOUD, AT(cloud.server.http.connections_max), RANGE(1, 1 << 20),
     .help = "connections at once; further ones get 503", .initial = "4096"},
    {"connections-per-address", "N", CLOUD, AT(cloud.per_address), RANGE(0, 1 << 20),
     .help = "connections of one address, an IPv6 /64 as one; further ones get 429; 0: no limit",
     .otherwise = "256; on a loopback address no limit"},
    {"trusted-proxy", "ADDRESS[/BITS]", CLOUD, .read = read_proxy,
     .help = "believe the X-Forwarded-For of this proxy; may be repeated"},
    {"allow-origin", "ORIGIN", CLOUD, .read = read_cloud_origin,
     .help = "pages of this origin, as https://notes.example, may ask from a browser; may be "
             "repeated; *: all pages",
     .otherwise = "none: no page of another site can read an answer"},
    {"drain-seconds", "N", CLOUD | DEVICE, AT(drain_s), RANGE(0, 3600),
     .help = "time for running answers after SIGTERM, while new connections are refused; a second "
             "signal ends them at once",
     .initial = "30"},
    {"log-format", "FORMAT", CLOUD | DEVICE, AT(log_json), .help = "format of log lines",
     .words = log_formats, .initial = "text"},
    {"log-level", "LEVEL", CLOUD | DEVICE, AT(log_level), .help = "lowest level of log lines",
     .words = log_levels, .initial = "info"},

    HEADING(CLOUD, "Upstream servers instead of a model (docs/UPSTREAMS.md):"),
    {"upstream", "URL[,KEYFILE]", CLOUD, .read = read_upstream,
     .help = "a server that computes: pdd cloud, vLLM, SGLang, llama-server or another with the "
             "OpenAI API; may be repeated up to 64 times"},
    {"upstream-model", "NAME", CLOUD, AT(cloud.server.upstream.model),
     .help = "name of the model there", .otherwise = "the first that a server lists", UPSTREAM},
    {"upstream-vocab", "FILE", CLOUD, AT(cloud.server.upstream.vocab_path),
     .help = "GGUF file of that model, or a name of pdd model list, for its tokenizer and chat "
             "template alone: tokens then pass "
             "as ids",
     UPSTREAM},
    {"upstream-ca", "FILE", CLOUD, AT(cloud.server.upstream.ca_file),
     .help = "PEM file of CA certificates to trust", .otherwise = "the system's", UPSTREAM},
    {"upstream-timeout", "S", CLOUD, AT(cloud.upstream_s), RANGE(1, 3600),
     .help = "a server has failed after S seconds of silence, or without a token after the first "
             "one. Until the first token, empty events extend this to ten times as long, for long "
             "prompts",
     .otherwise = "60", UPSTREAM},

    HEADING(CHAT | CLOUD | DEVICE, "For tests:"),
    {"fake", "N", CHAT | CLOUD | DEVICE, AT(fake_tokens), RANGE(0, 1 << 20),
     .help = "no model: made-up answers of N tokens"},
    {"fake-beat-us", "N", CLOUD, AT(cloud.fake_beat_us), RANGE(1, 1000000),
     .help = "steps of the fake engine end at multiples of N microseconds"},

    {"requests-per-minute", "N", KEY, AT(key.requests), .help = "requests in a minute",
     .otherwise = "no limit"},
    {"tokens-per-minute", "N", KEY, AT(key.tokens),
     .help = "tokens of prompts and answers in a minute", .otherwise = "no limit"},
    {"streams", "N", KEY, AT(key.streams), .help = "requests at once", .otherwise = "no limit"},
    {"priority", "N", KEY, AT(key.priority),
     .help = "from -8 to 8; each step doubles the share of the engine", .otherwise = "0"},
    {"hash", NULL, KEY, AT(key.hash),
     .help = "read an existing key from standard input and print its line only"},

    {"to", "HOST:PORT", LINK, AT(to), .help = "address to forward to", .required = true},
    {"listen", "HOST:PORT", LINK, AT(listen),
     .help = "address to listen on; port 0 takes a free one and prints it",
     .initial = "127.0.0.1:0"},
    {"rtt", "MS", LINK, AT(link.rtt_ms), RANGE(0, 600000),
     .help = "round-trip time; half of it delays each direction", .initial = "50"},
    {"trace", "FILE", LINK, AT(trace),
     .help = "round-trip times over time: lines time_s,rtt_ms below a header line"},
    {"rate", "KBIT", LINK, AT(link.rate_kbit), RANGE(0, 1e9),
     .help = "kbit/s in each direction of a connection", .otherwise = "unlimited"},
    {"cut-bytes", "N", LINK, AT(link.cut_bytes), RANGE(1, UINT32_MAX),
     .help = "cut a connection after N bytes of its response"},
    {"cut-events", "N", LINK, AT(link.cut_events), RANGE(1, UINT32_MAX),
     .help = "cut a connection after N server-sent events"},
    {"cut-at", "SECONDS", LINK, AT(link.cut_at_s), RANGE(0, 1e6),
     .help = "cut all connections once, this long after the start"},
    {"cut-times", "N", LINK, AT(link.cut_times), RANGE(1, UINT32_MAX),
     .help = "cut only the first N connections", .otherwise = "all"},
    {"cut-how", "HOW", LINK, AT(link.how), .help = "kind of cut", .words = cuts,
     .initial = "reset"},

    {"prompt", "LIST", BENCH, .at = offsetof(struct options, bench.prompts), RANGE(1, 1 << 20),
     .read = read_list, .help = "tokens of prompts, as 512,2048; 0: none", .initial = "512"},
    {"depth", "LIST", BENCH, .at = offsetof(struct options, bench.depths), RANGE(0, 1 << 20),
     .read = read_list, .help = "tokens in the KV cache when a prompt or an answer starts",
     .initial = "0"},
    {"batch", "LIST", BENCH, .at = offsetof(struct options, bench.batches),
     RANGE(1, ENGINE_SPANS_MAX), .read = read_list,
     .help = "sequences that decode at the same time; 0: none", .initial = "1"},
    {"mixed", "LIST", BENCH, .at = offsetof(struct options, bench.mixes),
     RANGE(1, ENGINE_SPANS_MAX - 1), .read = read_list,
     .help = "steps of a chunk of a prompt and this many decodes, and what a decode adds"},
    {"fill", NULL, BENCH, AT(bench.fill),
     .help = "also the time to fill the cache up to each depth, once"},
    {"generate", "N", BENCH, AT(bench.generate), RANGE(0, 1 << 20), .help = "tokens of an answer",
     .initial = "64"},
    {"chunk", "N", BENCH, AT(bench.chunk), RANGE(1, 1 << 14),
     .help = "tokens of a prompt that a step may take", .initial = "512"},
    {"threads", "LIST", BENCH, .at = offsetof(struct options, bench.threads), RANGE(0, 256),
     .read = read_list, .help = "compute threads; 0: all CPUs", .initial = "0"},
    {"repeat", "N", BENCH, AT(bench.rounds), RANGE(1, BENCH_ROUNDS_MAX),
     .help = "rounds; the report has medians, and the best", .initial = "3"},
    {"load", NULL, BENCH, AT(bench.load),
     .help = "also the time to the first token and the peak memory of a fresh process"},
    {"beyond", NULL, BENCH, AT(bench.beyond),
     .help = "also measure beyond the context that the model was trained for"},
    {"json", NULL, BENCH, AT(bench.json), .help = "one JSON object instead of a table"},
    {"quiet", NULL, BENCH, AT(bench.quiet), .help = "do not name each case while it is measured"},
    {"load-child", NULL, BENCH, AT(bench_load_child)}, /* what --load starts */

    {"file", "TEXTFILE", PERPLEXITY, .read = read_sample, .required = true,
     .help = "a text to predict, read on its own; may be repeated up to 512 times"},
    {"context", "N", PERPLEXITY, AT(perplexity.context), RANGE(4, 1 << 20),
     .help = "tokens of a window. Windows overlap by half; a token counts once, after at least "
             "half a window of text where there is that much",
     .otherwise = "1024, or the model's context where that is shorter"},
    {"json", NULL, PERPLEXITY, AT(perplexity.json), .help = "one JSON object instead of a table"},

    {"set", "FILE", REFINE, .read = read_set, .required = true,
     .help = "documents with questions, a JSON line each (tools/refine/sets.py makes them); may be "
             "repeated up to 64 times"},
    {"out", "FILE", REFINE, AT(refine.out),
     .help = "append results to this file; a question that it has is not asked again",
     .otherwise = "standard output"},
    {"methods", "LIST", REFINE, AT(refine.methods), .choice = refine_at,
     .help = "some methods only, with commas", .otherwise = "all"},
    {"ratios", "LIST", REFINE, AT(refine.ratios),
     .help = "these ratios for every method, with commas; 0: by coverage",
     .otherwise = "each method's own"},
    {"questions", "N", REFINE, AT(refine.questions), RANGE(1, 1 << 24),
     .help = "at most so many of each set", .otherwise = "all"},
    {"part", "I/N", REFINE, .read = read_part, .initial = "1/1",
     .help = "every N-th document, from the I-th on: N processes share the work"},
    {"minutes", "N", REFINE, AT(refine.minutes), RANGE(1, 1 << 20),
     .help = "begin no question after that time; the same part of every set is asked",
     .otherwise = "no end"},
    {"no-answers", NULL, REFINE, AT(refine.no_answers),
     .help = "only what is kept, and whether the answer is in it"},
    {"quiet", NULL, REFINE, AT(refine.quiet), .help = "no progress on standard error"},

    HEADING(INSPECT, "inspect: what a GGUF file holds, and whether this program can run it"),
    {"json", NULL, INSPECT, AT(model.json), .help = "one JSON object instead of lines"},
    {"no-hash", NULL, INSPECT, AT(model.no_hash),
     .help =
         "without the digests that device and cloud compare, for which all of the file is read"},
    {"render", "JSON", INSPECT, AT(model.render),
     .help = "only the prompt that the chat template makes of messages: an array of messages, a "
             "request of OpenAI's API, or -, for one on standard input; control tokens as the file "
             "spells them"},
    {"chat-template", "NAME", INSPECT, AT(native.chat_template),
     .help = "for --render: one of the program's own chat templates"},
    {"chat-template-file", "FILE", INSPECT, AT(native.chat_template_file),
     .help = "for --render: a chat template (Jinja text)"},
    HEADING(TOKENIZE, "tokenize: the tokens of a text, by default of standard input"),
    {"text", "TEXT", TOKENIZE, AT(model.text), .help = "the text itself"},
    {"file", "TEXTFILE", TOKENIZE, AT(model.text_file), .help = "the file with the text"},
    {"no-special", NULL, TOKENIZE, AT(model.no_special),
     .help = "as a user's text: no BOS, and control tokens are plain text"},
    {"ids", NULL, TOKENIZE, AT(model.ids_only), .help = "only the numbers, in one line"},
    HEADING(DETOKENIZE, "detokenize: the text of tokens; control tokens are shown"),

    {"as", "NAME", PULL, AT(pull.as), .help = "the name of the model here",
     .otherwise = "the file's"},
    {"sha256", "HEX", PULL, AT(pull.sha256),
     .help = "digest that the file must have, besides the one that the hub states"},
    {"token-file", "FILE", PULL, AT(pull.token_file),
     .help = "token, on the first line, for the server that is named: it is not sent to those to "
             "which it redirects, nor by http to another machine"},
    {"ca-file", "FILE", PULL, AT(pull.ca_file), .help = "PEM file of CA certificates to trust",
     .otherwise = "the system's"},
    {"retries", "N", PULL, AT(pull.retries), RANGE(0, 1000),
     .help = "tries in a row that bring nothing, after a connection is lost or a server is busy",
     .initial = "5"},
    {"files", NULL, PULL, AT(pull.files),
     .help = "only list the GGUF files of hf:OWNER/NAME, with their sizes"},
    {"quiet", NULL, PULL, AT(pull.quiet), .help = "say nothing but errors"},
    {"json", NULL, LIST, AT(model.json), .help = "one JSON array instead of a table"},
    {"names", NULL, LIST, AT(model.names_only),
     .help = "only the names that --model takes, one a line"},

    {"shape", "NAME", RANDOM, .read = read_shape, .required = true, .help = "one of",
     .choice = shape_at},
    {"type", "TYPE", RANDOM, .read = read_type, .help = "type of the weights", .choice = type_at,
     .initial = "Q8_0"},
    {"seed", "N", RANDOM, AT(random.seed), RANGE(0, UINT32_MAX),
     .help = "the same seed makes the same file", .initial = "1"},
    {"threads", "N", RANDOM, AT(random.threads), RANGE(0, POOL_THREADS_MAX),
     .help = "compute threads; 0: all CPUs", .initial = "0"},
    {"output", "FILE", RANDOM, AT(random.path), .help = "the file to write", .letter = 'o',
     .required = true},

    HEADING(SIM, "What is replayed:"),
    {"trace", "FILE", SIM, .read = read_trace,
     .help = "requests: Azure's CSV or Mooncake's JSON lines; may be repeated"},
    {"link", "FILE", SIM, .read = read_link,
     .help = "round-trip times over time: lines time_s,rtt_ms below a header line; may be repeated",
     .otherwise = "one round-trip time, that of --rtt"},
    {"rtt", "MS", SIM, AT(sim.rtt_ms), RANGE(0, 600000), .help = "round-trip time without --link",
     .initial = "50"},
    {"up", "KBIT", SIM, AT(sim.up_kbit), RANGE(0, 1e9), .help = "rate to the cloud; 0: unlimited",
     .initial = "10000"},
    {"down", "KBIT", SIM, AT(sim.down_kbit), RANGE(0, 1e9), .help = "rate from the cloud",
     .initial = "50000"},
    {"method", "LIST", SIM, AT(sim.plan.methods), .help = "methods, separated by commas",
     .otherwise = "all of --list"},
    {"goal", "GOAL", SIM, AT(sim.plan.run.goal), .help = "what plans aim at",
     .words = plan_goal_names, .initial = "even"},
    {"seed", "N", SIM, AT(sim.plan.run.seed), RANGE(0, UINT32_MAX),
     .help = "the same seed gives the same bytes", .initial = "1"},
    {"requests", "N", SIM, AT(sim.plan.run.requests), RANGE(1, UINT32_MAX),
     .help = "only this many of the trace", .otherwise = "all"},
    {"copies", "N", SIM, AT(sim.plan.run.copies), RANGE(1, RUN_COPIES_MAX),
     .help = "replay the trace N times at once, each copy from another place", .initial = "1"},
    {"speed", "X", SIM, AT(sim.plan.run.speed), RANGE(1e-3, 1e6),
     .help = "requests arrive X times as fast", .initial = "1"},
    HEADING(SIM, "The cloud:"),
    {"engine", "NAME", SIM, AT(sim.plan.engine), .help = "engine, one of --list",
     .initial = "h100"},
    {"engines", "N", SIM, AT(sim.plan.run.cloud.engines), RANGE(1, CLOUD_ENGINES_MAX),
     .help = "engines; with --decode-engines, those for prompts", .initial = "4"},
    {"decode-engines", "N", SIM, AT(sim.plan.run.cloud.decode_engines), RANGE(1, CLOUD_ENGINES_MAX),
     .help = "a pool of engines that only decode", .otherwise = "each engine does both"},
    {"slots", "N", SIM, AT(sim.plan.run.cloud.slots), RANGE(1, SCHED_ITEMS_MAX),
     .help = "answers at once on an engine", .otherwise = "the engine's"},
    {"queue", "N", SIM, AT(sim.plan.run.cloud.queue_max), RANGE(1, 1 << 16),
     .help = "requests that may wait for an engine", .initial = "1024"},
    HEADING(SIM, "The devices:"),
    {"mix", "SHARES", SIM, AT(sim.plan.mix),
     .help = "devices by share, as s26-gpu=2,pi5=1, or the name of a mix", .initial = "all"},
    {"devices", "N", SIM, AT(sim.plan.run.devices), RANGE(1, RUN_DEVICES_MAX),
     .help = "devices; more come when all of them answer", .initial = "200"},
    {"context", "N", SIM, AT(sim.plan.run.context), RANGE(64, 1 << 24),
     .help = "context of the devices in tokens; longer prompts are the cloud's",
     .initial = "32768"},
    {"tokens-max", "N", SIM, AT(sim.plan.run.answer_max), RANGE(1, TURN_ANSWER_MAX),
     .help = "longest answer in tokens", .initial = "2048"},
    {"fresh", NULL, SIM, AT(sim.plan.run.fresh),
     .help = "each answer by a device that knows nothing yet and asks for just the tokens of the "
             "trace, as bench/truth.py does"},
    {"ratio", "R", SIM, AT(sim.plan.run.ratio), RANGE(0.05, 1),
     .help = "part of the prompt that refinement keeps", .initial = "0.3"},
    HEADING(SIM, "What goes wrong:"),
    {"believed", "X", SIM, AT(sim.plan.run.faults.believed), RANGE(0.01, 100),
     .help = "devices believe in X times their speed, whatever they measure"},
    {"cuts", "PERCENT", SIM, AT(sim.cut_percent), RANGE(0, 100),
     .help = "answers whose connection is cut in its first five seconds"},
    {"cut-time", "S", SIM, AT(sim.cut_s), RANGE(0, 3600), .help = "how long a cut lasts",
     .initial = "10"},
    {"liars", "PERCENT", SIM, AT(sim.liar_percent), RANGE(0, 100),
     .help = "devices that ask for the whole answer, whatever they need"},
    {"heat", NULL, SIM, AT(sim.plan.run.faults.heat), .help = "devices slow down with work"},
    HEADING(SIM, "Output:"),
    {"report", "DIR", SIM, AT(sim.report),
     .help = "write the whole report to this folder: claims, all methods, regret, loads, faults, "
             "pictures. Takes minutes"},
    {"json", NULL, SIM, AT(sim.plan.json), .help = "one JSON object instead of tables"},
    {"list", NULL, SIM, AT(sim.list), .help = "name methods, engines and devices"},

    {"date", "DATE", MANUAL, AT(manual_date), .help = "the date that the pages bear",
     .initial = PDD_RELEASE_DATE},

    HEADING(CHAT | CLOUD | DEVICE | INSPECT | SIM, "Help:"),
    {"help", NULL, OPTIONS_ALL, AT(help), .help = "print this help"},
};
_Static_assert(sizeof rows / sizeof *rows <= OPTION_ROWS_MAX, "raise OPTION_ROWS_MAX");
enum { ROWS = sizeof rows / sizeof *rows };

int options_parse(const struct command *c, int argc, char **argv, struct options *o,
                  struct option_line *ret_line, int *ret_status)
{
    *o = (struct options){.fake_tokens = OPTIONS_NO_FAKE};
    o->chat.cloud_tokens = -1;
    o->chat.sampling = (struct sampling)SAMPLING_GREEDY;
    o->cloud.per_address = UINT32_MAX;
    study_plan_init(&o->sim.plan);
    http_server_config_default(&o->cloud.server.http);
    http_server_config_default(&o->device.server.http);
    return option_parse(rows, ROWS, c, argc, argv, o, ret_line, ret_status);
}

int options_refuse_idle(const struct command *c, const struct option_line *line, uint32_t here,
                        const char *why)
{
    return option_refuse_idle(rows, ROWS, c, line, here, why);
}

void options_help(const struct command *c, FILE *to)
{
    option_help(rows, ROWS, c, to);
}

const struct option_row *options_rows(size_t *ret_n)
{
    *ret_n = ROWS;
    return rows;
}
