/*
 * test_text: text of a foreign cloud in tokens of our vocabulary: the same text comes out again.
 *
 * Catches: a space added or lost between pieces, as SentencePiece would; a character split wrongly.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/text.h"
#include "model/gguf.h"
#include "support/tiny_vocab.h"

static const char *const pieces[] = {"Hello",       " world",
                                     "a",           " ",
                                     "  two",       "\n",
                                     "\n\n",        " \n ",
                                     "caf\xC3\xA9", "\xF0\x9F\x8C\x8A",
                                     "'s",          ",",
                                     " the",        "in",
                                     "42",          "\xE2\x82\xAC 20",
                                     "<|im_end|>",  "</s>",
                                     "\t"};

static void check(const struct vocab *v)
{
    struct token_list all;
    struct buf want, got;
    struct detok d;
    token_list_init(&all, 4096);
    buf_init(&want, 4096);
    buf_init(&got, 4096);
    detok_init(&d, false);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        struct err e = ERR_INIT;
        if (text_continue(v, pieces[i], strlen(pieces[i]), &all, &e))
            fail_msg("\"%s\": %s", pieces[i], e.text);
        assert_int_equal(buf_puts(&want, pieces[i]), 0);
    }
    for (uint32_t i = 0; i < all.len; i++) {
        assert_false(vocab_is_control(v, all.ids[i])); /* what a cloud writes is no command */
        assert_int_equal(detok_push(&d, v, all.ids[i], &got), 0);
    }
    assert_int_equal(detok_finish(&d, &got), 0);
    assert_string_equal(got.data, want.data);
    token_list_release(&all);
    buf_release(&want);
    buf_release(&got);
}

static void check_bytes(const struct buf *file)
{
    struct gguf *g;
    struct vocab *v;
    struct err e = ERR_INIT;
    if (gguf_open_bytes(file->data, file->len, "test", &g, &e)) fail_msg("%s", e.text);
    if (vocab_open(g, &v, &e)) fail_msg("%s", e.text);
    check(v);
    vocab_close(v);
    gguf_close(g);
}

static void test_made_vocabularies(void **state)
{
    (void)state;
    struct vocab *v;
    struct buf file;
    assert_int_equal(vocab_open_bytes(&v, NULL), 0);
    check(v);
    vocab_close(v);
    tiny_vocab_bpe("gpt-2", &file);
    check_bytes(&file);
    buf_release(&file);
    tiny_vocab_spm(&file);
    check_bytes(&file);
    buf_release(&file);
}

static void test_real_vocabularies(void **state)
{
    (void)state;
    static const char *const paths[] = {PDD_SOURCE_DIR "/../shared/vocab/ggml-vocab-gpt-2.gguf",
                                        PDD_SOURCE_DIR "/../shared/vocab/ggml-vocab-llama-spm.gguf",
                                        PDD_SOURCE_DIR "/../shared/vocab/ggml-vocab-phi-3.gguf"};
    if (access(paths[0], R_OK)) skip();
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct gguf *g;
        struct vocab *v;
        struct err e = ERR_INIT;
        if (gguf_open(paths[i], &g, &e)) fail_msg("%s", e.text);
        if (vocab_open(g, &v, &e)) fail_msg("%s", e.text);
        check(v);
        vocab_close(v);
        gguf_close(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_made_vocabularies),
        cmocka_unit_test(test_real_vocabularies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
