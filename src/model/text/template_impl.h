/*
 * template_impl: what the files of chat templates share. Only template*.c include it.
 */
#ifndef PDD_MODEL_TEXT_TEMPLATE_IMPL_H
#define PDD_MODEL_TEXT_TEMPLATE_IMPL_H

#include "model/jinja/jinja.h"
#include "model/text/template.h"

enum { FAMILIES_TEXT_MAX = 400, TEMPLATE_NAME_MAX = 128 };

struct chat_template {
    char name[TEMPLATE_NAME_MAX];
    struct jinja_template *jinja, *with_tools; /* the second: for requests with tools, or NULL */
    char *identity;
    size_t identity_len;
    bool thinks;
};

/* The Jinja text of that family, or NULL; a list of all names. */
const char *family_text(const char *name);
void family_list(char out[FAMILIES_TEXT_MAX]);

/* The text that the template writes, with its marks, which live as long as the run. Runs the
 * template as often as its ways with contents and calls need: three times at most. *ret_raised: it
 * refused the messages itself. */
int template_run(const struct chat_template *t, const struct vocab *v, const struct chat_prompt *in,
                 struct jinja_run **ret_run, struct jinja_output *ret_output, bool *ret_raised,
                 struct err *e);

/* What the template writes right after an assistant's text ends an answer, if it is spelt as a
 * token of its own, whatever the file calls that. */
int template_learn_end(const struct chat_template *t, struct vocab *v, struct err *e);

/* Text with marks to tokens. */
int template_tokens(const struct vocab *v, const struct jinja_output *text, struct token_list *out,
                    struct err *e);

#endif
