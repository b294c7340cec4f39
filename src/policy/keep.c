/* keep: see keep.h. */
#include "policy/keep.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

/* Best first; of equal ones the earlier. */
struct ranked {
    float best;
    uint32_t unit;
};

struct keep {
    uint32_t n, held, unit, n_units, n_messages;
    struct keep_unit *units; /* [n_units] */
    struct ranked *order;    /* [n_free] the best first */
    uint32_t n_free;
    uint32_t *floors; /* [n_messages] tokens that a message lacks of its floor, while choosing */
    uint32_t *sizes;  /* [n_messages] tokens */
    bool *grouped;    /* [n_units] chosen for its score, or beside such a one */
    uint32_t must;    /* new tokens of units that must stay */
};

const char *keep_refusal_name(enum keep_refusal refusal)
{
    static const char *const names[] = {"", "flat", "short", "full", "schema", "code", "unfit"};
    return names[refusal];
}

/* ---- units ---- */

static int check_prompt(const struct keep_prompt *p, struct err *e)
{
    if (p->n == 0 || p->held > p->n)
        return err_set(e, ERR_BAD_INPUT, "a prompt of %u tokens, of which %u are held", p->n,
                       p->held);
    for (uint32_t i = 0; i < p->n_messages; i++)
        if (p->ends[i] <= (i > 0 ? p->ends[i - 1] : 0) || p->ends[i] > p->n)
            return err_set(e, ERR_BAD_INPUT, "message %u ends at token %u", i, p->ends[i]);
    if (p->n_messages > 0 && p->ends[p->n_messages - 1] != p->n)
        return err_set(e, ERR_BAD_INPUT, "the last message ends at token %u of %u",
                       p->ends[p->n_messages - 1], p->n);
    for (uint32_t i = 0; i < p->n_whole; i++)
        if (p->whole[i].from > p->whole[i].to || p->whole[i].to > p->n)
            return err_set(e, ERR_BAD_INPUT, "tokens %u to %u are to stay, of %u", p->whole[i].from,
                           p->whole[i].to, p->n);
    return 0;
}

/* stays[i]: token i must stay. */
static void mark_musts(const struct keep_prompt *p, bool *stays)
{
    uint32_t question = p->n > KEEP_QUESTION ? p->n - KEEP_QUESTION : 0;
    memset(stays, 0, p->n);
    memset(stays, 1, p->held);
    memset(stays + question, 1, p->n - question);
    for (uint32_t i = 0; i < p->n_whole; i++)
        memset(stays + p->whole[i].from, 1, p->whole[i].to - p->whole[i].from);
}

static enum keep_cut cut_at(const struct keep_prompt *p, const bool *stays, uint32_t i)
{
    enum keep_cut cut = p->cuts ? (enum keep_cut)p->cuts[i] : KEEP_CUT_POOR;
    return cut != KEEP_CUT_NEVER && stays[i] != stays[i - 1] ? KEEP_CUT_MUST : cut;
}

/* Where the unit that begins at `from` ends, at the latest with its message. */
static uint32_t unit_end(const struct keep_prompt *p, const bool *stays, uint32_t from,
                         uint32_t end, uint32_t unit)
{
    uint32_t best = 0; /* a cut about where it is due */
    for (uint32_t i = from + 1; i < end; i++) {
        enum keep_cut cut = cut_at(p, stays, i);
        uint32_t n = i - from;
        if (cut == KEEP_CUT_MUST) return i;
        if (cut == KEEP_CUT_GOOD && n >= unit - unit / 4 && n <= unit + unit / 4) return i;
        if (cut != KEEP_CUT_NEVER && n >= unit && !best) best = i;
        if (best && n >= unit + unit / 4) return best;
    }
    return best && end - best > unit / 4 ? best : end;
}

/* The units of a message, which begins at `from`; counts them, and stores them unless `units` is
 * NULL. */
static uint32_t divide(const struct keep_prompt *p, const bool *stays, uint32_t message,
                       uint32_t from, uint32_t unit, struct keep_unit *units)
{
    uint32_t n = 0, end = p->n_messages ? p->ends[message] : p->n;
    while (from < end) {
        uint32_t to = unit_end(p, stays, from, end, unit);
        bool must = from == 0;
        for (uint32_t i = from; i < to; i++)
            must = must || stays[i];
        if (units)
            units[n] = (struct keep_unit){.from = from, .to = to, .message = message, .must = must};
        n++;
        from = to;
    }
    return n;
}

static uint32_t divide_all(const struct keep *k, const struct keep_prompt *p, const bool *stays,
                           struct keep_unit *units)
{
    uint32_t n = 0;
    for (uint32_t m = 0; m < k->n_messages; m++)
        n += divide(p, stays, m, m ? p->ends[m - 1] : 0, k->unit, units ? units + n : NULL);
    return n;
}

static uint32_t size_of(const struct keep_unit *u)
{
    return u->to - u->from;
}

/* Tokens of a unit that the device does not have. */
static uint32_t cost_of(const struct keep *k, const struct keep_unit *u)
{
    if (u->to <= k->held) return 0;
    return u->to - (u->from > k->held ? u->from : k->held);
}

static void sum_up(struct keep *k)
{
    for (uint32_t i = 0; i < k->n_units; i++) {
        k->sizes[k->units[i].message] += size_of(&k->units[i]);
        if (k->units[i].must)
            k->must += cost_of(k, &k->units[i]);
        else
            k->n_free++;
    }
}

int keep_open(const struct keep_prompt *p, struct keep **ret_keep, struct err *e)
{
    int code = check_prompt(p, e);
    if (code) return code;
    struct keep *k = mem_calloc(1, sizeof *k);
    bool *stays = mem_alloc(p->n * sizeof *stays);
    if (!k || !stays) goto no_memory;
    k->n = p->n;
    k->held = p->held;
    k->unit = p->n > KEEP_LONG ? KEEP_UNIT_LONG : KEEP_UNIT;
    k->n_messages = p->n_messages ? p->n_messages : 1;
    mark_musts(p, stays);
    k->n_units = divide_all(k, p, stays, NULL);
    k->units = mem_calloc(k->n_units, sizeof *k->units);
    k->order = mem_calloc(k->n_units, sizeof *k->order); /* all may be free */
    k->floors = mem_calloc(k->n_messages, sizeof *k->floors);
    k->sizes = mem_calloc(k->n_messages, sizeof *k->sizes);
    k->grouped = mem_calloc(k->n_units, sizeof *k->grouped);
    if (!k->units || !k->order || !k->floors || !k->sizes || !k->grouped) goto no_memory;
    divide_all(k, p, stays, k->units);
    sum_up(k);
    mem_free(stays);
    *ret_keep = k;
    return 0;
no_memory:
    mem_free(stays);
    keep_close(k);
    return err_set(e, ERR_NO_MEMORY, "no memory to refine a prompt of %u tokens", p->n);
}

void keep_close(struct keep *k)
{
    if (!k) return;
    mem_free(k->units);
    mem_free(k->order);
    mem_free(k->floors);
    mem_free(k->sizes);
    mem_free(k->grouped);
    mem_free(k);
}

const struct keep_unit *keep_units(const struct keep *k, uint32_t *ret_n)
{
    *ret_n = k->n_units;
    return k->units;
}

/* ---- the choice ---- */

struct choice {
    struct keep *k;
    uint32_t room;        /* new tokens that may still be kept */
    uint32_t kept;        /* new tokens that are */
    double score, scored; /* of all free text; of what is kept of it */
};

static uint32_t room_of(const struct keep *k, const struct keep_limits *limits)
{
    return (uint32_t)((double)limits->ratio * (double)(k->n - k->held));
}

enum keep_refusal keep_refuses(const struct keep *k, const struct keep_limits *limits)
{
    if (k->n - k->held < limits->new_least) return KEEP_SHORT;
    return k->must > room_of(k, limits) ? KEEP_FULL : KEEP_OK;
}

/* What a unit weighs: its best score for each token, as if pooled over the unit. */
static double weight_of(const struct keep_unit *u)
{
    return (double)u->best * (double)size_of(u);
}

static void take(struct choice *c, struct keep_unit *u)
{
    uint32_t cost = cost_of(c->k, u), size = size_of(u), *floor = &c->k->floors[u->message];
    if (u->kept) return;
    u->kept = true;
    c->kept += cost;
    c->room -= cost < c->room ? cost : c->room;
    *floor -= size < *floor ? size : *floor;
    if (!u->must) c->scored += weight_of(u);
}

static int compare(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->best != y->best) return x->best > y->best ? -1 : 1;
    return x->unit < y->unit ? -1 : 1;
}

/* Scores of units, and the order of the free ones. */
static void rank(struct choice *c, const float *scores)
{
    struct keep *k = c->k;
    uint32_t n = 0;
    for (uint32_t i = 0; i < k->n_units; i++) {
        struct keep_unit *u = &k->units[i];
        u->best = 0.0f;
        u->kept = false;
        for (uint32_t t = u->from; t < u->to; t++)
            u->best = scores[t] > u->best ? scores[t] : u->best;
        if (u->must) continue;
        c->score += weight_of(u);
        k->order[n++] = (struct ranked){u->best, i};
    }
    qsort(k->order, n, sizeof *k->order, compare);
}

/* Tokens of each message that must stay, also where its text is weak. */
static void set_floors(struct keep *k, float floor)
{
    for (uint32_t m = 0; m < k->n_messages; m++) {
        k->floors[m] = (uint32_t)((double)floor * (double)k->sizes[m]);
        if (k->floors[m] < k->unit / 2) k->floors[m] = 0;
    }
}

/* A unit and, where wanted, those beside it in its message, if they are not long themselves. */
static uint32_t group_of(const struct keep *k, uint32_t i, bool neighbours, uint32_t list[3])
{
    uint32_t n = 0;
    list[n++] = i;
    if (!neighbours) return n;
    for (int side = -1; side <= 1; side += 2) {
        if ((side < 0 && i == 0) || (side > 0 && i + 1 == k->n_units)) continue;
        uint32_t at = side < 0 ? i - 1 : i + 1;
        const struct keep_unit *u = &k->units[at];
        if (u->message == k->units[i].message && size_of(u) <= 2 * k->unit) list[n++] = at;
    }
    return n;
}

/* The best units until they cover enough, whatever floors have kept besides. The first group that
 * does not fit ends it, so that a larger ratio keeps a superset. */
static void take_best(struct choice *c, float coverage, bool neighbours)
{
    struct keep *k = c->k;
    double covered = 0.0;
    memset(k->grouped, 0, k->n_units * sizeof *k->grouped);
    for (uint32_t i = 0; i < k->n_free && covered < (double)coverage * c->score; i++) {
        uint32_t list[3], n = group_of(k, k->order[i].unit, neighbours, list), cost = 0;
        for (uint32_t j = 0; j < n; j++)
            if (!k->units[list[j]].kept) cost += cost_of(k, &k->units[list[j]]);
        if (cost > c->room) return;
        for (uint32_t j = 0; j < n; j++) {
            struct keep_unit *u = &k->units[list[j]];
            if (!k->grouped[list[j]] && !u->must) covered += weight_of(u);
            k->grouped[list[j]] = true;
            take(c, u);
        }
    }
}

static struct keep_choice result(const struct choice *c, enum keep_refusal refusal)
{
    const struct keep *k = c->k;
    struct keep_choice r = {.refusal = refusal, .coverage = 1.0f, .ratio = 1.0f};
    for (uint32_t i = 0; i < k->n_units; i++)
        r.tokens += k->units[i].kept ? size_of(&k->units[i]) : 0;
    if (k->n > k->held) r.ratio = (float)c->kept / (float)(k->n - k->held);
    if (k->n_free > 0) r.coverage = c->score > 0.0 ? (float)(c->scored / c->score) : 0.0f;
    return r;
}

struct keep_choice keep_choose(struct keep *k, const float *scores,
                               const struct keep_limits *limits)
{
    struct choice c = {.k = k, .room = room_of(k, limits)};
    uint32_t room = c.room;
    enum keep_refusal refusal = keep_refuses(k, limits);
    rank(&c, scores);
    set_floors(k, limits->floor);
    for (uint32_t i = 0; i < k->n_units; i++)
        if (k->units[i].must) take(&c, &k->units[i]);
    for (uint32_t i = 0; i < k->n_free; i++)
        if (k->floors[k->units[k->order[i].unit].message] > 0)
            take(&c, &k->units[k->order[i].unit]);
    if (refusal == KEEP_OK && c.kept > room) refusal = KEEP_FULL;
    if (refusal == KEEP_OK) take_best(&c, limits->coverage, limits->neighbours);
    struct keep_choice r = result(&c, refusal);
    if (refusal == KEEP_OK && k->n_free > 0 && r.coverage < limits->least) r.refusal = KEEP_FLAT;
    return r;
}

void keep_bits(const struct keep *k, uint8_t *bits)
{
    memset(bits, 0, ((size_t)k->n + 7) / 8);
    for (uint32_t i = 0; i < k->n_units; i++)
        for (uint32_t t = k->units[i].from; k->units[i].kept && t < k->units[i].to; t++)
            bits[t / 8] |= (uint8_t)(1u << t % 8);
}
