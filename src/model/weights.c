/*
 * weights: see weights.h. Relies on gguf.c for a tensor's bytes being there, on kern_pack.c for the
 * layout.
 */
#include "model/weights.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/pool.h"
#include "model/gguf.h"

enum { ARENA_STEP = 32 << 20 };
enum { NAME_MAX_BYTES = 64 };

/* Sizes that shapes are made of. */
enum size { SIZE_ONE, SIZE_DIM, SIZE_FF, SIZE_Q, SIZE_KV, SIZE_Q_NORM, SIZE_K_NORM, SIZE_EXPERTS };

/* Which models have a tensor: all; those whose file has it; or by a feature. */
enum need { ALWAYS, IF_THERE, PRE_NORM, POST_NORM, QK_NORM, DENSE, DENSE_IF_THERE, MIXTURE };

/* A tensor that holds several matrices, row after row. */
struct fused {
    const char *name;
    uint32_t n;         /* parts */
    enum size parts[3]; /* their rows */
};
static const struct fused qkv = {"attn_qkv.weight", 3, {SIZE_Q, SIZE_KV, SIZE_KV}};
static const struct fused qkv_bias = {"attn_qkv.bias", 3, {SIZE_Q, SIZE_KV, SIZE_KV}};
static const struct fused gate_up = {"ffn_up.weight", 2, {SIZE_FF, SIZE_FF}};

/* The tensors of a layer; vectors have one row and become floats. Where the file lacks `unless`,
 * the part `part` of a fused tensor is taken instead. */
static const struct spec {
    const char *name;
    size_t at; /* offset of the member of struct layer, or of struct expert for MIXTURE */
    enum size cols, rows;
    enum need need;
    const struct fused *fused;
    uint32_t part;
    const char *unless;
} layer_specs[] = {
#define AT(member) offsetof(struct layer, member)
#define EXPERT(member) offsetof(struct expert, member)
    {"attn_norm.weight", AT(attn_norm), SIZE_DIM, SIZE_ONE, PRE_NORM, NULL, 0, NULL},
    {"attn_q.weight", AT(q), SIZE_DIM, SIZE_Q, ALWAYS, &qkv, 0, "attn_q.weight"},
    {"attn_k.weight", AT(k), SIZE_DIM, SIZE_KV, ALWAYS, &qkv, 1, "attn_k.weight"},
    {"attn_v.weight", AT(v), SIZE_DIM, SIZE_KV, ALWAYS, &qkv, 2, "attn_v.weight"},
    {"attn_q.bias", AT(q_bias), SIZE_Q, SIZE_ONE, IF_THERE, &qkv_bias, 0, "attn_q.bias"},
    {"attn_k.bias", AT(k_bias), SIZE_KV, SIZE_ONE, IF_THERE, &qkv_bias, 1, "attn_k.bias"},
    {"attn_v.bias", AT(v_bias), SIZE_KV, SIZE_ONE, IF_THERE, &qkv_bias, 2, "attn_v.bias"},
    {"attn_q_norm.weight", AT(q_norm), SIZE_Q_NORM, SIZE_ONE, QK_NORM, NULL, 0, NULL},
    {"attn_k_norm.weight", AT(k_norm), SIZE_K_NORM, SIZE_ONE, QK_NORM, NULL, 0, NULL},
    {"attn_output.weight", AT(o), SIZE_Q, SIZE_DIM, ALWAYS, NULL, 0, NULL},
    {"attn_output.bias", AT(o_bias), SIZE_DIM, SIZE_ONE, IF_THERE, NULL, 0, NULL},
    {"post_attention_norm.weight", AT(attn_post_norm), SIZE_DIM, SIZE_ONE, POST_NORM, NULL, 0,
     NULL},
    {"ffn_norm.weight", AT(ffn_norm), SIZE_DIM, SIZE_ONE, PRE_NORM, NULL, 0, NULL},
    {"ffn_gate.weight", AT(gate), SIZE_DIM, SIZE_FF, DENSE, &gate_up, 0, "ffn_gate.weight"},
    {"ffn_up.weight", AT(up), SIZE_DIM, SIZE_FF, DENSE, &gate_up, 1, "ffn_gate.weight"},
    {"ffn_down.weight", AT(down), SIZE_FF, SIZE_DIM, DENSE, NULL, 0, NULL},
    {"ffn_gate.bias", AT(gate_bias), SIZE_FF, SIZE_ONE, DENSE_IF_THERE, NULL, 0, NULL},
    {"ffn_up.bias", AT(up_bias), SIZE_FF, SIZE_ONE, DENSE_IF_THERE, NULL, 0, NULL},
    {"ffn_down.bias", AT(down_bias), SIZE_DIM, SIZE_ONE, DENSE_IF_THERE, NULL, 0, NULL},
    {"post_ffw_norm.weight", AT(ffn_post_norm), SIZE_DIM, SIZE_ONE, POST_NORM, NULL, 0, NULL},
    {"ffn_gate_inp.weight", AT(router), SIZE_DIM, SIZE_EXPERTS, MIXTURE, NULL, 0, NULL},
    {"ffn_gate_exps.weight", EXPERT(gate), SIZE_DIM, SIZE_FF, MIXTURE, NULL, 0, NULL},
    {"ffn_up_exps.weight", EXPERT(up), SIZE_DIM, SIZE_FF, MIXTURE, NULL, 0, NULL},
    {"ffn_down_exps.weight", EXPERT(down), SIZE_FF, SIZE_DIM, MIXTURE, NULL, 0, NULL},
};
enum { LAYER_SPECS = sizeof layer_specs / sizeof *layer_specs };

/* A tensor is first looked for and marked (`dry`), then read. */
struct loader {
    struct weights *w;
    const struct gguf *g;
    const struct hparams *h;
    struct pool *pool;
    struct err *e;
    bool *used; /* [tensors] */
    bool dry;
    size_t *packed; /* bytes of the matrices, counted in a dry run */
};

/* Rows of a tensor. */
struct source {
    const struct gguf_tensor *t;
    enum kern_type type;
    uint32_t first, total; /* the first row wanted, and all rows of the tensor */
};

static uint32_t size_of(const struct hparams *h, enum size size)
{
    switch (size) {
    case SIZE_DIM:
        return h->dim;
    case SIZE_FF:
        return h->ff;
    case SIZE_Q:
        return hparams_q_dim(h);
    case SIZE_KV:
        return hparams_kv_dim(h);
    case SIZE_Q_NORM:
        return h->arch->qk_norm == QK_NORM_ROW ? hparams_q_dim(h) : h->head_dim;
    case SIZE_K_NORM:
        return h->arch->qk_norm == QK_NORM_ROW ? hparams_kv_dim(h) : h->head_dim;
    case SIZE_EXPERTS:
        return h->experts;
    default:
        return 1;
    }
}

static const char *type_name(uint32_t type)
{
    const struct kern_type_info *info = gguf_type_info(type);
    return info ? info->name : "unknown";
}

#define NAME(name, ...) " " #name
static const char known_types[] = KERN_WEIGHTS(NAME);
#undef NAME

/* Find a tensor and check its type and shape. */
static int find(const struct loader *l, const char *name, uint32_t cols, uint32_t rows,
                uint32_t depth, struct source *ret_source)
{
    const struct gguf_tensor *t = gguf_tensor_find(l->g, name);
    enum kern_type type;
    if (!t) return err_set(l->e, ERR_NOT_FOUND, "%s: there is no tensor %s", gguf_name(l->g), name);
    if (!t->data || !kern_type_find(t->type, &type))
        return err_set(l->e, ERR_UNSUPPORTED, "%s: tensor %s has type %s (%u); this program runs%s",
                       gguf_name(l->g), name, type_name(t->type), t->type, known_types);
    if (t->shape[0] != cols || t->shape[1] != rows || t->shape[2] != depth || t->shape[3] != 1)
        return err_set(
            l->e, ERR_BAD_INPUT, "%s: tensor %s is [%llu, %llu, %llu, %llu]; expected [%u, %u, %u]",
            gguf_name(l->g), name, (unsigned long long)t->shape[0], (unsigned long long)t->shape[1],
            (unsigned long long)t->shape[2], (unsigned long long)t->shape[3], cols, rows, depth);
    l->used[t - gguf_tensor_at(l->g, 0)] = true;
    *ret_source = (struct source){t, type, 0, rows * depth};
    return 0;
}

static void *take(const struct loader *l, size_t bytes)
{
    void *memory = arena_alloc(&l->w->memory, bytes, 64);
    if (!memory)
        err_set(l->e, ERR_NO_MEMORY, "%s: no memory for %zu bytes of weights", gguf_name(l->g),
                bytes);
    return memory;
}

struct pack_job {
    const struct kern_mat *mat;
    const uint8_t *raw;
    atomic_bool not_finite;
};

static void pack_task(void *arg, uint32_t task, uint32_t worker)
{
    struct pack_job *job = arg;
    (void)worker;
    if (!kern_mat_pack_strip(job->mat, job->raw, task)) job->not_finite = true;
}

/* Pack `rows` rows of a source. */
static int load_matrix(const struct loader *l, const struct source *s, uint32_t rows,
                       struct kern_mat *m)
{
    int rc = kern_mat_init(m, s->type, rows, (uint32_t)s->t->shape[0], l->e);
    if (rc < 0)
        return err_prefix(l->e, "%s: tensor %s", gguf_name(l->g), gguf_show(s->t->name).text);
    if (l->dry) {
        *l->packed += kern_mat_bytes(m);
        return 0;
    }
    m->data = take(l, kern_mat_bytes(m));
    if (!m->data) return ERR_NO_MEMORY;
    struct pack_job job = {m, s->t->data + s->t->bytes / s->total * s->first, false};
    pool_run(l->pool, m->strips, pack_task, &job);
    if (job.not_finite)
        return err_set(l->e, ERR_BAD_INPUT,
                       "%s: tensor %s has a scale that is infinite or not a number: the file is "
                       "damaged, or was made from damaged weights",
                       gguf_name(l->g), gguf_show(s->t->name).text);
    gguf_tensor_forget(l->g, s->t); /* or the file would be in memory twice */
    return 0;
}

/* n floats of a source that is one row, from `first` on. */
static int load_vector(const struct loader *l, const struct source *s, uint32_t first, uint32_t n,
                       const float **ret_vector)
{
    if (kern_type_info(s->type)->quantised)
        return err_set(l->e, ERR_UNSUPPORTED,
                       "%s: tensor %s has type %s; a vector must be F32, F16 or BF16",
                       gguf_name(l->g), gguf_show(s->t->name).text, type_name(s->t->type));
    if (l->dry) return 0;
    float *vector = take(l, n * sizeof *vector);
    if (!vector) return ERR_NO_MEMORY;
    kern_dequant_row(s->type, s->t->data + kern_row_bytes(s->type, first), n, vector);
    *ret_vector = vector;
    return 0;
}

static int load_named_vector(const struct loader *l, const char *name, uint32_t n,
                             const float **ret_vector)
{
    struct source s;
    int rc = find(l, name, n, 1, 1, &s);
    return rc < 0 ? rc : load_vector(l, &s, 0, n, ret_vector);
}

static bool needed(const struct hparams *h, enum need need)
{
    switch (need) {
    case PRE_NORM:
        return !h->arch->no_pre_norm;
    case POST_NORM:
        return h->arch->post_norm;
    case QK_NORM:
        return h->arch->qk_norm != QK_NORM_NONE;
    case DENSE:
    case DENSE_IF_THERE:
        return h->experts == 0;
    case MIXTURE:
        return h->experts > 0;
    default:
        return true;
    }
}

static bool is_there(const struct loader *l, uint32_t layer, const char *name)
{
    char full[NAME_MAX_BYTES];
    snprintf(full, sizeof full, "blk.%u.%s", layer, name);
    return gguf_tensor_find(l->g, full) != NULL;
}

/* The matrices of one kind of all experts stand one after another. */
static int load_experts(const struct loader *l, const struct spec *s, const char *name,
                        struct expert *experts)
{
    struct source source;
    uint32_t rows = size_of(l->h, s->rows);
    int rc = find(l, name, size_of(l->h, s->cols), rows, l->h->experts, &source);
    for (uint32_t i = 0; rc == 0 && i < l->h->experts; i++) {
        source.first = i * rows;
        rc = load_matrix(l, &source, rows, (void *)((char *)&experts[i] + s->at));
    }
    return rc;
}

/* A part of a fused tensor. */
static int load_part(const struct loader *l, const struct spec *s, uint32_t layer, void *member)
{
    char name[NAME_MAX_BYTES];
    struct source source;
    uint32_t before = 0, total = 0, own = size_of(l->h, s->fused->parts[s->part]);
    for (uint32_t i = 0; i < s->fused->n; i++) {
        uint32_t rows = size_of(l->h, s->fused->parts[i]);
        total += rows;
        before += i < s->part ? rows : 0;
    }
    snprintf(name, sizeof name, "blk.%u.%s", layer, s->fused->name);
    bool vector = s->rows == SIZE_ONE;
    int rc = vector ? find(l, name, total, 1, 1, &source)
                    : find(l, name, size_of(l->h, s->cols), total, 1, &source);
    if (rc < 0) return rc;
    if (vector) return load_vector(l, &source, before, own, member);
    source.first = before;
    return load_matrix(l, &source, own, member);
}

static int load_spec(const struct loader *l, const struct spec *s, uint32_t index)
{
    struct layer *layer = &l->w->layers[index];
    void *member = (char *)layer + s->at;
    char name[NAME_MAX_BYTES];
    struct source source;
    if (!needed(l->h, s->need)) return 0;
    bool fuses = s->fused && (s->fused != &gate_up || l->h->arch->fused_gate);
    if (fuses && !is_there(l, index, s->unless) && is_there(l, index, s->fused->name))
        return load_part(l, s, index, member);
    bool optional = s->need == IF_THERE || s->need == DENSE_IF_THERE;
    if (optional && !is_there(l, index, s->name)) return 0;
    snprintf(name, sizeof name, "blk.%u.%s", index, s->name);
    uint32_t cols = size_of(l->h, s->cols), rows = size_of(l->h, s->rows);
    if (s->rows == SIZE_ONE) return load_named_vector(l, name, cols, member);
    if (s->need == MIXTURE && s->rows != SIZE_EXPERTS)
        return load_experts(l, s, name, layer->experts);
    int rc = find(l, name, cols, rows, 1, &source);
    return rc < 0 ? rc : load_matrix(l, &source, rows, member);
}

static int load_layer(const struct loader *l, uint32_t index)
{
    struct layer *layer = &l->w->layers[index];
    if (l->h->experts > 0 && !layer->experts) {
        layer->experts = take(l, l->h->experts * sizeof *layer->experts);
        if (!layer->experts) return ERR_NO_MEMORY;
        memset(layer->experts, 0, l->h->experts * sizeof *layer->experts);
    }
    for (size_t i = 0; i < LAYER_SPECS; i++) {
        int rc = load_spec(l, &layer_specs[i], index);
        if (rc < 0) return rc;
    }
    return 0;
}

static int load_head(const struct loader *l)
{
    struct weights *w = l->w;
    struct source s;
    uint32_t dim = l->h->dim, vocab = l->h->vocab;
    int rc = find(l, "token_embd.weight", dim, vocab, 1, &s);
    if (rc < 0) return rc;
    w->embedding = s.t;
    if (gguf_tensor_find(l->g, "output.weight")) rc = find(l, "output.weight", dim, vocab, 1, &s);
    if (rc == 0) rc = load_matrix(l, &s, vocab, &w->output);
    if (rc == 0) rc = load_named_vector(l, "output_norm.weight", dim, &w->output_norm);
    if (rc == 0 && gguf_tensor_find(l->g, "output.bias"))
        rc = load_named_vector(l, "output.bias", vocab, &w->output_bias);
    return rc;
}

/* The index at which a pair turns `turns` times within the original context. */
static double yarn_pair(const struct hparams *h, const struct rope *r, double turns)
{
    const double two_pi = 6.283185307179586;
    return h->rope_dims * kern_log((double)r->original / (turns * two_pi)) /
           (2.0 * kern_log(r->base));
}

/* How much of a pair's angle stays as it was: 1 for pairs that turn fast, 0 for slow ones. */
static double yarn_blend(const struct hparams *h, const struct rope *r, uint32_t pair)
{
    double low = yarn_pair(h, r, r->beta_fast), high = yarn_pair(h, r, r->beta_slow);
    low = low > 0.0 ? (double)(int64_t)low : 0.0; /* down */
    double whole = (double)(int64_t)high;
    if (whole < high) whole += 1.0; /* up */
    high = whole < (double)(h->rope_dims - 1) ? whole : (double)(h->rope_dims - 1);
    double width = high - low > 0.001 ? high - low : 0.001, at = (pair - low) / width;
    return 1.0 - (at < 0.0 ? 0.0 : at > 1.0 ? 1.0 : at);
}

/* Angles for one position; llama 3 and long contexts divide them by factors of their own. */
static int load_angles(const struct loader *l, const struct rope *r, const float *factors,
                       struct rope_angles *ret_angles)
{
    const struct hparams *h = l->h;
    uint32_t pairs = h->rope_dims / 2;
    double *inverse = take(l, pairs * sizeof *inverse);
    if (!inverse) return ERR_NO_MEMORY;
    double log_base = kern_log(r->base);
    for (uint32_t i = 0; i < pairs; i++) {
        double divided = factors ? (double)factors[i] : 1.0;
        inverse[i] = kern_exp(-log_base * (2.0 * i) / h->rope_dims) / (r->factor * divided);
        if (r->scaling == ROPE_YARN) {
            double blend = yarn_blend(h, r, i);
            inverse[i] = inverse[i] * (1.0 - blend) + inverse[i] * r->factor * blend;
        }
        if (!(inverse[i] > 0.0 && inverse[i] <= 1.5)) /* else angles outgrow kern_sincos */
            return err_set(l->e, ERR_BAD_INPUT,
                           "%s: rope frequency %u is %g; it must be above 0 and at most 1.5 (see "
                           "rope.freq_base, rope.scaling.factor, rope_freqs.weight)",
                           gguf_name(l->g), i, inverse[i]);
    }
    *ret_angles = (struct rope_angles){inverse, r->magnitude};
    return 0;
}

static int load_rope(const struct loader *l)
{
    const struct hparams *h = l->h;
    const float *factors = NULL, *other = NULL;
    const char *used = h->rope.use_long ? "rope_factors_long.weight" : "rope_factors_short.weight";
    const char *unused =
        h->rope.use_long ? "rope_factors_short.weight" : "rope_factors_long.weight";
    int rc = 0;
    if (gguf_tensor_find(l->g, "rope_freqs.weight")) {
        rc = load_named_vector(l, "rope_freqs.weight", h->rope_dims / 2, &factors);
    } else if (gguf_tensor_find(l->g, used) || gguf_tensor_find(l->g, unused)) {
        rc = load_named_vector(l, used, h->rope_dims / 2, &factors);
        if (rc == 0) rc = load_named_vector(l, unused, h->rope_dims / 2, &other);
    } else if (h->rope.scaling == ROPE_LONG) {
        rc = err_set(l->e, ERR_NOT_FOUND, "%s: there is no tensor %s", gguf_name(l->g), used);
    }
    if (rc < 0 || l->dry) return rc;
    rc = load_angles(l, &h->rope, factors, &l->w->rope[0]);
    if (rc < 0) return rc;
    return load_angles(l, &h->window_rope, h->arch->window_plain_rope ? NULL : factors,
                       &l->w->rope[1]);
}

bool weights_is_beside(struct gguf_str name)
{
    static const char *const parts[] = {"v.", "mm.", "a.", "resampler."};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        size_t n = strlen(parts[i]);
        if (name.len > n && memcmp(name.data, parts[i], n) == 0) return true;
    }
    return false;
}

uint32_t weights_beside(const struct gguf *g)
{
    uint32_t n = 0;
    for (size_t i = 0; i < gguf_tensor_count(g); i++)
        n += weights_is_beside(gguf_tensor_at(g, i)->name);
    return n;
}

static int refuse_unused(const struct loader *l)
{
    for (size_t i = 0; i < gguf_tensor_count(l->g); i++) {
        if (l->used[i] || weights_is_beside(gguf_tensor_at(l->g, i)->name)) continue;
        return err_set(
            l->e, ERR_UNSUPPORTED, "%s: tensor %s has no place in architecture %s as we compute it",
            gguf_name(l->g), gguf_show(gguf_tensor_at(l->g, i)->name).text, l->h->arch->name);
    }
    return 0;
}

/* Everything once: looked for, or read. */
static int load_all(const struct loader *l)
{
    int rc = load_head(l);
    if (rc == 0) rc = load_rope(l);
    for (uint32_t i = 0; rc == 0 && i < l->h->layers; i++)
        rc = load_layer(l, i);
    return rc;
}

/* Find every tensor and check it, without reading one. */
static int plan(struct loader *l)
{
    struct weights *w = l->w;
    int rc = 0;
    *w = (struct weights){0};
    arena_init_huge(&w->memory, SIZE_MAX / 4, ARENA_STEP);
    l->used = mem_calloc(gguf_tensor_count(l->g), sizeof *l->used);
    if (!l->used)
        rc = err_set(l->e, ERR_NO_MEMORY, "%s: no memory for its tensors", gguf_name(l->g));
    if (rc == 0) w->layers = take(l, l->h->layers * sizeof *w->layers);
    if (rc == 0 && !w->layers) rc = ERR_NO_MEMORY;
    if (rc == 0) memset(w->layers, 0, l->h->layers * sizeof *w->layers);
    if (rc == 0) rc = load_all(l);
    if (rc == 0) rc = refuse_unused(l);
    return rc == 0 ? gguf_check_end(l->g, l->e) : rc;
}

int weights_open(struct weights *w, const struct gguf *g, const struct hparams *h,
                 struct pool *pool, struct err *e)
{
    size_t packed = 0;
    struct loader l = {w, g, h, pool, e, NULL, true, &packed};
    int rc = plan(&l);
    l.dry = false;
    if (rc == 0) rc = load_all(&l);
    mem_free(l.used);
    if (rc < 0) weights_close(w);
    return rc;
}

int weights_check(const struct gguf *g, const struct hparams *h, uint64_t *ret_bytes, struct err *e)
{
    size_t packed = 0;
    struct weights w;
    struct loader l = {&w, g, h, NULL, e, NULL, true, &packed};
    int rc = plan(&l);
    mem_free(l.used);
    weights_close(&w);
    if (rc == 0) *ret_bytes = packed;
    return rc;
}

void weights_close(struct weights *w)
{
    arena_release(&w->memory);
    *w = (struct weights){0};
}

void weights_embed(const struct weights *w, const struct hparams *h, int32_t id, float *out)
{
    const struct gguf_tensor *t = w->embedding;
    CHECK(id >= 0 && (uint32_t)id < h->vocab);
    const uint8_t *row = t->data + t->bytes / h->vocab * (size_t)id;
    enum kern_type type = KERN_F32;
    CHECK(kern_type_find(t->type, &type));
    kern_dequant_row(type, row, h->dim, out);
}
