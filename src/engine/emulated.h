/*
 * emulated: the speed of a named device as a property of any engine. Tokens, sessions and faults
 * stay the engine's own; each step takes at least the time of the profile: tokens / prefill
 * rate, and at least one decode time, as every step reads all weights once. If the engine is slower
 * than the profile, its own time counts. engine_info()->emulated names the profile. Threads: as
 * engine.h says.
 *
 * A provider prefills faster than the machine that emulates it. Such a profile `rereads`: tokens
 * that come from the prefix cache take their prefill time as if they were new. A prompt that the
 * machine has prefilled once, in its own time, is then emulated as a new one.
 */
#ifndef PDD_ENGINE_EMULATED_H
#define PDD_ENGINE_EMULATED_H

#include "engine/engine.h"

struct device_profile {
    const char *name;
    double prefill_tps; /* tokens/s */
    double decode_tps;
    const char *source; /* where the figures come from */
    bool rereads;       /* cached tokens take prefill time */
};

/* The built-in table; the i-th entry, NULL past the end. */
const struct device_profile *device_profile_at(uint32_t i);
const struct device_profile *device_profile_find(const char *name); /* or NULL */

/* From the next step on. `profile` is copied. */
void engine_emulate(struct engine *e, const struct device_profile *profile);

#endif
