/*
 * reference: what a person names a model to pull by: a URL, or files of a repository on Hugging
 * Face's hub. Also the names of files that follow from it. Pure.
 *
 *   https://HOST/PATH/FILE.gguf
 *   hf:OWNER/NAME             one GGUF file of the repository, by listing_choose (hub/listing.h)
 *   hf:OWNER/NAME:Q4_K_M      the one whose name has this type
 *   hf:OWNER/NAME/PATH/FILE.gguf
 */
#ifndef PDD_HUB_REFERENCE_H
#define PDD_HUB_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "hub/fetch.h"

#define REFERENCE_HUB "https://huggingface.co"

enum {
    REFERENCE_PART_MAX = 100, /* bytes of an owner, a name or a type */
    REFERENCE_FILE_MAX = 512, /* of a path in a repository */
    REFERENCE_NAME_MAX = 200  /* of a file in a folder: leaves room for what is added */
};

struct reference {
    bool hub;
    char owner[REFERENCE_PART_MAX + 1], name[REFERENCE_PART_MAX + 1];
    char type[REFERENCE_PART_MAX + 1]; /* "": none */
    char file[REFERENCE_FILE_MAX + 1]; /* "": none */
    char url[FETCH_URL_MAX];           /* not hub */
};

/* A URL of a file's page at the hub (/blob/) is taken for the file (/resolve/). ERR_BAD_INPUT says
 * what forms there are. `endpoint`: the hub's URL without a slash at its end. */
int reference_parse(const char *text, const char *endpoint, struct reference *ret_reference,
                    struct err *e);
/* The URL of a repository's page at the hub becomes hf:OWNER/NAME; another one stays. */
void reference_take_page(struct reference *r, const char *endpoint);
/* The URL of a file of a hub's repository. */
int reference_file_url(const struct reference *r, const char *endpoint, const char *file,
                       char ret_url[FETCH_URL_MAX], struct err *e);
/* The name of the file at the end of a URL or path, decoded, if it can be the name of a model's
 * file: it ends in .gguf, is UTF-8, and has no control character, mark of direction, slash or dot
 * at its beginning. */
int reference_file_name(const char *url, char ret_name[REFERENCE_NAME_MAX + 1], struct err *e);

/* Whether a file of that name may be a model's. */
bool reference_is_file_name(const char *name);

/* The same for a path in a repository: no segment is empty, "." or "..". */
bool reference_is_file_path(const char *path);

/* Where the number of a part stands in "x-00001-of-00003.gguf". */
struct reference_part {
    uint32_t no, count; /* no: from 1 */
    size_t at, digits;  /* of the number */
    size_t stem;        /* length of what is before "-00001-of-00003.gguf" */
};
/* False for a name that is not a part's. Works on a file's name and on a URL without query. */
bool reference_part(const char *name, struct reference_part *ret_part);
/* The same name with another number. */
int reference_of_part(const char *name, const struct reference_part *part, uint32_t no,
                      char *ret_name, size_t size, struct err *e);
/* "x" of "x.gguf" and of "x-00001-of-00003.gguf". */
void reference_stem(const char *file_name, char ret_stem[REFERENCE_NAME_MAX + 1]);

#endif
