/*
 * chat_command: what a person types in `pdd chat` besides questions. Pure.
 *
 * A line of one word after a slash is a command, whatever blanks follow it. All else is a question:
 * a path, a line of several words, one that begins with a blank. "//word" asks "/word".
 */
#ifndef PDD_CLI_CHAT_CHAT_COMMAND_H
#define PDD_CLI_CHAT_CHAT_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

enum chat_command {
    CHAT_COMMAND_NONE, /* a question */
    CHAT_COMMAND_UNKNOWN,
    CHAT_COMMAND_HELP,
    CHAT_COMMAND_CLEAR,
    CHAT_COMMAND_REGENERATE,
    CHAT_COMMAND_STATS,
    CHAT_COMMAND_EXIT
};

enum { CHAT_COMMAND_NEAR_MAX = 256 }; /* bytes of a sentence about an unknown command */

enum chat_command chat_command_of(const char *line, size_t n);
/* How many bytes of a question go before what is asked: 1 for "//word". */
size_t chat_command_escape(const char *line, size_t n);
/* "there is no command /clera: did you mean /clear? ..." */
void chat_command_unknown(const char *line, size_t n, char ret_text[CHAT_COMMAND_NEAR_MAX]);
const char *chat_command_help(void); /* lines, each with its end */

#endif
