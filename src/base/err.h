/*
 * err: one error, reported once, in a sentence. Pure.
 *
 * A function that can fail returns 0 or a negative `enum err_code`, and fills the caller's
 * `struct err` with a sentence that names the culprit (file, key, tensor, URL, option) and, where
 * there is one, the remedy. Libraries never print, exit or log; programs print the sentence once.
 *
 * `e` may be NULL wherever it is taken: the code is still returned.
 */
#ifndef PDD_BASE_ERR_H
#define PDD_BASE_ERR_H

#include <stdarg.h>

enum { ERR_TEXT_MAX = 512 };

enum err_code {
    ERR_NONE = 0,
    ERR_BAD_INPUT = -1,   /* a file, message or argument is malformed */
    ERR_UNSUPPORTED = -2, /* well formed, but not something we can do */
    ERR_NOT_FOUND = -3,
    ERR_LIMIT = -4,     /* a stated maximum was exceeded */
    ERR_NO_MEMORY = -5, /* allocation or KV pages */
    ERR_IO = -6,        /* file system */
    ERR_NET = -7,       /* connection refused, reset, name not resolved */
    ERR_TIMEOUT = -8,
    ERR_CANCELLED = -9,
    ERR_BUSY = -10,     /* a queue is full: try again later */
    ERR_DENIED = -11,   /* credentials missing or wrong */
    ERR_PROTOCOL = -12, /* the peer broke the protocol */
    ERR_INTERNAL = -13  /* a bug of ours that we noticed */
};

struct err {
    int code; /* 0 or an enum err_code */
    char text[ERR_TEXT_MAX];
};

#define ERR_INIT                                                                                   \
    {                                                                                              \
        0, ""                                                                                      \
    }

/* Set code and sentence (printf style); returns `code`. The sentence is UTF-8 without control
 * characters, whatever its arguments hold, and cut at a character before ERR_TEXT_MAX. */
int err_set(struct err *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Put "context: " before the sentence that is already there; returns the code that is there. */
int err_prefix(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A short stable word for a code ("bad_input", "limit", ...), for logs and JSON. */
const char *err_code_name(int code);

#endif
