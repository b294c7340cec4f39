/*
 * random_shape: the hyper-parameters of real models, as their publishers' configurations have them,
 * for files of random weights. A row determines all keys and tensors; random_vocab.h has the
 * vocabularies. Pure.
 */
#ifndef PDD_LAB_RANDOM_SHAPE_H
#define PDD_LAB_RANDOM_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct gguf_write;
struct random_vocab;

enum random_scaling { SCALING_NONE, SCALING_LLAMA3, SCALING_LONG };

struct random_shape {
    const char *name, *arch;
    const struct random_vocab *vocab_kind;
    uint32_t vocab;
    uint32_t layers, dim, ff, heads, kv_heads, head_dim, context;
    float eps, rope_base;
    bool untied;            /* output.weight is a tensor of its own */
    bool qkv_bias;          /* qwen2 */
    bool head_norms;        /* norms of each head's q and k: qwen3, gemma3 */
    bool whole_norms;       /* norms of all of q and of k: olmo2 */
    bool no_pre_norms;      /* olmo2 */
    bool post_norms;        /* gemma, olmo2 */
    bool fused;             /* phi3: q, k, v in one tensor, gate and up in another */
    uint32_t window;        /* sliding; 0: none */
    float window_rope_base; /* of layers with a window; 0: the same */
    float attention_soft_cap, logit_soft_cap;
    float embedding_scale, residual_scale, attention_scale, logit_scale; /* 0: none */
    enum random_scaling scaling;
    float scaling_factor;
    uint32_t original_context;
    uint32_t experts, experts_used, expert_ff;
};

/* ERR_NOT_FOUND lists the names. */
int random_shape_find(const char *name, const struct random_shape **ret_shape, struct err *e);
/* In the table's order; NULL past the end. */
const struct random_shape *random_shape_at(uint32_t i);
/* All keys but the tokenizer's. */
void random_shape_keys(const struct random_shape *s, struct gguf_write *w);
/* Factors by which scaled rope divides frequencies, [head_dim / 2]: those of SCALING_LLAMA3, or the
 * long ones of SCALING_LONG (made up: growing from 1 to the factor; the short ones are 1). */
void random_shape_rope_factors(const struct random_shape *s, float *out);

#endif
