/*
 * reference: the llama forward pass once more, slow, in double precision with libm, straight from
 * the formulas. It shares with the engine only the GGUF reader.
 *
 * It can round where llama.cpp rounds or where exact-1 does. So the engine's difference from
 * llama.cpp splits into two small ones: reference as llama.cpp against its recorded results, and
 * engine against reference as exact-1.
 */
#ifndef PDD_TESTS_REFERENCE_H
#define PDD_TESTS_REFERENCE_H

#include <stdint.h>

enum reference_numerics {
    /* KV cache in float32; activations rounded to float16 before F16 weights, to 8 bits with
     * float16 scales before Q8_0 and Q4_0, to 8 bits in blocks of 256 before Q6_K. */
    REFERENCE_LLAMA_CPP,
    /* KV cache in float16; activations to 8 bits with float32 scales before Q8_0 and Q4_0. */
    REFERENCE_EXACT_1
};

struct reference_model;

struct reference_model *reference_open(const char *path);
void reference_close(struct reference_model *m);
uint32_t reference_vocab(const struct reference_model *m);
/* Natural-log probabilities after each of tokens[n], [n, vocab]. */
void reference_logprobs(const struct reference_model *m, enum reference_numerics numerics,
                        const int32_t *tokens, uint32_t n, double *logprobs);

#endif
