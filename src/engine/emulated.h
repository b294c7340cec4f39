/*
 * emulated: the speed of a named device around another engine. Tokens, sessions and faults are
 * those of the engine inside; each step takes at least the time the profile says: tokens / prefill
 * rate, and never less than one decode time, as every step reads all weights once. If the engine
 * inside is slower than the profile, its own time counts, and engine_info()->emulated says what was
 * emulated.
 */
#ifndef PDD_ENGINE_EMULATED_H
#define PDD_ENGINE_EMULATED_H

#include "engine/engine.h"

struct device_profile {
    const char *name;
    double prefill_tps; /* tokens/s */
    double decode_tps;
    const char *source; /* where the figures come from */
};

/* The built-in table; NULL name: the i-th entry, NULL past the end. */
const struct device_profile *device_profile_at(uint32_t i);
const struct device_profile *device_profile_find(const char *name); /* or NULL */

/* Takes ownership of `inside` (on success only). */
int emulated_open(struct engine *inside, const struct device_profile *profile,
                  struct engine **ret_engine, struct err *err);

#endif
