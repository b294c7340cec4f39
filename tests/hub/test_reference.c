/*
 * test_reference: what a person types, and the names that follow.
 *
 * Catches: a path out of the folder, a URL that is built wrongly, a part that is counted wrongly.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "hub/download_state.h"
#include "hub/reference.h"

static void test_hub(void **state)
{
    struct reference r;
    char url[FETCH_URL_MAX];
    (void)state;
    assert_int_equal(reference_parse("hf:Qwen/Qwen3-0.6B-GGUF", REFERENCE_HUB, &r, NULL), 0);
    assert_true(r.hub);
    assert_string_equal(r.owner, "Qwen");
    assert_string_equal(r.name, "Qwen3-0.6B-GGUF");
    assert_string_equal(r.type, "");
    assert_string_equal(r.file, "");
    assert_int_equal(reference_parse("hf:a/b:Q4_K_M", REFERENCE_HUB, &r, NULL), 0);
    assert_string_equal(r.type, "Q4_K_M");
    assert_int_equal(reference_parse("hf:a/b/deep er/c d.gguf", REFERENCE_HUB, &r, NULL), 0);
    assert_string_equal(r.file, "deep er/c d.gguf");
    assert_int_equal(reference_file_url(&r, REFERENCE_HUB, r.file, url, NULL), 0);
    assert_string_equal(url, "https://huggingface.co/a/b/resolve/main/deep%20er/c%20d.gguf");
}

static void test_refused(void **state)
{
    static const char *const wrong[] = {"",
                                        "m",
                                        "m.gguf",
                                        "hf:",
                                        "hf:a",
                                        "hf:a/",
                                        "hf:/b",
                                        "hf:a/b:",
                                        "hf:a/b/",
                                        "hf:a/b/c",
                                        "hf:../b",
                                        "hf:a/..",
                                        "hf:a/b:c/d",
                                        "hf:a b/c",
                                        "hf:a/b?c",
                                        "hf:a/b/../c.gguf",
                                        "hf:a/b//c.gguf",
                                        "ftp://h/m.gguf",
                                        "file:///m.gguf"};
    struct reference r;
    struct err e;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (reference_parse(wrong[i], REFERENCE_HUB, &r, &e) != ERR_BAD_INPUT)
            fail_msg("\"%s\" is taken", wrong[i]);
}

/* The page of a file is what a browser shows. */
static void test_page(void **state)
{
    struct reference r;
    (void)state;
    assert_int_equal(
        reference_parse("https://huggingface.co/a/b/blob/main/c.gguf?x=1", REFERENCE_HUB, &r, NULL),
        0);
    assert_string_equal(r.url, "https://huggingface.co/a/b/resolve/main/c.gguf");
    assert_int_equal(reference_parse("https://other.example/blob/c.gguf", REFERENCE_HUB, &r, NULL),
                     0);
    assert_string_equal(r.url, "https://other.example/blob/c.gguf");
}

static void test_page_of_repository(void **state)
{
    static const char *const pages[] = {
        "https://huggingface.co/a/b-GGUF", "https://huggingface.co/a/b-GGUF/",
        "https://huggingface.co/a/b-GGUF?x=/y", "https://huggingface.co/a/b-GGUF/tree/main",
        "https://huggingface.co/a/b-GGUF/tree/main/#z"};
    static const char *const others[] = {
        "https://huggingface.co",         "https://huggingface.co/",
        "https://huggingface.co/a",       "https://huggingface.co/a/",
        "https://huggingface.co//b",      "https://huggingface.co/a/b/c",
        "https://huggingface.co/a/..",    "https://huggingface.com/a/b",
        "https://huggingface.co/a/b.gguf"};
    struct reference r;
    (void)state;
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        assert_int_equal(reference_parse(pages[i], REFERENCE_HUB, &r, NULL), 0);
        reference_take_page(&r, REFERENCE_HUB);
        if (!r.hub || strcmp(r.owner, "a") != 0 || strcmp(r.name, "b-GGUF") != 0)
            fail_msg("%s: %s/%s", pages[i], r.owner, r.name);
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_int_equal(reference_parse(others[i], REFERENCE_HUB, &r, NULL), 0);
        reference_take_page(&r, REFERENCE_HUB);
        if (r.hub || strcmp(r.url, others[i]) != 0) fail_msg("%s: %s", others[i], r.url);
    }
}

static void test_file_names(void **state)
{
    static const struct {
        const char *url, *name; /* NULL: refused */
    } rows[] = {
        {"https://h/a/m.gguf", "m.gguf"},
        {"https://h/m.GGUF?x=/y.gguf#z", "m.gguf"},
        {"https://h/c%20d.gguf", "c d.gguf"},
        {"https://h/", NULL},
        {"https://h/m.bin", NULL},
        {"https://h/m.gguf.part.gguf", NULL},
        {"https://h/m%e2%80%aegnp.gguf", NULL},
        {"https://h/m%e2%81%a6.gguf", NULL},
        {"https://h/.gguf", NULL},
        {"https://h/.m.gguf", NULL},
        {"https://h/-m.gguf", NULL},
        {"https://h/..%2fm.gguf", NULL},
        {"https://h/a%00.gguf", NULL},
        {"https://h/a%1b.gguf", NULL},
        {"https://h/%c2%9b.gguf", NULL},
        {"https://h/%ff.gguf", NULL},
        {"https://h/%e2%82%ac.gguf", "\xe2\x82\xac.gguf"},
    };
    char name[REFERENCE_NAME_MAX + 1], url[600] = "https://h/";
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int code = reference_file_name(rows[i].url, name, NULL);
        if ((code == 0) != (rows[i].name != NULL)) fail_msg("%s: %d", rows[i].url, code);
        if (code == 0) assert_string_equal(name, rows[i].name);
    }
    memset(url + 10, 'x', 300);
    strcpy(url + 310, ".gguf");
    assert_int_equal(reference_file_name(url, name, NULL), ERR_BAD_INPUT);
}

static void test_parts(void **state)
{
    static const char *const none[] = {
        "m.gguf",        "m-00001.gguf",           "m-of-00003.gguf", "m-0-of-3.gguf",
        "m-4-of-3.gguf", "-1-of-3.gguf",           "m-1-of-3.bin",    "m-1-of-99999.gguf",
        "m1-of-3.gguf",  "m-00000000001-of-3.gguf"};
    struct reference_part p;
    char name[64], stem[REFERENCE_NAME_MAX + 1];
    (void)state;
    assert_true(reference_part("x/m-00002-of-00013.gguf", &p));
    assert_int_equal(p.no, 2);
    assert_int_equal(p.count, 13);
    assert_int_equal(reference_of_part("x/m-00002-of-00013.gguf", &p, 13, name, sizeof name, NULL),
                     0);
    assert_string_equal(name, "x/m-00013-of-00013.gguf");
    assert_int_equal(reference_of_part("x/m-00002-of-00013.gguf", &p, 13, name, 8, NULL),
                     ERR_LIMIT);
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        if (reference_part(none[i], &p)) fail_msg("%s is a part", none[i]);
    reference_stem("m-00002-of-00013.gguf", stem);
    assert_string_equal(stem, "m");
    reference_stem("a.b.gguf", stem);
    assert_string_equal(stem, "a.b");
}

static void test_digest(void **state)
{
    char sha256[65];
    (void)state;
    download_digest("\"0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef\"", sha256);
    assert_string_equal(sha256, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    download_digest("\"0123456789abcdef0123456789abcdef01234567\"", sha256); /* of git */
    assert_string_equal(sha256, "");
    download_digest("W/\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\"",
                    sha256);
    assert_string_equal(sha256, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hub),        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_page),       cmocka_unit_test(test_page_of_repository),
        cmocka_unit_test(test_file_names), cmocka_unit_test(test_parts),
        cmocka_unit_test(test_digest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
