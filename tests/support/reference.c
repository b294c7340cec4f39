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

enum { MATRICES = 7, LAYERS_MAX = 16, Q8K_BLOCK = 256 };

static const char *const matrix_names[MATRICES] = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                                   "ffn_gate", "ffn_up", "ffn_down"};
enum { Q, K, V, O, GATE, UP, DOWN };

struct matrix {
    uint32_t type, rows, cols;
    float *w;
};

struct reference_model {
    struct gguf *g;
    struct hparams h;
    struct matrix embedding, output, layers[LAYERS_MAX][MATRICES];
    struct matrix output_norm, attn_norm[LAYERS_MAX], ffn_norm[LAYERS_MAX], rope;
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
    static const uint32_t types[KERN_TYPES] = {
        GGUF_F32,  GGUF_F16,  GGUF_BF16, GGUF_Q8_0, GGUF_Q4_0, GGUF_Q4_1,   GGUF_Q5_0,  GGUF_Q5_1,
        GGUF_Q2_K, GGUF_Q3_K, GGUF_Q4_K, GGUF_Q5_K, GGUF_Q6_K, GGUF_IQ4_NL, GGUF_IQ4_XS};
    uint64_t n = t->shape[0] * t->shape[1];
    *ret = (struct matrix){t->type, (uint32_t)t->shape[1], (uint32_t)t->shape[0], zeroed(n, 4)};
    for (uint32_t i = 0; i < KERN_TYPES; i++)
        if (types[i] == t->type) kern_dequant_row((enum kern_type)i, t->data, (uint32_t)n, ret->w);
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
    load(m, "rope_freqs.weight", &m->rope);
    for (uint32_t l = 0; l < m->h.layers; l++) {
        for (int i = 0; i < MATRICES; i++) {
            snprintf(name, sizeof name, "blk.%u.%s.weight", l, matrix_names[i]);
            CHECK(load(m, name, &m->layers[l][i]));
        }
        snprintf(name, sizeof name, "blk.%u.attn_norm.weight", l);
        CHECK(load(m, name, &m->attn_norm[l]));
        snprintf(name, sizeof name, "blk.%u.ffn_norm.weight", l);
        CHECK(load(m, name, &m->ffn_norm[l]));
    }
    return m;
}

void reference_close(struct reference_model *m)
{
    mem_free(m->embedding.w);
    mem_free(m->output.w);
    mem_free(m->output_norm.w);
    mem_free(m->rope.w);
    for (uint32_t l = 0; l < m->h.layers; l++) {
        for (int i = 0; i < MATRICES; i++)
            mem_free(m->layers[l][i].w);
        mem_free(m->attn_norm[l].w);
        mem_free(m->ffn_norm[l].w);
    }
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
    bool plain = type == GGUF_F32 || type == GGUF_F16 || type == GGUF_BF16;
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

static void multiply(enum reference_numerics numerics, const struct matrix *m, const double *in,
                     double *out)
{
    double *x = zeroed(m->cols, sizeof *x);
    memcpy(x, in, m->cols * sizeof *x);
    round_input(numerics, m->type, x, m->cols);
    for (uint32_t r = 0; r < m->rows; r++) {
        double sum = 0.0;
        for (uint32_t c = 0; c < m->cols; c++)
            sum += (double)m->w[(size_t)r * m->cols + c] * x[c];
        out[r] = sum;
    }
    mem_free(x);
}

static void norm(const struct reference_model *m, const struct matrix *w, const double *x,
                 double *out)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < m->h.dim; i++)
        sum += x[i] * x[i];
    double scale = 1.0 / sqrt(sum / m->h.dim + (double)m->h.norm_eps);
    for (uint32_t i = 0; i < m->h.dim; i++)
        out[i] = x[i] * scale * (double)w->w[i];
}

static void rotate(const struct reference_model *m, double *x, uint32_t heads, uint32_t position)
{
    for (uint32_t h = 0; h < heads; h++, x += m->h.head_dim) {
        for (uint32_t i = 0; i < m->h.rope_dims; i += 2) {
            double angle = position * pow(m->h.rope_base, -(double)i / m->h.rope_dims);
            if (m->rope.w) angle /= (double)m->rope.w[i / 2];
            double a = x[i], b = x[i + 1];
            x[i] = a * cos(angle) - b * sin(angle);
            x[i + 1] = a * sin(angle) + b * cos(angle);
        }
    }
}

/* One query over keys and values of positions 0..position, [position][stride]. */
static void attend(const double *q, const double *k, const double *v, size_t stride,
                   uint32_t head_dim, uint32_t position, double *out)
{
    double *score = zeroed(position + 1, sizeof *score), max = -INFINITY, sum = 0.0;
    for (uint32_t p = 0; p <= position; p++) {
        for (uint32_t d = 0; d < head_dim; d++)
            score[p] += q[d] * k[p * stride + d];
        score[p] /= sqrt((double)head_dim);
        max = fmax(max, score[p]);
    }
    for (uint32_t p = 0; p <= position; p++)
        sum += score[p] = exp(score[p] - max);
    for (uint32_t d = 0; d < head_dim; d++) {
        out[d] = 0.0;
        for (uint32_t p = 0; p <= position; p++)
            out[d] += score[p] / sum * v[p * stride + d];
    }
    mem_free(score);
}

/* What one token's pass works with. */
struct pass {
    enum reference_numerics numerics;
    uint32_t position;
    double *x, *normed, *q, *heads, *add, *gate, *up;
    double *k[LAYERS_MAX], *v[LAYERS_MAX]; /* [positions][kv_dim] */
};

static void attention_block(const struct reference_model *m, uint32_t l, struct pass *s)
{
    const struct hparams *h = &m->h;
    size_t kv_dim = hparams_kv_dim(h);
    double *k = s->k[l] + s->position * kv_dim, *v = s->v[l] + s->position * kv_dim;
    norm(m, &m->attn_norm[l], s->x, s->normed);
    multiply(s->numerics, &m->layers[l][Q], s->normed, s->q);
    multiply(s->numerics, &m->layers[l][K], s->normed, k);
    multiply(s->numerics, &m->layers[l][V], s->normed, v);
    rotate(m, s->q, h->heads, s->position);
    rotate(m, k, h->kv_heads, s->position);
    for (size_t i = 0; i < kv_dim && s->numerics == REFERENCE_EXACT_1; i++) {
        k[i] = to_half(k[i]);
        v[i] = to_half(v[i]);
    }
    for (uint32_t i = 0; i < h->heads; i++) {
        size_t at = (size_t)(i / (h->heads / h->kv_heads)) * h->head_dim;
        attend(s->q + (size_t)i * h->head_dim, s->k[l] + at, s->v[l] + at, kv_dim, h->head_dim,
               s->position, s->heads + (size_t)i * h->head_dim);
    }
    multiply(s->numerics, &m->layers[l][O], s->heads, s->add);
    for (uint32_t i = 0; i < h->dim; i++)
        s->x[i] += s->add[i];
}

static void feed_forward_block(const struct reference_model *m, uint32_t l, struct pass *s)
{
    norm(m, &m->ffn_norm[l], s->x, s->normed);
    multiply(s->numerics, &m->layers[l][GATE], s->normed, s->gate);
    multiply(s->numerics, &m->layers[l][UP], s->normed, s->up);
    for (uint32_t i = 0; i < m->h.ff; i++)
        s->gate[i] = s->gate[i] / (1.0 + exp(-s->gate[i])) * s->up[i];
    multiply(s->numerics, &m->layers[l][DOWN], s->gate, s->add);
    for (uint32_t i = 0; i < m->h.dim; i++)
        s->x[i] += s->add[i];
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
    double **const small[] = {&s.x, &s.normed, &s.q, &s.heads, &s.add, &s.gate, &s.up};
    enum { SMALL = sizeof small / sizeof *small };
    for (int i = 0; i < SMALL; i++)
        *small[i] = zeroed(h->dim + h->ff + hparams_q_dim(h), sizeof(double));
    for (uint32_t l = 0; l < h->layers; l++) {
        s.k[l] = zeroed((size_t)n * hparams_kv_dim(h), sizeof(double));
        s.v[l] = zeroed((size_t)n * hparams_kv_dim(h), sizeof(double));
    }
    for (s.position = 0; s.position < n; s.position++) {
        const float *embedding = m->embedding.w + (size_t)tokens[s.position] * h->dim;
        double *out = logprobs + (size_t)s.position * h->vocab;
        for (uint32_t i = 0; i < h->dim; i++)
            s.x[i] = (double)embedding[i];
        for (uint32_t l = 0; l < h->layers; l++) {
            attention_block(m, l, &s);
            feed_forward_block(m, l, &s);
        }
        norm(m, &m->output_norm, s.x, s.normed);
        multiply(numerics, &m->output, s.normed, out);
        log_softmax(out, h->vocab);
    }
    for (int i = 0; i < SMALL; i++)
        mem_free(*small[i]);
    for (uint32_t l = 0; l < h->layers; l++) {
        mem_free(s.k[l]);
        mem_free(s.v[l]);
    }
}
