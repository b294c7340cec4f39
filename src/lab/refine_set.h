/*
 * refine_set: documents with questions, from files of JSON lines (lab/refine.h says how they look).
 * Texts are borrowed from the parsed lines until refine_sets_close. No threads.
 */
#ifndef PDD_LAB_REFINE_SET_H
#define PDD_LAB_REFINE_SET_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { REFINE_ACCEPTED_MAX = 64, REFINE_DOCUMENTS_MAX = 100000 };

struct json_t;

struct refine_question {
    const char *text, *kind, *label;           /* kind and label: "" where there is none */
    const char *accepted[REFINE_ACCEPTED_MAX]; /* [n_accepted]; further ones are left out */
    uint32_t n_accepted;
};

struct refine_document {
    const char *set, *text;
    uint32_t number; /* in its set, from 0 */
    uint32_t before; /* questions of the documents before it in its set */
    uint32_t of;     /* questions of its set */
    uint32_t n_questions;
    struct json_t *line;
};

struct refine_sets {
    struct refine_document
        *documents; /* [n]: by before / of, so that all sets come to their ends together */
    uint32_t n;
};

/* ERR_BAD_INPUT names file and line. On failure nothing needs to be closed. */
int refine_sets_open(const char *const *paths, size_t n_paths, struct refine_sets *ret_sets,
                     struct err *e);
void refine_sets_close(struct refine_sets *s);
/* Question i < n_questions. */
void refine_set_question(const struct refine_document *d, uint32_t i,
                         struct refine_question *ret_question);

#endif
