/*
 * logit_bias: the JSON of a sampling's biases. Pure.
 *
 * Read are OpenAI's form, an object of token id and bias, and llama-server's, an array of pairs, in
 * which false forbids a token. Written is the latter.
 */
#ifndef PDD_PROTO_LOGIT_BIAS_H
#define PDD_PROTO_LOGIT_BIAS_H

#include "base/buf.h"
#include "base/err.h"
#include "base/sampling.h"

struct json_t;

/* `name` is the field's, for sentences. */
int logit_bias_take(const struct json_t *value, const char *name, struct sampling *s,
                    struct err *e);
int logit_bias_put(struct buf *out, const struct sampling *s);

#endif
