/* stepcost: see stepcost.h. */
#include "policy/stepcost.h"

#define KEEP 0.98 /* weight of what is known against a new step */
#define PREFILL_KEEP 0.75
/* A step that takes longer than this many times the expected time is disturbed: it counts as this
 * many. */
#define OUTLIER 4.0
/* Relative spread of the numbers of decodes, squared, from which on a slope means something. */
#define SPREAD_LEAST 0.01
#define REST_LEAST 0.02 /* of a step, for its prompts */
#define KNOWN_LEAST 3.0 /* steps */

enum { ROUND = 16 };

double stepcost_decode_us(const struct stepcost *c, uint32_t decodes)
{
    if (decodes == 0 || c->n <= 0.0) return 0.0;
    double mean_n = c->decodes / c->n, mean_us = c->us / c->n;
    double variance = c->squares / c->n - mean_n * mean_n;
    double covariance = c->products / c->n - mean_n * mean_us;
    if (variance > SPREAD_LEAST * mean_n * mean_n && covariance >= 0.0) {
        double each = covariance / variance, base = mean_us - each * mean_n;
        if (base >= 0.0) return base + each * decodes;
    }
    /* No line can be fitted: at least the mean, and in proportion for more. */
    return decodes > mean_n ? mean_us * decodes / mean_n : mean_us;
}

static void note_decodes(struct stepcost *c, uint32_t decodes, double us)
{
    double expected = stepcost_decode_us(c, decodes), x = decodes;
    if (c->n >= KNOWN_LEAST && us > OUTLIER * expected) us = OUTLIER * expected;
    c->n = c->n * KEEP + 1.0;
    c->decodes = c->decodes * KEEP + x;
    c->squares = c->squares * KEEP + x * x;
    c->us = c->us * KEEP + us;
    c->products = c->products * KEEP + x * us;
}

void stepcost_note(struct stepcost *c, uint32_t decodes, uint32_t prefill_tokens, double us)
{
    if (us < 1.0) us = 1.0;
    if (prefill_tokens == 0) {
        if (decodes > 0) note_decodes(c, decodes, us);
        return;
    }
    if (prefill_tokens < STEPCOST_TOKENS_LEAST) return;
    double rest = us - stepcost_decode_us(c, decodes);
    if (rest < us * REST_LEAST) rest = us * REST_LEAST; /* what decodes take is an estimate */
    double each = rest / prefill_tokens;
    if (c->prefill_us > 0.0 && each > OUTLIER * c->prefill_us) each = OUTLIER * c->prefill_us;
    c->prefill_us =
        c->prefill_us > 0.0 ? c->prefill_us * PREFILL_KEEP + each * (1.0 - PREFILL_KEEP) : each;
}

/* Tokens that take `us`, in whole rounds where there is one, from 1 to `most`. */
static uint32_t tokens_in(double us, double each, uint32_t most)
{
    double n = us / each;
    if (n >= (double)most) return most;
    uint32_t whole = n > 1.0 ? (uint32_t)n : 1;
    return whole > ROUND ? whole / ROUND * ROUND : whole;
}

void stepcost_limit(const struct stepcost *c, uint32_t decodes, double aim_us, uint32_t beside_max,
                    struct sched_limits *limits)
{
    uint32_t most = limits->step_tokens;
    uint32_t beside = beside_max < most ? beside_max : most;
    if (c->prefill_us <= 0.0) {
        uint32_t first = STEPCOST_TOKENS_FIRST;
        limits->prefill_alone = most < first ? most : first;
        limits->prefill_beside = beside < first ? beside : first;
        return;
    }
    double taken = stepcost_decode_us(c, decodes), room = aim_us - taken;
    if (room < taken / STEPCOST_SHARE) room = taken / STEPCOST_SHARE;
    limits->prefill_beside = tokens_in(room, c->prefill_us, beside);
    limits->prefill_alone = tokens_in(STEPCOST_ALONE * aim_us, c->prefill_us, most);
}
