/*
 * commands: the subcommands of `pdd`, one file each. Each parses its options (cli/options.h),
 * prints its output, and returns the exit status: 0 done, 1 failed, 2 used wrongly. All of
 * src/cli runs on the main thread, where a header says nothing else.
 */
#ifndef PDD_CLI_COMMANDS_H
#define PDD_CLI_COMMANDS_H

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

int cmd_bench(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_cloud(int argc, char **argv);
int cmd_device(int argc, char **argv);
int cmd_demo(int argc, char **argv);
int cmd_link(int argc, char **argv);
int cmd_model(int argc, char **argv);
int cmd_sim(int argc, char **argv);

/* Actions of a command with options of their own; argv[0] is the action's name. */
int cmd_bench_perplexity(int argc, char **argv); /* pdd bench perplexity, by lab/perplexity.h */
int cmd_bench_refine(int argc, char **argv);     /* pdd bench refine, by lab/refine.h */
int cmd_cloud_key(int argc, char **argv); /* pdd cloud key: a key and its line (cloud/api/keys.h) */
int model_random(int argc, char **argv);  /* pdd model random, by lab/random_file.h */

#endif
