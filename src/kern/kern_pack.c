/*
 * kern_pack: from the rows of a GGUF tensor to packed strips and to floats. Relies on the caller
 * for sizes; reads exactly rows * kern_row_bytes bytes.
 */
#include <string.h>

#include "base/check.h"
#include "kern/kern_impl.h"

size_t kern_row_bytes(enum kern_type type, uint32_t cols)
{
    const struct kern_type_info *t = kern_type_info(type);
    return (size_t)cols / t->block * t->block_bytes;
}

static size_t packed_strip_bytes(const struct kern_mat *m)
{
    const struct kern_type_info *t = kern_type_info(m->type);
    size_t bytes = (size_t)m->cols * KERN_LANES * t->block_bytes;
    if (t->quantised) bytes = kern_halves_at(m) + m->cols / t->block * kern_half_bytes(m->type);
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
    m->strip_bytes = packed_strip_bytes(m);
    return 0;
}

size_t kern_mat_bytes(const struct kern_mat *m)
{
    return m->strip_bytes * m->strips;
}

/* Groups of 4 columns of 32 into a plane of `bits` bits a weight: bits [from, from + bits) of each
 * byte of g. The bounds are constants after inlining. */
static inline __attribute__((always_inline)) void put_plane(const uint32_t g[8], int bits, int from,
                                                            uint8_t *out)
{
    const uint32_t mask = ((1u << bits) - 1) * 0x01010101u;
    for (int v = 0; v < bits; v++) {
        uint32_t word = 0;
        for (int field = 0; field < 8 / bits; field++)
            word |= (g[v + field * bits] >> from & mask) << field * bits;
        memcpy(out + v * 64, &word, 4);
    }
}

static inline __attribute__((always_inline)) void
put_planes(const uint8_t *q, uint32_t blocks, int low, int high, size_t block_bytes, uint8_t *out)
{
    for (uint32_t b = 0; b < blocks; b++, q += KERN_BLOCK, out += block_bytes) {
        uint32_t g[8];
        memcpy(g, q, sizeof g);
        put_plane(g, low, 0, out);
        if (high) put_plane(g, high, low, out + low * 64);
    }
}

/* Pack an unpacked block of the file into its unit; `out` is the lane's first byte there. */
static void pack_unit(enum kern_type type, const struct kern_opened *o, uint8_t *out)
{
    const struct kern_form *f = &kern_forms[type];
    switch (f->low << 4 | f->high) {
    case 0x80:
        put_planes(o->q, f->blocks, 8, 0, 512, out);
        break;
    case 0x40:
        put_planes(o->q, f->blocks, 4, 0, 256, out);
        break;
    case 0x41:
        put_planes(o->q, f->blocks, 4, 1, 320, out);
        break;
    case 0x42:
        put_planes(o->q, f->blocks, 4, 2, 384, out);
        break;
    case 0x20:
        put_planes(o->q, f->blocks, 2, 0, 128, out);
        break;
    case 0x21:
        put_planes(o->q, f->blocks, 2, 1, 192, out);
        break;
    default:
        CHECK(false); /* not a form that can be packed */
    }
}

static void pack_subs(enum kern_type type, const struct kern_opened *o, uint32_t lane,
                      uint8_t *unit)
{
    const struct kern_form *f = &kern_forms[type];
    uint8_t *scales = unit + kern_subs_at(type) + lane, *mins = unit + kern_mins_at(type) + lane;
    for (uint32_t s = 0; s < (uint32_t)f->blocks * KERN_BLOCK / f->sub; s++) {
        if (f->scale == KERN_BYTE) scales[s * KERN_LANES] = (uint8_t)o->scale[s];
        if (f->scale == KERN_NIBBLE)
            scales[s * KERN_LANES] = (uint8_t)(o->scale[s] | o->min[s] << 4);
        if (f->min == KERN_BYTE) mins[s * KERN_LANES] = (uint8_t)o->min[s];
    }
}

static bool finite_half(uint16_t h)
{
    return (h & 0x7C00) != 0x7C00;
}

/* A lane's scale and min of a unit; false when they are no numbers. */
static bool pack_halves(const struct kern_form *f, const struct kern_opened *o, uint32_t lane,
                        uint8_t *halves)
{
    if (f->scale == KERN_E8M0) {
        halves[lane] = (uint8_t)o->d;
        return o->d != 255;
    }
    memcpy(halves + lane * 2, &o->d, 2);
    if (f->min) memcpy(halves + (KERN_LANES + lane) * 2, &o->m, 2);
    return finite_half(o->d) && finite_half(o->m);
}

/* Unit after unit, so that the cache lines that the lanes share stay in L1. */
static bool pack_quantised(const struct kern_mat *m, const uint8_t *rows, uint32_t lanes,
                           uint8_t *out)
{
    const enum kern_type type = m->type;
    const struct kern_type_info *t = kern_type_info(type);
    size_t row_bytes = kern_row_bytes(type, m->cols), unit_bytes = kern_unit_bytes(type);
    uint8_t *halves = out + kern_halves_at(m);
    bool finite = true;
    for (uint32_t u = 0; u < m->cols / t->block; u++) {
        for (uint32_t lane = 0; lane < lanes; lane++) {
            struct kern_opened o;
            kern_block_open(type, rows + row_bytes * lane, &o);
            pack_unit(type, &o, out + lane * 4);
            if (kern_forms[type].scale >= KERN_BYTE) pack_subs(type, &o, lane, out);
            finite = pack_halves(&kern_forms[type], &o, lane, halves) && finite;
        }
        rows += t->block_bytes;
        out += unit_bytes;
        halves += kern_half_bytes(type);
    }
    return finite;
}

static void pack_plain(const uint8_t *row, uint32_t cols, uint32_t lane, uint32_t size,
                       uint8_t *out)
{
    for (uint32_t k = 0; k < cols; k++)
        memcpy(out + ((size_t)k * KERN_LANES + lane) * size, row + (size_t)k * size, size);
}

bool kern_mat_pack_strip(const struct kern_mat *m, const uint8_t *raw, uint32_t strip)
{
    uint8_t *out = m->data + m->strip_bytes * strip;
    size_t row_bytes = kern_row_bytes(m->type, m->cols);
    const uint8_t *rows = raw + row_bytes * strip * KERN_LANES;
    uint32_t lanes = kern_lanes_of(m, strip);
    if (lanes < KERN_LANES) memset(out, 0, m->strip_bytes);
    if (kern_type_info(m->type)->quantised) return pack_quantised(m, rows, lanes, out);
    for (uint32_t lane = 0; lane < lanes; lane++)
        pack_plain(rows + row_bytes * lane, m->cols, lane, m->type == KERN_F32 ? 4 : 2, out);
    return true;
}

size_t kern_act_bytes(uint32_t n, uint32_t cols)
{
    size_t blocks = (size_t)n * (cols / KERN_BLOCK);
    return (size_t)n * cols + blocks * 28 + (size_t)6 * 64;
}

/* The next `bytes` of the caller's memory, the following ones 64-byte aligned. */
static void *carve(uint8_t **at, size_t bytes)
{
    void *p = *at;
    *at += (bytes + 63) & ~(size_t)63;
    return p;
}

void kern_act_init(struct kern_act *a, const float *f32, uint32_t n, uint32_t cols, void *memory)
{
    size_t blocks = (size_t)n * (cols / KERN_BLOCK);
    uint8_t *at = memory;
    *a = (struct kern_act){.cols = cols, .f32 = f32};
    a->q = carve(&at, (size_t)n * cols);
    a->scale = carve(&at, blocks * 4);
    a->minus = carve(&at, blocks * 4);
    a->sum = carve(&at, blocks * 4);
    a->half_minus = carve(&at, blocks * 8);
    a->half_sum = carve(&at, blocks * 8);
}

struct kern_act kern_act_from(const struct kern_act *a, uint32_t row)
{
    size_t at = (size_t)row * a->cols, block = (size_t)row * (a->cols / KERN_BLOCK);
    return (struct kern_act){.cols = a->cols,
                             .f32 = a->f32 + at,
                             .q = a->q + at,
                             .scale = a->scale + block,
                             .minus = a->minus + block,
                             .sum = a->sum + block,
                             .half_minus = a->half_minus + 2 * block,
                             .half_sum = a->half_sum + 2 * block};
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

static float weight_of(const struct kern_form *f, uint8_t q)
{
    return f->values ? (float)kern_values[f->values][q] : (float)(q - f->offset);
}

/* Scale times value is exact in float32 for every type (11 bits by at most 13), so a
 * weight is rounded once at most, when its min is added. */
static void dequant_blocks(enum kern_type type, const uint8_t *p, uint32_t cols, float *out)
{
    const struct kern_form *f = &kern_forms[type];
    const struct kern_type_info *t = kern_type_info(type);
    for (uint32_t at = 0; at < cols; at += t->block, p += t->block_bytes) {
        struct kern_opened o;
        kern_block_open(type, p, &o);
        float d = f->scale == KERN_E8M0 ? kern_e8m0((uint8_t)o.d) : kern_f16_to_f32(o.d);
        float m = kern_f16_to_f32(o.m);
        for (uint32_t k = 0; k < t->block; k++) {
            uint32_t s = k / f->sub;
            float scale = f->scale < KERN_BYTE ? d : d * (float)o.scale[s];
            float min = f->min == KERN_HALF ? m : f->min ? -(m * (float)o.min[s]) : 0.0f;
            float w = scale * weight_of(f, o.q[k]);
            out[at + k] = f->min ? w + min : w;
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
