/*
 * store_needle: what models found in their needle test (cloud/work/needle.h), so that a start does
 * not repeat it. Threads as store.h.
 */
#ifndef PDD_STORE_STORE_NEEDLE_H
#define PDD_STORE_STORE_NEEDLE_H

#include <stdint.h>

#include "store/store.h"

/* `model` names weights, numerics and the version of the test. ERR_NOT_FOUND: not tested yet. */
int store_needle_load(struct store *s, const char *model, uint32_t *ret_found, struct err *e);
int store_needle_save(struct store *s, const char *model, uint32_t found, struct err *e);

#endif
