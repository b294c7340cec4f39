/*
 * kern_ref: the reference. Plain C that defines every value by the exact rules, step by step; slow
 * and obvious on purpose. fmaf is an IEEE operation, not an approximation. Attention is in
 * kern_attend_ref.c.
 */
#include <math.h>
#include <string.h>

#include "kern/kern_ref.h"

static void ref_exp_row(float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] = ref_exp(x[i]);
}

static void ref_rms_norm(const float *x, const float *weight, uint32_t n, float eps, float *out)
{
    float lanes[16] = {0};
    for (uint32_t i = 0; i < n; i++)
        lanes[i % 16] = fmaf(x[i], x[i], lanes[i % 16]);
    float scale = 1.0f / sqrtf(ref_fold(lanes) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++)
        out[i] = x[i] * scale * weight[i];
}

static void ref_silu_mul(const float *gate, const float *up, uint32_t n, float *out)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = gate[i] / (1.0f + ref_exp(-gate[i])) * up[i];
}

static void ref_gelu_mul(const float *gate, const float *up, uint32_t n, float *out)
{
    for (uint32_t i = 0; i < n; i++) {
        float x = gate[i], u2 = x * fmaf(x * x, GELU_CUBE, GELU_LINE);
        out[i] = x / (1.0f + ref_exp(-u2)) * up[i];
    }
}

static void ref_cap_row(float *x, uint32_t n, float cap)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] = ref_cap(x[i], cap);
}

static int32_t sum_of(const int8_t *q, uint32_t n)
{
    int32_t sum = 0;
    for (uint32_t k = 0; k < n; k++)
        sum += q[k];
    return sum;
}

/* n blocks from `at` on, side by side. */
static void ref_quantize_blocks(const struct kern_act *a, const float *x, size_t at, uint32_t n)
{
    int8_t *q = a->q + at * KERN_BLOCK;
    for (; n > 0; n--, at++, x += KERN_BLOCK, q += KERN_BLOCK) {
        float max = 0.0f;
        for (uint32_t k = 0; k < KERN_BLOCK; k++)
            max = fabsf(x[k]) > max ? fabsf(x[k]) : max;
        float inverse = max > 0.0f ? 127.0f / max : 0.0f;
        if (!(inverse <= 3.0e38f)) /* a block of denormals: too small to scale, taken as zero */
            inverse = 0.0f;
        for (uint32_t k = 0; k < KERN_BLOCK; k++) {
            int32_t v = (int32_t)(float_to_bits(x[k] * inverse + EXP_MAGIC) & 0xFFu);
            q[k] = (int8_t)(v < 128 ? v : v - 256);
        }
        kern_act_sums(a, at, max / 127.0f, sum_of(q, 16), sum_of(q + 16, 16));
    }
}

static void ref_quantize(const struct kern_act *a, const float *x, uint32_t row, uint32_t rows,
                         uint32_t block, uint32_t blocks)
{
    kern_quantize_rows(a, x, row, rows, block, blocks, ref_quantize_blocks);
}

/* ---- products of quantised weights ----
 *
 * What the exact rules say of them. An output starts at 0 and takes the blocks of 32 columns in
 * order. A block with one scale dw (exact: half float times sub-scale) adds
 *
 *     acc = fma((float)isum, dw * dx, acc)        isum: the exact sum of weight times value
 *     acc = fma(min, (float)xsum * dx, acc)       types with mins; xsum: the exact sum of values
 *
 * where min is exact too (+m, or minus half float times sub-min). A block with a scale for each
 * half of 16 columns does both steps for the first half, then for the second.
 */

/* Weight k of a lane's block, [32] -> integers. */
static void open_lane(enum kern_type type, const uint8_t *block, uint32_t lane, int32_t *w)
{
    const struct kern_form *f = &kern_forms[type];
    for (uint32_t k = 0; k < KERN_BLOCK; k++) {
        uint32_t g = k / 4, at = lane * 4 + k % 4;
        int32_t q = block[g % f->low * 64 + at] >> g / f->low * f->low & ((1 << f->low) - 1);
        if (f->high) {
            const uint8_t *plane = block + f->low * 64;
            q |= (plane[g % f->high * 64 + at] >> g / f->high * f->high & ((1 << f->high) - 1))
                 << f->low;
        }
        w[k] = f->values ? kern_values[f->values][q] : q - f->offset;
    }
}

/* Scale and min of sub-block s of a unit. */
static void open_scale(enum kern_type type, const uint8_t *unit, const uint8_t *halves, uint32_t s,
                       uint32_t lane, float *ret_scale, float *ret_min)
{
    const struct kern_form *f = &kern_forms[type];
    uint16_t d = 0, m = 0;
    if (f->scale != KERN_E8M0) memcpy(&d, halves + lane * 2, 2);
    if (f->min) memcpy(&m, halves + (KERN_LANES + lane) * 2, 2);
    *ret_scale = f->scale == KERN_E8M0 ? kern_e8m0(halves[lane]) : kern_f16_to_f32(d);
    *ret_min = kern_f16_to_f32(m);
    if (f->scale < KERN_BYTE) return;
    uint8_t byte = unit[kern_subs_at(type) + s * KERN_LANES + lane];
    *ret_scale *= f->scale == KERN_NIBBLE ? (float)(byte & 15) : (float)(int8_t)byte;
    if (f->min == KERN_NIBBLE) *ret_min *= -(float)(byte >> 4);
    if (f->min == KERN_BYTE)
        *ret_min *= -(float)(int8_t)unit[kern_mins_at(type) + s * KERN_LANES + lane];
}

static float add_block(const struct kern_form *f, const struct kern_act *x, size_t at,
                       const int32_t *w, const float *scale, const float *min, float acc)
{
    const int8_t *q = x->q + at * KERN_BLOCK;
    for (uint32_t h = 0; h < KERN_BLOCK / f->sub; h++) {
        int32_t sum = 0;
        for (uint32_t k = h * f->sub; k < (h + 1) * f->sub; k++)
            sum += w[k] * q[k];
        acc = fmaf((float)sum, scale[h] * x->scale[at], acc);
        if (f->min) acc = fmaf(min[h], f->sub == 16 ? x->half_sum[2 * at + h] : x->sum[at], acc);
    }
    return acc;
}

/* One output of all rows; the sums rest in `out`. */
static void mul_lane(const struct kern_mat *m, const uint8_t *base, uint32_t lane,
                     const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                     size_t stride)
{
    const struct kern_form *f = &kern_forms[m->type];
    uint32_t blocks = m->cols / KERN_BLOCK, subs = KERN_BLOCK / f->sub;
    for (uint32_t r = row; r < row + rows; r++)
        out[r * stride] = 0.0f;
    for (uint32_t b = 0; b < blocks; b++) {
        const uint8_t *unit = base + b / f->blocks * kern_unit_bytes(m->type);
        const uint8_t *halves = base + kern_halves_at(m) + b / f->blocks * kern_half_bytes(m->type);
        int32_t w[KERN_BLOCK];
        float scale[2], min[2];
        open_lane(m->type, unit + b % f->blocks * kern_block_bytes(m->type), lane, w);
        for (uint32_t h = 0; h < subs; h++)
            open_scale(m->type, unit, halves, b % f->blocks * subs + h, lane, &scale[h], &min[h]);
        for (uint32_t r = row; r < row + rows; r++)
            out[r * stride] =
                add_block(f, x, (size_t)r * blocks + b, w, scale, min, out[r * stride]);
    }
}

void kern_ref_mul_quant(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                        const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                        size_t stride)
{
    for (uint32_t s = strip; s < strip + strips; s++)
        for (uint32_t lane = 0; lane < kern_lanes_of(m, s); lane++)
            mul_lane(m, kern_strip(m, s), lane, x, row, rows, out + s * KERN_LANES + lane, stride);
}

static float weight_at(enum kern_type type, const uint8_t *w, size_t i)
{
    if (type == KERN_F32) return ((const float *)(const void *)w)[i];
    uint16_t h = ((const uint16_t *)(const void *)w)[i];
    return type == KERN_F16 ? kern_f16_to_f32(h) : bits_to_float((uint32_t)h << 16);
}

static void ref_mul_plain(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                          const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                          size_t stride)
{
    for (uint32_t s = strip; s < strip + strips; s++) {
        const uint8_t *w = kern_strip(m, s);
        for (uint32_t r = row; r < row + rows; r++) {
            const float *in = x->f32 + (size_t)r * m->cols;
            for (uint32_t lane = 0; lane < kern_lanes_of(m, s); lane++) {
                float acc = 0.0f;
                for (uint32_t k = 0; k < m->cols; k++)
                    acc = fmaf(weight_at(m->type, w, (size_t)k * KERN_LANES + lane), in[k], acc);
                out[r * stride + s * KERN_LANES + lane] = acc;
            }
        }
    }
}

const struct kern kern_scalar = {
    .name = "scalar",
    .quantize = ref_quantize,
    .mul = KERN_MULS(ref_mul_plain, ref_mul_plain, ref_mul_plain, kern_ref_mul_quant),
    .rms_norm = ref_rms_norm,
    .silu_mul = ref_silu_mul,
    .gelu_mul = ref_gelu_mul,
    .cap_row = ref_cap_row,
    .exp_row = ref_exp_row,
    .attend = kern_ref_attend,
    .weigh = kern_ref_weigh,
    .add = kern_add,
    .add_scaled = kern_add_scaled,
    .rope_pairs = kern_rope_pairs,
    .rope_halves = kern_rope_halves,
    .put_k = kern_put_k,
    .put_v = kern_put_v,
    .i16_row = kern_ref_i16_row,
};
