/*
 * perplexity: how well a model predicts texts that it did not see, by the engine's own logits.
 *
 * A text is read in windows of `context` tokens. A window starts half a window after the one before
 * it, and counts the tokens that no earlier window has counted: every token counts once, after at
 * least half a window of text where the text has that much. The first token of a text counts only
 * where the tokenizer puts BOS before it.
 *
 *     negative log-likelihood  L = -sum over counted tokens t of ln p(t | its window so far)
 *     mean L / tokens, perplexity exp(L / tokens), bits per byte L / ln 2 / bytes of these tokens
 *
 * Several windows run side by side, one token of each per step, so that a step multiplies matrices
 * by many rows. Their number depends on memory; the result does not, as the result of a session
 * never depends on the other spans of a step (engine.h). Memory: PERPLEXITY_TEXT_MAX of a text, its
 * tokens, and KV pages of at most PERPLEXITY_KV_BYTES_MAX. No threads but the engine's.
 */
#ifndef PDD_LAB_PERPLEXITY_H
#define PDD_LAB_PERPLEXITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/native.h"

enum {
    PERPLEXITY_FILES_MAX = 512,
    PERPLEXITY_TEXT_MAX = 64 << 20,
    PERPLEXITY_KV_BYTES_MAX = 1 << 30,
    PERPLEXITY_CONTEXT = 1024
};

struct perplexity_plan {
    struct native_options engine;
    const char *files[PERPLEXITY_FILES_MAX];
    size_t n_files;
    uint32_t context; /* 0: PERPLEXITY_CONTEXT, or the model's where that is shorter */
    bool json;
};

struct perplexity_count {
    uint64_t tokens, bytes; /* that counted */
    double nll;             /* natural logarithm, summed */
};

struct perplexity_result {
    struct perplexity_count files[PERPLEXITY_FILES_MAX], total;
    char model_name[128], numerics[32], weights_hash[ENGINE_HASH_TEXT];
    uint32_t context; /* of a window */
};

/* ERR_BAD_INPUT for a text of fewer than two tokens, ERR_LIMIT for a window that the model or the
 * KV memory does not hold; the sentence names the file. */
int perplexity_run(const struct perplexity_plan *p, struct perplexity_result *ret_result,
                   struct err *e);

/* A table for people, or one JSON object, on standard output. ERR_NO_MEMORY only with JSON. */
int perplexity_report(const struct perplexity_plan *p, const struct perplexity_result *r,
                      struct err *e);

#endif
