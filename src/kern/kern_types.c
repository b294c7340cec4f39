/* kern_types: facts of the weight types, from the table of kern_types.h. */
#include "base/check.h"
#include "kern/kern.h"

#define FLOATS(name, number, file, block, bytes) {#name, number, file, block, bytes, false},
#define QUANTS(name, number, file, block, bytes, ...) {#name, number, file, block, bytes, true},
static const struct kern_type_info types[KERN_TYPES] = {KERN_FLOATS(FLOATS) KERN_QUANTS(QUANTS)};

const struct kern_type_info *kern_type_info(enum kern_type type)
{
    CHECK((unsigned)type < KERN_TYPES);
    return &types[type];
}

bool kern_type_find(uint32_t number, enum kern_type *ret_type)
{
    for (int t = 0; t < KERN_TYPES; t++) {
        if (types[t].number != number) continue;
        *ret_type = (enum kern_type)t;
        return true;
    }
    return false;
}
