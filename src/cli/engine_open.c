/* engine_open: see engine_open.h. */
#include "cli/engine_open.h"

#include "base/buf.h"
#include "base/log.h"
#include "engine/emulated.h"

enum { NAMES_BYTES_MAX = 4096 };

int engine_profile(const char *name, const struct device_profile **ret_profile, struct err *e)
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

static void say_text_only(const struct engine_info *info)
{
    if (info->beside)
        log_line(LOG_WARN, "engine",
                 "%s: %u tensors of a part for pictures or sound are passed over: it answers texts",
                 info->model_name, info->beside);
}

int engine_open(const struct native_options *native, const struct fake_options *fake,
                const char *profile, struct engine **ret_engine, struct err *e)
{
    struct engine *engine;
    int code = fake ? open_fake(native, fake, &engine, e) : native_open(native, &engine, e);
    if (code) return code;
    warn_long_context(engine_info(engine));
    say_text_only(engine_info(engine));
    if (!profile) {
        *ret_engine = engine;
        return 0;
    }
    const struct device_profile *found = NULL;
    code = engine_profile(profile, &found, e);
    if (code) {
        engine_free(engine);
        return code;
    }
    engine_emulate(engine, found);
    *ret_engine = engine;
    return 0;
}
