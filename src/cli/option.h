/*
 * option: reads a command line by a table of rows, and prints --help from the same rows. A row says
 * all that there is to know of an option: name, value, range, where the value is stored, default,
 * commands, help. The kind of a value follows from the type of the field that stores it
 * (OPTION_AT).
 *
 * It knows neither the options (cli/options.h has the table) nor what they mean. A complaint is one
 * sentence on standard error that names command, option and value. No threads.
 */
#ifndef PDD_CLI_OPTION_H
#define PDD_CLI_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/err.h"

enum { OPTION_ROWS_MAX = 256, OPTION_HOST_MAX = 64 };

enum option_kind {
    OPTION_NONE, /* a heading of the help, or a row with `read` and no field */
    OPTION_FLAG, /* bool */
    OPTION_TEXT, /* const char *, which points into argv */
    OPTION_U32,
    OPTION_U64,
    OPTION_I64,
    OPTION_FLOAT,
    OPTION_DOUBLE,
    OPTION_ADDRESS /* struct option_address */
};

/* "HOST:PORT" with a numeric host, an IPv6 one in brackets or not, or localhost; ":PORT" means
 * 127.0.0.1. `host` has no brackets. */
struct option_address {
    char host[OPTION_HOST_MAX];
    uint16_t port;
};

/* As a URL writes it, with brackets where it needs them. */
void option_address_text(const struct option_address *a, uint16_t port,
                         char ret_text[OPTION_HOST_MAX + 16]);
/* Whether only this machine reaches it. */
bool option_address_local(const struct option_address *a);

struct options; /* the values: cli/options.h */

struct option_row {
    const char *name;  /* without dashes; NULL: `help` is a heading */
    const char *value; /* its name in the help; NULL: the option takes none */
    uint32_t commands; /* bits of struct command */
    enum option_kind kind;
    size_t at;                /* of the field in struct options */
    const char *help;         /* NULL: not told of */
    double low, high;         /* range of a number */
    const char *initial;      /* the default, read as if it were given; NULL: none */
    const char *otherwise;    /* what holds without the option, in words, for the help */
    const char *const *words; /* ends with NULL: the value is one of them, its index is stored */
    const char *(*choice)(uint32_t i); /* names to list in the help; NULL past the end */
    /* Reads the value instead of the kind's reader; may cut `text`. */
    int (*read)(const struct option_row *row, struct options *o, char *text, struct err *e);
    char letter;   /* of a short form; 0: none */
    bool required; /* the command does nothing without it */
    uint32_t only; /* bits that the command gives a meaning: it has an effect with these only */
};

/* The kind and place of a row's value: OPTION_AT(field of struct options). Enums are uint32_t. */
#define OPTION_AT(field)                                                                           \
    .kind = _Generic(((struct options *)0)->field,                                                 \
                     bool: OPTION_FLAG,                                                            \
                     const char *: OPTION_TEXT,                                                    \
                     uint32_t: OPTION_U32,                                                         \
                     uint64_t: OPTION_U64,                                                         \
                     int64_t: OPTION_I64,                                                          \
                     float: OPTION_FLOAT,                                                          \
                     double: OPTION_DOUBLE,                                                        \
                     struct option_address: OPTION_ADDRESS,                                        \
                     default: OPTION_NONE),                                                        \
    .at = offsetof(struct options, field)

/* A command, or an action of one, as its options see it. */
struct command {
    const char *name;  /* "cloud key": after "pdd " */
    const char *page;  /* the command whose --help tells of it; NULL: its own */
    uint32_t bit;      /* in option_row.commands */
    uint32_t family;   /* bits of all actions on the same page; 0: `bit` alone */
    const char *usage; /* the head of its help, with line ends */
    bool operands;     /* it takes some */
};

/* What a command line held besides values. */
struct option_line {
    bool given[OPTION_ROWS_MAX]; /* by the row's place in the table */
    char **operands;             /* [n_operands] */
    int n_operands;
};

/* Stores defaults, then what is given, to *o. 0: go on; else leave with *ret_status: --help was
 * printed, or what is wrong has been said. argv[0] becomes "pdd NAME" (in storage of this file). */
int option_parse(const struct option_row *rows, size_t n, const struct command *c, int argc,
                 char **argv, struct options *o, struct option_line *ret_line, int *ret_status);

/* Says which of the options given have no effect, as their `only` lacks every bit of `here`; `why`
 * ends the sentence. -1 if there are some. */
int option_refuse_idle(const struct option_row *rows, size_t n, const struct command *c,
                       const struct option_line *line, uint32_t here, const char *why);

/* What the help says of a row: its text, the words of its value, its default. */
void option_text(const struct option_row *row, struct buf *b);
/* The help of a command's page. */
void option_help(const struct option_row *rows, size_t n, const struct command *c, FILE *to);

#endif
