/* err: see err.h. */
#include "base/err.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

/* Names in a sentence may be a file's or a stranger's: no terminal is to obey them, and JSON is to
 * take them. A sentence that was cut ends with a whole character. */
static void make_plain(struct err *e)
{
    size_t n = strlen(e->text);
    if (n + 1 == sizeof e->text) n -= utf8_pending(e->text, n);
    e->text[n] = 0;
    utf8_make_plain(e->text, n);
}

int err_set(struct err *e, int code, const char *format, ...)
{
    if (e) {
        va_list args;
        va_start(args, format);
        vsnprintf(e->text, sizeof e->text, format, args);
        va_end(args);
        make_plain(e);
        e->code = code;
    }
    return code;
}

int err_prefix(struct err *e, const char *format, ...)
{
    if (!e) return ERR_INTERNAL;
    char old[ERR_TEXT_MAX];
    memcpy(old, e->text, sizeof old);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(e->text, sizeof e->text, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof e->text)
        snprintf(e->text + n, sizeof e->text - (size_t)n, ": %s", old);
    make_plain(e);
    return e->code;
}

const char *err_code_name(int code)
{
    static const char *const names[] = {
        "none",    "bad_input", "unsupported", "not_found", "limit",  "no_memory", "io",
        "network", "timeout",   "cancelled",   "busy",      "denied", "protocol",  "internal"};
    int i = -code;
    return i >= 0 && i < (int)(sizeof names / sizeof *names) ? names[i] : "unknown";
}
