/*
 * key_file: the bearer key that a client sends, from a file, so that no command line shows it.
 * Threads: any.
 */
#ifndef PDD_NET_KEY_FILE_H
#define PDD_NET_KEY_FILE_H

#include "base/buf.h"
#include "base/err.h"

/* Append the file's first line to `key`; ERR_BAD_INPUT when it is empty. */
int key_file_read(const char *path, struct buf *key, struct err *e);

#endif
