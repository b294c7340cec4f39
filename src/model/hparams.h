/*
 * hparams: the hyper-parameters of a model, read from a GGUF file and checked.
 *
 * An *architecture* is a row of a table of features; the forward pass is one pass that asks the
 * features, never the architecture's name. Every value is checked against the limits below and
 * against the others before anything is sized by it; the error names the key.
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
    MODEL_CONTEXT_MAX = 1 << 20 /* kern_sincos is exact enough for positions below this */
};

/* Which values of a head RoPE turns together. */
enum rope_kind { ROPE_PAIRS /* (2i, 2i + 1) */ };

struct arch {
    const char *name; /* general.architecture, and the prefix of its keys */
    enum rope_kind rope;
};

struct hparams {
    const struct arch *arch;
    uint32_t vocab, dim, layers, ff;
    uint32_t heads, kv_heads, head_dim; /* kv_heads divides heads */
    uint32_t rope_dims;                 /* even, <= head_dim */
    uint32_t context;                   /* positions the model was trained for, as the file says */
    float norm_eps;
    double rope_base, rope_scale; /* frequency of pair i: base^(-2i / rope_dims) / scale */
};

int hparams_read(const struct gguf *g, struct hparams *ret_hparams, struct err *e);

static inline uint32_t hparams_q_dim(const struct hparams *h)
{
    return h->heads * h->head_dim;
}

static inline uint32_t hparams_kv_dim(const struct hparams *h)
{
    return h->kv_heads * h->head_dim;
}

#endif
