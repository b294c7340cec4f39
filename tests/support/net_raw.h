/*
 * net_raw: blocking loopback sockets for tests that play a client or a server byte by byte, and a
 * loop that runs in a thread of its own beside them. Static functions, so that each test links
 * alone.
 */
#ifndef PDD_TESTS_NET_RAW_H
#define PDD_TESTS_NET_RAW_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/check.h"
#include "net/loop.h"

enum { RAW_WAIT_MS = 10000, RAW_MAX = 64 << 20 };

static inline int raw_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    return fd;
}

static inline void raw_connect_socket(int fd, uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
}

static inline int raw_connect(uint16_t port)
{
    int fd = raw_socket(), one = 1;
    raw_connect_socket(fd, port);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static inline int raw_listen(uint16_t *ret_port)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof a;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 64) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&a, &len) == 0);
    *ret_port = ntohs(a.sin_port);
    return fd;
}

/* Sends all, unless the peer is gone. */
static inline bool raw_send(int fd, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t did = send(fd, data, n, MSG_NOSIGNAL);
        if (did <= 0) return false;
        data += did;
        n -= (size_t)did;
    }
    return true;
}

static inline bool raw_puts(int fd, const char *text)
{
    return raw_send(fd, text, strlen(text));
}

static inline bool raw_readable(int fd, int wait_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, wait_ms) > 0;
}

/* Read until `until` has been seen (NULL: until the end). False: the end, or nothing came. */
static inline bool raw_read_until(int fd, struct buf *b, const char *until)
{
    char piece[65536];
    while (!until || !strstr(b->data, until)) {
        if (!raw_readable(fd, RAW_WAIT_MS)) return false;
        ssize_t n = recv(fd, piece, sizeof piece, 0);
        if (n <= 0) return !until && n == 0;
        CHECK(buf_append(b, piece, (size_t)n) == 0);
    }
    return true;
}

/* One request, the whole answer until the server closes. Caller releases b. */
static inline void raw_ask(uint16_t port, const char *request, struct buf *b)
{
    buf_init(b, RAW_MAX);
    int fd = raw_connect(port);
    raw_puts(fd, request);
    (void)raw_read_until(fd, b, NULL);
    close(fd);
}

/* A loop in a thread. `prepare` and `clean` run in that thread before and after the loop. */
struct loop_thread {
    pthread_t thread;
    struct loop *loop;
    struct loop_wake *stopper;
    void (*prepare)(struct loop *l, void *arg), (*clean)(void *arg);
    void *arg;
    pthread_barrier_t ready;
};

static inline void loop_thread_stop_fn(void *arg)
{
    loop_stop(arg);
}

static inline void *loop_thread_main(void *arg)
{
    struct loop_thread *t = arg;
    CHECK(loop_new(&t->loop, NULL) == 0);
    CHECK(loop_wake_new(t->loop, loop_thread_stop_fn, t->loop, &t->stopper, NULL) == 0);
    t->prepare(t->loop, t->arg);
    pthread_barrier_wait(&t->ready);
    CHECK(loop_run(t->loop, NULL) == 0);
    t->clean(t->arg);
    loop_wake_free(t->stopper);
    loop_free(t->loop);
    return NULL;
}

static inline void loop_thread_start(struct loop_thread *t)
{
    pthread_barrier_init(&t->ready, NULL, 2);
    CHECK(pthread_create(&t->thread, NULL, loop_thread_main, t) == 0);
    pthread_barrier_wait(&t->ready);
}

static inline void loop_thread_stop(struct loop_thread *t)
{
    loop_wake_signal(t->stopper);
    pthread_join(t->thread, NULL);
    pthread_barrier_destroy(&t->ready);
}

#endif
