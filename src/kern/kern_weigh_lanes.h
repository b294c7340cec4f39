/*
 * kern_weigh_lanes: the softmax weights of queries, for any width of registers. Scores come from
 * the very functions that attention has (kern_attend_lanes.h, kern_attend_i16_lanes.h, which a file
 * includes before this one); each row is softened by itself, in the reference's steps.
 */
#ifndef PDD_KERN_KERN_WEIGH_LANES_H
#define PDD_KERN_KERN_WEIGH_LANES_H

typedef void scores_fn(struct walk *w, uint32_t i0, const struct tiles *t, int wide);

#define SCORES(N)                                                                                  \
    static void scores_##N(struct walk *w, uint32_t i0, const struct tiles *t, int wide)           \
    {                                                                                              \
        if (wide)                                                                                  \
            group_scores(w, i0, N, t, 1);                                                          \
        else                                                                                       \
            group_scores(w, i0, N, t, 0);                                                          \
    }
EACH_GROUP(SCORES)

#define SCORES_ROW(N) scores_##N,
static scores_fn *const scores_of[] = {NULL, EACH_GROUP(SCORES_ROW)};

/* Scores of a tile for n queries from i0 on, with the cap; what a query does not see is -infinity.
 * They go to the tile's place in each query's row. */
static void weigh_group(struct walk_i16 *s, const struct kern_weigh *g, uint32_t i0, uint32_t n,
                        const struct tiles *t, int wide, float *row)
{
    s->w.batch = i0;
    if (g->kv == KERN_KV_I16) {
        scores_i16(s, i0, (int)n, t);
        scale_scores(s, i0, (int)n, kern_i16_scales(t->k, g->head_dim));
    } else {
        scores_of[n](&s->w, i0, t, wide);
    }
    for (uint32_t i = 0; i < n; i++, row += g->row_floats) {
        float *score = weights_of(&s->w, i0) + (size_t)i * KERN_TILE;
        if (g->softcap > 0.0f) cap_scores(score, g->softcap);
        hide_unseen(&s->w, i0 + i, score);
        memcpy(row, score, KERN_TILE * sizeof *row);
    }
}

/* A tile for all queries of a batch. */
static void weigh_tile(struct walk_i16 *s, const struct kern_weigh *g, uint32_t tile)
{
    _Alignas(64) float memory[KERN_HEAD_MAX * KERN_TILE];
    struct tiles t = {.k = g->k_tiles[tile]};
    const int wide =
        g->kv == KERN_KV_Q8 || (g->kv == KERN_KV_F16 && s->w.a->queries >= WIDE_QUERIES);
    s->from = KERN_TILE;
    s->to = 0;
    for (uint32_t i = 0; i < s->w.a->queries; i++) {
        s->from = s->w.from[i] < s->from ? s->w.from[i] : s->from;
        s->to = s->w.to[i] > s->to ? s->w.to[i] : s->to;
    }
    if (wide) {
        widen(&s->w, t.k, 0, memory);
        t.k = memory;
    }
    for (uint32_t i = 0, n; i < s->w.a->queries; i += n) {
        n = s->w.a->queries - i < QUERIES ? s->w.a->queries - i : QUERIES;
        weigh_group(s, g, i, n, &t, wide, g->rows + i * g->row_floats + (size_t)tile * KERN_TILE);
    }
}

/* Scores of a row become weights, and the larger of each and the best so far stays. */
INLINE void soften_row(float *row, uint32_t tiles, float factor, uint32_t best_tiles, float *best)
{
    const size_t n = (size_t)tiles * KERN_TILE;
    const size_t n_best = (size_t)(best_tiles < tiles ? best_tiles : tiles) * KERN_TILE;
    vec most = vec_load(row);
    for (size_t j = LANES; j < n; j += LANES)
        most = vec_max(most, vec_load(row + j));
    const vec max = vec_set(max_lanes(most));
    float total = 0.0f;
    for (size_t at = 0; at < n; at += KERN_TILE) {
        vec sum[FOLDED];
        UNROLL
        for (int j = 0; j < KERN_TILE / LANES; j++) {
            vec p = exp_below(vec_sub(vec_load(row + at + j * LANES), max));
            vec_store(row + at + j * LANES, p);
            sum[j % FOLDED] = j < FOLDED ? p : vec_add(sum[j % FOLDED], p);
        }
        total += fold_lanes(sum);
    }
    const vec by = vec_set(factor / total);
    for (size_t j = 0; j < n_best; j += LANES)
        vec_store(best + j, vec_max(vec_load(best + j), vec_mul(vec_load(row + j), by)));
}

/* The level's function. */
INLINE void weigh_lanes(const struct kern_weigh *g)
{
    struct walk_i16 s; /* weights need no beginning */
    uint32_t first[KERN_WEIGH_ROWS] = {0};
    for (uint32_t i = 0; i < g->queries; i += KERN_WEIGH_ROWS) {
        uint32_t left = g->queries - i, end = 0;
        const struct kern_attend a = {.queries = left < KERN_WEIGH_ROWS ? left : KERN_WEIGH_ROWS,
                                      .head_dim = g->head_dim,
                                      .q = g->q + i,
                                      .first = first,
                                      .n = g->n + i,
                                      .kv = g->kv};
        s.w.a = &a;
        s.w.value_bytes = g->kv == KERN_KV_Q8 ? 1 : 2;
        for (uint32_t k = 0; k < a.queries; k++) {
            end = a.n[k] > end ? a.n[k] : end;
            if (g->kv == KERN_KV_I16)
                s.q_scale[k] = row_i16(a.q[k], g->head_dim, s.q + (size_t)k * g->head_dim);
        }
        for (uint32_t tile = 0; tile * KERN_TILE < end; tile++) {
            walk_visible(&s.w, tile);
            weigh_tile(&s, g, tile);
        }
        for (uint32_t k = 0; k < a.queries; k++)
            soften_row(g->rows + k * g->row_floats, (end + KERN_TILE - 1) / KERN_TILE,
                       g->factor[i + k], g->best_tiles, g->best);
    }
}

#endif
