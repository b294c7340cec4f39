/* options: see options.h. */
#include "cli/options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

enum { NAMES_BYTES_MAX = 4096 };

int option_next(int argc, char **argv, const char *letters, const struct option *options)
{
    int option = getopt_long(argc, argv, letters, options, NULL);
    if (option == '?') fprintf(stderr, "see %s --help\n", argv[0]);
    return option;
}

int option_u32(const char *command, const char *option, const char *value, uint32_t low,
               uint32_t high, uint32_t *ret_value)
{
    char *end;
    errno = 0;
    long long v = strtoll(value, &end, 10);
    if (end == value || *end || errno || v < (long long)low || v > (long long)high) {
        fprintf(stderr, "pdd %s: --%s is \"%s\": a whole number from %u to %u is needed\n", command,
                option, value, low, high);
        return -1;
    }
    *ret_value = (uint32_t)v;
    return 0;
}

int option_float(const char *command, const char *option, const char *value, float low, float high,
                 float *ret_value)
{
    char *end;
    float v = strtof(value, &end);
    if (end == value || *end || !(v >= low && v <= high)) {
        fprintf(stderr, "pdd %s: --%s is \"%s\": a number from %g to %g is needed\n", command,
                option, value, (double)low, (double)high);
        return -1;
    }
    *ret_value = v;
    return 0;
}

int option_address(const char *command, const char *option, const char *value, char *host,
                   size_t host_size, uint16_t *ret_port)
{
    const char *colon = strrchr(value, ':'), *port = colon ? colon + 1 : value;
    size_t n = colon ? (size_t)(colon - value) : 0;
    char *end;
    errno = 0;
    long v = strtol(port, &end, 10);
    if (end == port || *end || errno || v < 0 || v > 65535 || n >= host_size) {
        fprintf(stderr, "pdd %s: --%s is \"%s\": HOST:PORT is needed, as 127.0.0.1:8080\n", command,
                option, value);
        return -1;
    }
    if (n == 0)
        snprintf(host, host_size, "127.0.0.1");
    else
        snprintf(host, host_size, "%.*s", (int)n, value);
    *ret_port = (uint16_t)v;
    return 0;
}

int option_profile(const char *name, const struct device_profile **ret_profile, struct err *e)
{
    struct buf names;
    const struct device_profile *profile = device_profile_find(name);
    if (profile) {
        *ret_profile = profile;
        return 0;
    }
    buf_init(&names, NAMES_BYTES_MAX);
    for (uint32_t i = 0; device_profile_at(i); i++)
        if (buf_printf(&names, "%s%s", i ? ", " : "", device_profile_at(i)->name)) break;
    err_set(e, ERR_NOT_FOUND, "no device profile \"%s\"; there are %s", name, names.data);
    buf_release(&names);
    return ERR_NOT_FOUND;
}
