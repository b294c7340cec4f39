/*
 * fake: see fake.h. The next token is a pure function of the history: position in the answer comes
 * from the last control token that opens the assistant's turn, the rest from a hash.
 *
 * Its KV memory is real: keys and values are the tokens themselves, and the hash reads them there.
 * So a session that uses a wrong page gets another answer.
 */
#include "engine/fake.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/engine_impl.h"
#include "model/kv.h"
#include "model/text/template.h"
#include "model/text/vocab.h"

enum {
    END_TOKEN = 257,
    WORDS = 16,
    STREAM_FAKE = 77,
    PAGES_DEFAULT = 1024,
    STEP_DEFAULT = 512,
    BEATS_LATE_US = 100000 /* steps that are late catch up, unless by more than this */
};

/* A head of one value: 64 float16 keys and as many values are the bytes of 64 tokens. */
static const struct kv_shape page_shape = {1, 1, 1, KERN_KV_F16};
_Static_assert((int)KERN_TILE == (int)ENGINE_PAGE, "pages of the interface are those of model/kv");

struct fake {
    struct engine engine;
    struct fake_options options;
    char *script, *name, *scored;
    struct kv_pool *kv;
    uint32_t script_len, steps;
    uint64_t beat; /* when the last step was to end */
};

struct fake_session {
    struct session session;
    struct sampling sampling;
    int32_t *tokens;  /* [context_max] */
    struct kv_seq kv; /* its len is the history's */
    uint32_t hashed;  /* tokens whose hash is kept; 0: none */
    uint64_t hash;
    uint32_t searched; /* tokens searched for it so far */
    uint32_t mark;     /* the last token 256 ends here; 0: none */
    float *best;       /* scores of the first n_best tokens; NULL: none are asked for */
    uint32_t n_best;
};

static uint32_t fake_pages_free(const struct engine *e)
{
    return kv_pages_free(((const struct fake *)e)->kv);
}

static void fake_free(struct engine *e)
{
    struct fake *f = (struct fake *)e;
    kv_pool_close(f->kv);
    vocab_close(f->engine.vocab);
    chat_template_close(f->engine.chat_template);
    mem_free(f->script);
    mem_free(f->name);
    mem_free(f->scored);
    mem_free(f);
}

static int fake_session_open(struct engine *e, struct session **ret_session, struct err *err)
{
    struct fake_session *s = mem_calloc(1, sizeof *s);
    if (s) s->tokens = mem_alloc(e->info.context_max * sizeof *s->tokens);
    if (!s || !s->tokens ||
        kv_seq_init(&s->kv, ((struct fake *)e)->kv, e->info.context_max, NULL)) {
        if (s) mem_free(s->tokens);
        mem_free(s);
        return err_set(err, ERR_NO_MEMORY, "no memory for a session");
    }
    s->sampling = (struct sampling)SAMPLING_GREEDY;
    *ret_session = &s->session;
    return 0;
}

static void fake_session_cut(struct session *session, uint32_t n)
{
    struct fake_session *s = (struct fake_session *)session;
    kv_seq_cut(&s->kv, n);
    if (n < s->hashed) s->hashed = 0;
    if (n < s->searched) s->searched = s->mark = 0;
}

static void fake_session_close(struct session *session)
{
    struct fake_session *s = (struct fake_session *)session;
    kv_seq_release(&s->kv);
    mem_free(s->tokens);
    mem_free(s);
}

static void fake_set_sampling(struct session *s, const struct sampling *sampling)
{
    ((struct fake_session *)s)->sampling = *sampling;
}

static uint32_t fake_session_len(const struct session *s)
{
    return ((const struct fake_session *)s)->kv.len;
}

static const int32_t *fake_session_tokens(const struct session *s)
{
    return ((const struct fake_session *)s)->tokens;
}

static uint32_t fake_page_hold(struct session *session, uint32_t i)
{
    return kv_page_hold(&((struct fake_session *)session)->kv, i);
}

static void fake_page_drop(struct engine *e, uint32_t page)
{
    kv_page_drop(((struct fake *)e)->kv, page);
}

static struct kv_pool *fake_pages(struct engine *e)
{
    return ((struct fake *)e)->kv;
}

static int fake_page_adopt(struct session *session, uint32_t page, const int32_t *tokens,
                           uint32_t n, struct err *err)
{
    struct fake_session *s = (struct fake_session *)session;
    uint32_t len = s->kv.len;
    int code = kv_seq_adopt(&s->kv, page, n, err);
    if (code == 0) memcpy(s->tokens + len, tokens, n * sizeof *tokens);
    return code;
}

static void fake_page_swap(struct session *session, uint32_t i, uint32_t page)
{
    kv_seq_swap(&((struct fake_session *)session)->kv, i, page);
}

static const float *fake_logits(const struct session *s)
{
    (void)s;
    return NULL;
}

static int fake_session_score(struct session *session, uint32_t first, uint32_t n, float *best,
                              struct err *err)
{
    struct fake_session *s = (struct fake_session *)session;
    (void)first;
    if (n > 0 && !((struct fake *)session->engine)->scored)
        return err_set(err, ERR_UNSUPPORTED, "this fake engine scores nothing");
    s->best = best;
    s->n_best = n;
    return 0;
}

/* The prompt is complete: mark the places of the text. */
static void score_prompt(const struct fake *f, struct fake_session *s)
{
    const size_t len = strlen(f->scored);
    for (uint32_t i = 0; i < s->n_best; i++)
        s->best[i] = FAKE_SCORE;
    for (size_t i = 0; len > 0 && i + len <= s->n_best; i++) {
        size_t same = 0;
        while (same < len && s->tokens[i + same] == (uint8_t)f->scored[same])
            same++;
        for (size_t k = 0; same == len && k < len; k++)
            s->best[i + k] = 1.0f;
    }
}

/* Where the answer begins: after the line end that follows the last <|im_start|>, or at the first
 * control-free prompt's end, which a fake cannot know: then the hash alone decides. */
static uint32_t answer_start(struct fake_session *s)
{
    uint32_t at = s->kv.len;
    while (at > s->searched && s->tokens[at - 1] != 256)
        at--;
    if (at > s->searched) s->mark = at;
    s->searched = s->kv.len;
    if (s->mark == 0) return 0;
    at = s->mark;
    while (at < s->kv.len && s->tokens[at] != '\n')
        at++;
    return at < s->kv.len ? at + 1 : s->kv.len;
}

#define HASH_BEGIN 1469598103934665603u

static uint64_t hash_on(uint64_t h, const int32_t *tokens, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        h = fnv_step(h, (uint32_t)tokens[i]);
    return h;
}

/* Of the first n tokens as the pages have them. */
static uint64_t hash_pages(const struct fake_session *s, uint32_t n)
{
    uint64_t h = HASH_BEGIN;
    for (uint32_t at = 0; at < n; at += ENGINE_PAGE)
        h = hash_on(h, kv_k_tile(&s->kv, at / ENGINE_PAGE, 0, 0),
                    n - at < ENGINE_PAGE ? n - at : ENGINE_PAGE);
    return h;
}

/* Byte `i` of an answer made of words: each word of the table is chosen by prompt, seed and place.
 */
static int32_t made_up(struct fake_session *s, uint32_t start, uint32_t i)
{
    static const char words[WORDS][9] = {
        "river  ",  "stone  ",  "lantern ", "caf\xC3\xA9   ",
        "winter  ", "bread  ",  "orchard ", "\xE2\x82\xAC 20   ",
        "ladder  ", "copper  ", "violin  ", "harbour ",
        "pepper  ", "meadow  ", "candle  ", "\xF0\x9F\x8C\x8A sea "};
    if (start == 0 || s->hashed != start) s->hash = hash_pages(s, start);
    s->hashed = start;
    uint64_t h = s->hash;
    uint64_t seed = s->sampling.temperature > 0.0f ? s->sampling.seed + 1 : 0;
    uint32_t word = rng_u32(h ^ seed * 0x9E3779B97F4A7C15u, STREAM_FAKE, i / 8) % WORDS;
    char c = words[word][i % 8];
    return c ? (uint8_t)c : ' ';
}

/* Whether sampling forbids the answer's end here. */
static bool holds_end(const struct fake_session *s)
{
    const struct sampling *p = &s->sampling;
    uint32_t n = s->kv.len > p->answer_from ? s->kv.len - p->answer_from : 0;
    return p->ignore_eos || n < p->min_tokens;
}

static int32_t next_token(const struct fake *f, struct fake_session *s)
{
    uint32_t start = answer_start(s), i = s->kv.len - start;
    int32_t end = holds_end(s) ? '.' : END_TOKEN;
    if (f->script) return i < f->script_len ? (uint8_t)f->script[i] : end;
    return i < f->options.answer_tokens ? made_up(s, start, i) : end;
}

static int reserve(struct fake *f, struct engine_span *spans, uint32_t n, struct err *err)
{
    uint64_t needed = 0;
    for (uint32_t i = 0; i < n; i++)
        needed += kv_seq_pages_needed(&((struct fake_session *)spans[i].session)->kv, spans[i].n);
    if (needed > kv_pages_free(f->kv))
        return err_set(err, ERR_NO_MEMORY, "%llu KV pages needed, %u free",
                       (unsigned long long)needed, kv_pages_free(f->kv));
    for (uint32_t i = 0; i < n; i++)
        CHECK(kv_seq_reserve(&((struct fake_session *)spans[i].session)->kv, spans[i].n, err) == 0);
    return 0;
}

/* A step that comes late for its beat ends at once, and the next keeps the old beat: the rate over
 * a second is exact whatever the caller does between steps. */
static void wait_for_beat(struct fake *f, uint64_t begin)
{
    uint64_t every = f->options.beat_us;
    f->beat += every;
    if (f->beat + BEATS_LATE_US < begin || f->beat > begin + every)
        f->beat = begin / every * every + every;
    clock_sleep_until_us(f->beat);
}

static void append(struct fake_session *s, const int32_t *tokens, uint32_t n)
{
    memcpy(s->tokens + s->kv.len, tokens, n * sizeof *tokens);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = s->kv.len + i;
        ((int32_t *)kv_k_tile(&s->kv, at / ENGINE_PAGE, 0, 0))[at % ENGINE_PAGE] = tokens[i];
    }
    kv_seq_advance(&s->kv, n);
}

static void append_and_draw(const struct fake *f, struct fake_session *s, struct engine_span *span)
{
    uint32_t plain = span->n - span->n_draws;
    append(s, span->tokens, plain);
    for (uint32_t i = 0; i < span->n_draws; i++) {
        append(s, span->tokens + plain + i, 1);
        span->draws[i] = next_token(f, s);
    }
}

static int fake_step(struct engine *e, struct engine_span *spans, uint32_t n, struct err *err)
{
    struct fake *f = (struct fake *)e;
    uint64_t begin = clock_us();
    double cost = f->options.step_us;
    if (++f->steps == f->options.fail_at_step)
        return err_set(err, ERR_INTERNAL, "the fake engine fails at step %u, as asked", f->steps);
    int code = reserve(f, spans, n, err);
    if (code) return code;
    for (uint32_t i = 0; i < n; i++) {
        struct fake_session *s = (struct fake_session *)spans[i].session;
        append_and_draw(f, s, &spans[i]);
        if (s->best && s->kv.len >= s->n_best && s->kv.len - spans[i].n < s->n_best)
            score_prompt(f, s);
        cost += f->options.prefill_us_per_token * spans[i].n;
        if (spans[i].sample) {
            spans[i].next = next_token(f, s);
            spans[i].next_logprob = 0.0f;
        }
    }
    if (f->options.beat_us)
        wait_for_beat(f, begin);
    else if (cost >= 1.0)
        clock_sleep_until_us(begin + (uint64_t)cost);
    return 0;
}

static const struct engine_ops fake_ops = {
    .kv_pages_free = fake_pages_free,
    .free = fake_free,
    .session_open = fake_session_open,
    .session_close = fake_session_close,
    .session_set_sampling = fake_set_sampling,
    .session_len = fake_session_len,
    .session_tokens = fake_session_tokens,
    .session_cut = fake_session_cut,
    .page_hold = fake_page_hold,
    .page_drop = fake_page_drop,
    .pages = fake_pages,
    .page_adopt = fake_page_adopt,
    .page_swap = fake_page_swap,
    .session_logits = fake_logits,
    .session_score = fake_session_score,
    .step = fake_step,
};

/* Two fakes have the same "weights" when they answer alike. */
static uint64_t options_hash(const struct fake *f)
{
    int32_t tokens = f->script ? -1 : (int32_t)f->options.answer_tokens;
    uint64_t h = fnv_bytes(hash_on(HASH_BEGIN, &tokens, 1), f->name, strlen(f->name));
    return f->script ? fnv_bytes(h ^ 1, f->script, strlen(f->script)) : h;
}

static void fill_info(struct fake *f)
{
    const struct fake_options *o = &f->options;
    struct engine_info *info = &f->engine.info;
    info->kind = "fake";
    info->model_name = f->name;
    info->numerics = "exact-1"; /* computes no logits, but keeps the promise: equal fakes agree */
    snprintf(info->weights_hash, sizeof info->weights_hash, "fake-%016llx",
             (unsigned long long)options_hash(f));
    snprintf(info->tokenizer_hash, sizeof info->tokenizer_hash, "bytes");
    snprintf(info->template_hash, sizeof info->template_hash, "%s",
             chat_template_family(f->engine.chat_template));
    info->vocab_size = 259;
    info->context_max = o->context_max ? o->context_max : FAKE_CONTEXT;
    info->step_tokens_max = o->step_tokens_max ? o->step_tokens_max : STEP_DEFAULT;
    info->spans_max = o->spans_max ? o->spans_max : ENGINE_SPANS_MAX;
    info->kv_pages_total = o->kv_pages ? o->kv_pages : PAGES_DEFAULT;
    info->kv_bytes_per_token = 0;
}

int fake_open(const struct fake_options *options, struct engine **ret_engine, struct err *err)
{
    struct fake *f = mem_calloc(1, sizeof *f);
    if (!f) return err_set(err, ERR_NO_MEMORY, "no memory for a fake engine");
    f->engine.ops = &fake_ops;
    f->options = *options;
    f->name = mem_strdup(options->model_name ? options->model_name : "fake");
    f->script = options->script ? mem_strdup(options->script) : NULL;
    f->scored = options->scored ? mem_strdup(options->scored) : NULL;
    f->script_len = f->script ? (uint32_t)strlen(f->script) : 0;
    int code = f->name && (f->script || !options->script) && (f->scored || !options->scored)
                   ? vocab_open_bytes(&f->engine.vocab, err)
                   : err_set(err, ERR_NO_MEMORY, "no memory");
    if (code == 0)
        code = chat_template_open_family(options->chat_template ? options->chat_template : "chatml",
                                         &f->engine.chat_template, err);
    if (code == 0) {
        fill_info(f);
        code = kv_pool_open(&page_shape, f->engine.info.kv_pages_total, &f->kv, err);
    }
    if (code) {
        fake_free(&f->engine);
        return code;
    }
    *ret_engine = &f->engine;
    return 0;
}
