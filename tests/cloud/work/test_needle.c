/*
 * test_needle: the self-test that decides whether a model may refine.
 *
 * Catches: a model of random weights that passes; one that finds everything and fails; pages that
 * are not given back; a context that is too short taken for a bad model.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cloud/work/needle.h"
#include "engine/fake.h"
#include "engine/native.h"
#include "support/tiny_model.h"

static uint32_t find(struct engine *e)
{
    uint32_t found = 99;
    struct err err;
    if (needle_find(e, &found, &err)) fail_msg("%s", err.text);
    assert_int_equal(engine_kv_pages_free(e), engine_info(e)->kv_pages_total);
    engine_free(e);
    return found;
}

/* A fake that looks at the sentences of the test, and one that looks at another place. */
static void test_fakes(void **state)
{
    struct engine *e;
    (void)state;
    struct fake_options o = {
        .answer_tokens = 1, .scored = "The number of the ", .context_max = 8192};
    assert_int_equal(fake_open(&o, &e, NULL), 0);
    assert_int_equal(find(e), NEEDLE_QUESTIONS);
    o.scored = "honey";
    assert_int_equal(fake_open(&o, &e, NULL), 0);
    assert_true(find(e) < NEEDLE_QUESTIONS);
    o.scored = NULL;
    struct err err;
    uint32_t found;
    assert_int_equal(fake_open(&o, &e, NULL), 0);
    assert_int_equal(needle_find(e, &found, &err), ERR_UNSUPPORTED);
    engine_free(e);
    o.scored = "x";
    o.context_max = 512;
    assert_int_equal(fake_open(&o, &e, NULL), 0);
    assert_int_equal(needle_find(e, &found, &err), ERR_LIMIT);
    assert_non_null(strstr(err.text, "512"));
    engine_free(e);
}

static void test_random_weights(void **state)
{
    struct tiny_options tiny = TINY_DEFAULT;
    char path[TINY_PATH_MAX];
    struct engine *e;
    (void)state;
    tiny.context = 8192;
    tiny_model_file(&tiny, path);
    struct native_options o = {
        .model_path = path, .threads = 2, .kv_bytes_max = (uint64_t)64 << 20};
    assert_int_equal(native_open(&o, &e, NULL), 0);
    assert_true(find(e) < NEEDLE_QUESTIONS);
    unlink(path);
}

static void test_without_memory(void **state)
{
    struct fake_options o = {
        .answer_tokens = 1, .scored = "The number of the ", .context_max = 8192};
    (void)state;
    for (long n = 1;; n += 3) {
        struct engine *e;
        uint32_t found;
        assert_int_equal(fake_open(&o, &e, NULL), 0);
        mem_fail_at(n);
        int code = needle_find(e, &found, NULL);
        int hit = mem_fail_hit();
        mem_fail_at(0);
        engine_free(e);
        if (!hit) {
            assert_int_equal(code, 0);
            return;
        }
        assert_int_equal(code, ERR_NO_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fakes),
                                       cmocka_unit_test(test_random_weights),
                                       cmocka_unit_test(test_without_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
