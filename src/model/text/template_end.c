/* template_end: the token by which a template ends what the assistant says; see template_impl.h. */
#include <string.h>

#include "base/blank.h"
#include "model/text/template_impl.h"
#include "model/text/vocab_impl.h"

/* Where the template's text begins after the last foreign one, if that is the answer. */
static bool find_end_of(const struct jinja_output *o, const char *answer, size_t *ret_at)
{
    size_t end = o->len, n = strlen(answer);
    while (end > 0 && o->marks[end - 1] == JINJA_OWN)
        end--;
    if (end < n || memcmp(o->text + end - n, answer, n) != 0) return false;
    *ret_at = end;
    return true;
}

/* The name in brackets that the text begins with, blanks aside; 0 bytes: none. */
static size_t name_in(const char *text, size_t n, size_t *ret_at)
{
    size_t at = blank_prefix(text, n);
    *ret_at = at;
    if (at == n || (text[at] != '<' && text[at] != '[')) return 0;
    const char *close = memchr(text + at, text[at] == '<' ? '>' : ']', n - at);
    return close ? (size_t)(close - text) + 1 - at : 0;
}

static int take_end(struct vocab *v, const struct jinja_output *o, const char *answer,
                    struct err *e)
{
    size_t at, skip, n;
    if (!find_end_of(o, answer, &at)) return 0;
    n = name_in(o->text + at, o->len - at, &skip);
    return n ? vocab_add_end(v, o->text + at + skip, n, e) : 0;
}

int template_learn_end(const struct chat_template *t, struct vocab *v, struct err *e)
{
    static const char question[] = "What is 1?", answer[] = "Yes: one";
    const struct chat_message talk[] = {{"user", question, sizeof question - 1},
                                        {"assistant", answer, sizeof answer - 1}};
    const struct chat_prompt in = {.messages = talk, .n = 2};
    struct err ignored = ERR_INIT; /* a template may want other messages: nothing is learned then */
    struct jinja_run *r;
    struct jinja_output o;
    bool raised;
    if (template_run(t, v, &in, &r, &o, &raised, &ignored)) return 0;
    int code = take_end(v, &o, answer, e);
    jinja_run_free(r);
    return code;
}
