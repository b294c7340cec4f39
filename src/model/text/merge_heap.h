/*
 * merge_heap: the priority queue of both encoders, BPE and SPM. Candidates come out by `rank`
 * (lowest first), then by position in the text (lowest first). Only vocab_*.c include it. Pure.
 */
#ifndef PDD_MODEL_TEXT_MERGE_HEAP_H
#define PDD_MODEL_TEXT_MERGE_HEAP_H

#include <stdbool.h>
#include <stdint.h>

struct candidate {
    float rank;
    uint32_t left;  /* index of the left symbol */
    uint32_t len;   /* bytes of both symbols together: stale when it no longer fits */
    int32_t result; /* token that the merge makes */
};

struct merge_heap {
    struct candidate *items; /* room for every candidate that can arise: twice the symbols */
    uint32_t n;
};

void merge_heap_push(struct merge_heap *h, struct candidate c);
bool merge_heap_pop(struct merge_heap *h, struct candidate *ret_candidate);

/* A symbol of the text being merged; a doubly linked list in an array. len 0: merged away. */
struct symbol {
    const char *text;
    uint32_t len;
    int32_t token;          /* its token, -1 when there is none */
    uint32_t before, after; /* UINT32_MAX at the ends */
};

/* Join `left` with the symbol after it, which is then merged away; `token`: of both together. */
void symbol_join(struct symbol *symbols, uint32_t left, int32_t token);

#endif
