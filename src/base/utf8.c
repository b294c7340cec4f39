/* utf8: see utf8.h. */
#include "base/utf8.h"

#include <stdbool.h>
#include <string.h>

/* Length that a lead byte announces, and the bounds of its second byte; 0: not a lead byte. */
static unsigned lead(uint8_t b, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (b < 0x80) return 1;
    if (b >= 0xC2 && b <= 0xDF) return 2;
    if (b >= 0xE0 && b <= 0xEF) {
        if (b == 0xE0) *low = 0xA0;
        if (b == 0xED) *high = 0x9F;
        return 3;
    }
    if (b >= 0xF0 && b <= 0xF4) {
        if (b == 0xF0) *low = 0x90;
        if (b == 0xF4) *high = 0x8F;
        return 4;
    }
    return 0;
}

/* How many bytes of a character at p are there and right; *ret_len: how many it needs (0: never).
 */
static unsigned match(const uint8_t *p, size_t n, unsigned *ret_len)
{
    uint8_t low, high;
    unsigned len = lead(p[0], &low, &high);
    *ret_len = len;
    unsigned good = 1;
    while (good < len && good < n) {
        uint8_t b = p[good];
        if (b < (good == 1 ? low : 0x80) || b > (good == 1 ? high : 0xBF)) {
            *ret_len = 0;
            return good;
        }
        good++;
    }
    return good;
}

size_t utf8_decode(const void *data, size_t n, uint32_t *ret_code)
{
    const uint8_t *p = data;
    unsigned len;
    unsigned good = match(p, n, &len);
    if (len == 0 || good < len) return 0;
    static const uint8_t lead_bits[5] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    uint32_t code = p[0] & lead_bits[len];
    for (unsigned i = 1; i < len; i++)
        code = code << 6 | (p[i] & 0x3F);
    *ret_code = code;
    return len;
}

size_t utf8_valid_prefix(const void *data, size_t n)
{
    const uint8_t *p = data;
    size_t at = 0;
    while (at < n) {
        unsigned len;
        if (match(p + at, n - at, &len) < len || len == 0) break;
        at += len;
    }
    return at;
}

size_t utf8_pending(const void *data, size_t n)
{
    const uint8_t *p = data;
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned len;
        unsigned good = match(p + n - back, back, &len);
        if (len > back && good == back) return back;
    }
    return 0;
}

size_t utf8_put(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t len = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = len - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code & 0x3F));
        code >>= 6;
    }
    static const uint8_t marks[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    out[0] = (char)(marks[len] | code);
    return len;
}

size_t utf8_control(const char *text, size_t n)
{
    uint8_t first = (uint8_t)text[0];
    if (first < 0x20 || first == 0x7F) return 1;
    bool c1 = first == 0xC2 && n > 1 && (uint8_t)text[1] >= 0x80 && (uint8_t)text[1] < 0xA0;
    return c1 ? 2 : 0;
}

void utf8_blank_controls(char *text, size_t n)
{
    size_t at = 0;
    while (at < n) {
        size_t len = utf8_control(text + at, n - at);
        memset(text + at, ' ', len);
        at += len ? len : 1;
    }
}

void utf8_make_plain(char *text, size_t n)
{
    for (size_t at = 0; (at += utf8_valid_prefix(text + at, n - at)) < n; at++)
        text[at] = '?';
    utf8_blank_controls(text, n);
}
