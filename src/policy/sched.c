/* sched: see sched.h. */
#include "policy/sched.h"

#include <stddef.h>

#include "base/check.h"

/* The next item of a kind that has nothing yet: the smallest key, the lowest index on a tie. */
static struct sched_item *next_of(struct sched_item *items, uint32_t n, bool decode)
{
    struct sched_item *best = NULL;
    for (uint32_t i = 0; i < n; i++) {
        struct sched_item *it = &items[i];
        if (it->given > 0 || (it->waiting == 0) != decode) continue;
        uint64_t key = decode ? it->served : it->arrived;
        if (!best || key < (decode ? best->served : best->arrived)) best = it;
    }
    return best;
}

/* Decodes all fit in the usual case; only then is the order of no importance. */
static uint32_t give_decodes(struct sched_item *items, uint32_t n, uint32_t room)
{
    uint32_t decodes = 0;
    for (uint32_t i = 0; i < n; i++)
        decodes += items[i].waiting == 0;
    if (decodes <= room) {
        for (uint32_t i = 0; i < n; i++)
            items[i].given = items[i].waiting == 0;
        return decodes;
    }
    for (uint32_t k = 0; k < room; k++)
        next_of(items, n, true)->given = 1;
    return room;
}

/* Tokens of the step that decodes may not take, because a prompt waits. */
static uint32_t kept_for_prefill(const struct sched_item *items, uint32_t n,
                                 const struct sched_limits *limits)
{
    bool waits = false;
    for (uint32_t i = 0; i < n; i++)
        waits = waits || items[i].waiting > 0;
    if (!waits || limits->step_tokens < 2 || limits->spans < 2) return 0;
    uint32_t share = limits->step_tokens / SCHED_PREFILL_SHARE;
    share = share > 0 ? share : 1;
    return share < limits->prefill_beside ? share : limits->prefill_beside;
}

uint32_t sched_step(struct sched_item *items, uint32_t n, const struct sched_limits *limits)
{
    CHECK(n <= SCHED_ITEMS_MAX);
    for (uint32_t i = 0; i < n; i++)
        items[i].given = 0;
    uint32_t kept = kept_for_prefill(items, n, limits);
    uint32_t room = limits->step_tokens - kept;
    if (room > limits->spans - (kept > 0)) room = limits->spans - (kept > 0);
    uint32_t decodes = give_decodes(items, n, room), spans = decodes;
    uint32_t left = limits->step_tokens - decodes, used = decodes;
    if (decodes > 0 && left > limits->prefill_beside) left = limits->prefill_beside;
    while (left > 0 && spans < limits->spans) {
        struct sched_item *it = next_of(items, n, false);
        if (!it) break;
        it->given = it->waiting < left ? it->waiting : left;
        left -= it->given;
        used += it->given;
        spans++;
    }
    return used;
}
