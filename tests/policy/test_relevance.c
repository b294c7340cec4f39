/*
 * test_relevance: attention and words as one score. Catches: attention that is not spread or spread
 * too far, an end of the prompt that reads past it, a score that needs only one of the two where
 * both are known, a missing one that counts as nothing found, and a peak taken outside its range.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "base/rng.h"
#include "policy/relevance.h"

enum { N_MAX = 1000 };

static float attention[N_MAX], bm25[N_MAX], scores[N_MAX + 1];

/* The formula of the header, position by position. */
static double slowly(uint32_t n, uint32_t at)
{
    double a = 0;
    for (uint32_t b = 0; b * 16 < n; b++) {
        double near = 1 - fabs((double)b - at / 16) / 4, best = 0;
        for (uint32_t i = b * 16; i < n && i < b * 16 + 16; i++)
            best = fmax(best, (double)attention[i]);
        if (near > 0) a += near * best;
    }
    return a * (1 + (double)bm25[at]);
}

static void test_formula(void **state)
{
    static const uint32_t lengths[] = {1, 15, 16, 17, 63, 64, 200, N_MAX};
    struct rng r;
    (void)state;
    rng_init(&r, 1, 1);
    for (uint32_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        const uint32_t n = lengths[k];
        for (uint32_t i = 0; i < n; i++) {
            attention[i] = rng_next_uniform(&r);
            bm25[i] = 10.0f * rng_next_uniform(&r);
        }
        scores[n] = -1.0f;
        relevance_score(attention, bm25, n, scores);
        assert_true(scores[n] == -1.0f);
        for (uint32_t i = 0; i < n; i++)
            assert_float_equal(scores[i], (float)slowly(n, i), 1e-4f);
    }
}

/* One place is looked at (block 20), two are spoken of (blocks 20 and 40): the one that is both
 * wins, and where one kind is not known the other decides. */
static void test_both(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < N_MAX; i++) {
        attention[i] = i == 325 || i == 805 ? 0.9f : 0.01f;
        bm25[i] = (i >= 320 && i < 336) || (i >= 640 && i < 656) ? 9.0f : 0.0f;
    }
    relevance_score(attention, bm25, N_MAX, scores);
    for (uint32_t i = 0; i < N_MAX; i++)
        if (i < 320 || i >= 336) assert_true(scores[i] < scores[325] / 2);
    relevance_score(attention, NULL, N_MAX, scores);
    assert_true(scores[805] == scores[325] && scores[805] > 2 * scores[650]);
    relevance_score(NULL, bm25, N_MAX, scores);
    assert_true(scores[650] == scores[325] && scores[650] > RELEVANCE_PEAK);
    assert_true(scores[805] == RELEVANCE_WORDS);
}

static void test_peak(void **state)
{
    const float some[] = {9, 1, 3, 2, 8};
    (void)state;
    assert_true(relevance_peak(some, 1, 4) == 3.0f);
    assert_true(relevance_peak(some, 0, 5) == 9.0f);
    assert_true(relevance_peak(some, 3, 3) == 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formula),
        cmocka_unit_test(test_both),
        cmocka_unit_test(test_peak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
