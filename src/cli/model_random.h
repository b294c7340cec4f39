/* model_random: `pdd model random`, which writes a file of random weights (lab/random_file.h). */
#ifndef PDD_CLI_MODEL_RANDOM_H
#define PDD_CLI_MODEL_RANDOM_H

/* The command; argv[0] is the program's name. Returns the exit status. */
int model_random(int argc, char **argv);

#endif
