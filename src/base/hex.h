/*
 * hex: bytes as hexadecimal digits and back. Pure.
 */
#ifndef PDD_BASE_HEX_H
#define PDD_BASE_HEX_H

#include <stdbool.h>
#include <stddef.h>

/* 0 to 15, upper or lower case; -1: not a digit. */
static inline int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* n bytes from 2 n digits; false: a character is not a digit. Stops there, so a shorter
 * zero-terminated text is not read past its end. */
static inline bool hex_decode(const char *text, unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int high = hex_digit(text[2 * i]);
        int low = high < 0 ? -1 : hex_digit(text[2 * i + 1]);
        if (low < 0) return false;
        bytes[i] = (unsigned char)(high * 16 + low);
    }
    return true;
}

/* 2 n lower-case digits and a terminating zero. */
static inline void hex_encode(const unsigned char *bytes, size_t n, char *text)
{
    for (size_t i = 0; i < n; i++) {
        text[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
    text[2 * n] = 0;
}

#endif
