/* body_kind: see body_kind.h. */
#include "net/body_kind.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/blank.h"
#include "base/utf8.h"

enum { TITLE_MAX = 100 };

static const struct {
    const char *type;
    enum body_kind kind;
} types[] = {
    {"text/event-stream", BODY_EVENTS},      {"text/html", BODY_PAGE},
    {"application/xhtml+xml", BODY_PAGE},    {"application/x-ndjson", BODY_LINES},
    {"application/ndjson", BODY_LINES},      {"application/jsonl", BODY_LINES},
    {"application/x-jsonlines", BODY_LINES},
};

enum body_kind body_kind_of_type(const char *type)
{
    for (size_t i = 0; type && i < sizeof types / sizeof *types; i++) {
        size_t n = strlen(types[i].type);
        if (strncasecmp(type, types[i].type, n) == 0 && strchr("; \t", type[n]))
            return types[i].kind;
    }
    return BODY_UNKNOWN;
}

/* A byte order mark may come first, and blanks. */
enum body_kind body_kind_of_bytes(const char *bytes, size_t n)
{
    static const char mark[] = "\xEF\xBB\xBF";
    size_t at = 0;
    while (at < n && at < 3 && bytes[at] == mark[at])
        at++;
    if (at != 3 && at < n) at = 0;
    while (at < n && blank_is(bytes[at]))
        at++;
    if (at == n) return BODY_UNKNOWN;
    if (bytes[at] == '{' || bytes[at] == '[') return BODY_JSON;
    return bytes[at] == '<' ? BODY_PAGE : BODY_EVENTS;
}

/* The first place of a word in text, whatever its case; NULL: none. */
static const char *find(const char *text, const char *end, const char *word)
{
    size_t n = strlen(word);
    for (; (size_t)(end - text) >= n; text++)
        if (strncasecmp(text, word, n) == 0) return text;
    return NULL;
}

static void find_title(const char *html, size_t n, char ret_title[TITLE_MAX])
{
    const char *end = html + n, *at = n ? find(html, end, "<title") : NULL;
    size_t len = 0;
    if (at) at = memchr(at, '>', (size_t)(end - at));
    const char *stop = at ? find(at, end, "</") : NULL;
    if (at && !stop) stop = end;
    for (at = at ? at + 1 : NULL; at && at < stop && len < TITLE_MAX - 1; at++) {
        if (blank_is(*at) && (len == 0 || ret_title[len - 1] == ' ')) continue;
        ret_title[len++] = blank_is(*at) ? ' ' : *at;
    }
    len = utf8_valid_prefix(ret_title, len);
    while (len > 0 && ret_title[len - 1] == ' ')
        len--;
    utf8_blank_controls(ret_title, len);
    ret_title[len] = 0;
}

void body_page_name(const char *html, size_t n, char ret_name[BODY_PAGE_NAME_MAX])
{
    char title[TITLE_MAX];
    find_title(html, n, title);
    snprintf(ret_name, BODY_PAGE_NAME_MAX, "an HTML page%s%s%s", title[0] ? " titled \"" : "",
             title, title[0] ? "\"" : "");
}
