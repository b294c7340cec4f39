/*
 * test_native_arch: every architecture computes its formulas. A tiny model of each, made here, runs
 * through the engine and through the reference in double precision (support/reference.h), which
 * rounds keys and values as exact-1 does and shares nothing with the engine but the readers.
 *
 * Catches: a feature of an architecture that is left out, put in the wrong place or read from the
 * wrong key: norms, biases, scales, caps, windows, angles, experts. The weights are F32, so that
 * differences are those of float sums, but for values that fall on the other side of a half when
 * they become float16; the bound leaves room for those and for no feature.
 *
 * And: two files that compute different values must not have the same digest, or a handover between
 * them would be called exact.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/rng.h"
#include "engine/native.h"
#include "support/reference.h"
#include "support/tiny_model.h"

enum { TOKENS = 180 };

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

/* Log-probabilities after each token, [n, vocab]; mem_free them. */
static double *engine_logprobs(const char *path, const int32_t *tokens, uint32_t n)
{
    struct native_options o = {
        .model_path = path, .threads = 1, .context_max = 1024, .kv_type = NATIVE_KV_F16};
    struct engine *e;
    struct session *s;
    struct err err;
    if (native_open(&o, &e, &err) != 0) fail_msg("%s", err.text);
    assert_int_equal(engine_session_open(e, &s, &err), 0);
    uint32_t vocab = engine_info(e)->vocab_size;
    double *logprobs = mem_alloc((size_t)n * vocab * sizeof *logprobs);
    assert_non_null(logprobs);
    for (uint32_t i = 0; i < n; i++) {
        struct engine_span span = {.session = s, .tokens = tokens + i, .n = 1, .sample = true};
        if (engine_step(e, &span, 1, &err) != 0) fail_msg("%s", err.text);
        log_softmax(session_logits(s), vocab, logprobs + (size_t)i * vocab);
    }
    engine_session_close(s);
    engine_free(e);
    return logprobs;
}

static void fill(int32_t tokens[TOKENS])
{
    struct rng r;
    rng_init(&r, 4, 4);
    for (uint32_t i = 0; i < TOKENS; i++)
        tokens[i] = (int32_t)rng_below(&r, 300);
}

static void test_formulas(void **state)
{
    int32_t tokens[TOKENS];
    char path[TINY_PATH_MAX];
    (void)state;
    fill(tokens);
    for (uint32_t a = 0; tiny_arch(a); a++) {
        struct tiny_options o = *tiny_arch(a);
        o.type = GGUF_F32;
        tiny_model_file(&o, path);
        double *ours = engine_logprobs(path, tokens, TOKENS), worst = 0.0;
        struct reference_model *m = reference_open(path);
        size_t n = (size_t)TOKENS * reference_vocab(m);
        double *other = mem_alloc(n * sizeof *other);
        reference_logprobs(m, REFERENCE_EXACT_1, tokens, TOKENS, other);
        for (size_t i = 0; i < n; i++)
            worst = fmax(worst, fabs(ours[i] - other[i]));
        print_message("%s%s: %.6f\n", o.arch, o.experts ? " with experts" : "", worst);
        assert_true(worst < 0.03);
        reference_close(m);
        mem_free(other);
        mem_free(ours);
        unlink(path);
    }
}

static void hash_of(const void *bytes, size_t n, uint32_t context, char hash[ENGINE_HASH_TEXT])
{
    char path[TINY_PATH_MAX] = "/tmp/pdd_tiny_hash";
    struct native_options o = {.model_path = path, .threads = 1, .context_max = context};
    struct engine *e;
    struct err err;
    assert_int_equal(os_write_file(path, bytes, n, &err), 0);
    if (native_open(&o, &e, &err) != 0) fail_msg("%s", err.text);
    snprintf(hash, ENGINE_HASH_TEXT, "%s", engine_info(e)->weights_hash);
    engine_free(e);
    unlink(path);
}

/* Change the value of one key, 4 bytes behind its name and type, at a time. */
static void test_hash(void **state)
{
    static const struct {
        uint32_t arch;
        const char *key;
        float real; /* or */
        uint32_t whole;
    } changes[] = {{0, "llama.attention.layer_norm_rms_epsilon", 1e-6f, 0},
                   {2, "qwen3.rope.scaling.factor", 5.0f, 0},
                   {2, "qwen3.rope.scaling.original_context_length", 0, 400},
                   {3, "gemma2.attn_logit_softcapping", 6.0f, 0},
                   {3, "gemma2.final_logit_softcapping", 6.0f, 0},
                   {3, "gemma2.attention.sliding_window", 0, 41},
                   {4, "gemma3.rope.freq_base", 2e6f, 0},
                   {5, "phi3.rope.scaling.attn_factor", 1.2f, 0},
                   {7, "granite.embedding_scale", 3.0f, 0},
                   {7, "granite.residual_scale", 0.3f, 0},
                   {7, "granite.attention.scale", 0.25f, 0},
                   {7, "granite.logit_scale", 3.0f, 0},
                   {8, "qwen3moe.expert_used_count", 0, 2}};
    (void)state;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct buf b;
        char before[ENGINE_HASH_TEXT], after[ENGINE_HASH_TEXT];
        buf_init(&b, (size_t)1 << 30);
        tiny_model_bytes(tiny_arch(changes[i].arch), &b);
        hash_of(b.data, b.len, 0, before);
        uint8_t *at = memmem(b.data, b.len, changes[i].key, strlen(changes[i].key));
        assert_non_null(at);
        const void *value =
            changes[i].whole ? (const void *)&changes[i].whole : (const void *)&changes[i].real;
        memcpy(at + strlen(changes[i].key) + 4, value, 4);
        hash_of(b.data, b.len, 0, after);
        if (strcmp(before, after) == 0) fail_msg("%s is not in the digest", changes[i].key);
        buf_release(&b);
    }
}

/* phi3's factors depend on the context, and then so does the digest; nobody else's does. */
static void test_long_context(void **state)
{
    (void)state;
    for (uint32_t a = 0; tiny_arch(a); a++) {
        struct buf b;
        char small[ENGINE_HASH_TEXT], large[ENGINE_HASH_TEXT];
        buf_init(&b, (size_t)1 << 30);
        tiny_model_bytes(tiny_arch(a), &b);
        hash_of(b.data, b.len, 512, small);
        hash_of(b.data, b.len, 513, large);
        assert_int_equal(strcmp(small, large) != 0, tiny_arch(a)->long_factors);
        buf_release(&b);
    }
}

/* Change bytes of keys and tensor heads: an error that says something, or a model that runs. */
static void test_mutations(void **state)
{
    char path[TINY_PATH_MAX] = "/tmp/pdd_tiny_bad";
    struct native_options o = {.model_path = path, .threads = 1, .context_max = 64};
    uint32_t opened = 0;
    struct rng rng;
    (void)state;
    rng_init(&rng, 22, 0);
    for (uint32_t a = 0; tiny_arch(a); a++) {
        struct buf b;
        struct err err = ERR_INIT;
        buf_init(&b, (size_t)1 << 30);
        tiny_model_bytes(tiny_arch(a), &b);
        size_t keys = (size_t)((char *)memmem(b.data, b.len, "tokenizer.ggml", 14) - b.data);
        size_t heads = (size_t)((char *)memmem(b.data, b.len, "token_embd", 10) - b.data);
        for (int round = 0; round < 80; round++) {
            size_t at = round % 2 ? rng_below(&rng, (uint32_t)keys) : heads + rng_below(&rng, 1800);
            char was = b.data[at];
            struct engine *e;
            struct session *s;
            b.data[at] = (char)rng_next(&rng);
            assert_int_equal(os_write_file(path, b.data, b.len, &err), 0);
            b.data[at] = was;
            if (native_open(&o, &e, &err) != 0) {
                assert_true(err.text[0] != 0);
                continue;
            }
            opened++;
            assert_int_equal(engine_session_open(e, &s, &err), 0);
            struct engine_span span = {
                .session = s, .tokens = (int32_t[]){1, 2, 3}, .n = 3, .sample = true};
            engine_step(e, &span, 1, &err);
            engine_session_close(s);
            engine_free(e);
        }
        buf_release(&b);
    }
    assert_true(opened > 0);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_formulas), cmocka_unit_test(test_hash),
                                       cmocka_unit_test(test_long_context),
                                       cmocka_unit_test(test_mutations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
