/* study_regret: how much more the planner's answers cost than the best ones; see study_impl.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "sim/study_impl.h"

static const char *const methods[STUDY_REGRETS + 1] = {
    "cloud", "device", "lossless", "planned", "oracle", "oracle-distribution", NULL};
enum { PLANNED = 3 };

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double least_cost(const struct comparison *c, uint64_t i, bool *ret_kept)
{
    double best = -1.0;
    *ret_kept = false;
    for (uint32_t k = 0; k < c->n; k++)
        if (c->results[k].records[i].kept) *ret_kept = true;
    for (uint32_t k = 0; k < c->n; k++) {
        const struct run_record *r = &c->results[k].records[i];
        if (*ret_kept && !r->kept) continue;
        if (best < 0.0 || r->cost < best) best = r->cost;
    }
    return best;
}

/* Of the requests of one class of prompts, or of all (TALLY_CLASSES). `room` holds a float each. */
static uint64_t find_regret(const struct comparison *c, uint32_t k, uint32_t class, float *room,
                            struct study_regret *ret_regret)
{
    double sum = 0.0, least = 0.0;
    uint64_t broken = 0, n = 0;
    *ret_regret = (struct study_regret){0.0, 0.0, 0.0, 0.0};
    for (uint64_t i = 0; i < c->results[k].requests; i++) {
        bool kept;
        const struct run_record *r = &c->results[k].records[i];
        if (class < TALLY_CLASSES && r->class != class) continue;
        double best = least_cost(c, i, &kept);
        sum += r->cost;
        least += best;
        broken += kept && !r->kept;
        double regret = best > 0.0 ? r->cost / best - 1.0 : 0.0;
        room[n++] = (float)(regret > 0.0 ? regret : 0.0); /* else cheaper, outside the limits */
    }
    if (n == 0) return 0;
    qsort(room, n, sizeof *room, ascending);
    ret_regret->p50 = room[n / 2];
    ret_regret->p95 = room[(uint64_t)((double)(n - 1) * 0.95)];
    ret_regret->mean = least > 0.0 ? sum / least - 1.0 : 0.0;
    ret_regret->broken = (double)broken / (double)n;
    return n;
}

/* The cloud's times as the planner met them, and where it did not ask, as a run met them that
 * always asks. */
static int record_times(const struct study *s, struct run_config *c, struct run_result *ret_times,
                        struct regrets *to, struct err *e)
{
    struct run_result asked = {.requests = 0};
    c->record = true;
    int code = study_one(s, c, "planned", ret_times, e);
    if (code) return code;
    to->real_cost = report_figure(ret_times, "cost");
    code = study_one(s, c, "lossless", &asked, e);
    for (uint64_t i = 0; code == 0 && i < asked.requests; i++)
        if (ret_times->records[i].service_us <= 0.0f) ret_times->records[i] = asked.records[i];
    run_release(&asked);
    if (code) run_release(ret_times);
    return code;
}

int study_regrets(const struct study *s, struct run_config *c, struct regrets *ret_regrets,
                  struct err *e)
{
    struct run_result times = {.requests = 0};
    struct regrets r = {.real_cost = 0.0};
    struct comparison *frozen = mem_calloc(1, sizeof *frozen);
    float *room = NULL;
    int code = frozen ? record_times(s, c, &times, &r, e)
                      : err_set(e, ERR_NO_MEMORY, "no memory for regrets");
    if (code == 0) {
        c->frozen = times.records;
        code = study_methods(s, c, methods, frozen, e);
        c->frozen = NULL;
        room = mem_alloc(times.requests * sizeof *room);
        if (code == 0 && !room) code = err_set(e, ERR_NO_MEMORY, "no memory for regrets");
    }
    for (uint32_t k = 0; code == 0 && k < frozen->n; k++) {
        r.labels[k] = method_find(methods[k])->title;
        find_regret(frozen, k, TALLY_CLASSES, room, &r.of[k]);
    }
    for (uint32_t class = 0; code == 0 && class < TALLY_CLASSES; class ++)
        r.n_class[class] = find_regret(frozen, PLANNED, class, room, &r.of_class[class]);
    if (code == 0) r.frozen_cost = report_figure(&frozen->results[PLANNED], "cost");
    if (frozen) study_release(frozen);
    run_release(&times);
    mem_free(frozen);
    mem_free(room);
    if (code == 0) *ret_regrets = r;
    return code;
}

static void put_row(struct buf *out, const char *label, const struct study_regret *r)
{
    buf_printf(out, "| %s | %.1f | %.1f | %.1f | %.2f |\n", label, 100.0 * r->p50, 100.0 * r->p95,
               100.0 * r->mean, 100.0 * r->broken);
}

void study_put_regrets(struct buf *out, const struct regrets *r)
{
    buf_puts(out, "| | regret p50, % | p95, % | of all costs, % | outside limits that another "
                  "method keeps, % |\n|---|--:|--:|--:|--:|\n");
    for (uint32_t k = 0; k < STUDY_REGRETS; k++)
        put_row(out, r->labels[k], &r->of[k]);
    for (uint32_t c = 0; c < TALLY_CLASSES; c++) {
        char label[REPORT_LABEL_MAX];
        snprintf(label, sizeof label, "planned, prompts %s (%llu)", tally_class_name(c),
                 (unsigned long long)r->n_class[c]);
        if (r->n_class[c] > 0) put_row(out, label, &r->of_class[c]);
    }
}
