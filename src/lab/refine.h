/*
 * refine: what a refined prompt costs in quality. Questions about documents are answered from the
 * whole prompt, then from what each *method* keeps of it at each ratio, by one engine, greedily.
 *
 * A set is a file of JSON lines, one document each (tools/refine/sets.py writes them):
 *
 *     {"set": "needles-4k", "text": "...", "questions": [{"text": "...", "accepted": ["..."],
 *      "kind": "known", "label": "0.5"}]}
 *
 * `kind` (anything; "flat" asks for no answer, only for coverages) and `label` are copied to the
 * results. A prompt is one user's message: the text, an empty line, the question. The prefill of a
 * text is computed once for all its questions.
 *
 * Every method scores the positions of a prompt; policy/keep chooses by the scores, so all keep the
 * same units and the same parts that must stay:
 *
 *     relevance    policy/relevance of window and bm25
 *     words        policy/relevance of bm25 alone: the order of BM25
 *     window       the engine's scores: the prompt's last 64 tokens ask
 *     attention    the same, and then 8 answer tokens
 *     later        policy/relevance of attention and bm25
 *     spread       policy/relevance of window alone
 *     sum, max     of the ranks of window and bm25
 *     specpc       the best tokens of window, each with the 64 around it
 *     random       blocks of 16 drawn at random
 *     ends         what is nearest to either end
 *
 * Results are JSON lines, appended to a file as they come, one line a question; a question that the
 * file already has is not asked again, so a run that was killed goes on. Documents of all sets are
 * mixed, so a run that ends early has asked the same part of every set. Several processes share the
 * work: process i of n takes every n-th document of the mixture, whatever the limits are.
 *
 * Threads: none but the engine's.
 */
#ifndef PDD_LAB_REFINE_H
#define PDD_LAB_REFINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/native.h"

enum {
    REFINE_SETS_MAX = 64,
    REFINE_SET_BYTES_MAX = 256 << 20, /* of a file */
    REFINE_ANSWER_TOKENS = 48,
    REFINE_RUNS_MAX = 64 /* methods times ratios */
};

struct refine_plan {
    struct native_options engine;
    const char *sets[REFINE_SETS_MAX];
    size_t n_sets;
    const char *out;      /* results; NULL: standard output, and nothing is skipped */
    const char *methods;  /* names with commas; NULL: all */
    const char *ratios;   /* with commas, 0 for "by coverage"; NULL: those of the table */
    uint32_t part, parts; /* 1 <= part <= parts */
    uint32_t questions;   /* of a set, in all parts together; 0: all */
    uint32_t minutes;     /* no question is begun after them; 0: no limit */
    bool no_answers;      /* only what is kept, not what is answered from it */
    bool quiet;           /* no progress on standard error */
};

/* ERR_BAD_INPUT names the set and its line. */
int refine_run(const struct refine_plan *p, struct err *e);

#endif
