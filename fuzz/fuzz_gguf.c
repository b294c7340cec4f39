/* fuzz_gguf: any bytes give a usable file or an error; what opens must survive a walk over
 * everything, and a tokenizer and template made from it. */
#include <stdint.h>

#include "model/gguf.h"
#include "model/text/template.h"
#include "model/text/vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void walk_tensors(const struct gguf *g)
{
    volatile uint8_t sink = 0;
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        if (t->data && t->bytes > 0) sink = (uint8_t)(t->data[0] + t->data[t->bytes - 1]);
    }
    (void)sink;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct gguf *g;
    struct vocab *v;
    struct chat_template *t;
    if (gguf_open_bytes(data, n, "fuzz", &g, NULL)) return 0;
    walk_tensors(g);
    if (vocab_open(g, &v, NULL) == 0) {
        struct token_list ids;
        token_list_init(&ids, 4096);
        vocab_encode(v, "The <s> caf\xC3\xA9 12<|im_end|>", 25, VOCAB_ADD_BOS | VOCAB_SPECIAL, &ids,
                     NULL);
        struct buf text;
        buf_init(&text, 1 << 16);
        for (uint32_t i = 0; i < ids.len; i++)
            vocab_piece(v, ids.ids[i], true, &text);
        buf_release(&text);
        token_list_release(&ids);
        if (chat_template_open(g, &t, NULL) == 0) {
            const struct chat_message m = {"user", "hello", 5};
            token_list_init(&ids, 4096);
            chat_template_encode(t, v, &m, 1, true, &ids, NULL);
            token_list_release(&ids);
            chat_template_close(t);
        }
        vocab_close(v);
    }
    gguf_close(g);
    return 0;
}
