/*
 * kern_widen_avx512: a chunk of a packed strip as bytes with float scales, for products of many
 * rows, which then need not know the type.
 */
#include "kern/kern_quant_avx512.h"

INLINE void widen_weights(const uint8_t *unit, uint32_t units, enum kern_type type, int bias,
                          uint8_t *out)
{
    const struct kern_form f = kern_forms[type];
    const __m512i add = _mm512_set1_epi8((char)bias);
    for (uint32_t u = 0; u < units; u++, unit += kern_unit_bytes(type)) {
        for (uint32_t b = 0; b < f.blocks; b++, out += 512) {
            __m512i w[8];
            unpack_block(unit + b * kern_block_bytes(type), type, w);
            UNROLL
            for (int g = 0; g < 8; g++)
                _mm512_store_si512(out + g * 64, bias ? _mm512_add_epi8(w[g], add) : w[g]);
        }
    }
}

INLINE void widen_scales(const uint8_t *unit, const uint8_t *halves, uint32_t units,
                         enum kern_type type, float *scale, float *min)
{
    const struct kern_form f = kern_forms[type];
    const uint32_t subs = (uint32_t)f.blocks * KERN_BLOCK / f.sub;
    for (uint32_t u = 0; u < units; u++) {
        __m512 d = unit_scale(halves, type), m = unit_min(halves, type);
        for (uint32_t s = 0; s < subs; s++, scale += KERN_LANES) {
            _mm512_storeu_ps(scale, scale_of(unit, type, s, d));
            if (!f.min) continue;
            _mm512_storeu_ps(min, min_of(unit, type, s, m));
            min += KERN_LANES;
        }
        unit += kern_unit_bytes(type);
        halves += kern_half_bytes(type);
    }
}

INLINE void widen(const struct kern_mat *m, uint32_t strip, uint32_t block, uint32_t blocks,
                  const struct kern_wide *to, enum kern_type type)
{
    const struct kern_form f = kern_forms[type];
    const uint8_t *base = kern_strip(m, strip);
    const uint32_t first = block / f.blocks, units = blocks / f.blocks;
    const uint8_t *unit = base + first * kern_unit_bytes(type);
    widen_scales(unit, base + kern_halves_at(m) + first * kern_half_bytes(type), units, type,
                 to->scale, to->min);
    if (to->as_signed)
        widen_weights(unit, units, type, wide_bias(type) - (f.min ? 0 : KERN_Q8_OFFSET), to->w);
    else if (type != KERN_Q8_0)
        widen_weights(unit, units, type, wide_bias(type), to->w);
}

typedef void widen_fn(const struct kern_mat *m, uint32_t strip, uint32_t block, uint32_t blocks,
                      const struct kern_wide *to);

/* A function for each type, which the compiler sees alone: all in one, a new type changed the
 * others' registers and speed. */
#define EACH(name, ...)                                                                            \
    static void widen_##name(const struct kern_mat *m, uint32_t strip, uint32_t block,             \
                             uint32_t blocks, const struct kern_wide *to)                          \
    {                                                                                              \
        widen(m, strip, block, blocks, to, KERN_##name);                                           \
    }
KERN_QUANTS(EACH)
#undef EACH

#define EACH(name, ...) [KERN_##name] = widen_##name,
static widen_fn *const widen_fns[KERN_TYPES] = {KERN_QUANTS(EACH)};
#undef EACH

void kern_avx512_widen(const struct kern_mat *m, uint32_t strip, uint32_t block, uint32_t blocks,
                       const struct kern_wide *to)
{
    widen_fns[m->type](m, strip, block, blocks, to);
}
