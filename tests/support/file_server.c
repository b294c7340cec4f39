/* file_server: see file_server.h. */
#include "support/file_server.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "support/net_raw.h"

enum { REQUEST_MAX = 16384, SAY_MAX = 4096, POLL_MS = 20 };

void file_server_send(struct file_server *s, const void *data, size_t n)
{
    const char *at = data;
    while (n > 0) {
        size_t piece = n < 65536 ? n : 65536;
        if (s->ssl) {
            if (SSL_write(s->ssl, at, (int)piece) <= 0) return;
        } else if (!raw_send(s->client, at, piece)) {
            return;
        }
        at += piece;
        n -= piece;
    }
}

void file_server_say(struct file_server *s, const char *format, ...)
{
    char text[SAY_MAX];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    CHECK(n >= 0 && n < SAY_MAX);
    file_server_send(s, text, (size_t)n);
}

void file_server_status(struct file_server *s, int status, const char *more, const char *body)
{
    file_server_say(s, "HTTP/1.1 %d x\r\nContent-Length: %zu\r\nConnection: close\r\n%s\r\n%s",
                    status, strlen(body), more, body);
}

void file_server_file(struct file_server *s, const struct file_server_ask *a, const void *data,
                      size_t n, const char *etag, size_t cut, const char *more)
{
    unsigned long long from = 0;
    char tag[160] = "";
    bool range = sscanf(a->range, "bytes=%llu-", &from) == 1 &&
                 (!a->if_range[0] || strcmp(a->if_range, etag) == 0);
    if (etag[0]) snprintf(tag, sizeof tag, "ETag: %s\r\n", etag);
    if (range && from >= n) {
        char of[64];
        snprintf(of, sizeof of, "Content-Range: bytes */%zu\r\n", n);
        file_server_status(s, 416, of, "");
        return;
    }
    if (!range) from = 0;
    if (range)
        file_server_say(s, "HTTP/1.1 206 x\r\nContent-Range: bytes %llu-%zu/%zu\r\n", from, n - 1,
                        n);
    else
        file_server_say(s, "HTTP/1.1 200 x\r\n");
    file_server_say(s, "Content-Length: %zu\r\nConnection: close\r\n%s%s\r\n", n - (size_t)from,
                    tag, more);
    size_t left = n - (size_t)from;
    file_server_send(s, (const char *)data + from, cut && cut < left ? cut : left);
}

static void take_header(const char *request, const char *name, char *ret_value, size_t size)
{
    char key[64];
    snprintf(key, sizeof key, "\r\n%s: ", name);
    const char *at = strcasestr(request, key);
    *ret_value = 0;
    if (!at) return;
    at += strlen(key);
    snprintf(ret_value, size, "%.*s", (int)strcspn(at, "\r\n"), at);
}

static bool read_request(struct file_server *s, char request[REQUEST_MAX])
{
    size_t n = 0;
    request[0] = 0;
    while (!strstr(request, "\r\n\r\n")) {
        if (n + 1 == REQUEST_MAX) return false;
        ssize_t got;
        if (s->ssl)
            got = SSL_read(s->ssl, request + n, (int)(REQUEST_MAX - 1 - n));
        else
            got = raw_readable(s->client, RAW_WAIT_MS)
                      ? recv(s->client, request + n, REQUEST_MAX - 1 - n, 0)
                      : 0;
        if (got <= 0) return false;
        n += (size_t)got;
        request[n] = 0;
    }
    return true;
}

static void serve(struct file_server *s)
{
    static _Thread_local char request[REQUEST_MAX];
    struct file_server_ask a = {.path = ""};
    if (!read_request(s, request)) return;
    if (sscanf(request, "GET %511s ", a.path) != 1) return;
    take_header(request, "Host", a.host, sizeof a.host);
    take_header(request, "Range", a.range, sizeof a.range);
    take_header(request, "If-Range", a.if_range, sizeof a.if_range);
    take_header(request, "Authorization", a.token, sizeof a.token);
    pthread_mutex_lock(&s->lock);
    if (s->n_asks < FILE_SERVER_ASKS_MAX) s->asks[s->n_asks++] = a;
    pthread_mutex_unlock(&s->lock);
    s->respond(s, &a);
}

static void *run(void *arg)
{
    struct file_server *s = arg;
    while (!atomic_load(&s->over)) {
        if (!raw_readable(s->fd, POLL_MS)) continue;
        s->client = accept(s->fd, NULL, NULL);
        if (s->client < 0) continue;
        s->ssl = s->tls ? SSL_new(s->tls) : NULL;
        if (s->ssl) SSL_set_fd(s->ssl, s->client);
        if (!s->ssl || SSL_accept(s->ssl) == 1) serve(s);
        if (s->ssl) SSL_shutdown(s->ssl);
        SSL_free(s->ssl);
        shutdown(s->client, SHUT_WR);
        close(s->client);
    }
    return NULL;
}

void file_server_start(struct file_server *s, const struct tls_files *files,
                       void (*respond)(struct file_server *s, const struct file_server_ask *a),
                       void *arg)
{
    memset(s, 0, sizeof *s);
    s->respond = respond;
    s->arg = arg;
    s->fd = raw_listen(&s->port);
    if (files) {
        s->tls = SSL_CTX_new(TLS_server_method());
        CHECK(SSL_CTX_use_certificate_file(s->tls, files->cert, SSL_FILETYPE_PEM) == 1 &&
              SSL_CTX_use_PrivateKey_file(s->tls, files->key, SSL_FILETYPE_PEM) == 1);
    }
    snprintf(s->url, sizeof s->url, "http%s://127.0.0.1:%u", files ? "s" : "", s->port);
    snprintf(s->other_url, sizeof s->other_url, "http%s://localhost:%u", files ? "s" : "", s->port);
    pthread_mutex_init(&s->lock, NULL);
    CHECK(pthread_create(&s->thread, NULL, run, s) == 0);
}

void file_server_stop(struct file_server *s)
{
    atomic_store(&s->over, true);
    pthread_join(s->thread, NULL);
    close(s->fd);
    SSL_CTX_free(s->tls);
    pthread_mutex_destroy(&s->lock);
}

uint32_t file_server_count(struct file_server *s)
{
    pthread_mutex_lock(&s->lock);
    uint32_t n = s->n_asks;
    pthread_mutex_unlock(&s->lock);
    return n;
}

struct file_server_ask file_server_ask(struct file_server *s, uint32_t i)
{
    pthread_mutex_lock(&s->lock);
    CHECK(i < s->n_asks);
    struct file_server_ask a = s->asks[i];
    pthread_mutex_unlock(&s->lock);
    return a;
}

void file_server_forget(struct file_server *s)
{
    pthread_mutex_lock(&s->lock);
    s->n_asks = 0;
    pthread_mutex_unlock(&s->lock);
}
