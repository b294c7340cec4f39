/* library_record: NAME.json and .NAME.lock of the library; see library.h. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hex.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "hub/json_file.h"
#include "hub/library.h"
#include "model/gguf.h"

enum { RECORD_VERSION = 1, LOCK_TRIES = 8 };

/* ---- records ---- */

static void record_path(const char *dir, const char *name, char path[LIBRARY_PATH_MAX])
{
    snprintf(path, LIBRARY_PATH_MAX, "%s/%s.json", dir, name);
}

static void take_text(const json_t *object, const char *key, char *to, size_t size)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (!text || strlen(text) >= size) return;
    snprintf(to, size, "%s", text);
    utf8_blank_controls(to, strlen(to)); /* it is shown */
}

static void take_digest(const json_t *object, char ret_sha256[65])
{
    char text[65] = "";
    unsigned char digest[32];
    take_text(object, "sha256", text, sizeof text);
    if (strlen(text) == 64 && hex_decode(text, digest, sizeof digest))
        hex_encode(digest, sizeof digest, ret_sha256);
}

static int take_files(const json_t *files, struct library_record *r)
{
    size_t n = json_array_size(files);
    if (n == 0 || n > GGUF_PARTS_MAX) return 0;
    r->files = mem_calloc(n, sizeof *r->files);
    if (!r->files) return ERR_NO_MEMORY;
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(files, i);
        struct library_file *f = &r->files[i];
        const char *name = json_string_value(json_object_get(row, "name"));
        json_int_t bytes = json_integer_value(json_object_get(row, "bytes"));
        f->name = mem_strdup(name ? name : "");
        if (!f->name) return ERR_NO_MEMORY;
        f->bytes = bytes > 0 ? (uint64_t)bytes : 0;
        take_digest(row, f->sha256);
        take_text(row, "etag", f->etag, sizeof f->etag);
        r->n_files++;
    }
    return 0;
}

int library_record_read(const char *dir, const char *name, struct library_record *ret_record,
                        struct err *e)
{
    char path[LIBRARY_PATH_MAX];
    *ret_record = (struct library_record){.n_files = 0};
    record_path(dir, name, path);
    json_t *all = json_file_read(path, LIBRARY_RECORD_MAX);
    take_text(all, "from", ret_record->from, sizeof ret_record->from);
    take_text(all, "asked", ret_record->asked, sizeof ret_record->asked);
    ret_record->pulled = json_integer_value(json_object_get(all, "pulled"));
    int code = take_files(json_object_get(all, "files"), ret_record);
    json_decref(all);
    if (code == 0) return 0;
    library_record_release(ret_record);
    return err_set(e, code, "%s: no memory for it", path);
}

int library_record_write(const char *dir, const char *name, const struct library_record *record,
                         struct err *e)
{
    char path[LIBRARY_PATH_MAX];
    json_t *files = json_array();
    for (uint32_t i = 0; i < record->n_files; i++) {
        const struct library_file *f = &record->files[i];
        json_array_append_new(files, json_pack("{ss sI ss ss}", "name", f->name, "bytes",
                                               (json_int_t)f->bytes, "sha256", f->sha256, "etag",
                                               f->etag));
    }
    json_t *all =
        json_pack("{si ss ss sI so}", "version", RECORD_VERSION, "from", record->from, "asked",
                  record->asked, "pulled", (json_int_t)record->pulled, "files", files);
    record_path(dir, name, path);
    return json_file_write(path, all, JSON_INDENT(2), LIBRARY_RECORD_MAX, e);
}

void library_record_release(struct library_record *r)
{
    for (uint32_t i = 0; i < r->n_files; i++)
        mem_free(r->files[i].name);
    mem_free(r->files);
    r->files = NULL;
    r->n_files = 0;
}

/* ---- locks ---- */

static void lock_path(const char *dir, const char *name, char path[LIBRARY_PATH_MAX])
{
    snprintf(path, LIBRARY_PATH_MAX, "%s/.%s.lock", dir, name);
}

static int refuse_lock(int fd, const char *name, struct err *e)
{
    char pid[32] = "";
    ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
    pid[n > 0 ? n : 0] = 0;
    pid[strspn(pid, "0123456789")] = 0;
    return err_set(e, ERR_BUSY,
                   "%.150s is pulled or removed by another process%s%s: try again "
                   "when it has ended",
                   name, pid[0] ? ", " : "", pid);
}

/* The file is removed by whoever held the lock, so a lock counts only on the file that has the name
 * now. */
int library_lock(const char *dir, const char *name, int *ret_fd, struct err *e)
{
    char path[LIBRARY_PATH_MAX], pid[32];
    struct stat here, there;
    lock_path(dir, name, path);
    for (int i = 0; i < LOCK_TRIES; i++) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0) return err_set(e, ERR_IO, "%s: %s", path, strerror(errno));
        if (flock(fd, LOCK_EX | LOCK_NB)) {
            int code = errno == EWOULDBLOCK ? refuse_lock(fd, name, e)
                                            : err_set(e, ERR_IO, "%s: %s", path, strerror(errno));
            close(fd);
            return code;
        }
        if (fstat(fd, &here) == 0 && stat(path, &there) == 0 && here.st_ino == there.st_ino &&
            here.st_dev == there.st_dev) {
            int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
            if (ftruncate(fd, 0) || pwrite(fd, pid, (size_t)n, 0) != n) {
                /* the number is for the other's message only */
            }
            *ret_fd = fd;
            return 0;
        }
        close(fd);
    }
    return err_set(e, ERR_BUSY, "%.150s is pulled or removed by other processes", name);
}

void library_unlock(const char *dir, const char *name, int fd)
{
    char path[LIBRARY_PATH_MAX];
    lock_path(dir, name, path);
    unlink(path);
    close(fd);
}
