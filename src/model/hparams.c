/*
 * hparams: see hparams.h. Relies on gguf.c for types; trusts no value.
 */
#include "model/hparams.h"

#include <stdio.h>
#include <string.h>

#include "kern/kern.h"
#include "model/gguf.h"

#define NEOX .rope = ROPE_HALVES
static const struct arch archs[] = {
    {.name = "llama", .experts = true, .window = WINDOW_ALL},
    {.name = "smollm3", .no_rope_every = 4},
    {.name = "qwen2", NEOX},
    {.name = "qwen3", NEOX, .qk_norm = QK_NORM_HEAD},
    {.name = "qwen3moe", NEOX, .qk_norm = QK_NORM_HEAD, .experts = true},
    {.name = "gemma", NEOX, .gelu = true, .embed_by_root_dim = true},
    {.name = "gemma2",
     NEOX,
     .post_norm = true,
     .gelu = true,
     .embed_by_root_dim = true,
     .caps = true,
     .window = 2,
     .window_size = 4096,
     .scale_by_dim = 46},
    {.name = "gemma3",
     NEOX,
     .qk_norm = QK_NORM_HEAD,
     .post_norm = true,
     .gelu = true,
     .embed_by_root_dim = true,
     .caps = true,
     .window = 6,
     .window_plain_rope = true,
     .window_rope_base = 10000.0f,
     .scale_by_dim = 62},
    {.name = "phi3", NEOX, .fused_gate = true, .window = WINDOW_ALL},
    {.name = "olmo2",
     NEOX,
     .qk_norm = QK_NORM_ROW,
     .no_pre_norm = true,
     .post_norm = true,
     .window = 4,
     .window_plain_rope = true},
    {.name = "olmoe", NEOX, .qk_norm = QK_NORM_ROW, .experts = true, .plain_experts = true},
    {.name = "granite", .scales = true, .rope_switch = true},
    {.name = "granitemoe", .scales = true, .rope_switch = true, .experts = true},
};

/* Keys of an architecture that are read below, or change no result. */
static const char *const known_keys[] = {"vocab_size",
                                         "block_count",
                                         "context_length",
                                         "embedding_length",
                                         "feed_forward_length",
                                         "tensor_data_layout",
                                         "attention.head_count",
                                         "attention.head_count_kv",
                                         "attention.key_length",
                                         "attention.value_length",
                                         "attention.layer_norm_rms_epsilon",
                                         "attention.layer_norm_epsilon",
                                         "attention.causal",
                                         "attention.scale",
                                         "attention.sliding_window",
                                         "attention.sliding_window_pattern",
                                         "attn_logit_softcapping",
                                         "final_logit_softcapping",
                                         "embedding_scale",
                                         "residual_scale",
                                         "logit_scale",
                                         "expert_count",
                                         "expert_used_count",
                                         "expert_feed_forward_length",
                                         "expert_weights_scale",
                                         "expert_weights_norm",
                                         "expert_gating_func",
                                         "expert_shared_count",
                                         "expert_shared_feed_forward_length",
                                         "rope.dimension_count",
                                         "rope.freq_base",
                                         "rope.freq_base_swa",
                                         "rope.scale_linear",
                                         "rope.scaling.type",
                                         "rope.scaling.factor",
                                         "rope.scaling.attn_factor",
                                         "rope.scaling.original_context_length",
                                         "rope.scaling.finetuned",
                                         "rope.scaling.yarn_log_multiplier",
                                         "rope.scaling.yarn_beta_fast",
                                         "rope.scaling.yarn_beta_slow",
                                         "rope.scaling.yarn_ext_factor",
                                         "rope.scaling.yarn_attn_factor",
                                         "rope.dimension_count_swa",
                                         "attention.key_length_swa",
                                         "attention.value_length_swa",
                                         "pooling_type"};

/* Keys that we do not compute, with the values that mean "not used": those are taken. */
static const struct neutral_key {
    const char *name;
    double values[2];
} neutral_keys[] = {
    {"attention.clamp_kqv", {0, 0}},         {"attention.max_alibi_bias", {0, 0}},
    {"attention.output_scale", {1, 0}},      {"attention.q_lora_rank", {0, 0}},
    {"attention.kv_lora_rank", {0, 0}},      {"attention.relative_buckets_count", {0, 0}},
    {"attention.shared_kv_layers", {0, 0}},  {"attention.temperature_length", {0, 0}},
    {"attention.temperature_scale", {0, 0}}, {"expert_group_count", {0, 1}},
    {"expert_group_used_count", {0, 1}},     {"interleave_moe_layer_step", {0, 1}},
    {"leading_dense_block_count", {0, 0}},   {"moe_every_n_layers", {0, 1}},
    {"n_deepstack_layers", {0, 0}},          {"nextn_predict_layers", {0, 0}},
    {"rescale_every_n_layers", {0, 0}},      {"swin_norm", {0, 0}},
    {"use_parallel_residual", {0, 0}}};

enum { KEY_MAX = 128 };
#define FACTOR_ROUNDING 5e-7 /* a few steps of a float32 */

/* Where keys are read from and whose they are. */
struct key_reader {
    const struct gguf *g;
    const char *prefix;
    struct err *e;
};

static void key_of(const struct key_reader *r, const char *name, char key[KEY_MAX])
{
    snprintf(key, KEY_MAX, "%s.%s", r->prefix, name);
}

static bool has(const struct key_reader *r, const char *name)
{
    char key[KEY_MAX];
    key_of(r, name, key);
    return gguf_has(r->g, key);
}

/* Some writers give one number for each layer: where all are equal, it is that number. */
static bool read_equal_list(const struct gguf *g, const char *key, uint32_t *ret_value)
{
    struct gguf_array list;
    if (gguf_array(g, key, &list, NULL) < 0 || list.n == 0 || list.type > 5) return false;
    int32_t first = gguf_array_i32(&list, 0);
    for (uint64_t i = 1; i < list.n; i++)
        if (gguf_array_i32(&list, i) != first) return false;
    *ret_value = (uint32_t)first;
    return first >= 0;
}

static int read_u32(const struct key_reader *r, const char *name, uint32_t min, uint32_t max,
                    uint32_t *ret_value)
{
    char key[KEY_MAX];
    key_of(r, name, key);
    uint32_t value;
    int rc = read_equal_list(r->g, key, &value) ? 0 : gguf_u32(r->g, key, &value, r->e);
    if (rc < 0) return rc;
    if (value < min || value > max)
        return err_set(r->e, ERR_BAD_INPUT, "%s: %s is %u; it must be between %u and %u",
                       gguf_name(r->g), key, value, min, max);
    *ret_value = value;
    return 0;
}

static int read_u32_or(const struct key_reader *r, const char *name, uint32_t min, uint32_t max,
                       uint32_t otherwise, uint32_t *ret_value)
{
    if (has(r, name)) return read_u32(r, name, min, max, ret_value);
    *ret_value = otherwise;
    return 0;
}

/* A number, also one that is written as an integer. */
static int read_real(const struct gguf *g, const char *key, float *ret_value, struct err *e)
{
    uint32_t whole;
    if (gguf_u32(g, key, &whole, NULL) < 0) return gguf_f32(g, key, ret_value, e);
    *ret_value = (float)whole;
    return 0;
}

/* A float in (0, max]; NaN fails every comparison and so is refused. */
static int read_f32(const struct key_reader *r, const char *name, float max, float *ret_value)
{
    char key[KEY_MAX];
    key_of(r, name, key);
    float value;
    int rc = read_real(r->g, key, &value, r->e);
    if (rc < 0) return rc;
    if (!(value > 0.0f && value <= max))
        return err_set(r->e, ERR_BAD_INPUT, "%s: %s is %g; it must be above 0 and at most %g",
                       gguf_name(r->g), key, (double)value, (double)max);
    *ret_value = value;
    return 0;
}

static int bad(const struct key_reader *r, const char *name, const char *why)
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
    char names[160] = "";
    for (size_t i = 0, n = 0; i < sizeof archs / sizeof *archs; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", archs[i].name);
    return err_set(e, ERR_UNSUPPORTED, "%s: general.architecture is \"%s\"; this program runs %s",
                   gguf_name(g), gguf_show(name).text, names);
}

/* A size of windowed layers, which we compute where it is that of the others. */
static int read_same(const struct key_reader *r, const char *name, uint32_t size)
{
    uint32_t value;
    int rc = read_u32_or(r, name, 0, UINT32_MAX, size, &value);
    if (rc < 0 || value == size) return rc;
    return err_set(r->e, ERR_UNSUPPORTED,
                   "%s: %s.%s is %u, and %u in other layers: we compute "
                   "layers of one size only",
                   gguf_name(r->g), r->prefix, name, value, size);
}

/* Heads: their number, those of K and V, their size. */
static int read_heads(const struct key_reader *r, struct hparams *h)
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
    if ((rc = read_same(r, "attention.key_length_swa", h->head_dim)) < 0 ||
        (rc = read_same(r, "attention.value_length_swa", h->head_dim)) < 0)
        return rc;
    if (hparams_q_dim(h) > MODEL_DIM_MAX * 4u)
        return bad(r, "attention.key_length", "times the heads is too large");
    return 0;
}

static int read_f32_or(const struct key_reader *r, const char *name, float max, float otherwise,
                       float *ret_value)
{
    if (has(r, name)) return read_f32(r, name, max, ret_value);
    *ret_value = otherwise;
    return 0;
}

/* The same, where 0 is written for what is not used. */
static int read_f32_unless_0(const struct key_reader *r, const char *name, float max,
                             float otherwise, float *ret_value)
{
    char key[KEY_MAX];
    float value;
    key_of(r, name, key);
    if (gguf_has(r->g, key) && read_real(r->g, key, &value, NULL) == 0 && value == 0.0f) {
        *ret_value = otherwise;
        return 0;
    }
    return read_f32_or(r, name, max, otherwise, ret_value);
}

static bool is_text(struct gguf_str s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

/* A factor that converters write beside the scaling: taken where it says what is computed anyway.
 * -1 means that the program chooses. */
static int check_factor(const struct key_reader *r, const char *name, double computed, double also)
{
    char key[KEY_MAX];
    float value;
    key_of(r, name, key);
    if (!gguf_has(r->g, key)) return 0;
    int rc = read_real(r->g, key, &value, r->e);
    if (rc < 0) return rc;
    double v = (double)value, off = v > computed ? v - computed : computed - v;
    if (off <= FACTOR_ROUNDING * computed || v == also || v == -1.0) return 0;
    return err_set(r->e, ERR_UNSUPPORTED, "%s: %s is %.9g; we compute %.9g only", gguf_name(r->g),
                   key, v, computed);
}

/* YaRN's own factors. In other scalings the first is 1 and the second, the share of YaRN, 0. */
static int check_yarn_factors(const struct key_reader *r, const struct rope *rope)
{
    bool yarn = rope->scaling == ROPE_YARN;
    double attention = yarn && rope->factor > 1.0 ? 1.0 + 0.1 * kern_log(rope->factor) : 1.0;
    int rc = check_factor(r, "rope.scaling.yarn_attn_factor", attention, 1.0);
    double share = yarn ? 1.0 : 0.0;
    if (rc == 0 && rope->factor == 1.0) return 0; /* both kinds of angle are the same */
    return rc < 0 ? rc : check_factor(r, "rope.scaling.yarn_ext_factor", share, share);
}

/* YaRN: angles of fast pairs stay, those of slow ones are divided, and attention is sharpened. */
static int read_yarn(const struct key_reader *r, struct hparams *h)
{
    struct rope *rope = &h->rope;
    float fast, slow, multiplier;
    int rc = read_f32_or(r, "rope.scaling.yarn_beta_fast", 1e4f, 32.0f, &fast);
    if (rc == 0) rc = read_f32_or(r, "rope.scaling.yarn_beta_slow", 1e4f, 1.0f, &slow);
    if (rc == 0)
        rc = read_f32_unless_0(r, "rope.scaling.yarn_log_multiplier", 100.0f, 0.0f, &multiplier);
    if (rc < 0) return rc;
    if (rope->base <= 1.0) return bad(r, "rope.freq_base", "must be above 1 for YaRN");
    double log_factor = rope->factor > 1.0 ? kern_log(rope->factor) : 0.0;
    rope->beta_fast = (double)fast;
    rope->beta_slow = (double)slow;
    double plain = 1.0 + 0.1 * log_factor, all = 1.0 + 0.1 * (double)multiplier * log_factor;
    rope->magnitude *= (float)(plain / all);
    return 0;
}

static int read_rope_scaling(const struct key_reader *r, struct hparams *h)
{
    static const char *const kinds[] = {"none", "linear", "yarn", "longrope"};
    char key[KEY_MAX];
    struct gguf_str kind = {"linear", 6};
    struct rope *rope = &h->rope;
    key_of(r, "rope.scaling.type", key);
    int rc = gguf_has(r->g, key) ? gguf_text(r->g, key, &kind, r->e) : 0;
    if (rc < 0) return rc;
    uint32_t k = 0;
    while (k < 4 && !is_text(kind, kinds[k]))
        k++;
    if (k == 4)
        return err_set(r->e, ERR_UNSUPPORTED,
                       "%s: %s \"%s\" is not one we know (none, linear, yarn, longrope)",
                       gguf_name(r->g), key, gguf_show(kind).text);
    rope->scaling = (enum rope_scaling)k;
    float factor = 0.0f;
    const char *name = has(r, "rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear";
    key_of(r, name, key);
    if (gguf_has(r->g, key)) rc = read_real(r->g, key, &factor, r->e);
    if (rc == 0 && factor != 0.0f) rc = read_f32(r, name, 1e4f, &factor); /* 0: not scaled */
    if (rc == 0)
        rc = read_u32_or(r, "rope.scaling.original_context_length", 0, MODEL_CONTEXT_MAX,
                         h->context, &rope->original);
    if (rope->original == 0) rope->original = h->context;
    if (rc == 0) rc = read_f32_or(r, "rope.scaling.attn_factor", 100.0f, 1.0f, &rope->magnitude);
    if (rc < 0) return rc;
    rope->has_long = gguf_tensor_find(r->g, "rope_factors_long.weight") != NULL;
    rope->factor = factor == 0.0f || rope->scaling == ROPE_PLAIN ? 1.0 : (double)factor;
    rc = check_yarn_factors(r, rope);
    return rc == 0 && rope->scaling == ROPE_YARN ? read_yarn(r, h) : rc;
}

static int read_rope(const struct key_reader *r, struct hparams *h)
{
    const struct arch *arch = h->arch;
    int rc = read_u32_or(r, "rope.dimension_count", 2, h->head_dim, h->head_dim, &h->rope_dims);
    if (rc < 0) return rc;
    if (h->rope_dims % 2 != 0) return bad(r, "rope.dimension_count", "is odd");
    if ((rc = read_same(r, "rope.dimension_count_swa", h->rope_dims)) < 0) return rc;
    float base, window_base = 0.0f;
    rc = read_f32_or(r, "rope.freq_base", 1e12f, 10000.0f, &base);
    if (rc < 0) return rc;
    h->rope.base = (double)base;
    if ((rc = read_rope_scaling(r, h)) < 0) return rc;
    h->window_rope = h->rope;
    if (arch->window_plain_rope)
        h->window_rope = (struct rope){
            .base = h->rope.base, .factor = 1.0, .original = h->rope.original, .magnitude = 1.0f};
    float otherwise = arch->window_rope_base > 0.0f ? arch->window_rope_base : base;
    rc = read_f32_or(r, "rope.freq_base_swa", 1e12f, otherwise, &window_base);
    h->window_rope.base = (double)window_base;
    return rc;
}

/* Which layers see a window only: as the file lists them, or by a period. */
static int read_window_pattern(const struct key_reader *r, struct hparams *h)
{
    const char *name = "attention.sliding_window_pattern";
    char key[KEY_MAX];
    struct gguf_array list;
    uint32_t period = h->arch->window == WINDOW_ALL ? 0 : h->arch->window;
    key_of(r, name, key);
    if (gguf_has(r->g, key) && gguf_array(r->g, key, &list, NULL) == 0) {
        if (list.n < h->layers || (list.type != 7 && list.type > 5))
            return bad(r, name, "must have a truth value for each layer");
        for (uint32_t i = 0; i < h->layers; i++)
            h->windowed[i] = list.type == 7 ? list.data[i] != 0 : gguf_array_i32(&list, i) != 0;
        return 0;
    }
    int rc = read_u32_or(r, name, 0, MODEL_LAYERS_MAX, period, &period);
    for (uint32_t i = 0; i < h->layers; i++)
        h->windowed[i] = period == 0 || i % period < period - 1;
    return rc;
}

static int read_window(const struct key_reader *r, struct hparams *h)
{
    int rc =
        read_u32_or(r, "attention.sliding_window", 0, UINT32_MAX, h->arch->window_size, &h->window);
    if (rc < 0 || h->window == 0) return rc;
    if (h->arch->window == WINDOW_NONE && h->window < h->context)
        return bad(r, "attention.sliding_window",
                   "is set, which we do not compute for this architecture");
    if (h->window >= h->context && h->arch->window <= WINDOW_ALL) {
        h->window = 0; /* as wide as the context: no window */
        return 0;
    }
    return read_window_pattern(r, h);
}

/* A factor or cap, which only some architectures have. 0 and the value that is computed anyway mean
 * that it is not used. */
static int read_scale(const struct key_reader *r, const char *name, bool allowed, float otherwise,
                      float *ret_value)
{
    int rc = read_f32_unless_0(r, name, 1e9f, otherwise, ret_value);
    if (rc < 0) return rc;
    if (!allowed && *ret_value != otherwise)
        return err_set(r->e, ERR_UNSUPPORTED,
                       "%s: key %s.%s is %g: we do not compute it for this architecture",
                       gguf_name(r->g), r->prefix, name, (double)*ret_value);
    if (*ret_value != otherwise && *ret_value < 1e-9f)
        return bad(r, name, "is too small: its reciprocal would leave float32");
    return 0;
}

static int read_scales(const struct key_reader *r, struct hparams *h)
{
    const struct arch *arch = h->arch;
    bool by_dim = arch->scale_by_dim == h->layers;
    float root = __builtin_sqrtf((float)(by_dim ? h->dim / h->heads : h->head_dim)), logit;
    float embed = arch->embed_by_root_dim ? __builtin_sqrtf((float)h->dim) : 1.0f;
    int rc;
    if ((rc = read_scale(r, "embedding_scale", arch->scales, embed, &h->embed_scale)) < 0 ||
        (rc = read_scale(r, "residual_scale", arch->scales, 1.0f, &h->residual_scale)) < 0 ||
        (rc = read_scale(r, "attention.scale", true, 1.0f / root, &h->attention_scale)) < 0 ||
        (rc = read_scale(r, "logit_scale", arch->scales, 1.0f, &logit)) < 0 ||
        (rc = read_scale(r, "attn_logit_softcapping", arch->caps, 0.0f, &h->attention_cap)) < 0 ||
        (rc = read_scale(r, "final_logit_softcapping", arch->caps, 0.0f, &h->logit_cap)) < 0)
        return rc;
    h->logit_scale = 1.0f / logit;
    return 0;
}

static int read_experts(const struct key_reader *r, struct hparams *h)
{
    uint32_t shared, gating;
    int rc = read_u32_or(r, "expert_count", 0, MODEL_EXPERTS_MAX, 0, &h->experts);
    if (rc < 0) return rc;
    if (h->experts == 0) return 0;
    if (!h->arch->experts) return bad(r, "expert_count", "is set, but the architecture has none");
    if ((rc = read_u32(r, "expert_used_count", 1, h->experts, &h->experts_used)) < 0 ||
        (rc = read_u32_or(r, "expert_feed_forward_length", 1, MODEL_FF_MAX, h->ff, &h->ff)) < 0 ||
        (rc = read_f32_unless_0(r, "expert_weights_scale", 1e4f, 1.0f, &h->expert_scale)) < 0 ||
        (rc = read_u32_or(r, "expert_gating_func", 0, 9, 1, &gating)) < 0 ||
        (rc = read_u32_or(r, "expert_shared_count", 0, 9, 0, &shared)) < 0)
        return rc;
    if (h->experts_used > MODEL_EXPERTS_USED_MAX) return bad(r, "expert_used_count", "is above 32");
    if (gating > 1) return bad(r, "expert_gating_func", "is not softmax (1)");
    if (shared == 0)
        rc = read_u32_or(r, "expert_shared_feed_forward_length", 0, MODEL_FF_MAX, 0, &shared);
    if (rc < 0) return rc;
    if (shared != 0) return bad(r, "expert_shared_count", "is not 0; we compute no shared experts");
    bool sums_to_one = !h->arch->plain_experts;
    char key[KEY_MAX];
    key_of(r, "expert_weights_norm", key);
    if (gguf_has(r->g, key) && (rc = gguf_bool(r->g, key, &sums_to_one, r->e)) < 0) return rc;
    if (sums_to_one == h->arch->plain_experts)
        return bad(r, "expert_weights_norm", "is not what this architecture computes");
    return 0;
}

/* The vocabulary is as large as the token embedding; weights.c checks the rest of the shapes. */
static int read_vocab(const struct key_reader *r, struct hparams *h)
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

static const struct neutral_key *find_neutral(struct gguf_str name)
{
    for (size_t k = 0; k < sizeof neutral_keys / sizeof *neutral_keys; k++)
        if (is_text(name, neutral_keys[k].name)) return &neutral_keys[k];
    return NULL;
}

/* Whether the value of that key means "not used". */
static bool is_neutral(const struct gguf *g, struct gguf_str key, const struct neutral_key *by)
{
    char text[KEY_MAX];
    uint32_t whole;
    float real = 0.0f;
    bool flag = false;
    if (key.len >= sizeof text) return false;
    memcpy(text, key.data, key.len);
    text[key.len] = 0;
    if (read_equal_list(g, text, &whole))
        real = (float)whole;
    else if (gguf_bool(g, text, &flag, NULL) == 0)
        real = flag ? 1.0f : 0.0f;
    else if (read_real(g, text, &real, NULL) < 0)
        return false;
    return (double)real == by->values[0] || (double)real == by->values[1];
}

/* Of a part for pictures or sound, which texts do not use (weights_beside). */
static bool is_beside(struct gguf_str name)
{
    static const char *const parts[] = {"vision.", "audio.", "mm."};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (name.len > strlen(parts[i]) && memcmp(name.data, parts[i], strlen(parts[i])) == 0)
            return true;
    return false;
}

static int refuse_key(const struct key_reader *r, struct gguf_str key, struct gguf_str name)
{
    if (is_beside(name)) return 0;
    const struct neutral_key *known = find_neutral(name);
    if (!known)
        return err_set(r->e, ERR_UNSUPPORTED,
                       "%s: key %s is not one we know, and it may change the results",
                       gguf_name(r->g), gguf_show(key).text);
    if (is_neutral(r->g, key, known)) return 0;
    return err_set(r->e, ERR_UNSUPPORTED,
                   "%s: key %s has a value that changes the results, and we do not compute it",
                   gguf_name(r->g), gguf_show(key).text);
}

/* Keys of the architecture that we do not know may change the result; so may some values. */
static int refuse_unknown(const struct key_reader *r, bool rope_switch)
{
    size_t prefix = strlen(r->prefix);
    for (size_t i = 0; i < gguf_key_count(r->g); i++) {
        struct gguf_str key = gguf_key_at(r->g, i);
        if (key.len <= prefix + 1 || memcmp(key.data, r->prefix, prefix) != 0 ||
            key.data[prefix] != '.')
            continue;
        struct gguf_str name = {key.data + prefix + 1, key.len - prefix - 1};
        size_t k = 0, n = sizeof known_keys / sizeof *known_keys;
        while (k < n && !is_text(name, known_keys[k]))
            k++;
        int rc = k == n ? refuse_key(r, key, name) : 0;
        if (rc < 0) return rc;
    }
    bool causal = true, rotates = true;
    char key[KEY_MAX];
    key_of(r, "attention.causal", key);
    if (gguf_has(r->g, key) && (gguf_bool(r->g, key, &causal, NULL) < 0 || !causal))
        return bad(r, "attention.causal", "is false; we run causal models only");
    key_of(r, "rope.scaling.finetuned", key);
    if (rope_switch && gguf_has(r->g, key) &&
        (gguf_bool(r->g, key, &rotates, NULL) < 0 || !rotates))
        return bad(r, "rope.scaling.finetuned", "is false, so positions would not be rotated");
    return 0;
}

int hparams_read(const struct gguf *g, struct hparams *ret_hparams, struct err *e)
{
    struct hparams h = {0};
    int rc = read_arch(g, &h.arch, e);
    if (rc < 0) return rc;
    struct key_reader r = {g, h.arch->name, e};
    if ((rc = refuse_unknown(&r, h.arch->rope_switch)) < 0 ||
        (rc = read_u32(&r, "block_count", 1, MODEL_LAYERS_MAX, &h.layers)) < 0 ||
        (rc = read_u32(&r, "embedding_length", 1, MODEL_DIM_MAX, &h.dim)) < 0 ||
        (rc = read_u32(&r, "feed_forward_length", 1, MODEL_FF_MAX, &h.ff)) < 0 ||
        (rc = read_u32(&r, "context_length", 1, MODEL_CONTEXT_MAX, &h.context)) < 0 ||
        (rc = read_f32(&r, "attention.layer_norm_rms_epsilon", 1.0f, &h.norm_eps)) < 0 ||
        (rc = read_heads(&r, &h)) < 0 || (rc = read_rope(&r, &h)) < 0 ||
        (rc = read_window(&r, &h)) < 0 || (rc = read_scales(&r, &h)) < 0 ||
        (rc = read_experts(&r, &h)) < 0 || (rc = read_vocab(&r, &h)) < 0)
        return rc;
    hparams_set_context(&h, h.context);
    *ret_hparams = h;
    return 0;
}

void hparams_set_context(struct hparams *h, uint32_t context)
{
    struct rope *const ropes[] = {&h->rope, &h->window_rope};
    for (int i = 0; i < 2; i++)
        ropes[i]->use_long = ropes[i]->has_long && context > ropes[i]->original;
}
