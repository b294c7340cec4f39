/*
 * commands: the subcommands of `pdd`, one file each. Each parses its options (cli/options.h),
 * prints its output, and returns the exit status: 0 done, 1 failed, 2 used wrongly. All of
 * src/cli runs on the main thread, where a header says nothing else.
 */
#ifndef PDD_CLI_COMMANDS_H
#define PDD_CLI_COMMANDS_H

#include <stddef.h>

struct command; /* cli/option.h */

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

int cmd_bench(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_cloud(int argc, char **argv);
int cmd_device(int argc, char **argv);
int cmd_demo(int argc, char **argv);
int cmd_link(int argc, char **argv);
int cmd_manual(int argc, char **argv); /* cli/manual.h */
int cmd_model(int argc, char **argv);
int cmd_sim(int argc, char **argv);

/* Actions of a command with options of their own; argv[0] is the action's name. */
int cmd_bench_perplexity(int argc, char **argv); /* pdd bench perplexity, by lab/perplexity.h */
int cmd_bench_refine(int argc, char **argv);     /* pdd bench refine, by lab/refine.h */
int cmd_cloud_key(int argc, char **argv); /* pdd cloud key: a key and its line (cloud/api/keys.h) */
int model_random(int argc, char **argv);  /* pdd model random, by lab/random_file.h */
int model_pull(int argc, char **argv);    /* pdd model pull, by hub/pull.h */
int model_list(int argc, char **argv);    /* pdd model list and rm, by hub/library.h */
int model_rm(int argc, char **argv);

/* What each takes on its command line. */
extern const struct command command_bench, command_bench_perplexity, command_bench_refine;
extern const struct command command_chat, command_cloud, command_cloud_key, command_demo;
extern const struct command command_device, command_link, command_manual, command_sim;
extern const struct command command_model_inspect, command_model_tokenize;
extern const struct command command_model_detokenize, command_model_random;
extern const struct command command_model_pull, command_model_list, command_model_rm;

/* Every command and every action, in the order of the help. */
struct command_entry {
    const char *name;                  /* after "pdd " */
    const char *summary;               /* NULL: an action that the page of its command tells of */
    int (*run)(int argc, char **argv); /* NULL: an action, which its command runs */
    const struct command *command;     /* whose help is the entry's page */
};

extern const struct command_entry command_entries[];
extern const size_t command_entries_n;

#endif
