/*
 * tiny_model: a model of random weights, llama or another architecture, and a SentencePiece
 * vocabulary of bytes, made by the test itself, so that the proofs need no data from outside.
 */
#ifndef PDD_TESTS_TINY_MODEL_H
#define PDD_TESTS_TINY_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "support/gguf_writer.h"

enum { TINY_PATH_MAX = 128 };

struct tiny_options {
    uint32_t type; /* GGUF_F32, F16, BF16, Q8_0, Q4_0, MXFP4; for all matrices */
    uint32_t vocab, dim, layers, ff, heads, kv_heads, head_dim; /* head_dim 0: dim / heads */
    uint32_t context;
    bool tied;         /* no output.weight */
    bool rope_factors; /* with rope_freqs.weight */
    bool mixed;        /* every second layer's matrices are F16 instead of `type` */
    uint64_t seed;
    const char *arch;       /* NULL: llama */
    bool biases;            /* of all projections */
    bool fused;             /* attn_qkv, and ffn_up that holds the gate (phi3) */
    uint32_t window;        /* 0: none */
    uint32_t experts, used; /* 0: none */
    uint32_t rope_dims;     /* 0: the whole head */
    const char *scaling;    /* rope.scaling.type, with factor 4 from 32 positions on */
    bool long_factors;      /* with rope_factors_long and _short */
};

/* One of the architectures with all that it can have, small; NULL past the end. */
const struct tiny_options *tiny_arch(uint32_t i);

/* 3 layers, dim 64, 4 heads, 2 KV heads, vocabulary 300, context 2048, Q8_0. */
#define TINY_DEFAULT                                                                               \
    {                                                                                              \
        .type = GGUF_Q8_0, .vocab = 300, .dim = 64, .layers = 3, .ff = 96, .heads = 4,             \
        .kv_heads = 2, .context = 2048, .seed = 1                                                  \
    }

/* The keys and tensors, to be finished by the caller (or added to). */
void tiny_model_write(const struct tiny_options *o, struct gguf_writer *w);
/* The whole file. */
void tiny_model_bytes(const struct tiny_options *o, struct buf *out);
/* As a file in the temporary folder; remove it with unlink. */
void tiny_model_file(const struct tiny_options *o, char path[TINY_PATH_MAX]);

/* Rows of floats in a file's format; returns the bytes written. */
size_t tiny_encode(uint32_t type, const float *x, size_t n, uint8_t *out);

#endif
