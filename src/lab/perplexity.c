/* perplexity: see perplexity.h. Reads texts and runs windows; perplexity_report.c prints. */
#include "lab/perplexity.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "model/text/vocab.h"

/* More windows side by side make a step hardly faster. */
enum { WINDOWS_MAX = 64, TOKENS_MAX = 1 << 26 };

/* Tokens [start, end) of a text, of which those from `from` on count. */
struct window {
    uint32_t start, from, end;
    double nll;
};

/* A session and the window that it reads; `at` is the token that comes next. */
struct reader {
    struct session *session;
    struct window *window; /* NULL: free */
    uint32_t at;
};

struct perplexity {
    const struct perplexity_plan *p;
    struct engine *engine;
    uint32_t context;
    struct reader readers[WINDOWS_MAX];
    uint32_t n_readers;
    struct token_list tokens; /* of the text */
    struct window *windows;   /* [n_windows] */
    uint32_t n_windows, begun;
    struct err *e;
};

/* ---- windows ---- */

/* What a step predicted, at the place of the token that the text has there. The engine gives the
 * log-probability of the token that it sampled; logits differ by as much as log-probabilities. */
static void count_token(const struct perplexity *x, struct reader *r,
                        const struct engine_span *span)
{
    const float *logits = session_logits(r->session);
    int32_t is = x->tokens.ids[r->at];
    r->window->nll -=
        (double)span->next_logprob + ((double)logits[is] - (double)logits[span->next]);
}

/* Append the tokens of the window before its first counted one; the last of them predicts it. */
static int begin_window(const struct perplexity *x, struct reader *r, struct window *w)
{
    uint32_t most = engine_info(x->engine)->step_tokens_max;
    session_cut(r->session, 0);
    *r = (struct reader){r->session, w, w->start};
    while (r->at < w->from) {
        uint32_t left = w->from - r->at;
        struct engine_span span = {.session = r->session,
                                   .tokens = x->tokens.ids + r->at,
                                   .n = left < most ? left : most,
                                   .sample = left <= most};
        int code = engine_step(x->engine, &span, 1, x->e);
        if (code) return code;
        r->at += span.n;
        if (span.sample) count_token(x, r, &span);
    }
    return 0;
}

/* One token of every window that is being read. */
static int step_windows(struct perplexity *x, uint32_t *ret_active)
{
    struct engine_span spans[WINDOWS_MAX];
    struct reader *active[WINDOWS_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < x->n_readers; i++) {
        struct reader *r = &x->readers[i];
        if (r->window && r->at + 1 == r->window->end)
            r->window = NULL; /* nothing left to predict */
        if (!r->window) continue;
        active[n] = r;
        spans[n++] = (struct engine_span){
            .session = r->session, .tokens = x->tokens.ids + r->at, .n = 1, .sample = true};
    }
    *ret_active = n;
    int code = n ? engine_step(x->engine, spans, n, x->e) : 0;
    for (uint32_t i = 0; i < n && code == 0; i++) {
        active[i]->at++;
        count_token(x, active[i], &spans[i]);
    }
    return code;
}

static int run_windows(struct perplexity *x)
{
    uint32_t active = 0;
    int code = 0;
    x->begun = 0;
    do {
        for (uint32_t i = 0; i < x->n_readers && code == 0; i++)
            if (!x->readers[i].window && x->begun < x->n_windows)
                code = begin_window(x, &x->readers[i], &x->windows[x->begun++]);
        if (code == 0) code = step_windows(x, &active);
    } while (code == 0 && (active > 0 || x->begun < x->n_windows));
    return code;
}

/* ---- texts ---- */

static int cut_windows(struct perplexity *x)
{
    uint32_t n = x->tokens.len, half = x->context / 2;
    uint32_t count = n <= x->context ? 1 : 1 + (n - x->context + half - 1) / half;
    x->windows = mem_calloc(count, sizeof *x->windows);
    if (!x->windows) return err_set(x->e, ERR_NO_MEMORY, "no memory for %u windows", count);
    uint32_t counted = 1;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t start = i * half, end = n - start < x->context ? n : start + x->context;
        x->windows[i] = (struct window){start, counted, end, 0.0};
        counted = end;
    }
    x->n_windows = count;
    return 0;
}

/* Bytes of a text after its first token; BOS has none. */
static int bytes_after_first(const struct perplexity *x, const struct vocab *v, size_t text_len,
                             uint64_t *ret_bytes)
{
    struct detok d;
    struct buf first;
    buf_init(&first, PERPLEXITY_TEXT_MAX);
    detok_init(&d, true);
    int code = detok_push(&d, v, x->tokens.ids[0], &first);
    *ret_bytes = text_len - (first.len < text_len ? first.len : text_len);
    buf_release(&first);
    return code ? err_set(x->e, code, "no memory for the text of a token") : 0;
}

static int read_text(struct perplexity *x, const char *path, struct perplexity_count *ret_count)
{
    const struct vocab *v = engine_vocab(x->engine);
    struct buf text;
    buf_init(&text, PERPLEXITY_TEXT_MAX);
    int code = os_read_file(path, &text, x->e);
    x->tokens.len = 0;
    if (code == 0) code = vocab_encode(v, text.data, text.len, VOCAB_ADD_BOS, &x->tokens, x->e);
    size_t text_len = text.len;
    buf_release(&text);
    if (code == 0 && x->tokens.len < 2)
        code = err_set(x->e, ERR_BAD_INPUT, "%s: a text of %u tokens has nothing to predict", path,
                       x->tokens.len);
    if (code == 0) code = bytes_after_first(x, v, text_len, &ret_count->bytes);
    if (code == 0) code = cut_windows(x);
    if (code == 0) code = run_windows(x);
    if (code == 0) {
        ret_count->tokens = x->tokens.len - 1;
        for (uint32_t i = 0; i < x->n_windows; i++)
            ret_count->nll += x->windows[i].nll;
    }
    mem_free(x->windows);
    x->windows = NULL;
    return code;
}

/* ---- the engine ---- */

static int open_sessions(struct perplexity *x)
{
    const struct engine_info *info = engine_info(x->engine);
    uint32_t pages = (x->context + ENGINE_PAGE - 1) / ENGINE_PAGE;
    uint32_t n = info->kv_pages_total / pages;
    if (n == 0)
        return err_set(
            x->e, ERR_LIMIT,
            "%s: a window of %u tokens takes %llu MB of KV memory, and %llu MB are to "
            "spare: ask for a shorter --context",
            x->p->engine.model_path, x->context,
            (unsigned long long)(info->kv_bytes_per_token * pages * ENGINE_PAGE >> 20),
            (unsigned long long)(info->kv_bytes_per_token * info->kv_pages_total * ENGINE_PAGE >>
                                 20));
    if (n > info->spans_max) n = info->spans_max;
    if (n > WINDOWS_MAX) n = WINDOWS_MAX;
    int code = 0;
    for (; x->n_readers < n && code == 0; x->n_readers += code == 0)
        code = engine_session_open(x->engine, &x->readers[x->n_readers].session, x->e);
    return code;
}

static int open_engine(struct perplexity *x)
{
    struct native_options o = x->p->engine;
    uint64_t spare = os_memory_available() / 2;
    o.context_max = x->p->context;
    o.kv_bytes_max = spare < PERPLEXITY_KV_BYTES_MAX ? spare : PERPLEXITY_KV_BYTES_MAX;
    int code = native_open(&o, &x->engine, x->e);
    if (code) return code;
    const struct engine_info *info = engine_info(x->engine);
    uint32_t trained = info->context_trained;
    x->context = x->p->context;
    if (!x->context) {
        x->context = PERPLEXITY_CONTEXT;
        if (x->context > info->context_max) x->context = info->context_max;
    } else if (trained && x->context > trained) {
        return err_set(x->e, ERR_LIMIT,
                       "%s: a window of %u tokens is longer than the model's context of %u",
                       o.model_path, x->context, trained);
    }
    return open_sessions(x);
}

int perplexity_run(const struct perplexity_plan *p, struct perplexity_result *ret_result,
                   struct err *e)
{
    struct perplexity x = {.p = p, .e = e};
    struct perplexity_result *r = ret_result;
    *r = (struct perplexity_result){0};
    token_list_init(&x.tokens, TOKENS_MAX);
    int code = open_engine(&x);
    for (size_t i = 0; i < p->n_files && code == 0; i++) {
        code = read_text(&x, p->files[i], &r->files[i]);
        r->total.tokens += r->files[i].tokens;
        r->total.bytes += r->files[i].bytes;
        r->total.nll += r->files[i].nll;
    }
    if (code == 0) {
        const struct engine_info *info = engine_info(x.engine);
        snprintf(r->model_name, sizeof r->model_name, "%s", info->model_name);
        snprintf(r->numerics, sizeof r->numerics, "%s", info->numerics);
        memcpy(r->weights_hash, info->weights_hash, sizeof r->weights_hash);
        r->context = x.context;
    }
    for (uint32_t i = 0; i < x.n_readers; i++)
        engine_session_close(x.readers[i].session);
    token_list_release(&x.tokens);
    engine_free(x.engine);
    return code;
}
