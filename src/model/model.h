/*
 * model: a GGUF file ready to run: hyper-parameters, weights and the digests that tell whether two
 * machines hold the same model.
 *
 * Owns the GGUF object (the token embedding is read from its mapping). Read-only after opening, by
 * any thread.
 */
#ifndef PDD_MODEL_MODEL_H
#define PDD_MODEL_MODEL_H

#include "base/err.h"
#include "model/hparams.h"
#include "model/weights.h"

enum { MODEL_HASH_TEXT = 65, MODEL_NAME_MAX = 128 };

struct model {
    struct gguf *gguf;
    struct hparams hparams;
    struct weights weights;
    char name[MODEL_NAME_MAX]; /* general.name, or the file's name; no control characters */
    char weights_hash[MODEL_HASH_TEXT];   /* SHA-256 of tensors and hyper-parameters */
    char tokenizer_hash[MODEL_HASH_TEXT]; /* of vocabulary, merges and flags */
};

/* To run with `context` positions; 0: the file's context_length. Takes ownership of the GGUF
 * object, also on failure. The pool is used while opening only. */
int model_open(struct model *m, struct gguf *g, uint32_t context, struct pool *pool, struct err *e);
void model_close(struct model *m); /* also for a zeroed struct */

/* The tokenizer's digest alone, also of a file without tensors. */
int model_hash_tokenizer(const struct gguf *g, char hash[MODEL_HASH_TEXT], struct err *e);
/* SHA-256 of bytes as hexadecimal text; ERR_INTERNAL when OpenSSL has none. */
int model_hash_bytes(const void *data, size_t n, char hash[MODEL_HASH_TEXT], struct err *e);

#endif
