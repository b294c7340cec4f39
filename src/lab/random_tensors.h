/*
 * random_tensors: the tensors that a shape has, with names and types as llama.cpp's converter and
 * quantiser choose them. A file's type is one that most matrices have, or a mix (Q4_K_M, ...),
 * where tensors that suffer more from quantising get more bits. Matrices whose rows do not divide
 * into blocks of 256 get the nearest type with blocks of 32; norms, biases and routers stay F32.
 * Pure.
 */
#ifndef PDD_LAB_RANDOM_TENSORS_H
#define PDD_LAB_RANDOM_TENSORS_H

#include <stdint.h>

#include "base/err.h"
#include "lab/random_shape.h"

enum { RANDOM_NAME_MAX = 48 };

enum random_fill {
    FILL_WEIGHTS, /* about N(0, deviation) */
    FILL_NORM,    /* about 1 */
    FILL_ONES,
    FILL_ROPE /* random_shape_rope_factors */
};

struct random_tensor {
    char name[RANDOM_NAME_MAX];
    uint32_t type, dims;
    uint64_t shape[3]; /* shape[0]: columns */
    uint64_t bytes;
    enum random_fill fill;
    float deviation;
};

struct random_type;
/* By name; ERR_NOT_FOUND lists them. */
int random_type_find(const char *name, const struct random_type **ret_type, struct err *e);
const char *random_type_name(const struct random_type *t);
uint32_t random_type_file(const struct random_type *t); /* general.file_type */
const struct random_type *random_type_at(uint32_t i);   /* NULL past the end */

/* The caller frees the list with mem_free. */
int random_tensors_list(const struct random_shape *s, const struct random_type *t,
                        struct random_tensor **ret_tensors, uint32_t *ret_n, struct err *e);

#endif
