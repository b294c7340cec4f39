/* stop: see stop.h. */
#include "proto/stop.h"

#include <string.h>

/* Whether `stop` ends at text + end. */
static bool ends_at(const struct openai_stop *stop, const char *text, size_t end)
{
    return stop->len <= end && memcmp(text + end - stop->len, stop->text, stop->len) == 0;
}

/* Bytes at the end of text[len] that begin `stop`. */
static size_t begun(const struct openai_stop *stop, const char *text, size_t len)
{
    size_t n = stop->len - 1 < len ? stop->len - 1 : len;
    while (n > 0 && memcmp(text + len - n, stop->text, n) != 0)
        n--;
    return n;
}

bool stop_scan(const struct openai_stop *stops, uint32_t n, const char *text, size_t len,
               size_t *ret_clear)
{
    for (size_t end = 1; end <= len && n > 0; end++) {
        size_t longest = 0;
        for (uint32_t i = 0; i < n; i++)
            if (stops[i].len > longest && ends_at(&stops[i], text, end)) longest = stops[i].len;
        if (longest == 0) continue;
        *ret_clear = end - longest;
        return true;
    }
    size_t held = 0;
    for (uint32_t i = 0; i < n; i++) {
        size_t k = begun(&stops[i], text, len);
        if (k > held) held = k;
    }
    *ret_clear = len - held;
    return false;
}
