/* fuzz_engine: a model file with some bytes changed gives an error that says something, or an
 * engine that runs: a prompt, a token, a shared prefix. The input is a list of changes to a good
 * file of one of the architectures, so that a few bytes reach deep; its first byte chooses the
 * file, its second the size of the steps. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "engine/native.h"
#include "support/tiny_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { CHANGE = 5 /* place, 3 bytes; how; what */, PROMPT = 70, ARCHS_MAX = 32 };
static struct buf models[ARCHS_MAX];
static uint32_t heads[ARCHS_MAX]; /* bytes of a file before its weights */
static uint32_t archs;

static void make_all(void)
{
    for (; archs < ARCHS_MAX && tiny_arch(archs); archs++) {
        struct tiny_options o = *tiny_arch(archs);
        if (o.type != GGUF_Q4_0) o.type = archs % 2 ? GGUF_F32 : GGUF_Q8_0;
        buf_init(&models[archs], (size_t)1 << 30);
        tiny_model_bytes(&o, &models[archs]);
        const char *last = models[archs].data, *end = last + models[archs].len, *at;
        while ((at = memmem(last, (size_t)(end - last), ".weight", 7)) != NULL)
            last = at + 1;
        heads[archs] = (uint32_t)(last - models[archs].data) + 40;
    }
}

/* The bytes before the weights are where files go wrong: three of four changes fall there. */
static void change(char *file, size_t len, uint32_t head, const uint8_t *c)
{
    uint32_t at = (uint32_t)c[0] | (uint32_t)c[1] << 8 | (uint32_t)(c[2] & 0x3F) << 16;
    at %= c[2] >> 6 ? head : (uint32_t)len;
    if (c[3] == 0)
        file[at] = (char)c[4];
    else if (c[3] == 1)
        file[at] ^= (char)(1 << c[4] % 8);
    else
        file[at] = (char)(file[at] + c[4]);
}

static void run(struct engine *e, uint32_t step)
{
    struct session *s, *t;
    int32_t tokens[PROMPT];
    uint32_t size = engine_info(e)->vocab_size;
    for (uint32_t i = 0; i < PROMPT; i++)
        tokens[i] = (int32_t)(i * 37 % size);
    if (engine_session_open(e, &s, NULL)) return;
    if (engine_session_open(e, &t, NULL)) {
        engine_session_close(s);
        return;
    }
    for (uint32_t at = 0; at < PROMPT; at += step) {
        uint32_t n = PROMPT - at < step ? PROMPT - at : step;
        struct engine_span span = {.session = s, .tokens = tokens + at, .n = n, .sample = true};
        if (engine_step(e, &span, 1, NULL)) break;
        CHECK(span.next >= 0 && (uint32_t)span.next < size);
    }
    if (session_share(t, s, session_len(s) / 2, NULL) == 0) {
        struct engine_span span = {.session = t, .tokens = tokens, .n = 1, .sample = true};
        engine_step(e, &span, 1, NULL);
    }
    engine_session_close(s);
    engine_session_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct err err = ERR_INIT;
    struct engine *e;
    char path[64];
    if (archs == 0) make_all();
    if (n < 2) return 0;
    const struct buf *model = &models[data[0] % archs];
    int file = memfd_create("model", 0);
    CHECK(file >= 0 && ftruncate(file, (off_t)model->len) == 0);
    char *bytes = mmap(NULL, model->len, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(bytes != MAP_FAILED);
    memcpy(bytes, model->data, model->len);
    for (size_t at = 2; at + CHANGE <= n; at += CHANGE)
        change(bytes, model->len, heads[data[0] % archs], data + at);
    munmap(bytes, model->len);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    struct native_options o = {
        .model_path = path, .threads = 1, .context_max = 128, .step_tokens_max = 64};
    o.kv_bytes_max = (uint64_t)4 << 20;
    o.kv_type = (enum native_kv)(data[0] >> 6);
    if (native_open(&o, &e, &err) == 0) {
        run(e, 1 + data[1] % 64);
        engine_free(e);
    } else {
        CHECK(err.text[0] != 0);
    }
    close(file);
    return 0;
}
