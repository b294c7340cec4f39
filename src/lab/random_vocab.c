/* random_vocab: see random_vocab.h. */
#include "lab/random_vocab.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "model/gguf_write.h"

enum { TEXT_MAX = 48, SMALL = 2048, LETTERS = 26, BYTES = 256 };
enum { KIND_NORMAL = 1, KIND_UNKNOWN, KIND_CONTROL, KIND_USER_DEFINED, KIND_UNUSED, KIND_BYTE };
#define SPACE "\xE2\x96\x81" /* SentencePiece's */

#define EACH "{%- for message in messages -%}"
#define NEXT "{%- endfor -%}{%- if add_generation_prompt -%}"
#define CHATML                                                                                     \
    EACH "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' "     \
         "}}" NEXT "{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
#define ROLE_TAGS(end)                                                                             \
    EACH "{{ '<|' + message['role'] + '|>\\n' + message['content'] + " end " + '\\n' }}" NEXT      \
         "{{ '<|assistant|>\\n' }}{%- endif -%}"
#define GEMMA                                                                                      \
    "{{ bos_token }}" EACH "{%- set role = 'model' if message['role'] == 'assistant' else "        \
    "message['role'] -%}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + "        \
    "'<end_of_turn>\\n' }}" NEXT "{{ '<start_of_turn>model\\n' }}{%- endif -%}"

const struct random_vocab random_vocab_smollm = {
    .pre = "smollm",
    .bytes_first = 17,
    .words_end = UINT32_MAX,
    .bos = "<|im_start|>",
    .eos = "<|im_end|>",
    .unknown = "<|endoftext|>",
    .pad = "<|im_end|>",
    .chat_template = CHATML,
    .specials = {{0, "<|endoftext|>", false}, {1, "<|im_start|>", false}, {2, "<|im_end|>", false}},
};

const struct random_vocab random_vocab_tinyllama = {
    .bytes_first = 3,
    .words_end = UINT32_MAX,
    .bos = "<s>",
    .eos = "</s>",
    .unknown = "<unk>",
    .pad = "</s>",
    .add_bos = true,
    .add_space_prefix = true,
    .chat_template = EACH
    "{%- if message['role'] == 'user' -%}{{ '<|user|>\\n' + message['content'] + eos_token }}"
    "{%- elif message['role'] == 'system' -%}{{ '<|system|>\\n' + message['content'] + "
    "eos_token }}{%- else -%}{{ '<|assistant|>\\n' + message['content'] + eos_token }}"
    "{%- endif -%}{{ '\\n' }}" NEXT "{{ '<|assistant|>\\n' }}{%- endif -%}",
    .specials = {{0, "<unk>", false}, {1, "<s>", false}, {2, "</s>", false}},
};

const struct random_vocab random_vocab_llama3 = {
    .pre = "llama-bpe",
    .words_end = 128000,
    .bos = "<|begin_of_text|>",
    .eos = "<|eot_id|>",
    .add_bos = true,
    .chat_template = "{{ bos_token }}" EACH
                     "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + "
                     "message['content'] | trim + '<|eot_id|>' }}" NEXT
                     "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}",
    .specials = {{128000, "<|begin_of_text|>", false},
                 {128001, "<|end_of_text|>", false},
                 {128006, "<|start_header_id|>", false},
                 {128007, "<|end_header_id|>", false},
                 {128008, "<|eom_id|>", false},
                 {128009, "<|eot_id|>", false}},
};

const struct random_vocab random_vocab_mistral = {
    .bytes_first = 771,
    .words_end = UINT32_MAX,
    .bos = "<s>",
    .eos = "</s>",
    .unknown = "<unk>",
    .add_bos = true,
    .chat_template =
        "{{ bos_token }}" EACH "{%- if message['role'] == 'user' -%}{{ '[INST] ' + "
        "message['content'] + '[/INST]' }}{%- elif message['role'] == 'assistant' -%}{{ ' ' + "
        "message['content'] + eos_token }}{%- endif -%}{%- endfor -%}",
    .specials = {{0, "<unk>", false},
                 {1, "<s>", false},
                 {2, "</s>", false},
                 {3, "[INST]", false},
                 {4, "[/INST]", false}},
};

const struct random_vocab random_vocab_qwen = {
    .pre = "qwen2",
    .words_end = 151643,
    .bos = "<|endoftext|>",
    .eos = "<|im_end|>",
    .pad = "<|endoftext|>",
    .chat_template = CHATML,
    .specials = {{151643, "<|endoftext|>", false},
                 {151644, "<|im_start|>", false},
                 {151645, "<|im_end|>", false}},
};

const struct random_vocab random_vocab_qwen3 = {
    .pre = "qwen2",
    .words_end = 151643,
    .bos = "<|endoftext|>",
    .eos = "<|im_end|>",
    .pad = "<|endoftext|>",
    .chat_template = EACH
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}" NEXT
    "{{ '<|im_start|>assistant\\n' }}{%- if enable_thinking is defined and enable_thinking "
    "is false -%}{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}{%- endif -%}",
    .specials = {{151643, "<|endoftext|>", false},
                 {151644, "<|im_start|>", false},
                 {151645, "<|im_end|>", false},
                 {151667, "<think>", true},
                 {151668, "</think>", true}},
};

const struct random_vocab random_vocab_gemma2 = {
    .bytes_first = 217,
    .words_end = UINT32_MAX,
    .bos = "<bos>",
    .eos = "<eos>",
    .unknown = "<unk>",
    .pad = "<pad>",
    .add_bos = true,
    .chat_template = GEMMA,
    .specials = {{0, "<pad>", false},
                 {1, "<eos>", false},
                 {2, "<bos>", false},
                 {3, "<unk>", false},
                 {106, "<start_of_turn>", false},
                 {107, "<end_of_turn>", false}},
};

const struct random_vocab random_vocab_gemma3 = {
    .bytes_first = 238,
    .words_end = UINT32_MAX,
    .bos = "<bos>",
    .eos = "<eos>",
    .unknown = "<unk>",
    .pad = "<pad>",
    .add_bos = true,
    .chat_template = GEMMA,
    .specials = {{0, "<pad>", false},
                 {1, "<eos>", false},
                 {2, "<bos>", false},
                 {3, "<unk>", false},
                 {105, "<start_of_turn>", false},
                 {106, "<end_of_turn>", false}},
};

const struct random_vocab random_vocab_phi3 = {
    .bytes_first = 3,
    .words_end = 32000,
    .bos = "<s>",
    .eos = "<|endoftext|>",
    .unknown = "<unk>",
    .pad = "<|endoftext|>",
    .chat_template = ROLE_TAGS("'<|end|>'"),
    .specials = {{0, "<unk>", false},
                 {1, "<s>", false},
                 {2, "</s>", false},
                 {32000, "<|endoftext|>", false},
                 {32001, "<|assistant|>", false},
                 {32006, "<|system|>", false},
                 {32007, "<|end|>", false},
                 {32010, "<|user|>", false}},
};

const struct random_vocab random_vocab_olmo2 = {
    .pre = "dbrx",
    .words_end = 100256,
    .bos = "<|endoftext|>",
    .eos = "<|endoftext|>",
    .unknown = "<|endoftext|>",
    .pad = "<|pad|>",
    .chat_template =
        "{{ bos_token }}" EACH
        "{%- if message['role'] == 'user' -%}{{ '<|user|>\\n' + message['content'] + '\\n' }}"
        "{%- elif message['role'] == 'system' -%}{{ '<|system|>\\n' + message['content'] + '\\n' }}"
        "{%- else -%}{{ '<|assistant|>\\n' + message['content'] + eos_token + '\\n' }}"
        "{%- endif -%}" NEXT "{{ '<|assistant|>\\n' }}{%- endif -%}",
    .specials = {{100257, "<|endoftext|>", false},
                 {100264, "<|im_start|>", false},
                 {100265, "<|im_end|>", false},
                 {100277, "<|pad|>", false}},
};

const struct random_vocab random_vocab_granite = {
    .pre = "refact",
    .bytes_first = 19,
    .words_end = 49152,
    .bos = "<|end_of_text|>",
    .eos = "<|end_of_text|>",
    .unknown = "<|end_of_text|>",
    .pad = "<|end_of_text|>",
    .chat_template = EACH
    "{{ '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + "
    "'<|end_of_text|>\\n' }}" NEXT "{{ '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif -%}",
    .specials = {{0, "<|end_of_text|>", false},
                 {49152, "<|start_of_role|>", false},
                 {49153, "<|end_of_role|>", false},
                 {49154, "<|tool_call|>", false}},
};

/* Where things stand in a vocabulary of one size. */
struct layout {
    const struct random_vocab *v;
    uint32_t size, specials, bytes_first, words_first, words_end;
    bool small;
};

static struct layout layout_of(const struct random_vocab *v, uint32_t size)
{
    struct layout l = {.v = v, .size = size, .small = size < SMALL};
    while (l.specials < RANDOM_SPECIALS_MAX && v->specials[l.specials].text)
        l.specials++;
    l.bytes_first = l.small ? l.specials : v->bytes_first;
    l.words_first = l.bytes_first + BYTES;
    l.words_end = l.small || v->words_end > size ? size : v->words_end;
    return l;
}

static const struct random_special *special_at(const struct layout *l, uint32_t id)
{
    for (uint32_t i = 0; i < l->specials; i++)
        if ((l->small ? i : l->v->specials[i].id) == id) return &l->v->specials[i];
    return NULL;
}

/* GPT-2's stand-in for a byte: printable ones stand for themselves, the others count from 256. */
static uint32_t symbol_of(uint32_t byte)
{
    if ((byte >= '!' && byte <= '~') || (byte > 160 && byte != 173)) return byte;
    if (byte <= ' ') return 256 + byte;
    return byte == 173 ? 256 + 67 : 256 + 33 + (byte - 127);
}

/* Word n of two, three or four letters, and how many letters its left half has. */
static uint32_t word_text(uint32_t n, char *text)
{
    const uint32_t two = LETTERS * LETTERS, three = two * LETTERS;
    uint32_t letters = n < two ? 2 : n < two + three ? 3 : 4;
    n -= letters > 2 ? two : 0;
    n -= letters > 3 ? three : 0;
    for (uint32_t i = letters; i-- > 0; n /= LETTERS)
        text[i] = (char)('a' + n % LETTERS);
    text[letters] = 0;
    return letters == 2 ? 1 : 2;
}

/* SentencePiece has no alphabet but its pieces, so the single letters come before the words. */
static void piece_text(uint32_t n, char *text)
{
    if (n == 0)
        memcpy(text, SPACE, sizeof SPACE);
    else if (n <= LETTERS)
        snprintf(text, TEXT_MAX, "%c", (int)('a' + n - 1));
    else
        word_text(n - LETTERS - 1, text);
}

static int32_t token_at(const struct layout *l, uint32_t id, char text[TEXT_MAX])
{
    const struct random_special *s = special_at(l, id);
    bool spm = !l->v->pre;
    if (s) {
        snprintf(text, TEXT_MAX, "%s", s->text);
        if (l->v->unknown && spm && strcmp(s->text, l->v->unknown) == 0) return KIND_UNKNOWN;
        return s->user_defined ? KIND_USER_DEFINED : KIND_CONTROL;
    }
    if (id >= l->bytes_first && id < l->words_first) {
        if (spm)
            snprintf(text, TEXT_MAX, "<0x%02X>", id - l->bytes_first);
        else
            text[utf8_put(symbol_of(id - l->bytes_first), text)] = 0;
        return spm ? KIND_BYTE : KIND_NORMAL;
    }
    if (id >= l->words_first && id < l->words_end) {
        if (spm)
            piece_text(id - l->words_first, text);
        else
            word_text(id - l->words_first, text);
        return KIND_NORMAL;
    }
    snprintf(text, TEXT_MAX, "[PAD%u]", id);
    return KIND_UNUSED;
}

static void put_tokens(const struct layout *l, int32_t *kinds, struct gguf_write *w)
{
    char text[TEXT_MAX];
    gguf_write_texts_begin(w, "tokenizer.ggml.tokens", l->size);
    for (uint32_t id = 0; id < l->size; id++) {
        kinds[id] = token_at(l, id, text);
        gguf_write_text_item(w, text);
    }
    gguf_write_i32s(w, "tokenizer.ggml.token_type", kinds, l->size);
}

static void put_merges(const struct layout *l, struct gguf_write *w)
{
    char text[TEXT_MAX], merge[TEXT_MAX + 1];
    gguf_write_texts_begin(w, "tokenizer.ggml.merges", l->words_end - l->words_first);
    for (uint32_t n = 0; n < l->words_end - l->words_first; n++) {
        int left = (int)word_text(n, text);
        snprintf(merge, sizeof merge, "%.*s %s", left, text, text + left);
        gguf_write_text_item(w, merge);
    }
}

static void put_scores(const struct layout *l, float *scores, struct gguf_write *w)
{
    for (uint32_t id = 0; id < l->size; id++)
        scores[id] = id >= l->words_first && id < l->words_end ? -(float)(id - l->words_first) : 0;
    gguf_write_f32s(w, "tokenizer.ggml.scores", scores, l->size);
}

static void put_id(const struct layout *l, const char *key, const char *text, struct gguf_write *w)
{
    for (uint32_t i = 0; text && i < l->specials; i++)
        if (strcmp(l->v->specials[i].text, text) == 0)
            gguf_write_u32(w, key, l->small ? i : l->v->specials[i].id);
}

int random_vocab_keys(const struct random_vocab *v, uint32_t size, struct gguf_write *w,
                      struct err *e)
{
    struct layout l = layout_of(v, size);
    int32_t *kinds = mem_alloc(size * sizeof *kinds);
    float *scores = mem_alloc(size * sizeof *scores);
    if (kinds && scores) {
        gguf_write_text(w, "tokenizer.ggml.model", v->pre ? "gpt2" : "llama");
        gguf_write_text(w, "tokenizer.ggml.pre", v->pre ? v->pre : "default");
        put_tokens(&l, kinds, w);
        if (v->pre)
            put_merges(&l, w);
        else
            put_scores(&l, scores, w);
        put_id(&l, "tokenizer.ggml.bos_token_id", v->bos, w);
        put_id(&l, "tokenizer.ggml.eos_token_id", v->eos, w);
        put_id(&l, "tokenizer.ggml.unknown_token_id", v->unknown, w);
        put_id(&l, "tokenizer.ggml.padding_token_id", v->pad, w);
        gguf_write_bool(w, "tokenizer.ggml.add_bos_token", v->add_bos);
        if (!v->pre) gguf_write_bool(w, "tokenizer.ggml.add_space_prefix", v->add_space_prefix);
        gguf_write_text(w, "tokenizer.chat_template", v->chat_template);
    }
    int code = kinds && scores ? 0 : err_set(e, ERR_NO_MEMORY, "no memory for a vocabulary");
    mem_free(kinds);
    mem_free(scores);
    return code;
}
