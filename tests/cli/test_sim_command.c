/*
 * test_sim_command: `pdd sim` as a user calls it.
 *
 * Catches: an output that differs between two runs; JSON that no parser takes; a file or a name
 * that is refused without a sentence, or with the wrong exit status; a report that is not written.
 */
#include <setjmp.h>
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

#include "base/os.h"
#include "support/program.h"

enum { ARGS = 16 };

static char folder[64], requests[96], other[96], link_file[96];

static int run(const char *const *args, struct buf *out, struct buf *err)
{
    struct program p;
    program_start(&p, "sim", args);
    return program_finish(&p, out, err);
}

static void put(const char *path, const char *text)
{
    struct err e;
    assert_int_equal(os_write_file(path, text, strlen(text), &e), 0);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/pdd-sim-%ld", (long)getpid());
    snprintf(requests, sizeof requests,
             "%s"
             "/requests.csv",
             folder);
    snprintf(other, sizeof other,
             "%s"
             "/blocks.jsonl",
             folder);
    snprintf(link_file, sizeof link_file,
             "%s"
             "/link.csv",
             folder);
    if (mkdir(folder, 0700)) return -1;
    put(requests, "TIMESTAMP,ContextTokens,GeneratedTokens\n"
                  "2026-01-01 00:00:00.0,800,60\n2026-01-01 00:00:00.2,3000,90\n"
                  "2026-01-01 00:00:01.7,40000,20\n2026-01-01 00:00:02.0,90,200\n");
    put(other,
        "{\"timestamp\": 0, \"input_length\": 1100, \"output_length\": 30, \"hash_ids\": [0, "
        "1, 2]}\n{\"timestamp\": 900, \"input_length\": 1200, \"output_length\": 30, "
        "\"hash_ids\": [0, 1, 3]}\n");
    put(link_file, "time_s,rtt_ms\n0,30\n1,90\n2,20\n");
    return 0;
}

static void test_same_output_twice(void **state)
{
    const char *const args[ARGS] = {"--trace", requests,  "--trace", other,
                                    "--link",  link_file, "--json"};
    struct buf out, again, err;
    json_error_t at;
    (void)state;
    assert_int_equal(run(args, &out, &err), 0);
    assert_int_equal(err.len, 0);
    buf_release(&err);
    assert_int_equal(run(args, &again, &err), 0);
    assert_string_equal(out.data, again.data);
    json_t *root = json_loadb(out.data, out.len, JSON_REJECT_DUPLICATES, &at);
    if (!root) fail_msg("%s", at.text);
    assert_true(json_array_size(json_object_get(root, "runs")) >= 20);
    json_decref(root);
    buf_release(&out);
    buf_release(&again);
    buf_release(&err);
}

static void test_report(void **state)
{
    const char *const args[ARGS] = {"--trace", requests, "--link", link_file, "--report", folder};
    static const char *const files[] = {"sim.json", "sim-1-1-first.svg", "sim-1-1-gap.svg"};
    struct buf out, err, text;
    struct err e = ERR_INIT;
    char path[160];
    (void)state;
    assert_int_equal(run(args, &out, &err), 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        buf_init(&text, 1 << 22);
        assert_int_equal(os_read_file(path, &text, &e), 0);
        assert_true(text.len > 100);
        buf_release(&text);
        unlink(path);
    }
    rmdir(folder); /* is made where it is missing */
    buf_release(&out);
    buf_release(&err);
    assert_int_equal(run(args, &out, &err), 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        assert_int_equal(unlink(path), 0);
    }
    buf_release(&out);
    buf_release(&err);
}

static void test_wrong_use(void **state)
{
    static const struct {
        const char *args[ARGS];
        int status;
        const char *word;
    } cases[] = {
        {{NULL}, 2, "--trace"},
        {{"--trace", "/nonexistent.csv"}, 1, "/nonexistent.csv"},
        {{"--trace", link_file}, 1, "time_s"},
        {{"--trace", requests, "--link", requests}, 1, "requests.csv:2"},
        {{"--trace", requests, "--method", "teleport"}, 1, "teleport"},
        {{"--trace", requests, "--mix", "s99"}, 1, "s99"},
        {{"--trace", requests, "--engine", "abacus"}, 1, "abacus"},
        {{"--trace", requests, "--engines", "0"}, 2, "--engines"},
        {{"--trace", requests, "--speed", "0"}, 2, "--speed"},
        {{"--trace", requests, "--report", "/dev/null/made", "--method", "device"},
         1,
         "/dev/null/made: the folder cannot be made"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf out, err;
        int status = run(cases[i].args, &out, &err);
        if (status != cases[i].status || !strstr(err.data, cases[i].word))
            fail_msg("case %zu: status %d, %s", i, status, err.data);
        assert_int_equal(out.len, 0);
        buf_release(&out);
        buf_release(&err);
    }
}

static void test_list(void **state)
{
    const char *const args[ARGS] = {"--list"};
    struct buf out, err;
    (void)state;
    assert_int_equal(run(args, &out, &err), 0);
    assert_non_null(strstr(out.data, "planned"));
    assert_non_null(strstr(out.data, "s26-gpu"));
    assert_non_null(strstr(out.data, "h100"));
    buf_release(&out);
    buf_release(&err);
}

static int tear_down(void **state)
{
    char command[96];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_output_twice),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_wrong_use),
        cmocka_unit_test(test_list),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
