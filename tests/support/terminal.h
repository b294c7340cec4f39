/*
 * terminal: `pdd chat` at a terminal of its own (a pty), typed to and read by a test. Skipped
 * without PDD_BIN.
 */
#ifndef PDD_TESTS_TERMINAL_H
#define PDD_TESTS_TERMINAL_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/buf.h"

struct terminal {
    int fd;    /* the person's end */
    pid_t pid; /* of pdd, or of its shell */
    struct buf seen;
};

/* `pdd chat` with the arguments and, in its environment, TERM and the settings "NAME=VALUE" (NULL
 * ends both lists), in a window of 80 columns. */
void terminal_start(struct terminal *t, const char *term, const char *const *settings,
                    const char *const *args);
/* The same below a shell with job control: when pdd stops, it writes "[stopped]"; a line typed then
 * continues it. It has the exit status of pdd, or 128 and the signal that ended it. */
void terminal_start_job(struct terminal *t, const char *const *settings, const char *const *args);
void terminal_await(struct terminal *t, const char *text, int times); /* has shown it so often */
/* Until the line editor has the terminal, after it began a line so often. */
void terminal_await_editor(struct terminal *t, int times);
void terminal_await_raw(struct terminal *t);
bool terminal_is_raw(const struct terminal *t);
void terminal_type(struct terminal *t, const char *keys);
void terminal_resize(struct terminal *t, unsigned short columns);
/* Read to the end, release all but `seen`; the status as waitpid tells it. */
int terminal_end(struct terminal *t);

#endif
