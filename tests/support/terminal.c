/* terminal: see terminal.h. */
#include "support/terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

enum { WAIT_MS = 20000, ARGS_MAX = 32, COLUMNS = 80 };

static void become_pdd(const char *term, const char *const *settings, const char *const *args)
{
    char *argv[ARGS_MAX] = {(char *)(uintptr_t) "pdd", (char *)(uintptr_t) "chat"};
    for (int i = 0; args[i] && i + 3 < ARGS_MAX; i++)
        argv[i + 2] = (char *)(uintptr_t)args[i];
    setenv("TERM", term, 1);
    setenv("NO_COLOR", "", 1);
    for (; *settings; settings++)
        putenv((char *)(uintptr_t)*settings);
    execv(getenv("PDD_BIN"), argv);
    _exit(127);
}

static void open_terminal(struct terminal *t)
{
    struct winsize size = {24, COLUMNS, 0, 0};
    if (!getenv("PDD_BIN")) skip();
    buf_init(&t->seen, 1 << 22);
    t->fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(t->fd >= 0 && grantpt(t->fd) == 0 && unlockpt(t->fd) == 0);
    ioctl(t->fd, TIOCSWINSZ, &size);
}

/* In a child: the terminal is its own, as its three streams. */
static void take_terminal(const struct terminal *t)
{
    setsid();
    int fd = open(ptsname(t->fd), O_RDWR);
    for (int i = 0; i < 3; i++)
        dup2(fd, i);
}

void terminal_start(struct terminal *t, const char *term, const char *const *settings,
                    const char *const *args)
{
    open_terminal(t);
    t->pid = fork();
    if (t->pid != 0) return;
    take_terminal(t);
    become_pdd(term, settings, args);
}

/* What a shell does with a job that stops. Never returns. */
static void be_shell(pid_t job)
{
    struct termios own, of_job;
    int status;
    char line[16];
    tcgetattr(0, &own);
    signal(SIGTTOU, SIG_IGN);
    while (waitpid(job, &status, WUNTRACED) == job && WIFSTOPPED(status)) {
        tcsetpgrp(0, getpgrp());
        if (write(1, "[stopped]", 9) != 9 || read(0, line, sizeof line) < 1) _exit(126);
        tcgetattr(0, &of_job);
        tcsetattr(0, TCSADRAIN, &own);
        tcsetpgrp(0, job);
        kill(-job, SIGCONT);
    }
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

void terminal_start_job(struct terminal *t, const char *const *settings, const char *const *args)
{
    open_terminal(t);
    t->pid = fork();
    if (t->pid != 0) return;
    take_terminal(t);
    pid_t job = fork();
    if (job == 0) {
        setpgid(0, 0);
        signal(SIGTTOU, SIG_IGN);
        tcsetpgrp(0, getpgrp());
        signal(SIGTTOU, SIG_DFL);
        become_pdd("xterm", settings, args);
    }
    be_shell(job);
}

void terminal_await(struct terminal *t, const char *text, int times)
{
    char bytes[4096];
    for (;;) {
        int n = 0;
        for (const char *at = t->seen.data; (at = strstr(at, text)); at += strlen(text))
            n++;
        if (n >= times) return;
        struct pollfd p = {t->fd, POLLIN, 0};
        ssize_t got = poll(&p, 1, WAIT_MS) == 1 ? read(t->fd, bytes, sizeof bytes) : 0;
        if (got <= 0) fail_msg("never %d times \"%s\": %s", times, text, t->seen.data);
        assert_int_equal(buf_append(&t->seen, bytes, (size_t)got), 0);
    }
}

bool terminal_is_raw(const struct terminal *t)
{
    struct termios now;
    assert_int_equal(tcgetattr(t->fd, &now), 0);
    return !(now.c_lflag & ICANON);
}

void terminal_await_raw(struct terminal *t)
{
    for (int ms = 0; ms < WAIT_MS; ms++) {
        if (terminal_is_raw(t)) return;
        usleep(1000);
    }
    fail_msg("the terminal stays as it was");
}

void terminal_await_editor(struct terminal *t, int times)
{
    terminal_await(t, "\033[?2004h> ", times);
    terminal_await_raw(t);
}

void terminal_type(struct terminal *t, const char *keys)
{
    assert_int_equal(write(t->fd, keys, strlen(keys)), strlen(keys));
}

void terminal_resize(struct terminal *t, unsigned short columns)
{
    struct winsize size = {24, columns, 0, 0};
    assert_int_equal(ioctl(t->fd, TIOCSWINSZ, &size), 0);
}

int terminal_end(struct terminal *t)
{
    int status;
    char bytes[4096];
    for (ssize_t got; (got = read(t->fd, bytes, sizeof bytes)) > 0;)
        assert_int_equal(buf_append(&t->seen, bytes, (size_t)got), 0);
    close(t->fd);
    assert_int_equal(waitpid(t->pid, &status, 0), t->pid);
    return status;
}
