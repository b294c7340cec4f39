/* fuzz_template: any messages through every template family. However a message is written, the
 * control tokens of the result are those of the template, no more. */
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "model/gguf.h"
#include "model/text/template.h"
#include "support/tiny_vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MESSAGES_MAX = 8, FAMILIES = 23 };
static struct vocab *vocab;
static struct chat_template *templates[FAMILIES];

static void open_all(void)
{
    static const char *const names[FAMILIES] = {"chatml",
                                                "qwen3",
                                                "qwq",
                                                "qwen2.5",
                                                "smollm2",
                                                "phi4",
                                                "phi4-mini",
                                                "llama3",
                                                "llama3.1",
                                                "phi3",
                                                "olmo2",
                                                "zephyr",
                                                "gemma",
                                                "gemma3",
                                                "granite",
                                                "deepseek",
                                                "mistral",
                                                "mistral-v0.1",
                                                "mistral-v1",
                                                "mistral-v3",
                                                "mistral-v7",
                                                "llama2",
                                                "mistral-v3-tekken"};
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

/* How many control tokens the prompt has; -1: no prompt. */
static int64_t controls_of(const struct chat_template *t, const struct chat_message *m, uint32_t n,
                           bool generate)
{
    struct token_list ids;
    token_list_init(&ids, 1 << 20);
    int64_t controls = 0;
    int code = chat_template_encode(t, vocab, m, n, generate, &ids, NULL);
    for (uint32_t i = 0; i < ids.len; i++)
        controls += vocab_is_control(vocab, ids.ids[i]);
    token_list_release(&ids);
    return code ? -1 : controls;
}

/* Any bytes as the Jinja text of a file: what is a template renders, or says why not. */
static void interpret(const uint8_t *data, size_t n)
{
    static const struct chat_message m[] = {{"system", "", 0}, {"user", "hello", 5}};
    struct chat_template *t;
    if (chat_template_open_text((const char *)data, n, "fuzz", &t, NULL)) return;
    controls_of(t, m, 2, true);
    controls_of(t, m + 1, 1, false);
    chat_template_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    struct chat_message m[MESSAGES_MAX], empty[MESSAGES_MAX];
    uint32_t count = 0;
    if (!vocab) open_all();
    if (n == 0) return 0;
    if (data[0] == 0xFF) {
        interpret(data + 1, n - 1);
        return 0;
    }
    const char *at = (const char *)data + 1, *end = (const char *)data + n;
    while (at < end && count < MESSAGES_MAX) { /* a byte for the role, its text up to the next 0 */
        const char *role = roles[(uint8_t)*at++ % 4];
        const char *stop = memchr(at, 0, (size_t)(end - at));
        size_t len = (size_t)((stop ? stop : end) - at);
        m[count] = (struct chat_message){role, at, len};
        empty[count++] = (struct chat_message){role, at, 0};
        at += len + (stop != NULL);
    }
    const struct chat_template *t = templates[(data[0] & 0x7F) % FAMILIES];
    bool generate = data[0] & 0x80;
    int64_t controls = controls_of(t, m, count, generate);
    CHECK(controls == controls_of(t, empty, count, generate));
    return 0;
}
