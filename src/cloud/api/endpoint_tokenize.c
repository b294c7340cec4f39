/*
 * endpoint_tokenize: /tokenize and /detokenize, with the tokenizer of the model that is served.
 * What one makes of a text the other turns into the same text, unless the text has bytes that are
 * no UTF-8.
 */
#include "base/mem.h"
#include "cloud/api/request_work.h"
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
    struct buf *out = &((struct text_work *)w)->out;
    if (!code) openai_put_tokens(out, tokens.ids, tokens.len, w->rules.positions_max);
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
    if (!code) code = vocab_write(w->rules.vocab, ids, n_ids, &text, &w->e);
    if (!code) openai_put_text(&((struct text_work *)w)->out, text.data, text.len);
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
