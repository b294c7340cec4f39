/* engine_open: see engine_open.h. */
#include "cli/engine_open.h"

#include <stdio.h>

#include "cli/options.h"
#include "engine/emulated.h"

static int open_fake(const struct native_options *native, const struct fake_options *fake,
                     struct engine **ret_engine, struct err *e)
{
    struct fake_options options = *fake;
    options.context_max = native->context_max;
    options.step_tokens_max = native->step_tokens_max;
    return fake_open(&options, ret_engine, e);
}

int engine_open(const struct native_options *native, const struct fake_options *fake,
                const char *profile, struct engine **ret_engine, struct err *e)
{
    struct engine *engine;
    int code = fake ? open_fake(native, fake, &engine, e) : native_open(native, &engine, e);
    if (code || !profile) {
        if (code == 0) *ret_engine = engine;
        return code;
    }
    const struct device_profile *found = NULL;
    code = option_profile(profile, &found, e);
    if (code == 0) code = emulated_open(engine, found, ret_engine, e);
    if (code) engine_free(engine);
    return code;
}

int option_kv_type(const char *command, const char *text, enum native_kv *ret_kv)
{
    struct err e = ERR_INIT;
    if (native_kv_of(text, ret_kv, &e) == 0) return 0;
    fprintf(stderr, "pdd %s: --kv-type: %s\n", command, e.text);
    return -1;
}
