/*
 * template_impl: what a family of chat templates is. template_family.c holds the table and tells
 * families by their Jinja text; template.c renders. Only those two and a
 * fuzz target include it.
 */
#ifndef PDD_MODEL_TEXT_TEMPLATE_IMPL_H
#define PDD_MODEL_TEXT_TEMPLATE_IMPL_H

#include "model/gguf.h"
#include "model/text/template.h"

/* In the texts of a family: the model's own tokens that begin and end a text. */
#define BOS "\1"
#define EOS "\2"

enum template_role { SYSTEM, USER, ASSISTANT, ROLES };

enum { MARKS_MAX = 3, UNLESS_MAX = 5, DEFAULT_SYSTEM_MAX = 1024, FAMILIES_TEXT_MAX = 400 };

/* Where a system message goes. */
enum system_place {
    SYSTEM_ANYWHERE,   /* a message of its own, wherever it stands */
    SYSTEM_FIRST,      /* a message of its own, before all others */
    SYSTEM_FIRST_USER, /* inside the first user message, before the text */
    SYSTEM_LAST_USER,  /* inside the last message, when it is a user's */
    SYSTEM_NEVER       /* the family has no place for one */
};

/* What becomes of the thoughts in past answers (<think>...</think>). */
enum thoughts {
    THOUGHTS_KEPT,
    THOUGHTS_QWEN3,   /* dropped, but written again in answers after the last question */
    THOUGHTS_QWQ,     /* dropped with the newlines after them, except in the last message */
    THOUGHTS_DEEPSEEK /* dropped */
};

struct family {
    const char *name;
    bool by_name;                   /* never recognised, only asked for */
    const char *marks[MARKS_MAX];   /* all of them stand in the Jinja text ... */
    const char *unless[UNLESS_MAX]; /* ... and none of these */
    struct message_frame {
        const char *before, *after;
        bool trims; /* the message loses the white space around it */
    } frames[ROLES];
    const char *generate;       /* opens the answer */
    const char *finish;         /* without an answer to open; or NULL */
    const char *last_after;     /* after an assistant's message that is the last; NULL: as others */
    const char *default_system; /* where there is no system message; NULL: none */
    enum system_place system;
    enum thoughts thoughts;
    bool alternates;  /* user, assistant, user, ... or an error */
    bool begins_bos;  /* begins with BOS whatever the vocabulary's flag says */
    bool message_bos; /* every user message begins with BOS, so the prompt does not */
    bool trims_whole; /* the user message is trimmed with the system message inside it */
};

struct chat_template {
    const struct family *family;
    bool begins_bos, skips_empty_system, skips_empty_first;
    bool fills_empty_system; /* the default stands for an empty system message too */
    bool opens_thought;      /* the opened answer begins with a thought */
    bool can_close_thought, thinks;
    bool has_default;
    char default_system[DEFAULT_SYSTEM_MAX];
};

/* The family of that name, or NULL; a list of all names. */
const struct family *family_find(const char *name);
void family_list(char out[FAMILIES_TEXT_MAX]);
/* What the Jinja text says; false: no family we know. ERR_NO_MEMORY otherwise. */
int family_recognise(struct gguf_str jinja, struct chat_template *t, bool *ret_known);

#endif
