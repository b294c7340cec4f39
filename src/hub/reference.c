/* reference: see reference.h. */
#include "hub/reference.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/utf8.h"
#include "model/gguf.h"

static const char tail[] = ".gguf", middle[] = "-of-", resolve[] = "/resolve/main/";

static bool ends_as_gguf(const char *name, size_t n)
{
    size_t t = sizeof tail - 1;
    return n > t && strncasecmp(name + n - t, tail, t) == 0;
}

static bool is_part_of_path(const char *text, size_t n)
{
    bool dots = true;
    if (n == 0 || n > REFERENCE_PART_MAX) return false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && c != '.' && c != '_' && c != '-') return false;
        dots = dots && c == '.';
    }
    return !dots;
}

static int refuse(const char *text, struct err *e)
{
    char shown[FETCH_URL_MAX];
    fetch_plain_url(text, shown, sizeof shown);
    return err_set(e, ERR_BAD_INPUT,
                   "\"%.150s\": a URL (https://...), hf:OWNER/NAME, hf:OWNER/NAME:Q4_K_M or "
                   "hf:OWNER/NAME/FILE.gguf is needed",
                   shown);
}

static bool take_part(const char *text, size_t n, char *ret_part)
{
    if (!is_part_of_path(text, n)) return false;
    memcpy(ret_part, text, n);
    ret_part[n] = 0;
    return true;
}

/* "OWNER/NAME", "OWNER/NAME:TYPE", "OWNER/NAME/FILE" */
static int parse_hub(const char *whole, const char *text, struct reference *r, struct err *e)
{
    size_t owner = strcspn(text, "/");
    const char *name = text + owner + (text[owner] == '/');
    size_t n = strcspn(name, "/:");
    const char *rest = name + n;
    r->hub = true;
    if (!take_part(text, owner, r->owner) || !take_part(name, n, r->name)) return refuse(whole, e);
    if (*rest == ':') return take_part(rest + 1, strlen(rest + 1), r->type) ? 0 : refuse(whole, e);
    if (*rest == 0) return 0;
    if (strlen(rest + 1) > REFERENCE_FILE_MAX)
        return err_set(e, ERR_LIMIT, "%.60s...: the name of the file is too long", whole);
    if (!reference_is_file_path(rest + 1)) return refuse(whole, e);
    snprintf(r->file, sizeof r->file, "%s", rest + 1);
    return 0;
}

/* The page that shows a file is what people copy from a browser. */
static void mend_page(const char *endpoint, char url[FETCH_URL_MAX])
{
    size_t n = strlen(endpoint);
    char rest[FETCH_URL_MAX];
    if (strncmp(url, endpoint, n) != 0 || url[n] != '/') return;
    char *blob = strstr(url + n, "/blob/");
    if (!blob || strlen(url) + 3 >= FETCH_URL_MAX) return;
    snprintf(rest, sizeof rest, "%s", blob + strlen("/blob/"));
    rest[strcspn(rest, "?#")] = 0;
    snprintf(blob, FETCH_URL_MAX - (size_t)(blob - url), "/resolve/%s", rest);
}

int reference_parse(const char *text, const char *endpoint, struct reference *ret_reference,
                    struct err *e)
{
    struct reference *r = ret_reference;
    *r = (struct reference){0};
    if (strncmp(text, "hf:", 3) == 0) return parse_hub(text, text + 3, r, e);
    if (strncasecmp(text, "http://", 7) != 0 && strncasecmp(text, "https://", 8) != 0)
        return refuse(text, e);
    if (strlen(text) >= FETCH_URL_MAX)
        return err_set(e, ERR_LIMIT, "the URL '%.60s...' is too long", text);
    snprintf(r->url, sizeof r->url, "%s", text);
    mend_page(endpoint, r->url);
    return 0;
}

/* "OWNER/NAME" below the hub, and what a browser adds to it. */
void reference_take_page(struct reference *r, const char *endpoint)
{
    static const char tree[] = "/tree/main";
    const char *url = r->url;
    struct reference page = {.hub = true};
    size_t n = strlen(endpoint), k = strcspn(url, "?#"), t = sizeof tree - 1;
    if (r->hub || strncmp(url, endpoint, n) != 0 || url[n] != '/') return;
    while (k > n + 1 && url[k - 1] == '/')
        k--;
    if (k > n + t && strncmp(url + k - t, tree, t) == 0) k -= t;
    const char *owner = url + n + 1, *end = url + k;
    size_t len = strcspn(owner, "/");
    if (owner + len >= end || !take_part(owner, len, page.owner)) return;
    const char *name = owner + len + 1;
    size_t m = (size_t)(end - name);
    if (take_part(name, m, page.name) && !ends_as_gguf(name, m)) *r = page;
}

int reference_file_url(const struct reference *r, const char *endpoint, const char *file,
                       char ret_url[FETCH_URL_MAX], struct err *e)
{
    int n = snprintf(ret_url, FETCH_URL_MAX, "%s/%s/%s%s", endpoint, r->owner, r->name, resolve);
    size_t len = n > 0 ? (size_t)n : FETCH_URL_MAX;
    for (const char *at = file; len < FETCH_URL_MAX;) {
        size_t k = strcspn(at, "/");
        char *escaped = k ? curl_easy_escape(NULL, at, (int)k) : NULL;
        int m = snprintf(ret_url + len, FETCH_URL_MAX - len, "%s%s", escaped ? escaped : "",
                         at[k] ? "/" : "");
        curl_free(escaped);
        len += m > 0 ? (size_t)m : FETCH_URL_MAX;
        if (!at[k]) break;
        at += k + 1;
    }
    if (len < FETCH_URL_MAX) return 0;
    return err_set(e, ERR_LIMIT, "%.60s...: the name of the file is too long", file);
}

/* Marks that turn the direction of writing: a name would be shown as another one. */
static bool turns(const char *at)
{
    unsigned char third = (unsigned char)(at[1] ? at[2] : 0);
    return (strncmp(at, "\xe2\x80", 2) == 0 && third >= 0xaa && third <= 0xae) ||
           (strncmp(at, "\xe2\x81", 2) == 0 && third >= 0xa6 && third <= 0xa9);
}

/* The part of a download, and what is kept beside it. */
static bool is_taken(const char *name, size_t n)
{
    static const char part[] = ".gguf.part";
    size_t k = sizeof part - 1, t = sizeof tail - 1;
    return n > k + t && strncasecmp(name + n - t - k, part, k) == 0;
}

bool reference_is_file_name(const char *name)
{
    size_t n = strlen(name);
    bool ok = n > 0 && n <= REFERENCE_NAME_MAX && name[0] != '.' && name[0] != '-' &&
              utf8_valid_prefix(name, n) == n && ends_as_gguf(name, n) && !is_taken(name, n);
    for (size_t i = 0; ok && i < n; i++)
        ok = utf8_control(name + i, n - i) == 0 && !turns(name + i) && name[i] != '/' &&
             name[i] != '\\';
    return ok;
}

bool reference_is_file_path(const char *path)
{
    size_t n = strlen(path), k;
    if (n > REFERENCE_FILE_MAX || utf8_valid_prefix(path, n) != n) return false;
    for (size_t i = 0; i < n; i++)
        if (utf8_control(path + i, n - i) || turns(path + i)) return false;
    for (const char *at = path;; at += k + 1) {
        k = strcspn(at, "/");
        if (!at[k]) return reference_is_file_name(at);
        if (k == 0 || (k <= 2 && strncmp(at, "..", k) == 0)) return false;
    }
}

int reference_file_name(const char *url, char ret_name[REFERENCE_NAME_MAX + 1], struct err *e)
{
    size_t n = strcspn(url, "?#"), from = n;
    int decoded = 0;
    while (from > 0 && url[from - 1] != '/')
        from--;
    char *name = curl_easy_unescape(NULL, url + from, (int)(n - from), &decoded);
    size_t len = decoded > 0 ? (size_t)decoded : 0;
    bool ok = name && strlen(name) == len && reference_is_file_name(name);
    if (ok) /* the end in lower case: the reader of split models looks for that */
        snprintf(ret_name, REFERENCE_NAME_MAX + 1, "%.*s%s", (int)(len - (sizeof tail - 1)), name,
                 tail);
    curl_free(name);
    if (ok) return 0;
    return err_set(e, ERR_BAD_INPUT,
                   "\"%.*s\" is no name of a model's file, which ends in .gguf: give one by --as "
                   "NAME",
                   (int)(n - from < 150 ? n - from : 150), url + from);
}

static size_t digits_before(const char *text, size_t end)
{
    size_t n = 0;
    while (n < end && text[end - n - 1] >= '0' && text[end - n - 1] <= '9')
        n++;
    return n;
}

bool reference_part(const char *name, struct reference_part *ret_part)
{
    size_t n = strlen(name), t = sizeof tail - 1, m = sizeof middle - 1;
    if (!ends_as_gguf(name, n)) return false;
    size_t count_digits = digits_before(name, n - t), count_at = n - t - count_digits;
    if (count_digits == 0 || count_digits > 9 || count_at <= m ||
        memcmp(name + count_at - m, middle, m) != 0)
        return false;
    size_t digits = digits_before(name, count_at - m), at = count_at - m - digits;
    if (digits == 0 || digits > 9 || at < 2 || name[at - 1] != '-') return false;
    struct reference_part p = {(uint32_t)strtoul(name + at, NULL, 10),
                               (uint32_t)strtoul(name + count_at, NULL, 10), at, digits, at - 1};
    if (p.no < 1 || p.no > p.count || p.count > GGUF_PARTS_MAX) return false;
    *ret_part = p;
    return true;
}

int reference_of_part(const char *name, const struct reference_part *part, uint32_t no,
                      char *ret_name, size_t size, struct err *e)
{
    int n = snprintf(ret_name, size, "%.*s%0*u%s", (int)part->at, name, (int)part->digits, no,
                     name + part->at + part->digits);
    if (n > 0 && (size_t)n < size) return 0;
    return err_set(e, ERR_LIMIT, "%.60s...: the name of a part is too long", name);
}

void reference_stem(const char *file_name, char ret_stem[REFERENCE_NAME_MAX + 1])
{
    struct reference_part part;
    size_t n = strlen(file_name);
    size_t len = reference_part(file_name, &part) ? part.stem
                 : ends_as_gguf(file_name, n)     ? n - (sizeof tail - 1)
                                                  : n;
    snprintf(ret_stem, REFERENCE_NAME_MAX + 1, "%.*s", (int)len, file_name);
}
