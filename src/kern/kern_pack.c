/*
 * kern_pack: from the rows of a GGUF tensor to packed strips and to floats. Relies on the caller
 * for sizes; reads exactly rows * kern_row_bytes bytes.
 */
#include <string.h>

#include "base/check.h"
#include "kern/kern_impl.h"

static const struct kern_type_info types[KERN_TYPES] = {
    [KERN_F32] = {"F32", 1, 4, 0},     [KERN_F16] = {"F16", 1, 2, 0},
    [KERN_BF16] = {"BF16", 1, 2, 0},   [KERN_Q8_0] = {"Q8_0", 32, 34, 1},
    [KERN_Q4_0] = {"Q4_0", 32, 18, 1},
};

const struct kern_type_info *kern_type_info(enum kern_type type)
{
    CHECK((unsigned)type < KERN_TYPES);
    return &types[type];
}

size_t kern_row_bytes(enum kern_type type, uint32_t cols)
{
    const struct kern_type_info *t = kern_type_info(type);
    return (size_t)cols / t->block * t->block_bytes;
}

static size_t packed_strip_bytes(enum kern_type type, uint32_t cols)
{
    size_t weights = (size_t)cols * KERN_LANES, scales = weights / KERN_BLOCK * 2;
    size_t bytes = type == KERN_F32    ? weights * 4
                   : type == KERN_Q8_0 ? weights + scales
                   : type == KERN_Q4_0 ? weights / 2 + scales
                                       : weights * 2;
    return (bytes + 63) & ~(size_t)63;
}

int kern_mat_init(struct kern_mat *m, enum kern_type type, uint32_t rows, uint32_t cols,
                  struct err *e)
{
    const struct kern_type_info *t = kern_type_info(type);
    if (cols == 0 || rows == 0 || cols > KERN_COLS_MAX || cols % t->block != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "a %s matrix of %u x %u: rows must be a multiple of %u long", t->name, rows,
                       cols, t->block);
    *m = (struct kern_mat){.type = type, .rows = rows, .cols = cols};
    m->strips = (rows + KERN_LANES - 1) / KERN_LANES;
    m->strip_bytes = packed_strip_bytes(type, cols);
    return 0;
}

size_t kern_mat_bytes(const struct kern_mat *m)
{
    return m->strip_bytes * m->strips;
}

static void pack_q8_0(const uint8_t *row, uint32_t cols, uint32_t lane, uint8_t *quants,
                      uint8_t *scales)
{
    for (uint32_t b = 0; b < cols / KERN_BLOCK; b++, row += 34) {
        memcpy(scales + (b * KERN_LANES + lane) * 2, row, 2);
        for (uint32_t k = 0; k < KERN_BLOCK; k++)
            quants[b * 512 + k / 4 * 64 + lane * 4 + k % 4] = row[2 + k] ^ 0x80;
    }
}

/* The file holds weight k in the low nibble of byte k and weight k + 16 in its high nibble. */
static void pack_q4_0(const uint8_t *row, uint32_t cols, uint32_t lane, uint8_t *quants,
                      uint8_t *scales)
{
    for (uint32_t b = 0; b < cols / KERN_BLOCK; b++, row += 18) {
        memcpy(scales + (b * KERN_LANES + lane) * 2, row, 2);
        for (uint32_t k = 0; k < 16; k++)
            quants[b * 256 + k / 4 * 64 + lane * 4 + k % 4] = row[2 + k];
    }
}

static void pack_plain(const uint8_t *row, uint32_t cols, uint32_t lane, uint32_t size,
                       uint8_t *out)
{
    for (uint32_t k = 0; k < cols; k++)
        memcpy(out + ((size_t)k * KERN_LANES + lane) * size, row + (size_t)k * size, size);
}

void kern_mat_pack_strip(const struct kern_mat *m, const uint8_t *raw, uint32_t strip)
{
    uint8_t *out = m->data + m->strip_bytes * strip, *scales = out + kern_scales_at(m);
    size_t row_bytes = kern_row_bytes(m->type, m->cols);
    uint32_t lanes = kern_lanes_of(m, strip);
    memset(out, 0, m->strip_bytes);
    for (uint32_t lane = 0; lane < lanes; lane++) {
        const uint8_t *row = raw + row_bytes * (strip * (size_t)KERN_LANES + lane);
        switch (m->type) {
        case KERN_Q8_0:
            pack_q8_0(row, m->cols, lane, out, scales);
            break;
        case KERN_Q4_0:
            pack_q4_0(row, m->cols, lane, out, scales);
            break;
        case KERN_F32:
            pack_plain(row, m->cols, lane, 4, out);
            break;
        default:
            pack_plain(row, m->cols, lane, 2, out);
        }
    }
}

static float load_f16(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, 2);
    return kern_f16_to_f32(h);
}

static float load_bf16(const uint8_t *p)
{
    uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 24;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static void dequant_blocks(enum kern_type type, const uint8_t *p, uint32_t cols, float *out)
{
    uint32_t bytes = types[type].block_bytes;
    for (uint32_t b = 0; b < cols / KERN_BLOCK; b++, p += bytes, out += KERN_BLOCK) {
        float d = load_f16(p);
        for (uint32_t k = 0; k < KERN_BLOCK; k++) {
            int q = type == KERN_Q8_0
                        ? (int8_t)p[2 + k]
                        : (k < 16 ? p[2 + k] & 15 : p[2 + k - 16] >> 4) - KERN_Q4_OFFSET;
            out[k] = d * (float)q;
        }
    }
}

void kern_dequant_row(enum kern_type type, const uint8_t *raw_row, uint32_t cols, float *out)
{
    if (type == KERN_F32)
        memcpy(out, raw_row, (size_t)cols * 4);
    else if (type == KERN_F16)
        for (uint32_t k = 0; k < cols; k++)
            out[k] = load_f16(raw_row + (size_t)k * 2);
    else if (type == KERN_BF16)
        for (uint32_t k = 0; k < cols; k++)
            out[k] = load_bf16(raw_row + (size_t)k * 2);
    else
        dequant_blocks(type, raw_row, cols, out);
}
