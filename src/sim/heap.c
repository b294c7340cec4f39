/* heap: see heap.h. */
#include "sim/heap.h"

#include "base/mem.h"

static bool before(const struct heap_event *a, const struct heap_event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

void heap_push(struct heap *h, struct heap_event event)
{
    if (h->n == h->room) {
        uint32_t room = h->room ? h->room * 2 : 1024;
        struct heap_event *grown = mem_realloc(h->events, room * sizeof *grown);
        if (!grown) {
            h->failed = true;
            return;
        }
        h->events = grown;
        h->room = room;
    }
    event.order = h->pushed++;
    uint32_t at = h->n++;
    for (; at > 0 && before(&event, &h->events[(at - 1) / 2]); at = (at - 1) / 2)
        h->events[at] = h->events[(at - 1) / 2];
    h->events[at] = event;
}

bool heap_pop(struct heap *h, struct heap_event *ret_event)
{
    if (h->n == 0) return false;
    *ret_event = h->events[0];
    struct heap_event last = h->events[--h->n];
    uint32_t at = 0;
    for (uint32_t child; (child = 2 * at + 1) < h->n; at = child) {
        if (child + 1 < h->n && before(&h->events[child + 1], &h->events[child])) child++;
        if (!before(&h->events[child], &last)) break;
        h->events[at] = h->events[child];
    }
    if (h->n > 0) h->events[at] = last;
    return true;
}

uint64_t heap_first(const struct heap *h)
{
    return h->n > 0 ? h->events[0].at : UINT64_MAX;
}

void heap_release(struct heap *h)
{
    mem_free(h->events);
    *h = (struct heap){.n = 0};
}
