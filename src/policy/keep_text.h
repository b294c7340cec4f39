/*
 * keep_text: what the text of a prompt says to keep.h: where units may end, and whether it is code
 * or a JSON schema, of which each part counts. Pure.
 *
 * Items that are seen: a list item with its indented lines ("- ", "* ", "1. ", "a) "), a row of a
 * table ("| a | b |", or columns between tabs), a block between ``` fences, and a worked example (a
 * paragraph that begins with "Q:", "Input:", "Example 3:" and the like). A definition in code
 * outside of fences is none: a prompt with much code is refused as a whole.
 */
#ifndef PDD_POLICY_KEEP_TEXT_H
#define PDD_POLICY_KEEP_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "policy/keep.h"

/* Fill cuts [n] (enum keep_cut) for a text of `len` bytes in n tokens; ends [n]: where each token
 * ends in it, in bytes, not falling. The first token has KEEP_CUT_MUST. */
void keep_text_cuts(const char *text, size_t len, const uint32_t *ends, uint32_t n, uint8_t *cuts);

/* KEEP_CODE when more than a third of the lines with something in them are code, KEEP_SCHEMA when
 * there is a JSON schema or a definition of tools, else KEEP_OK. */
enum keep_refusal keep_text_refuses(const char *text, size_t len);

#endif
