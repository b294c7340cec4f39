/* random_shape: see random_shape.h. Sources: the config.json of each model at its publisher. */
#include "lab/random_shape.h"

#include <stdio.h>
#include <string.h>

#include "kern/kern.h"
#include "lab/random_vocab.h"
#include "model/gguf_write.h"

enum { NAMES_MAX = 480, KEY_MAX = 128 };

static const struct random_shape shapes[] = {
    {.name = "smollm2-135m",
     .arch = "llama",
     .vocab_kind = &random_vocab_smollm,
     .vocab = 49152,
     .layers = 30,
     .dim = 576,
     .ff = 1536,
     .heads = 9,
     .kv_heads = 3,
     .head_dim = 64,
     .context = 8192,
     .eps = 1e-5f,
     .rope_base = 1e5f},
    {.name = "smollm2-360m",
     .arch = "llama",
     .vocab_kind = &random_vocab_smollm,
     .vocab = 49152,
     .layers = 32,
     .dim = 960,
     .ff = 2560,
     .heads = 15,
     .kv_heads = 5,
     .head_dim = 64,
     .context = 8192,
     .eps = 1e-5f,
     .rope_base = 1e5f},
    {.name = "tinyllama-1.1b",
     .arch = "llama",
     .vocab_kind = &random_vocab_tinyllama,
     .vocab = 32000,
     .layers = 22,
     .dim = 2048,
     .ff = 5632,
     .heads = 32,
     .kv_heads = 4,
     .head_dim = 64,
     .context = 2048,
     .eps = 1e-5f,
     .rope_base = 1e4f,
     .untied = true},
    {.name = "llama-3.2-1b",
     .arch = "llama",
     .vocab_kind = &random_vocab_llama3,
     .vocab = 128256,
     .layers = 16,
     .dim = 2048,
     .ff = 8192,
     .heads = 32,
     .kv_heads = 8,
     .head_dim = 64,
     .context = 131072,
     .eps = 1e-5f,
     .rope_base = 5e5f,
     .scaling = SCALING_LLAMA3,
     .scaling_factor = 32.0f,
     .original_context = 8192},
    {.name = "llama-3.2-3b",
     .arch = "llama",
     .vocab_kind = &random_vocab_llama3,
     .vocab = 128256,
     .layers = 28,
     .dim = 3072,
     .ff = 8192,
     .heads = 24,
     .kv_heads = 8,
     .head_dim = 128,
     .context = 131072,
     .eps = 1e-5f,
     .rope_base = 5e5f,
     .scaling = SCALING_LLAMA3,
     .scaling_factor = 32.0f,
     .original_context = 8192},
    {.name = "llama-3.1-8b",
     .arch = "llama",
     .vocab_kind = &random_vocab_llama3,
     .vocab = 128256,
     .layers = 32,
     .dim = 4096,
     .ff = 14336,
     .heads = 32,
     .kv_heads = 8,
     .head_dim = 128,
     .context = 131072,
     .eps = 1e-5f,
     .rope_base = 5e5f,
     .untied = true,
     .scaling = SCALING_LLAMA3,
     .scaling_factor = 8.0f,
     .original_context = 8192},
    {.name = "mistral-7b",
     .arch = "llama",
     .vocab_kind = &random_vocab_mistral,
     .vocab = 32768,
     .layers = 32,
     .dim = 4096,
     .ff = 14336,
     .heads = 32,
     .kv_heads = 8,
     .head_dim = 128,
     .context = 32768,
     .eps = 1e-5f,
     .rope_base = 1e6f,
     .untied = true},
    {.name = "qwen2.5-0.5b",
     .arch = "qwen2",
     .vocab_kind = &random_vocab_qwen,
     .vocab = 151936,
     .layers = 24,
     .dim = 896,
     .ff = 4864,
     .heads = 14,
     .kv_heads = 2,
     .head_dim = 64,
     .context = 32768,
     .eps = 1e-6f,
     .rope_base = 1e6f,
     .qkv_bias = true},
    {.name = "qwen2.5-1.5b",
     .arch = "qwen2",
     .vocab_kind = &random_vocab_qwen,
     .vocab = 151936,
     .layers = 28,
     .dim = 1536,
     .ff = 8960,
     .heads = 12,
     .kv_heads = 2,
     .head_dim = 128,
     .context = 32768,
     .eps = 1e-6f,
     .rope_base = 1e6f,
     .qkv_bias = true},
    {.name = "qwen3-0.6b",
     .arch = "qwen3",
     .vocab_kind = &random_vocab_qwen3,
     .vocab = 151936,
     .layers = 28,
     .dim = 1024,
     .ff = 3072,
     .heads = 16,
     .kv_heads = 8,
     .head_dim = 128,
     .context = 40960,
     .eps = 1e-6f,
     .rope_base = 1e6f,
     .head_norms = true},
    {.name = "qwen3-1.7b",
     .arch = "qwen3",
     .vocab_kind = &random_vocab_qwen3,
     .vocab = 151936,
     .layers = 28,
     .dim = 2048,
     .ff = 6144,
     .heads = 16,
     .kv_heads = 8,
     .head_dim = 128,
     .context = 40960,
     .eps = 1e-6f,
     .rope_base = 1e6f,
     .head_norms = true},
    {.name = "qwen3-30b-a3b",
     .arch = "qwen3moe",
     .vocab_kind = &random_vocab_qwen3,
     .vocab = 151936,
     .layers = 48,
     .dim = 2048,
     .ff = 6144,
     .heads = 32,
     .kv_heads = 4,
     .head_dim = 128,
     .context = 40960,
     .eps = 1e-6f,
     .rope_base = 1e6f,
     .untied = true,
     .head_norms = true,
     .experts = 128,
     .experts_used = 8,
     .expert_ff = 768},
    {.name = "gemma2-2b",
     .arch = "gemma2",
     .vocab_kind = &random_vocab_gemma2,
     .vocab = 256000,
     .layers = 26,
     .dim = 2304,
     .ff = 9216,
     .heads = 8,
     .kv_heads = 4,
     .head_dim = 256,
     .context = 8192,
     .eps = 1e-6f,
     .rope_base = 1e4f,
     .post_norms = true,
     .window = 4096,
     .attention_soft_cap = 50.0f,
     .logit_soft_cap = 30.0f},
    {.name = "gemma3-270m",
     .arch = "gemma3",
     .vocab_kind = &random_vocab_gemma3,
     .vocab = 262144,
     .layers = 18,
     .dim = 640,
     .ff = 2048,
     .heads = 4,
     .kv_heads = 1,
     .head_dim = 256,
     .context = 32768,
     .eps = 1e-6f,
     .rope_base = 1e6f,
     .head_norms = true,
     .post_norms = true,
     .window = 512,
     .window_rope_base = 1e4f},
    {.name = "gemma3-1b",
     .arch = "gemma3",
     .vocab_kind = &random_vocab_gemma3,
     .vocab = 262144,
     .layers = 26,
     .dim = 1152,
     .ff = 6912,
     .heads = 4,
     .kv_heads = 1,
     .head_dim = 256,
     .context = 32768,
     .eps = 1e-6f,
     .rope_base = 1e6f,
     .head_norms = true,
     .post_norms = true,
     .window = 512,
     .window_rope_base = 1e4f},
    {.name = "phi3-mini",
     .arch = "phi3",
     .vocab_kind = &random_vocab_phi3,
     .vocab = 32064,
     .layers = 32,
     .dim = 3072,
     .ff = 8192,
     .heads = 32,
     .kv_heads = 32,
     .head_dim = 96,
     .context = 4096,
     .eps = 1e-5f,
     .rope_base = 1e4f,
     .untied = true,
     .fused = true,
     .window = 2047,
     .original_context = 4096},
    {.name = "phi3.5-mini",
     .arch = "phi3",
     .vocab_kind = &random_vocab_phi3,
     .vocab = 32064,
     .layers = 32,
     .dim = 3072,
     .ff = 8192,
     .heads = 32,
     .kv_heads = 32,
     .head_dim = 96,
     .context = 131072,
     .eps = 1e-5f,
     .rope_base = 1e4f,
     .untied = true,
     .fused = true,
     .window = 262144,
     .scaling = SCALING_LONG,
     .scaling_factor = 64.0f,
     .original_context = 4096},
    {.name = "olmo2-1b",
     .arch = "olmo2",
     .vocab_kind = &random_vocab_olmo2,
     .vocab = 100352,
     .layers = 16,
     .dim = 2048,
     .ff = 8192,
     .heads = 16,
     .kv_heads = 16,
     .head_dim = 128,
     .context = 4096,
     .eps = 1e-6f,
     .rope_base = 5e5f,
     .untied = true,
     .whole_norms = true,
     .no_pre_norms = true,
     .post_norms = true},
    {.name = "granite-3.3-2b",
     .arch = "granite",
     .vocab_kind = &random_vocab_granite,
     .vocab = 49159,
     .layers = 40,
     .dim = 2048,
     .ff = 8192,
     .heads = 32,
     .kv_heads = 8,
     .head_dim = 64,
     .context = 131072,
     .eps = 1e-5f,
     .rope_base = 1e7f,
     .embedding_scale = 12.0f,
     .residual_scale = 0.22f,
     .attention_scale = 0.015625f,
     .logit_scale = 8.0f},

    /* Small ones of each architecture, for tests: no model has these shapes. */
    {.name = "llama-tiny",
     .arch = "llama",
     .vocab_kind = &random_vocab_tinyllama,
     .vocab = 512,
     .layers = 2,
     .dim = 256,
     .ff = 512,
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 64,
     .context = 2048,
     .eps = 1e-5f,
     .rope_base = 1e4f,
     .untied = true},
    {.name = "llama3-tiny",
     .arch = "llama",
     .vocab_kind = &random_vocab_llama3,
     .vocab = 512,
     .layers = 2,
     .dim = 256,
     .ff = 512,
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 64,
     .context = 16384,
     .eps = 1e-5f,
     .rope_base = 5e5f,
     .scaling = SCALING_LLAMA3,
     .scaling_factor = 32.0f,
     .original_context = 8192},
    {.name = "qwen2-tiny",
     .arch = "qwen2",
     .vocab_kind = &random_vocab_qwen,
     .vocab = 512,
     .layers = 2,
     .dim = 256,
     .ff = 512,
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 64,
     .context = 2048,
     .eps = 1e-6f,
     .rope_base = 1e6f,
     .qkv_bias = true},
    {.name = "qwen3-tiny",
     .arch = "qwen3",
     .vocab_kind = &random_vocab_qwen3,
     .vocab = 512,
     .layers = 2,
     .dim = 256,
     .ff = 512,
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 128,
     .context = 2048,
     .eps = 1e-6f,
     .rope_base = 1e6f,
     .head_norms = true},
    {.name = "qwen3moe-tiny",
     .arch = "qwen3moe",
     .vocab_kind = &random_vocab_qwen3,
     .vocab = 512,
     .layers = 2,
     .dim = 256,
     .ff = 512,
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 128,
     .context = 2048,
     .eps = 1e-6f,
     .rope_base = 1e6f,
     .untied = true,
     .head_norms = true,
     .experts = 8,
     .experts_used = 2,
     .expert_ff = 256},
    {.name = "gemma2-tiny",
     .arch = "gemma2",
     .vocab_kind = &random_vocab_gemma2,
     .vocab = 512,
     .layers = 4,
     .dim = 256,
     .ff = 512,
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 64,
     .context = 2048,
     .eps = 1e-6f,
     .rope_base = 1e4f,
     .post_norms = true,
     .window = 64,
     .attention_soft_cap = 50.0f,
     .logit_soft_cap = 30.0f},
    {.name = "gemma3-tiny",
     .arch = "gemma3",
     .vocab_kind = &random_vocab_gemma3,
     .vocab = 512,
     .layers = 7,
     .dim = 256,
     .ff = 512,
     .heads = 4,
     .kv_heads = 1,
     .head_dim = 64,
     .context = 2048,
     .eps = 1e-6f,
     .rope_base = 1e6f,
     .head_norms = true,
     .post_norms = true,
     .window = 64,
     .window_rope_base = 1e4f},
    {.name = "phi3-tiny",
     .arch = "phi3",
     .vocab_kind = &random_vocab_phi3,
     .vocab = 512,
     .layers = 2,
     .dim = 256,
     .ff = 512,
     .heads = 4,
     .kv_heads = 4,
     .head_dim = 64,
     .context = 8192,
     .eps = 1e-5f,
     .rope_base = 1e4f,
     .untied = true,
     .fused = true,
     .window = 16384,
     .scaling = SCALING_LONG,
     .scaling_factor = 64.0f,
     .original_context = 2048},
    {.name = "olmo2-tiny",
     .arch = "olmo2",
     .vocab_kind = &random_vocab_olmo2,
     .vocab = 512,
     .layers = 2,
     .dim = 256,
     .ff = 512,
     .heads = 4,
     .kv_heads = 4,
     .head_dim = 64,
     .context = 2048,
     .eps = 1e-6f,
     .rope_base = 5e5f,
     .untied = true,
     .whole_norms = true,
     .no_pre_norms = true,
     .post_norms = true},
    {.name = "granite-tiny",
     .arch = "granite",
     .vocab_kind = &random_vocab_granite,
     .vocab = 512,
     .layers = 2,
     .dim = 256,
     .ff = 512,
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 64,
     .context = 2048,
     .eps = 1e-5f,
     .rope_base = 1e7f,
     .embedding_scale = 12.0f,
     .residual_scale = 0.22f,
     .attention_scale = 0.015625f,
     .logit_scale = 8.0f},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

const struct random_shape *random_shape_at(uint32_t i)
{
    return i < SHAPES ? &shapes[i] : NULL;
}

int random_shape_find(const char *name, const struct random_shape **ret_shape, struct err *e)
{
    char names[NAMES_MAX];
    size_t at = 0;
    for (int i = 0; i < SHAPES; i++) {
        if (strcmp(shapes[i].name, name) == 0) {
            *ret_shape = &shapes[i];
            return 0;
        }
        int n = snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "", shapes[i].name);
        at += n > 0 && (size_t)n < sizeof names - at ? (size_t)n : 0;
    }
    names[at] = 0;
    return err_set(e, ERR_NOT_FOUND, "no shape \"%.20s\"; known: %s", name, names);
}

/* Writers of keys under the architecture's name. */
struct key_writer {
    struct gguf_write *w;
    const char *arch;
};

static void put_u32(const struct key_writer *k, const char *name, uint32_t value)
{
    char key[KEY_MAX];
    snprintf(key, sizeof key, "%s.%s", k->arch, name);
    gguf_write_u32(k->w, key, value);
}

static void put_f32(const struct key_writer *k, const char *name, float value)
{
    char key[KEY_MAX];
    snprintf(key, sizeof key, "%s.%s", k->arch, name);
    gguf_write_f32(k->w, key, value);
}

static void put_if(const struct key_writer *k, const char *name, float value)
{
    if (value != 0.0f) put_f32(k, name, value);
}

/* What a prompt past the trained length does to the angles (LongRoPE, arXiv 2402.13753). */
static void put_long_rope(const struct key_writer *k, const struct random_shape *s)
{
    double scale = (double)s->context / s->original_context;
    double x = 1.0 + kern_log(scale) / kern_log(s->original_context);
    put_f32(k, "rope.scaling.attn_factor", (float)kern_exp(0.5 * kern_log(x)));
}

void random_shape_keys(const struct random_shape *s, struct gguf_write *w)
{
    const struct key_writer k = {w, s->arch};
    put_u32(&k, "block_count", s->layers);
    put_u32(&k, "context_length", s->context);
    put_u32(&k, "embedding_length", s->dim);
    put_u32(&k, "feed_forward_length", s->ff);
    put_u32(&k, "attention.head_count", s->heads);
    put_u32(&k, "attention.head_count_kv", s->kv_heads);
    put_f32(&k, "attention.layer_norm_rms_epsilon", s->eps);
    put_u32(&k, "vocab_size", s->vocab);
    put_f32(&k, "rope.freq_base", s->rope_base);
    put_u32(&k, "rope.dimension_count", s->head_dim);
    if (s->head_dim * s->heads != s->dim || s->head_norms) {
        put_u32(&k, "attention.key_length", s->head_dim);
        put_u32(&k, "attention.value_length", s->head_dim);
    }
    if (s->window) put_u32(&k, "attention.sliding_window", s->window);
    put_if(&k, "rope.freq_base_swa", s->window_rope_base);
    put_if(&k, "attn_logit_softcapping", s->attention_soft_cap);
    put_if(&k, "final_logit_softcapping", s->logit_soft_cap);
    put_if(&k, "embedding_scale", s->embedding_scale);
    put_if(&k, "residual_scale", s->residual_scale);
    put_if(&k, "attention.scale", s->attention_scale);
    put_if(&k, "logit_scale", s->logit_scale);
    if (s->fused) put_u32(&k, "rope.scaling.original_context_length", s->original_context);
    if (s->scaling == SCALING_LONG) put_long_rope(&k, s);
    if (s->experts) {
        put_u32(&k, "expert_count", s->experts);
        put_u32(&k, "expert_used_count", s->experts_used);
        put_u32(&k, "expert_feed_forward_length", s->expert_ff);
    }
}

/* Llama 3.1: slow pairs are stretched by the factor, fast ones not, those between gradually. */
static float llama3_factor(const struct random_shape *s, double inverse)
{
    const double low = 1.0, high = 4.0, turns = s->original_context * inverse / 6.283185307179586;
    if (turns > high) return 1.0f;
    if (turns < low) return s->scaling_factor;
    double smooth = (turns - low) / (high - low);
    return (float)(1.0 / ((1.0 - smooth) / (double)s->scaling_factor + smooth));
}

void random_shape_rope_factors(const struct random_shape *s, float *out)
{
    uint32_t n = s->head_dim / 2;
    for (uint32_t i = 0; i < n; i++) {
        double part = (double)i / n;
        if (s->scaling == SCALING_LLAMA3)
            out[i] = llama3_factor(s, kern_exp(-part * kern_log((double)s->rope_base)));
        else
            out[i] = (float)(1.0 + ((double)s->scaling_factor - 1.0) * part * part);
    }
}
