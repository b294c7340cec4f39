/*
 * refine_prompt: a question's prompt as tokens, with the text that each token stands for, what
 * policy/keep wants to know of it, and its scores by BM25. No threads.
 */
#ifndef PDD_LAB_REFINE_PROMPT_H
#define PDD_LAB_REFINE_PROMPT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "engine/engine.h"
#include "lab/refine_set.h"
#include "model/text/vocab.h"

struct refine_prompt {
    struct token_list tokens;
    struct buf message; /* of the user */
    struct buf text;    /* of all tokens, control tokens too */
    uint32_t *ends;     /* [tokens.len] of each token in the text */
    uint8_t *cuts;      /* [tokens.len] enum keep_cut */
    float *bm25;        /* [tokens.len] */
    uint32_t cap;       /* room in the arrays */
};

void refine_prompt_init(struct refine_prompt *p);
void refine_prompt_release(struct refine_prompt *p);
/* Makes the prompt of a question; replaces the one before it. */
int refine_prompt_make(struct refine_prompt *p, const struct engine *engine, const char *text,
                       const struct refine_question *q, struct err *e);
/* The text of the kept tokens: a gap becomes a zero byte. `kept`: bits, lowest first. */
int refine_prompt_kept(const struct refine_prompt *p, const uint8_t *kept, struct buf *out);

#endif
