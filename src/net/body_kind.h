/*
 * body_kind: what the body of a response is, by its content type and, where that says little, by
 * its first bytes: servers, gateways and captive portals mislabel. Pure.
 */
#ifndef PDD_NET_BODY_KIND_H
#define PDD_NET_BODY_KIND_H

#include <stddef.h>

enum body_kind {
    BODY_EVENTS, /* server-sent events */
    BODY_JSON,   /* one JSON value */
    BODY_LINES,  /* a JSON value each line */
    BODY_PAGE,   /* HTML */
    BODY_UNKNOWN /* not told; or nothing but blanks so far */
};

enum { BODY_PAGE_NAME_MAX = 128 };

/* Of a Content-Type header; NULL: there was none. application/json, text/plain and the like are
 * BODY_UNKNOWN: the bytes tell more. */
enum body_kind body_kind_of_type(const char *type);
enum body_kind body_kind_of_bytes(const char *bytes, size_t n);
/* What to call a page in a sentence: "an HTML page", with its title if it has one, as UTF-8 without
 * control characters and line breaks. */
void body_page_name(const char *html, size_t n, char ret_name[BODY_PAGE_NAME_MAX]);

#endif
