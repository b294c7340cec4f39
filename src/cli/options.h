/*
 * options: readers of option values that several commands share. Each prints one sentence naming
 * the option on standard error and returns -1 when the value is not what it must be.
 */
#ifndef PDD_CLI_OPTIONS_H
#define PDD_CLI_OPTIONS_H

#include <getopt.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/emulated.h"

/* getopt_long, which says what is no option; where to read of those that are is said after it.
 * argv[0] is "pdd COMMAND". */
int option_next(int argc, char **argv, const char *letters, const struct option *options);
int option_u32(const char *command, const char *option, const char *value, uint32_t low,
               uint32_t high, uint32_t *ret_value);
int option_float(const char *command, const char *option, const char *value, float low, float high,
                 float *ret_value);
/* "HOST:PORT" with a numeric host, or ":PORT", or "PORT"; host gets 127.0.0.1 when none is given.
 */
int option_address(const char *command, const char *option, const char *value, char *host,
                   size_t host_size, uint16_t *ret_port);
/* The device profile of that name; the error of an unknown one names those there are, and is for
 * the caller to print. */
int option_profile(const char *name, const struct device_profile **ret_profile, struct err *e);

#endif
