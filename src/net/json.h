/*
 * json: the little that is shared by those who write JSON by hand into a buf.
 */
#ifndef PDD_NET_JSON_H
#define PDD_NET_JSON_H

#include <stddef.h>

#include "base/buf.h"

/* Append `text` as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD. */
int json_put_string(struct buf *out, const char *text, size_t n);

#endif
