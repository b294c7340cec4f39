/*
 * manual: man pages and shell completion from the tables of commands and options, so that they say
 * what --help says. Pure, but for cmd_manual (commands.h), which writes them to a folder. No
 * threads.
 */
#ifndef PDD_CLI_MANUAL_H
#define PDD_CLI_MANUAL_H

#include <stdbool.h>

#include "base/buf.h"
#include "cli/commands.h"
#include "cli/option.h"

enum { MANUAL_NAME_MAX = 64, MANUAL_BYTES_MAX = 1 << 20 };

/* What a value is completed with. */
enum manual_value {
    MANUAL_VALUE_NONE,   /* nothing that a shell knows */
    MANUAL_VALUE_FILE,   /* names of files */
    MANUAL_VALUE_MODEL,  /* the same, and names of models that were pulled */
    MANUAL_VALUE_PULLED, /* these alone */
    MANUAL_VALUE_FOLDER,
    MANUAL_VALUE_NAMES /* those of manual_names */
};

enum manual_value manual_value_of(const struct option_row *row);
/* The i-th name that the row's value may have; NULL past the end. */
const char *manual_names(const struct option_row *row, uint32_t i);

/* Whether the entry is run under its own name: `pdd model` and `pdd bench` need an action. */
bool manual_runs(const struct command_entry *c);
/* Whether completion offers the row's option after the entry's name. */
bool manual_offers(const struct command_entry *c, const struct option_row *row);
/* The i-th action of a command, by the word after its name; NULL past the end. */
const char *manual_action(const struct command_entry *c, uint32_t i);
/* What its operands are. */
enum manual_value manual_operands(const struct command_entry *c);
/* What lists the names of models, one a line. */
#define MANUAL_LIST "model list --names 2>/dev/null"

/* The text in roff: nothing in it is taken for a request or an escape. */
void manual_put_roff(struct buf *b, const char *text);
/* Its environment, files and examples, where there are any. */
void manual_put_notes(struct buf *b, const struct command_entry *c);
/* The page of one command; of `pdd` itself with NULL. `date` as YYYY-MM-DD. */
void manual_page(struct buf *b, const struct command_entry *c, const char *date);

/* The whole script. */
void manual_bash(struct buf *b);
void manual_zsh(struct buf *b);
void manual_fish(struct buf *b);

#endif
