/*
 * test_bench: `pdd bench engine` as a program (PDD_BIN, set by CTest), on a tiny random model.
 *
 * Catches: a case that was asked for and is missing, a number that is no number, a report that is
 * no JSON, a fresh process that never tells its first token, joules that are not those of the time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/buf.h"
#include "base/os.h"
#include "lab/bench_run.h"
#include "support/program.h"

enum { COMMAND_MAX = 1024 };

static char model[] = "/tmp/pdd-test-bench-XXXXXX";

static int run(const char *arguments, struct buf *out)
{
    const char *bin = getenv("PDD_BIN");
    char command[COMMAND_MAX];
    if (!bin || !bin[0]) skip();
    snprintf(command, sizeof command, "'%s' %s %s 2>&1", bin, arguments, model);
    return program_shell(command, out);
}

static int make_model(void **state)
{
    struct buf out;
    (void)state;
    int fd = mkstemp(model);
    if (fd < 0) return -1;
    close(fd);
    if (!getenv("PDD_BIN")) return 0; /* every test skips */
    int status = run("model random --shape llama-tiny -o", &out);
    buf_release(&out);
    return status;
}

static int remove_model(void **state)
{
    (void)state;
    return unlink(model);
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v)) fail_msg("%s is missing", key);
    return json_number_value(v);
}

static void test_report(void **state)
{
    (void)state;
    struct buf out;
    json_error_t error;
    int status = run("bench engine --threads 1,2 --prompt 5,70 --depth 0,65 --batch 1,3 --mixed 2 "
                     "--fill --generate 4 --chunk 32 --repeat 2 --load --json --quiet --model",
                     &out);
    if (status != 0) fail_msg("%s", out.data);
    json_t *all = json_loads(out.data, JSON_REJECT_DUPLICATES, &error);
    if (!all) fail_msg("%s: %s", error.text, out.data);
    json_t *cases = json_object_get(all, "cases"), *c;
    size_t i;
    assert_int_equal(json_array_size(cases), 2 * (2 * 5 + 1));
    json_array_foreach(cases, i, c)
    {
        assert_true(number(c, "tps") > 0 && number(c, "tps") <= number(c, "tps_best") * 1.0001);
        assert_true(number(c, "gops") > 0 && number(c, "peak_read_gbs") > 0);
        bool fill = strcmp(json_string_value(json_object_get(c, "kind")), "fill") == 0;
        assert_true(!fill || (number(c, "n") == 65 && number(c, "tokens") == 65));
        assert_int_equal(json_array_size(json_object_get(c, "us")), fill ? 1 : 2);
    }
    assert_true(number(json_object_get(all, "load"), "first_token_ms") > 0);
    assert_true(number(json_object_get(all, "load"), "peak_over_file") > 0);
    /* Two layers of q, k, v, output (3 x 256 x 256 together) and three of 256 x 512. */
    double weights = number(json_object_get(all, "work"), "layer_weights");
    assert_true(weights == 2.0 * (256 * 256 * 3 + 256 * 512 * 3));
    json_decref(all);
    buf_release(&out);
}

static void put(const char *folder, const char *file, const char *text)
{
    char path[256];
    struct err e = ERR_INIT;
    snprintf(path, sizeof path, "%s/class/power_supply/BAT0/%s", folder, file);
    if (os_write_file(path, text, strlen(text), &e)) fail_msg("%s", e.text);
}

/* Joules on a machine whose battery gives 10 W all the time: a made-up tree of sysfs. */
static void test_energy(void **state)
{
    char folder[] = "/tmp/pdd-test-bench-sys-XXXXXX", command[256];
    static struct bench_case cases[BENCH_CASES_MAX];
    struct bench_plan p = {.engine = {.model_path = model, .threads = 1},
                           .prompts = {{8}, 1},
                           .depths = {{0}, 1},
                           .threads = {{1}, 1},
                           .batches = {{1}, 1},
                           .generate = 4,
                           .rounds = 1,
                           .chunk = 32,
                           .quiet = true,
                           .sys = folder};
    struct bench_result r = {.cases = cases};
    struct err e = ERR_INIT;
    struct buf out;
    (void)state;
    if (!getenv("PDD_BIN")) skip(); /* it made the model */
    assert_non_null(mkdtemp(folder));
    snprintf(command, sizeof command, "mkdir -p '%s'/class/power_supply/BAT0", folder);
    assert_int_equal(program_shell(command, &out), 0);
    buf_release(&out);
    put(folder, "type", "Battery\n");
    put(folder, "status", "Discharging\n");
    put(folder, "power_now", "10000000\n");
    if (bench_run(&p, &r, &e)) fail_msg("%s", e.text);
    assert_int_equal(r.energy, ENERGY_BATTERY);
    assert_int_equal(r.n, 2);
    for (uint32_t i = 0; i < r.n; i++) {
        double least = 10.0 * cases[i].samples[0].us / 1e6, joules = cases[i].samples[0].joules;
        assert_true(joules >= 0.999 * least && joules < least + 10.0); /* a second of preemption */
    }
    put(folder, "status", "Full\n");
    r.n = 0;
    r.energy = ENERGY_NONE;
    memset(cases, 0, sizeof cases);
    if (bench_run(&p, &r, &e)) fail_msg("%s", e.text);
    assert_int_equal(r.energy, ENERGY_NONE);
    assert_true(cases[0].samples[0].joules == 0.0);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(program_shell(command, &out), 0);
    buf_release(&out);
}

static void test_complaints(void **state)
{
    static const char *const wrong[] = {"--prompt 1,x",
                                        "--prompt 1,,2",
                                        "--batch 300",
                                        "--threads 1,",
                                        "--depth -1",
                                        "--repeat 0",
                                        "--isa fast",
                                        "--prompt 0 --batch 0",
                                        "--prompt 1000000",
                                        "--depth 1000000 --prompt 0",
                                        "--prompt 0 --batch 0 --fill",
                                        "--nonsense"};
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char arguments[128];
        struct buf out;
        snprintf(arguments, sizeof arguments, "bench engine %s --model", wrong[i]);
        assert_int_equal(run(arguments, &out), 2);
        buf_release(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_energy),
        cmocka_unit_test(test_complaints),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
