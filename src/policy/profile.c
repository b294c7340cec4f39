/* profile: see profile.h. */
#include "policy/profile.h"

#include <math.h>

static const double NEWEST = 0.25; /* weight of the newest in an estimate */
static const double FADES = 0.9;   /* of a line's sums, at each measurement */
static const double OUTLIER = 3.0;
static const double STIFF = 0.25 * 1000.0 * 1000.0; /* the slope's guess is worth that xx */
static const double GUESS_SPREAD = 0.15, FIRST_SPREAD = 0.125, LEAST_SPREAD = 0.03;
static const double HEAT_NEWEST = 0.5, HEAT_MOST = 4.0, AT_REST = 1.1;
static const double WAY_GROWS = 1.05; /* the most at a time: a way that became longer is learned */
static const double HOT_WEIGHT = 0.1; /* what is slower than expected while at work */
static const double PREFILL_W = 5.0, DECODE_W = 4.0;

/* ---- one number ---- */

void estimate_init(struct estimate *e, double guess)
{
    *e = (struct estimate){guess, 0.0, 0};
}

void estimate_add(struct estimate *e, double value)
{
    if (e->n++ == 0) {
        e->mean = value;
        e->variance = value * value / 64.0; /* one measurement: believe it to an eighth */
        return;
    }
    double off = value - e->mean;
    e->mean += NEWEST * off;
    e->variance = (1.0 - NEWEST) * (e->variance + NEWEST * off * off);
}

double estimate_deviation(const struct estimate *e)
{
    return e->n == 0 ? e->mean / 4.0 : sqrt(e->variance);
}

/* ---- a line ---- */

void profile_line_init(struct profile_line *l, double guess, double guess_slope)
{
    *l = (struct profile_line){.guess = guess, .guess_slope = guess_slope};
}

void profile_line_fit(const struct profile_line *l, double *ret_at, double *ret_slope)
{
    *ret_at = l->guess;
    *ret_slope = l->guess_slope;
    if (!(l->weight > 0.0)) return;
    double x = l->x / l->weight, y = l->y / l->weight;
    double xx = l->xx - l->x * x, xy = l->xy - l->x * y;
    double slope = (xy + STIFF * l->guess_slope) / (xx + STIFF);
    if (!(slope > 0.0)) slope = 0.0;
    /* An eighth of the mean is left where the line would lead below it. */
    if (y - slope * x < y / 8.0) slope = x > 0.0 ? (y - y / 8.0) / x : 0.0;
    *ret_at = y - slope * x;
    *ret_slope = slope;
}

double profile_line_at(const struct profile_line *l, double x)
{
    double at, slope;
    profile_line_fit(l, &at, &slope);
    return at + slope * x;
}

double profile_line_spread(const struct profile_line *l)
{
    double spread = l->n == 0 ? GUESS_SPREAD : sqrt(l->off);
    return spread > LEAST_SPREAD ? spread : LEAST_SPREAD;
}

void profile_line_add(struct profile_line *l, double x, double y, double weight)
{
    if (!(y > 0.0) || !(x >= 0.0) || !(weight > 0.0) || !isfinite(x) || !isfinite(y)) return;
    double expected = profile_line_at(l, x);
    if (l->n >= 2) {
        y = y > OUTLIER * expected ? OUTLIER * expected : y;
        y = y < expected / OUTLIER ? expected / OUTLIER : y;
    }
    if (l->n == 0)
        l->off = FIRST_SPREAD * FIRST_SPREAD;
    else
        l->off += NEWEST * weight * ((y / expected - 1.0) * (y / expected - 1.0) - l->off);
    double *const sums[] = {&l->weight, &l->x, &l->y, &l->xx, &l->xy};
    double const values[] = {1.0, x, y, x * x, x * y};
    double fades = 1.0 - (1.0 - FADES) * weight;
    for (int i = 0; i < 5; i++)
        *sums[i] = *sums[i] * fades + weight * values[i];
    if (l->n < UINT32_MAX) l->n++;
}

/* ---- all of them ---- */

void profile_init(struct profile *p, double prefill_tps, double decode_us)
{
    *p = (struct profile){.heat = 1.0};
    profile_line_init(&p->prefill, prefill_tps > 0.0 ? 1e6 / prefill_tps : 0.0, 0.0);
    profile_line_init(&p->decode, decode_us > 0.0 ? decode_us : 0.0, 0.0);
}

double profile_heat(const struct profile *p, double now_s)
{
    double rest = now_s > p->heat_at_s ? now_s - p->heat_at_s : 0.0;
    double heat = 1.0 + (p->heat - 1.0) / (1.0 + rest / PROFILE_COOLS_S);
    return heat >= 1.0 && heat <= HEAT_MOST ? heat : 1.0;
}

/* A time that was measured at x: part of it is heat, the rest is for the line. `worked_s`: it ended
 * now and took that long. */
static void note(struct profile *p, struct profile_line *l, double now_s, double x, double us,
                 double worked_s)
{
    double began_s = now_s - worked_s, before = profile_heat(p, began_s);
    bool at_rest = before < AT_REST && began_s - p->heat_at_s > PROFILE_COOLS_S;
    double expected = profile_line_at(l, x), heat = 1.0, weight = 1.0;
    if (!at_rest && l->n > 0 && expected > 0.0) {
        heat = before + HEAT_NEWEST * (us / expected - before);
        heat = heat < 1.0 ? 1.0 : heat > HEAT_MOST ? HEAT_MOST : heat;
    }
    if (heat > before) weight = HOT_WEIGHT;
    profile_line_add(l, x, us / heat, weight);
    p->heat = heat;
    p->heat_at_s = now_s;
}

void profile_prefilled(struct profile *p, double now_s, uint32_t from, uint32_t tokens, double us)
{
    if (tokens == 0 || !(us > 0.0)) return;
    note(p, &p->prefill, now_s, from + tokens / 2.0, us / tokens, us / 1e6);
}

void profile_decoded(struct profile *p, double now_s, uint32_t depth, double us)
{
    note(p, &p->decode, now_s, depth, us, us / 1e6);
}

void profile_granted(struct profile *p, double now_s, double us)
{
    if (!(us > 0.0)) return;
    double longest = p->way_us > 0.0 ? p->way_us * WAY_GROWS : us;
    p->way_us = us < longest ? us : longest;
    estimate_add(&p->queue_us, us - p->way_us);
    p->queue_at_s = now_s;
}

void profile_cached(struct profile *p, uint32_t sent, uint32_t uncached)
{
    if (sent == 0) return;
    double share = (double)(uncached < sent ? uncached : sent) / sent;
    /* 0 stands for "no measurement" in the store */
    estimate_add(&p->new_share, share > 0.001 ? share : 0.001);
}

void profile_first_token(struct profile *p, uint32_t uncached, double us)
{
    profile_line_add(&p->first, uncached, us, 1.0);
}

void profile_streamed(struct profile *p, double us)
{
    if (us > 0.0) estimate_add(&p->token_us, us);
}

static uint32_t kind_of(uint32_t prompt_tokens)
{
    static const uint32_t ends[PROFILE_KINDS - 1] = {64, 256, 1024, 4096, 16384};
    uint32_t kind = 0;
    while (kind < PROFILE_KINDS - 1 && prompt_tokens >= ends[kind])
        kind++;
    return kind;
}

struct lengths *profile_lengths(struct profile *p, uint32_t prompt_tokens)
{
    return &p->lengths[kind_of(prompt_tokens)];
}

void profile_answered(struct profile *p, uint32_t prompt_tokens, uint32_t tokens, bool cut)
{
    lengths_add(profile_lengths(p, prompt_tokens), tokens, cut);
}

static struct plan_speed speed_of(const struct profile_line *l)
{
    struct plan_speed s = {.spread = profile_line_spread(l)};
    profile_line_fit(l, &s.us, &s.us_per_position);
    return s;
}

void profile_device(const struct profile *p, double now_s, struct plan_device *ret_device)
{
    *ret_device = (struct plan_device){.prefill = speed_of(&p->prefill),
                                       .decode = speed_of(&p->decode),
                                       .heat = profile_heat(p, now_s),
                                       .prefill_w = PREFILL_W,
                                       .decode_w = DECODE_W};
}

void profile_cloud(const struct profile *p, double now_s, uint32_t sent,
                   struct plan_cloud *ret_cloud)
{
    double share = p->new_share.n > 0 ? p->new_share.mean : 1.0, uncached = share * sent;
    struct plan_cloud c = {.rtt_us = p->way_us, .token_us = p->token_us.mean};
    c.uncached = (uint32_t)uncached;
    if (p->first.n > 0) {
        double at, slope, age_s = now_s > p->queue_at_s ? now_s - p->queue_at_s : 0.0;
        double stays = 1.0 / (1.0 + age_s / PROFILE_QUEUE_S);
        profile_line_fit(&p->first, &at, &slope);
        double work = at + slope * uncached, off = work * profile_line_spread(&p->first);
        double queue = estimate_deviation(&p->queue_us) * stays, other = 0.0;
        if (p->new_share.n > 0) other = slope * sent * estimate_deviation(&p->new_share);
        c.first_us = (struct plan_value){p->way_us + p->queue_us.mean * stays + work,
                                         sqrt(off * off + queue * queue + other * other)};
    }
    *ret_cloud = c;
}
