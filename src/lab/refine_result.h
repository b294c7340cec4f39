/*
 * refine_result: the file of results, a JSON line for each question. What a question's line holds
 * is written by refine_result_begin, _run and _end. No threads.
 *
 *     {"about": {"model", "weights", "numerics", "commit"}}
 *     {"set", "document", "question", "kind", "label", "accepted", "tokens", "whole": {"answer",
 *      "ended", "ms"}, "runs": [{"method", "ratio", "refusal", "kept", "coverage", "peak", "has",
 *      "answer", "ended", "ms"}]}
 *
 * kept: tokens; coverage: of the method's own scores; peak: the largest of them outside of what is
 * kept in any case; has: whether an accepted answer stands in what is kept; ended: the answer ended
 * by itself; ms: its prefill.
 */
#ifndef PDD_LAB_REFINE_RESULT_H
#define PDD_LAB_REFINE_RESULT_H

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"
#include "engine/engine.h"
#include "lab/refine_set.h"
#include "policy/keep.h"

struct json_t;

struct refine_results {
    FILE *file; /* NULL: standard output */
    const char *path;
    struct json_t *had;             /* keys of the questions that the file has */
    char weights[ENGINE_HASH_TEXT]; /* that its answers come from; "": it is empty */
};

/* Opens the file for appending; a last line without an end (the program was killed) is cut off.
 * ERR_BAD_INPUT: a line that is no result. path NULL: standard output. */
int refine_results_open(const char *path, struct refine_results *ret_results, struct err *e);
/* Write the first line, or check it: ERR_BAD_INPUT for results of another model. */
int refine_results_about(struct refine_results *r, const struct engine_info *info, struct err *e);
void refine_results_close(struct refine_results *r);
bool refine_results_have(const struct refine_results *r, const struct refine_document *d,
                         uint32_t question);

struct refine_answer {
    const char *text;
    size_t len;
    bool ended;
    double ms;
};

struct refine_run {
    const char *method;
    float ratio; /* 0: by coverage */
    struct keep_choice choice;
    float peak;
    bool has;
    const struct refine_answer *answer; /* NULL: none was asked for */
};

/* NULL: no memory. The line is owned by the caller until refine_result_end. */
struct json_t *refine_result_begin(const struct refine_document *d, uint32_t question,
                                   const struct refine_question *q, uint32_t tokens,
                                   const struct refine_answer *whole);
void refine_result_drop(struct json_t *line);
int refine_result_run(struct json_t *line, const struct refine_run *run);
/* Writes the line at once and releases it, also on failure. */
int refine_result_end(struct refine_results *r, struct json_t *line, struct err *e);

#endif
