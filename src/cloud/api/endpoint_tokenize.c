/*
 * endpoint_tokenize: /tokenize and /detokenize, with the tokenizer of the model that is served.
 * What one makes of a text the other turns into the same text, unless the text has bytes that are
 * no UTF-8.
 */
#include "base/mem.h"
#include "cloud/api/server_impl.h"
#include "proto/json.h"
#include "proto/openai.h"

enum { REPLY_MAX = 64 << 20 };

static int need_vocab(const struct server *s, const struct vocab **ret_vocab, struct err *e)
{
    *ret_vocab = s->backend->vocab;
    if (*ret_vocab) return 0;
    return err_set(e, ERR_UNSUPPORTED,
                   "the upstream servers have the tokenizer: ask them, or let the operator "
                   "start this one with --upstream-vocab FILE");
}

static void reply(struct http_request *r, struct server *s, int code, struct buf *body,
                  const struct err *e, const char *param)
{
    struct err full;
    if (code == 0 && !body->error) {
        http_reply_json(r, 200, body->data, body->len);
        return;
    }
    if (!e->code) err_set(&full, ERR_NO_MEMORY, "no memory for the answer");
    server_refuse(s, r, e->code ? e : &full, param && param[0] ? param : NULL);
}

/* {"tokens": [...], "count": n, "max_model_len": n}: llama-server's first, all of vLLM's. */
static void put_tokens(const struct server *s, const struct token_list *t, struct buf *out)
{
    buf_puts(out, "{\"tokens\":[");
    for (uint32_t i = 0; i < t->len; i++) {
        if (i) buf_putc(out, ',');
        json_put_u64(out, (uint64_t)t->ids[i]);
    }
    buf_printf(out, "],\"count\":%u,\"max_model_len\":%u}", t->len, s->backend->positions_max);
}

void tokenize_post(struct http_request *r, void *server)
{
    struct server *s = server;
    struct openai_tokenize q = {0};
    struct err e = ERR_INIT;
    char param[OPENAI_PARAM_MAX] = "";
    const struct vocab *v;
    struct token_list tokens;
    struct buf out;
    size_t n;
    const char *body = http_request_body(r, &n);
    if (!server_authorised(s, r)) return;
    buf_init(&out, REPLY_MAX);
    token_list_init(&tokens, WIRE_PROMPT_MAX);
    int code = need_vocab(s, &v, &e);
    if (!code) code = openai_tokenize_decode(body, n, &q, param, &e);
    unsigned flags = (q.add_special ? VOCAB_ADD_BOS : 0u) | (q.parse_special ? VOCAB_SPECIAL : 0u);
    if (!code) code = vocab_encode(v, q.text, q.text_len, flags, &tokens, &e);
    if (!code) put_tokens(s, &tokens, &out);
    reply(r, s, code, &out, &e, param);
    openai_tokenize_release(&q);
    token_list_release(&tokens);
    buf_release(&out);
}

/* Control tokens are written out, so that the text can be read back. */
static int put_text(const struct vocab *v, const int32_t *ids, uint32_t n, struct buf *text,
                    struct err *e)
{
    struct detok d;
    detok_init(&d, true);
    for (uint32_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= vocab_size(v))
            return err_set(e, ERR_BAD_INPUT,
                           "tokens[%u]: token id %d is outside the vocabulary of %u", i, ids[i],
                           vocab_size(v));
        int code;
        if (vocab_is_control(v, ids[i])) {
            code = detok_finish(&d, text);
            if (!code) code = vocab_piece(v, ids[i], true, text);
        } else {
            code = detok_push(&d, v, ids[i], text);
        }
        if (code) return code;
    }
    return detok_finish(&d, text);
}

/* The text by both names: "content" is llama-server's, "prompt" vLLM's. */
static void put_both(const struct buf *text, struct buf *out)
{
    buf_puts(out, "{\"content\":");
    json_put_string(out, text->data, text->len);
    buf_puts(out, ",\"prompt\":");
    json_put_string(out, text->data, text->len);
    buf_putc(out, '}');
}

void detokenize_post(struct http_request *r, void *server)
{
    struct server *s = server;
    struct err e = ERR_INIT;
    char param[OPENAI_PARAM_MAX] = "";
    const struct vocab *v;
    int32_t *ids = NULL;
    uint32_t n_ids = 0;
    struct buf text, out;
    size_t n;
    const char *body = http_request_body(r, &n);
    if (!server_authorised(s, r)) return;
    buf_init(&text, REPLY_MAX);
    buf_init(&out, REPLY_MAX);
    int code = need_vocab(s, &v, &e);
    if (!code) code = openai_detokenize_decode(body, n, &ids, &n_ids, param, &e);
    if (!code) code = put_text(v, ids, n_ids, &text, &e);
    if (!code) put_both(&text, &out);
    reply(r, s, code, &out, &e, e.code == ERR_BAD_INPUT ? "tokens" : NULL);
    mem_free(ids);
    buf_release(&text);
    buf_release(&out);
}
