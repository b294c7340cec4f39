/*
 * template_tokens: a template's text to tokens; see template_impl.h. Control tokens are found only
 * where every byte is the template's own. Text between two of them is encoded as one string, so
 * that a template's text and a message's merge.
 */
#include <string.h>

#include "model/text/template_impl.h"

struct writer {
    const struct vocab *v;
    const char *text;
    const uint8_t *marks;
    size_t len, start; /* the plain text that waits begins at `start` */
    struct token_list *out;
    struct err *e;
};

static int put_token(struct writer *w, int32_t id)
{
    int code = token_list_push(w->out, id);
    if (code == ERR_LIMIT)
        return err_set(w->e, code, "the prompt has more than %u tokens", w->out->max);
    return code ? err_set(w->e, code, "no memory for %u tokens", w->out->len) : 0;
}

static int put_plain(struct writer *w, size_t to)
{
    return to > w->start ? vocab_encode(w->v, w->text + w->start, to - w->start, 0, w->out, w->e)
                         : 0;
}

/* The end of the bytes from `at` on that have the same mark. */
static size_t span_end(const struct writer *w, size_t at)
{
    uint8_t mark = w->marks[at];
    while (at < w->len && w->marks[at] == mark)
        at++;
    return at;
}

static int put_all(struct writer *w)
{
    int code = 0;
    for (size_t at = 0; at < w->len && code == 0;) {
        size_t end = span_end(w, at), found = 0, len = 0;
        int32_t id = w->marks[at] == JINJA_OWN
                         ? vocab_next_special(w->v, w->text + at, end - at, true, &found, &len)
                         : -1;
        if (id < 0) {
            at = end;
            continue;
        }
        code = put_plain(w, at + found);
        if (code == 0) code = put_token(w, id);
        at += found + len;
        at += vocab_swallows(w->v, id, w->text + at, w->len - at);
        w->start = at;
    }
    return code ? code : put_plain(w, w->len);
}

int template_tokens(const struct vocab *v, const struct jinja_output *text, struct token_list *out,
                    struct err *e)
{
    struct writer w = {v, text->text, text->marks, text->len, 0, out, e};
    size_t at = 1, len = 0;
    int32_t first = -1;
    if (text->len && text->marks[0] == JINJA_OWN)
        first = vocab_next_special(v, text->text, span_end(&w, 0), true, &at, &len);
    bool begins = first >= 0 && at == 0 && first == vocab_bos(v);
    int code = vocab_adds_bos(v) && !begins ? put_token(&w, vocab_bos(v)) : 0;
    return code ? code : put_all(&w);
}
