/*
 * program: `pdd` run as a process by a test, with pipes to its three streams. The program is the
 * one that PDD_BIN names (CTest sets it); without it the test is skipped.
 */
#ifndef PDD_TESTS_PROGRAM_H
#define PDD_TESTS_PROGRAM_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/buf.h"

struct program {
    pid_t pid;
    int in, out, err; /* our ends */
};

enum { PROGRAM_ARGS_MAX = 48, PROGRAM_OUTPUT_MAX = 1 << 20 };

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Whether this build is instrumented by a sanitizer: such programs compute many times slower, too
 * slow for a test that emulates a device or asks whole models many questions. */
extern const bool program_instrumented;

/* Start `pdd COMMAND ARGS...`; the list ends with NULL. */
void program_start(struct program *p, const char *command, const char *const *args);
/* The rest of its first line of output after `before`, for the servers that tell their URL. */
void program_line_after(struct program *p, const char *before, char *ret_text, size_t size);
/* Close its input, gather its output (initialised here), and return its exit status. */
int program_finish(struct program *p, struct buf *out, struct buf *err);
/* Run a shell's command line; its output (initialised here), and the exit status. */
int program_shell(const char *command, struct buf *out);
/* Fail unless a run ended with `status` and its output has `text`; `what` names it. Releases `out`.
 */
void program_expect(const char *what, int got, int status, struct buf *out, const char *text);
void program_kill(struct program *p, int number); /* and wait for its end */

#endif
