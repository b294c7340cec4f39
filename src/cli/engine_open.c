/* engine_open: see engine_open.h. */
#include "cli/engine_open.h"

#include <stdio.h>

#include "base/log.h"
#include "cli/options.h"
#include "engine/emulated.h"
#include "kern/kern.h"

static int open_fake(const struct native_options *native, const struct fake_options *fake,
                     struct engine **ret_engine, struct err *e)
{
    struct fake_options options = *fake;
    options.context_max = native->context_max;
    options.step_tokens_max = native->step_tokens_max;
    return fake_open(&options, ret_engine, e);
}

/* It is computed all the same: rotary positions go on. */
static void warn_long_context(const struct engine_info *info)
{
    if (info->context_trained == 0 || info->context_max <= info->context_trained) return;
    log_line(LOG_WARN, "engine",
             "context %u is longer than the %u positions that %s was trained for: what comes after "
             "them may be nonsense",
             info->context_max, info->context_trained, info->model_name);
}

int engine_open(const struct native_options *native, const struct fake_options *fake,
                const char *profile, struct engine **ret_engine, struct err *e)
{
    struct engine *engine;
    int code = fake ? open_fake(native, fake, &engine, e) : native_open(native, &engine, e);
    if (code) return code;
    warn_long_context(engine_info(engine));
    if (!profile) {
        *ret_engine = engine;
        return 0;
    }
    const struct device_profile *found = NULL;
    code = option_profile(profile, &found, e);
    if (code == 0) code = emulated_open(engine, found, ret_engine, e);
    if (code) engine_free(engine);
    return code;
}

int option_isa(const char *command, const char *text, const char **ret_isa)
{
    const struct kern *kern;
    struct err e = ERR_INIT;
    if (kern_select(text, &kern, &e) == 0) {
        *ret_isa = text;
        return 0;
    }
    fprintf(stderr, "pdd %s: --isa: %s\n", command, e.text);
    return -1;
}

int option_kv_type(const char *command, const char *text, enum native_kv *ret_kv)
{
    struct err e = ERR_INIT;
    if (native_kv_of(text, ret_kv, &e) == 0) return 0;
    fprintf(stderr, "pdd %s: --kv-type: %s\n", command, e.text);
    return -1;
}
