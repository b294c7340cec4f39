/* main: picks the subcommand. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "cli/commands.h"

static void usage(FILE *to)
{
    fprintf(to, "usage: pdd COMMAND [OPTION]...\n\n"
                "One LLM answer, started in the cloud and finished on the device.\n\n");
    for (size_t i = 0; i < command_entries_n; i++)
        if (command_entries[i].run)
            fprintf(to, "  %-8s %s\n", command_entries[i].name, command_entries[i].summary);
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
    for (size_t i = 0; i < command_entries_n; i++) {
        const struct command_entry *c = &command_entries[i];
        if (c->run && strcmp(argv[1], c->name) == 0) return c->run(argc - 1, argv + 1);
    }
    fprintf(stderr, "pdd: no command \"%s\"; see pdd --help\n", argv[1]);
    return EXIT_USAGE;
}

/* Whether standard output is a pipe that nobody reads any more. */
static bool output_is_unread(void)
{
    struct pollfd p = {STDOUT_FILENO, POLLOUT, 0};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLERR);
}

/* What a command prints is what it is for: a full disk must not look like success. A reader that
 * has enough (`| head`) ends it as it ends any program. A command that failed has said why. */
static int check_output(int status)
{
    errno = 0;
    if (status != EXIT_DONE || (fflush(stdout) == 0 && !ferror(stdout))) return status;
    int why = errno;
    if (output_is_unread()) {
        signal(SIGPIPE, SIG_DFL);
        raise(SIGPIPE);
    }
    fprintf(stderr, "pdd: standard output cannot be written%s%s\n", why ? ": " : "",
            why ? strerror(why) : "");
    return EXIT_FAILED;
}

int main(int argc, char **argv)
{
    os_fill_streams();
    signal(SIGPIPE, SIG_IGN);
    return check_output(run(argc, argv));
}
