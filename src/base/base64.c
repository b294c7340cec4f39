/* base64: see base64.h. */
#include "base/base64.h"

#include <stdint.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int base64_encode(const void *data, size_t n, struct buf *out)
{
    const uint8_t *p = data;
    int code =
        n / 3 >= SIZE_MAX / 4 - 1 ? buf_fail(out, ERR_LIMIT) : buf_reserve(out, (n + 2) / 3 * 4);
    for (size_t i = 0; i < n && code == 0; i += 3) {
        size_t left = n - i;
        uint32_t v = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
                     (left > 2 ? p[i + 2] : 0);
        char four[4] = {alphabet[v >> 18], alphabet[v >> 12 & 63],
                        left > 1 ? alphabet[v >> 6 & 63] : '=', left > 2 ? alphabet[v & 63] : '='};
        code = buf_append(out, four, 4);
    }
    return code;
}

static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Four characters, of which the last `pad` are '='; unused bits must be zero. */
static int decode_four(const char *text, unsigned pad, struct buf *out)
{
    uint32_t v = 0;
    for (unsigned i = 0; i < 4; i++) {
        int six = i < 4 - pad ? value_of(text[i]) : 0;
        if (six < 0) return ERR_BAD_INPUT;
        v = v << 6 | (uint32_t)six;
    }
    if ((pad == 1 && v & 0xFF) || (pad == 2 && v & 0xFFFF)) return ERR_BAD_INPUT;
    char three[3] = {(char)(v >> 16), (char)(v >> 8), (char)v};
    return buf_append(out, three, 3 - pad);
}

int base64_decode(const char *text, size_t n, struct buf *out, struct err *e)
{
    if (n % 4 != 0)
        return err_set(e, ERR_BAD_INPUT, "base64 text of %zu characters is not a multiple of 4", n);
    size_t start = out->len;
    for (size_t i = 0; i < n; i += 4) {
        unsigned pad = 0;
        if (i + 4 == n) pad = text[i + 3] == '=' ? (text[i + 2] == '=' ? 2 : 1) : 0;
        int code = decode_four(text + i, pad, out);
        if (code) {
            buf_cut(out, start);
            return err_set(e, code, "base64 text is malformed at character %zu", i);
        }
    }
    return 0;
}
