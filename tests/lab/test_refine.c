/*
 * test_refine: refine_run over a tiny model: its file of results against answers of an engine of
 * the test's own, and what it does when it is stopped and started again.
 *
 * Catches: a part that answers otherwise than its kept tokens do, a prefix that is kept from the
 * question before, results of two models in one file, questions that are asked twice or never (a
 * killed run, parts, a limit), a result that says an answer is kept when it is not, and complaints
 * that name no culprit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/buf.h"
#include "base/os.h"
#include "lab/refine.h"
#include "support/tiny_model.h"

enum { PATH_LEN = 64, RESULTS = 1 << 20 };

static char model[TINY_PATH_MAX], set_path[PATH_LEN], out_path[PATH_LEN];
static struct refine_plan plan;

static void temporary(char path[PATH_LEN])
{
    snprintf(path, PATH_LEN, "/tmp/pdd-test-refine-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
}

/* Three documents of two sets, five questions. */
static void write_set(void)
{
    FILE *f = fopen(set_path, "w");
    assert_non_null(f);
    for (int d = 0; d < 3; d++) {
        fprintf(f, "{\"set\": \"%s\", \"text\": \"", d == 2 ? "b" : "a");
        for (int i = 0; i < 20 + d; i++)
            fprintf(f, "Line %d of %d says that the code of door %d is %d. ", i, d, i, 37 * i + d);
        fprintf(f,
                "\", \"questions\": [{\"text\": \"What is the code of door 10?\", \"accepted\": "
                "[\"never\", \"%d\"], \"kind\": \"known\", \"label\": \"x\"}",
                37 * 10 + d);
        if (d < 2) fprintf(f, ", {\"text\": \"Sum up.\", \"accepted\": [], \"kind\": \"flat\"}");
        fprintf(f, "]}\n\n");
    }
    fclose(f);
}

static int make_files(void **state)
{
    struct tiny_options o = TINY_DEFAULT;
    (void)state;
    tiny_model_file(&o, model);
    temporary(set_path);
    temporary(out_path);
    write_set();
    return 0;
}

static int remove_files(void **state)
{
    (void)state;
    return unlink(model) | unlink(set_path) | unlink(out_path);
}

static int begin(void **state)
{
    (void)state;
    plan = (struct refine_plan){
        .engine = {.model_path = model, .threads = 1, .chat_template = "chatml"},
        .sets = {set_path},
        .n_sets = 1,
        .out = out_path,
        .part = 1,
        .parts = 1,
        .quiet = true};
    return truncate(out_path, 0);
}

static void run(void)
{
    struct err e = ERR_INIT;
    if (refine_run(&plan, &e)) fail_msg("%s", e.text);
}

static void run_fails(const char *word)
{
    struct err e = ERR_INIT;
    assert_int_not_equal(refine_run(&plan, &e), 0);
    if (!strstr(e.text, word)) fail_msg("%s: %s", word, e.text);
}

/* The lines of the file of results. */
static json_t *results(void)
{
    struct buf text;
    struct err e = ERR_INIT;
    json_t *all = json_array();
    buf_init(&text, RESULTS);
    assert_int_equal(os_read_file(out_path, &text, &e), 0);
    for (char *at = text.data, *end; (end = strchr(at, '\n')) != NULL; at = end + 1) {
        json_t *line = json_loadb(at, (size_t)(end - at), JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(line);
        if (json_object_get(line, "about"))
            assert_true(at == text.data); /* the first line */
        else
            json_array_append(all, line);
        json_decref(line);
    }
    buf_release(&text);
    return all;
}

static size_t count_results(void)
{
    json_t *all = results();
    size_t n = json_array_size(all);
    json_decref(all);
    return n;
}

static const char *text_in(const json_t *o, const char *name)
{
    return json_string_value(json_object_get(o, name));
}

/* What is kept of everything is the whole prompt, and is answered alike; the fewer are kept, the
 * shorter. A task of kind "flat" is asked no part. */
static void check_line(const json_t *line)
{
    const json_t *run_of;
    const char *whole = text_in(json_object_get(line, "whole"), "answer");
    json_int_t tokens = json_integer_value(json_object_get(line, "tokens")), before = tokens + 1;
    bool flat = strcmp(text_in(line, "kind"), "flat") == 0;
    size_t i;
    assert_non_null(whole);
    json_array_foreach(json_object_get(line, "runs"), i, run_of)
    {
        json_int_t kept = json_integer_value(json_object_get(run_of, "kept"));
        double ratio = json_real_value(json_object_get(run_of, "ratio"));
        const char *answer = text_in(run_of, "answer");
        assert_true(kept < before && (double)kept <= ratio * (double)tokens);
        before = kept;
        assert_true(flat == (answer == NULL));
        if (ratio < 1.0) continue;
        assert_int_equal(kept, tokens);
        assert_true(flat || json_is_true(json_object_get(run_of, "has")));
        if (!flat) assert_string_equal(answer, whole);
    }
    assert_int_equal(i, 3);
}

static void test_answers(void **state)
{
    (void)state;
    plan.methods = "relevance";
    plan.ratios = "1,.5,.3";
    run();
    json_t *all = results(), *line;
    size_t i;
    assert_int_equal(json_array_size(all), 5);
    json_array_foreach(all, i, line) check_line(line);
    json_decref(all);
}

/* A method that keeps the ends does not keep what stands in the middle, and says so. */
static void test_has(void **state)
{
    (void)state;
    plan.methods = "ends,words";
    plan.ratios = ".3";
    plan.questions = 1;
    plan.no_answers = true;
    run();
    json_t *all = results(), *line = json_array_get(all, 0), *runs = json_object_get(line, "runs");
    assert_int_equal(json_array_size(runs), 2);
    for (size_t i = 0; i < 2; i++) {
        json_t *r = json_array_get(runs, i);
        assert_null(json_object_get(r, "answer"));
        assert_int_equal(json_is_true(json_object_get(r, "has")),
                         strcmp(text_in(r, "method"), "words") == 0);
    }
    json_decref(all);
}

/* A run that was killed in the middle of a line goes on where it was; nothing is asked again. */
static void test_goes_on(void **state)
{
    struct buf first;
    struct err e = ERR_INIT;
    (void)state;
    plan.methods = "random";
    run();
    buf_init(&first, RESULTS);
    assert_int_equal(os_read_file(out_path, &first, &e), 0);
    const char *third = strchr(strchr(strchr(first.data, '\n') + 1, '\n') + 1, '\n') + 1;
    assert_int_equal(truncate(out_path, third - first.data + 10), 0);
    run();
    json_t *all = results();
    assert_int_equal(json_array_size(all), 5);
    run();
    assert_int_equal(count_results(), 5);
    json_decref(all);
    buf_release(&first);
}

static void test_parts(void **state)
{
    (void)state;
    plan.methods = "ends";
    plan.no_answers = true;
    plan.part = plan.parts = 2;
    run();
    assert_int_equal(count_results(), 1); /* the document of set b */
    plan.part = 1;
    run();
    assert_int_equal(count_results(), 5);
}

static void test_limit(void **state)
{
    (void)state;
    plan.methods = "ends";
    plan.no_answers = true;
    plan.questions = 3;
    run();
    assert_int_equal(count_results(), 4); /* three of set a, one of set b */
}

/* Results of two models in one file would be averages of both. */
static void test_other_model(void **state)
{
    struct tiny_options o = TINY_DEFAULT;
    char other[TINY_PATH_MAX];
    (void)state;
    plan.methods = "ends";
    plan.no_answers = true;
    run();
    o.seed = 2;
    tiny_model_file(&o, other);
    plan.engine.model_path = other;
    run_fails("other weights");
    assert_int_equal(unlink(other), 0);
    assert_int_equal(count_results(), 5);
}

static void test_complaints(void **state)
{
    (void)state;
    plan.methods = "ends,middle";
    run_fails("middle");
    plan.methods = NULL;
    plan.ratios = ".5,2";
    run_fails("2");
    plan.ratios = NULL;
    plan.out = set_path; /* that has no results */
    run_fails(set_path);
    plan.out = out_path;
    plan.sets[0] = model;
    run_fails(":1:");
    plan.sets[0] = "/nonexistent/set";
    run_fails("/nonexistent/set");
    plan.sets[0] = set_path;
    plan.engine.context_max = 256;
    run_fails("256");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_answers, begin),
        cmocka_unit_test_setup(test_has, begin),
        cmocka_unit_test_setup(test_goes_on, begin),
        cmocka_unit_test_setup(test_parts, begin),
        cmocka_unit_test_setup(test_limit, begin),
        cmocka_unit_test_setup(test_other_model, begin),
        cmocka_unit_test_setup(test_complaints, begin),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
