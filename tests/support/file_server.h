/*
 * file_server: a web server of files that misbehaves on demand, for tests of downloads: over TCP or
 * TLS on 127.0.0.1 (which a test may call localhost, too, for another host's name). One thread, one
 * connection at a time, one request a connection. A test gives the function that responds; helpers
 * below write the usual responses. What was asked for is kept.
 */
#ifndef PDD_TESTS_FILE_SERVER_H
#define PDD_TESTS_FILE_SERVER_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "support/tls_files.h"

enum { FILE_SERVER_ASKS_MAX = 256, FILE_SERVER_TEXT_MAX = 512 };

struct file_server_ask {
    char path[FILE_SERVER_TEXT_MAX]; /* with the query */
    char host[64];
    char range[64], if_range[128], token[128]; /* "" without; the token with "Bearer " */
};

struct file_server {
    int fd;
    uint16_t port;
    char url[64], other_url[64]; /* by 127.0.0.1, and by localhost */
    pthread_t thread;
    atomic_bool over;
    SSL_CTX *tls;
    void (*respond)(struct file_server *s, const struct file_server_ask *a);
    void *arg;
    pthread_mutex_t lock;
    struct file_server_ask asks[FILE_SERVER_ASKS_MAX];
    uint32_t n_asks;
    /* of the connection that is served */
    int client;
    SSL *ssl;
};

/* `files`: a certificate for https, or NULL. */
void file_server_start(struct file_server *s, const struct tls_files *files,
                       void (*respond)(struct file_server *s, const struct file_server_ask *a),
                       void *arg);
void file_server_stop(struct file_server *s);
uint32_t file_server_count(struct file_server *s);
struct file_server_ask file_server_ask(struct file_server *s, uint32_t i);
void file_server_forget(struct file_server *s);

/* For `respond`. */
void file_server_send(struct file_server *s, const void *data, size_t n);
void file_server_say(struct file_server *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The file, or the range that was asked for where If-Range names `etag` ("": none is sent). At most
 * `cut` bytes of the body are sent; 0: all. `more`: further header lines. */
void file_server_file(struct file_server *s, const struct file_server_ask *a, const void *data,
                      size_t n, const char *etag, size_t cut, const char *more);
void file_server_status(struct file_server *s, int status, const char *more, const char *body);

#endif
