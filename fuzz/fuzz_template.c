/* fuzz_template: any messages through every template family. However a message is written, the
 * control tokens of the result are those of the template, no more. */
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "model/gguf.h"
#include "model/template.h"
#include "support/tiny_vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MESSAGES_MAX = 8, FAMILIES = 7 };
static struct vocab *vocab;
static struct chat_template *templates[FAMILIES];

static void open_all(void)
{
    static const char *const names[FAMILIES] = {"chatml", "zephyr", "llama2", "llama3",
                                                "phi3",   "gemma",  "granite"};
    struct buf file;
    struct gguf *g;
    tiny_vocab_bpe("smollm", &file);
    CHECK(gguf_open_bytes(file.data, file.len, "tiny", &g, NULL) == 0);
    CHECK(vocab_open(g, &vocab, NULL) == 0);
    gguf_close(g);
    buf_release(&file);
    for (int i = 0; i < FAMILIES; i++)
        CHECK(chat_template_open_family(names[i], &templates[i], NULL) == 0);
}

/* How many control tokens the template itself writes. The vocabulary has those of ChatML and EOS.
 */
static uint32_t controls_of(int family, const struct chat_message *m, uint32_t n, bool generate)
{
    uint32_t answers = 0;
    for (uint32_t i = 0; i < n; i++)
        answers += strcmp(m[i].role, "assistant") == 0;
    const uint32_t controls[FAMILIES] = {2 * n + generate, n, answers};
    return controls[family];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    struct chat_message m[MESSAGES_MAX];
    uint32_t count = 0;
    if (!vocab) open_all();
    if (n == 0) return 0;
    int family = data[0] % FAMILIES;
    const char *at = (const char *)data + 1, *end = (const char *)data + n;
    while (at < end && count < MESSAGES_MAX) { /* a byte for the role, its text up to the next 0 */
        const char *role = roles[(uint8_t)*at++ % 4];
        const char *stop = memchr(at, 0, (size_t)(end - at));
        size_t len = (size_t)((stop ? stop : end) - at);
        m[count++] = (struct chat_message){role, at, len};
        at += len + (stop != NULL);
    }
    struct token_list ids;
    token_list_init(&ids, 1 << 20);
    int code = chat_template_encode(templates[family], vocab, m, count, data[0] & 0x80, &ids, NULL);
    uint32_t controls = 0;
    for (uint32_t i = 0; i < ids.len; i++)
        controls += vocab_is_control(vocab, ids.ids[i]);
    if (code == 0) CHECK(controls == controls_of(family, m, count, data[0] & 0x80));
    token_list_release(&ids);
    return 0;
}
