/*
 * listing: the GGUF files of a repository on the hub, from its answer to
 * GET /api/models/OWNER/NAME?blobs=true, and the choice among them. Pure.
 *
 * A model that is split into several files is one row. Projectors of pictures (mmproj) and
 * importance matrices are not models, and are left out.
 */
#ifndef PDD_HUB_LISTING_H
#define PDD_HUB_LISTING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "hub/reference.h"

enum { LISTING_BYTES_MAX = 4 << 20, LISTING_ROWS_MAX = 4096, LISTING_DIGEST_MAX = 65 };

struct listing_row {
    char *file;                      /* path in the repository; of the first part */
    uint64_t size;                   /* of all parts; 0: not known */
    char sha256[LISTING_DIGEST_MAX]; /* "": not known, or several parts */
    uint32_t parts;                  /* that there are; 1: not split */
};

struct listing {
    struct listing_row *rows; /* [n], by name */
    uint32_t n;
};

/* `where`: the repository, for errors. ERR_PROTOCOL: not what a hub answers. */
int listing_read(const char *json, size_t n, const char *where, struct listing *ret_listing,
                 struct err *e);
void listing_release(struct listing *l);

/*
 * The row whose name has `type` ("Q4_K_M", in any case), or without a type ("") the only row, or of
 * several the one of Q4_K_M, or else of Q8_0, which most people want. NOT_FOUND: there is none;
 * BAD_INPUT: several are meant; the sentence says to look at the list.
 */
int listing_choose(const struct listing *l, const char *type, const char *where,
                   const struct listing_row **ret_row, struct err *e);
/* The type in a row's name, as "Q4_K_M", upper case; "" where it has none. */
void listing_type(const struct listing_row *row, char ret_type[REFERENCE_PART_MAX + 1]);

#endif
