/* lib_guard: what a library owes to the process it is a guest of; see lib_impl.h. */
#include <time.h>

#include "lib/lib_impl.h"

/* "C" is built into the C library: it is not loaded, and cannot be missing. */
static locale_t plain_locale(void)
{
    return newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

void lib_guard_enter(struct lib_guard *g)
{
    sigset_t all, pending;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &g->before);
    sigpending(&pending);
    g->pipe_pending = sigismember(&pending, SIGPIPE) == 1;
    g->locale = plain_locale();
    g->old = g->locale ? uselocale(g->locale) : (locale_t)0;
}

/* A socket that was written to after its end has raised SIGPIPE for this thread. */
void lib_guard_leave(struct lib_guard *g)
{
    sigset_t pending, pipe;
    sigpending(&pending);
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    if (!g->pipe_pending && sigismember(&pending, SIGPIPE) == 1)
        (void)sigtimedwait(&pipe, NULL, &(struct timespec){0});
    pthread_sigmask(SIG_SETMASK, &g->before, NULL);
    if (!g->locale) return;
    uselocale(g->old);
    freelocale(g->locale);
}

struct run {
    int (*fn)(void *arg, struct err *e);
    void *arg;
    struct err *e;
    int code;
};

static void *run_main(void *arg)
{
    struct run *r = arg;
    lib_guard_thread();
    r->code = r->fn(r->arg, r->e);
    return NULL;
}

int lib_run(int (*fn)(void *arg, struct err *e), void *arg, struct err *e)
{
    struct run r = {fn, arg, e, 0};
    pthread_attr_t attr;
    pthread_t thread;
    size_t size = 0;
    if (pthread_attr_init(&attr)) return err_set(e, ERR_NO_MEMORY, "no memory for a thread");
    pthread_attr_getstacksize(&attr, &size); /* the process's default */
    if (size < LIB_STACK) pthread_attr_setstacksize(&attr, LIB_STACK);
    int failed = pthread_create(&thread, &attr, run_main, &r);
    pthread_attr_destroy(&attr);
    if (failed) return err_set(e, ERR_NO_MEMORY, "a thread cannot be started");
    pthread_join(thread, NULL);
    return r.code;
}

void lib_guard_thread(void)
{
    locale_t plain = plain_locale();
    if (plain) uselocale(plain); /* not freed: nothing was allocated */
}
