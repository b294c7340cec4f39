/* http_parse: see http_parse.h. Sources: RFC 9110, RFC 9112. */
#include "net/http_parse.h"

#include <string.h>
#include <strings.h>

#include "base/err.h"
#include "base/hex.h"

static bool token_char(unsigned char c)
{
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return true;
    return c && strchr("!#$%&'*+-.^_`|~", c);
}

size_t http_head_length(const char *text, size_t n)
{
    /* Bare LFs count as line ends here, so that such a head is found, parsed and refused at once
     * instead of waiting for more of it. */
    for (const char *at = text, *end = text + n;
         (at = memchr(at, '\n', (size_t)(end - at))) != NULL;) {
        at++;
        if (at < end && *at == '\n') return (size_t)(at + 1 - text);
        if (at + 1 < end && at[0] == '\r' && at[1] == '\n') return (size_t)(at + 2 - text);
    }
    return 0;
}

static int refuse(int status, const char *why, const char **ret_why)
{
    *ret_why = why;
    return status;
}

/* The path of "http://authority/path" (RFC 9112, 3.2.2); others stay as they are. The authority
 * moves a byte to the front, to make room for its end. NULL: it is empty, or holds a user. */
static char *split_authority(char *target, struct http_head *h)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        size_t n = strlen(schemes[i]), len;
        if (strncasecmp(target, schemes[i], n) != 0) continue;
        len = strcspn(target + n, "/?");
        if (len == 0 || memchr(target + n, '@', len)) return NULL;
        h->authority = memmove(target + n - 1, target + n, len);
        target[n - 1 + len] = 0;
        return target + n + len;
    }
    return target;
}

/* "METHOD /target HTTP/1.x" */
static int parse_request_line(char *line, struct http_head *h, const char **ret_why)
{
    size_t n = 0;
    while (token_char((unsigned char)line[n]))
        n++;
    if (n == 0 || line[n] != ' ')
        return refuse(400, "the request line does not begin with a method", ret_why);
    if (n >= HTTP_METHOD_MAX) return refuse(501, "the method is not one that we know", ret_why);
    memcpy(h->method, line, n);
    h->method[n] = 0;
    char *target = line + n + 1, *end = target;
    while ((unsigned char)*end > ' ' && (unsigned char)*end < 0x7f && *end != '#')
        end++;
    if (*end != ' ')
        return refuse(400, "the request target must be a path of printable ASCII", ret_why);
    if (strncmp(end + 1, "HTTP/", 5) != 0)
        return refuse(400, "the request line does not end in an HTTP version", ret_why);
    if (strcmp(end + 1, "HTTP/1.1") != 0 && strcmp(end + 1, "HTTP/1.0") != 0)
        return refuse(505, "only HTTP/1.1 and HTTP/1.0 are supported", ret_why);
    h->minor = end[8] - '0';
    *end = 0;
    target = split_authority(target, h);
    bool bare = target && h->authority && *target != '/'; /* it has no path */
    if (!target || (*target != '/' && !bare))
        return refuse(400, "the request target must be a path of printable ASCII", ret_why);
    char *query = strchr(target, '?');
    if (query) *query++ = 0;
    h->path = bare ? "/" : target;
    h->query = query ? query : "";
    return 0;
}

static int parse_field(char *line, struct http_head *h, const char **ret_why)
{
    size_t n = 0;
    while (token_char((unsigned char)line[n]))
        n++;
    if (n == 0 || line[n] != ':') return refuse(400, "a header line is not 'name: value'", ret_why);
    if (h->n_fields == HTTP_FIELDS_MAX) return refuse(431, "there are too many headers", ret_why);
    line[n] = 0;
    char *value = line + n + 1;
    value += strspn(value, " \t");
    size_t len = strlen(value);
    while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t'))
        len--;
    value[len] = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)value[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return refuse(400, "a header value holds control characters", ret_why);
    }
    h->fields[h->n_fields++] = (struct http_field){line, value};
    return 0;
}

/* Is `word` an element of the comma-separated list? */
static bool list_has(const char *list, const char *word)
{
    size_t n = strlen(word);
    while (*list) {
        list += strspn(list, " \t,");
        size_t len = strcspn(list, ",");
        size_t bare = len;
        while (bare > 0 && (list[bare - 1] == ' ' || list[bare - 1] == '\t'))
            bare--;
        if (bare == n && strncasecmp(list, word, n) == 0) return true;
        list += len;
    }
    return false;
}

static int take_content_length(const char *value, struct http_head *h, const char **ret_why)
{
    size_t n = strspn(value, "0123456789");
    if (n == 0 || n > 18 || value[n])
        return refuse(400, "Content-Length is not a plain number", ret_why);
    h->content_length = 0;
    for (size_t i = 0; i < n; i++)
        h->content_length = h->content_length * 10 + (uint64_t)(value[i] - '0');
    return 0;
}

/* The fields that decide where the request ends and what happens to its connection. */
static int take_framing(struct http_head *h, const char **ret_why)
{
    uint32_t lengths = 0, codings = 0, hosts = 0;
    int status = 0;
    h->keep_alive = h->minor == 1;
    for (uint32_t i = 0; i < h->n_fields && !status; i++) {
        const char *name = h->fields[i].name, *value = h->fields[i].value;
        if (strcasecmp(name, "Content-Length") == 0) {
            lengths++;
            status = take_content_length(value, h, ret_why);
        } else if (strcasecmp(name, "Transfer-Encoding") == 0) {
            codings++;
            h->chunked = strcasecmp(value, "chunked") == 0;
            if (!h->chunked)
                status = refuse(501, "chunked is the only transfer coding supported", ret_why);
        } else if (strcasecmp(name, "Host") == 0) {
            hosts++;
            if (h->authority && strcasecmp(value, h->authority) != 0)
                status = refuse(400, "the request target and Host name different hosts", ret_why);
        } else if (strcasecmp(name, "Connection") == 0) {
            if (list_has(value, "close"))
                h->keep_alive = false;
            else if (h->minor == 0 && list_has(value, "keep-alive"))
                h->keep_alive = true;
        } else if (strcasecmp(name, "Expect") == 0) {
            h->expects_continue = strcasecmp(value, "100-continue") == 0;
            if (!h->expects_continue)
                status = refuse(417, "the only expectation supported is 100-continue", ret_why);
        }
    }
    if (status) return status;
    if (lengths && codings)
        return refuse(400, "Content-Length and Transfer-Encoding exclude each other", ret_why);
    if (lengths > 1 || codings > 1)
        return refuse(400, "Content-Length or Transfer-Encoding is given twice", ret_why);
    if (codings && h->minor == 0) return refuse(400, "HTTP/1.0 has no transfer codings", ret_why);
    if (hosts > 1 || (hosts == 0 && h->minor == 1))
        return refuse(400, "there must be exactly one Host header", ret_why);
    return 0;
}

int http_head_parse(char *text, size_t n, struct http_head *ret_head, const char **ret_why)
{
    struct http_head *h = ret_head;
    h->path = h->query = "";
    h->authority = NULL;
    h->method[0] = 0;
    h->minor = 1;
    h->n_fields = 0;
    h->content_length = 0;
    h->chunked = h->keep_alive = h->expects_continue = false;
    if (memchr(text, 0, n)) return refuse(400, "the head holds a zero byte", ret_why);
    bool first = true;
    for (char *line = text, *end = text + n; line < end;) {
        char *lf = memchr(line, '\n', (size_t)(end - line));
        if (!lf || lf == line || lf[-1] != '\r')
            return refuse(400, "a line of the head does not end in CRLF", ret_why);
        lf[-1] = 0;
        if (memchr(line, '\r', (size_t)(lf - 1 - line)))
            return refuse(400, "the head holds a CR inside a line", ret_why);
        if (lf - 1 == line) break; /* the empty line: the end */
        int status = first ? parse_request_line(line, h, ret_why) : parse_field(line, h, ret_why);
        if (status) return status;
        first = false;
        line = lf + 1;
    }
    if (first) return refuse(400, "the request line is empty", ret_why);
    return take_framing(h, ret_why);
}

const char *http_head_field(const struct http_head *h, const char *name)
{
    for (uint32_t i = 0; i < h->n_fields; i++)
        if (strcasecmp(h->fields[i].name, name) == 0) return h->fields[i].value;
    return NULL;
}

static void next_chunk_state(struct http_chunked *c, enum http_chunk_state state)
{
    c->state = state;
    c->line_len = 0;
    c->any_digit = c->in_extension = c->cr = false;
}

/* One character of "size[;extension]CRLF". */
static int take_size_char(struct http_chunked *c, char ch)
{
    if (++c->line_len > HTTP_CHUNK_LINE_MAX) return 400;
    if (c->cr) {
        if (ch != '\n') return 400;
        next_chunk_state(c, c->left > 0 ? HTTP_CHUNK_DATA : HTTP_CHUNK_TRAILER);
        return 0;
    }
    int digit = hex_digit(ch);
    if (ch == '\r' && c->any_digit) {
        c->cr = true;
    } else if (c->in_extension) {
        if ((unsigned char)ch < 0x20 && ch != '\t') return 400;
    } else if (digit >= 0) {
        if (c->left >> 56) return 400;
        c->left = c->left << 4 | (unsigned)digit;
        c->any_digit = true;
    } else if (ch == ';' && c->any_digit) {
        c->in_extension = true;
    } else {
        return 400;
    }
    return 0;
}

/* The CRLF after a chunk's data. */
static int take_data_end(struct http_chunked *c, char ch)
{
    if (!c->cr && ch == '\r') {
        c->cr = true;
    } else if (c->cr && ch == '\n') {
        next_chunk_state(c, HTTP_CHUNK_SIZE);
        c->left = 0;
    } else {
        return 400;
    }
    return 0;
}

/* Trailer lines are skipped, up to the empty one. */
static int take_trailer_char(struct http_chunked *c, char ch)
{
    if (++c->trailer_len > HTTP_TRAILER_MAX) return 400;
    if (c->cr) {
        if (ch != '\n') return 400;
        if (c->line_len == 0)
            c->state = HTTP_CHUNK_DONE;
        else
            next_chunk_state(c, HTTP_CHUNK_TRAILER);
    } else if (ch == '\r') {
        c->cr = true;
    } else if ((unsigned char)ch < 0x20 && ch != '\t') {
        return 400;
    } else {
        c->line_len++;
    }
    return 0;
}

int http_chunked_feed(struct http_chunked *c, const char *data, size_t n, struct buf *body,
                      size_t *ret_used)
{
    size_t i = 0;
    int status = 0;
    while (i < n && !status && c->state != HTTP_CHUNK_DONE) {
        if (c->state == HTTP_CHUNK_DATA) {
            size_t take = n - i < c->left ? n - i : (size_t)c->left;
            if (buf_append(body, data + i, take)) return 413;
            i += take;
            c->left -= take;
            if (c->left == 0) next_chunk_state(c, HTTP_CHUNK_DATA_END);
            continue;
        }
        char ch = data[i++];
        if (c->state == HTTP_CHUNK_SIZE)
            status = take_size_char(c, ch);
        else if (c->state == HTTP_CHUNK_DATA_END)
            status = take_data_end(c, ch);
        else
            status = take_trailer_char(c, ch);
    }
    if (c->state == HTTP_CHUNK_DATA && c->left > body->max - body->len) return 413;
    *ret_used = i;
    return status;
}

const char *http_status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } texts[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].status == status) return texts[i].text;
    return "Status";
}
