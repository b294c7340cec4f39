/*
 * test_native_long: a context of 131,072 positions, filled to the last one.
 *
 * Catches: counts of positions, pages or bytes that overflow or are quadratic in memory, KV memory
 * that grows beyond what the engine announced, a last position that cannot be reached or a next one
 * that can, and two ways to the same far position that differ in a bit. The model is as small as a
 * model can be, so that the work is the context's alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/native.h"
#include "support/tiny_model.h"

#ifdef __SANITIZE_ADDRESS__
/* Ten times slower, and with memory of its own: an eighth must do. */
enum { CONTEXT = 16384, MEMORY_BESIDE_KV = 512 << 20 };
#else
enum { CONTEXT = 131072, MEMORY_BESIDE_KV = 24 << 20 };
#endif
enum { NEAR_END = CONTEXT - 3 };

static char path[TINY_PATH_MAX];

/* Bytes of this process that are in memory. */
static uint64_t resident(void)
{
    unsigned long long all, here = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%llu %llu", &all, &here), 2);
    fclose(f);
    return here * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void feed(struct engine *e, struct session *s, const int32_t *tokens, uint32_t from,
                 uint32_t to)
{

    struct err err;
    while (from < to) {
        uint32_t n = to - from < 512 ? to - from : 512;
        struct engine_span span = {.session = s, .tokens = tokens + from, .n = n};
        span.sample = from + n == to;
        if (engine_step(e, &span, 1, &err) != 0) fail_msg("%s", err.text);
        from += n;
    }
}

static void test_whole_context(void **state)
{
    struct native_options o = {.model_path = path, .context_max = CONTEXT, .threads = 2};
    struct engine *e;
    struct session *s, *t;
    struct err err;
    (void)state;
    if (native_open(&o, &e, &err) != 0) fail_msg("%s", err.text);
    const struct engine_info *info = engine_info(e);
    uint64_t announced = info->kv_bytes_per_token * CONTEXT, before = resident();
    assert_int_equal(engine_session_open(e, &s, &err), 0);
    int32_t *tokens = mem_alloc(CONTEXT * sizeof *tokens);
    float *logits = mem_alloc(info->vocab_size * sizeof *logits);
    assert_true(tokens && logits);
    for (uint32_t i = 0; i < CONTEXT; i++)
        tokens[i] = (int32_t)(i * 2654435761u % info->vocab_size);
    feed(e, s, tokens, 0, CONTEXT);
    assert_int_equal(session_len(s), CONTEXT);
    memcpy(logits, session_logits(s), info->vocab_size * sizeof *logits);
    assert_true(resident() <= before + announced + MEMORY_BESIDE_KV);

    struct engine_span over = {.session = s, .tokens = tokens, .n = 1};
    assert_int_equal(engine_step(e, &over, 1, &err), ERR_LIMIT);
    /* The last positions again, one at a time, in a session that shares the rest. */
    assert_int_equal(engine_session_open(e, &t, &err), 0);
    assert_int_equal(session_share(t, s, NEAR_END, &err), 0);
    for (uint32_t i = NEAR_END; i < CONTEXT; i++)
        feed(e, t, tokens, i, i + 1);
    assert_memory_equal(logits, session_logits(t), info->vocab_size * sizeof *logits);
    engine_session_close(s);
    engine_session_close(t);
    engine_free(e);
    mem_free(tokens);
    mem_free(logits);
}

static int set_up(void **state)
{
    struct tiny_options o = TINY_DEFAULT;
    (void)state;
    o.type = GGUF_F32;
    o.layers = 2; /* in the last one only rows whose logits are wanted attend */
    o.dim = 32;
    o.heads = o.kv_heads = 1;
    o.head_dim = 16;
    o.ff = 32;
    o.context = CONTEXT;
    tiny_model_file(&o, path);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_whole_context)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
