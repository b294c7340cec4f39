/*
 * kern: the numeric kernels, a table of function pointers for each instruction-set level. Pure: no
 * allocation, no state, any thread.
 *
 * Contract (the exact rules, docs/design/exact.md): every level computes the same bits from the
 * same input, for any number of rows in a call (GEMV or GEMM) and any split of a matrix into
 * strips. The reference in plain C (kern_ref.c, kern_attend_ref.c) defines the values. The other
 * levels repeat its steps; their SIMD lanes hold different outputs. Inputs are finite. NaN or
 * infinities (scales of a hostile file) crash nothing, but levels may differ in bits.
 *
 * A weight matrix is row-major in the file and *packed* here: a strip interleaves 16 rows
 * (outputs), so that one vector holds one step of 16 outputs. Rows of zeros pad the last strip. A
 * strip of F32, F16 or BF16 is [cols][16 rows]:
 *
 *     column 0: row 0, row 1, ..., row 15 | column 1: row 0, ..., row 15 | ...
 *
 * A strip of a quantised type is a run of units, then their scales. A unit has as many columns as a
 * block of the file, 32 or 256:
 *
 *     strip:   unit 0 | unit 1 | ... | scales of unit 0 | scales of unit 1 | ... | padding to 64
 *     scales:  [16 rows] float16, then as many for mins where the type has them; MXFP4: bytes
 *     unit:    columns 0..31 | columns 32..63 | ... | scales of sub-blocks | mins of sub-blocks
 *     columns: low plane | high plane
 *
 * Scales and mins of sub-blocks, where the type has them, are [256 / sub][16 rows] signed bytes;
 * Q2_K has both in one byte, the scale in its low nibble.
 *
 * A plane of p bits a weight is p vectors of 64 bytes. Byte 4 r + c of a vector belongs to row r
 * and to column 4 g + c of a group g = 0..7 of four columns. Group g is in vector g % p, in p bits
 * of each byte from bit g / p * p on:
 *
 *     p = 4      bits 0..3  bits 4..7      p = 2      bits 0, 1  2, 3     4, 5     6, 7
 *     vector 0   group 0    group 4        vector 0   group 0    group 2  group 4  group 6
 *     vector 1   group 1    group 5        vector 1   group 1    group 3  group 5  group 7
 *     vector 2   group 2    group 6
 *     vector 3   group 3    group 7        byte       0      1      2      3      4      ... 63
 *                                          row, c     0, 0   0, 1   0, 2   0, 3   1, 0   ... 15, 3
 *
 * kern_types.h says what each type has.
 */
#ifndef PDD_KERN_KERN_H
#define PDD_KERN_KERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kern/kern_types.h"

enum {
    KERN_LANES = 16,     /* weight rows interleaved in a strip */
    KERN_BLOCK = 32,     /* columns of one integer sum */
    KERN_TILE = 64,      /* positions in a KV page */
    KERN_HEAD_MAX = 256, /* largest head size */
    KERN_COLS_MAX = 1 << 20,
    KERN_UNIT_MAX = 256,  /* most weights in a block of the file */
    KERN_Q8_OFFSET = 128, /* added to 8-bit weights to make them unsigned */
};

#define KERN_TYPE(name, ...) KERN_##name,
enum kern_type { KERN_WEIGHTS(KERN_TYPE) KERN_TYPES };
#undef KERN_TYPE

/* Facts of a weight type as it stands in a GGUF file; kern_types.h says what they are. */
struct kern_type_info {
    const char *name;
    uint32_t number, file;
    uint32_t block, block_bytes; /* weights and bytes of a block in the file */
    bool quantised;              /* multiplies with quantised activations */
};
const struct kern_type_info *kern_type_info(enum kern_type type);
/* The type with that number in GGUF files; false when there is none. */
bool kern_type_find(uint32_t number, enum kern_type *ret_type);

/* A packed matrix of `rows` outputs and `cols` inputs. The caller owns the memory, aligned to 64
 * bytes. */
struct kern_mat {
    enum kern_type type;
    uint32_t rows, cols, strips;
    size_t strip_bytes; /* a multiple of 64 */
    uint8_t *data;      /* [strips] */
};

/* Set the sizes; ERR_UNSUPPORTED when cols does not suit the type. data stays NULL. */
int kern_mat_init(struct kern_mat *m, enum kern_type type, uint32_t rows, uint32_t cols,
                  struct err *e);
size_t kern_mat_bytes(const struct kern_mat *m);
/* Pack one strip from the file's tensor `raw`, row-major. Different threads may pack different
 * strips. False when a scale of a quantised type is infinite or NaN. */
bool kern_mat_pack_strip(const struct kern_mat *m, const uint8_t *raw, uint32_t strip);
/* Dequantise one row of the file, [cols]. */
void kern_dequant_row(enum kern_type type, const uint8_t *raw_row, uint32_t cols, float *out);
size_t kern_row_bytes(enum kern_type type, uint32_t cols);

/* Activations, row-major, n rows. f32 is always set. A quantised matrix reads the rest, which
 * `quantize` fills in: int8 values and one scale for each block of 32. Two sums of the values are
 * kept for each block and for each half of 16: times -KERN_Q8_OFFSET, where sums of offset weights
 * start, and times the scale, by which mins are multiplied. */
struct kern_act {
    uint32_t cols;
    const float *f32;    /* [n, cols] */
    int8_t *q;           /* [n, cols] */
    float *scale;        /* [n, cols / 32] */
    int32_t *minus;      /* [n, cols / 32] */
    float *sum;          /* [n, cols / 32] */
    int32_t *half_minus; /* [n, cols / 16] */
    float *half_sum;     /* [n, cols / 16] */
};
/* Bytes for the quantised form of n rows. The caller owns the memory, aligned to 64 bytes. */
size_t kern_act_bytes(uint32_t n, uint32_t cols);
void kern_act_init(struct kern_act *a, const float *f32, uint32_t n, uint32_t cols, void *memory);
/* A view of the rows of `a` from `row` on. */
struct kern_act kern_act_from(const struct kern_act *a, uint32_t row);

/* Attention of several queries of one KV head (GQA). Query i sees positions [first[i], n[i]) of the
 * pages. Online softmax over tiles of 64 absolute positions, in order. With a softcap, a score is
 * softcap * tanh(score / softcap). */
enum { KERN_QUERIES_MAX = 128 };
/* How a tile holds the keys or the values of 64 positions of one head. Keys are transposed, so that
 * lanes hold different keys:
 *
 *     F16: K [head_dim][64] float16   dim 0: position 0, 1, ..., 63 | dim 1: position 0, ... | ...
 *          V [64][head_dim] float16   position 0: dim 0, dim 1, ... | position 1: dim 0, ... | ...
 *     Q8:  as F16 with int8, then scales [head_dim / 32][64] float16
 *     I16: K [head_dim / 2][64][2] int16   dims 0, 1: position 0 (d0, d1), position 1 (d0, d1), ...
 *          V [32][head_dim][2] int16       positions 0, 1: dim 0 (p0, p1), dim 1 (p0, p1), ...
 *          then scales [64] float32, one for each position
 *
 * A value of Q8 is int8 times scale, exact in float32; a scale belongs to 32 dims of a position.
 * I16 pairs two neighbours of a sum for one multiply-add; head_dim is a multiple of 16, and
 * attention multiplies integers (kern_attend_ref.c). */
enum kern_kv { KERN_KV_F16, KERN_KV_Q8, KERN_KV_I16 };
struct kern_attend {
    uint32_t queries, head_dim;
    float softcap;              /* 0: none */
    const float *const *q;      /* [queries] -> [head_dim], already scaled */
    float *const *out;          /* [queries] -> [head_dim] */
    const uint32_t *first, *n;  /* [queries]; first < n */
    const void *const *k_tiles; /* [tiles], aligned to 64 bytes */
    const void *const *v_tiles;
    enum kern_kv kv;
};

/* How much queries attend to positions: the weights of their softmax over [0, n), from the scores
 * that attention has, times each query's factor. best[t] becomes the largest of itself and the
 * weights of position t. Largest values need no order, so neither do calls. */
enum { KERN_WEIGH_ROWS = 12 /* queries whose scores are in memory at once */ };
struct kern_weigh {
    uint32_t queries, head_dim;
    float softcap;              /* 0: none */
    const float *const *q;      /* [queries] -> [head_dim], already scaled */
    const uint32_t *n;          /* [queries] */
    const float *factor;        /* [queries] */
    const void *const *k_tiles; /* [tiles], aligned to 64 bytes */
    enum kern_kv kv;
    float *rows;         /* scratch, [KERN_WEIGH_ROWS, row_floats] */
    size_t row_floats;   /* whole tiles for the largest n */
    float *best;         /* [best_tiles * 64]; past a query's n it stays */
    uint32_t best_tiles; /* positions past them are not recorded */
};

/* Matrix multiply: out[r * stride + o] for rows r in [row, row + rows) of x and the outputs o of
 * strips [strip, strip + strips). Outputs of padding are not written. */
typedef void kern_mul_fn(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                         const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                         size_t stride);

struct kern {
    const char *name; /* "scalar", "avx2", "avxvnni", "avx512", "amx", "neon", "neondot" */
    /* Quantise x [rows, blocks * 32] into blocks [block, block + blocks) of rows
     * [row, row + rows). */
    void (*quantize)(const struct kern_act *a, const float *x, uint32_t row, uint32_t rows,
                     uint32_t block, uint32_t blocks);
    kern_mul_fn *mul[KERN_TYPES];
    void (*rms_norm)(const float *x, const float *weight, uint32_t n, float eps, float *out);
    void (*silu_mul)(const float *gate, const float *up, uint32_t n, float *out);
    void (*gelu_mul)(const float *gate, const float *up, uint32_t n, float *out); /* tanh form */
    void (*cap_row)(float *x, uint32_t n, float cap); /* x = cap tanh(x / cap), in place */
    void (*exp_row)(float *x, uint32_t n);            /* x = e^x, in place */
    void (*attend)(const struct kern_attend *a);
    void (*weigh)(const struct kern_weigh *g);
    /* The functions of these names below, by level. */
    void (*add)(float *x, const float *y, uint32_t n);
    void (*add_scaled)(float *x, const float *y, float by, uint32_t n);
    void (*rope_pairs)(float *x, uint32_t heads, uint32_t head_dim, uint32_t pairs,
                       const float *table);
    void (*rope_halves)(float *x, uint32_t heads, uint32_t head_dim, uint32_t pairs,
                        const float *table);
    void (*put_k)(const float *k, uint32_t head_dim, uint32_t slot, uint16_t *tile);
    void (*put_v)(const float *v, uint32_t head_dim, uint32_t slot, uint16_t *tile);
    /* Quantise a row of queries, keys or values to int16; n is a multiple of 16. Returns the scale.
     */
    float (*i16_row)(const float *x, uint32_t n, int16_t *q);
};

/* The levels this CPU can run, slowest first; NULL past the end. */
const struct kern *kern_at(uint32_t i);
/* By name, or the best for NULL. ERR_NOT_FOUND lists the names; ERR_UNSUPPORTED: not on this CPU.
 */
int kern_select(const char *name, const struct kern **ret_kern, struct err *e);

/* Plain C: the scalar level, the same bits as every table's. */
void kern_add(float *x, const float *y, uint32_t n);                  /* x += y */
void kern_add_scaled(float *x, const float *y, float by, uint32_t n); /* x = fma(y, by, x) */
void kern_scale(float *x, float by, uint32_t n);                      /* x *= by */
/* Rotate pairs (2i, 2i+1) of the first 2 * pairs values of each head; table: [pairs][2] cos, sin.
 */
void kern_rope_pairs(float *x, uint32_t heads, uint32_t head_dim, uint32_t pairs,
                     const float *table);
/* The same with pairs (i, pairs + i), as NeoX, Qwen and Gemma have them. */
void kern_rope_halves(float *x, uint32_t heads, uint32_t head_dim, uint32_t pairs,
                      const float *table);
/* Compute table [pairs][2] for a position from the inverse frequencies [pairs]. */
void kern_rope_table(uint32_t position, const double *inverse, uint32_t pairs, float *table);
uint32_t kern_argmax(const float *x, uint32_t n); /* the lowest index on a tie */
uint16_t kern_f32_to_f16(float x);                /* round to nearest even */
float kern_f16_to_f32(uint16_t h);
/* F16 tiles: store a key (f32 [head_dim]) in column `slot`, a value in row `slot`. */
void kern_put_k(const float *k, uint32_t head_dim, uint32_t slot, uint16_t *tile);
void kern_put_v(const float *v, uint32_t head_dim, uint32_t slot, uint16_t *tile);
/* head_dim must be a multiple of the first; bytes of a tile of keys, and of values. */
uint32_t kern_kv_multiple(enum kern_kv kv);
size_t kern_tile_bytes(enum kern_kv kv, uint32_t head_dim);
/* Store a row (f32 [head_dim]) at position `slot` of a tile of any kind, by a level's functions. */
void kern_store_k(const struct kern *by, enum kern_kv kv, const float *k, uint32_t head_dim,
                  uint32_t slot, void *tile);
void kern_store_v(const struct kern *by, enum kern_kv kv, const float *v, uint32_t head_dim,
                  uint32_t slot, void *tile);
/* Q8 tiles: store a row; read one scale; dequantise a whole tile, in the same layout. */
void kern_put_k_q8(const float *k, uint32_t head_dim, uint32_t slot, void *tile);
void kern_put_v_q8(const float *v, uint32_t head_dim, uint32_t slot, void *tile);
float kern_tile_scale_q8(const void *tile, uint32_t head_dim, uint32_t block, uint32_t slot);
void kern_open_k_q8(const void *tile, uint32_t head_dim, float *out);
void kern_open_v_q8(const void *tile, uint32_t head_dim, float *out);

/* Our own elementary functions in double, the same bits on every machine; within 2 ulp. */
double kern_exp(double x);
double kern_log(double x);                                    /* x > 0 */
void kern_sincos(double x, double *ret_sin, double *ret_cos); /* |x| < 2^20 */

#endif
