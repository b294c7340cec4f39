/*
 * chat_input: lines that a person types, with editing and history (chat_history) by libedit on a
 * terminal, else plain. Events (bytes in the pipe `event_fd`) come while it waits;
 * CHAT_INPUT_INTERRUPTED ends that.
 */
#ifndef PDD_CLI_CHAT_CHAT_INPUT_H
#define PDD_CLI_CHAT_CHAT_INPUT_H

#include <stdbool.h>
#include <termios.h>

#include "base/buf.h"
#include "cli/chat/chat_history.h"

enum { CHAT_LINE_MAX = 1 << 20 };

struct chat_edit; /* libedit's part */

enum chat_input_event {
    CHAT_INPUT_INTERRUPTED = 'i',
    CHAT_INPUT_RESIZED = 'r',  /* the terminal has another size */
    CHAT_INPUT_CONTINUED = 'c' /* the program was stopped; the terminal may be set otherwise */
};

/* What was typed of a line when an interrupt came. The plain reader does not know. */
enum chat_input_typed { CHAT_INPUT_UNKNOWN, CHAT_INPUT_EMPTY, CHAT_INPUT_TEXT };

struct chat_input {
    int event_fd;
    enum chat_input_typed line; /* of the last CHAT_INPUT_INTERRUPT */
    bool tty;                   /* standard input is a terminal: show a prompt */
    bool saved;                 /* `terminal` is as it was found */
    struct termios terminal;
    struct buf pending;
    const struct chat_history *history; /* borrowed; NULL: nothing is kept */
    struct chat_edit *edit;             /* NULL: plain lines */
};

/* CHAT_INPUT_TOO_LONG: a line of more than CHAT_LINE_MAX bytes; do not read on. */
enum chat_input_result {
    CHAT_INPUT_LINE,
    CHAT_INPUT_INTERRUPT,
    CHAT_INPUT_END,
    CHAT_INPUT_TOO_LONG
};

/* Whether the terminal knows no escape sequences: TERM is unset, empty or "dumb". */
bool chat_input_terminal_is_plain(void);
/* Columns of the terminal that standard error is; 0: it is none, or does not say. */
unsigned chat_input_columns(void);

/* `history`, if any, must outlive it; only the line editor has one. */
void chat_input_init(struct chat_input *in, int event_fd, const struct chat_history *history);
void chat_input_release(struct chat_input *in);
/* The next line without its end, in `line` (cleared first). At a terminal, an interrupt from before
 * the prompt is passed over: it was for the answer. */
enum chat_input_result chat_input_read(struct chat_input *in, struct buf *line);

/* Ask the terminal to mark what is pasted (bracketed paste), or to stop that. */
void chat_input_mark_pastes(bool on);
/* The terminal as chat_input_init found it, after a signal that ends the program. From any thread,
 * also while chat_input_read runs. */
void chat_input_restore(const struct chat_input *in);

/* Wait for the next byte: 1; interrupted: 0; end of input: -1. For chat_edit too. */
int chat_input_byte(struct chat_input *in, char *ret_byte);

struct chat_edit *chat_edit_open(struct chat_input *in); /* NULL without libedit */
void chat_edit_close(struct chat_edit *e);
enum chat_input_result chat_edit_read(struct chat_edit *e, struct buf *line);
/* Take the terminal again as the line editor needs it, and draw the line; in place of what is drawn
 * of it, where the window was resized. */
void chat_edit_redraw(struct chat_edit *e, bool resized);

#endif
