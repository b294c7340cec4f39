/* model_render: see model_render.h. The request is read as the API reads it. */
#include "cli/model_render.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/os.h"
#include "proto/openai.h"

enum { TOKENS_MAX = 1 << 26, TEXT_MAX = 64 << 20 };

/* A bare array of messages becomes a request. */
static int read_request(const char *json, struct openai_request *r, struct err *e)
{
    struct buf text;
    char param[OPENAI_PARAM_MAX];
    buf_init(&text, WIRE_BODY_MAX);
    int code =
        strcmp(json, "-") == 0 ? os_read_file("/dev/stdin", &text, e) : buf_puts(&text, json);
    size_t white = strspn(text.data, " \t\r\n");
    bool bare = text.data[white] == '[';
    struct buf whole;
    buf_init(&whole, WIRE_BODY_MAX + 64);
    if (bare) buf_puts(&whole, "{\"messages\":");
    buf_append(&whole, text.data, text.len);
    if (bare) buf_putc(&whole, '}');
    if (code == 0 && whole.error) code = err_set(e, whole.error, "no memory for the messages");
    if (code == 0) code = openai_request_decode(whole.data, whole.len, true, r, param, e);
    buf_release(&whole);
    buf_release(&text);
    return code;
}

static int print_ids(const struct vocab *v, const struct token_list *ids, struct err *e)
{
    struct buf text;
    int code = 0;
    buf_init(&text, TEXT_MAX);
    for (uint32_t i = 0; i < ids->len && code == 0; i++)
        code = vocab_piece(v, ids->ids[i], true, &text);
    if (code)
        err_set(e, code, "no memory for the text of the prompt");
    else
        fwrite(text.data, 1, text.len, stdout);
    buf_release(&text);
    return code;
}

static int render(const struct chat_template *t, const struct vocab *v,
                  const struct wire_request *q, struct err *e)
{
    struct token_list ids;
    struct chat_message *m = mem_calloc(q->n_messages, sizeof *m);
    if (!m) return err_set(e, ERR_NO_MEMORY, "no memory for the messages");
    for (uint32_t i = 0; i < q->n_messages; i++)
        m[i] = (struct chat_message){q->messages[i].role, q->messages[i].content,
                                     q->messages[i].content_len};
    const struct chat_prompt in = {.messages = m,
                                   .extras = (const char *const *)q->extras,
                                   .n = q->n_messages,
                                   .tools = q->tools,
                                   .arguments = q->arguments,
                                   .generate = true,
                                   .now = clock_wall_s()};
    token_list_init(&ids, TOKENS_MAX);
    int code = chat_template_render(t, v, &in, &ids, e);
    if (code == 0) code = print_ids(v, &ids, e);
    token_list_release(&ids);
    mem_free(m);
    return code;
}

int model_render(const char *path, const struct chat_template_choice *choice, const char *json,
                 struct err *e)
{
    struct gguf *g = NULL;
    struct vocab *v = NULL;
    struct chat_template *t = NULL;
    struct openai_request r = {.chat = true};
    int code = gguf_open(path, &g, e);
    if (code == 0) code = vocab_open(g, &v, e);
    if (code == 0) code = chat_template_choose(choice, g, v, &t, e);
    if (code == 0) code = read_request(json, &r, e);
    if (code == 0) code = render(t, v, &r.ask, e);
    openai_request_release(&r);
    chat_template_close(t);
    vocab_close(v);
    gguf_close(g);
    return code;
}
