/* fetch: see fetch.h. curl follows no redirect itself: each hop is checked here, and only the first
 * server's hops get the token. */
#include "hub/fetch.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/http_ca.h"
#include "net/http_curl.h"
#include "net/http_url.h"

enum {
    CONNECT_MS = 15000,
    STALL_S = 30,
    REDIRECT_BODY_MAX = 64 * 1024,
    HEAD_US = 120000000,
    TEXT_US = 600000000,
    FIRST_WAIT_US = 1000000,
    WAIT_STEP_US = 50000
};

struct fetch {
    struct fetch_options o;
    CURL *easy;
    char first[FETCH_URL_MAX], url[FETCH_URL_MAX];
    char location[FETCH_URL_MAX];
    char curl_error[CURL_ERROR_SIZE];
    const struct fetch_call *call;
    struct fetch_head head;
    size_t head_bytes, passed; /* passed: of a body that nobody wants */
    struct buf error_body;
    bool head_ended, head_told, enough, final, too_long, late;
    bool location_cut;
    uint64_t head_until_us, text_until_us; /* text: 0 for a body of any size */
    struct err failed;                     /* of a callback */
};

/* ---- URLs ---- */

void fetch_plain_url(const char *url, char *ret_text, size_t size)
{
    const char *scheme = strstr(url, "://");
    const char *host = scheme ? scheme + 3 : url;
    size_t authority = strcspn(host, "/?#"), user = 0;
    for (size_t i = 0; scheme && i < authority; i++)
        if (host[i] == '@') user = i + 1;
    snprintf(ret_text, size, "%.*s%.*s", (int)(host - url), url, (int)strcspn(host + user, "?#"),
             host + user);
}

/* "scheme://host:port", lower case, with the scheme's own port where none is given. */
static bool origin_of(const char *url, char *ret_origin, size_t size)
{
    CURLU *u = curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL;
    bool ok = u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK;
    if (ok) {
        int n = snprintf(ret_origin, size, "%s://%s:%s", scheme, host, port);
        ok = n > 0 && (size_t)n < size;
        for (char *at = ret_origin; ok && *at; at++)
            if (*at >= 'A' && *at <= 'Z') *at = (char)(*at - 'A' + 'a');
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(u);
    return ok;
}

static bool same_origin(const char *a, const char *b)
{
    char of_a[FETCH_URL_MAX], of_b[FETCH_URL_MAX];
    return origin_of(a, of_a, sizeof of_a) && origin_of(b, of_b, sizeof of_b) &&
           strcmp(of_a, of_b) == 0;
}

static bool has_scheme(const char *url, const char *scheme)
{
    size_t n = strlen(scheme);
    return strncasecmp(url, scheme, n) == 0 && strncmp(url + n, "://", 3) == 0;
}

/* A link that no router leaves; clouds give the secrets of a machine at 169.254.169.254. */
static bool is_link_local(const char *url)
{
    CURLU *u = curl_url();
    char *host = NULL;
    struct in_addr four;
    struct in6_addr six;
    char inner[INET6_ADDRSTRLEN] = "";
    if (u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK)
        curl_url_get(u, CURLUPART_HOST, &host, 0);
    bool link = host && inet_pton(AF_INET, host, &four) == 1 &&
                ntohl(four.s_addr) >> 16 == (169u << 8 | 254u);
    if (host && sscanf(host, "[%45[0-9a-fA-F:.]", inner) == 1 &&
        inet_pton(AF_INET6, inner, &six) == 1)
        link = IN6_IS_ADDR_LINKLOCAL(&six) ||
               (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == 169 && six.s6_addr[13] == 254);
    curl_free(host);
    curl_url_cleanup(u);
    return link;
}

bool fetch_may_redirect(const char *first, const char *next)
{
    bool from_here = http_url_is_local(first);
    if (is_link_local(next)) return from_here || is_link_local(first);
    return from_here || !http_url_is_local(next);
}

/* `to` may be relative to `base`. */
static int resolve_url(const char *base, const char *to, char ret_url[FETCH_URL_MAX], struct err *e)
{
    char shown[FETCH_URL_MAX];
    CURLU *u = curl_url();
    char *whole = NULL, *user = NULL;
    int code = 0;
    fetch_plain_url(to, shown, sizeof shown);
    bool ok = u && (!base || curl_url_set(u, CURLUPART_URL, base, 0) == CURLUE_OK) &&
              curl_url_set(u, CURLUPART_URL, to, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
              curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_URL, &whole, 0) == CURLUE_OK;
    if (!ok || !(has_scheme(whole, "http") || has_scheme(whole, "https")))
        code = err_set(e, ERR_BAD_INPUT, "'%.200s' is no http or https URL", shown);
    else if (curl_url_get(u, CURLUPART_USER, &user, 0) != CURLUE_NO_USER)
        code = err_set(e, ERR_BAD_INPUT,
                       "a URL with a user name is not taken: give the key by --token-file");
    else if (strlen(whole) >= FETCH_URL_MAX)
        code = err_set(e, ERR_LIMIT, "the URL '%.60s...' is too long", shown);
    else
        snprintf(ret_url, FETCH_URL_MAX, "%s", whole);
    curl_free(whole);
    curl_free(user);
    curl_url_cleanup(u);
    return code;
}

/* ---- what curl delivers ---- */

static bool has_name(const char *line, size_t n, const char *name)
{
    size_t k = strlen(name);
    return n > k && strncasecmp(line, name, k) == 0 && line[k] == ':';
}

/* The value of a header line that has this name, copied without white space at its ends. */
static bool take_value(const char *line, size_t n, const char *name, char *ret_value, size_t size)
{
    size_t k = strlen(name);
    if (!has_name(line, n, name)) return false;
    const char *at = line + k + 1, *end = line + n;
    while (at < end && (*at == ' ' || *at == '\t'))
        at++;
    while (end > at && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' '))
        end--;
    if ((size_t)(end - at) >= size) {
        *ret_value = 0;
        return false;
    }
    memcpy(ret_value, at, (size_t)(end - at));
    ret_value[end - at] = 0;
    return true;
}

static uint64_t read_count(const char *text)
{
    char *end;
    if (*text < '0' || *text > '9') return FETCH_UNKNOWN;
    unsigned long long v = strtoull(text, &end, 10);
    return *end ? FETCH_UNKNOWN : v;
}

/* "bytes 5-9/10"; "*" stands for a size that the server does not know, and with status 416 for the
 * range. */
static void read_range(const char *text, struct fetch_head *head)
{
    unsigned long long from, to;
    char after;
    const char *slash = strchr(text, '/');
    if (strncasecmp(text, "bytes ", 6) != 0 || !slash) return;
    head->range_of = read_count(slash + 1);
    if (sscanf(text + 6, "%llu-%llu%c", &from, &to, &after) == 3 && after == '/' && from <= to &&
        to < head->range_of)
        head->range_from = from;
}

static void take_fields(struct fetch *f, const char *line, size_t n)
{
    struct fetch_head *h = &f->head;
    char value[FETCH_TAG_MAX];
    take_value(line, n, "ETag", h->etag, sizeof h->etag);
    take_value(line, n, "Last-Modified", h->modified, sizeof h->modified);
    take_value(line, n, "Content-Type", h->type, sizeof h->type);
    take_value(line, n, "Content-Encoding", h->encoding, sizeof h->encoding);
    take_value(line, n, "X-Error-Message", h->why, sizeof h->why);
    if (has_name(line, n, "Location"))
        f->location_cut = !take_value(line, n, "Location", f->location, sizeof f->location);
    if (take_value(line, n, "Content-Length", value, sizeof value)) h->length = read_count(value);
    if (take_value(line, n, "Content-Range", value, sizeof value)) read_range(value, h);
    if (take_value(line, n, "Retry-After", value, sizeof value)) {
        uint64_t s = read_count(value);
        h->retry_after_s = s == FETCH_UNKNOWN ? 0 : s < 3600 ? (uint32_t)s : 3600;
    }
    if (!h->first_server) return;
    take_value(line, n, "X-Linked-ETag", h->linked_tag, sizeof h->linked_tag);
    if (take_value(line, n, "X-Linked-Size", value, sizeof value))
        h->linked_size = read_count(value);
}

static size_t take_header(char *data, size_t size, size_t n, void *arg)
{
    struct fetch *f = arg;
    size_t len = size * n;
    f->head_bytes += len;
    if (f->head_bytes > FETCH_HEAD_MAX) {
        f->too_long = true;
        return 0;
    }
    if (len > 5 && memcmp(data, "HTTP/", 5) == 0) { /* also after an interim response */
        f->head.length = f->head.range_from = f->head.range_of = FETCH_UNKNOWN;
        f->head.etag[0] = f->head.modified[0] = f->head.type[0] = f->head.encoding[0] = 0;
        f->location[0] = 0;
    }
    f->head_ended = len <= 2 && (data[0] == '\r' || data[0] == '\n');
    take_fields(f, data, len);
    return len;
}

static bool is_redirect(int status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* Once, before the first byte of the body or at its end without one. */
static int tell_head(struct fetch *f)
{
    if (f->head_told) return f->failed.code;
    long status = 0;
    curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
    f->head.status = (int)status;
    f->head_told = true;
    if (status >= 200 && status < 300 && f->call->on_head) {
        int code = f->call->on_head(f->call->arg, &f->head, &f->failed);
        if (code && !f->failed.code) f->failed.code = code;
    }
    return f->failed.code;
}

static size_t take_body(char *data, size_t size, size_t n, void *arg)
{
    struct fetch *f = arg;
    size_t len = size * n;
    if (tell_head(f)) return len + 1;
    if (f->head.status >= 300) {
        size_t room = f->error_body.max - f->error_body.len;
        buf_append(&f->error_body, data, len < room ? len : room);
        f->passed += len;
        f->enough = f->passed > REDIRECT_BODY_MAX;
        return f->enough ? len + 1 : len;
    }
    if (f->call->on_body && f->call->on_body(f->call->arg, data, len, &f->failed)) return len + 1;
    return len;
}

static int check_stop(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    struct fetch *f = arg;
    (void)a, (void)b, (void)c, (void)d;
    if (f->o.stopped && f->o.stopped(f->o.arg)) return 1;
    /* A byte now and then keeps curl's own limit from noticing. */
    uint64_t until = f->head_told ? f->text_until_us : f->head_until_us;
    f->late = until && clock_us() > until;
    return f->late;
}

/* ---- a call ---- */

static bool add_header(struct curl_slist **list, const char *name, const char *value)
{
    char line[FETCH_URL_MAX];
    int n = snprintf(line, sizeof line, "%s: %s", name, value);
    struct curl_slist *longer =
        n > 0 && (size_t)n < sizeof line ? curl_slist_append(*list, line) : NULL;
    if (longer) *list = longer;
    return longer != NULL;
}

static bool set_options(struct fetch *f, struct curl_slist *headers)
{
    CURL *h = f->easy;
    curl_easy_reset(h);
    bool ok = http_curl_set(
        h, &(struct http_curl){.url = f->url,
                               .headers = headers,
                               .ca_file = f->o.ca_file,
                               .error = f->curl_error,
                               .connect_ms = f->o.connect_ms ? f->o.connect_ms : CONNECT_MS,
                               .is_local = http_url_is_local(f->url)});
#define SET(option, value) ok = ok && curl_easy_setopt(h, option, value) == CURLE_OK
    SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
    SET(CURLOPT_LOW_SPEED_TIME, (long)(f->o.stall_s ? f->o.stall_s : STALL_S));
    SET(CURLOPT_HEADERFUNCTION, take_header);
    SET(CURLOPT_HEADERDATA, f);
    SET(CURLOPT_WRITEFUNCTION, take_body);
    SET(CURLOPT_WRITEDATA, f);
    SET(CURLOPT_NOPROGRESS, 0L);
    SET(CURLOPT_XFERINFOFUNCTION, check_stop);
    SET(CURLOPT_XFERINFODATA, f);
    SET(CURLOPT_BUFFERSIZE, 256L * 1024);
#undef SET
    return ok;
}

static bool add_headers(struct fetch *f, struct curl_slist **list)
{
    bool ok = true;
    if (f->call->range) ok = ok && add_header(list, "Range", f->call->range);
    if (f->call->if_range) ok = ok && add_header(list, "If-Range", f->call->if_range);
    if (f->o.token && f->head.first_server && !http_url_exposes(f->url)) {
        char bearer[FETCH_URL_MAX];
        int n = snprintf(bearer, sizeof bearer, "Bearer %s", f->o.token);
        ok = ok && n > 0 && (size_t)n < sizeof bearer && add_header(list, "Authorization", bearer);
    }
    return ok;
}

static const struct {
    CURLcode curl;
    int code;
    bool final;
    const char *sentence;
} curl_failures[] = {
    {CURLE_COULDNT_RESOLVE_HOST, ERR_NET, true, "its name cannot be resolved"},
    {CURLE_COULDNT_RESOLVE_PROXY, ERR_NET, true, "the name of the proxy cannot be resolved"},
    {CURLE_COULDNT_CONNECT, ERR_NET, true, "no connection can be made"},
    {CURLE_OPERATION_TIMEDOUT, ERR_TIMEOUT, false, "nothing comes any more"},
    {CURLE_PEER_FAILED_VERIFICATION, ERR_NET, true,
     "its certificate cannot be verified: --ca-file names another authority"},
    {CURLE_SSL_CONNECT_ERROR, ERR_NET, true, "the TLS handshake failed"},
    {CURLE_SSL_CACERT_BADFILE, ERR_NET, true, "the file of trusted certificates cannot be read"},
    {CURLE_PARTIAL_FILE, ERR_NET, false, "the connection was cut in the middle of the response"},
    {CURLE_WEIRD_SERVER_REPLY, ERR_PROTOCOL, true, "the response is not HTTP"},
    {CURLE_UNSUPPORTED_PROTOCOL, ERR_PROTOCOL, true, "the response is not HTTP/1.1"},
    {CURLE_OUT_OF_MEMORY, ERR_NO_MEMORY, true, "there is no memory for it"},
};

static int tell_failure(struct fetch *f, CURLcode code, struct err *e)
{
    char shown[FETCH_URL_MAX];
    const char *detail = f->curl_error[0] ? f->curl_error : curl_easy_strerror(code);
    fetch_plain_url(f->url, shown, sizeof shown);
    if (f->failed.code) return err_set(e, f->failed.code, "%s", f->failed.text);
    if (f->late) return err_set(e, ERR_TIMEOUT, "%.200s: the response comes too slowly", shown);
    if (code == CURLE_ABORTED_BY_CALLBACK) return err_set(e, ERR_CANCELLED, "stopped");
    /* curl calls a line of the head that is too long for it a lack of memory */
    if (f->too_long || (code == CURLE_OUT_OF_MEMORY && f->head.status == 0 && f->head_bytes))
        return err_set(e, ERR_LIMIT, "%.200s: more than %d bytes of headers", shown,
                       FETCH_HEAD_MAX);
    for (size_t i = 0; i < sizeof curl_failures / sizeof *curl_failures; i++) {
        if (curl_failures[i].curl != code) continue;
        f->final = curl_failures[i].final;
        return err_set(e, curl_failures[i].code, "%.200s: %s (%s)", shown,
                       curl_failures[i].sentence, detail);
    }
    return err_set(e, ERR_NET, "%.200s: %s", shown, detail);
}

/* What an error's body says: {"error": "text"} or {"error": {"message": "text"}}. */
static void read_why(struct fetch *f)
{
    if (f->head.why[0] || f->error_body.len == 0) return;
    json_t *all = json_loadb(f->error_body.data, f->error_body.len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *error = json_object_get(all, "error");
    const char *text = json_string_value(error);
    if (!text) text = json_string_value(json_object_get(error, "message"));
    snprintf(f->head.why, sizeof f->head.why, "%s", text ? text : "");
    json_decref(all);
}

static int tell_status(struct fetch *f, struct err *e)
{
    char shown[FETCH_URL_MAX];
    int s = f->head.status, code = s >= 400 && s < 500 ? ERR_BAD_INPUT : ERR_PROTOCOL;
    fetch_plain_url(f->url, shown, sizeof shown);
    read_why(f);
    if (s == 401 || s == 403) code = ERR_DENIED;
    if (s == 404 || s == 410) code = ERR_NOT_FOUND;
    if (s == 408 || s == 429 || s >= 500) code = ERR_BUSY;
    return err_set(e, code, "%.200s: the server answers %d%s%.200s", shown, s,
                   f->head.why[0] ? ": " : "", f->head.why);
}

/* One request. 0: a response came, f->head has its status. */
static int ask(struct fetch *f, struct err *e)
{
    struct curl_slist *headers = NULL;
    struct fetch_head before = f->head;
    f->head = (struct fetch_head){.length = FETCH_UNKNOWN,
                                  .range_from = FETCH_UNKNOWN,
                                  .range_of = FETCH_UNKNOWN,
                                  .linked_size = before.linked_size};
    memcpy(f->head.linked_tag, before.linked_tag, sizeof f->head.linked_tag);
    f->head.first_server = same_origin(f->first, f->url);
    f->head_bytes = f->passed = 0;
    f->head_ended = f->head_told = f->enough = f->final = f->too_long = f->late = false;
    f->location_cut = false;
    f->head_until_us = clock_us() + (f->o.head_us ? f->o.head_us : HEAD_US);
    f->location[0] = f->curl_error[0] = 0;
    f->failed = (struct err)ERR_INIT;
    buf_clear(&f->error_body);
    if (!add_headers(f, &headers) || !set_options(f, headers)) {
        curl_slist_free_all(headers);
        return err_set(e, ERR_NO_MEMORY, "no memory for a request, or its token is too long");
    }
    char shown[FETCH_URL_MAX];
    CURLcode code = curl_easy_perform(f->easy);
    curl_slist_free_all(headers);
    fetch_plain_url(f->url, shown, sizeof shown);
    /* curl takes a head that a close cuts off for a whole one */
    if (code == CURLE_OK && f->head_ended) tell_head(f);
    if ((code == CURLE_OK || f->enough) && !f->failed.code) {
        if (f->head.status >= 200 && f->head_ended) return 0;
        return err_set(e, ERR_NET, "%.200s: the connection was cut in the head of the response",
                       shown);
    }
    return tell_failure(f, code, e);
}

static int follow(struct fetch *f, struct err *e)
{
    char next[FETCH_URL_MAX], shown[FETCH_URL_MAX];
    fetch_plain_url(f->url, shown, sizeof shown);
    if (f->location_cut)
        return err_set(e, ERR_LIMIT, "%.200s redirects to a URL of more than %d bytes", shown,
                       FETCH_URL_MAX - 1);
    if (!f->location[0])
        return err_set(e, ERR_PROTOCOL, "%.200s: the server answers %d, but not to where", shown,
                       f->head.status);
    int code = resolve_url(f->url, f->location, next, e);
    if (code) {
        err_prefix(e, "%.200s redirects", shown);
        return code;
    }
    if (has_scheme(f->url, "https") && has_scheme(next, "http"))
        return err_set(e, ERR_PROTOCOL,
                       "%.200s redirects from https to http, which anybody on the way can change",
                       shown);
    if (!fetch_may_redirect(f->first, next)) {
        char target[FETCH_URL_MAX];
        fetch_plain_url(next, target, sizeof target);
        return err_set(e, ERR_PROTOCOL,
                       "%.200s redirects to %.200s: no server elsewhere may send requests to this "
                       "machine or its link",
                       shown, target);
    }
    memcpy(f->url, next, sizeof next);
    return 0;
}

int fetch_get(struct fetch *f, const struct fetch_call *call, struct fetch_head *ret_head,
              struct err *e)
{
    f->call = call;
    f->head = (struct fetch_head){.linked_size = FETCH_UNKNOWN};
    f->final = true; /* what fails before the first request */
    int code = resolve_url(NULL, call->url, f->first, e);
    memcpy(f->url, f->first, sizeof f->url);
    for (int hops = 0; code == 0; hops++) {
        if (hops > FETCH_HOPS_MAX) {
            code = err_set(e, ERR_PROTOCOL, "more than %d redirects", FETCH_HOPS_MAX);
            f->final = true;
            break;
        }
        code = ask(f, e);
        if (code || !is_redirect(f->head.status)) break;
        code = follow(f, e);
    }
    if (code == 0 && f->head.status >= 300) code = tell_status(f, e);
    *ret_head = f->head;
    return code;
}

bool fetch_at_first(const struct fetch *f)
{
    return f->head.first_server;
}

bool fetch_may_pass(const struct fetch *f, int code)
{
    return (code == ERR_NET || code == ERR_TIMEOUT || code == ERR_BUSY) && !f->final;
}

uint64_t fetch_wait_us(const struct fetch_head *head, uint64_t first_us, uint32_t failures)
{
    uint64_t us = (first_us ? first_us : FIRST_WAIT_US) << (failures < 6 ? failures : 6);
    uint64_t asked = head->retry_after_s * 1000000ull, most = FETCH_WAIT_MAX_S * 1000000ull;
    if (us < asked) us = asked;
    return us < most ? us : most;
}

int fetch_wait(const struct fetch *f, uint64_t us, struct err *e)
{
    uint64_t until = clock_us() + us;
    for (uint64_t now = clock_us(); now < until; now = clock_us()) {
        uint64_t step = until - now < WAIT_STEP_US ? until - now : WAIT_STEP_US;
        struct timespec t = {0, (long)step * 1000};
        if (f->o.stopped && f->o.stopped(f->o.arg)) return err_set(e, ERR_CANCELLED, "stopped");
        nanosleep(&t, NULL);
    }
    return 0;
}

static int keep_text(void *arg, const void *data, size_t n, struct err *e)
{
    struct buf *b = arg;
    int code = buf_append(b, data, n);
    return code ? err_set(e, code, "the response is larger than the %zu bytes allowed", b->max) : 0;
}

int fetch_text(struct fetch *f, const char *url, struct buf *body, struct fetch_head *ret_head,
               struct err *e)
{
    struct fetch_call call = {.url = url, .on_body = keep_text, .arg = body};
    f->text_until_us = clock_us() + TEXT_US;
    int code = fetch_get(f, &call, ret_head, e);
    f->text_until_us = 0;
    return code;
}

int fetch_open(const struct fetch_options *options, struct fetch **ret_fetch, struct err *e)
{
    for (const char *at = options->token; at && *at; at++)
        if ((unsigned char)*at <= ' ' || *at == 127)
            return err_set(e, ERR_BAD_INPUT, "the token holds a blank or a control character");
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return err_set(e, ERR_INTERNAL, "libcurl cannot be initialised");
    struct fetch *f = mem_calloc(1, sizeof *f);
    if (f) f->easy = curl_easy_init();
    if (!f || !f->easy) {
        mem_free(f);
        curl_global_cleanup();
        return err_set(e, ERR_NO_MEMORY, "no memory for a download");
    }
    f->o = *options;
    if (!f->o.ca_file) f->o.ca_file = http_ca_file();
    buf_init(&f->error_body, FETCH_ERROR_BODY_MAX);
    *ret_fetch = f;
    return 0;
}

void fetch_close(struct fetch *f)
{
    if (!f) return;
    curl_easy_cleanup(f->easy);
    buf_release(&f->error_body);
    mem_free(f);
    curl_global_cleanup();
}
