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
#include "base/pool.h"
#include "model/gguf.h"

enum { ARENA_STEP = 32 << 20 };
enum { NAME_MAX_BYTES = 64 };

/* Sizes that shapes are made of. */
enum size { SIZE_ONE, SIZE_DIM, SIZE_FF, SIZE_Q, SIZE_KV };

/* The tensors of a layer; norms have one row and become floats. */
static const struct spec {
    const char *name;
    size_t at; /* offset of the member of struct layer */
    enum size cols, rows;
} layer_specs[] = {
    {"attn_norm.weight", offsetof(struct layer, attn_norm), SIZE_DIM, SIZE_ONE},
    {"attn_q.weight", offsetof(struct layer, q), SIZE_DIM, SIZE_Q},
    {"attn_k.weight", offsetof(struct layer, k), SIZE_DIM, SIZE_KV},
    {"attn_v.weight", offsetof(struct layer, v), SIZE_DIM, SIZE_KV},
    {"attn_output.weight", offsetof(struct layer, o), SIZE_Q, SIZE_DIM},
    {"ffn_norm.weight", offsetof(struct layer, ffn_norm), SIZE_DIM, SIZE_ONE},
    {"ffn_gate.weight", offsetof(struct layer, gate), SIZE_DIM, SIZE_FF},
    {"ffn_up.weight", offsetof(struct layer, up), SIZE_DIM, SIZE_FF},
    {"ffn_down.weight", offsetof(struct layer, down), SIZE_FF, SIZE_DIM},
};
enum { LAYER_SPECS = sizeof layer_specs / sizeof *layer_specs };

static const char *const global_names[] = {"token_embd.weight", "output_norm.weight",
                                           "output.weight", "rope_freqs.weight"};

struct loader {
    struct weights *w;
    const struct gguf *g;
    const struct hparams *h;
    struct pool *pool;
    struct err *e;
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
    default:
        return 1;
    }
}

static const char *type_name(uint32_t type)
{
    const struct gguf_type_info *info = gguf_type_info(type);
    return info ? info->name : "unknown";
}

/* How the kernels hold a tensor of a file's type. */
static int kern_type_of(uint32_t type, enum kern_type *ret_type)
{
    static const struct {
        uint32_t file;
        enum kern_type kern;
    } types[] = {{GGUF_F32, KERN_F32},   {GGUF_F16, KERN_F16},       {GGUF_BF16, KERN_BF16},
                 {GGUF_Q8_0, KERN_Q8_0}, {GGUF_Q4_0, KERN_Q4_0},     {GGUF_Q4_1, KERN_Q4_1},
                 {GGUF_Q5_0, KERN_Q5_0}, {GGUF_Q5_1, KERN_Q5_1},     {GGUF_Q2_K, KERN_Q2_K},
                 {GGUF_Q3_K, KERN_Q3_K}, {GGUF_Q4_K, KERN_Q4_K},     {GGUF_Q5_K, KERN_Q5_K},
                 {GGUF_Q6_K, KERN_Q6_K}, {GGUF_IQ4_NL, KERN_IQ4_NL}, {GGUF_IQ4_XS, KERN_IQ4_XS}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (types[i].file == type) {
            *ret_type = types[i].kern;
            return 0;
        }
    }
    return -1;
}

/* Find a tensor and check its type and shape. */
static int find(const struct loader *l, const char *name, uint32_t cols, uint32_t rows,
                const struct gguf_tensor **ret_tensor, enum kern_type *ret_type)
{
    const struct gguf_tensor *t = gguf_tensor_find(l->g, name);
    if (!t) return err_set(l->e, ERR_NOT_FOUND, "%s: there is no tensor %s", gguf_name(l->g), name);
    if (!t->data || kern_type_of(t->type, ret_type) < 0)
        return err_set(l->e, ERR_UNSUPPORTED,
                       "%s: tensor %s has type %s (%u); this program runs F32, F16, BF16, Q8_0, "
                       "Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL and IQ4_XS",
                       gguf_name(l->g), name, type_name(t->type), t->type);
    if (t->shape[0] != cols || t->shape[1] != rows || t->shape[2] != 1 || t->shape[3] != 1)
        return err_set(
            l->e, ERR_BAD_INPUT, "%s: tensor %s is [%llu, %llu, %llu, %llu]; expected [%u, %u]",
            gguf_name(l->g), name, (unsigned long long)t->shape[0], (unsigned long long)t->shape[1],
            (unsigned long long)t->shape[2], (unsigned long long)t->shape[3], cols, rows);
    *ret_tensor = t;
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
    const struct gguf_tensor *tensor;
    atomic_bool not_finite;
};

static void pack_task(void *arg, uint32_t task, uint32_t worker)
{
    struct pack_job *job = arg;
    (void)worker;
    if (!kern_mat_pack_strip(job->mat, job->tensor->data, task)) job->not_finite = true;
}

static int load_matrix(const struct loader *l, const char *name, uint32_t cols, uint32_t rows,
                       struct kern_mat *m)
{
    const struct gguf_tensor *t;
    enum kern_type type;
    int rc = find(l, name, cols, rows, &t, &type);
    if (rc < 0) return rc;
    rc = kern_mat_init(m, type, rows, cols, l->e);
    if (rc < 0) return err_prefix(l->e, "%s: tensor %s", gguf_name(l->g), name);
    m->data = take(l, kern_mat_bytes(m));
    if (!m->data) return ERR_NO_MEMORY;
    struct pack_job job = {m, t, false};
    pool_run(l->pool, m->strips, pack_task, &job);
    if (job.not_finite)
        return err_set(l->e, ERR_BAD_INPUT,
                       "%s: tensor %s has a scale that is infinite or not a number: the file is "
                       "damaged, or was made from damaged weights",
                       gguf_name(l->g), name);
    gguf_tensor_forget(l->g, t); /* or the file would be in memory twice */
    return 0;
}

static int load_vector(const struct loader *l, const char *name, uint32_t n,
                       const float **ret_vector)
{
    const struct gguf_tensor *t;
    enum kern_type type;
    int rc = find(l, name, n, 1, &t, &type);
    if (rc < 0) return rc;
    if (kern_type_info(type)->quantised)
        return err_set(l->e, ERR_UNSUPPORTED,
                       "%s: tensor %s has type %s; a norm must be F32, F16 or BF16",
                       gguf_name(l->g), name, type_name(t->type));
    float *vector = take(l, n * sizeof *vector);
    if (!vector) return ERR_NO_MEMORY;
    kern_dequant_row(type, t->data, n, vector);
    *ret_vector = vector;
    return 0;
}

static int load_layer(const struct loader *l, uint32_t index)
{
    struct layer *layer = &l->w->layers[index];
    for (size_t i = 0; i < LAYER_SPECS; i++) {
        const struct spec *s = &layer_specs[i];
        char name[NAME_MAX_BYTES];
        void *member = (char *)layer + s->at;
        snprintf(name, sizeof name, "blk.%u.%s", index, s->name);
        uint32_t cols = size_of(l->h, s->cols), rows = size_of(l->h, s->rows);
        int rc = s->rows == SIZE_ONE ? load_vector(l, name, cols, member)
                                     : load_matrix(l, name, cols, rows, member);
        if (rc < 0) return rc;
    }
    return 0;
}

static int load_embedding(const struct loader *l)
{
    struct weights *w = l->w;
    enum kern_type type;
    int rc = find(l, "token_embd.weight", l->h->dim, l->h->vocab, &w->embedding, &type);
    if (rc < 0) return rc;
    const char *head =
        gguf_tensor_find(l->g, "output.weight") ? "output.weight" : "token_embd.weight";
    return load_matrix(l, head, l->h->dim, l->h->vocab, &w->output);
}

/* Angles for one position; llama 3 divides them by factors of its own. */
static int load_rope(const struct loader *l)
{
    const struct hparams *h = l->h;
    uint32_t pairs = h->rope_dims / 2;
    const float *factors = NULL;
    int rc = 0;
    if (gguf_tensor_find(l->g, "rope_freqs.weight"))
        rc = load_vector(l, "rope_freqs.weight", pairs, &factors);
    if (rc < 0) return rc;
    double *inverse = take(l, pairs * sizeof *inverse);
    if (!inverse) return ERR_NO_MEMORY;
    double log_base = kern_log(h->rope_base);
    for (uint32_t i = 0; i < pairs; i++) {
        double factor = h->rope_scale * (factors ? (double)factors[i] : 1.0);
        inverse[i] = kern_exp(-log_base * (2.0 * i) / h->rope_dims) / factor;
        if (!(inverse[i] > 0.0 && inverse[i] <= 1.0)) /* else angles outgrow kern_sincos */
            return err_set(l->e, ERR_BAD_INPUT,
                           "%s: rope frequency %u is %g; it must be above 0 and at most 1 (see "
                           "rope.freq_base, rope.scaling.factor, rope_freqs.weight)",
                           gguf_name(l->g), i, inverse[i]);
    }
    l->w->rope_inverse = inverse;
    return 0;
}

static bool same(struct gguf_str s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

static bool is_used(const struct hparams *h, struct gguf_str name)
{
    for (size_t i = 0; i < sizeof global_names / sizeof *global_names; i++)
        if (same(name, global_names[i])) return true;
    if (name.len < 4 || memcmp(name.data, "blk.", 4) != 0) return false;
    uint32_t layer = 0;
    size_t at = 4;
    for (; at < name.len && name.data[at] >= '0' && name.data[at] <= '9' && layer < 100000; at++)
        layer = layer * 10 + (uint32_t)(name.data[at] - '0');
    if (at == 4 || at >= name.len || name.data[at] != '.' || layer >= h->layers) return false;
    struct gguf_str rest = {name.data + at + 1, name.len - at - 1};
    for (size_t i = 0; i < LAYER_SPECS; i++)
        if (same(rest, layer_specs[i].name)) return true;
    return false;
}

static int refuse_unused(const struct loader *l)
{
    for (size_t i = 0; i < gguf_tensor_count(l->g); i++) {
        struct gguf_str name = gguf_tensor_at(l->g, i)->name;
        if (!is_used(l->h, name))
            return err_set(l->e, ERR_UNSUPPORTED,
                           "%s: tensor %.*s has no place in architecture %s as we compute it",
                           gguf_name(l->g), (int)(name.len < 64 ? name.len : 64), name.data,
                           l->h->arch->name);
    }
    return 0;
}

int weights_open(struct weights *w, const struct gguf *g, const struct hparams *h,
                 struct pool *pool, struct err *e)
{
    struct loader l = {w, g, h, pool, e};
    *w = (struct weights){0};
    arena_init_huge(&w->memory, SIZE_MAX / 4, ARENA_STEP);
    int rc = refuse_unused(&l);
    if (rc < 0) goto fail;
    w->layers = take(&l, h->layers * sizeof *w->layers);
    if (!w->layers) {
        rc = ERR_NO_MEMORY;
        goto fail;
    }
    if ((rc = load_embedding(&l)) < 0 ||
        (rc = load_vector(&l, "output_norm.weight", h->dim, &w->output_norm)) < 0 ||
        (rc = load_rope(&l)) < 0)
        goto fail;
    for (uint32_t i = 0; i < h->layers; i++)
        if ((rc = load_layer(&l, i)) < 0) goto fail;
    return 0;
fail:
    weights_close(w);
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
    CHECK(kern_type_of(t->type, &type) == 0);
    kern_dequant_row(type, row, h->dim, out);
}
