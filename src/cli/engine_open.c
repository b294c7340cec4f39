/* engine_open: see engine_open.h. */
#include "cli/engine_open.h"

#include <stdio.h>

#include "cli/options.h"
#include "engine/emulated.h"
#include "engine/fake.h"

int engine_open(const struct native_options *native, bool fake, uint32_t fake_tokens,
                const char *profile, struct engine **ret_engine, struct err *e)
{
    struct engine *engine;
    struct fake_options options = {.answer_tokens = fake_tokens,
                                   .context_max = native->context_max};
    int code = fake ? fake_open(&options, &engine, e) : native_open(native, &engine, e);
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
