/* emulated: see emulated.h. Sessions are those of the engine inside, under a thin cover. */
#include "engine/emulated.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/engine_impl.h"

static const struct device_profile profiles[] = {
    {"s24-ultra-gpu", 816.0, 15.6, "Galaxy S24 Ultra, GPU, Gemma3n-E2B: LiteRT-LM's README"},
    {"s24-ultra-cpu", 110.5, 16.1, "Galaxy S24 Ultra, CPU, Gemma3n-E2B: LiteRT-LM's README"},
    {"oneplus12-1b", 260.5, 50.2, "OnePlus 12, a model of 1B parameters"},
    {"m3-max", 1500.0, 60.0,
     "a laptop of the M3 Max class with a model of 3B parameters: our estimate"},
};

const struct device_profile *device_profile_at(uint32_t i)
{
    return i < sizeof profiles / sizeof *profiles ? &profiles[i] : NULL;
}

const struct device_profile *device_profile_find(const char *name)
{
    for (uint32_t i = 0; device_profile_at(i); i++)
        if (strcmp(profiles[i].name, name) == 0) return &profiles[i];
    return NULL;
}

enum { SAID_MAX = 160 };

struct emulated {
    struct engine engine;
    struct engine *inside;
    struct device_profile profile;
    char said[SAID_MAX];
    struct engine_span *spans; /* [spans_max] */
};

struct emulated_session {
    struct session session;
    struct session *inside;
};

static struct session *inside_of(const struct session *s)
{
    return ((const struct emulated_session *)s)->inside;
}

static const struct vocab *emulated_vocab(const struct engine *e)
{
    return engine_vocab(((const struct emulated *)e)->inside);
}

static const struct chat_template *emulated_template(const struct engine *e)
{
    return engine_template(((const struct emulated *)e)->inside);
}

static uint32_t emulated_pages_free(const struct engine *e)
{
    return engine_kv_pages_free(((const struct emulated *)e)->inside);
}

static void emulated_free(struct engine *e)
{
    engine_free(((struct emulated *)e)->inside);
    mem_free(((struct emulated *)e)->spans);
    mem_free(e);
}

static int emulated_session_open(struct engine *e, struct session **ret_session, struct err *err)
{
    struct emulated_session *s = mem_calloc(1, sizeof *s);
    if (!s) return err_set(err, ERR_NO_MEMORY, "no memory for a session");
    int code = engine_session_open(((struct emulated *)e)->inside, &s->inside, err);
    if (code)
        mem_free(s);
    else
        *ret_session = &s->session;
    return code;
}

static void emulated_session_close(struct session *s)
{
    engine_session_close(inside_of(s));
    mem_free(s);
}

static void emulated_set_sampling(struct session *s, const struct sampling *sampling)
{
    session_set_sampling(inside_of(s), sampling);
}

static uint32_t emulated_len(const struct session *s)
{
    return session_len(inside_of(s));
}

static const int32_t *emulated_tokens(const struct session *s)
{
    return session_tokens(inside_of(s));
}

static void emulated_cut(struct session *s, uint32_t n)
{
    session_cut(inside_of(s), n);
}

static uint32_t emulated_page_hold(struct session *s, uint32_t i)
{
    return session_page_hold(inside_of(s), i);
}

static void emulated_page_drop(struct engine *e, uint32_t page)
{
    engine_page_drop(((struct emulated *)e)->inside, page);
}

static int emulated_page_adopt(struct session *s, uint32_t page, const int32_t *tokens, uint32_t n,
                               struct err *err)
{
    return session_page_adopt(inside_of(s), page, tokens, n, err);
}

static void emulated_page_swap(struct session *s, uint32_t i, uint32_t page)
{
    session_page_swap(inside_of(s), i, page);
}

static const float *emulated_logits(const struct session *s)
{
    return session_logits(inside_of(s));
}

/* A step reads all weights once, which is what a decode step takes; many tokens are bound by
 * arithmetic instead, which is what the prefill rate says. Without the former, feeding a token pair
 * would be quicker than a single token, as it is on no device. */
static double step_us(const struct device_profile *p, const struct engine_span *spans, uint32_t n)
{
    double tokens = 0.0;
    for (uint32_t i = 0; i < n; i++)
        tokens += spans[i].n;
    double many = tokens * 1e6 / p->prefill_tps, one = 1e6 / p->decode_tps;
    return many > one ? many : one;
}

static int emulated_step(struct engine *e, struct engine_span *spans, uint32_t n, struct err *err)
{
    struct emulated *m = (struct emulated *)e;
    uint64_t begin = clock_us();
    for (uint32_t i = 0; i < n; i++) {
        m->spans[i] = spans[i];
        m->spans[i].session = inside_of(spans[i].session);
    }
    int code = engine_step(m->inside, m->spans, n, err);
    if (code) return code;
    for (uint32_t i = 0; i < n; i++) {
        spans[i].next = m->spans[i].next;
        spans[i].next_logprob = m->spans[i].next_logprob;
    }
    clock_sleep_until_us(begin + (uint64_t)step_us(&m->profile, spans, n));
    return 0;
}

static const struct engine_ops emulated_ops = {
    .vocab = emulated_vocab,
    .chat_template = emulated_template,
    .kv_pages_free = emulated_pages_free,
    .free = emulated_free,
    .session_open = emulated_session_open,
    .session_close = emulated_session_close,
    .session_set_sampling = emulated_set_sampling,
    .session_len = emulated_len,
    .session_tokens = emulated_tokens,
    .session_cut = emulated_cut,
    .page_hold = emulated_page_hold,
    .page_drop = emulated_page_drop,
    .page_adopt = emulated_page_adopt,
    .page_swap = emulated_page_swap,
    .session_logits = emulated_logits,
    .step = emulated_step,
};

int emulated_open(struct engine *inside, const struct device_profile *profile,
                  struct engine **ret_engine, struct err *err)
{
    struct emulated *m = mem_calloc(1, sizeof *m);
    if (m) m->spans = mem_calloc(engine_info(inside)->spans_max, sizeof *m->spans);
    if (!m || !m->spans) {
        mem_free(m);
        return err_set(err, ERR_NO_MEMORY, "no memory for an emulated engine");
    }
    m->engine.ops = &emulated_ops;
    m->engine.info = *engine_info(inside);
    m->engine.info.kind = "emulated";
    m->inside = inside;
    m->profile = *profile;
    snprintf(m->said, sizeof m->said, "%s: prefill %.1f tok/s, decode %.1f tok/s", profile->name,
             profile->prefill_tps, profile->decode_tps);
    m->engine.info.emulated = m->said;
    *ret_engine = &m->engine;
    return 0;
}
