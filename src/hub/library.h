/*
 * library: the folder of models that have a name: $XDG_DATA_HOME/pdd/models, or
 * ~/.local/share/pdd/models.
 *
 * A model NAME is NAME.gguf, or the parts NAME-00001-of-0000N.gguf. Beside it NAME.json says where
 * it is from; a file that a person put there lacks that, and is a model all the same. A download
 * that is not complete is FILE.part with FILE.part.json (hub/download.h). While one runs, or a
 * model is removed, .NAME.lock is locked.
 *
 *   NAME.json: {"version": 1, "from": reference or URL without query, "asked": what was typed,
 *               "pulled": seconds since 1970, "files": [{"name", "bytes", "sha256", "etag"}]}
 *
 * Threads: none are kept; each function reads the folder anew.
 */
#ifndef PDD_HUB_LIBRARY_H
#define PDD_HUB_LIBRARY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "hub/reference.h"

enum { LIBRARY_PATH_MAX = 4096, LIBRARY_MODELS_MAX = 4096, LIBRARY_RECORD_MAX = 1 << 20 };

struct library_file {
    char *name;
    uint64_t bytes;
    char sha256[65];
    char etag[FETCH_TAG_MAX];
};

/* NAME.json */
struct library_record {
    char from[FETCH_URL_MAX], asked[FETCH_URL_MAX]; /* "": not known */
    int64_t pulled;
    struct library_file *files; /* [n_files] */
    uint32_t n_files;
};

/* What a file says of its model. */
struct library_model {
    char name[REFERENCE_NAME_MAX + 1];
    char path[LIBRARY_PATH_MAX]; /* of the first part */
    uint32_t parts;
    uint64_t bytes;        /* of all parts that are there */
    bool partial;          /* NAME.part: `bytes` of it are there */
    struct err unreadable; /* code 0: the next hold */
    char type[32];         /* "Q4_K_M" */
    char architecture[64]; /* "qwen2" */
    uint64_t parameters;   /* weights of all tensors */
    uint32_t context;      /* that it was trained for; 0: not known */
    struct library_record record;
};

struct library_list {
    struct library_model *models; /* [n], by name */
    uint32_t n;
};

int library_default_dir(char *path, size_t size, struct err *e);

/* All models, and downloads that are not complete. A folder that is not there has none. `facts`:
 * read the files' headers too. */
int library_read(const char *dir, bool facts, struct library_list *ret_list, struct err *e);
void library_list_release(struct library_list *l);

/* The path of a model by its name, its file's name, or what it was pulled by; NOT_FOUND has near
 * names and how to get one. */
int library_find(const char *dir, const char *name, char *path, size_t size, struct err *e);
/* The only model; NOT_FOUND where there is none, or more than one, with their names. */
int library_find_only(const char *dir, char *path, size_t size, struct err *e);

/* All files of a model, or of a download that is not complete. BUSY while it is pulled; BAD_INPUT
 * for a path: files elsewhere are not ours. `ret_bytes`: freed. */
int library_remove(const char *dir, const char *name, uint64_t *ret_bytes, struct err *e);

/* The same without a lock, by the exact name, as far as possible. */
void library_drop(const char *dir, const char *name);

/* 0 with an empty record where there is none, or none that can be read. */
int library_record_read(const char *dir, const char *name, struct library_record *ret_record,
                        struct err *e);
int library_record_write(const char *dir, const char *name, const struct library_record *record,
                         struct err *e);
void library_record_release(struct library_record *r);

/* Of one name; *ret_fd for library_unlock. BUSY names the process that holds it. */
int library_lock(const char *dir, const char *name, int *ret_fd, struct err *e);
void library_unlock(const char *dir, const char *name, int fd);

#endif
