/* prompt: the tokens of a request's messages or ids, checked; see server_impl.h. */
#include "base/mem.h"
#include "cloud/api/server_impl.h"
#include "model/template.h"

static int check_ids(const int32_t *ids, uint32_t n, uint32_t vocab, const char *field,
                     struct err *e)
{
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= vocab)
            return err_set(e, ERR_BAD_INPUT, "%s[%u]: token id %d is outside the vocabulary of %u",
                           field, i, ids[i], vocab);
    return 0;
}

static int encode_messages(struct server *s, const struct wire_request *q,
                           struct token_list *prompt, struct err *e)
{
    const struct chat_template *t = s->backend->chat_template;
    if (!t)
        return err_set(
            e, ERR_UNSUPPORTED,
            "messages: the model has no chat template that this program knows; send token "
            "ids, or start the cloud with --chat-template");
    struct chat_message *m = mem_calloc(q->n_messages, sizeof *m);
    if (!m) return err_set(e, ERR_NO_MEMORY, "no memory for the messages");
    for (uint32_t i = 0; i < q->n_messages; i++)
        m[i] = (struct chat_message){q->messages[i].role, q->messages[i].content,
                                     q->messages[i].content_len};
    int code = chat_template_encode(t, s->backend->vocab, m, q->n_messages, true, prompt, e);
    mem_free(m);
    return code;
}

static int take_ids(struct server *s, const struct wire_request *q, struct token_list *prompt,
                    struct err *e)
{
    const struct engine_info *info = s->backend->info;
    int code = check_ids(q->prompt, q->n_prompt, info->vocab_size, "prompt", e);
    if (code == 0 && token_list_append(prompt, q->prompt, q->n_prompt))
        code = err_set(e, ERR_NO_MEMORY, "no memory for the prompt");
    return code;
}

/* Whether there is a prompt, and room for an answer. */
static int check_room(const struct server *s, uint32_t n_prompt, uint32_t n_have, struct err *e)
{
    uint32_t max = s->backend->positions_max;
    if (n_prompt == 0) return err_set(e, ERR_BAD_INPUT, "the prompt is empty");
    if ((uint64_t)n_prompt + n_have < max) return 0;
    return err_set(
        e, ERR_LIMIT,
        "the prompt has %u tokens and %u of its answer: the context of %u leaves no room "
        "for more",
        n_prompt, n_have, max);
}

int prompt_need_vocab(struct err *e)
{
    return err_set(
        e, ERR_UNSUPPORTED,
        "prompt: this server has no tokenizer, and its upstream servers take messages: use "
        "/v1/chat/completions, or let its operator start it with --upstream-vocab FILE");
}

int prompt_make_text(struct server *s, const char *text, size_t n, struct token_list *prompt,
                     struct err *e)
{
    const struct vocab *v = s->backend->vocab;
    if (!v) return prompt_need_vocab(e);
    int code = vocab_encode(v, text, n, VOCAB_ADD_BOS | VOCAB_SPECIAL, prompt, e);
    return code ? code : check_room(s, prompt->len, 0, e);
}

int prompt_make(struct server *s, const struct wire_request *q, bool ids_allowed,
                struct token_list *prompt, const char **param, struct err *e)
{
    *param = q->prompt ? "prompt" : "messages";
    if (q->prompt && !ids_allowed)
        return err_set(
            e, ERR_BAD_INPUT,
            "prompt: token ids need the tokenizer of this server (hashes.tokenizer %s); send "
            "messages instead",
            s->backend->info->tokenizer_hash);
    if (!s->backend->takes_ids) return 0;
    int code = q->prompt ? take_ids(s, q, prompt, e) : encode_messages(s, q, prompt, e);
    if (code) return code;
    *param = "have";
    code = check_ids(q->have, q->n_have, s->backend->info->vocab_size, "have", e);
    if (code) return code;
    *param = q->prompt ? "prompt" : "messages";
    return check_room(s, prompt->len, q->n_have, e);
}
