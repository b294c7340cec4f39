/*
 * test_native_score: scores of a prompt's positions are the same bits for any chunking, batch,
 * number of threads, level, kind of KV cache and shared prefix.
 *
 * Catches: a bitmap of refinement that depends on who computed it; scores of a window that was
 * computed in part only; answers that change because somebody asks for scores; queries that count
 * twice or not at all.
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

enum { PROMPT = 230, ANSWER = 9, ALL = PROMPT + ANSWER };

static int32_t tokens[ALL], others[ALL];

static struct engine *open_engine(const char *path, unsigned threads, const char *isa,
                                  enum native_kv kv)
{
    struct native_options o = {.model_path = path,
                               .threads = threads,
                               .isa = isa,
                               .context_max = 512,
                               .kv_bytes_max = (uint64_t)64 << 20,
                               .kv_type = kv};
    struct engine *e;
    struct err err;
    if (native_open(&o, &e, &err) != 0) fail_msg("%s", err.text);
    return e;
}

static struct session *open_scored(struct engine *e)
{
    struct session *s;
    struct err err;
    assert_int_equal(engine_session_open(e, &s, &err), 0);
    assert_int_equal(session_score(s, engine_score_from(PROMPT, PROMPT), PROMPT, &err), 0);
    assert_null(session_scores(s));
    return s;
}

static void append(struct session *s, struct engine *e, uint32_t end, uint32_t chunk)
{
    struct err err;
    while (session_len(s) < end) {
        uint32_t at = session_len(s), left = end - at;
        struct engine_span span = {
            .session = s, .tokens = tokens + at, .n = left < chunk ? left : chunk};
        span.sample = at + span.n >= PROMPT;
        if (engine_step(e, &span, 1, &err) != 0) fail_msg("%s", err.text);
        if (at + span.n < PROMPT) assert_null(session_scores(s));
    }
}

/* The scores at the end of the prompt, and after the answer. */
struct scores {
    float prompt[PROMPT], answer[PROMPT];
};

static void read_scores(struct session *s, struct engine *e, uint32_t chunk, struct scores *ret)
{
    append(s, e, PROMPT, chunk);
    assert_non_null(session_scores(s));
    memcpy(ret->prompt, session_scores(s), sizeof ret->prompt);
    append(s, e, ALL, chunk);
    memcpy(ret->answer, session_scores(s), sizeof ret->answer);
}

static void expect_same(const struct scores *want, const struct scores *got, const char *what,
                        uint32_t detail)
{
    for (uint32_t i = 0; i < PROMPT; i++)
        if (memcmp(&want->prompt[i], &got->prompt[i], 4) != 0 ||
            memcmp(&want->answer[i], &got->answer[i], 4) != 0)
            fail_msg("%s (%u): another score at position %u", what, detail, i);
}

/* By the reference, one token at a time. */
static struct scores reference_of(const char *path, enum native_kv kv)
{
    struct scores r;
    struct engine *e = open_engine(path, 1, "scalar", kv);
    struct session *s = open_scored(e);
    float most = 0.0f;
    read_scores(s, e, 1, &r);
    for (uint32_t i = 0; i < PROMPT; i++) {
        assert_true(r.prompt[i] > 0.0f && r.answer[i] >= r.prompt[i] && r.answer[i] <= 1.0f);
        most = r.answer[i] > r.prompt[i] ? 1.0f : most;
    }
    assert_true(most > 0.0f); /* tokens of the answer count */
    engine_session_close(s);
    engine_free(e);
    return r;
}

/* `by`: every chunk size, or every by-th. */
static void check_chunks(const char *path, enum native_kv kv, size_t by, const char *what)
{
    static const uint32_t chunks[] = {1, 3, 7, 64, 65, 100, 512};
    struct scores want = reference_of(path, kv), got;
    for (uint32_t l = 0; kern_at(l); l++) {
        for (unsigned threads = 1; threads <= (kern_at(l + 1) ? 1 : 4); threads += 1 + l % 2) {
            struct engine *e = open_engine(path, threads, kern_at(l)->name, kv);
            for (size_t c = l == 0 ? 4 : 0; c < sizeof chunks / sizeof *chunks; c += by) {
                struct session *s = open_scored(e);
                read_scores(s, e, chunks[c], &got);
                expect_same(&want, &got, what, chunks[c]);
                engine_session_close(s);
            }
            engine_free(e);
        }
    }
}

static void test_kinds_of_cache(void **state)
{
    struct tiny_options o = TINY_DEFAULT;
    char path[TINY_PATH_MAX];
    (void)state;
    o.head_dim = 32;
    tiny_model_file(&o, path);
    check_chunks(path, NATIVE_KV_F16, 1, "f16");
    check_chunks(path, NATIVE_KV_Q8_0, 1, "q8_0");
    check_chunks(path, NATIVE_KV_I16, 1, "i16");
    unlink(path);
}

/* Windows, caps, shared heads, experts: each architecture that has a layer which sees everything.
 */
static void test_architectures(void **state)
{
    char path[TINY_PATH_MAX];
    uint32_t scored = 0, refused = 0;
    (void)state;
    for (uint32_t a = 0; tiny_arch(a); a++) {
        struct session *s;
        struct err err;
        tiny_model_file(tiny_arch(a), path);
        struct engine *e = open_engine(path, 1, NULL, NATIVE_KV_AUTO);
        assert_int_equal(engine_session_open(e, &s, &err), 0);
        int code = session_score(s, engine_score_from(PROMPT, PROMPT), PROMPT, &err);
        engine_session_close(s);
        engine_free(e);
        if (code == 0) check_chunks(path, NATIVE_KV_AUTO, 3, tiny_arch(a)->arch);
        scored += code == 0;
        refused += code == ERR_UNSUPPORTED;
        assert_true(code == 0 || strstr(err.text, "no layer"));
        unlink(path);
    }
    assert_true(scored >= 8);
    assert_true(scored + refused > 8);
}

/* Several scored prompts in one step, beside others that are not; a prompt whose beginning is
 * shared; and logits as if nobody asked. */
static void test_batches_and_prefixes(void **state)
{
    struct tiny_options o = TINY_DEFAULT;
    char path[TINY_PATH_MAX];
    struct err err;
    (void)state;
    tiny_model_file(&o, path);
    struct scores want = reference_of(path, NATIVE_KV_AUTO), got;
    struct engine *e = open_engine(path, 3, NULL, NATIVE_KV_AUTO);
    struct session *a = open_scored(e), *b = open_scored(e), *plain;
    assert_int_equal(engine_session_open(e, &plain, &err), 0);
    append(b, e, 3, 3);
    for (uint32_t at = 0; at < PROMPT; at += 23) {
        struct engine_span spans[] = {{.session = plain, .tokens = others + at, .n = 23},
                                      {.session = a, .tokens = tokens + at, .n = 23},
                                      {.session = b, .tokens = tokens + at + 3, .n = 23}};
        if (at + 26 > PROMPT) spans[2].n = PROMPT - at - 3;
        assert_int_equal(engine_step(e, spans, 3, &err), 0);
    }
    read_scores(a, e, 5, &got);
    expect_same(&want, &got, "batch", 0);
    read_scores(b, e, 1, &got);
    expect_same(&want, &got, "batch", 1);
    for (uint32_t n = 1; n <= PROMPT - ENGINE_SCORE_WINDOW; n += 33) {
        struct session *c = open_scored(e);
        assert_int_equal(session_share(c, a, n, &err), 0);
        read_scores(c, e, 40, &got);
        expect_same(&want, &got, "prefix", n);
        engine_session_close(c);
    }
    float logits[300];
    session_cut(a, 0);
    session_cut(plain, 0);
    append(a, e, ALL, 64);
    memcpy(logits, session_logits(a), sizeof logits);
    append(plain, e, ALL, 64);
    assert_memory_equal(logits, session_logits(plain), sizeof logits);
    engine_session_close(a);
    engine_session_close(b);
    engine_session_close(plain);
    engine_free(e);
    unlink(path);
}

/* Cuts before the window begin anew; in it the scores are lost, as with a part that is adopted. */
static void test_cuts(void **state)
{
    struct tiny_options o = TINY_DEFAULT;
    char path[TINY_PATH_MAX];
    struct err err;
    (void)state;
    tiny_model_file(&o, path);
    struct scores want = reference_of(path, NATIVE_KV_AUTO), got;
    struct engine *e = open_engine(path, 2, NULL, NATIVE_KV_AUTO);
    struct session *s = open_scored(e), *t = open_scored(e);
    read_scores(s, e, 50, &got);
    session_cut(s, PROMPT - ENGINE_SCORE_WINDOW);
    assert_null(session_scores(s));
    read_scores(s, e, 50, &got);
    expect_same(&want, &got, "cut", 0);
    session_cut(s, PROMPT - 3);
    append(s, e, ALL, 50);
    assert_null(session_scores(s));
    session_cut(s, 10);
    read_scores(s, e, 50, &got);
    expect_same(&want, &got, "cut", 1);
    assert_int_equal(session_share(t, s, PROMPT - ENGINE_SCORE_WINDOW + 1, &err), 0);
    append(t, e, ALL, 50);
    assert_null(session_scores(t));
    assert_int_equal(session_score(t, engine_score_from(PROMPT, PROMPT), PROMPT, &err), ERR_LIMIT);
    assert_int_equal(session_score(t, engine_score_from(100000, 100000), 100000, &err), ERR_LIMIT);
    session_cut(t, 0);
    assert_int_equal(session_score(t, engine_score_from(PROMPT, PROMPT), PROMPT, &err), 0);
    assert_int_equal(session_score(t, 0, 0, &err), 0);
    append(t, e, ALL, 50);
    assert_null(session_scores(t));
    engine_session_close(s);
    engine_session_close(t);
    engine_free(e);
    unlink(path);
}

/* A prompt shorter than the window scores itself. */
static void test_short_prompt(void **state)
{
    struct tiny_options o = TINY_DEFAULT;
    char path[TINY_PATH_MAX];
    struct err err;
    struct session *s;
    (void)state;
    tiny_model_file(&o, path);
    struct engine *e = open_engine(path, 2, NULL, NATIVE_KV_AUTO);
    assert_int_equal(engine_session_open(e, &s, &err), 0);
    assert_int_equal(session_score(s, 0, 1, &err), 0);
    struct engine_span span = {.session = s, .tokens = tokens, .n = 1};
    assert_int_equal(engine_step(e, &span, 1, &err), 0);
    assert_true(session_scores(s)[0] == 1.0f); /* it sees itself alone, in full */
    engine_session_close(s);
    engine_free(e);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds_of_cache), cmocka_unit_test(test_architectures),
        cmocka_unit_test(test_batches_and_prefixes), cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_short_prompt)};
    struct rng r;
    rng_init(&r, 1, 5);
    for (uint32_t i = 0; i < ALL; i++) {
        tokens[i] = (int32_t)rng_below(&r, 290);
        others[i] = (int32_t)rng_below(&r, 290);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
