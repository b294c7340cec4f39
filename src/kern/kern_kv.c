/*
 * kern_kv: tiles of the KV cache, above all in int16 and in 8 bits. Plain C for every machine: a
 * row is stored once and a tile is opened once for all queries that see it, so neither is where
 * time goes at many queries.
 */
#include <math.h>
#include <string.h>

#include "base/check.h"
#include "kern/kern_impl.h"

uint32_t kern_kv_multiple(enum kern_kv kv)
{
    switch (kv) {
    case KERN_KV_F16:
        break;
    case KERN_KV_Q8:
        return KERN_BLOCK;
    case KERN_KV_I16:
        return KERN_LANES;
    }
    return 1;
}

size_t kern_tile_bytes(enum kern_kv kv, uint32_t head_dim)
{
    size_t values = (size_t)head_dim * KERN_TILE;
    CHECK(head_dim % kern_kv_multiple(kv) == 0);
    switch (kv) {
    case KERN_KV_F16:
        break;
    case KERN_KV_Q8:
        return values + values / KERN_BLOCK * 2;
    case KERN_KV_I16:
        return kern_i16_scales_at(head_dim) + KERN_TILE * sizeof(float);
    }
    return values * 2;
}

static void put_scale_i16(void *tile, uint32_t head_dim, uint32_t slot, float scale)
{
    memcpy((uint8_t *)tile + kern_i16_scales_at(head_dim) + slot * sizeof scale, &scale,
           sizeof scale);
}

static void put_k_i16(const struct kern *by, const float *k, uint32_t head_dim, uint32_t slot,
                      void *tile)
{
    int16_t q[KERN_HEAD_MAX], *out = (int16_t *)tile + (size_t)slot * 2;
    put_scale_i16(tile, head_dim, slot, by->i16_row(k, head_dim, q));
    for (uint32_t d = 0; d < head_dim; d += 2)
        memcpy(out + (size_t)d * KERN_TILE, q + d, 2 * sizeof *q);
}

static void put_v_i16(const struct kern *by, const float *v, uint32_t head_dim, uint32_t slot,
                      void *tile)
{
    int16_t q[KERN_HEAD_MAX], *out = (int16_t *)tile + (size_t)(slot / 2) * head_dim * 2 + slot % 2;
    put_scale_i16(tile, head_dim, slot, by->i16_row(v, head_dim, q));
    for (size_t d = 0; d < head_dim; d++)
        out[d * 2] = q[d];
}

/* 32 values as int8, round to nearest even, and the half float that scales them. */
static uint16_t put_block(const float *x, int8_t q[KERN_BLOCK])
{
    float max = 0.0f;
    for (uint32_t k = 0; k < KERN_BLOCK; k++)
        max = fabsf(x[k]) > max ? fabsf(x[k]) : max;
    float inverse = max > 0.0f ? 127.0f / max : 0.0f;
    if (!(inverse <= 3.0e38f)) /* a block of denormals: taken as zero, as kern_act does */
        inverse = 0.0f;
    for (uint32_t k = 0; k < KERN_BLOCK; k++) {
        float shifted = x[k] * inverse + EXP_MAGIC;
        uint32_t bits;
        memcpy(&bits, &shifted, 4);
        q[k] = (int8_t)(uint8_t)bits;
    }
    return kern_f32_to_f16(max / 127.0f);
}

static void put_scale(uint8_t *tile, uint32_t head_dim, uint32_t block, uint32_t slot, uint16_t d)
{
    size_t at = (size_t)head_dim * KERN_TILE + ((size_t)block * KERN_TILE + slot) * 2;
    memcpy(tile + at, &d, 2);
}

void kern_put_k_q8(const float *k, uint32_t head_dim, uint32_t slot, void *tile)
{
    int8_t *out = tile, q[KERN_BLOCK];
    for (uint32_t b = 0; b < head_dim / KERN_BLOCK; b++, k += KERN_BLOCK) {
        put_scale(tile, head_dim, b, slot, put_block(k, q));
        for (uint32_t i = 0; i < KERN_BLOCK; i++)
            out[((size_t)b * KERN_BLOCK + i) * KERN_TILE + slot] = q[i];
    }
}

void kern_put_v_q8(const float *v, uint32_t head_dim, uint32_t slot, void *tile)
{
    int8_t *out = (int8_t *)tile + (size_t)slot * head_dim;
    for (uint32_t b = 0; b < head_dim / KERN_BLOCK; b++, v += KERN_BLOCK)
        put_scale(tile, head_dim, b, slot, put_block(v, out + (size_t)b * KERN_BLOCK));
}

float kern_tile_scale_q8(const void *tile, uint32_t head_dim, uint32_t block, uint32_t slot)
{
    uint16_t d;
    size_t at = (size_t)head_dim * KERN_TILE + ((size_t)block * KERN_TILE + slot) * 2;
    memcpy(&d, (const uint8_t *)tile + at, 2);
    return kern_f16_to_f32(d);
}

void kern_open_k_q8(const void *tile, uint32_t head_dim, float *out)
{
    const int8_t *q = tile;
    for (uint32_t b = 0; b < head_dim / KERN_BLOCK; b++) {
        float d[KERN_TILE];
        for (uint32_t t = 0; t < KERN_TILE; t++)
            d[t] = kern_tile_scale_q8(tile, head_dim, b, t);
        for (uint32_t i = 0; i < KERN_BLOCK; i++, q += KERN_TILE, out += KERN_TILE)
            for (uint32_t t = 0; t < KERN_TILE; t++)
                out[t] = (float)q[t] * d[t];
    }
}

void kern_open_v_q8(const void *tile, uint32_t head_dim, float *out)
{
    const int8_t *q = tile;
    for (uint32_t t = 0; t < KERN_TILE; t++) {
        for (uint32_t b = 0; b < head_dim / KERN_BLOCK; b++, q += KERN_BLOCK, out += KERN_BLOCK) {
            float d = kern_tile_scale_q8(tile, head_dim, b, t);
            for (uint32_t i = 0; i < KERN_BLOCK; i++)
                out[i] = (float)q[i] * d;
        }
    }
}

void kern_store_k(const struct kern *by, enum kern_kv kv, const float *k, uint32_t head_dim,
                  uint32_t slot, void *tile)
{
    switch (kv) {
    case KERN_KV_F16:
        by->put_k(k, head_dim, slot, tile);
        break;
    case KERN_KV_Q8:
        kern_put_k_q8(k, head_dim, slot, tile);
        break;
    case KERN_KV_I16:
        put_k_i16(by, k, head_dim, slot, tile);
        break;
    }
}

void kern_store_v(const struct kern *by, enum kern_kv kv, const float *v, uint32_t head_dim,
                  uint32_t slot, void *tile)
{
    switch (kv) {
    case KERN_KV_F16:
        by->put_v(v, head_dim, slot, tile);
        break;
    case KERN_KV_Q8:
        kern_put_v_q8(v, head_dim, slot, tile);
        break;
    case KERN_KV_I16:
        put_v_i16(by, v, head_dim, slot, tile);
        break;
    }
}
