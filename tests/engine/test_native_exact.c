/*
 * test_native_exact: the promise of exact-1. Whatever the chunking of a prompt, the batch, the
 * threads, the level of the kernels, cuts and shared prefixes: the logits at a position are the
 * same to the last bit.
 *
 * Catches: any value that depends on its neighbours in a batch, on a page's former content, on who
 * computed it, or on positions counted from the wrong place. The models are random, made here, so
 * that every layer matters and nothing comes from outside.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "engine/native.h"
#include "kern/kern.h"
#include "support/tiny_model.h"

#ifdef __SANITIZE_ADDRESS__ /* ten times slower; memory is watched there, and bits in the release  \
                             */
enum { LENGTH = 270, SLOW_LENGTH = 75, CHUNK_STEP = 5, THREADS = 1, THREADS_BEST = 2 };
enum { BATCH = 64, BATCH_LENGTH = 20 };
#else
enum { LENGTH = 600, SLOW_LENGTH = 140, CHUNK_STEP = 1, THREADS = 2, THREADS_BEST = 4 };
enum { BATCH = 64, BATCH_LENGTH = 70 };
#endif
enum { SHARED = LENGTH / 2, OWN = LENGTH * 2 / 3 }; /* of a prefix, of who goes on from it */

static char paths[7][TINY_PATH_MAX];
enum { Q8, Q4, F32, F16, WIDE, MIXED, KV_Q8 /* with keys and values in 8 bits */, MODELS = 7 };

static struct engine *open_engine(const char *path, unsigned threads, const char *isa)
{
    struct native_options o = {
        .model_path = path, .threads = threads, .isa = isa, .context_max = 1024};
    o.kv_bytes_max = (uint64_t)64 << 20;
    if (path == paths[KV_Q8]) o.kv_type = NATIVE_KV_Q8_0;
    if (path == paths[F16]) o.kv_type = NATIVE_KV_F16;
    struct engine *e;
    struct err err;
    if (native_open(&o, &e, &err) != 0) fail_msg("%s", err.text);
    return e;
}

static struct session *open_session(struct engine *e)
{
    struct session *s;
    struct err err;
    assert_int_equal(engine_session_open(e, &s, &err), 0);
    return s;
}

static void fill(int32_t *tokens, uint32_t n, uint32_t vocab, uint64_t seed)
{
    struct rng r;
    rng_init(&r, seed, 5);
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)rng_below(&r, vocab);
}

/* The logits after every position, computed by the reference one token at a time. */
struct reference {
    struct engine *engine;
    uint32_t vocab, n;
    const int32_t *tokens;
    float *logits; /* [n, vocab] */
};

static void step(struct engine *e, struct engine_span *spans, uint32_t n)
{
    struct err err;
    if (engine_step(e, spans, n, &err) != 0) fail_msg("%s", err.text);
}

static struct reference reference_of(const char *path, const int32_t *tokens, uint32_t n)
{
    struct reference r = {.engine = open_engine(path, 1, "scalar"), .n = n, .tokens = tokens};
    r.vocab = engine_info(r.engine)->vocab_size;
    r.logits = mem_alloc((size_t)n * r.vocab * sizeof *r.logits);
    struct session *s = open_session(r.engine);
    for (uint32_t i = 0; i < n; i++) {
        struct engine_span span = {.session = s, .tokens = tokens + i, .n = 1, .sample = true};
        step(r.engine, &span, 1);
        memcpy(r.logits + (size_t)i * r.vocab, session_logits(s), r.vocab * sizeof *r.logits);
    }
    engine_session_close(s);
    engine_free(r.engine);
    return r;
}

static void expect_logits(const struct reference *r, const struct session *s, const char *what,
                          uint32_t detail)
{
    const float *want = r->logits + (size_t)(session_len(s) - 1) * r->vocab;
    if (memcmp(want, session_logits(s), r->vocab * sizeof *want) != 0)
        fail_msg("%s (%u): other logits at position %u", what, detail, session_len(s) - 1);
}

/* Append the reference's tokens up to position `end` in chunks, comparing after each. */
static void extend(struct engine *e, const struct reference *r, struct session *s, uint32_t end,
                   uint32_t chunk, const char *what)
{
    while (session_len(s) < end) {
        uint32_t at = session_len(s), left = end - at;
        struct engine_span span = {.session = s, .tokens = r->tokens + at, .sample = true};
        span.n = left < chunk ? left : chunk;
        step(e, &span, 1);
        expect_logits(r, s, what, chunk);
    }
}

static void test_chunks_threads_levels(void **state)
{
    static const uint32_t chunks[] = {1, 2, 3, 7, 16, 63, 64, 65, 128, 500};
    int32_t tokens[LENGTH];
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        fill(tokens, LENGTH, 300, 11);
        struct reference r = reference_of(paths[m], tokens, LENGTH);
        for (uint32_t l = 0; kern_at(l); l++) {
            /* Lower levels once or twice; the best with every number of threads. */
            for (unsigned threads = 1; threads <= (kern_at(l + 1) ? THREADS : THREADS_BEST);
                 threads++) {
                struct engine *e = open_engine(paths[m], threads, kern_at(l)->name);
                for (size_t c = threads - 1; c < sizeof chunks / sizeof *chunks; c += threads) {
                    struct session *s = open_session(e);
                    bool slow = l == 0 || chunks[c] < 16; /* many waits for threads */
                    extend(e, &r, s, slow ? SLOW_LENGTH : LENGTH, chunks[c], kern_at(l)->name);
                    engine_session_close(s);
                }
                engine_free(e);
            }
        }
        mem_free(r.logits);
    }
}

static void test_every_chunk_size(void **state)
{
    int32_t tokens[LENGTH];
    (void)state;
    fill(tokens, LENGTH, 300, 12);
    struct reference r = reference_of(paths[Q8], tokens, LENGTH);
    struct engine *e = open_engine(paths[Q8], 1, NULL);
    for (uint32_t chunk = 1; chunk <= 512; chunk += chunk < 130 ? 1 : CHUNK_STEP) {
        struct session *s = open_session(e);
        extend(e, &r, s, chunk + 70 < LENGTH ? chunk + 70 : LENGTH, chunk, "chunk");
        engine_session_close(s);
    }
    engine_free(e);
    mem_free(r.logits);
}

/* Steps over random subsets of 64 sequences with random spans. */
static void test_batches(void **state)
{
    static int32_t tokens[BATCH][BATCH_LENGTH];
    struct reference r[BATCH];
    struct session *s[BATCH];
    (void)state;
    for (int m = Q8; m < MODELS; m += 2) {
        struct engine *e = open_engine(paths[m], 2, NULL);
        struct rng rng;
        rng_init(&rng, 3, (uint64_t)m);
        for (uint32_t i = 0; i < BATCH; i++) {
            fill(tokens[i], BATCH_LENGTH, 300, 100 + i);
            r[i] = reference_of(paths[m], tokens[i], BATCH_LENGTH);
            s[i] = open_session(e);
        }
        for (uint32_t round = 0, size = 1; round < 400; round++, size = size % BATCH + 1) {
            struct engine_span spans[BATCH];
            uint32_t who[BATCH], n = 0;
            for (uint32_t i = 0; i < BATCH && n < size; i++) {
                uint32_t at = session_len(s[i]), left = BATCH_LENGTH - at;
                if (left == 0 || rng_below(&rng, BATCH) >= size) continue;
                uint32_t most = left < 8 ? left : 8;
                spans[n] = (struct engine_span){.session = s[i], .tokens = tokens[i] + at};
                spans[n].n = 1 + (rng_below(&rng, 2) ? rng_below(&rng, most) : 0);
                spans[n].sample = rng_below(&rng, 4) != 0;
                who[n++] = i;
            }
            if (n == 0) continue;
            step(e, spans, n);
            for (uint32_t i = 0; i < n; i++)
                if (spans[i].sample) expect_logits(&r[who[i]], s[who[i]], "batch", n);
        }
        for (uint32_t i = 0; i < BATCH; i++) {
            extend(e, &r[i], s[i], BATCH_LENGTH, 50, "end of a batch");
            engine_session_close(s[i]);
            mem_free(r[i].logits);
        }
        assert_int_equal(engine_kv_pages_free(e), engine_info(e)->kv_pages_total);
        engine_free(e);
    }
}

/* Every architecture with its features: the levels against the reference, chunks that cross the
 * window and the tiles, and many sequences in one step (experts see rows of all of them). */
static void test_architectures(void **state)
{
    enum { TOKENS = 200, SEQUENCES = 5 };
    static const uint32_t chunks[] = {1, 7, 64, 150};
    char path[TINY_PATH_MAX];
    int32_t tokens[TOKENS];
    (void)state;
    fill(tokens, TOKENS, 300, 17);
    for (uint32_t a = 0; tiny_arch(a); a++) {
        const char *name = tiny_arch(a)->arch;
        tiny_model_file(tiny_arch(a), path);
        struct reference r = reference_of(path, tokens, TOKENS);
        for (uint32_t l = 0; kern_at(l); l++) {
            struct engine *e = open_engine(path, 1 + l % 3, kern_at(l)->name);
            struct session *s[SEQUENCES];
            for (uint32_t i = 0; i < SEQUENCES; i++)
                s[i] = open_session(e);
            extend(e, &r, s[0], l ? TOKENS : 110, chunks[l % 4], name);
            for (uint32_t at = 0; at < TOKENS && l > 0; at += 25) {
                struct engine_span spans[SEQUENCES - 1];
                for (uint32_t i = 1; i < SEQUENCES; i++)
                    spans[i - 1] = (struct engine_span){
                        .session = s[i], .tokens = tokens + at, .n = 25, .sample = i % 2 == 1};
                step(e, spans, SEQUENCES - 1);
                expect_logits(&r, s[1], name, at);
                expect_logits(&r, s[3], name, at);
            }
            for (uint32_t i = 0; i < SEQUENCES; i++)
                engine_session_close(s[i]);
            engine_free(e);
        }
        mem_free(r.logits);
        unlink(path);
    }
}

/* Logits of a model of 300 tokens, its keys and values kept as `kv`, after 100 of them. */
static struct engine_info logits_with(enum native_kv kv, float logits[300])
{
    struct native_options o = {
        .model_path = paths[KV_Q8], .threads = 1, .context_max = 256, .kv_type = kv};
    struct engine *e;
    struct err err;
    int32_t tokens[100];
    fill(tokens, 100, 300, 4);
    assert_int_equal(native_open(&o, &e, &err), 0);
    struct engine_info info = *engine_info(e);
    struct session *s = open_session(e);
    struct engine_span span = {.session = s, .tokens = tokens, .n = 100, .sample = true};
    step(e, &span, 1);
    memcpy(logits, session_logits(s), 300 * sizeof *logits);
    engine_session_close(s);
    engine_free(e);
    return info;
}

/* The largest square of a difference. */
static float distance(const float a[300], const float b[300])
{
    float worst = 0.0f;
    for (uint32_t i = 0; i < 300; i++) {
        float d = a[i] - b[i];
        worst = d * d > worst ? d * d : worst;
    }
    return worst;
}

/* Each kind of KV memory has its size, its numerics and near values; int16 is the usual one, and
 * not every head size can be kept as every kind. */
static void test_kv_types(void **state)
{
    float f16[300], q8[300], i16[300], usual[300];
    struct engine_info a = logits_with(NATIVE_KV_F16, f16), b = logits_with(NATIVE_KV_Q8_0, q8),
                       c = logits_with(NATIVE_KV_I16, i16), d = logits_with(NATIVE_KV_AUTO, usual);
    (void)state;
    assert_string_equal(a.numerics, "exact-1");
    assert_string_equal(b.numerics, "exact-1-kvq8");
    assert_string_equal(c.numerics, "exact-1-kvi16");
    assert_string_equal(d.numerics, "exact-1-kvi16");
    assert_int_equal(b.kv_bytes_per_token * 32, a.kv_bytes_per_token * 17);
    assert_int_equal(c.kv_bytes_per_token * 32, a.kv_bytes_per_token * 34); /* heads of 32 */
    assert_memory_equal(i16, usual, sizeof usual);
    assert_true(distance(f16, q8) > 0.0f && distance(f16, q8) < 0.05f);
    assert_true(distance(f16, i16) > 0.0f && distance(f16, i16) < 0.02f);
    struct native_options o = {.model_path = paths[Q8], .kv_type = NATIVE_KV_Q8_0};
    struct engine *e;
    struct err err;
    assert_int_equal(native_open(&o, &e, &err), ERR_UNSUPPORTED); /* heads of 16 */
    assert_non_null(strstr(err.text, "16"));
    assert_non_null(strstr(err.text, "q8_0"));
}

/* Heads of 8 values are kept in float16, unless another kind is asked for. */
static void test_small_heads(void **state)
{
    struct tiny_options tiny = TINY_DEFAULT;
    char path[TINY_PATH_MAX];
    struct engine *e;
    struct err err;
    (void)state;
    tiny.head_dim = 8;
    tiny_model_file(&tiny, path);
    struct native_options o = {.model_path = path, .threads = 1, .context_max = 128};
    assert_int_equal(native_open(&o, &e, &err), 0);
    assert_string_equal(engine_info(e)->numerics, "exact-1");
    engine_free(e);
    o.kv_type = NATIVE_KV_I16;
    assert_int_equal(native_open(&o, &e, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "i16"));
    unlink(path);
}

/* Forget a part, append something else, forget that, append the old tokens again. */
static void test_cut_and_extend(void **state)
{
    int32_t tokens[LENGTH], others[LENGTH];
    (void)state;
    fill(tokens, LENGTH, 300, 13);
    fill(others, LENGTH, 300, 14);
    struct reference r = reference_of(paths[Q8], tokens, LENGTH);
    struct engine *e = open_engine(paths[Q8], 2, NULL);
    struct session *s = open_session(e);
    struct rng rng;
    rng_init(&rng, 8, 8);
    for (int round = 0; round < 60; round++) {
        uint32_t end = 1 + rng_below(&rng, LENGTH), keep = rng_below(&rng, end);
        if (session_len(s) > end) session_cut(s, end);
        extend(e, &r, s, end, 1 + rng_below(&rng, 300), "before a cut");
        session_cut(s, keep);
        struct engine_span span = {.session = s, .tokens = others};
        span.n = 1 + rng_below(&rng, LENGTH - keep);
        if (span.n > 512) span.n = 512;
        step(e, &span, 1);
        session_cut(s, keep);
        extend(e, &r, s, end, 64, "after a cut");
        assert_memory_equal(session_tokens(s), tokens, end * sizeof *tokens);
    }
    session_cut(s, 0);
    assert_int_equal(engine_kv_pages_free(e), engine_info(e)->kv_pages_total);
    engine_session_close(s);
    engine_free(e);
    mem_free(r.logits);
}

/* A shared prefix gives the logits of an own one, and neither side's tokens reach the other. */
static void test_shared_prefix(void **state)
{
    static const uint32_t prefixes[] = {0, 1, 63, 64, 65, 127, 128, LENGTH / 3, SHARED};
    int32_t tokens[LENGTH], others[LENGTH];
    struct err err;
    (void)state;
    fill(tokens, LENGTH, 300, 15);
    fill(others, LENGTH, 300, 16);
    struct reference r = reference_of(paths[MIXED], tokens, OWN);
    struct engine *e = open_engine(paths[MIXED], 2, NULL);
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        struct session *a = open_session(e), *b = open_session(e), *c = open_session(e);
        extend(e, &r, a, SHARED, 100, "the first owner");
        assert_int_equal(session_share(b, a, prefixes[i], &err), 0);
        assert_int_equal(session_share(c, b, prefixes[i] / 2, &err), 0);
        assert_memory_equal(session_tokens(b), tokens, prefixes[i] * sizeof *tokens);
        /* All three cut back into a shared page and go on with tokens of their own. */
        uint32_t keep = prefixes[i] / 2;
        session_cut(b, keep);
        session_cut(a, prefixes[i] / 3);
        struct engine_span spans[] = {{.session = b, .tokens = others, .n = 90},
                                      {.session = a, .tokens = others + 90, .n = 40}};
        step(e, spans, 2);
        extend(e, &r, c, OWN, 77, "the third owner");
        session_cut(b, keep);
        extend(e, &r, b, OWN, 77, "the second owner");
        session_cut(a, prefixes[i] / 3);
        extend(e, &r, a, OWN, 77, "the first owner again");
        engine_session_close(a);
        engine_session_close(b);
        engine_session_close(c);
        assert_int_equal(engine_kv_pages_free(e), engine_info(e)->kv_pages_total);
    }
    engine_free(e);
    mem_free(r.logits);
}

static int write_models(void **state)
{
    struct tiny_options o = TINY_DEFAULT;
    (void)state;
    tiny_model_file(&o, paths[Q8]);
    o.type = GGUF_Q4_0;
    o.tied = true;
    tiny_model_file(&o, paths[Q4]);
    o.type = GGUF_F16;
    o.rope_factors = true;
    tiny_model_file(&o, paths[F16]);
    o = (struct tiny_options){.type = GGUF_F32,
                              .vocab = 301,
                              .dim = 50,
                              .layers = 2,
                              .ff = 45,
                              .heads = 5,
                              .kv_heads = 5,
                              .context = 512,
                              .seed = 2};
    tiny_model_file(&o, paths[F32]);
    o = (struct tiny_options)TINY_DEFAULT;
    o.mixed = true;
    tiny_model_file(&o, paths[MIXED]);
    o = (struct tiny_options){.type = GGUF_Q8_0,
                              .vocab = 333,
                              .dim = 96,
                              .layers = 2,
                              .ff = 160,
                              .heads = 6,
                              .kv_heads = 1,
                              .head_dim = 80,
                              .context = 512,
                              .tied = true,
                              .rope_factors = true,
                              .seed = 3};
    tiny_model_file(&o, paths[WIDE]);
    o = (struct tiny_options)TINY_DEFAULT;
    o.head_dim = 32;
    tiny_model_file(&o, paths[KV_Q8]);
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    for (int m = 0; m < MODELS; m++)
        unlink(paths[m]);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_threads_levels),
        cmocka_unit_test(test_every_chunk_size),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_architectures),
        cmocka_unit_test(test_kv_types),
        cmocka_unit_test(test_small_heads),
        cmocka_unit_test(test_cut_and_extend),
        cmocka_unit_test(test_shared_prefix),
    };
    return cmocka_run_group_tests(tests, write_models, remove_models);
}
