/* chat_input: see chat_input.h. */
#include "cli/chat/chat_input.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { READ_BYTES = 4096 };

bool chat_input_terminal_is_plain(void)
{
    const char *term = secure_getenv("TERM");
    return !term || !*term || strcmp(term, "dumb") == 0;
}

unsigned chat_input_columns(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

void chat_input_mark_pastes(bool on)
{
    fputs(on ? "\033[?2004h" : "\033[?2004l", stdout);
    fflush(stdout);
}

void chat_input_restore(const struct chat_input *in)
{
    static const char unmark[] = "\033[?2004l";
    /* In the background the terminal is another program's. */
    if (!in->saved || tcgetpgrp(STDIN_FILENO) != getpgrp()) return;
    ssize_t done = write(STDOUT_FILENO, unmark, in->edit ? sizeof unmark - 1 : 0);
    (void)done;
    tcsetattr(STDIN_FILENO, TCSANOW, &in->terminal);
}

void chat_input_init(struct chat_input *in, int event_fd, const struct chat_history *history)
{
    *in = (struct chat_input){.event_fd = event_fd, .history = history};
    in->tty = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    in->saved = in->tty && tcgetattr(STDIN_FILENO, &in->terminal) == 0;
    buf_init(&in->pending, CHAT_LINE_MAX + READ_BYTES);
    if (in->tty && !chat_input_terminal_is_plain()) in->edit = chat_edit_open(in);
}

void chat_input_release(struct chat_input *in)
{
    chat_edit_close(in->edit);
    in->edit = NULL;
    buf_release(&in->pending);
}

/* Take one event; true: an interrupt. */
static bool take_event(struct chat_input *in)
{
    char byte = 0;
    if (read(in->event_fd, &byte, 1) != 1) return false;
    if (byte != CHAT_INPUT_INTERRUPTED && in->edit)
        chat_edit_redraw(in->edit, byte == CHAT_INPUT_RESIZED);
    return byte == CHAT_INPUT_INTERRUPTED;
}

/* Wait until standard input has something (1), or an interrupt comes (0). */
static int wait_for_input(struct chat_input *in)
{
    struct pollfd fds[2] = {{STDIN_FILENO, POLLIN, 0}, {in->event_fd, POLLIN, 0}};
    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR) return 1;
        if (fds[1].revents & POLLIN) {
            if (take_event(in)) return 0;
        } else if (fds[0].revents) {
            return 1;
        }
    }
}

int chat_input_byte(struct chat_input *in, char *ret_byte)
{
    if (!wait_for_input(in)) return 0;
    return read(STDIN_FILENO, ret_byte, 1) == 1 ? 1 : -1;
}

static enum chat_input_result take_line(struct chat_input *in, size_t n, size_t end,
                                        struct buf *line)
{
    if (n > 0 && in->pending.data[n - 1] == '\r') n--;
    int code = buf_append(line, in->pending.data, n);
    buf_consume(&in->pending, end);
    return code ? CHAT_INPUT_TOO_LONG : CHAT_INPUT_LINE;
}

static enum chat_input_result read_plain(struct chat_input *in, struct buf *line)
{
    if (in->tty) {
        fputs("> ", stdout);
        fflush(stdout);
    }
    for (;;) {
        char *end = memchr(in->pending.data, '\n', in->pending.len);
        if (end) {
            size_t n = (size_t)(end - in->pending.data);
            return take_line(in, n, n + 1, line);
        }
        char bytes[READ_BYTES];
        if (!wait_for_input(in)) return CHAT_INPUT_INTERRUPT;
        ssize_t got = read(STDIN_FILENO, bytes, sizeof bytes);
        if (got > 0 && buf_append(&in->pending, bytes, (size_t)got)) return CHAT_INPUT_TOO_LONG;
        if (got <= 0)
            return in->pending.len > 0 ? take_line(in, in->pending.len, in->pending.len, line)
                                       : CHAT_INPUT_END;
    }
}

/* What came while an answer was given is for that: a Ctrl-C just after its end must not leave. */
static void forget_events(struct chat_input *in)
{
    struct pollfd p = {in->event_fd, POLLIN, 0};
    char byte;
    while (poll(&p, 1, 0) == 1 && read(in->event_fd, &byte, 1) == 1)
        ;
}

enum chat_input_result chat_input_read(struct chat_input *in, struct buf *line)
{
    buf_clear(line);
    in->line = CHAT_INPUT_UNKNOWN;
    if (in->tty) forget_events(in);
    return in->edit ? chat_edit_read(in->edit, line) : read_plain(in, line);
}
