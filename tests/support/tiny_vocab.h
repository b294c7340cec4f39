/*
 * tiny_vocab: small vocabularies made by code, so that tokenizer tests and fuzzers need no files.
 */
#ifndef PDD_TESTS_TINY_VOCAB_H
#define PDD_TESTS_TINY_VOCAB_H

#include "base/buf.h"

/* GGUF files with nothing but a tokenizer and a ChatML template. `out` is initialised by the call.
 */
void tiny_vocab_bpe(const char *pre, struct buf *out); /* bytes, th he the, in er, control tokens */
void tiny_vocab_spm(struct buf *out); /* byte fallback, a few pieces, <s> </s> <unk> */

#endif
