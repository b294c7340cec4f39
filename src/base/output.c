/* output: see output.h. */
#include "base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int output_begin(struct output *o, const char *path, struct err *e)
{
    int a = snprintf(o->path, sizeof o->path, "%s", path);
    int b = snprintf(o->temporary, sizeof o->temporary, "%s.%ld.tmp", path, (long)getpid());
    if (a < 0 || b < 0 || b >= OUTPUT_PATH_MAX)
        return err_set(e, ERR_LIMIT, "%.100s...: path too long", path);
    o->fd = open(o->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    return o->fd < 0 ? err_set(e, ERR_IO, "%.200s: %s", o->path, strerror(errno)) : 0;
}

int output_write(const struct output *o, uint64_t at, const void *data, size_t n, struct err *e)
{
    const char *from = data;
    while (n > 0) {
        ssize_t done = pwrite(o->fd, from, n, (off_t)at);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0)
            return err_set(e, ERR_IO, "%.200s: %s", o->path, strerror(done < 0 ? errno : ENOSPC));
        from += done;
        at += (uint64_t)done;
        n -= (size_t)done;
    }
    return 0;
}

int output_commit(struct output *o, struct err *e)
{
    int fd = o->fd;
    o->fd = -1;
    if (close(fd) == 0 && rename(o->temporary, o->path) == 0) return 0;
    int code = err_set(e, ERR_IO, "%.200s: %s", o->path, strerror(errno));
    unlink(o->temporary);
    return code;
}

void output_abandon(struct output *o)
{
    if (o->fd < 0) return;
    close(o->fd);
    o->fd = -1;
    unlink(o->temporary);
}
