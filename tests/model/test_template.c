/*
 * test_template: every family's prompt, letter by letter, and how families are recognised.
 *
 * Catches: a changed row, a system message in the wrong place, white space that a family trims or
 * keeps, a look-alike template taken for another family, a run of text cut at the wrong place.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "model/gguf.h"
#include "model/template.h"
#include "model/vocab.h"
#include "support/gguf_writer.h"
#include "support/tiny_vocab.h"

struct fixture {
    struct buf file;
    struct gguf *g;
    struct vocab *v;
};

static int open_fixture(void **state)
{
    static struct fixture f;
    tiny_vocab_bpe("gpt-2", &f.file);
    assert_int_equal(gguf_open_bytes(f.file.data, f.file.len, "tiny", &f.g, NULL), 0);
    assert_int_equal(vocab_open(f.g, &f.v, NULL), 0);
    *state = &f;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;
    vocab_close(f->v);
    gguf_close(f->g);
    buf_release(&f->file);
    return 0;
}

static int encode(const struct fixture *f, const char *family, const struct chat_message *m,
                  uint32_t n, struct token_list *ids, struct err *e)
{
    struct chat_template *t;
    assert_int_equal(chat_template_open_family(family, &t, e), 0);
    assert_string_equal(chat_template_family(t), family);
    token_list_init(ids, 100000);
    int code = chat_template_encode(t, f->v, m, n, true, ids, e);
    chat_template_close(t);
    return code;
}

static void expect(const struct fixture *f, const char *family, const char *want)
{
    static const struct chat_message m[] = {
        {"system", " S ", 3}, {"user", "U\n", 2}, {"assistant", "A", 1}, {"user", "V", 1}};
    struct token_list ids;
    struct err e = ERR_INIT;
    struct buf text;
    if (encode(f, family, m, 4, &ids, &e)) fail_msg("%s", e.text);
    buf_init(&text, 10000);
    for (uint32_t i = 0; i < ids.len; i++)
        assert_int_equal(vocab_piece(f->v, ids.ids[i], true, &text), 0);
    assert_string_equal(text.data, want);
    buf_release(&text);
    token_list_release(&ids);
}

static void test_rows(void **state)
{
    expect(*state, "chatml",
           "<|im_start|>system\n S <|im_end|>\n<|im_start|>user\nU\n<|im_end|>\n"
           "<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nV<|im_end|>\n"
           "<|im_start|>assistant\n");
    expect(*state, "llama3",
           "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
           "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>"
           "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>"
           "<|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|>"
           "<|start_header_id|>assistant<|end_header_id|>\n\n");
    expect(*state, "phi3",
           "<|system|>\n S <|end|>\n<|user|>\nU\n<|end|>\n<|assistant|>\nA<|end|>\n"
           "<|user|>\nV<|end|>\n<|assistant|>\n");
    expect(*state, "zephyr", /* the EOS of this vocabulary is <|im_end|> */
           "<|system|>\n S <|im_end|>\n<|user|>\nU\n<|im_end|>\n<|assistant|>\nA<|im_end|>\n"
           "<|user|>\nV<|im_end|>\n<|assistant|>\n");
    expect(*state, "gemma",
           "<start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n"
           "<start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n");
    expect(*state, "granite",
           "<|start_of_role|>system<|end_of_role|> S <|end_of_text|>\n"
           "<|start_of_role|>user<|end_of_role|>U\n<|end_of_text|>\n"
           "<|start_of_role|>assistant<|end_of_role|>A<|end_of_text|>\n"
           "<|start_of_role|>user<|end_of_role|>V<|end_of_text|>\n"
           "<|start_of_role|>assistant<|end_of_role|>");
    expect(*state, "llama2",
           "[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A<|im_end|><s>[INST] V [/INST]");
}

static void test_system_needs_a_user(void **state)
{
    static const struct chat_message m[] = {{"system", "S", 1}, {"assistant", "A", 1}};
    struct token_list ids;
    struct err e = ERR_INIT;
    for (uint32_t n = 1; n <= 2; n++) {
        assert_int_equal(encode(*state, "gemma", m, n, &ids, &e), ERR_BAD_INPUT);
        assert_non_null(strstr(e.text, "messages[1]"));
        token_list_release(&ids);
    }
    assert_int_equal(encode(*state, "chatml", m, 0, &ids, &e), ERR_BAD_INPUT);
}

/* "user\n" + "\n\nx" must become the tokens of "user\n\n\nx", as if it were one text. */
static void test_content_merges_with_the_template(void **state)
{
    const struct fixture *f = *state;
    static const struct chat_message m = {"user", "\xC2\xA0the other", 11};
    struct token_list ids, whole;
    struct err e = ERR_INIT;
    assert_int_equal(encode(f, "chatml", &m, 1, &ids, &e), 0);
    static const char text[] = "<|im_start|>user\n\xC2\xA0the other<|im_end|>\n"
                               "<|im_start|>assistant\n";
    token_list_init(&whole, 1000);
    assert_int_equal(vocab_encode(f->v, text, sizeof text - 1, VOCAB_SPECIAL, &whole, &e), 0);
    assert_int_equal(ids.len, whole.len);
    assert_memory_equal(ids.ids, whole.ids, whole.len * sizeof *whole.ids);
    token_list_release(&ids);
    token_list_release(&whole);
}

static void test_too_long(void **state)
{
    const struct fixture *f = *state;
    struct chat_template *t;
    struct token_list ids;
    static const struct chat_message m = {"user", "hello", 5};
    for (uint32_t max = 0; max < 12; max++) {
        struct err e = ERR_INIT;
        assert_int_equal(chat_template_open_family("chatml", &t, &e), 0);
        token_list_init(&ids, max);
        assert_int_equal(chat_template_encode(t, f->v, &m, 1, true, &ids, &e), ERR_LIMIT);
        assert_non_null(strstr(e.text, "tokens"));
        token_list_release(&ids);
        chat_template_close(t);
    }
}

/* The N-th allocation fails, for every N: from the bytes of the file to the prompt. */
static void test_no_memory(void **state)
{
    const struct fixture *f = *state;
    static const struct chat_message m = {"user", "hello", 5};
    for (long n = 1;; n++) {
        struct gguf *g;
        struct chat_template *t;
        struct token_list ids;
        struct err e = ERR_INIT;
        token_list_init(&ids, 1000);
        mem_fail_at(n);
        int code = gguf_open_bytes(f->file.data, f->file.len, "tiny", &g, &e);
        if (code == 0) {
            code = chat_template_open(g, &t, &e);
            gguf_close(g);
        }
        if (code == 0) {
            code = chat_template_encode(t, f->v, &m, 1, true, &ids, &e);
            chat_template_close(t);
        }
        int hit = mem_fail_hit();
        mem_fail_at(0);
        token_list_release(&ids);
        if (!hit) break;
        assert_int_equal(code, ERR_NO_MEMORY);
        assert_non_null(strstr(e.text, "no memory"));
    }
}

/* What the Jinja text of real models looks like at the places that tell them apart. */
static const struct {
    const char *jinja, *family; /* NULL: refused */
} known[] = {
    {"{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'}}", "chatml"},
    {"{{ '<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>' }}", NULL},
    {"{{ '<|start_header_id|>' + role + '<|end_header_id|>\n\n' + content + '<|eot_id|>' }}",
     "llama3"},
    {"{{'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>'}}", "phi3"},
    {"{{ '<|user|>\n' + message['content'] + eos_token }}{{ '<|assistant|>' }}", "zephyr"},
    {"[gMASK]<sop><|user|>{{ content }}<|assistant|>{{ eos_token }}", NULL},
    {"{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}",
     "gemma"},
    {"{{ '<|start_of_role|>user<|end_of_role|>' + content + '<|end_of_text|>\n' }}", "granite"},
    {"{{ '<<SYS>>\n' + system }}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}",
     "llama2"},
    {"{{ 'Question: ' + content }}", NULL},
    {"", NULL},
};

static void test_recognised(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct gguf_writer w;
        struct buf file;
        struct gguf *g;
        struct chat_template *t;
        struct err e = ERR_INIT;
        gguf_writer_init(&w);
        gguf_writer_text(&w, "tokenizer.chat_template", known[i].jinja);
        buf_init(&file, 10000);
        gguf_writer_finish(&w, &file);
        assert_int_equal(gguf_open_bytes(file.data, file.len, "some.gguf", &g, &e), 0);
        int code = chat_template_open(g, &t, &e);
        if (known[i].family) {
            assert_int_equal(code, 0);
            assert_string_equal(chat_template_family(t), known[i].family);
            chat_template_close(t);
        } else {
            assert_int_equal(code, ERR_UNSUPPORTED);
            assert_non_null(strstr(e.text, "some.gguf"));
            assert_non_null(strstr(e.text, "--chat-template"));
        }
        gguf_close(g);
        gguf_writer_release(&w);
        buf_release(&file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_system_needs_a_user),
        cmocka_unit_test(test_content_merges_with_the_template),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_recognised),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
