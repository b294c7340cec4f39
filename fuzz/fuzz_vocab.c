/* fuzz_vocab: any text through every kind of tokenizer and back. All but SentencePiece give valid
 * UTF-8 back unchanged; streaming never hands out half a character. */
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "base/utf8.h"
#include "model/gguf.h"
#include "model/text/vocab.h"
#include "support/tiny_vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { BPE_KINDS = 8, KINDS = BPE_KINDS + 2, TOKENS_MAX = 1 << 20 };
static struct vocab *vocabs[KINDS];

static void open_vocabs(void)
{
    static const char *const pres[BPE_KINDS] = {"gpt-2",   "smollm", "llama-bpe", "qwen2",
                                                "default", "tekken", "gpt-4o",    "deepseek-v3"};
    CHECK(vocab_open_bytes(&vocabs[KINDS - 1], NULL) == 0);
    for (int i = 0; i < KINDS - 1; i++) {
        struct buf file;
        struct gguf *g;
        if (i < BPE_KINDS)
            tiny_vocab_bpe(pres[i], &file);
        else
            tiny_vocab_spm(&file);
        CHECK(gguf_open_bytes(file.data, file.len, "tiny", &g, NULL) == 0);
        CHECK(vocab_open(g, &vocabs[i], NULL) == 0);
        gguf_close(g);
        buf_release(&file);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (!vocabs[0]) open_vocabs();
    if (n < 2) return 0;
    const struct vocab *v = vocabs[data[0] % KINDS];
    unsigned flags = data[1] & (VOCAB_ADD_BOS | VOCAB_SPECIAL);
    const char *text = (const char *)data + 2;
    n -= 2;
    struct token_list ids;
    struct buf back;
    struct detok d;
    token_list_init(&ids, TOKENS_MAX);
    buf_init(&back, 16 << 20);
    detok_init(&d, true);
    CHECK(vocab_encode(v, text, n, flags, &ids, NULL) == 0);
    for (uint32_t i = 0; i < ids.len; i++) {
        CHECK(detok_push(&d, v, ids.ids[i], &back) == 0);
        CHECK(utf8_pending(back.data, back.len) == 0);
    }
    CHECK(detok_finish(&d, &back) == 0);
    CHECK(utf8_valid_prefix(back.data, back.len) == back.len);
    if (data[0] % KINDS != BPE_KINDS && flags == 0 && utf8_valid_prefix(text, n) == n)
        CHECK(back.len == n && memcmp(back.data, text, n) == 0);
    buf_release(&back);
    token_list_release(&ids);
    return 0;
}
