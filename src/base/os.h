/*
 * os: the boundary to the operating system, without time and network. Any thread.
 */
#ifndef PDD_BASE_OS_H
#define PDD_BASE_OS_H

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
/* Give the memory of whole pages in [at, at + n) of the mapping back; they come again from the file
 * when they are read. */
void os_map_forget(const struct os_map *map, const uint8_t *at, size_t n);

/* Append the whole file to b; a file larger than b's room is ERR_LIMIT. */
int os_read_file(const char *path, struct buf *b, struct err *e);
/* A file that appears whole or not at all, or what a pipe or a device gets; see output.h. */
int os_write_file(const char *path, const void *data, size_t n, struct err *e);

/* Bytes this process may still take: what the system calls available, or what is left to its
 * control group where that is less; UINT64_MAX when neither can be read. */
uint64_t os_memory_available(void);

/* What this process uses; negative where the system does not tell. */
struct os_usage {
    double resident_bytes; /* memory that it has in RAM, mapped files too */
    double cpu_seconds;    /* of all its threads, in the kernel too */
    double descriptors, descriptors_max;
};
void os_usage(struct os_usage *ret_usage);
/* When the process started, seconds since 1970, as the system's clock says now; negative: not told.
 */
double os_started(void);

unsigned os_cpu_count(void); /* CPUs this process may use, at least 1 */

/* Ask for at least `wanted` file descriptors; returns how many the process may have open now. */
uint32_t os_raise_descriptors(uint32_t wanted);

#endif
