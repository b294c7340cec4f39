/* refine_prompt: see refine_prompt.h. */
#include "lab/refine_prompt.h"

#include <string.h>

#include "base/mem.h"
#include "model/text/template.h"
#include "policy/bm25.h"
#include "policy/keep_text.h"

enum { TEXT_MAX = 64 << 20 };

void refine_prompt_init(struct refine_prompt *p)
{
    *p = (struct refine_prompt){0};
    token_list_init(&p->tokens, TEXT_MAX);
    buf_init(&p->text, TEXT_MAX);
    buf_init(&p->message, TEXT_MAX);
}

void refine_prompt_release(struct refine_prompt *p)
{
    token_list_release(&p->tokens);
    buf_release(&p->text);
    buf_release(&p->message);
    mem_free(p->ends);
    mem_free(p->cuts);
    mem_free(p->bm25);
    refine_prompt_init(p);
}

/* ---- tokens and their text ---- */

static int encode(struct refine_prompt *p, const struct engine *engine, const char *text,
                  const struct refine_question *q, struct err *e)
{
    const struct engine_info *info = engine_info(engine);
    const struct chat_template *template = engine_template(engine);
    if (!template)
        return err_set(e, ERR_UNSUPPORTED, "model %s has no chat template", info->model_name);
    buf_clear(&p->message);
    int code = buf_printf(&p->message, "%s\n\n%s", text, q->text);
    if (code) return err_set(e, code, "no memory for a prompt");
    const struct chat_message m = {"user", p->message.data, p->message.len};
    p->tokens.len = 0;
    return chat_template_encode(template, engine_vocab(engine), &m, 1, true, &p->tokens, e);
}

static int make_room(struct refine_prompt *p, struct err *e)
{
    const uint32_t n = p->tokens.len;
    if (n <= p->cap) return 0;
    mem_free(p->ends);
    mem_free(p->cuts);
    mem_free(p->bm25);
    p->ends = mem_alloc(n * sizeof *p->ends);
    p->cuts = mem_alloc(n);
    p->bm25 = mem_alloc(n * sizeof *p->bm25);
    p->cap = p->ends && p->cuts && p->bm25 ? n : 0;
    return p->cap ? 0 : err_set(e, ERR_NO_MEMORY, "no memory for a prompt of %u tokens", n);
}

static int spell(struct refine_prompt *p, const struct vocab *v, struct err *e)
{
    buf_clear(&p->text);
    for (uint32_t i = 0; i < p->tokens.len; i++) {
        int code = vocab_piece(v, p->tokens.ids[i], true, &p->text);
        if (code) return err_set(e, code, "no text for token %u of a prompt", i);
        p->ends[i] = (uint32_t)p->text.len;
    }
    keep_text_cuts(p->text.data, p->text.len, p->ends, p->tokens.len, p->cuts);
    return 0;
}

/* ---- BM25 ---- */

/* Where text [n] has `part` last; n where it has not: a template may change a message. */
static size_t last_place(const char *text, size_t n, const char *part, size_t part_len)
{
    for (size_t at = n >= part_len ? n - part_len + 1 : 0; at-- > 0;)
        if (memcmp(text + at, part, part_len) == 0) return at;
    return n;
}

/* The question is found by policy/bm25's rule, as a cloud or device must find it. */
static int score_words(struct refine_prompt *p, struct err *e)
{
    const char *text = p->text.data;
    const char *question = p->message.data + bm25_question(p->message.data, p->message.len);
    const size_t len = (size_t)(p->message.data + p->message.len - question);
    const size_t from = last_place(text, p->text.len, question, len);
    return bm25_score_text(text, from, p->ends, p->tokens.len, question, len, p->bm25, e);
}

int refine_prompt_make(struct refine_prompt *p, const struct engine *engine, const char *text,
                       const struct refine_question *q, struct err *e)
{
    int code = encode(p, engine, text, q, e);
    if (code == 0) code = make_room(p, e);
    if (code == 0) code = spell(p, engine_vocab(engine), e);
    if (code == 0) code = score_words(p, e);
    return code;
}

int refine_prompt_kept(const struct refine_prompt *p, const uint8_t *kept, struct buf *out)
{
    bool was = true;
    for (uint32_t i = 0; i < p->tokens.len; i++) {
        bool is = kept[i / 8] >> (i % 8) & 1;
        uint32_t from = i ? p->ends[i - 1] : 0;
        if (is) buf_append(out, p->text.data + from, p->ends[i] - from);
        if (!is && was) buf_putc(out, '\0');
        was = is;
    }
    return out->error;
}
