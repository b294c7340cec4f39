/*
 * stop: finds stop strings in an answer that comes in pieces.
 *
 * The answer ends where the stop string begins that is complete first, the longest one on a tie; so
 * the result does not depend on where the pieces were cut. The caller holds back text that may
 * still become a stop string. Pure; the strings are borrowed.
 */
#ifndef PDD_PROTO_STOP_H
#define PDD_PROTO_STOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/openai.h"

/* `text` [len]: all that is held back. True: a stop string begins at *ret_clear, and the answer
 * ends there. False: the first *ret_clear bytes can be sent, the rest may begin a stop string. */
bool stop_scan(const struct openai_stop *stops, uint32_t n, const char *text, size_t len,
               size_t *ret_clear);

#endif
