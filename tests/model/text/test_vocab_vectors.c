/*
 * test_vocab_vectors: the tokeniser vectors recorded from llama.cpp for real vocabularies.
 * Catches: any difference in merges, pre-tokenisers, byte fallback or space handling.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/os.h"
#include "model/gguf.h"
#include "model/text/vocab.h"

#define FOLDER PDD_SOURCE_DIR "/../shared/vocab/"

static void read_text(const char *name, const char *ending, struct buf *b)
{
    char path[512];
    struct err e;
    snprintf(path, sizeof path, FOLDER "%s.gguf.%s", name, ending);
    buf_init(b, 1 << 20);
    if (os_read_file(path, b, &e)) fail_msg("%s", e.text);
}

/* The file itself, or unpacked from .xz into a temporary one. */
static void open_gguf(const char *name, struct gguf **g)
{
    char path[512], command[1200], unpacked[64] = "";
    struct err e = ERR_INIT;
    snprintf(path, sizeof path, FOLDER "%s.gguf", name);
    if (access(path, R_OK) != 0) {
        snprintf(unpacked, sizeof unpacked, "/tmp/pdd-vocab-%ld.gguf", (long)getpid());
        snprintf(command, sizeof command, "xz -dc '%s.xz' > %s", path, unpacked);
        if (system(command) != 0) fail_msg("%s", command);
        snprintf(path, sizeof path, "%s", unpacked);
    }
    int code = gguf_open(path, g, &e);
    if (unpacked[0]) unlink(unpacked);
    if (code) fail_msg("%s", e.text);
}

static void check_line(const struct vocab *v, const char *text, size_t n, const char *line,
                       unsigned number)
{
    struct err e = ERR_INIT;
    struct token_list got;
    token_list_init(&got, 1 << 20);
    if (vocab_encode(v, text, n, 0, &got, &e)) fail_msg("%s", e.text);
    uint32_t i = 0;
    char *end;
    for (;; i++) {
        long want = strtol(line, &end, 10);
        if (end == line) break;
        if (i >= got.len || got.ids[i] != want)
            fail_msg("text %u: token %u is %d, %ld recorded", number, i,
                     i < got.len ? got.ids[i] : -1, want);
        line = end;
    }
    assert_int_equal(i, got.len);
    token_list_release(&got);
}

static void check_vectors(const char *name)
{
    if (access(FOLDER, R_OK) != 0) skip();
    struct gguf *g;
    struct vocab *v;
    struct err e;
    struct buf texts, ids;
    open_gguf(name, &g);
    if (vocab_open(g, &v, &e)) fail_msg("%s", e.text);
    read_text(name, "inp", &texts);
    read_text(name, "out", &ids);
    static const char mark[] = "\n__ggml_vocab_test__\n";
    const char *text = texts.data, *line = ids.data;
    unsigned number = 0;
    for (const char *end; (end = strstr(text, mark)) != NULL; number++) {
        char one[16384];
        const char *line_end = strchr(line, '\n');
        assert_non_null(line_end);
        assert_true((size_t)(line_end - line) < sizeof one);
        memcpy(one, line, (size_t)(line_end - line));
        one[line_end - line] = 0;
        check_line(v, text, (size_t)(end - text), one, number);
        text = end + sizeof mark - 1;
        line = line_end + 1;
    }
    assert_true(number > 30);
    buf_release(&texts);
    buf_release(&ids);
    vocab_close(v);
    gguf_close(g);
}

static void test_gpt2(void **state)
{
    (void)state;
    check_vectors("ggml-vocab-gpt-2");
}

static void test_llama_spm(void **state)
{
    (void)state;
    check_vectors("ggml-vocab-llama-spm");
}

static void test_phi3(void **state)
{
    (void)state;
    check_vectors("ggml-vocab-phi-3");
}

static void test_qwen2(void **state)
{
    (void)state;
    check_vectors("ggml-vocab-qwen2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2),
        cmocka_unit_test(test_llama_spm),
        cmocka_unit_test(test_phi3),
        cmocka_unit_test(test_qwen2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
