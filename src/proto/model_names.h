/*
 * model_names: the names by which a model may be asked for besides its own (--model-alias), on both
 * faces. "*" stands for every name, as many clients have one built in. Pure.
 */
#ifndef PDD_PROTO_MODEL_NAMES_H
#define PDD_PROTO_MODEL_NAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { MODEL_ALIASES_MAX = 64 };

/* [n]; each good (below), owned by the caller. */
struct model_names {
    const char *alias[MODEL_ALIASES_MAX];
    uint32_t n;
};

/* Add one. ERR_BAD_INPUT: it cannot stand in JSON and in a URL as it is (wire_name_set). ERR_LIMIT.
 */
int model_names_add(struct model_names *m, const char *alias, struct err *e);
/* Whether that name is an alias, or any name is. */
bool model_names_have(const struct model_names *m, const char *name);
bool model_names_all(const struct model_names *m); /* any name is */

#endif
