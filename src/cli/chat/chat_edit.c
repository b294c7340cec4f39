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
    bool interrupted;
};

static char *prompt(EditLine *el)
{
    static char text[] = "> ";
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
    el_set(e->line, EL_CLIENTDATA, e);
    el_set(e->line, EL_PROMPT, prompt);
    el_set(e->line, EL_EDITOR, "emacs");
    el_set(e->line, EL_SIGNAL, 0);
    el_set(e->line, EL_HIST, history, e->history);
    el_set(e->line, EL_GETCFN, get_character);
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
    HistEvent ev;
    e->interrupted = false;
    const char *text = el_gets(e->line, &n);
    if (!text || n <= 0) {
        if (e->interrupted) el_reset(e->line);
        return e->interrupted ? CHAT_INPUT_INTERRUPT : CHAT_INPUT_END;
    }
    if (n > 1) history(e->history, &ev, H_ENTER, text);
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    return buf_append(line, text, (size_t)n) ? CHAT_INPUT_TOO_LONG : CHAT_INPUT_LINE;
}

#else

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
