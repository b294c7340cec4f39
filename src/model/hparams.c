/*
 * hparams: see hparams.h. Relies on gguf.c for types; trusts no value.
 */
#include "model/hparams.h"

#include <stdio.h>
#include <string.h>

#include "kern/kern.h"
#include "model/gguf.h"

static const struct arch archs[] = {
    {.name = "llama", .rope = ROPE_PAIRS},
};

enum { KEY_MAX = 128 };

/* Where keys are read from and whose they are. */
struct reader {
    const struct gguf *g;
    const char *prefix;
    struct err *e;
};

static void key_of(const struct reader *r, const char *name, char key[KEY_MAX])
{
    snprintf(key, KEY_MAX, "%s.%s", r->prefix, name);
}

static bool has(const struct reader *r, const char *name)
{
    char key[KEY_MAX];
    key_of(r, name, key);
    return gguf_has(r->g, key);
}

static int read_u32(const struct reader *r, const char *name, uint32_t min, uint32_t max,
                    uint32_t *ret_value)
{
    char key[KEY_MAX];
    key_of(r, name, key);
    uint32_t value;
    int rc = gguf_u32(r->g, key, &value, r->e);
    if (rc < 0) return rc;
    if (value < min || value > max)
        return err_set(r->e, ERR_BAD_INPUT, "%s: %s is %u; it must be between %u and %u",
                       gguf_name(r->g), key, value, min, max);
    *ret_value = value;
    return 0;
}

static int read_u32_or(const struct reader *r, const char *name, uint32_t min, uint32_t max,
                       uint32_t otherwise, uint32_t *ret_value)
{
    if (has(r, name)) return read_u32(r, name, min, max, ret_value);
    *ret_value = otherwise;
    return 0;
}

/* A float in (0, max]; NaN fails every comparison and so is refused. */
static int read_f32(const struct reader *r, const char *name, float max, float *ret_value)
{
    char key[KEY_MAX];
    key_of(r, name, key);
    float value;
    int rc = gguf_f32(r->g, key, &value, r->e);
    if (rc < 0) return rc;
    if (!(value > 0.0f && value <= max))
        return err_set(r->e, ERR_BAD_INPUT, "%s: %s is %g; it must be above 0 and at most %g",
                       gguf_name(r->g), key, (double)value, (double)max);
    *ret_value = value;
    return 0;
}

static int bad(const struct reader *r, const char *name, const char *why)
{
    return err_set(r->e, ERR_BAD_INPUT, "%s: %s.%s %s", gguf_name(r->g), r->prefix, name, why);
}

static int read_arch(const struct gguf *g, const struct arch **ret_arch, struct err *e)
{
    struct gguf_str name;
    int rc = gguf_text(g, "general.architecture", &name, e);
    if (rc < 0) return rc;
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        if (strlen(archs[i].name) == name.len && memcmp(archs[i].name, name.data, name.len) == 0) {
            *ret_arch = &archs[i];
            return 0;
        }
    }
    return err_set(e, ERR_UNSUPPORTED,
                   "%s: general.architecture is \"%s\"; this program runs llama", gguf_name(g),
                   gguf_show(name).text);
}

/* Heads: their number, those of K and V, their size. */
static int read_heads(const struct reader *r, struct hparams *h)
{
    int rc = read_u32(r, "attention.head_count", 1, MODEL_HEADS_MAX, &h->heads);
    if (rc < 0) return rc;
    rc = read_u32_or(r, "attention.head_count_kv", 1, MODEL_HEADS_MAX, h->heads, &h->kv_heads);
    if (rc < 0) return rc;
    if (h->heads % h->kv_heads != 0)
        return bad(r, "attention.head_count_kv", "does not divide attention.head_count");
    bool sized = has(r, "attention.key_length");
    if (!sized && h->dim % h->heads != 0)
        return bad(r, "attention.head_count", "does not divide embedding_length");
    if (!sized && h->dim / h->heads > KERN_HEAD_MAX)
        return bad(r, "attention.head_count", "makes heads larger than 256 values");
    rc = read_u32_or(r, "attention.key_length", 2, KERN_HEAD_MAX, h->dim / h->heads, &h->head_dim);
    if (rc < 0) return rc;
    uint32_t value_dim;
    rc = read_u32_or(r, "attention.value_length", 1, KERN_HEAD_MAX, h->head_dim, &value_dim);
    if (rc < 0) return rc;
    if (value_dim != h->head_dim)
        return bad(r, "attention.value_length", "differs from attention.key_length");
    if (hparams_q_dim(h) > MODEL_DIM_MAX * 4u)
        return bad(r, "attention.key_length", "times the heads is too large");
    return 0;
}

static int read_rope_scaling(const struct reader *r, struct hparams *h)
{
    char key[KEY_MAX];
    struct gguf_str kind = {"none", 4};
    key_of(r, "rope.scaling.type", key);
    int rc = gguf_has(r->g, key) ? gguf_text(r->g, key, &kind, r->e) : 0;
    if (rc < 0) return rc;
    h->rope_scale = 1.0;
    if (kind.len == 4 && memcmp(kind.data, "none", 4) == 0) return 0;
    if (kind.len != 6 || memcmp(kind.data, "linear", 6) != 0)
        return err_set(r->e, ERR_UNSUPPORTED, "%s: %s \"%s\" is not one we know (none, linear)",
                       gguf_name(r->g), key, gguf_show(kind).text);
    float factor;
    rc = read_f32(r, "rope.scaling.factor", 1e4f, &factor);
    if (rc == 0) h->rope_scale = (double)factor;
    return rc;
}

static int read_rope(const struct reader *r, struct hparams *h)
{
    int rc = read_u32_or(r, "rope.dimension_count", 2, h->head_dim, h->head_dim, &h->rope_dims);
    if (rc < 0) return rc;
    if (h->rope_dims % 2 != 0) return bad(r, "rope.dimension_count", "is odd");
    float base = 10000.0f;
    if (has(r, "rope.freq_base")) rc = read_f32(r, "rope.freq_base", 1e12f, &base);
    if (rc < 0) return rc;
    h->rope_base = (double)base;
    return read_rope_scaling(r, h);
}

/* The vocabulary is as large as the token embedding; weights.c checks the rest of the shapes. */
static int read_vocab(const struct reader *r, struct hparams *h)
{
    const struct gguf_tensor *t = gguf_tensor_find(r->g, "token_embd.weight");
    if (!t)
        return err_set(r->e, ERR_NOT_FOUND, "%s: there is no tensor token_embd.weight",
                       gguf_name(r->g));
    if (t->dims != 2 || t->shape[0] != h->dim || t->shape[1] < 1 || t->shape[1] > MODEL_VOCAB_MAX)
        return err_set(r->e, ERR_BAD_INPUT,
                       "%s: tensor token_embd.weight is [%llu, %llu]; expected [%u, at most %d]",
                       gguf_name(r->g), (unsigned long long)t->shape[0],
                       (unsigned long long)t->shape[1], h->dim, MODEL_VOCAB_MAX);
    h->vocab = (uint32_t)t->shape[1];
    return 0;
}

/* Features that would change the result and that this program does not compute. */
static int refuse_unknown(const struct reader *r)
{
    uint32_t experts;
    int rc = read_u32_or(r, "expert_count", 0, UINT32_MAX, 0, &experts);
    if (rc < 0) return rc;
    if (experts > 0)
        return err_set(r->e, ERR_UNSUPPORTED,
                       "%s: %s.expert_count is %u; mixtures of experts are not supported",
                       gguf_name(r->g), r->prefix, experts);
    return 0;
}

int hparams_read(const struct gguf *g, struct hparams *ret_hparams, struct err *e)
{
    struct hparams h = {0};
    int rc = read_arch(g, &h.arch, e);
    if (rc < 0) return rc;
    struct reader r = {g, h.arch->name, e};
    if ((rc = refuse_unknown(&r)) < 0 ||
        (rc = read_u32(&r, "block_count", 1, MODEL_LAYERS_MAX, &h.layers)) < 0 ||
        (rc = read_u32(&r, "embedding_length", 1, MODEL_DIM_MAX, &h.dim)) < 0 ||
        (rc = read_u32(&r, "feed_forward_length", 1, MODEL_FF_MAX, &h.ff)) < 0 ||
        (rc = read_u32(&r, "context_length", 1, MODEL_CONTEXT_MAX, &h.context)) < 0 ||
        (rc = read_f32(&r, "attention.layer_norm_rms_epsilon", 1.0f, &h.norm_eps)) < 0 ||
        (rc = read_heads(&r, &h)) < 0 || (rc = read_rope(&r, &h)) < 0 ||
        (rc = read_vocab(&r, &h)) < 0)
        return rc;
    *ret_hparams = h;
    return 0;
}
