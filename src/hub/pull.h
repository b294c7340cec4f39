/*
 * pull: a model gets its name: from a reference (hub/reference.h) to checked files in the library
 * (hub/library.h). Nothing else of this program downloads anything.
 *
 *  1. What files: a URL's own, with all parts of a split model; or the hub's, by its list.
 *  2. The name is locked. A name that has come from elsewhere is not touched.
 *  3. Each file is downloaded beside its place (hub/download.h). What is here already is not.
 *  4. When all are complete and checked, parts together by links in .NAME.parts, they are renamed,
 *     and the record is written. What the new files replace stays until then.
 *
 * The token goes to the server of the URL or the hub alone (hub/fetch.h). Threads: one, which it
 * blocks; `stopped` ends it within a second, and the same call goes on later.
 */
#ifndef PDD_HUB_PULL_H
#define PDD_HUB_PULL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "hub/download.h"
#include "hub/library.h"
#include "hub/listing.h"
#include "hub/reference.h"

struct pull_options {
    const char *what;      /* the reference, as typed */
    const char *dir;       /* of the library */
    const char *as;        /* another name, or NULL */
    const char *sha256;    /* 64 digits, or NULL; of a model in one file */
    const char *endpoint;  /* of the hub; NULL: REFERENCE_HUB */
    const char *token;     /* for the server of `what`, or NULL */
    const char *hub_token; /* for the hub alone, or NULL */
    const char *ca_file;   /* or NULL */
    uint32_t retries;
    uint64_t retry_us; /* 0: a second */
    uint32_t stall_s;  /* 0: fetch.h's */
    bool (*stopped)(void *arg);
    /* `file`: its name; `part` of `parts`, from 1; bytes of this file. */
    void (*on_progress)(void *arg, const char *file, uint32_t part, uint32_t parts,
                        const struct download_progress *p);
    void (*on_note)(void *arg, const char *sentence);
    void *arg;
};

struct pull_result {
    char name[REFERENCE_NAME_MAX + 1];
    char path[LIBRARY_PATH_MAX]; /* of the first part */
    uint32_t parts;
    uint64_t bytes;
    char sha256[65]; /* of the first part */
    bool here;       /* it was here already, and has not changed */
    uint64_t kept;   /* after an error: bytes that the next call need not load */
};

int pull_run(const struct pull_options *o, struct pull_result *ret_result, struct err *e);
/* The GGUF files of a hub's repository; `what` names no file and no type. listing_release it. */
int pull_list(const struct pull_options *o, struct listing *ret_listing, struct err *e);

#endif
