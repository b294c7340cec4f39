/* prompt: see prompt.h. */
#include "cloud/api/prompt.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "model/sampler.h"
#include "model/text/template.h"

enum { PIECE_BYTES_MAX = 1 << 16 };

void prompt_rules_of(const struct backend *b, struct prompt_rules *ret_rules)
{
    const struct engine_info *info = b->info;
    *ret_rules = (struct prompt_rules){.vocab = b->vocab,
                                       .chat_template = b->chat_template,
                                       .vocab_size = info->vocab_size,
                                       .positions_max = b->positions_max,
                                       .takes_ids = b->takes_ids,
                                       .passes_on = b->takes_request,
                                       .refines = b->refines};
    memcpy(ret_rules->weights_hash, info->weights_hash, sizeof ret_rules->weights_hash);
    memcpy(ret_rules->tokenizer_hash, info->tokenizer_hash, sizeof ret_rules->tokenizer_hash);
    snprintf(ret_rules->numerics, sizeof ret_rules->numerics, "%s", info->numerics);
}

enum wire_match prompt_match(const struct prompt_rules *rules, const struct wire_request *q)
{
    if (strcmp(q->tokenizer, rules->tokenizer_hash) != 0) return WIRE_TEXT;
    if (strcmp(q->weights, rules->weights_hash) != 0) return WIRE_TOKENS;
    return strcmp(q->numerics, rules->numerics) == 0 ? WIRE_EXACT : WIRE_WEIGHTS;
}

static int check_ids(const int32_t *ids, uint32_t n, uint32_t vocab, const char *field,
                     struct err *e)
{
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= vocab)
            return err_set(e, ERR_BAD_INPUT, "%s[%u]: token id %d is outside the vocabulary of %u",
                           field, i, ids[i], vocab);
    return 0;
}

static int encode_messages(const struct prompt_rules *rules, const struct wire_request *q,
                           struct token_list *prompt, struct err *e)
{
    const struct chat_template *t = rules->chat_template;
    if (!t)
        return err_set(
            e, ERR_UNSUPPORTED,
            "messages: the model has no chat template that this program knows; send token "
            "ids, or start the cloud with --chat-template");
    struct chat_message *m = mem_calloc(q->n_messages, sizeof *m);
    int code = m ? 0 : err_set(e, ERR_NO_MEMORY, "no memory for the messages");
    for (uint32_t i = 0; i < q->n_messages && !code; i++)
        m[i] = (struct chat_message){q->messages[i].role, q->messages[i].content,
                                     q->messages[i].content_len};
    struct chat_prompt in = {.messages = m,
                             .extras = (const char *const *)q->extras,
                             .n = q->n_messages,
                             .tools = q->tools,
                             .arguments = q->arguments,
                             .generate = true,
                             .now = q->now ? (int64_t)q->now : clock_wall_s()};
    if (!code) code = chat_template_render(t, rules->vocab, &in, prompt, e);
    if (code == ERR_UNSUPPORTED && in.tools) { /* none may be called, and none can be named */
        in.tools = NULL;
        prompt->len = 0;
        *e = (struct err)ERR_INIT;
        code = chat_template_render(t, rules->vocab, &in, prompt, e);
    }
    mem_free(m);
    return code;
}

/* Upstream servers are sent roles and contents only. */
static int check_plain(const struct wire_request *q, struct err *e)
{
    const char *what = q->tools ? "tools" : q->arguments ? "arguments of the chat template" : NULL;
    for (uint32_t i = 0; i < q->n_messages && !what; i++)
        if (q->extras && wire_message_has_calls(q->extras[i]))
            what = "messages with calls or results";
    if (!what) return 0;
    return err_set(e, ERR_UNSUPPORTED,
                   "%s: this server has no chat template, and its upstream servers take roles and "
                   "contents; its operator can start it with --upstream-vocab FILE",
                   what);
}

static int take_ids(const struct prompt_rules *rules, const int32_t *ids, uint32_t n,
                    struct token_list *prompt, struct err *e)
{
    int code = check_ids(ids, n, rules->vocab_size, "prompt", e);
    if (code == 0 && token_list_append(prompt, ids, n))
        code = err_set(e, ERR_NO_MEMORY, "no memory for the prompt");
    return code;
}

/* Whether there is a prompt, and room for an answer. */
static int check_room(const struct prompt_rules *rules, uint32_t n_prompt, uint32_t n_have,
                      struct err *e)
{
    uint32_t max = rules->positions_max;
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

int prompt_make_text(const struct prompt_rules *rules, const char *text, size_t n,
                     struct token_list *prompt, struct err *e)
{
    if (!rules->vocab) return prompt_need_vocab(e);
    int code = vocab_encode(rules->vocab, text, n, VOCAB_ADD_BOS | VOCAB_SPECIAL, prompt, e);
    return code ? code : check_room(rules, prompt->len, 0, e);
}

int prompt_make_ids(const struct prompt_rules *rules, const int32_t *ids, uint32_t n,
                    struct token_list *prompt, struct err *e)
{
    int code = take_ids(rules, ids, n, prompt, e);
    return code ? code : check_room(rules, prompt->len, 0, e);
}

int prompt_make(const struct prompt_rules *rules, const struct wire_request *q, bool ids_allowed,
                struct token_list *prompt, const char **ret_param, struct err *e)
{
    *ret_param = q->prompt ? "prompt" : "messages";
    if (q->prompt && !ids_allowed)
        return err_set(
            e, ERR_BAD_INPUT,
            "prompt: token ids need the tokenizer of this server (hashes.tokenizer %s); send "
            "messages instead",
            rules->tokenizer_hash);
    if (!rules->takes_ids) return check_plain(q, e);
    int code = q->prompt ? take_ids(rules, q->prompt, q->n_prompt, prompt, e)
                         : encode_messages(rules, q, prompt, e);
    if (code) return code;
    *ret_param = "have";
    code = check_ids(q->have, q->n_have, rules->vocab_size, "have", e);
    if (code) return code;
    *ret_param = q->prompt ? "prompt" : "messages";
    return check_room(rules, prompt->len, q->n_have, e);
}

int prompt_check_sampling(const struct prompt_rules *rules, const struct sampling *s, struct err *e)
{
    return rules->vocab ? sampling_check_ids(s, vocab_size(rules->vocab), e) : 0;
}

int prompt_skip_have(const struct prompt_rules *rules, const struct wire_request *q,
                     struct detok *detok, struct err *e)
{
    struct buf text;
    int code = 0;
    buf_init(&text, PIECE_BYTES_MAX);
    for (uint32_t i = 0; rules->vocab && i < q->n_have && code == 0; i++) {
        buf_clear(&text);
        code = detok_push(detok, rules->vocab, q->have[i], &text);
        if (code) err_set(e, code, "have[%u]: token %d has no text", i, q->have[i]);
    }
    buf_release(&text);
    return code;
}

int prompt_prepare(const struct prompt_rules *rules, struct wire_request *q,
                   const struct token_list *prompt, struct err *e)
{
    if (!rules->passes_on) return 0;
    int code = wire_request_prepare(q, e);
    if (code || !rules->takes_ids) return code;
    return wire_request_prepare_tokens(q, prompt->ids, prompt->len, e);
}
