/*
 * test_conformance: what every kind of engine must do, checked on every kind: fake, emulated, the
 * native engine on a model made here, and on the models that lie in models/.
 *
 * Catches: a result that depends on chunking, batch, cuts, shared prefixes or a step that failed; a
 * step that fails and leaves something behind; KV pages that are lost; limits that are not kept.
 * The oracle is the same kind of engine fed one history from its beginning.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/emulated.h"
#include "engine/fake.h"
#include "engine/native.h"
#include "model/text/vocab.h"
#include "support/tiny_model.h"

enum { CONTEXT = 256, STEP = 48, PAGES = 20, PAGE = 64, KINDS_MAX = 12, SESSIONS = 9 };

static const struct device_profile quick = {"quick", 1e12, 1e12, "this test", false};
static const struct sampling seeded = {.temperature = 0.9f,
                                       .top_k = 40,
                                       .top_p = 0.95f,
                                       .min_p = 0.02f,
                                       .repeat_penalty = 1.1f,
                                       .repeat_last = 32,
                                       .seed = 7};

struct kind {
    char name[TINY_PATH_MAX];
    char path[4 * TINY_PATH_MAX]; /* of the native engine's model; "": fake */
    bool emulated;
    struct engine *e, *oracle; /* the latter with room for everything */
};

static struct engine *open_native(const char *path, uint32_t pages)
{
    struct native_options o = {
        .model_path = path, .threads = 2, .context_max = CONTEXT, .step_tokens_max = STEP};
    struct engine *e;
    struct err err;
    if (native_open(&o, &e, &err)) fail_msg("%s", err.text);
    o.kv_bytes_max = engine_info(e)->kv_bytes_per_token * PAGE * pages;
    engine_free(e);
    if (native_open(&o, &e, &err)) fail_msg("%s", err.text);
    return e;
}

static struct engine *open_kind(const struct kind *k, uint32_t pages)
{
    struct fake_options o = {
        .answer_tokens = 5000, .context_max = CONTEXT, .step_tokens_max = STEP, .kv_pages = pages};
    struct engine *e;
    struct err err;
    if (k->path[0])
        e = open_native(k->path, pages);
    else
        assert_int_equal(fake_open(&o, &e, &err), 0);
    if (k->emulated) engine_emulate(e, &quick);
    return e;
}

static int setup(void **state)
{
    struct kind *k = *state;
    k->e = open_kind(k, PAGES);
    k->oracle = open_kind(k, PAGES);
    return 0;
}

/* Whatever a test did, all pages must be back. */
static int teardown(void **state)
{
    struct kind *k = *state;
    uint32_t lost = PAGES - engine_kv_pages_free(k->e);
    engine_free(k->e);
    engine_free(k->oracle);
    return lost ? -1 : 0;
}

static struct session *open_session(struct engine *e, const struct sampling *sampling)
{
    struct session *s;
    struct err err;
    if (engine_session_open(e, &s, &err)) fail_msg("%s", err.text);
    if (sampling) session_set_sampling(s, sampling);
    return s;
}

static void fill(const struct engine *e, int32_t *tokens, uint32_t n, uint64_t seed)
{
    struct rng r;
    rng_init(&r, seed, 3);
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)rng_below(&r, engine_info(e)->vocab_size);
}

struct result {
    int32_t next;
    float logprob;
};

static void assert_same(struct result a, struct result b)
{
    assert_int_equal(a.next, b.next);
    assert_memory_equal(&a.logprob, &b.logprob, sizeof a.logprob);
}

/* Append tokens in steps of at most `chunk`; the result after the last. */
static struct result feed(struct session *s, struct engine *e, const int32_t *tokens, uint32_t n,
                          uint32_t chunk)
{
    struct engine_span span = {0};
    struct err err;
    for (uint32_t at = 0; at < n; at += span.n) {
        uint32_t left = n - at;
        span = (struct engine_span){.session = s,
                                    .tokens = tokens + at,
                                    .n = left < chunk ? left : chunk,
                                    .sample = left <= chunk};
        if (engine_step(e, &span, 1, &err)) fail_msg("%s", err.text);
    }
    return (struct result){span.next, span.next_logprob};
}

/* What follows a history, computed from its beginning by an engine that does nothing else. */
static struct result truth(const struct kind *k, const int32_t *tokens, uint32_t n,
                           const struct sampling *sampling)
{
    struct session *s = open_session(k->oracle, sampling);
    struct result r = feed(s, k->oracle, tokens, n, STEP);
    engine_session_close(s);
    return r;
}

static void test_info(void **state)
{
    struct kind *k = *state;
    const struct engine_info *info = engine_info(k->e);
    assert_string_equal(info->kind, k->path[0] ? "native" : "fake");
    assert_int_equal(info->context_max, CONTEXT);
    assert_int_equal(info->step_tokens_max, STEP);
    assert_int_equal(info->kv_pages_total, PAGES);
    assert_int_equal(engine_kv_pages_free(k->e), PAGES);
    assert_int_equal(info->vocab_size, vocab_size(engine_vocab(k->e)));
    assert_true(info->weights_hash[0] && info->tokenizer_hash[0] && info->model_name[0]);
    assert_string_equal(info->weights_hash, engine_info(k->oracle)->weights_hash);
    assert_true(k->emulated == (info->emulated != NULL));
    struct session *s[SESSIONS];
    for (int i = 0; i < SESSIONS; i++) {
        s[i] = open_session(k->e, NULL);
        assert_int_equal(session_len(s[i]), 0);
    }
    assert_int_equal(engine_kv_pages_free(k->e), PAGES);
    for (int i = 0; i < SESSIONS; i++)
        engine_session_close(s[i]);
    engine_session_close(NULL);
}

static void test_chunks(void **state)
{
    struct kind *k = *state;
    static const uint32_t chunks[] = {1, 2, 7, 31, STEP};
    int32_t tokens[CONTEXT];
    fill(k->e, tokens, CONTEXT, 1);
    for (int mode = 0; mode < 2; mode++) {
        struct sampling sampling = SAMPLING_GREEDY;
        if (mode) sampling = seeded;
        for (uint32_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
            struct session *s = open_session(k->e, &sampling);
            struct result r = feed(s, k->e, tokens, 150, chunks[i]);
            assert_same(r, truth(k, tokens, 150, &sampling));
            assert_int_equal(session_len(s), 150);
            assert_memory_equal(session_tokens(s), tokens, 150 * sizeof *tokens);
            assert_int_equal(engine_kv_pages_free(k->e), PAGES - 3);
            engine_session_close(s);
        }
    }
}

/* An answer token by token is the same as the prefill of what was answered. */
static void test_decode_is_prefill(void **state)
{
    struct kind *k = *state;
    int32_t tokens[CONTEXT];
    fill(k->e, tokens, 40, 2);
    struct session *s = open_session(k->e, &seeded);
    struct result r = feed(s, k->e, tokens, 40, STEP);
    for (uint32_t n = 40; n < 140; n++) {
        tokens[n] = r.next;
        r = feed(s, k->e, tokens + n, 1, 1);
        if (n % 9 == 0) assert_same(r, truth(k, tokens, n + 1, &seeded));
    }
    engine_session_close(s);
}

static void test_cut(void **state)
{
    struct kind *k = *state;
    static const uint32_t cuts[] = {149, 128, 127, 65, 64, 63, 1, 0};
    int32_t a[CONTEXT], b[CONTEXT];
    fill(k->e, a, CONTEXT, 3);
    struct session *s = open_session(k->e, NULL);
    feed(s, k->e, a, 150, STEP);
    for (uint32_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        session_cut(s, cuts[i]);
        assert_int_equal(session_len(s), cuts[i]);
        assert_int_equal(engine_kv_pages_free(k->e), PAGES - (cuts[i] + PAGE - 1) / PAGE);
        memcpy(b, a, sizeof a);
        fill(k->e, b + cuts[i], 150 - cuts[i], 100 + i);
        struct result r = feed(s, k->e, b + cuts[i], 150 - cuts[i], 29);
        assert_same(r, truth(k, b, 150, NULL));
        session_cut(s, cuts[i]);
        r = feed(s, k->e, a + cuts[i], 150 - cuts[i], STEP);
        assert_same(r, truth(k, a, 150, NULL));
    }
    engine_session_close(s);
}

/* Sharers and source live on their own, in any order of closing. */
static void test_share(void **state)
{
    struct kind *k = *state;
    static const uint32_t shares[] = {0, 1, 63, 64, 65, 128, 149, 150};
    int32_t a[CONTEXT], b[CONTEXT];
    struct err err;
    fill(k->e, a, CONTEXT, 4);
    for (uint32_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        struct session *from = open_session(k->e, NULL), *s = open_session(k->e, NULL);
        feed(from, k->e, a, 150, STEP);
        assert_int_equal(session_share(s, from, shares[i], &err), 0);
        assert_int_equal(session_len(s), shares[i]);
        assert_memory_equal(session_tokens(s), a, shares[i] * sizeof *a);
        memcpy(b, a, sizeof a);
        fill(k->e, b + shares[i], 170 - shares[i], 200 + i);
        assert_same(feed(s, k->e, b + shares[i], 170 - shares[i], STEP), truth(k, b, 170, NULL));
        assert_same(feed(from, k->e, a + 150, 20, STEP), truth(k, a, 170, NULL));
        if (i % 2) engine_session_close(from);
        fill(k->e, b + 170, 9, 300 + i);
        assert_same(feed(s, k->e, b + 170, 9, STEP), truth(k, b, 179, NULL));
        engine_session_close(s);
        if (i % 2 == 0) {
            assert_same(feed(from, k->e, a + 170, 9, STEP), truth(k, a, 179, NULL));
            engine_session_close(from);
        }
        assert_int_equal(engine_kv_pages_free(k->e), PAGES);
    }
}

/* Cutting into shared pages and writing on must not reach the other owner. */
static void test_cut_into_shared(void **state)
{
    struct kind *k = *state;
    int32_t a[CONTEXT], b[CONTEXT];
    struct err err;
    for (uint32_t n = 60; n <= 130; n += 5) {
        struct session *from = open_session(k->e, NULL), *s = open_session(k->e, NULL);
        fill(k->e, a, CONTEXT, 5);
        memcpy(b, a, sizeof a);
        fill(k->e, b + n, 20, 400 + n);
        feed(from, k->e, a, 150, STEP);
        assert_int_equal(session_share(s, from, 150, &err), 0);
        struct session *writer = n % 2 ? from : s, *other = n % 2 ? s : from;
        session_cut(writer, n);
        assert_same(feed(writer, k->e, b + n, 20, STEP), truth(k, b, n + 20, NULL));
        assert_same(feed(other, k->e, a + 150, 3, 1), truth(k, a, 153, NULL));
        engine_session_close(writer);
        assert_same(feed(other, k->e, a + 153, 3, 1), truth(k, a, 156, NULL));
        engine_session_close(other);
        assert_int_equal(engine_kv_pages_free(k->e), PAGES);
    }
}

/* What a prefix cache does: pages outlive their session, whole ones and a part of one are adopted
 * by others, and a live session that writes on does not reach a page that is held. */
static void test_held_pages(void **state)
{
    struct kind *k = *state;
    int32_t a[CONTEXT], b[CONTEXT];
    uint32_t pages[3];
    struct err err;
    fill(k->e, a, CONTEXT, 6);
    for (uint32_t part = 1; part <= 22; part += 7) {
        struct session *from = open_session(k->e, NULL), *s = open_session(k->e, NULL);
        feed(from, k->e, a, 150, STEP);
        for (uint32_t i = 0; i < 3; i++)
            pages[i] = session_page_hold(from, i);
        assert_int_equal(engine_kv_pages_free(k->e), PAGES - 3);
        assert_same(feed(from, k->e, a + 150, 20, STEP), truth(k, a, 170, NULL));
        assert_int_equal(engine_kv_pages_free(k->e), PAGES - 4); /* the third was copied */
        engine_session_close(from);
        assert_int_equal(engine_kv_pages_free(k->e), PAGES - 3);
        for (uint32_t i = 0; i < 3; i++)
            assert_int_equal(
                session_page_adopt(s, pages[i], a + i * PAGE, i < 2 ? PAGE : part, &err), 0);
        assert_int_equal(engine_kv_pages_free(k->e), PAGES - 4); /* the part was copied */
        uint32_t n = 2 * PAGE + part;
        assert_int_equal(session_len(s), n);
        assert_memory_equal(session_tokens(s), a, n * sizeof *a);
        memcpy(b, a, sizeof a);
        fill(k->e, b + n, 30, 700 + part);
        assert_same(feed(s, k->e, b + n, 30, STEP), truth(k, b, n + 30, NULL));
        engine_session_close(s);
        s = open_session(k->e, NULL);
        for (uint32_t i = 0; i < 3; i++)
            assert_int_equal(session_page_adopt(s, pages[i], a + i * PAGE, i < 2 ? PAGE : 22, &err),
                             0);
        struct session *twin = open_session(k->e, NULL);
        feed(twin, k->e, a, 170, STEP);
        session_page_swap(twin, 1, pages[1]);
        assert_int_equal(engine_kv_pages_free(k->e), PAGES - 3 - 1 - 2);
        for (uint32_t i = 0; i < 3; i++)
            engine_page_drop(k->e, pages[i]);
        assert_same(feed(twin, k->e, a + 170, 9, STEP), truth(k, a, 179, NULL));
        engine_session_close(twin);
        assert_same(feed(s, k->e, a + 150, 9, STEP), truth(k, a, 159, NULL));
        engine_session_close(s);
        assert_int_equal(engine_kv_pages_free(k->e), PAGES);
    }
}

/* One step of random spans over all sessions that have tokens left. */
static void batch_step(struct kind *k, struct rng *r, struct session **s,
                       const int32_t (*tokens)[CONTEXT], uint32_t length, struct result *last)
{
    struct engine_span spans[SESSIONS];
    uint32_t who[SESSIONS], n = 0, room = STEP;
    struct err err;
    for (uint32_t i = 0; i < SESSIONS && room > 0; i++) {
        uint32_t len = session_len(s[i]), left = length - len;
        if (left == 0 || rng_below(r, 3) == 0) continue;
        uint32_t take = 1 + rng_below(r, left < room ? left : room);
        if (rng_below(r, 2)) take = 1;
        who[n] = i;
        spans[n++] = (struct engine_span){
            .session = s[i], .tokens = tokens[i] + len, .n = take, .sample = take == left};
        room -= take;
    }
    if (n == 0) return;
    if (engine_step(k->e, spans, n, &err)) fail_msg("%s", err.text);
    for (uint32_t i = 0; i < n; i++)
        if (spans[i].sample) last[who[i]] = (struct result){spans[i].next, spans[i].next_logprob};
}

static void test_batch(void **state)
{
    struct kind *k = *state;
    enum { LENGTH = 100 };
    int32_t tokens[SESSIONS][CONTEXT];
    struct session *s[SESSIONS];
    struct result last[SESSIONS];
    struct sampling how[SESSIONS];
    struct rng r;
    rng_init(&r, 6, 1);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        fill(k->e, tokens[i], LENGTH, 500 + i / 2); /* some are equal */
        how[i] = seeded;
        how[i].seed = i;
        how[i].temperature = i % 3 ? 0.8f : 0.0f;
        s[i] = open_session(k->e, &how[i]);
    }
    for (uint32_t left = 1; left > 0;) {
        batch_step(k, &r, s, (const int32_t(*)[CONTEXT])tokens, LENGTH, last);
        left = 0;
        for (uint32_t i = 0; i < SESSIONS; i++)
            left += LENGTH - session_len(s[i]);
    }
    for (uint32_t i = 0; i < SESSIONS; i++) {
        assert_same(last[i], truth(k, tokens[i], LENGTH, &how[i]));
        engine_session_close(s[i]);
    }
}

static void test_seed_matters(void **state)
{
    struct kind *k = *state;
    int32_t tokens[CONTEXT];
    struct sampling how = {
        .temperature = 2.0f, .top_p = 1.0f, .repeat_penalty = 1.0f, .repeat_last = 64};
    fill(k->e, tokens, 32, 7);
    uint32_t different = 0;
    int32_t first = truth(k, tokens, 32, &how).next;
    for (how.seed = 1; how.seed < 40; how.seed++) {
        struct result r = truth(k, tokens, 32, &how);
        different += r.next != first;
        assert_same(r, truth(k, tokens, 32, &how));
        assert_true(r.next >= 0 && (uint32_t)r.next < engine_info(k->e)->vocab_size);
    }
    assert_true(different > 0);
}

/* A step that must fail, over two sessions of 30 and 60 tokens of `a`: both go on as if nothing
 * had happened. */
static void check_refused(struct kind *k, struct engine_span *spans, int expected)
{
    int32_t a[CONTEXT];
    struct err err = ERR_INIT;
    fill(k->e, a, CONTEXT, 8);
    uint32_t pages = engine_kv_pages_free(k->e), len[2];
    for (int i = 0; i < 2; i++)
        len[i] = session_len(spans[i].session);
    assert_int_equal(engine_step(k->e, spans, 2, &err), expected);
    assert_int_equal(err.code, expected);
    assert_true(err.text[0] != 0);
    assert_int_equal(engine_kv_pages_free(k->e), pages);
    for (int i = 0; i < 2; i++) {
        struct session *s = spans[i].session;
        assert_int_equal(session_len(s), len[i]);
        assert_memory_equal(session_tokens(s), a, len[i] * sizeof *a);
        assert_same(feed(s, k->e, a + len[i], 2, 2), truth(k, a, len[i] + 2, NULL));
        session_cut(s, len[i]);
    }
}

static void test_errors_change_nothing(void **state)
{
    struct kind *k = *state;
    int32_t a[CONTEXT], bad[3] = {1, -1, 2};
    fill(k->e, a, CONTEXT, 8);
    struct session *x = open_session(k->e, NULL), *y = open_session(k->e, NULL);
    feed(x, k->e, a, 30, STEP);
    feed(y, k->e, a, CONTEXT - 10, STEP);
    struct engine_span good = {.session = x, .tokens = a + 30, .n = 3, .sample = true};
    struct engine_span spans[2] = {good, {.session = y, .tokens = a, .n = 11}};
    check_refused(k, spans, ERR_LIMIT); /* the context */
    spans[1] = (struct engine_span){.session = y, .tokens = bad, .n = 3};
    check_refused(k, spans, ERR_BAD_INPUT);
    bad[1] = (int32_t)engine_info(k->e)->vocab_size;
    check_refused(k, spans, ERR_BAD_INPUT);
    spans[0].n = STEP - 1;
    spans[1] = (struct engine_span){.session = y, .tokens = a, .n = 2};
    check_refused(k, spans, ERR_LIMIT); /* the step */
    assert_same(feed(y, k->e, a + CONTEXT - 10, 10, STEP), truth(k, a, CONTEXT, NULL));
    engine_session_close(x);
    engine_session_close(y);
}

static void test_pages_run_out(void **state)
{
    struct kind *k = *state;
    enum { FULL = 4 };
    int32_t a[CONTEXT];
    struct session *s[FULL];
    struct err err;
    fill(k->e, a, CONTEXT, 8);
    for (int i = 0; i < FULL; i++) {
        s[i] = open_session(k->e, NULL);
        feed(s[i], k->e, a, CONTEXT, STEP);
    }
    struct session *x = open_session(k->e, NULL), *y = open_session(k->e, NULL);
    struct session *z = open_session(k->e, NULL);
    feed(x, k->e, a, 2 * PAGE, STEP);
    feed(y, k->e, a, PAGE + 9, STEP);
    assert_int_equal(engine_kv_pages_free(k->e), 0);
    struct engine_span spans[2] = {{.session = y, .tokens = a + PAGE + 9, .n = 5, .sample = true},
                                   {.session = x, .tokens = a + 2 * PAGE, .n = 1}};
    assert_int_equal(engine_step(k->e, spans, 2, &err), ERR_NO_MEMORY);
    assert_int_equal(session_len(y), PAGE + 9);
    assert_int_equal(session_len(x), 2 * PAGE);
    assert_int_equal(session_share(z, x, PAGE + 1, &err), ERR_NO_MEMORY);
    assert_int_equal(session_len(z), 0);
    assert_int_equal(engine_kv_pages_free(k->e), 0);
    assert_same(feed(y, k->e, a + PAGE + 9, 5, STEP), truth(k, a, PAGE + 14, NULL));
    engine_session_close(s[1]);
    assert_same(feed(x, k->e, a + 2 * PAGE, 4, STEP), truth(k, a, 2 * PAGE + 4, NULL));
    assert_int_equal(session_share(z, x, PAGE + 1, &err), 0);
    assert_same(feed(z, k->e, a + PAGE + 1, 4, STEP), truth(k, a, PAGE + 5, NULL));
    s[1] = z;
    for (int i = 0; i < FULL; i++)
        engine_session_close(s[i]);
    engine_session_close(x);
    engine_session_close(y);
}

/* An allocation that fails while a session opens leaves the engine as it was. */
static void test_open_without_memory(void **state)
{
    struct kind *k = *state;
    struct err err;
    for (long nth = 1; nth < 50; nth++) {
        struct session *s = NULL;
        mem_fail_at(nth);
        int code = engine_session_open(k->e, &s, &err);
        mem_fail_at(0);
        if (code == 0) {
            engine_session_close(s);
            assert_true(nth > 1);
            return;
        }
        assert_int_equal(code, ERR_NO_MEMORY);
        assert_null(s);
    }
    fail_msg("opening a session never succeeds");
}

static void test_logits(void **state)
{
    struct kind *k = *state;
    int32_t a[CONTEXT];
    fill(k->e, a, CONTEXT, 9);
    struct session *s = open_session(k->e, NULL);
    for (uint32_t n = 1; n < 60; n++) {
        struct result r = feed(s, k->e, a + n - 1, 1, 1);
        const float *logits = session_logits(s);
        assert_true((logits != NULL) == (k->path[0] != 0));
        if (!logits) break;
        for (int32_t id = 0; id < (int32_t)engine_info(k->e)->vocab_size; id++)
            assert_true(id < r.next ? logits[id] < logits[r.next] : logits[id] <= logits[r.next]);
        assert_true(r.logprob <= 0.0f);
    }
    engine_session_close(s);
}

/* What is drawn after each of a span's last tokens is what a step of that token alone samples, in a
 * batch with spans that draw otherwise. */
static void test_draws(void **state)
{
    struct kind *k = *state;
    enum { LEN = 100, SPAN = 20, OTHER = 8 };
    int32_t a[CONTEXT], b[CONTEXT], alone[LEN], draws[SPAN], more[OTHER];
    fill(k->e, a, CONTEXT, 21);
    fill(k->e, b, CONTEXT, 22);
    struct session *s = open_session(k->e, &seeded), *t = open_session(k->e, NULL),
                   *u = open_session(k->e, &seeded);
    for (uint32_t n = 1; n <= LEN; n++)
        alone[n - 1] = feed(s, k->e, a + n - 1, 1, 1).next;
    for (uint32_t n = 0; n <= SPAN; n++) {
        for (int sample = 0; sample < 2; sample++) {
            session_cut(s, LEN - SPAN);
            session_cut(t, 0);
            session_cut(u, 0);
            struct engine_span spans[] = {
                {.session = t, .tokens = b, .n = 5, .sample = sample == 0},
                {.session = s,
                 .tokens = a + LEN - SPAN,
                 .n = SPAN,
                 .sample = sample == 1,
                 .draws = draws,
                 .n_draws = n},
                {.session = u, .tokens = b, .n = OTHER, .draws = more, .n_draws = OTHER}};
            struct err err;
            if (engine_step(k->e, spans, 3, &err)) fail_msg("%s", err.text);
            assert_memory_equal(draws, alone + LEN - n, n * sizeof *draws);
            if (sample) assert_int_equal(spans[1].next, alone[LEN - 1]);
            for (uint32_t i = 0; i < OTHER; i += 3)
                assert_int_equal(more[i], truth(k, b, i + 1, &seeded).next);
            if (!sample)
                assert_same((struct result){spans[0].next, spans[0].next_logprob},
                            truth(k, b, 5, NULL));
        }
    }
    engine_session_close(s);
    engine_session_close(t);
    engine_session_close(u);
}

/* ---- a long random life against the oracle ---- */

struct life {
    struct kind *k;
    struct rng r;
    struct session *s[SESSIONS];
    int32_t tokens[SESSIONS][CONTEXT];
    uint32_t len[SESSIONS];
};

static void life_step(struct life *l)
{
    struct engine_span spans[SESSIONS];
    uint32_t who[SESSIONS], n = 0, room = STEP;
    struct err err;
    for (uint32_t i = 0; i < SESSIONS && room > 0; i++) {
        uint32_t most = CONTEXT - l->len[i] < room ? CONTEXT - l->len[i] : room;
        if (!l->s[i] || most == 0 || rng_below(&l->r, 2)) continue;
        uint32_t take = 1 + rng_below(&l->r, most);
        fill(l->k->e, l->tokens[i] + l->len[i], take, rng_next(&l->r));
        who[n] = i;
        spans[n++] = (struct engine_span){.session = l->s[i],
                                          .tokens = l->tokens[i] + l->len[i],
                                          .n = take,
                                          .sample = rng_below(&l->r, 4) == 0};
        room -= take;
    }
    if (n == 0) return;
    int code = engine_step(l->k->e, spans, n, &err);
    if (code == ERR_NO_MEMORY) return;
    assert_int_equal(code, 0);
    for (uint32_t i = 0; i < n; i++) {
        l->len[who[i]] += spans[i].n;
        if (spans[i].sample)
            assert_same((struct result){spans[i].next, spans[i].next_logprob},
                        truth(l->k, l->tokens[who[i]], l->len[who[i]], NULL));
    }
}

static void life_share(struct life *l, uint32_t to, uint32_t from)
{
    struct err err;
    if (!l->s[from] || to == from) return;
    engine_session_close(l->s[to]);
    l->s[to] = open_session(l->k->e, NULL);
    l->len[to] = 0;
    uint32_t n = rng_below(&l->r, l->len[from] + 1);
    if (session_share(l->s[to], l->s[from], n, &err)) return;
    memcpy(l->tokens[to], l->tokens[from], n * sizeof(int32_t));
    l->len[to] = n;
}

static void test_life(void **state)
{
    struct life l = {.k = *state};
    rng_init(&l.r, 10, 1);
    uint32_t turns = l.k->path[0] && !strstr(l.k->path, "/tmp") ? 60 : 600;
    for (uint32_t turn = 0; turn < turns; turn++) {
        uint32_t i = rng_below(&l.r, SESSIONS), what = rng_below(&l.r, 10);
        if (what == 0) {
            engine_session_close(l.s[i]);
            l.s[i] = NULL;
        } else if (what < 3) {
            life_share(&l, i, rng_below(&l.r, SESSIONS));
        } else if (what < 5 && l.s[i]) {
            l.len[i] = rng_below(&l.r, l.len[i] + 1);
            session_cut(l.s[i], l.len[i]);
        } else if (what < 6 && !l.s[i]) {
            l.s[i] = open_session(l.k->e, NULL);
            l.len[i] = 0;
        } else {
            life_step(&l);
        }
        uint32_t pages = 0;
        for (i = 0; i < SESSIONS; i++) {
            if (!l.s[i]) continue;
            assert_int_equal(session_len(l.s[i]), l.len[i]);
            assert_memory_equal(session_tokens(l.s[i]), l.tokens[i], l.len[i] * sizeof(int32_t));
            pages += (l.len[i] + PAGE - 1) / PAGE;
        }
        /* sharing can only save pages */
        assert_true(PAGES - engine_kv_pages_free(l.k->e) <= pages);
    }
    for (uint32_t i = 0; i < SESSIONS; i++)
        engine_session_close(l.s[i]);
}

/* ---- kinds ---- */

#ifdef __SANITIZE_ADDRESS__ /* minutes, and the tiny model goes the same ways through memory */
enum { WITH_FILES = 0 };
#else
enum { WITH_FILES = 1 };
#endif

static struct kind kinds[KINDS_MAX];
static uint32_t n_kinds;
static char tiny_path[TINY_PATH_MAX];

static void add_kind(const char *name, const char *path, bool emulated)
{
    CHECK(n_kinds < KINDS_MAX);
    struct kind *k = &kinds[n_kinds++];
    snprintf(k->name, sizeof k->name, "%s", name);
    snprintf(k->path, sizeof k->path, "%s", path);
    k->emulated = emulated;
}

static void add_files(const char *pattern)
{
    glob_t found;
    if (glob(pattern, 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc && n_kinds < KINDS_MAX; i++) {
            const char *slash = strrchr(found.gl_pathv[i], '/');
            add_kind(slash ? slash + 1 : found.gl_pathv[i], found.gl_pathv[i], false);
        }
    globfree(&found);
}

typedef void test_fn(void **state);
static const struct {
    const char *name;
    test_fn *fn;
} suite[] = {
    {"info", test_info},
    {"chunks", test_chunks},
    {"decode is prefill", test_decode_is_prefill},
    {"cut", test_cut},
    {"share", test_share},
    {"cut into shared", test_cut_into_shared},
    {"held pages", test_held_pages},
    {"batch", test_batch},
    {"seed matters", test_seed_matters},
    {"errors change nothing", test_errors_change_nothing},
    {"pages run out", test_pages_run_out},
    {"open without memory", test_open_without_memory},
    {"logits", test_logits},
    {"draws", test_draws},
    {"life", test_life},
};

enum { SUITE = sizeof suite / sizeof *suite };

int main(void)
{
    static struct CMUnitTest tests[KINDS_MAX * SUITE];
    static char names[KINDS_MAX * SUITE][TINY_PATH_MAX];
    struct tiny_options o = TINY_DEFAULT;
    o.type = GGUF_Q8_0;
    tiny_model_file(&o, tiny_path);
    add_kind("fake", "", false);
    add_kind("emulated fake", "", true);
    add_kind("native", tiny_path, false);
    add_kind("emulated native", tiny_path, true);
    if (WITH_FILES) {
        add_files(PDD_SOURCE_DIR "/models/*.gguf");
        add_files(PDD_SOURCE_DIR "/../shared/models/*.gguf");
    }
    size_t n = 0;
    for (uint32_t k = 0; k < n_kinds; k++)
        for (uint32_t t = 0; t < SUITE; t++, n++) {
            snprintf(names[n], sizeof names[n], "%.60s: %.60s", kinds[k].name, suite[t].name);
            tests[n] = (struct CMUnitTest){names[n], suite[t].fn, setup, teardown, &kinds[k]};
        }
    int failed = _cmocka_run_group_tests("engine conformance", tests, n, NULL, NULL);
    unlink(tiny_path);
    return failed;
}
