/* tiny_vocab: see tiny_vocab.h. */
#include "support/tiny_vocab.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "support/gguf_writer.h"

enum { PIECES_MAX = 320, PIECE_BYTES = 16 };

struct pieces {
    char text[PIECES_MAX][PIECE_BYTES];
    const char *pointers[PIECES_MAX];
    int32_t kinds[PIECES_MAX];
    float scores[PIECES_MAX];
    uint32_t n;
};

static void add(struct pieces *p, const char *text, int32_t kind, float score)
{
    snprintf(p->text[p->n], PIECE_BYTES, "%s", text);
    p->pointers[p->n] = p->text[p->n];
    p->kinds[p->n] = kind;
    p->scores[p->n++] = score;
}

/* GPT-2's stand-in for a byte; restated here so that the test does not trust the code it tests. */
static uint32_t stand_in(unsigned b)
{
    static const unsigned from[] = {33, 161, 174}, to[] = {126, 172, 255};
    uint32_t extra = 256;
    for (unsigned x = 0; x <= b; x++) {
        int kept = 0;
        for (int i = 0; i < 3; i++)
            kept |= x >= from[i] && x <= to[i];
        if (x == b) return kept ? b : extra;
        extra += !kept;
    }
    return 0;
}

static void write_tokenizer(struct gguf_writer *w, const struct pieces *p, const char *model)
{
    gguf_writer_text(w, "tokenizer.ggml.model", model);
    gguf_writer_texts(w, "tokenizer.ggml.tokens", p->pointers, p->n);
    gguf_writer_i32s(w, "tokenizer.ggml.token_type", p->kinds, p->n);
    gguf_writer_text(w, "tokenizer.chat_template",
                     "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
                     "message['content'] + '<|im_end|>\\n' }}{% endfor %}"
                     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}");
}

static void finish(struct gguf_writer *w, struct buf *out)
{
    buf_init(out, 1 << 20);
    gguf_writer_finish(w, out);
    gguf_writer_release(w);
}

void tiny_vocab_bpe(const char *pre, struct buf *out)
{
    static const char *const merges[] = {"t h", "h e",          "th e", "i n",
                                         "e r", "\xC4\xA0 the", "a a",  "aa aa"};
    static const char *const merged[] = {"th", "he",          "the", "in",
                                         "er", "\xC4\xA0the", "aa",  "aaaa"};
    static struct pieces p;
    struct gguf_writer w;
    p.n = 0;
    for (unsigned b = 0; b < 256; b++) {
        char text[8] = "";
        text[utf8_put(stand_in(b), text)] = 0;
        add(&p, text, 1, 0.0f);
    }
    for (int i = 0; i < 8; i++)
        add(&p, merged[i], 1, 0.0f);
    add(&p, "<|im_start|>", 3, 0.0f);
    add(&p, "<|im_end|>", 3, 0.0f);
    add(&p, "<user>", 4, 0.0f);
    add(&p, "<user", 3, 0.0f);
    add(&p, "xyz", 1, 0.0f); /* no merge leads to it */
    gguf_writer_init(&w);
    write_tokenizer(&w, &p, "gpt2");
    gguf_writer_text(&w, "tokenizer.ggml.pre", pre);
    gguf_writer_texts(&w, "tokenizer.ggml.merges", merges, 8);
    gguf_writer_u32(&w, "tokenizer.ggml.eos_token_id", 265);
    finish(&w, out);
}

void tiny_vocab_spm(struct buf *out)
{
    static const char *const texts[] = {
        "\xE2\x96\x81", "t", "h", "e", "a", "th", "the", "\xE2\x96\x81the", "aa", "aaaa",
        "\xE2\x96\x81t"};
    static struct pieces p;
    struct gguf_writer w;
    p.n = 0;
    add(&p, "<unk>", 2, 0.0f);
    add(&p, "<s>", 3, 0.0f);
    add(&p, "</s>", 3, 0.0f);
    for (unsigned b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", b);
        add(&p, text, 6, 0.0f);
    }
    for (int i = 0; i < 11; i++)
        add(&p, texts[i], 1, -(float)i);
    gguf_writer_init(&w);
    write_tokenizer(&w, &p, "llama");
    gguf_writer_f32s(&w, "tokenizer.ggml.scores", p.scores, p.n);
    gguf_writer_u32(&w, "tokenizer.ggml.bos_token_id", 1);
    gguf_writer_u32(&w, "tokenizer.ggml.eos_token_id", 2);
    finish(&w, out);
}
