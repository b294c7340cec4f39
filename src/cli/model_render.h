/*
 * model_render: `pdd model inspect FILE --render JSON`: the prompt that a chat template makes, as
 * text. Prints to standard output. No threads.
 */
#ifndef PDD_CLI_MODEL_RENDER_H
#define PDD_CLI_MODEL_RENDER_H

#include "base/err.h"
#include "model/text/template.h"

/* `json`: an array of messages, a request of OpenAI's API, or "-" for one on standard input. The
 * template is the file's unless the choice names another. */
int model_render(const char *path, const struct chat_template_choice *choice, const char *json,
                 struct err *e);

#endif
