/*
 * slots: counts the jobs inside a backend, running or waiting, in all and by tenant. policy/admit
 * decides whether one more may enter.
 *
 * Threads: one thread calls slots_enter and slots_full; any may call slots_leave.
 */
#ifndef PDD_CLOUD_WORK_SLOTS_H
#define PDD_CLOUD_WORK_SLOTS_H

#include <stdatomic.h>
#include <stdint.h>

#include "policy/admit.h"

struct slots {
    atomic_uint all;
    atomic_uint of_tenant[ADMIT_TENANTS_MAX]; /* by job.tenant, modulo their number */
};

/* How many there may be: see admit_state. */
struct slots_room {
    uint32_t slots, slots_max, queue_max;
};

/* The decision of admit_enter; a job that enters is counted until slots_leave. */
enum admit_entry slots_enter(struct slots *p, struct slots_room room, uint32_t tenant);
void slots_leave(struct slots *p, uint32_t tenant);
/* Whether every job would be refused, judged by the jobs inside: with keys, or without. */
bool slots_full(struct slots *p, struct slots_room room);

#endif
