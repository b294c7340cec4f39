/*
 * keys: the bearer keys of a file, one a line; empty lines and lines that start with # are none.
 * Checking takes the same time whether and wherever a key differs.
 */
#ifndef PDD_CLOUD_KEYS_H
#define PDD_CLOUD_KEYS_H

#include <stdbool.h>

#include "base/err.h"

struct keys;

int keys_open(const char *path, struct keys **ret_keys, struct err *e);
void keys_close(struct keys *k);
bool keys_match(const struct keys *k, const char *key); /* NULL: no key given */

#endif
