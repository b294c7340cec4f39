/*
 * test_bench: `pdd bench engine` as a program (PDD_BIN, set by CTest), on a tiny random model.
 *
 * Catches: a case that was asked for and is missing, a number that is no number, a report that is
 * no JSON, a fresh process that never tells its first token. It times nothing.
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
        cmocka_unit_test(test_complaints),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
