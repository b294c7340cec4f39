/*
 * hparams: the hyper-parameters of a model, read from a GGUF file and checked.
 *
 * An *architecture* is a row of a table of features; the forward pass asks for features, never for
 * the architecture's name. Every value is checked against the limits below and against the others
 * before a size depends on it; the error names the key. Pure.
 */
#ifndef PDD_MODEL_HPARAMS_H
#define PDD_MODEL_HPARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct gguf;

enum {
    MODEL_LAYERS_MAX = 1024,
    MODEL_DIM_MAX = 1 << 16,
    MODEL_FF_MAX = 1 << 19,
    MODEL_HEADS_MAX = 1024,
    MODEL_VOCAB_MAX = 1 << 21,
    MODEL_EXPERTS_MAX = 512,
    MODEL_EXPERTS_USED_MAX = 32,
    MODEL_CONTEXT_MAX = 1 << 20 /* kern_sincos is exact enough for positions below this */
};

/* Which values of a head RoPE rotates together. */
enum rope_kind { ROPE_PAIRS /* (2i, 2i + 1) */, ROPE_HALVES /* (i, rope_dims / 2 + i) */ };

/* What is normalised together in queries and keys, before the rotation. */
enum qk_norm { QK_NORM_NONE, QK_NORM_HEAD /* each head by itself */, QK_NORM_ROW };

/* Which layers see a sliding window of positions only, where the file does not list them. */
enum { WINDOW_NONE = 0, WINDOW_ALL = 1 /* n > 1: all but every n-th */ };

/* What the architectures differ in. Biases, an untied head, fused tensors, window sizes, scales and
 * experts are not here: the file itself says. */
struct arch {
    const char *name; /* general.architecture, and the prefix of its keys */
    enum rope_kind rope;
    enum qk_norm qk_norm;
    bool no_pre_norm;       /* blocks read the residual stream itself */
    bool post_norm;         /* what a block adds is normalised first */
    bool gelu;              /* the gate's activation, in the tanh form; else SiLU */
    bool embed_by_root_dim; /* embeddings times sqrt(dim) */
    bool caps;              /* attention scores and logits have soft caps */
    bool scales;            /* embedding, residual, attention and logit scales */
    bool fused_gate;        /* ffn_up holds gate, then up, where there is no ffn_gate */
    bool experts;           /* has mixtures of experts */
    bool plain_experts;     /* experts' weights are not made to sum to 1 */
    bool rope_switch;       /* the key rope.scaling.finetuned = false means no rotation */
    bool window_plain_rope; /* windowed layers turn without scaling */
    float window_rope_base; /* of windowed layers without a key; 0: the base of the others */
    uint32_t no_rope_every; /* every n-th layer does not rotate; 0: all do */
    uint32_t window;        /* WINDOW_..., or a period */
    uint32_t window_size;   /* without a key; 0: none */
    uint32_t scale_by_dim;  /* models with this many layers scale queries by dim / heads */
};

/* How positions become angles. */
enum rope_scaling { ROPE_PLAIN, ROPE_LINEAR, ROPE_YARN, ROPE_LONG };

struct rope {
    enum rope_scaling scaling;
    double base, factor; /* frequency of pair i: base^(-2i / rope_dims), divided by factor */
    bool has_long;       /* two sets of factors for pairs, one of them for long contexts */
    bool use_long;
    uint32_t original;           /* positions before scaling */
    double beta_fast, beta_slow; /* YaRN: turns within `original` between which it blends */
    float magnitude;             /* sines and cosines are multiplied by it */
};

struct hparams {
    const struct arch *arch;
    uint32_t vocab, dim, layers, ff;    /* ff: of one expert where there are experts */
    uint32_t heads, kv_heads, head_dim; /* kv_heads divides heads */
    uint32_t rope_dims;                 /* even, <= head_dim */
    uint32_t context;                   /* positions the model was trained for, as the file says */
    uint32_t experts, experts_used;     /* 0: none */
    uint32_t window;                    /* positions that windowed layers see; 0: no such layers */
    float norm_eps;
    float embed_scale, residual_scale, attention_scale, logit_scale; /* factors */
    float attention_cap, logit_cap;                                  /* 0: none */
    float expert_scale;
    struct rope rope, window_rope; /* of layers that see everything, and of the others */
    uint8_t windowed[MODEL_LAYERS_MAX];
};

/* For the context of the file. */
int hparams_read(const struct gguf *g, struct hparams *ret_hparams, struct err *e);
/* For another context. A model with RoPE factors for short and long contexts computes other values,
 * from the first position on, when the context exceeds its original length. So two machines agree
 * only when both contexts are on the same side of it; the digest of the weights differs otherwise.
 */
void hparams_set_context(struct hparams *h, uint32_t context);

static inline uint32_t hparams_q_dim(const struct hparams *h)
{
    return h->heads * h->head_dim;
}

static inline uint32_t hparams_kv_dim(const struct hparams *h)
{
    return h->kv_heads * h->head_dim;
}

#endif
