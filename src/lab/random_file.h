/*
 * random_file: a GGUF file of random weights in the shape of a real model, for measuring speed and
 * loading. What such a model says is noise; how long it takes is real. One caller; a pool of
 * threads fills the tensors.
 */
#ifndef PDD_LAB_RANDOM_FILE_H
#define PDD_LAB_RANDOM_FILE_H

#include <stdint.h>

#include "base/err.h"
#include "lab/random_shape.h"
#include "lab/random_tensors.h"

struct random_file {
    const struct random_shape *shape;
    const struct random_type *type;
    const char *path;
    uint32_t seed;    /* the same seed makes the same file, whatever `threads` is */
    uint32_t threads; /* 0: all CPUs */
};

struct random_written {
    uint32_t tensors;
    uint64_t bytes;
};

/* The file appears at `path` when it is whole. Progress goes to standard error if that is a
 * terminal. */
int random_file_write(const struct random_file *file, struct random_written *ret_written,
                      struct err *e);

#endif
