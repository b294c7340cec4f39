/*
 * refine: what is needed so that a prompt can be refined (docs/design/refine.md), and what came of
 * it. In the cloud the text is looked at when a job is made (refine_new, any thread; for a large
 * request a helper's); the worker scores and chooses (refine_choose), and the loop reads the
 * versions that it reports. A version does not change once it is reported. A device without such a
 * cloud chooses by words alone. Threads: one at a time.
 *
 * A position's score is attention times words (policy/relevance.h); the question is the last
 * message with a text (bm25_question).
 */
#ifndef PDD_REFINE_REFINE_H
#define PDD_REFINE_REFINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/text/vocab.h"
#include "policy/keep.h"
#include "proto/wire.h"

enum {
    REFINE_VERSIONS = 2,
    REFINE_TOKENS = 8 /* of the answer, before the second version */
};

/* A version of the refined prompt. */
struct refined {
    uint32_t version; /* from 1 on */
    bool final;
    struct keep_choice choice;
    const uint8_t *bits; /* [n_bits] bytes (keep_bits); not for a refused one */
    size_t n_bits;
};

struct refine {
    struct keep *keep;
    struct keep_limits limits;
    enum keep_refusal refusal; /* known from the text and the lengths; KEEP_OK: scores decide */
    float peak;                /* a largest score below it is a flat task (RELEVANCE_PEAK) */
    uint32_t n;                /* tokens of the prompt */
    uint32_t question;         /* token in which the question begins; n: there is none */
    uint32_t made;             /* versions */
    struct refined versions[REFINE_VERSIONS];
    uint8_t *bits; /* [REFINE_VERSIONS][(n + 7) / 8] */
    float *words;  /* [n] BM25 scores of the question's words */
    float *scores; /* [n] scratch of refine_choose */
};

/* For a prompt of n tokens. Messages and template tokens are found by control tokens; what the
 * request names besides is kept, too. A message of the roles system, developer and tool is kept
 * whole. */
int refine_new(const struct vocab *vocab, const int32_t *prompt, uint32_t n,
               const struct wire_refine *asked, struct refine **ret_refine, struct err *e);
/* Set the bits, [(n + 7) / 8] bytes, of the tokens that stay in any case, also where another
 * program has chosen: those of the rules above, the question, and what `asked` names. *ret_added of
 * them were not set before. */
int refine_must(const struct vocab *vocab, const int32_t *prompt, uint32_t n,
                const struct wire_refine *asked, uint8_t *bits, uint32_t *ret_added, struct err *e);
/* The text of a prompt, to look for several things in it; `prompt` outlives it. */
struct refine_text;
int refine_text_new(const struct vocab *vocab, const int32_t *prompt, uint32_t n,
                    struct refine_text **ret_text, struct err *e);
void refine_text_free(struct refine_text *t); /* NULL is fine */
/* How often `text` [len] stands in it, up to `max` (at least 1), and where: whole tokens of its
 * places, in order; the last range reaches to the end of the last place. */
uint32_t refine_text_find(const struct refine_text *t, const char *text, size_t len,
                          struct keep_range *ret_ranges, uint32_t max);
void refine_free(struct refine *r); /* NULL is fine */
/* The next version, by attention [n] (session_scores), or NULL: by words alone. Refused ones are
 * final. */
const struct refined *refine_choose(struct refine *r, const float *attention, bool final);
/* A version that refuses without scores. */
const struct refined *refine_refuse(struct refine *r, enum keep_refusal refusal);

#endif
