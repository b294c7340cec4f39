/*
 * test_demo: `pdd demo` as a newcomer runs it, with the model of models/ and the logbook of demo/,
 * and what the README says to try next. Runs the program named by PDD_BIN (CTest sets it).
 *
 * Catches: a demonstration that shows nothing: an answer of a few tokens, all of it the cloud's, or
 * wrong; answers that differ; a wait that is not much shorter; a cloud that gives more than the
 * plan needs. Its times are those of a machine that may be busy: three tries, and the plan's
 * formula takes the speed that the device had.
 */
#include <glob.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "policy/plan.h"
#include "support/program.h"
#include "support/tiny_model.h"

#define TASK PDD_SOURCE_DIR "/demo/logbook.json"
#define DOCUMENT PDD_SOURCE_DIR "/demo/logbook.txt"
#define MODELS PDD_SOURCE_DIR "/models/pdd-read*.gguf"

enum { TRIES = 3, TOKENS_LEAST = 150, PATH_BYTES = 256, WHY_BYTES = 512 };

static const double WAIT_LESS = 0.8, CLOUD_MORE = 1.2, DECODE_TPS = 15.6;

/* The model that the demonstration takes: the largest that reads. Without one a test is skipped. */
static void find_model(char path[PATH_BYTES])
{
    glob_t found;
    off_t best = 0;
    if (program_instrumented || glob(MODELS, 0, NULL, &found) != 0) skip();
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct stat st;
        assert_int_equal(stat(found.gl_pathv[i], &st), 0);
        if (st.st_size <= best) continue;
        best = st.st_size;
        snprintf(path, PATH_BYTES, "%s", found.gl_pathv[i]);
    }
    globfree(&found);
}

static json_t *load(const char *path)
{
    json_error_t at;
    json_t *j = json_load_file(path, JSON_REJECT_DUPLICATES, &at);
    if (!j) fail_msg("%s: %s", path, at.text);
    return j;
}

static const char *text_in(const json_t *j, const char *key)
{
    const char *text = json_string_value(json_object_get(j, key));
    assert_non_null(text);
    return text;
}

static double number_in(const json_t *j, const char *key)
{
    return json_number_value(json_object_get(j, key));
}

/* NULL, or the first fact of the task that the text lacks. */
static const char *missing_fact(const json_t *task, const char *text)
{
    size_t i;
    json_t *fact;
    json_array_foreach(
        json_object_get(task, "facts"), i,
        fact) if (!strstr(text, json_string_value(fact))) return json_string_value(fact);
    return NULL;
}

/* N* of policy/plan.h for the first token and the prefill speed of this answer. */
static double plan_tokens(const json_t *both)
{
    double prefill_us = 1e6 / number_in(both, "device_prefill_tps"), decode_us = 1e6 / DECODE_TPS;
    struct plan_input in = {.prompt_tokens = (uint32_t)number_in(both, "prompt_tokens"),
                            .device = {.prefill = {.us = prefill_us}, .decode = {.us = decode_us}},
                            .cloud = {.first_us = {.mean = 1e3 * number_in(both, "ttft_ms")}}};
    return plan_tokens_least(&in, decode_us);
}

/* The claims of the demonstration; why[0] is 0 where all hold. */
static void judge(const json_t *b, const json_t *c, const json_t *d, const json_t *task,
                  char why[WHY_BYTES])
{
    const char *text = text_in(b, "text"), *fact = missing_fact(task, text);
    double wait = 1.0 - number_in(b, "ttft_ms") / number_in(d, "ttft_ms");
    double tokens = number_in(b, "tokens_total"), lent = number_in(b, "cloud_tokens");
    why[0] = 0;
    /* No machine is too busy for these. */
    if (strcmp(text, text_in(c, "text")) != 0 || strcmp(text, text_in(d, "text")) != 0)
        fail_msg("the answers differ:\n%s\n%s\n%s", text, text_in(c, "text"), text_in(d, "text"));
    if (fact) fail_msg("the answer lacks \"%s\": %s", fact, text);
    if (tokens < TOKENS_LEAST) fail_msg("the answer has %.0f tokens: %s", tokens, text);
    if (!json_is_integer(json_object_get(b, "handover")))
        snprintf(why, WHY_BYTES, "no handover; %.0f cloud tokens", lent);
    else if (!(wait >= WAIT_LESS))
        snprintf(why, WHY_BYTES, "the wait is %.0f %% below the device's", 100.0 * wait);
    else if (!(lent <= CLOUD_MORE * plan_tokens(b)))
        snprintf(why, WHY_BYTES, "%.0f cloud tokens, the plan's formula gives %.0f", lent,
                 plan_tokens(b));
}

static json_t *report_of(const char *folder, const char *name)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return load(path);
}

static void demonstrate(const char *model, const char *folder, const char *seed,
                        char why[WHY_BYTES])
{
    struct program p;
    struct buf out, err;
    program_start(&p, "demo", ARGS("--model", model, "--out", folder, "--seed", seed));
    int status = program_finish(&p, &out, &err);
    if (status) fail_msg("status %d: %s", status, err.data);
    json_t *b = report_of(folder, "both.json"), *c = report_of(folder, "cloud.json");
    json_t *d = report_of(folder, "device.json"), *all = report_of(folder, "demo.json");
    json_t *task = load(TASK);
    judge(b, c, d, task, why);
    assert_true(json_is_true(json_object_get(all, "identical")));
    assert_true(number_in(all, "facts_found") == number_in(all, "facts"));
    assert_true(number_in(b, "cloud_slot_ms") > 0.0 && number_in(d, "cloud_slot_ms") == 0.0);
    assert_non_null(strstr(out.data, "emulated the cloud: provider-20ms"));
    assert_non_null(strstr(out.data, "emulated the device: s24-ultra-gpu"));
    json_decref(b);
    json_decref(c);
    json_decref(d);
    json_decref(all);
    json_decref(task);
    buf_release(&out);
    buf_release(&err);
}

static void remove_folder(const char *folder)
{
    static const char *const names[] = {
        "both.json", "cloud.json", "device.json",  "prefill.json", "demo.json",    "cloud.log",
        "link.log",  "device.log", "timeline.svg", "slow.json",    "refined.json", "document.txt"};
    char path[PATH_BYTES];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(folder), 0);
}

static void test_demo(void **state)
{
    static const char *const seeds[TRIES] = {"1", "2", "3"};
    (void)state;
    char folder[] = "/tmp/pdd-demo-XXXXXX", why[WHY_BYTES] = "", model[PATH_BYTES];
    find_model(model);
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < TRIES; i++) {
        demonstrate(model, folder, seeds[i], why);
        if (!why[0]) break;
        print_message("try %d: %s\n", i + 1, why);
    }
    remove_folder(folder);
    if (why[0]) fail_msg("%s", why);
}

/* The README's next step: the same file, by `pdd chat --cloud`. */
static void ask(const char *url, const char *question, const char *seed, struct buf *out)
{
    struct program p;
    struct buf err;
    program_start(&p, "chat",
                  ARGS("--cloud", url, "--no-model", "--document", DOCUMENT, "--prompt", question,
                       "--seed", seed));
    int status = program_finish(&p, out, &err);
    if (status) fail_msg("status %d: %s", status, err.data);
    buf_release(&err);
}

static void test_seeds_and_questions(void **state)
{
    static const char *const seeds[] = {"1", "2", "3", "4", "5", "6", "7", "8"};
    (void)state;
    struct program cloud;
    struct buf out;
    char url[64], model[PATH_BYTES];
    size_t i;
    find_model(model);
    json_t *task = load(TASK), *question;
    program_start(&cloud, "cloud",
                  ARGS("--model", model, "--listen", "127.0.0.1:0", "--log-level", "error"));
    program_line_after(&cloud, "listening on ", url, sizeof url);
    for (i = 0; i < sizeof seeds / sizeof *seeds; i++) {
        ask(url, text_in(task, "question"), seeds[i], &out);
        const char *fact = missing_fact(task, out.data);
        if (fact) fail_msg("seed %s: the answer lacks \"%s\": %s", seeds[i], fact, out.data);
        buf_release(&out);
    }
    json_array_foreach(json_object_get(task, "short"), i, question)
    {
        ask(url, text_in(question, "question"), "1", &out);
        if (!strstr(out.data, text_in(question, "answer")))
            fail_msg("%s: %s", text_in(question, "question"), out.data);
        buf_release(&out);
    }
    program_kill(&cloud, SIGTERM);
    json_decref(task);
}

static void expect_refused(const char *model, const char *task, const char *said)
{
    struct program p;
    struct buf out, err;
    program_start(&p, "demo", ARGS("--model", model, "--task", task, "--out", "/tmp"));
    assert_int_equal(program_finish(&p, &out, &err), 1);
    if (!strstr(err.data, said)) fail_msg("no \"%s\" in: %s", said, err.data);
    buf_release(&out);
    buf_release(&err);
}

/* Catches: a task file read half, or a model loaded before its mistakes are told. */
static void test_tasks(void **state)
{
    static const struct {
        const char *task, *said;
    } cases[] = {{"{", "line 1: "},
                 {"{\"document\": \"a\"}", "must be texts"},
                 {"{\"document\": \"a\", \"question\": \"b\", \"facts\": [1]}", "must be texts"},
                 {"{\"document\": \"a\", \"document\": \"b\"}", "duplicate"}};
    (void)state;
    char path[] = "/tmp/pdd-task-XXXXXX";
    close(mkstemp(path));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        assert_true(fputs(cases[i].task, f) >= 0);
        assert_int_equal(fclose(f), 0);
        expect_refused("/no/such.gguf", path, cases[i].said);
    }
    unlink(path);
    expect_refused("/no/such.gguf", "/no/such.json", "/no/such.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_demo),
        cmocka_unit_test(test_seeds_and_questions),
        cmocka_unit_test(test_tasks),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
