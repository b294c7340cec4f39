/* jinja_unicode: what Python's str knows of characters; see jinja_impl.h. The tables begin beyond
 * ASCII and are sorted. */
#include <stddef.h>

#include "model/jinja/jinja_impl.h"

struct range {
    uint32_t first, last;
};
struct mapping { /* every `step`th from first to last becomes itself + delta */
    uint32_t first, last, step;
    int32_t delta;
};
struct special {
    uint32_t code;
    char how;
    uint32_t to[3];
};

#include "model/jinja/jinja_unicode_tables.inc"

static bool in_ranges(const struct range *ranges, size_t n, uint32_t c)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ranges[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && ranges[low].first <= c;
}

/* Runs overlap where every second character is of another one: all that may hold c are tried. */
static uint32_t map(const struct mapping *m, size_t n, uint32_t c)
{
    size_t low = 0, high = n;
    while (low < high) { /* the first that begins after c */
        size_t middle = low + (high - low) / 2;
        if (m[middle].first <= c)
            low = middle + 1;
        else
            high = middle;
    }
    for (size_t back = 0; back < 4 && back < low; back++) {
        const struct mapping *at = &m[low - 1 - back];
        if (c <= at->last && (c - at->first) % at->step == 0)
            return (uint32_t)((int32_t)c + at->delta);
    }
    return c;
}

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define IN(table, c) in_ranges(table, COUNT(table), c)

uint32_t junicode_lower(uint32_t c)
{
    if (c < 128) return c >= 'A' && c <= 'Z' ? c + 32 : c;
    return map(to_lower, COUNT(to_lower), c);
}

uint32_t junicode_upper(uint32_t c)
{
    if (c < 128) return c >= 'a' && c <= 'z' ? c - 32 : c;
    return map(to_upper, COUNT(to_upper), c);
}

uint32_t junicode_title(uint32_t c)
{
    for (size_t i = 0; c >= 128 && i < COUNT(to_title); i++)
        if (to_title[i].first == c) return (uint32_t)((int32_t)c + to_title[i].delta);
    return junicode_upper(c);
}

uint32_t junicode_special(uint32_t c, char how, uint32_t out[3])
{
    uint32_t n = 0;
    for (size_t i = 0; i < COUNT(special); i++) {
        if (special[i].code != c || special[i].how != how) continue;
        for (; n < 3 && special[i].to[n]; n++)
            out[n] = special[i].to[n];
        break;
    }
    return n;
}

bool junicode_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

bool junicode_is_line_end(uint32_t c)
{
    return (c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool junicode_is_printable(uint32_t c)
{
    if (c < 128) return c >= 32 && c < 127;
    return !(c >= 0xD800 && c < 0xE000) && !IN(not_printable_ranges, c);
}

static bool is_letter(uint32_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_figure(uint32_t c)
{
    return c >= '0' && c <= '9';
}

bool junicode_is_alpha(uint32_t c)
{
    return c < 128 ? is_letter(c) : IN(alpha_ranges, c);
}

bool junicode_is_decimal(uint32_t c)
{
    return c < 128 ? is_figure(c) : IN(decimal_ranges, c);
}

bool junicode_is_digit(uint32_t c)
{
    return c < 128 ? is_figure(c) : IN(digit_ranges, c);
}

bool junicode_is_numeric(uint32_t c)
{
    return c < 128 ? is_figure(c) : IN(numeric_ranges, c);
}

bool junicode_is_lower(uint32_t c)
{
    return c < 128 ? c >= 'a' && c <= 'z' : IN(lower_ranges, c);
}

bool junicode_is_upper(uint32_t c)
{
    return c < 128 ? c >= 'A' && c <= 'Z' : IN(upper_ranges, c);
}

bool junicode_is_cased(uint32_t c)
{
    return junicode_is_lower(c) || junicode_is_upper(c) || (c >= 128 && IN(titled_ranges, c));
}

bool junicode_is_ignorable(uint32_t c)
{
    if (c < 128) return c == '\'' || c == '.' || c == ':' || c == '^' || c == '`';
    return IN(ignorable_ranges, c);
}
