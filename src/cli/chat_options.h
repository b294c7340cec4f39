/*
 * chat_options: the command line of `pdd chat`.
 */
#ifndef PDD_CLI_CHAT_OPTIONS_H
#define PDD_CLI_CHAT_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/sampling.h"
#include "device/device.h"
#include "engine/native.h"

enum chat_color { CHAT_COLOR_AUTO, CHAT_COLOR_ALWAYS, CHAT_COLOR_NEVER };

struct chat_options {
    struct native_options native;
    const char *cloud_url, *key_file, *ca_file, *cloud_model, *profile;
    const char *system, *prompt, *prompt_file, *stats_json;
    enum device_mode mode;
    enum pace_mode pace;
    enum chat_color color;
    struct sampling sampling;
    int64_t cloud_tokens; /* -1: as planned */
    uint32_t tokens_max, fake_tokens;
    bool fake, no_model, raw, stats;
};

/* 0: go on; otherwise leave with *ret_status, all is said. */
int chat_options_parse(int argc, char **argv, struct chat_options *ret_options, int *ret_status);

#endif
