/*
 * answer_energy: the energy of an answer; see device_impl.h. Where the machine tells, it is
 * measured, between asking and the end, with everything else that runs; otherwise it is declared:
 * the power that the profile assumes, for the time that the engine here worked. The measurement of
 * this machine says nothing of a device that is emulated.
 */
#include <stdio.h>

#include "base/clock.h"
#include "device/device_impl.h"

void answer_energy_begin(struct device *d)
{
    d->answer.energy = energy_mark(&d->core->energy, d->answer.began);
}

void answer_energy_sample(struct device *d)
{
    energy_sample(&d->core->energy, clock_us());
}

/* Microseconds of prefill and of decode in this answer, by the speeds of its report. */
static void worked_us(const struct answer *a, double *ret_prefill, double *ret_decode)
{
    const struct device_report *r = &a->report;
    uint32_t had = a->turn.c.kv_tokens, own = r->turn.device_tokens;
    uint32_t fed = a->turn.kv > had + own ? a->turn.kv - had - own : 0;
    *ret_prefill = r->prefill_tps > 0.0 ? fed / r->prefill_tps * 1e6 : 0.0;
    *ret_decode = own * r->decode_us;
}

static void declare(struct device *d)
{
    struct answer *a = &d->answer;
    struct plan_device device;
    double prefill, decode;
    profile_device(&d->core->profile, 0.0, &device);
    worked_us(a, &prefill, &decode);
    a->report.energy_j = (device.prefill_w * prefill + device.decode_w * decode) / 1e6;
    snprintf(a->energy_how, sizeof a->energy_how,
             "declared: %.3g W in prefill, %.3g W in decode; no radio, no screen", device.prefill_w,
             device.decode_w);
}

void answer_energy_report(struct device *d)
{
    struct answer *a = &d->answer;
    struct device_report *r = &a->report;
    double joules = 0.0;
    bool measured = energy_since(&d->core->energy, &a->energy, clock_us(), &joules);
    r->energy_measured = measured && !r->emulated;
    a->energy_how[0] = 0;
    if (r->energy_measured) {
        r->energy_j = joules;
        snprintf(a->energy_how, sizeof a->energy_how, "measured: %s",
                 energy_source_text(d->core->energy.source));
    } else if (d->local) {
        declare(d);
    }
    r->energy_how = a->energy_how;
}
