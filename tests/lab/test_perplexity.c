/*
 * test_perplexity: perplexity_run against logits taken one token at a time, in one session, with a
 * softmax of its own in double; and `pdd bench perplexity` as a program (PDD_BIN).
 *
 * Catches: a token that counts twice or never, a window that begins elsewhere, a prediction taken
 * from the wrong place or another session, bytes of tokens that did not count, a report that is no
 * JSON, and complaints that name no culprit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>

#include "base/os.h"
#include "lab/perplexity.h"
#include "model/text/vocab.h"
#include "support/program.h"
#include "support/tiny_model.h"

enum { TEXT_PATH_MAX = 64, VOCAB = 300 };

static char model[TINY_PATH_MAX];

static int make_model(void **state)
{
    struct tiny_options o = TINY_DEFAULT;
    (void)state;
    o.context = 64;
    tiny_model_file(&o, model);
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    return unlink(model);
}

/* A file of `n` bytes of text; returns its path in `path`. */
static void text_file(size_t n, uint32_t seed, char path[TEXT_PATH_MAX])
{
    snprintf(path, TEXT_PATH_MAX, "/tmp/pdd-test-perplexity-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *f = fdopen(fd, "w");
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        fputc((seed >> 16) % 7 == 0 ? ' ' : (int)('a' + (seed >> 20) % 26), f);
    }
    fclose(f);
}

static double log_probability(const float *logits, int32_t id)
{
    double most = -INFINITY, sum = 0.0;
    for (int i = 0; i < VOCAB; i++)
        most = fmax(most, (double)logits[i]);
    for (int i = 0; i < VOCAB; i++)
        sum += exp((double)logits[i] - most);
    return (double)logits[id] - most - log(sum);
}

/* -ln p of token `at` after the tokens from `start` on, each appended in a step of its own. */
static double nll_of(struct engine *e, const int32_t *ids, uint32_t start, uint32_t at)
{
    struct session *s = NULL;
    struct err err = ERR_INIT;
    assert_int_equal(engine_session_open(e, &s, &err), 0);
    for (uint32_t i = start; i < at; i++) {
        struct engine_span span = {.session = s, .tokens = &ids[i], .n = 1, .sample = true};
        assert_int_equal(engine_step(e, &span, 1, &err), 0);
    }
    double nll = -log_probability(session_logits(s), ids[at]);
    engine_session_close(s);
    return nll;
}

static struct perplexity_count expected(const char *path, uint32_t context)
{
    struct native_options o = {.model_path = model, .threads = 1};
    struct engine *e = NULL;
    struct err err = ERR_INIT;
    struct buf text;
    struct token_list t;
    struct perplexity_count c = {0};
    assert_int_equal(native_open(&o, &e, &err), 0);
    buf_init(&text, 1 << 20);
    token_list_init(&t, 1 << 20);
    assert_int_equal(os_read_file(path, &text, &err), 0);
    assert_int_equal(vocab_encode(engine_vocab(e), text.data, text.len, VOCAB_ADD_BOS, &t, &err),
                     0);
    for (uint32_t i = 1, start = 0; i < t.len; i++) {
        if (i >= start + context) start += context / 2;
        c.nll += nll_of(e, t.ids, start, i);
        c.tokens++;
    }
    c.bytes = text.len; /* the first token is BOS */
    token_list_release(&t);
    buf_release(&text);
    engine_free(e);
    return c;
}

static void run(const struct perplexity_plan *p, struct perplexity_result *r)
{
    struct err e = ERR_INIT;
    if (perplexity_run(p, r, &e)) fail_msg("%s", e.text);
}

static void check(const struct perplexity_count *got, const struct perplexity_count *want)
{
    assert_int_equal(got->tokens, want->tokens);
    assert_int_equal(got->bytes, want->bytes);
    if (!(fabs(got->nll - want->nll) < 1e-5 * want->nll))
        fail_msg("%.9f, one token at a time %.9f", got->nll, want->nll);
}

/* Texts shorter than a window, as long as one, a little longer, and of many windows; odd windows;
 * steps smaller than half a window. */
static void test_against_single_tokens(void **state)
{
    static const uint32_t lengths[] = {2, 15, 40, 47, 50, 170}, contexts[] = {4, 15, 48, 0};
    static struct perplexity_result r;
    struct perplexity_plan p = {.engine = {.model_path = model, .threads = 2}};
    char paths[6][TEXT_PATH_MAX];
    (void)state;
    for (uint32_t i = 0; i < 6; i++) {
        text_file(lengths[i], i, paths[i]);
        p.files[p.n_files++] = paths[i];
    }
    for (uint32_t c = 0; c < 4; c++) {
        struct perplexity_count total = {0};
        p.context = contexts[c];
        p.engine.step_tokens_max = c == 1 ? 5 : 0;
        run(&p, &r);
        assert_int_equal(r.context, contexts[c] ? contexts[c] : 64);
        for (uint32_t i = 0; i < 6; i++) {
            struct perplexity_count want = expected(paths[i], r.context);
            check(&r.files[i], &want);
            total.tokens += want.tokens;
            total.bytes += want.bytes;
            total.nll += want.nll;
        }
        check(&r.total, &total);
    }
    for (uint32_t i = 0; i < 6; i++)
        unlink(paths[i]);
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v)) fail_msg("%s is missing", key);
    return json_number_value(v);
}

static void test_program(void **state)
{
    struct program run;
    struct buf out, err;
    char a[TEXT_PATH_MAX], b[TEXT_PATH_MAX];
    (void)state;
    text_file(100, 1, a);
    text_file(30, 2, b);
    program_start(&run, "bench",
                  ARGS("perplexity", "--model", model, "--json", "--file", a, "--file", b));
    int status = program_finish(&run, &out, &err);
    if (status) fail_msg("%s", err.data);
    json_t *all = json_loads(out.data, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(all);
    const json_t *files = json_object_get(all, "files"), *total = json_object_get(all, "total");
    assert_int_equal(json_array_size(files), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(files, 1), "file")), b);
    double nll = number(total, "nll") * number(total, "tokens");
    assert_true(fabs(number(total, "perplexity") - exp(number(total, "nll"))) < 1e-6);
    assert_true(fabs(number(total, "bits_per_byte") - nll / log(2) / number(total, "bytes")) <
                1e-9);
    assert_int_equal(number(all, "context"), 64);
    json_decref(all);
    buf_release(&out);
    buf_release(&err);
    program_start(&run, "bench", ARGS("perplexity", "--model", model, "--file", a));
    assert_int_equal(program_finish(&run, &out, &err), 0);
    assert_non_null(strstr(out.data, "perplexity"));
    assert_non_null(strstr(out.data, a));
    buf_release(&out);
    buf_release(&err);
    unlink(a);
    unlink(b);
}

/* What is asked for, and what the complaint must name. */
static void test_complaints(void **state)
{
    char empty[TEXT_PATH_MAX], text[TEXT_PATH_MAX];
    (void)state;
    text_file(0, 1, empty);
    text_file(30, 2, text);
    const struct {
        const char *option, *value, *file, *said;
        int status;
    } wrong[] = {
        {"--context", "32", empty, empty, 1},
        {"--context", "32", "/nonexistent/text", "/nonexistent/text", 1},
        {"--context", "65", text, "65 tokens is longer than the model's context of 64", 1},
        {"--context", "3", text, "a whole number from 4 to", 2},
        {"--kv-type", "i8", text, "i8", 2},
        {"--context", "32", NULL, "--file", 2},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct program run;
        struct buf out, err;
        program_start(&run, "bench",
                      ARGS("perplexity", "--model", model, wrong[i].option, wrong[i].value,
                           wrong[i].file ? "--file" : NULL, wrong[i].file));
        assert_int_equal(program_finish(&run, &out, &err), wrong[i].status);
        if (!strstr(err.data, wrong[i].said)) fail_msg("no %s in: %s", wrong[i].said, err.data);
        buf_release(&out);
        buf_release(&err);
    }
    unlink(empty);
    unlink(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_single_tokens),
        cmocka_unit_test(test_program),
        cmocka_unit_test(test_complaints),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
