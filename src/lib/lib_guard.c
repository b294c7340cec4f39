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

void lib_guard_thread(void)
{
    locale_t plain = plain_locale();
    if (plain) uselocale(plain); /* not freed: nothing was allocated */
}
