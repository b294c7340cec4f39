/* slots: see slots.h. */
#include "cloud/work/slots.h"

#include "base/check.h"

static atomic_uint *of(struct slots *p, uint32_t tenant)
{
    return &p->of_tenant[tenant % ADMIT_TENANTS_MAX];
}

static struct admit_state state_of(struct slots *p, struct slots_room room, uint32_t own)
{
    return (struct admit_state){.slots = room.slots,
                                .slots_max = room.slots_max,
                                .queue_max = room.queue_max,
                                .inside = atomic_load(&p->all),
                                .inside_own = own};
}

enum admit_entry slots_enter(struct slots *p, struct slots_room room, uint32_t tenant)
{
    struct admit_state state = state_of(p, room, atomic_load(of(p, tenant)));
    state.keyed = tenant != 0;
    enum admit_entry entry = admit_enter(&state);
    if (entry != ADMIT_ENTERS) return entry;
    atomic_fetch_add(&p->all, 1);
    atomic_fetch_add(of(p, tenant), 1);
    return entry;
}

void slots_leave(struct slots *p, uint32_t tenant)
{
    unsigned own = atomic_fetch_sub(of(p, tenant), 1), all = atomic_fetch_sub(&p->all, 1);
    CHECK(own > 0 && all > 0);
}

bool slots_full(struct slots *p, struct slots_room room)
{
    struct admit_state state = state_of(p, room, 0);
    state.keyed = atomic_load(of(p, 0)) == 0;
    return admit_enter(&state) == ADMIT_FULL;
}
