/*
 * blank: the white space of JSON: space, tab, line feed, carriage return. Pure.
 */
#ifndef PDD_BASE_BLANK_H
#define PDD_BASE_BLANK_H

#include <stdbool.h>
#include <stddef.h>

static inline bool blank_is(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* How many of the n bytes are blank, from the first one on. */
static inline size_t blank_prefix(const char *text, size_t n)
{
    size_t blank = 0;
    while (blank < n && blank_is(text[blank]))
        blank++;
    return blank;
}

/* The same, from the last one backwards. */
static inline size_t blank_suffix(const char *text, size_t n)
{
    size_t blank = 0;
    while (blank < n && blank_is(text[n - 1 - blank]))
        blank++;
    return blank;
}

#endif
