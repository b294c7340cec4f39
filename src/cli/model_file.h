/*
 * model_file: which file a command's model is: a path, or a name in the folder of models
 * (hub/library.h). For a command that names none: the largest *.gguf in `models/` or
 * `share/pdd/models/` next to the program, or in the folders above it (the source tree of a build;
 * the prefix of an installation), or else the only model in the folder of models. Times of files
 * say nothing in a fresh checkout. Nothing is downloaded.
 */
#ifndef PDD_CLI_MODEL_FILE_H
#define PDD_CLI_MODEL_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum { MODEL_FILE_PATH_MAX = 4096, MODEL_FILE_FOLDERS_UP = 3 };

/* The folder of the program, `up` folders higher; false past the root. */
bool model_file_above(int up, char *folder, size_t size);
int model_file_find(char *path, size_t size, struct err *e); /* ERR_NOT_FOUND names the remedy */
/* A file that exists stays what it is; for a name *model_path becomes `path`, that of its file.
 * NULL stays. ERR_NOT_FOUND has near names. */
int model_file_resolve(const char **model_path, char path[MODEL_FILE_PATH_MAX], struct err *e);
/* The same, but for NULL a model is found. */
int model_file_default(const char **model_path, char path[MODEL_FILE_PATH_MAX], struct err *e);

#endif
