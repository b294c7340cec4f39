/* device: `pdd device`, the server for the programs of this machine. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/engine_open.h"
#include "cli/model_file.h"
#include "cli/options.h"
#include "cli/service.h"
#include "device/api/record.h"
#include "net/http_url.h"
#include "net/key_file.h"
#include "proto/wire.h"
#include "store/store.h"

enum { KEY_MAX = 4096, CONNECTIONS_MAX = 256 };

const struct command command_device = {
    .name = "device",
    .bit = OPTIONS_DEVICE,
    .usage = "usage: pdd device [--cloud URL] [OPTION]...\n"
             "Serve the programs of this device by the OpenAI API (docs/DEVICE.md). With --cloud\n"
             "an answer starts there and is finished here.\n"};

struct device_command {
    struct options o;
    struct loop *loop;
    struct serve *serve;
    struct buf key, token;
    char model_path[MODEL_FILE_PATH_MAX];
    char state_dir[STORE_PATH_MAX];
    char asked[WIRE_ID_MAX]; /* of which the terminal was asked last; "": none */
    struct loop_wake *said;  /* the terminal's word has come */
    atomic_int word;         /* 1: yes, -1: no, 0: none */
    int signals;
};

static bool is_fake(const struct options *o)
{
    return o->fake_tokens != OPTIONS_NO_FAKE;
}

static int check_options(const struct options *o)
{
    const struct chat_options *c = &o->chat;
    const char *wrong = NULL;
    if (c->local_only && c->cloud_url)
        wrong = "--local-only and --cloud exclude each other";
    else if (c->no_model && (o->native.model_path || is_fake(o)))
        wrong = "--no-model and --model exclude each other";
    else if (c->no_model && !c->cloud_url)
        wrong = "--no-model needs --cloud URL";
    else if (o->device.server.ask_before_sending && !c->cloud_url)
        wrong = "--ask-before-sending needs --cloud URL: nothing is sent without one";
    else if (o->device.state_dir && o->device.no_state)
        wrong = "--state and --no-state exclude each other";
    if (!wrong) return 0;
    fprintf(stderr, "pdd device: %s\n", wrong);
    return -1;
}

static void stopped(void *arg)
{
    struct device_command *c = arg;
    loop_stop(c->loop);
}

/* The first signal drains, the second leaves at once. */
static void asked_to_stop(void *arg)
{
    struct device_command *c = arg;
    if (c->signals++ > 0) {
        loop_stop(c->loop);
        return;
    }
    service_notify("STOPPING=1");
    serve_drain(c->serve, c->o.drain_s * 1000000ull, stopped, c);
}

static int open_engine(struct device_command *c, struct engine **ret_engine, struct err *e)
{
    struct options *o = &c->o;
    struct fake_options fake = {.answer_tokens = o->fake_tokens};
    int code = 0;
    *ret_engine = NULL;
    if (o->chat.no_model) return 0;
    if (!is_fake(o)) code = model_file_default(&o->native.model_path, c->model_path, e);
    if (code) return code;
    return engine_open(&o->native, is_fake(o) ? &fake : NULL, o->profile, ret_engine, e);
}

static int read_secrets(struct device_command *c, struct err *e)
{
    struct options *o = &c->o;
    int code = o->chat.key_file ? key_file_read(o->chat.key_file, &c->key, e) : 0;
    if (!code && o->device.token_file) code = key_file_read(o->device.token_file, &c->token, e);
    return code;
}

static int find_state(struct device_command *c, struct err *e)
{
    struct device_server_options *d = &c->o.device;
    if (d->no_state || d->state_dir) return 0;
    d->state_dir = c->state_dir;
    return store_default_dir(c->state_dir, sizeof c->state_dir, e);
}

/* ---- the user's word on what is sent, in the terminal ---- */

/* One question at a time, so that a word is on the one that was named. */
static void ask_terminal(struct device_command *c)
{
    const char *id = serve_held(c->serve);
    if (id && strcmp(id, c->asked) == 0) return;
    snprintf(c->asked, sizeof c->asked, "%s", id ? id : "");
    if (id)
        fprintf(stderr, "pdd device: send the question of %s to %s? (y/n) ", id,
                c->o.chat.cloud_url);
}

static void on_held(void *arg, const char *id)
{
    (void)id;
    ask_terminal(arg);
}

static void word_said(void *arg)
{
    struct device_command *c = arg;
    int word = atomic_exchange(&c->word, 0);
    if (!word) return;
    if (!serve_allow(c->serve, c->asked, word > 0))
        fprintf(stderr, "pdd device: %s%s\n",
                c->asked[0] ? "it waits no more: " : "no question waits to be sent", c->asked);
    ask_terminal(c);
}

/* It waits in read(2) until the program ends. */
static void *read_words(void *arg)
{
    struct device_command *c = arg;
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        if (line[0] != 'y' && line[0] != 'n') continue;
        atomic_store(&c->word, line[0] == 'y' ? 1 : -1);
        loop_wake_signal(c->said);
    }
    return NULL;
}

static int listen_to_terminal(struct device_command *c, struct err *e)
{
    pthread_t thread;
    if (!c->o.device.server.ask_before_sending || !isatty(STDIN_FILENO)) return 0;
    int code = loop_wake_new(c->loop, word_said, c, &c->said, e);
    if (code) return code;
    if (pthread_create(&thread, NULL, read_words, c))
        return err_set(e, ERR_NO_MEMORY, "a thread cannot be started");
    pthread_detach(thread);
    return 0;
}

static void fill_config(struct device_command *c, struct engine *engine)
{
    const struct options *o = &c->o;
    struct serve_config *s = &c->o.device.server;
    s->names = c->o.names;
    const struct device_profile *profile = o->profile ? device_profile_find(o->profile) : NULL;
    s->device = (struct device_options){.engine = engine,
                                        .cloud_url = o->chat.cloud_url,
                                        .key = c->key.len ? c->key.data : NULL,
                                        .ca_file = o->chat.ca_file,
                                        .model = o->chat.cloud_model,
                                        .idle_fill = o->chat.idle_fill != IDLE_FILL_OFF,
                                        .fill_always = o->chat.idle_fill == IDLE_FILL_ON};
    s->refine = o->chat.refine;
    s->refine_ratio = o->chat.refine_ratio;
    if (profile) {
        s->device.prefill_tps = profile->prefill_tps;
        s->device.decode_us = 1e6 / profile->decode_tps;
    }
    s->state_dir = o->device.no_state ? NULL : o->device.state_dir;
    s->kv_disk_bytes = (uint64_t)o->device.kv_disk_mb << 20;
    s->on_held = isatty(STDIN_FILENO) ? on_held : NULL;
    s->on_held_arg = c;
    s->token = c->token.len ? c->token.data : NULL;
    s->http.error_body = wire_error_body;
    s->http.address = o->listen.host;
    s->http.port = o->listen.port;
    s->http.connections_max = CONNECTIONS_MAX;
    if (engine) s->http.body_max = wire_body_max(engine_info(engine)->context_max);
    if (s->http.body_max < RECORD_CONVERSATION_BYTES) /* a conversation outgrows the context */
        s->http.body_max = RECORD_CONVERSATION_BYTES;
}

/* What is easily forgotten, and what it means. */
static void warn_exposed(const struct options *o)
{
    const char *url = o->chat.cloud_url;
    if (url && http_url_exposes(url))
        log_line(LOG_WARN, "device", "prompts%s travel to %s unencrypted: give an https URL",
                 o->chat.key_file ? " and the key" : "", url);
    if (option_address_local(&o->listen)) return;
    log_line(LOG_WARN, "device",
             "%s can be reached from other machines%s: prompts and answers "
             "travel there unencrypted",
             o->listen.host,
             o->device.token_file ? "" : ", and no token is asked for (--token-file)");
}

static void say_hello(const struct device_command *c)
{
    const struct options *o = &c->o;
    char where[OPTION_HOST_MAX + 16];
    option_address_text(&o->listen, serve_port(c->serve), where);
    printf("device listening on http://%s\n", where);
    if (o->chat.cloud_url)
        printf("cloud: %s%s\n", o->chat.cloud_url,
               o->device.server.ask_before_sending ? ", asked before anything is sent" : "");
    else
        printf("local only: nothing leaves this machine\n");
    if (o->device.server.ask_before_sending)
        printf("to say yes in the page, open it as http://%s/#allow=%s\n", where,
               serve_approval(c->serve));
    fflush(stdout);
}

static int serve(struct device_command *c, struct err *e)
{
    struct loop_signal *term = NULL, *interrupt = NULL;
    struct engine *engine;
    int code = find_state(c, e);
    if (!code) code = open_engine(c, &engine, e);
    if (code) return code;
    fill_config(c, engine);
    code = serve_new(c->loop, &c->o.device.server, &c->serve, e);
    if (code) {
        engine_free(engine);
        return code;
    }
    code = loop_signal_new(c->loop, SIGTERM, asked_to_stop, c, &term, e);
    if (!code) code = loop_signal_new(c->loop, SIGINT, asked_to_stop, c, &interrupt, e);
    if (!code) code = listen_to_terminal(c, e);
    if (!code) {
        say_hello(c);
        if (c->o.device.server.on_held) ask_terminal(c); /* what an earlier run left */
        service_notify("READY=1");
        code = loop_run(c->loop, e);
    }
    loop_signal_free(term);
    loop_signal_free(interrupt);
    serve_free(c->serve);
    /* c->said stays: the thread that reads the terminal may signal it until the process ends */
    return code;
}

static int run(struct device_command *c)
{
    struct err e = ERR_INIT;
    buf_init(&c->key, KEY_MAX);
    buf_init(&c->token, KEY_MAX);
    int code = read_secrets(c, &e);
    if (!code) code = loop_new(&c->loop, &e);
    if (!code) code = serve(c, &e);
    loop_free(c->loop);
    buf_release(&c->key);
    buf_release(&c->token);
    if (!code) return EXIT_DONE;
    fprintf(stderr, "pdd device: %s\n", e.text);
    return EXIT_FAILED;
}

int cmd_device(int argc, char **argv)
{
    static struct device_command c;
    struct option_line line;
    int status;
    if (options_parse(&command_device, argc, argv, &c.o, &line, &status)) return status;
    if (check_options(&c.o)) return EXIT_USAGE;
    log_set_level(c.o.log_level);
    log_set_json(c.o.log_json);
    c.o.native.kv_bytes_max = (uint64_t)c.o.kv_mb << 20;
    warn_exposed(&c.o);
    return run(&c);
}
