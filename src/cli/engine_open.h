/*
 * engine_open: the engine that a command's options ask for: native or fake, and the speed of a
 * device profile around it.
 */
#ifndef PDD_CLI_ENGINE_OPEN_H
#define PDD_CLI_ENGINE_OPEN_H

#include "engine/emulated.h"
#include "engine/engine.h"
#include "engine/fake.h"
#include "engine/native.h"

/* `fake`: NULL, or made-up answers instead of the model, with the context and step of `native`;
 * `profile`: NULL or a name. The log warns of a context beyond what the model was trained for.
 */
int engine_open(const struct native_options *native, const struct fake_options *fake,
                const char *profile, struct engine **ret_engine, struct err *e);

/* The device profile of that name; ERR_NOT_FOUND lists the names. */
int engine_profile(const char *name, const struct device_profile **ret_profile, struct err *e);

#endif
