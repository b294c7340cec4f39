/*
 * study_load: the load that a cloud carries: how much faster a trace may arrive until fewer than
 * STUDY_KEPT percent of the answers keep their limits; see study_impl.h.
 */
#include <math.h>

#include "sim/study_impl.h"

enum { DOUBLINGS = 8, HALVINGS = 5 };

static int kept_at(const struct study *s, struct run_config *c, const char *method, double speed,
                   struct study_load *ret_load, struct err *e)
{
    struct run_result r;
    c->speed = speed;
    int code = study_one(s, c, method, &r, e);
    if (code) return code;
    *ret_load = (struct study_load){.speed = speed,
                                    .kept = report_figure(&r, "kept"),
                                    .rate = report_figure(&r, "kept_rate"),
                                    .busy = report_figure(&r, "busy")};
    run_release(&r);
    return 0;
}

int study_find_load(const struct study *s, const struct run_config *config, const char *method,
                    struct study_load *ret_load, struct err *e)
{
    struct run_config c = *config;
    struct study_load at, best = {.speed = 0.0};
    double low = 0.0, high = 0.0, speed = 1.0;
    int code = 0;
    for (int i = 0; code == 0 && i < DOUBLINGS && !(low > 0.0 && high > 0.0); i++) {
        code = kept_at(s, &c, method, speed, &at, e);
        if (code) break;
        bool good = at.kept >= STUDY_KEPT;
        if (good) best = at;
        *(good ? &low : &high) = speed;
        speed = good ? speed * 2.0 : speed / 2.0;
    }
    for (int i = 0; code == 0 && i < HALVINGS && low > 0.0 && high > 0.0; i++) {
        code = kept_at(s, &c, method, sqrt(low * high), &at, e);
        if (code) break;
        if (at.kept >= STUDY_KEPT) {
            best = at;
            low = at.speed;
        } else {
            high = at.speed;
        }
    }
    best.bounded = high > 0.0;
    if (code == 0) *ret_load = best;
    return code;
}
