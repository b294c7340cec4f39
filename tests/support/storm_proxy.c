/* storm_proxy: see storm_proxy.h. */
#include "support/storm_proxy.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"

enum {
    CONNECTIONS = 64,
    PIECE_MAX = 400, /* bytes that pass at once */
    PAUSE_US = 3000, /* at most, between two pieces */
    REPEAT_MAX = 300,
    GARBAGE_MAX = 64,
    DELAY_MIN_MS = 50,
    DELAY_MAX_MS = 600,
    IDLE_MS = 1000
};

const char *const storm_fault_names[STORM_FAULTS] = {"cuts",    "resets",  "stalls",
                                                     "garbage", "repeats", "delays"};

struct storm_way {
    int client, server; /* -1: free */
    struct rng rng;
    bool faulty, stalled;
    enum storm_fault fault;
    uint64_t at, passed; /* bytes of the server's stream: to strike at; so far */
    uint64_t due;        /* clock_us(): nothing passes before */
    char last[REPEAT_MAX];
    size_t n_last;
};

struct storm_proxy {
    struct storm_plan plan;
    int listener, stop[2];
    uint16_t port;
    pthread_t thread;
    uint64_t accepted;
    struct storm_way ways[CONNECTIONS];
    uint32_t struck[STORM_FAULTS];
};

static void close_way(struct storm_way *w, bool reset)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    if (w->client < 0) return;
    if (reset) setsockopt(w->client, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(w->client);
    close(w->server);
    w->client = w->server = -1;
}

static bool send_all(int fd, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, data, n, MSG_NOSIGNAL);
        if (sent <= 0) return false;
        data += sent;
        n -= (size_t)sent;
    }
    return true;
}

/* To the client, remembered for a repetition. */
static void pass(struct storm_way *w, const char *data, size_t n)
{
    if (n == 0 || w->client < 0) return;
    if (!send_all(w->client, data, n)) {
        close_way(w, false);
        return;
    }
    w->passed += n;
    if (n > sizeof w->last) {
        data += n - sizeof w->last;
        n = sizeof w->last;
    }
    size_t keep = w->n_last + n > sizeof w->last ? sizeof w->last - n : w->n_last;
    memmove(w->last, w->last + w->n_last - keep, keep);
    memcpy(w->last + keep, data, n);
    w->n_last = keep + n;
}

/* A plain text must not be changed into another that means something: its checks are for the
 * protocol's users, TLS is for its text. A byte that UTF-8 does not have is in no JSON. */
static void send_garbage(struct storm_way *w)
{
    char bytes[GARBAGE_MAX];
    static const char never[] = {'\xff', '\xfe', '\xc0', '\0', '\x01', '\x08'};
    size_t n = 1 + rng_below(&w->rng, GARBAGE_MAX);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)rng_next(&w->rng);
    bytes[0] = never[rng_below(&w->rng, sizeof never)];
    if (!send_all(w->client, bytes, n)) close_way(w, false);
}

static void strike(struct storm_proxy *p, struct storm_way *w)
{
    w->faulty = false;
    p->struck[w->fault]++;
    switch (w->fault) {
    case STORM_CUT:
    case STORM_RESET:
        close_way(w, w->fault == STORM_RESET);
        break;
    case STORM_STALL:
        w->stalled = p->plan.stall_ms == 0;
        w->due = clock_us() + p->plan.stall_ms * 1000ull;
        break;
    case STORM_GARBAGE:
        send_garbage(w);
        break;
    case STORM_REPEAT:
        if (w->n_last > 0) {
            size_t n = 1 + rng_below(&w->rng, (uint32_t)w->n_last);
            if (!send_all(w->client, w->last + w->n_last - n, n)) close_way(w, false);
        }
        break;
    default:
        w->due =
            clock_us() + (DELAY_MIN_MS + rng_below(&w->rng, DELAY_MAX_MS - DELAY_MIN_MS)) * 1000ull;
    }
}

/* A piece of the server's stream, with the fault where it falls. A delay lets the rest of its piece
 * through: it is felt all the same. */
static void from_server(struct storm_proxy *p, struct storm_way *w)
{
    char bytes[PIECE_MAX];
    size_t want = 1 + rng_below(&w->rng, PIECE_MAX), before = 0;
    ssize_t n = recv(w->server, bytes, want, 0);
    if (n <= 0) {
        close_way(w, n < 0);
        return;
    }
    w->due = clock_us() + rng_below(&w->rng, PAUSE_US);
    if (w->faulty && w->at < w->passed + (uint64_t)n) {
        before = w->at > w->passed ? (size_t)(w->at - w->passed) : 0;
        pass(w, bytes, before);
        if (w->client >= 0) strike(p, w);
    }
    pass(w, bytes + before, (size_t)n - before);
}

static void from_client(struct storm_way *w)
{
    char bytes[65536];
    ssize_t n = recv(w->client, bytes, sizeof bytes, 0);
    if (n <= 0 || !send_all(w->server, bytes, (size_t)n)) close_way(w, false);
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    CHECK(fd >= 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&at, sizeof at)) {
        close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void accept_one(struct storm_proxy *p)
{
    int client = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC), on = 1;
    struct storm_way *w = p->ways;
    if (client < 0) return;
    while (w < p->ways + CONNECTIONS && w->client >= 0)
        w++;
    int server = w < p->ways + CONNECTIONS ? connect_to(p->plan.to_port) : -1;
    if (server < 0) { /* the server has been killed: the client hears the same */
        close(client);
        return;
    }
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    *w = (struct storm_way){.client = client, .server = server};
    rng_init(&w->rng, p->plan.seed, p->accepted++);
    w->faulty = rng_below(&w->rng, 16) < p->plan.fault_of;
    w->fault = (enum storm_fault)rng_below(&w->rng, STORM_FAULTS);
    w->at = rng_below(&w->rng, p->plan.bytes);
}

/* Fills fds [2 + 2 * CONNECTIONS]; returns milliseconds to wait. */
static int describe(const struct storm_proxy *p, struct pollfd *fds)
{
    uint64_t now = clock_us(), next = now + IDLE_MS * 1000ull;
    fds[0] = (struct pollfd){p->stop[0], POLLIN, 0};
    fds[1] = (struct pollfd){p->listener, POLLIN, 0};
    for (int i = 0; i < CONNECTIONS; i++) {
        const struct storm_way *w = &p->ways[i];
        bool open = w->client >= 0 && !w->stalled && w->due <= now;
        fds[2 + 2 * i] = (struct pollfd){w->client, POLLIN, 0};
        fds[3 + 2 * i] = (struct pollfd){open ? w->server : -1, POLLIN, 0};
        if (w->client >= 0 && !w->stalled && !open && w->due < next) next = w->due;
    }
    return (int)((next - now + 999) / 1000);
}

static void *run(void *arg)
{
    struct storm_proxy *p = arg;
    struct pollfd fds[2 + 2 * CONNECTIONS];
    for (;;) {
        int wait = describe(p, fds);
        if (poll(fds, 2 + 2 * CONNECTIONS, wait) < 0) continue;
        if (fds[0].revents) return NULL;
        for (int i = 0; i < CONNECTIONS; i++) {
            struct storm_way *w = &p->ways[i];
            if (w->client >= 0 && fds[2 + 2 * i].revents) from_client(w);
            if (w->client >= 0 && fds[3 + 2 * i].revents) from_server(p, w);
        }
        if (fds[1].revents) accept_one(p);
    }
}

struct storm_proxy *storm_proxy_start(const struct storm_plan *plan)
{
    struct storm_proxy *p = mem_calloc(1, sizeof *p);
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t n = sizeof at;
    CHECK(p);
    p->plan = *plan;
    for (int i = 0; i < CONNECTIONS; i++)
        p->ways[i].client = p->ways[i].server = -1;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(p->listener >= 0 && bind(p->listener, (struct sockaddr *)&at, sizeof at) == 0 &&
          listen(p->listener, 64) == 0 &&
          getsockname(p->listener, (struct sockaddr *)&at, &n) == 0 &&
          pipe2(p->stop, O_CLOEXEC) == 0);
    p->port = ntohs(at.sin_port);
    CHECK(pthread_create(&p->thread, NULL, run, p) == 0);
    return p;
}

uint16_t storm_proxy_port(const struct storm_proxy *p)
{
    return p->port;
}

void storm_proxy_stop(struct storm_proxy *p, uint32_t struck[STORM_FAULTS])
{
    CHECK(write(p->stop[1], "", 1) == 1);
    pthread_join(p->thread, NULL);
    for (int i = 0; i < CONNECTIONS; i++)
        close_way(&p->ways[i], false);
    for (int f = 0; f < STORM_FAULTS; f++)
        struck[f] += p->struck[f];
    close(p->listener);
    close(p->stop[0]);
    close(p->stop[1]);
    mem_free(p);
}
