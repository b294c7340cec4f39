/*
 * random_vocab: made-up vocabularies with the layout of real ones: their size, their control tokens
 * at their ids, byte tokens, the pre-tokeniser's name, flags, and a chat template of the family.
 * All other tokens are made-up words of two to four small letters, each a join of shorter ones.
 * Pure.
 */
#ifndef PDD_LAB_RANDOM_VOCAB_H
#define PDD_LAB_RANDOM_VOCAB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct gguf_write;

struct random_special {
    uint32_t id;
    const char *text;
    bool user_defined; /* not a control token: written in the shown text */
};

enum { RANDOM_SPECIALS_MAX = 16 };

struct random_vocab {
    const char *pre;           /* of byte-level BPE; NULL: SentencePiece */
    uint32_t bytes_first;      /* id of the first byte token */
    uint32_t words_end;        /* ids from here on are unused, but for control tokens */
    const char *bos, *eos;     /* control tokens */
    const char *unknown, *pad; /* or NULL */
    bool add_bos, add_space_prefix;
    const char *chat_template;
    struct random_special specials[RANDOM_SPECIALS_MAX]; /* ids ascending; ends with a NULL text */
};

extern const struct random_vocab random_vocab_smollm, random_vocab_tinyllama, random_vocab_llama3,
    random_vocab_mistral, random_vocab_qwen, random_vocab_qwen3, random_vocab_gemma2,
    random_vocab_gemma3, random_vocab_phi3, random_vocab_olmo2, random_vocab_granite;

/* All tokenizer keys of a vocabulary of `size` tokens. Sizes below 2048 get the control tokens
 * first, then bytes, then words, because the real ids do not fit. */
int random_vocab_keys(const struct random_vocab *v, uint32_t size, struct gguf_write *w,
                      struct err *e);

#endif
