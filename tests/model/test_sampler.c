/*
 * test_sampler: the choice of the next token.
 *
 * Catches: a draw that depends on anything but logits, history, parameters and position; ties not
 * going to the lowest id; cuts (top-k, top-p, min-p) that keep a token too many or too few; an
 * order of tokens other than (logit, id), which would make device and cloud draw differently.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "model/sampler.h"

enum { VOCAB = 300, CASES = 3000, STREAM = 0x5a3d };

static struct sampler sampler_of(const struct kern *kern, uint32_t vocab)
{
    struct sampler s;
    struct err e;
    assert_int_equal(sampler_init(&s, kern, vocab, &e), 0);
    return s;
}

static const struct sampling greedy = SAMPLING_GREEDY;

static void test_greedy_and_ties(void **state)
{
    struct sampler s = sampler_of(kern_at(0), 6);
    (void)state;
    float logits[] = {1.0f, 3.0f, -1.0f, 3.0f, 2.0f, 3.0f};
    assert_int_equal(sampler_draw(&s, &greedy, logits, NULL, 0).id, 1);
    float equal[] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    struct sampler_draw d = sampler_draw(&s, &greedy, equal, NULL, 0);
    assert_int_equal(d.id, 0);
    assert_true(fabsf(d.logprob + logf(6.0f)) < 1e-6f);
    struct sampling one = {.temperature = 0.7f,
                           .top_k = 1,
                           .top_p = 1.0f,
                           .repeat_penalty = 1.0f,
                           .repeat_last = 64,
                           .seed = 9}; /* top-1: the same as greedy */
    for (int32_t i = 0; i < 100; i++)
        assert_int_equal(sampler_draw(&s, &one, logits, (int32_t[100]){0}, (uint32_t)i).id, 1);
    sampler_release(&s);
}

static void test_penalty(void **state)
{
    struct sampler s = sampler_of(kern_at(0), 4);
    struct sampling p = SAMPLING_GREEDY;
    (void)state;
    float logits[] = {2.0f, 1.9f, -1.0f, 1.0f};
    p.repeat_penalty = 1.5f;
    assert_int_equal(sampler_draw(&s, &p, logits, (int32_t[]){0}, 1).id, 1);
    assert_int_equal(sampler_draw(&s, &p, logits, (int32_t[]){0, 1}, 2).id, 0);
    /* Once for each token, however often it came: 2 / 1.5 stays above 1. */
    assert_int_equal(sampler_draw(&s, &p, logits, (int32_t[]){0, 0, 0, 1}, 4).id, 0);
    p.repeat_last = 1; /* only the last token counts */
    assert_int_equal(sampler_draw(&s, &p, logits, (int32_t[]){0, 1}, 2).id, 0);
    assert_int_equal(sampler_draw(&s, &p, logits, (int32_t[]){1, 0}, 2).id, 1);
    p.repeat_last = 0;
    assert_int_equal(sampler_draw(&s, &p, logits, (int32_t[]){0}, 1).id, 0);
    float below[] = {-1.0f, -1.2f, -3.0f, -3.0f}; /* a negative logit is multiplied */
    p.repeat_last = 64;
    assert_int_equal(sampler_draw(&s, &p, below, (int32_t[]){0}, 1).id, 1);
    /* The log-probability is that of the plain logits. */
    float lp = sampler_draw(&s, &p, logits, (int32_t[]){0}, 1).logprob;
    double sum = exp(2.0) + exp((double)1.9f) + exp(-1.0) + exp(1.0);
    assert_true(fabs((double)lp - ((double)1.9f - log(sum))) < 1e-6);
    sampler_release(&s);
}

/* ---- the definition, by sorting everything ---- */

static const float *sort_logits;

static int by_logit_then_id(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    if (sort_logits[x] != sort_logits[y]) return sort_logits[x] > sort_logits[y] ? -1 : 1;
    return x < y ? -1 : x > y;
}

/* The drawn token, or -1 when the mark falls within rounding of a border. */
static int32_t draw_by_sorting(const struct sampling *p, const float *logits, uint32_t position)
{
    uint32_t order[VOCAB], n = p->top_k && p->top_k < VOCAB ? p->top_k : VOCAB;
    double w[VOCAB], total = 0.0, sum = 0.0;
    for (uint32_t i = 0; i < VOCAB; i++)
        order[i] = i;
    sort_logits = logits;
    qsort(order, VOCAB, sizeof *order, by_logit_then_id);
    for (uint32_t i = 0; i < VOCAB; i++) {
        w[i] = exp((double)((logits[order[i]] - logits[order[0]]) / p->temperature));
        total += i < n ? w[i] : 0.0;
    }
    uint32_t kept = 0;
    while (kept < n) {
        if (kept > 0 && w[kept] < (double)p->min_p) break;
        if (fabs(w[kept] - (double)p->min_p) < 1e-6) return -1;
        sum += w[kept++];
        if (p->top_p < 1.0f && fabs(sum - (double)p->top_p * total) < 1e-6 * total) return -1;
        if (p->top_p < 1.0f && sum >= (double)p->top_p * total) break;
    }
    double mark = (double)rng_uniform(p->seed, STREAM, position) * sum, at = 0.0;
    for (uint32_t i = 0; i < kept; i++) {
        at += w[i];
        if (fabs(at - mark) < 1e-5 * sum) return -1;
        if (at > mark) return (int32_t)order[i];
    }
    return -1;
}

static void test_against_sorting(void **state)
{
    static int32_t history[CASES];
    struct rng rng;
    uint32_t compared = 0, levels = 0;
    struct sampler s[8];
    (void)state;
    while (kern_at(levels)) {
        s[levels] = sampler_of(kern_at(levels), VOCAB);
        levels++;
    }
    rng_init(&rng, 5, 5);
    for (uint32_t c = 0; c < CASES; c++) {
        float logits[VOCAB];
        for (uint32_t i = 0; i < VOCAB; i++) /* coarse values: many ties */
            logits[i] = (float)rng_below(&rng, 80) / 8.0f - (c % 2 ? rng_next_uniform(&rng) : 0.0f);
        struct sampling p = {.temperature = 0.2f + rng_next_uniform(&rng) * 2.0f,
                             .top_p = 1.0f,
                             .repeat_penalty = 1.0f,
                             .repeat_last = 64,
                             .seed = c};
        if (rng_below(&rng, 2)) p.top_k = 1 + rng_below(&rng, VOCAB + 20);
        if (rng_below(&rng, 2)) p.top_p = 0.01f + 0.98f * rng_next_uniform(&rng);
        if (rng_below(&rng, 2)) p.min_p = 0.5f * rng_next_uniform(&rng);
        struct sampler_draw first = sampler_draw(&s[0], &p, logits, history, c);
        for (uint32_t l = 1; l < levels; l++) {
            struct sampler_draw other = sampler_draw(&s[l], &p, logits, history, c);
            assert_int_equal(other.id, first.id);
            assert_memory_equal(&other.logprob, &first.logprob, sizeof first.logprob);
        }
        int32_t want = draw_by_sorting(&p, logits, c);
        compared += want >= 0;
        if (want >= 0) assert_int_equal(first.id, want);
    }
    assert_true(compared > CASES * 9 / 10);
    for (uint32_t l = 0; l < levels; l++)
        sampler_release(&s[l]);
}

static float changed_by_hand(const struct sampling *p, float x, uint32_t id, const int32_t *history,
                             uint32_t n, uint32_t end)
{
    uint32_t count = 0;
    bool lately = false;
    for (uint32_t i = 0; i < p->n_biases; i++)
        if ((uint32_t)p->biases[i].id == id)
            x = p->biases[i].bias <= -100.0f ? -1e30f : x + p->biases[i].bias;
    for (uint32_t i = 0; i < n; i++) {
        lately = lately || (i + p->repeat_last >= n && (uint32_t)history[i] == id);
        count += i >= p->answer_from && (uint32_t)history[i] == id;
    }
    if (lately) x = x > 0.0f ? x / p->repeat_penalty : x * p->repeat_penalty;
    if (count) x = x - ((float)count * p->frequency_penalty + p->presence_penalty);
    bool held = p->ignore_eos || n < p->answer_from + p->min_tokens;
    return held && id == end ? -1e30f : x;
}

/* Catches: a penalty that counts the prompt's tokens or a token twice, biases in another order, an
 * end token that is drawn too early or held too long, counts that stay for the next draw. The draw
 * from logits that are changed by hand is the same; the log-probability is of the plain ones. */
static void test_changes(void **state)
{
    enum { END = 7, N = 40 };
    struct rng rng;
    struct sampler s = sampler_of(kern_at(0), VOCAB);
    struct sampling plain = {.top_p = 1.0f, .repeat_penalty = 1.0f};
    (void)state;
    sampler_add_end(&s, END);
    rng_init(&rng, 6, 6);
    for (uint32_t c = 0; c < CASES; c++) {
        float logits[VOCAB], by_hand[VOCAB];
        int32_t history[N];
        uint32_t n = rng_below(&rng, N + 1), few = 1 + rng_below(&rng, VOCAB);
        for (uint32_t i = 0; i < n; i++)
            history[i] = (int32_t)rng_below(&rng, few);
        struct sampling p = plain;
        p.temperature = plain.temperature = c % 2 ? 0.9f : 0.0f;
        p.seed = plain.seed = c;
        p.answer_from = rng_below(&rng, n + 1);
        p.repeat_last = rng_below(&rng, N);
        if (rng_below(&rng, 2)) p.repeat_penalty = 0.5f + rng_next_uniform(&rng);
        if (rng_below(&rng, 2)) p.frequency_penalty = 4.0f * rng_next_uniform(&rng) - 2.0f;
        if (rng_below(&rng, 2)) p.presence_penalty = 4.0f * rng_next_uniform(&rng) - 2.0f;
        if (rng_below(&rng, 2)) p.min_tokens = rng_below(&rng, N);
        p.ignore_eos = rng_below(&rng, 8) == 0;
        p.n_biases = rng_below(&rng, 4);
        for (uint32_t i = 0; i < p.n_biases; i++)
            p.biases[i] = (struct sampling_bias){(int32_t)(i * 20 + rng_below(&rng, 20)),
                                                 (float)(rng_below(&rng, 9) * 50) - 200.0f};
        for (uint32_t i = 0; i < p.n_biases; i++)
            if (p.biases[i].bias < -100.0f) p.biases[i].bias = -100.0f;
        for (uint32_t i = 0; i < VOCAB; i++) {
            logits[i] = (float)rng_below(&rng, 80) / 8.0f - 3.0f;
            if (i == END) logits[i] += 4.0f;
        }
        for (uint32_t i = 0; i < VOCAB; i++)
            by_hand[i] = changed_by_hand(&p, logits[i], i, history, n, END);
        struct sampler_draw d = sampler_draw(&s, &p, logits, history, n);
        assert_int_equal(d.id, sampler_draw(&s, &plain, by_hand, history, n).id);
        assert_true(by_hand[d.id] > -1e29f);
        struct sampler_draw same = sampler_draw(&s, &plain, logits, history, n);
        if (same.id == d.id) assert_memory_equal(&same.logprob, &d.logprob, sizeof d.logprob);
    }
    sampler_release(&s);
}

/* Catches: a forbidden token that comes after all, where few others are left. */
static void test_never(void **state)
{
    struct sampler s = sampler_of(kern_at(0), 4);
    const float logits[] = {9.0f, -80.0f, 8.0f, -80.0f};
    (void)state;
    for (uint32_t kind = 0; kind < 4; kind++)
        for (uint32_t i = 0; i < 4000; i++) {
            struct sampling p = {.temperature = 2.0f,
                                 .top_k = kind == 1 ? 3 : 0,
                                 .top_p = kind == 2 ? 0.9999f : 1.0f,
                                 .min_p = kind == 3 ? 1e-20f : 0.0f,
                                 .repeat_penalty = 1.0f,
                                 .seed = i,
                                 .n_biases = 2,
                                 .biases = {{0, -100.0f}, {2, -100.0f}}};
            assert_true(sampler_draw(&s, &p, logits, (int32_t[4]){0}, i % 4).id % 2 == 1);
        }
    sampler_release(&s);
}

/* Shares of many draws come close to the probabilities: the numbers are used evenly. */
static void test_distribution(void **state)
{
    enum { DRAWS = 40000 };
    static int32_t history[DRAWS];
    struct sampler s = sampler_of(kern_at(0), 5);
    struct sampling p = {.temperature = 1.0f,
                         .top_p = 1.0f,
                         .repeat_penalty = 1.0f,
                         .repeat_last = 64,
                         .seed = 1234};
    float logits[5];
    const double share[5] = {0.4, 0.3, 0.15, 0.1, 0.05};
    int count[5] = {0};
    (void)state;
    for (int i = 0; i < 5; i++)
        logits[i] = (float)log(share[i]);
    for (uint32_t i = 0; i < DRAWS; i++)
        count[sampler_draw(&s, &p, logits, history, i).id]++;
    for (int i = 0; i < 5; i++)
        assert_true(fabs((double)count[i] / DRAWS - share[i]) < 0.01);
    sampler_release(&s);
}

/* Infinities and NaN (a broken model) give some token, never a crash or an endless loop. */
static void test_broken_logits(void **state)
{
    struct sampler s = sampler_of(kern_at(0), 64);
    struct sampling p = {.temperature = 0.8f,
                         .top_k = 10,
                         .top_p = 0.9f,
                         .min_p = 0.1f,
                         .repeat_penalty = 1.1f,
                         .repeat_last = 64,
                         .seed = 1};
    const float odd[] = {NAN, INFINITY, -INFINITY, 0.0f};
    float logits[64];
    (void)state;
    for (int kind = 0; kind < 16; kind++) {
        for (int i = 0; i < 64; i++)
            logits[i] = odd[(kind + (i % 2 ? kind / 4 : 0)) % 4];
        assert_in_range(sampler_draw(&s, &p, logits, (int32_t[]){1, 2}, 2).id, 0, 63);
        assert_in_range(sampler_draw(&s, &greedy, logits, NULL, 0).id, 0, 63);
        struct sampling all = {.temperature = 0.8f,
                               .top_p = 1.0f,
                               .repeat_penalty = 1.0f,
                               .repeat_last = 64,
                               .seed = 1};
        assert_in_range(sampler_draw(&s, &all, logits, NULL, 0).id, 0, 63);
    }
    sampler_release(&s);
}

static void test_parameter_check(void **state)
{
    static const struct {
        struct sampling p;
        const char *culprit;
    } wrong[] = {
        {{.temperature = -0.1f, .top_p = 1.0f, .repeat_penalty = 1.0f}, "temperature"},
        {{.temperature = NAN, .top_p = 1.0f, .repeat_penalty = 1.0f}, "temperature"},
        {{.temperature = 100.5f, .top_p = 1.0f, .repeat_penalty = 1.0f}, "temperature"},
        {{.top_p = 1.0f, .repeat_penalty = 1.0f, .frequency_penalty = 2.1f}, "frequency_penalty"},
        {{.top_p = 1.0f, .repeat_penalty = 1.0f, .presence_penalty = NAN}, "presence_penalty"},
        {{.top_p = 1.0f, .repeat_penalty = 1.0f, .n_biases = SAMPLING_BIASES_MAX + 1},
         "logit_bias"},
        {{.top_p = 1.0f, .repeat_penalty = 1.0f, .n_biases = 1, .biases = {{1, 101.0f}}},
         "logit_bias"},
        {{.temperature = 1.0f, .top_p = 0.0f, .repeat_penalty = 1.0f}, "top_p"},
        {{.temperature = 1.0f, .top_p = 1.1f, .repeat_penalty = 1.0f}, "top_p"},
        {{.temperature = 1.0f, .top_p = 1.0f, .min_p = 1.0f, .repeat_penalty = 1.0f}, "min_p"},
        {{.temperature = 1.0f, .top_p = 1.0f, .min_p = -0.1f, .repeat_penalty = 1.0f}, "min_p"},
        {{.temperature = 1.0f, .top_p = 1.0f, .repeat_penalty = 0.0f}, "repeat_penalty"},
        {{.temperature = 1.0f, .top_p = 1.0f, .repeat_penalty = NAN}, "repeat_penalty"},
    };
    struct err e;
    (void)state;
    assert_int_equal(sampling_check(&greedy, &e), 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(sampling_check(&wrong[i].p, &e), ERR_BAD_INPUT);
        assert_non_null(strstr(e.text, wrong[i].culprit));
    }
    struct sampling p = {.n_biases = 2, .biases = {{299, 1.0f}, {300, 1.0f}}};
    assert_int_equal(sampling_check_ids(&p, 301, &e), 0);
    assert_int_equal(sampling_check_ids(&p, 300, &e), ERR_BAD_INPUT);
    assert_non_null(strstr(e.text, "logit_bias: token id 300"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_and_ties), cmocka_unit_test(test_penalty),
        cmocka_unit_test(test_against_sorting), cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_changes),         cmocka_unit_test(test_never),
        cmocka_unit_test(test_broken_logits),   cmocka_unit_test(test_parameter_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
