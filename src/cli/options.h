/*
 * options: the options of all subcommands: their values, and the table that says how each is read,
 * stored and explained (options.c). A new option is a row there, a field here, and what it does.
 * cli/option.h has the machine that reads a command line by the table. No threads.
 */
#ifndef PDD_CLI_OPTIONS_H
#define PDD_CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "base/sampling.h"
#include "cli/option.h"
#include "cloud/api/server.h"
#include "device/api/serve.h"
#include "device/device.h"
#include "engine/emulated.h"
#include "engine/native.h"
#include "lab/bench_run.h"
#include "lab/perplexity.h"
#include "lab/random_file.h"
#include "lab/refine.h"
#include "lab/relay.h"
#include "proto/model_names.h"
#include "sim/study.h"

enum { OPTIONS_NO_FAKE = UINT32_MAX }; /* fake_tokens: no fake engine is asked for */

enum idle_fill { IDLE_FILL_MAINS, IDLE_FILL_ON, IDLE_FILL_OFF };
enum chat_color { CHAT_COLOR_AUTO, CHAT_COLOR_ALWAYS, CHAT_COLOR_NEVER };

struct chat_options {
    const char *cloud_url, *key_file, *ca_file, *cloud_model;
    const char *document, *system, *prompt, *stats_json, *state;
    enum pace_mode pace;
    enum plan_goal goal;
    uint32_t first_ms, gap_ms, cloud_tokens_max; /* 0: as the goal has it */
    enum idle_fill idle_fill;
    enum chat_color color;
    struct sampling sampling; /* its temperature: demo, too */
    int64_t cloud_tokens;     /* -1: as planned */
    enum device_verify verify;
    enum device_refine refine;
    float refine_ratio;
    bool local_only, cloud_only, no_model, raw, stats, no_state, no_history;
};

enum { OPTIONS_ORIGINS_MAX = 16 };

struct cloud_options {
    struct server_config server;
    uint32_t upstream_s, cache_percent, step_ms, fake_beat_us;
    uint32_t per_address;   /* UINT32_MAX: not given */
    size_t n_certs, n_keys; /* of server.tls */
    struct http_network proxies[HTTP_PROXIES_MAX];
    size_t n_proxies;
    struct option_address metrics; /* host "": none */
    const char *origins[OPTIONS_ORIGINS_MAX];
    uint32_t n_origins;
};

struct device_server_options {
    struct serve_config server;
    const char *token_file, *state_dir;
    bool no_state;
    uint32_t kv_disk_mb;
};

/* `pdd cloud key`: values as they go into the key's line; NULL: no limit. */
struct key_options {
    const char *requests, *tokens, *streams, *priority;
    bool hash;
};

struct model_options {
    const char *text, *text_file, *render;
    bool json, no_hash, no_special, ids_only, names_only;
};

struct model_pull_options {
    const char *as, *sha256, *token_file, *ca_file;
    uint32_t retries;
    bool quiet, files;
};

struct sim_options {
    struct study_plan plan;
    const char *report; /* a folder */
    double rtt_ms, up_kbit, down_kbit, cut_percent, cut_s, liar_percent;
    bool list;
};

struct options {
    bool help;
    struct native_options native; /* chat, cloud, demo, all of bench */
    const char *profile;          /* chat, cloud, demo: of a device, or NULL */
    const char *prompt_file;      /* chat */
    struct option_address listen; /* cloud, link */
    uint32_t tokens_max;          /* chat, demo: of an answer */
    uint32_t fake_tokens;         /* chat, cloud */
    uint32_t kv_mb, drain_s;      /* cloud, device */
    enum log_level log_level;     /* cloud, device, as the next */
    bool log_json;
    uint32_t seed;             /* demo */
    uint32_t rtt_ms;           /* demo */
    const char *task;          /* demo */
    const char *cloud_profile; /* demo */
    const char *out;           /* demo */
    struct model_names names;  /* cloud, device */
    struct option_address to;  /* link */
    const char *trace;         /* link */
    struct chat_options chat;
    struct cloud_options cloud;
    struct device_server_options device;
    struct key_options key;
    struct model_options model;
    struct model_pull_options pull;
    struct relay_config link;
    struct bench_plan bench;
    bool bench_load_child;
    struct perplexity_plan perplexity;
    struct refine_plan refine;
    struct random_file random;
    struct sim_options sim;
    const char *manual_date;
};

/* Bits of option_row.commands. */
enum {
    OPTIONS_BENCH = 1 << 0,
    OPTIONS_CHAT = 1 << 1,
    OPTIONS_CLOUD = 1 << 2,
    OPTIONS_KEY = 1 << 3,
    OPTIONS_DEMO = 1 << 4,
    OPTIONS_LINK = 1 << 5,
    OPTIONS_INSPECT = 1 << 6,
    OPTIONS_TOKENIZE = 1 << 7,
    OPTIONS_DETOKENIZE = 1 << 8,
    OPTIONS_RANDOM = 1 << 9,
    OPTIONS_PERPLEXITY = 1 << 10,
    OPTIONS_REFINE = 1 << 11,
    OPTIONS_DEVICE = 1 << 12,
    OPTIONS_SIM = 1 << 13,
    OPTIONS_MANUAL = 1 << 14,
    OPTIONS_PULL = 1 << 15,
    OPTIONS_LIST = 1 << 16,
    OPTIONS_RM = 1 << 17,
    OPTIONS_ALL = (1 << 18) - 1
};

/* Bits of option_row.only. */
enum { OPTIONS_WITH_ENGINE = 1, OPTIONS_WITH_UPSTREAM = 2 };

/* option_parse with the table: *o is defaults, and what is given. */
int options_parse(const struct command *c, int argc, char **argv, struct options *o,
                  struct option_line *ret_line, int *ret_status);
int options_refuse_idle(const struct command *c, const struct option_line *line, uint32_t here,
                        const char *why);
void options_help(const struct command *c, FILE *to);
const struct option_row *options_rows(size_t *ret_n); /* the table */

#endif
