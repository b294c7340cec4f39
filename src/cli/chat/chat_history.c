/* chat_history: see chat_history.h. */
#include "cli/chat/chat_history.h"
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/json.h"

enum { LOCK_TRIES = 16 };

static int failed(const struct chat_history *h, struct err *e)
{
    return err_set(e, ERR_IO, "%s: %s", h->path, strerror(errno));
}

static int check_file(const struct chat_history *h, int fd, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st)) return failed(h, e);
    if (!S_ISREG(st.st_mode)) return err_set(e, ERR_IO, "%s: not a file", h->path);
    if (st.st_uid != geteuid())
        return err_set(e, ERR_DENIED, "%s: belongs to another user", h->path);
    return (st.st_mode & 07777) != 0600 && fchmod(fd, 0600) ? failed(h, e) : 0;
}

/* The file, opened and locked. Another program may have replaced it while this one waited for the
 * lock: then again. */
static int open_locked(const struct chat_history *h, int *ret_fd, struct err *e)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        struct stat mine, named;
        int fd =
            open(h->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
        if (fd < 0) return failed(h, e);
        int code = check_file(h, fd, e);
        if (code == 0 && flock(fd, LOCK_EX)) code = failed(h, e);
        if (code == 0 && fstat(fd, &mine) == 0 && stat(h->path, &named) == 0 &&
            mine.st_ino == named.st_ino && mine.st_dev == named.st_dev) {
            *ret_fd = fd;
            return 0;
        }
        close(fd);
        if (code) return code;
    }
    return err_set(e, ERR_BUSY, "%s: other programs replace it all the time", h->path);
}

int chat_history_open(struct chat_history *h, const char *dir, struct err *e)
{
    int fd, code = os_make_folder(dir, 0700, e);
    if (code) return code;
    if (snprintf(h->path, sizeof h->path, "%s/history", dir) >= (int)sizeof h->path)
        return err_set(e, ERR_LIMIT, "the name of the state folder is too long");
    code = open_locked(h, &fd, e);
    if (code == 0) close(fd);
    return code;
}

static int read_whole(const struct chat_history *h, int fd, struct buf *b, struct err *e)
{
    char bytes[1 << 14];
    off_t at = 0;
    for (ssize_t got; (got = pread(fd, bytes, sizeof bytes, at)) != 0; at += got) {
        if (got < 0) return failed(h, e);
        if (buf_append(b, bytes, (size_t)got))
            return err_set(e, ERR_LIMIT, "%s: larger than a history: move it away", h->path);
    }
    return 0;
}

static void load_line(const char *line, size_t n, void (*each)(void *arg, const char *text),
                      void *arg)
{
    json_t *entry = json_loadb(line, n, JSON_DECODE_ANY, NULL);
    if (json_is_string(entry)) each(arg, json_string_value(entry));
    json_decref(entry);
}

int chat_history_load(const struct chat_history *h, void (*each)(void *arg, const char *text),
                      void *arg, struct err *e)
{
    struct buf b;
    int fd, code = open_locked(h, &fd, e);
    if (code) return code;
    buf_init(&b, 2 * CHAT_HISTORY_BYTES_MAX);
    code = read_whole(h, fd, &b, e);
    close(fd);
    for (size_t at = 0, n; code == 0 && at < b.len; at += n + 1) {
        const char *end = memchr(b.data + at, '\n', b.len - at);
        n = end ? (size_t)(end - b.data) - at : b.len - at;
        load_line(b.data + at, n, each, arg);
    }
    buf_release(&b);
    return code;
}

static int write_all(const struct chat_history *h, int fd, const char *bytes, size_t n,
                     struct err *e)
{
    while (n > 0) {
        ssize_t done = write(fd, bytes, n);
        if (done < 0 && errno != EINTR) return failed(h, e);
        if (done < 0) continue;
        bytes += done;
        n -= (size_t)done;
    }
    return 0;
}

/* A new file of the newer half takes the place of the one that is locked. */
static int shorten(const struct chat_history *h, const struct buf *whole, struct err *e)
{
    char path[STORE_PATH_MAX + 32];
    size_t from = whole->len - CHAT_HISTORY_BYTES_MAX / 2;
    const char *line = memchr(whole->data + from, '\n', whole->len - from);
    from = line ? (size_t)(line - whole->data) + 1 : whole->len;
    snprintf(path, sizeof path, "%s.%ld.tmp", h->path, (long)getpid());
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return failed(h, e);
    int code = write_all(h, fd, whole->data + from, whole->len - from, e);
    if (close(fd) && code == 0) code = failed(h, e);
    if (code == 0 && rename(path, h->path)) code = failed(h, e);
    if (code) unlink(path);
    return code;
}

/* The entry's line goes to the end; one that another program left unfinished is ended first. */
static int append(const struct chat_history *h, int fd, const struct buf *line, struct err *e)
{
    struct buf whole;
    char last = '\n';
    off_t size = lseek(fd, 0, SEEK_END);
    if (size < 0) return failed(h, e);
    if (size > 0 && pread(fd, &last, 1, size - 1) != 1) return failed(h, e);
    int code = last == '\n' ? 0 : write_all(h, fd, "\n", 1, e);
    if (code == 0) code = write_all(h, fd, line->data, line->len, e);
    if (code || (uint64_t)size + line->len <= CHAT_HISTORY_BYTES_MAX) return code;
    buf_init(&whole, 2 * CHAT_HISTORY_BYTES_MAX);
    code = read_whole(h, fd, &whole, e);
    if (code == 0) code = shorten(h, &whole, e);
    buf_release(&whole);
    return code;
}

int chat_history_add(const struct chat_history *h, const char *text, size_t n, struct err *e)
{
    struct buf line;
    int fd, code = 0;
    if (n == 0 || text[0] == ' ' || text[0] == '\t') return 0;
    buf_init(&line, CHAT_HISTORY_ENTRY_MAX);
    json_put_string(&line, text, n);
    buf_putc(&line, '\n');
    bool kept = !line.error;
    if (kept) code = open_locked(h, &fd, e);
    if (kept && code == 0) {
        code = append(h, fd, &line, e);
        close(fd);
    }
    buf_release(&line);
    return code;
}
