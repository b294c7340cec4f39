/*
 * template: chat messages to prompt tokens. Pure.
 *
 * A model file's Jinja text is never interpreted: its family (ChatML, ...) is recognised from it,
 * and the messages are rendered by a table of families. Control tokens are recognised only in what
 * the template adds, never in what a user wrote, so a message cannot forge a message.
 *
 * The prompt is what the family's published template writes, with two exceptions: where that would
 * name today's date, Llama 3.1's own fallback date stands, and the default system messages of
 * Granite 3 and Mistral 7, which tell the date, are left out. A prompt must not depend on the clock
 * of the machine that renders it.
 */
#ifndef PDD_MODEL_TEXT_TEMPLATE_H
#define PDD_MODEL_TEXT_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/text/vocab.h"

struct gguf;

struct chat_message {
    const char *role; /* "system", "user", "assistant" */
    const char *content;
    size_t content_len;
};

struct chat_template;

/* From the file's `tokenizer.chat_template`; ERR_NOT_FOUND without one, ERR_UNSUPPORTED for an
 * unknown family (the sentence offers --chat-template). */
int chat_template_open(const struct gguf *g, struct chat_template **ret_template, struct err *e);
/* By family name ("chatml", ...) as given by a user; the error lists the names. */
int chat_template_open_family(const char *family, struct chat_template **ret_template,
                              struct err *e);
void chat_template_close(struct chat_template *t);
const char *chat_template_family(const struct chat_template *t);

/* Whether an answer may begin with a thought (it may, unless told otherwise). Off: the prompt
 * closes an empty one, as Qwen3's template does; ERR_UNSUPPORTED for a template that knows no such
 * thing.
 */
int chat_template_set_thinking(struct chat_template *t, bool on, struct err *e);

/* Append the prompt of the messages (with BOS as the model's flags ask) and, with `generate`, the
 * opening of the assistant message. Roles out of order or unknown: ERR_BAD_INPUT naming the
 * message.
 */
int chat_template_encode(const struct chat_template *t, const struct vocab *v,
                         const struct chat_message *messages, uint32_t n, bool generate,
                         struct token_list *out, struct err *e);

#endif
