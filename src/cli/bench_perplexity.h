/* bench_perplexity: `pdd bench perplexity`, the command; lab/perplexity.h measures. */
#ifndef PDD_CLI_BENCH_PERPLEXITY_H
#define PDD_CLI_BENCH_PERPLEXITY_H

/* argv[0] is "perplexity". Returns the exit status. */
int bench_perplexity(int argc, char **argv);

#endif
