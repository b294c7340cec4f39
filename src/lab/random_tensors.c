/* random_tensors: see random_tensors.h. */
#include "lab/random_tensors.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "model/gguf.h"

enum { GLOBAL_TENSORS = 5, LAYER_TENSORS = 20, NAMES_MAX = 256, SUPER_BLOCK = 256 };

/* What a matrix is for, as far as its type depends on it. */
enum role { ROLE_HEAD, ROLE_EMBEDDING, ROLE_VALUE, ROLE_OUTPUT, ROLE_DOWN, ROLE_OTHER };

/* `more`: for values and feed-forward outputs of about half the layers. */
static const struct random_type {
    const char *name;
    uint32_t file, most, more;
} types[] = {
#define WHOLE(name, number, file, ...) {#name, file, GGUF_##name, GGUF_##name},
    KERN_WEIGHTS(WHOLE)
#undef WHOLE
        {"Q3_K_M", 12, GGUF_Q3_K, GGUF_Q4_K},
    {"Q4_K_M", 15, GGUF_Q4_K, GGUF_Q6_K},
    {"Q5_K_M", 17, GGUF_Q5_K, GGUF_Q6_K},
};
enum { TYPES = sizeof types / sizeof *types };

int random_type_find(const char *name, const struct random_type **ret_type, struct err *e)
{
    char names[NAMES_MAX];
    size_t at = 0;
    for (int i = 0; i < TYPES; i++) {
        if (strcmp(types[i].name, name) == 0) {
            *ret_type = &types[i];
            return 0;
        }
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "", types[i].name);
        CHECK(at < sizeof names);
    }
    return err_set(e, ERR_NOT_FOUND, "no type \"%.20s\"; known: %s", name, names);
}

const char *random_type_name(const struct random_type *t)
{
    return t->name;
}

uint32_t random_type_file(const struct random_type *t)
{
    return t->file;
}

const struct random_type *random_type_at(uint32_t i)
{
    return i < TYPES ? &types[i] : NULL;
}

/* The list in the making. */
struct tensor_list {
    const struct random_shape *s;
    const struct random_type *t;
    struct random_tensor *tensors;
    uint32_t n, max, layer;
};

/* The first and last eighth of the layers and every third between. */
static bool wants_more(uint32_t layer, uint32_t layers)
{
    uint32_t eighth = layers / 8;
    return layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
}

static uint32_t mixed_q3(enum role role, uint32_t layer, uint32_t layers)
{
    if (role == ROLE_VALUE) return layer < 2 ? GGUF_Q5_K : GGUF_Q4_K;
    if (role == ROLE_DOWN) return layer < layers / 16 ? GGUF_Q5_K : GGUF_Q4_K;
    return role == ROLE_OUTPUT ? GGUF_Q4_K : GGUF_Q3_K;
}

static bool is_float(uint32_t type)
{
    return !gguf_type_info(type)->quantised;
}

static uint32_t wanted_type(const struct tensor_list *l, enum role role)
{
    const struct random_type *t = l->t;
    if (is_float(t->most)) return t->most;
    if (role == ROLE_HEAD) return t->most == GGUF_Q8_0 ? GGUF_Q8_0 : GGUF_Q6_K;
    if (t->more == t->most) return t->most;
    if (t->most == GGUF_Q3_K) return mixed_q3(role, l->layer, l->s->layers);
    bool more = (role == ROLE_VALUE || role == ROLE_DOWN) && wants_more(l->layer, l->s->layers);
    return more ? t->more : t->most;
}

/* Rows that are no whole super-blocks. The head falls from any such type to Q8_0. */
static uint32_t fitting_type(uint32_t type, uint64_t cols)
{
    static const struct {
        uint32_t from, to;
    } smaller[] = {{GGUF_Q2_K, GGUF_Q4_0}, {GGUF_Q3_K, GGUF_Q4_0}, {GGUF_Q4_K, GGUF_Q5_0},
                   {GGUF_Q5_K, GGUF_Q5_1}, {GGUF_Q6_K, GGUF_Q8_0}, {GGUF_IQ4_XS, GGUF_IQ4_NL}};
    if (cols % gguf_type_info(type)->block == 0) return type;
    for (size_t i = 0; i < sizeof smaller / sizeof *smaller; i++)
        if (smaller[i].from == type && cols % 32 == 0) return smaller[i].to;
    return GGUF_F16;
}

static struct random_tensor *add(struct tensor_list *l, enum random_fill fill, const char *format,
                                 va_list args)
{
    CHECK(l->n < l->max);
    struct random_tensor *t = &l->tensors[l->n++];
    *t = (struct random_tensor){.fill = fill, .type = GGUF_F32, .shape = {1, 1, 1}};
    CHECK(vsnprintf(t->name, sizeof t->name, format, args) < RANDOM_NAME_MAX);
    return t;
}

static void set_size(struct random_tensor *t)
{
    const struct kern_type_info *info = gguf_type_info(t->type);
    t->bytes = t->shape[0] / info->block * info->block_bytes * t->shape[1] * t->shape[2];
}

__attribute__((format(printf, 4, 5))) static void
vector(struct tensor_list *l, enum random_fill fill, uint64_t n, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    struct random_tensor *t = add(l, fill, format, args);
    va_end(args);
    t->dims = 1;
    t->shape[0] = n;
    t->deviation = 0.1f; /* of a bias */
    set_size(t);
}

/* [experts][rows][cols]; experts 0: a plain matrix. */
__attribute__((format(printf, 6, 7))) static void matrix(struct tensor_list *l, enum role role,
                                                         uint64_t cols, uint64_t rows,
                                                         uint64_t experts, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    struct random_tensor *t = add(l, FILL_WEIGHTS, format, args);
    va_end(args);
    t->dims = experts ? 3 : 2;
    t->shape[0] = cols;
    t->shape[1] = rows;
    if (experts) t->shape[2] = experts;
    t->type = fitting_type(wanted_type(l, role), cols);
    float root = 1.0f; /* Newton's: the same bits everywhere, and libm is not needed */
    for (int i = 0; i < 32; i++)
        root = 0.5f * (root + (float)cols / root);
    t->deviation = 1.0f / root;
    set_size(t);
}

static void add_qkv(struct tensor_list *l, uint32_t i)
{
    const struct random_shape *s = l->s;
    uint64_t q = (uint64_t)s->heads * s->head_dim, kv = (uint64_t)s->kv_heads * s->head_dim;
    if (s->fused) {
        matrix(l, ROLE_VALUE, s->dim, q + 2 * kv, 0, "blk.%u.attn_qkv.weight", i);
    } else {
        matrix(l, ROLE_OTHER, s->dim, q, 0, "blk.%u.attn_q.weight", i);
        matrix(l, ROLE_OTHER, s->dim, kv, 0, "blk.%u.attn_k.weight", i);
        matrix(l, ROLE_VALUE, s->dim, kv, 0, "blk.%u.attn_v.weight", i);
    }
    if (s->qkv_bias) {
        vector(l, FILL_WEIGHTS, q, "blk.%u.attn_q.bias", i);
        vector(l, FILL_WEIGHTS, kv, "blk.%u.attn_k.bias", i);
        vector(l, FILL_WEIGHTS, kv, "blk.%u.attn_v.bias", i);
    }
    if (s->head_norms || s->whole_norms) {
        vector(l, FILL_NORM, s->whole_norms ? q : s->head_dim, "blk.%u.attn_q_norm.weight", i);
        vector(l, FILL_NORM, s->whole_norms ? kv : s->head_dim, "blk.%u.attn_k_norm.weight", i);
    }
    matrix(l, ROLE_OUTPUT, q, s->dim, 0, "blk.%u.attn_output.weight", i);
}

static void add_feed_forward(struct tensor_list *l, uint32_t i)
{
    const struct random_shape *s = l->s;
    if (s->experts) {
        matrix(l, ROLE_OTHER, s->dim, s->experts, 0, "blk.%u.ffn_gate_inp.weight", i);
        l->tensors[l->n - 1].type = GGUF_F32;
        set_size(&l->tensors[l->n - 1]);
        matrix(l, ROLE_OTHER, s->dim, s->expert_ff, s->experts, "blk.%u.ffn_gate_exps.weight", i);
        matrix(l, ROLE_OTHER, s->dim, s->expert_ff, s->experts, "blk.%u.ffn_up_exps.weight", i);
        matrix(l, ROLE_DOWN, s->expert_ff, s->dim, s->experts, "blk.%u.ffn_down_exps.weight", i);
        return;
    }
    if (!s->fused) matrix(l, ROLE_OTHER, s->dim, s->ff, 0, "blk.%u.ffn_gate.weight", i);
    matrix(l, ROLE_OTHER, s->dim, s->fused ? 2 * (uint64_t)s->ff : s->ff, 0, "blk.%u.ffn_up.weight",
           i);
    matrix(l, ROLE_DOWN, s->ff, s->dim, 0, "blk.%u.ffn_down.weight", i);
}

static void add_layer(struct tensor_list *l, uint32_t i)
{
    const struct random_shape *s = l->s;
    l->layer = i;
    if (!s->no_pre_norms) vector(l, FILL_NORM, s->dim, "blk.%u.attn_norm.weight", i);
    add_qkv(l, i);
    if (s->post_norms) vector(l, FILL_NORM, s->dim, "blk.%u.post_attention_norm.weight", i);
    if (!s->no_pre_norms) vector(l, FILL_NORM, s->dim, "blk.%u.ffn_norm.weight", i);
    add_feed_forward(l, i);
    if (s->post_norms) vector(l, FILL_NORM, s->dim, "blk.%u.post_ffw_norm.weight", i);
}

int random_tensors_list(const struct random_shape *s, const struct random_type *t,
                        struct random_tensor **ret_tensors, uint32_t *ret_n, struct err *e)
{
    struct tensor_list l = {.s = s, .t = t, .max = GLOBAL_TENSORS + LAYER_TENSORS * s->layers};
    l.tensors = mem_alloc(l.max * sizeof *l.tensors);
    if (!l.tensors) return err_set(e, ERR_NO_MEMORY, "no memory for a list of tensors");
    matrix(&l, s->untied ? ROLE_EMBEDDING : ROLE_HEAD, s->dim, s->vocab, 0, "token_embd.weight");
    if (s->scaling == SCALING_LLAMA3) vector(&l, FILL_ROPE, s->head_dim / 2, "rope_freqs.weight");
    if (s->scaling == SCALING_LONG) {
        vector(&l, FILL_ROPE, s->head_dim / 2, "rope_factors_long.weight");
        vector(&l, FILL_ONES, s->head_dim / 2, "rope_factors_short.weight");
    }
    for (uint32_t i = 0; i < s->layers; i++)
        add_layer(&l, i);
    vector(&l, FILL_NORM, s->dim, "output_norm.weight");
    if (s->untied) matrix(&l, ROLE_HEAD, s->dim, s->vocab, 0, "output.weight");
    *ret_tensors = l.tensors;
    *ret_n = l.n;
    return 0;
}
