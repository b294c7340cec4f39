/*
 * kern: the numeric kernels, one table of pointers for each instruction-set level.
 *
 * Contract (exact-1): every level gives the same bits for the same input, whatever the number of
 * rows in a call or the split of a matrix into strips. The reference in plain C (kern_ref.c,
 * kern_attend_ref.c) defines the values; the other levels repeat its steps with lanes holding
 * different outputs.
 *
 * Weights are *packed*: rows in strips of 16 lanes side by side, so that a vector holds one step of
 * 16 outputs; rows past the end are zero. Layouts of a strip:
 *
 * - F32, F16, BF16: [cols][16 rows].
 *
 * - Quantised: units of as many columns as the file's blocks (32 or 256), then the units' half
 *   floats [units][1 or 2][16 rows]: scales and, where the type has them, scales of the mins.
 *   A unit holds per 32 columns the low bits of each weight, then its high bits, as planes of
 *   64-byte vectors: with p bits a weight there are p vectors a plane, and the 4 columns of group
 *   g = 0..7 are in vector g % p, 4 bytes for each of the 16 rows, from bit g / p * p of each byte
 *   on. After them, where the type has them, the scales of sub-blocks [256 / sub][16 rows], one
 *   signed byte each, and their mins likewise. struct kern_form says what a type has.
 *
 * Everything here is pure: no allocation, no state, any thread. Inputs are finite; with NaN or
 * infinities (a hostile file's scales) nothing crashes, but levels may differ in bits.
 */
#ifndef PDD_KERN_KERN_H
#define PDD_KERN_KERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kern/kern_types.h"

enum {
    KERN_LANES = 16,     /* weight rows side by side in a strip */
    KERN_BLOCK = 32,     /* weights that share a scale */
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

/* A packed matrix of `rows` outputs and `cols` inputs; the memory is the caller's, 64-byte aligned.
 */
struct kern_mat {
    enum kern_type type;
    uint32_t rows, cols, strips;
    size_t strip_bytes; /* a multiple of 64 */
    uint8_t *data;      /* [strips] */
};

/* Fill in the sizes; 0, or ERR_UNSUPPORTED when cols does not suit the type. data stays NULL. */
int kern_mat_init(struct kern_mat *m, enum kern_type type, uint32_t rows, uint32_t cols,
                  struct err *e);
size_t kern_mat_bytes(const struct kern_mat *m);
/* Pack one strip from the file's rows (`raw`: the whole tensor, row after row). Strips may be
 * packed by different threads. False when a scale of a quantised type is infinite or NaN. */
bool kern_mat_pack_strip(const struct kern_mat *m, const uint8_t *raw, uint32_t strip);
/* One row of the file's format as floats, [cols]. */
void kern_dequant_row(enum kern_type type, const uint8_t *raw_row, uint32_t cols, float *out);
size_t kern_row_bytes(enum kern_type type, uint32_t cols);

/* Activation rows ready to multiply, [n] rows. f32 is always there; the rest when a quantised
 * matrix reads them: int8 values and one scale for each block of 32. What follows from those is
 * kept for blocks and for their halves of 16: minus KERN_Q8_OFFSET times the sum of the values,
 * with which sums of offset weights begin, and the sum times the scale, which mins multiply. */
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
/* Memory for the quantised form of n rows; it is the caller's, 64-byte aligned. */
size_t kern_act_bytes(uint32_t n, uint32_t cols);
void kern_act_init(struct kern_act *a, const float *f32, uint32_t n, uint32_t cols, void *memory);
/* The rows of `a` from `row` on. */
struct kern_act kern_act_from(const struct kern_act *a, uint32_t row);

/* Attention of several queries that share a KV head. Query i sees positions [first[i], n[i]) of the
 * pages. Online softmax over tiles of 64 at absolute positions, in order. With a softcap, a score
 * is softcap * tanh(score / softcap). */
enum { KERN_QUERIES_MAX = 128 };
/* How a tile of 64 positions holds keys [head_dim][64] or values [64][head_dim]:
 *
 * - F16: float16.
 * - Q8: int8 followed by half floats [head_dim / 32][64], one for 32 values of a position. A value
 *   is the product of both, which float32 holds exactly.
 * - I16: int16, two neighbours of the sum to be made side by side, keys [head_dim / 2][64][2] and
 *   values [32][head_dim][2]; then floats [64], one scale for a position. head_dim is a multiple
 *   of 16. Attention multiplies integers (kern_attend_ref.c says how). */
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

/* out[r * stride + o] for rows r in [row, row + rows) of x and the outputs o of strips
 * [strip, strip + strips); lanes past m->rows are not written. */
typedef void kern_mul_fn(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                         const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                         size_t stride);

struct kern {
    const char *name; /* "scalar", "avx2", "avxvnni", "avx512", "amx", "neon", "neondot" */
    /* Fill in blocks [block, block + blocks) of rows [row, row + rows) from x [rows, blocks * 32].
     */
    void (*quantize)(const struct kern_act *a, const float *x, uint32_t row, uint32_t rows,
                     uint32_t block, uint32_t blocks);
    kern_mul_fn *mul[KERN_TYPES];
    void (*rms_norm)(const float *x, const float *weight, uint32_t n, float eps, float *out);
    void (*silu_mul)(const float *gate, const float *up, uint32_t n, float *out);
    void (*gelu_mul)(const float *gate, const float *up, uint32_t n, float *out); /* tanh form */
    void (*cap_row)(float *x, uint32_t n, float cap); /* x = cap tanh(x / cap), in place */
    void (*exp_row)(float *x, uint32_t n);            /* x = e^x, in place */
    void (*attend)(const struct kern_attend *a);
    /* The functions of these names below, by level. */
    void (*add)(float *x, const float *y, uint32_t n);
    void (*add_scaled)(float *x, const float *y, float by, uint32_t n);
    void (*rope_pairs)(float *x, uint32_t heads, uint32_t head_dim, uint32_t pairs,
                       const float *table);
    void (*rope_halves)(float *x, uint32_t heads, uint32_t head_dim, uint32_t pairs,
                        const float *table);
    void (*put_k)(const float *k, uint32_t head_dim, uint32_t slot, uint16_t *tile);
    void (*put_v)(const float *v, uint32_t head_dim, uint32_t slot, uint16_t *tile);
    /* A row of queries, keys or values as int16; n is a multiple of 16. Returns their step. */
    float (*i16_row)(const float *x, uint32_t n, int16_t *q);
};

/* The levels this CPU can run, worst first; NULL past the end. */
const struct kern *kern_at(uint32_t i);
/* By name, or the best for NULL. ERR_NOT_FOUND lists the names; ERR_UNSUPPORTED: not on this CPU.
 */
int kern_select(const char *name, const struct kern **ret_kern, struct err *e);

/* Plain C; the scalar level. The same bits as the table's, slower. */
void kern_add(float *x, const float *y, uint32_t n);                  /* x += y */
void kern_add_scaled(float *x, const float *y, float by, uint32_t n); /* x = fma(y, by, x) */
void kern_scale(float *x, float by, uint32_t n);                      /* x *= by */
/* Rotate pairs (2i, 2i+1) of the first 2 * pairs values of each head; table: [pairs][2] cos, sin.
 */
void kern_rope_pairs(float *x, uint32_t heads, uint32_t head_dim, uint32_t pairs,
                     const float *table);
/* The same with pairs (i, pairs + i): neox, qwen, gemma. */
void kern_rope_halves(float *x, uint32_t heads, uint32_t head_dim, uint32_t pairs,
                      const float *table);
/* Fill table [pairs][2] for a position from the inverse frequencies (double), [pairs]. */
void kern_rope_table(uint32_t position, const double *inverse, uint32_t pairs, float *table);
uint32_t kern_argmax(const float *x, uint32_t n); /* the lowest index on a tie */
uint16_t kern_f32_to_f16(float x);                /* round to nearest even */
float kern_f16_to_f32(uint16_t h);
/* A K row (f32 [head_dim]) into column `slot` of a transposed tile; a V row into row `slot`. */
void kern_put_k(const float *k, uint32_t head_dim, uint32_t slot, uint16_t *tile);
void kern_put_v(const float *v, uint32_t head_dim, uint32_t slot, uint16_t *tile);
/* What the head size must be a multiple of; bytes of a tile, for either of keys and values. */
uint32_t kern_kv_multiple(enum kern_kv kv);
size_t kern_tile_bytes(enum kern_kv kv, uint32_t head_dim);
/* A row (f32 [head_dim]) into place `slot` of a tile of any kind, by the functions of a level. */
void kern_store_k(const struct kern *by, enum kern_kv kv, const float *k, uint32_t head_dim,
                  uint32_t slot, void *tile);
void kern_store_v(const struct kern *by, enum kern_kv kv, const float *v, uint32_t head_dim,
                  uint32_t slot, void *tile);
/* Tiles of 8 bits: storing a row, one scale, a whole tile as floats in the same order. */
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
