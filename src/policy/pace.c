/* pace: see pace.h. */
#include "policy/pace.h"

#include <stddef.h>

/* Bounds of D around the device's time per token, and the speed-up after the handover. */
static const double FASTEST = 0.90, SLOWEST = 1.03, DRAIN = 0.96, REFILL = 1.02;

const char *const pace_mode_names[] = {"smooth", "off", "reading", NULL};

void pace_init(struct pace *p, enum pace_mode mode, double decode_us)
{
    *p = (struct pace){.mode = mode, .decode_us = decode_us};
}

/* D, at least d. */
static double at_least(const struct pace *p, double d)
{
    double most = p->plan_us > 0.0 ? p->plan_us : p->mode == PACE_READING ? PACE_READING_US : 0.0;
    return d < most ? most : d;
}

double pace_plan_us(const struct pace *p)
{
    return at_least(p, p->decode_us);
}

double pace_borrowed_us(const struct pace *p, double ready_us, uint32_t tokens)
{
    if (p->mode == PACE_OFF || p->decode_us <= 0.0) return 0.0;
    double d = ready_us / (tokens > 0 ? tokens : 1);
    double low = p->decode_us * FASTEST, high = at_least(p, p->decode_us * SLOWEST);
    return d < low ? low : d > high ? high : d;
}

double pace_own_us(const struct pace *p, uint32_t buffered)
{
    if (p->mode == PACE_OFF) return 0.0;
    return p->decode_us * (buffered > PACE_CUSHION    ? DRAIN
                           : buffered == PACE_CUSHION ? 1.0
                                                      : REFILL);
}

uint64_t pace_due(const struct pace *p, uint64_t arrived, double interval_us)
{
    if (!p->any) return arrived;
    uint64_t due = p->last + (uint64_t)interval_us;
    return due > arrived ? due : arrived;
}

void pace_shown(struct pace *p, uint64_t now)
{
    p->any = true;
    p->last = now;
}
