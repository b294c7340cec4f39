/* link: `pdd link`, a TCP proxy that behaves like a mobile link. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "lab/relay.h"
#include "net/loop.h"

enum { HOST_MAX = 64 };

static const char help[] =
    "usage: pdd link --to HOST:PORT [OPTION]...\n"
    "Pass TCP connections on, as a mobile link would.\n\n"
    "  --to HOST:PORT       where to\n"
    "  --listen HOST:PORT   where from (127.0.0.1, a free port, which is printed)\n"
    "  --rtt MS             round-trip time (50); half of it delays each direction\n"
    "  --trace FILE         round-trip times over time: time_s,rtt_ms with a head line\n"
    "  --rate KBIT          kbit/s of each direction of a connection (unlimited)\n"
    "  --cut-bytes N        cut a connection after N bytes of its answer\n"
    "  --cut-events N       cut a connection after N server-sent events\n"
    "  --cut-at SECONDS     cut all connections once, that long after the start\n"
    "  --cut-times N        cut only the first N connections (all)\n"
    "  --cut-how HOW        reset (default), close or stall\n";

enum {
    O_TO = 256,
    O_LISTEN,
    O_RTT,
    O_TRACE,
    O_RATE,
    O_BYTES,
    O_EVENTS,
    O_AT,
    O_TIMES,
    O_HOW,
    O_HELP
};

static const struct option long_options[] = {
    {"to", required_argument, NULL, O_TO},
    {"listen", required_argument, NULL, O_LISTEN},
    {"rtt", required_argument, NULL, O_RTT},
    {"trace", required_argument, NULL, O_TRACE},
    {"rate", required_argument, NULL, O_RATE},
    {"cut-bytes", required_argument, NULL, O_BYTES},
    {"cut-events", required_argument, NULL, O_EVENTS},
    {"cut-at", required_argument, NULL, O_AT},
    {"cut-times", required_argument, NULL, O_TIMES},
    {"cut-how", required_argument, NULL, O_HOW},
    {"help", no_argument, NULL, O_HELP},
    {NULL, 0, NULL, 0},
};

struct options {
    struct relay_config relay;
    char listen_host[HOST_MAX], to_host[HOST_MAX];
    const char *trace;
};

static int set_how(struct options *o)
{
    static const char *const names[] = {"reset", "close", "stall"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(optarg, names[i]) == 0) {
            o->relay.how = (enum relay_cut)i;
            return 0;
        }
    }
    fprintf(stderr, "pdd link: --cut-how is \"%s\": reset, close or stall is needed\n", optarg);
    return -1;
}

static int set_double(const char *name, float high, double *ret_value)
{
    float v = 0.0f;
    int bad = option_float("link", name, optarg, 0.0f, high, &v);
    *ret_value = (double)v;
    return bad;
}

static int set_option(struct options *o, int option)
{
    uint32_t n = 0;
    int bad = 0;
    switch (option) {
    case O_TO:
        return option_address("link", "to", optarg, o->to_host, HOST_MAX, &o->relay.to_port);
    case O_LISTEN:
        return option_address("link", "listen", optarg, o->listen_host, HOST_MAX,
                              &o->relay.listen_port);
    case O_RTT:
        return set_double("rtt", 600000.0f, &o->relay.rtt_ms);
    case O_TRACE:
        o->trace = optarg;
        return 0;
    case O_RATE:
        return set_double("rate", 1e9f, &o->relay.rate_kbit);
    case O_BYTES:
        bad = option_u32("link", "cut-bytes", optarg, 1, UINT32_MAX, &n);
        o->relay.cut_bytes = n;
        return bad;
    case O_EVENTS:
        return option_u32("link", "cut-events", optarg, 1, UINT32_MAX, &o->relay.cut_events);
    case O_AT:
        return set_double("cut-at", 1e6f, &o->relay.cut_at_s);
    case O_TIMES:
        return option_u32("link", "cut-times", optarg, 1, UINT32_MAX, &o->relay.cut_times);
    case O_HOW:
        return set_how(o);
    default:
        return -1;
    }
}

static void asked_to_stop(void *arg)
{
    loop_stop(arg);
}

static int run_loop(struct loop *l, const struct options *o, struct err *e)
{
    struct relay *relay = NULL;
    struct loop_signal *term = NULL, *interrupt = NULL;
    int code = relay_new(l, &o->relay, &relay, e);
    if (code == 0) code = loop_signal_new(l, SIGTERM, asked_to_stop, l, &term, e);
    if (code == 0) code = loop_signal_new(l, SIGINT, asked_to_stop, l, &interrupt, e);
    if (code == 0) {
        printf("link listening on http://%s:%u\n", o->listen_host, relay_port(relay));
        fflush(stdout);
        code = loop_run(l, e);
    }
    loop_signal_free(term);
    loop_signal_free(interrupt);
    relay_free(relay);
    return code;
}

static int run(struct options *o, struct err *e)
{
    struct loop *l = NULL;
    int code = o->trace ? relay_trace_open(o->trace, &o->relay.trace, e) : 0;
    if (code == 0) code = loop_new(&l, e);
    if (code == 0) code = run_loop(l, o, e);
    loop_free(l);
    relay_trace_release(&o->relay.trace);
    return code;
}

int cmd_link(int argc, char **argv)
{
    struct options o = {.relay = {.rtt_ms = 50.0}, .listen_host = "127.0.0.1"};
    struct err e = ERR_INIT;
    int option;
    o.relay.listen_host = o.listen_host;
    o.relay.to_host = o.to_host;
    while ((option = option_next(argc, argv, "", long_options)) != -1) {
        if (option == O_HELP) {
            fputs(help, stdout);
            return EXIT_DONE;
        }
        if (set_option(&o, option)) return EXIT_USAGE;
    }
    if (!o.to_host[0] || optind < argc) {
        fprintf(stderr,
                "pdd link: --to HOST:PORT is needed, and nothing but options; see --help\n");
        return EXIT_USAGE;
    }
    if (run(&o, &e)) {
        fprintf(stderr, "pdd link: %s\n", e.text);
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}
