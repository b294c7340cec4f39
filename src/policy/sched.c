/* sched: see sched.h. */
#include "policy/sched.h"

#include <stdbool.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

enum { RADIX_BITS = 11, RADIX = 1 << RADIX_BITS };

#define NO_ITEM UINT32_MAX

/* What a tenant has used, and its items of the kind that is being served. */
struct account {
    uint64_t used;
    uint64_t seen, wanted; /* numbers of the steps in which it had items, and wanted more */
    uint32_t first, last;  /* items in their order, linked by `next` */
};

struct sched {
    uint64_t step;
    uint64_t level; /* where a tenant starts that had no claim */
    struct account accounts[SCHED_TENANTS_MAX];
    uint32_t present[SCHED_TENANTS_MAX], n_present; /* tenants with items in this step */
    uint32_t heap[SCHED_TENANTS_MAX], n_heap;       /* those that are served, least used first */
    uint32_t order[SCHED_ITEMS_MAX], spare[SCHED_ITEMS_MAX], next[SCHED_ITEMS_MAX];
    uint64_t keys[SCHED_ITEMS_MAX];
};

int sched_new(struct sched **ret_sched, struct err *e)
{
    struct sched *s = mem_calloc(1, sizeof *s);
    if (!s) return err_set(e, ERR_NO_MEMORY, "no memory to plan steps with");
    *ret_sched = s;
    return 0;
}

void sched_free(struct sched *s)
{
    mem_free(s);
}

uint64_t sched_used(const struct sched *s, uint32_t tenant)
{
    return s->accounts[tenant].used;
}

static void charge(struct sched *s, const struct sched_item *it, uint32_t tokens)
{
    int32_t p = it->priority;
    p = p > SCHED_PRIORITY_MAX ? SCHED_PRIORITY_MAX : p;
    p = p < -SCHED_PRIORITY_MAX ? -SCHED_PRIORITY_MAX : p;
    uint64_t cost = (uint64_t)tokens * SCHED_CHARGE;
    s->accounts[it->tenant].used += p >= 0 ? cost >> p : cost << -p;
}

/* ---- order ---- */

/* Sort order[n] by the items' keys, ascending; equal ones stay as they are. */
static void sort_by_key(struct sched *s, uint32_t n)
{
    uint64_t low = UINT64_MAX, high = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t key = s->keys[s->order[i]];
        low = key < low ? key : low;
        high = key > high ? key : high;
    }
    uint32_t counts[RADIX], *from = s->order, *to = s->spare;
    uint64_t range = n > 0 ? high - low : 0;
    for (unsigned shift = 0; shift < 64 && range >> shift > 0; shift += RADIX_BITS) {
        memset(counts, 0, sizeof counts);
        for (uint32_t i = 0; i < n; i++)
            counts[(s->keys[from[i]] - low) >> shift & (RADIX - 1)]++;
        for (uint32_t b = 0, at = 0; b < RADIX; b++) {
            uint32_t count = counts[b];
            counts[b] = at;
            at += count;
        }
        for (uint32_t i = 0; i < n; i++)
            to[counts[(s->keys[from[i]] - low) >> shift & (RADIX - 1)]++] = from[i];
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != s->order) memcpy(s->order, from, n * sizeof *from);
}

/* Whether tenant a is served before b: less use, then the earlier first item. */
static bool before(const struct sched *s, uint32_t a, uint32_t b)
{
    const struct account *x = &s->accounts[a], *y = &s->accounts[b];
    if (x->used != y->used) return x->used < y->used;
    uint64_t i = s->keys[x->first], k = s->keys[y->first];
    return i != k ? i < k : x->first < y->first;
}

static void sift_down(struct sched *s, uint32_t at)
{
    uint32_t tenant = s->heap[at];
    for (uint32_t child; (child = 2 * at + 1) < s->n_heap; at = child) {
        if (child + 1 < s->n_heap && before(s, s->heap[child + 1], s->heap[child])) child++;
        if (!before(s, s->heap[child], tenant)) break;
        s->heap[at] = s->heap[child];
    }
    s->heap[at] = tenant;
}

/* Line the items of one kind up: each tenant's in their order, the tenants in a heap. */
static void line_up(struct sched *s, const struct sched_item *items, uint32_t n, bool decode)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        if ((items[i].waiting == 0) != decode) continue;
        s->keys[i] = decode ? items[i].served : items[i].arrived;
        s->order[count++] = i;
    }
    sort_by_key(s, count);
    for (uint32_t i = 0; i < s->n_present; i++)
        s->accounts[s->present[i]].first = NO_ITEM;
    s->n_heap = 0;
    for (uint32_t k = 0; k < count; k++) {
        uint32_t i = s->order[k], tenant = items[i].tenant;
        struct account *a = &s->accounts[tenant];
        s->next[i] = NO_ITEM;
        if (a->first == NO_ITEM) {
            a->first = i;
            s->heap[s->n_heap++] = tenant;
        } else {
            s->next[a->last] = i;
        }
        a->last = i;
    }
    for (uint32_t i = s->n_heap / 2; i-- > 0;)
        sift_down(s, i);
}

/* Take the next item off the line and give it at most `most` tokens. */
static uint32_t give_next(struct sched *s, struct sched_item *items, uint32_t most)
{
    struct account *a = &s->accounts[s->heap[0]];
    struct sched_item *it = &items[a->first];
    uint32_t wanted = it->waiting > 0 ? it->waiting : 1;
    it->given = wanted < most ? wanted : most;
    charge(s, it, it->given);
    a->first = s->next[a->first];
    if (a->first == NO_ITEM) s->heap[0] = s->heap[--s->n_heap];
    if (s->n_heap > 0) sift_down(s, 0);
    return it->given;
}

/* ---- a step ---- */

/* List the tenants with items; one without a claim starts level. Returns how many items decode. */
static uint32_t begin(struct sched *s, struct sched_item *items, uint32_t n)
{
    uint32_t decodes = 0;
    s->step++;
    s->n_present = 0;
    for (uint32_t i = 0; i < n; i++) {
        CHECK(items[i].tenant < SCHED_TENANTS_MAX);
        struct account *a = &s->accounts[items[i].tenant];
        items[i].given = 0;
        decodes += items[i].waiting == 0;
        if (a->seen == s->step) continue;
        if (a->wanted + 1 != s->step && a->used < s->level) a->used = s->level;
        a->seen = s->step;
        s->present[s->n_present++] = items[i].tenant;
    }
    return decodes;
}

/* Tokens of the step that decodes may not take, because a prompt waits. */
static uint32_t kept_for_prefill(bool waits, const struct sched_limits *limits)
{
    if (!waits || limits->step_tokens < 2 || limits->spans < 2) return 0;
    uint32_t share = limits->step_tokens / SCHED_PREFILL_SHARE;
    share = share > 0 ? share : 1;
    return share < limits->prefill_beside ? share : limits->prefill_beside;
}

static uint32_t give_decodes(struct sched *s, struct sched_item *items, uint32_t n,
                             uint32_t decodes, uint32_t room)
{
    if (decodes > room) {
        line_up(s, items, n, true);
        for (uint32_t k = 0; k < room; k++)
            give_next(s, items, 1);
        return room;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (items[i].waiting > 0) continue;
        items[i].given = 1;
        charge(s, &items[i], 1);
    }
    return decodes;
}

static uint32_t give_prefills(struct sched *s, struct sched_item *items, uint32_t n, uint32_t left,
                              uint32_t spans)
{
    uint32_t used = 0;
    line_up(s, items, n, false);
    for (; used < left && spans > 0 && s->n_heap > 0; spans--)
        used += give_next(s, items, left - used);
    return used;
}

/* A tenant that wanted more keeps a claim; the level is the least that one of them has used. */
static void settle(struct sched *s, const struct sched_item *items, uint32_t n)
{
    uint64_t least = UINT64_MAX, most = 0;
    for (uint32_t i = 0; i < n; i++)
        if (items[i].given < (items[i].waiting > 0 ? items[i].waiting : 1))
            s->accounts[items[i].tenant].wanted = s->step;
    for (uint32_t i = 0; i < s->n_present; i++) {
        const struct account *a = &s->accounts[s->present[i]];
        if (a->wanted == s->step && a->used < least) least = a->used;
        if (a->used > most) most = a->used;
    }
    if (least == UINT64_MAX) least = most;
    if (least > s->level) s->level = least;
}

uint32_t sched_step(struct sched *s, struct sched_item *items, uint32_t n,
                    const struct sched_limits *limits)
{
    CHECK(n <= SCHED_ITEMS_MAX);
    uint32_t decodes = begin(s, items, n);
    bool waits = decodes < n;
    uint32_t kept = kept_for_prefill(waits, limits);
    uint32_t room = limits->step_tokens - kept, most = limits->spans - (kept > 0);
    uint32_t used = give_decodes(s, items, n, decodes, room < most ? room : most);
    uint32_t left = limits->step_tokens - used, spans = limits->spans - used;
    uint32_t bound = used > 0 ? limits->prefill_beside : limits->prefill_alone;
    if (waits) used += give_prefills(s, items, n, left < bound ? left : bound, spans);
    settle(s, items, n);
    return used;
}
