/*
 * test_relay: the link emulator between real sockets.
 *
 * Catches: bytes lost, repeated or out of order; a delay that is too short (never one that is too
 * long: machines are busy); a cut at the wrong byte or event; a half-close that is swallowed; a
 * trace file that is wrong and taken.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/os.h"
#include "lab/relay.h"

enum { BIG = 3 << 20 };

/* An echo server and a relay before it, each in a thread. */
struct world {
    int listener;
    uint16_t echo_port;
    pthread_t echo_thread, loop_thread;
    struct loop *loop;
    struct loop_wake *stop;
    struct relay *relay;
};

/* Serves one connection after the other: sends back what comes, until the end, then closes. */
static void *echo(void *arg)
{
    struct world *w = arg;
    static char block[65536];
    for (int fd; (fd = accept(w->listener, NULL, NULL)) >= 0; close(fd)) {
        for (ssize_t n; (n = recv(fd, block, sizeof block, 0)) > 0;)
            if (send(fd, block, (size_t)n, MSG_NOSIGNAL) != n) break;
    }
    return NULL;
}

static void stop_loop(void *arg)
{
    loop_stop(((struct world *)arg)->loop);
}

static void *run_loop(void *arg)
{
    loop_run(((struct world *)arg)->loop, NULL);
    return NULL;
}

static void start(struct world *w, struct relay_config config)
{
    struct err e = ERR_INIT;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    w->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(w->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(w->listener, 10), 0);
    getsockname(w->listener, (struct sockaddr *)&a, &n);
    w->echo_port = ntohs(a.sin_port);
    config.listen_host = config.to_host = "127.0.0.1";
    config.to_port = w->echo_port;
    if (loop_new(&w->loop, &e) || relay_new(w->loop, &config, &w->relay, &e) ||
        loop_wake_new(w->loop, stop_loop, w, &w->stop, &e))
        fail_msg("%s", e.text);
    pthread_create(&w->echo_thread, NULL, echo, w);
    pthread_create(&w->loop_thread, NULL, run_loop, w);
}

static void stop(struct world *w)
{
    loop_wake_signal(w->stop);
    pthread_join(w->loop_thread, NULL);
    relay_free(w->relay);
    loop_wake_free(w->stop);
    loop_free(w->loop);
    shutdown(w->listener, SHUT_RDWR);
    pthread_join(w->echo_thread, NULL);
    close(w->listener);
}

static int connect_to(const struct world *w)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {20, 0};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    a.sin_port = htons(relay_port(w->relay));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

/* Read to the end (0) or an error (-1). */
static int read_all(int fd, char *to, size_t room, size_t *ret_n)
{
    ssize_t n = 0;
    *ret_n = 0;
    while (*ret_n < room && (n = recv(fd, to + *ret_n, room - *ret_n, 0)) > 0)
        *ret_n += (size_t)n;
    return n < 0 ? -1 : 0;
}

static void *send_big(void *arg)
{
    int fd = *(int *)arg;
    char *data = mem_alloc(BIG);
    for (size_t i = 0; i < BIG; i++)
        data[i] = (char)(i * 31 + i / 251);
    for (size_t at = 0; at < BIG;) {
        ssize_t n = send(fd, data + at, BIG - at, MSG_NOSIGNAL);
        if (n <= 0) break;
        at += (size_t)n;
    }
    shutdown(fd, SHUT_WR);
    mem_free(data);
    return NULL;
}

static void test_big_transfer_and_half_close(void **state)
{
    (void)state;
    struct world w;
    pthread_t sender;
    start(&w, (struct relay_config){.rtt_ms = 4});
    int fd = connect_to(&w);
    pthread_create(&sender, NULL, send_big, &fd);
    char *got = mem_alloc(BIG + 1);
    size_t n;
    assert_int_equal(read_all(fd, got, BIG + 1, &n), 0);
    pthread_join(sender, NULL);
    assert_int_equal(n, BIG);
    for (size_t i = 0; i < BIG; i++)
        if (got[i] != (char)(i * 31 + i / 251)) fail_msg("byte %zu differs", i);
    mem_free(got);
    close(fd);
    stop(&w);
}

static void test_delay_is_kept(void **state)
{
    (void)state;
    struct world w;
    char byte = 'x';
    start(&w, (struct relay_config){.rtt_ms = 60});
    int fd = connect_to(&w);
    clock_sleep_us(100000); /* past the emulated handshake */
    for (int i = 0; i < 3; i++) {
        uint64_t begin = clock_us();
        assert_int_equal(send(fd, &byte, 1, 0), 1);
        assert_int_equal(recv(fd, &byte, 1, 0), 1);
        assert_true(clock_us() - begin >= 59000);
    }
    close(fd);
    stop(&w);
}

static void test_rate_is_kept(void **state)
{
    (void)state;
    struct world w;
    static char data[20000];
    size_t n;
    start(&w, (struct relay_config){.rtt_ms = 1, .rate_kbit = 1000});
    int fd = connect_to(&w);
    uint64_t begin = clock_us();
    assert_int_equal(send(fd, data, sizeof data, 0), sizeof data);
    shutdown(fd, SHUT_WR);
    assert_int_equal(read_all(fd, data, sizeof data, &n), 0);
    assert_int_equal(n, sizeof data);
    assert_true(clock_us() - begin >= 155000); /* 160 ms for 160 kbit */
    close(fd);
    stop(&w);
}

static void test_cut_after_bytes(void **state)
{
    (void)state;
    struct world w;
    char got[100];
    size_t n;
    start(&w,
          (struct relay_config){.rtt_ms = 1, .cut_bytes = 7, .how = RELAY_CLOSE, .cut_times = 1});
    int fd = connect_to(&w);
    assert_int_equal(send(fd, "0123456789", 10, 0), 10);
    read_all(fd, got, sizeof got, &n);
    assert_int_equal(n, 7);
    close(fd);
    fd = connect_to(&w); /* only the first connection is cut */
    assert_int_equal(send(fd, "0123456789", 10, 0), 10);
    shutdown(fd, SHUT_WR);
    assert_int_equal(read_all(fd, got, sizeof got, &n), 0);
    assert_int_equal(n, 10);
    assert_int_equal(relay_accepted(w.relay), 2);
    close(fd);
    stop(&w);
}

static void test_cut_after_events(void **state)
{
    (void)state;
    struct world w;
    char got[100];
    size_t n;
    static const char events[] = "data: 1\n\ndata: 2\n\ndata: 3\n\n";
    start(&w, (struct relay_config){.rtt_ms = 1, .cut_events = 2, .how = RELAY_CLOSE});
    int fd = connect_to(&w);
    for (size_t i = 0; i < sizeof events - 1; i++)
        if (send(fd, events + i, 1, MSG_NOSIGNAL) != 1) break;
    read_all(fd, got, sizeof got, &n);
    assert_int_equal(n, 18);
    close(fd);
    stop(&w);
}

static void write_file(const char *path, const char *text)
{
    struct err e = ERR_INIT;
    if (os_write_file(path, text, strlen(text), &e)) fail_msg("%s", e.text);
}

static void test_traces(void **state)
{
    (void)state;
    static const char *const bad[] = {"time_s,rtt_ms\n0.0,5\nnonsense\n",
                                      "time_s,rtt_ms\n1,5\n0.5,5\n", "time_s,rtt_ms\n0,-3\n",
                                      "time_s,rtt_ms\n", "time_s,rtt_ms\n0,nan\n"};
    char path[64];
    struct rtt_trace t;
    struct err e = ERR_INIT;
    snprintf(path, sizeof path, "/tmp/pdd-trace-%ld.csv", (long)getpid());
    write_file(path, "time_s,rtt_ms\n0.0,5\n0.05,6.5\r\n0.10,700\n");
    assert_int_equal(rtt_trace_open(path, &t, &e), 0);
    assert_int_equal(t.n, 3);
    assert_true(t.rtt_ms[1] > 6.4 && t.rtt_ms[1] < 6.6);
    rtt_trace_release(&t);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(path, bad[i]);
        assert_int_equal(rtt_trace_open(path, &t, &e), ERR_BAD_INPUT);
        assert_non_null(strstr(e.text, path));
    }
    write_file(path, bad[0]);
    rtt_trace_open(path, &t, &e);
    assert_non_null(strstr(e.text, ":3:"));
    unlink(path);
    assert_int_equal(rtt_trace_open(path, &t, &e), ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_big_transfer_and_half_close),
        cmocka_unit_test(test_delay_is_kept),
        cmocka_unit_test(test_rate_is_kept),
        cmocka_unit_test(test_cut_after_bytes),
        cmocka_unit_test(test_cut_after_events),
        cmocka_unit_test(test_traces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
