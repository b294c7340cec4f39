/*
 * utf8: validation and the cut between characters (RFC 3629: no surrogates, no overlong forms).
 * Pure.
 */
#ifndef PDD_BASE_UTF8_H
#define PDD_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Length of the longest valid prefix; equals n when all is valid. */
size_t utf8_valid_prefix(const void *data, size_t n);

/* How many bytes at the end (0..3) begin a character that could still become valid with more bytes.
 */
size_t utf8_pending(const void *data, size_t n);

/* Decode one character at data (n >= 1): its length 1..4 and code point, or 0 when invalid. */
size_t utf8_decode(const void *data, size_t n, uint32_t *ret_code);
size_t utf8_put(uint32_t code, char out[4]); /* length; code must be a valid scalar value */

/* Length (1 or 2) of the control character at text (n >= 1), or 0: C0, DEL and C1, by which foreign
 * text could control a terminal. */
size_t utf8_control(const char *text, size_t n);
void utf8_blank_controls(char *text, size_t n); /* each of their bytes becomes a space */
/* The same, and each byte that is not UTF-8 becomes "?": a byte 0x80 to 0x9F alone is a control
 * character to a terminal of 8 bits. */
void utf8_make_plain(char *text, size_t n);

#endif
