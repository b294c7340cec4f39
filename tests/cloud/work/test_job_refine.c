/*
 * test_job_refine: the refined prompt of a job, from its text to the events of the worker.
 *
 * Catches: a system message or a template token that a device would drop; a version that comes
 * after the first token, or not after the eighth; a bitmap that depends on the prefix cache or on
 * other jobs; a refusal that comes late; a model without attention that claims to refine; a
 * question whose words do not count.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cloud/work/worker.h"
#include "engine/fake.h"
#include "engine/native.h"
#include "support/tiny_model.h"

enum { WAIT_US = 120000000, PROMPT = 2600, NEEDLE_AT = 1500, TEXT_MAX = 16384 };
enum { START = 256, END = 257 }; /* control tokens of the byte vocabulary */

static const char needle[] = "the key is under the mat";

static void wake(void *arg)
{
    (void)arg;
}

/* ---- prompts of bytes ---- */

struct bytes {
    int32_t ids[TEXT_MAX];
    uint32_t n;
};

static void add(struct bytes *b, const char *text)
{
    for (const char *at = text; *at; at++)
        b->ids[b->n++] = (uint8_t)*at;
}

static void add_message(struct bytes *b, const char *role, const char *text, uint32_t times)
{
    b->ids[b->n++] = START;
    add(b, role);
    add(b, "\n");
    for (uint32_t i = 0; i < times; i++)
        add(b, text);
    b->ids[b->n++] = END;
    add(b, "\n");
}

static bool keeps(const struct refined *v, uint32_t i)
{
    return v->bits[i / 8] >> i % 8 & 1;
}

static struct refine *refine_of(const struct vocab *v, const struct bytes *b,
                                const struct wire_refine *asked)
{
    struct refine *r;
    struct err e;
    if (refine_new(v, b->ids, b->n, asked, &r, &e)) fail_msg("%s", e.text);
    return r;
}

/* Messages are found by control tokens: the system message stays, and of every other one its floor
 * and its header. */
static void test_messages(void **state)
{
    static struct bytes b;
    static float scores[TEXT_MAX];
    struct engine *e;
    (void)state;
    assert_int_equal(fake_open(&(struct fake_options){.answer_tokens = 1}, &e, NULL), 0);
    const struct vocab *v = engine_vocab(e);
    b.n = 0;
    add_message(&b, "system", "Never tell the code to anyone. ", 10);
    uint32_t first = b.n;
    add_message(&b, "user", "Some words of no weight. ", 60);
    uint32_t second = b.n;
    add_message(&b, "assistant", "An answer with words. ", 60);
    uint32_t third = b.n;
    add_message(&b, "user", "The words that count, they are here. ", 60);
    b.n -= 2;
    add(&b, "\n\nWhere are the words that count?");
    b.ids[b.n++] = END;
    add(&b, "\n");
    for (uint32_t i = 0; i < b.n; i++)
        scores[i] = i > third && i < third + 200 ? 0.5f : 0.0001f;
    struct wire_refine asked = {.ratio = 0.4f, .coverage = 0.994f};
    int32_t whole[] = {(int32_t)second - 30, (int32_t)second - 20};
    asked.whole = whole;
    asked.n_whole = 2;
    struct refine *r = refine_of(v, &b, &asked);
    assert_int_equal(r->refusal, KEEP_OK);
    const struct refined *got = refine_choose(r, scores, false);
    assert_int_equal(got->choice.refusal, KEEP_OK);
    assert_true(got->version == 1 && !got->final);
    uint32_t kept[2] = {0};
    for (uint32_t i = 0; i < b.n; i++) {
        if (i < first || i >= b.n - KEEP_QUESTION || b.ids[i] >= START) assert_true(keeps(got, i));
        if (i > third && i < third + 190) assert_true(keeps(got, i));
        if (i >= second - 30 && i < second - 20) assert_true(keeps(got, i));
        kept[0] += i >= first && i < second && keeps(got, i);
        kept[1] += i >= second && i < third && keeps(got, i);
    }
    assert_true(kept[0] >= (second - first) / 20 && kept[0] < (second - first) / 2);
    assert_true(kept[1] >= (third - second) / 20 && kept[1] < (third - second) / 2);
    for (uint32_t i = second; i < second + 11; i++) /* "assistant", and what is around it */
        assert_true(keeps(got, i));
    got = refine_choose(r, scores, true);
    assert_true(got->version == 2 && got->final);
    assert_memory_equal(r->versions[0].bits, r->versions[1].bits, r->versions[0].n_bits);
    refine_free(r);
    engine_free(e);
}

/* However many control tokens a prompt has, a system message behind them stays. */
static void test_many_ranges(void **state)
{
    static struct bytes b;
    static uint8_t bits[TEXT_MAX / 8];
    struct engine *e;
    uint32_t added;
    (void)state;
    assert_int_equal(fake_open(&(struct fake_options){.answer_tokens = 1}, &e, NULL), 0);
    b.n = 0;
    for (int i = 0; i < 5000; i++) {
        add(&b, "x");
        b.ids[b.n++] = END;
    }
    uint32_t from = b.n;
    add_message(&b, "system", "Never tell the code to anyone. ", 10);
    uint32_t to = b.n - 1;
    add_message(&b, "user", "Some words of no weight. ", 20);
    memset(bits, 0, sizeof bits);
    assert_int_equal(refine_must(engine_vocab(e), b.ids, b.n, &(struct wire_refine){.ratio = 0.3f},
                                 bits, &added, NULL),
                     0);
    for (uint32_t i = from; i < to; i++)
        assert_true(bits[i / 8] >> i % 8 & 1);
    engine_free(e);
}

/* Whole tokens of each place of a text; the last range takes what has no room. */
static void test_find(void **state)
{
    static struct bytes b;
    static const char text[] = "Never tell.";
    struct keep_range found[2];
    struct engine *e;
    (void)state;
    assert_int_equal(fake_open(&(struct fake_options){.answer_tokens = 1}, &e, NULL), 0);
    b.n = 0;
    add_message(&b, "user", "Words. ", 10);
    uint32_t at[3];
    for (int i = 0; i < 3; i++) {
        at[i] = b.n;
        add(&b, text);
        add(&b, " More of it.");
    }
    const struct vocab *v = engine_vocab(e);
    const uint32_t len = sizeof text - 1;
    struct refine_text *prompt;
    assert_int_equal(refine_text_new(v, b.ids, b.n, &prompt, NULL), 0);
    assert_int_equal(refine_text_find(prompt, text, len, found, 2), 2);
    assert_true(found[0].from == at[0] && found[0].to == at[0] + len);
    assert_true(found[1].from == at[1] && found[1].to == at[2] + len);
    assert_int_equal(refine_text_find(prompt, "Always", 6, found, 2), 0);
    assert_int_equal(refine_text_find(prompt, "", 0, found, 2), 0);
    refine_text_free(prompt);
    engine_free(e);
}

static void test_early_refusals(void **state)
{
    static struct bytes b;
    struct wire_refine asked = {.ratio = 0.3f};
    struct engine *e;
    (void)state;
    assert_int_equal(fake_open(&(struct fake_options){.answer_tokens = 1}, &e, NULL), 0);
    static const struct {
        const char *text;
        uint32_t times, held;
        enum keep_refusal refusal;
    } cases[] = {{"Some words. ", 250, 0, KEEP_OK},
                 {"Some words. ", 100, 0, KEEP_SHORT},
                 {"Some words. ", 250, 2000, KEEP_SHORT},
                 {"int a = f(b);\n", 200, 0, KEEP_CODE},
                 {"{\"type\": \"object\", \"properties\": {}}\n", 90, 0, KEEP_SCHEMA}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        b.n = 0;
        add_message(&b, "user", cases[i].text, cases[i].times);
        asked.held = cases[i].held;
        struct refine *r = refine_of(engine_vocab(e), &b, &asked);
        assert_int_equal(r->refusal, cases[i].refusal);
        refine_free(r);
    }
    b.n = 0;
    add_message(&b, "system", "A rule. ", 300);
    asked.held = 0;
    struct refine *r = refine_of(engine_vocab(e), &b, &asked);
    assert_int_equal(r->refusal, KEEP_FULL);
    refine_free(r);
    engine_free(e);
}

static void test_without_memory(void **state)
{
    static struct bytes b;
    struct wire_refine asked = {.ratio = 0.3f};
    struct engine *e;
    (void)state;
    assert_int_equal(fake_open(&(struct fake_options){.answer_tokens = 1}, &e, NULL), 0);
    b.n = 0;
    add_message(&b, "user", "Some words. ", 250);
    for (long n = 1;; n++) {
        struct refine *r;
        mem_fail_at(n);
        int code = refine_new(engine_vocab(e), b.ids, b.n, &asked, &r, NULL);
        int hit = mem_fail_hit();
        mem_fail_at(0);
        if (!hit) {
            assert_int_equal(code, 0);
            refine_free(r);
            break;
        }
        assert_int_equal(code, ERR_NO_MEMORY);
    }
    engine_free(e);
}

/* ---- jobs ---- */

static struct backend *start(struct engine *engine, uint32_t cache_pages, bool unfit)
{
    struct worker_config config = {
        .streams_max = 4, .queue_max = 4, .cache_pages = cache_pages, .unfit = unfit, .wake = wake};
    struct backend *b;
    struct err e;
    if (worker_new(engine, &config, &b, &e)) fail_msg("%s", e.text);
    return b;
}

static struct job *submit(struct backend *b, const int32_t *prompt, uint32_t n, uint32_t tokens_max,
                          float ratio, float peak)
{
    struct job *j;
    struct wire_refine asked = {.ratio = ratio, .coverage = 0.5f};
    assert_int_equal(job_new(prompt, n, NULL, 0, &j, NULL), 0);
    atomic_store(&j->tokens_max, tokens_max);
    if (ratio > 0.0f) {
        assert_int_equal(refine_new(b->vocab, prompt, n, &asked, &j->refine, NULL), 0);
        j->refine->peak = peak;
        j->refine->limits.new_least = 0;
        j->refine->refusal = keep_refuses(j->refine->keep, &j->refine->limits);
    }
    assert_int_equal(backend_submit(b, j, NULL), 0);
    return j;
}

/* What happened to a job: a letter for each event, progress left out. */
struct story {
    char letters[200];
    uint32_t cached;
};

static struct story run(struct backend *b, struct job *j)
{
    struct story s = {.letters = ""};
    uint64_t until = clock_us() + WAIT_US;
    for (size_t n = 0; n < sizeof s.letters - 1;) {
        struct job_event ev;
        assert_true(clock_us() < until);
        if (!backend_take_event(b, &ev)) {
            usleep(200);
            continue;
        }
        if (ev.kind == JOB_DONE && ev.job != j) job_free(ev.job);
        if (ev.job != j || ev.kind == JOB_PROGRESS) continue;
        if (ev.kind == JOB_REFINED)
            assert_ptr_equal(ev.refined, &j->refine->versions[strchr(s.letters, 'r') != NULL]);
        s.letters[n++] = ev.kind == JOB_ADMITTED  ? 'a'
                         : ev.kind == JOB_REFINED ? 'r'
                         : ev.kind == JOB_TOKEN   ? 't'
                                                  : 'd';
        if (ev.kind != JOB_DONE) continue;
        assert_null(ev.failure);
        s.cached = ev.cached;
        break;
    }
    return s;
}

static void needle_prompt(struct bytes *b)
{
    b->n = 0;
    b->ids[b->n++] = START;
    add(b, "user\n");
    while (b->n < NEEDLE_AT)
        add(b, "Nothing to see. ");
    add(b, needle);
    while (b->n < PROMPT)
        add(b, ". Nothing to see");
    b->ids[b->n++] = END;
    b->ids[b->n++] = START;
    add(b, "assistant\n");
}

/* The first version comes before the first token, the second after the eighth; the needle is kept.
 */
static void test_events(void **state)
{
    static struct bytes p;
    struct engine *e;
    struct story s;
    (void)state;
    needle_prompt(&p);
    struct fake_options o = {.answer_tokens = 20, .scored = needle};
    assert_int_equal(fake_open(&o, &e, NULL), 0);
    struct backend *b = start(e, 100, false);
    assert_true(b->refines);
    struct job *j = submit(b, p.ids, p.n, 12, 0.3f, 0.0f);
    s = run(b, j);
    assert_string_equal(s.letters, "arttttttttrttttd");
    assert_true(j->refine->versions[1].final && !j->refine->versions[0].final);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < p.n; i++)
        kept += keeps(&j->refine->versions[1], i);
    for (uint32_t i = NEEDLE_AT; i < NEEDLE_AT + sizeof needle - 1; i++)
        assert_true(keeps(&j->refine->versions[1], i));
    assert_true(kept < p.n * 3 / 10 && kept == j->refine->versions[1].choice.tokens);
    job_free(j);
    j = submit(b, p.ids, p.n, REFINE_TOKENS, 0.3f, 0.0f); /* no second one can come */
    s = run(b, j);
    assert_string_equal(s.letters, "arttttttttd");
    assert_true(j->refine->versions[0].final);
    assert_int_equal(s.cached, engine_score_from(j->refine->question, p.n));
    job_free(j);
    j = submit(b, p.ids, p.n, 3, 0.05f, 0.0f); /* the question alone is more */
    s = run(b, j);
    assert_string_equal(s.letters, "artttd");
    assert_int_equal(j->refine->versions[0].choice.refusal, KEEP_FULL);
    job_free(j);
    j = submit(b, p.ids, p.n, 12, 0.3f, 100.0f); /* no place stands out so far */
    s = run(b, j);
    assert_string_equal(s.letters, "arttttttttttttd");
    assert_int_equal(j->refine->versions[0].choice.refusal, KEEP_FLAT);
    assert_true(j->refine->versions[0].final);
    job_free(j);
    struct backend_stats stats;
    usleep(20000);
    backend_stats_of(b, &stats);
    assert_true(stats.refined == 2 && stats.refine_refused == 2);
    assert_true(stats.refined_tokens == 2 * p.n && stats.refined_kept < p.n);
    backend_free(b);
}

static void test_unfit(void **state)
{
    static struct bytes p;
    struct engine *e;
    (void)state;
    needle_prompt(&p);
    struct fake_options o = {.answer_tokens = 20, .scored = needle};
    assert_int_equal(fake_open(&o, &e, NULL), 0);
    struct backend *b = start(e, 0, true);
    struct job *j = submit(b, p.ids, p.n, 2, 0.3f, 0.0f);
    assert_string_equal(run(b, j).letters, "arttd");
    assert_int_equal(j->refine->versions[0].choice.refusal, KEEP_UNFIT);
    job_free(j);
    backend_free(b);
    o.scored = NULL;
    assert_int_equal(fake_open(&o, &e, NULL), 0);
    b = start(e, 0, false);
    assert_false(b->refines);
    backend_free(b);
}

/* Of a real model: the same bits with and without the prefix cache, beside other jobs, with any
 * threads. */
static void test_same_bits(void **state)
{
    enum { N = 900 };
    struct tiny_options tiny = TINY_DEFAULT;
    char path[TINY_PATH_MAX];
    static int32_t prompt[N];
    uint8_t want[2][N / 8 + 1];
    struct rng rng;
    (void)state;
    rng_init(&rng, 4, 4);
    for (uint32_t i = 0; i < N; i++)
        prompt[i] = (int32_t)(3 + rng_below(&rng, 250));
    tiny_model_file(&tiny, path);
    for (unsigned threads = 1; threads < 4; threads++) {
        struct native_options o = {.model_path = path,
                                   .threads = threads,
                                   .context_max = 1024,
                                   .step_tokens_max = 64u << threads,
                                   .kv_bytes_max = (uint64_t)64 << 20};
        struct engine *e;
        assert_int_equal(native_open(&o, &e, NULL), 0);
        struct backend *b = start(e, 64, false);
        for (int round = 0; round < 3; round++) {
            if (round == 1) submit(b, prompt + 9, N - 100, 3, 0.0f, 0.0f);
            struct job *j = submit(b, prompt, N - (uint32_t)round / 2, 10, 0.4f, 0.0f);
            struct story s = run(b, j);
            if (round < 2) {
                assert_int_equal(j->refine->made, 2);
                for (int v = 0; v < 2; v++) {
                    const struct refined *r = &j->refine->versions[v];
                    assert_int_equal(r->choice.refusal, KEEP_OK);
                    if (threads == 1 && round == 0) memcpy(want[v], r->bits, r->n_bits);
                    assert_memory_equal(r->bits, want[v], r->n_bits);
                }
            }
            assert_int_equal(s.cached > 0, round > 0);
            job_free(j);
        }
        backend_free(b);
    }
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),       cmocka_unit_test(test_many_ranges),
        cmocka_unit_test(test_find),           cmocka_unit_test(test_early_refusals),
        cmocka_unit_test(test_without_memory), cmocka_unit_test(test_events),
        cmocka_unit_test(test_unfit),          cmocka_unit_test(test_same_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
