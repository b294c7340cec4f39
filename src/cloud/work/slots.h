/*
 * slots: who is inside a backend, running or waiting: all together, and each tenant. It counts;
 * policy/admit says who may come in.
 *
 * Threads: one thread enters and asks; any may leave.
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

/* How many there may be: see admit_door. */
struct slots_room {
    uint32_t slots, slots_max, queue_max;
};

/* What admit_enter says; when the tenant enters, it is counted until slots_leave. */
enum admit_entry slots_enter(struct slots *p, struct slots_room room, uint32_t tenant);
void slots_leave(struct slots *p, uint32_t tenant);
/* Whether nobody may come in, by what those inside are: with keys, or without. */
bool slots_full(struct slots *p, struct slots_room room);

#endif
