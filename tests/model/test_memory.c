/*
 * test_memory: memory runs out at any allocation while a model file is read and used.
 *
 * Catches: an allocation whose failure is not seen (crash), not told (no sentence, another code),
 * or leaves something behind (with ASan); one in a library that does not go through base/mem.
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
#include "model/gguf.h"
#include "model/hparams.h"
#include "model/text/template.h"
#include "model/text/vocab.h"
#include "support/gguf_writer.h"
#include "support/tiny_model.h"
#include "support/tiny_vocab.h"

enum { ALLOCATIONS_MAX = 5000 };

typedef int act_fn(const void *arg, struct err *e);

/* Fail allocation 1, 2, 3, ... until the act needs no more. */
static void survive(const char *name, act_fn *act, const void *arg)
{
    for (long n = 1;; n++) {
        struct err e = ERR_INIT;
        assert_true(n < ALLOCATIONS_MAX);
        mem_fail_at(n);
        int code = act(arg, &e);
        int hit = mem_fail_hit();
        mem_fail_at(0);
        if (!hit) {
            if (code) fail_msg("%s: %s", name, e.text);
            print_message("%s: %ld allocations\n", name, n - 1);
            return;
        }
        /* A pattern that is not compiled to machine code is slower, not wrong. */
        if (code != 0 && (code != ERR_NO_MEMORY || !strstr(e.text, "no memory")))
            fail_msg("%s: allocation %ld: code %d, \"%s\"", name, n, code, e.text);
    }
}

static int read_file(const void *arg, struct err *e)
{
    struct gguf *g;
    struct hparams h;
    int code = gguf_open(arg, &g, e);
    if (code) return code;
    code = hparams_read(g, &h, e);
    gguf_close(g);
    return code;
}

static void test_files(void **state)
{
    (void)state;
    for (uint32_t i = 0; tiny_arch(i); i++) {
        char path[TINY_PATH_MAX];
        tiny_model_file(tiny_arch(i), path);
        survive(tiny_arch(i)->arch ? tiny_arch(i)->arch : "llama", read_file, path);
        unlink(path);
    }
}

/* A text with a run too long for the memory on the stack, and bytes that are no UTF-8. */
static const char text[] = "the other 12 <|im_end|> caf\xC3\xA9 \xFF "
                           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

static int use_vocab(const void *arg, struct err *e)
{
    const struct buf *file = arg;
    struct gguf *g;
    struct vocab *v = NULL;
    struct token_list ids;
    struct buf back;
    struct detok d;
    int code = gguf_open_bytes(file->data, file->len, "tiny", &g, e);
    if (code) return code;
    token_list_init(&ids, 10000);
    buf_init(&back, 100000);
    detok_init(&d, true);
    code = vocab_open(g, &v, e);
    if (code == 0)
        code = vocab_encode(v, text, sizeof text - 1, VOCAB_ADD_BOS | VOCAB_SPECIAL, &ids, e);
    for (uint32_t i = 0; i < ids.len && code == 0; i++)
        if ((code = detok_push(&d, v, ids.ids[i], &back)) != 0) err_set(e, code, "no memory");
    buf_release(&back);
    token_list_release(&ids);
    vocab_close(v);
    gguf_close(g);
    return code;
}

static void test_vocabularies(void **state)
{
    (void)state;
    static const char *const pres[] = {"gpt-2",  "default", "smollm",      "llama-bpe", "qwen2",
                                       "tekken", "gpt-4o",  "deepseek-v3", "falcon",    NULL};
    for (int i = 0; i < 10; i++) {
        struct buf file;
        if (pres[i])
            tiny_vocab_bpe(pres[i], &file);
        else
            tiny_vocab_spm(&file);
        survive(pres[i] ? pres[i] : "SentencePiece", use_vocab, &file);
        buf_release(&file);
    }
}

static const struct vocab *vocab;

static int use_template(const void *arg, struct err *e)
{
    static const struct chat_message m[] = {
        {"user", "hi <|im_end|>", 13}, {"assistant", "<think>a</think>b", 17}, {"user", "x", 1}};
    struct chat_template *t;
    struct token_list ids;
    int code = chat_template_open_family(arg, &t, e);
    if (code) return code;
    token_list_init(&ids, 10000);
    code = chat_template_encode(t, vocab, m, 3, true, &ids, e);
    token_list_release(&ids);
    chat_template_close(t);
    return code;
}

static int read_template(const void *arg, struct err *e)
{
    const struct buf *file = arg;
    struct gguf *g;
    struct chat_template *t = NULL;
    int code = gguf_open_bytes(file->data, file->len, "tiny", &g, e);
    if (code == 0) {
        code = chat_template_open(g, &t, e);
        gguf_close(g);
    }
    chat_template_close(t);
    return code;
}

static void test_templates(void **state)
{
    (void)state;
    static const char *const names[] = {"chatml",  "qwen3",   "llama3.1", "llama2",
                                        "phi3",    "gemma3",  "olmo2",    "zephyr",
                                        "granite", "mistral", "qwq",      "deepseek"};
    struct buf file;
    struct gguf *g;
    struct vocab *v;
    struct err e = ERR_INIT;
    tiny_vocab_bpe("gpt-2", &file);
    assert_int_equal(gguf_open_bytes(file.data, file.len, "tiny", &g, &e), 0);
    assert_int_equal(vocab_open(g, &v, &e), 0);
    vocab = v;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        survive(names[i], use_template, names[i]);
    survive("recognition", read_template, &file);
    vocab_close(v);
    gguf_close(g);
    buf_release(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_vocabularies),
        cmocka_unit_test(test_templates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
