/*
 * json_file: a small JSON file, read and written whole. Blocking file I/O; no threads.
 */
#ifndef PDD_HUB_JSON_FILE_H
#define PDD_HUB_JSON_FILE_H

#include <stddef.h>

#include "base/err.h"

struct json_t;

/* NULL where the file is missing, is no JSON, or has more than `max` bytes. For json_decref. */
struct json_t *json_file_read(const char *path, size_t max);
/* Takes `all`, which may be NULL: then, and where it has more than `max` bytes, ERR_INTERNAL.
 * `flags`: of json_dumps. */
int json_file_write(const char *path, struct json_t *all, size_t flags, size_t max, struct err *e);

#endif
