/*
 * test_plan: the planner's decisions as tables, and what holds for every plan, by seeded input; the
 * histogram of lengths.
 *
 * Catches: a cloud asked against the user's will or not worth it; an N too small for the formula of
 * docs/design/handover.md or for the share of stalls allowed; a plan that is worse than another one
 * it could have taken; limits broken in silence; a refined prompt nobody allowed; a stop too early.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "policy/lengths.h"
#include "policy/plan.h"

static const struct plan_quality good = {{0.9, 0.96, 0.98, 0.99, 1, 1, 1, 1, 1, 1}};
static const struct plan_quality bad = {{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1}};

/* A device of constant speed, a cloud whose T1 is certain, an answer of known length. */
static struct plan_input input(enum plan_goal goal, uint32_t prompt, double tps, double decode_us,
                               double first_us, uint32_t length)
{
    struct plan_input in;
    plan_input_init(&in, goal);
    in.prompt_tokens = in.cloud.uncached = prompt;
    in.answer_max = 2000;
    in.length_known = length;
    if (tps > 0.0) {
        in.device = (struct plan_device){
            .prefill.us = 1e6 / tps, .decode.us = decode_us, .prefill_w = 5.0, .decode_w = 4.0};
    }
    in.cloud.known = true;
    in.cloud.first_us.mean = first_us;
    return in;
}

static const struct {
    const char *what;
    enum plan_goal goal;
    uint32_t prompt;
    double tps, decode_us, first_us;
    uint32_t length;
    enum plan_choice choice;
    uint32_t n;
} decisions[] = {
    {"no engine", PLAN_EVEN, 3000, 0, 0, 3e5, 200, PLAN_CLOUD, 2000},
    {"short prompt", PLAN_EVEN, 100, 816, 64000, 3e5, 200, PLAN_DEVICE, 0},
    {"short prompt, fast", PLAN_FAST, 100, 816, 64000, 3e5, 200, PLAN_DEVICE, 0},
    {"slow cloud", PLAN_EVEN, 3000, 816, 64000, 4e6, 200, PLAN_DEVICE, 0},
    /* (3000 / 816 s + 64 ms - 300 ms) / (64 ms - 1 / 816 s) = 54.8 */
    {"both", PLAN_EVEN, 3000, 816, 64000, 3e5, 200, PLAN_BOTH, 55},
    {"both, fast", PLAN_FAST, 3000, 816, 64000, 3e5, 200, PLAN_BOTH, 55},
    {"an answer that is over before", PLAN_EVEN, 3000, 816, 64000, 3e5, 20, PLAN_CLOUD, 2000},
    /* reads more slowly than it writes: it never catches up */
    {"never", PLAN_EVEN, 3000, 10, 64000, 3e5, 200, PLAN_CLOUD, 2000},
    /* the phone GPUs of LiteRT-LM's table read 2,000 tokens within the second that nobody notices
     */
    {"S26 Ultra GPU", PLAN_EVEN, 2000, 3808, 19231, 3e5, 300, PLAN_DEVICE, 0},
    {"iPhone 17 Pro GPU", PLAN_EVEN, 2000, 2878, 17857, 3e5, 300, PLAN_DEVICE, 0},
    {"S26 Ultra CPU", PLAN_EVEN, 2000, 557, 21277, 3e5, 1000, PLAN_BOTH, 171},
    {"Raspberry Pi 5", PLAN_EVEN, 2000, 133, 125000, 3e5, 1000, PLAN_BOTH, 127},
};

static void test_decisions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof decisions / sizeof *decisions; i++) {
        struct plan_input in =
            input(decisions[i].goal, decisions[i].prompt, decisions[i].tps, decisions[i].decode_us,
                  decisions[i].first_us, decisions[i].length);
        struct plan p;
        plan_make(&in, &p);
        if (p.choice != decisions[i].choice || p.cloud_tokens != decisions[i].n)
            fail_msg("%s: choice %d, %u tokens (%s)", decisions[i].what, (int)p.choice,
                     p.cloud_tokens, p.why);
        assert_true(p.why[0] != 0);
        assert_true(p.ratio == 1.0 && p.quality == 1.0); /* nobody allowed less */
        if (p.choice == PLAN_BOTH)
            assert_true(plan_tokens_least(&in, in.device.decode.us) == p.cloud_tokens);
    }
}

static void test_as_asked(void **state)
{
    (void)state;
    struct plan_input in = input(PLAN_EVEN, 3000, 816, 64000, 3e5, 200);
    struct plan p;
    in.limits.local_only = true;
    plan_make(&in, &p);
    assert_int_equal(p.choice, PLAN_DEVICE);
    assert_string_equal(p.why, "local only, as asked");
    in.limits.local_only = false;
    in.cloud.known = false;
    plan_make(&in, &p);
    assert_int_equal(p.choice, PLAN_DEVICE);
    assert_string_equal(p.why, "no cloud is known");
    in.cloud.known = true;
    in.limits.cloud_only = true;
    in.limits.cloud_tokens = 5; /* there is nobody to go on after them */
    plan_make(&in, &p);
    assert_int_equal(p.choice, PLAN_CLOUD);
    assert_int_equal(p.cloud_tokens, 2000);
}

/* Not even an endless answer is long enough for a device that never catches up. */
static void test_never_enough(void **state)
{
    (void)state;
    struct plan_input in = input(PLAN_EVEN, 100, 10, 64000, 3e5, 0);
    assert_true(isinf(plan_tokens_least(&in, 64000)));
}

/* ---- what holds for every plan ---- */

static struct plan_input random_input(struct rng *r, struct lengths *lengths)
{
    struct plan_input in =
        input((enum plan_goal)rng_below(r, 4), 1 + rng_below(r, 9000), 50 + rng_below(r, 5000),
              5000 + rng_below(r, 100000), 1 + rng_below(r, 2000000), 0);
    in.answer_max = 1 + rng_below(r, 2000);
    in.kv_tokens = rng_below(r, 2) ? rng_below(r, 8000) : 0;
    in.cloud.uncached = rng_below(r, in.prompt_tokens + 1);
    if (rng_below(r, 2)) in.length_known = 1 + rng_below(r, 2000);
    if (rng_below(r, 2)) in.device.prefill.spread = 0.3 * rng_next_uniform(r);
    if (rng_below(r, 2)) in.device.prefill.us_per_position = 0.1 * rng_next_uniform(r);
    if (rng_below(r, 2)) in.cloud.first_us.deviation = 0.3 * in.cloud.first_us.mean;
    if (rng_below(r, 4) == 0) in.cloud.grant_max = 1 + rng_below(r, 200);
    if (rng_below(r, 4) == 0) in.limits.cloud_tokens = 1 + rng_below(r, 200);
    if (rng_below(r, 4) == 0) in.limits.first_us = 1e5 + rng_below(r, 3000000);
    if (rng_below(r, 2)) in.quality = rng_below(r, 2) ? &good : &bad;
    if (in.quality && rng_below(r, 2)) in.limits.ratio_least = 0.1 + 0.9 * rng_next_uniform(r);
    lengths_clear(lengths);
    for (uint32_t i = rng_below(r, 30); i > 0; i--)
        lengths_add(lengths, 1 + rng_below(r, 1200), rng_below(r, 5) == 0);
    if (rng_below(r, 3)) in.lengths = lengths;
    return in;
}

static uint32_t smallest(uint32_t a, uint32_t b)
{
    return b > 0 && b < a ? b : a;
}

static void check_plan(const struct plan_input *in, const struct plan *p)
{
    uint32_t most =
        smallest(smallest(in->answer_max, in->cloud.grant_max), in->limits.cloud_tokens);
    assert_true(p->cloud_tokens <= most);
    assert_true(p->cloud_mean <= most + 1e-6 && p->cloud_mean >= 0.0);
    assert_true(isfinite(p->cost) && p->cost >= 0.0);
    assert_true(p->late >= 0.0 && p->late <= 1.0 + 1e-9);
    assert_true(p->ratio <= 1.0 && p->ratio >= 0.1);
    assert_true(p->ratio == 1.0 || (in->quality && p->ratio >= in->limits.ratio_least - 1e-9));
    assert_true(p->why[0] != 0 && strlen(p->why) < PLAN_WHY_MAX - 1);
    assert_true((p->choice == PLAN_DEVICE) == (p->cloud_tokens == 0));
    /* broken means broken, and unbroken that the limit holds */
    double share = in->limits.late_share;
    assert_true(!(p->broken & PLAN_LIMIT_LATE) == (p->late <= share * 1.001));
    if (in->limits.first_us > 0.0)
        assert_true(!(p->broken & PLAN_LIMIT_FIRST) == (p->first_us <= in->limits.first_us));
    if (p->choice == PLAN_BOTH) {
        double own = plan_speed_us(&in->device.decode, in->kv_tokens + in->prompt_tokens, 1);
        double most_us = in->limits.interval_us > own ? in->limits.interval_us : own;
        if (own >= 20000.0)
            assert_true(p->interval_us >= own - 1.0 && p->interval_us <= most_us + 1.0);
    }
}

static void test_every_plan(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 5, 1);
    for (int i = 0; i < 20000; i++) {
        struct lengths lengths;
        struct plan_input in = random_input(&r, &lengths);
        struct plan p, again;
        plan_make(&in, &p);
        check_plan(&in, &p);
        plan_make(&in, &again);
        assert_memory_equal(&p, &again, sizeof p);
    }
}

/* With exact predictions the device is ready when the last borrowed token has been shown. */
static void test_n_suffices(void **state)
{
    (void)state;
    struct rng r;
    uint32_t both = 0;
    rng_init(&r, 6, 1);
    for (int i = 0; i < 20000; i++) {
        struct plan_input in =
            input(PLAN_EVEN, 1 + rng_below(&r, 9000), 50 + rng_below(&r, 5000),
                  20000 + rng_below(&r, 100000), 1 + rng_below(&r, 2000000), 2000);
        struct plan p;
        plan_make(&in, &p);
        if (p.choice != PLAN_BOTH || p.cloud_tokens == in.answer_max) continue;
        both++;
        double n = p.cloud_tokens, decode = in.device.decode.us;
        double ready = p.start_us + (in.prompt_tokens + n) * in.device.prefill.us + decode;
        assert_true(ready <= in.cloud.first_us.mean + n * decode + 1.0);
        assert_true(ready + decode > in.cloud.first_us.mean + (n - 1) * decode || n == 1.0);
    }
    assert_true(both > 3000);
}

/* Prefills drawn from the spread that the plan was told: the share of answers in which the device
 * comes too late stays within the limit, and is not far below it. */
static void test_stalls_stay_within_the_share(void **state)
{
    static const double shares[] = {0.3, 0.1, 0.05, 0.01};
    (void)state;
    for (size_t k = 0; k < 4; k++) {
        struct plan_input in = input(PLAN_EVEN, 4000, 816, 64000, 3e5, 2000);
        struct plan p;
        struct rng r;
        in.limits.late_share = shares[k];
        in.device.prefill.spread = 0.2;
        plan_make(&in, &p);
        assert_int_equal(p.choice, PLAN_BOTH);
        rng_init(&r, 7, k);
        uint32_t late = 0, runs = 40000;
        double n = p.cloud_tokens;
        for (uint32_t i = 0; i < runs; i++) {
            double prefill = 4000 / 816.0 * 1e6 * (1.0 + 0.2 * (double)rng_next_normal(&r));
            double ready = prefill + n * 1e6 / 816 + 64000;
            late += ready > 3e5 + n * 64000;
        }
        double share = (double)late / runs;
        if (share > 1.15 * shares[k] || share < 0.6 * shares[k])
            fail_msg("%.4f of the answers stall, %.2f may (N %u)", share, shares[k],
                     p.cloud_tokens);
    }
}

/* No other choice, and no other N, start or ratio that the limits allow, costs less: each is forced
 * by the input and planned again. */
static void test_nothing_is_cheaper(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 8, 1);
    for (int i = 0; i < 5000; i++) {
        struct lengths lengths;
        struct plan_input in = random_input(&r, &lengths), other = in;
        struct plan p, q;
        plan_make(&in, &p);
        for (int forced = 0; forced < 4; forced++) {
            other = in;
            if (forced == 0) other.limits.local_only = true;
            if (forced == 1 && in.limits.cloud_tokens == 0 && in.cloud.grant_max == 0)
                other.limits.cloud_only = true;
            if (forced == 2) other.limits.ratio_least = 1.0;
            if (forced == 3) other.limits.interval_us = 0.0;
            plan_make(&other, &q);
            if (q.broken || p.broken) continue;
            if (p.cost > q.cost + 1e-6)
                fail_msg("%d costs %.6f (%s), %d forced: %.6f (%s)", (int)p.choice, p.cost, p.why,
                         forced, q.cost, q.why);
        }
    }
}

/* Each way to get better facts makes the plan no more expensive. */
static void test_better_facts_cost_no_more(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 9, 1);
    for (int i = 0; i < 5000; i++) {
        struct lengths lengths;
        struct plan_input in = random_input(&r, &lengths), more;
        struct plan p, q;
        /* To save energy or quality it may be cheaper to borrow more than needed. */
        in.weights.joule = 0.0;
        in.quality = NULL;
        plan_make(&in, &p);
        if (p.broken || p.late > 0.0) continue; /* certainty about bad luck helps nobody */
        more = in;
        more.device.prefill.spread = 0.0; /* of T1 it may help: two race, and the first counts */
        plan_make(&more, &q);
        if (q.cost > p.cost + 1e-6) fail_msg("certainty: %.6f, not %.6f", q.cost, p.cost);
        more = in;
        more.cloud.uncached = 0;
        plan_make(&more, &q);
        assert_true(q.cost <= p.cost + 1e-6);
        more = in;
        more.limits.first_us *= 2.0;
        plan_make(&more, &q);
        assert_true(q.cost <= p.cost + 1e-6);
    }
}

/* ---- single decisions ---- */

static void test_goals_differ_as_they_say(void **state)
{
    (void)state;
    struct plan even, fast, cheap, battery;
    struct lengths lengths;
    lengths_clear(&lengths);
    struct plan_input in = input(PLAN_EVEN, 800, 816, 64000, 3e5, 0);
    in.lengths = &lengths;
    plan_make(&in, &even); /* 1.04 s: hardly more than the second that nobody notices */
    plan_goal(PLAN_FAST, &in.limits, &in.weights);
    plan_make(&in, &fast);
    assert_int_equal(even.choice, PLAN_DEVICE);
    assert_int_equal(fast.choice, PLAN_BOTH);
    in.prompt_tokens = in.cloud.uncached = 5000;
    plan_make(&in, &fast);
    plan_goal(PLAN_EVEN, &in.limits, &in.weights);
    plan_make(&in, &even);
    plan_goal(PLAN_CHEAP, &in.limits, &in.weights);
    plan_make(&in, &cheap);
    plan_goal(PLAN_BATTERY, &in.limits, &in.weights);
    plan_make(&in, &battery);
    assert_true(cheap.cloud_mean < 0.6 * even.cloud_mean && cheap.interval_us > 1.5 * 64000);
    assert_true(battery.joule < 0.6 * even.joule);
    assert_true(even.interval_us == 64000 && fast.interval_us == 64000);
}

static void test_refinement_needs_leave_and_a_table(void **state)
{
    (void)state;
    struct plan_input in = input(PLAN_EVEN, 8000, 160, 100000, 6e5, 1500);
    struct plan p, whole;
    plan_make(&in, &whole);
    assert_true(whole.ratio == 1.0);
    in.limits.ratio_least = 0.1; /* allowed, but nothing is known of this kind of question */
    plan_make(&in, &p);
    assert_true(p.ratio == 1.0);
    in.quality = &bad; /* known to lose too much */
    plan_make(&in, &p);
    assert_true(p.ratio == 1.0);
    in.quality = &good;
    plan_make(&in, &p);
    assert_int_equal(p.choice, PLAN_BOTH);
    assert_true(p.ratio < 0.6 && p.quality >= 0.95);
    assert_true(p.cloud_mean < 0.7 * whole.cloud_mean);
    assert_non_null(strstr(p.why, "% of the prompt"));
    in.limits.quality_least = 1.0;
    plan_make(&in, &p);
    assert_true(p.quality >= 1.0 && p.ratio >= 0.5);
}

/* Battery counts, and answers are short or long: the device waits for the answer to show which. */
static void test_the_start_waits_for_long_answers(void **state)
{
    (void)state;
    struct lengths two, tall;
    lengths_clear(&two);
    lengths_clear(&tall);
    for (int i = 0; i < 300; i++) {
        lengths_add(&two, i % 5 ? 20 : 1500, false);
        lengths_add(&tall, 1500, false);
    }
    struct plan_input in = input(PLAN_EVEN, 6000, 300, 50000, 5e5, 0);
    struct plan p;
    in.weights.joule = 0.01;
    in.device.decode_w = 0.0;
    in.lengths = &two;
    plan_make(&in, &p);
    assert_int_equal(p.choice, PLAN_BOTH);
    assert_int_equal(p.start, PLAN_START_LONG);
    assert_true(p.start_tokens >= 24 && p.start_tokens <= 64);
    assert_non_null(strstr(p.why, "if the answer is longer than"));
    in.lengths = &tall; /* sure to be long: at once */
    plan_make(&in, &p);
    assert_int_equal(p.start, PLAN_START_NOW);
    in.lengths = NULL; /* unknown: after the tokens that cost as much as the prefill */
    plan_make(&in, &p);
    assert_int_equal(p.choice, PLAN_BOTH);
    assert_int_equal(p.start, PLAN_START_LONG);
    double prefill = 0.01 * 5.0 * 6000 / 300.0, token = 0.1 * 0.02 + 0.1 / 15000;
    assert_true(fabs(p.start_tokens - prefill / token) <= 1.0);
}

/* Where stalls cannot be avoided, the shortest is chosen: the device does not wait for the cloud's
 * few tokens to end. */
static void test_few_tokens_start_the_device_at_once(void **state)
{
    (void)state;
    struct lengths lengths;
    struct plan p;
    lengths_clear(&lengths);
    struct plan_input in = input(PLAN_EVEN, 2500, 250, 20500, 1e5, 0);
    in.lengths = &lengths;
    in.limits.cloud_tokens = 8;
    in.limits.first_us = 2e5; /* which the device alone breaks */
    plan_make(&in, &p);
    assert_int_equal(p.choice, PLAN_BOTH);
    assert_int_equal(p.start, PLAN_START_NOW);
    assert_int_equal(p.cloud_tokens, 8);
    assert_true(p.broken & PLAN_LIMIT_LATE);
}

/* Truth differs from the plan: T1, speed or grant; the rest is planned again. */
static void test_planning_again(void **state)
{
    (void)state;
    struct plan_input in = input(PLAN_EVEN, 3000, 816, 64000, 3e5, 0);
    struct lengths lengths;
    struct plan p, q;
    lengths_clear(&lengths);
    in.lengths = &lengths;
    plan_make(&in, &p);
    /* 10 tokens are here, 8 not shown, the next is due in 30 ms, and the device is half as fast */
    in.running = (struct plan_running){.held = 10, .buffered = 8, .due_us = 30000};
    in.prompt_tokens = 3000 - 200 + 10;
    in.device.prefill.us *= 2.0;
    plan_make(&in, &q);
    assert_int_equal(q.choice, PLAN_BOTH);
    double ready = (2810.0 + q.cloud_tokens) * in.device.prefill.us + 64000;
    double due = 30000 + (8.0 + q.cloud_tokens) * 64000;
    assert_true(ready <= due && ready + 2e3 > due - 64000);
    assert_true(q.cloud_tokens > p.cloud_tokens);
    /* a smaller grant than that: said, and nothing that fits is invented */
    in.cloud.grant_max = 20;
    plan_make(&in, &q);
    assert_true(q.cloud_tokens <= 20);
    assert_true(q.broken & PLAN_LIMIT_LATE);
    assert_non_null(strstr(q.why, "stall"));
    in.limits.ratio_least = 0.1; /* refining brings it into the grant */
    in.quality = &good;
    in.limits.interval_us = 80000.0;
    plan_make(&in, &q);
    assert_true(q.cloud_tokens <= 20 && q.broken == 0 && q.ratio < 1.0);
    /* what is held lasts: the cloud is not needed any more */
    in.running.buffered = 60;
    in.device.prefill.us /= 2.0;
    plan_make(&in, &q);
    assert_int_equal(q.choice, PLAN_DEVICE);
}

static void test_stop_rule(void **state)
{
    (void)state;
    struct plan_remainder r = {.ready_us = 1000000,
                               .due_us = 50000,
                               .interval_us = 64000,
                               .per_token_us = 1000,
                               .buffered = 10};
    /* (1000 - 50 - 640) / 63 */
    assert_true(fabs(plan_tokens_more(&r) - 310.0 / 63.0) < 1e-9);
    r.sure = 2.0;
    r.deviation_us = 50000;
    r.rtt_us = 80000;
    assert_true(fabs(plan_tokens_more(&r) - 450.0 / 63.0) < 1e-9);
    r.buffered = 20;
    assert_true(plan_tokens_more(&r) < 0.0);
    r.per_token_us = 64000;
    assert_true(isinf(plan_tokens_more(&r)));
}

static void test_quantiles(void **state)
{
    (void)state;
    assert_true(fabs(plan_sure(0.5)) < 0.01);
    assert_true(fabs(plan_sure(0.01) - 2.326) < 0.03);
    assert_true(fabs(plan_sure(0.05) - 1.645) < 0.03);
    assert_true(fabs(plan_sure(0.95) + 1.645) < 0.03);
    assert_true(plan_sure(1e-9) <= 4.0);
    for (double p = 0.001; p < 0.99; p += 0.001)
        assert_true(plan_sure(p) > plan_sure(p + 0.001));
}

/* ---- lengths ---- */

static void test_lengths_learn(void **state)
{
    (void)state;
    struct lengths l;
    struct lengths_view v;
    lengths_view(NULL, 0, 0, &v);
    double mean = lengths_mean_up_to(&v, 1e6);
    assert_true(mean > 300 && mean < 450);
    assert_true(lengths_above(&v, 0) == 1.0 && lengths_above(&v, 1e9) == 0.0);
    lengths_clear(&l);
    for (int i = 0; i < 200; i++)
        lengths_add(&l, 40, false);
    lengths_view(&l, 0, 0, &v);
    assert_true(lengths_above(&v, 32) > 0.9 && lengths_above(&v, 48) < 0.1);
    for (int i = 0; i < 600; i++) /* what was learned long ago fades */
        lengths_add(&l, 700, false);
    lengths_view(&l, 0, 0, &v);
    assert_true(lengths_above(&v, 512) > 0.85);
    lengths_view(&l, 0, 77, &v); /* known */
    assert_true(lengths_above(&v, 76) == 1.0 && lengths_above(&v, 77) == 0.0);
    assert_true(lengths_mean_up_to(&v, 50) == 50.0 && lengths_mean_up_to(&v, 500) == 77.0);
    lengths_view(&l, 70, 77, &v);
    assert_true(lengths_mean_up_to(&v, 500) == 7.0);
}

/* Answers cut at 100 say that they are longer, not that they have 100 tokens. */
static void test_lengths_cut(void **state)
{
    (void)state;
    struct lengths l;
    struct lengths_view v;
    lengths_clear(&l);
    for (int i = 0; i < 300; i++)
        lengths_add(&l, i % 3 ? 100 : 400, i % 3 != 0);
    lengths_view(&l, 0, 0, &v);
    assert_true(lengths_above(&v, 100) > 0.9 && lengths_above(&v, 300) > 0.7);
    lengths_clear(&l);
    lengths_add(&l, UINT32_MAX, true);
    lengths_add(&l, 0, false);
    lengths_view(&l, 0, 0, &v);
    assert_true(lengths_above(&v, 0) == 1.0);
    lengths_view(&l, UINT32_MAX, 0, &v);
    assert_true(isfinite(lengths_mean_up_to(&v, 1e6)));
}

/* The survival falls, the mean is its integral, and what is given turns out the rest. */
static void test_lengths_are_a_distribution(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 10, 1);
    for (int i = 0; i < 200; i++) {
        struct lengths l;
        struct lengths_view v, rest;
        lengths_clear(&l);
        for (uint32_t k = rng_below(&r, 60); k > 0; k--)
            lengths_add(&l, 1 + rng_below(&r, 1u << rng_below(&r, 14)), rng_below(&r, 4) == 0);
        uint32_t from = rng_below(&r, 2000);
        lengths_view(&l, 0, 0, &v);
        lengths_view(&l, from, 0, &rest);
        double sum = 0.0, before = 1.0;
        for (uint32_t x = 0; x < 4000; x++) {
            double above = lengths_above(&v, x);
            assert_true(above <= before + 1e-12 && above >= 0.0);
            sum += (above + lengths_above(&v, x + 1)) / 2.0;
            before = above;
            if (x % 100 == 0)
                assert_true(fabs(lengths_mean_up_to(&v, x + 1) - sum) < 0.5 + 0.001 * sum);
            if (lengths_above(&v, from) > 1e-6)
                assert_true(fabs(lengths_above(&rest, x) * lengths_above(&v, from) -
                                 lengths_above(&v, from + x)) < 1e-9);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decisions),
        cmocka_unit_test(test_as_asked),
        cmocka_unit_test(test_never_enough),
        cmocka_unit_test(test_every_plan),
        cmocka_unit_test(test_n_suffices),
        cmocka_unit_test(test_stalls_stay_within_the_share),
        cmocka_unit_test(test_nothing_is_cheaper),
        cmocka_unit_test(test_better_facts_cost_no_more),
        cmocka_unit_test(test_goals_differ_as_they_say),
        cmocka_unit_test(test_refinement_needs_leave_and_a_table),
        cmocka_unit_test(test_the_start_waits_for_long_answers),
        cmocka_unit_test(test_few_tokens_start_the_device_at_once),
        cmocka_unit_test(test_planning_again),
        cmocka_unit_test(test_stop_rule),
        cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_lengths_learn),
        cmocka_unit_test(test_lengths_cut),
        cmocka_unit_test(test_lengths_are_a_distribution),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
