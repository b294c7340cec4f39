/*
 * endpoint_openai: the endpoint of /v1/chat/completions and /v1/completions, messages of
 * proto/openai.h: requests, until their answers begin (openai_reply.h). See server.h for what it
 * promises.
 */
#include <string.h>

#include "base/mem.h"
#include "cloud/api/openai_reply.h"
#include "cloud/api/request_work.h"
#include "proto/openai_pass.h"

enum { ECHO_MAX = 16 << 20 };

struct openai_work {
    struct request_work w; /* first */
    struct openai_request q;
    struct openai_reply_prompt *prompts; /* [n_prompts] */
    uint32_t n_prompts;
    bool chat, decoded;
};

/* The text of a prompt of ids, as a reader of the answer would see it. */
static int detokenize(const struct vocab *v, const struct openai_prompt *p, struct buf *out,
                      struct err *e)
{
    struct detok d;
    int code = 0;
    detok_init(&d, true);
    for (uint32_t i = 0; i < p->n_ids && !code; i++)
        code = detok_push(&d, v, p->ids[i], out);
    if (!code) code = detok_finish(&d, out);
    return code ? err_set(e, code, "no memory to echo the prompt") : 0;
}

static int make_echo(const struct openai_work *o, const struct openai_prompt *p, struct buf *out,
                     struct err *e)
{
    if (!o->q.echo) return 0;
    if (!p->text) return detokenize(o->w.rules.vocab, p, out, e);
    return buf_append(out, p->text, p->text_len)
               ? err_set(e, ERR_NO_MEMORY, "no memory to echo the prompt")
               : 0;
}

/* The tokens of prompt i, of whatever form it came in. */
static int make_prompt(struct openai_work *o, uint32_t i, const char **ret_param)
{
    const struct prompt_rules *rules = &o->w.rules;
    struct openai_reply_prompt *prompt = &o->prompts[i];
    struct openai_prompt p = openai_request_prompt(&o->q, i);
    struct err *e = &o->w.e;
    *ret_param = "prompt";
    if (o->q.chat) return prompt_make(rules, &o->q.ask, true, &prompt->tokens, ret_param, e);
    if (!rules->takes_ids) return prompt_need_vocab(e);
    int code = p.text ? prompt_make_text(rules, p.text, p.text_len, &prompt->tokens, e)
                      : prompt_make_ids(rules, p.ids, p.n_ids, &prompt->tokens, e);
    return code ? code : make_echo(o, &p, &prompt->echo, e);
}

static int make_prompts(struct openai_work *o, const char **ret_param)
{
    uint32_t n = 1 + o->q.n_more;
    int code = 0;
    o->prompts = mem_calloc(n, sizeof *o->prompts);
    if (!o->prompts) return err_set(&o->w.e, ERR_NO_MEMORY, "no memory for the prompts");
    for (; o->n_prompts < n && !code; o->n_prompts++) {
        token_list_init(&o->prompts[o->n_prompts].tokens, WIRE_PROMPT_MAX);
        buf_init(&o->prompts[o->n_prompts].echo, ECHO_MAX);
        code = make_prompt(o, o->n_prompts, ret_param);
    }
    return code;
}

static int decode(struct openai_work *o)
{
    struct request_work *w = &o->w;
    const struct buf *body = &w->body.bytes;
    const struct openai_pass_rules rules = {o->chat, !w->rules.takes_ids};
    if (!w->rules.passes_on)
        return openai_request_decode(body->data, body->len, o->chat, &o->q, w->param, &w->e);
    return openai_pass_decode(body->data, body->len, &rules, &o->q, w->param, &w->e);
}

static void work(struct request_work *w)
{
    struct openai_work *o = (struct openai_work *)w;
    const char *param = "";
    if (decode(o)) return;
    o->decoded = true;
    if (o->q.ask.passed) return; /* to upstream servers as it is */
    if (prompt_check_sampling(&w->rules, &o->q.ask.sampling, &w->e))
        request_work_name(w, "logit_bias");
    else if (make_prompts(o, &param))
        request_work_name(w, param);
    else if (w->large)
        (void)prompt_prepare(&w->rules, &o->q.ask, &o->prompts[0].tokens, &w->e);
}

/* What this backend has not, or never has room for. */
static int check_backend(const struct request_ctx *c, const struct openai_request *q,
                         const char **param, struct err *e)
{
    const struct backend *b = c->server->backend;
    uint32_t n = openai_request_choices(q), most = b->jobs_max;
    if (c->key && c->key->line.limits.streams_max && c->key->line.limits.streams_max < most)
        most = c->key->line.limits.streams_max;
    *param = "logprobs";
    if (q->logprobs && !b->gives_logprobs)
        return err_set(e, ERR_UNSUPPORTED,
                       "logprobs: upstream servers compute here; their log-probabilities are not "
                       "forwarded");
    *param = q->n > 1 ? "n" : "prompt";
    if (n > 1 && !b->gives_choices)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: upstream servers compute here, and a request gets one answer: send "
                       "more requests",
                       *param);
    if (n > most)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: %u answers in one request, and %u at once are allowed here", *param, n,
                       most);
    return 0;
}

static void finish_work(struct request_work *w)
{
    struct openai_work *o = (struct openai_work *)w;
    struct err e = ERR_INIT;
    const char *param = w->param[0] ? w->param : NULL;
    if (!o->decoded)
        request_refuse(&w->ctx, &w->e, param);
    else if (!request_accepts(&w->ctx, o->q.ask.model))
        return;
    else if (o->q.ask.passed)
        pass_begin(w, &o->q);
    else if (check_backend(&w->ctx, &o->q, &param, &e))
        request_refuse(&w->ctx, &e, param);
    else if (w->e.code)
        request_refuse(&w->ctx, &w->e, w->param[0] ? w->param : NULL);
    else
        openai_reply_begin(&w->ctx, &o->q, &w->body, w->arrived, o->prompts);
}

static void release_work(struct request_work *w)
{
    struct openai_work *o = (struct openai_work *)w;
    openai_request_release(&o->q);
    for (uint32_t i = 0; i < o->n_prompts; i++) {
        token_list_release(&o->prompts[i].tokens);
        buf_release(&o->prompts[i].echo);
    }
    mem_free(o->prompts);
}

static void post(struct http_request *r, struct server *s, bool chat)
{
    static const struct request_work_ops ops = {sizeof(struct openai_work), work, finish_work,
                                                release_work};
    struct openai_work *o = request_work_new(s, r, &ops);
    if (!o) return;
    o->chat = chat;
    request_work_run(&o->w);
}

void openai_post_chat(struct http_request *r, void *server)
{
    post(r, server, true);
}

void openai_post_completion(struct http_request *r, void *server)
{
    post(r, server, false);
}
