/*
 * text: tokens of our vocabulary for a piece of text that continues another, for a cloud whose
 * tokenizer is not ours. What comes out is the same text again, byte for byte; the split into
 * tokens need not be the one the model would have chosen.
 */
#ifndef PDD_DEVICE_TEXT_H
#define PDD_DEVICE_TEXT_H

#include "model/vocab.h"

/* Append to `out`. ERR_UNSUPPORTED when the vocabulary cannot say this text. */
int text_continue(const struct vocab *v, const char *text, size_t n, struct token_list *out,
                  struct err *e);

#endif
