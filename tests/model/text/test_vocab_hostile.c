/*
 * test_vocab_hostile: vocabularies that are wrong in one place, or anywhere.
 *
 * Catches: an id, score, length or merge of the file that is used before it is checked (with the
 * sanitizer builds), an error that does not name the key, memory lost on the way out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "model/gguf.h"
#include "model/text/template.h"
#include "model/text/vocab.h"
#include "support/tiny_vocab.h"

static void make(bool bpe, struct buf *file)
{
    if (bpe)
        tiny_vocab_bpe("llama-bpe", file);
    else
        tiny_vocab_spm(file);
}

/* Everything a program does with a vocabulary that has opened. */
static void use(const struct gguf *g, const struct vocab *v)
{
    static const char text[] = "the <s>other\xF0\x9F\x8C\x8A 12\xFF<|im_end|> aaaaaa<user>xyz";
    struct token_list ids;
    struct buf out;
    struct detok d;
    struct chat_template *t;
    token_list_init(&ids, 1000);
    buf_init(&out, 1 << 20);
    detok_init(&d, true);
    vocab_encode(v, text, sizeof text - 1, VOCAB_ADD_BOS | VOCAB_SPECIAL, &ids, NULL);
    vocab_encode(v, text, sizeof text - 1, 0, &ids, NULL);
    for (uint32_t i = 0; i < ids.len; i++) {
        assert_true(ids.ids[i] >= 0 && (uint32_t)ids.ids[i] < vocab_size(v));
        detok_push(&d, v, ids.ids[i], &out);
    }
    for (int32_t i = -1; i <= (int32_t)vocab_size(v); i++)
        vocab_piece(v, i, true, &out);
    if (chat_template_open(g, &t, NULL) == 0) {
        const struct chat_message m = {"user", "hi", 2};
        chat_template_encode(t, v, &m, 1, true, &ids, NULL);
        chat_template_close(t);
    }
    buf_release(&out);
    token_list_release(&ids);
}

static void test_random_damage(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 8, 0);
    for (int bpe = 0; bpe < 2; bpe++) {
        struct buf file;
        make(bpe, &file);
        for (int round = 0; round < 20000; round++) {
            struct gguf *g;
            struct vocab *v;
            struct err e = ERR_INIT;
            char *copy = mem_alloc(file.len);
            memcpy(copy, file.data, file.len);
            for (uint32_t k = 1 + rng_below(&r, 6); k > 0; k--)
                copy[rng_below(&r, (uint32_t)file.len)] = (char)rng_next(&r);
            if (gguf_open_bytes(copy, file.len, "bad.gguf", &g, &e) == 0) {
                if (vocab_open(g, &v, &e) == 0) {
                    use(g, v);
                    vocab_close(v);
                } else {
                    assert_true(e.code < 0);
                    assert_non_null(strstr(e.text, "bad.gguf"));
                }
                gguf_close(g);
            }
            mem_free(copy);
        }
        buf_release(&file);
    }
}

/* One place of the file changed: `at` bytes behind the text `mark`. */
static const struct damage {
    bool bpe;
    const char *mark;
    size_t at;
    const char *bytes;
    size_t n;
    const char *culprit;
} damages[] = {
    {true, "tokenizer.ggml.eos_token_id", 4, "\xFF\xFF\0\0", 4, "tokenizer.ggml.eos_token_id"},
    {false, "tokenizer.ggml.bos_token_id", 4, "\0\0\1\0", 4, "tokenizer.ggml.bos_token_id"},
    {false, "tokenizer.ggml.bos_token_id", 0, "\6", 1, "tokenizer.ggml.bos_token_id"},
    {false, "tokenizer.ggml.scores", 16, "\0\0\xC0\x7F", 4, "tokenizer.ggml.scores"},
    {false, "tokenizer.ggml.scores", 4, "\5", 1, "tokenizer.ggml.scores"},
    {true, "tokenizer.ggml.tokens", 344, "~", 1, "byte 0x20"},
    {true, "tokenizer.ggml.token", 0, "x", 1, "tokenizer.ggml.tokens"},
    {false, "tokenizer.ggml.score", 0, "x", 1, "tokenizer.ggml.scores"},
    {true, "tokenizer.ggml.merge", 0, "x", 1, "tokenizer.ggml.merges"},
    {true, "tokenizer.ggml.mode", 0, "x", 1, "tokenizer.ggml.model"},
    {true, "tokenizer.ggml.model", 12, "gpt3", 4, "gpt3"},
    {true, "tokenizer.ggml.pre", 12, "nonsense!", 9, "nonsense!"},
};

static void test_names_the_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        const struct damage *d = &damages[i];
        struct buf file;
        struct gguf *g;
        struct vocab *v;
        struct err e = ERR_INIT;
        make(d->bpe, &file);
        char *mark = memmem(file.data, file.len, d->mark, strlen(d->mark));
        assert_non_null(mark);
        memcpy(mark + strlen(d->mark) + d->at, d->bytes, d->n);
        int code = gguf_open_bytes(file.data, file.len, "bad.gguf", &g, &e);
        if (code == 0) {
            code = vocab_open(g, &v, &e);
            gguf_close(g);
        }
        if (code == 0) fail_msg("case %zu was taken", i);
        if (!strstr(e.text, d->culprit)) fail_msg("case %zu: %s", i, e.text);
        assert_non_null(strstr(e.text, "bad.gguf"));
        buf_release(&file);
    }
}

/* Writes real files have: a merge without its space, of a piece that is no token, of nothing. The
 * others keep their ranks. Catches: a file refused for one of them; all of them passed over. */
static void test_malformed_merges(void **state)
{
    static const char *const bad[] = {"t~h", "~ h", "~~~", " th", "th ", "\0\0\0"};
    (void)state;
    for (size_t i = 0; i <= sizeof bad / sizeof *bad; i++) {
        bool all = i == sizeof bad / sizeof *bad;
        struct buf file;
        struct gguf *g;
        struct vocab *v = NULL;
        struct err e = ERR_INIT;
        make(true, &file);
        char *key = memmem(file.data, file.len, "tokenizer.ggml.merges", 21);
        assert_non_null(key);
        char *at = key + 21 + 16;
        for (int m = 0; m < (all ? 8 : 1); m++) {
            uint64_t n;
            memcpy(&n, at, 8);
            if (all)
                memset(at + 8, '~', (size_t)n);
            else
                memcpy(at + 8, bad[i], 3);
            at += 8 + n;
        }
        assert_int_equal(gguf_open_bytes(file.data, file.len, "bad.gguf", &g, &e), 0);
        int code = vocab_open(g, &v, &e);
        if (all) {
            assert_int_equal(code, ERR_BAD_INPUT);
            assert_non_null(strstr(e.text, "tokenizer.ggml.merges"));
        } else {
            if (code) fail_msg("%s: %s", bad[i], e.text);
            assert_int_equal(vocab_merges_passed(v), 1);
            use(g, v);
            vocab_close(v);
        }
        gguf_close(g);
        buf_release(&file);
    }
}

/* The N-th allocation fails, for every N: an error and nothing lost. */
static void test_no_memory(void **state)
{
    (void)state;
    for (int bpe = 0; bpe < 2; bpe++) {
        struct buf file;
        struct gguf *g;
        make(bpe, &file);
        assert_int_equal(gguf_open_bytes(file.data, file.len, "tiny", &g, NULL), 0);
        for (long n = 1;; n++) {
            struct vocab *v;
            struct token_list ids;
            struct err e = ERR_INIT;
            token_list_init(&ids, 1000);
            mem_fail_at(n);
            int code = vocab_open(g, &v, &e);
            if (code == 0) {
                code = vocab_encode(v, "the other", 9, VOCAB_ADD_BOS, &ids, &e);
                vocab_close(v);
            }
            int hit = mem_fail_hit();
            mem_fail_at(0);
            token_list_release(&ids);
            if (!hit) break;
            if (code == 0) continue; /* a pattern not made machine code: slower, not wrong */
            assert_int_equal(code, ERR_NO_MEMORY);
            assert_int_equal(e.code, ERR_NO_MEMORY);
        }
        gguf_close(g);
        buf_release(&file);
    }
}

/* Without byte tokens a character outside the vocabulary becomes the unknown token, once. */
static void test_unknown_characters(void **state)
{
    (void)state;
    struct buf file;
    struct gguf *g;
    struct vocab *v;
    struct token_list ids;
    struct err e = ERR_INIT;
    make(false, &file);
    char *byte = memmem(file.data, file.len, "<0xF0>", 6);
    memcpy(byte, "<0xfo>", 6);
    assert_int_equal(gguf_open_bytes(file.data, file.len, "tiny", &g, &e), 0);
    assert_int_equal(vocab_open(g, &v, &e), 0);
    token_list_init(&ids, 100);
    assert_int_equal(vocab_encode(v, "\xF0\x9F\x8C\x8A", 4, 0, &ids, &e), 0);
    assert_int_equal(ids.len, 2);
    assert_int_equal(ids.ids[1], vocab_find(v, "<unk>", 5));
    token_list_release(&ids);
    vocab_close(v);
    gguf_close(g);
    buf_release(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_damage),      cmocka_unit_test(test_names_the_key),
        cmocka_unit_test(test_malformed_merges),   cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_unknown_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
