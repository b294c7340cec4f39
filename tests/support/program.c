/* program: see program.h. */
#include "support/program.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#ifndef __has_feature
#define __has_feature(name) 0 /* gcc defines the macros below */
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) ||                               \
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
const bool program_instrumented = true;
#else
const bool program_instrumented = false;
#endif

enum { LINE_MAX_BYTES = 512 };

void program_start(struct program *p, const char *command, const char *const *args)
{
    const char *bin = getenv("PDD_BIN");
    char *argv[PROGRAM_ARGS_MAX] = {(char *)(uintptr_t) "pdd", (char *)(uintptr_t)command};
    int in[2], out[2], err[2];
    if (!bin || !bin[0]) skip();
    for (int i = 0; args[i]; i++) {
        assert_true(i + 3 < PROGRAM_ARGS_MAX);
        argv[i + 2] = (char *)(uintptr_t)args[i];
    }
    assert_int_equal(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC) | pipe2(err, O_CLOEXEC), 0);
    p->pid = fork();
    assert_true(p->pid >= 0);
    if (p->pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(err[1], 2);
        unsetenv("XDG_STATE_HOME"); /* each starts with guesses, and leaves nothing */
        unsetenv("HOME");
        execv(bin, argv);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    close(err[1]);
    *p = (struct program){p->pid, in[1], out[0], err[0]};
}

void program_line_after(struct program *p, const char *before, char *ret_text, size_t size)
{
    char line[LINE_MAX_BYTES];
    size_t n = 0;
    while (n + 1 < sizeof line && read(p->out, line + n, 1) == 1 && line[n] != '\n')
        n++;
    line[n] = 0;
    char *found = strstr(line, before);
    if (!found) fail_msg("no \"%s\" in: %s", before, line);
    snprintf(ret_text, size, "%s", found + strlen(before));
}

static void read_all(int fd, struct buf *b)
{
    char bytes[4096];
    ssize_t n;
    buf_init(b, PROGRAM_OUTPUT_MAX);
    while ((n = read(fd, bytes, sizeof bytes)) > 0)
        assert_int_equal(buf_append(b, bytes, (size_t)n), 0);
    close(fd);
}

int program_finish(struct program *p, struct buf *out, struct buf *err)
{
    int status;
    close(p->in);
    read_all(p->out, out);
    read_all(p->err, err);
    assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

void program_expect(const char *what, int got, int status, struct buf *out, const char *text)
{
    if (got != status) fail_msg("%s: status %d, not %d: %s", what, got, status, out->data);
    if (!strstr(out->data, text)) fail_msg("%s: no \"%s\" in: %s", what, text, out->data);
    buf_release(out);
}

void program_kill(struct program *p, int number)
{
    kill(p->pid, number);
    close(p->in);
    close(p->out);
    close(p->err);
    waitpid(p->pid, NULL, 0);
}

int program_shell(const char *command, struct buf *out)
{
    char bytes[4096];
    size_t n;
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    buf_init(out, PROGRAM_OUTPUT_MAX);
    while ((n = fread(bytes, 1, sizeof bytes, pipe)) > 0)
        assert_int_equal(buf_append(out, bytes, n), 0);
    int status = pclose(pipe);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}
