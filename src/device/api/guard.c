/* guard: see guard.h. */
#include "device/api/guard.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "device/api/serve_impl.h"

enum { ORIGIN_MAX = 512 };

static bool is_number(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isdigit((unsigned char)text[i])) return false;
    return n > 0;
}

/* Loopback by number: 127.x.x.x and ::1. */
static bool is_loopback(const char *host, size_t n)
{
    if (n == 5 && memcmp(host, "[::1]", 5) == 0) return true;
    if (n < 9 || memcmp(host, "127.", 4) != 0) return false;
    unsigned dots = 0;
    for (size_t i = 4; i < n; i++) {
        dots += host[i] == '.';
        if (host[i] != '.' && !isdigit((unsigned char)host[i])) return false;
    }
    return dots == 2;
}

static bool equals(const char *text, size_t n, const char *name)
{
    return strlen(name) == n && strncasecmp(text, name, n) == 0;
}

/* The name without its port; false: the port is not ours. */
static bool split_port(const struct serve *s, const char *host, size_t *ret_n)
{
    const char *end = host[0] == '[' ? strchr(host, ']') : NULL;
    const char *colon = strchr(end ? end : host, ':');
    *ret_n = colon ? (size_t)(colon - host) : strlen(host);
    if (!colon) return true;
    char port[8];
    snprintf(port, sizeof port, "%u", serve_port(s));
    return is_number(colon + 1, strlen(colon + 1)) && strcmp(colon + 1, port) == 0;
}

/* A host, with a port or none, by which we may be called. */
static bool is_ours(const struct serve *s, const char *host)
{
    size_t n;
    if (!split_port(s, host, &n)) return false;
    if (equals(host, n, "localhost") || is_loopback(host, n)) return true;
    const char *address = s->c.http.address;
    bool six = strchr(address, ':') != NULL; /* written in brackets */
    if (six && n > 2 && host[0] == '[' && equals(host + 1, n - 2, address)) return true;
    if (!six && strcmp(address, "0.0.0.0") != 0 && equals(host, n, address)) return true;
    for (uint32_t i = 0; i < s->c.n_hosts; i++)
        if (equals(host, n, s->c.hosts[i])) return true;
    return false;
}

static bool refuse(struct http_request *r, struct serve *s, int status, const char *code,
                   const char *what, const char *value)
{
    s->metrics.forbidden++;
    http_reply_error(r, status, code, NULL, "%s %.100s", what, value ? value : "");
    return false;
}

static bool check_host(struct http_request *r, struct serve *s)
{
    const char *host = http_request_header(r, "Host");
    if (host && is_ours(s, host)) return true;
    return refuse(r, s, 403, "host_not_allowed",
                  "this server does not answer to that name; --allow-host NAME adds one:", host);
}

static void put_cors(struct http_request *r, const char *origin)
{
    http_request_reply_header(r, "Access-Control-Allow-Origin", origin);
    http_request_reply_header(r, "Access-Control-Expose-Headers",
                              "X-PDD-Answer, X-PDD-Report, X-Request-Id, Retry-After");
    http_request_reply_header(r, "Vary", "Origin");
}

static bool is_named(const struct serve *s, const char *origin)
{
    for (uint32_t i = 0; i < s->c.n_origins; i++)
        if (strcasecmp(s->c.origins[i], origin) == 0) return true;
    return false;
}

/* Our own page: "http://", the name by which this request calls us, and our port, which 80 alone
 * may leave out. Another name of this machine, as 127.0.0.2, may be another program's. */
static bool is_own(const struct serve *s, const char *origin, const char *called)
{
    static const char scheme[] = "http://";
    size_t n, m;
    if (strncasecmp(origin, scheme, sizeof scheme - 1) != 0) return false;
    const char *host = origin + sizeof scheme - 1, *end = strchr(host, ']');
    bool has_port = strchr(end ? end : host, ':') != NULL;
    if (!(has_port || serve_port(s) == 80) || !is_ours(s, host)) return false;
    return split_port(s, host, &n) && split_port(s, called, &m) && n == m &&
           strncasecmp(host, called, n) == 0;
}

static bool check_origin(struct http_request *r, struct serve *s)
{
    const char *origin = http_request_header(r, "Origin");
    const char *site = http_request_header(r, "Sec-Fetch-Site");
    if (origin && strlen(origin) < ORIGIN_MAX && is_named(s, origin)) {
        put_cors(r, origin);
        return true;
    }
    if (origin && is_own(s, origin, http_request_header(r, "Host"))) return true;
    if (!origin && (!site || strcmp(site, "same-origin") == 0 || strcmp(site, "none") == 0))
        return true;
    return refuse(r, s, 403, "origin_not_allowed",
                  "pages of this site may not use the device; --allow-origin adds one:",
                  origin ? origin : site);
}

/* The time depends on the length of `a` only, not on where the texts differ. */
static bool same_text(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    unsigned char differ = n != m;
    for (size_t i = 0; i < n; i++)
        differ |= (unsigned char)(a[i] ^ b[m ? i % m : 0]);
    return differ == 0;
}

static bool check_token(struct http_request *r, struct serve *s)
{
    const char *other, *given = http_request_key(r, &other);
    if (!s->token[0]) return true;
    if (other) return refuse(r, s, 400, "two_keys", "send one token; another one is in", other);
    if (given && same_text(given, s->token)) return true;
    http_request_reply_header(r, "WWW-Authenticate", "Bearer");
    return refuse(r, s, 401, "invalid_api_key", "this server needs its token", NULL);
}

bool guard_approves(const struct http_request *r, const struct serve *s)
{
    const char *given = http_request_header(r, "X-PDD-Approval");
    return given && same_text(given, s->approval);
}

bool guard_open(struct http_request *r, void *serve)
{
    struct serve *s = serve;
    return check_host(r, s) && check_origin(r, s);
}

/* A browser that goes to the page, from wherever; not one that loads it into another. */
static bool is_visit(struct http_request *r)
{
    const char *mode = http_request_header(r, "Sec-Fetch-Mode");
    const char *dest = http_request_header(r, "Sec-Fetch-Dest");
    return mode && dest && strcmp(mode, "navigate") == 0 && strcmp(dest, "document") == 0;
}

bool guard_page(struct http_request *r, void *serve)
{
    struct serve *s = serve;
    return check_host(r, s) && (is_visit(r) || check_origin(r, s));
}

bool guard_api(struct http_request *r, void *serve)
{
    return guard_open(r, serve) && check_token(r, serve);
}

bool guard_options(struct http_request *r, void *serve)
{
    struct serve *s = serve;
    const char *origin = http_request_header(r, "Origin");
    if (!guard_open(r, serve)) return false;
    if (!origin || !is_named(s, origin)) return true;
    http_request_reply_header(r, "Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE");
    http_request_reply_header(r, "Access-Control-Allow-Headers", http_request_page_headers(r));
    http_request_reply_header(r, "Access-Control-Max-Age", "600");
    if (http_request_from_public(r))
        http_request_reply_header(r, "Access-Control-Allow-Private-Network", "true");
    return true;
}
