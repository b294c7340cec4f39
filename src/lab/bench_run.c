/* bench_run: see bench_run.h. */
#include "lab/bench_run.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "kern/kern_peak.h"
#include "model/gguf.h"

enum { PEAK_MS = 60, READ_REPEATS = 3, MIXED_STEPS = 4 };

/* Everything of one number of threads. */
struct bench {
    const struct bench_plan *p;
    struct bench_result *r;
    struct engine *engine;
    struct pool *pool; /* for the roofs; the engine has its own */
    struct kern_peak_memory memory;
    const struct kern *kern, *vnni;
    struct session *sessions[ENGINE_SPANS_MAX];
    int32_t *tokens; /* [chunk] */
    struct energy energy;
    struct err *e;
};

uint32_t bench_largest(const struct bench_list *l)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < l->n; i++)
        most = l->values[i] > most ? l->values[i] : most;
    return most;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* ---- work ---- */

static bool begins(struct gguf_str s, const char *text)
{
    return s.len >= strlen(text) && memcmp(s.data, text, strlen(text)) == 0;
}

static bool holds(struct gguf_str s, const char *text)
{
    return memmem(s.data, s.len, text, strlen(text)) != NULL;
}

/* "ARCHITECTURE.name" of the file; 0 where it has none. */
static uint32_t arch_u32(const struct gguf *g, const char *name)
{
    struct gguf_str arch;
    char key[160];
    uint32_t value = 0;
    if (gguf_text(g, "general.architecture", &arch, NULL) < 0 || arch.len > 64) return 0;
    snprintf(key, sizeof key, "%.*s.%s", (int)arch.len, arch.data, name);
    return gguf_u32(g, key, &value, NULL) < 0 ? 0 : value;
}

int bench_context(const char *path, uint32_t *ret_context, struct err *e)
{
    struct gguf *g;
    int code = gguf_open(path, &g, e);
    if (code) return code;
    *ret_context = arch_u32(g, "context_length");
    gguf_close(g);
    return 0;
}

static double used_experts(const struct gguf *g)
{
    uint32_t all = arch_u32(g, "expert_count"), used = arch_u32(g, "expert_used_count");
    return all && used ? (double)used / (double)all : 1.0;
}

static int read_work(const char *path, struct bench_work *w, struct err *e)
{
    struct gguf *g;
    int code = gguf_open(path, &g, e);
    if (code) return code;
    const char *head = gguf_tensor_find(g, "output.weight") ? "output.weight" : "token_embd.weight";
    double used = used_experts(g);
    *w = (struct bench_work){0};
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        double part = holds(t->name, "_exps.") ? used : 1.0;
        double weights = part * (double)(t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3]);
        w->file_bytes += t->bytes;
        if (t->dims > 1 && begins(t->name, "blk.")) {
            w->layer_weights += weights;
            w->layer_bytes += part * (double)t->bytes;
        } else if (begins(t->name, head)) {
            w->head_weights = weights;
            w->head_bytes = (double)t->bytes;
        }
    }
    gguf_close(g);
    return 0;
}

/* ---- steps ---- */

static void random_tokens(const struct bench *b, uint32_t at, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        b->tokens[i] = (int32_t)(rng_u32(1, 1, at + i) % engine_info(b->engine)->vocab_size);
}

/* Append n random tokens in steps of a chunk; the last one samples. */
static int feed(const struct bench *b, struct session *s, uint32_t n)
{
    int rc = 0;
    for (uint32_t done = 0; done < n && rc == 0;) {
        uint32_t left = n - done, take = left < b->p->chunk ? left : b->p->chunk;
        random_tokens(b, session_len(s), take);
        struct engine_span span = {.session = s, .tokens = b->tokens, .n = take};
        span.sample = take == left;
        rc = engine_step(b->engine, &span, 1, b->e);
        done += take;
    }
    return rc;
}

static int decode(const struct bench *b, uint32_t batch, uint32_t steps)
{
    struct engine_span spans[ENGINE_SPANS_MAX];
    int32_t next[ENGINE_SPANS_MAX];
    for (uint32_t i = 0; i < batch; i++)
        next[i] = (int32_t)(i + 1);
    for (uint32_t k = 0; k < steps; k++) {
        for (uint32_t i = 0; i < batch; i++)
            spans[i] = (struct engine_span){
                .session = b->sessions[i], .tokens = &next[i], .n = 1, .sample = true};
        int rc = engine_step(b->engine, spans, batch, b->e);
        if (rc < 0) return rc;
        for (uint32_t i = 0; i < batch; i++)
            next[i] = spans[i].next;
    }
    return 0;
}

/* One step: a chunk for the session after those that decode, and one token for each of these. */
static int mixed_step(const struct bench *b, uint32_t decodes, double *ret_us)
{
    struct engine_span spans[ENGINE_SPANS_MAX];
    int32_t token = 1;
    for (uint32_t i = 0; i < decodes; i++)
        spans[i] = (struct engine_span){
            .session = b->sessions[i + 1], .tokens = &token, .n = 1, .sample = true};
    random_tokens(b, session_len(b->sessions[0]), b->p->chunk);
    spans[decodes] = (struct engine_span){
        .session = b->sessions[0], .tokens = b->tokens, .n = b->p->chunk, .sample = false};
    uint64_t start = clock_us();
    int rc = engine_step(b->engine, spans, decodes + 1, b->e);
    *ret_us += (double)(clock_us() - start);
    return rc;
}

static void cut_all(const struct bench *b, uint32_t depth)
{
    for (uint32_t i = 0; i < ENGINE_SPANS_MAX && b->sessions[i]; i++)
        session_cut(b->sessions[i], depth);
}

/* ---- cases ---- */

static int sample_mixed(const struct bench *b, const struct bench_case *c, struct bench_sample *s)
{
    int rc = 0;
    for (int i = 0; i < MIXED_STEPS && rc == 0; i++) {
        rc = mixed_step(b, 0, &s->us_alone);
        cut_all(b, c->depth);
        if (rc == 0) rc = mixed_step(b, c->n, &s->us);
        cut_all(b, c->depth);
    }
    s->us /= MIXED_STEPS;
    s->us_alone /= MIXED_STEPS;
    return rc;
}

static int sample(struct bench *b, struct bench_case *c)
{
    struct bench_sample *s = &c->samples[c->rounds];
    int rc;
    if (c->kind == BENCH_MIXED) {
        rc = sample_mixed(b, c, s);
    } else {
        struct energy_mark mark = energy_mark(&b->energy, clock_us());
        uint64_t start = clock_us();
        rc = c->kind == BENCH_DECODE ? decode(b, c->n, b->p->generate)
                                     : feed(b, b->sessions[0], c->n);
        uint64_t end = clock_us();
        s->us = (double)(end - start);
        if (!energy_since(&b->energy, &mark, end, &s->joules)) s->joules = 0.0;
        if (b->energy.source != ENERGY_NONE) b->r->energy = b->energy.source;
        cut_all(b, c->depth);
    }
    c->rounds++;
    return rc;
}

static struct bench_sample measure_roofs(const struct bench *b)
{
    struct bench_sample s = {0};
    s.peak_gops = kern_peak_gops(b->kern, b->pool, PEAK_MS);
    s.vnni_gops = b->vnni == b->kern ? s.peak_gops
                  : b->vnni          ? kern_peak_gops(b->vnni, b->pool, PEAK_MS)
                                     : 0.0;
    s.read_gbs = kern_peak_read_gbs(&b->memory, b->pool, READ_REPEATS);
    return s;
}

static void add_case(const struct bench *b, enum bench_kind kind, uint32_t depth, uint32_t n)
{
    const struct bench_work *w = &b->r->work;
    if (b->r->n == BENCH_CASES_MAX) return;
    struct bench_case *c = &b->r->cases[b->r->n++];
    *c = (struct bench_case){
        .kind = kind, .threads = pool_threads(b->pool), .depth = depth, .n = n, .tokens = n};
    if (kind == BENCH_PREFILL || kind == BENCH_FILL) {
        c->operations = 2.0 * (w->layer_weights * n + w->head_weights);
        return;
    }
    uint32_t steps = kind == BENCH_DECODE ? b->p->generate : 1;
    double length = depth + (steps + 1) / 2.0;
    c->tokens = (uint64_t)n * steps;
    c->operations = 2.0 * (w->layer_weights + w->head_weights) * n * steps;
    c->bytes = (w->layer_bytes + w->head_bytes + w->kv_bytes * n * length) * steps;
    if (kind == BENCH_MIXED) {
        c->tokens += b->p->chunk;
        c->operations += 2.0 * w->layer_weights * b->p->chunk;
    }
}

static int run_rounds(struct bench *b, uint32_t first)
{
    for (uint32_t round = 0; round < b->p->rounds; round++) {
        struct bench_sample roofs = measure_roofs(b);
        for (uint32_t i = first; i < b->r->n; i++) {
            struct bench_case *c = &b->r->cases[i];
            c->samples[c->rounds] = roofs;
            int rc = sample(b, c);
            if (rc < 0) return rc;
        }
    }
    return 0;
}

/* What is done once is done now. */
static int warm(const struct bench *b, uint32_t depth)
{
    int rc = b->p->generate ? decode(b, 1, 2) : 0;
    cut_all(b, depth);
    return rc;
}

/* The first session's history of the depth, as a case. */
static int run_fill(struct bench *b, uint32_t depth)
{
    uint32_t at = b->r->n;
    int rc = warm(b, 0);
    add_case(b, BENCH_FILL, depth, depth);
    if (rc < 0 || at == b->r->n) return rc;
    b->r->cases[at].samples[0] = measure_roofs(b);
    return sample(b, &b->r->cases[at]);
}

static int run_depth(struct bench *b, uint32_t depth, uint32_t sessions)
{
    const struct bench_plan *p = b->p;
    int rc = 0;
    for (uint32_t i = 0; i < sessions && rc == 0; i++) {
        rc = engine_session_open(b->engine, &b->sessions[i], b->e);
        if (rc == 0 && i == 0 && depth && p->fill) rc = run_fill(b, depth);
        if (rc == 0) rc = feed(b, b->sessions[i], depth - session_len(b->sessions[i]));
    }
    uint32_t first = b->r->n;
    for (uint32_t i = 0; i < p->prompts.n; i++)
        add_case(b, BENCH_PREFILL, depth, p->prompts.values[i]);
    for (uint32_t i = 0; i < p->batches.n && p->generate; i++)
        add_case(b, BENCH_DECODE, depth, p->batches.values[i]);
    for (uint32_t i = 0; i < p->mixes.n; i++)
        add_case(b, BENCH_MIXED, depth, p->mixes.values[i]);
    if (rc == 0) rc = warm(b, depth);
    if (rc == 0) rc = run_rounds(b, first);
    for (uint32_t i = 0; i < sessions; i++) {
        engine_session_close(b->sessions[i]);
        b->sessions[i] = NULL;
    }
    return rc;
}

static const struct kern *level_named(const char *name)
{
    for (uint32_t i = 0; kern_at(i); i++)
        if (strcmp(kern_at(i)->name, name) == 0) return kern_at(i);
    return NULL;
}

/* The engine for one number of threads, with memory for the longest case. */
static int open_engine(struct bench *b, uint32_t threads, uint32_t sessions)
{
    struct native_options o = b->p->engine;
    uint32_t longest = max_u32(bench_largest(&b->p->prompts), b->p->generate + 2);
    o.threads = threads;
    o.context_max = bench_largest(&b->p->depths) + max_u32(longest, b->p->chunk) + 1;
    o.step_tokens_max = b->p->chunk + ENGINE_SPANS_MAX;
    int rc = native_open(&o, &b->engine, b->e);
    if (rc < 0) return rc;
    const struct engine_info *info = engine_info(b->engine);
    uint64_t pages = (uint64_t)(o.context_max + 63) / 64 * sessions;
    b->r->kv_type = info->kv_type;
    b->r->work.kv_bytes = (double)info->kv_bytes_per_token;
    snprintf(b->r->model_name, sizeof b->r->model_name, "%s", info->model_name);
    if (pages <= info->kv_pages_total) return 0;
    o.kv_bytes_max = pages * info->kv_bytes_per_token * 64;
    engine_free(b->engine);
    b->engine = NULL;
    return native_open(&o, &b->engine, b->e);
}

static int run_threads(struct bench *b, uint32_t threads)
{
    const struct bench_plan *p = b->p;
    uint32_t sessions = max_u32(bench_largest(&p->batches), 1);
    if (p->mixes.n) sessions = max_u32(sessions, bench_largest(&p->mixes) + 1);
    int rc = open_engine(b, threads, sessions);
    if (rc == 0) rc = pool_new(threads, &b->pool, b->e);
    if (rc == 0) {
        double bytes = b->r->work.layer_bytes + b->r->work.head_bytes;
        rc = kern_peak_memory_open(&b->memory, (size_t)bytes, b->pool, b->e);
    }
    for (uint32_t i = 0; i < p->depths.n && rc == 0; i++) {
        if (!p->quiet)
            fprintf(stderr, "%u threads, depth %u ...\n", pool_threads(b->pool),
                    p->depths.values[i]);
        rc = run_depth(b, p->depths.values[i], sessions);
    }
    engine_free(b->engine);
    kern_peak_memory_close(&b->memory);
    pool_free(b->pool);
    b->engine = NULL;
    b->pool = NULL;
    return rc;
}

int bench_run(const struct bench_plan *p, struct bench_result *r, struct err *e)
{
    static struct bench b;
    b = (struct bench){.p = p, .r = r, .e = e};
    int rc = kern_select(p->engine.isa, &b.kern, e);
    if (rc == 0) rc = read_work(p->engine.model_path, &r->work, e);
    if (rc < 0) return rc;
    energy_init(&b.energy, p->sys);
    b.vnni = level_named("avx512");
    r->isa = b.kern->name;
    b.tokens = mem_alloc(p->chunk * sizeof *b.tokens);
    if (!b.tokens) return err_set(e, ERR_NO_MEMORY, "no memory for a prompt");
    for (uint32_t i = 0; i < p->threads.n && rc == 0; i++)
        rc = run_threads(&b, p->threads.values[i]);
    mem_free(b.tokens);
    return rc;
}
