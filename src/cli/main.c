/* main: picks the subcommand. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/os.h"
#include "cli/commands.h"

static const struct {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"bench", "measure engines on this machine", cmd_bench},
    {"chat", "ask a model; the answer starts in the cloud and is finished here", cmd_chat},
    {"cloud", "serve a model to devices", cmd_cloud},
    {"demo", "one answer three ways, with a table and a picture", cmd_demo},
    {"device", "serve this device's own programs, by OpenAI's API", cmd_device},
    {"link", "forward TCP connections as a mobile link would", cmd_link},
    {"model", "inspect a model file, run its tokenizer, make one of random weights", cmd_model},
    {"sim", "replay recorded requests in virtual time, with other methods beside ours", cmd_sim},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *to)
{
    fprintf(to, "usage: pdd COMMAND [OPTION]...\n\n"
                "One LLM answer, started in the cloud and finished on the device.\n\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "\n`pdd COMMAND --help` lists the options of a command.\n");
}

static int run(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        usage(stdout);
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("pdd %s\n", PDD_VERSION);
        return EXIT_DONE;
    }
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    }
    fprintf(stderr, "pdd: no command \"%s\"; see pdd --help\n", argv[1]);
    return EXIT_USAGE;
}

/* What a command prints is what it is for: a full disk must not look like success. A command that
 * failed has said why. */
static int check_output(int status)
{
    errno = 0;
    if (status != EXIT_DONE || (fflush(stdout) == 0 && !ferror(stdout))) return status;
    fprintf(stderr, "pdd: standard output cannot be written%s%s\n", errno ? ": " : "",
            errno ? strerror(errno) : "");
    return EXIT_FAILED;
}

int main(int argc, char **argv)
{
    os_fill_streams();
    signal(SIGPIPE, SIG_IGN);
    return check_output(run(argc, argv));
}
