/*
 * test_lib_abi: what libpdd.so and libpdd.a offer to programs that are built already. It looks at
 * the files beside the program that PDD_BIN names; the dump is made by tools/libpdd_abi.sh.
 *
 * Catches: a name of ours or of a library's that is exported, or one that is gone; a field that
 * moved, changed its type or grew; a constant with another value.
 */
#include <libgen.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pdd.h"
#include "support/program.h"

#define LISTED PDD_SOURCE_DIR "/tests/lib/exports.txt"

static char folder[512];

static int find_folder(void **state)
{
    (void)state;
    const char *bin = getenv("PDD_BIN");
    char copy[512];
    snprintf(copy, sizeof copy, "%s", bin ? bin : "");
    snprintf(folder, sizeof folder, "%s", bin && bin[0] ? dirname(copy) : "");
    return 0;
}

/* A shell's command line, in which $DIR is the folder; skipped without a build. */
static void expect(const char *command)
{
    char line[2048];
    struct buf out;
    if (!folder[0]) skip();
    setenv("DIR", folder, 1);
    setenv("LC_ALL", "C", 1);
    snprintf(line, sizeof line, "exec 2>&1; %s", command);
    int status = program_shell(line, &out);
    if (status) fail_msg("%s: %d: %s", command, status, out.data);
    buf_release(&out);
}

/* Nothing else, and nothing less. The name of the version is not a function. */
static void test_exports(void **state)
{
    (void)state;
    expect("nm -D --defined-only $DIR/libpdd.so | grep -v ' A PDD_0' | "
           "sed 's/.* [A-Za-z] //; s/@@PDD_0//' | sort | diff - " LISTED);
    expect("nm -g --defined-only $DIR/libpdd.a | grep ' [A-Z] ' | sed 's/.* //' | sort | "
           "diff - " LISTED);
    expect("readelf -d $DIR/libpdd.so | grep -q 'SONAME.*libpdd.so.0.'");
}

/* Every function of the header is there. */
static void test_header(void **state)
{
    (void)state;
    expect("grep -o '[*a-z_0-9 ]*pdd_[a-z_]*(' " PDD_SOURCE_DIR
           "/include/pdd.h | grep -v 'typedef' | sed 's/($//; s/.*[ *]//' | sort -u | "
           "grep -vE '^pdd_(on_[a-z]*)?$' | diff - " LISTED);
}

#if UINTPTR_MAX == UINT64_MAX
/* Sizes and places by the 64-bit ABIs. Structs grow at their ends: a new field adds a line. */
static void test_layout(void **state)
{
    (void)state;
    assert_int_equal(sizeof(pdd_error), 516);
    assert_int_equal(offsetof(pdd_error, text), 4);
    assert_int_equal(sizeof(pdd_model_options), 80);
    assert_int_equal(offsetof(pdd_model_options, kv_bytes_max), 24);
    assert_int_equal(offsetof(pdd_model_options, profile), 72);
    assert_int_equal(sizeof(pdd_model_info), 72);
    assert_int_equal(offsetof(pdd_model_info, context_max), 48);
    assert_int_equal(sizeof(pdd_device_options), 72);
    assert_int_equal(offsetof(pdd_device_options, state_dir), 48);
    assert_int_equal(offsetof(pdd_device_options, read_ahead), 68);
    assert_int_equal(sizeof(pdd_token), 32);
    assert_int_equal(sizeof(pdd_question), 192);
    assert_int_equal(sizeof(pdd_bias), 8);
    assert_int_equal(offsetof(pdd_question, temperature), 44);
    assert_int_equal(offsetof(pdd_question, seed), 80);
    assert_int_equal(offsetof(pdd_question, on_text), 128);
    assert_int_equal(offsetof(pdd_question, arg), 160);
    assert_int_equal(offsetof(pdd_question, stop), 168);
    assert_int_equal(offsetof(pdd_question, logit_bias), 184);
    assert_int_equal(sizeof(pdd_report), 272);
    assert_int_equal(offsetof(pdd_report, plan), 72);
    assert_int_equal(offsetof(pdd_report, sent_bytes), 152);
    assert_int_equal(offsetof(pdd_report, energy_how), 264);
}
#else
static void test_layout(void **state)
{
    (void)state;
    skip();
}
#endif

static void test_constants(void **state)
{
    (void)state;
    assert_int_equal(PDD_MORE, 1);
    assert_int_equal(PDD_ERR_BAD_INPUT, -1);
    assert_int_equal(PDD_ERR_NO_MEMORY, -5);
    assert_int_equal(PDD_ERR_INTERNAL, -13);
    assert_int_equal(PDD_READ_AHEAD_ALWAYS, 2);
    assert_int_equal(PDD_MODE_CLOUD, 2);
    assert_int_equal(PDD_SOURCE_DEVICE, 1);
    assert_int_equal(PDD_PACE_READING, 2);
    assert_int_equal(PDD_GOAL_BATTERY, 3);
    assert_int_equal(PDD_VERIFY_OFF, 2);
    assert_int_equal(PDD_REFINE_LOCAL, 3);
    assert_int_equal(PDD_FAILED, 3);
}

/* All that a program can see, types of arguments, too. Needs abigail-tools, and debug symbols. */
static void test_abidiff(void **state)
{
    (void)state;
    struct buf out;
    int missing = program_shell("command -v abidiff", &out);
    buf_release(&out);
    if (missing || program_instrumented) skip();
    expect(PDD_SOURCE_DIR "/tools/libpdd_abi.sh --check $DIR");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exports), cmocka_unit_test(test_header),
        cmocka_unit_test(test_layout),  cmocka_unit_test(test_constants),
        cmocka_unit_test(test_abidiff),
    };
    return cmocka_run_group_tests(tests, find_folder, NULL);
}
