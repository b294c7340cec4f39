/*
 * buf: a growable run of bytes with a maximum.
 *
 * Invariants: data[len] is always 0, so `data` is a C string when it holds text; len <= max.
 * Failure (past max, out of memory) leaves the content as it was and returns ERR_LIMIT or
 * ERR_NO_MEMORY. It sticks: from then on nothing is appended, and every call returns that first
 * error, until buf_clear, buf_cut or buf_release. So a writer appends piece by piece and checks the
 * last result, or `error`. `buf_init` allocates nothing: an empty buf points to a static empty
 * string. Threads: one owner at a time.
 */
#ifndef PDD_BASE_BUF_H
#define PDD_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>

struct buf {
    char *data;
    size_t len, cap, max;
    int error; /* the first one since it was empty; 0: none */
};

void buf_init(struct buf *b, size_t max);
void buf_release(struct buf *b);         /* back to empty, memory freed; may be used again */
void buf_clear(struct buf *b);           /* len = 0, no error, memory kept */
void buf_cut(struct buf *b, size_t len); /* the same, but for the first `len` bytes */
/* Note an error of the writer's own, unless there is one; returns the first. */
int buf_fail(struct buf *b, int code);
int buf_reserve(struct buf *b, size_t extra);
int buf_append(struct buf *b, const void *data, size_t n);
int buf_puts(struct buf *b, const char *text);
int buf_putc(struct buf *b, char c);
int buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
int buf_vprintf(struct buf *b, const char *format, va_list args);
void buf_consume(struct buf *b, size_t n); /* drop the first n bytes */
char *buf_steal(struct buf *b); /* caller owns the string (mem_free); b is empty; NULL: no memory */

#endif
