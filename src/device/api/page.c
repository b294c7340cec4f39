/* page: see page.h. */
#include "device/api/page.h"

#include <stdio.h>
#include <string.h>

static const char policy[] = "default-src 'none'; script-src 'self'; style-src 'self'; "
                             "img-src 'self'; connect-src 'self'; base-uri 'none'; "
                             "form-action 'none'; frame-ancestors 'none'; "
                             "require-trusted-types-for 'script'; trusted-types 'none'";

static const char *type_of(const char *name)
{
    static const char *const types[][2] = {{".html", "text/html; charset=utf-8"},
                                           {".css", "text/css; charset=utf-8"},
                                           {".js", "text/javascript; charset=utf-8"},
                                           {".svg", "image/svg+xml"}};
    const char *end = strrchr(name, '.');
    for (size_t i = 0; end && i < sizeof types / sizeof *types; i++)
        if (strcmp(end, types[i][0]) == 0) return types[i][1];
    return "application/octet-stream";
}

static const struct page_file *find(const char *name)
{
    for (size_t i = 0; i < page_file_count; i++)
        if (strcmp(page_files[i].name, name) == 0) return &page_files[i];
    return NULL;
}

static void reply(struct http_request *r, const char *name)
{
    const struct page_file *f = find(name);
    char tag[32];
    if (!f) {
        http_reply_error(r, 404, "not_found", NULL, "the page has no file \"%.100s\"", name);
        return;
    }
    snprintf(tag, sizeof tag, "\"%s\"", f->tag);
    const char *known = http_request_header(r, "If-None-Match");
    http_request_reply_header(r, "ETag", tag);
    http_request_reply_header(r, "Cache-Control", "no-cache");
    http_request_reply_header(r, "Content-Security-Policy", policy);
    http_request_reply_header(r, "X-Content-Type-Options", "nosniff");
    http_request_reply_header(r, "Referrer-Policy", "no-referrer");
    http_request_reply_header(r, "Cross-Origin-Resource-Policy", "same-origin");
    http_request_reply_header(r, "Cross-Origin-Opener-Policy", "same-origin");
    if (known && strstr(known, tag))
        http_reply(r, 304, NULL, NULL, 0);
    else
        http_reply(r, 200, type_of(name), f->data, f->size);
}

void page_index(struct http_request *r, void *arg)
{
    (void)arg;
    reply(r, "index.html");
}

void page_part(struct http_request *r, void *arg)
{
    (void)arg;
    reply(r, http_request_id(r));
}
