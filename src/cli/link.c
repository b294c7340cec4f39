/* link: `pdd link`, a TCP proxy that behaves like a mobile link. */
#include <signal.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "lab/relay.h"
#include "net/loop.h"

const struct command command_link = {.name = "link",
                                     .bit = OPTIONS_LINK,
                                     .usage =
                                         "usage: pdd link --to HOST:PORT [OPTION]...\n"
                                         "Forward TCP connections as a mobile link would.\n\n"};

static void asked_to_stop(void *arg)
{
    loop_stop(arg);
}

static int run_loop(struct loop *l, const struct options *o, struct err *e)
{
    char where[OPTION_HOST_MAX + 16];
    struct relay *relay = NULL;
    struct loop_signal *term = NULL, *interrupt = NULL;
    int code = relay_new(l, &o->link, &relay, e);
    if (code == 0) code = loop_signal_new(l, SIGTERM, asked_to_stop, l, &term, e);
    if (code == 0) code = loop_signal_new(l, SIGINT, asked_to_stop, l, &interrupt, e);
    if (code == 0) {
        option_address_text(&o->listen, relay_port(relay), where);
        printf("link listening on http://%s\n", where);
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
    int code = o->trace ? rtt_trace_open(o->trace, &o->link.trace, e) : 0;
    if (code == 0) code = loop_new(&l, e);
    if (code == 0) code = run_loop(l, o, e);
    loop_free(l);
    rtt_trace_release(&o->link.trace);
    return code;
}

int cmd_link(int argc, char **argv)
{
    struct options o;
    struct option_line line;
    struct err e = ERR_INIT;
    int status;
    if (options_parse(&command_link, argc, argv, &o, &line, &status)) return status;
    o.link.listen_host = o.listen.host;
    o.link.listen_port = o.listen.port;
    o.link.to_host = o.to.host;
    o.link.to_port = o.to.port;
    if (run(&o, &e)) {
        fprintf(stderr, "pdd link: %s\n", e.text);
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}
