/* buf: see buf.h. */
#include "base/buf.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"

static char empty[1] = ""; /* never written: len is 0 whenever data points here */

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){.data = empty, .max = max};
}

void buf_release(struct buf *b)
{
    if (b->cap) mem_free(b->data);
    buf_init(b, b->max);
}

void buf_clear(struct buf *b)
{
    buf_cut(b, 0);
}

void buf_cut(struct buf *b, size_t len)
{
    CHECK(len <= b->len);
    b->len = len;
    b->error = 0;
    if (b->cap) b->data[len] = 0;
}

int buf_fail(struct buf *b, int code)
{
    if (!b->error) b->error = code;
    return b->error;
}

int buf_reserve(struct buf *b, size_t extra)
{
    if (b->error) return b->error;
    if (extra > b->max - b->len) return buf_fail(b, ERR_LIMIT);
    size_t need = b->len + extra + 1;
    if (need <= b->cap) return 0;
    size_t cap = b->cap ? b->cap : 32;
    while (cap < need)
        cap = cap < (size_t)1 << 62 ? cap * 2 : need;
    char *data = mem_realloc(b->cap ? b->data : NULL, cap);
    if (!data) return buf_fail(b, ERR_NO_MEMORY);
    data[b->len] = 0;
    b->data = data;
    b->cap = cap;
    return 0;
}

int buf_append(struct buf *b, const void *data, size_t n)
{
    int code = n ? buf_reserve(b, n) : b->error;
    if (code || n == 0) return code;
    memcpy(b->data + b->len, data, n);
    b->len += n;
    b->data[b->len] = 0;
    return 0;
}

int buf_puts(struct buf *b, const char *text)
{
    return buf_append(b, text, strlen(text));
}

int buf_putc(struct buf *b, char c)
{
    return buf_append(b, &c, 1);
}

int buf_vprintf(struct buf *b, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (n < 0) return buf_fail(b, ERR_INTERNAL);
    int code = buf_reserve(b, (size_t)n);
    if (code) return code;
    vsnprintf(b->data + b->len, (size_t)n + 1, format, args);
    b->len += (size_t)n;
    return 0;
}

int buf_printf(struct buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int code = buf_vprintf(b, format, args);
    va_end(args);
    return code;
}

void buf_consume(struct buf *b, size_t n)
{
    if (n == 0) return;
    memmove(b->data, b->data + n, b->len - n + 1);
    b->len -= n;
}

char *buf_steal(struct buf *b)
{
    if (!b->cap && buf_reserve(b, 0)) return NULL;
    char *data = b->data;
    data[b->len] = 0;
    buf_init(b, b->max);
    return data;
}
