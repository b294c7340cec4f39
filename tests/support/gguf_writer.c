/* gguf_writer: see gguf_writer.h. */
#include "support/gguf_writer.h"

#include <string.h>

#include "base/check.h"

enum {
    VALUE_U32 = 4,
    VALUE_I32 = 5,
    VALUE_F32 = 6,
    VALUE_BOOL = 7,
    VALUE_TEXT = 8,
    VALUE_ARRAY = 9
};

static void put(struct buf *b, const void *data, size_t n)
{
    CHECK(buf_append(b, data, n) == 0);
}

static void put_u32(struct buf *b, uint32_t v)
{
    put(b, &v, 4);
}

static void put_u64(struct buf *b, uint64_t v)
{
    put(b, &v, 8);
}

static void put_text(struct buf *b, const char *text)
{
    put_u64(b, strlen(text));
    put(b, text, strlen(text));
}

void gguf_writer_init(struct gguf_writer *w)
{
    memset(w, 0, sizeof *w);
    buf_init(&w->keys, (size_t)1 << 32);
    buf_init(&w->infos, (size_t)1 << 32);
    buf_init(&w->data, (size_t)1 << 36);
}

void gguf_writer_release(struct gguf_writer *w)
{
    buf_release(&w->keys);
    buf_release(&w->infos);
    buf_release(&w->data);
}

static struct buf *begin_key(struct gguf_writer *w, const char *key, uint32_t type)
{
    put_text(&w->keys, key);
    put_u32(&w->keys, type);
    w->n_keys++;
    return &w->keys;
}

void gguf_writer_u32(struct gguf_writer *w, const char *key, uint32_t value)
{
    put_u32(begin_key(w, key, VALUE_U32), value);
}

void gguf_writer_f32(struct gguf_writer *w, const char *key, float value)
{
    put(begin_key(w, key, VALUE_F32), &value, 4);
}

void gguf_writer_bool(struct gguf_writer *w, const char *key, bool value)
{
    put(begin_key(w, key, VALUE_BOOL), &(uint8_t){value}, 1);
}

void gguf_writer_text(struct gguf_writer *w, const char *key, const char *value)
{
    put_text(begin_key(w, key, VALUE_TEXT), value);
}

static struct buf *begin_array(struct gguf_writer *w, const char *key, uint32_t type, uint32_t n)
{
    struct buf *b = begin_key(w, key, VALUE_ARRAY);
    put_u32(b, type);
    put_u64(b, n);
    return b;
}

void gguf_writer_texts(struct gguf_writer *w, const char *key, const char *const *values,
                       uint32_t n)
{
    struct buf *b = begin_array(w, key, VALUE_TEXT, n);
    for (uint32_t i = 0; i < n; i++)
        put_text(b, values[i]);
}

void gguf_writer_f32s(struct gguf_writer *w, const char *key, const float *values, uint32_t n)
{
    put(begin_array(w, key, VALUE_F32, n), values, (size_t)n * 4);
}

void gguf_writer_i32s(struct gguf_writer *w, const char *key, const int32_t *values, uint32_t n)
{
    put(begin_array(w, key, VALUE_I32, n), values, (size_t)n * 4);
}

static void pad(struct buf *b)
{
    while (b->len % GGUF_WRITER_ALIGN != 0)
        CHECK(buf_putc(b, 0) == 0);
}

void gguf_writer_tensor(struct gguf_writer *w, const char *name, uint32_t type, uint64_t cols,
                        uint64_t rows, const void *data, size_t bytes)
{
    gguf_writer_stack(w, name, type, cols, rows, 0, data, bytes);
}

void gguf_writer_stack(struct gguf_writer *w, const char *name, uint32_t type, uint64_t cols,
                       uint64_t rows, uint64_t depth, const void *data, size_t bytes)
{
    pad(&w->data);
    put_text(&w->infos, name);
    put_u32(&w->infos, depth ? 3 : rows ? 2 : 1);
    put_u64(&w->infos, cols);
    if (rows) put_u64(&w->infos, rows);
    if (depth) put_u64(&w->infos, depth);
    put_u32(&w->infos, type);
    put_u64(&w->infos, w->data.len);
    put(&w->data, data, bytes);
    w->n_tensors++;
}

void gguf_writer_finish(struct gguf_writer *w, struct buf *out)
{
    put(out, "GGUF", 4);
    put_u32(out, 3);
    put_u64(out, w->n_tensors);
    put_u64(out, w->n_keys);
    put(out, w->keys.data, w->keys.len);
    put(out, w->infos.data, w->infos.len);
    pad(out);
    put(out, w->data.data, w->data.len);
}
