/*
 * forward_impl: what the files of the forward pass share. forward.c owns memory, rows and the order
 * of blocks; forward_attention.c and forward_ffn.c are the two kinds of block.
 *
 * A pass is a list of phases, each a parallel-for: over rows (norms, rotation, quantisation), over
 * strips of weights (products) or over query blocks and KV heads (attention). A row's activations
 * are quantised where they are made, so that each is read once from the cache.
 *
 * Fields of struct forward are memory, or facts of the whole pass; what a phase needs to know of
 * its block is an argument. Threads: as forward.h says;
 * a task writes only its own rows and strips.
 */
#ifndef PDD_MODEL_FORWARD_IMPL_H
#define PDD_MODEL_FORWARD_IMPL_H

#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/pool.h"
#include "model/forward.h"

enum {
    STRIPS_GRAIN = 2,     /* the kernels take strips in pairs */
    TASKS_PER_THREAD = 6, /* enough to even out, few enough to keep the counter cheap */
    FEW_ROWS = 8,         /* up to this many rows a task is a stream from memory: one a thread */
    MANY_ROWS = 64        /* from this many on a pair of strips is work enough for a task */
};

/* One token of the pass. */
struct token_row {
    const struct kv_seq *kv;
    int32_t token;
    uint32_t position;
};

/* Consecutive tokens of one span whose queries attend together. */
struct query_block {
    uint32_t row, n;
};

/* Rows of a span whose queries score positions. */
struct scored {
    const struct forward_score *score;
    uint32_t row, n;
};

/* What a block made, to be added to the residual stream by the next one. */
struct made {
    float *rows;                   /* [rows, dim], or NULL */
    const float *bias, *post_norm; /* [dim] or NULL */
};

/* What the phases of a block need to know of it: of attention, of a feed-forward or of the head. */
struct block {
    const struct layer *w; /* NULL: the head */
    uint32_t layer;
    const float *norm; /* weights of the norm that it begins with, or NULL */
    bool quantise;     /* its first products read quantised rows */
    struct made made;  /* by the block before */
};

/* A product of all rows. */
struct product {
    const struct kern_mat *m;
    float *out; /* [rows, m->rows] */
};

/* Mixtures of experts. A row has a slot for each expert that it chose; the slots of one expert
 * stand together, so that its matrices are read once. */
struct mixture {
    float *router;     /* [rows, experts] */
    uint32_t *chosen;  /* [rows, used] experts, the best first */
    float *weights;    /* [rows, used] */
    uint32_t *slot_of; /* [rows, used] */
    uint32_t *row_of;  /* [slots] */
    uint32_t *starts;  /* [experts + 1] first slots */
    uint32_t *active;  /* [experts] those that were chosen */
    uint32_t n_active;
    float *in, *out; /* [slots, dim] */
};

struct forward {
    const struct model *model;
    const struct hparams *h;
    const struct kern *kern;
    struct pool *pool;
    struct forward_limits limits;
    struct arena memory;
    /* [tokens] rows of the widths named */
    struct token_row *rows;
    float *x;            /* dim: the residual stream */
    float *normed;       /* dim */
    float *projected;    /* dim: what the last matrix of a block adds to x */
    float *q, *heads;    /* heads * head_dim: queries, and what attention makes of them */
    float *k, *v;        /* kv_heads * head_dim */
    float *hidden;       /* ff, of slots where there are experts: if down reads floats */
    float *rope;         /* rope_tables * rope_dims: cos and sin of each pair */
    void *quants;        /* the widest input of a matrix, quantised (kern_act) */
    void *hidden_quants; /* hidden, quantised */
    uint32_t quant_rows; /* rows or slots that fit into either */
    float *scratch;      /* [threads][2][scratch_floats] */
    size_t scratch_floats;
    float *logits;                    /* [spans, vocab] */
    uint32_t *wanted;                 /* [spans] rows whose logits are asked for */
    struct query_block *query_blocks; /* [tokens] */
    const void **tiles;               /* [threads][2][pages of a sequence] */
    uint32_t pages, rope_tables, query_block_tokens;
    struct mixture mixture;
    struct scored *scored; /* [spans] */
    float *score_best;     /* [threads][pages * 64], zeros between phases; or NULL */
    float *score_rows;     /* [threads][KERN_WEIGH_ROWS][pages * 64], or NULL */
    uint32_t score_layer;  /* the first that scores; layers: none does */
    /* of this pass: how many of rows, wanted, query_blocks and scored */
    uint32_t n_rows, n_wanted, n_query_blocks, n_scored;
};

/* ---- phases over rows (forward.c) ---- */

/* fn(f, b, row) for rows 0..n - 1, several to a task. */
typedef void row_fn(struct forward *f, const struct block *b, uint32_t row);
void forward_rows(struct forward *f, const struct block *b, uint32_t n, row_fn *fn);
/* A row_fn, with which each block begins: add what the last block made to the residual stream, then
 * norm and quantise the row. */
void forward_begin_row(struct forward *f, const struct block *b, uint32_t row);
/* What that leaves for the products to read: normed rows, or the stream itself. */
const float *forward_input(const struct forward *f, const struct block *b);
void forward_quantise_row(struct forward *f, const float *x, uint32_t cols, uint32_t row);
/* Cosines and sines for a row, [rope_dims]; kind 1: of windowed layers. */
float *forward_rope_table(const struct forward *f, uint32_t row, uint32_t kind);

/* Rows x [rows, cols], or the hidden rows of a feed-forward, and memory for their quantised form.
 */
struct kern_act forward_act(const struct forward *f, const float *x, uint32_t cols);
struct kern_act forward_hidden_act(const struct forward *f);

/* ---- products (forward.c) ---- */

enum { PRODUCTS_MAX = 3 };
/* out = in * m for each product of rows of the same width. */
void forward_multiply(struct forward *f, struct kern_act in, uint32_t rows, uint32_t n,
                      const struct product *list);
/* Strips of a task, where each of `sets` has `strips` that threads share evenly. */
uint32_t forward_strips_of_task(const struct forward *f, uint32_t strips, uint32_t sets,
                                uint32_t per_thread);
static inline bool forward_quantised(const struct kern_mat *m)
{
    return kern_type_info(m->type)->quantised;
}

/* ---- blocks: each takes what the last one made and returns what it made ---- */

struct made forward_attention(struct forward *f, uint32_t layer, struct made made);
struct made forward_ffn(struct forward *f, uint32_t layer, struct made made);
struct made forward_experts(struct forward *f, uint32_t layer, struct made made);
/* The last layer's attention calls it once all keys and values are stored: rows without wanted
 * logits leave the pass. */
void forward_keep_wanted(struct forward *f);

/* ---- scores (forward_score.c) ---- */

uint32_t forward_score_layer(const struct hparams *h);
void forward_score_close(struct forward *f);
/* Note the rows of a span, of which `row` is the first, whose queries score. */
void forward_score_list(struct forward *f, const struct forward_span *span, uint32_t row);
/* For all that are noted, if the layer scores. Queries and keys of the layer are made. */
void forward_score(struct forward *f, uint32_t layer);

#endif
