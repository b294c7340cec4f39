/* process: see process.h. */
#include "demo/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"

enum { START_MS = 30000, LOG_SHOWN = 300, LOG_MAX = 16 << 20 };

/* In the child: never returns. */
static void become(const char *const argv[], int out, int log)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* no orphans, however the demonstration ends */
    if (out >= 0) dup2(out, STDOUT_FILENO);
    if (log >= 0) dup2(log, STDERR_FILENO);
    execv("/proc/self/exe", (char *const *)(uintptr_t)argv);
    _exit(127);
}

int process_start(const char *const argv[], const char *log_path, bool own_output,
                  struct process *ret_process, struct err *e)
{
    int ends[2] = {-1, -1};
    int log = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (log < 0) return err_set(e, ERR_IO, "%s: %s", log_path, strerror(errno));
    if (!own_output && pipe2(ends, O_CLOEXEC) != 0) {
        close(log);
        return err_set(e, ERR_IO, "no pipe for %s: %s", argv[1], strerror(errno));
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) become(argv, ends[1], log);
    close(log);
    if (ends[1] >= 0) close(ends[1]);
    if (pid < 0) {
        if (ends[0] >= 0) close(ends[0]);
        return err_set(e, ERR_IO, "%s cannot be started: %s", argv[1], strerror(errno));
    }
    *ret_process = (struct process){pid, ends[0]};
    return 0;
}

/* The last words of a child that failed. */
int process_blame(const char *log_path, const char *what, struct err *e)
{
    struct buf log;
    buf_init(&log, LOG_MAX);
    os_read_file(log_path, &log, NULL);
    const char *tail = log.len > LOG_SHOWN ? log.data + log.len - LOG_SHOWN : log.data;
    int code = err_set(e, ERR_INTERNAL, "%s; %s says: %s", what, log_path, tail);
    buf_release(&log);
    return code;
}

int process_url(struct process *p, const char *log_path, char *url, size_t size, struct err *e)
{
    char line[512];
    size_t n = 0;
    while (n + 1 < sizeof line && (n == 0 || line[n - 1] != '\n')) {
        struct pollfd fd = {p->out, POLLIN, 0};
        if (poll(&fd, 1, START_MS) <= 0)
            return process_blame(log_path, "a part of the demonstration did not start in time", e);
        ssize_t got = read(p->out, line + n, 1);
        if (got <= 0)
            return process_blame(log_path, "a part of the demonstration ended at its start", e);
        n += (size_t)got;
    }
    line[n - 1] = 0;
    const char *at = strstr(line, "http");
    if (!at || strlen(at) >= size)
        return process_blame(log_path, "a part of the demonstration printed no address", e);
    memcpy(url, at, strlen(at) + 1);
    return 0;
}

int process_wait(struct process *p, int *ret_status, struct err *e)
{
    int status;
    while (waitpid(p->pid, &status, 0) < 0)
        if (errno != EINTR) return err_set(e, ERR_IO, "waiting for a child: %s", strerror(errno));
    if (p->out >= 0) close(p->out);
    *p = (struct process){0, -1};
    *ret_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return 0;
}

void process_stop(struct process *p)
{
    int status;
    if (p->pid <= 0) return;
    kill(p->pid, SIGTERM);
    process_wait(p, &status, NULL);
}
