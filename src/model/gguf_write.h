/*
 * gguf_write: builds the head of a GGUF v3 file (little endian): keys and the list of tensors. The
 * caller writes the tensors' bytes, at the offsets returned here, so that a file of many gigabytes
 * needs no memory. It checks no meaning: wrong keys make a well-formed useless file. One owner.
 *
 * Life: init, keys and tensors in any order, finish, release. Errors stick: after the first one
 * nothing is added, and finish returns it.
 */
#ifndef PDD_MODEL_GGUF_WRITE_H
#define PDD_MODEL_GGUF_WRITE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum { GGUF_WRITE_ALIGN = 32, GGUF_WRITE_HEAD_MAX = 256 << 20 };

struct gguf_write {
    struct buf keys, infos;
    uint64_t n_keys, n_tensors;
    uint64_t data_bytes; /* of all tensors so far, padded */
    int code;            /* the first error, or 0 */
};

void gguf_write_init(struct gguf_write *w);
void gguf_write_release(struct gguf_write *w);
void gguf_write_u32(struct gguf_write *w, const char *key, uint32_t value);
void gguf_write_f32(struct gguf_write *w, const char *key, float value);
void gguf_write_bool(struct gguf_write *w, const char *key, bool value);
void gguf_write_text(struct gguf_write *w, const char *key, const char *value);
void gguf_write_i32s(struct gguf_write *w, const char *key, const int32_t *values, uint32_t n);
void gguf_write_f32s(struct gguf_write *w, const char *key, const float *values, uint32_t n);
/* An array of n texts; exactly n calls of _text_item must follow. */
void gguf_write_texts_begin(struct gguf_write *w, const char *key, uint32_t n);
void gguf_write_text_item(struct gguf_write *w, const char *text);
/* shape[0] is the row length; `type` must be one of enum gguf_type. Returns where its bytes begin,
 * counted from the end of the head. */
uint64_t gguf_write_tensor(struct gguf_write *w, const char *name, uint32_t type, uint32_t dims,
                           const uint64_t *shape, uint64_t bytes);
/* Append the head, padded, to `out`; its end is where the tensors' bytes begin. */
int gguf_write_finish(struct gguf_write *w, struct buf *out, struct err *e);

#endif
