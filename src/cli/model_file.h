/*
 * model_file: the model of a command that names none: the largest *.gguf in `models/`
 * or `share/pdd/models/` next to the program, or in the folders above it (the source tree of a
 * build; the prefix of an installation). Times of files say nothing in a fresh checkout.
 */
#ifndef PDD_CLI_MODEL_FILE_H
#define PDD_CLI_MODEL_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum { MODEL_FILE_PATH_MAX = 4096, MODEL_FILE_FOLDERS_UP = 3 };

int model_file_find(char *path, size_t size, struct err *e); /* ERR_NOT_FOUND names the remedy */
/* Where *model_path is NULL, find a model: its name goes to `path`, which *model_path is then. */
int model_file_default(const char **model_path, char path[MODEL_FILE_PATH_MAX], struct err *e);

#endif
