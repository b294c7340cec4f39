/* reference: see reference.h. */
#include "support/reference.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "kern/kern.h"
#include "model/gguf.h"
#include "model/hparams.h"

enum { LAYERS_MAX = 16, Q8K_BLOCK = 256 };

/* The tensors of a layer by name; those that a file lacks have no weights. */
#define TENSORS(X)                                                                                 \
    X(ATTN_NORM, "attn_norm.weight")                                                               \
    X(Q, "attn_q.weight")                                                                          \
    X(K, "attn_k.weight")                                                                          \
    X(V, "attn_v.weight")                                                                          \
    X(QKV, "attn_qkv.weight")                                                                      \
    X(Q_BIAS, "attn_q.bias")                                                                       \
    X(K_BIAS, "attn_k.bias")                                                                       \
    X(V_BIAS, "attn_v.bias")                                                                       \
    X(QKV_BIAS, "attn_qkv.bias")                                                                   \
    X(Q_NORM, "attn_q_norm.weight")                                                                \
    X(K_NORM, "attn_k_norm.weight")                                                                \
    X(O, "attn_output.weight")                                                                     \
    X(O_BIAS, "attn_output.bias")                                                                  \
    X(ATTN_POST, "post_attention_norm.weight")                                                     \
    X(FFN_NORM, "ffn_norm.weight")                                                                 \
    X(GATE, "ffn_gate.weight")                                                                     \
    X(UP, "ffn_up.weight")                                                                         \
    X(DOWN, "ffn_down.weight")                                                                     \
    X(GATE_BIAS, "ffn_gate.bias")                                                                  \
    X(UP_BIAS, "ffn_up.bias")                                                                      \
    X(DOWN_BIAS, "ffn_down.bias")                                                                  \
    X(FFN_POST, "post_ffw_norm.weight")                                                            \
    X(ROUTER, "ffn_gate_inp.weight")                                                               \
    X(GATES, "ffn_gate_exps.weight")                                                               \
    X(UPS, "ffn_up_exps.weight")                                                                   \
    X(DOWNS, "ffn_down_exps.weight")
#define ID(id, name) id,
#define NAME(id, name) name,
enum tensor { TENSORS(ID) TENSOR_COUNT };
static const char *const tensor_names[] = {TENSORS(NAME)};

struct matrix {
    uint32_t type, rows, cols; /* rows: of all experts */
    float *w;
};

struct reference_model {
    struct gguf *g;
    struct hparams h;
    struct matrix embedding, output, output_norm, output_bias, rope, rope_long, rope_short;
    struct matrix layers[LAYERS_MAX][TENSOR_COUNT];
};

static void *zeroed(size_t n, size_t size)
{
    void *p = mem_calloc(n, size);
    CHECK(p);
    return p;
}

static bool load(struct reference_model *m, const char *name, struct matrix *ret)
{
    const struct gguf_tensor *t = gguf_tensor_find(m->g, name);
    if (!t) return false;
    enum kern_type type;
    uint64_t rows = t->shape[1] * t->shape[2], n = t->shape[0] * rows;
    *ret = (struct matrix){t->type, (uint32_t)rows, (uint32_t)t->shape[0], zeroed(n, 4)};
    if (kern_type_find(t->type, &type)) kern_dequant_row(type, t->data, (uint32_t)n, ret->w);
    return true;
}

struct reference_model *reference_open(const char *path)
{
    struct reference_model *m = zeroed(1, sizeof *m);
    char name[64];
    CHECK(gguf_open(path, &m->g, NULL) == 0 && hparams_read(m->g, &m->h, NULL) == 0);
    CHECK(m->h.layers <= LAYERS_MAX);
    CHECK(load(m, "token_embd.weight", &m->embedding));
    CHECK(load(m, "output_norm.weight", &m->output_norm));
    if (!load(m, "output.weight", &m->output)) load(m, "token_embd.weight", &m->output);
    load(m, "output.bias", &m->output_bias);
    load(m, "rope_freqs.weight", &m->rope);
    load(m, "rope_factors_long.weight", &m->rope_long);
    load(m, "rope_factors_short.weight", &m->rope_short);
    for (uint32_t l = 0; l < m->h.layers; l++) {
        for (int i = 0; i < TENSOR_COUNT; i++) {
            snprintf(name, sizeof name, "blk.%u.%s", l, tensor_names[i]);
            load(m, name, &m->layers[l][i]);
        }
    }
    return m;
}

void reference_close(struct reference_model *m)
{
    struct matrix *const globals[] = {&m->embedding,   &m->output, &m->output_norm,
                                      &m->output_bias, &m->rope,   &m->rope_long,
                                      &m->rope_short};
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        mem_free(globals[i]->w);
    for (uint32_t l = 0; l < m->h.layers; l++)
        for (int i = 0; i < TENSOR_COUNT; i++)
            mem_free(m->layers[l][i].w);
    gguf_close(m->g);
    mem_free(m);
}

uint32_t reference_vocab(const struct reference_model *m)
{
    return m->h.vocab;
}

static double to_half(double x)
{
    return (double)kern_f16_to_f32(kern_f32_to_f16((float)x));
}

/* Blocks of `size` to 8 bits and back; the scale in float16 if `half`. */
static void to_8_bits(double *x, uint32_t n, uint32_t size, bool half)
{
    for (uint32_t b = 0; b < n; b += size) {
        double max = 0.0;
        for (uint32_t i = b; i < b + size; i++)
            max = fmax(max, fabs(x[i]));
        double d = max / 127.0, scale = half ? to_half(d) : d;
        for (uint32_t i = b; i < b + size; i++)
            x[i] = max > 0.0 ? rint(x[i] / d) * scale : 0.0;
    }
}

/* Activations as a matrix of some type reads them. */
static void round_input(enum reference_numerics numerics, uint32_t type, double *x, uint32_t n)
{
    bool plain = !gguf_type_info(type)->quantised;
    uint32_t size = gguf_type_info(type)->block;
    if (!plain && numerics == REFERENCE_LLAMA_CPP && size == Q8K_BLOCK) {
        to_8_bits(x, n, Q8K_BLOCK, false);
    } else if (!plain) {
        to_8_bits(x, n, KERN_BLOCK, numerics == REFERENCE_LLAMA_CPP);
    } else if (numerics == REFERENCE_LLAMA_CPP && type == GGUF_F16) {
        for (uint32_t i = 0; i < n; i++)
            x[i] = to_half(x[i]);
    }
}

/* Rows [first, first + rows) of m times x. */
static void multiply_rows(enum reference_numerics numerics, const struct matrix *m, uint32_t first,
                          uint32_t rows, const double *in, double *out)
{
    double *x = zeroed(m->cols, sizeof *x);
    memcpy(x, in, m->cols * sizeof *x);
    round_input(numerics, m->type, x, m->cols);
    CHECK(m->w && first + rows <= m->rows);
    for (uint32_t r = 0; r < rows; r++) {
        double sum = 0.0;
        for (uint32_t c = 0; c < m->cols; c++)
            sum += (double)m->w[(size_t)(first + r) * m->cols + c] * x[c];
        out[r] = sum;
    }
    mem_free(x);
}

static void multiply(enum reference_numerics numerics, const struct matrix *m, const double *in,
                     double *out)
{
    multiply_rows(numerics, m, 0, m->rows, in, out);
}

static void add_bias(const struct matrix *bias, uint32_t first, uint32_t n, double *x)
{
    for (uint32_t i = 0; bias->w && i < n; i++)
        x[i] += (double)bias->w[first + i];
}

static void norm(const struct reference_model *m, const struct matrix *w, const double *x,
                 uint32_t n, double *out)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    double scale = 1.0 / sqrt(sum / n + (double)m->h.norm_eps);
    for (uint32_t i = 0; i < n; i++)
        out[i] = x[i] * scale * (double)w->w[i];
}

/* Norm of queries or keys over each head or over all. */
static void norm_heads(const struct reference_model *m, const struct matrix *w, double *x,
                       uint32_t heads)
{
    uint32_t span = m->h.head_dim;
    if (!w->w) return;
    if (w->cols != span) span *= heads;
    for (uint32_t at = 0; at < heads * m->h.head_dim; at += span)
        norm(m, w, x + at, span, x + at);
}

/* YaRN: 1 for pairs whose angle stays, 0 for those that are divided. */
static double yarn_blend(const struct reference_model *m, const struct rope *r, uint32_t pair)
{
    double low = m->h.rope_dims * log(r->original / (r->beta_fast * 2 * acos(-1.0)));
    double high = m->h.rope_dims * log(r->original / (r->beta_slow * 2 * acos(-1.0)));
    low = fmax(0.0, floor(low / (2 * log(r->base))));
    high = fmin(m->h.rope_dims - 1.0, ceil(high / (2 * log(r->base))));
    return 1.0 - fmin(1.0, fmax(0.0, (pair - low) / fmax(0.001, high - low)));
}

static void rotate(const struct reference_model *m, const struct rope *r,
                   const struct matrix *factors, double *x, uint32_t heads, uint32_t position)
{
    uint32_t half = m->h.rope_dims / 2;
    bool halves = m->h.arch->rope == ROPE_HALVES;
    for (uint32_t h = 0; h < heads; h++, x += m->h.head_dim) {
        for (uint32_t i = 0; i < half; i++) {
            double angle = position * pow(r->base, -2.0 * i / m->h.rope_dims);
            if (factors->w) angle /= (double)factors->w[i];
            double blend = r->scaling == ROPE_YARN ? yarn_blend(m, r, i) : 0.0;
            angle = angle / r->factor * (1.0 - blend) + angle * blend;
            double *first = halves ? &x[i] : &x[2 * i], *second = halves ? &x[half + i] : first + 1;
            double a = *first, b = *second;
            *first = (a * cos(angle) - b * sin(angle)) * (double)r->magnitude;
            *second = (a * sin(angle) + b * cos(angle)) * (double)r->magnitude;
        }
    }
}

static double soft_cap(double x, double cap)
{
    return cap > 0.0 ? cap * tanh(x / cap) : x;
}

/* One query over keys and values of positions first..position, [position][stride]. */
static void attend(const struct hparams *h, const double *q, const double *k, const double *v,
                   uint32_t first, uint32_t position, double *out)
{
    size_t stride = hparams_kv_dim(h);
    double *score = zeroed(position + 1, sizeof *score), max = -INFINITY, sum = 0.0;
    for (uint32_t p = first; p <= position; p++) {
        for (uint32_t d = 0; d < h->head_dim; d++)
            score[p] += q[d] * k[p * stride + d];
        score[p] = soft_cap(score[p] * (double)h->attention_scale, (double)h->attention_cap);
        max = fmax(max, score[p]);
    }
    for (uint32_t p = first; p <= position; p++)
        sum += score[p] = exp(score[p] - max);
    for (uint32_t d = 0; d < h->head_dim; d++) {
        out[d] = 0.0;
        for (uint32_t p = first; p <= position; p++)
            out[d] += score[p] / sum * v[p * stride + d];
    }
    mem_free(score);
}

/* What one token's pass works with. */
struct pass {
    enum reference_numerics numerics;
    uint32_t position;
    double *x, *normed, *q, *heads, *add, *gate, *up, *router, *one;
    double *k[LAYERS_MAX], *v[LAYERS_MAX]; /* [positions][kv_dim] */
};

static void project(const struct reference_model *m, uint32_t l, struct pass *s, enum tensor whole,
                    uint32_t first, uint32_t rows, double *out)
{
    const struct matrix *t = m->layers[l];
    enum tensor bias = whole == Q ? Q_BIAS : whole == K ? K_BIAS : V_BIAS;
    if (t[whole].w)
        multiply(s->numerics, &t[whole], s->normed, out);
    else
        multiply_rows(s->numerics, &t[QKV], first, rows, s->normed, out);
    add_bias(&t[bias], 0, rows, out);
    add_bias(&t[QKV_BIAS], first, rows, out);
}

/* Post norm and scale of what a block made, added to x. */
static void add_block(const struct reference_model *m, const struct matrix *post, struct pass *s)
{
    if (post->w) norm(m, post, s->add, m->h.dim, s->add);
    for (uint32_t i = 0; i < m->h.dim; i++)
        s->x[i] += s->add[i] * (double)m->h.residual_scale;
}

static void pre_norm(const struct reference_model *m, const struct matrix *w, struct pass *s)
{
    if (w->w)
        norm(m, w, s->x, m->h.dim, s->normed);
    else
        memcpy(s->normed, s->x, m->h.dim * sizeof(double));
}

static void attention_block(const struct reference_model *m, uint32_t l, struct pass *s)
{
    const struct hparams *h = &m->h;
    const struct matrix *t = m->layers[l], none = {0};
    uint32_t q_dim = hparams_q_dim(h), kv_dim = hparams_kv_dim(h);
    double *k = s->k[l] + (size_t)s->position * kv_dim, *v = s->v[l] + (size_t)s->position * kv_dim;
    bool windowed = h->window > 0 && h->windowed[l];
    const struct rope *rope = windowed ? &h->window_rope : &h->rope;
    const struct matrix *factors = m->rope.w        ? &m->rope
                                   : rope->use_long ? &m->rope_long
                                                    : &m->rope_short;
    if (windowed && h->arch->window_plain_rope) factors = &none;
    pre_norm(m, &t[ATTN_NORM], s);
    project(m, l, s, Q, 0, q_dim, s->q);
    project(m, l, s, K, q_dim, kv_dim, k);
    project(m, l, s, V, q_dim + kv_dim, kv_dim, v);
    norm_heads(m, &t[Q_NORM], s->q, h->heads);
    norm_heads(m, &t[K_NORM], k, h->kv_heads);
    if (!h->arch->no_rope_every || (l + 1) % h->arch->no_rope_every != 0) {
        rotate(m, rope, factors, s->q, h->heads, s->position);
        rotate(m, rope, factors, k, h->kv_heads, s->position);
    }
    for (size_t i = 0; i < kv_dim && s->numerics == REFERENCE_EXACT_1; i++) {
        k[i] = to_half(k[i]);
        v[i] = to_half(v[i]);
    }
    uint32_t first = windowed && s->position >= h->window ? s->position - h->window + 1 : 0;
    for (uint32_t i = 0; i < h->heads; i++) {
        size_t at = (size_t)(i / (h->heads / h->kv_heads)) * h->head_dim;
        attend(h, s->q + (size_t)i * h->head_dim, s->k[l] + at, s->v[l] + at, first, s->position,
               s->heads + (size_t)i * h->head_dim);
    }
    multiply(s->numerics, &t[O], s->heads, s->add);
    add_bias(&t[O_BIAS], 0, h->dim, s->add);
    add_block(m, &t[ATTN_POST], s);
}

/* llama.cpp looks GELU up in a table of float16 values. */
static double gelu(enum reference_numerics numerics, double x)
{
    bool rounds = numerics == REFERENCE_LLAMA_CPP;
    if (rounds && fabs(x) >= 10.0) return x > 0.0 ? x : 0.0;
    if (rounds) x = to_half(x);
    double y = 0.5 * x * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
    return rounds ? to_half(y) : y;
}

static void activate(const struct reference_model *m, struct pass *s)
{
    for (uint32_t i = 0; i < m->h.ff; i++) {
        double x = s->gate[i];
        s->gate[i] = (m->h.arch->gelu ? gelu(s->numerics, x) : x / (1.0 + exp(-x))) * s->up[i];
    }
}

static void run_dense(const struct reference_model *m, const struct matrix *t, struct pass *s)
{
    uint32_t ff = m->h.ff;
    multiply_rows(s->numerics, t[GATE].w ? &t[GATE] : &t[UP], 0, ff, s->normed, s->gate);
    multiply_rows(s->numerics, &t[UP], t[GATE].w ? 0 : ff, ff, s->normed, s->up);
    add_bias(&t[GATE_BIAS], 0, ff, s->gate);
    add_bias(&t[UP_BIAS], 0, ff, s->up);
    activate(m, s);
    multiply(s->numerics, &t[DOWN], s->gate, s->add);
    add_bias(&t[DOWN_BIAS], 0, m->h.dim, s->add);
}

static void run_mixture(const struct reference_model *m, const struct matrix *t, struct pass *s)
{
    const struct hparams *h = &m->h;
    uint32_t chosen[MODEL_EXPERTS_USED_MAX];
    double weight[MODEL_EXPERTS_USED_MAX], all = 0.0, sum = 0.0;
    multiply(s->numerics, &t[ROUTER], s->normed, s->router);
    for (uint32_t i = 0; i < h->experts; i++)
        all += s->router[i] = exp(s->router[i]);
    for (uint32_t k = 0; k < h->experts_used; k++) {
        chosen[k] = 0;
        for (uint32_t i = 0; i < h->experts; i++)
            if (s->router[i] > s->router[chosen[k]]) chosen[k] = i;
        sum += weight[k] = s->router[chosen[k]];
        s->router[chosen[k]] = -1.0;
    }
    memset(s->add, 0, h->dim * sizeof *s->add);
    for (uint32_t k = 0; k < h->experts_used; k++) {
        uint32_t e = chosen[k];
        multiply_rows(s->numerics, &t[GATES], e * h->ff, h->ff, s->normed, s->gate);
        multiply_rows(s->numerics, &t[UPS], e * h->ff, h->ff, s->normed, s->up);
        activate(m, s);
        multiply_rows(s->numerics, &t[DOWNS], e * h->dim, h->dim, s->gate, s->one);
        double by = weight[k] / (h->arch->plain_experts ? all : sum) * (double)h->expert_scale;
        for (uint32_t i = 0; i < h->dim; i++)
            s->add[i] += by * s->one[i];
    }
}

static void feed_forward_block(const struct reference_model *m, uint32_t l, struct pass *s)
{
    const struct matrix *t = m->layers[l];
    pre_norm(m, &t[FFN_NORM], s);
    (m->h.experts ? run_mixture : run_dense)(m, t, s);
    add_block(m, &t[FFN_POST], s);
}

static void log_softmax(double *x, uint32_t n)
{
    double max = x[0], sum = 0.0;
    for (uint32_t i = 0; i < n; i++)
        max = fmax(max, x[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp(x[i] - max);
    for (uint32_t i = 0; i < n; i++)
        x[i] -= max + log(sum);
}

void reference_logprobs(const struct reference_model *m, enum reference_numerics numerics,
                        const int32_t *tokens, uint32_t n, double *logprobs)
{
    const struct hparams *h = &m->h;
    struct pass s = {.numerics = numerics};
    double **const small[] = {&s.x,    &s.normed, &s.q,      &s.heads, &s.add,
                              &s.gate, &s.up,     &s.router, &s.one};
    enum { SMALL = sizeof small / sizeof *small };
    for (int i = 0; i < SMALL; i++)
        *small[i] = zeroed(h->dim + h->ff + hparams_q_dim(h) + h->experts, sizeof(double));
    for (uint32_t l = 0; l < h->layers; l++) {
        s.k[l] = zeroed((size_t)n * hparams_kv_dim(h), sizeof(double));
        s.v[l] = zeroed((size_t)n * hparams_kv_dim(h), sizeof(double));
    }
    for (s.position = 0; s.position < n; s.position++) {
        const float *embedding = m->embedding.w + (size_t)tokens[s.position] * h->dim;
        double *out = logprobs + (size_t)s.position * h->vocab;
        for (uint32_t i = 0; i < h->dim; i++)
            s.x[i] = (double)embedding[i] * (double)h->embed_scale;
        for (uint32_t l = 0; l < h->layers; l++) {
            attention_block(m, l, &s);
            feed_forward_block(m, l, &s);
        }
        norm(m, &m->output_norm, s.x, h->dim, s.normed);
        multiply(numerics, &m->output, s.normed, out);
        add_bias(&m->output_bias, 0, h->vocab, out);
        for (uint32_t i = 0; i < h->vocab; i++)
            out[i] = soft_cap(out[i] * (double)h->logit_scale, (double)h->logit_cap);
        log_softmax(out, h->vocab);
    }
    for (int i = 0; i < SMALL; i++)
        mem_free(*small[i]);
    for (uint32_t l = 0; l < h->layers; l++) {
        mem_free(s.k[l]);
        mem_free(s.v[l]);
    }
}
