/* output: see output.h. */
#include "base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINKS_MAX = 40 };

/* One step along the symbolic link that o->path is. */
static int follow(struct output *o)
{
    char target[OUTPUT_PATH_MAX];
    ssize_t n = readlink(o->path, target, sizeof target);
    if (n < 0) return -1;
    char *slash = strrchr(o->path, '/');
    size_t keep = slash && target[0] != '/' ? (size_t)(slash - o->path) + 1 : 0;
    if (keep + (size_t)n >= sizeof o->path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(o->path + keep, target, (size_t)n);
    o->path[keep + (size_t)n] = 0;
    return 0;
}

/* What is renamed must stand beside the file itself, or the link would be replaced. */
static int follow_all(struct output *o)
{
    struct stat st;
    for (int i = 0; lstat(o->path, &st) == 0 && S_ISLNK(st.st_mode); i++) {
        if (i == LINKS_MAX) errno = ELOOP;
        if (i == LINKS_MAX || follow(o)) return -1;
    }
    return 0;
}

int output_begin(struct output *o, const char *path, struct err *e)
{
    struct stat st;
    o->temporary[0] = 0;
    if (strlen(path) >= OUTPUT_PATH_MAX)
        return err_set(e, ERR_LIMIT, "%.100s...: path too long", path);
    memcpy(o->path, path, strlen(path) + 1);
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        o->fd = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
        return o->fd < 0 ? err_set(e, ERR_IO, "%.200s: %s", path, strerror(errno)) : 0;
    }
    if (follow_all(o)) return err_set(e, ERR_IO, "%.200s: %s", path, strerror(errno));
    int n = snprintf(o->temporary, sizeof o->temporary, "%s.%ld.tmp", o->path, (long)getpid());
    if (n < 0 || n >= OUTPUT_PATH_MAX)
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
        if (done < 0 && errno == ESPIPE)
            return err_set(e, ERR_IO, "%.200s: its parts come in any order: a file is needed",
                           o->path);
        if (done <= 0)
            return err_set(e, ERR_IO, "%.200s: %s", o->path, strerror(done < 0 ? errno : ENOSPC));
        from += done;
        at += (uint64_t)done;
        n -= (size_t)done;
    }
    return 0;
}

int output_append(const struct output *o, const void *data, size_t n, struct err *e)
{
    const char *from = data;
    while (n > 0) {
        ssize_t done = write(o->fd, from, n);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return err_set(e, ERR_IO, "%.200s: %s", o->path, strerror(errno));
        from += done;
        n -= (size_t)done;
    }
    return 0;
}

static void remove_temporary(const struct output *o)
{
    if (o->temporary[0]) unlink(o->temporary);
}

int output_commit(struct output *o, struct err *e)
{
    int fd = o->fd;
    o->fd = -1;
    if (close(fd) == 0 && (!o->temporary[0] || rename(o->temporary, o->path) == 0)) return 0;
    int code = err_set(e, ERR_IO, "%.200s: %s", o->path, strerror(errno));
    remove_temporary(o);
    return code;
}

void output_abandon(struct output *o)
{
    if (o->fd < 0) return;
    close(o->fd);
    o->fd = -1;
    remove_temporary(o);
}
