/* gguf_write: see gguf_write.h. */
#include "model/gguf_write.h"

#include <string.h>

enum {
    VALUE_U32 = 4,
    VALUE_I32 = 5,
    VALUE_F32 = 6,
    VALUE_BOOL = 7,
    VALUE_TEXT = 8,
    VALUE_ARRAY = 9,
    VERSION = 3
};

void gguf_write_init(struct gguf_write *w)
{
    *w = (struct gguf_write){0};
    buf_init(&w->keys, GGUF_WRITE_HEAD_MAX);
    buf_init(&w->infos, GGUF_WRITE_HEAD_MAX);
}

void gguf_write_release(struct gguf_write *w)
{
    buf_release(&w->keys);
    buf_release(&w->infos);
}

static void put(struct gguf_write *w, struct buf *b, const void *data, size_t n)
{
    if (w->code == 0) w->code = buf_append(b, data, n);
}

static void put_u32(struct gguf_write *w, struct buf *b, uint32_t v)
{
    put(w, b, &v, sizeof v);
}

static void put_u64(struct gguf_write *w, struct buf *b, uint64_t v)
{
    put(w, b, &v, sizeof v);
}

static void put_text(struct gguf_write *w, struct buf *b, const char *text)
{
    put_u64(w, b, strlen(text));
    put(w, b, text, strlen(text));
}

static void begin_key(struct gguf_write *w, const char *key, uint32_t type)
{
    put_text(w, &w->keys, key);
    put_u32(w, &w->keys, type);
    w->n_keys++;
}

static void begin_array(struct gguf_write *w, const char *key, uint32_t type, uint32_t n)
{
    begin_key(w, key, VALUE_ARRAY);
    put_u32(w, &w->keys, type);
    put_u64(w, &w->keys, n);
}

void gguf_write_u32(struct gguf_write *w, const char *key, uint32_t value)
{
    begin_key(w, key, VALUE_U32);
    put_u32(w, &w->keys, value);
}

void gguf_write_f32(struct gguf_write *w, const char *key, float value)
{
    begin_key(w, key, VALUE_F32);
    put(w, &w->keys, &value, sizeof value);
}

void gguf_write_bool(struct gguf_write *w, const char *key, bool value)
{
    begin_key(w, key, VALUE_BOOL);
    put(w, &w->keys, &(uint8_t){value}, 1);
}

void gguf_write_text(struct gguf_write *w, const char *key, const char *value)
{
    begin_key(w, key, VALUE_TEXT);
    put_text(w, &w->keys, value);
}

void gguf_write_i32s(struct gguf_write *w, const char *key, const int32_t *values, uint32_t n)
{
    begin_array(w, key, VALUE_I32, n);
    put(w, &w->keys, values, (size_t)n * sizeof *values);
}

void gguf_write_f32s(struct gguf_write *w, const char *key, const float *values, uint32_t n)
{
    begin_array(w, key, VALUE_F32, n);
    put(w, &w->keys, values, (size_t)n * sizeof *values);
}

void gguf_write_texts_begin(struct gguf_write *w, const char *key, uint32_t n)
{
    begin_array(w, key, VALUE_TEXT, n);
}

void gguf_write_text_item(struct gguf_write *w, const char *text)
{
    put_text(w, &w->keys, text);
}

static uint64_t padded(uint64_t n)
{
    return (n + GGUF_WRITE_ALIGN - 1) / GGUF_WRITE_ALIGN * GGUF_WRITE_ALIGN;
}

uint64_t gguf_write_tensor(struct gguf_write *w, const char *name, uint32_t type, uint32_t dims,
                           const uint64_t *shape, uint64_t bytes)
{
    uint64_t at = w->data_bytes;
    put_text(w, &w->infos, name);
    put_u32(w, &w->infos, dims);
    for (uint32_t i = 0; i < dims; i++)
        put_u64(w, &w->infos, shape[i]);
    put_u32(w, &w->infos, type);
    put_u64(w, &w->infos, at);
    w->n_tensors++;
    w->data_bytes += padded(bytes);
    return at;
}

int gguf_write_finish(struct gguf_write *w, struct buf *out, struct err *e)
{
    static const char zeros[GGUF_WRITE_ALIGN];
    put(w, out, "GGUF", 4);
    put_u32(w, out, VERSION);
    put_u64(w, out, w->n_tensors);
    put_u64(w, out, w->n_keys);
    put(w, out, w->keys.data, w->keys.len);
    put(w, out, w->infos.data, w->infos.len);
    put(w, out, zeros, padded(out->len) - out->len);
    if (w->code == ERR_LIMIT)
        return err_set(e, w->code, "the head of the file is larger than the %d bytes allowed",
                       GGUF_WRITE_HEAD_MAX);
    return w->code ? err_set(e, w->code, "no memory for the head of the file") : 0;
}
