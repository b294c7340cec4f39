/* tiny_model: see tiny_model.h. */
#include "support/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/rng.h"
#include "kern/kern.h"

enum { BYTES_AT = 3, PLAIN_AT = BYTES_AT + 256, PIECE_BYTES = 16 };

static float largest(const float *x, uint32_t n, float *ret_signed)
{
    float best = 0.0f;
    for (uint32_t i = 0; i < n; i++) {
        if (fabsf(x[i]) > best) {
            best = fabsf(x[i]);
            *ret_signed = x[i];
        }
    }
    return best;
}

static void encode_q8_0(const float *x, uint8_t *out)
{
    float at = 0.0f, d = largest(x, KERN_BLOCK, &at) / 127.0f;
    uint16_t h = kern_f32_to_f16(d);
    memcpy(out, &h, 2);
    for (int i = 0; i < KERN_BLOCK; i++)
        out[2 + i] = (uint8_t)(int8_t)(d > 0.0f ? lrintf(x[i] / d) : 0);
}

static void encode_q4_0(const float *x, uint8_t *out)
{
    float at = 0.0f;
    largest(x, KERN_BLOCK, &at);
    float d = at / -8.0f;
    uint16_t h = kern_f32_to_f16(d);
    uint8_t q[KERN_BLOCK];
    memcpy(out, &h, 2);
    for (int i = 0; i < KERN_BLOCK; i++) {
        long v = d != 0.0f ? lrintf(x[i] / d) + 8 : 8;
        q[i] = (uint8_t)(v < 0 ? 0 : v > 15 ? 15 : v);
    }
    for (int i = 0; i < 16; i++)
        out[2 + i] = (uint8_t)(q[i] | q[i + 16] << 4);
}

size_t tiny_encode(uint32_t type, const float *x, size_t n, uint8_t *out)
{
    if (type == GGUF_F32) {
        memcpy(out, x, n * 4);
        return n * 4;
    }
    if (type == GGUF_Q8_0 || type == GGUF_Q4_0) {
        size_t bytes = type == GGUF_Q8_0 ? 34 : 18;
        for (size_t b = 0; b < n / KERN_BLOCK; b++)
            (type == GGUF_Q8_0 ? encode_q8_0 : encode_q4_0)(x + b * KERN_BLOCK, out + b * bytes);
        return n / KERN_BLOCK * bytes;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t h = kern_f32_to_f16(x[i]);
        if (type == GGUF_BF16) memcpy(&h, (const uint8_t *)&x[i] + 2, 2);
        memcpy(out + i * 2, &h, 2);
    }
    return n * 2;
}

/* Random weights around `mean`; rows 0: a vector. */
static void tensor(struct gguf_writer *w, struct rng *rng, const char *name, uint32_t type,
                   uint32_t cols, uint32_t rows, float mean, float deviation)
{
    size_t n = (size_t)cols * (rows ? rows : 1);
    float *x = mem_alloc(n * 4);
    uint8_t *raw = mem_alloc(n * 4);
    CHECK(x && raw);
    for (size_t i = 0; i < n; i++)
        x[i] = mean + deviation * rng_next_normal(rng);
    size_t bytes = tiny_encode(type, x, n, raw);
    gguf_writer_tensor(w, name, type, cols, rows, raw, bytes);
    mem_free(x);
    mem_free(raw);
}

static void matrix(struct gguf_writer *w, struct rng *rng, const char *name, uint32_t type,
                   uint32_t cols, uint32_t rows)
{
    tensor(w, rng, name, type, cols, rows, 0.0f, 1.5f / sqrtf((float)cols));
}

static void write_vocab(const struct tiny_options *o, struct gguf_writer *w)
{
    CHECK(o->vocab > PLAIN_AT);
    char(*text)[PIECE_BYTES] = mem_calloc(o->vocab, PIECE_BYTES);
    const char **pieces = mem_calloc(o->vocab, sizeof *pieces);
    float *scores = mem_calloc(o->vocab, sizeof *scores);
    int32_t *kinds = mem_calloc(o->vocab, sizeof *kinds);
    CHECK(text && pieces && scores && kinds);
    for (uint32_t i = 0; i < o->vocab; i++) {
        if (i < BYTES_AT)
            snprintf(text[i], PIECE_BYTES, "%s", (const char *[]){"<unk>", "<s>", "</s>"}[i]);
        else if (i < PLAIN_AT)
            snprintf(text[i], PIECE_BYTES, "<0x%02X>", (uint8_t)(i - BYTES_AT));
        else
            snprintf(text[i], PIECE_BYTES, "w%u", i);
        kinds[i] = i == 0 ? 2 : i < BYTES_AT ? 3 : i < PLAIN_AT ? 6 : 1;
        scores[i] = -(float)i;
        pieces[i] = text[i];
    }
    gguf_writer_text(w, "tokenizer.ggml.model", "llama");
    gguf_writer_texts(w, "tokenizer.ggml.tokens", pieces, o->vocab);
    gguf_writer_f32s(w, "tokenizer.ggml.scores", scores, o->vocab);
    gguf_writer_i32s(w, "tokenizer.ggml.token_type", kinds, o->vocab);
    gguf_writer_u32(w, "tokenizer.ggml.bos_token_id", 1);
    gguf_writer_u32(w, "tokenizer.ggml.eos_token_id", 2);
    gguf_writer_u32(w, "tokenizer.ggml.unknown_token_id", 0);
    mem_free(text);
    mem_free(pieces);
    mem_free(scores);
    mem_free(kinds);
}

static void write_keys(const struct tiny_options *o, struct gguf_writer *w)
{
    gguf_writer_text(w, "general.architecture", "llama");
    gguf_writer_text(w, "general.name", "tiny");
    gguf_writer_u32(w, "llama.block_count", o->layers);
    gguf_writer_u32(w, "llama.context_length", o->context);
    gguf_writer_u32(w, "llama.embedding_length", o->dim);
    gguf_writer_u32(w, "llama.feed_forward_length", o->ff);
    gguf_writer_u32(w, "llama.attention.head_count", o->heads);
    gguf_writer_u32(w, "llama.attention.head_count_kv", o->kv_heads);
    gguf_writer_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    if (o->head_dim) {
        gguf_writer_u32(w, "llama.attention.key_length", o->head_dim);
        gguf_writer_u32(w, "llama.attention.value_length", o->head_dim);
    }
}

static void write_layer(const struct tiny_options *o, struct gguf_writer *w, struct rng *rng,
                        uint32_t layer)
{
    uint32_t head_dim = o->head_dim ? o->head_dim : o->dim / o->heads;
    uint32_t q = o->heads * head_dim, kv = o->kv_heads * head_dim;
    uint32_t type = o->mixed && layer % 2 == 1 ? GGUF_F16 : o->type;
    const struct {
        const char *name;
        uint32_t cols, rows;
    } matrices[] = {{"attn_q", o->dim, q},       {"attn_k", o->dim, kv},
                    {"attn_v", o->dim, kv},      {"attn_output", q, o->dim},
                    {"ffn_gate", o->dim, o->ff}, {"ffn_up", o->dim, o->ff},
                    {"ffn_down", o->ff, o->dim}};
    char name[64];
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
        snprintf(name, sizeof name, "blk.%u.%s.weight", layer, matrices[i].name);
        matrix(w, rng, name, type, matrices[i].cols, matrices[i].rows);
    }
    snprintf(name, sizeof name, "blk.%u.attn_norm.weight", layer);
    tensor(w, rng, name, GGUF_F32, o->dim, 0, 1.0f, 0.1f);
    snprintf(name, sizeof name, "blk.%u.ffn_norm.weight", layer);
    tensor(w, rng, name, GGUF_F32, o->dim, 0, 1.0f, 0.1f);
}

void tiny_model_write(const struct tiny_options *o, struct gguf_writer *w)
{
    struct rng rng;
    rng_init(&rng, o->seed, 77);
    write_keys(o, w);
    write_vocab(o, w);
    tensor(w, &rng, "token_embd.weight", o->type, o->dim, o->vocab, 0.0f, 1.0f);
    tensor(w, &rng, "output_norm.weight", GGUF_F32, o->dim, 0, 1.0f, 0.1f);
    if (!o->tied) matrix(w, &rng, "output.weight", o->type, o->dim, o->vocab);
    uint32_t head_dim = o->head_dim ? o->head_dim : o->dim / o->heads;
    if (o->rope_factors)
        tensor(w, &rng, "rope_freqs.weight", GGUF_F32, head_dim / 2, 0, 4.0f, 0.2f);
    for (uint32_t i = 0; i < o->layers; i++)
        write_layer(o, w, &rng, i);
}

void tiny_model_bytes(const struct tiny_options *o, struct buf *out)
{
    struct gguf_writer w;
    gguf_writer_init(&w);
    tiny_model_write(o, &w);
    gguf_writer_finish(&w, out);
    gguf_writer_release(&w);
}

void tiny_model_file(const struct tiny_options *o, char path[TINY_PATH_MAX])
{
    struct buf bytes;
    struct err e;
    buf_init(&bytes, (size_t)1 << 36);
    tiny_model_bytes(o, &bytes);
    snprintf(path, TINY_PATH_MAX, "/tmp/pdd_tiny_XXXXXX");
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
    CHECK(os_write_file(path, bytes.data, bytes.len, &e) == 0);
    buf_release(&bytes);
}
