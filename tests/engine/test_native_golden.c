/*
 * test_native_golden: the native engine against what llama.cpp computed for the same files.
 *
 * Catches: a forward pass that is wrong in any of its parts (norm, rotation, grouped heads, gate,
 * tied head, weight layout), which the bit-for-bit tests against ourselves cannot see.
 *
 * The recorded tokens are fed and the log-probabilities of the 8 recorded ids compared at each
 * step. The golden files leave out steps whose token is part of a UTF-8 character, so steps are
 * matched to tokens in order, by the best alignment of equal ids.
 *
 * Comparisons, because exact-1 rounds elsewhere than llama.cpp does (KV cache, activations):
 *   recorded   the reference (support/reference.h), rounding as llama.cpp, against the records: the
 *              formulas are llama.cpp's
 *   computed   the engine against the reference rounding as exact-1, all ids of all positions: the
 *              engine computes these formulas
 *   both       the engine against the records: what the difference of roundings amounts to
 *   usual      the same with keys and values as an engine keeps them when not asked (int16), which
 *              may be no further off
 * Each as the largest difference, and `close`, the share of rows (recorded) or positions (computed)
 * that stay within 1e-3.
 *
 * Why not 1e-3 throughout: where values are rounded (float16 keys and values, 8-bit activations), a
 * difference in the last bit of a float32 sum now and then falls on the other side of a half, and
 * from there on the whole sequence differs by one step of the rounding. Rows and positions before
 * the first such step agree to 1e-5 for F32, Q8_0 and Q4_0. llama.cpp adds F16 products in float16
 * on CPUs that can, ours agree with the reference (docs/decisions/0004). The bounds are about twice
 * what was measured.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/mem.h"
#include "engine/native.h"
#include "support/reference.h"

enum { TOKENS_MAX = 256, STEPS_MAX = 64 };

struct row {
    int32_t tokens[TOKENS_MAX]; /* the prompt, then what was generated */
    uint32_t n_prompt, n_tokens, n_steps, vocab;
    json_t *steps;
};

/* Largest differences of a log-probability, and shares within CLOSE. */
struct differences {
    double recorded, recorded_close, computed, computed_close, both;
};

#define CLOSE 1e-3

static uint32_t read_ids(const json_t *list, int32_t *ids, uint32_t max)
{
    uint32_t n = (uint32_t)json_array_size(list);
    assert_true(n <= max);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return n;
}

static void log_softmax(const float *logits, uint32_t n, double *out)
{
    double max = (double)logits[0], sum = 0.0;
    for (uint32_t i = 0; i < n; i++)
        max = fmax(max, (double)logits[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    for (uint32_t i = 0; i < n; i++)
        out[i] = (double)logits[i] - max - log(sum);
}

/* Feed all tokens one by one; [n_tokens, vocab]. */
static void run_engine(struct engine *e, const struct row *r, double *logprobs)
{
    struct session *s;
    struct err err;
    assert_int_equal(engine_session_open(e, &s, &err), 0);
    for (uint32_t i = 0; i < r->n_tokens; i++) {
        struct engine_span span = {.session = s, .tokens = &r->tokens[i], .n = 1, .sample = true};
        if (engine_step(e, &span, 1, &err) != 0) fail_msg("%s", err.text);
        double *row = logprobs + (size_t)i * r->vocab;
        log_softmax(session_logits(s), r->vocab, row);
        assert_true(fabs((double)span.next_logprob - row[span.next]) < 1e-5);
    }
    engine_session_close(s);
}

/* The largest difference over the ids recorded for the token after position `at`. */
static double step_difference(const struct row *r, const double *logprobs, uint32_t at,
                              uint32_t step)
{
    const json_t *top = json_object_get(json_array_get(r->steps, step), "top");
    double worst = 0.0;
    assert_int_equal(json_array_size(top), 8);
    for (size_t i = 0; i < json_array_size(top); i++) {
        const json_t *pair = json_array_get(top, i);
        json_int_t id = json_integer_value(json_array_get(pair, 0));
        double want = json_number_value(json_array_get(pair, 1));
        assert_in_range(id, 0, r->vocab - 1);
        worst = fmax(worst, fabs(logprobs[(size_t)at * r->vocab + (size_t)id] - want));
    }
    return worst;
}

static bool same_id(const struct row *r, uint32_t token, uint32_t step)
{
    const json_t *id = json_object_get(json_array_get(r->steps, step), "id");
    return json_integer_value(id) == r->tokens[token];
}

/* best[j]: the smallest possible worst difference when the first j steps are matched. */
static double row_difference(const struct row *r, const double *logprobs)
{
    double best[STEPS_MAX + 1];
    assert_in_range(r->n_steps, 1, STEPS_MAX);
    for (uint32_t j = 0; j <= r->n_steps; j++)
        best[j] = j == 0 ? 0.0 : INFINITY;
    for (uint32_t i = r->n_prompt; i < r->n_tokens; i++)
        for (uint32_t j = r->n_steps; j > 0; j--)
            if (same_id(r, i, j - 1) && isfinite(best[j - 1]))
                best[j] =
                    fmin(best[j], fmax(best[j - 1], step_difference(r, logprobs, i - 1, j - 1)));
    return best[r->n_steps];
}

static void compare_row(struct engine *e, const struct reference_model *m, const struct row *r,
                        struct differences *worst)
{
    size_t n = (size_t)r->n_tokens * r->vocab;
    double *ours = mem_alloc(n * sizeof *ours), *other = mem_alloc(n * sizeof *other);
    assert_true(ours && other);
    run_engine(e, r, ours);
    worst->both = fmax(worst->both, row_difference(r, ours));
    reference_logprobs(m, REFERENCE_LLAMA_CPP, r->tokens, r->n_tokens, other);
    double recorded = row_difference(r, other);
    worst->recorded = fmax(worst->recorded, recorded);
    worst->recorded_close += recorded <= CLOSE;
    reference_logprobs(m, REFERENCE_EXACT_1, r->tokens, r->n_tokens, other);
    for (uint32_t i = 0; i < r->n_tokens; i++) {
        double at = 0.0;
        for (size_t k = (size_t)i * r->vocab; k < (size_t)(i + 1) * r->vocab; k++)
            at = fmax(at, fabs(ours[k] - other[k]));
        worst->computed = fmax(worst->computed, at);
        worst->computed_close += at <= CLOSE ? 1.0 / r->n_tokens : 0.0;
    }
    mem_free(ours);
    mem_free(other);
}

static double usual_difference(struct engine *usual, const struct row *r)
{
    double *ours = mem_alloc((size_t)r->n_tokens * r->vocab * sizeof *ours);
    assert_non_null(ours);
    run_engine(usual, r, ours);
    double difference = row_difference(r, ours);
    mem_free(ours);
    return difference;
}

static struct differences compare(struct engine *e, struct engine *usual,
                                  const struct reference_model *m, const json_t *root,
                                  double *ret_usual)
{
    const json_t *rows = json_object_get(root, "rows");
    struct differences worst = {0};
    assert_true(json_array_size(rows) > 0);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        struct row r = {.vocab = engine_info(e)->vocab_size};
        r.n_prompt = read_ids(json_object_get(row, "prompt_tokens"), r.tokens, TOKENS_MAX);
        r.n_tokens = r.n_prompt + read_ids(json_object_get(row, "tokens"), r.tokens + r.n_prompt,
                                           TOKENS_MAX - r.n_prompt);
        r.steps = json_object_get(row, "steps");
        r.n_steps = (uint32_t)json_array_size(r.steps);
        compare_row(e, m, &r, &worst);
        *ret_usual = fmax(*ret_usual, usual_difference(usual, &r));
    }
    worst.recorded_close /= (double)json_array_size(rows);
    worst.computed_close /= (double)json_array_size(rows);
    return worst;
}

static void check_file(const char *model, const char *golden, struct differences bound)
{
    char model_path[512], golden_path[512];
    struct stat st;
    snprintf(model_path, sizeof model_path, PDD_SOURCE_DIR "/../shared/%s", model);
    snprintf(golden_path, sizeof golden_path, PDD_SOURCE_DIR "/../shared/%s", golden);
    if (stat(model_path, &st) != 0 || stat(golden_path, &st) != 0) skip();
    json_t *root = json_load_file(golden_path, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    struct native_options o = {
        .model_path = model_path, .threads = 1, .context_max = 512, .kv_type = NATIVE_KV_F16};
    struct engine *e, *usual;
    struct err err;
    if (native_open(&o, &e, &err) != 0) fail_msg("%s", err.text);
    o.kv_type = NATIVE_KV_AUTO;
    if (native_open(&o, &usual, &err) != 0) fail_msg("%s", err.text);
    struct reference_model *m = reference_open(model_path);
    double usual_worst = 0.0;
    struct differences worst = compare(e, usual, m, root, &usual_worst);
    print_message("%s: recorded %.5f (%.0f %% of rows close), computed %.5f (%.0f %% of positions "
                  "close), both %.5f, usual %.5f\n",
                  model, worst.recorded, 100.0 * worst.recorded_close, worst.computed,
                  100.0 * worst.computed_close, worst.both, usual_worst);
    assert_true(usual_worst <= bound.both);
    assert_true(worst.recorded <= bound.recorded);
    assert_true(worst.recorded_close >= bound.recorded_close);
    assert_true(worst.computed <= bound.computed);
    assert_true(worst.computed_close >= bound.computed_close);
    assert_true(worst.both <= bound.both);
    reference_close(m);
    engine_free(e);
    engine_free(usual);
    json_decref(root);
}

static void test_stories260k(void **state)
{
    (void)state;
    check_file("models/stories260K.gguf", "golden/stories260K.json",
               (struct differences){1e-4, 1.0, 0.03, 0.2, 0.015});
}

static void test_tinystories_656k(void **state)
{
    (void)state;
    check_file("models/TinyStories-656K-F32.gguf", "golden/TinyStories-656K-F32.json",
               (struct differences){1e-4, 1.0, 0.03, 0.5, 0.015});
}

static void test_random_f16(void **state)
{
    (void)state;
    check_file("golden/random/llama-F16.gguf", "golden/random/llama-F16.json",
               (struct differences){0.06, 0.0, 0.01, 0.5, 0.06});
}

static void test_random_qwen2(void **state)
{
    (void)state;
    check_file("golden/random/qwen2-F16.gguf", "golden/random/qwen2-F16.json",
               (struct differences){0.06, 0.0, 0.01, 0.5, 0.06});
}

static void test_random_qwen3(void **state)
{
    (void)state;
    check_file("golden/random/qwen3-F16.gguf", "golden/random/qwen3-F16.json",
               (struct differences){0.06, 0.0, 0.01, 0.5, 0.06});
}

static void test_random_gemma3(void **state)
{
    (void)state;
    check_file("golden/random/gemma3-F16.gguf", "golden/random/gemma3-F16.json",
               (struct differences){0.0015, 1.0, 0.001, 1.0, 0.0015});
}

static void test_random_q8_0(void **state)
{
    (void)state;
    check_file("golden/random/llama-Q8_0.gguf", "golden/random/llama-Q8_0.json",
               (struct differences){0.3, 0.25, 0.5, 0.4, 0.4});
}

static void test_random_q4_0(void **state)
{
    (void)state;
    check_file("golden/random/llama-Q4_0.gguf", "golden/random/llama-Q4_0.json",
               (struct differences){0.3, 0.25, 0.5, 0.4, 0.4});
}

/* llama.cpp multiplies K-quants with activations of one scale for 256 values, exact-1 with one for
 * 32: the coarser rounding makes `both` about twice that of Q8_0 (measured: 0.53 and 0.38), while
 * `recorded` and `computed`, where the reference rounds as either side does, are as for Q8_0. */
static void test_random_q4_k_m(void **state)
{
    (void)state;
    check_file("golden/random/llama-Q4_K_M.gguf", "golden/random/llama-Q4_K_M.json",
               (struct differences){0.4, 0.25, 0.5, 0.4, 1.0});
}

static void test_random_q6_k(void **state)
{
    (void)state;
    check_file("golden/random/llama-Q6_K.gguf", "golden/random/llama-Q6_K.json",
               (struct differences){0.3, 0.25, 0.5, 0.4, 0.8});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stories260k),   cmocka_unit_test(test_tinystories_656k),
        cmocka_unit_test(test_random_f16),    cmocka_unit_test(test_random_qwen2),
        cmocka_unit_test(test_random_qwen3),  cmocka_unit_test(test_random_gemma3),
        cmocka_unit_test(test_random_q8_0),   cmocka_unit_test(test_random_q4_0),
        cmocka_unit_test(test_random_q4_k_m), cmocka_unit_test(test_random_q6_k),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
