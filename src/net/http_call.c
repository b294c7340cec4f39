/* http_call: one call of the client: its options, what curl delivers, how errors are told. */
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/body_kind.h"
#include "net/http_client_impl.h"
#include "net/http_curl.h"

enum { RETRY_AFTER_MAX_S = 100000 };

static size_t take_header(char *data, size_t size, size_t n, void *arg)
{
    struct http_call *call = arg;
    size_t len = size * n;
    call->last_byte_us = clock_us();
    if (!call->result.first_byte_us) call->result.first_byte_us = call->last_byte_us;
    if (call->head_seen) return len;                                       /* trailers */
    if (len >= 5 && memcmp(data, "HTTP/", 5) == 0) buf_clear(&call->head); /* an interim response */
    if (buf_append(&call->head, data, len)) {
        call->overflow = true;
        return 0;
    }
    if (len > 2 || (data[0] != '\r' && data[0] != '\n')) return len;
    long status = 0;
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200) return len;
    call->head_seen = true;
    call->result.status = (int)status;
    call->collecting = call->spec.collect || status >= 300;
    return len;
}

static size_t take_body(char *data, size_t size, size_t n, void *arg)
{
    struct http_call *call = arg;
    size_t len = size * n;
    call->last_byte_us = clock_us();
    if (!call->collecting) {
        if (!buf_append(&call->inbox, data, len)) return len;
    } else if (call->spec.collect && call->result.status < 300) {
        if (!buf_append(&call->collected, data, len)) return len;
    } else { /* an error's text is worth its beginning only */
        size_t room = HTTP_ERROR_BODY_MAX - call->collected.len;
        if (!buf_append(&call->collected, data, len < room ? len : room)) return len;
    }
    call->overflow = true;
    return 0;
}

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct http_client *c = arg;
    (void)purpose;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    if (fd < 0) return CURL_SOCKET_BAD;
    c->n_sockets++;
    return fd;
}

static int close_socket(void *arg, curl_socket_t fd)
{
    struct http_client *c = arg;
    c->n_sockets--;
    return close(fd);
}

static bool add_header(struct http_call *call, const char *name, const char *value)
{
    struct buf line;
    buf_init(&line, HTTP_URL_MAX * 2);
    struct curl_slist *longer = NULL;
    if (!buf_printf(&line, "%s%s", name, value))
        longer = curl_slist_append(call->headers, line.data);
    buf_release(&line);
    if (longer) call->headers = longer;
    return longer != NULL;
}

static bool add_headers(struct http_call *call, const struct http_call_spec *spec)
{
    const char *type = spec->content_type ? spec->content_type : "application/json";
    bool ok = add_header(call, "Expect:", "");
    if (call->has_body) ok = ok && add_header(call, "Content-Type: ", type);
    if (spec->accept) ok = ok && add_header(call, "Accept: ", spec->accept);
    if (call->client->bearer)
        ok = ok && add_header(call, "Authorization: Bearer ", call->client->bearer);
    return ok;
}

static bool set_options(struct http_call *call, const struct http_call_spec *spec)
{
    struct http_client *c = call->client;
    CURL *h = call->easy;
    uint64_t connect_us =
        spec->connect_timeout_us ? spec->connect_timeout_us : c->config.connect_timeout_us;
    bool ok = http_curl_set(h, &(struct http_curl){.url = call->url,
                                                   .headers = call->headers,
                                                   .ca_file = c->ca_file,
                                                   .error = call->curl_error,
                                                   .connect_ms = (connect_us + 999) / 1000,
                                                   .is_local = c->is_local});
#define SET(option, value) ok = ok && curl_easy_setopt(h, option, value) == CURLE_OK
    if (strcmp(call->method, "GET") != 0) SET(CURLOPT_CUSTOMREQUEST, call->method);
    if (call->has_body || strcmp(call->method, "POST") == 0) {
        SET(CURLOPT_POST, 1L);
        SET(CURLOPT_POSTFIELDS, call->body);
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->spec.body_len);
    }
    SET(CURLOPT_QUICK_EXIT, 1L); /* cancelling does not wait for the lookup of a name */
    SET(CURLOPT_TCP_NODELAY, 1L);
    SET(CURLOPT_ACCEPT_ENCODING, "identity");
    SET(CURLOPT_PRIVATE, call);
    SET(CURLOPT_HEADERFUNCTION, take_header);
    SET(CURLOPT_HEADERDATA, call);
    SET(CURLOPT_WRITEFUNCTION, take_body);
    SET(CURLOPT_WRITEDATA, call);
    SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
    SET(CURLOPT_OPENSOCKETDATA, c);
    SET(CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    SET(CURLOPT_CLOSESOCKETDATA, c);
#undef SET
    return ok;
}

static void timer_fired(void *arg)
{
    struct http_call *call = arg;
    struct http_client *c = call->client;
    uint64_t due = call_due_us(call);
    if (clock_us() < due) { /* bytes came meanwhile */
        loop_timer_set(call->timer, due);
        return;
    }
    call_leave_multi(call);
    call_fail_timeout(call);
    client_deliver(c);
}

static bool copy_body(struct http_call *call, const struct http_call_spec *spec)
{
    call->spec.body = NULL;
    call->spec.body_taken = NULL;
    call->has_body = spec->body || spec->body_taken;
    if (spec->body_taken) {
        call->spec.body_len = spec->body_taken->len;
        call->body = buf_steal(spec->body_taken);
        return call->body != NULL;
    }
    call->body = mem_alloc(spec->body_len + 1);
    if (!call->body) return false;
    if (spec->body_len) memcpy(call->body, spec->body, spec->body_len);
    call->body[spec->body_len] = 0;
    return true;
}

static bool copy_spec(struct http_call *call, const struct http_call_spec *spec)
{
    struct buf url;
    call->spec = *spec;
    call->spec.method = call->method;
    call->spec.path = call->spec.content_type = call->spec.accept = NULL;
    snprintf(call->method, sizeof call->method, "%s", spec->method);
    buf_init(&url, HTTP_URL_MAX);
    if (!buf_puts(&url, call->client->base_url) && !buf_puts(&url, spec->path))
        call->url = buf_steal(&url);
    buf_release(&url);
    return copy_body(call, spec) && call->url;
}

int call_new(struct http_client *c, const struct http_call_spec *spec, struct http_call **ret_call,
             struct err *e)
{
    struct http_call *call = mem_calloc(1, sizeof *call);
    if (!call) return err_set(e, ERR_NO_MEMORY, "no memory for a call to %s", c->base_url);
    call->client = c;
    buf_init(&call->head, HTTP_ANSWER_HEAD_MAX);
    buf_init(&call->inbox, HTTP_INBOX_MAX);
    buf_init(&call->collected, HTTP_COLLECT_MAX);
    call->easy = curl_easy_init();
    if (!call->easy || !copy_spec(call, spec) || !add_headers(call, spec) ||
        !set_options(call, spec) ||
        loop_timer_new(c->loop, timer_fired, call, &call->timer, NULL)) {
        call_free(call);
        return err_set(e, ERR_NO_MEMORY, "no memory for a call to %s, or its address is too long",
                       c->base_url);
    }
    call->result.started_us = call->last_byte_us = clock_us();
    loop_timer_set(call->timer, call_due_us(call));
    *ret_call = call;
    return 0;
}

void call_free(struct http_call *call)
{
    loop_timer_free(call->timer);
    if (call->easy) curl_easy_cleanup(call->easy);
    curl_slist_free_all(call->headers);
    buf_release(&call->head);
    buf_release(&call->inbox);
    buf_release(&call->collected);
    mem_free(call->url);
    mem_free(call->body);
    mem_free(call);
}

void call_free_sent_body(struct http_call *call)
{
    curl_off_t sent = 0;
    if (!call->body || curl_easy_getinfo(call->easy, CURLINFO_SIZE_UPLOAD_T, &sent)) return;
    if ((uint64_t)sent < call->spec.body_len) return;
    if (curl_easy_setopt(call->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)0)) return;
    if (curl_easy_setopt(call->easy, CURLOPT_POSTFIELDS, "")) return;
    mem_free(call->body);
    call->body = NULL;
}

uint64_t call_due_us(const struct http_call *call)
{
    const struct http_client_config *config = &call->client->config;
    const struct http_call_spec *spec = &call->spec;
    uint64_t first =
        spec->first_byte_timeout_us ? spec->first_byte_timeout_us : config->first_byte_timeout_us;
    uint64_t idle = spec->idle_timeout_us ? spec->idle_timeout_us : config->idle_timeout_us;
    uint64_t due =
        call->result.first_byte_us ? call->last_byte_us + idle : call->result.started_us + first;
    return spec->deadline_us && spec->deadline_us < due ? spec->deadline_us : due;
}

/* Seconds until a date, by the clock of the server where it tells its own; one that is past is now.
 */
static unsigned until(const char *date, const char *server_now)
{
    time_t when = curl_getdate(date, NULL), now = server_now ? curl_getdate(server_now, NULL) : -1;
    if (when == -1) return 0;
    if (now == -1) now = time(NULL);
    if (when <= now) return 1;
    return when - now < RETRY_AFTER_MAX_S ? (unsigned)(when - now) : RETRY_AFTER_MAX_S;
}

static unsigned retry_after(const struct http_call *call)
{
    const char *value = http_call_header(call, "Retry-After");
    unsigned seconds = 0;
    if (!value) return 0;
    if (*value < '0' || *value > '9') return until(value, http_call_header(call, "Date"));
    for (; *value >= '0' && *value <= '9' && seconds < RETRY_AFTER_MAX_S; value++)
        seconds = seconds * 10 + (unsigned)(*value - '0');
    return seconds < RETRY_AFTER_MAX_S ? seconds : RETRY_AFTER_MAX_S;
}

static void fill_result(struct http_call *call)
{
    struct http_result *r = &call->result;
    curl_off_t connected = 0;
    long connects = 1;
    curl_easy_getinfo(call->easy, CURLINFO_PRETRANSFER_TIME_T, &connected);
    curl_easy_getinfo(call->easy, CURLINFO_NUM_CONNECTS, &connects);
    r->connected_us = connected > 0 ? r->started_us + (uint64_t)connected : 0;
    r->reused = connected > 0 && connects == 0;
    r->ended_us = clock_us();
    r->body = call->collected.data;
    r->body_len = call->collected.len;
    r->notice = call->notice;
    if (call->head_seen) {
        r->retry_after_s = retry_after(call);
        http_call_notice(call, call->notice);
    }
    call->ended = true;
}

static const struct {
    CURLcode curl;
    int code;
    const char *sentence;
} failures[] = {
    {CURLE_COULDNT_RESOLVE_HOST, ERR_NET, "its name cannot be resolved"},
    {CURLE_COULDNT_RESOLVE_PROXY, ERR_NET,
     "the name of the proxy that the environment gives cannot be resolved"},
    {CURLE_COULDNT_CONNECT, ERR_NET, "no connection can be made"},
    {CURLE_OPERATION_TIMEDOUT, ERR_TIMEOUT, "the connection took too long to be made"},
    {CURLE_PEER_FAILED_VERIFICATION, ERR_NET,
     "its certificate cannot be verified; a network that asks for a log-in page causes that, too"},
    {CURLE_SSL_CONNECT_ERROR, ERR_NET, "the TLS handshake failed"},
    {CURLE_SSL_CACERT_BADFILE, ERR_NET,
     "the file of trusted certificates cannot be read; Debian's is in the package ca-certificates"},
    {CURLE_GOT_NOTHING, ERR_NET, "the connection was closed before an answer"},
    {CURLE_PARTIAL_FILE, ERR_NET, "the connection was cut in the middle of the response"},
    {CURLE_RECV_ERROR, ERR_NET, "the connection was cut"},
    {CURLE_SEND_ERROR, ERR_NET, "the connection was cut while sending"},
    {CURLE_WEIRD_SERVER_REPLY, ERR_PROTOCOL, "the response is not HTTP"},
    {CURLE_UNSUPPORTED_PROTOCOL, ERR_PROTOCOL, "the response is not HTTP/1.1"},
    {CURLE_BAD_CONTENT_ENCODING, ERR_PROTOCOL, "the response's encoding is malformed"},
    {CURLE_OUT_OF_MEMORY, ERR_NO_MEMORY, "there is no memory for it"},
};

/* Whether the proxy did not open the way to the server: its answer to CONNECT, which libcurl gives
 * as a connection that was cut. A network that wants a log-in may answer in the proxy's place. */
static bool refused_by_proxy(struct http_call *call, struct err *e)
{
    long status = 0;
    curl_easy_getinfo(call->easy, CURLINFO_HTTP_CONNECTCODE, &status);
    if (status < 300) return false;
    const char *why = status == 407                   ? " (it wants a user name and a password)"
                      : status < 400 || status == 511 ? " (the network asks for a log-in page)"
                                                      : "";
    err_set(e, ERR_NET, "%s %s: the proxy that the environment gives answered %ld%s", call->method,
            call->url, status, why);
    return true;
}

void call_end(struct http_call *call, CURLcode code)
{
    struct err *e = &call->result.err;
    long os_error = 0;
    fill_result(call);
    if (code == CURLE_OK && call->head_seen) return;
    if (call->overflow) {
        err_set(e, ERR_LIMIT, "%s %s: the response is too large", call->method, call->url);
        return;
    }
    if (code == CURLE_OK) { /* curl takes a head that a close cuts off for a whole one */
        err_set(e, ERR_NET, "%s %s: the connection was cut in the head of the response",
                call->method, call->url);
        return;
    }
    if (refused_by_proxy(call, e)) return;
    curl_easy_getinfo(call->easy, CURLINFO_OS_ERRNO, &os_error);
    const char *detail = call->curl_error[0] ? call->curl_error : curl_easy_strerror(code);
    if (code == CURLE_COULDNT_CONNECT && os_error) detail = strerror((int)os_error);
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        if (failures[i].curl != code) continue;
        err_set(e, failures[i].code, "%s %s: %s (%s)", call->method, call->url,
                failures[i].sentence, detail);
        return;
    }
    err_set(e, ERR_NET, "%s %s: %s", call->method, call->url, detail);
}

void call_fail_timeout(struct http_call *call)
{
    struct http_result *r = &call->result;
    fill_result(call);
    double waited = (double)(r->ended_us - (r->first_byte_us ? call->last_byte_us : r->started_us));
    if (call->spec.deadline_us && r->ended_us >= call->spec.deadline_us)
        err_set(&r->err, ERR_TIMEOUT, "%s %s: the deadline passed", call->method, call->url);
    else
        err_set(&r->err, ERR_TIMEOUT, "%s %s: %s for %.1f s", call->method, call->url,
                r->first_byte_us ? "the answer stalled" : "no answer came", waited / 1e6);
}

/* The value of a header line of that name, or NULL; value ends at the line's end. */
static const char *header_value(const char *line, const char *name)
{
    size_t n = strlen(name);
    if (strncasecmp(line, name, n) != 0 || line[n] != ':') return NULL;
    return line + n + 1 + strspn(line + n + 1, " \t");
}

const char *http_call_header(const struct http_call *call, const char *name)
{
    /* The lines are cut in place the first time; the status line has no colon before its blank. */
    char *data = call->head.data, *end = data + call->head.len;
    const char *found = NULL;
    for (char *line = data; line < end;) {
        char *lf = memchr(line, '\n', (size_t)(end - line));
        char *stop = lf ? lf : end;
        while (stop > line && (stop[-1] == '\r' || stop[-1] == ' ' || stop[-1] == 0))
            *--stop = 0;
        const char *value = header_value(line, name);
        if (value) found = value;
        line = lf ? lf + 1 : end;
    }
    return found;
}

void http_call_notice(const struct http_call *call, char *text)
{
    long status = 0;
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    http_portal_notice((int)status, http_call_header(call, "Content-Type"),
                       http_call_header(call, "Location"), call->url, text);
}

int http_result_error(const struct http_result *result, const char *url, http_error_text_fn *read,
                      struct err *e)
{
    if (result->err.code) return err_set(e, result->err.code, "%s", result->err.text);
    int s = result->status, code = s >= 400 && s < 500 ? ERR_BAD_INPUT : ERR_PROTOCOL;
    if (s == 401 || s == 403) code = ERR_DENIED;
    if (s == 404) code = ERR_NOT_FOUND;
    if (s == 413) code = ERR_LIMIT;
    if (s == 429 || s == 503) code = ERR_BUSY;
    char text[256], page[BODY_PAGE_NAME_MAX];
    if (result->notice && result->notice[0])
        return err_set(e, s == 511 ? ERR_NET : code, "%s answered %d: %s", url, s, result->notice);
    if (body_kind_of_bytes(result->body ? result->body : "", result->body_len) == BODY_PAGE) {
        body_page_name(result->body, result->body_len, page);
        return err_set(e, code, "%s answered %d: %s", url, s, page);
    }
    read(result->body, result->body_len, text, sizeof text);
    return err_set(e, code, "%s answered %d%s%s", url, s, text[0] ? ": " : "", text);
}
