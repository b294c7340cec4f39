/*
 * native: see native.h. Ties model/ to the interface of an engine: histories, KV pages, steps and
 * draws. It computes nothing itself. engine.c has checked arguments before they come here.
 *
 * The context may be asked longer than the file says (rotary positions go on); whether the model
 * still writes sense there is the caller's judgement.
 */
#include "engine/native.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/pool.h"
#include "engine/engine_impl.h"
#include "model/forward.h"
#include "model/gguf.h"
#include "model/kv.h"
#include "model/model.h"
#include "model/sampler.h"
#include "model/text/template.h"
#include "model/text/vocab.h"

enum { STEP_TOKENS_DEFAULT = 512, CONTEXTS_DEFAULT = 2 };

/* What engine_info says of the KV memory. */
static const struct {
    const char *name, *numerics;
} kv_kinds[] = {[KERN_KV_F16] = {"f16", "exact-1"},
                [KERN_KV_Q8] = {"q8_0", "exact-1-kvq8"},
                [KERN_KV_I16] = {"i16", "exact-1-kvi16"}};

struct native {
    struct engine base;
    struct model model;
    struct pool *pool;
    const struct kern *kern;
    struct kv_pool *kv;
    struct forward *forward;
    struct sampler *samplers;   /* [threads] */
    struct forward_span *spans; /* [ENGINE_SPANS_MAX] */
    uint64_t steps;
};

struct native_session {
    struct session base;
    struct kv_seq kv;
    int32_t *tokens; /* [context_max] */
    uint32_t len;
    struct sampling sampling;
    const float *logits;        /* of step number `logits_step` */
    struct forward_score score; /* best NULL: none is asked for */
    uint64_t logits_step;
};

static struct native *native_of(struct engine *e)
{
    return (struct native *)e;
}

static const struct native *native_of_const(const struct engine *e)
{
    return (const struct native *)e;
}

static uint32_t native_pages_free(const struct engine *e)
{
    return kv_pages_free(native_of_const(e)->kv);
}

static void native_free(struct engine *e)
{
    struct native *n = native_of(e);
    if (!n) return;
    for (unsigned i = 0; n->samplers && i < pool_threads(n->pool); i++)
        sampler_release(&n->samplers[i]);
    mem_free(n->samplers);
    mem_free(n->spans);
    forward_close(n->forward);
    kv_pool_close(n->kv);
    chat_template_close(n->base.chat_template);
    vocab_close(n->base.vocab);
    model_close(&n->model);
    pool_free(n->pool);
    mem_free(n);
}

/* ---- sessions ---- */

static int native_session_open(struct engine *e, struct session **ret_session, struct err *err)
{
    struct native *n = native_of(e);
    struct native_session *s = mem_calloc(1, sizeof *s);
    if (!s) return err_set(err, ERR_NO_MEMORY, "no memory for a session");
    s->base.engine = e;
    s->sampling = (struct sampling)SAMPLING_GREEDY;
    s->tokens = mem_alloc(e->info.context_max * sizeof *s->tokens);
    int rc = s->tokens ? kv_seq_init(&s->kv, n->kv, e->info.context_max, err)
                       : err_set(err, ERR_NO_MEMORY, "no memory for a session's history");
    if (rc < 0) {
        mem_free(s->tokens);
        mem_free(s);
        return rc;
    }
    *ret_session = &s->base;
    return 0;
}

static void native_session_close(struct session *session)
{
    struct native_session *s = (struct native_session *)session;
    if (!s) return;
    kv_seq_release(&s->kv);
    mem_free(s->tokens);
    mem_free(s);
}

static void native_set_sampling(struct session *session, const struct sampling *sampling)
{
    ((struct native_session *)session)->sampling = *sampling;
}

static uint32_t native_session_len(const struct session *session)
{
    return ((const struct native_session *)session)->len;
}

static const int32_t *native_session_tokens(const struct session *session)
{
    return ((const struct native_session *)session)->tokens;
}

static void native_session_cut(struct session *session, uint32_t n)
{
    struct native_session *s = (struct native_session *)session;
    kv_seq_cut(&s->kv, n);
    s->len = n;
}

static uint32_t native_page_hold(struct session *session, uint32_t i)
{
    return kv_page_hold(&((struct native_session *)session)->kv, i);
}

static void native_page_drop(struct engine *e, uint32_t page)
{
    kv_page_drop(native_of(e)->kv, page);
}

static struct kv_pool *native_pages(struct engine *e)
{
    return native_of(e)->kv;
}

static int native_page_adopt(struct session *session, uint32_t page, const int32_t *tokens,
                             uint32_t n, struct err *err)
{
    struct native_session *s = (struct native_session *)session;
    int rc = kv_seq_adopt(&s->kv, page, n, err);
    if (rc < 0) return rc;
    memcpy(s->tokens + s->len, tokens, n * sizeof *s->tokens);
    s->len += n;
    return 0;
}

static void native_page_swap(struct session *session, uint32_t i, uint32_t page)
{
    kv_seq_swap(&((struct native_session *)session)->kv, i, page);
}

static const float *native_session_logits(const struct session *session)
{
    const struct native_session *s = (const struct native_session *)session;
    const struct native *n = native_of_const(session->engine);
    return s->logits_step == n->steps ? s->logits : NULL;
}

static int native_session_score(struct session *session, uint32_t first, uint32_t n, float *best,
                                struct err *err)
{
    struct native_session *s = (struct native_session *)session;
    s->score = (struct forward_score){0};
    int rc = n > 0 ? forward_score_open(native_of(session->engine)->forward, err) : 0;
    uint32_t ramp = n - first < ENGINE_SCORE_WINDOW ? n - first : ENGINE_SCORE_WINDOW;
    if (rc == 0) s->score = (struct forward_score){first, n, ramp, best};
    return rc;
}

/* ---- steps ---- */

/* Take the pages that all spans need, or none. */
static int reserve(struct native *n, const struct engine_span *spans, uint32_t count,
                   struct err *err)
{
    uint64_t needed = 0;
    for (uint32_t i = 0; i < count; i++)
        needed += kv_seq_pages_needed(&((struct native_session *)spans[i].session)->kv, spans[i].n);
    if (needed > kv_pages_free(n->kv))
        return err_set(err, ERR_NO_MEMORY,
                       "the step needs %llu KV pages, %u of %u are free: close a session, or give "
                       "the engine more KV memory",
                       (unsigned long long)needed, kv_pages_free(n->kv), kv_pages_total(n->kv));
    for (uint32_t i = 0; i < count; i++) {
        struct native_session *s = (struct native_session *)spans[i].session;
        CHECK(kv_seq_reserve(&s->kv, spans[i].n, err) == 0);
    }
    return 0;
}

struct draws {
    struct native *n;
    struct engine_span *spans;
};

/* Task t is the t-th row of logits: rows of a span stand together, in the order of its tokens. */
static void draw_task(void *arg, uint32_t task, uint32_t worker)
{
    const struct draws *d = arg;
    struct engine_span *span = d->spans;
    for (uint32_t n; task >= (n = engine_span_draws(span)); span++)
        task -= n;
    uint32_t later = engine_span_draws(span) - 1 - task; /* tokens of the span after this one */
    struct native_session *s = (struct native_session *)span->session;
    const float *logits = s->logits - (size_t)later * d->n->model.hparams.vocab;
    struct sampler_draw drawn =
        sampler_draw(&d->n->samplers[worker], &s->sampling, logits, s->tokens, s->len - later);
    if (span->n_draws > 0) span->draws[task] = drawn.id;
    if (later > 0 || !span->sample) return;
    span->next = drawn.id;
    span->next_logprob = drawn.logprob;
}

static int native_step(struct engine *e, struct engine_span *spans, uint32_t count, struct err *err)
{
    struct native *n = native_of(e);
    mem_forbid_begin();
    int rc = reserve(n, spans, count, err);
    if (rc == 0) {
        uint32_t rows = 0;
        for (uint32_t i = 0; i < count; i++) {
            struct native_session *s = (struct native_session *)spans[i].session;
            uint32_t want = engine_span_draws(&spans[i]);
            n->spans[i] = (struct forward_span){.kv = &s->kv,
                                                .tokens = spans[i].tokens,
                                                .n = spans[i].n,
                                                .want = want,
                                                .score = s->score.best ? &s->score : NULL};
            rows += want;
        }
        forward_run(n->forward, n->spans, count);
        n->steps++;
        for (uint32_t i = 0; i < count; i++) {
            struct native_session *s = (struct native_session *)spans[i].session;
            memmove(s->tokens + s->len, spans[i].tokens, spans[i].n * sizeof *s->tokens);
            s->len += spans[i].n;
            s->logits = n->spans[i].logits;
            s->logits_step = n->steps;
        }
        struct draws draws = {n, spans};
        pool_run(n->pool, rows, draw_task, &draws);
    }
    mem_forbid_end();
    return rc;
}

static const struct engine_ops native_ops = {
    .kv_pages_free = native_pages_free,
    .free = native_free,
    .session_open = native_session_open,
    .session_close = native_session_close,
    .session_set_sampling = native_set_sampling,
    .session_len = native_session_len,
    .session_tokens = native_session_tokens,
    .session_cut = native_session_cut,
    .page_hold = native_page_hold,
    .page_drop = native_page_drop,
    .pages = native_pages,
    .page_adopt = native_page_adopt,
    .page_swap = native_page_swap,
    .session_logits = native_session_logits,
    .session_score = native_session_score,
    .step = native_step,
};

/* ---- opening ---- */

static int open_template(struct native *n, const struct native_options *o, struct err *err)
{
    struct gguf_str text = {"", 0};
    struct err why = ERR_INIT;
    bool asked = o->chat_template || o->chat_template_file;
    const struct chat_template_choice choice = {o->chat_template, o->chat_template_file};
    int rc =
        chat_template_choose(&choice, n->model.gguf, n->base.vocab, &n->base.chat_template, &why);
    /* A file's text that is no template leaves the model usable for plain text. */
    if (rc < 0 && (asked || rc == ERR_NO_MEMORY)) return err_set(err, rc, "%s", why.text);
    if (n->base.chat_template)
        text = chat_template_identity(n->base.chat_template);
    else
        gguf_text(n->model.gguf, "tokenizer.chat_template", &text, NULL);
    rc = model_hash_bytes(text.data, text.len, n->base.info.template_hash, err);
    if (rc < 0 || !o->no_think) return rc;
    if (!n->base.chat_template)
        return err_set(err, ERR_UNSUPPORTED, "%s: no chat template that can leave out thinking",
                       o->model_path);
    rc = chat_template_set_thinking(n->base.chat_template, false, err);
    /* Another prompt for the same messages, so another hash: of the first one. */
    return rc < 0 ? rc
                  : model_hash_bytes(n->base.info.template_hash, MODEL_HASH_TEXT - 1,
                                     n->base.info.template_hash, err);
}

static int open_model(struct native *n, const struct native_options *o, struct err *err)
{
    struct gguf *g = NULL;
    int rc = gguf_open(o->model_path, &g, err);
    if (rc < 0) return rc;
    rc = model_open(&n->model, g, o->context_max, n->pool, err);
    if (rc < 0) return rc;
    rc = vocab_open(g, &n->base.vocab, err);
    if (rc < 0) return rc;
    if (vocab_size(n->base.vocab) != n->model.hparams.vocab)
        return err_set(err, ERR_BAD_INPUT,
                       "%s: the vocabulary has %u tokens, tensor token_embd.weight has %u rows",
                       o->model_path, vocab_size(n->base.vocab), n->model.hparams.vocab);
    rc = open_template(n, o, err);
    gguf_forget(g); /* words and merges are in tables of their own now */
    return rc;
}

/* How long a context may be and how many KV pages there are. A context that was not asked for gives
 * way to the memory; one that was asked for is refused where it cannot be held. */
static int choose_memory(const struct native *n, const struct native_options *o,
                         uint64_t page_bytes, uint32_t *ret_context, uint32_t *ret_pages,
                         struct err *err)
{
    uint64_t context = o->context_max ? o->context_max : n->model.hparams.context;
    if (context > MODEL_CONTEXT_MAX)
        return err_set(err, ERR_LIMIT, "a context of %llu positions: %d is the limit",
                       (unsigned long long)context, MODEL_CONTEXT_MAX);
    uint64_t one = (context + KERN_TILE - 1) / KERN_TILE, spare = os_memory_available() / 2;
    uint64_t pages = o->kv_bytes_max ? o->kv_bytes_max / page_bytes : CONTEXTS_DEFAULT * one;
    if (!o->kv_bytes_max && pages > spare / page_bytes) pages = spare / page_bytes;
    if (pages > KV_PAGES_MAX) pages = KV_PAGES_MAX;
    if (o->kv_bytes_max && pages == 0)
        return err_set(err, ERR_LIMIT,
                       "%llu bytes of KV memory do not hold a page: it takes %llu bytes",
                       (unsigned long long)o->kv_bytes_max, (unsigned long long)page_bytes);
    if (pages == 0 || (!o->kv_bytes_max && o->context_max && pages < one))
        return err_set(err, ERR_NO_MEMORY,
                       "a context of %llu positions takes %llu MB of KV memory, and %llu MB are to "
                       "spare here: ask for a shorter one",
                       (unsigned long long)context,
                       (unsigned long long)((one * page_bytes >> 20) + 1),
                       (unsigned long long)(spare >> 20));
    if (!o->context_max && pages < one) context = pages * KERN_TILE;
    *ret_context = (uint32_t)context;
    *ret_pages = (uint32_t)pages;
    return 0;
}

/* What the pages hold. */
static int choose_kv(const struct native_options *o, struct kv_shape *shape, struct err *err)
{
    static const enum kern_kv kinds[] = {[NATIVE_KV_I16] = KERN_KV_I16,
                                         [NATIVE_KV_F16] = KERN_KV_F16,
                                         [NATIVE_KV_Q8_0] = KERN_KV_Q8};
    if (o->kv_type != NATIVE_KV_AUTO) shape->kv = kinds[o->kv_type];
    uint32_t multiple = kern_kv_multiple(shape->kv);
    if (shape->head_dim % multiple == 0) return 0;
    return err_set(err, ERR_UNSUPPORTED,
                   "%s: heads of %u values cannot be kept as %s, which takes a multiple of %u: "
                   "use the KV type f16",
                   o->model_path, shape->head_dim, kv_kinds[shape->kv].name, multiple);
}

static int open_memory(struct native *n, const struct native_options *o, struct err *err)
{
    struct kv_shape shape = forward_kv_shape(&n->model);
    int rc = choose_kv(o, &shape, err);
    if (rc < 0) return rc;
    n->base.info.numerics = kv_kinds[shape.kv].numerics;
    n->base.info.kv_type = kv_kinds[shape.kv].name;
    uint64_t page_bytes = kv_page_bytes(&shape);
    uint32_t context = 0, pages = 0;
    rc = choose_memory(n, o, page_bytes, &context, &pages, err);
    if (rc < 0) return rc;
    rc = kv_pool_open(&shape, pages, &n->kv, err);
    if (rc < 0) return rc;
    uint32_t tokens = o->step_tokens_max ? o->step_tokens_max : STEP_TOKENS_DEFAULT;
    struct forward_limits limits = {tokens, tokens < ENGINE_SPANS_MAX ? tokens : ENGINE_SPANS_MAX,
                                    context};
    rc = forward_open(&n->model, n->kern, n->pool, &limits, &n->forward, err);
    if (rc < 0) return rc;
    n->spans = mem_calloc(ENGINE_SPANS_MAX, sizeof *n->spans);
    n->samplers = mem_calloc(pool_threads(n->pool), sizeof *n->samplers);
    if (!n->spans || !n->samplers)
        return err_set(err, ERR_NO_MEMORY, "no memory for the engine's steps");
    for (unsigned i = 0; i < pool_threads(n->pool); i++) {
        rc = sampler_init(&n->samplers[i], n->kern, n->model.hparams.vocab, err);
        if (rc < 0) return rc;
        uint32_t ends;
        const int32_t *ids = vocab_ends(n->base.vocab, &ends);
        for (uint32_t k = 0; k < ends; k++)
            sampler_add_end(&n->samplers[i], ids[k]);
    }
    n->base.info.context_max = context;
    n->base.info.context_trained = n->model.hparams.context;
    n->base.info.step_tokens_max = tokens;
    n->base.info.beside = weights_beside(n->model.gguf);
    n->base.info.spans_max = limits.spans;
    n->base.info.kv_bytes_per_token = page_bytes / KERN_TILE;
    n->base.info.kv_pages_total = pages;
    return 0;
}

static void fill_info(struct native *n)
{
    struct engine_info *info = &n->base.info;
    info->kind = "native";
    info->model_name = n->model.name;
    info->vocab_size = n->model.hparams.vocab;
    snprintf(info->weights_hash, sizeof info->weights_hash, "%s", n->model.weights_hash);
    snprintf(info->tokenizer_hash, sizeof info->tokenizer_hash, "%s", n->model.tokenizer_hash);
}

int native_kv_of(const char *text, enum native_kv *ret_kv, struct err *err)
{
    if (strcmp(text, "i16") == 0)
        *ret_kv = NATIVE_KV_I16;
    else if (strcmp(text, "f16") == 0)
        *ret_kv = NATIVE_KV_F16;
    else if (strcmp(text, "q8_0") == 0)
        *ret_kv = NATIVE_KV_Q8_0;
    else
        return err_set(err, ERR_BAD_INPUT, "no KV type %s: choose i16, f16 or q8_0", text);
    return 0;
}

int native_open(const struct native_options *options, struct engine **ret_engine, struct err *err)
{
    if (!options->model_path) return err_set(err, ERR_BAD_INPUT, "no model file was given");
    struct native *n = mem_calloc(1, sizeof *n);
    if (!n) return err_set(err, ERR_NO_MEMORY, "no memory for an engine");
    n->base.ops = &native_ops;
    int rc = kern_select(options->isa, &n->kern, err);
    if (rc == 0) rc = pool_new(options->threads, &n->pool, err);
    if (rc == 0) rc = open_model(n, options, err);
    if (rc == 0) rc = open_memory(n, options, err);
    if (rc < 0) {
        native_free(&n->base);
        return rc;
    }
    fill_info(n);
    *ret_engine = &n->base;
    return 0;
}
