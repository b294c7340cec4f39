/*
 * endpoint_tokenize: /tokenize and /detokenize, with the tokenizer of the model that is served.
 * What one makes of a text the other turns into the same text, unless the text has bytes that are
 * no UTF-8.
 */
#include "base/mem.h"
#include "cloud/api/request_work.h"
#include "proto/json.h"
#include "proto/openai.h"

enum { REPLY_MAX = 64 << 20 };

struct text_work {
    struct request_work w; /* first */
    struct buf out;        /* the reply */
};

static int need_vocab(const struct request_work *w, struct err *e)
{
    if (w->rules.vocab) return 0;
    return err_set(e, ERR_UNSUPPORTED,
                   "the upstream servers have the tokenizer: ask them, or let the operator "
                   "start this one with --upstream-vocab FILE");
}

/* An error without a sentence is one of memory. */
static void note_code(struct request_work *w, int code)
{
    if (!code) code = ((struct text_work *)w)->out.error;
    if (code && !w->e.code) err_set(&w->e, ERR_NO_MEMORY, "no memory for the answer");
}

static void finish_work(struct request_work *w)
{
    struct text_work *t = (struct text_work *)w;
    if (w->e.code)
        request_refuse(&w->ctx, &w->e, w->param[0] ? w->param : NULL);
    else
        http_reply_take(w->ctx.http, 200, "application/json", &t->out);
}

static void release(struct request_work *w)
{
    struct text_work *t = (struct text_work *)w;
    buf_release(&t->out);
}

static void start(struct http_request *r, struct server *s, const struct request_work_ops *ops)
{
    struct text_work *t = request_work_new(s, r, ops);
    if (!t) return;
    buf_init(&t->out, REPLY_MAX);
    request_work_run(&t->w);
}

/* {"tokens": [...], "count": n, "max_model_len": n}: llama-server's first, all of vLLM's. */
static void put_tokens(const struct prompt_rules *rules, const struct token_list *t,
                       struct buf *out)
{
    buf_puts(out, "{\"tokens\":[");
    for (uint32_t i = 0; i < t->len; i++) {
        if (i) buf_putc(out, ',');
        json_put_u64(out, (uint64_t)t->ids[i]);
    }
    buf_printf(out, "],\"count\":%u,\"max_model_len\":%u}", t->len, rules->positions_max);
}

static void tokenize(struct request_work *w)
{
    struct openai_tokenize q = {0};
    struct token_list tokens;
    token_list_init(&tokens, WIRE_PROMPT_MAX);
    int code = need_vocab(w, &w->e);
    if (!code)
        code = openai_tokenize_decode(w->body.bytes.data, w->body.bytes.len, &q, w->param, &w->e);
    unsigned flags = (q.add_special ? VOCAB_ADD_BOS : 0u) | (q.parse_special ? VOCAB_SPECIAL : 0u);
    if (!code) code = vocab_encode(w->rules.vocab, q.text, q.text_len, flags, &tokens, &w->e);
    if (!code) put_tokens(&w->rules, &tokens, &((struct text_work *)w)->out);
    note_code(w, code);
    openai_tokenize_release(&q);
    token_list_release(&tokens);
}

void tokenize_post(struct http_request *r, void *server)
{
    static const struct request_work_ops ops = {sizeof(struct text_work), tokenize, finish_work,
                                                release};
    start(r, server, &ops);
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

static void detokenize(struct request_work *w)
{
    int32_t *ids = NULL;
    uint32_t n_ids = 0;
    struct buf text;
    buf_init(&text, REPLY_MAX);
    int code = need_vocab(w, &w->e);
    if (!code)
        code = openai_detokenize_decode(w->body.bytes.data, w->body.bytes.len, &ids, &n_ids,
                                        w->param, &w->e);
    if (!code) code = put_text(w->rules.vocab, ids, n_ids, &text, &w->e);
    if (!code) put_both(&text, &((struct text_work *)w)->out);
    note_code(w, code);
    request_work_name(w, w->e.code == ERR_BAD_INPUT ? "tokens" : "");
    mem_free(ids);
    buf_release(&text);
}

void detokenize_post(struct http_request *r, void *server)
{
    static const struct request_work_ops ops = {sizeof(struct text_work), detokenize, finish_work,
                                                release};
    start(r, server, &ops);
}
