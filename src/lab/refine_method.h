/*
 * refine_method: scores of a prompt's positions by each method of lab/refine.h. Pure.
 */
#ifndef PDD_LAB_REFINE_METHOD_H
#define PDD_LAB_REFINE_METHOD_H

#include <stdbool.h>
#include <stdint.h>

/* What methods score by: [n] each, from 0 up. */
struct refine_evidence {
    uint32_t n;
    const float *window, *attention, *bm25;
    uint64_t seed; /* of random units */
};

/* work: [n] for the method's own use. */
struct refine_method {
    const char *name;
    void (*score)(const struct refine_evidence *x, float *work, float *ret_scores);
    bool neighbours;     /* keep_limits.neighbours: scores are of single tokens */
    const float *ratios; /* measured by default, ends with a negative one; 0: by coverage */
};

/* The i-th; NULL past the end. */
const struct refine_method *refine_method_at(uint32_t i);

#endif
