/*
 * thought: parts what a model thinks from its answer, where it marks the thought, as in
 * "<think>...</think>". Pure; a struct thought belongs to one thread.
 *
 * A thought stands at the beginning: the answer begins with the opening mark, or the prompt ends
 * with it. It goes to the closing mark, or to the end. The marks and the space around them are of
 * neither. A mark later in the answer is text.
 */
#ifndef PDD_MODEL_TEXT_THOUGHT_H
#define PDD_MODEL_TEXT_THOUGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "model/text/template.h"
#include "model/text/vocab.h"

struct thought_marks {
    const char *open, *close;
};

/* The marks that the chat template names, else those that the vocabulary has tokens for; NULL:
 * none. Either may be NULL. Without both: those of most models. */
const struct thought_marks *thought_marks_of(const struct chat_template *t, const struct vocab *v);

/* Whether the answer to this prompt begins inside a thought. `marks` may be NULL. */
bool thought_opened(const struct thought_marks *marks, const struct vocab *v, const int32_t *prompt,
                    uint32_t n);

enum thought_state {
    THOUGHT_BEGINS, /* no text yet but space, and maybe a part of the opening mark */
    THOUGHT_GOES_ON,
    THOUGHT_ENDED, /* no text of the answer yet but space */
    THOUGHT_OVER   /* all that comes is the answer */
};

struct thought {
    const struct thought_marks *marks;
    enum thought_state state;
    bool told;       /* some of the thought has been given */
    struct buf held; /* text whose part is not known yet */
};

/* `marks` NULL: all is the answer. `opened`: thought_opened. */
void thought_init(struct thought *t, const struct thought_marks *marks, bool opened);
void thought_release(struct thought *t);
/* Take the text of a token. Append to `ret_thought` and `ret_answer` what is known to belong there.
 * A mark may be a control token, which has no text: then `id` tells it (-1: not known; `v` may be
 * NULL). ERR_NO_MEMORY. */
int thought_push(struct thought *t, const struct vocab *v, int32_t id, const char *text, size_t n,
                 struct buf *ret_thought, struct buf *ret_answer);
/* The answer is over. Append what is held: to the thought if that goes on, else to the answer. */
int thought_finish(struct thought *t, struct buf *ret_thought, struct buf *ret_answer);

#endif
