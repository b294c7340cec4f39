/*
 * keep: which tokens of a prompt the device needs (refinement, docs/design/refine.md), from scores
 * of its positions: those of the cloud's attention, or any others (BM25). Pure.
 *
 * The prompt is divided into *units*: a visible item is one, other text is cut about
 * every 16 tokens, 32 above 8,192, at a sentence or line end nearby. A unit is kept whole or not at
 * all, so no item is cut. Units of free text are chosen by their best score, in this order:
 *
 *   1. what must stay: what the device holds already, ranges that the caller names (template
 *      tokens, system message, tool definitions), the first unit, the last 128 tokens (the
 *      question);
 *   2. of every message its proportional floor, so that no one else's text drowns it;
 *   3. the best of all, until the chosen ones have `coverage` of the score of all free text, or
 *      `ratio` of the new tokens is used up.
 *
 * A larger ratio or coverage keeps a superset, so the coverage reached never falls. A caller may
 * refuse a choice that covers too little (`least`); for scores of policy/relevance their peak tells
 * better that a prompt is needed whole (docs/decisions/0010-relevance.md). Equal scores: the
 * earlier unit first.
 */
#ifndef PDD_POLICY_KEEP_H
#define PDD_POLICY_KEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum {
    KEEP_UNIT = 16,      /* tokens of a unit of plain text, */
    KEEP_UNIT_LONG = 32, /* and in prompts of more than KEEP_LONG tokens */
    KEEP_LONG = 8192,
    KEEP_QUESTION = 128,  /* last tokens, always kept */
    KEEP_NEW_LEAST = 2048 /* new tokens below which refinement is not worth it */
};
#define KEEP_FLOOR 0.05f    /* default of keep_limits.floor */
#define KEEP_COVERAGE 0.65f /* of keep_limits.coverage, for scores of policy/relevance */

/* Whether a unit may end before a token. */
enum keep_cut {
    KEEP_CUT_NEVER, /* inside an item */
    KEEP_CUT_POOR,  /* inside a sentence */
    KEEP_CUT_GOOD,  /* after the end of a sentence or line */
    KEEP_CUT_MUST   /* an item begins or ends here */
};

enum keep_refusal {
    KEEP_OK,
    KEEP_FLAT,   /* the affordable ratio covers too little of the score */
    KEEP_SHORT,  /* fewer than KEEP_NEW_LEAST tokens are new to the device */
    KEEP_FULL,   /* what must stay does not fit the ratio */
    KEEP_SCHEMA, /* a JSON schema or tools: every part of them counts */
    KEEP_CODE,   /* code: likewise */
    KEEP_UNFIT   /* the model does not find its own needle */
};
/* "flat", ...: the word of `refused` in the wire's event; KEEP_OK: "". */
const char *keep_refusal_name(enum keep_refusal refusal);

struct keep_range {
    uint32_t from, to;
};

struct keep_prompt {
    uint32_t n;                     /* tokens */
    uint32_t held;                  /* the first tokens, which the device has: they cost nothing */
    const uint8_t *cuts;            /* [n] enum keep_cut; NULL: poor everywhere */
    const uint32_t *ends;           /* [n_messages] where messages end, ascending, the last: n */
    uint32_t n_messages;            /* 0: one message */
    const struct keep_range *whole; /* [n_whole] kept whole, in any order, within n */
    uint32_t n_whole;
};

struct keep_limits {
    float ratio;        /* the most, of the new tokens (n - held) */
    float coverage;     /* of the score of free text: enough; in (0, 1] */
    float least;        /* less than this coverage is refused; 0: nothing is */
    float floor;        /* of each message's tokens at least so much is kept, at least half a
                           unit: shorter messages have no floor */
    uint32_t new_least; /* fewer new tokens are refused */
    bool neighbours;    /* keep the best units with those beside them: for scores of single tokens;
                           those of policy/relevance are spread already */
};
#define KEEP_LIMITS_DEFAULT(r)                                                                     \
    {                                                                                              \
        .ratio = (r), .coverage = KEEP_COVERAGE, .floor = KEEP_FLOOR, .new_least = KEEP_NEW_LEAST  \
    }

/* One part of the prompt. */
struct keep_unit {
    uint32_t from, to, message;
    bool must;  /* kept in any case */
    bool kept;  /* chosen */
    float best; /* its largest score */
};

/* The units of a prompt. Life: keep_open, keep_choose as often as there are new scores,
 * keep_close. */
struct keep;

/* ERR_BAD_INPUT: ranges or ends that do not suit n. The arrays of `prompt` are not kept. */
int keep_open(const struct keep_prompt *prompt, struct keep **ret_keep, struct err *e);
void keep_close(struct keep *k); /* NULL is fine */
const struct keep_unit *keep_units(const struct keep *k, uint32_t *ret_n);

/* What is known without scores: KEEP_SHORT, KEEP_FULL or KEEP_OK. */
enum keep_refusal keep_refuses(const struct keep *k, const struct keep_limits *limits);

struct keep_choice {
    enum keep_refusal refusal;
    uint32_t tokens; /* kept, of all n */
    float ratio;     /* kept of the new tokens */
    float coverage;  /* reached; with KEEP_FLAT, by `ratio`, for reports */
};

/* Choose by scores [n], finite and not negative. Units say what was chosen, also when it is
 * refused. */
struct keep_choice keep_choose(struct keep *k, const float *scores,
                               const struct keep_limits *limits);
/* The chosen tokens as bits, the lowest of a byte first: [(n + 7) / 8] bytes, unused bits 0. */
void keep_bits(const struct keep *k, uint8_t *bits);

#endif
