/*
 * weights: the tensors of a model, found by name, checked against the hyper-parameters and packed
 * for the kernels.
 *
 * Packed matrices and norms live in one arena; the token embedding stays in the file's mapping and
 * is dequantised row by row, so the GGUF object must stay open as long as the weights. Tensors may
 * mix all types of kern_types.h. A tensor that the forward pass does not use is an error, because a
 * model that needs it would compute wrong values. Read-only after opening, by any thread.
 */
#ifndef PDD_MODEL_WEIGHTS_H
#define PDD_MODEL_WEIGHTS_H

#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "kern/kern.h"
#include "model/gguf.h"
#include "model/hparams.h"

struct gguf;
struct gguf_tensor;
struct pool;

struct expert {
    struct kern_mat gate, up, down; /* as those of a layer */
};

/* Vectors that a model does not have are NULL. */
struct layer {
    const float *attn_norm, *ffn_norm;           /* [dim]; NULL: the block reads x itself */
    const float *attn_post_norm, *ffn_post_norm; /* [dim] */
    const float *q_norm, *k_norm;                /* [head_dim] or the whole row */
    struct kern_mat q, k, v, o;                  /* o: [dim] outputs from [heads * head_dim] */
    struct kern_mat gate, up, down;              /* unless there are experts */
    const float *q_bias, *k_bias, *v_bias, *o_bias, *gate_bias, *up_bias, *down_bias;
    struct kern_mat router; /* [experts, dim] */
    struct expert *experts; /* [experts] */
};

/* The angles of a kind of layers. */
struct rope_angles {
    const double *inverse; /* [rope_dims / 2] angle of a pair for one position */
    float magnitude;       /* of sines and cosines */
};

struct weights {
    const struct gguf_tensor *embedding; /* [vocab, dim] in the file */
    const float *output_norm;            /* [dim] */
    struct kern_mat output;              /* [vocab, dim]; the embedding's where the file has none */
    const float *output_bias;            /* [vocab] or NULL */
    struct layer *layers;                /* [layers] */
    struct rope_angles rope[2];          /* of layers that see everything, of windowed ones */
    struct arena memory;
};

/* Tensors of a vision or audio part ("v.", "mm.", "a.", "resampler."), which some files hold beside
 * the text model. They are passed over: texts need none of them. How many there are: */
uint32_t weights_beside(const struct gguf *g);
bool weights_is_beside(struct gguf_str name);

int weights_open(struct weights *w, const struct gguf *g, const struct hparams *h,
                 struct pool *pool, struct err *e);
/* Check names, shapes and types of the tensors without reading their values; and the bytes that the
 * packed matrices will take. */
int weights_check(const struct gguf *g, const struct hparams *h, uint64_t *ret_bytes,
                  struct err *e);
void weights_close(struct weights *w); /* also for a zeroed struct */
/* The embedding of token `id` (< vocab) as floats, [dim]. */
void weights_embed(const struct weights *w, const struct hparams *h, int32_t id, float *out);

#endif
