/*
 * cloud_needle: before `pdd cloud` serves: whether its model finds needles (cloud/work/needle.h),
 * from the store where it was tested before. The log says what was found.
 */
#ifndef PDD_CLI_CLOUD_NEEDLE_H
#define PDD_CLI_CLOUD_NEEDLE_H

#include <stdbool.h>

#include "engine/engine.h"

/* Whether it does not: its prompts are not refined. */
bool cloud_needle_unfit(struct engine *e);

#endif
