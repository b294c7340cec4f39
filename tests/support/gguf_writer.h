/*
 * gguf_writer: writes GGUF v3 files into memory, for tests only. Every call CHECKs instead of
 * failing. Keys come before tensors; tensor data is copied when the tensor is added.
 */
#ifndef PDD_TESTS_GGUF_WRITER_H
#define PDD_TESTS_GGUF_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "model/gguf.h"

enum { GGUF_WRITER_ALIGN = 32 };

struct gguf_writer {
    struct buf keys, infos, data;
    uint64_t n_keys, n_tensors;
};

void gguf_writer_init(struct gguf_writer *w);
void gguf_writer_release(struct gguf_writer *w);
void gguf_writer_u32(struct gguf_writer *w, const char *key, uint32_t value);
void gguf_writer_f32(struct gguf_writer *w, const char *key, float value);
void gguf_writer_bool(struct gguf_writer *w, const char *key, bool value);
void gguf_writer_text(struct gguf_writer *w, const char *key, const char *value);
void gguf_writer_texts(struct gguf_writer *w, const char *key, const char *const *values,
                       uint32_t n);
void gguf_writer_f32s(struct gguf_writer *w, const char *key, const float *values, uint32_t n);
void gguf_writer_i32s(struct gguf_writer *w, const char *key, const int32_t *values, uint32_t n);
/* A tensor [rows, cols] of raw bytes in the file's format. rows 0: a vector of `cols`. */
void gguf_writer_tensor(struct gguf_writer *w, const char *name, uint32_t type, uint64_t cols,
                        uint64_t rows, const void *data, size_t bytes);
/* So many of them, [depth, rows, cols]. */
void gguf_writer_stack(struct gguf_writer *w, const char *name, uint32_t type, uint64_t cols,
                       uint64_t rows, uint64_t depth, const void *data, size_t bytes);
/* The whole file; `out` is the caller's, initialised. */
void gguf_writer_finish(struct gguf_writer *w, struct buf *out);

#endif
