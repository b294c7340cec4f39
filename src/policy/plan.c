/* plan: see plan.h. */
#include "policy/plan.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"

static const double FIRST_US = 300000.0, FIRST_DEVIATION = 0.5;  /* of a cloud never asked */
static const double TOKEN_US = 20000.0;                          /* between its tokens */
static const double PREFILL_TPS = 33000.0, DECODE_TPS = 15000.0; /* an 8B model on one H100 */
static const double LATE_SHARE = 0.01;
static const double EQUAL = 1e-9; /* costs that differ by less are equal */

static const double ratios[] = {1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1};
static const double slower[] = {1.0, 1.15, 1.3, 1.5, 1.75, 2.0}; /* D by the device's own time */
static const uint32_t longs[] = {8, 16, 32, 64, 128, 256};

enum {
    N_RATIOS = sizeof ratios / sizeof *ratios,
    N_SLOWER = sizeof slower / sizeof *slower,
    N_LONGS = sizeof longs / sizeof *longs
};

const char *plan_choice_name(enum plan_choice c)
{
    static const char *const names[] = {"device", "cloud", "both"};
    return names[c];
}

/* ---- goals ---- */

const char *const plan_goal_names[] = {"even", "fast", "cheap", "battery", NULL};

static const struct {
    struct plan_limits limits;
    struct plan_weights weights;
} goals[] = {
    /* A slot second is worth a tenth of a second of waiting; energy decides only what else ties. */
    [PLAN_EVEN] = {{.late_share = 0.01, .quality_least = 0.95},
                   {.engine_s = 0.1,
                    .slot_s = 0.1,
                    .joule = 0.0001,
                    .quality = 10.0,
                    .wait_s = 1.0,
                    .wait_free_us = 1e6,
                    .slow_s = 0.2}},
    [PLAN_FAST] = {{.late_share = 0.01, .quality_least = 0.9},
                   {.engine_s = 0.01,
                    .slot_s = 0.01,
                    .joule = 0.0001,
                    .quality = 10.0,
                    .wait_s = 10.0,
                    .slow_s = 1.0}},
    [PLAN_CHEAP] =
        {{.interval_us = 120000.0, .late_us = 200000.0, .late_share = 0.02, .quality_least = 0.9},
         {.engine_s = 1.0,
          .slot_s = 1.0,
          .joule = 0.0001,
          .quality = 5.0,
          .wait_s = 0.5,
          .wait_free_us = 2e6,
          .slow_s = 0.05}},
    [PLAN_BATTERY] =
        {{.interval_us = 120000.0, .late_us = 200000.0, .late_share = 0.02, .quality_least = 0.9},
         {.engine_s = 0.1,
          .slot_s = 0.1,
          .joule = 0.02,
          .quality = 5.0,
          .wait_s = 0.5,
          .wait_free_us = 1e6,
          .slow_s = 0.05}},
};

void plan_goal(enum plan_goal g, struct plan_limits *ret_limits, struct plan_weights *ret_weights)
{
    CHECK((size_t)g < sizeof goals / sizeof *goals);
    *ret_limits = goals[g].limits;
    *ret_weights = goals[g].weights;
}

void plan_input_init(struct plan_input *in, enum plan_goal g)
{
    *in = (struct plan_input){.answer_max = 1};
    plan_goal(g, &in->limits, &in->weights);
}

/* ---- arithmetic ---- */

/* P(a standard normal value > i / 4). */
static const double tails[] = {0.5,        0.401294,   0.308538,   0.226627,    0.158655,
                               0.105650,   0.0668072,  0.0400592,  0.0227501,   0.0122245,
                               0.00620967, 0.00297976, 0.00134990, 0.000577025, 0.000232629,
                               8.84173e-5, 3.16712e-5};
enum { N_TAILS = sizeof tails / sizeof *tails };

static double tail(double z)
{
    if (z < 0.0) return 1.0 - tail(-z);
    double at = z * 4.0;
    if (!(at < N_TAILS - 1)) return 0.0;
    size_t i = (size_t)at;
    return tails[i] + (at - (double)i) * (tails[i + 1] - tails[i]);
}

double plan_sure(double p)
{
    if (p > 0.5) return -plan_sure(1.0 - p);
    size_t i = 0;
    while (i + 2 < N_TAILS && tails[i + 1] > p)
        i++;
    double z = ((double)i + (tails[i] - p) / (tails[i] - tails[i + 1])) / 4.0;
    return z < (N_TAILS - 1) / 4.0 ? z : (N_TAILS - 1) / 4.0;
}

double plan_speed_us(const struct plan_speed *s, double from, double n)
{
    return n * (s->us + s->us_per_position * (from + n / 2.0));
}

/* Tokens from position `from` on that take that long. */
static double tokens_in(const struct plan_speed *s, double from, double us)
{
    double first = s->us + s->us_per_position * from, grows = s->us_per_position;
    if (us <= 0.0) return 0.0;
    /* the root of grows / 2 n^2 + first n = us, in the form without cancellation */
    return 2.0 * us / (first + sqrt(first * first + 2.0 * grows * us));
}

static double smaller(double a, double b)
{
    return a < b ? a : b;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* ---- one setting ---- */

/* The input as all settings use it. */
struct ground {
    const struct plan_input *in;
    struct plan_speed prefill;       /* heated */
    double prompt, depth, decode_us; /* t, after the whole prompt */
    struct plan_value first;         /* T1; of a running answer when the next token is due */
    double arrives_us;               /* the cloud's next token; T1 as long as there is none */
    double buffered, token_us, refined_us;
    double cap; /* N at most */
    double late_share, sure;
    uint32_t even; /* tokens of the cloud that cost as much as the prefill */
    struct lengths_view lengths;
};

struct setting {
    double ratio, interval_us;
    enum plan_start start;
    uint32_t start_tokens;
};

/* Hundreds of settings are tried: the sentence, most of a plan's bytes, is left alone. */
static void draft(struct plan *p, enum plan_choice choice, const struct setting *s)
{
    memset(p, 0, offsetof(struct plan, why));
    p->choice = choice;
    p->ratio = s->ratio;
    p->interval_us = s->interval_us;
    p->start = s->start;
    p->start_tokens = s->start_tokens;
    p->quality = 1.0;
}

static bool has_device(const struct plan_input *in)
{
    return in->device.prefill.us > 0.0 && in->device.decode.us > 0.0;
}

static void survey(const struct plan_input *in, struct ground *g)
{
    const struct plan_cloud *c = &in->cloud;
    double heat = in->device.heat > 0.0 ? in->device.heat : 1.0;
    *g = (struct ground){.in = in, .prefill = in->device.prefill, .prompt = in->prompt_tokens};
    g->prefill.us *= heat;
    g->prefill.us_per_position *= heat;
    g->depth = (double)in->kv_tokens + g->prompt;
    g->decode_us = plan_speed_us(&in->device.decode, g->depth, 1.0) * heat;
    g->first = c->first_us;
    if (!(g->first.mean > 0.0))
        g->first = (struct plan_value){FIRST_US, FIRST_US * FIRST_DEVIATION};
    g->refined_us = c->refined_us > 0.0 ? c->refined_us : g->first.mean;
    g->arrives_us = g->first.mean;
    if (in->running.held > 0) {
        g->arrives_us = 0.0;
        g->first = (struct plan_value){in->running.due_us, 0.0};
        g->buffered = in->running.buffered;
        g->refined_us = c->refined_us;
    }
    g->token_us = c->token_us > 0.0 ? c->token_us : TOKEN_US;
    g->cap = in->answer_max;
    if (c->grant_max > 0) g->cap = smaller(g->cap, c->grant_max);
    if (in->limits.cloud_tokens > 0) g->cap = smaller(g->cap, in->limits.cloud_tokens);
    g->late_share = in->limits.late_share > 0.0 ? in->limits.late_share : LATE_SHARE;
    g->sure = plan_sure(g->late_share);
    lengths_view(in->lengths, in->running.held, in->length_known, &g->lengths);
}

/* E[min(L, x)] and P(L > x), of an answer that ends at its maximum at the latest. */
static double mean_up_to(const struct ground *g, double x)
{
    return lengths_mean_up_to(&g->lengths, smaller(x, g->in->answer_max));
}

static double goes_beyond(const struct ground *g, double x)
{
    return x < g->in->answer_max ? lengths_above(&g->lengths, x) : 0.0;
}

static double quality_of(const struct ground *g, double ratio)
{
    const struct plan_quality *q = g->in->quality;
    if (ratio >= 1.0) return 1.0;
    if (!q) return 0.0;
    double at = larger(ratio * PLAN_RATIOS - 1.0, 0.0);
    uint32_t i = at < PLAN_RATIOS - 1 ? (uint32_t)at : PLAN_RATIOS - 2;
    return q->at[i] + (at - i) * (q->at[i + 1] - q->at[i]);
}

/* When the k-th token of the cloud arrives, counted from now. */
static double arrival_us(const struct ground *g, double k)
{
    return g->arrives_us + larger(k - 1.0, 0.0) * g->token_us;
}

static double start_us(const struct ground *g, const struct setting *s)
{
    if (s->start == PLAN_START_NOW) return 0.0;
    return arrival_us(g, s->start == PLAN_START_LONG ? s->start_tokens : 1.0);
}

/* Of a prefill that runs from `from` to `to` if the answer goes on: the time that is spent on
 * average. It ends with the answer, if the cloud gives all of that: the integral over P(L > k), k
 * being what the cloud has sent by then, at most `cloud` tokens. */
static double spent_us(const struct ground *g, double from, double to, double cloud)
{
    double first = g->arrives_us, last = first + cloud * g->token_us;
    double low = larger(smaller(from, last) - first, 0.0) / g->token_us;
    double high = larger(smaller(to, last) - first, 0.0) / g->token_us;
    double before = larger(smaller(to, first) - from, 0.0), after = to - larger(from, last);
    return before + g->token_us * (mean_up_to(g, high) - mean_up_to(g, low)) +
           larger(after, 0.0) * goes_beyond(g, cloud);
}

/* The first token comes from the cloud or, by `device_us`, from the device, whichever is first. T1
 * stands for two values, a deviation to each side of its mean: the mean of both is the wait, and
 * the mean of what each is beyond `free_us` what is paid for. */
static void wait_for(const struct ground *g, double device_us, struct plan *p, double *ret_beyond)
{
    double off = smaller(g->first.deviation, g->first.mean), free_us = g->in->weights.wait_free_us;
    double early = smaller(g->first.mean - off, device_us);
    double late = smaller(g->first.mean + off, device_us);
    p->first_us = (early + late) / 2.0;
    *ret_beyond = (larger(early - free_us, 0.0) + larger(late - free_us, 0.0)) / 2.0;
}

static void price(const struct ground *g, const struct setting *s, double beyond_us, struct plan *p)
{
    const struct plan_input *in = g->in;
    const struct plan_weights *w = &in->weights;
    const struct plan_cloud *c = &in->cloud;
    double prefill_tps = c->prefill_tps > 0.0 ? c->prefill_tps : PREFILL_TPS;
    double decode_tps = c->decode_tps > 0.0 ? c->decode_tps : DECODE_TPS;
    double borrowed = p->choice == PLAN_DEVICE ? 0.0 : p->cloud_mean;
    if (p->choice != PLAN_DEVICE) {
        double waits = in->running.held > 0 ? 0.0 : larger(g->first.mean - c->rtt_us, 0.0);
        p->slot_s = (waits + borrowed * g->token_us) / 1e6;
        p->engine_s = borrowed / decode_tps;
        if (in->running.held == 0) p->engine_s += c->uncached / prefill_tps;
    }
    double slow = larger(s->interval_us - g->decode_us, 0.0) * borrowed / 1e6;
    double lost = (1.0 - p->quality) * p->handover;
    p->cost = w->engine_s * p->engine_s + w->slot_s * p->slot_s + w->joule * p->joule +
              w->wait_s * beyond_us / 1e6 + w->quality * lost;
    if (p->choice == PLAN_BOTH) p->cost += w->slow_s * slow;
}

static void note_limits(const struct ground *g, struct plan *p)
{
    const struct plan_limits *l = &g->in->limits;
    if (l->first_us > 0.0 && p->first_us > l->first_us) p->broken |= PLAN_LIMIT_FIRST;
    if (p->late > g->late_share * (1.0 + 1e-6)) p->broken |= PLAN_LIMIT_LATE;
    if (p->quality < l->quality_least) p->broken |= PLAN_LIMIT_QUALITY;
}

static void try_device(const struct ground *g, struct plan *p)
{
    const struct plan_device *d = &g->in->device;
    struct setting s = {1.0, g->decode_us, PLAN_START_NOW, 0};
    double prefill = plan_speed_us(&g->prefill, g->in->kv_tokens, g->prompt);
    draft(p, PLAN_DEVICE, &s);
    p->first_us = p->ready_us = prefill + g->decode_us;
    double beyond = larger(p->first_us - g->in->weights.wait_free_us, 0.0);
    p->joule =
        (d->prefill_w * prefill + d->decode_w * g->decode_us * mean_up_to(g, g->in->answer_max)) /
        1e6;
    if (g->in->running.held > 0) { /* the tokens held must last */
        double spare = g->first.mean + g->buffered * g->decode_us - p->ready_us;
        p->late = tail((spare + larger(g->in->limits.late_us - g->decode_us, 0.0)) /
                       larger(g->prefill.spread * prefill, 1.0));
        p->first_us = beyond = 0.0;
    }
    price(g, &s, beyond, p);
    note_limits(g, p);
}

static void try_cloud(const struct ground *g, struct plan *p)
{
    struct setting s = {1.0, g->token_us, PLAN_START_NEVER, 0};
    draft(p, PLAN_CLOUD, &s);
    double beyond = 0.0;
    if (g->in->running.held == 0) wait_for(g, INFINITY, p, &beyond);
    p->ready_us = INFINITY;
    p->cloud_tokens = (uint32_t)g->cap;
    p->cloud_mean = mean_up_to(g, g->cap);
    if (has_device(g->in)) { /* the stream ends, and the device has not even started */
        p->late = goes_beyond(g, g->cap);
        beyond +=
            p->late * (plan_speed_us(&g->prefill, g->in->kv_tokens, g->prompt) + g->decode_us);
    }
    price(g, &s, beyond, p);
    note_limits(g, p);
}

static void try_both(const struct ground *g, const struct setting *s, struct plan *p)
{
    const struct plan_input *in = g->in;
    double start = start_us(g, s), d = larger(s->interval_us, g->token_us), kv = in->kv_tokens;
    double whole = s->ratio < 1.0 ? tokens_in(&g->prefill, kv, g->refined_us - start) : g->prompt;
    whole = smaller(whole, g->prompt);
    double feed = whole + s->ratio * (g->prompt - whole);
    double prefill = plan_speed_us(&g->prefill, kv, feed);
    double each = plan_speed_us(&g->prefill, kv + feed, 1.0);
    double may = larger(in->limits.late_us - d, 0.0); /* lateness that is no stall */
    double behind = start + prefill + g->decode_us - g->first.mean - g->buffered * d - may;
    double off = g->prefill.spread * prefill, off_decode = in->device.decode.spread * g->decode_us;
    double off_first = s->start == PLAN_START_NOW ? g->first.deviation : 0.0;
    double sigma = sqrt(off * off + off_decode * off_decode + off_first * off_first);
    double gain = d - each, needed = INFINITY, mean = INFINITY;
    if (gain > 0.0) {
        needed = ceil((behind + g->sure * sigma) / gain - EQUAL);
        /* The stream is stopped when the rest of the prefill is sure: the later, the surer. */
        double left = 1.0 - arrival_us(g, larger(behind / gain, 1.0)) / (start + prefill);
        mean =
            (behind + g->sure * sigma * larger(left, 0.0)) / gain + in->cloud.rtt_us / g->token_us;
    }
    double least = larger(s->start_tokens, in->running.held > 0 ? 0.0 : 1.0);
    double n = smaller(larger(needed, least), g->cap);
    double used = smaller(larger(mean, s->start_tokens), n);
    draft(p, PLAN_BOTH, s);
    p->interval_us = d;
    p->start_us = start;
    p->cloud_tokens = (uint32_t)n;
    p->cloud_mean = mean_up_to(g, used);
    p->handover = goes_beyond(g, used);
    p->ready_us = start + prefill + each * n + g->decode_us;
    bool races = s->start == PLAN_START_NOW && s->ratio >= 1.0;
    double beyond = 0.0;
    if (in->running.held == 0) wait_for(g, races ? prefill + g->decode_us : INFINITY, p, &beyond);
    p->quality = quality_of(g, s->ratio);
    if (n < needed) {
        double slack = gain > 0.0 ? n * gain - behind : -(start + prefill);
        p->late = goes_beyond(g, n) * tail(slack / larger(sigma, 1.0));
        beyond += goes_beyond(g, n) * larger(-slack, 0.0); /* a stall is a wait, too */
    }
    p->joule =
        (in->device.prefill_w * spent_us(g, start, start + prefill, used) +
         in->device.decode_w * g->decode_us * (mean_up_to(g, in->answer_max) - p->cloud_mean)) /
        1e6;
    price(g, s, beyond, p);
    note_limits(g, p);
}

/* ---- all settings ---- */

/* How far a plan is outside its limits; 0: inside. */
static double excess(const struct ground *g, const struct plan *p)
{
    const struct plan_limits *l = &g->in->limits;
    double sum = 0.0;
    if (p->broken & PLAN_LIMIT_FIRST) sum += p->first_us / l->first_us - 1.0;
    if (p->broken & PLAN_LIMIT_LATE) sum += p->late;
    if (p->broken & PLAN_LIMIT_QUALITY) sum += l->quality_least - p->quality;
    return sum;
}

/* Negative: a is smaller; 0: they are as good as equal. */
static int compare(double a, double b)
{
    double off = a - b;
    return off < -EQUAL ? -1 : off > EQUAL ? 1 : 0;
}

static bool better(const struct ground *g, const struct plan *a, const struct plan *b)
{
    int order = compare(excess(g, a), excess(g, b));
    if (order == 0) order = compare(a->cost, b->cost);
    if (order == 0) order = compare(b->quality, a->quality);
    if (order == 0) order = compare(a->interval_us, b->interval_us);
    if (order == 0) order = compare(a->cloud_mean, b->cloud_mean);
    if (order == 0) order = compare(a->joule, b->joule);
    return order < 0;
}

static void consider(const struct ground *g, const struct plan *p, struct plan *best)
{
    if (p->choice != PLAN_DEVICE && p->cloud_tokens == 0) return; /* that is the device alone */
    if (better(g, p, best)) memcpy(best, p, offsetof(struct plan, why));
}

/* Tokens of the cloud that cost as much as the device's prefill: who waits so long before he starts
 * pays at most twice what he would pay had he known the answer's length. */
static uint32_t break_even(const struct ground *g)
{
    const struct plan_weights *w = &g->in->weights;
    double decode_tps = g->in->cloud.decode_tps > 0.0 ? g->in->cloud.decode_tps : DECODE_TPS;
    double token = w->slot_s * g->token_us / 1e6 + w->engine_s / decode_tps;
    double prefill = plan_speed_us(&g->prefill, g->in->kv_tokens, g->prompt);
    double k = token > 0.0 ? w->joule * g->in->device.prefill_w * prefill / 1e6 / token : 0.0;
    return k < g->cap ? (uint32_t)k : (uint32_t)g->cap;
}

static void try_starts(const struct ground *g, struct setting s, struct plan *best)
{
    struct plan p;
    bool known = g->in->lengths || g->in->length_known > 0;
    s.start = !known && g->even > 0 ? PLAN_START_LONG : PLAN_START_NOW;
    s.start_tokens = s.start == PLAN_START_LONG ? g->even : 0;
    try_both(g, &s, &p);
    consider(g, &p, best);
    if (!known || g->in->running.held > 0) return;
    s.start = PLAN_START_FIRST;
    try_both(g, &s, &p);
    consider(g, &p, best);
    s.start = PLAN_START_LONG;
    for (int i = 0; i < N_LONGS && longs[i] < g->cap; i++) {
        s.start_tokens = longs[i];
        try_both(g, &s, &p);
        consider(g, &p, best);
    }
}

static void try_settings(struct ground *g, struct plan *best)
{
    const struct plan_limits *l = &g->in->limits;
    g->even = break_even(g);
    double least = l->ratio_least > 0.0 ? l->ratio_least : 1.0;
    double slowest = larger(l->interval_us, g->decode_us);
    for (int r = 0; r < N_RATIOS && ratios[r] >= least - EQUAL; r++) {
        if (ratios[r] < 1.0 && !g->in->quality) break;
        struct setting s = {.ratio = ratios[r]};
        for (int i = 0; i < N_SLOWER && s.interval_us < slowest; i++) {
            s.interval_us = smaller(slower[i] * g->decode_us, slowest);
            try_starts(g, s, best);
        }
    }
}

/* ---- the sentence ---- */

static const char *const limit_names[] = {"the first token is late", "a stall is likely",
                                          "quality is low"};

static void say(const struct ground *g, struct plan *p)
{
    double prefill = plan_speed_us(&g->prefill, g->in->kv_tokens, g->prompt);
    char *at = p->why;
    size_t room = sizeof p->why;
    int n = 0;
    if (p->choice == PLAN_DEVICE) {
        const char *than = p->first_us <= g->in->weights.wait_free_us ? "is soon enough"
                           : p->first_us <= g->first.mean             ? "comes first"
                                                                      : "costs less";
        n = snprintf(at, room,
                     "the device alone: its first token after %.0f ms %s (the cloud's: %.0f ms)",
                     p->first_us / 1e3, than, g->first.mean / 1e3);
    } else if (p->choice == PLAN_CLOUD) {
        n = snprintf(at, room,
                     "the cloud alone: an answer of about %.0f tokens is over before the device's "
                     "%.1f s of prefill pay",
                     mean_up_to(g, g->in->answer_max), prefill / 1e6);
    } else {
        n = snprintf(at, room, "%u cloud tokens at %.0f ms bridge the device's %.1f s of prefill",
                     p->cloud_tokens, p->interval_us / 1e3,
                     (p->ready_us - p->start_us - g->decode_us) / 1e6);
        at += n, room -= (size_t)n;
        n = 0;
        if (p->ratio < 1.0)
            n = snprintf(at, room, " with %.0f %% of the prompt (quality %.2f)", 100.0 * p->ratio,
                         p->quality);
        at += n, room -= (size_t)n;
        n = 0;
        if (p->start == PLAN_START_FIRST)
            n = snprintf(at, room, ", from the first token on");
        else if (p->start == PLAN_START_LONG)
            n = snprintf(at, room, ", if the answer is longer than %u tokens", p->start_tokens);
    }
    at += n, room -= (size_t)n;
    for (unsigned bit = 0; bit < 3; bit++)
        if (p->broken >> bit & 1) {
            n = snprintf(at, room, "; %s whatever is done", limit_names[bit]);
            at += n, room -= (size_t)n;
        }
}

static bool decided(const struct ground *g, struct plan *p)
{
    const struct plan_limits *l = &g->in->limits;
    const char *why = NULL;
    if (l->local_only || !g->in->cloud.known) {
        if (has_device(g->in))
            try_device(g, p);
        else
            *p = (struct plan){.choice = PLAN_DEVICE, .ratio = 1.0, .quality = 1.0};
        why = l->local_only ? "local only, as asked" : "no cloud is known";
    } else if (l->cloud_only || !has_device(g->in)) {
        try_cloud(g, p);
        p->cloud_tokens = g->in->answer_max; /* there is no other */
        p->cloud_mean = mean_up_to(g, g->in->answer_max);
        why = l->cloud_only ? "cloud only, as asked" : "no model on the device";
    }
    if (why) snprintf(p->why, sizeof p->why, "%s", why);
    return why != NULL;
}

void plan_make(const struct plan_input *in, struct plan *ret_plan)
{
    struct ground g;
    struct plan p;
    CHECK(in->answer_max > 0);
    *ret_plan = (struct plan){.why = ""};
    survey(in, &g);
    if (decided(&g, ret_plan)) return;
    try_device(&g, ret_plan);
    try_cloud(&g, &p);
    consider(&g, &p, ret_plan);
    try_settings(&g, ret_plan);
    say(&g, ret_plan);
}

uint32_t plan_local_after(const struct plan *p)
{
    switch (p->start) {
    case PLAN_START_NOW:
        return 0;
    case PLAN_START_FIRST:
        return 1;
    case PLAN_START_LONG:
        return p->start_tokens;
    case PLAN_START_NEVER:
        break;
    }
    return UINT32_MAX;
}

double plan_tokens_least(const struct plan_input *in, double interval_us)
{
    struct ground g;
    survey(in, &g);
    double behind = plan_speed_us(&g.prefill, in->kv_tokens, g.prompt) + g.decode_us - g.first.mean;
    double gain = interval_us - plan_speed_us(&g.prefill, g.depth, 1.0);
    return gain > 0.0 ? ceil(behind / gain) : INFINITY;
}

double plan_tokens_more(const struct plan_remainder *r)
{
    double gain = r->interval_us - r->per_token_us;
    if (!(gain > 0.0)) return INFINITY;
    double covered = r->due_us + r->interval_us * r->buffered;
    return (r->ready_us + r->sure * r->deviation_us + r->rtt_us / 2.0 - covered) / gain;
}
