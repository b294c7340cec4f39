/*
 * gguf: reader of GGUF v2 and v3 files (little endian) over a memory mapping.
 *
 * A bounded cursor walks the header once; every length, count, offset, type and shape is checked
 * before it is used, so that any bytes give either a usable object or an error that names the key
 * or tensor. Nothing is copied: strings, arrays and tensors point into the mapping and live as long
 * as the object. Read-only after opening, by any thread. Format:
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
#ifndef PDD_MODEL_GGUF_H
#define PDD_MODEL_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kern/kern.h"

enum { GGUF_DIMS_MAX = 4, GGUF_KEYS_MAX = 65536, GGUF_TENSORS_MAX = 65536, GGUF_PARTS_MAX = 1000 };

/* Tensor types by their number in the file (ggml_type): GGUF_F32, GGUF_Q8_0, ... */
#define GGUF_TYPE(name, number, ...) GGUF_##name = number,
enum gguf_type { KERN_WEIGHTS(GGUF_TYPE) };
#undef GGUF_TYPE

struct gguf_str { /* not terminated */
    const char *data;
    size_t len;
};

/* A text of the file for an error or a terminal: truncated, all but printable ASCII as '?'. */
enum { GGUF_SHOWN_MAX = 80 };
struct gguf_shown {
    char text[GGUF_SHOWN_MAX + 1];
};
struct gguf_shown gguf_show(struct gguf_str s);

struct gguf_tensor {
    struct gguf_str name;
    uint32_t type;                 /* enum gguf_type, or a number this program does not know */
    uint32_t dims;                 /* 1..GGUF_DIMS_MAX */
    uint64_t shape[GGUF_DIMS_MAX]; /* ggml order: shape[0] is the row length (columns); unused: 1 */
    const uint8_t *data;           /* NULL when the type is unknown */
    size_t bytes;
};

struct gguf;

/*
 * A model in several files is opened by its first one, "NAME-00001-of-00003.gguf" (key split.no 0):
 * the others are mapped too, and the object is that of the whole model, with its tensors in the
 * order of the parts. Keys are read from the first. An error names the part that is missing, cut
 * off or another model's, and the first where another one was given.
 */
int gguf_open(const char *path, struct gguf **ret_gguf, struct err *e);
/* The same over bytes that the caller keeps; for tests and fuzzing. `name` is for errors. */
int gguf_open_bytes(const void *data, size_t n, const char *name, struct gguf **ret_gguf,
                    struct err *e);
void gguf_close(struct gguf *g);
/* Whether a file, by its name, is a part after the first; such a file is not opened by itself. */
bool gguf_is_later_part(const char *path);
const char *gguf_name(const struct gguf *g);    /* path or name given */
uint64_t gguf_file_bytes(const struct gguf *g); /* of all its files */

/* Metadata. A missing key is ERR_NOT_FOUND, a key of another type ERR_BAD_INPUT; both are named.
 * The integer readers accept any integer type whose value fits, as writers vary. */
int gguf_u32(const struct gguf *g, const char *key, uint32_t *ret_value, struct err *e);
int gguf_f32(const struct gguf *g, const char *key, float *ret_value, struct err *e);
int gguf_bool(const struct gguf *g, const char *key, bool *ret_value, struct err *e);
int gguf_text(const struct gguf *g, const char *key, struct gguf_str *ret_value, struct err *e);
bool gguf_has(const struct gguf *g, const char *key);

/* Arrays of one scalar type or of strings. */
struct gguf_array {
    uint32_t type; /* GGUF value type: 4 u32, 5 i32, 6 f32, 7 bool, 8 string, ... */
    uint64_t n;
    const uint8_t
        *data; /* scalars: packed little endian, unaligned; strings: use gguf_array_next_text */
};
int gguf_array(const struct gguf *g, const char *key, struct gguf_array *ret_array, struct err *e);
int32_t gguf_array_i32(const struct gguf_array *a, uint64_t i); /* type 4, 5 or narrower integers */
float gguf_array_f32(const struct gguf_array *a, uint64_t i);   /* type 6 */
/* Strings in order: start with *at = a->data; each call gives the next and moves *at. */
struct gguf_str gguf_array_next_text(const uint8_t **at);

size_t gguf_key_count(const struct gguf *g);
struct gguf_str gguf_key_at(const struct gguf *g, size_t i);

size_t gguf_tensor_count(const struct gguf *g);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i);
const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name); /* or NULL */

/* ERR_BAD_INPUT: the last tensor of a file is zeros: programs that download reserve the whole file
 * first, and this one was cut off. For those who need the tensors: it reads from the disk. */
int gguf_check_end(const struct gguf *g, struct err *e);
/* Release the mapped memory of a tensor that will not be read soon. */
void gguf_tensor_forget(const struct gguf *g, const struct gguf_tensor *t);
/* The same for the whole file, or all files, with the keys. */
void gguf_forget(const struct gguf *g);

/* Facts of a tensor type; NULL for an unknown one. */
const struct kern_type_info *gguf_type_info(uint32_t type);

#endif
