/* base64: RFC 4648, standard alphabet with padding; decoding is strict. Pure. */
#ifndef PDD_BASE_BASE64_H
#define PDD_BASE_BASE64_H

#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

int base64_encode(const void *data, size_t n, struct buf *out); /* appends */
int base64_decode(const char *text, size_t n, struct buf *out, struct err *e);

#endif
