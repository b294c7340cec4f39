/* method: see method.h. */
#include "sim/method.h"

#include <string.h>

static const struct method methods[] = {
    {.name = "device", .title = "device only", .local = true, .pace = PACE_OFF},
    {.name = "cloud", .title = "cloud only", .cloud = true, .tokens = METHOD_ALL, .pace = PACE_OFF},
    {.name = "race",
     .title = "race without handover",
     .cloud = true,
     .local = true,
     .tokens = METHOD_ALL,
     .pace = PACE_OFF,
     .race = true},
    {.name = "disco",
     .title = "migration (DiSCo)",
     .source =
         "arXiv 2502.11417: buffer = pace x migration time; the device starts when it is full",
     .cloud = true,
     .local = true,
     .tokens = METHOD_BUFFER,
     .migrates = true,
     .pace = PACE_SMOOTH},
    {.name = "kv",
     .title = "KV transfer, raw",
     .source = "100 Mbit/s",
     .cloud = true,
     .local = true,
     .tokens = METHOD_ONE,
     .pace = PACE_OFF,
     .kv_share = 1.0},
    {.name = "kv4",
     .title = "KV transfer, a quarter",
     .source = "100 Mbit/s",
     .cloud = true,
     .local = true,
     .tokens = METHOD_ONE,
     .pace = PACE_OFF,
     .kv_share = 0.25},
    {.name = "speculation",
     .title = "remote speculation",
     .source = "108 ms a token, as published",
     .cloud = true,
     .tokens = METHOD_ALL,
     .pace = PACE_OFF,
     .every_us = 108000},
    {.name = "lossless",
     .title = "P/D-Device, always both, whole prompt",
     .cloud = true,
     .local = true,
     .plan = METHOD_PLAN_PLAIN,
     .pace = PACE_SMOOTH},
    {.name = "refined",
     .title = "P/D-Device, always both, refined prompt",
     .cloud = true,
     .local = true,
     .plan = METHOD_PLAN_PLAIN,
     .pace = PACE_SMOOTH,
     .refines = true},
    {.name = "planned",
     .title = "P/D-Device, planned, whole prompt",
     .cloud = true,
     .local = true,
     .plan = METHOD_PLAN_FREE,
     .pace = PACE_SMOOTH},
    {.name = "planned-refined",
     .title = "P/D-Device, planned, may refine",
     .cloud = true,
     .local = true,
     .plan = METHOD_PLAN_FREE,
     .pace = PACE_SMOOTH,
     .refines = true},
    {.name = "oracle",
     .title = "clairvoyant plan, whole prompt",
     .source = "policy/plan, told length, T1 and speeds",
     .cloud = true,
     .local = true,
     .plan = METHOD_PLAN_CLAIRVOYANT,
     .pace = PACE_SMOOTH},
    {.name = "oracle-distribution",
     .title = "plan that knows the distributions, whole prompt",
     .source = "policy/plan, told true speeds, lengths and T1 by class of prompt",
     .cloud = true,
     .local = true,
     .plan = METHOD_PLAN_DISTRIBUTION,
     .pace = PACE_SMOOTH},
};

const struct method *method_at(uint32_t i)
{
    return i < sizeof methods / sizeof *methods ? &methods[i] : NULL;
}

const struct method *method_find(const char *name)
{
    for (uint32_t i = 0; method_at(i); i++)
        if (strcmp(methods[i].name, name) == 0) return &methods[i];
    return NULL;
}
