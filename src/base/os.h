/*
 * os: the boundary to the operating system, without time and network. Any thread.
 */
#ifndef PDD_BASE_OS_H
#define PDD_BASE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct os_map {
    const uint8_t *data; /* read-only mapping; NULL for an empty file */
    size_t size;
};

int os_map_open(const char *path, struct os_map *ret_map, struct err *e);
void os_map_close(struct os_map *map);
/* Release the memory of whole pages in [at, at + n) of the mapping; the next read loads them from
 * the file again. */
void os_map_forget(const struct os_map *map, const uint8_t *at, size_t n);

/* Append the whole file to b; a file larger than b's room is ERR_LIMIT. */
int os_read_file(const char *path, struct buf *b, struct err *e);
/* Make a folder and those above it that are missing, with this mode; one that exists is left as it
 * is. ERR_IO says why not. */
int os_make_folder(const char *path, unsigned mode, struct err *e);
/* NAME in a folder of this user, by the XDG standard: the absolute path that the environment
 * variable has, else $HOME/BELOW. ERR_NOT_FOUND: neither is set; ERR_LIMIT: longer than `size`. */
int os_user_folder(const char *variable, const char *below, const char *name, char *path,
                   size_t size);
/* Write a file atomically, or to a pipe or a device; see output.h. */
int os_write_file(const char *path, const void *data, size_t n, struct err *e);

/* Bytes this process may still allocate: the system's available memory, or the rest of its cgroup
 * where that is less; UINT64_MAX when neither can be read. */
uint64_t os_memory_available(void);

/* Bytes that this user may still write to the disk of a file or folder; UINT64_MAX: not known. */
uint64_t os_disk_free(const char *path);

/* Resources of this process; negative where unknown. */
struct os_usage {
    double resident_bytes; /* resident set, with mapped files */
    double cpu_seconds;    /* user and system, all threads */
    double descriptors, descriptors_max;
};
void os_usage(struct os_usage *ret_usage);
/* When the process started, in seconds since 1970; negative: unknown. */
double os_started(void);

/* The first line of FOLDER/NAME/FIELD, cut to `size`, without its end: for files as /sys has them.
 * False: there is none. */
bool os_read_field(const char *folder, const char *name, const char *field, char *text,
                   size_t size);
/* Whether that line is `text`. */
bool os_field_is(const char *folder, const char *name, const char *field, const char *text);
/* Whether the machine runs on its battery, by a folder as OS_POWER_SUPPLY: no charger is online,
 * and a battery discharges. False where that is not known. */
#define OS_POWER_SUPPLY "/sys/class/power_supply"
bool os_on_battery(const char *folder);

unsigned os_cpu_count(void); /* CPUs this process may use, at least 1 */

/* Open /dev/null in place of standard streams that are closed: else the next file or socket would
 * get their number, and what is printed. Before anything else is opened. */
void os_fill_streams(void);

/* Raise the limit of file descriptors to at least `wanted`; returns the limit from now on. */
uint32_t os_raise_descriptors(uint32_t wanted);

#endif
