/*
 * fake: see fake.h. The next token is a pure function of the history: position in the answer comes
 * from the last control token that opens the assistant's turn, the rest from a hash.
 */
#include "engine/fake.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/engine_impl.h"
#include "model/template.h"
#include "model/vocab.h"

enum { PAGE = 64, END_TOKEN = 257, WORDS = 16, STREAM_FAKE = 77 };

struct fake {
    struct engine engine;
    struct fake_options options;
    struct vocab *vocab;
    struct chat_template *chat_template;
    char *script, *name;
    uint32_t script_len, pages_used, steps;
};

struct fake_session {
    struct session session;
    struct sampling sampling;
    int32_t *tokens; /* [context_max] */
    uint32_t len;
};

static struct fake *fake_of(const struct session *s)
{
    return (struct fake *)s->engine;
}

static uint32_t pages_of(uint32_t len)
{
    return (len + PAGE - 1) / PAGE;
}

static const struct vocab *fake_vocab(const struct engine *e)
{
    return ((const struct fake *)e)->vocab;
}

static const struct chat_template *fake_template(const struct engine *e)
{
    return ((const struct fake *)e)->chat_template;
}

static uint32_t fake_pages_free(const struct engine *e)
{
    return e->info.kv_pages_total - ((const struct fake *)e)->pages_used;
}

static void fake_free(struct engine *e)
{
    struct fake *f = (struct fake *)e;
    vocab_close(f->vocab);
    chat_template_close(f->chat_template);
    mem_free(f->script);
    mem_free(f->name);
    mem_free(f);
}

static int fake_session_open(struct engine *e, struct session **ret_session, struct err *err)
{
    struct fake_session *s = mem_calloc(1, sizeof *s);
    if (s) s->tokens = mem_alloc(e->info.context_max * sizeof *s->tokens);
    if (!s || !s->tokens) {
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
    fake_of(session)->pages_used -= pages_of(s->len) - pages_of(n);
    s->len = n;
}

static void fake_session_close(struct session *session)
{
    fake_session_cut(session, 0);
    mem_free(((struct fake_session *)session)->tokens);
    mem_free(session);
}

static void fake_set_sampling(struct session *s, const struct sampling *sampling)
{
    ((struct fake_session *)s)->sampling = *sampling;
}

static uint32_t fake_session_len(const struct session *s)
{
    return ((const struct fake_session *)s)->len;
}

static const int32_t *fake_session_tokens(const struct session *s)
{
    return ((const struct fake_session *)s)->tokens;
}

static int take_pages(struct fake *f, uint32_t from, uint32_t to, struct err *err)
{
    uint32_t more = pages_of(to) - pages_of(from);
    if (more > f->engine.info.kv_pages_total - f->pages_used)
        return err_set(err, ERR_NO_MEMORY, "%u KV pages needed, %u free", more,
                       f->engine.info.kv_pages_total - f->pages_used);
    f->pages_used += more;
    return 0;
}

static int fake_session_share(struct session *session, const struct session *from, uint32_t n,
                              struct err *err)
{
    struct fake_session *s = (struct fake_session *)session;
    int code = take_pages(fake_of(session), 0, n, err);
    if (code) return code;
    memcpy(s->tokens, ((const struct fake_session *)from)->tokens, n * sizeof *s->tokens);
    s->len = n;
    return 0;
}

static const float *fake_logits(const struct session *s)
{
    (void)s;
    return NULL;
}

/* Where the answer begins: after the line end that follows the last <|im_start|>, or at the first
 * control-free prompt's end, which a fake cannot know: then the hash alone decides. */
static uint32_t answer_start(const struct fake_session *s)
{
    uint32_t at = s->len;
    while (at > 0 && s->tokens[at - 1] != 256)
        at--;
    if (at == 0) return 0;
    while (at < s->len && s->tokens[at] != '\n')
        at++;
    return at < s->len ? at + 1 : s->len;
}

static uint64_t hash_tokens(const int32_t *tokens, uint32_t n)
{
    uint64_t h = 1469598103934665603u;
    for (uint32_t i = 0; i < n; i++)
        h = (h ^ (uint32_t)tokens[i]) * 1099511628211u;
    return h;
}

/* Byte `i` of an answer made of words: each word of the table is chosen by prompt, seed and place.
 */
static int32_t made_up(const struct fake_session *s, uint32_t start, uint32_t i)
{
    static const char words[WORDS][9] = {
        "river  ",  "stone  ",  "lantern ", "caf\xC3\xA9   ",
        "winter  ", "bread  ",  "orchard ", "\xE2\x82\xAC 20   ",
        "ladder  ", "copper  ", "violin  ", "harbour ",
        "pepper  ", "meadow  ", "candle  ", "\xF0\x9F\x8C\x8A sea "};
    uint64_t h = hash_tokens(s->tokens, start);
    uint64_t seed = s->sampling.temperature > 0.0f ? s->sampling.seed + 1 : 0;
    uint32_t word = rng_u32(h ^ seed * 0x9E3779B97F4A7C15u, STREAM_FAKE, i / 8) % WORDS;
    char c = words[word][i % 8];
    return c ? (uint8_t)c : ' ';
}

static int32_t next_token(const struct fake *f, const struct fake_session *s)
{
    uint32_t start = answer_start(s), i = s->len - start;
    if (f->script) return i < f->script_len ? (uint8_t)f->script[i] : END_TOKEN;
    return i < f->options.answer_tokens ? made_up(s, start, i) : END_TOKEN;
}

static int take_all_pages(struct fake *f, struct engine_span *spans, uint32_t n, struct err *err)
{
    uint32_t before = f->pages_used;
    for (uint32_t i = 0; i < n; i++) {
        const struct fake_session *s = (const struct fake_session *)spans[i].session;
        int code = take_pages(f, s->len, s->len + spans[i].n, err);
        if (code) {
            f->pages_used = before;
            return code;
        }
    }
    return 0;
}

static int fake_step(struct engine *e, struct engine_span *spans, uint32_t n, struct err *err)
{
    struct fake *f = (struct fake *)e;
    uint64_t begin = clock_us();
    double cost = f->options.step_us;
    if (++f->steps == f->options.fail_at_step)
        return err_set(err, ERR_INTERNAL, "the fake engine fails at step %u, as asked", f->steps);
    int code = take_all_pages(f, spans, n, err);
    if (code) return code;
    for (uint32_t i = 0; i < n; i++) {
        struct fake_session *s = (struct fake_session *)spans[i].session;
        memcpy(s->tokens + s->len, spans[i].tokens, spans[i].n * sizeof *s->tokens);
        s->len += spans[i].n;
        cost += f->options.prefill_us_per_token * spans[i].n;
        if (spans[i].sample) {
            spans[i].next = next_token(f, s);
            spans[i].next_logprob = 0.0f;
        }
    }
    if (cost >= 1.0) clock_sleep_until_us(begin + (uint64_t)cost);
    return 0;
}

static const struct engine_ops fake_ops = {
    .vocab = fake_vocab,
    .chat_template = fake_template,
    .kv_pages_free = fake_pages_free,
    .free = fake_free,
    .session_open = fake_session_open,
    .session_close = fake_session_close,
    .session_set_sampling = fake_set_sampling,
    .session_len = fake_session_len,
    .session_tokens = fake_session_tokens,
    .session_cut = fake_session_cut,
    .session_share = fake_session_share,
    .session_logits = fake_logits,
    .step = fake_step,
};

static uint64_t hash_text(uint64_t h, const char *text)
{
    for (; *text; text++)
        h = (h ^ (uint8_t)*text) * 1099511628211u;
    return h;
}

/* Two fakes have the same "weights" when they answer alike. */
static uint64_t options_hash(const struct fake *f)
{
    int32_t tokens = f->script ? -1 : (int32_t)f->options.answer_tokens;
    uint64_t h = hash_text(hash_tokens(&tokens, 1), f->name);
    return f->script ? hash_text(h ^ 1, f->script) : h;
}

static void fill_info(struct fake *f)
{
    const struct fake_options *o = &f->options;
    struct engine_info *info = &f->engine.info;
    info->kind = "fake";
    info->model_name = f->name;
    info->numerics = "exact-1";
    snprintf(info->weights_hash, sizeof info->weights_hash, "fake-%016llx",
             (unsigned long long)options_hash(f));
    snprintf(info->tokenizer_hash, sizeof info->tokenizer_hash, "bytes");
    snprintf(info->template_hash, sizeof info->template_hash, "chatml");
    info->vocab_size = 259;
    info->context_max = o->context_max ? o->context_max : 4096;
    info->step_tokens_max = o->step_tokens_max ? o->step_tokens_max : 512;
    info->spans_max = o->spans_max ? o->spans_max : ENGINE_SPANS_MAX;
    info->kv_pages_total = o->kv_pages ? o->kv_pages : 1024;
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
    f->script_len = f->script ? (uint32_t)strlen(f->script) : 0;
    int code = f->name && (f->script || !options->script)
                   ? vocab_open_bytes(&f->vocab, err)
                   : err_set(err, ERR_NO_MEMORY, "no memory");
    if (code == 0) code = chat_template_open_family("chatml", &f->chat_template, err);
    if (code) {
        fake_free(&f->engine);
        return code;
    }
    fill_info(f);
    *ret_engine = &f->engine;
    return 0;
}
