/*
 * engine: checks the arguments of every call once, for all kinds, then passes them on; see
 * engine.h.
 */
#include "engine/engine.h"

#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "engine/engine_impl.h"
#include "model/kv.h"
#include "model/text/vocab.h"

const struct engine_info *engine_info(const struct engine *e)
{
    return &e->info;
}

const struct vocab *engine_vocab(const struct engine *e)
{
    return e->vocab;
}

const struct chat_template *engine_template(const struct engine *e)
{
    return e->chat_template;
}

uint32_t engine_kv_pages_free(const struct engine *e)
{
    return e->ops->kv_pages_free(e);
}

void engine_free(struct engine *e)
{
    if (!e) return;
    CHECK(e->sessions_open == 0);
    e->ops->free(e);
}

int engine_session_open(struct engine *e, struct session **ret_session, struct err *err)
{
    struct session *s;
    int code = e->ops->session_open(e, &s, err);
    if (code) return code;
    s->engine = e;
    e->sessions_open++;
    *ret_session = s;
    return 0;
}

void engine_session_close(struct session *s)
{
    if (!s) return;
    s->engine->sessions_open--;
    mem_free(s->scores);
    s->engine->ops->session_close(s);
}

void session_set_sampling(struct session *s, const struct sampling *sampling)
{
    s->engine->ops->session_set_sampling(s, sampling);
}

uint32_t session_len(const struct session *s)
{
    return s->engine->ops->session_len(s);
}

const int32_t *session_tokens(const struct session *s)
{
    return s->engine->ops->session_tokens(s);
}

static size_t score_bytes(uint32_t n)
{
    return ((size_t)n + ENGINE_PAGE - 1) / ENGINE_PAGE * ENGINE_PAGE * sizeof(float);
}

void session_cut(struct session *s, uint32_t n)
{
    uint32_t len = session_len(s), first = s->score_first;
    CHECK(n <= len);
    s->engine->ops->session_cut(s, n);
    if (!s->scores || n == len || len <= first) return;
    s->score_lost = n > first;
    memset(s->scores, 0, score_bytes(s->score_n));
}

int session_share(struct session *s, const struct session *from, uint32_t n, struct err *err)
{
    CHECK(s != from && s->engine == from->engine && session_len(s) == 0 && n <= session_len(from));
    const int32_t *tokens = session_tokens(from);
    int code = 0;
    for (uint32_t at = 0; at < n && code == 0; at += ENGINE_PAGE) {
        uint32_t part = n - at < ENGINE_PAGE ? n - at : ENGINE_PAGE;
        /* To hold a page changes nothing that the session's owner could see. */
        uint32_t page = session_page_hold((struct session *)from, at / ENGINE_PAGE);
        code = session_page_adopt(s, page, tokens + at, part, err);
        engine_page_drop(s->engine, page);
    }
    if (code) session_cut(s, 0);
    return code;
}

uint32_t session_page_hold(struct session *s, uint32_t i)
{
    CHECK(i < (session_len(s) + ENGINE_PAGE - 1) / ENGINE_PAGE);
    return s->engine->ops->page_hold(s, i);
}

void engine_page_drop(struct engine *e, uint32_t page)
{
    CHECK(page < e->info.kv_pages_total);
    e->ops->page_drop(e, page);
}

size_t engine_page_bytes(const struct engine *e)
{
    return kv_pool_page_bytes(e->ops->pages((struct engine *)(uintptr_t)e));
}

void *engine_page_data(struct engine *e, uint32_t page)
{
    return kv_page_data(e->ops->pages(e), page);
}

int engine_page_new(struct engine *e, uint32_t *ret_page, struct err *err)
{
    return kv_page_new(e->ops->pages(e), ret_page, err);
}

int session_page_adopt(struct session *s, uint32_t page, const int32_t *tokens, uint32_t n,
                       struct err *err)
{
    uint32_t len = session_len(s);
    CHECK(len % ENGINE_PAGE == 0 && n > 0 && n <= ENGINE_PAGE);
    CHECK(page < s->engine->info.kv_pages_total && n <= s->engine->info.context_max - len);
    int code = s->engine->ops->page_adopt(s, page, tokens, n, err);
    if (code == 0 && s->engine->emulated_rereads) s->adopted += n;
    if (code == 0 && s->scores && len + n > s->score_first) s->score_lost = true;
    return code;
}

void session_page_swap(struct session *s, uint32_t i, uint32_t page)
{
    CHECK(i < session_len(s) / ENGINE_PAGE && page < s->engine->info.kv_pages_total);
    s->engine->ops->page_swap(s, i, page);
}

const float *session_logits(const struct session *s)
{
    return s->engine->ops->session_logits(s);
}

int session_score(struct session *s, uint32_t first, uint32_t n, struct err *err)
{
    const struct engine_ops *ops = s->engine->ops;
    mem_free(s->scores);
    s->scores = NULL;
    s->score_first = s->score_n = 0;
    if (n == 0) return ops->session_score ? ops->session_score(s, 0, 0, NULL, err) : 0;
    if (!ops->session_score)
        return err_set(err, ERR_UNSUPPORTED, "the engine has no attention to score a prompt with");
    CHECK(first < n);
    if (n > s->engine->info.context_max || session_len(s) > first)
        return err_set(err, ERR_LIMIT,
                       "a prompt of %u tokens cannot be scored: %u are computed, the context is %u",
                       n, session_len(s), s->engine->info.context_max);
    float *best = mem_calloc(1, score_bytes(n));
    if (!best) return err_set(err, ERR_NO_MEMORY, "no memory for the scores of %u positions", n);
    int code = ops->session_score(s, first, n, best, err);
    if (code) {
        mem_free(best);
        return code;
    }
    s->scores = best;
    s->score_first = first;
    s->score_n = n;
    s->score_lost = false;
    return 0;
}

bool engine_scores(struct engine *e)
{
    struct session *s;
    if (engine_session_open(e, &s, NULL)) return false;
    bool can = session_score(s, 0, 1, NULL) == 0;
    engine_session_close(s);
    return can;
}

const float *session_scores(const struct session *s)
{
    return s->scores && !s->score_lost && session_len(s) >= s->score_n ? s->scores : NULL;
}

static int check_span(const struct engine *e, const struct engine_span *span, struct err *err)
{
    uint32_t len = session_len(span->session);
    if (span->n > e->info.context_max - len)
        return err_set(err, ERR_LIMIT, "%u tokens and %u more do not fit the context of %u", len,
                       span->n, e->info.context_max);
    for (uint32_t i = 0; i < span->n; i++)
        if (span->tokens[i] < 0 || (uint32_t)span->tokens[i] >= e->info.vocab_size)
            return err_set(err, ERR_BAD_INPUT, "token id %d is outside the vocabulary of %u",
                           span->tokens[i], e->info.vocab_size);
    return 0;
}

/* A step reads all weights once, which is what a decode step takes; many tokens are bound by
 * arithmetic instead, which is what the prefill rate says. Without the former, feeding a token pair
 * would be quicker than a single token, as it is on no device. */
static void sleep_as_emulated(const struct engine *e, const struct engine_span *spans, uint32_t n,
                              uint64_t begin)
{
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < n; i++) {
        tokens += spans[i].n + spans[i].session->adopted;
        spans[i].session->adopted = 0;
    }
    double many = (double)tokens * e->emulated_token_us, one = e->emulated_step_us;
    if (one > 0.0) clock_sleep_until_us(begin + (uint64_t)(many > one ? many : one));
}

int engine_step(struct engine *e, struct engine_span *spans, uint32_t n, struct err *err)
{
    CHECK(n > 0 && n <= e->info.spans_max);
    uint64_t total = 0, draws = 0, number = ++e->steps, begin = clock_us();
    for (uint32_t i = 0; i < n; i++) {
        CHECK(spans[i].session->engine == e && spans[i].n > 0);
        CHECK(spans[i].n_draws <= spans[i].n && (spans[i].draws || spans[i].n_draws == 0));
        CHECK(spans[i].session->in_step != number);
        spans[i].session->in_step = number;
        int code = check_span(e, &spans[i], err);
        if (code) return code;
        total += spans[i].n;
        draws += engine_span_draws(&spans[i]);
    }
    if (total > e->info.step_tokens_max)
        return err_set(err, ERR_LIMIT, "a step of %llu tokens, %u is the limit",
                       (unsigned long long)total, e->info.step_tokens_max);
    if (draws > e->info.spans_max)
        return err_set(err, ERR_LIMIT, "a step that draws after %llu tokens, %u is the limit",
                       (unsigned long long)draws, e->info.spans_max);
    int code = e->ops->step(e, spans, n, err);
    if (code == 0) sleep_as_emulated(e, spans, n, begin);
    return code;
}
