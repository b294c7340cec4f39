/*
 * heap: the events of a simulation in order of time; those of one time in the order in which they
 * were pushed. Pure.
 */
#ifndef PDD_SIM_HEAP_H
#define PDD_SIM_HEAP_H

#include <stdbool.h>
#include <stdint.h>

struct heap_event {
    uint64_t at, order; /* order: set by heap_push */
    uint32_t kind, who; /* the caller's */
    uint64_t detail;
};

struct heap {
    struct heap_event *events; /* [room] */
    uint32_t n, room;
    uint64_t pushed;
    bool failed;
};

/* Without memory the event is lost and `failed` is set, for ever: ask before trusting a result. */
void heap_push(struct heap *h, struct heap_event event);
bool heap_pop(struct heap *h, struct heap_event *ret_event);
uint64_t heap_first(const struct heap *h); /* its time; UINT64_MAX: empty */
void heap_release(struct heap *h);

#endif
