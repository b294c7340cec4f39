/*
 * store: the one file in which a device keeps what outlives the program: DIR/state.db, an SQLite
 * database. This part opens it and runs statements; the tables' own parts read and write them with
 * SQLite's calls on store_db().
 *
 * The folder has mode 0700 and the file 0600, with its -wal and -shm. It is in WAL mode: a program
 * killed at any moment leaves a file that opens again and holds every transaction that was
 * committed (after a power cut maybe not the last ones: nothing waits for the disk). Several
 * programs may have it open; a writer waits STORE_WAIT_MS for another one.
 *
 * The schema is the list of steps in store.c: step k makes version k + 1. Opening runs the steps
 * that the file lacks in one transaction. A new table is a new step at the end; a step that was
 * released never changes. A file of a later version is refused.
 *
 * Damaged, unreadable or later files are errors that name the file and the remedy. A device goes on
 * without it: nothing kept there is needed for an answer.
 *
 * Threads: one at a time; another thread opens its own.
 */
#ifndef PDD_STORE_STORE_H
#define PDD_STORE_STORE_H

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
    STORE_PATH_MAX = 4096,
    STORE_WAIT_MS = 2000,
    STORE_APPLICATION = 0x70646473 /* "pdds", in the file's header */
};

struct store;

/* $XDG_STATE_HOME/pdd, else $HOME/.local/state/pdd. */
int store_default_dir(char *path, size_t n, struct err *e);

/* Makes the folder (its parents too) and the file where they are missing. */
int store_open(const char *dir, struct store **ret_store, struct err *e);
void store_close(struct store *s); /* NULL is fine; statements must be finalized before */
sqlite3 *store_db(struct store *s);
const char *store_path(const struct store *s);

/* One or more statements without results. */
int store_exec(struct store *s, const char *sql, struct err *e);
/* Everything until store_commit happens or nothing does; after an error call store_rollback. */
int store_begin(struct store *s, struct err *e);
int store_commit(struct store *s, struct err *e);
void store_rollback(struct store *s);

/* Finalize it. */
int store_prepare(struct store *s, const char *sql, sqlite3_stmt **ret_statement, struct err *e);
/* 1: a row; 0: done, and reset; negative: an error. */
int store_step(struct store *s, sqlite3_stmt *statement, struct err *e);
/* The error that SQLite reports as `code`, as a sentence with the file's name. */
int store_error(const struct store *s, int code, struct err *e);

#endif
