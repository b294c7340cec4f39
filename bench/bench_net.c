/*
 * bench_net: what the net layer costs a token and a request. Prints one line each; loopback, one
 * machine, so the numbers say what our code adds, not what a network does.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/http_server.h"
#include "net/sse.h"
#include "proto/wire.h"

enum { TOKENS = 1000000, TRIPS = 5000, LEAVERS = 1000, PROMPT = 8192, DECODES = 200 };

static int ignore_event(void *arg, const char *name, const char *data, size_t n)
{
    return wire_event_decode(name, data, n, arg, NULL);
}

static void time_events(void)
{
    struct wire_event ev, back;
    struct buf b;
    struct sse_parser p;
    wire_event_init(&ev);
    wire_event_init(&back);
    buf_init(&b, (size_t)TOKENS * 128);
    ev.kind = WIRE_TOKEN;
    ev.token = 12345;
    CHECK(buf_puts(&ev.text, " word") == 0 && buf_reserve(&b, (size_t)TOKENS * 80) == 0);
    uint64_t start = clock_us();
    for (uint32_t i = 0; i < TOKENS; i++) {
        ev.index = i;
        CHECK(wire_event_encode(&ev, &b, NULL) == 0);
    }
    uint64_t middle = clock_us();
    sse_parser_init(&p, ignore_event, &back);
    CHECK(sse_parser_feed(&p, b.data, b.len, NULL) == 0);
    uint64_t end = clock_us();
    printf("token event: %.0f ns to write, %.0f ns to read\n",
           (double)(middle - start) * 1e3 / TOKENS, (double)(end - middle) * 1e3 / TOKENS);
    sse_parser_release(&p);
    wire_event_release(&ev);
    wire_event_release(&back);
    buf_release(&b);
}

static void time_requests(void)
{
    struct wire_request r, back;
    struct buf b;
    int32_t *ids = mem_alloc(PROMPT * sizeof *ids);
    CHECK(ids);
    for (int32_t i = 0; i < PROMPT; i++)
        ids[i] = i * 17 % 150000;
    wire_request_init(&r);
    r.prompt = ids;
    r.n_prompt = PROMPT;
    r.tokens_max = 64;
    buf_init(&b, WIRE_BODY_MAX);
    uint64_t start = clock_us();
    for (int i = 0; i < DECODES; i++) {
        buf_clear(&b);
        CHECK(wire_request_encode(&r, &b, NULL) == 0);
    }
    uint64_t middle = clock_us();
    for (int i = 0; i < DECODES; i++) {
        CHECK(wire_request_decode(b.data, b.len, &back, NULL) == 0);
        wire_request_release(&back);
    }
    uint64_t end = clock_us();
    printf("request of %d ids (%zu bytes): %.0f us to write, %.0f us to read\n", PROMPT, b.len,
           (double)(middle - start) / DECODES, (double)(end - middle) / DECODES);
    mem_free(ids);
    buf_release(&b);
}

struct site {
    struct loop *loop;
    struct http_server *server;
    struct loop_wake *stop;
    atomic_ullong left_at;
    pthread_barrier_t ready;
};

static void hello(struct http_request *r, void *arg)
{
    (void)arg;
    http_reply_json(r, 200, "{}", 2);
}

static void left(void *arg)
{
    struct site *s = arg;
    atomic_store(&s->left_at, clock_us());
}

static void wait_for_leaving(struct http_request *r, void *arg)
{
    struct site *s = arg;
    http_request_on_close(r, left, s);
    http_stream_begin(r, "text/event-stream");
    http_stream_send(r, "x", 1);
}

static void stop(void *arg)
{
    loop_stop(arg);
}

static void *serve(void *arg)
{
    static const struct http_route routes[] = {{"GET", "/", hello, NULL, 0, false},
                                               {"GET", "/wait", wait_for_leaving, NULL, 0, false}};
    struct site *s = arg;
    struct http_server_config config;
    http_server_config_default(&config);
    config.error_body = wire_error_body;
    CHECK(loop_new(&s->loop, NULL) == 0);
    CHECK(loop_wake_new(s->loop, stop, s->loop, &s->stop, NULL) == 0);
    CHECK(http_server_new(s->loop, &config, routes, 2, s, &s->server, NULL) == 0);
    pthread_barrier_wait(&s->ready);
    CHECK(loop_run(s->loop, NULL) == 0);
    http_server_free(s->server);
    loop_wake_free(s->stop);
    loop_free(s->loop);
    return NULL;
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void report(const char *what, uint64_t *us, size_t n)
{
    qsort(us, n, sizeof *us, compare);
    printf("%s: median %llu us, 99 %% within %llu us\n", what, (unsigned long long)us[n / 2],
           (unsigned long long)us[n * 99 / 100]);
}

static void time_trips(uint16_t port, uint64_t *us)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    char answer[1024];
    int fd = connect_to(port);
    for (int i = 0; i < TRIPS; i++) {
        uint64_t start = clock_us();
        CHECK(send(fd, request, sizeof request - 1, 0) > 0 &&
              recv(fd, answer, sizeof answer, 0) > 0);
        us[i] = clock_us() - start;
    }
    close(fd);
    report("request and answer on a kept connection", us, TRIPS);
}

static void time_leaving(struct site *s, uint16_t port, uint64_t *us)
{
    static const char request[] = "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n";
    char answer[1024];
    for (int i = 0; i < LEAVERS; i++) {
        int fd = connect_to(port);
        atomic_store(&s->left_at, 0);
        CHECK(send(fd, request, sizeof request - 1, 0) > 0 &&
              recv(fd, answer, sizeof answer, 0) > 0);
        uint64_t start = clock_us(), at;
        close(fd);
        while ((at = atomic_load(&s->left_at)) == 0)
            clock_sleep_us(20);
        us[i] = at > start ? at - start : 0;
    }
    report("from a client's close to the handler's callback", us, LEAVERS);
}

int main(void)
{
    static struct site site;
    static uint64_t us[TRIPS];
    pthread_t thread;
    time_events();
    time_requests();
    pthread_barrier_init(&site.ready, NULL, 2);
    CHECK(pthread_create(&thread, NULL, serve, &site) == 0);
    pthread_barrier_wait(&site.ready);
    uint16_t port = http_server_port(site.server);
    time_trips(port, us);
    time_leaving(&site, port, us);
    loop_wake_signal(site.stop);
    pthread_join(thread, NULL);
    return 0;
}
