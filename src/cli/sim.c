/*
 * sim: `pdd sim`, the simulator: replays recorded requests with P/D-Device and with what it is
 * compared with. The work is in sim/study.h; here are options, progress and output.
 */
#include <stdio.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "sim/study.h"

const struct command command_sim = {
    .name = "sim",
    .bit = OPTIONS_SIM,
    .usage = "usage: pdd sim --trace FILE [--link FILE] [OPTION]...\n"
             "       pdd sim --report DIR --trace FILE... --link FILE...\n"
             "       pdd sim --list\n"
             "Replay recorded requests in virtual time: P/D-Device beside other methods.\n\n"};

/* On a terminal one line that moves; else a line now and then is enough. */
static void say(void *arg, const char *what, uint64_t done, uint64_t of)
{
    bool *any = arg;
    if (!isatty(STDERR_FILENO)) return;
    fprintf(stderr, "\r%-22s %3.0f %%", what, 100.0 * (double)done / (double)of);
    fflush(stderr);
    *any = true;
}

static int run(const struct options *o, const struct study_plan *p, struct err *e)
{
    struct study *s = NULL;
    struct buf out;
    buf_init(&out, STUDY_TEXT_MAX);
    int code = study_open(p, &s, e);
    if (code == 0)
        code = o->sim.report ? study_report(s, o->sim.report, e) : study_compare(s, &out, e);
    if (code == 0) fwrite(out.data, 1, out.len, stdout);
    study_close(s);
    buf_release(&out);
    return code;
}

static void list(void)
{
    struct buf out;
    buf_init(&out, STUDY_TEXT_MAX);
    study_list(&out);
    fwrite(out.data, 1, out.len, stdout);
    buf_release(&out);
}

int cmd_sim(int argc, char **argv)
{
    struct options o;
    struct option_line line;
    struct err e = ERR_INIT;
    bool told = false;
    int status;
    if (options_parse(&command_sim, argc, argv, &o, &line, &status)) return status;
    if (o.sim.list) {
        list();
        return EXIT_DONE;
    }
    if (o.sim.plan.n_traces == 0) {
        fprintf(stderr, "pdd sim: --trace FILE is needed; see pdd sim --help\n");
        return EXIT_USAGE;
    }
    struct study_plan *p = &o.sim.plan;
    p->run.rtt_us = o.sim.rtt_ms * 1e3;
    p->run.up_bytes_s = o.sim.up_kbit * 125.0;
    p->run.down_bytes_s = o.sim.down_kbit * 125.0;
    p->run.faults.cut_within_s = 5.0;
    p->run.faults.cut_s = o.sim.cut_s;
    p->run.faults.cut_share = o.sim.cut_percent / 100.0;
    p->run.faults.liars = o.sim.liar_percent / 100.0;
    p->say = say;
    p->say_arg = &told;
    int code = run(&o, p, &e);
    if (told) fprintf(stderr, "\r%40s\r", "");
    if (code) fprintf(stderr, "pdd sim: %s\n", e.text);
    return code ? EXIT_FAILED : EXIT_DONE;
}
