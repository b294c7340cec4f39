/*
 * template: chat messages to prompt tokens. Pure.
 *
 * A template is Jinja text: the file's (`tokenizer.chat_template`), a user's, or one of ours, which
 * go by the names of families. It is interpreted (model/jinja) as transformers would, so the prompt
 * is what the text says. Control tokens are recognised only in what the template wrote, never in
 * what came with the messages, so a message cannot forge a message.
 *
 * A template sees messages (role, content and what chat_prompt adds), tools, documents (none),
 * add_generation_prompt, bos_token, eos_token, and the arguments that a request gives it. Where it
 * does not begin with BOS and the vocabulary's flag asks for one, one is put there.
 *
 * A template that takes the content of a message for a list of parts gets a list of one part of
 * type text. The arguments of calls, which APIs give as a JSON text, are values; a template that
 * fails on those gets the text.
 */
#ifndef PDD_MODEL_TEXT_TEMPLATE_H
#define PDD_MODEL_TEXT_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/gguf.h"
#include "model/text/vocab.h"

struct chat_message {
    const char *role; /* "system", "user", "assistant", or one that the template names */
    const char *content;
    size_t content_len;
};

/* What a request gives a template. JSON texts may be NULL. */
struct chat_prompt {
    const struct chat_message *messages; /* [n] */
    const char *const *extras; /* [n] or NULL: a JSON object of a message's further fields, such as
                                  tool_calls, tool_call_id, name */
    uint32_t n;
    const char *tools;     /* a JSON array */
    const char *arguments; /* a JSON object: enable_thinking, reasoning_effort, ... */
    bool generate;         /* open the assistant's message */
    int64_t now;           /* seconds since 1970 on the clock on the wall; 0: no time is known */
};

struct chat_template;

/* The file's: `tokenizer.chat_template`, or the named one `default`; and `tool_use`, if there is
 * one, for requests with tools. ERR_NOT_FOUND without one, or with a blank one; ERR_BAD_INPUT or
 * ERR_LIMIT for a text that is no template (the sentence offers --chat-template). */
int chat_template_open(const struct gguf *g, struct chat_template **ret_template, struct err *e);
/* By family name ("chatml", ...) as given by a user; the error lists the names. */
int chat_template_open_family(const char *family, struct chat_template **ret_template,
                              struct err *e);
/* From a text; `name` is for errors. */
int chat_template_open_text(const char *text, size_t n, const char *name,
                            struct chat_template **ret_template, struct err *e);
/* What a user asks for: a family, else the text in a file, else what the model's file has. */
struct chat_template_choice {
    const char *family, *file; /* NULL: none */
};
int chat_template_choose(const struct chat_template_choice *choice, const struct gguf *g,
                         struct vocab *v, struct chat_template **ret_template, struct err *e);
void chat_template_close(struct chat_template *t);
/* A family's name, or what it was read from. */
const char *chat_template_family(const struct chat_template *t);
/* The text that a hash of the template is of: the file's text, or the name of a family. */
struct gguf_str chat_template_identity(const struct chat_template *t);

/* Whether its text has that word. */
bool chat_template_has(const struct chat_template *t, const char *word);

/* Whether an answer may begin with a thought (it may, unless told otherwise). Off: the template's
 * argument enable_thinking is false; ERR_UNSUPPORTED for a template that knows no such thing. */
int chat_template_set_thinking(struct chat_template *t, bool on, struct err *e);

/* Append the prompt's tokens. ERR_BAD_INPUT: an unknown role, messages that the template refuses,
 * of which it makes no text though an answer is to follow, or on which it fails: the sentence has
 * the reason. ERR_UNSUPPORTED: tools, for a template without a place for them. */
int chat_template_render(const struct chat_template *t, const struct vocab *v,
                         const struct chat_prompt *in, struct token_list *out, struct err *e);
/* The same for messages alone, without a time. */
int chat_template_encode(const struct chat_template *t, const struct vocab *v,
                         const struct chat_message *messages, uint32_t n, bool generate,
                         struct token_list *out, struct err *e);

#endif
