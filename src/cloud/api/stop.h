/*
 * stop: finds stop strings in an answer that comes in pieces.
 *
 * The answer ends before the stop string that is complete first, the longest of those that are
 * complete at the same byte; so the result does not depend on where the pieces were cut. Text that
 * may still become a stop string is to be held back. Pure; the strings are borrowed.
 */
#ifndef PDD_CLOUD_API_STOP_H
#define PDD_CLOUD_API_STOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/openai.h"

/* Look at all text[len] that was not yet let go. True: a stop string begins at *ret_clear, and the
 * answer ends there. False: the first *ret_clear bytes can be let go, the rest begins a stop
 * string.
 */
bool stop_scan(const struct openai_stop *stops, uint32_t n, const char *text, size_t len,
               size_t *ret_clear);

#endif
