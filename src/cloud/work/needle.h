/*
 * needle: whether a model's attention finds what a question asks for. Refinement trusts the scores
 * of session_score; a model whose queries do not point at a sentence of a few hundred tokens ago
 * (untrained, broken by quantisation, of another kind) gets none.
 *
 * The test: a text of made-up sentences, three of which name the number of a thing, at 25, 50 and
 * 75 % of it; one question for each. Attention alone (no words of the question) chooses 35 % of
 * about 800 tokens, much of which stays in any case; each number must be among them. By chance
 * about one model in a hundred passes.
 *
 * Threads: the engine's. It takes the time of about 1,000 tokens of prefill.
 */
#ifndef PDD_CLOUD_WORK_NEEDLE_H
#define PDD_CLOUD_WORK_NEEDLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/engine.h"

enum { NEEDLE_QUESTIONS = 3 };

/* How many of NEEDLE_QUESTIONS the model finds. ERR_UNSUPPORTED: the engine has no scores;
 * ERR_LIMIT: its context is too short. */
int needle_find(struct engine *e, uint32_t *ret_found, struct err *err);

#endif
