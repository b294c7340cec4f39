/*
 * engine_open: the engine that a command's options ask for: native or fake, and the speed of a
 * device profile around it.
 */
#ifndef PDD_CLI_ENGINE_OPEN_H
#define PDD_CLI_ENGINE_OPEN_H

#include "engine/engine.h"
#include "engine/fake.h"
#include "engine/native.h"

/* `fake`: NULL, or made-up answers instead of the model, with the context and step of `native`;
 * `profile`: NULL or a name. A context beyond what the model was trained for is warned of in the
 * log. */
int engine_open(const struct native_options *native, const struct fake_options *fake,
                const char *profile, struct engine **ret_engine, struct err *e);

/* --isa of a command; -1 after a sentence on standard error: no level, or none that runs here. */
int option_isa(const char *command, const char *text, const char **ret_isa);
/* --kv-type of a command; -1 after a sentence on standard error that names another word. */
int option_kv_type(const char *command, const char *text, enum native_kv *ret_kv);

#endif
