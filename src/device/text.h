/*
 * text: tokens of our vocabulary for a piece of text that continues another, for a cloud whose
 * tokenizer is not ours. The tokens have exactly this text; the split need not be the one
 * that the model would have chosen. Pure.
 */
#ifndef PDD_DEVICE_TEXT_H
#define PDD_DEVICE_TEXT_H

#include "model/text/vocab.h"

/* Append to `out`. ERR_UNSUPPORTED: the vocabulary cannot express this text. */
int text_continue(const struct vocab *v, const char *text, size_t n, struct token_list *out,
                  struct err *e);

#endif
