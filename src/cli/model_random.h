/*
 * model_random: `pdd model random`: a GGUF file of random weights in the shape of a real model, for
 * measuring speed and loading. What such a model says is noise; how long it takes is real.
 */
#ifndef PDD_CLI_MODEL_RANDOM_H
#define PDD_CLI_MODEL_RANDOM_H

/* The command; argv[0] is the program's name. Returns the exit status. */
int model_random(int argc, char **argv);

#endif
