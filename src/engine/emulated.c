/* emulated: see emulated.h; engine.c lets each step take its time. */
#include "engine/emulated.h"

#include <stdio.h>
#include <string.h>

#include "engine/engine_impl.h"

static const struct device_profile profiles[] = {
    {"s24-ultra-gpu", 816.0, 15.6, "Galaxy S24 Ultra, GPU, Gemma3n-E2B: LiteRT-LM's README", false},
    {"s24-ultra-cpu", 110.5, 16.1, "Galaxy S24 Ultra, CPU, Gemma3n-E2B: LiteRT-LM's README", false},
    {"iphone17-pro-cpu", 532.0, 25.0,
     "iPhone 17 Pro, CPU, Gemma-4-E2B in 4 bits: LiteRT-LM's table", false},
    {"oneplus12-1b", 260.5, 50.2, "OnePlus 12, a model of 1B parameters", false},
    {"m3-max", 1500.0, 60.0,
     "a laptop of the M3 Max class with a model of 3B parameters: our estimate", false},
    {"provider-20ms", 33000.0, 50.0,
     "a provider's H100 with a model of 8B parameters in fp8, shared by many answers: our estimate",
     true},
};

const struct device_profile *device_profile_at(uint32_t i)
{
    return i < sizeof profiles / sizeof *profiles ? &profiles[i] : NULL;
}

const struct device_profile *device_profile_find(const char *name)
{
    for (uint32_t i = 0; device_profile_at(i); i++)
        if (strcmp(profiles[i].name, name) == 0) return &profiles[i];
    return NULL;
}

void engine_emulate(struct engine *e, const struct device_profile *profile)
{
    e->emulated_token_us = 1e6 / profile->prefill_tps;
    e->emulated_step_us = 1e6 / profile->decode_tps;
    e->emulated_rereads = profile->rereads;
    snprintf(e->emulated, sizeof e->emulated, "%s: prefill %.1f tok/s, decode %.1f tok/s",
             profile->name, profile->prefill_tps, profile->decode_tps);
    e->info.emulated = e->emulated;
}
