/*
 * chat_edit: lines edited with libedit, or nothing at all where it was not found at build time.
 * libedit's own signal handling stays off: chat's signal thread tells of Ctrl-C through the pipe.
 */
#include "cli/chat/chat_input.h"

#ifdef PDD_HAVE_EDIT

#include <histedit.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <wchar.h>

#include "base/mem.h"
#include "base/utf8.h"

enum { HISTORY_LINES = 500 };

struct chat_edit {
    struct chat_input *in;
    EditLine *line;
    History *history;
    bool interrupted, too_long;
};

#define PROMPT "> "

/* Bracketed paste: the terminal marks what is pasted, while it is asked to. */
#define PASTE_BEGINS "\033[200~"
#define PASTE_ENDS "\033[201~"

static char *prompt(EditLine *el)
{
    static char text[] = PROMPT;
    (void)el;
    return text;
}

/* One character: libedit wants a wide one. Bytes that are not UTF-8 come as U+FFFD. */
static int get_character(EditLine *el, wchar_t *ret_character)
{
    struct chat_edit *e;
    char bytes[4];
    uint32_t code = 0;
    el_get(el, EL_CLIENTDATA, &e);
    for (size_t n = 0; n < sizeof bytes;) {
        int got = chat_input_byte(e->in, &bytes[n]);
        e->interrupted = got == 0;
        if (got <= 0) return got == 0 ? -1 : 0;
        n++;
        if (utf8_decode(bytes, n, &code) > 0) {
            *ret_character = (wchar_t)code;
            return 1;
        }
        if (utf8_pending(bytes, n) != n) break;
    }
    *ret_character = (wchar_t)0xFFFD;
    return 1;
}

/* The bytes of a paste up to its closing mark, which is left out. CHAT_INPUT_LINE when it came. */
static enum chat_input_result read_paste(struct chat_edit *e, struct buf *text)
{
    size_t mark = sizeof PASTE_ENDS - 1;
    for (char byte;;) {
        int got = chat_input_byte(e->in, &byte);
        if (got <= 0) return got == 0 ? CHAT_INPUT_INTERRUPT : CHAT_INPUT_END;
        if (buf_putc(text, byte)) return CHAT_INPUT_TOO_LONG;
        if (byte != '~' || text->len < mark) continue;
        if (memcmp(text->data + text->len - mark, PASTE_ENDS, mark) != 0) continue;
        buf_cut(text, text->len - mark);
        return CHAT_INPUT_LINE;
    }
}

/* As the line editor wants it: line ends as \n, tabs, and no other control characters, which the
 * terminal would obey. Bytes that are not UTF-8 become U+FFFD. */
static wchar_t *paste_characters(const struct buf *text)
{
    wchar_t *out = mem_calloc(text->len + 1, sizeof *out);
    size_t n = 0;
    for (size_t at = 0, len; out && at < text->len; at += len) {
        const char *here = text->data + at;
        uint32_t code = 0;
        size_t control = utf8_control(here, text->len - at);
        size_t got = utf8_decode(here, text->len - at, &code);
        len = got > 0 ? got : 1;
        if (*here == '\r' && at + 1 < text->len && here[1] == '\n') continue;
        if (*here == '\r')
            out[n++] = L'\n';
        else if (control == 0 || *here == '\n' || *here == '\t')
            out[n++] = got > 0 ? (wchar_t)code : (wchar_t)0xFFFD;
    }
    return out;
}

/* What the terminal marks as pasted is text, whatever it holds: no key of it does anything. */
static unsigned char paste(EditLine *el, int key)
{
    struct chat_edit *e;
    struct buf text;
    (void)key;
    el_get(el, EL_CLIENTDATA, &e);
    buf_init(&text, CHAT_LINE_MAX);
    enum chat_input_result got = read_paste(e, &text);
    wchar_t *characters = got == CHAT_INPUT_LINE ? paste_characters(&text) : NULL;
    if (characters && *characters) el_winsertstr(el, characters);
    mem_free(characters);
    buf_release(&text);
    e->interrupted = got == CHAT_INPUT_INTERRUPT;
    e->too_long = got == CHAT_INPUT_TOO_LONG;
    return got == CHAT_INPUT_LINE ? CC_REFRESH : CC_EOF;
}

/* How many rows the cursor is below the prompt, in a window of that many columns. */
static unsigned rows_above(const struct chat_edit *e, unsigned columns)
{
    const LineInfoW *typed = el_wline(e->line);
    unsigned column = sizeof PROMPT - 1, row = 0;
    for (const wchar_t *c = typed->buffer; c < typed->cursor; c++) {
        int cells = wcwidth(*c);
        unsigned width = *c == L'\t' ? 8 - column % 8 : cells < 0 ? 2 : (unsigned)cells;
        if (*c == L'\n' || column + width > columns) {
            row++;
            column = 0;
        }
        if (*c != L'\n') column += width;
    }
    return row + (column >= columns);
}

/* Terminals wrap the line anew when the window changes, and the cursor goes along: take back what
 * is drawn from the prompt on, or the line would be drawn after it a second time. */
static void take_back_line(const struct chat_edit *e)
{
    unsigned columns = chat_input_columns();
    unsigned rows = columns > 0 ? rows_above(e, columns) : 0;
    if (rows > 0) printf("\033[%uA", rows);
    fputs("\r\033[J", stdout);
}

void chat_edit_redraw(struct chat_edit *e, bool resized)
{
    el_set(e->line, EL_PREP_TERM, 0);
    el_set(e->line, EL_PREP_TERM, 1);
    if (resized) take_back_line(e);
    el_resize(e->line);
    chat_input_mark_pastes(true);
    el_set(e->line, EL_REFRESH);
}

static void say_not_kept(struct chat_edit *e, const struct err *why)
{
    fprintf(stderr, "pdd chat: note: what is typed is not kept: %s\n", why->text);
    e->in->history = NULL;
}

static void remember(void *arg, const char *text)
{
    struct chat_edit *e = arg;
    HistEvent ev;
    history(e->history, &ev, H_ENTER, text);
}

static void load_history(struct chat_edit *e)
{
    struct err why = ERR_INIT;
    if (e->in->history && chat_history_load(e->in->history, remember, e, &why))
        say_not_kept(e, &why);
}

static void keep(struct chat_edit *e, const struct buf *line)
{
    struct err why = ERR_INIT;
    remember(e, line->data);
    if (e->in->history && chat_history_add(e->in->history, line->data, line->len, &why))
        say_not_kept(e, &why);
}

struct chat_edit *chat_edit_open(struct chat_input *in)
{
    struct chat_edit *e = mem_calloc(1, sizeof *e);
    HistEvent ev;
    if (!e) return NULL;
    setlocale(LC_CTYPE, "C.UTF-8"); /* libedit measures characters by it */
    e->in = in;
    e->line = el_init("pdd", stdin, stdout, stderr);
    e->history = e->line ? history_init() : NULL;
    if (!e->history) {
        chat_edit_close(e);
        return NULL;
    }
    history(e->history, &ev, H_SETSIZE, HISTORY_LINES);
    history(e->history, &ev, H_SETUNIQUE, 1); /* of neighbours */
    load_history(e);
    el_set(e->line, EL_CLIENTDATA, e);
    el_set(e->line, EL_PROMPT, prompt);
    el_set(e->line, EL_EDITOR, "emacs");
    el_set(e->line, EL_SIGNAL, 0);
    el_set(e->line, EL_HIST, history, e->history);
    el_set(e->line, EL_GETCFN, get_character);
    /* libedit has \r and \n swapped: a pasted \r\n is one end of a line. */
    el_set(e->line, EL_SETTY, "-d", "-icrnl", "-inlcr", NULL);
    /* el_set would copy both texts and lose the copies. */
    el_wset(e->line, EL_ADDFN, L"chat-paste", L"Insert what the terminal pastes", paste);
    el_set(e->line, EL_BIND, PASTE_BEGINS, "chat-paste", NULL);
    return e;
}

void chat_edit_close(struct chat_edit *e)
{
    if (!e) return;
    if (e->history) history_end(e->history);
    if (e->line) el_end(e->line);
    mem_free(e);
}

enum chat_input_result chat_edit_read(struct chat_edit *e, struct buf *line)
{
    int n = 0;
    e->interrupted = e->too_long = false;
    el_resize(e->line); /* the terminal may have changed while an answer was given */
    chat_input_mark_pastes(true);
    const char *text = el_gets(e->line, &n);
    chat_input_mark_pastes(false);
    if (e->too_long) return CHAT_INPUT_TOO_LONG;
    if (!text || n <= 0) {
        const LineInfoW *typed = el_wline(e->line);
        e->in->line = typed->lastchar > typed->buffer ? CHAT_INPUT_TEXT : CHAT_INPUT_EMPTY;
        if (e->interrupted) el_reset(e->line);
        return e->interrupted ? CHAT_INPUT_INTERRUPT : CHAT_INPUT_END;
    }
    size_t len = (size_t)n;
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        len--;
    if (buf_append(line, text, len)) return CHAT_INPUT_TOO_LONG;
    if (len > 0) keep(e, line);
    return CHAT_INPUT_LINE;
}

#else

void chat_edit_redraw(struct chat_edit *e, bool resized)
{
    (void)e, (void)resized;
}

struct chat_edit *chat_edit_open(struct chat_input *in)
{
    (void)in;
    return NULL;
}

void chat_edit_close(struct chat_edit *e)
{
    (void)e;
}

enum chat_input_result chat_edit_read(struct chat_edit *e, struct buf *line)
{
    (void)e, (void)line;
    return CHAT_INPUT_END;
}

#endif
