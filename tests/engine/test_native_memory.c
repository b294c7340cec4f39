/*
 * test_native_memory: memory runs out at any allocation in the life of a native engine, for every
 * architecture: opening, a session, a prompt, sampling, a shared prefix.
 *
 * Catches: a failure that crashes, is not told in a sentence, leaves a half-made engine behind
 * (with ASan), or changes what the engine computes afterwards.
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
#include "engine/native.h"
#include "support/tiny_model.h"

enum { ALLOCATIONS_MAX = 20000, PROMPT = 70 /* more than a KV page */ };

/* The life of an engine; what it has made is released whatever happens. */
static int live(const char *path, int32_t *ret_token, struct err *e)
{
    struct native_options o = {.model_path = path, .threads = 2, .context_max = 128};
    struct sampling sampling = SAMPLING_GREEDY;
    struct engine *engine = NULL;
    struct session *a = NULL, *b = NULL;
    int32_t tokens[PROMPT];
    for (int i = 0; i < PROMPT; i++)
        tokens[i] = 3 + i * 7 % 200;
    int code = native_open(&o, &engine, e);
    if (code == 0) code = engine_session_open(engine, &a, e);
    if (code == 0) code = engine_session_open(engine, &b, e);
    if (code == 0) {
        struct engine_span span = {.session = a, .tokens = tokens, .n = PROMPT, .sample = true};
        sampling.temperature = 0.8f;
        sampling.repeat_penalty = 1.1f;
        session_set_sampling(a, &sampling);
        code = engine_step(engine, &span, 1, e);
        if (code == 0) *ret_token = span.next;
    }
    if (code == 0) code = session_share(b, a, PROMPT - 1, e);
    if (code == 0) {
        struct engine_span span = {.session = b, .tokens = tokens, .n = 1, .sample = true};
        code = engine_step(engine, &span, 1, e);
    }
    engine_session_close(a);
    engine_session_close(b);
    engine_free(engine);
    return code;
}

static void test_every_allocation(void **state)
{
    (void)state;
    for (uint32_t i = 0; tiny_arch(i); i++) {
        char path[TINY_PATH_MAX];
        int32_t want = -1, token = -1;
        struct err e = ERR_INIT;
        tiny_model_file(tiny_arch(i), path);
        if (live(path, &want, &e)) fail_msg("%s", e.text);
        for (long n = 1;; n++) {
            e = (struct err)ERR_INIT;
            assert_true(n < ALLOCATIONS_MAX);
            mem_fail_at(n);
            int code = live(path, &token, &e);
            int hit = mem_fail_hit();
            mem_fail_at(0);
            if (code == 0) assert_int_equal(token, want);
            if (!hit) {
                assert_int_equal(code, 0);
                print_message("%s: %ld allocations\n", tiny_arch(i)->arch, n - 1);
                break;
            }
            if (code != 0 && (code != ERR_NO_MEMORY || e.text[0] == 0))
                fail_msg("%s: allocation %ld: code %d, \"%s\"", tiny_arch(i)->arch, n, code,
                         e.text);
        }
        unlink(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
