/*
 * test_evaluate: tools/train/evaluate.py on a few generated questions, with the smallest model of
 * models/ and the program that PDD_BIN names. Skipped where python3 or a part of the recipe is
 * missing. It needs no data from outside, and judges no figure: the model may be poor.
 *
 * Catches: a server that is not started or not ended, questions that are lost or get no answer, a
 * prompt other than document, empty line, question; a prefix that is computed twice; a set without
 * texts that is not reported as skipped; a card whose text around the markers is lost; scores other
 * than SQuAD's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <glob.h>
#include <jansson.h>

#include "base/buf.h"
#include "base/os.h"
#include "support/program.h"

enum { COMMAND_MAX = 8192, PATH_BYTES = 128 };

#define TRAIN PDD_SOURCE_DIR "/tools/train"

static char folder[] = "/tmp/pdd-test-evaluate-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char command[PATH_BYTES];
    (void)state;
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static void need_python(void)
{
    struct buf out;
    int status = program_shell("python3 -c 'import argparse, http.client, json' 2>&1", &out);
    buf_release(&out);
    if (status != 0 || access(TRAIN "/facts.py", R_OK) != 0) skip();
}

/* The smallest model of models/. */
static void find_model(char path[COMMAND_MAX / 4])
{
    glob_t found;
    off_t least = 0;
    path[0] = 0;
    if (glob(PDD_SOURCE_DIR "/models/*.gguf", 0, NULL, &found) != 0) skip();
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct stat s;
        if (stat(found.gl_pathv[i], &s) != 0 || (path[0] && s.st_size >= least)) continue;
        snprintf(path, COMMAND_MAX / 4, "%s", found.gl_pathv[i]);
        least = s.st_size;
    }
    globfree(&found);
}

static void test_scores(void **state)
{
    static const char script[] =
        "import score as s\n"
        "assert s.exact('The  Red-House!', ['x', 'redhouse']) == 1\n"
        "assert s.exact('an apple', ['the apple']) == 1 and s.exact('apples', ['apple']) == 0\n"
        "assert abs(s.f1('the big red house', ['red house here', 'x']) - 2 / 3) < 1e-9\n"
        "assert s.f1('', ['x']) == 0 and s.f1('the', ['a']) == 1\n"
        "assert s.f1('x x y', ['x z']) == 0.4\n"
        "want = ['Anna came in May.', 'Dr. Anna sold the kite.', 'Anna left.']\n"
        "assert s.sentence_scores('Anna came in May. Dr. Anna sold the kite.', want) == (2 / 3, "
        "1)\n"
        "assert s.sentence_scores('Bob slept well all night. Anna left.', want) == (1 / 3, 0.5)\n"
        "assert s.sentence_scores('', want) == (0, 0)\n"
        "mean, low, high = s.mean_interval([[1.0], [0.0, 0.0], [1.0, 1.0], [0.0]])\n"
        "assert mean == 0.5 and 0 <= low < 0.5 < high <= 1\n"
        "mean, low, high = s.mean_interval([[1.0] * 10])\n"
        "assert mean == 1 and 0.69 < low < 0.73 and high == 1\n"
        "assert s.ratio_interval([(2, 4), (3, 6)]) == (0.5, 0.5, 0.5)\n";
    char command[COMMAND_MAX];
    struct buf out;
    (void)state;
    need_python();
    snprintf(command, sizeof command, "cd '%s' && python3 -B - 2>&1 <<'END'\n%s\nEND", TRAIN,
             script);
    if (program_shell(command, &out) != 0) fail_msg("%s", out.data);
    buf_release(&out);
}

/* One set of the report: questions with answers, and the prefix of the second one kept. */
static void check_set(const json_t *set, const char *name, size_t questions)
{
    const json_t *asked = json_object_get(set, "asked"), *a;
    json_int_t kept = 0;
    size_t i;
    assert_string_equal(json_string_value(json_object_get(set, "name")), name);
    assert_int_equal(json_array_size(asked), questions);
    json_array_foreach((json_t *)asked, i, a)
    {
        json_int_t tokens = json_integer_value(json_object_get(a, "prompt_tokens"));
        const char *finish = json_string_value(json_object_get(a, "finish"));
        assert_true(tokens > 700 && tokens < 1500);
        assert_true(strcmp(finish, "stop") == 0 || strcmp(finish, "length") == 0);
        if (json_integer_value(json_object_get(a, "cached")) > tokens / 2) kept++;
    }
    assert_true(kept >= 1);
}

static void check_card(const char *path, const char *stem)
{
    struct buf text;
    struct err e = ERR_INIT;
    char begin[PATH_BYTES];
    buf_init(&text, PROGRAM_OUTPUT_MAX);
    assert_int_equal(os_read_file(path, &text, &e), 0);
    snprintf(begin, sizeof begin, "<!-- evaluate.py: %s -->", stem);
    char *at = strstr(text.data, begin);
    assert_true(strncmp(text.data, "# Card\n", 7) == 0 && at != NULL);
    assert_null(strstr(at + 1, begin)); /* the second run replaced what the first wrote */
    assert_non_null(strstr(at, "generated facts, 1k | 2 |"));
    assert_non_null(strstr(at, "numerics `exact-1"));
    assert_non_null(strstr(at, "Skipped: SQuAD dev, gold paragraph: "));
    buf_release(&text);
}

static void test_harness(void **state)
{
    char command[COMMAND_MAX], model[COMMAND_MAX / 4], path[PATH_BYTES];
    const char *bin = getenv("PDD_BIN");
    struct buf out;
    (void)state;
    need_python();
    if (!bin || !bin[0] || program_instrumented) skip();
    find_model(model);
    snprintf(
        command, sizeof command,
        "cd %s && echo '# Card' > card.text && for i in 1 2; do python3 -B %s/evaluate.py '%s' "
        "--pdd '%s' --n 2 --sets facts-1k,needles-1k,collect-1k,squad --texts none --json o.json "
        "--card card.text 2>&1 || exit 1; done",
        folder, TRAIN, model, bin);
    if (program_shell(command, &out) != 0) fail_msg("%s", out.data);
    buf_release(&out);
    snprintf(path, sizeof path, "%s/o.json", folder);
    json_t *report = json_load_file(path, 0, NULL);
    assert_non_null(report);
    const json_t *sets = json_object_get(report, "sets");
    assert_int_equal(json_array_size(sets), 3);
    check_set(json_array_get(sets, 0), "facts-1k", 2);
    check_set(json_array_get(sets, 1), "needles-1k", 2);
    check_set(json_array_get(sets, 2), "collect-1k", 2);
    assert_int_equal(json_array_size(json_object_get(report, "skipped")), 1);
    json_decref(report);
    char *stem = strrchr(model, '/') + 1;
    *strrchr(stem, '.') = 0;
    snprintf(path, sizeof path, "%s/card.text", folder);
    check_card(path, stem);
    snprintf(path, sizeof path, "%s/%s-needles.svg", folder, stem);
    assert_int_equal(access(path, R_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_harness),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
