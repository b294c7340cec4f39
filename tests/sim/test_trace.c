/*
 * test_trace: files of recorded requests that others wrote.
 *
 * Catches: a format misread; a time that counts from the wrong moment; a line that cannot be used
 * and is passed over, or is refused without its number.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/os.h"
#include "sim/trace.h"

#define HEAD "TIMESTAMP,ContextTokens,GeneratedTokens\n"
#define ROW "2023-11-16 18:15:46.6805900,374,44\n"
#define OBJECT                                                                                     \
    "{\"timestamp\": 5, \"input_length\": 600, \"output_length\": 3, \"hash_ids\": [0, 9]}\n"

static int open_text(const char *text, size_t n, struct trace *t, struct err *e)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/pdd-requests-%ld.x", (long)getpid());
    assert_int_equal(os_write_file(path, text, n, e), 0);
    int code = trace_open(path, t, e);
    unlink(path);
    return code;
}

static void test_csv(void **state)
{
    static const char text[] = HEAD ROW "2023-11-16 18:15:47.5,396,109\r\n"
                                        "2023-11-17 00:00:00+00:00,1,16777216";
    struct trace t;
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(open_text(text, sizeof text - 1, &t, &e), 0);
    assert_int_equal(t.n, 3);
    assert_int_equal(t.requests[0].at_us, 0);
    assert_int_equal(t.requests[0].input, 374);
    assert_int_equal(t.requests[0].output, 44);
    assert_int_equal(t.requests[1].at_us, 819410);
    assert_int_equal(t.requests[2].at_us, 20653319410);
    assert_int_equal(t.requests[2].output, 16777216);
    assert_int_equal(t.n_hashes, 0);
    assert_true(trace_span_us(&t) > t.requests[2].at_us);
    trace_release(&t);
}

static void test_columns_in_any_order(void **state)
{
    static const char text[] = "GeneratedTokens,TIMESTAMP,ContextTokens\n"
                               "44,2024-02-29T00:00:00Z,374\n44,2024-03-01T01:00:00+01:00,7\n";
    struct trace t;
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(open_text(text, sizeof text - 1, &t, &e), 0);
    assert_int_equal(t.requests[0].input, 374);
    assert_int_equal(t.requests[1].at_us, 86400000000);
    trace_release(&t);
}

static void test_json_lines(void **state)
{
    static const char text[] =
        OBJECT "{\"hash_ids\": [0, 4294967295], \"output_length\": 1, \"input_length\": 513, "
               "\"timestamp\": 7.5}\n{\"timestamp\": 8, \"input_length\": 1, \"output_length\": 1}";
    struct trace t;
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(open_text(text, sizeof text - 1, &t, &e), 0);
    assert_int_equal(t.n, 3);
    assert_int_equal(t.requests[1].at_us, 2500);
    assert_int_equal(t.requests[1].n_hashes, 2);
    assert_true(t.hashes[t.requests[1].first_hash + 1] == 4294967295u);
    assert_int_equal(t.requests[2].n_hashes, 0);
    trace_release(&t);
}

/* A file that cannot be used, the line that the error names, and a word of its sentence. */
static const struct {
    const char *text, *line, *word;
} bad[] = {
    {"", "", "empty"},
    {"\n", ":1:", "column"},
    {HEAD, "", "no request"},
    {"time,ContextTokens,GeneratedTokens\n" ROW, ":1:", "\"time\""},
    {"TIMESTAMP,ContextTokens,GeneratedTokens,User\n" ROW, ":1:", "\"User\""},
    {"TIMESTAMP,ContextTokens,TIMESTAMP\n" ROW, ":1:", "twice"},
    {"TIMESTAMP,ContextTokens\n" ROW, ":1:", "columns"},
    {HEAD ROW "\n" ROW, ":3:", "fields"},
    {HEAD ROW "nonsense\n", ":3:", "nonsense"},
    {HEAD "2023-11-16 18:15:46.68,374\n", ":2:", "fields"},
    {HEAD "2023-11-16 18:15:46.68,374,44,1\n", ":2:", "fields"},
    {HEAD "2023-13-16 18:15:46.68,374,44\n", ":2:", "time"},
    {HEAD "2023-11-16 18:15:46.68+1:00,374,44\n", ":2:", "time"},
    {HEAD "18:15:46.68,374,44\n", ":2:", "time"},
    {HEAD "2023-11-16 18:15:46.68,0,44\n", ":2:", "prompt of 0 tokens"},
    {HEAD "2023-11-16 18:15:46.68,374,0\n", ":2:", "answer of 0 tokens"},
    {HEAD "2023-11-16 18:15:46.68,2147483648,44\n", ":2:", "2147483648"},
    {HEAD "2023-11-16 18:15:46.68,4294967297,44\n", ":2:", "4294967297"},
    {HEAD "2023-11-16 18:15:46.68,-3,44\n", ":2:", "whole numbers"},
    {HEAD "2023-11-16 18:15:46.68,1e3,44\n", ":2:", "whole numbers"},
    {HEAD "2023-11-16 18:15:46.68,99999999999999999999,44\n", ":2:", "whole numbers"},
    {HEAD ROW "2023-11-16 18:15:46.0,374,44\n", ":3:", "ascend"},
    {OBJECT "{\"timestamp\": 4, \"input_length\": 1, \"output_length\": 1}", ":2:", "ascend"},
    {OBJECT "{\"timestamp\": 5", ":2:", ""},
    {OBJECT "[]", ":2:", ""},
    {OBJECT "\n", ":2:", ""},
    {"{}\n", ":1:", "timestamp"},
    {"{\"timestamp\": -1, \"input_length\": 1, \"output_length\": 1}", ":1:", "timestamp"},
    {"{\"timestamp\": 1e300, \"input_length\": 1, \"output_length\": 1}", ":1:", "timestamp"},
    {"{\"timestamp\": \"0\", \"input_length\": 1, \"output_length\": 1}", ":1:", "timestamp"},
    {"{\"timestamp\": 1, \"input_length\": 1.5, \"output_length\": 1}", ":1:", "input_length"},
    {"{\"timestamp\": 1, \"input_length\": 0, \"output_length\": 1}", ":1:", "0 tokens"},
    {"{\"timestamp\": 1, \"input_length\": 2147483648, \"output_length\": 1}", ":1:", "2147483648"},
    {"{\"timestamp\": 1, \"input_length\": 1, \"output_length\": -1}", ":1:", "-1 tokens"},
    {"{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1, \"user\": 2}",
     ":1:", "\"user\""},
    {"{\"timestamp\": 1, \"timestamp\": 1, \"input_length\": 1, \"output_length\": 1}", ":1:", ""},
    {"{\"timestamp\": 1, \"input_length\": 512, \"output_length\": 1, \"hash_ids\": [1, 2]}",
     ":1:", "blocks"},
    {"{\"timestamp\": 1, \"input_length\": 512, \"output_length\": 1, \"hash_ids\": [-1]}",
     ":1:", "hash_ids"},
    {"{\"timestamp\": 1, \"input_length\": 512, \"output_length\": 1, \"hash_ids\": 7}",
     ":1:", "hash_ids"},
};

static void test_bad_lines(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct trace t;
        struct err e = ERR_INIT;
        if (open_text(bad[i].text, strlen(bad[i].text), &t, &e) != ERR_BAD_INPUT)
            fail_msg("accepted: %s", bad[i].text);
        if (!strstr(e.text, "pdd-requests") || !strstr(e.text, bad[i].line) ||
            !strstr(e.text, bad[i].word))
            fail_msg("case %zu: %s", i, e.text);
    }
}

static void test_zero_bytes_and_no_file(void **state)
{
    struct trace t;
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(open_text("a\0b\n", 4, &t, &e), ERR_BAD_INPUT);
    assert_int_equal(trace_open("/nonexistent/requests.csv", &t, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, "/nonexistent/requests.csv"));
}

static void test_no_memory(void **state)
{
    (void)state;
    for (long k = 1; k < 100; k++) {
        struct trace t;
        struct err e = ERR_INIT;
        char path[64];
        snprintf(path, sizeof path, "/tmp/pdd-requests-%ld.x", (long)getpid());
        assert_int_equal(os_write_file(path, OBJECT OBJECT, 2 * strlen(OBJECT), &e), 0);
        mem_fail_at(k);
        int code = trace_open(path, &t, &e);
        unlink(path);
        bool hit = mem_fail_hit();
        mem_fail_at(0);
        if (code == 0) trace_release(&t);
        if (!hit) return;
        assert_int_not_equal(code, 0);
    }
    fail();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_csv),        cmocka_unit_test(test_columns_in_any_order),
        cmocka_unit_test(test_json_lines), cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_no_memory),  cmocka_unit_test(test_zero_bytes_and_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
