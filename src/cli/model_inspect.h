/*
 * model_inspect: a report of what a GGUF file holds: hyper-parameters, tensor types, tokenizer,
 * chat template and, on demand, the digests that device and cloud compare.
 *
 * A part that this program cannot use is reported with the sentence that says why; only a file that
 * is no GGUF at all, or broken, is an error.
 */
#ifndef PDD_CLI_MODEL_INSPECT_H
#define PDD_CLI_MODEL_INSPECT_H

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"

int model_inspect(const char *path, bool json, bool hash, FILE *to, struct err *e);

#endif
