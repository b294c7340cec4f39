/*
 * openai_tokens: the bodies of /tokenize and /detokenize, which OpenAI's API lacks; fields as
 * llama-server and vLLM have them, where the two agree or at least do not collide.
 *
 *   /tokenize    content (llama-server) or prompt (vLLM): the text. add_special (default false) or
 *                add_special_tokens (default true, and only with `prompt`): put the beginning and
 *                end tokens that the model's flags ask for. parse_special (default true): control
 *                tokens written in the text are tokens.
 *   /detokenize  tokens
 */
#include <jansson.h>

#include "base/mem.h"
#include "proto/json.h"
#include "proto/openai_impl.h"

/* Borrowed from the parsed JSON. */
struct tokenize_fields {
    json_t *content, *prompt;
    bool add_special, add_special_tokens, parse_special, with_pieces, return_token_strs;
};

#define FIELD(name, type, max)                                                                     \
    {                                                                                              \
#name, type, false, 0, max, 0, 0, offsetof(struct tokenize_fields, name)                   \
    }
static const struct json_field tokenize_fields[] = {
    FIELD(content, JSON_FIELD_STRING, WIRE_BODY_MAX),
    FIELD(prompt, JSON_FIELD_STRING, WIRE_BODY_MAX),
    FIELD(add_special, JSON_FIELD_BOOL, 0),
    FIELD(add_special_tokens, JSON_FIELD_BOOL, 0),
    FIELD(parse_special, JSON_FIELD_BOOL, 0),
    FIELD(with_pieces, JSON_FIELD_BOOL, 0),
    FIELD(return_token_strs, JSON_FIELD_BOOL, 0),
};

static int take_tokenize(const struct tokenize_fields *f, struct openai_tokenize *r,
                         char *ret_param, struct err *e)
{
    if (!f->content == !f->prompt) {
        openai_param_set(ret_param, "content");
        return err_set(e, ERR_BAD_INPUT, "give the text as content, or as prompt");
    }
    if (f->with_pieces || f->return_token_strs) {
        openai_param_set(ret_param, f->with_pieces ? "with_pieces" : "return_token_strs");
        return err_set(e, ERR_UNSUPPORTED, "%s is not supported: use /detokenize for single tokens",
                       ret_param);
    }
    r->add_special = f->add_special || (f->prompt && f->add_special_tokens);
    r->parse_special = f->parse_special;
    return openai_text_take(f->content ? f->content : f->prompt, &r->text, &r->text_len, e);
}

int openai_tokenize_decode(const char *json, size_t n, struct openai_tokenize *r,
                           char ret_param[OPENAI_PARAM_MAX], struct err *e)
{
    struct tokenize_fields f = {.add_special_tokens = true, .parse_special = true};
    json_t *root;
    ret_param[0] = 0;
    int code = openai_object_parse(json, n, &root, e);
    if (code) return code;
    code = openai_fields_read(root, tokenize_fields,
                              sizeof tokenize_fields / sizeof *tokenize_fields, &f, ret_param, e);
    if (!code) code = take_tokenize(&f, r, ret_param, e);
    json_decref(root);
    return code;
}

void openai_tokenize_release(struct openai_tokenize *r)
{
    mem_free(r->text);
    *r = (struct openai_tokenize){NULL, 0, false, false};
}

int openai_detokenize_decode(const char *json, size_t n, int32_t **ret_ids, uint32_t *ret_n,
                             char ret_param[OPENAI_PARAM_MAX], struct err *e)
{
    static const struct json_field field = {
        "tokens", JSON_FIELD_ARRAY, true, 0, WIRE_PROMPT_MAX, 0, 0, 0};
    json_t *root, *tokens = NULL;
    ret_param[0] = 0;
    int code = openai_object_parse(json, n, &root, e);
    if (code) return code;
    code = openai_fields_read(root, &field, 1, &tokens, ret_param, e);
    if (!code) code = openai_ids_take(tokens, "tokens", ret_ids, ret_n, e);
    if (code) openai_param_set(ret_param, "tokens");
    json_decref(root);
    return code;
}

int openai_put_tokens(struct buf *out, const int32_t *ids, uint32_t n, uint32_t context)
{
    buf_puts(out, "{\"tokens\":[");
    json_put_ids(out, ids, n);
    return buf_printf(out, "],\"count\":%u,\"max_model_len\":%u}", n, context);
}

int openai_put_text(struct buf *out, const char *text, size_t n)
{
    buf_puts(out, "{\"content\":");
    json_put_string(out, text, n);
    buf_puts(out, ",\"prompt\":");
    json_put_string(out, text, n);
    return buf_putc(out, '}');
}
