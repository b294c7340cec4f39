/* os: see os.h. */
#include "base/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/output.h"

enum { FOLDER_NAME_MAX = 4096 };

int os_map_open(const char *path, struct os_map *ret_map, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path,
                       strerror(errno));
    struct stat st;
    int code = 0;
    void *data = NULL;
    if (fstat(fd, &st) != 0)
        code = err_set(e, ERR_IO, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        code = err_set(e, ERR_BAD_INPUT, "%s: not a regular file", path);
    else if (st.st_size > 0) {
        data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            code = err_set(e, ERR_IO, "%s: cannot be mapped: %s", path, strerror(errno));
    }
    close(fd);
    if (code == 0) *ret_map = (struct os_map){data, (size_t)st.st_size};
    return code;
}

void os_fill_streams(void)
{
    int fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO)
        fd = open("/dev/null", O_RDWR);
    if (fd > STDERR_FILENO) close(fd);
}

void os_map_close(struct os_map *map)
{
    if (map->data) munmap((void *)(uintptr_t)map->data, map->size);
    *map = (struct os_map){NULL, 0};
}

void os_map_forget(const struct os_map *map, const uint8_t *at, size_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)at + page - 1) / page * page,
              end = (uintptr_t)(at + n) / page * page;
    if (map->data && begin < end) (void)madvise((void *)begin, end - begin, MADV_DONTNEED);
}

int os_read_file(const char *path, struct buf *b, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path,
                       strerror(errno));
    int code = 0;
    char block[65536];
    for (;;) {
        ssize_t n = read(fd, block, sizeof block);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) code = err_set(e, ERR_IO, "%s: %s", path, strerror(errno));
        if (n <= 0) break;
        code = buf_append(b, block, (size_t)n);
        if (code) {
            err_set(e, code, "%s: larger than the limit of %zu bytes", path, b->max);
            break;
        }
    }
    close(fd);
    return code;
}

int os_make_folder(const char *path, unsigned mode, struct err *e)
{
    char part[FOLDER_NAME_MAX];
    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part || !*path)
        return err_set(e, ERR_BAD_INPUT, "%.200s: no name of a folder", path);
    for (char *at = part + 1; *at; at++) {
        if (*at != '/') continue;
        *at = 0;
        (void)mkdir(part, mode); /* what fails here fails below, with its reason */
        *at = '/';
    }
    struct stat st;
    if (mkdir(part, mode) == 0) return 0;
    if (errno == EEXIST && stat(part, &st) == 0) {
        if (S_ISDIR(st.st_mode)) return 0;
        errno = ENOTDIR;
    }
    return err_set(e, ERR_IO, "%s: the folder cannot be made: %s", path, strerror(errno));
}

int os_user_folder(const char *variable, const char *below, const char *name, char *path,
                   size_t size)
{
    const char *folder = secure_getenv(variable), *home = secure_getenv("HOME");
    int len;
    if (folder && folder[0] == '/') /* the standard: a relative one is to be ignored */
        len = snprintf(path, size, "%s/%s", folder, name);
    else if (home && home[0] == '/')
        len = snprintf(path, size, "%s/%s/%s", home, below, name);
    else
        return ERR_NOT_FOUND;
    return len < 0 || (size_t)len >= size ? ERR_LIMIT : 0;
}

int os_write_file(const char *path, const void *data, size_t n, struct err *e)
{
    struct output o;
    int code = output_begin(&o, path, e);
    if (code) return code;
    code = output_append(&o, data, n, e);
    if (code == 0) return output_commit(&o, e);
    output_abandon(&o);
    return code;
}

/* Small files of the system have no size; 0 when it cannot be read. */
static size_t read_small(const char *path, char *text, size_t size)
{
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    size_t n = fread(text, 1, size - 1, f);
    fclose(f);
    text[n] = 0;
    return n;
}

/* The first number in a small file of the system, after `label`; UINT64_MAX when there is none
 * (a control group without a limit says "max"). */
static uint64_t read_number(const char *path, const char *label)
{
    char text[4096];
    if (!read_small(path, text, sizeof text)) return UINT64_MAX;
    const char *at = strstr(text, label);
    if (!at) return UINT64_MAX;
    at += strlen(label);
    unsigned long long value;
    return sscanf(at, "%llu", &value) == 1 ? value : UINT64_MAX;
}

uint64_t os_memory_available(void)
{
    uint64_t kilobytes = read_number("/proc/meminfo", "MemAvailable:");
    uint64_t most = kilobytes < UINT64_MAX / 1024 ? kilobytes * 1024 : UINT64_MAX;
    uint64_t limit = read_number("/sys/fs/cgroup/memory.max", "");
    uint64_t used = read_number("/sys/fs/cgroup/memory.current", "");
    if (limit == UINT64_MAX || used == UINT64_MAX) return most;
    uint64_t left = limit > used ? limit - used : 0;
    return left < most ? left : most;
}

uint64_t os_disk_free(const char *path)
{
    struct statvfs fs;
    if (statvfs(path, &fs)) return UINT64_MAX;
    return (uint64_t)fs.f_bavail * (uint64_t)fs.f_frsize;
}

static double resident_bytes(void)
{
    char text[256];
    unsigned long long all, resident;
    if (!read_small("/proc/self/statm", text, sizeof text)) return -1;
    if (sscanf(text, "%llu %llu", &all, &resident) != 2) return -1;
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static double seconds_of(const struct timeval *t)
{
    return (double)t->tv_sec + (double)t->tv_usec / 1e6;
}

/* From Linux 6.2 on the folder's size is their number; counting takes a millisecond for thousands.
 */
static double open_descriptors(void)
{
    static const char path[] = "/proc/self/fd";
    struct stat st;
    if (stat(path, &st) == 0 && st.st_size > 0) return (double)st.st_size;
    DIR *folder = opendir(path);
    double n = -3; /* "." and "..", and the one that reads */
    if (!folder) return -1;
    while (readdir(folder))
        n++;
    closedir(folder);
    return n;
}

void os_usage(struct os_usage *ret_usage)
{
    struct rusage used;
    struct rlimit limit;
    *ret_usage = (struct os_usage){resident_bytes(), -1, open_descriptors(), -1};
    if (getrusage(RUSAGE_SELF, &used) == 0)
        ret_usage->cpu_seconds = seconds_of(&used.ru_utime) + seconds_of(&used.ru_stime);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) ret_usage->descriptors_max = (double)limit.rlim_cur;
}

double os_started(void)
{
    enum { BEFORE_START = 19 }; /* fields between the name and the start */
    char text[2048];
    struct timespec boot, now;
    if (!read_small("/proc/self/stat", text, sizeof text)) return -1;
    char *at = strrchr(text, ')'); /* the name before it may hold anything */
    for (int i = 0; at && i <= BEFORE_START; i++)
        at = strchr(at + 1, ' ');
    unsigned long long ticks;
    if (!at || sscanf(at, "%llu", &ticks) != 1) return -1;
    clock_gettime(CLOCK_BOOTTIME, &boot);
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)(now.tv_sec - boot.tv_sec) + (double)(now.tv_nsec - boot.tv_nsec) / 1e9 +
           (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

unsigned os_cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? (unsigned)n : 1;
}

uint32_t os_raise_descriptors(uint32_t wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
    if (limit.rlim_cur < wanted) {
        rlim_t before = limit.rlim_cur;
        limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
    }
    return limit.rlim_cur < UINT32_MAX ? (uint32_t)limit.rlim_cur : UINT32_MAX;
}

bool os_read_field(const char *folder, const char *name, const char *field, char *text, size_t size)
{
    char path[512];
    if (snprintf(path, sizeof path, "%s/%s/%s", folder, name, field) >= (int)sizeof path)
        return false;
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool read = fgets(text, (int)size, f) != NULL;
    fclose(f);
    if (read) text[strcspn(text, "\n")] = 0;
    return read;
}

bool os_field_is(const char *folder, const char *name, const char *field, const char *text)
{
    char line[64];
    return os_read_field(folder, name, field, line, sizeof line) && strcmp(line, text) == 0;
}

bool os_on_battery(const char *folder)
{
    bool discharges = false, charger = false;
    DIR *d = opendir(folder);
    if (!d) return false;
    for (struct dirent *f; (f = readdir(d)) != NULL;) {
        if (f->d_name[0] == '.') continue;
        bool battery = os_field_is(folder, f->d_name, "type", "Battery");
        /* that of a mouse says nothing */
        if (battery && !os_field_is(folder, f->d_name, "scope", "Device"))
            discharges = discharges || os_field_is(folder, f->d_name, "status", "Discharging");
        else if (!battery)
            charger = charger || os_field_is(folder, f->d_name, "online", "1");
    }
    closedir(d);
    return discharges && !charger;
}
