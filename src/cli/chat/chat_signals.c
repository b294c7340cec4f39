/* chat_signals: see chat_signals.h. */
#include "cli/chat/chat_signals.h"

#include <signal.h>
#include <unistd.h>

static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH};

/* Those that whoever started the program wants ignored (nohup, a shell's background) stay so. */
static void choose_signals(sigset_t *set)
{
    struct sigaction now;
    sigemptyset(set);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (sigaction(signals[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
            sigaddset(set, signals[i]);
}

static void restore_terminal(struct chat_signals *s)
{
    const struct chat_input *in = atomic_load(&s->typing);
    if (in) chat_input_restore(in);
}

/* As the signal does by itself, but the terminal is left as it was found. Returns only from a stop,
 * or where the kernel does not stop a process that nobody could continue. */
static void act_as(struct chat_signals *s, int number)
{
    sigset_t set;
    restore_terminal(s);
    sigemptyset(&set);
    sigaddset(&set, number);
    signal(number, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(number);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void tell_reader(struct chat_signals *s, enum chat_input_event event)
{
    char byte = (char)event;
    ssize_t done = write(s->pipe[1], &byte, 1);
    (void)done;
}

static void interrupted(struct chat_signals *s)
{
    if (!atomic_load(&s->ready)) _exit(CHAT_SIGNALS_INTERRUPTED);
    if (!atomic_load(&s->answering))
        tell_reader(s, CHAT_INPUT_INTERRUPTED);
    else if (atomic_fetch_add(&s->stops, 1) == 0)
        s->cancel(s->arg);
    else
        act_as(s, SIGINT);
}

static void *wait_for_signals(void *arg)
{
    struct chat_signals *s = arg;
    int number;
    while (sigwait(&s->set, &number) == 0 && !atomic_load(&s->leaving)) {
        if (number == SIGINT)
            interrupted(s);
        else if (number == SIGWINCH)
            tell_reader(s, CHAT_INPUT_RESIZED);
        else if (number != SIGCONT)
            act_as(s, number);
        if (number == SIGCONT || number == SIGTSTP) tell_reader(s, CHAT_INPUT_CONTINUED);
    }
    return NULL;
}

int chat_signals_begin(struct chat_signals *s, void (*cancel)(void *arg), void *arg, struct err *e)
{
    *s = (struct chat_signals){.cancel = cancel, .arg = arg};
    choose_signals(&s->set);
    pthread_sigmask(SIG_BLOCK, &s->set, NULL); /* inherited by every thread made from now on */
    if (pipe(s->pipe) || pthread_create(&s->thread, NULL, wait_for_signals, s))
        return err_set(e, ERR_IO, "the thread that waits for Ctrl-C cannot be started");
    return 0;
}

void chat_signals_end(struct chat_signals *s)
{
    atomic_store(&s->leaving, true);
    pthread_kill(s->thread, SIGCONT); /* never ignored */
    pthread_join(s->thread, NULL);
    close(s->pipe[0]);
    close(s->pipe[1]);
}

void chat_signals_ready(struct chat_signals *s)
{
    atomic_store(&s->ready, true);
}

void chat_signals_answering(struct chat_signals *s, bool on)
{
    atomic_store(&s->stops, 0);
    atomic_store(&s->answering, on);
}

void chat_signals_typing(struct chat_signals *s, const struct chat_input *in)
{
    atomic_store(&s->typing, in);
}
