/*
 * hardware: how long engines of clouds and devices take, as formulas fitted to measurements, and
 * what a device spends. Every row names its source; a report repeats it. Pure.
 *
 * A step of a cloud's engine with prompt tokens at positions p and one token of each of d answers
 * at positions q, by the fields of hardware_engine:
 *
 *     max(step_us + sum(prefill_us + prefill_depth_us p), decode_base_us if d > 0)
 *         + sum(decode_us + decode_depth_us q)
 *
 * and at least least_us, so a prompt of n tokens costs a + b n + c n^2 with b = prefill_us and c =
 * prefill_depth_us / 2.
 */
#ifndef PDD_SIM_HARDWARE_H
#define PDD_SIM_HARDWARE_H

#include <stdint.h>

#include "base/err.h"

struct hardware_engine {
    const char *name, *source;
    double step_us, least_us;            /* of any step: added, and at least */
    double prefill_us, prefill_depth_us; /* of a token; of a token and position */
    double decode_base_us, decode_us, decode_depth_us;
    double kv_bytes;      /* of a position */
    uint32_t kv_tokens;   /* positions that KV memory holds */
    uint32_t step_tokens; /* largest step */
    uint32_t slots;       /* answers at once */
};

const struct hardware_engine *hardware_engine_at(uint32_t i);         /* NULL past the end */
const struct hardware_engine *hardware_engine_find(const char *name); /* or NULL */

struct hardware_device {
    const char *name, *source;
    double prefill_tps, decode_tps;
    double watts;  /* while its engine works; declared, not measured */
    double heat;   /* factor of its speed once it is hot; 1: it keeps its speed */
    double heat_s; /* seconds of work until it is hot, and of rest until it is cool */
};

const struct hardware_device *hardware_device_at(uint32_t i);

/* Shares of devices: "s26-cpu=2,pi5=1", or the name of a mix. */
enum { HARDWARE_MIX_MAX = 32 };
struct hardware_mix {
    const struct hardware_device *devices[HARDWARE_MIX_MAX];
    double upto[HARDWARE_MIX_MAX]; /* sums of shares; the last is 1 */
    uint32_t n;
};

int hardware_mix_of(const char *text, struct hardware_mix *ret_mix, struct err *e);
/* Index of the device at `share` of the mix, 0 <= share < 1. */
uint32_t hardware_mix_at(const struct hardware_mix *m, double share);

#endif
