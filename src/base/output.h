/*
 * output: a file that is written atomically. Bytes go to a temporary file next to the path, at any
 * offset; commit renames it into place, abandon removes it. A killed program leaves the temporary
 * file (PATH.PID.tmp), never a partial file at the path. Symbolic links stay: their target is
 * replaced or created. A pipe or a device cannot be replaced: bytes are written to it directly.
 * Threads: any may call output_write; one owner for the rest.
 */
#ifndef PDD_BASE_OUTPUT_H
#define PDD_BASE_OUTPUT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { OUTPUT_PATH_MAX = 4096 };

struct output {
    int fd;
    char path[OUTPUT_PATH_MAX];      /* with links resolved */
    char temporary[OUTPUT_PATH_MAX]; /* empty: a pipe or a device */
};

int output_begin(struct output *o, const char *path, struct err *e);
/* All n bytes at offset `at`, or an error that names the file. Pipes have no offsets. */
int output_write(const struct output *o, uint64_t at, const void *data, size_t n, struct err *e);
/* All n bytes after the previous ones; not together with output_write. Works on pipes. */
int output_append(const struct output *o, const void *data, size_t n, struct err *e);
int output_commit(struct output *o, struct err *e); /* on failure the file is abandoned */
void output_abandon(struct output *o);

#endif
