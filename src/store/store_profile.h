/*
 * store_profile: the profile of a device and its clouds in the store: estimates by owner (this
 * device with this model; this cloud), lengths of answers by kind of question. Threads as store.h.
 */
#ifndef PDD_STORE_STORE_PROFILE_H
#define PDD_STORE_STORE_PROFILE_H

#include "policy/profile.h"
#include "store/store.h"

/* Whose figures they are. `device` names model, numerics and what else decides its speed; `cloud`
 * is a URL, of which user and password are left out. NULL: none. */
struct store_owners {
    const char *device, *cloud;
};

/* Fill in what the store has; the rest of *p, and what no profile can hold, stays as it was. */
int store_profile_load(struct store *s, const struct store_owners *owners, struct profile *p,
                       struct err *e);
/* In one transaction. The last program to write wins. */
int store_profile_save(struct store *s, const struct store_owners *owners, const struct profile *p,
                       struct err *e);

#endif
