/*
 * kern_types: the weight types, one row each. The enums of kern.h and gguf.h, names, sizes, numbers
 * in files, switches over types and the lists of tests follow from these rows. Pure.
 *
 * A row of either table begins with
 *
 *   name    as GGUF files and --type call it
 *   number  of the type in a GGUF file (ggml_type)
 *   file    general.file_type of a file that is mostly of this type (llama_ftype)
 *   block   weights in a block of the file
 *   bytes   of that block
 *
 * and a row of KERN_QUANTS goes on with the form of the weights (struct kern_form):
 *
 *   low, high  bits of a weight in the low and in the high plane of a packed block
 *   values     KERN_LINEAR: a weight is its bits minus the offset; else the table they index
 *   offset     makes a weight unsigned when added: a power of two; 0 for types with mins
 *   sub        columns that share a scale: 32 or 16
 *   scale      how the scale of such a sub-block is made (enum kern_part)
 *   min        the same for its min
 *
 * To add a type of a known form: a row here; open_NAME in kern_block.c, which unpacks a block; a
 * row in lab/random_blocks.c; and its definition in tests/support/block_definition.h. A new form
 * needs more:
 *
 *   a table of values   a line in kern_impl.h
 *   a pair of planes    a case of pack_unit in kern_pack.c
 *   a kind of scale     kern_impl.h (enum kern_part, kern_unit_bytes, kern_half_bytes); where it is
 *                       read: kern_ref.c, kern_pack.c, kern_quant_256.h, kern_quant_avx512.h,
 *                       kern_mul_neon.h; where random files get it: random_blocks_fill
 *   a float type        a row of KERN_FLOATS, a multiply of each level (KERN_MULS names three), and
 *                       what kern_ref.c, kern_pack.c and lab/random_blocks.c know of the three
 */
#ifndef PDD_KERN_KERN_TYPES_H
#define PDD_KERN_KERN_TYPES_H

/* Their order is that of enum kern_type; new ones go to the end. */
/* clang-format off */
#define KERN_FLOATS(X)        \
    X(F32,   0,  0, 1, 4)     \
    X(F16,   1,  1, 1, 2)     \
    X(BF16, 30, 32, 1, 2)

#define KERN_QUANTS(X)                                                                  \
    /* name  number file block bytes  low high  values   offset sub    scale    min */  \
    X(Q8_0,       8,   7,   32,   34,   8,   0, LINEAR,    128,  32,   HALF,   NONE)    \
    X(Q4_0,       2,   2,   32,   18,   4,   0, LINEAR,      8,  32,   HALF,   NONE)    \
    X(Q4_1,       3,   3,   32,   20,   4,   0, LINEAR,      0,  32,   HALF,   HALF)    \
    X(Q5_0,       6,   8,   32,   22,   4,   1, LINEAR,     16,  32,   HALF,   NONE)    \
    X(Q5_1,       7,   9,   32,   24,   4,   1, LINEAR,      0,  32,   HALF,   HALF)    \
    X(Q2_K,      10,  10,  256,   84,   2,   0, LINEAR,      0,  16, NIBBLE, NIBBLE)    \
    X(Q3_K,      11,  11,  256,  110,   2,   1, LINEAR,      4,  16,   BYTE,   NONE)    \
    X(Q4_K,      12,  14,  256,  144,   4,   0, LINEAR,      0,  32,   BYTE,   BYTE)    \
    X(Q5_K,      13,  16,  256,  176,   4,   1, LINEAR,      0,  32,   BYTE,   BYTE)    \
    X(Q6_K,      14,  18,  256,  210,   4,   2, LINEAR,     32,  16,   BYTE,   NONE)    \
    X(IQ4_NL,    20,  25,   32,   18,   4,   0,    IQ4,    128,  32,   HALF,   NONE)    \
    X(IQ4_XS,    23,  30,  256,  136,   4,   0,    IQ4,    128,  32,   BYTE,   NONE)    \
    X(MXFP4,      39,  38,   32,   17,   4,   0,   E2M1,     16,  32,   E8M0,   NONE)
/* clang-format on */

#define KERN_WEIGHTS(X) KERN_FLOATS(X) KERN_QUANTS(X)

#endif
