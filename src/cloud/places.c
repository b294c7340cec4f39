/* places: see places.h. */
#include "cloud/places.h"

static atomic_uint *of(struct places *p, uint32_t tenant)
{
    return &p->of_tenant[tenant % ADMIT_TENANTS_MAX];
}

enum admit_entry places_enter(struct places *p, uint32_t slots, uint32_t queue_max, uint32_t tenant)
{
    enum admit_entry entry = admit_enter(&(struct admit_door){
        slots, queue_max, atomic_load(&p->all), atomic_load(of(p, tenant)), tenant != 0});
    if (entry != ADMIT_ENTERS) return entry;
    atomic_fetch_add(&p->all, 1);
    atomic_fetch_add(of(p, tenant), 1);
    return entry;
}

void places_leave(struct places *p, uint32_t tenant)
{
    atomic_fetch_sub(of(p, tenant), 1);
    atomic_fetch_sub(&p->all, 1);
}

bool places_full(const struct places *p, uint32_t slots, uint32_t queue_max)
{
    return atomic_load(&p->all) >= slots + queue_max;
}
