/*
 * chat_signals: Ctrl-C and what else a terminal sends, for `pdd chat`. A thread of its own waits
 * for signals all the time.
 *
 * SIGINT: while an answer is given, the first one cancels it and the second ends the program; at
 * the prompt it goes to the reader of lines (chat_input); before chat_signals_ready it ends the
 * program. SIGTERM, SIGHUP, SIGQUIT and SIGTSTP do what they do by themselves, but the terminal is
 * first left as it was found. SIGCONT and SIGWINCH tell the line editor to draw its line again. A
 * signal that is ignored when the program starts stays ignored.
 *
 * Threads: one owner; chat_signals_begin comes before any other thread is started.
 */
#ifndef PDD_CLI_CHAT_CHAT_SIGNALS_H
#define PDD_CLI_CHAT_CHAT_SIGNALS_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "base/err.h"
#include "cli/chat/chat_input.h"

enum { CHAT_SIGNALS_INTERRUPTED = 130 }; /* exit status after SIGINT, as shells count */

struct chat_signals {
    void (*cancel)(void *arg); /* from the thread of signals */
    void *arg;
    sigset_t set;
    pthread_t thread;
    int pipe[2]; /* of enum chat_input_event; the reader's end is [0] */
    atomic_bool ready, answering, leaving;
    atomic_uint stops; /* SIGINT since the answer began */
    _Atomic(const struct chat_input *) typing;
};

int chat_signals_begin(struct chat_signals *s, void (*cancel)(void *arg), void *arg, struct err *e);
void chat_signals_end(struct chat_signals *s);

void chat_signals_ready(struct chat_signals *s); /* `cancel` may be called */
void chat_signals_answering(struct chat_signals *s, bool on);
/* The reader of lines that has the terminal; NULL: none any more. */
void chat_signals_typing(struct chat_signals *s, const struct chat_input *in);

#endif
