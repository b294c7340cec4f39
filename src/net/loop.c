/* loop: see loop.h. */
#include "net/loop.h"

#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

enum { BASE_DESCRIPTORS = 4 }; /* libevent's own: epoll, its timer, and two for signals */

struct loop {
    struct event_base *base;
};

struct loop_timer {
    struct event *event;
    uint64_t when;
    loop_fn *fn;
    void *arg;
};

struct loop_wake {
    struct event *event;
    int fd;
    loop_fn *fn;
    void *arg;
};

struct loop_signal {
    struct event *event;
    loop_fn *fn;
    void *arg;
};

/* Timers to the microsecond (the coarse clock would be up to 4 ms late, which a pacer shows), and
 * no locks: one thread owns the base, and wake-ups come through descriptors. */
static struct event_base *precise_base(void)
{
    struct event_config *config = event_config_new();
    if (!config) return NULL;
    event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
    event_config_set_flag(config, EVENT_BASE_FLAG_NO_CACHE_TIME);
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

static int no_descriptors(struct err *e, const char *what)
{
    struct rlimit limit = {0};
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    return err_set(e, ERR_IO, "no descriptors for %s: the process may open %llu files (ulimit -n)",
                   what, (unsigned long long)limit.rlim_cur);
}

/* libevent ends the process when it gets no descriptors for its signals: look before it does. */
static bool descriptors_left(void)
{
    int fds[BASE_DESCRIPTORS], n = 0;
    while (n < BASE_DESCRIPTORS && (fds[n] = eventfd(0, EFD_CLOEXEC)) >= 0)
        n++;
    bool enough = n == BASE_DESCRIPTORS;
    while (n > 0)
        close(fds[--n]);
    return enough;
}

/* What it warns of it also returns; what it ends the process for must not go without a word. */
static void take_log(int severity, const char *message)
{
    if (severity == EVENT_LOG_ERR) fprintf(stderr, "pdd: the event loop: %s\n", message);
}

/* It is libevent's, and so the process's: two threads may make their loops at the same time. */
static void set_log(void)
{
    event_set_log_callback(take_log);
}

int loop_new_guest(struct loop **ret_loop, struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_log);
    if (!descriptors_left()) return no_descriptors(e, "an event loop");
    struct loop *l = mem_calloc(1, sizeof *l);
    if (l) l->base = precise_base();
    if (!l || !l->base) {
        mem_free(l);
        return err_set(e, ERR_NO_MEMORY, "no memory for an event loop");
    }
    *ret_loop = l;
    return 0;
}

int loop_new(struct loop **ret_loop, struct err *e)
{
    int code = loop_new_guest(ret_loop, e);
    if (code == 0) signal(SIGPIPE, SIG_IGN);
    return code;
}

void loop_free(struct loop *l)
{
    if (!l) return;
    /* libevent frees some objects (TLS connections) only in a later iteration of the loop. */
    event_base_loop(l->base, EVLOOP_NONBLOCK);
    event_base_free(l->base);
    mem_free(l);
}

int loop_run(struct loop *l, struct err *e)
{
    if (event_base_loop(l->base, EVLOOP_NO_EXIT_ON_EMPTY) < 0)
        return err_set(e, ERR_INTERNAL, "the event loop failed");
    return 0;
}

void loop_stop(struct loop *l)
{
    event_base_loopbreak(l->base);
}

struct event_base *loop_base(struct loop *l)
{
    return l->base;
}

static void timer_fired(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct loop_timer *t = arg;
    if (clock_us() < t->when)
        loop_timer_set(t, t->when); /* rounding: never early */
    else
        t->fn(t->arg);
}

int loop_timer_new(struct loop *l, loop_fn *fn, void *arg, struct loop_timer **ret_timer,
                   struct err *e)
{
    struct loop_timer *t = mem_calloc(1, sizeof *t);
    if (t) {
        t->fn = fn;
        t->arg = arg;
        t->event = evtimer_new(l->base, timer_fired, t);
    }
    if (!t || !t->event) {
        mem_free(t);
        return err_set(e, ERR_NO_MEMORY, "no memory for a timer");
    }
    *ret_timer = t;
    return 0;
}

void loop_timer_set(struct loop_timer *t, uint64_t when)
{
    t->when = when;
    uint64_t now = clock_us(), wait = when > now ? when - now : 0;
    struct timeval tv = {(time_t)(wait / 1000000u), (suseconds_t)(wait % 1000000u)};
    evtimer_add(t->event, &tv);
}

void loop_timer_clear(struct loop_timer *t)
{
    evtimer_del(t->event);
}

void loop_timer_free(struct loop_timer *t)
{
    if (!t) return;
    event_free(t->event);
    mem_free(t);
}

static void wake_fired(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct loop_wake *w = arg;
    uint64_t count;
    if (read(fd, &count, sizeof count) == (ssize_t)sizeof count) w->fn(w->arg);
}

int loop_wake_new(struct loop *l, loop_fn *fn, void *arg, struct loop_wake **ret_wake,
                  struct err *e)
{
    struct loop_wake *w = mem_calloc(1, sizeof *w);
    if (!w) return err_set(e, ERR_NO_MEMORY, "no memory for a wake-up");
    w->fn = fn;
    w->arg = arg;
    w->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    w->event = w->fd < 0 ? NULL : event_new(l->base, w->fd, EV_READ | EV_PERSIST, wake_fired, w);
    if (!w->event || event_add(w->event, NULL) != 0) {
        int code = w->fd < 0 ? no_descriptors(e, "a wake-up")
                             : err_set(e, ERR_NO_MEMORY, "no memory for a wake-up");
        loop_wake_free(w);
        return code;
    }
    *ret_wake = w;
    return 0;
}

void loop_wake_signal(void *wake)
{
    struct loop_wake *w = wake;
    uint64_t one = 1;
    ssize_t done = write(w->fd, &one, sizeof one);
    (void)done; /* it can only fail when a wake-up is pending already */
}

void loop_wake_free(struct loop_wake *w)
{
    if (!w) return;
    if (w->event) event_free(w->event);
    if (w->fd >= 0) close(w->fd);
    mem_free(w);
}

static void signal_fired(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct loop_signal *s = arg;
    s->fn(s->arg);
}

int loop_signal_new(struct loop *l, int number, loop_fn *fn, void *arg,
                    struct loop_signal **ret_signal, struct err *e)
{
    struct loop_signal *s = mem_calloc(1, sizeof *s);
    if (s) {
        s->fn = fn;
        s->arg = arg;
        s->event = evsignal_new(l->base, number, signal_fired, s);
    }
    if (!s || !s->event || event_add(s->event, NULL) != 0) {
        loop_signal_free(s);
        return err_set(e, ERR_NO_MEMORY, "signal %d cannot be watched", number);
    }
    *ret_signal = s;
    return 0;
}

void loop_signal_free(struct loop_signal *s)
{
    if (!s) return;
    if (s->event) event_free(s->event);
    mem_free(s);
}
