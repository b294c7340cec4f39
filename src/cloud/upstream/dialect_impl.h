/*
 * dialect_impl: what the files of dialect share: dialect_encode.c, dialect_decode.c (requests and
 * streams that become tokens here), dialect_pass.c and dialect_chunk.c (those that are passed on),
 * dialect_refusal.c (errors). Only these files include it.
 */
#ifndef PDD_CLOUD_UPSTREAM_DIALECT_IMPL_H
#define PDD_CLOUD_UPSTREAM_DIALECT_IMPL_H

#include "cloud/upstream/dialect.h"
#include "proto/openai_pass.h"

struct json_t;

/* Of a choice in a passed answer. */
enum { DIALECT_CHOICE_BEGUN = 1, DIALECT_CHOICE_NAMED = 2, DIALECT_CHOICE_FINISHED = 4 };

/* Each parameter under its name there, after a comma; `without`: DIALECT_NO_... */
void dialect_put_sampling(struct buf *out, enum dialect d, const struct sampling *s, bool seeded,
                          uint32_t without);
/* dialect_encode of a request that is passed on. */
int dialect_pass_encode(struct dialect_request *q, const char **ret_path, struct buf *body,
                        struct err *e);
/* Its answer: an event, or (`whole`) all of it. `root` is changed. */
int dialect_pass_decode(struct dialect_stream *s, struct json_t *root, bool whole, struct err *e);

/* A copy of a word that can stand in JSON and headers as it is; else "". */
void dialect_copy_word(const struct json_t *value, char *out, size_t size);
/* A reason to end; NULL: none. Some gateways write null as "" or "null". */
const char *dialect_reason_of(const struct json_t *value);
/* A count, when it is told. */
void dialect_take_count(const struct json_t *value, uint32_t *out);

#endif
