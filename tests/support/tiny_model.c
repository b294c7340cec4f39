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

/* The largest value gets the exponent 2, as in files of others; each code is the nearest. */
static void encode_mxfp4(const float *x, uint8_t *out)
{
    static const float sizes[] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
    float at = 0.0f;
    int exponent = 0;
    frexpf(largest(x, KERN_BLOCK, &at), &exponent);
    memset(out, 0, 17);
    out[0] = (uint8_t)(exponent - 3 + 127);
    for (int i = 0; i < KERN_BLOCK; i++) {
        float size = ldexpf(fabsf(x[i]), 3 - exponent);
        uint8_t best = 0;
        for (uint8_t c = 1; c < 8; c++)
            if (fabsf(sizes[c] - size) < fabsf(sizes[best] - size)) best = c;
        if (x[i] < 0.0f) best |= 8;
        out[1 + i % 16] |= (uint8_t)(best << i / 16 * 4);
    }
}

size_t tiny_encode(uint32_t type, const float *x, size_t n, uint8_t *out)
{
    if (type == GGUF_F32) {
        memcpy(out, x, n * 4);
        return n * 4;
    }
    if (gguf_type_info(type)->quantised) {
        size_t bytes = gguf_type_info(type)->block_bytes;
        void (*encode)(const float *, uint8_t *) = type == GGUF_Q8_0   ? encode_q8_0
                                                   : type == GGUF_Q4_0 ? encode_q4_0
                                                                       : encode_mxfp4;
        for (size_t b = 0; b < n / KERN_BLOCK; b++)
            encode(x + b * KERN_BLOCK, out + b * bytes);
        return n / KERN_BLOCK * bytes;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t h = kern_f32_to_f16(x[i]);
        if (type == GGUF_BF16) memcpy(&h, (const uint8_t *)&x[i] + 2, 2);
        memcpy(out + i * 2, &h, 2);
    }
    return n * 2;
}

/* Random weights around `mean`; rows 0: a vector, depth above 1: so many matrices. */
static void fill(struct gguf_writer *w, struct rng *rng, const char *name, uint32_t type,
                 const uint32_t shape[3], float mean, float deviation)
{
    size_t n = (size_t)shape[0] * (shape[1] ? shape[1] : 1) * (shape[2] ? shape[2] : 1);
    float *x = mem_alloc(n * 4);
    uint8_t *raw = mem_alloc(n * 4);
    CHECK(x && raw);
    for (size_t i = 0; i < n; i++)
        x[i] = mean + deviation * rng_next_normal(rng);
    size_t bytes = tiny_encode(type, x, n, raw);
    if (shape[2])
        gguf_writer_stack(w, name, type, shape[0], shape[1], shape[2], raw, bytes);
    else
        gguf_writer_tensor(w, name, type, shape[0], shape[1], raw, bytes);
    mem_free(x);
    mem_free(raw);
}

static void tensor(struct gguf_writer *w, struct rng *rng, const char *name, uint32_t type,
                   uint32_t cols, uint32_t rows, float mean, float deviation)
{
    fill(w, rng, name, type, (const uint32_t[]){cols, rows, 0}, mean, deviation);
}

static void stack(struct gguf_writer *w, struct rng *rng, const char *name, uint32_t type,
                  uint32_t cols, uint32_t rows, uint32_t depth)
{
    fill(w, rng, name, type, (const uint32_t[]){cols, rows, depth}, 0.0f,
         1.5f / sqrtf((float)cols));
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

#define SMALL(n, kv)                                                                               \
    .vocab = 300, .dim = 64, .layers = (n), .ff = 96, .heads = 4, .kv_heads = (kv), .context = 2048
static const struct tiny_options archs[] = {
    {.arch = "llama",
     SMALL(3, 2),
     .type = GGUF_Q8_0,
     .rope_factors = true,
     .biases = true,
     .seed = 21},
    {.arch = "qwen2", SMALL(3, 2), .type = GGUF_Q8_0, .biases = true, .tied = true, .seed = 22},
    {.arch = "qwen3",
     SMALL(3, 2),
     .type = GGUF_Q4_0,
     .head_dim = 24,
     .scaling = "yarn",
     .seed = 23},
    {.arch = "gemma2", SMALL(3, 2), .type = GGUF_Q8_0, .tied = true, .window = 40, .seed = 24},
    {.arch = "gemma3", SMALL(7, 2), .type = GGUF_F16, .tied = true, .window = 70, .seed = 25},
    {.arch = "phi3",
     SMALL(3, 2),
     .type = GGUF_Q8_0,
     .fused = true,
     .biases = true,
     .rope_dims = 12,
     .long_factors = true,
     .window = 100,
     .seed = 26},
    {.arch = "olmo2", SMALL(3, 2), .type = GGUF_Q8_0, .seed = 27},
    {.arch = "granite", SMALL(3, 2), .type = GGUF_F32, .tied = true, .seed = 28},
    {.arch = "qwen3moe", SMALL(3, 2), .type = GGUF_Q8_0, .experts = 8, .used = 3, .seed = 29},
    {.arch = "llama", SMALL(3, 2), .type = GGUF_Q4_0, .experts = 4, .used = 2, .seed = 30},
    {.arch = "olmoe", SMALL(3, 4), .type = GGUF_F16, .experts = 6, .used = 2, .seed = 31},
    {.arch = "granitemoe", SMALL(3, 2), .type = GGUF_Q8_0, .experts = 5, .used = 4, .seed = 32},
    {.arch = "gemma", SMALL(3, 1), .type = GGUF_Q8_0, .head_dim = 40, .tied = true, .seed = 33},
    {.arch = "smollm3", SMALL(5, 2), .type = GGUF_F16, .tied = true, .seed = 34},
};

const struct tiny_options *tiny_arch(uint32_t i)
{
    return i < sizeof archs / sizeof *archs ? &archs[i] : NULL;
}

static const char *arch_of(const struct tiny_options *o)
{
    return o->arch ? o->arch : "llama";
}

static bool is_arch(const struct tiny_options *o, const char *prefix)
{
    return strncmp(arch_of(o), prefix, strlen(prefix)) == 0;
}

static void key_u32(const struct tiny_options *o, struct gguf_writer *w, const char *name,
                    uint32_t value)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", arch_of(o), name);
    gguf_writer_u32(w, key, value);
}

static void key_f32(const struct tiny_options *o, struct gguf_writer *w, const char *name,
                    float value)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", arch_of(o), name);
    gguf_writer_f32(w, key, value);
}

static void write_features(const struct tiny_options *o, struct gguf_writer *w)
{
    if (o->window) key_u32(o, w, "attention.sliding_window", o->window);
    if (is_arch(o, "gemma2")) {
        key_f32(o, w, "attn_logit_softcapping", 5.0f);
        key_f32(o, w, "final_logit_softcapping", 9.0f);
    }
    if (is_arch(o, "gemma3")) key_f32(o, w, "rope.freq_base", 1e6f);
    if (is_arch(o, "granite")) {
        key_f32(o, w, "embedding_scale", 12.0f);
        key_f32(o, w, "residual_scale", 0.22f);
        key_f32(o, w, "attention.scale", 0.3f);
        key_f32(o, w, "logit_scale", 4.0f);
    }
    if (o->experts) {
        key_u32(o, w, "expert_count", o->experts);
        key_u32(o, w, "expert_used_count", o->used);
        if (is_arch(o, "qwen3moe")) key_u32(o, w, "expert_feed_forward_length", o->ff);
    }
    if (o->scaling) {
        char key[64];
        snprintf(key, sizeof key, "%s.rope.scaling.type", arch_of(o));
        gguf_writer_text(w, key, o->scaling);
        key_f32(o, w, "rope.scaling.factor", 4.0f);
    }
    if (o->scaling || o->long_factors) key_u32(o, w, "rope.scaling.original_context_length", 512);
    if (o->long_factors) key_f32(o, w, "rope.scaling.attn_factor", 1.19f);
}

static void write_keys(const struct tiny_options *o, struct gguf_writer *w)
{
    gguf_writer_text(w, "general.architecture", arch_of(o));
    gguf_writer_text(w, "general.name", "tiny");
    key_u32(o, w, "block_count", o->layers);
    key_u32(o, w, "context_length", o->context);
    key_u32(o, w, "embedding_length", o->dim);
    key_u32(o, w, "feed_forward_length", o->ff);
    key_u32(o, w, "attention.head_count", o->heads);
    key_u32(o, w, "attention.head_count_kv", o->kv_heads);
    key_f32(o, w, "attention.layer_norm_rms_epsilon", 1e-5f);
    if (o->head_dim) {
        key_u32(o, w, "attention.key_length", o->head_dim);
        key_u32(o, w, "attention.value_length", o->head_dim);
    }
    if (o->rope_dims) key_u32(o, w, "rope.dimension_count", o->rope_dims);
    write_features(o, w);
}

/* A layer's matrices: name without ".weight", bias where the model has biases. */
static void write_matrices(const struct tiny_options *o, struct gguf_writer *w, struct rng *rng,
                           uint32_t layer)
{
    uint32_t head_dim = o->head_dim ? o->head_dim : o->dim / o->heads;
    uint32_t q = o->heads * head_dim, kv = o->kv_heads * head_dim;
    uint32_t type = o->mixed && layer % 2 == 1 ? GGUF_F16 : o->type;
    bool split = !o->fused, dense = o->experts == 0, many = o->experts > 0;
    const struct {
        const char *name;
        uint32_t cols, rows, depth;
        bool there;
    } matrices[] = {{"attn_q", o->dim, q, 0, split},
                    {"attn_k", o->dim, kv, 0, split},
                    {"attn_v", o->dim, kv, 0, split},
                    {"attn_qkv", o->dim, q + 2 * kv, 0, o->fused},
                    {"attn_output", q, o->dim, 0, true},
                    {"ffn_gate", o->dim, o->ff, 0, dense && split},
                    {"ffn_up", o->dim, o->fused ? 2 * o->ff : o->ff, 0, dense},
                    {"ffn_down", o->ff, o->dim, 0, dense},
                    {"ffn_gate_inp", o->dim, o->experts, 0, many},
                    {"ffn_gate_exps", o->dim, o->ff, o->experts, many},
                    {"ffn_up_exps", o->dim, o->ff, o->experts, many},
                    {"ffn_down_exps", o->ff, o->dim, o->experts, many}};
    char name[64];
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
        if (!matrices[i].there) continue;
        uint32_t cols = matrices[i].cols, rows = matrices[i].rows, depth = matrices[i].depth;
        snprintf(name, sizeof name, "blk.%u.%s.weight", layer, matrices[i].name);
        if (depth)
            stack(w, rng, name, type, cols, rows, depth);
        else
            matrix(w, rng, name, strstr(name, "inp") ? (uint32_t)GGUF_F32 : type, cols, rows);
        snprintf(name, sizeof name, "blk.%u.%s.bias", layer, matrices[i].name);
        bool attention = i < 4;
        if (o->biases && !many && (attention || is_arch(o, "llama")))
            tensor(w, rng, name, GGUF_F32, rows, 0, 0.0f, 0.3f);
    }
}

static void write_norm(struct gguf_writer *w, struct rng *rng, uint32_t layer, const char *what,
                       uint32_t n)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%u.%s.weight", layer, what);
    tensor(w, rng, name, GGUF_F32, n, 0, 1.0f, 0.1f);
}

static void write_layer(const struct tiny_options *o, struct gguf_writer *w, struct rng *rng,
                        uint32_t layer)
{
    uint32_t head_dim = o->head_dim ? o->head_dim : o->dim / o->heads;
    bool whole = is_arch(o, "olmo"); /* q and k are normalised as whole rows */
    write_matrices(o, w, rng, layer);
    if (!is_arch(o, "olmo2")) {
        write_norm(w, rng, layer, "attn_norm", o->dim);
        write_norm(w, rng, layer, "ffn_norm", o->dim);
    }
    if (is_arch(o, "olmo2") || is_arch(o, "gemma2") || is_arch(o, "gemma3")) {
        write_norm(w, rng, layer, "post_attention_norm", o->dim);
        write_norm(w, rng, layer, "post_ffw_norm", o->dim);
    }
    if (whole || is_arch(o, "qwen3") || is_arch(o, "gemma3")) {
        write_norm(w, rng, layer, "attn_q_norm", whole ? o->heads * head_dim : head_dim);
        write_norm(w, rng, layer, "attn_k_norm", whole ? o->kv_heads * head_dim : head_dim);
    }
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
    uint32_t pairs = (o->rope_dims ? o->rope_dims : head_dim) / 2;
    if (o->rope_factors) tensor(w, &rng, "rope_freqs.weight", GGUF_F32, pairs, 0, 4.0f, 0.2f);
    if (o->long_factors) {
        tensor(w, &rng, "rope_factors_long.weight", GGUF_F32, pairs, 0, 4.0f, 0.2f);
        tensor(w, &rng, "rope_factors_short.weight", GGUF_F32, pairs, 0, 1.5f, 0.1f);
    }
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
